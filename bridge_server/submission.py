"""What can be told to be wrong of a request when it is submitted.

Before any footage is read, and without the libraries of the work: names that nothing has, and files
that cannot be written. What depends on what is on this machine may change until the job begins: of
that a job fails.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bridge_server import catalogue, descriptor, library
from bridge_server.catalogue import USUAL_CONTROL, Catalogue, Role
from bridge_server.config import Config
from bridge_server.media import formats
from bridge_server.request import ControlChoice, Request, check_frames
from fresco.errors import InvalidInput


def check(request: Request, settings: Config) -> None:
    """Check what a request names.

    Reads the user's catalogue, and looks whether the output is a folder.

    Raises:
        InvalidInput: a model, preset, sampler, control or codec that there is not, or for something
            else; keyframes, cuts or changes outside of the frames that are wanted.
        UnsupportedMedia: an output that is written to no file of such a name.
    """
    _check_key("codec", request.codec)
    _check_output(request)
    if request.stop is not None:
        stop = request.stop + request.handles
        check_frames(request, range(max(0, request.start - request.handles), stop))
    if request.translates:
        _check_key("preset", request.preset)
        _check_key("sampler", request.sampler)
        known = catalogue.load(settings)
        for name, role in _models(request):
            library.check_name(name, role, known)
        _check_controls(request, known)


def _check_key(field: str, key: str) -> None:
    """Check a field whose values are the keys of the effect's parameter of that name."""
    keys = descriptor.keys(field)
    if key not in keys:
        usable = ", ".join(filter(None, keys))
        raise InvalidInput(f"{field}: there is no {key!r}; use one of {usable}.")


def _check_output(request: Request) -> None:
    if request.output and not os.path.isdir(request.output):
        profile = formats.named(request.codec) if request.codec else None
        formats.check_name(Path(request.output), profile)


def _models(request: Request) -> Iterator[tuple[str, Role]]:
    """The models that a request names, and what it needs them for."""
    yield request.model, Role.BASE
    if request.vae:
        yield request.vae, Role.VAE
    yield from ((own.name, Role.LORA) for own in request.loras)
    yield from ((name, Role.EMBEDDING) for name in request.embeddings)
    yield from ((own.name, Role.IP_ADAPTER) for own in request.pictures)
    yield from ((own.model, Role.CONTROLNET) for own in request.controls if own.model)


def _check_controls(request: Request, known: Catalogue) -> None:
    """Check the kinds of control maps, and that there is a network for each.

    Of a model that the catalogue does not know the family is seen when it is looked at.
    """
    asked = request.controls
    if [choice.kind for choice in asked] == ["none"]:
        return
    kinds = [key for key in descriptor.keys("control") if key not in ("auto", "none")]
    for choice in asked:
        if not choice.maps and choice.kind not in kinds:
            raise InvalidInput(
                f"no control is called {choice.kind!r}; use one of {', '.join(kinds)} or none."
            )
    entry = known.get(request.model)
    if entry is None or entry.family is None:
        return
    for choice in asked or [ControlChoice(entry.recommended.control or USUAL_CONTROL)]:
        if not choice.model:
            known.network(choice.kind, request.model, entry.family.value)
