"""One thread, one selector: who is ready, which timers are due, which events wait.

What holds always:
- A handler reads or writes only what its socket has now, and posts events; what they mean is
  decided later in the turn (driver.py).  Nothing that a handler does reaches the node or
  another connection within the same call.
- Only what was ready when the turn began runs in it; what a handler or a timer starts waits
  for the next turn, which then does not sleep.
- A `bulk` handler (a lane with file bytes) runs after everything else was released, and one of
  them a turn: chat never waits for more than one record.  All that are ready have the same number
  of turns, give or take BULK_TURNS_IN_A_ROW: the one that is at it goes on for so many, which keeps
  the process at its other end warm.  One that gets less, since it is slow or held by a limit, has
  its turn at once.
- An idle loop sleeps without end: the time-out is the nearest deadline, or none.
- A bug in one handler ends what that handler stands for (`broke`) and nothing else.

Not asyncio: its turn is not ours.  Commit-then-release needs an end of the turn, which callbacks
that run whenever they are due do not have.
"""

from __future__ import annotations

import heapq
import logging
import operator
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tntd import limits
from tntd.events import Event, Now
from tntd.shell.clock import Clock

Source = socket.socket | int
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

logger = logging.getLogger("tntd")


class Handler(Protocol):
    """Stands for one socket or descriptor in the loop."""

    def ready(self, readable: bool, writable: bool) -> None:
        """Read and write what goes without waiting, within the limits of a turn."""

    def broke(self, error: Exception) -> None:
        """`ready` raised, which is a bug of ours and is logged already; the source is no longer
        watched.  Let go of it and post what tells the node."""


class Timer:
    """A callback for a time to come."""

    __slots__ = ("_callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    @property
    def pending(self) -> bool:
        """Neither called nor cancelled yet."""
        return self._callback is not None

    def cancel(self) -> None:
        """Never call it; does nothing where it has been called or cancelled."""
        self._callback = None

    def fire(self) -> None:
        """Call it, once; for the loop."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


@dataclass(slots=True, eq=False)
class _Watch:
    source: Source
    handler: Handler
    mask: int
    bulk: bool
    alive: bool = True
    turns: int = 0  # bulk turns that it had, or for its absence counts as having had


_turns = operator.attrgetter("turns")


class Loop:
    """The selector, the timers and the inbox of the next turn."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._now = clock.now()
        self._selector = selectors.DefaultSelector()
        self._watches: dict[Source, _Watch] = {}
        self._again: dict[_Watch, None] = {}
        self._bulk: dict[_Watch, int] = {}
        self._bulk_least = 0  # turns of the one that had the fewest, when one was chosen last
        self._bulk_last: _Watch | None = None
        self._timers: list[tuple[float, int, Timer]] = []
        self._inbox: list[Event] = []
        self._numbers = 0

    # -- for the parts of the shell ------------------------------------------------------

    def now(self) -> Now:
        """The time of this turn."""
        return self._now

    def next_number(self) -> int:
        """A number that was never given before in this run: 1, 2, ..."""
        self._numbers += 1
        return self._numbers

    def post(self, event: Event) -> None:
        """Tell the node, in the turn that goes on or else in the next."""
        self._inbox.append(event)

    def watch(
        self, source: Source, handler: Handler, *, read: bool, write: bool, bulk: bool = False
    ) -> None:
        """Call `handler.ready` when `source` can be read or written; a second call changes what
        was said before.  Neither: it stays known, for `again`.  `unwatch` it before closing it."""
        mask = (_READ if read else 0) | (_WRITE if write else 0)
        watch = self._watches.get(source)
        if watch is None:
            watch = self._watches[source] = _Watch(source, handler, 0, bulk)
        watch.handler, watch.bulk = handler, bulk
        if mask == watch.mask:
            return
        if not watch.mask:
            self._selector.register(source, mask, watch)
        elif not mask:
            self._selector.unregister(source)
        else:
            self._selector.modify(source, mask, watch)
        watch.mask = mask

    def unwatch(self, source: Source) -> None:
        """Forget it; does nothing where it is not watched."""
        watch = self._watches.pop(source, None)
        if watch is None:
            return
        watch.alive = False
        self._again.pop(watch, None)
        self._bulk.pop(watch, None)
        if watch.mask:
            self._selector.unregister(source)

    def again(self, source: Source) -> None:
        """Call `ready(readable=True, ...)` in the next turn, which does not sleep, whatever the
        socket says: its handler has stopped at the limit of a turn with bytes in its hands."""
        watch = self._watches.get(source)
        if watch is not None:
            self._again[watch] = None

    def call_at(self, boot: float, callback: Callable[[], None]) -> Timer:
        """Call back in the first turn at or after the boot time `boot` (seconds)."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (boot, self.next_number(), timer))
        return timer

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back in the first turn that begins `seconds` after this one or later."""
        return self.call_at(self._now.boot + seconds, callback)

    # -- for the driver ------------------------------------------------------------------

    def wake_at(self, deadline: float | None) -> float | None:
        """The boot time of the nearest of `deadline` and the timers; None where there is none."""
        while self._timers and not self._timers[0][2].pending:
            heapq.heappop(self._timers)
        times = [deadline] if deadline is not None else []
        if self._timers:
            times.append(self._timers[0][0])
        return min(times, default=None)

    def collect(self, deadline: float | None) -> None:
        """Sleep until a source is ready, a timer or `deadline` (boot seconds) is due or an event
        waits; then run the handlers that are not bulk, and the timers."""
        found = self._select(deadline)
        for watch, mask in found.items():
            if watch.alive and not watch.bulk:
                self._run(watch, mask)
        for timer in self._due_timers():
            try:
                timer.fire()
            except Exception:
                logger.exception("a timer of ours failed")

    def take_events(self) -> list[Event]:
        """The events posted so far, in order; they are gone from here."""
        events, self._inbox = self._inbox, []
        return events

    def run_bulk(self) -> None:
        """Run one bulk handler of those that were ready."""
        watch = self._next_bulk()
        if watch is None:
            return
        watch.turns += 1
        self._again.pop(watch, None)
        self._run(watch, self._bulk[watch])

    def close(self) -> None:
        """Let go of the selector; sources stay open."""
        self._selector.close()

    # -- inside --------------------------------------------------------------------------

    def _next_bulk(self) -> _Watch | None:
        """Fair queueing by start tags (Goyal, Vin, Cheng: Start-time Fair Queueing, 1996), with
        turns for the time, and a lead for the one that is at it."""
        last, self._bulk_last = self._bulk_last, None
        ready = [watch for watch in self._bulk if watch.alive]
        if not ready:
            return None
        floor = self._bulk_least - limits.BULK_TURNS_IN_A_ROW  # no more is made good
        for watch in ready:
            watch.turns = max(watch.turns, floor)
        least = min(ready, key=_turns)
        self._bulk_least = max(self._bulk_least, least.turns)
        leads = last in ready and last.turns < least.turns + limits.BULK_TURNS_IN_A_ROW
        self._bulk_last = last if leads else least
        return self._bulk_last

    def _select(self, deadline: float | None) -> dict[_Watch, int]:
        ready = self._selector.select(self._timeout(deadline))
        self._now = self._clock.now()
        found: dict[_Watch, int] = {key.data: mask for key, mask in ready}
        for watch in self._again:
            found[watch] = found.get(watch, 0) | _READ
        # A bulk handler keeps its wish to go on until it has its turn.
        self._again = {watch: None for watch in self._again if watch.bulk}
        self._bulk = {watch: mask for watch, mask in found.items() if watch.bulk}
        return found

    def _timeout(self, deadline: float | None) -> float | None:
        if self._inbox or self._again:
            return 0
        wake = self.wake_at(deadline)
        return None if wake is None else max(0.0, wake - self._clock.now().boot)

    def _due_timers(self) -> list[Timer]:
        due = []
        while self._timers and self._timers[0][0] <= self._now.boot:
            due.append(heapq.heappop(self._timers)[2])
        return due

    def _run(self, watch: _Watch, mask: int) -> None:
        try:
            watch.handler.ready(bool(mask & _READ), bool(mask & _WRITE))
        except Exception as error:
            logger.exception("a handler of ours failed: %r", watch.handler)
            self.unwatch(watch.source)
            watch.handler.broke(error)
