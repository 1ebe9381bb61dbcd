"""Blender's own validation of extensions, of a zip or folder that is named."""

import os
import runpy
import sys
from pathlib import Path

import bpy

package = Path(bpy.utils.system_resource("SCRIPTS")) / "addons_core" / "bl_pkg" / "cli"
program = str(package / "blender_ext.py")
sys.argv = [program, "validate", sys.argv[1]]
code: object = 0
try:
    runpy.run_path(program, run_name="__main__")
except SystemExit as end:
    code = end.code
sys.stdout.flush()
os._exit(0 if code in (0, None) else 1)
