"""How a command ends that could not do what it was asked: one line, and an event for programs."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from fresco.errors import Cancelled
from host_plugins.link.errors import BridgeError, Code

_FAILED, _MISUSED, _INTERRUPTED = 1, 2, 130
_STOPPED = "stopped; what is done so far is kept, and the same command goes on."
#: Set, it shows where an error of the program itself comes from.
_TRACE = "FRESCO_BRIDGE_TRACE"
#: A wrong option or argument, as click calls it: typer brings a copy of click, or uses click.
_Misuse: Any = typer.BadParameter.__mro__[1]


class Commands(TyperGroup):
    """Commands that end with one line on stderr, never with a trace.

    With ``--json`` there is an event ``error`` on stdout too: the server's code, error and hint.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options in front of the command."""
        with _one_line("--json" in args):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Read the command's own options, and run it."""
        with _one_line("--json" in ctx.args):
            return super().invoke(ctx)


@contextmanager
def _one_line(as_json: bool) -> Generator[None]:
    try:
        yield
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except _Misuse as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        _end(BridgeError(Code.BAD_REQUEST, _misuse(error)), _MISUSED, as_json)
    except (KeyboardInterrupt, Cancelled):
        _end(BridgeError(Code.CANCELLED, _STOPPED), _INTERRUPTED, as_json)
    except Exception as error:
        _end(_told(error), _FAILED, as_json)


def _misuse(error: Any) -> str:
    said = error.format_message().rstrip(".")
    where = f"; see `{error.ctx.command_path} --help`." if error.ctx else "."
    return said[:1].lower() + said[1:] + where


def _told(error: Exception) -> BridgeError:
    from bridge_server.failures import told

    known = told(error)
    if known.code is not Code.INTERNAL or isinstance(error, BridgeError):
        return known
    if isinstance(error, OSError):  # the machine's doing: a folder in the way, a disk that is gone
        return BridgeError(Code.INTERNAL, str(error))
    if _TRACE in os.environ:
        traceback.print_exception(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    at = f"{os.path.basename(place.filename)}, line {place.lineno}"
    hint = f"this is a mistake of the program, in {at}; with {_TRACE}=1 it shows the way there"
    return BridgeError(Code.INTERNAL, known.message, hint)


def _end(error: BridgeError, status: int, as_json: bool) -> NoReturn:
    if as_json:
        typer.echo(json.dumps({"event": "error", **error.table()}))
    typer.echo(f"fresco-bridge: {error}", err=True)
    raise typer.Exit(status)
