"""A limit of bytes a second: a bucket that fills at that rate and holds a moment's worth.

What holds always: over any time, no more goes through than the rate allows for it and one
bucket; who is refused is told when to come again, and then gets a piece worth the while.  Small
pieces often, not a whole record at once, so that a slow line is never full for long.
"""

from __future__ import annotations

from typing import Final

from tntd import limits

_BUCKET_S: Final = 0.1
_PIECE_S: Final = 0.05


class Bucket:
    """One limit; `rate` is in bytes a second, 0 for none; times are boot seconds."""

    def __init__(self, rate: int, now: float) -> None:
        self.rate = rate
        self._bytes = 0.0  # that may go at the time `_at`; below zero where too much went
        self._at = now

    def change(self, rate: int, now: float) -> None:
        """Another rate from now on."""
        self._fill(now)
        self.rate = rate
        self._bytes = min(self._bytes, rate * _BUCKET_S)

    def allowance(self, now: float) -> int | None:
        """The bytes that may go now, 0 where it is too early; None: any number."""
        if not self.rate:
            return None
        self._fill(now)
        # Less exactly than floats compare: who comes at `free_at` must not come in vain.
        return max(1, int(self._bytes)) if self._bytes >= 0.99 * self._piece else 0

    def free_at(self) -> float:
        """When a piece may go again."""
        if not self.rate:
            return self._at
        return self._at + max(0.0, self._piece - self._bytes) / self.rate

    def spend(self, count: int) -> None:
        """So many bytes went."""
        if self.rate:
            self._bytes -= count

    @property
    def _piece(self) -> float:
        return min(max(1.0, self.rate * _PIECE_S), limits.BLOCK_BYTES)

    def _fill(self, now: float) -> None:
        most = max(self._piece, self.rate * _BUCKET_S)
        self._bytes = min(self._bytes + (now - self._at) * self.rate, most)
        self._at = now
