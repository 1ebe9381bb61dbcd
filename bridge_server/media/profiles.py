"""Which of the codecs that are written an editor wants back for a clip, and in which form."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import av
from av.codec.codec import UnknownCodecError

from bridge_server.media import sequences, timecode
from bridge_server.media.clip import Clip
from bridge_server.media.colour import Form, form_of, image_form, target_form
from bridge_server.media.errors import MissingEncoder, UnsupportedMedia
from bridge_server.media.formats import DNX_SMALLEST, FILES, PROFILES, SUFFIXES, Profile
from bridge_server.media.layout import Family, Layout, parse

#: Sound that MP4 and MKV hold, and MOV does not.
_MP4_SOUND = frozenset({"flac", "opus", "truehd", "vorbis"})
#: What clips come in, and FFmpeg's decoders of it, of which one is enough. Its own of AV1 is none
#: by itself: it needs a graphics card.
DECODERS: dict[str, tuple[str, ...]] = {
    "H.264": ("h264",), "HEVC": ("hevc",), "VP9": ("vp9",), "VP9 with alpha": ("libvpx-vp9",),
    "AV1": ("libdav1d", "libaom-av1"), "ProRes": ("prores",), "DNxHD and DNxHR": ("dnxhd",),
    "FFV1": ("ffv1",),
}  # fmt: skip

#: FFV1 has no float, no 24-bit RGB without padding, and RGB of more bits as planes.
_FFV1_NAMES = {
    "rgb24": "bgr0", "bgr24": "bgr0", "rgb0": "bgr0", "0rgb": "bgr0", "0bgr": "bgr0",
    "gbrp": "bgr0", "rgba": "bgra", "argb": "bgra", "abgr": "bgra", "gbrap": "bgra",
    "rgb-uint8": "bgr0", "rgba-uint8": "bgra", "rgb-uint16": "gbrp16le",
    "rgba-uint16": "gbrap16le", "gray-uint8": "gray", "gray-uint16": "gray16le",
    "ya-uint8": "ya8", "rgb48le": "gbrp16le", "rgba64le": "gbrap16le", "gray8": "gray",
}  # fmt: skip


def default(clip: Clip, target: Path | None = None) -> Profile:
    """Return what an editor wants back for `clip`, or, where `target` cannot hold that, as near.

    Images come back as such images, lossless as lossless, an editing codec as the same; alpha
    needs ProRes 4444; H.264 and HEVC come back as what they are, unless they are 4:4:4 or of an odd
    size, which editors do not read: ProRes then. VP9 and AV1 come back as H.264, or HEVC where
    they have more than 8 bits.
    """
    wanted = _wanted(clip)
    container = SUFFIXES.get(target.suffix.lower()) if target else None
    if container is None or container in wanted.containers:
        return wanted
    return PROFILES[_held(clip, container)]


def _held(clip: Clip, container: str) -> str:
    """The profile that keeps most of `clip` in a container that does not hold the wanted one."""
    if container == "mp4":
        return "h264" if clip.layout.bits == 8 else "hevc"
    if container == "matroska" and clip.files:
        return "ffv1"
    if container in FILES:
        return "prores-4444" if clip.alpha or _full_chroma(clip) else "prores-422-hq"
    return container


def _full_chroma(clip: Clip) -> bool:
    return clip.layout.family is not Family.GRAY and clip.layout.shift == (0, 0)


def _wanted(clip: Clip) -> Profile:
    if clip.files:
        return PROFILES[clip.container]
    if clip.codec == "ffv1":
        return PROFILES["ffv1"]
    if clip.codec == "dnxhd" and not clip.alpha:
        return PROFILES[_dnx(clip)]
    if clip.alpha or _full_chroma(clip):
        return PROFILES["prores-4444"]
    odd = clip.width % 2 or clip.height % 2
    if clip.codec == "prores" or odd or clip.codec not in ("h264", "hevc", "vp9", "av1"):
        return PROFILES["prores-422-hq"]
    return PROFILES["h264" if clip.codec == "h264" or _eight(clip) else "hevc"]


def _eight(clip: Clip) -> bool:
    return clip.codec != "hevc" and clip.layout.bits == 8


def _dnx(clip: Clip) -> str:
    if clip.width < DNX_SMALLEST[0] or clip.height < DNX_SMALLEST[1]:
        return "prores-422-hq"
    if clip.layout.shift == (0, 0):
        return "dnxhr-444"
    return "dnxhr-hq" if clip.layout.bits == 8 else "dnxhr-hqx"


def suffix(clip: Clip, profile: Profile) -> str:
    """Return the suffix of the file that `profile` is best written to for `clip` with its sound."""
    sound = {track.codec for track in clip.audio}
    names = {"mp4": ".mp4", "mov": ".mov", "matroska": ".mkv"}
    if profile.images:
        return clip.files[0].suffix if clip.container in profile.containers else f".{profile.name}"
    fitting = [each for each in profile.containers if each != "mov" or _MP4_SOUND.isdisjoint(sound)]
    fitting = fitting or list(profile.containers)
    own = clip.container
    if own in fitting and (clip.pixel_aspect == 1 or holds_aspect(profile, own)):
        return names[own]
    return names[fitting[0]]


def holds_aspect(profile: Profile, container: str) -> bool:
    """Whether the pixels' shape can be written: PyAV writes it to MKV in the bitstream only."""
    return container != "matroska" or profile.encoder in ("libx264", "libx265")


def start_timecode(clip: Clip, first: int, container: str) -> str | None:
    """Return the timecode that a file of `container` is given whose first frame is `first`."""
    return clip.timecode_at(first) if timecode.holds(container, clip.rate) else None


def form(clip: Clip, profile: Profile) -> Form:
    """Return in which form frames must be handed to an encoder of `profile` for `clip`.

    Raises:
        UnsupportedMedia: the codec cannot hold the clip's size or samples.
    """
    if profile.images:
        return _image_form(clip, profile)
    _check_size(clip, profile)
    chosen = _lossless(clip, profile) if profile.lossless else _nearest(clip, profile)
    if profile.even and chosen.shift[0] and clip.width % 2:
        raise _odd(clip, profile)
    if profile.even and chosen.shift[1] and clip.height % 2:
        raise _odd(clip, profile)
    if chosen == clip.layout and not (profile.limited and clip.tags.full):
        return form_of(clip)
    return target_form(clip, chosen, profile.limited)


def _odd(clip: Clip, profile: Profile) -> UnsupportedMedia:
    return UnsupportedMedia(
        f"{profile.name} in the form that editors read holds no odd size, and the clip is "
        f"{clip.width}x{clip.height}; choose prores-422-hq."
    )


def _check_size(clip: Clip, profile: Profile) -> None:
    width, height = profile.smallest
    if clip.width < width or clip.height < height:
        raise UnsupportedMedia(
            f"{profile.name} begins at {width}x{height}, and the clip is {clip.width}x"
            f"{clip.height}; choose prores-422-hq."
        )


def _image_form(clip: Clip, profile: Profile) -> Form:
    if clip.container in profile.containers:
        return form_of(clip)
    if profile.name == "exr":
        bits = 32 if clip.layout.floating and clip.layout.bits == 32 else 16
        return image_form(clip, sequences.layout(bits, clip.alpha, True))
    bits = 8 if clip.layout.bits == 8 else 16
    return image_form(clip, sequences.layout(bits, clip.alpha))


def _lossless(clip: Clip, profile: Profile) -> Layout:
    name = _FFV1_NAMES.get(clip.layout.name, clip.layout.name)
    encoder = codec(profile)
    if clip.layout.floating or name not in {each.name for each in encoder.video_formats or ()}:
        raise UnsupportedMedia(
            f"{profile.name} does not hold {clip.layout.name} without loss; choose exr for float "
            "samples, or tiff."
        )
    return parse(name)


def _nearest(clip: Clip, profile: Profile) -> Layout:
    """The first layout that holds all that the source has; of chroma, only H.264 and HEVC ask."""
    layouts = [parse(name) for name in profile.layouts]
    own = clip.layout
    same = [each for each in layouts if each.name == own.name]
    if same and clip.codec == profile.name:
        return same[0]
    if profile.encoder == "libx264":
        return parse("yuv420p")
    if profile.encoder == "libx265":
        usual = [each for each in layouts if each.shift == (1, 1)]
        return next((each for each in usual if each.bits >= own.bits), usual[-1])
    if own.family is Family.RGB and profile.name == "dnxhr-444":
        return layouts[-1]
    fitting = [each for each in layouts if each.alpha == own.alpha]
    return (fitting or layouts)[0]


def codec(profile: Profile) -> av.Codec:
    """Return the encoder of `profile`.

    Raises:
        MissingEncoder: the installed PyAV has none.
    """
    try:
        return av.Codec(profile.encoder, "w")
    except UnknownCodecError as error:
        raise MissingEncoder(
            f"this PyAV ({av.__version__}) was built without {profile.encoder}, which writes "
            f"{profile.name}; install PyAV's own wheel (pip install --force-reinstall "
            "--only-binary av av), or choose another profile."
        ) from error


def decoder(kind: str) -> str | None:
    """Return FFmpeg's name of the decoder for `kind`, of `DECODERS`; None if PyAV has none."""
    for name in DECODERS[kind]:
        with suppress(UnknownCodecError):
            return av.Codec(name, "r").name
    return None
