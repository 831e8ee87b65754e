"""Values of msgspec types out of a source: mostly at the edges, or known from the conversation.

A fuzzer that has to guess 16 random bytes never gets past the first look-up; `Pool` keeps what the
other side has said, so that a message can speak of it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from .source import Source

POOL_MAX = 48
WORDS = (
    "", "a", "file", "folder", "twin", "replaced", "not_contact", "storage", "self", "limit",
    "version", "malformed", "unknown", "unprocessable", "busy", "ended", "finishing", "undecided",
    "127.0.0.1:6000", "[::1]:7", "[fe80::1%x]:9", "192.0.2.7:1", "mallory", "alice", "\u202e\u200d",
    "a\0b", "\x1b[2J\n", "\U0001f469" * 12, "x" * 64, "y" * 600, "\u0130\u0131\ufb00", "..",
)  # fmt: skip
EDGES = (0, 1, 2, 3, 255, 1000, 2**31, 2**32, 2**62, 2**63 - 2, 2**63 - 1)


class Pool:
    """Ids and numbers that have been seen, the latest few."""

    def __init__(self) -> None:
        self.bytes: list[bytes] = [bytes(16), bytes(32), b"f" * 16]
        self.numbers: list[int] = [1]

    def learn(self, value: object) -> None:
        """Keep what a decoded value holds."""
        if isinstance(value, msgspec.Struct):
            for name in value.__struct_fields__:
                self.learn(getattr(value, name))
        elif isinstance(value, bytes) and value not in self.bytes:
            self.bytes = [*self.bytes, value][-POOL_MAX:]
        elif isinstance(value, int) and value not in self.numbers:
            self.numbers = [*self.numbers, int(value)][-POOL_MAX:]


@cache
def _info(cls: type) -> inspect.Type:
    return inspect.type_info(cls)


def struct(source: Source, cls: type[msgspec.Struct], pool: Pool, **fixed: Any) -> Any:
    """A value of the struct; `fixed` are fields that are given."""
    info = _info(cls)
    assert isinstance(info, inspect.StructType)
    drawn = {
        field.name: value(source, field.type, pool)
        for field in info.fields
        if field.name not in fixed
    }
    return cls(**drawn, **fixed)


def value(source: Source, type: inspect.Type, pool: Pool) -> Any:
    """A value of the type, within its limits."""
    match type:
        case inspect.UnionType():
            return value(source, source.pick(type.types), pool)
        case inspect.StructType():
            return struct(source, type.cls, pool)
        case inspect.ListType():
            count = min(source.below(4), type.max_length or 4)
            return [value(source, type.item_type, pool) for _ in range(count)]
        case inspect.BytesType():
            return _bytes(source, type, pool)
        case inspect.StrType():
            return _text(source, type)
        case inspect.IntType():
            return _number(source, type, pool)
        case inspect.BoolType():
            return bool(source.below(2))
        case inspect.LiteralType():
            return source.pick(list(type.values))
        case inspect.NoneType():
            return None
    raise AssertionError(f"no values of {type}")


def _bytes(source: Source, type: inspect.BytesType, pool: Pool) -> bytes:
    if type.min_length == type.max_length and type.max_length is not None:
        size = type.max_length
        known = [each for each in pool.bytes if len(each) == size]
        if known and not source.one_in(3):
            return known[-1 - source.below(len(known))]
        return source.take(source.below(3)).ljust(size, b"n")
    data = source.take(source.below(12)).ljust(type.min_length or 0, b"n")
    if source.one_in(16):
        data = data.ljust(type.max_length or 300, b"z")
    return data[: type.max_length]


def _text(source: Source, type: inspect.StrType) -> str:
    text = source.pick(WORDS)
    if source.one_in(4):
        text += source.take(source.below(16)).decode("utf-8", "ignore")
    return text.ljust(type.min_length or 0, "n")[: type.max_length]


def _number(source: Source, type: inspect.IntType, pool: Pool) -> int:
    choices = (*pool.numbers, *EDGES, *(-edge for edge in EDGES))
    number = choices[source.below(len(choices))] + source.below(3) - 1
    low = type.ge if isinstance(type.ge, int) else -(2**63)
    high = type.le if isinstance(type.le, int) else 2**63 - 1
    return min(max(number, low), high)
