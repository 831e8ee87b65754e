"""One direction of a connection: bytes on their way, cut anywhere, late, held, or lost.

What holds always: bytes arrive in order and nothing arrives after the end; while the way is blocked
(silence, a partition, a machine that sleeps or is off) they wait, as TCP would have it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Protocol

from .faults import Faults
from .heap import Heap

END = b""


class Way(Protocol):
    """What the pipe needs to know of the network."""

    heap: Heap
    rng: Random
    faults: Faults

    def blocked(self, source: str, target: str) -> bool:
        """Whether nothing arrives at present."""

    def wait(self, retry: Callable[[], None]) -> None:
        """Call back when a way may be free again."""


class Pipe:
    """Bytes from the machine `source` to `target`; `take` is called with each piece and `ended`
    with the reason when the end arrives."""

    def __init__(
        self,
        way: Way,
        source: str,
        target: str,
        take: Callable[[bytes], None],
        ended: Callable[[str], None],
    ) -> None:
        self._way = way
        self.source = source
        self.target = target
        self._take = take
        self._ended = ended
        self._segments: deque[tuple[float, bytes]] = deque()
        self._reason = ""
        self._closed = False
        self._scheduled = False
        self._last = 0.0
        self.queued = 0

    def push(self, data: bytes) -> None:
        """Send bytes."""
        if self._closed:
            return
        faults, rng = self._way.faults, self._way.rng
        pieces = _chop(data, rng) if rng.random() < faults.chopped else [data]
        for piece in pieces:
            self._put(piece)

    def finish(self, reason: str) -> None:
        """Nothing more is sent; the other end learns it behind the last byte."""
        if not self._closed:
            self._closed, self._reason = True, reason
            self._put(END)

    def drop(self) -> None:
        """Nothing more arrives, not even an end."""
        self._closed = True
        self._segments.clear()
        self.queued = 0

    def cut(self, keep: float) -> None:
        """Of the bytes under way only a beginning arrives, about the share `keep`."""
        room = int(self.queued * keep)
        kept: deque[tuple[float, bytes]] = deque()
        for at, data in self._segments:
            if data == END or room <= 0:
                break
            kept.append((at, data[:room]))
            room -= len(data)
        self._segments = kept
        self.queued = sum(len(data) for _, data in kept)

    # -- inside --------------------------------------------------------------------------

    def _put(self, data: bytes) -> None:
        faults, rng = self._way.faults, self._way.rng
        delay = faults.latency_s * (1.0 + faults.jitter * rng.random())
        start = max(self._way.heap.now + delay, self._last)
        self._last = start + len(data) / faults.bytes_per_s
        self._segments.append((self._last, data))
        self.queued += len(data)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and self._segments:
            self._scheduled = True
            self._way.heap.at(self._segments[0][0], self._arrive)

    def _arrive(self) -> None:
        self._scheduled = False
        if not self._segments:
            return
        if self._way.blocked(self.source, self.target):
            self._scheduled = True
            self._way.wait(self._arrive)
            return
        _, data = self._segments.popleft()
        self.queued -= len(data)
        if data == END:
            self._ended(self._reason)
        else:
            self._take(data)
        self._schedule()


def _chop(data: bytes, rng: Random) -> list[bytes]:
    """The bytes in pieces: single ones where they are few, else up to eight."""
    if len(data) <= 40:
        return [data[at : at + 1] for at in range(len(data))]
    marks = sorted(rng.randrange(1, len(data)) for _ in range(rng.randrange(1, 8)))
    edges = [0, *dict.fromkeys(marks), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]
