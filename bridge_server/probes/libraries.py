"""System libraries that the packages need, and the command that brings one that is missing."""

from __future__ import annotations

import ctypes
import re
import shutil
from collections.abc import Callable, Iterable

#: By the name that a loader looks for: the packages of Debian and Ubuntu, and of Fedora.
_PACKAGES = {
    "libGL.so.1": ("libgl1", "libglvnd-glx"),
    "libgthread-2.0.so.0": ("libglib2.0-0", "glib2"),
    "libglib-2.0.so.0": ("libglib2.0-0", "glib2"),
    "libEGL.so.1": ("libegl1", "libglvnd-egl"),
    "libxkbcommon.so.0": ("libxkbcommon0", "libxkbcommon"),
    "libX11.so.6": ("libx11-6", "libX11"),
    "libdbus-1.so.3": ("libdbus-1-3", "dbus-libs"),
    "libfontconfig.so.1": ("libfontconfig1", "fontconfig"),
    "libxcb-cursor.so.0": ("libxcb-cursor0", "xcb-util-cursor"),
    "libxcb-icccm.so.4": ("libxcb-icccm4", "xcb-util-wm"),
    "libxcb-image.so.0": ("libxcb-image0", "xcb-util-image"),
    "libxcb-keysyms.so.1": ("libxcb-keysyms1", "xcb-util-keysyms"),
    "libxcb-randr.so.0": ("libxcb-randr0", "libxcb"),
    "libxcb-render-util.so.0": ("libxcb-render-util0", "xcb-util-renderutil"),
    "libxcb-shape.so.0": ("libxcb-shape0", "libxcb"),
    "libxcb-xkb.so.1": ("libxcb-xkb1", "libxcb"),
    "libxkbcommon-x11.so.0": ("libxkbcommon-x11-0", "libxkbcommon-x11"),
}
#: What Qt loads when it opens a window on Linux; PySide6 does not bring it.
WINDOWS = tuple(name for name in _PACKAGES if name not in ("libGL.so.1", "libgthread-2.0.so.0"))

_TOOLS = ("apt-get", "dnf")
_SHARED_OBJECT = re.compile(r"\blib[\w.+-]+?\.so(?:\.\d+)*")


def opens(name: str) -> bool:
    """Whether the system's loader finds the library `name`."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def named_in(message: str) -> str:
    """Return the library that a loader's message misses; empty if it names none."""
    match = _SHARED_OBJECT.search(message)
    return match[0] if match else ""


def tool(which: Callable[[str], str | None] = shutil.which) -> str:
    """Return the command that installs packages here, of those that are known; else nothing."""
    return next((name for name in _TOOLS if which(name)), "")


def command(missing: Iterable[str], tool: str) -> str:
    """Say how the libraries `missing` are brought by `tool`."""
    names = sorted(set(missing))
    if tool not in _TOOLS or not set(names) <= _PACKAGES.keys():
        return f"install the packages of your system that hold {', '.join(names)}"
    packages = sorted({_PACKAGES[name][_TOOLS.index(tool)] for name in names})
    return f"sudo {tool} install {' '.join(packages)}"
