"""Where a lane goes on from, as the receiver says, and when its user is asked again."""

from __future__ import annotations

from fuzz.test_findings_transfers import ID, Play
from tntd.effects import Inbound
from tntd.events import LaneEntries, LaneFinished, LaneOpened
from tntd.tasks import Inspect, Inspected, PrepareStage
from tntd.wire.frames import LaneOffer, Offer

FREE = Inspected("folder", 0, 1, 1, 1, 1, False, 1 << 50)
PART = Inspected("file", 5, 1, 1, 7, 1, False, 1 << 50)


class TakingFile(Play):
    """A file of five bytes that comes from them, taken without a question."""

    def __init__(self) -> None:
        super().__init__()
        self.say(
            Offer(
                transfer=ID,
                kind="file",
                name=b"f",
                size=5,
                files=1,
                mtime_ns=1,
                executable=False,
            )
        )
        self.answer(Inspect, FREE)

    def open(self) -> Inbound:
        self.link.say(LaneOffer(ticket=b"t" * 16, transfer=ID, size=5, files=1))
        self.answer(PrepareStage, PART)
        self.bench.turn(LaneOpened(self.lane))
        job = self.bench.lanes[self.lane].job
        assert isinstance(job, Inbound)
        return job


def test_a_file_that_was_whole_before_a_crash_is_looked_at_from_its_beginning() -> None:
    """Its one entry is done, but its digest was not committed with a name: only a second look
    at it can tell that it is whole."""
    taking = TakingFile()
    taking.open()
    lane = taking.lane
    taking.end_lane(LaneEntries(lane, (), 1, b"", 5), LaneFinished(lane, 5, b"d" * 32))
    taking.hostile.links.clear()
    taking.bench.start()  # before the sync was answered
    job = taking.open()
    assert (job.number, job.after, job.bytes_done) == (0, b"", 0)
    assert job.asks
