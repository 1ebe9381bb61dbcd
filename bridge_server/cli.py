"""The command line: the one place that puts the parts together."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from enum import Enum
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge_server import (
    additions,
    catalogue,
    clip_commands,
    config,
    library,
    serve_commands,
    whereabouts,
)
from bridge_server.catalogue import Catalogue, Entry, Family, Role
from bridge_server.config import Config
from bridge_server.endings import Commands
from bridge_server.errors import LicenceNotAccepted
from bridge_server.library import Installed, State
from bridge_server.licences import accept, needs_acceptance
from fresco.errors import FrescoError, MissingWeights

if TYPE_CHECKING:
    from bridge_server.doctor import Finding
    from bridge_server.lock import Locked

_FAILED, _BAD_FILES = 1, 3
#: Set before the libraries are imported. Threads that wait by spinning take the processor from
#: those that work, wherever two things run side by side; and what the libraries have to say that
#: matters here, they raise.
_FOR_LIBRARIES = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
}
#: Columns from which on a table has room for titles.
_WIDE = 130


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Restyle video clips with FRESCO and Stable Diffusion.",
)
models = typer.Typer(no_args_is_help=True, help="What models there are, and fetching them.")
app.add_typer(models, name="models")
clip_commands.add_to(app)
serve_commands.add_to(app)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Names = Annotated[list[str], typer.Argument(help='Catalogue names, or "owner/name" of a hub.')]
OneName = Annotated[str, typer.Argument(help='A catalogue name, or "owner/name" of a hub.')]


def main() -> None:
    """Run the command line."""
    for name, value in _FOR_LIBRARIES.items():
        os.environ.setdefault(name, value)
    app()


def _say_version(wanted: bool) -> None:
    if wanted:
        with suppress(metadata.PackageNotFoundError):  # run from its sources
            typer.echo(f"fresco-bridge {metadata.version('fresco-bridge')}")
        raise typer.Exit


@app.callback()
def _top(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Say which it is."),
    ] = False,
) -> None:
    """Take the commands' names from the groups below."""
    whereabouts.remember()


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Examine this installation and machine, and say what to do about what is wrong."""
    from bridge_server.doctor import findings, healthy

    looked = findings(config.load())
    found = list(looked if as_json else _shown(looked))
    if as_json:
        _print_json([_plain(asdict(finding)) for finding in found])
    if not healthy(found):
        raise typer.Exit(_FAILED)


def _shown(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Print each finding as soon as it is there, and pass it on."""
    from rich.console import Console

    from bridge_server.doctor import rows

    # Into a pipe, a line is a line: nothing is wrapped.
    console = Console(width=None if sys.stdout.isatty() else 500)
    for finding, row in rows(findings):
        console.print(row)
        yield finding


@app.command()
def panel(
    job: Annotated[str, typer.Option(help="A job to look at; the beginning of its id.")] = "",
) -> None:
    """Open a window with the jobs, their keyframes, and what can be done with them."""
    from bridge_server.panel import show

    raise typer.Exit(show(job, config.load()))


@models.command("list")
def list_models(
    role: Annotated[Role | None, typer.Option(help="Only models for this.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the models of the catalogue, and which of them are on this machine."""
    settings = config.load()
    known = catalogue.load(settings)
    rows = [_summary(known[name], settings) for name in known]
    rows = [row for row in rows if role is None or row["role"] == role.value]
    if as_json:
        _print_json(rows)
    else:
        _print_table(rows)


@models.command()
def show(name: OneName, as_json: AsJson = False) -> None:
    """Show everything that is known of one model."""
    settings = config.load()
    entry = catalogue.load(settings).find(name)
    here = _summary(entry, settings)
    facts = {**_plain(asdict(entry)), **{key: here[key] for key in ("state", "at", "revision")}}
    if as_json:
        _print_json(facts)
        return
    for key, value in facts.items():
        if value not in (None, "", [], {}):
            typer.echo(f"{key:14} {_in_words(key, value)}")


@models.command()
def add(
    name: Annotated[str, typer.Argument(help="A name of your choice.")],
    target: Annotated[str, typer.Argument(help='A file, a folder, "owner/name[:file]".')],
    role: Annotated[Role, typer.Option(help="What it is for.")],
    title: Annotated[str, typer.Option(help="What it is, in plain words.")] = "",
    family: Annotated[Family | None, typer.Option(help="What base models it goes with.")] = None,
    control: Annotated[str, typer.Option(help="Of a ControlNet: canny, depth ...")] = "",
    licence: Annotated[str, typer.Option(help="Its licence's id.")] = "",
    as_json: AsJson = False,
) -> None:
    """Add a model of your own to your catalogue."""
    fields = {
        "title": title,
        "role": role.value,
        "family": family.value if family else "",
        "control": control,
        "licence": licence,
    }
    settings = config.load()
    given = {key: value for key, value in fields.items() if value}
    entry = additions.add(name, target, given, settings)
    if as_json:
        _print_json(_summary(entry, settings))
        return
    typer.echo(f"{name} is in {settings.catalogue_file}.")
    if entry.downloadable:
        typer.echo(f"Fetch it with `{entry.command}`.")


@models.command()
def remove(
    name: Annotated[str, typer.Argument(help="A name that you added.")], as_json: AsJson = False
) -> None:
    """Take a model that you added out of your catalogue. No file of it is deleted."""
    settings = config.load()
    additions.remove(name, settings)
    if as_json:
        _print_json({"name": name, "catalogue": str(settings.catalogue_file)})
        return
    typer.echo(f"{name} is no longer in {settings.catalogue_file}. Its files were left alone.")


@models.command()
def download(
    names: Names,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="You have read the licence and accept it.")
    ] = False,
    revision: Annotated[
        str, typer.Option(help="Change to this branch, tag or commit; else the pinned one stays.")
    ] = "",
    mirror: Annotated[str, typer.Option(help="Fetch from this hub this once.")] = "",
    role: Annotated[Role | None, typer.Option(help="What a hub id is for.")] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Replace files that were changed on the disk.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch models. A download that was stopped goes on where it stopped."""
    from bridge_server import downloads  # brings huggingface_hub along

    settings = config.load()
    settings = settings.through(mirror) if mirror else settings
    known = catalogue.load(settings)
    entries = [known.find(name, role) for name in names]
    for entry in entries:
        _agree(entry, settings, accept_licence)
    wish = downloads.Wish(accept_licence, revision, repair)
    done: dict[str, Locked] = {}
    for entry in entries:
        with _Bar(entry, shown=not as_json and sys.stderr.isatty()) as bar:
            done[entry.name] = downloads.download(entry, settings, wish, bar.move)
        if not as_json:
            typer.echo(f"{entry.name}: verified, pinned at {done[entry.name].revision[:12]}.")
    if as_json:
        _print_json({name: asdict(locked) for name, locked in done.items()})


@models.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="Which; all that are here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Hash the files of models again, and compare them with what was downloaded."""
    settings = config.load()
    known = catalogue.load(settings)
    fetched = _fetched(settings)
    if names:
        entries = [fetched.get(name) or known.find(name) for name in names]
    else:
        entries = _here(known, fetched, settings)
    rows = [
        {"name": entry.name, "file": checked.file, "state": checked.state.value}
        for entry in entries
        for checked in library.verify(entry, settings)
    ]
    if as_json:
        _print_json(rows)
    else:
        for row in rows:
            typer.echo(f"{row['state']:8} {row['name']}: {row['file']}")
    bad = [row for row in rows if row["state"] in (State.CHANGED.value, State.MISSING.value)]
    if bad:
        typer.echo(
            f"fresco-bridge: {len(bad)} of {len(rows)} files are not what they were; fetch them "
            "again with `fresco-bridge models download NAME --repair`.",
            err=True,
        )
        raise typer.Exit(_BAD_FILES)


def _fetched(settings: Config) -> dict[str, Entry]:
    """Return what was ever downloaded, whatever the catalogues say today."""
    from bridge_server.lock import Lock

    source = str(settings.lock_file)
    return {
        name: Entry(name, name, Role.ANNOTATOR, source, repository=record.repository)
        for name, record in Lock(settings.lock_file).read().items()
        if record.revision
    }


def _here(known: Catalogue, fetched: dict[str, Entry], settings: Config) -> list[Entry]:
    """Return what is here, and what was downloaded and should be; the package is pip's to check."""
    mine = {name: entry for name, entry in known.items() if not entry.bundled}
    here = {name: entry for name, entry in mine.items() if _installed(entry, settings)}
    return list((here | fetched).values())


def _installed(entry: Entry, settings: Config) -> Installed | None:
    try:
        return library.find(entry, settings)
    except MissingWeights:
        return None


def _state(entry: Entry, settings: Config) -> tuple[str, Installed | None]:
    try:
        installed = _installed(entry, settings)
    except FrescoError:
        return "changed", None
    if installed is None:
        return "", None
    return ("pinned" if installed.pinned else "here"), installed


def _summary(entry: Entry, settings: Config) -> dict[str, Any]:
    state, installed = _state(entry, settings)
    return {
        "name": entry.name,
        "role": entry.role.value,
        "state": state,
        "size": entry.size,
        "licence": entry.licence.id if entry.licence else None,
        "title": entry.title,
        "at": str(installed.path) if installed else None,
        "revision": (installed.revision if installed else "") or entry.revision or None,
    }


def _agree(entry: Entry, settings: Config, accepted: bool) -> None:
    """Show the licence, and ask for it where somebody is there to answer."""
    licence = entry.licence
    where = f"{licence.id} ({licence.url})" if licence else "unknown; see its page on the hub"
    typer.echo(f"{entry.name}, {_size(entry.size)}. Licence: {where}", err=True)
    if not needs_acceptance(entry, settings):
        return
    if not accepted and sys.stdin.isatty():
        accepted = typer.confirm("Have you read this licence, and do you accept it?", err=True)
        if not accepted:
            raise LicenceNotAccepted(f"{entry.name} was not fetched: its licence is not accepted.")
    accept(entry, settings, accepted)


class _Bar:
    """A progress bar on stderr, if somebody is looking."""

    def __init__(self, entry: Entry, shown: bool) -> None:
        self._entry, self._shown, self._progress = entry, shown, None

    def __enter__(self) -> _Bar:
        if self._shown:
            from rich import progress
            from rich.console import Console

            self._progress = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.DownloadColumn(),
                progress.TransferSpeedColumn(),
                progress.TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._progress.start()
            self._task = self._progress.add_task(self._entry.name, total=None)
        return self

    def move(self, progress: Any) -> None:
        """Show a `downloads.Progress`."""
        if self._progress is not None:
            self._progress.update(
                self._task, completed=progress.done, total=progress.total, description=progress.file
            )

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    # Into a pipe, a line is a row: nothing is wrapped or cut.
    console = Console(width=None if sys.stdout.isatty() else 300)
    titled = console.width >= _WIDE
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "role", "here", "size", "licence", *(["what it is"] if titled else [])):
        table.add_column(heading, no_wrap=True)
    for row in rows:
        cells = [row["name"], row["role"], row["state"] or "-", _size(row["size"])]
        cells += [row["licence"] or "unknown", *([row["title"]] if titled else [])]
        table.add_row(*cells)
    console.print(table, highlight=False, markup=False)


def _size(count: int) -> str:
    if not count:
        return "-"
    return f"~{count / 1e9:.1f} GB" if count >= 1e9 else f"~{count / 1e6:.0f} MB"


def _plain(value: Any) -> Any:
    """Turn enumerations into words, for JSON."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _in_words(key: str, value: Any) -> str:
    if key == "size":
        return _size(value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {inner}" for name, inner in value.items() if inner is not None)
    return ", ".join(value) if isinstance(value, list) else str(value)
