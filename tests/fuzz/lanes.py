"""The lanes of a node, as the shell would tell of them: open, on their way, at their end.

What holds always: only what a real lane could tell is told.  An outgoing one sends nothing before
it is started, an incoming one takes no more bytes than were agreed; how the bytes are cut,
counted and put off is the other side's, and so from anywhere.
"""

from __future__ import annotations

from tntd.effects import Inbound, OpenLane
from tntd.events import (
    Event,
    LaneEntries,
    LaneFailed,
    LaneFinished,
    LaneOpened,
    LaneProgressed,
)

from .answers import PATHS, entries
from .bench import Bench
from .source import Source
from .values import EDGES

ENDS = ("cut", "stall", "source", "storage", "away", "hash", "protocol")


class Lanes:
    """Moves one of the lanes at a time."""

    def __init__(self, bench: Bench, source: Source) -> None:
        self.bench = bench
        self.source = source
        self._sent = 0  # grows over all lanes, as far as a lane cares

    def step(self) -> None:
        """A lane goes on, or ends."""
        bench, source = self.bench, self.source
        if not bench.lanes:
            return
        effect = bench.lanes[source.pick(sorted(bench.lanes))]
        number = effect.lane
        match source.below(7):
            case 0:
                bench.turn(LaneOpened(number))
            case 1 | 2:
                bench.turn(*self._progress(effect))
            case 3:
                del bench.lanes[number]
                bench.turn(LaneFailed(number, source.pick(ENDS), "it broke"))
            case _ if self._may_send(effect):
                del bench.lanes[number]
                bench.turn(LaneOpened(number), *self._entries(effect), self._end(effect))

    def _may_send(self, effect: OpenLane) -> bool:
        return isinstance(effect.job, Inbound) or effect.lane in self.bench.starts

    def _progress(self, effect: OpenLane) -> list[Event]:
        if not self._may_send(effect):
            return []
        if self.source.below(2):
            return self._entries(effect)
        self._sent += self.source.below(3)
        done = self._done(effect)
        return [LaneProgressed(effect.lane, done, 0 if self._arrives(effect) else self._sent)]

    def _arrives(self, effect: OpenLane) -> bool:
        return isinstance(effect.job, Inbound)

    def _done(self, effect: OpenLane) -> int:
        """Bytes that are there: ours are counted, what the receiver says is from anywhere."""
        done = self.source.pick(EDGES)
        return min(done, effect.job.size_max) if isinstance(effect.job, Inbound) else done

    def _entries(self, effect: OpenLane) -> list[Event]:
        """Some entries, which may also be those of a walk that began anew."""
        source, arrives = self.source, self._arrives(effect)
        states = ("verified", "verified", "failed", "skipped")
        found = entries(source, states if arrives else ("waiting", *states[1:]))
        if not arrives:
            found = [each for each in found if each.state != "verified"]
        return [
            LaneEntries(
                effect.lane,
                tuple(found),
                number=source.pick((1, 2, 7, 2**32 - 1)),
                after=source.pick(PATHS),
                bytes_done=self._done(effect),
                synced=arrives and bool(source.below(2)),
            )
        ]

    def _end(self, effect: OpenLane) -> Event:
        job, source = effect.job, self.source
        tree = source.below(2) if not isinstance(job, Inbound) else job.tree
        size = self._done(effect)
        return LaneFinished(
            effect.lane,
            size,
            b"" if tree else b"d" * 32,
            bytes_sent=0 if isinstance(job, Inbound) else self._sent,
            bytes_reused=min(size, source.below(9)) if isinstance(job, Inbound) else 0,
        )
