"""Both machines of a lane with a file that grows while it is sent: what comes out of a pipe."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lane_model import (
    Item,
    Joined,
    Source,
    Stage,
    chunk,
    digest,
    entry,
    hashes,
    inbound,
    numbers,
    packed_item,
    small_limits,
)
from tntd.effects import Inbound, Outbound
from tntd.errors import RemoteError
from tntd.machines import pack_record, records
from tntd.machines.blocks import BlockHasher
from tntd.machines.lane_steps import Do, End, LaneTrouble, Put, Read, Wait
from tntd.machines.receiving import Receiver
from tntd.machines.records import CHUNK, ChunkKind, Record, RecordType
from tntd.machines.sending import Sender
from tntd.tasks import EntryOpened, FinishEntry, Large, OpenEntry, Packed

patient = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
DATA = bytes(range(100))
PIPE = Item("growing", b"")


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """Small blocks: of 32 bytes where a file grows."""
    with small_limits():
        yield


contents = st.one_of(
    st.binary(max_size=70),
    st.lists(st.sampled_from([b"a" * 32, b"b" * 32, b"c" * 7]), max_size=12).map(b"".join),
    st.binary(min_size=71, max_size=600),
)


@given(st.binary(max_size=300), st.lists(st.integers(1, 40)), st.data())
def test_a_hash_without_a_known_size(content: bytes, cuts: list[int], data: st.DataObject) -> None:
    hasher, known = BlockHasher(None), hashes(content, 32)
    cuts = [*cuts, 1] if cuts else [len(content) or 1]
    while hasher.at < len(content):
        whole = len(content) - hasher.at >= 32
        if whole and not hasher.within and data.draw(st.booleans()):
            hasher.skip(known[hasher.at // 32])
            continue
        cut = cuts[hasher.at % len(cuts)]
        hasher.update(memoryview(content)[hasher.at : hasher.at + cut])
    hasher.end()
    assert (hasher.at, hasher.digest()) == (len(content), digest(content, grew=True))


@patient
@given(contents, st.integers(0, 2**32), st.booleans(), st.data())
def test_a_growing_file_arrives(content: bytes, seed: int, asks: bool, data: st.DataObject) -> None:
    items, rnd, stage = [Item("file", b"", content)], random.Random(seed), Stage()
    grown = data.draw(st.integers(0, len(content)))
    job = inbound(items, asks=asks)
    joined = Joined(Source(items, rnd), stage, rnd, job, asks=asks, grown=grown)
    joined.run()
    assert stage.files == {b"": bytearray(content)}
    told = digest(content), digest(content, grew=True)  # it may have been whole when it began
    assert joined.receiver.digest == joined.sender.digest in told
    assert joined.position == (1, b"", len(content))
    assert joined.sender.size == joined.sender.bytes_sent == joined.receiver.bytes_received


@patient
@given(contents, contents, st.integers(0, 2**32), st.data())
def test_cuts_anywhere_and_what_was_there_is_anything(
    content: bytes, older: bytes, seed: int, data: st.DataObject
) -> None:
    items, rnd = [Item("file", b"", content)], random.Random(seed)
    stage, grown = Stage(base={b"": older}), 0
    job = inbound(items, asks=True, base=b"/there/older", base_ctime_ns=5)
    for _ in range(data.draw(st.integers(1, 3))):
        joined = Joined(Source(items, rnd), stage, rnd, job, asks=True, grown=grown)
        for _ in range(data.draw(st.integers(0, 80))):
            if joined.finished and joined.ended and not joined.back:
                break
            assert joined.step()
        stage.open.clear()
        whole = joined.grown is None
        grown = len(content) if joined.grown is None else joined.grown
        file, act = stage.files.get(b"", bytearray()), rnd.randrange(4)
        if act == 0 and file:
            file[rnd.randrange(len(file))] ^= 1
        elif act == 1:
            del file[rnd.randrange(len(file) + 1) :]
        elif act == 2:
            file.extend(rnd.randbytes(rnd.randrange(70)))
        if whole:
            break
    last = None if whole and data.draw(st.booleans()) else grown  # then it is as any other file
    joined = Joined(Source(items, rnd), stage, rnd, job, asks=True, grown=last)
    joined.run()
    assert bytes(stage.files[b""]) == content
    assert joined.receiver.bytes_done == len(content) == joined.sender.size


# -- the sender by hand -------------------------------------------------------------------


def sender(grown: int, *, asks: bool = False) -> Sender:
    """One whose file has so many bytes by now, and was announced."""
    made = Sender(Outbound(b"/here", then=(grown, 7, 1), growing=True), numbers())
    made.start(0, b"", asks)
    made.next()
    made.packed(Packed(b"", [], 0, b"", 0, Large(b"", grown, 9, 9, 1, False), True), -2)
    assert made.next() == Put(RecordType.CHUNKS, entry(0, Item("growing", b"", mtime_ns=9)))
    made.put()
    return made


def read(made: Sender) -> bytes:
    want = made.next()
    assert isinstance(want, Read) and want.growing
    plain = memoryview(bytearray(300))
    plain[CHUNK.size : CHUNK.size + want.length] = DATA[want.offset :][: want.length]
    return bytes(plain[: made.took(plain)])


def test_what_is_known_goes_out_and_then_it_waits() -> None:
    made = sender(0)
    assert made.next() == Wait(receiver=False)
    made.grew(3, whole=False)
    assert read(made) == chunk(ChunkKind.DATA, 0, 0, DATA[:3])
    assert made.next() == Wait(receiver=False)
    made.grew(5, whole=False)
    assert read(made) == chunk(ChunkKind.DATA, 0, 3, DATA[3:5])
    made.grew(5, whole=True)
    made.grew(9, whole=False)  # too late
    end = records.FILE_END.pack(5, digest(DATA[:5], grew=True))
    assert made.next() == Put(RecordType.CHUNKS, chunk(ChunkKind.FILE_END, 0, 0, end))
    made.put()
    made.next()
    assert made.next() == End()
    assert (made.size, made.digest) == (5, digest(DATA[:5], grew=True))


def test_an_empty_pipe() -> None:
    made = sender(0)
    made.grew(0, whole=True)
    want = made.next()
    assert isinstance(want, Read) and (want.length, want.first, want.last) == (0, True, True)
    plain = memoryview(bytearray(300))
    end = records.FILE_END.pack(0, digest(b""))
    assert bytes(plain[: made.took(plain)]) == chunk(ChunkKind.FILE_END, 0, 0, end)


def test_what_was_whole_before_the_lane_began_is_a_file_like_any_other() -> None:
    made = Sender(Outbound(b"/here", then=(3, 7, 1), growing=True), numbers())
    made.start(0, b"", False)
    made.next()
    made.grew(5, whole=True)
    made.packed(Packed(b"", [], 0, b"", 0, Large(b"", 5, 9, 9, 1, False), True), -2)
    assert made.next() == Put(RecordType.CHUNKS, entry(0, Item("file", b"", DATA[:5], mtime_ns=9)))


def test_a_block_that_is_not_all_there_is_not_waited_for() -> None:
    made = sender(40, asks=True)
    told = hashes(DATA, 32)
    plain = records.have(0, 2, 0, b"".join(told[:2]))
    assert made.next() == Wait(receiver=True)
    made.told(RecordType.HAVE, memoryview(plain))
    assert [read(made) for _ in range(4)] == [b""] * 4  # of the first block, which is the same
    assert read(made) == chunk(ChunkKind.DATA, 0, 32, DATA[32:40])
    made.grew(100, whole=True)
    assert read(made) == chunk(ChunkKind.DATA, 0, 40, DATA[40:48])  # not skipped any more


def test_another_file_is_not_sent() -> None:
    made = Sender(Outbound(b"/here", then=(3, 7, 1), growing=True), numbers())
    made.start(0, b"", False)
    made.next()
    with pytest.raises(LaneTrouble, match="changed"):
        made.packed(Packed(b"", [], 0, b"", 0, Large(b"", 5, 7, 1, 2, False), True), -2)


def test_it_may_grow_and_end_between_being_opened_and_being_told() -> None:
    for whole in (True, False):
        made = Sender(Outbound(b"/here", then=(0, 7, 1), growing=True), numbers())
        made.start(0, b"", False)
        made.next()
        made.grew(5, whole=whole)
        made.packed(Packed(b"", [], 0, b"", 0, Large(b"", 2, 9, 9, 1, False), True), -2)
        assert made.next() == Put(RecordType.CHUNKS, entry(0, Item("growing", b"", mtime_ns=9)))
        made.put()
        assert read(made)[: CHUNK.size + 5] == chunk(ChunkKind.DATA, 0, 0, DATA[:5])


# -- the receiver by hand -----------------------------------------------------------------


def receiver(**changes: object) -> Receiver:
    """One that was told of a growing file, of which nothing is there."""
    job = Inbound(b"/there", b"stage", False, 50, 0, b"", 0, False)
    made = Receiver(replace(job, **changes), numbers())  # type: ignore[arg-type]
    made.take(Record(RecordType.CHUNKS, memoryview(entry(0, PIPE))))
    task = OpenEntry(-1, b"/there", b"stage", b"", -1)
    assert made.next() == Do(task)
    made.answered(task, EntryOpened(1, 40, -1))
    return made


def take(made: Receiver, plain: bytes) -> None:
    made.take(Record(RecordType.CHUNKS, memoryview(plain)))


def end_of(content: bytes) -> bytes:
    return chunk(
        ChunkKind.FILE_END,
        0,
        0,
        records.FILE_END.pack(len(content), digest(content, grew=True)),
    )


def test_its_end_tells_its_size() -> None:
    made = receiver()
    take(made, chunk(ChunkKind.DATA, 0, 0, DATA[:3]))
    assert made.bytes_done == 3
    take(made, end_of(DATA[:3]))
    assert made.next() == Do(FinishEntry(-1, 7, False, 3))


@pytest.mark.parametrize(
    "plain",
    [
        chunk(ChunkKind.DATA, 0, 32, DATA[32:40]),  # a hole
        end_of(DATA[:32]),
        chunk(ChunkKind.DATA, 0, 0, DATA[:3]) + end_of(DATA[:2]),
        entry(0, Item("failed", b"", b"no")),
    ],
)
def test_what_cannot_be_is_refused(plain: bytes) -> None:
    with pytest.raises(RemoteError, match="malformed"):
        take(receiver(), plain)


def test_more_than_was_agreed_is_not_taken() -> None:
    with pytest.raises(LaneTrouble, match="size: more than the 50 bytes agreed"):
        take(receiver(), chunk(ChunkKind.DATA, 0, 0, DATA[:51]))


def test_a_wrong_digest_is_found() -> None:
    with pytest.raises(LaneTrouble, match="hash"):
        take(receiver(), chunk(ChunkKind.DATA, 0, 0, b"xyz") + end_of(DATA[:3]))


def test_a_growing_file_is_all_that_comes() -> None:
    made = Receiver(Inbound(b"/there", b"stage", True, 50, 0, b"", 0, False), numbers())
    with pytest.raises(RemoteError, match="malformed"):
        take(made, entry(0, Item("growing", b"x")))
    with pytest.raises(RemoteError, match="malformed"):
        pack_record.parse(packed_item(0, Item("growing", b"x")), 0)
