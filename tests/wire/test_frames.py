"""The wire format: bounds on everything, round trips, and bad bytes.

The struct walk is what keeps the promise "every string, list, map and number has a limit": a
field that is added without one fails here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from shapes import is_bounded, largest, parts
from tntd import limits
from tntd.errors import RemoteError
from tntd.wire.frames import (
    KIND_NUMBERS,
    KINDS,
    NUMBERS,
    TYPES,
    Body,
    Frame,
    decode,
    decode_body,
)

STRUCTS: list[type[Frame] | type[Body]] = [*TYPES.values(), *KINDS.values()]
named = pytest.mark.parametrize("cls", STRUCTS, ids=lambda cls: cls.__name__)


# -- every value is bounded ---------------------------------------------------------------


@named
def test_every_field_has_a_limit(cls: type[msgspec.Struct]) -> None:
    unbounded = [path for path, type in parts(inspect.type_info(cls), "") if not is_bounded(type)]
    assert unbounded == []


def test_the_walk_sees_what_has_no_limit() -> None:
    class Loose(msgspec.Struct):
        text: str
        data: bytes
        items: list[int]
        mapped: dict[str, str]
        anything: Any
        raw: msgspec.Raw
        maybe: str | None

    found = {path for path, type in parts(inspect.type_info(Loose), "") if not is_bounded(type)}
    fields = {".text", ".data", ".items", ".mapped", ".anything", ".raw", ".maybe|0"}
    assert found == fields | {".items[]", ".mapped.key", ".mapped.value"}


@named
def test_the_largest_fits_a_frame(cls: type[msgspec.Struct]) -> None:
    room = limits.FRAME_BYTES_MAX - 2
    if issubclass(cls, Body):
        room = limits.ENVELOPE_BODY_BYTES_MAX
    elif cls.__name__ in ("Auth", "Hello"):
        room = limits.STRANGER_FRAME_BYTES_MAX - 2
    assert len(msgspec.msgpack.encode(largest(inspect.type_info(cls)))) <= room


def test_types_are_even_and_kinds_are_numbered_once() -> None:
    assert all(number % 2 == 0 for number in TYPES)  # a type that may be ignored would be odd
    assert {TYPES[number] for number in TYPES} == set(NUMBERS)
    assert {KINDS[number] for number in KINDS} == set(KIND_NUMBERS)


# -- one over the limit, one of the wrong type ---------------------------------------------


def spoilt(cls: type[msgspec.Struct]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The largest value with one field at a time over its limit, wrong or missing."""
    info = inspect.type_info(cls)
    good = largest(info)
    assert isinstance(info, inspect.StructType)
    for field in info.fields:
        name = field.encode_name
        for wrong in (*beyond(field.type), {"a": 1}, 1.5, b"\xff" * 5):
            yield f"{name}={wrong!r:.40}", {**good, name: wrong}
        if field.required:
            yield f"no {name}", {key: value for key, value in good.items() if key != name}


def beyond(type: inspect.Type) -> Iterator[Any]:
    """Values just outside the limits of a type."""
    match type:
        case inspect.UnionType():
            for each in type.types:
                yield from beyond(each)
        case inspect.ListType():
            yield [largest(type.item_type)] * ((type.max_length or 0) + 1)
            yield from ([each] for each in beyond(type.item_type))
        case inspect.StrType():
            yield "x" * ((type.max_length or 0) + 1)
            if type.min_length:
                yield "x" * (type.min_length - 1)
        case inspect.BytesType():
            yield b"x" * ((type.max_length or 0) + 1)
            if type.min_length:
                yield b"x" * (type.min_length - 1)
        case inspect.IntType():
            yield from beyond_range(type)


def beyond_range(type: inspect.IntType) -> Iterator[int]:
    """The numbers next to the range, as far as MessagePack has them."""
    assert isinstance(type.ge, int)
    assert isinstance(type.le, int)
    if type.le < 2**64 - 1:
        yield type.le + 1
    if type.ge > -(2**63):
        yield type.ge - 1


@named
def test_one_over_a_limit_is_malformed(cls: type[msgspec.Struct]) -> None:
    def read(value: dict[str, Any]) -> object:
        data = msgspec.msgpack.encode(value)
        if issubclass(cls, Frame):
            return decode(NUMBERS[cls], data)
        assert issubclass(cls, Body)
        return decode_body(KIND_NUMBERS[cls], data)

    read(largest(inspect.type_info(cls)))
    passed = []
    for what, value in spoilt(cls):
        try:
            read(value)
        except RemoteError as error:
            assert error.code == "malformed"
        else:
            passed.append(what)
    # The only bytes that may hold five bytes of 0xFF.
    odd = b"\xff" * 5
    allowed = {f"{field}={odd!r}" for field in ("body", "name", "after")}
    assert set(passed) <= allowed


# -- evolution ------------------------------------------------------------------------------


def test_unknown_types_are_ignored_where_odd_and_end_the_link_where_even() -> None:
    for number in range(0x10000):
        if number % 2:
            assert decode(number, b"\xc1 no messagepack") is None
        elif number not in TYPES:
            with pytest.raises(RemoteError, match="unsupported"):
                decode(number, b"\x80")


def test_unknown_kinds_are_refused() -> None:
    for kind in range(0x10000):
        if kind not in KINDS:
            with pytest.raises(RemoteError, match="unknown"):
                decode_body(kind, b"\x80")


@named
def test_unknown_fields_are_ignored(cls: type[msgspec.Struct]) -> None:
    good = largest(inspect.type_info(cls))
    more = {"z9": {"a": [1, {"b": b"\x00" * 100}] * 10, "c": msgspec.msgpack.Ext(5, b"x")}}
    data = msgspec.msgpack.encode({**more, **good, "zz": [None, 1.5, -1, "\u202e"]})
    if issubclass(cls, Frame):
        assert decode(NUMBERS[cls], data) == msgspec.convert(good, cls)
    else:
        assert decode_body(KIND_NUMBERS[cls], data) == msgspec.convert(good, cls)
