"""The sample clip, restyled by the draft model: what a new installation can show at once."""

from __future__ import annotations

import time
from pathlib import Path

from bridge_server import page, pictures
from bridge_server import render as rendering
from bridge_server.config import Config
from bridge_server.environment import here
from bridge_server.events import Watch
from bridge_server.job import Job, settle
from bridge_server.media.errors import NotWritten
from bridge_server.publish import publish
from bridge_server.render import Outcome
from bridge_server.request import Request
from fresco.callbacks import CancelToken

CLIP = Path(__file__).with_name("data") / "demo.mp4"
BEFORE, AFTER, SHEET = "before.mp4", "after.mp4", "keyframes.jpg"


def run(
    folder: Path, prompt: str, overwrite: bool, config: Config, watch: Watch, cancel: CancelToken
) -> Path:
    """Restyle the sample clip into `folder`, and return the page that shows it.

    Raises:
        NotWritten: `folder` is a file, or something is in it already and `overwrite` is not set.
        FrescoError, Cancelled: see `bridge_server.render.render`.
    """
    if folder.exists() and not folder.is_dir():
        raise NotWritten(f"{folder} is a file; choose another folder with -o.")
    folder.mkdir(parents=True, exist_ok=True)
    there = [name for name in (BEFORE, AFTER, SHEET, page.NAME) if (folder / name).exists()]
    if there and not overwrite:
        raise NotWritten(
            f"{folder / there[0]} exists; choose another folder with -o, or allow overwriting "
            "with --overwrite."
        )
    begun = time.monotonic()
    wanted = Request(str(CLIP), prompt, output=str(folder / AFTER), overwrite=overwrite)
    job = settle(wanted, here(), config, cancel)
    outcome = rendering.render_alone(job, config.store, watch, cancel)
    publish(CLIP.read_bytes(), folder / BEFORE, overwrite)
    pictures.save(rendering.sheet(job, outcome), folder / SHEET, overwrite)
    shown = _page(job, outcome, time.monotonic() - begun)
    return page.write(shown, folder, overwrite).resolve()


def _page(job: Job, outcome: Outcome, seconds: float) -> page.Page:
    assert outcome.report is not None, "it was rendered to the end"
    size = job.size
    facts = {
        "model": job.title,
        "steps": str(job.settings.steps),
        "guidance": f"{job.settings.guidance_scale:g}",
        "strength": f"{job.strength:g}",
        "seed": str(job.request.seed),
        "worked at": f"{size.width} x {size.height} pixels",
        "keyframes": ", ".join(map(str, outcome.keyframes)),
        "computed on": f"{job.environment.device}, {job.environment.threads} threads",
        "took": f"{seconds:.0f} s",
    }
    return page.Page(
        title="FreSCo Bridge: the sample clip",
        prompt=job.request.prompt,
        before=Path(BEFORE),
        after=Path(AFTER),
        sheet=Path(SHEET),
        facts=facts,
        report=outcome.report,
    )
