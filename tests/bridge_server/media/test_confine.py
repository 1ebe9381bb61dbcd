"""Names that are changed between the look and the opening: only what was looked at is read.

The change is made at the worst moments: when a folder or a file was just opened, and just before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from bridge_server import failures, plan, records, sources
from bridge_server.errors import OutsideFolders
from bridge_server.media import confine, decode
from bridge_server.media.clip import Clip
from bridge_server.media.colour import convert
from bridge_server.media.encode import Writer
from bridge_server.media.probe import probe
from host_plugins.link.errors import Code
from tests.bridge_server.media.conftest import copied
from tests.bridge_server.media.films import Film, film

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need rights there")
linux = pytest.mark.skipif(not confine.NAMES, reason="no names of opened files here")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A folder that the owner is bound to, with `films/inner` in it; `secret` lies beside."""
    (tmp_path / "root" / "films" / "inner").mkdir(parents=True)
    (tmp_path / "secret" / "inner").mkdir(parents=True)
    (tmp_path / "ours").mkdir()
    with confine.within((tmp_path / "root",), (tmp_path / "ours",)):
        yield tmp_path / "root"


def ours_and_theirs(root: Path, name: str, make: Callable[[Path, int], None]) -> tuple[Path, Path]:
    """The same name in the owner's folder and outside: other content, the first smaller."""
    inside = root / "films" / "inner" / name
    outside = root.parent / "secret" / "inner" / name
    with confine.within((root.parent,), ()):
        make(inside, 6)
        make(outside, 12)
    return inside, outside


def short_film(path: Path, count: int) -> None:
    film(path, Film(count=count, width=16 * count, sound=("aac",)))


def image(path: Path, count: int) -> None:
    clip = probe(film(path.parent / "source.mkv", Film(codec="ffv1", count=1, width=16 * count)))
    copied(clip, path.with_name("a.####.png"), profile="png")
    (path.parent / "a.0000.png").rename(path)
    (path.parent / "source.mkv").unlink()


def by_file(root: Path, name: str) -> None:
    """A link in place of the file."""
    path = root / "films" / "inner" / name
    path.rename(path.with_name(f"old {name}"))
    path.symlink_to(root.parent / "secret" / "inner" / name)


def by_folder(root: Path, _name: str) -> None:
    """A link in place of a folder on the way."""
    (root / "films").rename(root / "old films")
    (root / "films").symlink_to(root.parent / "secret")


SWAPS = pytest.mark.parametrize("swap", [by_file, by_folder])


def changed_at(
    monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[], Any], before: bool = False
) -> list[str]:
    """Make a change just when `name` was opened, or just before; returns where it was made."""
    step, done = confine._step, list[str]()

    def changed(this: str, flags: int, folder: int | None, path: Path) -> int:
        wanted = this == name and not done
        if wanted:
            done.append(this)
        if wanted and before:
            change()
        handle = step(this, flags, folder, path)
        if wanted and not before:
            change()
        return handle

    monkeypatch.setattr(confine, "_step", changed)
    return done


def widths(path: Path) -> set[int]:
    clip = probe(path, Fraction(24))
    return {frame.planes[0].shape[1] for frame in decode.frames(clip)}


@linux
@SWAPS
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_film_that_is_replaced_when_it_was_opened(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str, swap: Callable[[Path, str], None]
) -> None:
    inside, _ = ours_and_theirs(root, name, short_film)
    clip = probe(inside)
    changed = changed_at(monkeypatch, name, lambda: swap(root, name))
    assert [frame.planes[0].shape[1] for frame in decode.frames(clip)] == [96] * 6
    assert changed == [name]
    with pytest.raises(OutsideFolders, match="is not where it was") as told:
        list(decode.frames(clip))
    assert failures.told(told.value).code is Code.FORBIDDEN


@SWAPS
@pytest.mark.parametrize("at", ["films", "inner", "a.mp4"])
def test_a_film_that_is_replaced_on_the_way(
    root: Path, monkeypatch: pytest.MonkeyPatch, at: str, swap: Callable[[Path, str], None]
) -> None:
    """What was opened of the way counts; what was not is refused."""
    inside, _ = ours_and_theirs(root, "a.mp4", short_film)
    clip = probe(inside)
    changed_at(monkeypatch, at, lambda: swap(root, "a.mp4"), before=True)
    try:
        found = {frame.planes[0].shape[1] for frame in decode.frames(clip)}
    except OutsideFolders:
        found = {96}
    assert found == {96}, "the other film is 192 wide"
    with pytest.raises(OutsideFolders):
        list(decode.frames(clip))


@linux
@SWAPS
def test_an_image_that_is_replaced(
    root: Path, monkeypatch: pytest.MonkeyPatch, swap: Callable[[Path, str], None]
) -> None:
    inside, outside = ours_and_theirs(root, "still.png", image)
    assert widths(inside) == {96}
    changed_at(monkeypatch, "still.png", lambda: swap(root, "still.png"))
    own = records.read_picture(inside)
    assert own.shape[2] == 96
    with confine.within((root.parent / "secret",), ()):
        assert records.read_picture(outside).shape[2] == 192
    for read in (
        records.read_picture,
        plan._content,
        lambda path: sources.identity([path]),
        widths,
    ):
        with pytest.raises(OutsideFolders):
            read(inside)


def test_where_names_of_opened_files_are_not_known(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS: a library opens by the name, and afterwards that is looked at again."""
    monkeypatch.setattr(confine, "NAMES", False)
    inside, _ = ours_and_theirs(root, "a.mp4", short_film)
    clip = probe(inside)
    changed_at(monkeypatch, "a.mp4", lambda: by_file(root, "a.mp4"))
    with pytest.raises(OutsideFolders):
        list(decode.frames(clip))


def test_where_paths_cannot_be_opened_step_by_step(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows: a path is looked at as a whole, and again when it was opened."""
    monkeypatch.setattr(confine, "NAMES", False)
    monkeypatch.setattr(confine, "_STEPS", False)
    inside, _ = ours_and_theirs(root, "a.mp4", short_film)
    clip = probe(inside)
    with confine.folder(root / "films") as folder, confine.steady([inside]):
        assert folder == root / "films"
    changed_at(monkeypatch, str(inside), lambda: by_folder(root, "a.mp4"))
    with pytest.raises(OutsideFolders):
        list(decode.frames(clip))
    for opened in (confine.folder(inside.parent), confine.file(inside)):
        with pytest.raises(OutsideFolders), opened:
            pass


@pytest.mark.parametrize("told", ["../secret/inner/a.mp4", "films/../../secret/inner/a.mp4",
                                  "films/link.mp4", "films/folder/a.mp4"])  # fmt: skip
def test_what_leads_out(root: Path, told: str) -> None:
    ours_and_theirs(root, "a.mp4", short_film)
    secret = root.parent / "secret" / "inner"
    (root / "films" / "link.mp4").symlink_to(secret / "a.mp4")
    (root / "films" / "folder").symlink_to(secret)
    with pytest.raises(OutsideFolders):
        confine.descriptor(root / told)
    with pytest.raises(OutsideFolders):
        probe(root / told)


def test_a_pipe_is_no_film(root: Path) -> None:
    os.mkfifo(root / "a.mp4")
    with pytest.raises(OutsideFolders, match="is no file any more"):
        confine.descriptor(root / "a.mp4")


def test_our_own_files_may_be_links(root: Path) -> None:
    """The store and the uploads are in folders where nobody else writes."""
    ours = root.parent / "ours"
    short_film(ours / "real.mp4", 3)
    (ours / "a.mp4").symlink_to(ours / "real.mp4")
    assert probe(ours / "a.mp4").count == 3


# ------------------------------------------------------------------------------------------ results


def raw_film(path: Path, count: int) -> None:
    film(path, Film(codec="ffv1", count=count))


def written(clip: Clip, target: Path, meanwhile: Callable[[], None], **how: Any) -> None:
    """Write a clip's frames; behind the first of them something happens."""
    with Writer(target, clip, **how) as writer:
        for frame in decode.frames(clip):
            writer.write(convert(frame, clip, writer.form))
            if frame.index == 0:
                meanwhile()
    assert writer.report is not None
    assert writer.report.ok


@linux
@pytest.mark.parametrize(("name", "profile"), [("out.mkv", "ffv1"), ("out.####.png", "png")])
def test_a_result_stays_in_the_folder_that_was_opened(root: Path, name: str, profile: str) -> None:
    """The folder is replaced by a link while the frames are written."""
    ours_and_theirs(root, "a.mkv", raw_film)
    source = root / "source.mkv"
    raw_film(source, 6)
    clip, target = probe(source), root / "films" / "inner" / name
    secret = root.parent / "secret" / "inner"
    before = sorted(secret.iterdir())
    written(clip, target, lambda: by_folder(root, name), profile=profile)
    made = {each.name for each in (root / "old films" / "inner").iterdir()} - {"a.mkv"}
    assert made == ({"out.mkv"} if profile == "ffv1" else {f"out.{n:04d}.png" for n in range(6)})
    assert sorted(secret.iterdir()) == before
    with pytest.raises(OutsideFolders), Writer(target, clip, profile=profile, overwrite=True):
        pass


@linux
def test_images_are_written_into_the_folder_that_was_made(root: Path) -> None:
    """The folder of images that are not finished is replaced by a link to somebody's images."""
    raw_film(root / "source.mkv", 6)
    clip = probe(root / "source.mkv")
    theirs = root.parent / "secret" / "out.0001.png"
    theirs.write_bytes(b"theirs")

    def replaced() -> None:
        (desk,) = (each for each in root.iterdir() if each.name.startswith(".fresco"))
        desk.rename(root / "taken")
        desk.symlink_to(theirs.parent)

    written(clip, root / "out.####.png", replaced, profile="png")
    assert theirs.read_bytes() == b"theirs"
    assert len(list(root.glob("out.*.png"))) == 6


# ------------------------------------------------------------------------------------------- models


def folder_of_a_model(root: Path) -> Path:
    folder = root / "films" / "model"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "weights.safetensors").write_bytes(b"ours")
    return folder


def swapped_and_back(path: Path, other: Path) -> bytes:
    """Read by the name while a link is there; afterwards all is as it was."""
    path.rename(path.with_name("aside"))
    path.symlink_to(other)
    weights = path if path.is_file() else path / "unet" / "weights.safetensors"
    read = weights.read_bytes()
    path.unlink()
    path.with_name("aside").rename(path)
    return read


@pytest.mark.parametrize("part", ["", "unet", "unet/weights.safetensors"])
def test_a_model_that_was_another_for_a_moment(root: Path, part: str) -> None:
    folder = folder_of_a_model(root)
    other = root.parent / "secret" / "model"
    (other / "unet").mkdir(parents=True)
    (other / "unet" / "weights.safetensors").write_bytes(b"theirs")
    (other / "weights.safetensors").write_bytes(b"theirs")
    link = {"": other, "unet": other, "unet/weights.safetensors": other / "weights.safetensors"}
    if part == "unet":
        (other / "unet" / "unet").mkdir()
        (other / "unet" / "unet" / "weights.safetensors").write_bytes(b"theirs")
        link["unet"] = other / "unet"
    with pytest.raises(OutsideFolders, match="while it was read"), confine.steady([folder]):
        assert swapped_and_back(folder / part, link[part]) == b"theirs"


def test_a_model_that_stays(root: Path) -> None:
    folder = folder_of_a_model(root)
    elsewhere = root.parent / "secret" / "of the cache"
    with confine.steady([folder, elsewhere]):
        (root / "films" / "inner" / "new.mp4").touch()  # in another folder than those on the way
        assert (folder / "unet" / "weights.safetensors").read_bytes() == b"ours"


def test_a_link_in_a_model(root: Path) -> None:
    folder = folder_of_a_model(root)
    (folder / "config.json").symlink_to("/etc/passwd")
    with pytest.raises(OutsideFolders), confine.steady([folder]):
        pass
