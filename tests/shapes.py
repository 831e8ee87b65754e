"""The types of msgspec structs, walked: what has no limit, the largest value, all values.

For the wire format, whose every string, list, map and number has a maximum.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from hypothesis import strategies as some
from msgspec import inspect


def parts(type: inspect.Type, path: str) -> Iterator[tuple[str, inspect.Type]]:
    """A type and all that it is made of, each with the way there."""
    yield path, type
    match type:
        case inspect.StructType():
            for field in type.fields:
                yield from parts(field.type, f"{path}.{field.name}")
        case inspect.UnionType():
            for index, each in enumerate(type.types):
                yield from parts(each, f"{path}|{index}")
        case inspect.CollectionType():
            yield from parts(type.item_type, f"{path}[]")
        case inspect.TupleType():
            for index, each in enumerate(type.item_types):
                yield from parts(each, f"{path}[{index}]")
        case inspect.DictType():
            yield from parts(type.key_type, f"{path}.key")
            yield from parts(type.value_type, f"{path}.value")


def is_bounded(type: inspect.Type) -> bool:
    match type:
        case (
            inspect.StrType()
            | inspect.BytesType()
            | inspect.ByteArrayType()
            | inspect.MemoryViewType()
            | inspect.CollectionType()
            | inspect.DictType()
        ):
            return type.max_length is not None
        case inspect.IntType():
            low = type.ge if type.ge is not None else type.gt
            high = type.le if type.le is not None else type.lt
            return low is not None and high is not None
        case inspect.BoolType() | inspect.NoneType() | inspect.EnumType() | inspect.LiteralType():
            return True
        case inspect.StructType() | inspect.UnionType() | inspect.TupleType():
            return True  # as far as their parts are
    return False  # Any, Raw, float and whatever else has no maximum


def largest(type: inspect.Type) -> Any:
    """The value of a type that takes most bytes (one byte for a character of text)."""
    match type:
        case inspect.StructType():
            fields = {field.encode_name: largest(field.type) for field in type.fields}
            return list(fields.values()) if type.array_like else fields
        case inspect.UnionType():
            return max((largest(each) for each in type.types), key=msgspec.msgpack.encode)
        case inspect.ListType():
            return [largest(type.item_type)] * (type.max_length or 0)
        case inspect.StrType():
            return "x" * (type.max_length or 0)
        case inspect.BytesType():
            return b"x" * (type.max_length or 0)
        case inspect.IntType():
            return type.le
        case inspect.BoolType():
            return True
        case inspect.NoneType():
            return None
    raise AssertionError(f"no largest {type}")


def values(type: inspect.Type) -> some.SearchStrategy[Any]:
    """All values of a type."""
    match type:
        case inspect.StructType():
            fields = {field.name: values(field.type) for field in type.fields}
            return some.builds(type.cls, **fields)
        case inspect.UnionType():
            return some.one_of([values(each) for each in type.types])
        case inspect.ListType():
            return some.lists(values(type.item_type), max_size=type.max_length)
        case inspect.StrType():
            size = min(type.max_length or 0, 600)
            return some.text(min_size=type.min_length or 0, max_size=size)
        case inspect.BytesType():
            size = min(type.max_length or 0, 600)
            return some.binary(min_size=type.min_length or 0, max_size=size)
        case inspect.IntType():
            return some.integers(type.ge, type.le)  # type: ignore[arg-type]
        case inspect.BoolType():
            return some.booleans()
        case inspect.NoneType():
            return some.none()
    raise AssertionError(f"no values of {type}")
