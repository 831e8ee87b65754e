"""Two ends of a lane on real sockets: files arrive whole, or it is said why not."""

from __future__ import annotations

import os
import resource
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3

from lane_by_hand import RawLane
from lane_world import RECEIVER, SENDER, World, export, receiving, sending
from tntd import limits
from tntd.events import LaneFailed, LaneFinished, LaneOpened, LaneProgressed
from tntd.machines.records import RecordType
from tntd.shell import files as files_module
from tntd.shell.files import OpenFile
from tntd.tasks import Answer, Done, Failed, SyncPart

BLOCK = limits.BLOCK_BYTES
MIB = limits.MIB


@pytest.fixture
def world() -> Iterator[World]:
    """Both ends, with children."""
    made = World()
    made.children.start()
    yield made
    made.close()


def content(size: int) -> bytes:
    """Bytes of which no two blocks are the same."""
    block = os.urandom(min(size, 100_003))
    return (block * (size // len(block) + 1))[:size] if size else b""


def connect(world: World, tmp_path: Path, data: bytes, *, sender_dials: bool = True) -> Path:
    """Open both ends for a file; where it is written."""
    found = world.source(tmp_path / "source", data)
    part = world.part(tmp_path / "there", len(data))
    port = world.listen(world.lanes)
    if sender_dials:
        world.lanes.open(receiving(len(data), dials=False), export)
        world.others.open(sending(found, dials=True, port=port), export)
    else:
        world.lanes.open(sending(found, dials=False), export)
        world.others.open(receiving(len(data), dials=True, port=port), export)
    return part


# -- files --------------------------------------------------------------------------------

SIZES = [0, 1, 17, BLOCK - 58, BLOCK - 57, BLOCK - 1, BLOCK, BLOCK + 1, 3 * MIB + 5, 40 * MIB]


@pytest.mark.parametrize("sender_dials", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_a_file_arrives(world: World, tmp_path: Path, size: int, sender_dials: bool) -> None:
    data = content(size)
    part = connect(world, tmp_path, data, sender_dials=sender_dials)
    digest = blake3(data).digest()
    assert world.wait(LaneFinished, SENDER) == LaneFinished(SENDER, size, digest)
    assert world.wait(LaneFinished, RECEIVER) == LaneFinished(RECEIVER, size, digest)
    assert part.read_bytes() == data
    assert world.do(SyncPart(RECEIVER)) == Done()
    assert world.of(LaneFailed) == []
    for lane in (SENDER, RECEIVER):
        assert world.of(LaneOpened, lane) == [LaneOpened(lane)]
        kinds = [type(each) for each in world.events if getattr(each, "lane", None) == lane]
        assert kinds[0] is LaneOpened and kinds[-1] is LaneFinished
    assert world.released == 1
    world.until(lambda: not world.lanes._lanes and not world.others._lanes)
    assert world.lanes._shared.budget.total == 0 == world.others._shared.budget.total


def test_several_at_once_share_the_turns(world: World, tmp_path: Path) -> None:
    data = content(10 * MIB)
    port = world.listen(world.lanes)
    for number in range(10, 13):
        ticket = bytes([number]) * 16
        path = tmp_path / f"part{number}"
        world.files.put(number, OpenFile(os.open(path, os.O_RDWR | os.O_CREAT)))
        found = world.source(tmp_path / f"source{number}", data)
        world.files.put(number + 10, world.files._files.pop(SENDER))
        into = receiving(len(data), dials=False, ticket=ticket)
        out = sending(found, dials=True, port=port, ticket=ticket)
        world.lanes.open(replace(into, lane=number, handle=number), export)
        world.others.open(replace(out, lane=number + 10, handle=number + 10), export)

    def sizes() -> list[int]:
        return [(tmp_path / f"part{number}").stat().st_size for number in range(10, 13)]

    world.until(lambda: all(sizes()) or world.of(LaneFailed))
    lead = max(sizes()) - min(sizes())
    while max(sizes()) < len(data):
        world.turn()
        assert max(sizes()) - min(sizes()) <= lead + 8 * BLOCK
    world.until(lambda: len(world.of(LaneFinished)) == 6)


def test_a_source_that_was_unlinked_has_changed(world: World, tmp_path: Path) -> None:
    found = world.source(tmp_path / "source", b"content")
    (tmp_path / "source").unlink()
    raw = RawLane.accepted(
        world, lambda port: world.others.open(sending(found, dials=True, port=port), export)
    )
    raw.say(raw.seal(RecordType.HELLO))
    assert world.wait(LaneFailed, SENDER).code == "source"


def test_at_most_one_record_a_turn(world: World, tmp_path: Path) -> None:
    data = content(4 * MIB)
    part = connect(world, tmp_path, data)
    before = 0
    while not world.of(LaneFinished, RECEIVER):
        world.turn()
        now = part.stat().st_size
        assert now - before <= BLOCK
        before = now
    assert before == len(data)


def test_progress_is_told_now_and_then(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PROGRESS_INTERVAL_S", 0.02)
    data = content(40 * MIB)
    connect(world, tmp_path, data)
    first = world.loop.now().boot
    world.wait(LaneFinished, RECEIVER)
    took = world.loop.now().boot - first
    for lane in (SENDER, RECEIVER):
        told = [event.bytes_done for event in world.of(LaneProgressed, lane)]
        assert told == sorted(set(told)) and told
        assert told[0] > 0 and told[-1] <= len(data)
        assert len(told) <= took / 0.02 + 2


def test_nothing_moves_and_nothing_is_told(world: World, tmp_path: Path) -> None:
    data = content(9 * MIB)
    connect(world, tmp_path, data)
    world.until(lambda: world.of(LaneProgressed, RECEIVER))
    world.others.close(SENDER)
    world.wait(LaneFailed, RECEIVER)
    before = len(world.events)
    world.turns(3 * limits.PROGRESS_INTERVAL_S)
    assert len(world.events) == before


# -- the source ---------------------------------------------------------------------------


def paused(world: World, tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transfer that stands still in the middle, because the receiver's disk does."""
    monkeypatch.setattr(limits, "UNSYNCED_BYTES_MAX", MIB)
    connect(world, tmp_path, data)
    world.wait(LaneOpened, RECEIVER)
    world.stop_disk()
    world.until(lambda: world.lanes._shared.budget.full)
    world.turns(0.1)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"other")


def shorten(path: Path) -> None:
    os.truncate(path, 5)


def touch(path: Path) -> None:
    os.utime(path, (1, 1))


@pytest.mark.parametrize("change", [append, overwrite, shorten, touch])
def test_a_source_that_changed_before(world: World, tmp_path: Path, change: object) -> None:
    assert callable(change)
    data = content(BLOCK)
    found = world.source(tmp_path / "source", data)
    change(tmp_path / "source")
    world.part(tmp_path / "there", len(data))
    port = world.listen(world.lanes)
    world.lanes.open(receiving(len(data), dials=False), export)
    world.others.open(sending(found, dials=True, port=port), export)
    assert world.wait(LaneFailed, SENDER).code == "source"
    assert world.wait(LaneFailed, RECEIVER).code == "cut"


@pytest.mark.parametrize("change", [append, overwrite, shorten, touch])
def test_a_source_that_changes_while_it_is_read(
    world: World, tmp_path: Path, change: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(change)
    paused(world, tmp_path, content(30 * MIB), monkeypatch)
    pid = world.disk
    change(tmp_path / "source")
    os.kill(pid, signal.SIGCONT)
    failed = world.wait(LaneFailed, SENDER)
    assert failed == LaneFailed(SENDER, "source", "the file changed while it was being sent")
    assert world.wait(LaneFailed, RECEIVER).code == "cut"
    assert world.of(LaneFinished) == []


def test_a_source_that_is_not_in_memory(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content(10 * MIB + 3)
    part = connect(world, tmp_path, data)
    descriptor = os.open(tmp_path / "source", os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    world.wait(LaneFinished, RECEIVER)
    assert part.read_bytes() == data


def test_a_system_without_the_flag(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every range is read by the child first; it reads ahead, and dies once."""
    monkeypatch.setattr(files_module, "_NOWAIT", 0)
    data = content(20 * MIB + 3)
    part = connect(world, tmp_path, data)
    world.until(lambda: part.stat().st_size > MIB)
    os.kill(world.disk, signal.SIGKILL)
    world.wait(LaneFinished, RECEIVER)
    assert part.read_bytes() == data


def test_a_source_that_cannot_be_read(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "_NOWAIT", 0)
    connect(world, tmp_path, content(MIB))
    monkeypatch.setattr(
        world.children, "warm", lambda *rest: rest[-1](Failed("EIO", "the disk reported an error"))
    )
    failed = world.wait(LaneFailed, SENDER)
    assert failed.code == "source" and "the disk reported an error" in failed.text


# -- the disk of the receiver -------------------------------------------------------------


def test_a_full_disk(world: World, tmp_path: Path) -> None:
    connect(world, tmp_path, content(MIB))
    world.files.put(RECEIVER, OpenFile(os.open("/dev/full", os.O_RDWR)))
    assert world.wait(LaneFailed, RECEIVER) == LaneFailed(RECEIVER, "storage", "the disk is full")
    assert world.wait(LaneFailed, SENDER).code == "cut"


def test_a_limit_of_the_system_in_the_middle(world: World, tmp_path: Path) -> None:
    part = connect(world, tmp_path, content(2 * MIB))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB + 5, hard))
    try:
        failed = world.wait(LaneFailed, RECEIVER)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert failed.code == "storage" and failed.text == "the file is too large for this system"
    assert part.stat().st_size == MIB + 5


def test_unsynced_bytes_are_bounded(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content(20 * MIB)
    paused(world, tmp_path, data, monkeypatch)
    part = tmp_path / "there" / ".tnt-part" / "part"
    stopped_at = part.stat().st_size
    assert stopped_at <= MIB + BLOCK
    world.turns(0.1)
    assert part.stat().st_size == stopped_at
    os.kill(world.disk, signal.SIGCONT)
    world.wait(LaneFinished, RECEIVER)
    assert part.read_bytes() == data


def test_lanes_that_fill_the_budget_together_do_not_wait_for_each_other(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them reaches the step at which it would sync by itself."""
    monkeypatch.setattr(limits, "UNSYNCED_BYTES_MAX", MIB)
    monkeypatch.setattr(limits, "UNSYNCED_STEP_BYTES", 100 * MIB)
    data = content(6 * MIB)
    part = connect(world, tmp_path, data)
    world.wait(LaneFinished, RECEIVER)
    assert part.read_bytes() == data


def test_a_hanging_disk_is_no_silence_of_the_other_side(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LANE_IDLE_TIMEOUT_S", 0.3)
    paused(world, tmp_path, content(20 * MIB), monkeypatch)
    world.turns(0.5)
    assert world.of(LaneFailed, RECEIVER) == []
    assert world.wait(LaneFailed, SENDER).code == "cut"


def test_a_sync_that_fails(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sync(handle: int, callback: object) -> None:
        assert callable(callback)
        answer: Answer = Failed("EIO", "the disk reported an error")
        callback(answer)

    monkeypatch.setattr(world.children, "sync", sync)
    connect(world, tmp_path, content(9 * MIB))
    failed = world.wait(LaneFailed, RECEIVER)
    assert failed == LaneFailed(RECEIVER, "storage", "the disk reported an error")


def test_the_child_is_killed_while_it_syncs(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UNSYNCED_STEP_BYTES", 256 * 1024)
    monkeypatch.setattr(limits, "UNSYNCED_BYTES_MAX", MIB)
    data = content(30 * MIB)
    part = connect(world, tmp_path, data)
    for mark in (MIB, 10 * MIB, 20 * MIB):
        world.until(lambda mark=mark: part.stat().st_size > mark)
        os.kill(world.disk, signal.SIGKILL)
    world.wait(LaneFinished, RECEIVER)
    assert part.read_bytes() == data


# -- ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize("handle", [SENDER, RECEIVER])
def test_a_file_that_is_closed_meanwhile(world: World, tmp_path: Path, handle: int) -> None:
    connect(world, tmp_path, content(30 * MIB))
    world.wait(LaneOpened, handle)
    world.files.close(handle)
    assert world.wait(LaneFailed, handle).code == ("source" if handle == SENDER else "storage")


@pytest.mark.parametrize("turns", range(12))
def test_closing_is_silent_here_and_a_cut_there(world: World, tmp_path: Path, turns: int) -> None:
    connect(world, tmp_path, content(30 * MIB))
    for _ in range(turns):
        world.turn()
    world.events += world.loop.take_events()  # what the last bulk handler posted
    before = len([each for each in world.events if getattr(each, "lane", None) == SENDER])
    world.others.close(SENDER)
    world.others.close(SENDER)
    if world.released:
        assert world.wait(LaneFailed, RECEIVER).code == "cut"
    world.turns(0.05)
    after = [each for each in world.events if getattr(each, "lane", None) == SENDER]
    assert len(after) == before
    assert world.others._lanes == {}


def test_the_sender_stays_until_the_receiver_has_it_all(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UNSYNCED_BYTES_MAX", 1)
    connect(world, tmp_path, content(1000))
    world.wait(LaneOpened, RECEIVER)
    pid = world.stop_disk()
    world.wait(LaneFinished, SENDER)
    world.turns(0.1)
    assert SENDER in world.others._lanes
    os.kill(pid, signal.SIGCONT)
    world.wait(LaneFinished, RECEIVER)
    world.until(lambda: not world.others._lanes)


def test_nobody_is_there(world: World, tmp_path: Path) -> None:
    found = world.source(tmp_path / "source", b"x")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    world.others.open(sending(found, dials=True, port=port), export)
    failed = world.wait(LaneFailed, SENDER)
    assert failed.code == "cut" and "refused" in failed.text


def test_an_address_that_is_none(world: World, tmp_path: Path) -> None:
    found = world.source(tmp_path / "source", b"x")
    effect = sending(found, dials=True, port=1)
    world.others.open(replace(effect, host="not.an.address"), export)
    assert world.wait(LaneFailed, SENDER).code == "cut"


def test_a_link_that_is_gone(world: World, tmp_path: Path) -> None:
    found = world.source(tmp_path / "source", b"x")
    world.others.open(sending(found, dials=True, port=1), lambda *_: None)
    assert world.wait(LaneFailed, SENDER).code == "cut"


def test_a_file_that_is_too_large_for_one_key(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LANE_KEY_BYTES_MAX", 100)
    found = world.source(tmp_path / "source", b"x" * 101)
    world.others.open(sending(found, dials=False), export)
    assert world.wait(LaneFailed, SENDER).code == "source"


def test_no_wake_ups_while_a_lane_waits(world: World, tmp_path: Path) -> None:
    world.part(tmp_path / "there", 10)
    world.lanes.open(receiving(10, dials=False), export)
    now = world.loop._clock.now().boot
    nearest = world.loop.wake_at(None)
    assert nearest is not None and nearest - now > limits.LANE_TICKET_TIMEOUT_S - 5
