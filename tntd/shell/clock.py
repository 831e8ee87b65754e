"""The only clock of the daemon, and how it notices that the machine slept.

What holds always: `Now.boot` never goes back and runs through suspend where the system has such
a clock, so that a time-out that came while the lid was closed has come when it opens.  Wall
time is for people; nothing is ordered by it.

Not the obvious `time.monotonic`: on Linux it stands still in suspend.  On macOS it does too, but
there CLOCK_MONOTONIC itself does not; on Windows it runs on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from tntd import limits
from tntd.events import Now


def _boot_seconds() -> Callable[[], float]:
    if sys.platform == "win32":
        return time.monotonic
    number = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return lambda: time.clock_gettime(number)


class Clock:
    """Tells the time."""

    def __init__(self) -> None:
        self._boot = _boot_seconds()

    def now(self) -> Now:
        """The time, in seconds since some start and in milliseconds since 1970 UTC."""
        return Now(self._boot(), time.time_ns() // 1_000_000)

    def awake(self) -> float:
        """Seconds of a clock that nobody sets and that, on most systems, stands still while
        the machine sleeps; a sleep of the daemon is measured by it."""
        return time.monotonic()


class JumpWatch:
    """Notices that time ran CLOCK_JUMP_S further than expected between two looks: the machine
    slept, or somebody set the wall clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._now = clock.now()
        self._awake = clock.awake()

    def jumped(self, now: Now, planned: float | None) -> bool:
        """Whether there was a jump since the last call.  `planned` is the boot time until
        which the loop meant to sleep at most (None: no end); it finds the suspends of systems
        whose clocks all run through them."""
        awake = self._clock.awake()
        expected = awake - self._awake
        boot = now.boot - self._now.boot - expected
        wall = (now.wall_ms - self._now.wall_ms) / 1000 - expected
        self._now, self._awake = now, awake
        late = now.boot - planned if planned is not None else 0.0
        return max(boot, abs(wall), late) > limits.CLOCK_JUMP_S
