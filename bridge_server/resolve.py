"""From the names that a job uses to the files that they stand for on this machine; offline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bridge_server import catalogue, config, library
from bridge_server.catalogue import PICKLES, Role
from bridge_server.config import Config
from bridge_server.lock import Lock
from fresco.adapters import IPAdapter, Lora
from fresco.control import WEIGHTS, ControlEstimator, estimator
from fresco.errors import InvalidInput, MissingWeights
from fresco.samplers import preset
from fresco.warm import ModelSpec

_ENCODER = "image_encoder"


def resolve(spec: ModelSpec, settings: Config | None = None) -> ModelSpec:
    """Replace every name in `spec` by its place on this machine.

    The image encoder of an IP-Adapter that comes with one need not be named.

    Raises:
        MissingWeights: says of everything that is missing how it is brought.
        NotAsPinned, InvalidInput: see `bridge_server.library.locate`.
    """
    places = _Places(settings or config.load())
    at = places.at
    found = replace(
        spec,
        base=at(spec.base, Role.BASE),
        vae=spec.vae and at(spec.vae, Role.VAE),
        preview_vae=spec.preview_vae and at(spec.preview_vae, Role.PREVIEW),
        controlnets=[at(name, Role.CONTROLNET) for name in spec.controlnets],
        loras=[replace(lora, file=at(lora.file, Role.LORA)) for lora in spec.loras],
        inversions=[replace(own, file=at(own.file, Role.EMBEDDING)) for own in spec.inversions],
        ip_adapters=[replace(own, file=at(own.file, Role.IP_ADAPTER)) for own in spec.ip_adapters],
    )
    places.check()
    return _with_image_encoder(found)


def with_preset(spec: ModelSpec, name: str, settings: Config | None = None) -> ModelSpec:
    """Give `spec` the sampler of the preset `name`, and the LoRA that the preset needs.

    Raises:
        InvalidInput: there is no such preset, or it is made for another family of models.
    """
    chosen = preset(name)
    known = catalogue.load(settings or config.load())
    entry = known.get(str(spec.base))
    family = entry.family.value if entry is not None and entry.family else ""
    if family and family not in chosen.families:
        raise InvalidInput(
            f"the preset {name} is made for {', '.join(chosen.families)}, and {spec.base} is of "
            f"{family}; choose another preset."
        )
    needed = [Lora(chosen.lora, chosen.lora_weight)] if chosen.lora else []
    named = {str(lora.file) for lora in spec.loras}
    loras = [*spec.loras, *(lora for lora in needed if lora.file not in named)]
    return replace(spec, sampler=chosen.sampler, loras=loras)


def annotator(kind: str, settings: Config | None = None) -> Path | None:
    """Where the weights are that draw control maps of `kind`; None where it needs none.

    Raises:
        MissingWeights, NotAsPinned: see `bridge_server.library.locate`.
    """
    name = WEIGHTS.get(kind)
    return None if name is None else library.locate(name, Role.ANNOTATOR, settings=settings)


def control_estimator(kind: str, settings: Config | None = None) -> ControlEstimator:
    """The estimator of control maps called `kind`, with its weights.

    Raises:
        MissingWeights, NotAsPinned: see `bridge_server.library.locate`.
        InvalidInput: there is no such kind.
    """
    settings = settings or config.load()
    path = annotator(kind, settings)
    if path is None:
        return estimator(kind)
    pins = Lock(settings.lock_file).get(WEIGHTS[kind]).files
    digest = pins[path.name].sha256 if path.suffix.lower() in PICKLES else None
    return estimator(kind, path, digest)


class _Places:
    """Looks up models, and keeps what is said of missing ones until all were looked up."""

    def __init__(self, settings: Config) -> None:
        self._settings = settings
        self._missing: dict[str, None] = {}  # in order, each once

    def at(self, name: str | Path, role: Role) -> Path:
        try:
            return library.locate(str(name), role, settings=self._settings)
        except MissingWeights as error:
            self._missing[str(error)] = None
            return Path()

    def check(self) -> None:
        if self._missing:
            raise MissingWeights(" ".join(f"{text.rstrip('.')}." for text in self._missing))


def _with_image_encoder(spec: ModelSpec) -> ModelSpec:
    """Take the files out of IP-Adapters' folders, and the image encoder that lies beside."""
    encoder = spec.image_encoder
    adapters: list[IPAdapter] = []
    for adapter in spec.ip_adapters:
        place = Path(adapter.file)
        if place.is_dir():
            beside = next(place.rglob(f"{_ENCODER}/config.json"), None)
            encoder = encoder or (beside and beside.parent)
            place = _own_file(place)
        adapters.append(replace(adapter, file=place))
    return replace(spec, ip_adapters=adapters, image_encoder=encoder)


def _own_file(folder: Path) -> Path:
    """The adapter's weights, which may lie beside those of its image encoder."""
    files = [file for file in folder.rglob("*.safetensors") if file.parent.name != _ENCODER]
    if len(files) != 1:
        names = ", ".join(sorted(file.name for file in files)) or "none"
        raise InvalidInput(
            f"{folder} should hold one IP-Adapter ({names}); name the file, as in "
            '"owner/name:file.safetensors".'
        )
    return files[0]
