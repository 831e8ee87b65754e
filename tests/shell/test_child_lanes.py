"""What lanes have the child `disk` do, with a real child and files that travel."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from blake3 import blake3

from tntd import limits
from tntd.events import Answered
from tntd.shell import child, child_disk, child_folder, child_wire
from tntd.shell.children import Children
from tntd.shell.clock import Clock
from tntd.shell.files import Files
from tntd.shell.loop import Loop
from tntd.tasks import (
    Answer,
    AnyTask,
    CopyRange,
    Done,
    EntryOpened,
    Failed,
    FinishEntry,
    Hashed,
    HashRange,
    Inspected,
    OpenEntry,
    Pack,
    Packed,
    PrepareStage,
    Publish,
    SyncStage,
    Unpack,
    Unpacked,
)

MTIME_NS = 1_600_000_000_123_456_700
MIB = limits.MIB


class Lane:
    """Children in a loop, and what a lane asks of them."""

    def __init__(self) -> None:
        self.loop, self.files = Loop(Clock()), Files()
        self.children = Children(self.loop, self.files, logging.getLogger("tntd"))
        self.children.start()

    def close(self) -> None:
        """End everything."""
        self.files.close_all()
        self.children.close()
        self.loop.close()

    def turn(self) -> None:
        """One turn."""
        self.loop.collect(self.loop._clock.now().boot + 0.02)

    def get(self, ask: Callable[[Callable[[Answer], None]], None]) -> Answer:
        """Ask, and turn until it is answered."""
        answers: list[Answer] = []
        ask(answers.append)
        return self.wait(answers)

    def wait(self, answers: list[Answer]) -> Answer:
        """The first of these, once it is there."""
        end = time.monotonic() + 60
        while not answers:
            assert time.monotonic() < end
            self.turn()
        return answers[0]

    def node(self, task: AnyTask) -> Answer:
        """As the node asks."""
        self.children.ask(7, task)
        end = time.monotonic() + 60
        while True:
            assert time.monotonic() < end
            self.turn()
            for event in self.loop.take_events():
                assert isinstance(event, Answered) and event.task == 7
                return event.answer

    def pack(self, task: Pack) -> Packed:
        """A record."""
        answer = self.get(lambda callback: self.children.pack(task, callback))
        assert isinstance(answer, Packed), answer
        return answer

    def unpack(self, task: Unpack) -> Unpacked:
        """Put it in place."""
        answer = self.get(lambda callback: self.children.unpack(task, callback))
        assert isinstance(answer, Unpacked), answer
        return answer

    def open(self, task: OpenEntry) -> EntryOpened:
        """Open a large file."""
        answer = self.get(lambda callback: self.children.open_entry(task, callback))
        assert isinstance(answer, EntryOpened), answer
        return answer


@pytest.fixture
def lane() -> Iterator[Lane]:
    """Children that run."""
    made = Lane()
    yield made
    made.close()


def fill(source: Path) -> None:
    """A folder with small and large files."""
    for folder in ("a", "a/b", "c"):
        (source / folder).mkdir(parents=True)
        for number in range(50):
            path = source / folder / f"{number}"
            path.write_bytes(os.urandom(number * 200))
            os.utime(path, ns=(0, MTIME_NS + number))
        (source / folder / "large").write_bytes(os.urandom(2 * MIB + len(folder)))
        (source / folder / "large").chmod(0o755)
        (source / folder / "link").symlink_to("1")


def same(source: Path, target: Path) -> bool:
    """Whether two folders hold the same."""
    paths = sorted(path.relative_to(source) for path in source.rglob("*"))
    assert paths == sorted(path.relative_to(target) for path in target.rglob("*"))
    for path in paths:
        one, other = source / path, target / path
        if one.is_symlink():
            assert os.readlink(one) == os.readlink(other)
            continue
        assert (one.stat().st_mtime_ns, one.stat().st_mode) == (
            other.stat().st_mtime_ns,
            other.stat().st_mode,
        )
        assert one.is_dir() or one.read_bytes() == other.read_bytes()
    return True


def carry(lane: Lane, root: bytes, folder: bytes, each: Callable[[], None]) -> None:
    """All of a tree from here to there, as two lanes do it; `each` comes in between."""
    number, after, end = 0, b"", False
    while not end:
        packed = lane.pack(Pack(1, root, number, after, 11))
        each()
        if packed.plain:
            done = lane.unpack(Unpack(folder, b"stage", number, packed.plain))
            assert (done.number, done.after) == (packed.number, packed.after)
            assert [entry.path for entry in done.entries] == [e.path for e in packed.entries]
            assert {entry.state for entry in done.entries} <= {"verified"}
        number, after, end = packed.number, packed.after, packed.end
        if packed.large is not None:
            large = packed.large
            source = lane.files.get(11)
            assert source is not None
            task = OpenEntry(12, folder, b"stage", large.path, large.size)
            assert lane.open(task).size == 0
            target = lane.files.get(12)
            assert target is not None
            content = os.pread(source.descriptor, large.size, 0)
            os.pwrite(target.descriptor, content, 0)
            each()
            finish = FinishEntry(12, large.mtime_ns, large.executable)
            assert lane.get(partial(lane.children.finish_entry, finish)) == Done()
            number, after = number + 1, large.path
            lane.files.close(11)
            lane.files.close(12)


@pytest.mark.parametrize("killed", [False, True])
def test_a_tree_goes_over(
    lane: Lane, tmp_path: Path, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CHILD_BACKOFF_MAX_S", 0.01)
    source, downloads = tmp_path / "source", tmp_path / "downloads"
    fill(source)
    folder = os.fsencode(downloads)
    prepared = lane.node(PrepareStage(folder, b"stage", True, 0, 0))
    assert isinstance(prepared, Inspected)

    def each() -> None:
        if killed:
            os.kill(lane.children.pids[0], signal.SIGKILL)
            killings.append(1)

    killings: list[int] = []
    carry(lane, os.fsencode(source), folder, each if killed else lambda: None)
    assert not killed or len(killings) >= 6
    sync = SyncStage(folder, b"stage")
    assert lane.get(lambda back: lane.children.sync_stage(sync, back)) == Done()
    task = Publish(folder, b"stage", b"final", prepared.inode, 0, False, True)
    published = lane.node(task)
    assert isinstance(published, Inspected) and published.inode == prepared.inode
    assert same(source, downloads / "final")
    assert len(lane.files) == 0


def test_ranges_of_open_files(lane: Lane, tmp_path: Path) -> None:
    content = os.urandom(2 * MIB)
    (tmp_path / "older").write_bytes(content)
    ctime = (tmp_path / "older").stat().st_ctime_ns
    older, folder = os.fsencode(tmp_path / "older"), os.fsencode(tmp_path / "downloads")
    lane.node(PrepareStage(folder, b"stage", False, 0, 0))
    opened = lane.open(OpenEntry(12, folder, b"stage", b"", len(content), older, ctime))
    assert opened.base_size == len(content)
    file = lane.files.get(12)
    assert file is not None and file.in_memory == (tmp_path.stat().st_dev == 0)
    hashes = Hashed(blake3(content[:MIB]).digest() + blake3(content[MIB:]).digest())
    there = HashRange(99, 0, len(content), MIB, older, b"", ctime)  # needs no open file
    assert lane.get(lambda back: lane.children.hash_range(there, back)) == hashes
    copy = CopyRange(12, 0, len(content), MIB, older, b"", ctime)
    assert lane.get(lambda back: lane.children.copy_range(copy, back)) == hashes
    mine = HashRange(12, 0, len(content), MIB)
    assert lane.get(lambda back: lane.children.hash_range(mine, back)) == hashes
    lane.files.close(12)
    for ask in (
        lambda back: lane.children.hash_range(mine, back),
        lambda back: lane.children.copy_range(copy, back),
        lambda back: lane.children.finish_entry(FinishEntry(12, 0, False), back),
    ):
        assert lane.get(ask) == Failed("EBADF", "the file is not open")
    assert lane.node(mine) == Failed("EBADF", "the file is not open")


def test_failures_open_nothing(lane: Lane, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    pack = Pack(1, b"/none", 0, b"", 11)
    answer = lane.get(lambda back: lane.children.pack(pack, back))
    assert isinstance(answer, Failed) and answer.code == "ENOENT"
    task = OpenEntry(12, folder, b"none", b"x", 1)
    answer = lane.get(lambda back: lane.children.open_entry(task, back))
    assert isinstance(answer, Failed) and answer.code == "ENOENT"
    (tmp_path / "empty").mkdir()
    assert lane.pack(Pack(2, folder + b"/empty", 0, b"", 11)).large is None
    assert len(lane.files) == 0


def test_an_idle_child_lets_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_KEEP_S", 0.01)
    ours, theirs = socket.socketpair()
    with theirs:
        child.serve(theirs, child_disk.perform, ours.close)  # and then we are gone


def test_many_records_at_once(lane: Lane, tmp_path: Path) -> None:
    """Answers come in the order of the requests, whichever carry a file."""
    for number in range(8):
        (tmp_path / f"{number}").write_bytes(b"%d" % number)
    answers: list[tuple[int, Answer]] = []
    for number in range(8):
        for walk, name in ((number, f"{number}"), (100 + number, "none")):
            task = Pack(walk, os.fsencode(tmp_path / name), 0, b"", walk)
            lane.children.pack(task, lambda answer, walk=walk: answers.append((walk, answer)))  # type: ignore[misc]
    end = time.monotonic() + 60
    while len(answers) < 16:
        assert time.monotonic() < end
        lane.turn()
    for number in range(8):
        file = lane.files.get(number)
        assert file is not None and os.pread(file.descriptor, 9, 0) == b"%d" % number
    assert {type(answer) for walk, answer in answers if walk >= 100} == {Failed}


def test_joined_paths_do_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of systems without calls relative to a descriptor, where all is done in place."""
    monkeypatch.setattr(child_folder, "_DESCRIPTORS", False)
    monkeypatch.setattr(child_wire, "PASSES_FILES", False)
    monkeypatch.setattr(
        child_folder.Folder,
        "move",
        lambda self, name, target, new, tree: os.rename(self.where(name), target.where(new)),
    )
    source, downloads = tmp_path / "source", tmp_path / "downloads"
    fill(source)
    folder = os.fsencode(downloads)
    lane = Lane()
    monkeypatch.setattr(lane, "unpack", lambda task: child_disk.perform(task, None)[0])
    try:
        prepared, _, _ = child_disk.perform(PrepareStage(folder, b"stage", True, 0, 0), None)
        assert isinstance(prepared, Inspected)
        carry(lane, os.fsencode(source), folder, lambda: None)
        assert child_disk.perform(SyncStage(folder, b"stage"), None)[0] == Done()
        task = Publish(folder, b"stage", b"final", prepared.inode, 0, False, True)
        assert isinstance(child_disk.perform(task, None)[0], Inspected)
        assert same(source, downloads / "final")
        assert os.listdir(downloads) == ["final"]
    finally:
        lane.close()
        child_disk.forget()
