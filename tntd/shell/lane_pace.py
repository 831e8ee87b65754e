"""When a lane tells how far it is, and when it counts as cut because nothing moves.

What holds always: LaneProgressed comes at most once in PROGRESS_INTERVAL_S, and only after
something moved, the last move included; a lane that is not waited for costs no wake-up.
"""

from __future__ import annotations

from collections.abc import Callable

from tntd import limits
from tntd.shell.loop import Loop, Timer


class Pace:
    """Timers of one lane.  `tell` is called with the bytes done; `stuck` when LANE_IDLE_TIMEOUT_S
    passed without a byte; it says itself whether bytes were due."""

    def __init__(self, loop: Loop, tell: Callable[[int], None], stuck: Callable[[], None]) -> None:
        self._loop = loop
        self._tell = tell
        self._stuck = stuck
        self._moved_at = loop.now().boot
        self._told_at = -limits.PROGRESS_INTERVAL_S
        self._told = self._done = 0
        self._progress: Timer | None = None
        self._idle = loop.call_later(limits.LANE_IDLE_TIMEOUT_S, self._look)

    def touch(self) -> None:
        """Bytes moved, or are due from now on."""
        self._moved_at = self._loop.now().boot

    def moved(self, done_bytes: int) -> None:
        """So many bytes of the file are done."""
        self.touch()
        if done_bytes == self._done:
            return
        self._done = done_bytes
        if self._progress is not None:
            return
        due = self._told_at + limits.PROGRESS_INTERVAL_S
        if self._moved_at >= due:
            self._say()
        else:
            self._progress = self._loop.call_at(due, self._say)

    def stop(self) -> None:
        """No more calls."""
        self._idle.cancel()
        if self._progress is not None:
            self._progress.cancel()

    def _say(self) -> None:
        self._progress = None
        self._told_at = self._loop.now().boot
        if self._done != self._told:
            self._told = self._done
            self._tell(self._done)

    def _look(self) -> None:
        due = self._moved_at + limits.LANE_IDLE_TIMEOUT_S
        if self._loop.now().boot < due:
            self._idle = self._loop.call_at(due, self._look)
            return
        self._idle = self._loop.call_later(limits.LANE_IDLE_TIMEOUT_S, self._look)
        self._stuck()
