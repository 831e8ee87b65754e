"""Why a transfer does not go on: told to the users of both sides, and forgotten when it does."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fuzz.test_findings_transfers import FOLDER, ID, Play, Sending, Taking
from tntd import limits
from tntd.events import LaneEntries, LaneFailed, LaneFinished, LaneOpened
from tntd.machines.tree import mark
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
    SweepStage,
    SyncStage,
    Unpacked,
)
from tntd.wire.frames import (
    Asking,
    Cancel,
    Decision,
    Fates,
    FileState,
    LaneAnswer,
    LaneOffer,
    Offer,
    Ping,
    Result,
)

GONE = Failed("ENOENT", "no such file or folder")
SIZE = 5_000


def offer() -> Offer:
    """A file of theirs."""
    return Offer(
        transfer=ID, kind="file", name=b"f", size=SIZE, files=1, mtime_ns=1, executable=False
    )


def shown(play: Play) -> tuple[str, str | None]:
    """State and error, as users see them."""
    found = play.bench.node._queue.transfers.show(play.row)
    return found.state, found.error


def asked(play: Play) -> list[str]:
    """The reasons that they were told."""
    return [each.reason for each in play.told() if isinstance(each, Asking)]


# -- who is away ----------------------------------------------------------------------------


def test_a_contact_that_is_offline_is_why_nothing_moves() -> None:
    sending = Sending()
    sending.open()
    (link,) = sending.bench.links
    sending.bench.lanes.clear()
    sending.bench.closed_links.append(link)
    sending.hostile.links.clear()
    sending.bench.turn()
    assert shown(sending) == ("queued", "mallory is offline; it goes on when they are back")
    sending.link  # noqa: B018 - they are back
    assert shown(sending) == ("queued", None)
    sending.open()
    assert shown(sending) == ("active", None)


def test_a_contact_that_has_not_accepted_us_is_why_nothing_moves() -> None:
    """There is a link, and nobody is offline."""
    sending = Sending()
    contacts = sending.bench.store.contacts
    with sending.bench.store.transaction():
        contacts.update(sending.row.contact, mutual=0)
    for link in list(sending.bench.links):
        sending.bench.closed_links.append(link)
    sending.hostile.links.clear()
    sending.bench.turn()
    words = "mallory has not accepted you yet; it goes when they have"
    assert shown(sending) == ("queued", words)


def test_a_link_that_fell_silent_is_told_as_that() -> None:
    sending = Sending()
    sending.open()
    sending.bench.lanes.clear()
    sending.bench.wait(limits.KEEPALIVE_S + limits.KEEPALIVE_STEP_S)
    sending.bench.wait(limits.KEEPALIVE_ANSWER_S)
    words = "no answer from mallory for 45 s; it goes on when they are back"
    assert shown(sending) == ("queued", words)
    sending.hostile.links.clear()
    sending.link  # noqa: B018
    assert shown(sending) == ("queued", None)


# -- who is asked first ---------------------------------------------------------------------


def test_what_is_too_large_to_be_taken_unasked_says_so_on_both_sides() -> None:
    taking = Play()
    taking.command("settings.set", name="auto_accept_bytes_max", value=1000)
    taking.say(offer())
    larger = "larger than the 1 kB that"
    assert shown(taking) == ("offered", f"{larger} you take without a question")
    assert asked(taking) == [f"{larger} they take without a question"]
    taking.bench.start()
    assert len(asked(taking)) <= 1, "it is told once"


def test_who_asks_always_says_so() -> None:
    taking = Play()
    taking.command("settings.set", name="ask_always", value=True)
    taking.say(offer())
    assert shown(taking) == ("offered", "you take nothing without a question")
    assert asked(taking) == ["they take nothing without a question"]


def test_what_was_counted_past_the_limit_while_our_disk_is_looked_at_is_asked_for() -> None:
    """Both offers come at once from who counted while we were away."""
    taking = Play()
    tree = {"kind": "folder", "name": b"tree", "files": 9, "mtime_ns": 1, "executable": False}
    taking.say(Offer(transfer=ID, size=5, counting=True, **tree))  # type: ignore[arg-type]
    taking.say(Offer(transfer=ID, size=20 << 30, **tree))  # type: ignore[arg-type]
    taking.answer(Inspect, FOLDER)
    assert shown(taking) == ("offered", "larger than the 10 GiB that you take without a question")
    assert asked(taking) == ["larger than the 10 GiB that they take without a question"]


def test_who_wants_to_be_asked_is_asked_though_our_disk_is_looked_at_already() -> None:
    taking = Play()
    taking.say(offer())
    taking.command("settings.set", name="ask_always", value=True)
    taking.answer(Inspect, FOLDER)
    assert shown(taking) == ("offered", "you take nothing without a question")


@pytest.mark.parametrize(
    ("answer", "here", "there"),
    [
        (
            Failed("EACCES", "no access"),
            "your downloads folder /downloads: no access",
            "their downloads folder: no access",
        ),
        (
            Inspected("folder", 0, 1, 1, 1, 1, False, 10),
            "not enough free space here",
            "not enough free space there",
        ),
    ],
)
def test_a_folder_that_cannot_take_it_is_told(answer: Any, here: str, there: str) -> None:
    taking = Play()
    taking.say(offer())
    taking.answer(Inspect, answer)
    assert shown(taking) == ("offered", here)
    assert asked(taking) == [there]


def test_the_sender_shows_what_the_receiver_is_asked_until_it_is_decided() -> None:
    sending = Sending.__new__(Sending)
    Play.__init__(sending)
    sending.looked = Inspected("file", 5, 1, 1, 1, 1, False, 0)
    sending.command("transfers.send", to="mallory", paths=["/f"])
    sending.answer(Inspect, sending.looked)
    sending.say(Asking(transfer=sending.row.id, reason="too large"))
    assert shown(sending)[1] == "mallory is asked first: too large"
    sending.say(Decision(transfer=sending.row.id, accepted=True))
    assert shown(sending) == ("queued", None)


# -- again, into a folder that was moved ------------------------------------------------------


@pytest.mark.parametrize("code", ["ENOENT", "ENOTDIR", "ESTALE"])
def test_what_comes_again_gets_a_folder_where_the_first_was_moved(code: str) -> None:
    taking = Taking()
    taking.came(Entry(b"a", 2, "verified"), Entry(b"b", 3, "failed", "full"))
    taking.answer(Publish, FOLDER)
    taking.steer("again")
    taking.came(Entry(b"b", 3, "verified"))
    taking.answer(MergeStage, Failed(code, "it is not there"))
    request = taking.answer(Publish, FOLDER)
    assert request.tree and request.name == b"new_tree"
    assert (taking.row.state, taking.row.error, taking.row.again) == ("done", None, 0)


def test_what_came_again_and_could_not_be_put_in_place_does_not_wait() -> None:
    taking = Taking()
    taking.came(Entry(b"a", 2, "verified"), Entry(b"b", 3, "failed", "full"))
    taking.answer(Publish, FOLDER)
    taking.steer("again")
    taking.came()
    taking.answer(MergeStage, Failed("EACCES", "no access"))
    taking.answer(DiscardPart, Done())
    taking.command("transfers.files", transfer=item_id(ID))
    lines = [line for lines in taking.bench.lines.values() for line in lines if "id" in line]
    files = [(each["state"], each.get("reason")) for each in lines[-1]["result"]["files"]]
    assert files[1] == ("failed", "the folder that came before: no access")
    assert taking.row.error == "the folder that came before: no access"


# -- again, and cut in the middle -------------------------------------------------------------


def test_what_changed_while_it_was_sent_again_stays_to_be_sent() -> None:
    """The lane broke before the receiver heard that the file had changed."""
    sending = Sending()
    sending.sent()
    failed = [FileState(b"b", "failed", "full")]
    sending.say(Fates(transfer=sending.row.id, files=failed))
    sending.say(Result(transfer=sending.row.id))
    assert (sending.row.state, sending.row.failed) == ("failed", 1)
    sending.steer("again")
    lane = sending.open()
    assert sending.bench.lanes[lane].job.only == (b"b",)  # type: ignore[union-attr]
    changed = Entry(b"b", 3, "failed", "the file changed while it was being sent")
    sending.end_lane(
        LaneEntries(lane, (changed,), 2, b"b", 3), LaneFailed(lane, "cut", "the lane broke")
    )
    sending.bench.wait(2.0)
    lane = sending.open()
    assert sending.bench.lanes[lane].job.only == (b"b",)  # type: ignore[union-attr]
    sending.end_lane(LaneFinished(lane, 3, b"", bytes_sent=3))
    sending.say(Fates(transfer=sending.row.id, files=failed))
    sending.say(Result(transfer=sending.row.id))
    assert (sending.row.state, sending.row.error) == ("failed", "b: full")


def test_what_a_broken_lane_left_of_a_file_does_not_come_with_the_rest() -> None:
    taking = Taking()
    taking.came(Entry(b"a", 2, "verified"), Entry(b"b", 3, "failed", "full"))
    taking.answer(Publish, FOLDER)
    taking.steer("again")
    taking.link.say(LaneOffer(ticket=b"v" * 16, transfer=ID, size=5, files=2))
    taking.answer(PrepareStage, Inspected("folder", 1, 1, 1, 1, 1, False, 1 << 50))
    taking.bench.turn(LaneOpened(taking.lane))
    taking.end_lane(LaneFinished(taking.lane, 0, b""))
    sweep = taking.answer(SweepStage, Done())
    assert sweep.known == mark(b"a") and sweep.end
    taking.answer(SyncStage, Done())
    taking.answer(MergeStage, Unpacked([], 0, b"", 0))
    words = "b: it was not sent this time; send the failed files again"
    assert (taking.row.state, taking.row.failed, taking.row.error) == ("failed", 1, words)
    assert [each.state for body in taking.told() if isinstance(body, Fates) for each in body.files][
        -1
    ] == "failed"


def test_who_has_not_the_rest_is_not_sent_only_what_failed() -> None:
    """A copy of the receiver has taken the rest, or it was restored from before that."""
    sending = Sending()
    sending.sent()
    sending.say(Fates(transfer=sending.row.id, files=[FileState(b"b", "failed", "full")]))
    sending.say(Result(transfer=sending.row.id))
    sending.steer("again")
    sending.word("unknown")
    assert sending.row.state == "offered"
    sending.say(Decision(transfer=sending.row.id, accepted=True))
    lane = sending.open()
    assert not sending.bench.lanes[lane].job.only  # type: ignore[union-attr]
    offers = [each for each in sending.link_frames() if isinstance(each, LaneOffer)]
    assert [each.again for each in offers] == [False, True, False]


def test_only_what_failed_is_not_taken_where_the_rest_is_not_here() -> None:
    taking = Taking()
    frame = LaneOffer(ticket=b"v" * 16, transfer=ID, size=5, files=2, again=True)
    taking.link.say(frame)
    (answer,) = [each for each in taking.link_frames() if isinstance(each, LaneAnswer)]
    assert answer.code == "unknown" and not taking.bench.lanes
    said = taking.told()
    taking.say(msgspec.structs.replace(offer(), kind="folder", files=2))
    assert taking.told()[len(said) :] == [Decision(transfer=ID, accepted=True)]
    taking.came(Entry(b"a", 2, "verified"), Entry(b"b", 3, "failed", "full"))
    taking.answer(Publish, FOLDER)
    taking.steer("again")
    taking.link.say(frame)
    taking.answer(PrepareStage, FOLDER)
    assert taking.bench.lanes, "but where it is"


def test_more_files_than_go_again_at_once_stay_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "AGAIN_PATHS_BYTES_MAX", 40)
    sending = Sending()
    sending.sent()
    paths = [b"name 1", b"name 2", b"name 3"]
    sending.say(
        Fates(transfer=sending.row.id, files=[FileState(each, "failed", "full") for each in paths])
    )
    sending.say(Result(transfer=sending.row.id))
    sending.steer("again")
    lane = sending.open()
    assert sending.bench.lanes[lane].job.only == (b"name 1",)  # type: ignore[union-attr]
    entries = LaneEntries(lane, (Entry(b"name 1", 1, "waiting"),), 2, b"name 1", 1)
    sending.end_lane(entries, LaneFinished(lane, 1, b"", bytes_sent=1))
    sending.say(Result(transfer=sending.row.id))
    assert (sending.row.state, sending.row.failed, sending.row.error) == (
        "failed",
        2,
        "name 2: full",
    )


def test_what_was_not_sent_is_missed_also_where_it_gets_a_folder_of_its_own() -> None:
    taking = Taking()
    taking.came(Entry(b"a", 2, "verified"), Entry(b"b", 3, "failed", "full"))
    taking.answer(Publish, FOLDER)
    taking.steer("again")
    taking.came()
    taking.answer(MergeStage, GONE)  # our user has moved what came before
    taking.answer(Publish, FOLDER)
    assert (taking.row.state, taking.row.failed) == ("failed", 1)


# -- told to those who follow ---------------------------------------------------------------


def follow(play: Play) -> None:
    """Attach a client that is told of what happens from now on."""
    client = play.bench.open_client(local_user=True)
    play.bench.turn()
    play.bench.node._clients.all[client].upto = play.bench.node._journal.newest()


def followed(play: Play) -> list[tuple[str, str | None]]:
    """States and errors of the transfer, as events."""
    for client in play.bench.lines:
        play.bench.drain(client)
    lines = [line for lines in play.bench.lines.values() for line in lines if "params" in line]
    told = [line["params"] for line in lines]
    return [
        (each["transfer"]["state"], each["transfer"]["error"])
        for each in told
        if each["type"] == "transfer.state"
    ]


def test_a_lane_that_stands_still_is_told_and_the_link_looked_at() -> None:
    sending = Sending(tree=False)
    follow(sending)
    lane = sending.open()
    pings = [each for each in sending.link_frames() if isinstance(each, Ping)]
    sending.end_lane(LaneFailed(lane, "stall", "nothing moved on the lane for a minute"))
    words = "nothing moved on the lane for a minute; it will be tried again"
    assert followed(sending)[-1] == shown(sending) == ("queued", words)
    asked = [each for each in sending.link_frames() if isinstance(each, Ping)]
    assert len(asked) == len(pings) + 1
    sending.bench.wait(2.0)
    lane = sending.open()  # another lane, whatever becomes of the link
    sending.end_lane(LaneFailed(lane, "cut", "the lane broke"))
    assert followed(sending)[-1] == ("queued", "the lane broke; it will be tried again")
    count = len(followed(sending))
    sending.bench.wait(3.0)
    sending.word("busy")
    assert len(followed(sending)) == count


def test_who_waits_for_a_lane_of_what_has_ended_is_told_so() -> None:
    """An older word of theirs came, of the time before it was sent again."""
    sending = Sending()
    sending.sent()
    again = Fates(transfer=sending.row.id, files=[FileState(b"b", "failed", "full")])
    for body in (again, Result(transfer=sending.row.id)):
        sending.say(body)
    sending.steer("again")
    sending.answer(Inspect, FOLDER)
    sending.say(again)
    sending.say(Result(transfer=sending.row.id))
    assert sending.row.state == "failed"
    broken = LaneAnswer(ticket=b"x" * 16, transfer=sending.row.id, code="broken")
    for _ in range(2):
        sending.link.say(broken)
    words = [each for each in sending.told() if isinstance(each, Cancel)]
    assert [(each.reason, each.failed) for each in words] == [("it is failed already", True)]


def test_what_failed_while_our_user_was_asked_is_taken_when_it_is_asked_for() -> None:
    taking = Play()
    taking.command("settings.set", name="auto_accept_bytes_max", value=1000)
    taking.say(msgspec.structs.replace(offer(), kind="folder", counting=True, size=10))
    taking.answer(Inspect, FOLDER)
    assert taking.row.state == "queued"
    taking.say(msgspec.structs.replace(offer(), kind="folder"))  # it is larger than that
    assert taking.row.state == "offered"
    taking.say(Cancel(transfer=ID, reason="the source: input/output error", failed=True))
    assert taking.row.state == "failed"
    taking.command("transfers.again", transfer=item_id(ID))
    taking.link.say(LaneOffer(ticket=b"t" * 16, transfer=ID, size=SIZE, files=1))
    taking.answer(PrepareStage, FOLDER)
    assert taking.bench.lanes


def test_who_cancels_what_has_arrived_is_told_that_it_has() -> None:
    """Their history was restored from before that."""
    taking = Taking()
    taking.came(Entry(b"a", 2, "verified"))
    taking.answer(Publish, FOLDER)
    said = taking.told()
    taking.say(Cancel(transfer=ID))
    assert taking.row.state == "done"
    (word,) = taking.told()[len(said) :]
    assert isinstance(word, Result) and word in said
    sending = Sending()
    sending.steer("cancel")
    sending.say(Result(transfer=sending.row.id))
    assert sending.row.state == "done"


def test_what_a_copy_of_the_receiver_declined_is_done_where_another_has_it() -> None:
    sending = Sending()
    sending.say(Decision(transfer=sending.row.id, accepted=False))
    sending.say(Result(transfer=sending.row.id, error="no"))
    assert sending.row.state == "declined"
    sending.say(Result(transfer=sending.row.id))
    assert sending.row.state == "done"


# -- no room there ----------------------------------------------------------------------------


def offers(play: Play) -> int:
    """Lanes that were offered."""
    return sum(isinstance(each, LaneOffer) for each in play.link_frames())


def test_nothing_is_offered_to_a_contact_that_has_no_room() -> None:
    sending = Sending(tree=False)
    sending.word("full")
    assert shown(sending) == ("queued", None)
    sending.bench.turn()
    assert not sending.bench.tasks and offers(sending) == 1
    sending.say(Result(transfer=b"n" * 16))
    assert offers(sending) == 1, "that was nobody's"
    sending.bench.wait(limits.BACKOFF_FIRST_S)
    sending.open()
    assert shown(sending) == ("active", None)


def test_a_receiver_that_has_no_room_says_so() -> None:
    taking = Taking()
    taking.open()
    settings = taking.bench.node._core.settings
    for number in range(settings.transfers_per_contact_max):
        id = bytes([number]) * 16
        taking.say(msgspec.structs.replace(offer(), transfer=id))
        taking.answer(Inspect, FOLDER)
        taking.link.say(LaneOffer(ticket=id, transfer=id, size=SIZE))
        taking.bench.turn()
    answers = [each.code for each in taking.link_frames() if isinstance(each, LaneAnswer)]
    assert answers == ["", "full"]


# -- a word that is on its way ----------------------------------------------------------------


def test_a_cancel_that_is_on_its_way_is_waited_for() -> None:
    sending = Sending()
    sending.word("ended")
    assert sending.row.state == "queued"
    sending.say(Cancel(transfer=sending.row.id))
    assert sending.row.state == "cancelled"


def test_a_word_that_never_comes_is_not_waited_for_without_end() -> None:
    sending = Sending()
    for _ in range(4):
        assert sending.row.state == "queued"
        sending.word("ended")
        sending.bench.wait(30.0)
    assert sending.row.state == "failed"


def test_a_failure_that_is_said_again_is_no_cancel() -> None:
    sending = Sending()
    sending.say(Cancel(transfer=sending.row.id, reason="full", failed=True))
    assert (sending.row.state, sending.row.error) == ("failed", "full")


# -- a folder that is away for a moment ---------------------------------------------------------


def test_a_downloads_folder_that_is_away_is_waited_for() -> None:
    taking = Taking()
    lane = taking.open()
    taking.end_lane(LaneEntries(lane, (), 3, b"b", 5), LaneFailed(lane, "away", GONE.text))
    words = f"the receiver's downloads folder: {GONE.text}"
    assert shown(taking) == ("queued", f"{words}; it will be tried again")
    taking.link.say(LaneOffer(ticket=b"u" * 16, transfer=ID, size=5, files=2))
    taking.answer(PrepareStage, Failed("EIO", "the disk fails"))
    assert taking.row.state == "queued"
    answers = [each for each in taking.link_frames() if isinstance(each, LaneAnswer)]
    assert [each.code for each in answers] == ["", "broken", "busy"]
    assert answers[-2].text == words
    taking.link.say(LaneOffer(ticket=b"v" * 16, transfer=ID, size=5, files=2))
    taking.answer(PrepareStage, Inspected("folder", 1, 1, 1, 1, 1, False, 1 << 50))
    (opened,) = taking.bench.lanes.values()
    assert opened.job.number == 0, "what was not synced is not relied on"  # type: ignore[union-attr]
    taking.bench.turn(LaneOpened(taking.lane))
    assert shown(taking) == ("active", None)


def test_what_arrived_waits_for_a_folder_that_is_away_in_the_end() -> None:
    taking = Taking()
    taking.came(Entry(b"a", 5, "verified"))
    taking.answer(Publish, GONE)
    taking.answer(Inspect, GONE)
    assert taking.row.state == "active"
    taking.bench.wait(limits.PLACE_WAIT_FIRST_S + 1)
    taking.answer(Publish, FOLDER)
    assert taking.row.state == "done"


@pytest.mark.parametrize("code", ["EACCES", "EPERM", "EROFS"])
def test_what_arrived_waits_for_a_folder_where_nobody_may_write(code: str) -> None:
    taking = Taking()
    taking.came(Entry(b"a", 5, "verified"))
    taking.answer(Publish, Failed(code, "not writable"))
    words = "the receiver's downloads folder: not writable; it will be tried again"
    assert shown(taking) == ("active", words)
    assert not [each for each in taking.bench.tasks.values() if isinstance(each, DiscardPart)]
    taking.bench.wait(limits.PLACE_WAIT_FIRST_S + 1)
    taking.answer(Publish, FOLDER)
    assert shown(taking) == ("done", None)


@pytest.mark.parametrize("there", [False, True])
def test_what_waits_for_its_folder_in_the_end_can_be_given_up(there: bool) -> None:
    taking = Taking()
    taking.came(Entry(b"a", 5, "verified"))
    taking.steer("cancel")
    assert taking.row.state == "active", "its rename may be under way"
    taking.answer(Publish, GONE)
    taking.answer(Inspect, GONE)
    if there:
        taking.say(Cancel(transfer=ID))
    else:
        taking.steer("cancel")
        assert Cancel(transfer=ID) in taking.told()
    assert taking.row.state == "cancelled"
    taking.answer(DiscardPart, GONE)
    taking.bench.wait(limits.PLACE_WAIT_MAX_S)
    assert not [each for each in taking.bench.tasks.values() if isinstance(each, Publish)]


def test_what_has_arrived_does_not_fail_with_its_sender() -> None:
    """It may have its name by then, and would come a second time under another: only a user gives
    it up."""
    taking = Taking()
    taking.came(Entry(b"a", 5, "verified"))
    taking.answer(Publish, Failed("UNSURE", "input/output error"))
    taking.say(Cancel(transfer=ID, reason="the source: input/output error", failed=True))
    assert taking.row.state == "active"
    taking.bench.wait(limits.PLACE_WAIT_FIRST_S + 1)
    taking.answer(Publish, FOLDER)
    assert taking.row.state == "done"
    assert any(isinstance(word, Result) and not word.error for word in taking.told())


def test_who_asked_once_more_meanwhile_is_told_where_it_comes_to_nothing() -> None:
    """The link was lost after their last byte: they wait with the ticket of their last question,
    and would wait for ever."""
    taking = Taking()
    lane = taking.open()
    taking.end_lane(LaneEntries(lane, (), 3, b"b", 5), LaneFinished(lane, 5, b""))
    (link,) = taking.bench.links
    taking.bench.closed_links.append(link)
    taking.hostile.links.clear()
    taking.bench.turn()
    taking.link.say(LaneOffer(ticket=b"u" * 16, transfer=ID, size=5, files=2))
    taking.answer(SyncStage, GONE)
    answers = [each for each in taking.link_frames() if isinstance(each, LaneAnswer)]
    told = [(each.ticket[:1], each.code) for each in answers]
    assert told == [(b"t", ""), (b"u", "finishing"), (b"u", "broken")]
    assert taking.row.state == "queued"


def test_a_stage_that_is_gone_at_its_sync_is_begun_anew() -> None:
    taking = Taking()
    lane = taking.open()
    taking.end_lane(LaneEntries(lane, (), 3, b"b", 5), LaneFinished(lane, 5, b""))
    taking.answer(SyncStage, GONE)
    assert taking.row.state == "queued"


@pytest.mark.parametrize("code", ["TIMEOUT", "ECHILD"])
def test_a_disk_that_does_not_answer_for_a_while_ends_no_transfer(code: str) -> None:
    """Nothing is known of the stage or the source then, and what has come so far stays; but each
    such try keeps all others waiting."""
    hung = Failed(code, "it took too long")
    taking, sending = Taking(), Sending()
    for number in range(STRIKES_MAX - 1):
        taking.link.say(LaneOffer(ticket=bytes([number]) * 16, transfer=ID, size=5, files=2))
        taking.answer(PrepareStage, hung)
        answer = [each for each in taking.link_frames() if isinstance(each, LaneAnswer)][-1]
        assert (answer.ticket[0], answer.code) == (number, "busy")
        assert shown(taking) == ("queued", "it took too long; it will be tried again")
        sending.answer(Inspect, hung)
        assert shown(sending) == ("queued", "it took too long")
        sending.bench.wait(limits.BACKOFF_FIRST_S * 2**number)
    taking.link.say(LaneOffer(ticket=b"t" * 16, transfer=ID, size=5, files=2))
    taking.answer(PrepareStage, hung)
    sending.answer(Inspect, hung)
    assert (taking.row.state, sending.row.state) == ("failed", "failed")
