"""Starts the panel: `python -m ui`, as `fresco-bridge panel` does."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

_PLUGINS = "QT_QPA_PLATFORM_PLUGIN_PATH"


def main(words: list[str] | None = None) -> int:
    """Open the window; one line says why it cannot be opened."""
    told = _parser().parse_args(words)
    forget_others(os.environ)
    try:
        from ui.app import run
    except ImportError as error:
        said = f"the panel cannot start: {error}; `fresco-bridge doctor` says what to do"
        print(f"fresco-bridge: {said}", file=sys.stderr)
        return 1
    return run(told.program, told.printed, told.job)


def forget_others(environ: MutableMapping[str, str]) -> None:
    """Forget where cv2 has its Qt, which it tells to all that are started from its process."""
    if "cv2" in Path(environ.get(_PLUGINS, "")).parts:
        del environ[_PLUGINS]


def _parser() -> argparse.ArgumentParser:
    usual = json.dumps([sys.executable, "-m", "bridge_server"])
    parser = argparse.ArgumentParser(prog="python -m ui", description=__doc__)
    parser.add_argument("--job", default="", help="the job to look at")
    parser.add_argument(
        "--program", type=_program, default=usual, help="what starts a server, as a JSON list"
    )
    parser.add_argument("--printed", type=Path, help="the file for what a server prints")
    return parser


def _program(text: str) -> list[str]:
    words: object = json.loads(text)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(text)
    return [str(word) for word in words]


if __name__ == "__main__":
    sys.exit(main())
