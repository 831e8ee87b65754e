"""What all lanes of the daemon share.

What holds always: a lane does at most one record's work in one call, and holds no bytes of a
file between two calls but those that are sealed and on their way; so one buffer for plaintext
is enough for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from logging import Logger

from tntd import limits
from tntd.shell.children import Children
from tntd.shell.files import Files
from tntd.shell.lane_throttle import Throttles
from tntd.shell.loop import Loop


class Budget:
    """The bytes that all lanes together have written and not yet synced.

    `on_full` is called when they reach UNSYNCED_BYTES_MAX: nobody reads on, and whoever has
    unsynced bytes syncs them; `on_room` when there is room again.
    """

    def __init__(self) -> None:
        self.total = 0
        self.on_full: Callable[[], None] = _nothing
        self.on_room: Callable[[], None] = _nothing

    @property
    def full(self) -> bool:
        """Whether lanes have to wait with reading."""
        return self.total >= limits.UNSYNCED_BYTES_MAX

    def add(self, count: int) -> None:
        """`count` bytes were written."""
        before = self.full
        self.total += count
        if self.full and not before:
            self.on_full()

    def remove(self, count: int) -> None:
        """`count` bytes are synced, or nobody's concern any more."""
        before = self.full
        self.total -= count
        if before and not self.full:
            self.on_room()


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Shared:
    """The parts of the shell that a lane uses, and the common buffer."""

    loop: Loop
    files: Files
    children: Children
    logger: Logger
    throttles: Throttles
    budget: Budget = field(default_factory=Budget)
    plain: memoryview = field(
        default_factory=lambda: memoryview(bytearray(limits.RECORD_PLAIN_BYTES_MAX))
    )

    def new_number(self) -> int:
        """A number for a walk or an open file.  Negative, so that it is none of the node's."""
        return -self.loop.next_number()
