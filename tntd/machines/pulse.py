"""Is the other end of a link still there?

What holds always: after KEEPALIVE_S of silence a ping is due, and an end that does not answer
within the given time is dead.  Any frame is a sign of life.  No ticks: one deadline.  The pings
of all links are due at the same moments, KEEPALIVE_STEP_S apart: many silent links cost few turns.
"""

from __future__ import annotations

import math
from enum import Enum

from tntd import limits


class Act(Enum):
    """What is to be done when the deadline has come."""

    WAIT = "wait"
    PING = "ping"
    GIVE_UP = "give up"


class Pulse:
    """The signs of life of one link; times in seconds of the boot clock."""

    def __init__(self, now: float) -> None:
        self._heard = now
        self._answer_due: float | None = None

    def heard(self, now: float) -> None:
        """A frame came."""
        self._heard = now
        self._answer_due = None

    def probe(self, now: float, within: float) -> None:
        """A ping is sent now; an answer is due in `within` seconds, or sooner if one was (but
        not at once, where the machine slept over it)."""
        earlier = self._answer_due
        due = now + within
        self._answer_due = min(due, earlier) if earlier is not None and earlier > now else due

    def deadline(self) -> float:
        """When to look again."""
        if self._answer_due is not None:
            return self._answer_due
        due = self._heard + limits.KEEPALIVE_S
        return math.ceil(due / limits.KEEPALIVE_STEP_S) * limits.KEEPALIVE_STEP_S

    def act(self, now: float) -> Act:
        """What is to be done now; a PING is to be followed by `probe`."""
        if now < self.deadline():
            return Act.WAIT
        return Act.PING if self._answer_due is None else Act.GIVE_UP


def backoff(tries: int, jitter: float) -> float:
    """Seconds until the next dial after `tries` failures: doubling up to BACKOFF_MAX_S, of which a
    random half (`jitter` from 0 to 1) is taken off, so that many do not come back at once."""
    full = min(limits.BACKOFF_MAX_S, limits.BACKOFF_FIRST_S * 2.0 ** min(tries, 16))
    return full * (0.5 + jitter / 2)
