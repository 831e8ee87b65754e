"""The log of connections that were cut before anybody was known: one line, not a flood.

What holds always: the first cut after a quiet time is told at once, what follows within
CUT_SUMMARY_S is counted by reason and told in one line.  Reasons are few; a reason that would be
one too many is counted as another.
"""

from __future__ import annotations

import logging

from tntd import limits
from tntd.shell.loop import Loop, Timer

_REASONS_MAX = 16
_OTHER = "other reasons"

logger = logging.getLogger("tntd")


class CutLog:
    """Tells how many were cut, and why."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._counts: dict[str, int] = {}
        self._timer: Timer | None = None

    def add(self, host: str, reason: str) -> None:
        """A connection from or to `host` was cut for `reason` (a phrase from a small set)."""
        if self._timer is None:
            logger.warning("a connection with %s was cut: %s", host or "a client", reason)
            self._timer = self._loop.call_later(limits.CUT_SUMMARY_S, self._tell)
            return
        if reason not in self._counts and len(self._counts) >= _REASONS_MAX:
            reason = _OTHER
        self._counts[reason] = self._counts.get(reason, 0) + 1

    def _tell(self) -> None:
        self._timer = None
        if not self._counts:
            return
        total = sum(self._counts.values())
        told = ", ".join(f"{count} x {reason}" for reason, count in self._counts.items())
        logger.warning(
            "%d more connections were cut within %d s: %s", total, int(limits.CUT_SUMMARY_S), told
        )
        self._counts.clear()
        self._timer = self._loop.call_later(limits.CUT_SUMMARY_S, self._tell)
