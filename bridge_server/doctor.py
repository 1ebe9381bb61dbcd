"""What is right and wrong with this installation and machine, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from bridge_server.config import Config
from bridge_server.probes import codecs, devices, models, panel, places, server, versions
from bridge_server.probes.finding import Finding, State, guarded

if TYPE_CHECKING:  # the command line starts without tables
    from rich.table import Table

__all__ = ["Finding", "State", "examine", "findings", "healthy", "rows"]

#: Area, subject, and what looks at it.
_Probe: TypeAlias = tuple[str, str, Callable[[], Iterable[Finding]]]
_STYLES = {State.OK: "green", State.NOTE: "yellow", State.PROBLEM: "bold red"}
#: Columns of a terminal: of the longest state, and of the longest subject that is usual.
_STATE, _SUBJECT = max(len(state.value) for state in State), 20


def examine(settings: Config, work: Path | None = None) -> list[Finding]:
    """Look at everything that a job depends on; takes seconds, and raises nothing.

    work: the folder that jobs are done in; the program's data folder where None
    """
    return list(findings(settings, work))


def findings(settings: Config, work: Path | None = None) -> Iterator[Finding]:
    """Yield what `examine` returns, each as soon as it is found: some libraries take seconds."""
    for area, subject, probe in _probes(settings, work or settings.lock_file.parent):
        yield from guarded(area, subject, probe)


def healthy(found: Iterable[Finding]) -> bool:
    """Whether there is no problem among what was found."""
    return all(finding.state is not State.PROBLEM for finding in found)


def rows(found: Iterable[Finding]) -> Iterator[tuple[Finding, Table]]:
    """Yield each finding as it comes, laid out for a terminal.

    The name of an area stands above its first one. What to do stands below what is wrong.
    """
    from rich.text import Text

    area = ""
    for each in found:
        grid = _grid()
        if each.area != area:
            if area:
                grid.add_row()
            grid.add_row("", Text(each.area, "bold"))
            area = each.area
        said = Text(each.text)
        if each.hint:
            said.append(f"\n-> {each.hint}", "" if each.state is State.OK else "bold")
        grid.add_row(Text(each.state.value, _STYLES[each.state]), Text(each.subject), said)
        yield each, grid


def _grid() -> Table:
    """An empty table whose columns are as wide as those of all others."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    for column, width in (("state", _STATE), ("subject", _SUBJECT), ("text", None)):
        grid.add_column(no_wrap=column != "text", overflow="fold", min_width=width)
    return grid


def _probes(settings: Config, work: Path) -> Iterator[_Probe]:
    yield versions.AREA, "python", versions.python
    yield versions.AREA, versions.DISTRIBUTION, versions.ours
    for name in versions.LIBRARIES:
        yield versions.AREA, name, partial(versions.library, name)
    yield versions.AREA, "requirements", versions.requirements
    yield versions.AREA, "cv2", versions.opencv
    yield versions.AREA, "modules", versions.modules
    yield devices.AREA, "processor", devices.processor
    yield devices.AREA, "cuda", devices.cuda
    yield devices.AREA, "mps", devices.mps
    yield devices.AREA, "chosen", devices.chosen
    yield codecs.AREA, "read", codecs.decoders
    yield codecs.AREA, "write", codecs.encoders
    yield models.AREA, "draft", partial(models.drafts, settings)
    yield models.AREA, "fetched", partial(models.fetched, settings)
    yield models.AREA, "folder", partial(models.room, settings)
    yield places.CONNECTIONS, "tcp", places.port
    yield places.CONNECTIONS, "sockets", places.sockets
    yield server.AREA, "running", server.running
    yield server.AREA, "files", partial(server.left, settings)
    yield panel.AREA, "qt", panel.qt
    yield places.DISK, "work", partial(places.work, work)
