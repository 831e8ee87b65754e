"""Frames as bytes: round trips however the stream is cut, and bytes that are no frames."""

from __future__ import annotations

import struct
import tracemalloc

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from msgspec import inspect

from shapes import values
from tntd import limits
from tntd.errors import RemoteError
from tntd.wire.frames import (
    HEADER,
    KINDS,
    NUMBERS,
    TYPES,
    Body,
    Frame,
    FrameReader,
    Ping,
    Trusted,
    decode,
    decode_body,
    encode,
    encode_body,
)

# -- round trips ----------------------------------------------------------------------------


# The machine may be busy: no time-out for one example.
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
frames = some.one_of([values(inspect.type_info(cls)) for cls in TYPES.values()])
bodies = some.one_of([values(inspect.type_info(cls)) for cls in KINDS.values()])


def read_all(reader: FrameReader) -> list[Frame | None]:
    found = []
    while (frame := reader.next_frame()) is not None:
        found.append(decode(*frame))
    return found


@calm
@given(some.lists(frames, max_size=5))
def test_frames_come_back_whole_and_byte_by_byte(sent: list[Frame]) -> None:
    data = b"".join(encode(frame) for frame in sent)
    whole, single = FrameReader(limits.FRAME_BYTES_MAX), FrameReader(limits.FRAME_BYTES_MAX)
    whole.feed(data)
    assert read_all(whole) == sent
    found: list[Frame | None] = []
    for at in range(len(data)):
        single.feed(data[at : at + 1])
        found += read_all(single)
    assert found == sent


@calm
@given(some.lists(frames, min_size=1, max_size=5), some.data())
def test_frames_come_back_however_they_are_cut(sent: list[Frame], data: some.DataObject) -> None:
    stream = b"".join(encode(frame) for frame in sent)
    cuts = sorted(data.draw(some.lists(some.integers(0, len(stream)), max_size=8)))
    reader, found = FrameReader(limits.FRAME_BYTES_MAX), list[Frame | None]()
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        reader.feed(stream[start:end])
        found += read_all(reader)
    assert found == sent


@calm
@given(bodies)
def test_bodies_come_back(body: Body) -> None:
    assert decode_body(*encode_body(body)) == body


# -- bad bytes ------------------------------------------------------------------------------

junk = some.recursive(
    some.none()
    | some.booleans()
    | some.integers(-(2**63), 2**64 - 1)
    | some.floats()
    # no surrogates: MessagePack cannot say them
    | some.text(max_size=8)
    | some.binary(max_size=8),
    lambda inner: (
        some.lists(inner, max_size=4)
        | some.dictionaries(some.text(max_size=8) | some.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=12,
).map(msgspec.msgpack.encode)


@calm
@given(some.sampled_from(sorted(TYPES)), some.binary(max_size=200) | junk)
def test_any_bytes_are_a_frame_or_malformed(number: int, data: bytes) -> None:
    try:
        assert isinstance(decode(number, data), TYPES[number])
    except RemoteError as error:
        assert error.code == "malformed"


@calm
@given(some.sampled_from(sorted(KINDS)), some.binary(max_size=200) | junk)
def test_any_bytes_are_a_body_or_malformed(kind: int, data: bytes) -> None:
    try:
        assert isinstance(decode_body(kind, data), KINDS[kind])
    except RemoteError as error:
        assert error.code == "malformed"


@calm
@given(frames, some.data())
def test_a_frame_with_a_bit_turned_is_a_frame_or_malformed(
    frame: Frame, data: some.DataObject
) -> None:
    body = bytearray(encode(frame)[HEADER.size :])
    at = data.draw(some.integers(0, len(body) - 1))
    body[at] ^= 1 << data.draw(some.integers(0, 7))
    try:
        assert isinstance(decode(NUMBERS[type(frame)], bytes(body)), type(frame))
    except RemoteError as error:
        assert error.code == "malformed"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x81\xa1z" + b"\x91" * 100_000 + b"\xc0", id="lists 100,000 deep"),
        pytest.param(b"\x81\xa1z" + b"\x81\xa1a" * 40_000 + b"\xc0", id="maps 40,000 deep"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="a map of four thousand million"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="a list of four thousand million"),
        pytest.param(b"\x81\xa5nonce\xc6\xff\xff\xff\xff", id="bytes without an end"),
        pytest.param(b"\x81\xa5nonce\xcb\x7f\xf8" + bytes(6), id="not a number"),
        pytest.param(b"\x81\xa5nonce\xa2\xc3\x28", id="text that is not UTF-8"),
        pytest.param(b"\x81\xa2\xc3\x28\x01", id="a field name that is not UTF-8"),
        pytest.param(b"\x81\xa3\xed\xa0\x80\x01", id="a field name with half a surrogate pair"),
        pytest.param(b"\x81\xa5nonce\x01\x00", id="something behind the end"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xc1", id="the byte that is never used"),
    ],
)
def test_hard_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(RemoteError, match="malformed"):
        decode(NUMBERS[Ping], data)


def test_a_list_over_its_limit_is_refused_before_it_is_made() -> None:
    count = 120_000
    body = b"\x81\xa9addresses\xdd" + struct.pack(">I", count) + b"\x80" * count
    tracemalloc.start()
    try:
        with pytest.raises(RemoteError, match="malformed"):
            decode(NUMBERS[Trusted], body)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


# -- the length of a frame ------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 4097, 2**31, 2**32 - 1])
def test_an_impossible_length_is_malformed_at_once(length: int) -> None:
    reader = FrameReader(4096)
    header = HEADER.pack(length, 2)
    reader.feed(header[:-1])
    assert reader.next_frame() is None
    reader.feed(header[-1:])
    with pytest.raises(RemoteError, match=f"a frame of {length} bytes"):
        reader.next_frame()


def test_the_limit_can_be_raised_while_reading() -> None:
    reader = FrameReader(100)
    reader.feed(HEADER.pack(100, 2) + bytes(98) + HEADER.pack(101, 4) + bytes(99))
    assert reader.next_frame() == (2, bytes(98))
    reader.frame_bytes_max = 101
    assert reader.next_frame() == (4, bytes(99))
    assert reader.next_frame() is None
