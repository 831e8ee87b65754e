"""What a transfer comes to: how much there is of it, and how much went over its lanes."""

from __future__ import annotations

from typing import Any

from fuzz.test_findings_transfers import FOLDER, ID, Play, Sending, Taking
from tntd.events import LaneEntries, LaneFinished, LaneProgressed
from tntd.node.present import item_id
from tntd.tasks import Counted, CountTree, Done, Entry, Inspect, Publish, SyncStage
from tntd.wire.frames import LaneOffer, Offer


def offer(**counted: Any) -> Offer:
    """A folder that is still counted."""
    return Offer(transfer=ID, kind="folder", name=b"tree", mtime_ns=1, executable=False, **counted)


class TakingMuch(Taking):
    """A folder that comes before all of it is counted there."""

    def __init__(self) -> None:
        Play.__init__(self)
        self.say(offer(size=5, files=2, counting=True))
        self.answer(Inspect, FOLDER)


def entries(first: int, count: int) -> tuple[Entry, ...]:
    return tuple(Entry(b"%09d" % n, 3, "verified") for n in range(first, first + count))


def test_a_folder_of_any_size_has_its_true_totals_in_the_end() -> None:
    taking = TakingMuch()
    lane, files = taking.open(), 60_000
    for first in range(0, files, 5_000):
        number = first + 5_000
        taking.bench.turn(LaneEntries(lane, entries(first, 5_000), number, b"", number * 3))
    taking.end_lane(LaneFinished(lane, files * 3, b""))
    taking.answer(SyncStage, Done())
    taking.answer(Publish, FOLDER)
    row = taking.row
    assert (row.state, row.files, row.size, row.bytes_done) == ("done", files, 180_000, 180_000)
    assert not row.counting


def test_what_is_shown_of_a_folder_follows_what_came_and_what_was_counted() -> None:
    taking = TakingMuch()
    lane = taking.open()
    taking.bench.turn(LaneEntries(lane, entries(0, 9), 9, b"", 27))
    assert (taking.row.files, taking.row.size, taking.row.counting) == (9, 27, 1)
    taking.say(offer(size=300, files=100, counting=False))
    assert (taking.row.files, taking.row.size, taking.row.counting) == (100, 300, 0)
    assert taking.row.state == "active"


def test_a_folder_that_was_counted_past_the_limit_is_asked_for() -> None:
    taking = TakingMuch()
    taking.open()
    taking.say(offer(size=1 << 62, files=100, counting=False))
    assert (taking.row.state, taking.row.accepted, taking.row.size) == ("offered", 0, 1 << 62)
    taking.link.say(LaneOffer(ticket=b"u" * 16, transfer=ID, size=1 << 62, files=2))
    assert not taking.bench.lanes
    taking.command("transfers.accept", transfer=item_id(ID))
    assert taking.row.state == "queued"


def test_who_has_counted_all_of_it_says_so() -> None:
    sending = Sending.__new__(Sending)
    Play.__init__(sending)
    sending.command("transfers.send", to="mallory", paths=["/tree"])
    sending.answer(Inspect, FOLDER)
    sending.answer(CountTree, Counted(2, 5, False))
    sending.answer(CountTree, Counted(7, 50, True))
    told = [each for each in sending.told() if isinstance(each, Offer)]
    assert [(each.files, each.size, each.counting) for each in told] == [
        (2, 5, True),
        (7, 50, False),
    ]


def test_a_long_path_is_shortened_and_the_reason_is_not() -> None:
    taking = Taking()
    path = b"/".join([b"folder" * 20] * 20) + b"/the-name.txt"
    taking.came(Entry(path, 5, "failed", "its name is taken here"))
    taking.answer(Publish, FOLDER)
    assert taking.row.error is not None
    assert taking.row.error.endswith("/the-name.txt: its name is taken here")
    assert taking.row.error.startswith("folderfolder") and len(taking.row.error) <= 500


def test_what_a_lane_says_after_its_end_counts_each_time() -> None:
    """Its figures of the same turn may be on their way, and then it tells the rest."""
    sending = Sending()
    lane = sending.open()
    sending.bench.turn(LaneProgressed(lane, 1, 1))
    sending.steer("pause")
    assert sending.row.bytes_sent == 1
    for count in (3, 3, 5):
        sending.bench.turn(LaneProgressed(lane, 1, count))
        assert sending.row.bytes_sent == count
    sending.bench.turn(LaneFinished(lane, 5, b"", bytes_sent=7))
    assert sending.row.bytes_sent == 7
