"""Plain tables as typed values, and back: what every message of the protocol is made by.

Unknown fields are ignored, and a field that has its default is left out, so either side may be the
newer one.
"""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias, TypeVar

from .errors import BridgeError, Code
from .wire import Buffer

M = TypeVar("M", bound="Message")

#: Of jobs and uploads; made by the client, and safe as a part of a file's name.
Id: TypeAlias = Annotated[str, re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")]
#: A SHA-256 in hex.
Digest: TypeAlias = Annotated[str, re.compile(r"[0-9a-f]{64}")]
Table: TypeAlias = Mapping[str, Any]

table_field = partial(field, default_factory=dict[str, Any])
if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:  # it is for checkers, and not in every Python's library

    def dataclass_transform(**_: bool) -> Any:
        """Leave a class as it is."""
        return lambda cls: cls


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Message:
    """A table on the wire; its field `payloads`, if it has one, is what follows the header.

    Every class on it is a dataclass: frozen, and made by keywords.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __init_subclass__(cls) -> None:
        # All methods are those of `Message`: an editor waits while these classes are made.
        dataclass(init=False, eq=False, repr=False)(cls)

    def __init__(self, **values: Any) -> None:
        told = {each.name: _default(each) for each in fields(self)} | values
        wrong = [name for name in told if told[name] is MISSING or name not in _kinds(type(self))]
        if wrong:
            raise TypeError(f"{type(self).__name__} lacks, or has no {', '.join(wrong)}")
        vars(self).update(told)

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"{name} cannot be set to {value!r}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in self.table().items())
        return f"{type(self).__name__}({told})"

    def table(self) -> dict[str, Any]:
        """Return plain tables, lists and values, without what has its default."""
        every = {each.name: (getattr(self, each.name), _default(each)) for each in fields(self)}
        every.pop("payloads", None)
        return {name: _plain(value) for name, (value, usual) in every.items() if value != usual}

    @classmethod
    def from_table(cls: type[M], table: Table, payloads: tuple[Buffer, ...] = ()) -> M:
        """Read what `table` wrote.

        Raises:
            BridgeError: a field is missing or of another type (bad_request); names it.
        """
        kinds = _kinds(cls)
        # What follows the header is never in it; there the name means nothing.
        told = {name: kind for name, kind in kinds.items() if name in table and name != "payloads"}
        values = {name: _value(kind, table[name], name) for name, kind in told.items()}
        if "payloads" in kinds:
            values["payloads"] = payloads
        for each in fields(cls):
            if each.name not in values and _default(each) is MISSING:
                raise BridgeError(Code.BAD_REQUEST, f"the field {each.name} is missing")
        return cls(**values)


def joined(before: Table, more: Table) -> dict[str, Any]:
    """Put a page of a reply to those before: lists go on, of all else the first word counts."""
    whole = dict(before)
    for name, value in more.items():
        known = before.get(name)
        if isinstance(known, list) and isinstance(value, list):
            whole[name] = [*known, *value]
        elif isinstance(known, Mapping) and isinstance(value, Mapping):
            whole[name] = joined(known, value)
        else:
            whole.setdefault(name, value)
    return whole


def _default(each: Any) -> Any:
    return each.default if each.default_factory is MISSING else each.default_factory()


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        return value.table()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value


@cache
def _kinds(cls: type[Message]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {each.name: hints[each.name] for each in fields(cls)}


def _value(kind: Any, given: Any, name: str) -> Any:
    """Check a value that came over the wire; tables become messages, lists tuples."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        _check(isinstance(given, str) and inner[1].fullmatch(given), name, inner[1].pattern, given)
        return given
    if origin is tuple:
        _check(isinstance(given, list | tuple), name, "a list", given)
        return tuple(_value(inner[0], item, name) for item in given)
    if origin is Mapping:
        _check(isinstance(given, Mapping), name, "a table", given)
        return {key: _value(inner[1], item, name) for key, item in given.items()}
    if type(None) in inner:
        return None if given is None else _value(inner[0], given, name)
    if isinstance(kind, type) and issubclass(kind, Message):
        _check(isinstance(given, Mapping), name, "a table", given)
        return kind.from_table(given)
    return given if kind is Any else _scalar(kind, given, name)


def _scalar(kind: Any, given: Any, name: str) -> Any:
    """Check a text, number or truth value; a whole number is a number too."""
    wanted = int | float if kind is float else kind
    good = isinstance(given, wanted) and isinstance(given, bool) is (kind is bool)
    if kind is int:
        good = good and -(2**63) <= given < 2**63
    _check(good and (kind is not float or math.isfinite(given)), name, _WORDS[kind], given)
    return float(given) if kind is float else given


_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def _check(good: Any, name: str, wanted: str, given: Any) -> None:
    if not good:
        told = repr(given)
        told = told if len(told) <= 60 else f"{told[:57]}..."
        raise BridgeError(Code.BAD_REQUEST, f"{name}: {told} is not {wanted}")
