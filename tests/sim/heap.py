"""Time: one heap of (time, sequence, action), and the trace of what happened in it.

What holds always: nothing happens but by an action on the heap, actions of one time run in the
order in which they were put there, and every random number comes from a stream that is named
and derived from the seed.  So a seed is a run: the trace's hash is the same every time, whatever
PYTHONHASHSEED says.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from random import Random

import msgspec

STEPS_KEPT = 50
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class Violation(BaseException):
    """What must never happen has happened.  Not an Exception: the driver must not catch it."""


class Entry:
    """An action on the heap."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Never run it."""
        self.action = None


class Trace:
    """A hash of every step, and the last steps for people."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)
        self._steps: deque[tuple[float, str, object]] = deque(maxlen=STEPS_KEPT)
        self.count = 0

    def note(self, time: float, who: str, what: object) -> None:
        """A step: an event, an effect, or words."""
        self.count += 1
        self._hash.update(_encode((time, who, type(what).__name__, what)))
        self._steps.append((time, who, what))

    def digest(self) -> str:
        """The hash of all steps so far."""
        return self._hash.hexdigest()

    def words(self) -> list[str]:
        """The last steps, oldest first, a line each."""
        return [f"{time:10.4f}  {who:10}  {_short(what)}" for time, who, what in self._steps]


def _short(what: object) -> str:
    text = what if isinstance(what, str) else repr(what)
    return text if len(text) <= 160 else f"{text[:120]} ... {text[-36:]}"


class Heap:
    """The clock of everything, in seconds."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = 0.0
        self.trace = Trace()
        self._queue: list[tuple[float, int, Entry]] = []
        self._count = 0

    def stream(self, name: str) -> Random:
        """Random numbers of their own for one purpose, the same for each run of the seed."""
        return Random(f"{self.seed}/{name}")

    def note(self, who: str, what: object) -> None:
        """Put a step into the trace."""
        self.trace.note(self.now, who, what)

    def at(self, time: float, action: Callable[[], None]) -> Entry:
        """Run `action` at `time`, or now if that is past."""
        entry = Entry(action)
        self._count += 1
        heapq.heappush(self._queue, (max(time, self.now), self._count, entry))
        return entry

    def after(self, seconds: float, action: Callable[[], None]) -> Entry:
        """Run `action` in so many seconds."""
        return self.at(self.now + seconds, action)

    def run(self, until: float) -> None:
        """Run everything up to the time `until`."""
        while self._queue and self._queue[0][0] <= until:
            time, _, entry = heapq.heappop(self._queue)
            action, entry.action = entry.action, None
            if action is not None:
                self.now = time
                action()
        self.now = max(self.now, until)
