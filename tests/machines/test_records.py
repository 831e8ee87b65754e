"""Records of a lane: what goes in comes out, however it is chopped; everything else is refused."""

from __future__ import annotations

import struct

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tntd import limits
from tntd.errors import RemoteError
from tntd.machines import lane_keys, pack_record, records
from tntd.machines.records import (
    ChunkKind,
    Opener,
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


def read(
    stream: bytes, step: int, takes: frozenset[RecordType] = records.RECEIVER_TAKES
) -> list[tuple[RecordType, bytes]]:
    """The records of a stream that arrives at most `step` bytes at a time."""
    reader, plain = RecordReader(Opener(KEY, takes)), memoryview(bytearray(PLAIN_MAX))
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
    with pytest.raises(RemoteError, match="malformed: record"):
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
        struct.pack(">BBHQI", 1, 2, 1, 0, 5),  # squeezed, which we did not say we can open
        struct.pack(">BBHQI", 1, 2, 2, 0, 5),  # an unknown flag
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


@pytest.mark.parametrize("type", sorted(RecordType))
def test_each_end_takes_its_own_types(type: RecordType) -> None:
    (record,) = sealed(b"", type=type)
    for takes in (records.RECEIVER_TAKES, records.SENDER_TAKES):
        if type in takes:
            assert read(record, 1, takes) == [(type, b"")]
        else:
            with pytest.raises(RemoteError, match="out of place"):
                read(record[:16], 16, takes)


def test_the_shapes_of_chunks_are_those_of_records_of_small_files() -> None:
    assert struct.calcsize(">BIQI") == records.CHUNK.size == pack_record.CHUNK.size
    kinds = pack_record.DATA_KIND, pack_record.FILE_END_KIND, pack_record.ENTRY_KIND
    assert tuple(ChunkKind) == kinds == (1, 2, 3)


def test_what_stands_behind_a_record_does_not_spoil_it() -> None:
    (record,) = sealed(b"fine")
    reader, plain = (
        RecordReader(Opener(KEY, records.RECEIVER_TAKES)),
        memoryview(bytearray(PLAIN_MAX)),
    )
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
        records.CHUNK.pack(4, 0, 0, 1) + b"x",
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


def test_entries_come_out_as_they_went_in() -> None:
    buffer = memoryview(bytearray(100))
    body = pack_record.encode_entry("file", b"a/b", 5, -7, True, b"")
    end = records.put_entry(buffer, 0, 9, body)
    assert bytes(buffer[:end]) == records.entry_chunk(9, body)
    (chunk,) = records.split(buffer[:end])
    assert (chunk.kind, chunk.file, chunk.offset) == (ChunkKind.ENTRY, 9, 0)
    entry = pack_record.decode_entry(chunk.data)
    assert entry == pack_record.TreeEntry("file", b"a/b", 5, -7, True, b"")
    assert records.first_entry(buffer[:end]) == 9


@pytest.mark.parametrize(
    "plain", [b"", b"\3" * 17, data(0, b"abc"), records.CHUNK.pack(3, 0, 1, 3) + b"abc"]
)
def test_small_files_that_do_not_begin_with_an_entry(plain: bytes) -> None:
    with pytest.raises(RemoteError, match="malformed"):
        records.first_entry(memoryview(plain))


# -- HELLO --------------------------------------------------------------------------------


def test_greetings() -> None:
    assert records.read_greeting(memoryview(b"")).zstd is False
    assert records.read_greeting(memoryview(records.greeting())).zstd is True
    more = msgspec.msgpack.encode({"zstd": False, "later": [1, 2]})
    assert records.read_greeting(memoryview(more)).zstd is False
    for plain in (b"\xc1", b"\x00", msgspec.msgpack.encode({"zstd": 1})):
        with pytest.raises(RemoteError, match="malformed"):
            records.read_greeting(memoryview(plain))


# -- what the receiver says ---------------------------------------------------------------


@patient
@given(st.integers(0, 2**32 - 1), st.integers(0, 1000), st.integers(1, 2047))
def test_hashes_come_out_as_they_went_in(file: int, first: int, count: int) -> None:
    hashes = bytes(range(32)) * count
    plain = records.have(file, first + count, first, hashes)
    assert len(plain) <= records.PLAIN_BYTES_MAX[RecordType.HAVE]
    found = records.read_have(memoryview(plain))
    assert found[:3] == (file, first + count, first) and found.hashes == hashes


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        bytes(11),
        records.have(0, 1, 0, bytes(31)),
        records.have(0, 1, 0, bytes(33)),
        records.have(0, 1, 0, b""),
        records.have(0, 0, 0, bytes(32)),
        records.have(0, 1, 1, bytes(32)),
        records.have(0, 2**32 - 1, 2**32 - 1, bytes(32)),
    ],
)
def test_hashes_that_cannot_be(plain: bytes) -> None:
    with pytest.raises(RemoteError, match="malformed"):
        records.read_have(memoryview(plain))


@patient
@given(st.binary(max_size=80))
def test_any_bytes_are_hashes_or_refused(plain: bytes) -> None:
    try:
        found = records.read_have(memoryview(plain))
    except RemoteError as error:
        assert error.code == "malformed"
    else:
        assert records.have(*found[:3], bytes(found.hashes)) == plain


def test_progress() -> None:
    assert records.read_progress(memoryview(records.PROGRESS.pack(2**63 - 1, 7))) == (2**63 - 1, 7)
    for plain in (b"", bytes(11), bytes(13), records.PROGRESS.pack(2**63, 0)):
        with pytest.raises(RemoteError, match="malformed"):
            records.read_progress(memoryview(plain))
