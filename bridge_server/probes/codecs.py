"""Which clips are read and written here."""

from __future__ import annotations

from collections.abc import Iterator

from bridge_server.probes.finding import Finding, State

AREA = "codecs"
_WHEEL = "install PyAV's own wheel: pip install --force-reinstall --only-binary av av"


def encoders() -> Iterator[Finding]:
    """Whether every profile has its encoder."""
    from bridge_server.media import profiles
    from bridge_server.media.errors import MissingEncoder

    for profile in profiles.PROFILES.values():
        if profile.images:
            continue
        try:
            name = profiles.codec(profile).name
            yield Finding(AREA, f"write {profile.name}", State.OK, name)
        except MissingEncoder as error:
            text = str(error).partition(";")[0]
            yield Finding(AREA, f"write {profile.name}", State.PROBLEM, text, _WHEEL)


def decoders() -> Iterator[Finding]:
    """Whether every codec that clips come in has a decoder."""
    from bridge_server.media import profiles

    for kind, names in profiles.DECODERS.items():
        found = profiles.decoder(kind)
        if found:
            yield Finding(AREA, f"read {kind}", State.OK, found)
        else:
            text = f"this PyAV was built without {' or '.join(names)}"
            yield Finding(AREA, f"read {kind}", State.PROBLEM, text, _WHEEL)
