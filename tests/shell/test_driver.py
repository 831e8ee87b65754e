"""The turn: what is handled, committed and released, in which order, and what failures undo."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from harness import LONG_S, wait_for
from sides import SteppedClock
from tntd import limits
from tntd.effects import CloseLink, Effect, Log, SendFrame, Stop
from tntd.events import (
    ClientClosed,
    ClientLeft,
    ClientOpened,
    ClockJumped,
    Event,
    FrameArrived,
    LinkOpened,
    Now,
    Started,
    StopRequested,
    TimeCame,
)
from tntd.shell.driver import Driver
from tntd.shell.loop import Loop
from tntd.store import StoreFailed


class Record:
    """Everything that happens in a turn, in order: a transcript."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.fail_commit = False
        self.fail_savepoint = False
        self.buggy: set[type[Event]] = set()
        self.buggy_fault = False
        self.buggy_finish = False
        self.wake: float | None = None
        self.performed: list[Effect] = []
        self.broken_effects: set[Effect] = set()
        self.stopping = False
        self.drained = True
        self.answers: Callable[[Event], list[Effect]] = lambda event: []

    # -- a store -------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.lines.append("begin")
        try:
            yield
            if self.fail_commit:
                raise StoreFailed("disk full")
        except BaseException:
            self.lines.append("rollback")
            raise
        self.lines.append("commit")

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        try:
            yield
            if self.fail_savepoint:
                raise StoreFailed("I/O error")
        except BaseException:
            self.lines.append("undo")
            raise

    def idle(self) -> None:
        self.lines.append("idle")

    # -- a node --------------------------------------------------------------------------

    def handle(self, event: Event, now: Now) -> list[Effect]:
        self.lines.append(f"handle {type(event).__name__}")
        if type(event) in self.buggy:
            raise ZeroDivisionError("a bug")
        if isinstance(event, TimeCame):
            self.wake = None
        return self.answers(event)

    def finish_turn(self, now: Now) -> list[Effect]:
        self.lines.append("finish")
        if self.buggy_finish:
            raise KeyError("another bug")
        return [Log("info", "finished")]

    def fault(self, event: Event, error: Exception, now: Now) -> list[Effect]:
        self.lines.append(f"fault {type(event).__name__} {type(error).__name__}")
        if self.buggy_fault:
            raise RuntimeError("a third bug")
        return [CloseLink(1, "fault")]

    def restart(self, reason: str, now: Now) -> list[Effect]:
        self.lines.append(f"restart {reason}")
        return [CloseLink(2, "restart")]

    def deadline(self) -> float | None:
        return self.wake

    # -- a world -------------------------------------------------------------------------

    def perform(self, effect: Effect) -> None:
        self.lines.append(f"perform {type(effect).__name__}")
        if effect in self.broken_effects:
            raise ValueError("a bug in the shell")
        self.performed.append(effect)
        if isinstance(effect, Stop):
            self.stopping = True

    def flush(self) -> None:
        self.lines.append("flush")

    def disown(self, event: Event) -> None:
        self.lines.append(f"disown {type(event).__name__}")

    def abandon(self, effect: Effect) -> None:
        self.lines.append(f"abandon {type(effect).__name__}")

    def take(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TURN_FAILED_PAUSE_S", 0.0)


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def loop(clock: SteppedClock) -> Loop:
    return Loop(clock)


@pytest.fixture
def record() -> Record:
    return Record()


@pytest.fixture
def driver(clock: SteppedClock, loop: Loop, record: Record) -> Driver:
    return Driver(loop, clock, record, record, record)


FRAME = FrameArrived(1, 7, b"")
OPENED = LinkOpened(1, None, "127.0.0.1", 1, b"", "")


def test_a_turn_handles_all_commits_once_and_then_releases(
    loop: Loop, record: Record, driver: Driver
):
    record.answers = lambda event: [SendFrame(1, type(event).__name__.encode())]
    loop.post(OPENED)
    loop.post(FRAME)
    driver.turn()
    assert record.take() == [
        "begin",
        "handle LinkOpened",
        "handle FrameArrived",
        "finish",
        "commit",
        "perform SendFrame",
        "perform SendFrame",
        "perform Log",
        "flush",
    ]
    assert record.performed == [
        SendFrame(1, b"LinkOpened"),
        SendFrame(1, b"FrameArrived"),
        Log("info", "finished"),
    ]


def test_a_turn_without_events_opens_no_transaction(loop: Loop, record: Record, driver: Driver):
    loop.call_later(0.0, lambda: None)
    driver.turn()
    assert record.take() == ["flush"]


def test_a_bug_undoes_its_event_and_the_others_stand(
    loop: Loop, record: Record, driver: Driver, caplog: pytest.LogCaptureFixture
):
    record.buggy = {LinkOpened}
    record.answers = lambda event: [SendFrame(1, b"kept")]
    loop.post(OPENED)
    loop.post(FRAME)
    driver.turn()
    assert record.take() == [
        "begin",
        "handle LinkOpened",
        "undo",
        "fault LinkOpened ZeroDivisionError",
        "handle FrameArrived",
        "finish",
        "commit",
        "perform CloseLink",
        "perform SendFrame",
        "perform Log",
        "flush",
    ]
    assert "ZeroDivisionError: a bug" in caplog.text


def test_a_commit_that_fails_releases_nothing_of_the_turn(
    loop: Loop, record: Record, driver: Driver, caplog: pytest.LogCaptureFixture
):
    record.fail_commit = True
    record.answers = lambda event: [SendFrame(1, b"a promise")]
    loop.post(OPENED)
    loop.post(ClientOpened(3, True))
    driver.turn()
    assert record.take() == [
        "begin",
        "handle LinkOpened",
        "handle ClientOpened",
        "finish",
        "rollback",
        "restart disk full",
        "perform CloseLink",
        "flush",
    ]
    assert record.performed == [CloseLink(2, "restart")]
    assert "disk full" in caplog.text
    record.fail_commit = False
    loop.post(FRAME)
    driver.turn()
    assert "commit" in record.take()


@pytest.mark.parametrize("failing", ["savepoint", "fault", "finish"])
def test_what_else_undoes_a_whole_turn(loop: Loop, record: Record, driver: Driver, failing: str):
    record.fail_savepoint = failing == "savepoint"
    record.buggy_finish = failing == "finish"
    if failing == "fault":
        record.buggy, record.buggy_fault = {FrameArrived}, True
    loop.post(FRAME)
    driver.turn()
    lines = record.take()
    assert "commit" not in lines
    assert lines[-3].startswith("restart ")
    assert record.performed == [CloseLink(2, "restart")]


def test_what_the_node_has_not_heard_is_let_go_of(loop: Loop, record: Record, driver: Driver):
    record.fail_savepoint = True
    loop.post(FRAME)
    loop.post(OPENED)
    loop.post(ClientOpened(3, True))
    driver.turn()
    lines = record.take()
    assert [line for line in lines if line.startswith("handle")] == ["handle FrameArrived"]
    assert lines[-5:-3] == ["disown LinkOpened", "disown ClientOpened"]


def test_what_never_comes_again_survives_a_failed_turn(loop: Loop, record: Record, driver: Driver):
    record.fail_commit = True
    loop.post(Started(4000))
    loop.post(FRAME)
    loop.post(ClientLeft(2))
    loop.post(ClientClosed(3))
    driver.turn()
    record.take()
    record.fail_commit = False
    driver.turn()
    handled = [line for line in record.take() if line.startswith("handle")]
    assert handled == ["handle Started", "handle ClientLeft", "handle ClientClosed"]


def test_a_daemon_that_cannot_write_can_still_be_ended(loop: Loop, record: Record, driver: Driver):
    record.fail_commit = True
    loop.post(StopRequested())
    driver.run()
    assert record.performed == [CloseLink(2, "restart"), Stop()]


def test_a_bug_in_performing_ends_one_link_and_the_rest_is_done(
    loop: Loop, record: Record, driver: Driver, caplog: pytest.LogCaptureFixture
):
    bad, good = SendFrame(1, b"bad"), SendFrame(2, b"good")
    record.broken_effects = {bad}
    record.answers = lambda event: [bad, good]
    loop.post(FRAME)
    driver.turn()
    lines = record.take()
    assert lines[lines.index("perform SendFrame") :] == [
        "perform SendFrame",
        "abandon SendFrame",
        "perform SendFrame",
        "perform Log",
        "flush",
    ]
    assert "a bug in the shell" in caplog.text


def test_the_deadline_of_the_node_comes_after_what_happened(
    clock: SteppedClock, loop: Loop, record: Record, driver: Driver
):
    clock.stop()
    record.wake = loop.now().boot + 3.0
    loop.post(FRAME)
    driver.turn()
    assert "handle TimeCame" not in record.take()
    clock.ahead = 3.0
    loop.post(FRAME)
    driver.turn()
    handled = [line for line in record.take() if line.startswith("handle")]
    assert handled == ["handle FrameArrived", "handle TimeCame"]


def test_it_sleeps_until_the_deadline(
    clock: SteppedClock, loop: Loop, record: Record, driver: Driver
):
    wake = record.wake = clock.now().boot + 0.05
    driver.turn()
    assert loop.now().boot >= wake
    assert "handle TimeCame" in record.take()


@pytest.mark.parametrize("jump", ["suspend", "wall"])
def test_a_jump_of_the_clock_is_told_first(
    clock: SteppedClock, loop: Loop, record: Record, driver: Driver, jump: str
):
    clock.stop()
    record.wake = loop.now().boot + 2.0
    if jump == "suspend":
        clock.ahead = 3600.0
        clock.wall_ahead_ms = 3_600_000
    else:
        clock.wall_ahead_ms = -3_600_000
    loop.post(FRAME)
    driver.turn()
    handled = [line for line in record.take() if line.startswith("handle")]
    expected = ["handle ClockJumped", "handle FrameArrived"]
    assert handled == expected + ["handle TimeCame"] * (jump == "suspend")
    loop.post(FRAME)
    driver.turn()
    assert f"handle {ClockJumped.__name__}" not in record.take()


class BulkSource:
    """A lane that is always ready."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def ready(self, readable: bool, writable: bool) -> None:
        self.record.lines.append("bulk")

    def broke(self, error: Exception) -> None:
        raise AssertionError(error)


def test_one_bulk_handler_runs_after_the_release(loop: Loop, record: Record, driver: Driver):
    pairs = [socket.socketpair() for _ in range(3)]
    for here, _ in pairs:
        loop.watch(here, BulkSource(record), read=False, write=True, bulk=True)
    loop.post(FRAME)
    driver.turn()
    lines = record.take()
    assert lines[-2:] == ["flush", "bulk"]
    assert lines.count("bulk") == 1
    for here, there in pairs:
        here.close()
        there.close()


def test_the_store_may_tidy_up_once_it_is_quiet(
    clock: SteppedClock, loop: Loop, record: Record, driver: Driver
):
    clock.stop()
    for _ in range(5):
        loop.post(FRAME)
        driver.turn()
        clock.ahead += 0.5
    loop.post(FRAME)
    driver.turn()
    assert "idle" not in record.take()
    clock.ahead += limits.STORE_IDLE_S
    driver.turn()
    assert record.take() == ["idle", "flush"]
    assert loop.wake_at(None) is None, "an idle daemon sleeps without end"


def test_it_stops_after_what_was_sent_has_gone(loop: Loop, record: Record, driver: Driver):
    record.answers = lambda event: [Stop()]
    record.drained = False
    loop.post(StopRequested())
    loop.call_later(0.05, lambda: setattr(record, "drained", True))
    driver.run()
    assert record.drained
    assert loop.now().boot > 0


def test_it_does_not_wait_longer_than_the_grace(
    clock: SteppedClock, loop: Loop, record: Record, driver: Driver
):
    record.answers = lambda event: [Stop()]
    record.drained = False
    loop.post(StopRequested())
    loop.call_later(0.01, lambda: setattr(clock, "ahead", limits.LINK_GRACE_S))
    driver.run()
    assert not record.drained


def test_a_second_signal_ends_the_wait(
    loop: Loop, record: Record, driver: Driver, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(limits, "LINK_GRACE_S", 60.0)
    record.answers = lambda event: [Stop()]
    record.drained = False
    loop.post(StopRequested())
    loop.call_later(0.01, lambda: loop.post(StopRequested()))
    begun = time.monotonic()
    driver.run()
    assert time.monotonic() - begun < limits.LINK_GRACE_S


# -- a real process --------------------------------------------------------------------------


@pytest.fixture
def program(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    script = Path(__file__).parents[1] / "shell_program.py"
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        yield process
        process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_real_process_has_one_thread_sleeps_when_idle_and_ends_by_signal(
    program: subprocess.Popen[bytes],
):
    assert program.stdout is not None
    line = json.loads(program.stdout.readline())
    assert line["frames"] == 100
    process = psutil.Process(program.pid)
    assert process.num_threads() == 1
    wait_for(lambda: process.status() == psutil.STATUS_SLEEPING)
    if sys.platform == "linux":
        wait_for(lambda: is_quiet(program.pid), what="no wake-ups when idle")
    program.send_signal(signal.SIGTERM)
    assert program.wait(LONG_S) == 0


def is_quiet(pid: int) -> bool:
    """Not woken within half a second."""
    before = switches(pid)
    time.sleep(0.5)
    return switches(pid) == before


def switches(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if "ctxt_switches" in line)
