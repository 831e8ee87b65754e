"""The states of a transfer, and how fast it goes.

What holds always: the table `NEXT` is the whole truth on which state may follow which; the four
ends have none after them, but for two: what was cancelled or failed here and had already arrived
whole there is told as done, because it is; and what failed is queued again when a user says so.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """The states that users see (tntd/control/schema.py, TransferState)."""

    QUEUED = "queued"  # will go on by itself
    OFFERED = "offered"  # waits for the receiver's user
    ACTIVE = "active"  # bytes flow, or are checked and put in place
    PAUSED = "paused"  # by a user of either side, until one of them resumes it
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DECLINED = "declined"


_ENDS: Final = frozenset({State.DONE, State.FAILED, State.CANCELLED, State.DECLINED})
NEXT: Final[dict[State, frozenset[State]]] = {
    State.QUEUED: _ENDS | {State.OFFERED, State.ACTIVE, State.PAUSED},
    State.OFFERED: _ENDS | {State.QUEUED, State.PAUSED},
    State.ACTIVE: _ENDS | {State.QUEUED, State.OFFERED, State.PAUSED},
    State.PAUSED: _ENDS | {State.QUEUED, State.OFFERED},
    State.DONE: frozenset(),
    State.FAILED: frozenset({State.DONE, State.QUEUED}),
    State.CANCELLED: frozenset({State.DONE}),
    State.DECLINED: frozenset({State.DONE}),  # a copy of the receiver had taken it before
}


def may_follow(old: str, new: str) -> bool:
    """Whether a transfer in state `old` may change to `new`."""
    return State(new) in NEXT[State(old)]


class Rate:
    """Bytes a second over the last seconds; times in seconds."""

    WINDOW_S = 3.0

    def __init__(self, now: float, done: int) -> None:
        self._samples: deque[tuple[float, int]] = deque([(now, done)])

    def note(self, now: float, done: int) -> None:
        """`done` bytes in all are through by now."""
        self._samples.append((now, done))
        while len(self._samples) > 2 and self._samples[1][0] <= now - self.WINDOW_S:
            self._samples.popleft()

    def per_second(self, now: float) -> int:
        """The rate, 0 where nothing is known yet, or where it began anew or stands still."""
        since = now - self.WINDOW_S
        while len(self._samples) > 1 and self._samples[1][0] <= since:
            self._samples.popleft()
        (first, before), (_, after) = self._samples[0], self._samples[-1]
        passed = now - max(first, since)
        return max(0, int((after - before) / passed)) if passed > 0 else 0
