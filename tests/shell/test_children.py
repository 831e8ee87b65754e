"""The child processes: tasks are done, once, whatever happens to who does them."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness import wait_for
from lane_world import World
from tntd import limits
from tntd.shell import child_process
from tntd.tasks import (
    Answer,
    AnyTask,
    Done,
    EntryOpened,
    Failed,
    FinishEntry,
    HashRange,
    Inspect,
    Inspected,
    OpenEntry,
    PrepareStage,
    Publish,
    Resolve,
    Resolved,
    SyncPart,
)


@pytest.fixture
def world() -> Iterator[World]:
    """Children that run."""
    made = World()
    made.children.start()
    yield made
    made.close()


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


HANGING = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]


# -- the net child ------------------------------------------------------------------------


def test_resolve_gives_numeric_addresses(world: World) -> None:
    answer = world.do(Resolve("localhost", 80))
    assert isinstance(answer, Resolved)
    assert set(answer.addresses) <= {"127.0.0.1", "::1"} and answer.addresses
    assert world.do(Resolve("192.0.2.7", 80)) == Resolved(["192.0.2.7"])
    assert world.do(Resolve("fe80::1%1", 80)) == Resolved(["fe80::1%1"])


@pytest.mark.parametrize("host", ["nosuch.invalid", "", "a" * 300, "..", "a\0b", "ä" * 100])
def test_resolve_fails_in_words(world: World, host: str) -> None:
    answer = world.do(Resolve(host, 80))
    # An empty name means "this machine" to some systems.
    assert isinstance(answer, Failed) or not host
    if isinstance(answer, Failed):
        assert answer.code == "UNRESOLVED" and answer.text


# -- life and death -----------------------------------------------------------------------


def test_two_children_run_and_end_with_close() -> None:
    world = World()
    world.children.start()
    pids = world.children.pids
    assert len(pids) == 2
    world.close()
    assert all(gone(pid) for pid in pids)
    assert world.children.pids == []


def test_a_child_loads_no_more_than_it_needs(world: World) -> None:
    world.do(Inspect(b"/"))
    maps = Path(f"/proc/{world.disk}/maps").read_text()
    assert "msgspec" in maps
    for name in ("cryptography", "OpenSSL", "sqlite"):
        assert name not in maps


def test_a_child_has_none_of_our_descriptors(world: World) -> None:
    world.do(Inspect(b"/"))
    found = {os.readlink(entry) for entry in Path(f"/proc/{world.disk}/fd").iterdir()}
    assert {name.partition(":")[0] for name in found} <= {"/dev/null", "socket"}
    assert len([name for name in found if name.startswith("socket")]) == 1


def test_killed_while_idle_it_is_started_again(world: World) -> None:
    old = world.disk
    os.kill(old, signal.SIGKILL)
    world.until(lambda: world.children._disk.pid not in {None, old})
    assert isinstance(world.do(Inspect(b"/")), Inspected)


def make_part(folder: Path) -> None:
    """A part with something in it."""
    (folder / ".tnt-part").mkdir(mode=0o700)
    (folder / ".tnt-part" / "part").write_bytes(b"content")


def opening(handle: int, folder: Path) -> OpenEntry:
    """The task that opens the part."""
    return OpenEntry(handle, os.fsencode(folder), b"part", b"", 7)


def test_killed_in_the_middle_its_work_is_done_again(world: World, tmp_path: Path) -> None:
    make_part(tmp_path)
    world.do(opening(7, tmp_path))
    pid = world.stop_disk()
    tasks = [
        world.ask(Inspect(os.fsencode(tmp_path))),
        world.ask(opening(8, tmp_path)),
        world.ask(SyncPart(7, b"/", b"stage")),
        world.ask(opening(9, tmp_path)),
    ]
    world.files.close(7)  # the one that is under way has its own
    world.turns(0.1)
    os.kill(pid, signal.SIGKILL)
    answers = [world.answer(task) for task in tasks]
    assert [type(each) for each in answers] == [Inspected, EntryOpened, Done, EntryOpened]
    opened = world.files.get(8)
    assert opened is not None and os.pread(opened.descriptor, 9, 0) == b"content"
    assert world.files.get(9) is not None


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of another process is set")
def test_a_file_that_was_lost_on_its_way_down_says_nothing_of_the_disk(
    world: World, tmp_path: Path
) -> None:
    """A child without a descriptor left cannot take it; what was written is well."""
    make_part(tmp_path)
    world.do(opening(7, tmp_path))
    tasks: list[AnyTask] = [
        SyncPart(7, os.fsencode(tmp_path), b"part"),
        HashRange(7, 0, 7, 1 << 20),
        FinishEntry(7, 1, False),
    ]
    child = psutil.Process(world.disk)
    before = child.rlimit(psutil.RLIMIT_NOFILE)
    child.rlimit(psutil.RLIMIT_NOFILE, (3, before[1]))
    assert [world.do(each) for each in tasks] == 3 * [Failed("EMFILE", "too many files are open")]
    child.rlimit(psutil.RLIMIT_NOFILE, before)
    assert world.do(tasks[0]) == Done()


def test_killed_again_and_again(world: World, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path)
    tasks = []
    for _ in range(3):
        pid = world.stop_disk()
        tasks += [world.ask(Inspect(path)) for _ in range(20)]
        world.turns(0.05)
        os.kill(pid, signal.SIGKILL)
        world.until(lambda old=pid: world.children._disk.pid not in {None, old})
    assert all(isinstance(world.answer(task), Inspected) for task in tasks)


def test_too_slow_once_it_is_replaced_and_the_work_done(world: World) -> None:
    pid = world.stop_disk()
    task = world.ask(Inspect(b"/"))
    world.put_forward()
    assert isinstance(world.answer(task), Inspected)
    assert world.disk != pid
    world.until(lambda: gone(pid))


def test_too_slow_twice_the_answer_is_timeout_and_others_go_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = world.stop_disk()
    slow, other = world.ask(Inspect(b"/")), world.ask(Inspect(b"/"))
    with monkeypatch.context() as patch:
        # One that would be stopped as soon as it runs might have answered before.
        patch.setattr(child_process, "command", lambda kind, where: HANGING)
        world.put_forward()
        world.until(lambda: world.children._disk.pid not in {None, pid})
    world.put_forward()
    assert world.answer(slow) == Failed("TIMEOUT", "it took too long")
    assert isinstance(world.answer(other), Inspected)


def test_one_kind_does_not_wait_for_the_other(world: World) -> None:
    world.stop_disk()
    slow = world.ask(Inspect(b"/"))
    assert isinstance(world.do(Resolve("127.0.0.1", 1)), Resolved)
    assert world._answers(slow) == []


def test_a_child_that_dies_at_once_is_started_ever_more_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts: list[float] = []

    def command(kind: str, where: str) -> list[str]:
        starts.append(time.monotonic())
        return [sys.executable, "-S", "-c", ""]

    monkeypatch.setattr(child_process, "command", command)
    monkeypatch.setattr(limits, "CHILD_BACKOFF_FIRST_S", 0.2)
    world = World()
    world.children._disk.start()
    answer = world.do(Inspect(b"/"))
    assert answer == Failed("ECHILD", "the helper program keeps ending")
    world.until(lambda: len(starts) >= 5)
    assert starts[4] - starts[3] >= 0.35  # 0, 0.2, 0.4, 0.8 s
    monkeypatch.undo()
    assert isinstance(world.do(Inspect(b"/")), Inspected)
    world.close()


def test_a_child_that_cannot_be_started_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "command", lambda kind, where: ["/nonexistent"])
    monkeypatch.setattr(limits, "CHILD_BACKOFF_FIRST_S", 0.01)
    world = World()
    world.children._disk.start()
    answer = world.do(Inspect(b"/"))
    assert isinstance(answer, Failed) and answer.code == "ECHILD"
    world.close()


def test_a_bug_in_a_child_reaches_the_log(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CHILD_BACKOFF_MAX_S", 0.01)
    disk = world.children._disk
    got: list[Answer] = []
    disk.submit(child_process.Job(Resolve("localhost", 1), lambda answer, *_: got.append(answer)))
    world.until(lambda: got)
    assert got == [Failed("ECHILD", "the helper program keeps ending")]
    assert "not a task of this child" in caplog.text
    assert isinstance(world.do(Inspect(b"/")), Inspected)


def test_thousands_of_requests_wait_their_turn(world: World) -> None:
    count = 10 * limits.CHILD_REQUESTS_MAX
    pid = world.stop_disk()
    tasks = [world.ask(Inspect(b"/" + b"x" * 3000)) for _ in range(count)]
    world.turns(0.1)
    assert len(world.children._disk._under_way) == limits.CHILD_REQUESTS_MAX
    os.kill(pid, signal.SIGCONT)
    world.until(lambda: all(world._answers(task) for task in tasks[-1:]))
    answers = world.answer(tasks[0]), world.answer(tasks[count // 2]), world.answer(tasks[-1])
    assert all(isinstance(each, Failed) and each.code == "ENAMETOOLONG" for each in answers)


def test_a_request_that_is_too_long_is_an_answer(world: World) -> None:
    answer = world.do(Inspect(b"/" + b"x" * limits.CHILD_MESSAGE_BYTES_MAX))
    assert isinstance(answer, Failed) and answer.code == "EINVAL"


def test_descriptors_do_not_leak(world: World, tmp_path: Path) -> None:
    make_part(tmp_path)
    world.do(opening(1, tmp_path))

    def count() -> list[int]:
        # The child closes its own copy after its answer: one more request, and it has.
        world.do(Inspect(b"/"))
        # Earlier tests of this process left rings of objects with open descriptors behind them.
        gc.collect()
        pids = os.getpid(), world.disk
        return [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids]

    before = count()
    for _ in range(50):
        world.do(opening(1, tmp_path))
        world.do(SyncPart(1, b"/", b"stage"))
        world.do(OpenEntry(1, b"/nonexistent", b"part", b"", 7))
    assert count() == before


def test_opened_files_are_not_inherited(world: World, tmp_path: Path) -> None:
    make_part(tmp_path)
    world.do(opening(1, tmp_path))
    opened = world.files.get(1)
    assert opened is not None and not os.get_inheritable(opened.descriptor)


DAEMON = textwrap.dedent(
    """
    import logging, sys
    from tntd.shell.children import Children
    from tntd.shell.clock import Clock
    from tntd.shell.files import Files
    from tntd.shell.loop import Loop
    children = Children(Loop(Clock()), Files(), logging.getLogger())
    children.start()
    print(*children.pids, flush=True)
    sys.stdin.read()
    """
)


def test_children_end_when_the_daemon_is_killed() -> None:
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert daemon.stdin is not None and daemon.stdout is not None
    pids = [int(word) for word in daemon.stdout.readline().split()]
    assert len(pids) == 2
    daemon.kill()
    daemon.wait()
    wait_for(lambda: all(gone(pid) for pid in pids))
    daemon.stdin.close()
    daemon.stdout.close()


def test_a_sync_that_failed_is_told_and_not_repeated(world: World) -> None:
    # A pipe cannot be synced: EINVAL.
    from tntd.shell.files import OpenFile

    reading, writing = os.pipe()
    os.close(reading)
    world.files.put(3, OpenFile(writing))
    answer = world.do(SyncPart(3, b"/", b"stage"))
    assert isinstance(answer, Failed) and answer.code == "EINVAL"


def test_a_handle_that_is_not_open(world: World) -> None:
    assert world.do(SyncPart(99, b"/", b"stage")) == Failed("EBADF", "the file is not open")
    got: list[Answer] = []
    world.children.sync(SyncPart(99, b"/", b"stage"), got.append)
    world.children.warm(99, 0, 10, got.append)
    assert got == [Failed("EBADF", "the file is not open")] * 2


def test_publish_killed_at_the_worst_moments(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill the child at many moments while it publishes; each part arrives once."""
    monkeypatch.setattr(limits, "CHILD_BACKOFF_MAX_S", 0.01)
    folder = os.fsencode(tmp_path)
    for number in range(15):
        name = b"part%d" % number
        part = world.do(PrepareStage(folder, name, False, 0, 0))
        assert isinstance(part, Inspected)
        pid = world.disk
        task = world.ask(Publish(folder, name, b"final%d" % number, part.inode, 10**18, False))
        world.turn()
        time.sleep(number * 0.0003)
        os.kill(pid, signal.SIGKILL)
        assert isinstance(world.answer(task), Inspected)
    assert len(os.listdir(tmp_path)) == 15
