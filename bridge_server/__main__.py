"""The program's beginning: the command line, once it is sure that its packages are its own.

Others call their packages `fresco` too, and whichever Python finds first is taken. Nothing of ours
may be imported here before that is looked at, nor anything that is not Python's own.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

#: Our packages beside this one, without which not even `doctor` starts.
_OURS = ("fresco", "host_plugins")
#: Exit codes; of what was stopped by Ctrl-C as shells have it.
_FAILED, _STOPPED = 1, 130


def main() -> None:
    """Run the command line; ends with one line where another package stands before ours."""
    said = _shadowed(Path(__file__).resolve().parent.parent)
    if said:
        print(f"fresco-bridge: {said}", file=sys.stderr)
        raise SystemExit(_FAILED)
    try:
        from bridge_server.cli import main as command_line

        command_line()
    except KeyboardInterrupt:  # while libraries were read: nothing had begun
        print("fresco-bridge: stopped", file=sys.stderr)
        raise SystemExit(_STOPPED) from None


def _shadowed(folder: Path) -> str:
    """Which of our packages, all in `folder`, is another's, and what to do; empty if none is."""
    for name in _OURS:
        found = find_spec(name)
        if found is None:
            return f"its package {name} is not in {folder}; install fresco-bridge again."
        # A folder without an __init__.py has no origin, and may be several.
        places = [found.origin] if found.origin else list(found.submodule_search_locations or ())
        at = Path(places[0]).resolve()
        if (at.parent if found.origin else at) != folder / name:
            return (
                f"Python finds another package called {name}, {at}, before its own; take that "
                "out of PYTHONPATH, start in another folder, or install fresco-bridge into an "
                "environment of its own (python -m venv)."
            )
    return ""


if __name__ == "__main__":
    main()
