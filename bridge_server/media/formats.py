"""The files that are written: codecs, the containers they go into, and their suffixes.

Facts alone, without the libraries that write them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bridge_server.media.errors import UnsupportedMedia
from fresco.errors import InvalidInput

#: Suffixes of images, and what the sequence is called.
IMAGES = {".png": "png", ".tif": "tiff", ".tiff": "tiff", ".exr": "exr"}
#: Containers by the suffix of the file to write.
SUFFIXES = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"} | IMAGES


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


#: Width and height.
DNX_SMALLEST = (256, 120)
#: Containers of most codecs.
FILES = ("mp4", "mov", "matroska")
_DNX_CONTAINERS = ("mov",)

#: By name, in the order of the documentation. Quality is set where an editor sees no difference.
PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "h264", "libx264", FILES,
            ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le"),
            # x264's macroblock tree gives other bytes at every run of a short clip.
            {"crf": "12", "preset": "medium", "mbtree": "0"}, even=True,
        ),
        Profile(
            "hevc", "libx265", FILES,
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
            limited=True, smallest=DNX_SMALLEST,
        ),
        Profile(
            "dnxhr-hqx", "dnxhd", _DNX_CONTAINERS, ("yuv422p10le",), {"profile": "dnxhr_hqx"},
            limited=True, smallest=DNX_SMALLEST,
        ),
        Profile(
            "dnxhr-444", "dnxhd", _DNX_CONTAINERS, ("yuv444p10le", "gbrp10le"),
            {"profile": "dnxhr_444"}, limited=True, smallest=DNX_SMALLEST,
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


def named(name: str) -> Profile:
    """Return the profile called `name`.

    Raises:
        InvalidInput: there is none.
    """
    if name not in PROFILES:
        raise InvalidInput(f"there is no profile {name!r}; choose one of {', '.join(PROFILES)}.")
    return PROFILES[name]


def check_name(target: Path, profile: Profile | None = None) -> None:
    """Check that a file of this name can be written.

    profile: what is to be in it; None: whatever such a file holds

    Raises:
        UnsupportedMedia: its suffix is none that is written, or not the profile's; names those.
    """
    container = SUFFIXES.get(target.suffix.lower())
    if container is not None and (profile is None or container in profile.containers):
        return
    wanted = [end for end, name in SUFFIXES.items() if not profile or name in profile.containers]
    what = f"{profile.name} is" if profile else "clips are"
    raise UnsupportedMedia(f"{what} not written to {target.name}; end it in {' or '.join(wanted)}.")
