"""What is right and wrong with this installation and machine, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from bridge_server.config import Config
from bridge_server.probes import codecs, devices, models, panel, places, server, versions
from bridge_server.probes.finding import Finding, State, guarded

if TYPE_CHECKING:  # the command line starts without tables
    from rich.table import Table

__all__ = ["Finding", "State", "examine", "healthy", "table"]

#: Area, subject, and what looks at it.
_Probe: TypeAlias = tuple[str, str, Callable[[], Iterable[Finding]]]


def examine(settings: Config, work: Path | None = None) -> list[Finding]:
    """Look at everything that a job depends on; takes seconds, and raises nothing.

    work: the folder that jobs are done in; the program's data folder where None
    """
    return [
        finding
        for area, subject, probe in _probes(settings, work or settings.lock_file.parent)
        for finding in guarded(area, subject, probe)
    ]


def healthy(findings: Iterable[Finding]) -> bool:
    """Whether there is no problem among `findings`."""
    return all(finding.state is not State.PROBLEM for finding in findings)


def table(findings: Sequence[Finding]) -> Table:
    """Lay out `findings` for a terminal, by area; what to do stands below what is wrong."""
    from rich.table import Table
    from rich.text import Text

    styles = {State.OK: "green", State.NOTE: "yellow", State.PROBLEM: "bold red"}
    rows = Table.grid(padding=(0, 2))
    for column in ("state", "subject", "text"):
        rows.add_column(no_wrap=column != "text", overflow="fold")
    for number, (area, group) in enumerate(groupby(findings, lambda each: each.area)):
        if number:
            rows.add_row()
        rows.add_row("", Text(area, "bold"))
        for each in group:
            said = Text(each.text)
            if each.hint:
                said.append(f"\n-> {each.hint}", "" if each.state is State.OK else "bold")
            rows.add_row(Text(each.state.value, styles[each.state]), Text(each.subject), said)
    return rows


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
