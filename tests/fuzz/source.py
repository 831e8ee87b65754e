"""Decisions out of bytes: what makes one string of bytes a whole scenario.

What holds always: any bytes are some scenario, the same bytes the same one, and where they are
used up every decision is the first choice.  So a fuzzer may cut and change them as it likes, and
Hypothesis makes a failing one small by making its bytes few and zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Source:
    """Reads decisions from `data`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that no decision has taken yet."""
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        """The next bytes as they are; fewer at the end."""
        data = self._data[self._at : self._at + size]
        self._at += len(data)
        return data

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(self.left)

    def below(self, limit: int) -> int:
        """A number from 0 to `limit` - 1."""
        size = 1 if limit <= 256 else 2
        return int.from_bytes(self.take(size), "big") % limit

    def pick(self, choices: Sequence[T]) -> T:
        """One of them."""
        return choices[self.below(len(choices))]

    def one_in(self, count: int) -> bool:
        """True once in `count` times; False at the end."""
        return self.below(count) == count - 1

    def pieces(self) -> list[bytes]:
        """All that is left, cut in up to three places."""
        places = [self.below(65_536) for _ in range(self.below(4))]
        data = self.rest()
        cuts = sorted(place % (len(data) + 1) for place in places)
        return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
