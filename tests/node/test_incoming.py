"""Where a lane goes on from, as the receiver says, and when its user is asked again."""

from __future__ import annotations

from fuzz.test_findings_transfers import ID, Play, Taking
from tntd.effects import Inbound
from tntd.events import LaneEntries, LaneFailed, LaneFinished, LaneOpened
from tntd.node.outgoing import STRIKES_MAX
from tntd.node.present import item_id
from tntd.tasks import (
    DiscardPart,
    Done,
    Entry,
    Failed,
    Inspect,
    Inspected,
    MergeStage,
    PrepareStage,
    Publish,
    Unpacked,
)
from tntd.wire.frames import LaneAnswer, LaneOffer, Offer

FREE = Inspected("folder", 0, 1, 1, 1, 1, False, 1 << 50)
STAGE = Inspected("folder", 1, 1, 1, 1, 1, False, 1 << 50)
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


def test_a_folder_that_grows_past_the_limit_on_its_way_is_asked_for_and_goes_on() -> None:
    taking = Taking()
    lane = taking.open()
    came = LaneEntries(lane, (), 3, b"b", 5)
    taking.end_lane(came, LaneFailed(lane, "size", "more than was agreed"))
    assert (taking.row.state, taking.row.accepted) == ("offered", 0)
    assert taking.row.error == "larger than the 10 GiB that you take without a question"
    assert taking.row.size > 5, "it is not taken without a question at the next start"
    taking.link.say(LaneOffer(ticket=b"u" * 16, transfer=ID, size=5, files=2))
    assert not taking.bench.lanes
    taking.command("transfers.accept", transfer=item_id(ID))
    assert (taking.row.state, taking.row.error) == ("queued", None)
    taking.link.say(LaneOffer(ticket=b"v" * 16, transfer=ID, size=5, files=2))
    taking.answer(PrepareStage, STAGE)
    job = taking.bench.lanes[taking.lane].job
    assert isinstance(job, Inbound)
    assert (job.number, job.after, job.bytes_done) == (3, b"b", 5)
    assert job.size_max > 1 << 60


def test_a_sender_whose_count_passes_the_limit_in_mid_lane_is_told_that_the_lane_is_over() -> None:
    """It may have written its last byte, and wait for a result that will not come."""
    taking = Taking()
    taking.open()
    with taking.bench.store.transaction():
        taking.bench.store.transfers.update(taking.row.row, counting=1)
    more = {"kind": "folder", "name": b"tree", "files": 9, "mtime_ns": 1, "executable": False}
    taking.say(Offer(transfer=ID, size=20 << 30, counting=False, **more))  # type: ignore[arg-type]
    assert taking.row.state == "offered"
    answers = [each for each in taking.link_frames() if isinstance(each, LaneAnswer)]
    assert [each.code for each in answers] == ["", "undecided"]


def test_what_broke_too_often_and_is_sent_again_may_break_as_often_again() -> None:
    taking = Taking()
    for _ in range(STRIKES_MAX):
        taking.open()
        taking.end_lane(LaneFailed(taking.lane, "hash", "what arrived is not what was sent"))
    assert taking.row.state == "failed"
    taking.answer(DiscardPart, Done())
    taking.steer("again")
    taking.open()
    taking.end_lane(LaneFailed(taking.lane, "cut", "the connection was cut"))
    assert taking.row.state == "queued"


def test_what_folders_under_way_still_need_is_not_free_for_another() -> None:
    """Else each of them would fill the disk up to where none of them can end."""
    taking = Taking()
    taking.open()
    taking.bench.turn(LaneEntries(taking.lane, (), 2, b"a", 2))
    for kind, other in (("folder", b"y" * 16), ("file", b"z" * 16)):
        more = {"kind": kind, "name": b"n", "size": 9, "files": 1}
        taking.say(Offer(transfer=other, mtime_ns=1, executable=False, **more))  # type: ignore[arg-type]
        taking.answer(Inspect, FREE)
        taking.link.say(LaneOffer(ticket=b"u" * 16, transfer=other, size=9, files=1))
        request = taking.answer(PrepareStage, Failed("ENOSPC", "no space"))
        reserve = taking.bench.node._core.settings.reserve_bytes
        assert (request.size, request.reserve) == (9, reserve + 5 - 2)
        row = taking.bench.store.transfers.by_id(1, other)
        assert row is not None and row.state == "queued"
        assert "not enough free space" in (row.error or "")


def test_all_that_could_not_be_moved_into_a_folder_is_known() -> None:
    """However many answers that takes."""
    taking = Taking()
    taking.came(Entry(b"a", 5, "verified"), *[Entry(n, 1, "failed", "no") for n in (b"b", b"c")])
    taking.answer(Publish, STAGE)
    taking.steer("again")
    taking.came(*[Entry(name, 1, "verified") for name in (b"b", b"c")])
    one = taking.answer(MergeStage, Unpacked([Entry(b"b", 1, "failed", "taken")], 2, b"", 0))
    two = taking.answer(MergeStage, Unpacked([Entry(b"c", 1, "failed", "taken")], 2, b"", 0))
    assert (one.told, two.told) == (0, 1)
    assert (taking.row.state, taking.row.failed) == ("failed", 2)
