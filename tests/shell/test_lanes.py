"""Two ends of a lane on real sockets: trees arrive whole, or it is said why not."""

from __future__ import annotations

import gc
import os
import resource
import shutil
import signal
import socket
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lane_by_hand import RawLane
from lane_model import digest
from lane_world import (
    RECEIVER,
    SENDER,
    World,
    begin,
    effect_of,
    export,
    inbound,
    receiving,
    sending,
)
from tntd import limits
from tntd.effects import Inbound, LimitLanes, Outbound
from tntd.events import LaneEntries, LaneFailed, LaneFinished, LaneOpened, LaneProgressed
from tntd.machines.sending import CHANGED, GONE, MOVED
from tntd.shell import files as files_module
from tntd.shell.lane_sink import Incoming
from tntd.tasks import Answer, Entry, Failed

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


def connect(
    world: World,
    root: Path,
    job: Inbound,
    *,
    sender_dials: bool = True,
    only: tuple[bytes, ...] | None = None,
) -> None:
    """Open both ends, and let the sender go."""
    port = world.listen(world.lanes)
    out = Outbound(os.fsencode(root), only)
    if sender_dials:
        world.lanes.open(receiving(job, dials=False), export)
        world.others.open(effect_of(SENDER, out, dials=True, port=port), export)
        world.others.start(begin(SENDER, job.number, job.after, asks=job.asks))
    else:
        world.lanes.open(effect_of(SENDER, out, dials=False), export)
        world.lanes.start(begin(SENDER, job.number, job.after, asks=job.asks))
        world.others.open(receiving(job, dials=True, port=port), export)


def connect_file(world: World, tmp_path: Path, data: bytes, *, sender_dials: bool = True) -> Path:
    """The same for a single file; where it is written."""
    source = tmp_path / "source"
    source.write_bytes(data)
    part = world.stage(tmp_path / "there", size=len(data))
    job = inbound(tmp_path / "there", len(data))
    connect(world, source, job, sender_dials=sender_dials)
    return part


# -- a file -------------------------------------------------------------------------------

SIZES = [0, 1, 17, BLOCK - 58, BLOCK - 57, BLOCK - 1, BLOCK, BLOCK + 1, 3 * MIB + 5, 40 * MIB]


@pytest.mark.parametrize("sender_dials", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_a_file_arrives(world: World, tmp_path: Path, size: int, sender_dials: bool) -> None:
    data = content(size)
    part = connect_file(world, tmp_path, data, sender_dials=sender_dials)
    expected = size, digest(data), size, 0
    assert world.wait(LaneFinished, SENDER) == LaneFinished(SENDER, *expected)
    assert world.wait(LaneFinished, RECEIVER) == LaneFinished(RECEIVER, *expected)
    assert part.read_bytes() == data
    assert world.of(LaneFailed) == []
    for lane, state in ((SENDER, "waiting"), (RECEIVER, "verified")):
        entries = (Entry(b"", size, state),)
        assert world.of(LaneEntries, lane) == [LaneEntries(lane, entries, 1, b"", size)]
        assert world.of(LaneOpened, lane) == [LaneOpened(lane)]
        kinds = [type(each) for each in world.events if getattr(each, "lane", None) == lane]
        assert kinds[0] is LaneOpened and kinds[-1] is LaneFinished
    assert (world.released, world.proved) == (1, 1)
    all_ended(world)


def all_ended(world: World) -> None:
    """Nothing is left of any lane."""
    world.until(lambda: not world.lanes._lanes and not world.others._lanes)
    assert world.lanes._shared.budget.total == 0 == world.others._shared.budget.total
    assert len(world.files) == 0


def test_several_at_once_share_the_turns(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RANGE_S", 60.0)  # records are as long, however slow this machine
    data = content(10 * MIB)
    (tmp_path / "source").write_bytes(data)
    port = world.listen(world.lanes)
    parts = []
    for number in range(10, 13):
        ticket = bytes([number]) * 16
        parts.append(world.stage(tmp_path / f"there{number}", size=len(data)))
        into = inbound(tmp_path / f"there{number}", len(data))
        world.lanes.open(receiving(into, dials=False, ticket=ticket, lane=number), export)
        out = sending(tmp_path / "source", dials=True, port=port, ticket=ticket, lane=-number)
        world.others.open(out, export)
        world.others.start(begin(-number))

    def sizes() -> list[int]:
        return [part.stat().st_size for part in parts]

    # Their children answer one after another: who is first has a lead, a short one below a limit.
    world.others.limit(LimitLanes(1_000_000, 0, ()))
    world.until(lambda: min(sizes()) > 0)
    world.others.limit(LimitLanes(0, 0, ()))
    world.until(lambda: max(sizes()) == len(data) or world.of(LaneFailed))
    assert min(sizes()) > len(data) // 3, "nobody has all turns"
    world.until(lambda: len(world.of(LaneFinished)) == 6)
    assert [part.read_bytes() == data for part in parts] == [True] * 3
    all_ended(world)


def test_at_most_one_record_a_turn(world: World, tmp_path: Path) -> None:
    data = content(4 * MIB)
    part = connect_file(world, tmp_path, data)
    before = 0
    while not world.of(LaneFinished, RECEIVER):
        world.turn()
        now = part.stat().st_size
        assert now - before <= BLOCK
        before = now
    assert before == len(data)


def test_nothing_goes_out_before_it_is_started(world: World, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"content")
    world.stage(tmp_path / "there")
    port = world.listen(world.lanes)
    world.lanes.open(receiving(inbound(tmp_path / "there", 7), dials=False), export)
    world.others.open(sending(tmp_path / "source", dials=True, port=port), export)
    world.wait(LaneOpened, RECEIVER)
    world.wait(LaneOpened, SENDER)
    before = len(world.events)
    world.turns(0.1)
    assert len(world.events) == before
    world.others.start(begin())
    world.others.start(begin(5))  # there is none of that number
    assert world.wait(LaneFinished, RECEIVER).size == 7


def test_progress_is_told_now_and_then(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PROGRESS_INTERVAL_S", 0.02)
    data = content(40 * MIB)
    connect_file(world, tmp_path, data)
    first = world.loop.now().boot
    world.wait(LaneFinished, RECEIVER)
    took = world.loop.now().boot - first
    for lane in (SENDER, RECEIVER):
        told = [(event.bytes_done, event.bytes_sent) for event in world.of(LaneProgressed, lane)]
        assert told == sorted(set(told)) and told
        done, sent = told[-1]
        assert 0 < done <= len(data)
        assert done <= sent <= len(data)
        assert len(told) <= took / 0.02 + 2


def test_nothing_moves_and_nothing_is_told(world: World, tmp_path: Path) -> None:
    connect_file(world, tmp_path, content(9 * MIB))
    world.until(lambda: world.of(LaneProgressed, RECEIVER))
    world.others.close(SENDER)
    world.wait(LaneFailed, RECEIVER)
    before = len(world.events)
    world.turns(3 * limits.PROGRESS_INTERVAL_S)
    assert len(world.events) == before


# -- trees --------------------------------------------------------------------------------


def make_tree(root: Path, large: int = 300 * 1024) -> None:
    """Files of all kinds, folders, links, and what cannot be sent."""
    (root / "deep" / "deeper").mkdir(parents=True)
    (root / "empty folder").mkdir()
    (root / "empty").write_bytes(b"")
    (root / "deep" / "program").write_bytes(b"#!/bin/sh\n")
    (root / "deep" / "program").chmod(0o755)
    for number in range(300):
        (root / "deep" / f"small{number}").write_bytes(content(number * 7))
    for number in range(5):
        (root / "deep" / "deeper" / f"large{number}").write_bytes(content(large + number))
    (root / b"\xff\xfe odd".decode("utf-8", "surrogateescape")).write_bytes(content(5000))
    (root / "deep" / "link").symlink_to("../empty")
    (root / "out").symlink_to("../../outside")
    os.mkfifo(root / "pipe")
    os.utime(root / "deep" / "program", ns=(1, 1_234_567_890_123_456_789))


def files_in(root: Path) -> dict[str, tuple[bytes, int]]:
    """What is in a folder."""
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def connect_tree(
    world: World, root: Path, there: Path, *, sender_dials: bool = True, **changes: object
) -> Path:
    """Open both ends for a folder; its stage."""
    stage = world.stage(there, tree=True)
    job = inbound(there, 100 * MIB, tree=True, **changes)
    connect(world, root, job, sender_dials=sender_dials)
    return stage


@pytest.mark.parametrize("sender_dials", [True, False])
def test_a_tree_arrives(world: World, tmp_path: Path, sender_dials: bool) -> None:
    root = tmp_path / "root"
    make_tree(root)
    stage = connect_tree(world, root, tmp_path / "there", sender_dials=sender_dials)
    finished = world.wait(LaneFinished, RECEIVER)
    there = files_in(root)
    assert files_in(stage) == there
    assert os.readlink(stage / "deep" / "link") == "../empty"
    assert os.access(stage / "deep" / "program", os.X_OK)
    assert (stage / "empty folder").is_dir() and not (stage / "out").exists()
    size = sum(len(data) for data, _ in there.values())
    assert finished == LaneFinished(RECEIVER, size, b"", size)
    assert world.wait(LaneFinished, SENDER) == LaneFinished(SENDER, size, b"", size)
    for lane, state in ((SENDER, "waiting"), (RECEIVER, "verified")):
        told = [each for event in world.of(LaneEntries, lane) for each in event.entries]
        assert {os.fsdecode(each.path) for each in told if each.state == state} == set(there)
        skipped = {each.path for each in told if each.state == "skipped"}
        assert skipped == {b"out", b"pipe"}
        places = [event.number for event in world.of(LaneEntries, lane)]
        assert places == sorted(places)
    assert world.of(LaneEntries, RECEIVER)[-1].bytes_done == size
    all_ended(world)


def test_only_some_of_a_tree(world: World, tmp_path: Path) -> None:
    root = tmp_path / "root"
    make_tree(root)
    stage = world.stage(tmp_path / "there", tree=True)
    only = (b"deep/program", b"deep/deeper/large1")
    connect(world, root, inbound(tmp_path / "there", 9 * MIB, tree=True), only=only)
    world.wait(LaneFinished, RECEIVER)
    assert set(files_in(stage)) == {"deep/program", "deep/deeper/large1"}


def test_an_empty_folder_arrives(world: World, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    stage = connect_tree(world, tmp_path / "root", tmp_path / "there")
    assert world.wait(LaneFinished, RECEIVER).size == 0
    assert list(stage.iterdir()) == []


@pytest.mark.parametrize("turns", [5, 20, 40, 80])
def test_a_cut_goes_on_where_it_was(world: World, tmp_path: Path, turns: int) -> None:
    """A second lane goes on from the place that the first one has told, and sends little again."""
    root = tmp_path / "root"
    make_tree(root, large=3 * MIB)
    stage = connect_tree(world, root, tmp_path / "there")
    world.until(lambda: world.of(LaneEntries, RECEIVER))
    for _ in range(turns):
        world.turn()
    world.lanes.close_all()
    world.others.close_all()
    world.turns(0.05)
    last = world.of(LaneEntries, RECEIVER)[-1]
    world.events.clear()
    place = {"number": last.number, "after": last.after, "bytes_done": last.bytes_done}
    connect_tree(world, root, tmp_path / "there", asks=True, **place)
    finished = world.wait(LaneFinished, RECEIVER)
    assert files_in(stage) == files_in(root)
    assert finished.size == sum(len(data) for data, _ in files_in(root).values())
    assert finished.bytes_sent <= finished.size - last.bytes_done
    all_ended(world)


def test_a_file_goes_on_in_its_middle(world: World, tmp_path: Path) -> None:
    data = content(20 * MIB + 77)
    part = connect_file(world, tmp_path, data)
    world.until(lambda: part.stat().st_size > 12 * MIB)
    world.lanes.close_all()
    world.others.close_all()
    there = part.stat().st_size
    with part.open("r+b") as file:
        file.seek(5 * MIB + 3)
        file.write(b"damage")
    world.events.clear()
    connect(world, tmp_path / "source", inbound(tmp_path / "there", len(data), asks=True))
    finished = world.wait(LaneFinished, RECEIVER)
    assert part.read_bytes() == data and finished.digest == digest(data)
    assert finished.bytes_sent == len(data) - there // MIB * MIB + MIB
    assert world.wait(LaneFinished, SENDER).bytes_sent == finished.bytes_sent
    all_ended(world)


@pytest.mark.parametrize("changed", [0, 3])
def test_an_older_copy_saves_its_blocks(world: World, tmp_path: Path, changed: int) -> None:
    data = content(30 * MIB + 5)
    older = bytearray(data)
    for number in range(changed):
        older[number * 10 * MIB + 17] ^= 1
    base = tmp_path / "older"
    base.write_bytes(older)
    (tmp_path / "source").write_bytes(data)
    part = world.stage(tmp_path / "there", size=len(data))
    old = {"base": os.fsencode(base), "base_ctime_ns": base.stat().st_ctime_ns}
    connect(world, tmp_path / "source", inbound(tmp_path / "there", len(data), asks=True, **old))
    finished = world.wait(LaneFinished, RECEIVER)
    assert part.read_bytes() == data and base.read_bytes() == older
    sent = changed * MIB
    assert finished == LaneFinished(RECEIVER, len(data), digest(data), sent, len(data) - sent)
    all_ended(world)


def test_a_patch_that_was_cut_goes_on(world: World, tmp_path: Path) -> None:
    data = content(60 * MIB)
    older = bytearray(data)
    older[5 * MIB] ^= 1
    older[50 * MIB] ^= 1
    base = tmp_path / "older"
    base.write_bytes(older)
    (tmp_path / "source").write_bytes(data)
    part = world.stage(tmp_path / "there", size=len(data))
    old = {"base": os.fsencode(base), "base_ctime_ns": base.stat().st_ctime_ns}
    job = inbound(tmp_path / "there", len(data), asks=True, **old)
    connect(world, tmp_path / "source", job)
    world.until(lambda: part.stat().st_size > 5 * MIB)
    world.lanes.close_all()
    world.others.close_all()
    world.turns(0.1)
    world.events.clear()
    connect(world, tmp_path / "source", job)
    finished = world.wait(LaneFinished, RECEIVER)
    assert part.read_bytes() == data
    assert finished.bytes_sent <= 4 * MIB
    all_ended(world)


def test_a_name_that_is_taken_fails_alone(world: World, tmp_path: Path) -> None:
    root = tmp_path / "root"
    make_tree(root)
    stage = world.stage(tmp_path / "there", tree=True)
    (stage / "deep" / "deeper" / "large2").mkdir(parents=True)
    connect(world, root, inbound(tmp_path / "there", 9 * MIB, tree=True))
    world.wait(LaneFinished, RECEIVER)
    told = [each for event in world.of(LaneEntries, RECEIVER) for each in event.entries]
    failed = [each for each in told if each.state == "failed"]
    assert [each.path for each in failed] == [b"deep/deeper/large2"] and failed[0].reason
    missing = set(files_in(root)) - set(files_in(stage))
    assert missing == {"deep/deeper/large2"}


def test_a_folder_that_is_gone(world: World, tmp_path: Path) -> None:
    connect_tree(world, tmp_path / "none", tmp_path / "there")
    assert world.wait(LaneFailed, SENDER).code == "source"
    assert world.wait(LaneFailed, RECEIVER).code == "cut"


def test_a_stage_that_is_gone(world: World, tmp_path: Path) -> None:
    root = tmp_path / "root"
    make_tree(root)
    stage = world.stage(tmp_path / "there", tree=True)
    shutil.rmtree(stage)
    connect(world, root, inbound(tmp_path / "there", 9 * MIB, tree=True))
    assert world.wait(LaneFailed, RECEIVER).code == "away"


# -- the source ---------------------------------------------------------------------------


def paused(world: World, tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transfer that stands still in the middle, because the receiver's disk does."""
    monkeypatch.setattr(limits, "UNSYNCED_BYTES_MAX", MIB)
    connect_file(world, tmp_path, data)
    world.until(lambda: (tmp_path / "there" / ".tnt-part" / "stage").stat().st_size > 0)
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


def rename(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def put_other(path: Path) -> None:
    path.with_name("newer").write_bytes(b"newer")
    path.with_name("newer").replace(path)


CHANGES = [
    (append, CHANGED),
    (overwrite, CHANGED),
    (shorten, CHANGED),
    (touch, CHANGED),
    (Path.unlink, GONE),
    (put_other, GONE),
    (rename, MOVED),
]


@pytest.mark.parametrize(("change", "told"), CHANGES)
def test_a_source_that_changes_while_it_is_read(
    world: World,
    tmp_path: Path,
    change: Callable[[Path], None],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paused(world, tmp_path, content(30 * MIB), monkeypatch)
    pid = world.disk
    change(tmp_path / "source")
    os.kill(pid, signal.SIGCONT)
    failed = world.wait(LaneFailed, SENDER)
    assert failed == LaneFailed(SENDER, "source", told)
    assert world.wait(LaneFailed, RECEIVER).code == "cut"
    assert world.of(LaneFinished) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [(append, CHANGED), (overwrite, CHANGED), (shorten, CHANGED), (Path.unlink, GONE)],
)
def test_a_large_file_of_a_tree_that_changes_fails_alone(
    world: World, tmp_path: Path, change: Callable[[Path], None], reason: str
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "large").write_bytes(content(30 * MIB))
    os.utime(root / "large", ns=(1, 1))  # no change within one tick of the clock of files
    (root / "other").write_bytes(content(MIB))
    (root / "small").write_bytes(b"small")
    stage = connect_tree(world, root, tmp_path / "there")
    world.until(lambda: (stage / "large").exists() and (stage / "large").stat().st_size > MIB)
    change(root / "large")
    finished = world.wait(LaneFinished, RECEIVER)
    assert set(files_in(stage)) == {"other", "small"}
    assert finished.size >= MIB + 5
    for lane in (SENDER, RECEIVER):
        told = [each for event in world.of(LaneEntries, lane) for each in event.entries]
        (failed,) = [each for each in told if each.state == "failed"]
        assert failed.path == b"large"
        assert failed.reason == reason
    all_ended(world)


def test_a_source_that_is_not_in_memory(world: World, tmp_path: Path) -> None:
    data = content(10 * MIB + 3)
    part = connect_file(world, tmp_path, data)
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
    part = connect_file(world, tmp_path, data)
    world.until(lambda: part.stat().st_size > MIB)
    world.kill_disk()
    world.wait(LaneFinished, RECEIVER)
    assert part.read_bytes() == data


@pytest.mark.parametrize("tree", [False, True])
def test_a_source_that_cannot_be_read(
    world: World, tmp_path: Path, tree: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "_NOWAIT", 0)
    monkeypatch.setattr(files_module, "_POSITIONED", True)
    failed = Failed("EIO", "the disk reported an error")
    monkeypatch.setattr(
        world.children,
        "warm",
        lambda *rest: world.loop.call_later(0, lambda: rest[-1](failed)),
    )
    text = "the file cannot be read: the disk reported an error"
    if not tree:
        connect_file(world, tmp_path, content(MIB))
        assert world.wait(LaneFailed, SENDER) == LaneFailed(SENDER, "source", text)
        return
    root = tmp_path / "root"
    make_tree(root)
    stage = connect_tree(world, root, tmp_path / "there")
    world.wait(LaneFinished, RECEIVER)
    told = [each for event in world.of(LaneEntries, RECEIVER) for each in event.entries]
    reasons = {each.path: each.reason for each in told if each.state == "failed"}
    assert reasons == {b"deep/deeper/large%d" % number: text for number in range(5)}
    assert list((stage / "deep" / "deeper").iterdir()) == []


# -- the disk of the receiver -------------------------------------------------------------


def test_a_limit_of_the_system_in_the_middle(world: World, tmp_path: Path) -> None:
    part = connect_file(world, tmp_path, content(9 * MIB))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB + 5, hard))
    try:
        failed = world.wait(LaneFailed, RECEIVER)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert failed.code == "storage" and failed.text == "the file is too large for this system"
    assert part.stat().st_size == MIB + 5
    assert world.wait(LaneFailed, SENDER).code == "cut"


def test_unsynced_bytes_are_bounded(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content(20 * MIB)
    paused(world, tmp_path, data, monkeypatch)
    part = tmp_path / "there" / ".tnt-part" / "stage"
    stopped_at = part.stat().st_size
    assert stopped_at <= MIB + BLOCK
    world.turns(0.1)
    assert part.stat().st_size == stopped_at
    os.kill(world.disk, signal.SIGCONT)
    world.wait(LaneFinished, RECEIVER)
    assert part.read_bytes() == data


def test_small_files_are_bounded_too(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of unsynced records there are a few; and what is synced is told."""
    monkeypatch.setattr(limits, "UNSYNCED_BYTES_MAX", MIB)
    monkeypatch.setattr(limits, "UNSYNCED_STEP_BYTES", MIB)
    root = tmp_path / "root"
    for number in range(1000):
        folder = root / str(number // 50)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).write_bytes(content(10_000))
    connect_tree(world, root, tmp_path / "there")
    most = 0
    while not world.of(LaneFinished, RECEIVER):
        world.turn()
        most = max(most, world.lanes._shared.budget.total)
    assert most <= MIB + 5 * BLOCK
    synced = [event for event in world.of(LaneEntries, RECEIVER) if event.synced]
    assert len(synced) >= 4
    told = {
        (event.number, event.after, event.bytes_done)
        for event in world.of(LaneEntries, RECEIVER)
        if not event.synced
    }
    for event in synced:
        assert event.entries == () and (event.number, event.after, event.bytes_done) in told


def test_lanes_that_fill_the_budget_together_do_not_wait_for_each_other(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them reaches the step at which it would sync by itself."""
    monkeypatch.setattr(limits, "UNSYNCED_BYTES_MAX", MIB)
    monkeypatch.setattr(limits, "UNSYNCED_STEP_BYTES", 100 * MIB)
    data = content(6 * MIB)
    part = connect_file(world, tmp_path, data)
    world.wait(LaneFinished, RECEIVER)
    assert part.read_bytes() == data


def test_a_hanging_disk_is_no_silence_of_the_other_side(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver goes on telling that it is alive; neither side gives up."""
    monkeypatch.setattr(limits, "LANE_IDLE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(limits, "LANE_ALIVE_S", 0.05)
    data = content(20 * MIB)
    paused(world, tmp_path, data, monkeypatch)
    world.turns(1.0)
    assert world.of(LaneFailed) == []
    os.kill(world.disk, signal.SIGCONT)
    world.wait(LaneFinished, RECEIVER)


def test_a_hanging_disk_of_the_sender_is_no_silence(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LANE_IDLE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(limits, "LANE_ALIVE_S", 0.05)
    root = tmp_path / "root"
    make_tree(root)
    world.stage(tmp_path / "there", tree=True)
    pid = world.stop_disk()
    connect(world, root, inbound(tmp_path / "there", 9 * MIB, tree=True))
    world.wait(LaneOpened, RECEIVER)
    world.turns(1.0)
    assert world.of(LaneFailed) == []
    os.kill(pid, signal.SIGCONT)
    world.wait(LaneFinished, RECEIVER)


def test_a_sync_that_fails(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sync(handle: int, callback: Callable[[Answer], None]) -> None:
        callback(Failed("EIO", "the disk reported an error"))

    monkeypatch.setattr(world.children, "sync", sync)
    connect_file(world, tmp_path, content(30 * MIB))
    failed = world.wait(LaneFailed, RECEIVER)
    assert failed == LaneFailed(RECEIVER, "storage", "the disk reported an error")
    world.wait(LaneFailed, SENDER)
    all_ended(world)


def test_the_child_is_killed_while_it_syncs(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UNSYNCED_STEP_BYTES", 256 * 1024)
    monkeypatch.setattr(limits, "UNSYNCED_BYTES_MAX", MIB)
    data = content(30 * MIB)
    part = connect_file(world, tmp_path, data)
    for mark in (MIB, 10 * MIB, 20 * MIB):
        world.until(lambda mark=mark: part.stat().st_size > mark)
        world.kill_disk()
    world.wait(LaneFinished, RECEIVER)
    assert part.read_bytes() == data


def test_the_child_is_killed_while_it_packs_and_unpacks(world: World, tmp_path: Path) -> None:
    root = tmp_path / "root"
    make_tree(root)
    stage = connect_tree(world, root, tmp_path / "there")
    for count in (1, 3, 5):
        world.until(lambda count=count: len(world.of(LaneEntries, RECEIVER)) >= count)
        world.kill_disk()
    world.wait(LaneFinished, RECEIVER)
    assert files_in(stage) == files_in(root)
    all_ended(world)


# -- ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", range(0, 60, 4))
@pytest.mark.parametrize("lane", [SENDER, RECEIVER])
def test_closing_is_silent_here_and_a_cut_there(
    world: World, tmp_path: Path, turns: int, lane: int
) -> None:
    connect_file(world, tmp_path, content(60 * MIB))
    for _ in range(turns):
        world.turn()
    world.events += world.loop.take_events()  # what the last bulk handler posted
    ours, other = (world.others, RECEIVER) if lane == SENDER else (world.lanes, SENDER)
    ours.close(lane)
    world.events += world.loop.take_events()  # what it had sent
    before = len([each for each in world.events if getattr(each, "lane", None) == lane])
    assert not [each for each in world.of(LaneFailed) if each.lane == lane]
    ours.close(lane)
    if world.released:
        assert world.wait(LaneFailed, other).code == "cut"
    world.turns(0.05)
    after = [each for each in world.events if getattr(each, "lane", None) == lane]
    assert len(after) == before
    assert ours._lanes == {}
    if world.released:
        world.until(lambda: not len(world.files))


def test_the_sender_stays_until_the_receiver_has_it_all(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UNSYNCED_BYTES_MAX", 1)
    connect_file(world, tmp_path, content(1000))
    world.wait(LaneFinished, SENDER)
    pid = world.stop_disk()
    world.turns(0.1)
    if not world.of(LaneFinished, RECEIVER):
        assert SENDER in world.others._lanes
    os.kill(pid, signal.SIGCONT)
    world.wait(LaneFinished, RECEIVER)
    world.until(lambda: not world.others._lanes)


def test_a_lane_that_has_ended_holds_no_buffers(world: World, tmp_path: Path) -> None:
    """Not even until cycles are looked for: many lanes in a row would add up."""
    gc.collect()
    gc.disable()
    try:
        connect_file(world, tmp_path, content(2 * MIB))
        lanes = world.lanes._lanes[RECEIVER], world.others._lanes[SENDER]
        world.until(lambda: all(each._channel is not None for each in lanes))
        channels = [weakref.ref(each._channel) for each in lanes if each._channel is not None]
        world.wait(LaneFinished, RECEIVER)
        world.until(lambda: not world.lanes._lanes and not world.others._lanes)
        assert len(channels) == 2 and [each() for each in channels] == [None, None]
    finally:
        gc.enable()


def test_a_cut_costs_little(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent and not taken, once the receiver stops: it is lost with a cut."""
    (tmp_path / "source").write_bytes(content(30 * MIB))
    world.stage(tmp_path / "there", size=30 * MIB)
    connect(world, tmp_path / "source", inbound(tmp_path / "there", 30 * MIB))
    part = tmp_path / "there" / ".tnt-part" / "stage"
    receiver = world.lanes._lanes[RECEIVER]
    world.until(lambda: part.stat().st_size > 10 * MIB)
    monkeypatch.setattr(Incoming, "hungry", False)
    receiver.rewatch()
    sender = world.others._lanes[SENDER]
    world.until_still(sender._mover.figures)
    assert receiver._channel is not None
    flight = sender._mover.figures()[1] - part.stat().st_size
    assert MIB < flight < 7 * MIB // 2
    if receiver._channel.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > 2 * MIB:
        assert flight <= limits.LANE_WINDOW_BYTES + 3 * BLOCK


def test_nobody_is_there(world: World, tmp_path: Path) -> None:
    with socket.socket() as sock:  # which has the port, so that nobody else listens there
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        world.others.open(sending(tmp_path, dials=True, port=port), export)
        failed = world.wait(LaneFailed, SENDER)
    assert failed.code == "cut" and "refused" in failed.text


def test_an_address_that_is_none(world: World, tmp_path: Path) -> None:
    effect = sending(tmp_path, dials=True, port=1)
    world.others.open(replace(effect, host="not.an.address"), export)
    assert world.wait(LaneFailed, SENDER).code == "cut"


def test_a_link_that_is_gone(world: World, tmp_path: Path) -> None:
    world.others.open(sending(tmp_path, dials=True, port=1), lambda *_: None)
    assert world.wait(LaneFailed, SENDER).code == "cut"


def test_a_key_that_has_sealed_enough(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LANE_KEY_BYTES_MAX", 5 * MIB)
    part = connect_file(world, tmp_path, content(9 * MIB))
    assert world.wait(LaneFailed, SENDER).code == "cut"
    assert world.wait(LaneFailed, RECEIVER).code == "cut"
    assert 3 * MIB < part.stat().st_size <= 5 * MIB


def test_no_wake_ups_while_a_lane_waits(world: World, tmp_path: Path) -> None:
    world.lanes.open(receiving(inbound(tmp_path, 10), dials=False), export)
    now = world.loop._clock.now().boot
    nearest = world.loop.wake_at(None)
    assert nearest is not None and nearest - now > limits.LANE_TICKET_TIMEOUT_S - 5


def test_a_sender_that_is_started_and_has_nobody_yet(world: World, tmp_path: Path) -> None:
    world.lanes.open(sending(tmp_path, dials=False), export)
    world.lanes.start(begin())
    world.turns(0.05)
    raw = RawLane.dialled(world, world.listen(world.lanes))
    raw.say(raw.hello())
    world.wait(LaneOpened, SENDER)
