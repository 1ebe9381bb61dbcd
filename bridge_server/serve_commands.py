"""The commands about the server and its jobs: serve, stop, jobs, watch, cancel, logs and others.

`jobs` and `logs` also work while no server runs: they read what it left.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from bridge_server import config, job_logs
from bridge_server.states import AT_REST, TRANSITIONS
from bridge_server.words import duration
from host_plugins.link import endpoint, messages
from host_plugins.link.client import Client
from host_plugins.link.endpoint import Endpoint
from host_plugins.link.errors import BridgeError, Code
from host_plugins.link.messages import Event, JobInfo, OfJob, Op

#: Jobs that the server tells of at once.
_MOST = 200
#: Seconds for which the end of a server is waited for; between looks at a job without news.
_ENDING, _LOOK = 15.0, 5.0
_INTERRUPTED = 130
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
JobId = Annotated[str, typer.Argument(help="Its id; the beginning is enough.")]


def serve(
    listen: Annotated[
        str | None, typer.Option(help="For other machines, encrypted: tcp://0.0.0.0:7420.")
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="A client's CURVE public key; may be repeated.")
    ] = None,
    root: Annotated[
        list[Path] | None, typer.Option(help="Only files in this folder; may be repeated.")
    ] = None,
    loopback: Annotated[
        bool | None,
        typer.Option(
            "--loopback/--no-loopback", help="An endpoint for OpenFX plugins, by a token."
        ),
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="A worker on it: cuda:0, mps, cpu; may be repeated.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=0, help="Of the processor, per worker; 0: all of them.")
    ] = None,
    hang: Annotated[
        float | None,
        typer.Option(min=1, help="Seconds without a step after which a worker is started anew."),
    ] = None,
    idle_end: Annotated[
        float, typer.Option(help="Seconds without jobs and requests after which it ends; 0: never.")
    ] = 0.0,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say more on stderr.")] = False,
) -> None:
    """Run the server that editors and the panel talk to. One per user; Ctrl-C ends it.

    What no option says is as config.toml has it, in its table [server].
    """
    from bridge_server import config, server
    from bridge_server.doors import Wishes, check_keys, check_roots
    from bridge_server.supervisor import Post

    usual = config.load().server
    clients = tuple(allow or usual.clients)
    check_keys(clients)
    roots = tuple(folder.resolve() for folder in root or usual.roots)
    check_roots(roots)
    posts = [
        Post(
            name,
            usual.threads if threads is None else threads,
            usual.hang if hang is None else hang,
        )
        for name in device or usual.devices or [""]
    ]
    wishes = Wishes(
        usual.listen if listen is None else listen,
        usual.loopback if loopback is None else loopback,
        clients,
        roots,
    )
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    server.serve(wishes, posts, _say_where, idle_end)


def _say_where(at: Endpoint, abroad: str = "", key: str = "") -> None:
    typer.echo(f"fresco-bridge: serving at {at.address}", err=True)
    if abroad:
        typer.echo(f"fresco-bridge: for other machines: {abroad}, public key {key}", err=True)


def stop(
    when_idle: Annotated[
        bool, typer.Option("--when-idle", help="Only when no job is queued or running.")
    ] = False,
) -> None:
    """End the server. Jobs that run go on when it is started again."""
    at = _running()
    if at is None:
        typer.echo("fresco-bridge: the server is not running", err=True)
        return
    with Client() as client:
        client.ask(messages.SHUTDOWN, messages.Shutdown(when_idle=when_idle))
    if when_idle:
        return
    end = time.monotonic() + _ENDING
    while _running() is not None:
        if time.monotonic() > end:
            typer.echo("fresco-bridge: the server is still ending", err=True)
            return
        time.sleep(0.05)


def jobs(
    state: Annotated[list[str] | None, typer.Option(help="Only jobs in this state.")] = None,
    count: Annotated[int, typer.Option("-n", help="At most so many, 1 to 200.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the jobs, the newest first: of the server, or as it left them when it ended."""
    if not 1 <= count <= _MOST:
        raise typer.BadParameter(f"-n {count} is not 1 to {_MOST}")
    unknown = sorted({*(state or ())} - set(TRANSITIONS))
    if unknown:
        states = ", ".join(TRANSITIONS)
        raise typer.BadParameter(f"there is no state {unknown[0]!r}, only {states}")
    found = _listed(state or [], count)
    if as_json:
        typer.echo(json.dumps([job.table() for job in found], indent=2))
        return
    now = time.time()
    for line in _columns([_cells(job, now) for job in found]):
        typer.echo(line)
    if not found:
        typer.echo("fresco-bridge: there are no such jobs", err=True)
    elif _running() is None and any(job.state not in AT_REST for job in found):
        typer.echo("fresco-bridge: the server is not running; jobs go on with it", err=True)


def watch(
    job: Annotated[str, typer.Argument(help="Its id; the beginning is enough. All jobs.")] = "",
    as_json: AsJson = False,
) -> None:
    """Follow a job until it rests, or all jobs. Ctrl-C ends the watching, not the job.

    It ends with an error where the job failed.
    """
    with Client() as client, _watching():
        if job:
            last = follow(client, find(client, job).job, as_json)
            if last.state == "failed":
                raise typer.Exit(1)
        else:
            _follow_all(client, as_json)


def cancel(job: JobId) -> None:
    """Stop a job. What is done of it is kept; `retry` goes on."""
    _change(messages.CANCEL, job, "is being cancelled")


def pause(job: JobId) -> None:
    """Let a job rest."""
    _change(messages.PAUSE, job, "is being paused")


def resume(job: JobId) -> None:
    """Let a paused job go on."""
    _change(messages.RESUME, job)


def retry(job: JobId) -> None:
    """Let a job go on that failed or was cancelled."""
    _change(messages.RETRY, job)


def approve(
    job: JobId,
    until: Annotated[str, typer.Option(help="keyframes or done.")] = "done",
) -> None:
    """Let a job go on that waits to have its keyframes looked at."""
    with Client() as client:
        found = find(client, job)
        if found.state != "waiting":
            raise BridgeError(
                Code.WRONG_STATE, f"job {found.job} is {found.state}; it waits for nothing"
            )
        asked = messages.Approve(job=found.job, gate=found.gate, until=until)
        _say(client.ask(messages.APPROVE, asked))


def edit(
    job: JobId,
    change: Annotated[str, typer.Argument(help="WHAT@FRAME=VALUE, as of `render --set`.")],
) -> None:
    """Change a keyframe of a job that is not done: edit a1b2 "prompt@48=a red house".

    Nothing behind the = takes what was changed back. Only the keyframe and the frames beside it
    are made again.
    """
    from bridge_server.request import Change

    wanted = Change.parse(change) if not change.endswith("=") else None
    what, _, frame = change.partition("=")[0].partition("@")
    if wanted is None and not frame.isdecimal():
        raise typer.BadParameter(f"{change!r} cannot be read; write WHAT@FRAME=VALUE")
    value = wanted.value if wanted else None
    if what == "painted" and value:
        value = str(Path(value).expanduser().absolute())
    with Client() as client:
        found = find(client, job)
        asked = messages.Edit(
            job=found.job, base=found.revision, frame=int(frame), what=what, value=value
        )
        _say(client.ask(messages.EDIT, asked))


def logs(job: JobId, as_json: AsJson = False) -> None:
    """Print what was written down about a job, with the traces of what went wrong."""
    from bridge_server.journal import read_jobs

    folder = config.state_folder(config.load()) / "jobs"
    at = _running()
    if at is None:
        named = [row.id for row in read_jobs(folder.with_name(config.JOURNAL), _MOST)]
        files = [folder / _only(job, named)]
    else:
        with Client() as client:
            made = client.ask(messages.RESULT, OfJob(job=find(client, job).job))
        files = [Path(file.path).parent for file in made.files if file.role == "log"]
    lines = job_logs.read(files[0]) if files else []
    if not lines:
        typer.echo("fresco-bridge: nothing is written down about it any more", err=True)
    for line in lines:
        typer.echo(json.dumps(line, ensure_ascii=False) if as_json else _line(line))


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    changes = (cancel, pause, resume, retry, approve, edit)
    for command in (serve, stop, jobs, watch, *changes, logs):
        app.command()(command)


def find(client: Client, word: str) -> JobInfo:
    """Find a job by the beginning of its id.

    Raises:
        BridgeError: there is none (not_found), or there are several (invalid).
    """
    found = _newest(client, (), _MOST)
    if not any(job.job.startswith(word) for job in found) and _is_id(word):
        return client.ask(messages.JOB, OfJob(job=word))  # an old one, by its whole id
    name = _only(word, [job.job for job in found])
    return next(job for job in found if job.job == name)


def _only(word: str, names: Sequence[str]) -> str:
    """The one of `names` that begins with `word`."""
    if word in names:
        return word
    found = [name for name in names if name.startswith(word)]
    if not found:
        raise BridgeError(Code.NOT_FOUND, f"there is no job {word}", "`jobs` lists them")
    if len(found) > 1:
        some = ", ".join(name[:16] for name in found[:5]) + (" ..." if len(found) > 5 else "")
        raise BridgeError(Code.INVALID, f"{word} may be any of {some}", "write more of the id")
    return found[0]


def _is_id(word: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", word) is not None


def _running() -> Endpoint | None:
    """Where the server is; None if none runs."""
    try:
        return endpoint.read()
    except BridgeError as error:
        if error.code is Code.UNAVAILABLE:
            return None
        raise


@contextmanager
def _watching() -> Generator[None]:
    """Let Ctrl-C end the watching, and nothing else."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None


def _listed(states: list[str], count: int) -> list[JobInfo]:
    if _running() is not None:
        with Client() as client:
            return _newest(client, states, count)
    from bridge_server.jobs import info
    from bridge_server.journal import read_jobs

    journal = config.state_folder(config.load()) / config.JOURNAL
    rows = read_jobs(journal, -1 if states else count)
    return [info(row) for row in rows if not states or row.state in states][:count]


def _newest(client: Client, states: Sequence[str], count: int) -> list[JobInfo]:
    """The newest jobs; the server tells of as many at once as a message holds."""
    found: list[JobInfo] = []
    more = True
    while more and len(found) < count:
        before = found[-1].job if found else ""
        asked = messages.Listing(states=tuple(states), limit=count - len(found), before=before)
        told = client.ask(messages.JOBS, asked)
        found += told.jobs
        more = told.more
    return found


def follow(client: Client, job: str, as_json: bool) -> JobInfo:
    """Tell what happens to a job until it rests; returns it then."""
    client.subscribe([job], ["progress"])
    told = client.ask(messages.JOB, OfJob(job=job))
    shown = ""
    looked = time.monotonic()
    while told.state in ("queued", "running"):
        changed = time.monotonic() - looked > _LOOK
        for event in client.poll(0.5):
            changed = changed or event.event == "state"
            shown = _show(event, as_json, shown)
            _check_ending(event)
        if changed:
            told, looked = client.ask(messages.JOB, OfJob(job=job)), time.monotonic()
    if not as_json:
        _say(told)
    return told


def _follow_all(client: Client, as_json: bool) -> None:
    """Tell what happens to all jobs until the server ends."""
    client.subscribe([], ["progress"])
    shown: dict[str, str] = {}
    while True:
        for event in client.poll(0.5):
            shown[event.job] = _show(event, as_json, shown.get(event.job, ""), event.job[:8])
            _check_ending(event)
        _check_alive()


def _show(event: Event, as_json: bool, before: str, name: str = "") -> str:
    """Print an event, unless it says what the one before said; returns what it says."""
    if as_json:
        typer.echo(json.dumps(event.table()))
        return before
    line = _told(event)
    if line and line != before:
        typer.echo(f"{name}  {line}" if name else line, err=not name)
    return line or before


def _check_ending(event: Event) -> None:
    if event.event == "server":
        raise BridgeError(
            Code.UNAVAILABLE, "the server was ended", "jobs go on when it is started again"
        )


def _check_alive() -> None:
    if _running() is None:
        raise BridgeError(Code.UNAVAILABLE, "the server has ended", "jobs go on with the next one")


def _told(event: Event) -> str:
    data = event.data
    if event.event == "progress" and data["total"]:
        share = f"{100 * data['done'] / data['total']:3.0f} %"
        return f"{data['stage']}: {share} {left(data.get('eta_s'))}".rstrip()
    if event.event == "note":
        return f"note: {data['text']}"
    if event.event == "keyframe":
        return f"keyframe {data['frame']}: {data['path']}"
    if event.event == "state" and event.job:
        why = data.get("why") or data.get("failure", {}).get("error", "")
        return f"{data['state']} {data.get('gate', '')}".rstrip() + (f": {why}" if why else "")
    return ""


def _change(op: Op[JobInfo], word: str, meanwhile: str = "") -> None:
    """Change a job and say how it is. meanwhile: what a running one is until its worker stops."""
    with Client() as client:
        job = client.ask(op, OfJob(job=find(client, word).job))
    if meanwhile and job.state == "running":
        typer.echo(f"{job.job} {meanwhile}")
    else:
        _say(job)


def _say(job: JobInfo) -> None:
    failure = BridgeError.from_table(job.failure) if job.failure else ""
    what = f"{job.job} is {job.state}" + (f" at {job.gate}" if job.gate else "")
    typer.echo(f"{what}: {failure}" if failure else what)
    if job.state == "done":
        typer.echo(job.output)


def _line(told: dict[str, Any]) -> str:
    told = dict(told)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(told.pop("time", 0)))
    head = f"{when} {told.pop('level', ''):7} {told.pop('what', '')}"
    trace = told.pop("trace", "")
    more = " ".join(f"{name}={value}" for name, value in told.items())
    return f"{head} {more}".rstrip() + (f"\n{trace}" if trace else "")


_HEADINGS = ("job", "state", "how far", "since", "title")
#: Columns of a terminal; the last one has what the others leave.
_WIDTHS = (8, 9, 22, 9)


def _cells(job: JobInfo, now: float) -> tuple[str, ...]:
    name = job.title or Path(job.output).name
    if job.state == "failed":
        name = f"{name}: {job.failure.get('error', '')}"
    return job.job[:8], job.state, far(job), ago(now - job.changed), name


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Lay out rows: in a terminal as wide as it is, into a pipe whole."""
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    if not rows:
        return
    for row in (_HEADINGS, *rows):
        fixed = "  ".join(f"{cell:{width}}" for cell, width in zip(row, _WIDTHS, strict=False))
        yield f"{fixed}  {row[-1]}".rstrip()[:room]


def far(job: JobInfo) -> str:
    """Say how far a job is, in a few words."""
    if job.state == "waiting":
        return f"at {job.gate}"
    if job.state != "running" or not job.total:
        return ""
    short = left(job.eta_s).removesuffix(" left")
    return f"{job.stage} {100 * job.done / job.total:.0f} %" + (f", {short}" if short else "")


def ago(seconds: float) -> str:
    """Say how long ago something was, in a few words."""
    for length, word in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {word}"
    return f"{max(0.0, seconds):.0f} s"


def left(seconds: float | None) -> str:
    """Say how long something will take, in a few words; nothing where that is not known."""
    return "" if seconds is None else f"{duration(seconds)} left"
