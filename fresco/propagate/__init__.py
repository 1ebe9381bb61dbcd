"""Propagation of styled keyframes to the frames between them (method, section 9).

Everything is computed in float and in process; see ``docs/propagation.md`` for how, how well, and
what was tried. `interval` is the entry; `intervals` runs several side by side.
"""

from fresco.propagate.interval import METHODS, interval
from fresco.propagate.parallel import Job, intervals

__all__ = ["METHODS", "Job", "interval", "intervals"]
