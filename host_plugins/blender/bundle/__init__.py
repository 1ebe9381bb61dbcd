# SPDX-License-Identifier: GPL-3.0-or-later
"""The root of the extension as Blender installs it: `blender` and `link` lie beside this file."""

from .blender import register, unregister

__all__ = ["register", "unregister"]
