"""What can go wrong between a client and the server: a closed list of codes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any


class Code(str, Enum):
    """What kind of failure it is; the words are those of the wire (PROTOCOL.md, section 6)."""

    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    VERSION = "version"
    UNSUPPORTED = "unsupported"
    UNAUTHORISED = "unauthorised"
    FORBIDDEN = "forbidden"
    BAD_REQUEST = "bad_request"
    INVALID = "invalid"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    WRONG_STATE = "wrong_state"
    CANCELLED = "cancelled"
    MISSING_MODEL = "missing_model"
    LICENCE = "licence"
    MISSING_EXTRA = "missing_extra"
    MEDIA = "media"
    OUT_OF_MEMORY = "out_of_memory"
    NO_SPACE = "no_space"
    CORRUPT = "corrupt"
    BUSY = "busy"
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"
    HOST = "host"
    INTERNAL = "internal"


#: After these the same request may succeed later, with nothing changed.
RETRYABLE = frozenset({Code.CORRUPT, Code.BUSY, Code.UNAVAILABLE, Code.TIMEOUT})


class BridgeError(Exception):
    """What could not be done.

    message: what, in plain words for the user
    hint: what to do about it; may be empty
    retryable: the same request may succeed later; by default as `RETRYABLE` has it
    """

    def __init__(
        self, code: Code, message: str, hint: str = "", retryable: bool | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint
        self.retryable = code in RETRYABLE if retryable is None else retryable

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __repr__(self) -> str:
        return f"BridgeError({self.code.value!r}, {self.message!r}, {self.hint!r})"

    def table(self) -> dict[str, Any]:
        """Return the error as it stands in a header."""
        told = {"code": self.code.value, "error": self.message, "retryable": self.retryable}
        return {**told, "hint": self.hint} if self.hint else told

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> BridgeError:
        """Read what `table` wrote; a code that is not known here counts as internal."""
        word = table.get("code")
        code = next((each for each in Code if each.value == word), Code.INTERNAL)
        message = str(table.get("error") or f"the server failed with {word!r} and said nothing")
        told = table.get("retryable")
        retryable = told if isinstance(told, bool) else None
        return cls(code, message, str(table.get("hint") or ""), retryable)
