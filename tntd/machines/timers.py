"""Deadlines by name: one heap, one nearest deadline, no ticks.

What holds always: a name has at most one deadline; setting it again moves it.  Entries that
were moved or cancelled stay in the heap until they surface, and are dropped there.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=Hashable)


class Timers(Generic[Name]):
    """Deadlines in seconds of the boot clock."""

    def __init__(self) -> None:
        self._due: dict[Name, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, Name]] = []
        self._count = 0  # makes entries of one time come out in the order they were set

    def set(self, name: Name, at: float) -> None:
        """The deadline of `name` is `at`, whatever it was before."""
        self._count += 1
        self._due[name] = (at, self._count)
        heapq.heappush(self._heap, (at, self._count, name))

    def cancel(self, name: Name) -> None:
        """`name` has no deadline any more."""
        self._due.pop(name, None)

    def has(self, name: Name) -> bool:
        """Whether `name` has a deadline."""
        return name in self._due

    def nearest(self) -> float | None:
        """The nearest deadline of all."""
        while self._heap:
            at, count, name = self._heap[0]
            if self._due.get(name) == (at, count):
                return at
            heapq.heappop(self._heap)
        return None

    def pop_due(self, now: float) -> list[Name]:
        """The names whose deadline has come, in order; they have none any more."""
        names: list[Name] = []
        while (at := self.nearest()) is not None and at <= now:
            _, _, name = heapq.heappop(self._heap)
            del self._due[name]
            names.append(name)
        return names
