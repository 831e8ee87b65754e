"""The loop: sources, timers, the inbox, bulk handlers, and bugs in handlers."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sides import SteppedClock
from tntd import limits
from tntd.events import Now, StopRequested, TimeCame
from tntd.shell.clock import Clock, JumpWatch
from tntd.shell.loop import Loop


class Recorder:
    """A handler that does as told and notes its calls."""

    def __init__(self, action: Callable[[], None] = lambda: None) -> None:
        self.calls: list[tuple[bool, bool]] = []
        self.broken: list[Exception] = []
        self.action = action

    def ready(self, readable: bool, writable: bool) -> None:
        self.calls.append((readable, writable))
        self.action()

    def broke(self, error: Exception) -> None:
        self.broken.append(error)


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def loop(clock: SteppedClock) -> Iterator[Loop]:
    loop = Loop(clock)
    yield loop
    loop.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        yield here, there


def test_a_source_is_watched_changed_and_forgotten(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
):
    here, there = pair
    handler = Recorder()
    loop.watch(here, handler, read=True, write=False)
    loop.collect(0.0)
    assert handler.calls == []
    there.send(b"x")
    loop.collect(None)
    assert handler.calls == [(True, False)]
    loop.watch(here, handler, read=True, write=True)
    loop.collect(None)
    assert handler.calls[1:] == [(True, True)]
    loop.watch(here, handler, read=False, write=False)
    loop.collect(0.0)
    assert len(handler.calls) == 2
    loop.again(here)
    loop.collect(None)
    assert handler.calls[2:] == [(True, False)]
    loop.unwatch(here)
    loop.unwatch(here)
    loop.again(here)
    loop.collect(0.0)
    assert len(handler.calls) == 3


def test_a_handler_that_is_forgotten_in_the_same_turn_does_not_run(loop: Loop):
    pairs = [socket.socketpair() for _ in range(2)]
    ends = [here for here, _ in pairs]
    handlers = [Recorder(), Recorder()]

    def forget_all() -> None:
        for end in ends:
            loop.unwatch(end)

    for handler, (here, there) in zip(handlers, pairs, strict=True):
        handler.action = forget_all
        loop.watch(here, handler, read=True, write=False)
        there.send(b"x")
    loop.collect(None)
    assert sum(len(handler.calls) for handler in handlers) == 1
    for here, there in pairs:
        here.close()
        there.close()


def test_timers_run_in_order_once_and_not_before_their_time(loop: Loop, clock: SteppedClock):
    told: list[str] = []
    loop.call_later(20.0, lambda: told.append("late"))
    loop.call_later(10.0, lambda: told.append("early"))
    gone = loop.call_later(5.0, lambda: told.append("never"))
    gone.cancel()
    loop.collect(0.0)
    assert told == []
    clock.ahead = 30.0
    loop.collect(None)
    assert told == ["early", "late"]
    assert loop.wake_at(None) is None


def test_a_timer_made_by_a_timer_waits_for_the_next_turn(loop: Loop):
    told: list[int] = []

    def again() -> None:
        told.append(len(told))
        loop.call_later(0.0, again)

    loop.call_later(0.0, again)
    loop.collect(None)
    assert told == [0]
    loop.collect(None)
    assert told == [0, 1]


def test_a_timer_that_fails_stops_nobody(loop: Loop, caplog: pytest.LogCaptureFixture):
    told: list[str] = []
    loop.call_later(0.0, lambda: 1 // 0)  # type: ignore[arg-type,return-value]
    loop.call_later(0.0, lambda: told.append("next"))
    loop.collect(None)
    assert told == ["next"]
    assert "ZeroDivisionError" in caplog.text


def test_the_loop_sleeps_until_the_nearest_deadline_and_not_longer(loop: Loop):
    loop.call_later(60.0, lambda: None)
    begun = time.monotonic()
    loop.collect(loop.now().boot + 0.05)
    assert 0.045 <= time.monotonic() - begun < 30.0


def test_a_waiting_event_keeps_the_loop_awake(loop: Loop):
    loop.post(StopRequested())
    loop.post(TimeCame())
    loop.collect(None)
    assert loop.take_events() == [StopRequested(), TimeCame()]
    assert loop.take_events() == []


class Bulk:
    """Bulk handlers by one letter each, ready when they are told so, and their turns in order."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.order = ""
        self.pairs: dict[str, tuple[socket.socket, socket.socket]] = {}

    def ready(self, names: str) -> None:
        """From now on these are, and no others."""
        for name in names:
            if name not in self.pairs:
                self.pairs[name] = socket.socketpair()
        for name, (here, _) in self.pairs.items():
            handler = Recorder(partial(self.had, name))
            self.loop.watch(here, handler, read=False, write=name in names, bulk=True)

    def had(self, name: str) -> None:
        self.order += name

    def turns(self, count: int) -> str:
        """Who had these turns."""
        self.order = ""
        for _ in range(count):
            self.loop.collect(self.loop.now().boot)
            self.loop.run_bulk()
        return self.order

    def close(self) -> None:
        for here, there in self.pairs.values():
            here.close()
            there.close()


@pytest.fixture
def bulk(loop: Loop) -> Iterator[Bulk]:
    bulk = Bulk(loop)
    yield bulk
    bulk.close()


ROW = limits.BULK_TURNS_IN_A_ROW


def test_bulk_handlers_go_on_for_some_turns_and_stay_even(bulk: Bulk):
    bulk.ready("abc")
    order = bulk.turns(12 * ROW)
    changes = sum(one != two for one, two in itertools.pairwise(order))
    assert changes <= 12
    for end in range(1, len(order) + 1):
        counts = [order[:end].count(name) for name in "abc"]
        assert max(counts) - min(counts) <= ROW


def test_bulk_handlers_come_last(bulk: Bulk, pair: tuple[socket.socket, socket.socket]):
    bulk.ready("a")
    here, there = pair
    bulk.loop.watch(here, Recorder(partial(bulk.had, "x")), read=True, write=False)
    there.send(b"x")
    assert bulk.turns(3) == "xaxaxa"


def test_a_bulk_handler_that_gets_less_has_its_turn_at_once(bulk: Bulk):
    """A slow way, or a limit: it is seldom ready, and then does not wait for the fast ones."""
    got = []
    for _ in range(20):
        bulk.ready("abc")
        bulk.turns(ROW + 3)
        bulk.ready("abcs")
        got.append(bulk.turns(1))
    assert set(got[4:]) == {"s"}


def test_a_bulk_handler_that_was_away_for_long_makes_little_good(bulk: Bulk):
    bulk.ready("abs")
    bulk.turns(ROW)
    bulk.ready("ab")
    bulk.turns(100 * ROW)
    bulk.ready("absn")  # and a new one
    order = bulk.turns(40 * ROW)
    for name in "absn":
        assert abs(order.count(name) - 10 * ROW) <= 2 * ROW


def test_one_limit_for_all_leaves_nobody_ahead(bulk: Bulk):
    """All of them wait for it after each turn, so nobody is at it when there is room again."""
    bulk.ready("abc")
    order = ""
    for _ in range(12):
        bulk.ready("abc")
        order += bulk.turns(1)
        bulk.ready("")
        bulk.turns(1)
    assert [sorted(order[at : at + 3]) for at in range(0, 12, 3)] == [["a", "b", "c"]] * 4


@given(st.lists(st.tuples(st.sets(st.sampled_from("abcde")), st.integers(1, 3 * ROW)), max_size=12))
def test_whoever_is_ready_gets_on(history: list[tuple[set[str], int]]):
    """Whatever was before: nobody who is ready waits for more than the rows of the others."""
    loop = Loop(SteppedClock())
    bulk = Bulk(loop)
    try:
        for names, count in history:
            bulk.ready("".join(sorted(names)))
            bulk.turns(count)
        bulk.ready("abcde")
        bulk.turns(5 * 2 * ROW)  # what is made good
        order = bulk.turns(5 * 2 * ROW)
        assert {order.count(name) for name in "abcde"} <= set(range(ROW, 3 * ROW + 1))
    finally:
        bulk.close()
        loop.close()


def test_a_bulk_handler_keeps_its_wish_to_go_on(loop: Loop):
    pairs = [socket.socketpair() for _ in range(2)]
    handlers = [Recorder(), Recorder()]
    for handler, (here, _) in zip(handlers, pairs, strict=True):
        loop.watch(here, handler, read=True, write=False, bulk=True)
        loop.again(here)
    for _ in range(2):
        loop.collect(None)
        loop.run_bulk()
    assert [handler.calls for handler in handlers] == [[(True, False)], [(True, False)]]
    loop.collect(0.0)
    loop.run_bulk()
    assert len(handlers[0].calls) == len(handlers[1].calls) == 1
    for here, there in pairs:
        here.close()
        there.close()


def test_a_bug_ends_one_handler_only(
    loop: Loop, pair: tuple[socket.socket, socket.socket], caplog: pytest.LogCaptureFixture
):
    here, there = pair
    bad = Recorder(lambda: 1 // 0)  # type: ignore[arg-type,return-value]
    good = Recorder()
    loop.watch(here, bad, read=True, write=False)
    loop.watch(there, good, read=True, write=True)
    here.send(b"x")
    there.send(b"x")
    loop.collect(None)
    assert [type(error) for error in bad.broken] == [ZeroDivisionError]
    assert good.calls == [(True, True)]
    loop.collect(None)
    assert len(bad.calls) == 1
    assert "ZeroDivisionError" in caplog.text


def test_numbers_are_never_given_twice(loop: Loop):
    assert len({loop.next_number() for _ in range(100)}) == 100


def test_the_clock_goes_on():
    clock = Clock()
    first, second = clock.now(), clock.now()
    assert second.boot >= first.boot > 0
    assert second.wall_ms > 1_600_000_000_000


class Hands(Clock):
    """A clock set by hand."""

    def __init__(self) -> None:
        self.boot, self.wall, self.mono = 1000.0, 2000.0, 500.0

    def now(self) -> Now:
        return Now(self.boot, int(self.wall * 1000))

    def awake(self) -> float:
        return self.mono

    def run(self, boot: float, wall: float, awake: float) -> None:
        self.boot, self.wall, self.mono = self.boot + boot, self.wall + wall, self.mono + awake


@pytest.mark.parametrize(
    ("boot", "wall", "awake", "planned_in", "expected"),
    [
        (100.0, 100.0, 100.0, 100.0, False),  # a long sleep as planned
        (100.0, 100.0, 100.0, None, False),
        (1.0, 1.0, 1.0, 100.0, False),  # woken by a socket
        (3600.0, 3600.0, 2.0, 10.0, True),  # suspended
        (3600.0, 3600.0, 2.0, None, True),
        (3600.0, 3600.0, 3600.0, 10.0, True),  # suspended, where all clocks run on
        (1.0, 3600.0, 1.0, 10.0, True),  # somebody set the clock
        (1.0, -3600.0, 1.0, 10.0, True),
        (4.0, 4.0, 0.0, 10.0, False),
    ],
)
def test_jumps_are_noticed(
    boot: float, wall: float, awake: float, planned_in: float | None, expected: bool
):
    clock = Hands()
    watch = JumpWatch(clock)
    planned = None if planned_in is None else clock.boot + planned_in
    clock.run(boot, wall, awake)
    assert watch.jumped(clock.now(), planned) is expected
    clock.run(1.0, 1.0, 1.0)
    assert watch.jumped(clock.now(), clock.boot + limits.CLOCK_JUMP_S) is False
