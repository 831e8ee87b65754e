"""Records of a lane: what goes in comes out, however it is chopped; everything else is refused."""

from __future__ import annotations

import struct

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from tntd import limits
from tntd.errors import RemoteError
from tntd.machines import lane_keys, records
from tntd.machines.records import (
    Arrival,
    ChunkKind,
    Opener,
    Record,
    RecordReader,
    RecordType,
    Sealer,
)

KEY = b"k" * 32
PLAIN_MAX = limits.RECORD_PLAIN_BYTES_MAX
sizes = st.one_of(
    st.integers(0, 300), st.sampled_from([limits.BLOCK_BYTES, PLAIN_MAX - 1, PLAIN_MAX])
)


def sealed(*plains: bytes, type: RecordType = RecordType.CHUNKS) -> list[bytes]:
    """One record for each plaintext."""
    sealer = Sealer(KEY)
    out = memoryview(bytearray(records.RECORD_BYTES_MAX))
    return [bytes(out[: sealer.seal(type, memoryview(plain), out)]) for plain in plains]


def read(stream: bytes, step: int) -> list[tuple[RecordType, bytes]]:
    """The records of a stream that arrives at most `step` bytes at a time."""
    reader, plain = RecordReader(Opener(KEY)), memoryview(bytearray(PLAIN_MAX))
    found = []
    rest = memoryview(stream)
    while True:
        while (record := reader.next(plain)) is not None:
            found.append((record.type, bytes(record.plain)))
        room = reader.room()
        piece = rest[: min(step, len(room))]
        if not piece:
            return found
        room[: len(piece)] = piece
        reader.filled(len(piece))
        rest = rest[len(piece) :]


def data(offset: int, content: bytes, file: int = 0) -> bytes:
    """A DATA chunk."""
    return records.CHUNK.pack(ChunkKind.DATA, file, offset, len(content)) + content


def file_end(size: int, digest: bytes, file: int = 0) -> bytes:
    """A FILE_END chunk."""
    buffer = bytearray(records.FILE_END_BYTES)
    assert records.put_file_end(memoryview(buffer), 0, file, size, digest) == len(buffer)
    return bytes(buffer)


def arrives(arrival: Arrival, plain: bytes) -> None:
    """A CHUNKS record arrives."""
    for chunk in arrival.expect(Record(RecordType.CHUNKS, memoryview(plain))):
        arrival.take(chunk)


def end(arrival: Arrival) -> None:
    """The record END arrives."""
    assert arrival.expect(Record(RecordType.END, memoryview(b""))) == []


# Time is not what is tested here, and the machine may be busy.
patient = settings(deadline=None)


# -- sealing and opening ------------------------------------------------------------------


@patient
@given(st.lists(sizes, max_size=5), st.integers(1, 2 * records.RECORD_BYTES_MAX))
def test_records_arrive_however_they_are_chopped(lengths: list[int], step: int) -> None:
    plains = [bytes([length % 251]) * length for length in lengths]
    step = max(step, sum(lengths) // 2000)  # one byte at a time only for what is short
    stream = b"".join(sealed(*plains))
    assert read(stream, step) == [(RecordType.CHUNKS, plain) for plain in plains]


@patient
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_one_byte_at_a_time(plains: list[bytes]) -> None:
    stream = b"".join(sealed(*plains))
    assert read(stream, 1) == [(RecordType.CHUNKS, plain) for plain in plains]


def test_a_record_is_not_taken_before_its_last_byte() -> None:
    (record,) = sealed(b"hello")
    assert read(record[:-1], 1000) == []


def test_the_header_is_on_the_wire_as_documented() -> None:
    first, second = sealed(b"abc", b"")
    assert first[:16] == struct.pack(">BBHQI", 1, 2, 0, 0, 3)
    assert second[:16] == struct.pack(">BBHQI", 1, 2, 0, 1, 0)
    assert len(first) == 16 + 3 + 16


@patient
@given(st.integers(0, 16 + 20 + 16 - 1), st.integers(1, 255))
def test_a_changed_bit_anywhere_is_refused_or_waits(at: int, flip: int) -> None:
    record = bytearray(sealed(b"x" * 20)[0])
    record[at] ^= flip
    try:
        found = read(bytes(record), 1000)
    except RemoteError as error:
        assert error.code in {"malformed", "authentication"}
    else:
        # A changed length within the limit: it waits for bytes that never come.
        assert found == []
        assert 12 <= at < 16


@pytest.mark.parametrize(
    ("what", "order"),
    [("replayed", [0, 0]), ("reordered", [1, 0]), ("left out", [0, 2]), ("not the first", [1])],
)
def test_records_out_of_order(what: str, order: list[int]) -> None:
    three = sealed(b"one", b"two", b"three")
    with pytest.raises(RemoteError, match="malformed: lane record"):
        read(b"".join(three[number] for number in order), 1000)


def test_a_record_of_another_key() -> None:
    out = memoryview(bytearray(1000))
    length = Sealer(b"o" * 32).seal(RecordType.HELLO, memoryview(b""), out)
    with pytest.raises(RemoteError, match="authentication"):
        read(bytes(out[:length]), 1000)


@pytest.mark.parametrize(
    "header",
    [
        struct.pack(">BBHQI", 2, 2, 0, 0, 5),  # version
        struct.pack(">BBHQI", 1, 9, 0, 0, 5),  # type
        struct.pack(">BBHQI", 1, 0, 0, 0, 5),
        struct.pack(">BBHQI", 1, 2, 1, 0, 5),  # reserved
        struct.pack(">BBHQI", 1, 2, 0, 1, 5),  # counter
        struct.pack(">BBHQI", 1, 2, 0, 0, PLAIN_MAX + 1),  # length
        struct.pack(">BBHQI", 1, 2, 0, 0, 2**32 - 1),
        struct.pack(">BBHQI", 1, 1, 0, 0, limits.LANE_HELLO_BYTES_MAX + 1),
        struct.pack(">BBHQI", 1, 3, 0, 0, 1),
    ],
)
def test_a_header_that_cannot_be_is_refused_before_its_body(header: bytes) -> None:
    with pytest.raises(RemoteError, match="malformed"):
        read(header, 3)


def test_what_stands_behind_a_record_does_not_spoil_it() -> None:
    (record,) = sealed(b"fine")
    reader, plain = RecordReader(Opener(KEY)), memoryview(bytearray(PLAIN_MAX))
    stream = record + b"\xff" * 16
    while stream:
        room = reader.room()[: len(stream)]
        room[:] = stream[: len(room)]
        reader.filled(len(room))
        stream = stream[len(room) :]
    found = reader.next(plain)
    assert found is not None and bytes(found.plain) == b"fine"
    with pytest.raises(RemoteError, match="malformed"):
        reader.room()


def test_each_direction_and_pair_has_its_own_context() -> None:
    ticket, one, two = b"t" * 16, b"1" * 32, b"2" * 32
    made = {*lane_keys.contexts(ticket, one, two), *lane_keys.contexts(ticket, two, one)}
    assert len(made) == 4
    assert lane_keys.contexts(ticket, one, two)[0] == ticket + one + two + b"\0"


# -- chunks -------------------------------------------------------------------------------


@patient
@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**63), st.binary(min_size=1))))
def test_chunks_come_out_as_they_went_in(rows: list[tuple[int, int, bytes]]) -> None:
    plain = b"".join(data(offset, content, file) for file, offset, content in rows)
    if not rows:
        return
    found = records.split(memoryview(plain))
    assert [(each.file, each.offset, bytes(each.data)) for each in found] == rows


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        b"\x01",
        data(0, b"abc")[:-1],
        data(0, b""),
        data(0, b"a") + b"\0",
        records.CHUNK.pack(3, 0, 0, 1) + b"x",
        records.CHUNK.pack(0, 0, 0, 1) + b"x",
        records.CHUNK.pack(ChunkKind.FILE_END, 0, 0, 39) + b"x" * 39,
        records.CHUNK.pack(ChunkKind.DATA, 0, 0, 2**32 - 1) + b"x",
        data(0, b"a") * (limits.LANE_CHUNKS_MAX + 1),
    ],
)
def test_chunks_that_cannot_be(plain: bytes) -> None:
    with pytest.raises(RemoteError, match="malformed"):
        records.split(memoryview(plain))


@patient
@given(st.binary(max_size=200))
def test_any_bytes_are_chunks_or_refused(plain: bytes) -> None:
    try:
        found = records.split(memoryview(plain))
    except RemoteError as error:
        assert error.code == "malformed"
    else:
        assert sum(records.CHUNK.size + len(chunk.data) for chunk in found) == len(plain)


# -- one file -----------------------------------------------------------------------------


@patient
@given(st.binary(max_size=300), st.lists(st.integers(1, 100), max_size=10))
def test_a_file_arrives_in_any_pieces(content: bytes, cuts: list[int]) -> None:
    arrival, at = Arrival(len(content)), 0
    for cut in [*cuts, len(content)]:
        piece = content[at : at + cut]
        if piece:
            arrives(arrival, data(at, piece))
            at += len(piece)
    arrives(arrival, file_end(len(content), blake3(content).digest()))
    end(arrival)
    assert arrival.complete and arrival.intact
    assert arrival.digest() == blake3(content).digest()


def test_data_and_end_in_one_record() -> None:
    arrival = Arrival(3)
    arrives(arrival, data(0, b"abc") + file_end(3, blake3(b"abc").digest()))
    assert arrival.intact


@pytest.mark.parametrize(
    ("size", "digest", "content"),
    [
        (3, blake3(b"abd").digest(), b"abc"),
        (2, blake3(b"abc").digest(), b"abc"),
        (3, blake3(b"ab").digest(), b"ab"),
    ],
)
def test_what_arrived_is_not_what_was_sent(size: int, digest: bytes, content: bytes) -> None:
    arrival = Arrival(3)
    arrives(arrival, data(0, content) + file_end(size, digest))
    assert arrival.complete and not arrival.intact


@pytest.mark.parametrize(
    "plain",
    [
        data(1, b"b"),  # a hole
        data(0, b"abcd"),  # too much
        data(0, b"ab") + data(2, b"cd"),
        data(0, b"a", file=1),  # a file that was not agreed
        data(0, b"ab") + data(1, b"b"),  # back again
        data(0, b"ab") + file_end(2, b"d" * 32) + data(2, b"c"),  # behind its end
        data(0, b"ab") + data(2, b"c")[:-1],  # cut: nothing of the record counts
        records.CHUNK.pack(ChunkKind.FILE_END, 0, 3, 40) + b"x" * 40,  # an end with an offset
    ],
)
def test_chunks_that_do_not_fit_change_nothing(plain: bytes) -> None:
    arrival = Arrival(3)
    with pytest.raises(RemoteError, match="malformed"):
        arrives(arrival, plain)
    assert arrival.received == 0 and not arrival.complete
    assert arrival.digest() == blake3(b"").digest()


def test_the_end_comes_after_the_file() -> None:
    arrival = Arrival(3)
    arrives(arrival, data(0, b"abc"))
    with pytest.raises(RemoteError, match="END out of place"):
        end(arrival)


def test_a_second_hello_is_refused() -> None:
    with pytest.raises(RemoteError, match="HELLO out of place"):
        Arrival(3).expect(Record(RecordType.HELLO, memoryview(b"")))
