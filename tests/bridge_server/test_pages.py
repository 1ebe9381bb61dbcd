from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bridge_server import envelope, pages
from bridge_server.words import cut
from host_plugins.link import tables
from host_plugins.link.wire import LIMITS, Answer

ROWS = st.lists(
    st.fixed_dictionaries({"n": st.integers(0, 2**31), "text": st.text(max_size=30)}), max_size=30
)


def all_pages(rest: dict[str, Any], rows: list[Any]) -> list[dict[str, Any]]:
    """Every page, each written as a message: what is too large is refused there."""
    found = [pages.paged(rest, "rows", pages.numbered(rows, ""))]
    while "next" in found[-1]:
        found.append(pages.paged(rest, "rows", pages.numbered(rows, found[-1]["next"])))
    for each in found:
        envelope.write_answer(Answer("i" * 64, "s" * 64, each))
    return found


def together(found: list[dict[str, Any]]) -> list[Any]:
    whole: dict[str, Any] = {}
    for each in found:
        whole = tables.joined(whole, each)
    return whole.get("rows", [])


@given(ROWS, st.sampled_from([1, 40, 400]), st.sampled_from([0, 60_000]))
def test_pages_hold_everything_once(rows: list[Any], times: int, rest: int) -> None:
    many = rows * times
    found = all_pages({"rest": "r" * rest}, many)
    assert together(found) == many
    assert len(found) <= 3 + len(many) * 100 // (LIMITS.header - 70_000)


def test_a_page_is_as_full_as_a_message_allows() -> None:
    """A client that knows no pages gets what it got before there were any."""
    for row, most in ((7, LIMITS.items), ({"text": "x" * 1000}, LIMITS.header // 1010)):
        first = all_pages({}, [row] * LIMITS.items)[0]["rows"]
        assert len(first) * pages.size(row)[1] > 0.45 * most
        assert len(first) <= most


def test_what_alone_fills_a_page_has_one() -> None:
    large = dict.fromkeys("abc", "x" * 65000)
    assert [len(each["rows"]) for each in all_pages({}, [large] * 3)] == [1, 1, 1]


def test_a_page_begins_where_the_one_before_ended() -> None:
    before = [(f"{number:06d}", {"n": number}) for number in range(0, 20_000, 2)]
    taken, following = pages.page({}, before)
    assert following == taken[-1][0]
    # Meanwhile every second one went, and others came.
    after = [(f"{number:06d}", {"n": number}) for number in range(1, 20_000, 2)]
    rest, _ = pages.page({}, [each for each in after if each[0] > following])
    assert rest[0][1]["n"] == taken[-1][1]["n"] + 1


def test_texts_are_cut_to_bytes() -> None:
    assert cut("ü" * 10, 20) == "ü" * 10
    assert cut("ü" * 11, 20) == "ü" * 8 + "..."
    assert cut("\ud800" * 5, 20) == "\ud800" * 5
