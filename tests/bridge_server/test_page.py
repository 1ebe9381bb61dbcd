from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image

from bridge_server.media.errors import NotWritten
from bridge_server.media.verify import Report, Row, State
from bridge_server.page import NAME, Page, address, write
from fresco.errors import InvalidInput

EVIL = "\"'><script>alert(1)</script>&amp;{{ 7 * 7 }}{% raw %}"
_VOID = {"meta", "input", "img", "link", "br", "hr", "source"}
_LOADING = {"src", "href", "poster", "srcset", "action", "data", "background"}


class Parsed(HTMLParser):
    """The page's elements, texts by the elements they are in, and whether all tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"{tag} says something twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]

    def said(self, *tags: str) -> list[str]:
        return [text for tag, text in self.texts if tag in tags]


@pytest.fixture
def page(tmp_path: Path) -> Page:
    for name in ("before.mp4", "after.mp4"):
        (tmp_path / name).write_bytes(b"a clip")
    Image.new("RGB", (8, 8)).save(tmp_path / "sheet.png")
    rows = (
        Row("frames", "96", "96", State.KEPT),
        Row("colour tags", "1-1-1 ?", "1-1-1 limited", State.CHANGED, "the codec"),
        Row("sound", "1 streams", "0 streams", State.WRONG),
    )
    return Page(
        title="Demo, restyled",
        prompt="a snowy winter evening",
        before=Path("before.mp4"),
        after=Path("after.mp4"),
        sheet=Path("sheet.png"),
        facts={"model": "fresco-draft (draft)", "seed": "0", "time": "3 min 20 s"},
        report=Report(rows),
    )


def parsed(page: Page, folder: Path) -> Parsed:
    return Parsed(write(page, folder, overwrite=True).read_text(encoding="utf-8"))


def loaded(found: Parsed) -> list[str]:
    return [
        value
        for _, attrs in found.elements
        for name, value in attrs.items()
        if name in _LOADING and value is not None
    ]


def test_the_page_shows_both_clips_the_sheet_the_facts_and_the_report(
    page: Page, tmp_path: Path
) -> None:
    found = parsed(page, tmp_path)
    assert found.open == []
    assert [video["src"] for video in found.all("video")] == ["./before.mp4", "./after.mp4"]
    (image,) = found.all("img")
    assert image["src"] == "./sheet.png"
    assert image["alt"]
    assert found.said("title", "h1") == ["Demo, restyled"] * 2
    cells = found.said("th", "td")
    for fact in ({"prompt": page.prompt} | dict(page.facts)).items():
        assert cells[cells.index(fact[0]) + 1] == fact[1]
    for row in page.report.rows:
        said = [row.name, row.source, row.result, row.state.value, *([row.why] if row.why else [])]
        start = cells.index(row.name)
        assert cells[start : start + len(said)] == said
    assert [cell["class"] for cell in found.all("td") if "class" in cell] == [
        "kept",
        "changed",
        "wrong",
    ]


def test_nothing_is_loaded_but_the_files_beside_the_page(page: Page, tmp_path: Path) -> None:
    text = write(page, tmp_path).read_text(encoding="utf-8")
    found = Parsed(text)
    assert "//" not in re.sub(r"^ *// .*$", "", text, flags=re.MULTILINE)
    assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest|\bimport\b", text)
    assert [attrs for attrs in found.all("script") if attrs] == []
    assert found.all("link") == found.all("iframe") == []
    assert len(loaded(found)) == 2 + 2 + 2 + 2  # videos, links below them, links in the note, sheet
    for reference in loaded(found):
        assert (tmp_path / unquote(urlsplit(reference).path)).is_file()


def test_without_a_script_the_clips_play_and_a_file_that_does_not_has_a_link(
    page: Page, tmp_path: Path
) -> None:
    found = parsed(page, tmp_path)
    assert all("controls" in video for video in found.all("video"))
    assert ["muted" in video for video in found.all("video")] == [True, False]
    links = [link["href"] for link in found.all("a")]
    assert links.count("./before.mp4") == links.count("./after.mp4") == 2
    note = next(text for text in found.said("p") if "ProRes" in text)
    assert "H.264" in note
    # What only works with the script is not shown without it.
    style = " ".join(found.said("style"))
    assert ".controls, .tags, .divider, .wipe { display: none; }" in style


def test_the_script_finds_every_element_that_it_names(page: Page, tmp_path: Path) -> None:
    found = parsed(page, tmp_path)
    (script,) = found.said("script")
    named = set(re.findall(r'find\("(\w+)"\)', script))
    ids = [attrs["id"] for _, attrs in found.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert named == set(ids) >= {"before", "after", "wipe", "play"}


def test_everything_is_escaped(page: Page, tmp_path: Path) -> None:
    rows = (Row(EVIL, EVIL, EVIL, State.KEPT, EVIL),)
    name = "a \"b' & <c>?#%20{{ 1 }}.mp4"
    (tmp_path / name).write_bytes(b"a clip")
    evil = replace(
        page, title=EVIL, prompt=EVIL, facts={EVIL: EVIL}, report=Report(rows), after=Path(name)
    )
    found = parsed(evil, tmp_path)
    assert found.open == []
    assert len(found.all("script")) == 1
    assert found.said("title", "h1") == [EVIL, EVIL]
    assert found.said("th", "td").count(EVIL) == 1 + 2 + 4
    assert (
        found.all("video")[1]["src"]
        == "./a%20%22b%27%20%26%20%3Cc%3E%3F%23%2520%7B%7B%201%20%7D%7D.mp4"
    )
    assert found.said("a").count(name) == 2


def test_a_part_of_the_source_begins_where_it_was_cut_out(page: Page, tmp_path: Path) -> None:
    found = parsed(replace(page, start=Fraction(36_000_042, 1000)), tmp_path)
    before, after = found.all("video")
    assert (before["src"], before["data-start"]) == ("./before.mp4#t=36000.042", "36000.042")
    assert (after["src"], after["data-start"]) == ("./after.mp4", "0.000")


def test_a_source_elsewhere_is_named_from_the_folder(tmp_path: Path, page: Page) -> None:
    folder = tmp_path / "results" / "job 1"
    folder.mkdir(parents=True)
    elsewhere = tmp_path / "footage ä" / "shot: 1.mov"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(b"a clip")
    assert address(elsewhere, folder) == "./../../footage%20%C3%A4/shot%3A%201.mov"
    assert address(Path("javascript:alert(1)"), folder) == "./javascript%3Aalert%281%29"
    assert address(Path("//host/share"), Path("/tmp")).startswith("./../")
    sheet = tmp_path / "sheet.png"
    found = parsed(replace(page, before=elsewhere, after=elsewhere, sheet=sheet), folder)
    for reference in loaded(found):
        assert (folder / unquote(urlsplit(reference).path)).is_file()


def test_what_is_missing_and_what_is_there(page: Page, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nowhere\.mp4"):
        write(replace(page, after=Path("nowhere.mp4")), tmp_path)
    assert not (tmp_path / NAME).exists()
    assert write(page, tmp_path) == tmp_path / NAME
    first = (tmp_path / NAME).read_bytes()
    with pytest.raises(NotWritten, match="--overwrite"):
        write(replace(page, title="another"), tmp_path)
    assert (tmp_path / NAME).read_bytes() == first
    write(replace(page, title="another"), tmp_path, overwrite=True)
    assert b"another" in (tmp_path / NAME).read_bytes()
    assert len(list(tmp_path.iterdir())) == 4
