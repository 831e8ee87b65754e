"""The loop and the clock that the real driver (tntd/shell/driver.py) turns on here.

What holds always: a turn never sleeps; it is run when something has happened or a deadline has
come, and `on_post` has it scheduled.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from tntd.events import Event, Now
from tntd.shell.loop import Timer

from .heap import Heap

WALL_START_S = 1_700_000_000.0


class SimClock:
    """A machine's clocks: `boot` begins anew with each start of the machine, `wall` can be set,
    `awake` stands still while it sleeps."""

    def __init__(self, heap: Heap) -> None:
        self._heap = heap
        self.booted_at = -100.0
        self.wall_offset = 0.0
        self.slept = 0.0

    def now(self) -> Now:
        """The time of this machine."""
        wall = WALL_START_S + self._heap.now + self.wall_offset
        return Now(self._heap.now - self.booted_at, int(wall * 1000))

    def awake(self) -> float:
        """Seconds without those slept."""
        return self._heap.now - self.slept

    def to_heap(self, boot: float) -> float:
        """When the boot clock shows `boot`."""
        return boot + self.booted_at


class SimLoop:
    """The part of tntd.shell.loop.Loop that the driver and the world use."""

    def __init__(self, clock: SimClock, on_post: Callable[[], None]) -> None:
        self._clock = clock
        self._on_post = on_post
        self._now = clock.now()
        self._inbox: list[Event] = []
        self._bulk: list[Callable[[], None]] = []
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = 0

    @property
    def waits(self) -> bool:
        """Whether events wait for a turn."""
        return bool(self._inbox)

    def now(self) -> Now:
        """The time of this turn."""
        return self._now

    def next_number(self) -> int:
        """1, 2, ..."""
        self._numbers += 1
        return self._numbers

    def post(self, event: Event) -> None:
        """Tell the node in the next turn."""
        self._inbox.append(event)
        self._on_post()

    def call_at(self, boot: float, callback: Callable[[], None]) -> Timer:
        """Call back in the first turn at or after the boot time."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (boot, self.next_number(), timer))
        return timer

    def wake_at(self, deadline: float | None) -> float | None:
        """The nearest of the deadline and the timers."""
        times = [deadline] if deadline is not None else []
        times += [self._timers[0][0]] if self._timers else []
        return min(times, default=None)

    def collect(self, deadline: float | None) -> None:
        """What has happened is posted already; run the timers that are due."""
        self._now = self._clock.now()
        while self._timers and self._timers[0][0] <= self._now.boot:
            heapq.heappop(self._timers)[2].fire()

    def take_events(self) -> list[Event]:
        """The events posted so far."""
        events, self._inbox = self._inbox, []
        return events

    def after_turn(self, action: Callable[[], None]) -> None:
        """Run `action` at the end of the next turn, where the loop has its bulk handlers."""
        self._bulk.append(action)

    def run_bulk(self) -> None:
        """Run what waited for it; all else that lanes do has actions of its own on the heap."""
        actions, self._bulk = self._bulk, []
        for action in actions:
            action()
