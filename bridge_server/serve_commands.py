"""The commands about the server: serve, stop, jobs, watch, cancel, retry, approve, logs."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from host_plugins.link import messages
from host_plugins.link.client import Client
from host_plugins.link.endpoint import Endpoint
from host_plugins.link.messages import Event, JobInfo, Message, OfJob, Op

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
    verbose: Annotated[bool, typer.Option("--verbose", help="Say more on stderr.")] = False,
) -> None:
    """Run the server that editors and the panel talk to. One per user; Ctrl-C ends it.

    What no option says is as config.toml has it, in its table [server].
    """
    from bridge_server import config, server
    from bridge_server.doors import Wishes, check_keys
    from bridge_server.supervisor import Post

    usual = config.load().server
    clients = tuple(allow or usual.clients)
    check_keys(clients)
    roots = tuple(folder.resolve() for folder in root or usual.roots)
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
    server.serve(wishes, posts, _say_where)


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
    with Client() as client:
        client.ask(messages.SHUTDOWN, messages.Shutdown(when_idle=when_idle))


def jobs(
    state: Annotated[list[str] | None, typer.Option(help="Only jobs in this state.")] = None,
    count: Annotated[int, typer.Option("-n", help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the server's jobs, the newest first."""
    with Client() as client:
        asked = messages.Listing(states=tuple(state or ()), limit=count)
        found = client.ask(messages.JOBS, asked)
    if as_json:
        typer.echo(json.dumps([job.table() for job in found.jobs], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("job", "state", "how far", "left", "title", "output"):
        table.add_column(heading, no_wrap=True)
    for job in found.jobs:
        table.add_row(
            job.job[:12], job.state, far(job), left(job.eta_s), job.title, Path(job.output).name
        )
    Console(width=None if sys.stdout.isatty() else 300).print(table, highlight=False, markup=False)


def watch(job: JobId, as_json: AsJson = False) -> None:
    """Follow a job until it rests. Ctrl-C ends the watching, not the job."""
    with Client() as client:
        whole = find(client, job)
        follow(client, whole.job, as_json)


def cancel(job: JobId) -> None:
    """Stop a job. What is done of it is kept; `retry` goes on."""
    _change(messages.CANCEL, job)


def pause(job: JobId) -> None:
    """Let a job rest."""
    _change(messages.PAUSE, job)


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
        asked = messages.Approve(job=found.job, gate=found.gate, until=until)
        _say(client.ask(messages.APPROVE, asked))


def logs(job: JobId, as_json: AsJson = False) -> None:
    """Print what was written down about a job, with the traces of what went wrong."""
    with Client() as client:
        made = client.ask(messages.RESULT, OfJob(job=find(client, job).job))
    for file in made.files:
        if file.role == "log":
            for line in Path(file.path).read_text(encoding="utf-8").splitlines():
                typer.echo(line if as_json else _line(line))


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (serve, stop, jobs, watch, cancel, pause, resume, retry, approve, logs):
        app.command()(command)


def find(client: Client, word: str) -> JobInfo:
    """Find a job by the beginning of its id.

    Raises:
        BridgeError: there is none (not_found).
        typer.BadParameter: there are several.
    """
    found = [job for job in client.ask(messages.JOBS, messages.Listing(limit=200)).jobs
             if job.job.startswith(word)]  # fmt: skip
    if len(found) > 1:
        names = ", ".join(job.job[:16] for job in found)
        raise typer.BadParameter(f"{word} may be any of {names}")
    return found[0] if found else client.ask(messages.JOB, OfJob(job=word))


def follow(client: Client, job: str, as_json: bool) -> JobInfo:
    """Tell what happens to a job until it rests; returns it then."""
    client.subscribe([job], ["progress"])
    info = client.ask(messages.JOB, OfJob(job=job))
    told = ""
    while info.state in ("queued", "running"):
        for event in client.poll(0.5):
            if as_json:
                typer.echo(json.dumps(event.table()))
            elif (line := _told(event)) and line != told:
                told = line
                typer.echo(line, err=True)
            if event.event == "state":
                info = client.ask(messages.JOB, OfJob(job=job))
    if not as_json:
        _say(info)
    return info


def _told(event: Event) -> str:
    data = event.data
    if event.event == "progress" and data["total"]:
        share = f"{100 * data['done'] / data['total']:3.0f} %"
        return f"{data['stage']}: {share} {left(data.get('eta_s'))}".rstrip()
    if event.event == "note":
        return f"note: {data['text']}"
    if event.event == "keyframe":
        return f"keyframe {data['frame']}: {data['path']}"
    return ""


def _change(op: Op[JobInfo], word: str) -> None:
    with Client() as client:
        _say(client.ask(op, OfJob(job=find(client, word).job)))


def _say(job: JobInfo) -> None:
    failure = job.failure.get("error", "")
    hint = job.failure.get("hint", "")
    what = f"{job.job} is {job.state}" + (f" at {job.gate}" if job.gate else "")
    typer.echo(f"{what}: {failure} {hint}".rstrip() if failure else what)
    if job.state == "done":
        typer.echo(job.output)


def _line(line: str) -> str:
    told: dict[str, Any] = json.loads(line)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(told.pop("time", 0)))
    head = f"{when} {told.pop('level', '')} {told.pop('what', '')}"
    trace = told.pop("trace", "")
    more = " ".join(f"{name}={value}" for name, value in told.items())
    return f"{head} {more}".rstrip() + (f"\n{trace}" if trace else "")


def far(job: Message) -> str:
    """Say how far a job is, in a few words."""
    assert isinstance(job, JobInfo)
    if not job.stage or not job.total:
        return job.gate
    return f"{job.stage} {100 * job.done / job.total:.0f} %"


def left(seconds: float | None) -> str:
    """Say how long something will take, in a few words; nothing where that is not known."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s left"
    minutes = round(seconds / 60)
    return f"{minutes} min left" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min left"
