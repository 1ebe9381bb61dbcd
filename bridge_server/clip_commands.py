"""The commands that work on clips: render, keyframes, contact-sheet, propagate, demo."""

from __future__ import annotations

import inspect
import os
import re
import signal
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from bridge_server import catalogue, config, forecast, library, remote, request
from bridge_server.media import formats
from bridge_server.media.errors import NotWritten, UnsupportedMedia
from bridge_server.request import Request
from fresco.errors import InvalidInput
from host_plugins.link import words

if TYPE_CHECKING:
    from bridge_server.events import Event, Watch
    from bridge_server.job import Job
    from bridge_server.remote import Rendered
    from bridge_server.render import Outcome
    from fresco.callbacks import CancelToken

_F = TypeVar("_F", bound=Callable[..., Any])

AsJson = Annotated[bool, typer.Option("--json", help="Print events as JSON lines, for programs.")]
Device = Annotated[str, typer.Option(help="cuda, cuda:1, mps or cpu; the best there is.")]
Threads = Annotated[int, typer.Option(help="Of the processor; all of them.")]
Clip = Annotated[
    Path, typer.Argument(help="A video file, an image sequence, or a job file (.toml).")
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="The file to write, or a folder that is there."),
]
Track = Annotated[
    list[str] | None,
    typer.Option(
        help="From a frame on, until the next: prompt@48=..., negative@, seed@, strength@48=0.5."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


def _wishes(
    prompt: Annotated[
        str | None, typer.Option("-p", "--prompt", help="What it is to look like.")
    ] = None,
    negative: Annotated[
        str | None, typer.Option("-n", "--negative", help="What it is not to look like.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A base model; see `models list`.")] = None,
    vae: Annotated[str | None, typer.Option(help="A VAE instead of the model's own.")] = None,
    preset: Annotated[str | None, typer.Option(help="quality, lcm, hyper, lightning ...")] = None,
    lora: Annotated[
        list[str] | None, typer.Option(help="NAME or NAME:0.8; may be repeated.")
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(help="canny:0.8, depth, tile, softedge, lineart, or none; may be repeated."),
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(help="Style of a picture: NAME:0.6=picture.png with an IP-Adapter's name."),
    ] = None,
    embedding: Annotated[list[str] | None, typer.Option(help="A textual inversion.")] = None,
    clip_skip: Annotated[int | None, typer.Option(help="1 is none.")] = None,
    sampler: Annotated[str | None, typer.Option(help="ddpm, ddim, dpmpp_2m ...")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps of the whole schedule.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="How closely the prompt is followed.")
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="0 is the clip itself, 1 only its layout.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed, another picture.")] = None,
    keyframes: Annotated[
        str | None, typer.Option(help="auto, auto:10-30, every:12, or frames as 0,24,60.")
    ] = None,
    cuts: Annotated[str | None, typer.Option(help="auto, none, or frames as 96,140.")] = None,
    batch: Annotated[
        int | None, typer.Option(help="Keyframes translated together, at most.")
    ] = None,
    span: Annotated[
        str | None,
        typer.Option("--range", help="Source frames a:b, b excluded; 48: is to the end."),
    ] = None,
    handles: Annotated[int | None, typer.Option(help="Frames more at both ends.")] = None,
    rate: Annotated[str | None, typer.Option(help="Of an image sequence: 24, 30000/1001.")] = None,
    size: Annotated[int | None, typer.Option(help="Short side that is worked at, pixels.")] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Where it acts (white): an image, a clip, a sequence.")
    ] = None,
    feather: Annotated[float | None, typer.Option(help="Of the mask's edge, pixels.")] = None,
    subject: Annotated[
        Path | None, typer.Option(help="What is not background (white), as --mask.")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="At one keyframe: prompt@48=..., negative@, seed@, strength@, painted@48=a.png.",
        ),
    ] = None,
    track: Track = None,
    propagation: Annotated[str | None, typer.Option(help="auto, flow or patch.")] = None,
    preserve_colour: Annotated[
        bool | None, typer.Option("--preserve-colour", help="Keep each shot's colours.")
    ] = None,
    codec: Annotated[
        str | None, typer.Option(help="h264, hevc, prores-422-hq, prores-4444, dnxhr-hq, ffv1 ...")
    ] = None,
    hdr: Annotated[str | None, typer.Option(help="PQ and HLG: refuse or tone-map.")] = None,
    accept: Annotated[
        list[str] | None, typer.Option(help="A loss: alpha, 'bit depth', 'pixel aspect'.")
    ] = None,
    overwrite: Annotated[bool | None, typer.Option("--overwrite", help="Replace the file.")] = None,
) -> None:
    """Carry the options that say what is wanted; `_with_wishes` gives them to a command."""


_RENAMED = {
    "lora": "loras",
    "control": "controls",
    "reference": "pictures",
    "embedding": "embeddings",
    "change": "changes",
    "track": "tracks",
}


#: What of a request says which frames there are.
_OF_THE_CLIP = ("clip", "rate", "start", "stop", "handles", "keyframes", "cuts", "hdr")
#: What of it keyframes are found by beside the clip.
_TURNING = ("prompt", "negative", "tracks")


def _with_wishes(command: _F) -> _F:
    """Give `command`, which takes **wishes, the options of `_wishes`."""
    own = inspect.signature(command, eval_str=True)
    wishes = inspect.signature(_wishes, eval_str=True).parameters.values()
    ours = [each for each in own.parameters.values() if each.kind is not each.VAR_KEYWORD]
    every = [*ours, *wishes]
    command.__signature__ = own.replace(parameters=every)  # pyright: ignore
    command.__annotations__ = {each.name: each.annotation for each in every}
    return command


@_with_wishes
def render(
    clip: Clip,
    output: Output = None,
    until: Annotated[
        str | None, typer.Option(help="Stop at first_frame or keyframes, to look at them.")
    ] = None,
    device: Device = "",
    threads: Threads = 0,
    local: Annotated[
        bool, typer.Option("--local", help="Work in this process, without the server.")
    ] = False,
    as_json: AsJson = False,
    **wishes: Any,
) -> None:
    """Restyle a clip.

    The same command goes on where it was stopped; with something changed it does what the change
    reaches, and nothing else. `--until keyframes` shows the styled keyframes first. The work is
    done by the server, which is started if none runs.
    """
    wanted = _request(clip, {**wishes, "output": output, "until": until})
    if wanted.until != "done":
        _make_ready(wanted)
    if not local:
        _render_by_server(wanted, device, threads, as_json)
        return
    with _watched(as_json) as (watch, cancel):
        job = _settled(wanted, device, threads, cancel)
        foreseen = _foreseeing(job, watch)
        outcome = _rendered(job, foreseen.watch, cancel)
    _told(job, outcome, as_json, foreseen.rest)


def _render_by_server(wanted: Request, device: str, threads: int, as_json: bool) -> None:
    if device or threads:  # what cannot be is told here, not by a worker that cannot begin
        from bridge_server.environment import here

        here(device, threads)
    asked = request.absolute(wanted, Path.cwd(), library.is_path)
    with _watched(as_json) as (watch, cancel):
        done = remote.render(asked, remote.Place(device, threads), watch, cancel)
    _told_of(done, asked, as_json)


@_with_wishes
def contact_sheet(
    clip: Clip,
    output: Output = None,
    device: Device = "",
    threads: Threads = 0,
    as_json: AsJson = False,
    **wishes: Any,
) -> None:
    """Style the keyframes of a clip and put them on one sheet, sources above."""
    from bridge_server import pictures
    from bridge_server.render import sheet

    wanted = _request(clip, {**wishes, "until": "keyframes"})
    file = output or _beside(wanted, "keyframes.jpg")
    pictures.check(file, wanted.overwrite)
    with _watched(as_json) as (watch, cancel):
        job = _settled(wanted, device, threads, cancel, whole=False)
        outcome = _rendered(job, watch, cancel)
    pictures.save(sheet(job, outcome), file, wanted.overwrite)
    styled = _Styled(job.model, job.draft)
    _said({"event": "done", "sheet": str(file), **styled.facts}, f"{file}{styled}", as_json)


def propose_keyframes(
    clip: Clip,
    output: Output = None,
    keyframes: Annotated[str | None, typer.Option(help="auto, auto:10-30, every:12.")] = None,
    cuts: Annotated[str | None, typer.Option(help="auto, none, or frames as 96,140.")] = None,
    track: Track = None,
    span: Annotated[
        str | None, typer.Option("--range", help="Source frames a:b, b excluded.")
    ] = None,
    rate: Annotated[str | None, typer.Option(help="Of an image sequence: 24, 30000/1001.")] = None,
    hdr: Annotated[str | None, typer.Option(help="PQ and HLG: refuse or tone-map.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Propose keyframes, and plot how much each frame of the clip differs from the one before."""
    from bridge_server import curve, pictures
    from bridge_server.render import analyse
    from bridge_server.store import Store

    wishes = {"keyframes": keyframes, "cuts": cuts, "track": track, "span": span, "rate": rate,
              "hdr": hdr}  # fmt: skip
    # Of a job file only what matters here: its model need not be on this machine.
    said = _request(clip, wishes)
    wanted = Request(
        **{name: getattr(said, name) for name in (*_OF_THE_CLIP, *_TURNING)}, until="keyframes"
    )
    file = output or _beside(wanted, "keyframes.png")
    pictures.check(file, overwrite)
    settings = config.load()
    with _watched(as_json) as (watch, cancel):
        job = _settled(wanted, "cpu", 0, cancel, whole=False)
        analysis, shots = analyse(job, Store(settings.store), watch, cancel)
    first = job.span.start
    keys = [number for shot in shots for number in shot.keyframes]
    plot = curve.error_curve(
        analysis.errors,
        [number - first for number in keys],
        [shot.start - first for shot in shots[1:]],
        job.clip.rate,
        first,
    )
    pictures.save(plot, file, overwrite)
    facts = {
        "event": "done",
        "keyframes": keys,
        "cuts": [shot.start for shot in shots[1:]],
        "frames": [job.span.start, job.span.stop],
        "plot": str(file),
    }
    _said(facts, f"{','.join(map(str, keys))}\n{file}", as_json)


def propagate(
    clip: Clip,
    key: Annotated[list[str], typer.Option(help="A styled frame: 20=a.png; may be repeated.")],
    output: Output = None,
    cuts: Annotated[str | None, typer.Option(help="auto, none, or frames as 96,140.")] = None,
    span: Annotated[str | None, typer.Option("--range", help="Source frames a:b.")] = None,
    rate: Annotated[str | None, typer.Option(help="Of an image sequence.")] = None,
    size: Annotated[
        int | None, typer.Option(help="Short side that is worked at; the clip's own.")
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="Where it acts (white).")] = None,
    feather: Annotated[float | None, typer.Option(help="Of the mask's edge, pixels.")] = None,
    propagation: Annotated[str | None, typer.Option(help="auto, flow or patch.")] = None,
    codec: Annotated[str | None, typer.Option(help="As of render.")] = None,
    hdr: Annotated[str | None, typer.Option(help="PQ and HLG: refuse or tone-map.")] = None,
    accept: Annotated[list[str] | None, typer.Option(help="A loss, as of render.")] = None,
    threads: Threads = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Carry frames that you painted, or styled elsewhere, over the whole clip. Needs no model."""
    painted = [_key(text) for text in key]
    wishes = {
        "output": output,
        "cuts": cuts,
        "span": span,
        "rate": rate,
        "size": size,
        "mask": mask,
        "feather": feather,
        "propagation": propagation,
        "codec": codec,
        "hdr": hdr,
        "accept": accept,
        "overwrite": overwrite or None,
        "until": "done",
        "keyframes": ",".join(frame for frame, _ in painted),
        "change": [f"painted@{frame}={file}" for frame, file in painted],
    }
    with _watched(as_json) as (watch, cancel):
        job = _settled(_request(clip, wishes), "cpu", threads, cancel)
        outcome = _rendered(job, watch, cancel)
    _told(job, outcome, as_json)


def demo(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="A folder for what is made.")
    ] = Path("fresco-bridge-demo"),
    prompt: Annotated[str, typer.Option("-p", "--prompt")] = "watercolour painting",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Restyle the sample clip with the draft model; writes a page that shows before and after."""
    from bridge_server.demo import run

    with _watched(as_json) as (watch, cancel):
        page = run(output, prompt, overwrite, config.load(), watch, cancel)
    _said({"event": "done", "page": str(page)}, f"open {page}", as_json)


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(render)
    app.command("keyframes")(propose_keyframes)
    app.command("contact-sheet")(contact_sheet)
    app.command()(propagate)
    app.command()(demo)


def _request(clip: Path, wishes: dict[str, Any]) -> Request:
    """Make a request of a clip or a job file, and of what was said beside it."""
    from_file = clip.suffix.lower() == ".toml"
    base = request.read(clip).table() if from_file else {"clip": str(clip)}
    said = {name: value for name, value in wishes.items() if value is not None and value != []}
    span = said.pop("span", None)
    if span is not None:
        base = {name: own for name, own in base.items() if name not in ("start", "stop")}
        base |= _range(span)
    for name, value in said.items():
        plain = str(value) if isinstance(value, Path) else value
        base[_RENAMED.get(name, name)] = plain
    return request.from_table(base, "the command")


def _range(text: str) -> dict[str, int]:
    first, colon, last = text.partition(":")
    if not colon or not all(part.isdecimal() or not part for part in (first, last)):
        raise InvalidInput(f"range {text!r} cannot be read; write 48:96, 48: or :96.")
    ends = {"start": first, "stop": last}
    return {name: int(number) for name, number in ends.items() if number}


def _key(text: str) -> tuple[str, str]:
    frame, equals, file = text.partition("=")
    if not equals or not frame.isdecimal() or not file:
        raise InvalidInput(f"key {text!r} cannot be read; write FRAME=PICTURE, as in 20=a.png.")
    return frame, file


def _settled(
    wanted: Request, device: str, threads: int, cancel: CancelToken, whole: bool = True
) -> Job:
    """Settle a job of this process. whole: see `job.settle`."""
    from bridge_server.environment import here
    from bridge_server.job import settle

    return settle(wanted, here(device, threads), config.load(), cancel, whole=whole)


def _rendered(job: Job, watch: Watch, cancel: CancelToken) -> Outcome:
    from bridge_server.render import render_alone

    return render_alone(job, config.load().store, watch, cancel)


@dataclass(slots=True)
class _Foreseeing:
    """Makes a forecast of what is expected, from what the server has learnt of this machine."""

    forecast: forecast.Forecast
    shown: Watch
    rest: dict[str, Any] = field(default_factory=dict[str, Any])

    def watch(self, event: Event) -> None:
        """See `bridge_server.events.Watch`."""
        from bridge_server.events import Expected

        if isinstance(event, Expected):
            self.forecast.expected = asdict(event)
            self.shown(remote.foretold(self.forecast.ahead()))
            self.rest = self.forecast.rest()
        self.shown(event)


def _foreseeing(job: Job, watch: Watch) -> _Foreseeing:
    from bridge_server.journal import read_speeds

    speeds = read_speeds(config.state_folder(config.load()) / config.JOURNAL)
    return _Foreseeing(forecast.Forecast(forecast.work(job), speeds), watch)


def _keyframe_folder(wanted: Request) -> Path:
    """Where keyframes go that are to be looked at, or painted over.

    The output, if that is a folder; beside it, if it is what the clip will be.
    """
    output = Path(wanted.output)
    if wanted.output and _is_folder(output):
        return output
    clip = output if wanted.output else Path(wanted.clip)
    return clip.with_name(f"{clip.stem} keyframes")


def _is_folder(output: Path) -> bool:
    """Whether this names a folder: one that is there, or that nobody would call a clip."""
    return output.is_dir() or not re.fullmatch(r"\.[A-Za-z]\w*", output.suffix)


def _make_ready(wanted: Request) -> None:
    """See to it that keyframes, and the clip after them, can be put where they are to go.

    A folder that is named for them is made now: the clip goes into it too, and to the job it must
    be one that is there.

    Raises:
        NotWritten: nothing can be put there.
        UnsupportedMedia: the output has the ending of no clip.
    """
    folder = _keyframe_folder(wanted)
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise NotWritten(f"no keyframes can be put into {folder}; choose another folder with -o.")
    if not wanted.output:
        return
    output = Path(wanted.output)
    if _is_folder(output):
        output.mkdir(parents=True, exist_ok=True)
    elif output.suffix.lower() not in formats.SUFFIXES:
        raise UnsupportedMedia(
            f"no clip is written to {output.name}; end it in one of {', '.join(formats.SUFFIXES)}, "
            "or name a folder for the keyframes that is there, or has no such ending."
        )


def _beside(wanted: Request, what: str) -> Path:
    """A name beside the clip."""
    clip = Path(wanted.clip)
    return clip.with_name(f"{clip.stem} {what}")


def _told(job: Job, outcome: Outcome, as_json: bool, rest: Mapping[str, Any] | None = None) -> None:
    from bridge_server.render import export

    if outcome.report is None:
        files = export(outcome, _keyframe_folder(job.request))
        _say_keyframes(files, _Styled(job.model, job.draft), rest or {}, as_json)
        return
    rows = [
        {"name": row.name, "source": row.source, "result": row.result, "state": row.state.value,
         "why": row.why}
        for row in outcome.report.rows
    ]  # fmt: skip
    _say_output(str(job.output), rows, _Styled(job.model, job.draft), as_json)


def _told_of(done: Rendered, wanted: Request, as_json: bool) -> None:
    """Tell what the server made."""
    entry = catalogue.load(config.load()).get(wanted.model)
    draft = entry is not None and entry.bundled
    styled = _Styled(wanted.model, draft) if wanted.translates else _Styled("", False)
    if done.job.state == "waiting":
        from bridge_server.publish import keyframe_name, publish

        folder = _keyframe_folder(wanted)
        folder.mkdir(parents=True, exist_ok=True)
        files = dict(done.keyframes)
        painted = {Path(change.value) for change in wanted.changes if change.what == "painted"}
        for number, picture in done.keyframes.items():
            if picture not in painted:
                # In the store a picture is in a folder by its number, in one by its unit's key.
                files[number] = folder / keyframe_name(number, picture.parents[1].name)
                if not files[number].exists():
                    publish(picture.read_bytes(), files[number], overwrite=True)
        _say_keyframes(files, styled, done.job.forecast, as_json)
        return
    if done.before and not as_json:
        typer.echo("it was made before, and nothing has changed since", err=True)
    _say_output(done.job.output, done.made.report, styled, as_json)


@dataclass(frozen=True, slots=True)
class _Styled:
    """What the pictures are the work of; no model where all keyframes were painted."""

    model: str
    draft: bool

    def __str__(self) -> str:
        """Say it behind the pictures."""
        return f", styled by {words.title(self.model, self.draft)}" if self.model else ""

    @property
    def facts(self) -> dict[str, Any]:
        """The same for programs."""
        return {"model": self.model or None, "draft": self.draft}


def _say_keyframes(
    files: Mapping[int, Path], styled: _Styled, rest: Mapping[str, Any], as_json: bool
) -> None:
    """Say where the keyframes are, and what the rest of the job takes."""
    from bridge_server.progress import cost

    lines = [f"keyframe {number}: {file}" for number, file in files.items()]
    lines.append(f"{len(files)} keyframes{styled}")
    named = {number: str(file) for number, file in files.items()}
    facts = {"event": "done", "keyframes": named, "forecast": dict(rest), **styled.facts}
    _said(facts, "\n".join(lines), as_json)
    if not as_json and (said := cost(remote.foretold(rest))):
        typer.echo(f"the rest takes {said}", err=True)


def _say_output(
    output: str, rows: Sequence[Mapping[str, Any]], styled: _Styled, as_json: bool
) -> None:
    """Say where the file is, and how it compares with its source.

    rows: `media.verify.Row` as tables
    """
    told = [{name: row[name] for name in ("name", "source", "result", "state")} for row in rows]
    frames = next((row["result"] for row in rows if row["name"] == "frames"), "all")
    changed = [_row(row) for row in rows if row["state"] != "kept"]
    text = "\n".join([f"{output}: {frames} frames{styled}, verified against the source", *changed])
    _said({"event": "done", "output": output, "report": told, **styled.facts}, text, as_json)


def _row(row: Mapping[str, Any]) -> str:
    why = f" ({row['why']})" if row.get("why") else ""
    return f"{row['name']}: {row['source']} -> {row['result']}, {row['state']}{why}"


def _said(facts: dict[str, Any], text: str, as_json: bool) -> None:
    import json

    typer.echo(json.dumps(facts) if as_json else text)


@contextmanager
def _watched(as_json: bool) -> Generator[tuple[Watch, CancelToken]]:
    """Show progress, and let Ctrl-C stop the work at its next poll; a second one stops at once."""
    from bridge_server.progress import watcher
    from fresco.callbacks import CancelToken

    cancel = CancelToken()

    def stop(_number: int, _frame: FrameType | None) -> None:
        cancel.cancel()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, stop)
    try:
        with watcher(as_json) as watch:
            yield watch, cancel
    finally:
        signal.signal(signal.SIGINT, before)
