from __future__ import annotations

from typing import Any

import pytest

from host_plugins.link.errors import RETRYABLE, BridgeError, Code


@pytest.mark.parametrize("code", Code)
def test_every_code_survives_its_table(code: Code) -> None:
    sent = BridgeError(code, "what", "mend it so")
    told = BridgeError.from_table(sent.table())
    assert (told.code, told.message, told.hint) == (code, "what", "mend it so")
    assert told.retryable is (code in RETRYABLE)


def test_a_code_of_a_newer_version_is_internal() -> None:
    told = BridgeError.from_table({"code": "sunspots", "error": "a flare", "retryable": True})
    assert told.code is Code.INTERNAL
    assert told.retryable


@pytest.mark.parametrize("table", [{}, {"code": [], "error": None, "hint": 3, "retryable": "x"}])
def test_an_error_of_nonsense_is_still_one(table: dict[str, Any]) -> None:
    told = BridgeError.from_table(table)
    assert told.code is Code.INTERNAL
    assert told.message


def test_the_text_says_what_to_do() -> None:
    assert str(BridgeError(Code.BUSY, "too much", "wait")) == "too much (wait)"
    assert str(BridgeError(Code.BUSY, "too much")) == "too much"
