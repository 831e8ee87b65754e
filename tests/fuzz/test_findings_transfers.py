"""What was found of transfers of whole trees: one test for each."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from fuzz.bench import Bench
from fuzz.conversation import Conversation
from fuzz.peer import MALLORY, Hostile
from fuzz.source import Source
from tntd import limits
from tntd.events import (
    Answered,
    LaneEntries,
    LaneFailed,
    LaneFinished,
    LaneOpened,
    LaneProgressed,
)
from tntd.node.present import item_id
from tntd.shell import child_wire
from tntd.store.transfers import TransferRow
from tntd.tasks import (
    Answer,
    CleanStages,
    Counted,
    CountTree,
    DiscardPart,
    Done,
    Entry,
    Failed,
    Inspect,
    Inspected,
    MergeStage,
    PrepareStage,
    Publish,
    SyncStage,
    Unpacked,
)
from tntd.wire.frames import (
    Body,
    Cancel,
    Decision,
    Envelope,
    Frame,
    LaneAnswer,
    LaneOffer,
    Offer,
    Result,
    Steer,
    decode_body,
    encode_body,
)

FOLDER = Inspected("folder", 0, 1, 1, 1, 1, False, 1 << 50)
NO = Failed("EACCES", "no access")
ID = b"x" * 16
HUGE = 2**63 - 1


class Play:
    """A daemon with a contact, which says what a test wants."""

    def __init__(self) -> None:
        self.hostile = Hostile(Source(b""))
        self.bench: Bench = self.hostile.bench
        self.command = self.hostile.around.command
        self._numbers = itertools.count(1)

    @property
    def link(self) -> Conversation:
        if not any(each.alive for each in self.hostile.links):
            self.hostile.link(MALLORY, step=3)
        return next(each for each in self.hostile.links if each.alive)

    def say(self, body: Body) -> None:
        kind, data = encode_body(body)
        epoch, upto = self.hostile._standing()
        id = next(self._numbers).to_bytes(16, "big")
        self.link.say(Envelope(epoch=epoch, number=upto + 1, id=id, kind=kind, body=data))

    def answer(self, kind: type, answer: Answer) -> Any:
        tasks = self.bench.tasks
        (task,) = [number for number in tasks if isinstance(tasks[number], kind)]
        request = tasks.pop(task)
        self.bench.turn(Answered(task, answer))
        return request

    def link_frames(self) -> list[Frame]:
        """What was said on links."""
        return list(itertools.chain.from_iterable(self.bench.frames.values()))

    def told(self) -> list[Body]:
        """What was put into envelopes for them."""
        found = [each for each in self.link_frames() if isinstance(each, Envelope)]
        return [decode_body(each.kind, each.body) for each in found]

    @property
    def row(self) -> TransferRow:
        return self.bench.store.transfers.page(None, 9, None, None)[-1]

    @property
    def lane(self) -> int:
        (lane,) = self.bench.lanes
        return lane

    def end_lane(self, *events: Any) -> None:
        del self.bench.lanes[self.lane]
        self.bench.turn(*events)

    def steer(self, act: str) -> None:
        """Our user's."""
        self.command(f"transfers.{act}", transfer=item_id(self.row.id))


class Sending(Play):
    """A folder (or file) that goes to them, accepted."""

    def __init__(self, *, tree: bool = True) -> None:
        super().__init__()
        self.looked = FOLDER if tree else Inspected("file", 5, 1, 1, 1, 1, False, 0)
        self.command("transfers.send", to="mallory", paths=["/tree"])
        self.answer(Inspect, self.looked)
        if tree:
            self.answer(CountTree, Counted(2, 5, True))
        self.say(Decision(transfer=self.row.id, accepted=True))

    def word(self, code: str = "") -> None:
        """Looked at, offered, and answered."""
        self.answer(Inspect, self.looked)
        ticket = self.bench.node._queue.transfers.moving[self.row.row].ticket
        self.link.say(LaneAnswer(ticket=ticket, transfer=self.row.id, code=code))

    def open(self) -> int:
        self.word()
        self.bench.turn(LaneOpened(self.lane))
        return self.lane

    def sent(self) -> None:
        """All of it, over a lane."""
        lane = self.open()
        found = (Entry(b"a", 2, "waiting"), Entry(b"b", 3, "waiting"))
        entries = LaneEntries(lane, found, 3, b"b", 5)
        self.end_lane(entries, LaneFinished(lane, 5, b"", bytes_sent=5))


class Taking(Play):
    """A folder that comes from them, taken without a question."""

    def __init__(self) -> None:
        super().__init__()
        self.say(
            Offer(
                transfer=ID,
                kind="folder",
                name=b"tree",
                size=5,
                files=2,
                mtime_ns=1,
                executable=False,
            )
        )
        self.answer(Inspect, FOLDER)

    def open(self) -> int:
        self.link.say(LaneOffer(ticket=b"t" * 16, transfer=ID, size=5, files=2))
        self.answer(PrepareStage, FOLDER)
        self.bench.turn(LaneOpened(self.lane))
        return self.lane

    def came(self, *found: Entry) -> None:
        """All of it, over a lane, up to the disk."""
        lane = self.open()
        entries = LaneEntries(lane, found, 3, b"b", 5)
        self.end_lane(entries, LaneFinished(lane, 5, b""))
        self.answer(SyncStage, Done())


# -- numbers ------------------------------------------------------------------------------


def test_a_contact_that_reused_more_than_there_is() -> None:
    sending = Sending(tree=False)
    lane = sending.open()
    sending.end_lane(LaneFinished(lane, 5, b"d" * 32, bytes_sent=5))
    sending.say(Result(transfer=sending.row.id, reused=HUGE))
    assert sending.link.alive
    assert sending.row.state == "done"
    assert sending.row.bytes_resent <= sending.row.bytes_sent


def test_a_sender_that_says_to_have_sent_more_than_can_be_counted() -> None:
    taking = Taking()
    taking.link.say(LaneOffer(ticket=b"t" * 16, transfer=ID, size=5, files=2, sent=HUGE))
    taking.answer(PrepareStage, FOLDER)
    lane = taking.lane
    came = LaneEntries(lane, (Entry(b"a", 5, "verified"),), 3, b"a", 5)
    taking.end_lane(LaneOpened(lane), came, LaneFinished(lane, 5, b"", bytes_sent=5))
    assert taking.row.bytes_sent == HUGE


def test_a_receiver_that_says_to_have_more_than_can_be_counted() -> None:
    sending = Sending()
    sending.answer(Inspect, FOLDER)
    row = sending.row
    ticket = sending.bench.node._queue.transfers.moving[row.row].ticket
    sending.link.say(LaneAnswer(ticket=ticket, transfer=row.id, code="", received=HUGE))
    lane = sending.lane
    sending.bench.turn(LaneOpened(lane), LaneProgressed(lane, 1, 1))
    sending.steer("pause")
    sending.bench.turn(LaneProgressed(lane, 1, 3))
    assert sending.row.bytes_sent == HUGE


def test_a_folder_without_a_limit_that_is_larger_than_can_be_counted() -> None:
    taking = Play()
    tree = {"kind": "folder", "name": b"tree", "files": 9, "mtime_ns": 1, "executable": False}
    taking.say(Offer(transfer=ID, size=20 << 30, **tree))  # type: ignore[arg-type]
    taking.command("transfers.accept", transfer=item_id(ID))
    taking.link.say(LaneOffer(ticket=b"t" * 16, transfer=ID, size=5, files=2))
    taking.answer(PrepareStage, FOLDER)
    lane = taking.lane
    taking.end_lane(LaneOpened(lane), LaneFailed(lane, "size", "more than was agreed"))
    assert (taking.row.state, taking.row.size) == ("offered", HUGE)


def test_files_that_failed_there_and_are_said_to_be_huge() -> None:
    taking = Taking()
    failed = [Entry(name, HUGE, "failed", "cannot be read") for name in (b"a", b"b", b"c")]
    taking.came(Entry(b"d", 5, "verified"), *failed)
    taking.answer(Publish, FOLDER)
    assert (taking.row.state, taking.row.failed) == ("failed", 3)
    assert taking.row.size == HUGE


def test_files_without_number_that_failed_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TREE_FILES_KEPT_MAX", 2)
    taking = Taking()
    failed = [Entry(b"%d" % number, 1, "failed", "cannot be read") for number in range(9)]
    taking.came(Entry(b"a", 5, "verified"), Entry(b"b", 5, "verified"), *failed)
    taking.answer(Publish, FOLDER)
    assert (taking.row.state, taking.row.failed, taking.row.kept) == ("failed", 9, 2)
    assert "9 files failed beyond the 2 that are listed" in (taking.row.error or "")
    taking.steer("again")  # they are not known, so nothing comes of them
    taking.came()
    taking.answer(MergeStage, Unpacked([], 0, b"", 0))
    assert (taking.row.state, taking.row.failed) == ("failed", 9)


def test_a_walk_that_began_anew_has_no_negative_rate() -> None:
    taking = Taking()
    lane = taking.open()
    for done in (5, 5, 1):
        taking.bench.wait(4.0)
        taking.bench.turn(LaneProgressed(lane, done))  # the bench looks at what is shown
    assert taking.row.state == "active"


# -- lanes --------------------------------------------------------------------------------


def test_a_lane_that_is_answered_again_in_its_middle_goes_on_as_it_began() -> None:
    """What has gone out would be forgotten, at the cost of a look at all of it each time."""
    sending = Sending()
    lane = sending.open()
    ticket = sending.bench.lanes[lane].ticket
    found = (Entry(b"a", 2, "waiting"), Entry(b"b", 3, "waiting"))
    sending.bench.turn(LaneEntries(lane, found, 3, b"b", 5))
    sending.link.say(LaneAnswer(ticket=ticket, transfer=sending.row.id, code=""))
    assert (sending.row.state, sending.row.kept) == ("active", 2)
    sending.link.say(LaneAnswer(ticket=ticket, transfer=sending.row.id, code="broken"))
    assert sending.row.state == "queued"


def test_a_lane_that_is_answered_twice_is_opened_once() -> None:
    sending = Sending()
    sending.word()
    (lane,) = sending.bench.lanes.values()
    sending.link.say(LaneAnswer(ticket=lane.ticket, transfer=sending.row.id, code=""))
    assert list(sending.bench.lanes.values()) == [lane]  # the bench looks at what is opened


def test_a_single_file_is_not_told_file_by_file() -> None:
    sending = Sending(tree=False)
    lane = sending.open()
    sending.bench.turn(LaneEntries(lane, (Entry(b"", 5, "waiting"),), 1, b"", 5))
    assert sending.bench.store.trees.page(sending.row.row, None, 9) == []


def test_who_pauses_does_not_have_all_of_it() -> None:
    sending = Sending()
    sending.sent()
    sending.say(Steer(transfer=sending.row.id, act="pause"))
    assert sending.row.state == "paused"
    sending.say(Steer(transfer=sending.row.id, act="resume"))
    sending.word("finishing")
    sending.say(Result(transfer=sending.row.id))
    assert sending.row.state == "done"


# -- clean --------------------------------------------------------------------------------


def test_what_is_kept_fits_a_request_however_much_it_is() -> None:
    taking = Play()
    taking.command("transfers.clean")
    taking.answer(CleanStages, Counted(0, 0, True))
    store, count = taking.bench.store, 2 * limits.CLEAN_KEEP_MAX + 7
    taking.say(
        Offer(transfer=ID, kind="file", name=b"f", size=5, files=1, mtime_ns=1, executable=False)
    )
    folder, contact = b"/downloads", taking.row.contact
    with store.transaction():
        for number in range(count):
            store.transfers.add(
                number.to_bytes(16, "big"),
                contact,
                outgoing=0,
                kind="file",
                name=b"n",
                size=1,
                mtime_ns=1,
                executable=0,
                state="queued",
                folder=folder,
                created_at=1,
            )
    taking.command("transfers.clean")
    kept: list[bytes] = []
    upto, requests = b"", 0
    while any(isinstance(each, CleanStages) for each in taking.bench.tasks.values()):
        request = taking.answer(CleanStages, Counted(1, 5, requests % 2 == 1))
        if request.folder != folder:
            continue
        assert request.after == upto
        child_wire.encode(child_wire.Request(1, request))  # raises ValueError where it is too long
        if requests % 2:  # else more is left there, and the same is asked again
            kept += request.keep
            upto = request.upto
        requests += 1
    assert upto == b"" and requests == 6
    assert kept == sorted(kept) and len(set(kept)) == count


# -- again --------------------------------------------------------------------------------


def test_what_could_not_be_put_in_place_and_comes_again_is_no_half_folder() -> None:
    taking = Taking()
    taking.came(Entry(b"a", 5, "verified"))
    taking.answer(Publish, Failed("EIO", "the disk fails"))
    assert taking.row.state == "failed"
    taking.answer(DiscardPart, Done())
    taking.steer("again")
    taking.open()  # some of it is there again
    taking.bench.start()
    assert not any(isinstance(task, Publish) for task in taking.bench.tasks.values())
    assert taking.row.state == "queued"


def test_both_sides_go_on_with_the_files_that_failed() -> None:
    """After a second try that failed as a whole, neither begins with all files anew."""
    sending = Sending()
    sending.sent()
    bad = Entry(b"b", 3, "failed", "full")
    sending.bench.store.trees.put(sending.row.row, [bad])
    sending.say(Result(transfer=sending.row.id))
    assert sending.row.state == "failed"
    sending.steer("again")
    sending.open()
    sending.say(Result(transfer=sending.row.id, error="the folder is gone"))
    sending.steer("again")
    sending.open()
    (lane,) = sending.bench.lanes.values()
    assert lane.job.only == (b"b",)  # type: ignore[union-attr]

    taking = Taking()
    taking.came(Entry(b"a", 2, "verified"), bad)
    taking.answer(Publish, FOLDER)
    taking.steer("again")
    taking.came(Entry(b"b", 3, "verified"))
    taking.answer(MergeStage, NO)
    taking.answer(DiscardPart, Done())
    taking.steer("again")
    assert taking.row.again


def test_what_was_never_taken_does_not_come_again() -> None:
    taking = Play()
    taking.command("settings.set", name="ask_always", value=True)
    offer = Offer(
        transfer=ID, kind="folder", name=b"t", size=5, files=2, mtime_ns=1, executable=False
    )
    taking.say(offer)
    taking.say(Cancel(transfer=ID, failed=True))
    taking.say(Steer(transfer=ID, act="again"))
    assert taking.row.state == "failed"


def test_again_there_and_a_pause_here_that_cross() -> None:
    taking = Taking()
    lane = taking.open()
    taking.end_lane(LaneFailed(lane, "storage", "full"))
    taking.steer("again")
    taking.say(Steer(transfer=ID, act="pause"))  # from before they heard of it
    assert taking.row.state == "paused"
    taking.say(Steer(transfer=ID, act="again"))  # how things stand there now
    assert taking.row.state == "queued"


# -- parts --------------------------------------------------------------------------------


def test_a_part_that_is_used_again_before_its_removal_was_told() -> None:
    taking = Taking()
    lane = taking.open()
    taking.end_lane(LaneFailed(lane, "storage", "full"))
    taking.steer("again")
    taking.answer(DiscardPart, Done())
    assert taking.row.part


def test_a_large_part_of_a_contact_that_is_removed_goes_to_its_end() -> None:
    taking = Taking()
    taking.open()
    taking.command("contacts.remove", contact="mallory")
    taking.bench.lanes.clear()
    request = taking.answer(DiscardPart, Failed("EAGAIN", "there is more"))
    assert taking.answer(DiscardPart, Done()) == request


# -- settings -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["", "no", '{"hex":5}', "-1", "[" * 5000, "9" * 5000, '"x"'])
def test_a_stored_setting_that_cannot_be_is_as_if_it_were_not_set(value: str) -> None:
    bench = Bench()
    names = ("transfers_max", "downloads", "ask_always", "another")
    with bench.store.transaction():
        for name in names:
            bench.store.preferences.set(0, name, value)
            bench.store.preferences.set(1, name, value)
    bench.start()
    assert bench.node._core.settings == bench.profile.settings
    assert bench.node._preferences.of(1) == bench.profile.settings
    assert bench.node._preferences.downloads(1) == b"/downloads"


def test_settings_of_a_contact_that_was_removed_are_nobody_elses() -> None:
    play = Play()
    play.command("settings.set", name="ask_always", value=True, contact="mallory")
    contact = play.bench.store.contacts.all()[0].row
    assert play.bench.node._preferences.of(contact).ask_always
    play.command("contacts.remove", contact="mallory")
    assert not play.bench.node._preferences.of(contact).ask_always
    play.bench.start()
    assert not play.bench.node._preferences.of(contact).ask_always


def test_a_setting_whose_commit_failed_does_not_hold() -> None:
    play = Play()
    play.bench.fail_next = True
    play.command("settings.set", name="transfers_max", value=1)
    play.bench.wait(2.0)
    play.bench.wait(0.1)
    assert play.bench.node._core.settings.transfers_max == 8
