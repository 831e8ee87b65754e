"""Limits of bytes a second: for all lanes together and for those of one contact, each way.

What holds always: a lane that may not go on is called back when it may (`on_free`), by one timer
for all of them; without limits nothing is counted and nothing wakes up.  The loop lets lanes
run in rotation, so those that wait for the same limit share it.
"""

from __future__ import annotations

from collections.abc import Callable

from tntd.effects import LimitLanes
from tntd.machines.throttle import Bucket
from tntd.shell.loop import Loop, Timer

_ALL = 0  # beside the contacts, whose numbers begin at 1


class Throttle:
    """The limits of one direction."""

    def __init__(self, loop: Loop) -> None:
        self.on_free: Callable[[], None] = _nothing
        self._loop = loop
        self._buckets: dict[int, Bucket] = {}
        self._timer: Timer | None = None

    def limit(self, rates: dict[int, int]) -> None:
        """From now on these are the limits, by contact, in bytes a second; 0 for none."""
        now = self._loop.now().boot
        rates = {contact: rate for contact, rate in rates.items() if rate}
        for contact in self._buckets.keys() - rates.keys():
            del self._buckets[contact]
        for contact, rate in rates.items():
            if contact in self._buckets:
                self._buckets[contact].change(rate, now)
            else:
                self._buckets[contact] = Bucket(rate, now)
        self.on_free()

    def allowance(self, contact: int) -> int | None:
        """The bytes that a lane of the contact may move now; None for any number.  0: not now, and
        `on_free` will be called."""
        if not self._buckets:
            return None
        now = self._loop.now().boot
        found = [bucket.allowance(now) for bucket in self._of(contact)]
        allowed = min((each for each in found if each is not None), default=None)
        if allowed == 0 and self._timer is None:
            due = max(bucket.free_at() for bucket in self._of(contact))
            self._timer = self._loop.call_at(due, self._free)
        return allowed

    def limits(self, contact: int) -> bool:
        """Whether there is a limit for the contact at all."""
        return bool(self._of(contact))

    def rate(self, contact: int) -> int:
        """The bytes a second that may move at most; 0 where there is no limit."""
        return min((bucket.rate for bucket in self._of(contact)), default=0)

    def spend(self, contact: int, count: int) -> None:
        """A lane of the contact has moved so many bytes."""
        if self._buckets:
            for bucket in self._of(contact):
                bucket.spend(count)

    def _of(self, contact: int) -> list[Bucket]:
        keys = {_ALL, contact}
        return [bucket for key, bucket in self._buckets.items() if key in keys]

    def _free(self) -> None:
        self._timer = None
        self.on_free()


class Throttles:
    """Both directions."""

    def __init__(self, loop: Loop) -> None:
        self.up = Throttle(loop)
        self.down = Throttle(loop)

    def limit(self, effect: LimitLanes) -> None:
        """Change the limits."""
        self.up.limit({_ALL: effect.up} | {each: up for each, up, _ in effect.contacts})
        self.down.limit({_ALL: effect.down} | {each: down for each, _, down in effect.contacts})


def _nothing() -> None:
    return None
