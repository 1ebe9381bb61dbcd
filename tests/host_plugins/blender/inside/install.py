"""What a user does with the zip: install, use, switch off and on again, end Blender.

install.py ZIP on|off ends with the extension switched on, as a user's Blender does, or off. It ends
as Python does, without os._exit: that it neither crashes nor hangs then is a part of the test.
"""

import importlib
import json
import sys

import bpy  # isort: split

import addon_utils  # is found once bpy is there

ZIP, END = sys.argv[1:]
NAME = "bl_ext.user_default.fresco_bridge"


def refuse(error: Exception) -> None:
    """What goes wrong while it is switched on or off must not only be printed."""
    raise error


def on() -> bool:
    """Whether the extension is switched on and says so."""
    switched, loaded = addon_utils.check(NAME)
    return bool(switched and loaded)


def panels() -> list[str]:
    """The panels of the sequencer's sidebar that are of the extension."""
    return [
        name
        for name in dir(bpy.types)
        if getattr(getattr(bpy.types, name), "bl_category", "") == "Style"
    ]


bpy.ops.extensions.package_install_files(
    filepath=ZIP, repo="user_default", enable_on_install=True, overwrite=True
)
told = {"on": [on()], "panels": [panels()]}
told["wheels"] = [importlib.import_module(name).__file__ for name in ("zmq", "msgpack")]
addon_utils.disable(NAME, handle_error=refuse)
told["on"].append(on())
told["panels"].append(panels())
addon_utils.enable(NAME, handle_error=refuse)
told["on"].append(on())
told["panels"].append(panels())
if END == "off":
    addon_utils.disable(NAME, handle_error=refuse)
print("TOLD", json.dumps(told), flush=True)
