"""The turn: collect what happened, commit once what follows from it, then release it.

What holds always:
- One transaction a turn that has events, one savepoint an event.  Nothing is performed before the
  commit, so nothing is ever acknowledged that a power cut could take back.
- An event that hits a bug of ours is undone by its savepoint, told to `node.fault` in a new one,
  and the others of the turn stand.  A transaction that fails releases nothing: the node is built
  anew from the store, and what it does then is all that leaves, with what let go of something:
  the node that is undone has forgotten it.
- The loop sleeps until the nearest deadline of node, timers and store; there is no tick.
- The order of a turn's events is: a clock jump, what happened, the deadline.  So an answer
  that came in time is seen before the time-out that it was for.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from functools import partial
from typing import Protocol

from tntd import limits
from tntd.effects import Effect, Release, Stop
from tntd.events import (
    ClientClosed,
    ClientLeft,
    ClockJumped,
    Event,
    Now,
    Started,
    StopRequested,
    TimeCame,
)
from tntd.shell.clock import Clock, JumpWatch
from tntd.shell.loop import Loop
from tntd.store import StoreFailed

logger = logging.getLogger("tntd")


class Store(Protocol):
    """The part of the store that the turn needs."""

    def transaction(self) -> AbstractContextManager[None]:
        """Commits at its end; raises StoreFailed."""

    def savepoint(self) -> AbstractContextManager[None]:
        """Undoes what an exception left; raises StoreFailed."""

    def idle(self) -> None:
        """Use a quiet moment."""


class Node(Protocol):
    """What decides."""

    def handle(self, event: Event, now: Now) -> list[Effect]:
        """What follows from an event."""

    def finish_turn(self, now: Now) -> list[Effect]:
        """What follows from all events of the turn together."""

    def fault(self, event: Event, error: Exception, now: Now) -> list[Effect]:
        """An event was undone because of a bug."""

    def restart(self, reason: str, now: Now) -> list[Effect]:
        """A whole turn was undone."""

    def deadline(self) -> float | None:
        """Boot seconds of the next TimeCame."""


class World(Protocol):
    """What performs."""

    @property
    def stopping(self) -> bool:
        """Stop was performed."""

    @property
    def drained(self) -> bool:
        """Nothing is left to flush."""

    def perform(self, effect: Effect) -> None:
        """Do it."""

    def flush(self) -> None:
        """The effects of a turn are complete."""

    def disown(self, event: Event) -> None:
        """The node never heard of this event."""

    def abandon(self, effect: Effect) -> None:
        """Performing this effect failed."""


class Driver:
    """Runs a daemon's turns."""

    def __init__(self, loop: Loop, clock: Clock, store: Store, node: Node, world: World) -> None:
        self._loop = loop
        self._store = store
        self._node = node
        self._world = world
        self._jumps = JumpWatch(clock)
        self._committed_at = 0.0  # boot seconds
        self._idle_planned = False

    def run(self) -> None:
        """Turn until Stop was performed and what was sent has gone, within a grace."""
        while not self._world.stopping:
            self.turn()
        self._drain()

    def turn(self) -> None:
        """One turn; sleeps first where nothing has happened yet."""
        deadline = self._node.deadline()
        planned = self._loop.wake_at(deadline)
        self._loop.collect(deadline)
        now = self._loop.now()
        events = self._loop.take_events()
        if self._jumps.jumped(now, planned):
            events.insert(0, ClockJumped())
        if deadline is not None and now.boot >= deadline:
            events.append(TimeCame())
        if events:
            self._release(self._handle_all(events, now))
            self._plan_idle(now)
        else:
            self._world.flush()
        self._loop.run_bulk()

    # -- inside --------------------------------------------------------------------------

    def _handle_all(self, events: list[Event], now: Now) -> list[Effect]:
        effects: list[Effect] = []
        heard = 0
        try:
            with self._store.transaction():
                for event in events:
                    heard += 1
                    effects += self._handle(event, now)
                effects += self._node.finish_turn(now)
        except StoreFailed as error:
            logger.error("the store failed, so this turn is undone: %s", error)
            return _releases(effects) + self._restart(events, heard, str(error), now)
        except Exception as error:
            logger.exception("a turn failed, and is undone")
            reason = f"internal error: {type(error).__name__}"
            return _releases(effects) + self._restart(events, heard, reason, now)
        self._committed_at = now.boot
        return effects

    def _handle(self, event: Event, now: Now) -> list[Effect]:
        try:
            with self._store.savepoint():
                return self._node.handle(event, now)
        except StoreFailed:
            raise
        except Exception as error:
            logger.exception("a bug of ours in %s; its event is undone", type(event).__name__)
            with self._store.savepoint():
                return self._node.fault(event, error, now)

    def _restart(self, events: list[Event], heard: int, reason: str, now: Now) -> list[Effect]:
        """Undo a turn of which the node has heard the first `heard` events.

        Its events are lost, but for those that never come again: they are told once more, after
        a pause, so that a cause that lasts does not make the loop spin.
        """
        for event in events[heard:]:
            self._world.disown(event)
        effects = self._node.restart(reason, now)
        for event in events:
            if isinstance(event, Started | ClientLeft | ClientClosed):
                again = partial(self._loop.post, event)
                self._loop.call_at(now.boot + limits.TURN_FAILED_PAUSE_S, again)
            elif isinstance(event, StopRequested):
                effects.append(Stop())  # a full disk must not keep a daemon from ending
        return effects

    def _release(self, effects: list[Effect]) -> None:
        for effect in effects:
            try:
                self._world.perform(effect)
            except Exception:
                logger.exception("a bug of ours in performing %s", type(effect).__name__)
                self._world.abandon(effect)
        self._world.flush()

    def _plan_idle(self, now: Now) -> None:
        if not self._idle_planned:
            self._idle_planned = True
            self._loop.call_at(now.boot + limits.STORE_IDLE_S, self._idle)

    def _idle(self) -> None:
        """Once after the last commit of a busy time, not after each."""
        quiet_at = self._committed_at + limits.STORE_IDLE_S
        if self._loop.now().boot < quiet_at:
            self._loop.call_at(quiet_at, self._idle)
            return
        self._idle_planned = False
        self._store.idle()

    def _drain(self) -> None:
        """What was sent leaves; what comes is not heard any more.  A second signal ends it."""
        end = self._loop.now().boot + limits.LINK_GRACE_S
        while not self._world.drained and self._loop.now().boot < end:
            self._loop.collect(end)
            if any(isinstance(event, StopRequested) for event in self._loop.take_events()):
                return


def _releases(effects: list[Effect]) -> list[Effect]:
    """What is performed of a turn that is undone."""
    return [effect for effect in effects if isinstance(effect, Release)]
