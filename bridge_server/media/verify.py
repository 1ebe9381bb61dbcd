"""Comparing a written file with its source, property by property."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import numpy as np

from bridge_server.media import audio, decode, orient, profiles, transfer
from bridge_server.media.clip import UNSPECIFIED, AudioTrack, Clip, ColourTags
from bridge_server.media.errors import UnreadableMedia
from bridge_server.media.formats import Profile
from bridge_server.media.layout import Family, Layout
from bridge_server.media.probe import probe
from fresco.callbacks import CancelToken

#: By how many seconds a chapter may be moved: where sound begins before the picture, Matroska's
#: muxer moves both to zero, and not the chapters.
_CHAPTER = Fraction(1, 20)
#: How often chroma is halved, (x, y), as it is called.
_CHROMA = {
    (0, 0): "4:4:4", (1, 0): "4:2:2", (1, 1): "4:2:0", (0, 1): "4:4:0", (2, 0): "4:1:1",
    (2, 2): "4:1:0",
}  # fmt: skip


class State(Enum):
    """What became of a property."""

    KEPT = "kept"
    CHANGED = "changed"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Row:
    """One property of the source and of the result; `why` says why it may differ."""

    name: str
    source: str
    result: str
    state: State
    why: str = ""

    def __str__(self) -> str:
        end = f" ({self.why})" if self.why else ""
        return f"{self.name}: {self.source} -> {self.result}, {self.state.value}{end}"


@dataclass(frozen=True, slots=True)
class Report:
    """What was compared. `ok`: nothing is wrong."""

    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        """Whether every property is kept, or changed for a reason that is allowed."""
        return all(row.state is not State.WRONG for row in self.rows)

    def __getitem__(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def __str__(self) -> str:
        return "\n".join(map(str, self.rows))


def verify(
    clip: Clip,
    target: Path,
    span: range,
    layout: Layout,
    profile: Profile,
    accept: frozenset[str] = frozenset(),
    cancel: CancelToken | None = None,
) -> Report:
    """Compare the file `target` with the frames `span` of its source.

    Every frame of the result is decoded once, so that a file which cannot be played is not handed
    out.

    layout: that the encoder was given
    accept: properties whose loss the caller accepted

    Raises:
        UnreadableMedia: the result cannot be read at all.
        Cancelled: `cancel` was set.
    """
    result = probe(target, clip.rate, cancel)
    work = _Comparison(clip, result, span, layout, profile)
    rows = [*work.rows(), *work.sound(cancel), _decodable(result, cancel)]
    return Report(tuple(_accepted(row, accept) for row in rows))


def shallower(clip: Clip, layout: Layout, profile: Profile) -> bool:
    """Whether a file with `layout` holds fewer bits than `clip` in a way that counts.

    ProRes is written with 10 bits however deep its source is; from ProRes itself that is the same.
    """
    if profile.name.startswith("prores") and clip.codec == "prores":
        return False
    return (layout.bits, layout.floating) < (clip.layout.bits, clip.layout.floating) and not (
        layout.floating and not clip.layout.floating and clip.layout.bits <= 10
    )


def _accepted(row: Row, accept: frozenset[str]) -> Row:
    if row.state is State.WRONG and row.name in accept:
        return replace(row, state=State.CHANGED, why="the loss was accepted")
    return row


def _decodable(result: Clip, cancel: CancelToken | None) -> Row:
    shown = 0
    try:
        for _ in decode.frames(result, cancel=cancel):
            shown += 1
    except UnreadableMedia as error:
        return Row("decodes", "all", f"{shown} frames", State.WRONG, str(error))
    return Row("decodes", "all", "all", State.KEPT)


@dataclass(frozen=True, slots=True)
class _Comparison:
    clip: Clip
    result: Clip
    span: range
    layout: Layout
    profile: Profile

    def rows(self) -> Iterator[Row]:
        """Compare all properties; those of time only where there are as many frames."""
        yield _same("frames", len(self.span), self.result.count)
        if len(self.span) == self.result.count:
            yield self._rate()
            yield self._times()
            yield self._length()
        yield _same("size", *(f"{c.width}x{c.height}" for c in (self.clip, self.result)))
        yield self._pixel_aspect()
        yield self._rotation()
        yield self._timecode()
        yield self._tags()
        yield self._depth()
        yield self._chroma()
        yield _same("alpha", *("yes" if c.alpha else "no" for c in (self.clip, self.result)))
        yield from self._chapters()
        if self.clip.others:
            kinds = ", ".join(self.clip.others)
            yield Row("other streams", kinds, "none", State.CHANGED, "they are not carried over")

    def _rate(self) -> Row:
        if self.clip.variable:
            return Row(
                "rate", "variable", "variable" if self.result.variable else "constant",
                State.KEPT, "the times of the frames count",
            )  # fmt: skip
        return _same("rate", self.clip.rate, self.result.rate)

    def _times(self) -> Row:
        """Each frame against the first, within a tick of the coarser clock."""
        slack = Fraction(0) if self.clip.variable else self.clip.time_base
        slack = max(slack, self.result.time_base if self._coarse() else Fraction(0))
        apart = self._apart()
        state = State.KEPT if apart <= slack else State.WRONG
        why = f"within {float(slack) * 1000:.3g} ms" if slack and apart else ""
        return Row("times", "0", f"{float(apart) * 1000:.3g} ms off at most", state, why)

    def _length(self) -> Row:
        """How long the range lasts, with its last frame, to half a frame."""
        own = self.clip.seconds(self.span.stop) - self.clip.seconds(self.span.start)
        new = self.result.seconds(self.result.count) - self.result.seconds(0)
        row = Row("length", f"{float(own):.3f} s", f"{float(new):.3f} s", State.KEPT)
        if abs(own - new) * self.clip.rate <= Fraction(1, 2):
            return row
        why = "the container does not say how long the last frame is held"
        return replace(row, state=State.CHANGED, why=why)

    def _coarse(self) -> bool:
        return self.result.container in ("matroska", "webm")

    def _apart(self) -> Fraction:
        """The largest distance of a frame from its source's time, exact."""
        own = self.clip.pts[self.span.start : self.span.stop]
        own, new = own - own[0], self.result.pts - self.result.pts[0]
        ours, theirs = self.clip.time_base, self.result.time_base
        guess = np.abs(own * float(ours) - new * float(theirs))
        worst = np.argsort(guess)[-8:]
        return max(abs(int(own[i]) * ours - int(new[i]) * theirs) for i in worst)

    def _pixel_aspect(self) -> Row:
        row = _same("pixel aspect", self.clip.pixel_aspect, self.result.pixel_aspect)
        if row.state is State.WRONG and self.result.container in ("png", "tiff"):
            why = f"{self.result.container} has no place for it"
            return replace(row, state=State.CHANGED, why=why)
        if row.state is State.WRONG and _near(self.result.pixel_aspect / self.clip.pixel_aspect):
            return replace(row, state=State.CHANGED, why="the bitstream holds small numbers only")
        return row

    def _rotation(self) -> Row:
        own, new = self.clip.matrix, self.result.matrix
        row = _same("rotation", own or "none", new or "none")
        if row.state is State.KEPT:
            return row
        if self.result.files:
            why = "images have no rotation: they lie as the source is stored"
            return replace(row, state=State.CHANGED, why=why)
        if self._coarse() and orient.turn(own) == orient.turn(new):
            why = "Matroska holds the turn, but no shift or scale"
            return replace(row, state=State.CHANGED, why=why)
        return row

    def _timecode(self) -> Row:
        clip, first, result = self.clip, self.span.start, self.result.timecode_at(0)
        source = clip.timecode_at(first) or clip.timecode
        row = _same("timecode", source or "none", result or "none")
        asked = profiles.start_timecode(clip, first, self.result.container)
        if row.state is State.KEPT or result != asked:
            return row
        why = f"{self.result.container} holds none such"
        if clip.variable and first:
            why = "frames of a variable rate cannot be counted on from the start"
        return replace(row, state=State.CHANGED, why=why)

    def _tags(self) -> Row:
        form = profiles.form(self.clip, self.profile)
        source, result = self.clip.tags, self.result.tags
        if self.result.files:
            return self._image_colours(form.tags)
        if not _agree(form.tags, result, form.layout):
            return Row("colour tags", str(source), str(result), State.WRONG)
        if _agree(source, result, form.layout):
            return Row("colour tags", str(source), str(result), State.KEPT)
        why = "the samples were converted: the codec holds no other form"
        return Row("colour tags", str(source), str(result), State.CHANGED, why)

    def _image_colours(self, tags: ColourTags) -> Row:
        """Images have no tags: float is linear, whole numbers are sRGB."""
        row = Row("colour tags", str(self.clip.tags), str(tags), State.KEPT, "by the image format")
        way = transfer.way(self.clip.tags, self.clip.layout.floating, transfer.Hdr.TONE_MAP)
        if way.kind == "as shown" or tags == self.clip.tags:
            return row
        why = "converted to BT.709's colours, as such images hold them"
        if way.kind in ("pq", "hlg"):
            why += ", and tone-mapped to standard range"
        return replace(row, state=State.CHANGED, why=why)

    def _depth(self) -> Row:
        source, written = self.clip.layout, self.layout
        before, after = (f"{each.bits} bit{' float' * each.floating}" for each in (source, written))
        if shallower(self.clip, written, self.profile):
            return Row("bit depth", before, after, State.WRONG)
        if written.bits < source.bits:
            why = "FFmpeg's ProRes encoder takes 10 bits"
            return Row("bit depth", before, after, State.CHANGED, why)
        return Row("bit depth", before, after, State.KEPT)

    def _chroma(self) -> Row:
        """RGB has all of it; what is grey loses nothing."""
        own, new = self.clip.layout.shift, self.layout.shift
        row = _same("chroma", _CHROMA[own], _CHROMA[new])
        if self.clip.layout.family is Family.GRAY or (new[0] <= own[0] and new[1] <= own[1]):
            return replace(row, state=State.KEPT)
        why = f"{self.profile.name} is written as editors read it"
        return replace(row, state=State.CHANGED, why=why)

    def sound(self, cancel: CancelToken | None) -> Iterator[Row]:
        """Compare the sound, packet by packet."""
        if self.result.files:
            if self.clip.audio:
                tracks = f"{len(self.clip.audio)} streams"
                yield Row("sound", tracks, "none", State.CHANGED, "images have no sound")
            return
        ours, theirs = (
            audio.prints(self.clip, self.span, cancel),
            audio.prints(self.result, cancel=cancel),
        )
        heard = [track for track in self.clip.audio if ours[track.index].packets]
        tracks = list(self.clip.audio) if self._coarse() else heard
        yield self._streams(len(tracks))
        for number, (own, new) in enumerate(zip(tracks, self.result.audio, strict=False)):
            yield self._track(number, (own, ours[own.index]), (new, theirs[new.index]))

    def _chapters(self) -> Iterator[Row]:
        own, new = self.clip.chapters_in(self.span), self.result.chapters
        if not own:
            return
        near = len(own) == len(new) and all(
            one.title == other.title and abs(one.start - other.start) <= _CHAPTER
            for one, other in zip(own, new, strict=True)
        )
        source, result = (", ".join(map(str, each)) or "none" for each in (own, new))
        state, why = (State.KEPT, "") if near else (State.CHANGED, "the container holds no other")
        yield Row("chapters", source, result, state, why)

    def _streams(self, wanted: int) -> Row:
        """MP4 and MOV hold no stream without a packet."""
        source, result = len(self.clip.audio), len(self.result.audio)
        row = _same("sound", f"{source} streams", f"{result} streams")
        if row.state is State.WRONG and result == wanted:
            return replace(
                row, state=State.CHANGED, why="those without sound in this range are left out"
            )
        return row

    def _track(self, number: int, own: _Sound, new: _Sound) -> Row:
        """The packets must be the same, and their places to a millisecond."""
        name, texts = f"sound {number}", (_print(*own), _print(*new))
        slack = self.clip.time_base + self.result.time_base + Fraction(1, 1000)
        near = own[1].start is None or abs(own[1].start - (new[1].start or 0)) <= slack
        if own[1].digest != new[1].digest or not near:
            return Row(name, *texts, State.WRONG)
        if str(own[0]) != str(new[0]):
            return Row(name, *texts, State.CHANGED, "the container does not say it otherwise")
        return Row(name, *texts, State.KEPT)


#: A stream, and what its packets are recognised by.
_Sound: TypeAlias = tuple[AudioTrack, audio.Print]


def _print(track: AudioTrack, of: audio.Print) -> str:
    start = "" if of.start is None else f" from {float(of.start) * 1000:.1f} ms"
    return f"{track}, {of.packets} packets {of.digest[:12]}{start}"


def _near(ratio: Fraction) -> bool:
    return abs(ratio - 1) < Fraction(1, 1000)


def _same(name: str, source: object, result: object) -> Row:
    state = State.KEPT if source == result else State.WRONG
    return Row(name, str(source), str(result), state)


def _agree(asked: ColourTags, found: ColourTags, layout: Layout) -> bool:
    """Whether a file says what it was asked to; where nothing was asked, the default is right."""
    pick: tuple[Callable[[ColourTags], int], ...] = (
        lambda tags: tags.primaries,
        lambda tags: tags.transfer,
        lambda tags: tags.matrix,
    )
    for code in pick[: 2 if layout.family is not Family.YUV else 3]:
        if code(asked) != UNSPECIFIED and code(asked) != code(found):
            return False
    if layout.family is Family.RGB:
        return True
    return bool(asked.full) == bool(found.full)
