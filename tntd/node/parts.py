"""Parts that nobody needs any more: removed, and tried again until they are gone.

What holds always: a row says `part` from before its part may exist until the child has said that
the part is gone for good; so what a crash, a rolled-back turn or a disk that fails has
interrupted is done at the next start or after a while.  The waits grow, because a folder that
refuses now may refuse for days.
"""

from __future__ import annotations

from tntd import limits
from tntd.node import present
from tntd.node.core import Core
from tntd.store.transfers import TransferRow
from tntd.tasks import Answer, DiscardPart, Done


def part_name(row: TransferRow) -> bytes:
    """One name for each transfer, whoever it comes from."""
    return f"{row.contact}-{present.item_id(row.id)}.part".encode()


class Parts:
    """The removal of parts of transfers that have ended."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._rows = core.store.transfers
        self._asked: set[int] = set()  # rows whose removal is under way
        self._wait_s = limits.DISCARD_WAIT_FIRST_S

    def reset(self) -> None:
        """Forget all that is not in the store."""
        self._asked.clear()
        self._wait_s = limits.DISCARD_WAIT_FIRST_S

    def sweep(self, _number: int = 0) -> None:
        """Remove the parts of all transfers that have ended."""
        for row in self._rows.with_part():
            if row.ended and row.row not in self._asked:
                self.discard(row)

    def discard(self, row: TransferRow) -> None:
        """Remove the part of a transfer that has ended or is about to."""
        self._asked.add(row.row)
        folder = row.folder or self._core.profile.downloads
        request = DiscardPart(folder, part_name(row))
        self._core.ask(request, lambda answer: self._discarded(row.row, answer))

    def _discarded(self, row: int, answer: Answer) -> None:
        self._asked.discard(row)
        if isinstance(answer, Done):
            self._rows.update(row, part=0)
            self._wait_s = limits.DISCARD_WAIT_FIRST_S
        elif not self._core.timers.has(("discard", 0)):
            self._core.timers.set(("discard", 0), self._core.now.boot + self._wait_s)
            self._wait_s = min(2 * self._wait_s, limits.DISCARD_WAIT_MAX_S)
