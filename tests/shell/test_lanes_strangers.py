"""Lanes whose other end breaks the rules, by malice or by a cut."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lane_by_hand import RawLane, data, entry, file_end
from lane_world import (
    RECEIVER,
    SENDER,
    TICKET,
    World,
    begin,
    export,
    inbound,
    receiving,
    sending,
)
from tntd import limits
from tntd.events import LaneFailed, LaneFinished, LaneOpened
from tntd.machines import pack_record, records
from tntd.machines.blocks import block_hash
from tntd.machines.records import ChunkKind, RecordType, Sealer
from tntd.shell import lanes as lanes_module

CONTENT = b"what is sent"


@pytest.fixture
def world() -> Iterator[World]:
    """Both ends, with children."""
    made = World()
    made.children.start()
    yield made
    made.close()


@pytest.fixture
def port(world: World, tmp_path: Path) -> int:
    """Where an acceptor waits that receives."""
    world.stage(tmp_path / "there", size=len(CONTENT))
    job = inbound(tmp_path / "there", len(CONTENT))
    world.lanes.open(receiving(job, dials=False), export)
    return world.listen(world.lanes)


def opened(world: World, port: int) -> RawLane:
    """A dialler that has proved itself and is to send."""
    raw = RawLane.dialled(world, port)
    raw.say(raw.hello())
    raw.hears(lambda: raw.heard)
    assert raw.heard == [(RecordType.HELLO, records.greeting())]
    assert world.of(LaneOpened, RECEIVER)
    return raw


def announced(world: World, port: int) -> RawLane:
    """The same, which has told of the file."""
    raw = opened(world, port)
    raw.say(raw.chunks(entry(len(CONTENT))))
    return raw


# -- before it is proved ------------------------------------------------------------------


def test_the_acceptor_speaks_only_after_the_whole_first_record(world: World, port: int) -> None:
    raw = RawLane.dialled(world, port)
    stream = raw.hello()
    raw.say(stream[:-1], step=1)
    world.turns(0.1)
    raw.listen()
    assert raw.heard_bytes == 0 and not raw.closed
    assert world.of(LaneOpened) == [] and world.released == 0
    raw.say(stream[-1:])
    raw.hears(lambda: raw.heard)
    assert world.of(LaneOpened) == [LaneOpened(RECEIVER)] and world.released == 1


@pytest.mark.parametrize(
    "stream",
    [
        b"T",
        b"TNTLANE2" + bytes(100),
        b"TELNET\r\n",
        b"TNTLANE1" + b"x" * 16,
        b"TNTLANE1" + b"x" * 16 + bytes(1000),
        b"TNTLANE1" + TICKET + bytes(1000),
        b"TNTLANE1" + TICKET + struct.pack(">BBHQI", 1, 1, 0, 0, 0) + bytes(16),
        b"TNTLANE1" + TICKET + struct.pack(">BBHQI", 1, 1, 0, 0, 2**32 - 1),
        b"TNTLANE1" + TICKET + struct.pack(">BBHQI", 1, 2, 0, 0, 0) + bytes(16),
        b"TNTLANE1" + TICKET + os.urandom(5000),
    ],
)
def test_who_is_wrong_hears_nothing_and_spends_nothing(
    world: World, port: int, stream: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HANDSHAKE_TIMEOUT_S", 0.3)
    raw = RawLane.dialled(world, port)
    raw.say(stream)
    raw.hears_end()
    assert raw.heard_bytes == 0 and world.released == 1
    assert world.of(LaneOpened) == [] and world.of(LaneFailed) == []
    opened(world, port)


def test_who_says_little_is_closed_in_time(
    world: World, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HANDSHAKE_TIMEOUT_S", 0.3)
    silent, slow = RawLane.dialled(world, port), RawLane.dialled(world, port)
    slow.say(slow.hello()[:30], step=3)
    silent.hears_end()
    slow.hears_end()
    assert world.released == 2 and world.of(LaneFailed) == []


def test_the_wrong_key_spends_nothing(world: World, port: int) -> None:
    raw = RawLane.dialled(world, port)
    raw.sealer = Sealer(b"w" * 32)
    raw.say(raw.hello())
    raw.hears_end()
    assert raw.heard_bytes == 0
    opened(world, port)


def test_a_ticket_serves_once(world: World, port: int) -> None:
    first = opened(world, port)
    second = RawLane.dialled(world, port)
    second.say(second.hello())
    second.hears_end()
    assert second.heard_bytes == 0 and not first.closed
    assert world.of(LaneFailed) == []


def test_of_two_with_the_ticket_the_first_proved_wins(world: World, port: int) -> None:
    slow, quick = RawLane.dialled(world, port), RawLane.dialled(world, port)
    stream = slow.hello()
    slow.say(stream[:-1])
    world.turns(0.05)
    quick.say(quick.hello())
    quick.hears(lambda: quick.heard)
    slow.say(stream[-1:])
    slow.hears_end()
    assert slow.heard_bytes == 0 and not quick.closed


def test_a_ticket_runs_out(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LANE_TICKET_TIMEOUT_S", 0.2)
    world.lanes.open(receiving(inbound(tmp_path, 5), dials=False), export)
    port = world.listen(world.lanes)
    raw = RawLane.dialled(world, port)
    stream = raw.hello()
    raw.say(stream[:-1])
    assert world.wait(LaneFailed, RECEIVER).code == "cut"
    raw.say(stream[-1:])
    raw.hears_end()
    late = RawLane.dialled(world, port)
    late.say(late.hello())
    late.hears_end()
    assert raw.heard_bytes == late.heard_bytes == 0
    assert world.of(LaneOpened) == []


def test_strangers_are_bounded(world: World, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes_module, "_STRANGERS_MAX", 3)
    kept = [RawLane.dialled(world, port) for _ in range(3)]
    world.until(lambda: len(world.lanes._strangers) == 3)
    one_more = RawLane.dialled(world, port)
    one_more.hears_end()
    assert world.released == 1
    assert not any(raw.closed for raw in kept)
    kept[0].say(kept[0].hello())
    kept[0].hears(lambda: kept[0].heard)


def test_refusals_fill_no_log(world: World, port: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tntd")
    for _ in range(20):
        raw = RawLane.dialled(world, port)
        raw.say(b"TNTLANE1" + b"x" * 16)
        raw.hears_end()
    lines = [record.message for record in caplog.records]
    reason = "authentication: a lane with an unknown ticket"
    assert lines == [f"a connection with 127.0.0.1 was cut: {reason}"]


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)
@given(junk=st.binary(min_size=1, max_size=200), known=st.booleans())
def test_junk_changes_nothing(world: World, port: int, junk: bytes, known: bool) -> None:
    raw, before = RawLane.dialled(world, port), world.released
    raw.say(b"TNTLANE1" + TICKET if known else b"T", junk)
    world.turn()
    raw.socket.close()
    world.until(lambda: world.released > before)
    assert world.of(LaneOpened) == [] and world.of(LaneFailed) == []


# -- a sender that breaks the rules -------------------------------------------------------


def test_a_sender_by_hand(world: World, port: int, tmp_path: Path) -> None:
    raw = opened(world, port)
    raw.say(
        raw.seal(RecordType.ALIVE),
        raw.chunks(entry(len(CONTENT))),
        raw.chunks(data(0, CONTENT[:5]), data(5, CONTENT[5:]), file_end(CONTENT)),
        raw.seal(RecordType.ALIVE),
        raw.seal(RecordType.END),
        step=1,
    )
    assert world.wait(LaneFinished, RECEIVER).size == len(CONTENT)
    raw.hears_end()
    assert (tmp_path / "there" / ".tnt-part" / "stage").read_bytes() == CONTENT
    assert raw.heard[-1] == (RecordType.PROGRESS, records.PROGRESS.pack(len(CONTENT), 1))


def tampered(raw: RawLane) -> list[bytes]:
    record = bytearray(raw.chunks(data(0, CONTENT)))
    record[30] ^= 1
    return [bytes(record)]


def replayed(raw: RawLane) -> list[bytes]:
    record = raw.chunks(data(0, CONTENT[:5]))
    return [record, record]


def reordered(raw: RawLane) -> list[bytes]:
    first, second = raw.chunks(data(0, CONTENT[:5])), raw.chunks(data(5, CONTENT[5:]))
    return [second, first]


def unknown_chunk(raw: RawLane) -> list[bytes]:
    return [raw.chunks(struct.pack(">BIQI", 9, 0, 0, 1) + b"x")]


def beyond_the_size(raw: RawLane) -> list[bytes]:
    return [raw.chunks(data(0, CONTENT + b"!"))]


def a_hole(raw: RawLane) -> list[bytes]:
    return [raw.chunks(data(3, CONTENT[3:]))]


def another_file(raw: RawLane) -> list[bytes]:
    return [raw.chunks(data(0, CONTENT, file=1))]


def end_too_soon(raw: RawLane) -> list[bytes]:
    return [raw.chunks(data(0, CONTENT)), raw.seal(RecordType.END)]


def word_of_a_receiver(raw: RawLane) -> list[bytes]:
    return [raw.seal(RecordType.PROGRESS, bytes(12))]


def small_files(raw: RawLane) -> list[bytes]:
    return [raw.seal(RecordType.PACK, entry(0, b"small") + file_end(b""))]


def hello_again(raw: RawLane) -> list[bytes]:
    return [raw.seal(RecordType.HELLO)]


def our_own_record(raw: RawLane) -> list[bytes]:
    """What the acceptor said, thrown back at it."""
    from lane_world import ACCEPTOR, DIALLER
    from tntd.machines import lane_keys

    back = lane_keys.contexts(TICKET, DIALLER, ACCEPTOR)[1]
    sealer, out = Sealer(back[-32:]), memoryview(bytearray(100))
    length = sealer.seal(RecordType.HELLO, memoryview(b""), out)
    length = sealer.seal(RecordType.CHUNKS, memoryview(b""), out)
    return [bytes(out[:length])]


@pytest.mark.parametrize(
    "misdeed",
    [
        tampered,
        replayed,
        reordered,
        unknown_chunk,
        beyond_the_size,
        a_hole,
        another_file,
        end_too_soon,
        word_of_a_receiver,
        small_files,
        hello_again,
        our_own_record,
    ],
)
def test_misdeeds(world: World, port: int, misdeed: Callable[[RawLane], list[bytes]]) -> None:
    raw = announced(world, port)
    raw.say(*misdeed(raw))
    assert world.wait(LaneFailed, RECEIVER).code == "protocol"
    raw.hears_end()
    assert world.of(LaneFinished) == []


def test_a_file_that_is_not_what_it_says(world: World, port: int) -> None:
    raw = announced(world, port)
    end = file_end(b"other", len(CONTENT))
    raw.say(raw.chunks(data(0, CONTENT), end), raw.seal(RecordType.END))
    assert world.wait(LaneFailed, RECEIVER).code == "hash"


@pytest.mark.parametrize("end", [file_end(CONTENT, 3), file_end(CONTENT[:5])])
def test_an_end_before_all_of_it_came(world: World, port: int, end: bytes) -> None:
    raw = announced(world, port)
    raw.say(raw.chunks(data(0, CONTENT[:5]), end), raw.seal(RecordType.END))
    assert world.wait(LaneFailed, RECEIVER).code == "protocol"


def test_a_file_that_is_larger_than_was_agreed(world: World, port: int) -> None:
    raw = opened(world, port)
    raw.say(raw.chunks(entry(len(CONTENT) + 1)))
    assert world.wait(LaneFailed, RECEIVER).code == "protocol"


@pytest.mark.parametrize("kept", [0, 1, 15, 16, 40, 100, -17, -1])
def test_a_cut_is_seen_wherever_it_is(world: World, port: int, kept: int) -> None:
    raw = announced(world, port)
    stream = raw.chunks(data(0, CONTENT), file_end(CONTENT)) + raw.seal(RecordType.END)
    raw.say(stream[:kept])
    raw.socket.close()
    assert world.wait(LaneFailed, RECEIVER).code == "cut"
    assert world.of(LaneFinished) == []


def test_a_sender_that_falls_silent(
    world: World, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LANE_IDLE_TIMEOUT_S", 0.3)
    raw = announced(world, port)
    raw.say(raw.chunks(data(0, CONTENT[:5])))
    world.turns(0.15)
    assert world.of(LaneFailed) == []
    assert world.wait(LaneFailed, RECEIVER).code == "stall"
    raw.hears_end()


# -- an acceptor that breaks the rules ----------------------------------------------------


def dialled(
    world: World, tmp_path: Path, content: bytes = CONTENT, *, asks: bool = False
) -> RawLane:
    """An acceptor by hand, at which a sender has dialled."""
    source = tmp_path / "source"
    source.write_bytes(content)
    raw = RawLane.accepted(
        world, lambda port: world.others.open(sending(source, dials=True, port=port), export)
    )
    world.others.start(begin(asks=asks))
    raw.skip(24)
    raw.hears(lambda: raw.heard)
    assert raw.heard == [(RecordType.HELLO, records.greeting())]
    return raw


def test_an_acceptor_by_hand(world: World, tmp_path: Path) -> None:
    raw = dialled(world, tmp_path)
    raw.say(raw.seal(RecordType.HELLO))
    raw.hears(lambda: raw.heard[-1][0] is RecordType.END)
    (_, first), *rest = raw.heard[1:]
    (chunk,) = records.split(memoryview(first))
    assert (chunk.kind, chunk.file) == (ChunkKind.ENTRY, 0)
    about = pack_record.decode_entry(chunk.data)
    assert (about.what, about.path, about.size) == ("file", b"", len(CONTENT))
    assert rest == [
        (RecordType.CHUNKS, data(0, CONTENT) + file_end(CONTENT)),
        (RecordType.END, b""),
    ]
    assert world.wait(LaneFinished, SENDER).size == len(CONTENT)
    raw.socket.close()
    world.until(lambda: not world.others._lanes)


def test_nothing_is_sent_before_the_acceptor_is_proved(world: World, tmp_path: Path) -> None:
    raw = dialled(world, tmp_path)
    raw.sealer = Sealer(b"w" * 32)
    raw.say(raw.seal(RecordType.HELLO))
    assert world.wait(LaneFailed, SENDER).code == "protocol"
    raw.hears_end()
    assert len(raw.heard) == 1 and world.of(LaneOpened) == []


def test_an_acceptor_that_does_not_answer(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HANDSHAKE_TIMEOUT_S", 0.2)
    raw = dialled(world, tmp_path)
    assert world.wait(LaneFailed, SENDER).code == "cut"
    raw.hears_end()


def test_a_receiver_that_does_not_read(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LANE_IDLE_TIMEOUT_S", 0.3)
    raw = dialled(world, tmp_path, os.urandom(30 * limits.MIB))
    raw.say(raw.seal(RecordType.HELLO))
    assert world.wait(LaneFailed, SENDER).code == "stall"


@pytest.mark.parametrize(
    ("type", "plain"),
    [
        (RecordType.HELLO, b""),
        (RecordType.CHUNKS, b""),
        (RecordType.END, b""),
        (RecordType.ALIVE, b""),
        (RecordType.PROGRESS, b""),
        (RecordType.HAVE, records.have(0, 0, 0, b"")),  # it was not asked
    ],
)
def test_a_receiver_that_says_what_it_may_not(
    world: World, tmp_path: Path, type: RecordType, plain: bytes
) -> None:
    raw = dialled(world, tmp_path, os.urandom(30 * limits.MIB))
    raw.say(raw.seal(RecordType.HELLO), raw.seal(type, plain))
    assert world.wait(LaneFailed, SENDER).code == "protocol"


def test_a_receiver_that_is_asked_and_says_nothing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LANE_IDLE_TIMEOUT_S", 0.4)
    raw = dialled(world, tmp_path, os.urandom(2 * limits.MIB), asks=True)
    raw.say(raw.seal(RecordType.HELLO))
    for _ in range(3):
        world.turns(0.25)
        raw.say(raw.seal(RecordType.PROGRESS, records.PROGRESS.pack(0, 0)))
    assert world.of(LaneFailed) == []
    assert world.wait(LaneFailed, SENDER).code == "stall"


def test_a_receiver_by_hand_that_has_a_block(world: World, tmp_path: Path) -> None:
    content = os.urandom(2 * limits.MIB + 5)
    raw = dialled(world, tmp_path, content, asks=True)
    raw.say(raw.seal(RecordType.HELLO))
    raw.hears(lambda: len(raw.heard) > 1)
    told = [bytes(32), block_hash(content[limits.MIB : 2 * limits.MIB])]
    for first, hash in enumerate(told):
        raw.say(raw.seal(RecordType.HAVE, records.have(0, 2, first, hash)))
    raw.hears(lambda: raw.heard[-1][0] is RecordType.END)
    offsets = [
        chunk.offset
        for type, plain in raw.heard[2:]
        if type is RecordType.CHUNKS
        for chunk in records.split(memoryview(plain))
        if chunk.kind is ChunkKind.DATA
    ]
    assert offsets == [*range(0, limits.MIB, limits.RANGE_BYTES_FIRST), 2 << 20]
    assert world.wait(LaneFinished, SENDER).bytes_sent == limits.MIB + 5


@pytest.mark.parametrize(("range_s", "largest"), [(60.0, "BLOCK"), (1e-9, "RANGE")])
def test_ranges_are_as_long_as_the_way_is_fast(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, range_s: float, largest: str
) -> None:
    """Seen once a window is full; what a way carries in no time at all, or never, is bounded."""
    monkeypatch.setattr(limits, "RANGE_S", range_s)
    content = os.urandom(8 * limits.MIB)
    raw = dialled(world, tmp_path, content)
    raw.say(raw.seal(RecordType.HELLO))
    raw.hears(lambda: raw.heard[-1][0] is RecordType.END)
    chunks = [
        chunk
        for type, plain in raw.heard
        if type is RecordType.CHUNKS
        for chunk in records.split(memoryview(plain))
        if chunk.kind is ChunkKind.DATA
    ]
    assert b"".join(chunk.data for chunk in chunks) == content
    lengths = [len(chunk.data) for chunk in chunks]
    assert set(lengths[:10]) == {limits.RANGE_BYTES_FIRST}
    most = {"BLOCK": limits.BLOCK_BYTES, "RANGE": limits.RANGE_BYTES_MIN}[largest]
    assert set(lengths[-8:]) == {most}


def test_a_receiver_that_goes_away(world: World, tmp_path: Path) -> None:
    raw = dialled(world, tmp_path, os.urandom(30 * limits.MIB))
    raw.say(raw.seal(RecordType.HELLO))
    raw.hears(lambda: raw.heard_bytes > limits.MIB)
    raw.socket.close()
    assert world.wait(LaneFailed, SENDER).code == "cut"
    assert world.of(LaneFinished) == []
