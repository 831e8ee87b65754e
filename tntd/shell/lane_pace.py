"""When a lane tells how far it is and that it is alive, and when it counts as cut.

What holds always: LaneProgressed comes at most once in PROGRESS_INTERVAL_S, and only after
something moved, the last move included; a lane that stands still costs one wake-up in
LANE_ALIVE_S.
"""

from __future__ import annotations

from typing import Protocol

from tntd import limits
from tntd.shell.loop import Loop, Timer


class Paced(Protocol):
    """A lane, as seen from here."""

    def figures(self) -> tuple[int, ...]:
        """How far it is."""

    def tell(self) -> None:
        """They have changed, and are to be told."""

    def still_alive(self) -> None:
        """Nothing has been put for LANE_ALIVE_S: the other side may wonder."""

    def stuck(self) -> None:
        """Nothing moved for LANE_IDLE_TIMEOUT_S: it is for the lane to know whether it should."""


class Pace:
    """The timers of one lane."""

    def __init__(self, loop: Loop, lane: Paced) -> None:
        self._loop = loop
        self._lane = lane
        self._moved_at = self._put_at = loop.now().boot
        self._told_at = -limits.PROGRESS_INTERVAL_S
        self._told = lane.figures()
        self._progress: Timer | None = None
        self._look_again()

    @property
    def idle(self) -> bool:
        """Whether nothing moved for LANE_IDLE_TIMEOUT_S."""
        return self._loop.now().boot - self._moved_at >= limits.LANE_IDLE_TIMEOUT_S

    def touch(self) -> None:
        """Bytes moved, or are due from now on."""
        self._moved_at = self._loop.now().boot

    def put(self) -> None:
        """We said something."""
        self._put_at = self._loop.now().boot

    def moved(self) -> None:
        """Bytes moved, and the figures may have changed."""
        self.touch()
        if self._progress is not None:
            return
        due = self._told_at + limits.PROGRESS_INTERVAL_S
        if self._moved_at >= due:
            self._say()
        else:
            self._progress = self._loop.call_at(due, self._say)

    def tell_rest(self) -> None:
        """Tell what is not told yet, now: there will be no more."""
        if self._progress is not None:
            self._progress.cancel()
        self._say()

    def stop(self) -> None:
        """No more calls."""
        self._idle.cancel()
        if self._progress is not None:
            self._progress.cancel()

    def _say(self) -> None:
        self._progress = None
        figures = self._lane.figures()
        if figures != self._told:
            self._told = figures
            self._told_at = self._loop.now().boot
            self._lane.tell()

    def _look_again(self) -> None:
        interval = min(limits.LANE_ALIVE_S, limits.LANE_IDLE_TIMEOUT_S / 3)
        self._idle = self._loop.call_later(interval, self._look)

    def _look(self) -> None:
        self._look_again()
        now = self._loop.now().boot
        if now - self._put_at >= min(limits.LANE_ALIVE_S, limits.LANE_IDLE_TIMEOUT_S / 3):
            self._lane.still_alive()
        if self.idle:
            self._lane.stuck()
