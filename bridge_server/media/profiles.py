"""The codecs that are written, and which one an editor wants back for a clip."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import av
from av.codec.codec import UnknownCodecError

from bridge_server.media import sequences, timecode
from bridge_server.media.clip import Clip
from bridge_server.media.colour import Form, form_of, image_form, target_form
from bridge_server.media.errors import MissingEncoder, UnsupportedMedia
from bridge_server.media.layout import Family, Layout, parse
from bridge_server.media.suffixes import SUFFIXES
from fresco.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Profile:
    """One way to write a clip.

    encoder: FFmpeg's name; empty for images
    containers: FFmpeg's names of muxers, the preferred first; of images, the format
    layouts: what the encoder is given, by rising demand; empty for "the source's own"
    smallest: width and height that the codec begins at
    even: width, or height, must be even where chroma is halved
    limited: the codec has limited range only
    """

    name: str
    encoder: str
    containers: tuple[str, ...]
    layouts: tuple[str, ...] = ()
    options: dict[str, str] = field(default_factory=dict[str, str])
    tag: str | None = None
    lossless: bool = False
    limited: bool = False
    even: bool = False
    smallest: tuple[int, int] = (1, 1)

    @property
    def images(self) -> bool:
        """Whether this writes an image sequence."""
        return not self.encoder


_DNX_SMALLEST = (256, 120)
_FILES = ("mp4", "mov", "matroska")
#: Sound that MP4 and MKV hold, and MOV does not.
_MP4_SOUND = frozenset({"flac", "opus", "truehd", "vorbis"})
_DNX_CONTAINERS = ("mov",)

#: By name, in the order of the documentation. Quality is set where an editor sees no difference.
PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "h264", "libx264", _FILES,
            ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le"),
            # x264's macroblock tree gives other bytes at every run of a short clip.
            {"crf": "12", "preset": "medium", "mbtree": "0"}, even=True,
        ),
        Profile(
            "hevc", "libx265", _FILES,
            ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le",
             "yuv420p12le", "yuv422p12le", "yuv444p12le"),
            {"crf": "12", "preset": "medium", "x265-params": "log-level=error"},
            tag="hvc1", even=True, smallest=(16, 16),
        ),
        Profile(
            "prores-422-hq", "prores_ks", ("mov", "matroska"), ("yuv422p10le",),
            {"profile": "hq", "vendor": "apl0"}, limited=True,
        ),
        Profile(
            "prores-4444", "prores_ks", ("mov", "matroska"), ("yuv444p10le", "yuva444p10le"),
            {"profile": "4444", "vendor": "apl0", "alpha_bits": "16"}, limited=True,
        ),
        Profile(
            "dnxhr-hq", "dnxhd", _DNX_CONTAINERS, ("yuv422p",), {"profile": "dnxhr_hq"},
            limited=True, smallest=_DNX_SMALLEST,
        ),
        Profile(
            "dnxhr-hqx", "dnxhd", _DNX_CONTAINERS, ("yuv422p10le",), {"profile": "dnxhr_hqx"},
            limited=True, smallest=_DNX_SMALLEST,
        ),
        Profile(
            "dnxhr-444", "dnxhd", _DNX_CONTAINERS, ("yuv444p10le", "gbrp10le"),
            {"profile": "dnxhr_444"}, limited=True, smallest=_DNX_SMALLEST,
        ),
        Profile(
            "ffv1", "ffv1", ("matroska",), (),
            {"level": "3", "slicecrc": "1", "slices": "4", "g": "1"}, lossless=True,
            smallest=(4, 4),
        ),
        Profile("png", "", ("png",), lossless=True),
        Profile("tiff", "", ("tiff",), lossless=True),
        Profile("exr", "", ("exr",), lossless=True),
    )
}  # fmt: skip

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


def named(name: str) -> Profile:
    """Return the profile called `name`.

    Raises:
        InvalidInput: there is none.
    """
    if name not in PROFILES:
        raise InvalidInput(f"there is no profile {name!r}; choose one of {', '.join(PROFILES)}.")
    return PROFILES[name]


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
    if container in _FILES:
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
    if clip.width < _DNX_SMALLEST[0] or clip.height < _DNX_SMALLEST[1]:
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
