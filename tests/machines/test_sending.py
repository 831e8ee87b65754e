"""The sending machine by hand: what it wants, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lane_model import Item, chunk, entry, file_end, hashes, numbers, packed_item, small_limits
from tntd import limits
from tntd.effects import Outbound
from tntd.errors import RemoteError
from tntd.machines import records
from tntd.machines.lane_steps import Close, Do, End, Entries, LaneTrouble, Put, Read, Wait
from tntd.machines.records import CHUNK, ChunkKind, RecordType
from tntd.machines.sending import Sender
from tntd.tasks import Entry, Failed, Large, Pack, Packed

BIG = Item("file", b"big", bytes(range(40)))
LARGE = Large(b"big", 40, 7, 1, 1, False)
SMALL = Item("file", b"small", b"tiny")
PACK = packed_item(0, SMALL)


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """Small blocks."""
    with small_limits():
        yield


def sender(*, asks: bool = False, number: int = 0, after: bytes = b"") -> Sender:
    """One that was told to go, and has asked for its first record."""
    made = Sender(Outbound(b"/here", (b"x",)), numbers())
    made.start(number, after, asks)
    assert made.next() == Do(Pack(-1, b"/here", number, after, -2, [b"x"]))
    return made


def large_one(*, asks: bool = False, path: bytes = b"big") -> Sender:
    """One that is to send a large file, which is open as -2."""
    made = sender(asks=asks)
    made.packed(Packed(b"", [], 0, b"", 0, Large(path, 40, 7, 1, 1, False), True), -2)
    return made


def read(made: Sender, content: bytes = BIG.content) -> bytes:
    """Read the range that is wanted; the record that it makes."""
    want = made.next()
    assert isinstance(want, Read)
    plain = memoryview(bytearray(limits.RECORD_PLAIN_BYTES_MAX))
    plain[CHUNK.size : CHUNK.size + want.length] = content[want.offset :][: want.length]
    return bytes(plain[: made.took(plain)])


def have(made: Sender, blocks: int, first: int, told: list[bytes], file: int = 0) -> None:
    """The receiver tells hashes."""
    made.told(RecordType.HAVE, memoryview(records.have(file, blocks, first, b"".join(told))))


def test_nothing_before_it_is_started() -> None:
    made = Sender(Outbound(b"/here"), numbers())
    assert made.next() == Wait(receiver=False)
    made.start(0, b"", False)
    assert isinstance(made.next(), Do)
    assert made.next() == Wait(receiver=False)


def test_a_transcript() -> None:
    made = sender()
    entries = [Entry(b"small", 4, "waiting")]
    made.packed(Packed(PACK, entries, 1, b"small", 4, LARGE, False), -2)
    # The next is made while this one streams, from behind the large file on.
    assert made.next() == Do(Pack(-1, b"/here", 2, b"big", -3, [b"x"]))
    assert made.next() == made.next() == Put(RecordType.PACK, PACK)
    made.put()
    assert made.take_report() == Entries(tuple(entries), 1, b"small", 4, True)
    assert made.take_report() is None
    assert made.next() == Put(RecordType.CHUNKS, entry(1, BIG))
    made.put()
    assert made.next() == Read(-2, LARGE, 0, 8, True, False)
    assert read(made) == chunk(ChunkKind.DATA, 1, 0, BIG.content[:8])
    assert made.next() == Read(-2, LARGE, 8, 8, False, False)
    for _ in range(3):
        read(made)
    assert made.next() == Read(-2, LARGE, 32, 8, False, True)
    assert read(made) == chunk(ChunkKind.DATA, 1, 32, BIG.content[32:]) + file_end(1, BIG.content)
    assert made.take_report() == Entries((Entry(b"big", 40, "waiting"),), 2, b"big", 44)
    assert made.next() == Close(-2)
    assert made.next() == Wait(receiver=False)
    made.packed(Packed(b"", [], 2, b"big", 0, None, True), -3)
    assert made.next() == End()
    assert (made.bytes_sent, made.size, made.digest) == (44, 44, b"")


def test_records_are_made_ahead_but_not_too_many() -> None:
    made = sender()
    made.packed(Packed(PACK, [], 1, b"small", 4, None, False), -2)
    assert isinstance(made.next(), Do)
    made.packed(Packed(PACK, [], 2, b"small", 4, None, False), -3)
    assert isinstance(made.next(), Put)
    made.put()
    assert isinstance(made.next(), Do)


def test_the_next_entry_goes_with_the_end_of_the_one_before() -> None:
    made = sender()
    made.packed(Packed(b"", [], 0, b"", 0, Large(b"a", 8, 7, 1, 1, False), False), -2)
    assert isinstance(made.next(), Do)
    made.packed(Packed(b"", [], 1, b"a", 0, Large(b"b", 8, 7, 1, 1, False), True), -3)
    made.next()
    made.put()
    one, two = Item("file", b"a", BIG.content[:8]), Item("file", b"b", BIG.content[:8])
    data = chunk(ChunkKind.DATA, 0, 0, one.content)
    assert read(made) == data + file_end(0, one.content) + entry(1, two)
    assert made.next() == Close(-2)
    assert isinstance(made.next(), Read)


def test_an_empty_single_file_is_looked_at_too() -> None:
    made = sender()
    large = Large(b"", 0, 7, 1, 1, False)
    made.packed(Packed(b"", [], 0, b"", 0, large, True), -2)
    made.next()
    made.put()
    assert made.next() == Read(-2, large, 0, 0, True, True)
    assert read(made) == file_end(0, b"")


def test_it_waits_for_hashes_and_sends_what_differs() -> None:
    made = large_one(asks=True)
    made.next()
    made.put()
    assert made.next() == Wait(receiver=True)
    told = hashes(BIG.content, 16)
    have(made, 3, 0, [told[0], bytes(32)])
    assert read(made) == read(made) == b""  # the first block is the same
    assert read(made) == read(made) == b""  # the second is not: it is read again
    assert read(made) == chunk(ChunkKind.DATA, 0, 16, BIG.content[16:24])
    assert read(made) == chunk(ChunkKind.DATA, 0, 24, BIG.content[24:32])
    assert made.next() == Wait(receiver=True)
    have(made, 3, 2, [told[2]])
    assert read(made) == file_end(0, BIG.content) or made.next() == Put(
        RecordType.CHUNKS, file_end(0, BIG.content)
    )
    assert made.bytes_sent == 16


def test_nothing_there_means_no_waiting() -> None:
    made = large_one(asks=True)
    made.next()
    made.put()
    have(made, 0, 0, [])
    assert read(made) == chunk(ChunkKind.DATA, 0, 0, BIG.content[:8])


def test_a_large_file_that_is_lost_is_told_after_all_hashes() -> None:
    made = large_one(asks=True)
    made.next()
    made.put()
    have(made, 2, 0, [bytes(32)])
    made.lost("it is gone")
    assert made.next() == Wait(receiver=True)
    have(made, 2, 1, [bytes(32)])
    failed = Item("failed", b"big", b"it is gone", mtime_ns=0)
    assert made.next() == Put(RecordType.CHUNKS, entry(0, failed))
    made.put()
    assert made.take_report() == Entries((Entry(b"big", 40, "failed", "it is gone"),), 1, b"big", 0)
    assert made.next() == Close(-2)
    assert made.next() == End()


def test_a_single_file_that_is_lost_is_the_end() -> None:
    made = large_one(path=b"")
    made.next()
    made.put()
    with pytest.raises(LaneTrouble, match="source: it is gone"):
        made.lost("it is gone")


@pytest.mark.parametrize(
    ("code", "expected"),
    [("ENOENT", "source"), ("EACCES", "source"), ("EMFILE", "cut"), ("TIMEOUT", "cut")],
)
def test_a_folder_that_cannot_be_read(code: str, expected: str) -> None:
    made = sender(number=5, after=b"x")
    with pytest.raises(LaneTrouble, match=f"{expected}: words"):
        made.packed(Failed(code, "words"), -2)


def test_a_place_that_is_gone_is_a_new_beginning_a_few_times() -> None:
    made = sender(number=5, after=b"x")
    for _ in range(limits.LANE_RESTARTS_MAX):
        made.packed(Failed("CHANGED", "changed"), -2)
        want = made.next()
        assert isinstance(want, Do) and (want.task.number, want.task.after) == (0, b"")  # type: ignore[union-attr]
        made.packed(Packed(PACK, [], 1, b"small", 4, None, False), -2)
        made.put()
        made.next()
    with pytest.raises(LaneTrouble, match="source: the folder changes"):
        made.packed(Failed("CHANGED", "changed"), -2)


def announced(*, asks: bool = True) -> Sender:
    """One that has told of a large file of three blocks."""
    made = large_one(asks=asks)
    made.next()
    made.put()
    return made


def begun() -> Sender:
    """The same, after the first of three hashes."""
    made = announced()
    have(made, 3, 0, [bytes(32)])
    return made


HASH = bytes(32)
MISDEEDS: list[tuple[Callable[[], Sender], RecordType, bytes]] = [
    (announced, RecordType.CHUNKS, b""),
    (announced, RecordType.HELLO, b""),
    (announced, RecordType.PROGRESS, b""),
    (announced, RecordType.PROGRESS, bytes(13)),
    (announced, RecordType.PROGRESS, records.PROGRESS.pack(2**63, 0)),
    (announced, RecordType.HAVE, b""),
    (announced, RecordType.HAVE, records.have(0, 3, 0, HASH)[:-1]),
    (announced, RecordType.HAVE, records.have(1, 3, 0, HASH)),  # another file
    (announced, RecordType.HAVE, records.have(0, 4, 0, HASH)),  # more than it has
    (announced, RecordType.HAVE, records.have(0, 3, 1, HASH)),  # a hole
    (announced, RecordType.HAVE, records.have(0, 1, 0, HASH * 2)),  # more than it said
    (announced, RecordType.HAVE, records.have(0, 3, 0, b"")),
    (announced, RecordType.HAVE, records.have(0, 0, 0, HASH)),
    (lambda: announced(asks=False), RecordType.HAVE, records.have(0, 0, 0, b"")),  # not asked
    (lambda: large_one(asks=True), RecordType.HAVE, records.have(0, 0, 0, b"")),  # too soon
    (lambda: sender(asks=True), RecordType.HAVE, records.have(0, 0, 0, b"")),
    (begun, RecordType.HAVE, records.have(0, 3, 0, HASH)),  # again
    (begun, RecordType.HAVE, records.have(0, 2, 1, HASH)),  # another count
    (begun, RecordType.HAVE, records.have(0, 0, 0, b"")),
]


@pytest.mark.parametrize("number", range(len(MISDEEDS)))
def test_misdeeds(number: int) -> None:
    made, type, plain = MISDEEDS[number]
    with pytest.raises(RemoteError, match="malformed"):
        made().told(type, memoryview(plain))


@settings(deadline=None)
@given(st.sampled_from(sorted(records.SENDER_TAKES)), st.binary(max_size=100), st.booleans())
def test_any_bytes_are_used_or_refused(type: RecordType, plain: bytes, waits: bool) -> None:
    made = announced() if waits else begun()
    try:
        made.told(type, memoryview(plain))
    except RemoteError as error:
        assert error.code == "malformed"
    made.next()
