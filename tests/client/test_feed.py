"""Events to lines, as a transcript of what the user sees."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from client_samples import contact, message, transfer
from tnt_client.render import plain
from tnt_client.repl_feed import Feed
from tnt_client.repl_model import Model

BOB = contact()
CAROL = contact(id="ccccc-ddddd-eeeee", name="carol")
TODAY = "2026-11-24"


@pytest.fixture
def feed() -> Feed:
    model = Model("alice")
    model.set_contacts([BOB, CAROL])
    model.current, model.attached = BOB.id, True
    feed = Feed(model, TODAY)
    feed.know([BOB, CAROL])
    return feed


def model_of(feed: Feed) -> Model:
    return feed._model


def see(feed: Feed, type: str, about: Any, replayed: bool = False, **more: Any) -> list[str]:
    name = {"Message": "message", "Contact": "contact", "Transfer": "transfer"}
    subject = name[about.__class__.__name__]
    event = {"type": type, "cursor": "e.1", subject: msgspec.to_builtins(about), **more}
    return [plain(line).split("] ")[-1] for line in feed.event(event, replayed)]


def test_a_message_is_shown_once(feed: Feed):
    hello = message(id="1")
    assert see(feed, "message.received", hello) == ["bob: hello"]
    assert see(feed, "message.received", hello) == []
    assert see(feed, "message.received", hello, replayed=True) == []
    assert feed.read == (BOB.id, "1")


def test_a_message_of_another_conversation_says_so_and_is_not_read(feed: Feed):
    hello = message(id="1", from_="carol", conversation="carol")
    assert see(feed, "message.received", hello) == ["carol: hello   (/to carol)"]
    assert feed.read is None


def test_our_own_message_is_shown_once_whoever_tells_first(feed: Feed):
    mine = message(id="1", from_="alice", state="queued")
    assert [plain(line).split("] ")[1] for line in feed.own(mine)] == ["alice: hello"]
    assert see(feed, "message.state", mine) == []
    other = message(id="2", from_="alice", state="queued")
    assert see(feed, "message.state", other) == ["alice: hello"]  # from another client
    assert feed.own(other) == []
    for state in ("sent", "delivered", "read"):
        assert see(feed, "message.state", message(id="2", from_="alice", state=state)) == []


def test_what_waits_for_somebody_is_marked_and_its_arrival_told(feed: Feed):
    away = contact(online=False)
    assert see(feed, "peer.offline", away) == ["* bob is offline"]
    for id in ("1", "2"):
        mine = message(id=id, from_="alice", state="queued")
        assert next(plain(line) for line in feed.own(mine)).endswith("(queued)")
    assert see(feed, "peer.online", BOB) == ["* bob is online"]
    assert see(feed, "message.state", message(id="1", from_="alice", state="delivered")) == []
    assert see(feed, "message.state", message(id="2", from_="alice", state="delivered")) == [
        "* bob has what was queued"
    ]


def test_the_date_is_told_when_the_day_changes(feed: Feed):
    late = message(id="1", sent_at="2026-11-26T12:00:00.000Z")
    assert see(feed, "message.received", late) == ["-- 2026-11-26 --", "bob: hello"]
    later = message(id="2", sent_at="2026-11-26T12:01:00.000Z")
    assert see(feed, "message.received", later) == ["bob: hello"]


def test_requests_and_new_contacts(feed: Feed):
    dave = contact(id="ddddd-11111-x", name="dave", trust="pending", mutual=True)
    assert see(feed, "contact.request", dave) == [
        "* dave (ddddd-11111) asks to talk to you: /accept dave or /block dave"
    ]
    accepted = contact(id="ddddd-11111-x", name="dave")
    assert see(feed, "contact.changed", accepted) == [
        "* connected to dave (ddddd-11111)   verify with /verify dave"
    ]
    assert see(feed, "contact.request", accepted, replayed=True) == []  # decided since


def test_what_a_command_of_ours_tells_is_not_told_twice(feed: Feed):
    model_of(feed).busy.append("connect 6000")
    erin = contact(id="eeeee-11111-x", name="erin")
    assert see(feed, "contact.changed", erin) == []
    assert see(feed, "peer.online", erin) == []


def test_somebody_accepts_us_or_is_renamed(feed: Feed):
    frank = contact(id="fffff-11111-x", name="frank", mutual=False)
    feed.know([frank])
    assert see(feed, "contact.changed", msgspec.structs.replace(frank, mutual=True)) == [
        "* connected to frank (fffff-11111)   verify with /verify frank"
    ]
    assert see(feed, "contact.changed", msgspec.structs.replace(BOB, name="rob")) == [
        "* bob is called rob now"
    ]
    assert see(feed, "contact.changed", msgspec.structs.replace(CAROL, unread=3)) == []


def test_presence_of_others_is_for_the_toolbar(feed: Feed):
    assert see(feed, "peer.offline", msgspec.structs.replace(CAROL, online=False)) == []


def test_a_transfer_from_offer_to_end(feed: Feed):
    offer = transfer(direction="in", state="offered", path=None)
    assert see(feed, "transfer.offered", offer) == [
        "* bob offers a.bin (64 MiB): /get t2345678 or /decline t2345678"
    ]
    moving = transfer(direction="in", state="active", path=None)
    assert see(feed, "transfer.state", moving) == []
    assert see(feed, "transfer.progress", moving) == []
    assert "↓ a.bin 50% 12.3 MiB/s" in plain(model_of(feed).toolbar())
    rests = transfer(direction="in", state="paused", path=None)
    assert see(feed, "transfer.state", rests) == [
        "* a.bin (64 MiB) from bob is paused; /resume t2345678"
    ]
    assert see(feed, "transfer.state", rests) == []  # as after a /pause of our own
    assert "a.bin paused 50%" in plain(model_of(feed).toolbar())
    assert see(feed, "transfer.state", moving) == []
    done = transfer(direction="in", state="done", path="/d/new_a.bin")
    assert see(feed, "transfer.offered", done, replayed=True) == []  # decided since
    assert model_of(feed).transfers == {}
    assert see(feed, "transfer.state", done) == ["* received a.bin (64 MiB) from bob: /d/new_a.bin"]
    assert "a.bin" not in plain(model_of(feed).toolbar())


def test_what_a_transfer_waits_for_is_told_once(feed: Feed):
    def waits(**more: Any) -> list[str]:
        see(feed, "transfer.state", transfer(**more))
        return [plain(line) for line in feed.waits("t2345678abcdefgh")]

    assert waits(state="queued") == []
    assert waits(state="offered") == ["* a.bin (64 MiB) to bob waits: bob is asked"]
    assert waits(state="offered") == []
    full = "* a.bin (64 MiB) to bob waits: no free space there"
    assert waits(state="queued", error="no free space there") == [full]
    assert waits(state="active") == waits(state="queued", error="no free space there") == []
    assert waits(state="offered", direction="in") == waits(state="done") == []
    assert waits(state="queued", error="no free space there") == [full]
    see(feed, "peer.offline", contact(online=False))
    assert waits(state="queued", error="the connection was cut") == [
        "* a.bin (64 MiB) to bob waits: bob is offline; it goes on when they are back"
    ]
    see(feed, "contact.changed", contact(online=False, mutual=False))
    assert waits(state="queued") == [
        "* a.bin (64 MiB) to bob waits: bob has not accepted you yet; it goes when they have"
    ]


def test_errors_are_told_with_what_to_do(feed: Feed):
    event = {"type": "error", "cursor": "e.2", "text": "no disk\x1b", "hint": "make room"}
    assert [plain(line) for line in feed.event(event)] == ["! no disk␛; make room"]


def test_events_of_a_newer_daemon_are_passed_over(feed: Feed):
    assert feed.event({"type": "room.changed", "room": {}}) == []
    assert feed.event({"type": "message.received", "message": {"id": 5}}) == []
    assert feed.event({}) == []


def test_a_look_back_shows_only_what_is_new_as_new(feed: Feed):
    see(feed, "message.received", message(id="1", text="old"))
    lines = feed.recall([message(id="1", text="old"), message(id="2", text="new")])
    assert [plain(line).split(": ")[1] for line in lines] == ["old", "new"]
    assert lines[0][0][0] == "class:dim" and len(lines[1]) > 1


def test_prompt_and_toolbar(feed: Feed):
    model = model_of(feed)
    model.attached = True
    assert plain(model.prompt()) == "bob> "
    assert "alice" in plain(model.toolbar()) and "bob online" in plain(model.toolbar())
    model.set_contact(contact(online=False, queued=2))
    assert "bob offline, 2 queued" in plain(model.toolbar())
    model.set_contact(contact(id=CAROL.id, name="carol", unread=3))
    assert "unread: carol 3" in plain(model.toolbar())
    model.question = "Sure?"
    assert plain(model.prompt()) == "Sure? [y/N] "
    model.question, model.current = None, None
    assert plain(model.prompt()) == "alice> "
    model.attached = False
    assert "daemon gone" in plain(model.toolbar())
