"""How often somebody is dialled who does not want us."""

from __future__ import annotations

import pytest

from fuzz.peer import MALLORY
from fuzz.test_findings_transfers import Play
from tntd import limits
from tntd.events import LinkClosed
from tntd.wire.frames import LinkError


def test_who_has_removed_us_is_not_dialled_without_end() -> None:
    play = Play()
    bench = play.bench
    contact = bench.store.contacts.all()[0]
    with bench.store.transaction():
        bench.store.contacts.meet(contact.row, "127.0.0.1", 5, 1)
    for _ in range(3):  # each link that opens begins the back-off anew
        play.link.say(LinkError(code="not_contact", text=""))
        play.hostile.links.clear()
        for _ in range(20):
            bench.wait(1.0)
        assert not bench.dials
    for _ in range(60):
        bench.wait(1.0)
    assert bench.dials, "but from time to time they are"


def away(play: Play) -> None:
    """The contact has an address, and its link is cut."""
    contact = play.bench.store.contacts.all()[0]
    with play.bench.store.transaction():
        play.bench.store.contacts.meet(contact.row, "127.0.0.1", 5, 1)
    play.bench.turn(LinkClosed(play.link.link, "cut"))


def test_a_dial_that_leads_to_one_link_too_many_is_not_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    play = Play()
    away(play)
    with monkeypatch.context() as patch:
        patch.setattr(limits, "LINKS_MAX", 0)
        play.bench.wait(2.0)
        assert play.bench.dials
        while play.bench.dials:  # one address after the other
            play.hostile.link(MALLORY, step=0)
    play.bench.wait(5.0)
    assert play.bench.dials


def test_who_is_accepted_after_a_block_is_dialled() -> None:
    play = Play()
    away(play)
    play.command("contacts.block", contact="mallory")
    for _ in range(70):
        play.bench.wait(1.0)
    assert not play.bench.dials
    play.command("contacts.unblock", contact="mallory")
    play.command("contacts.accept", contact="mallory")
    play.bench.wait(2.0)
    assert play.bench.dials


def test_who_is_blocked_before_the_hello_comes_is_not_linked() -> None:
    play = Play()
    play.hostile.link(MALLORY, step=1)
    late = play.hostile.links[-1]
    play.command("contacts.block", contact="mallory")
    assert late.alive
    late.greet(play.hostile._hello())
    assert not late.alive


def test_a_clock_that_was_ahead_does_not_make_each_dial_one_by_hand() -> None:
    play = Play()
    contact, now = play.bench.store.contacts.all()[0], play.bench.now.wall_ms
    for chosen_at, explicit in ((now - 60_000, True), (now + 60_000, True), (2 * now, False)):
        with play.bench.store.transaction():
            play.bench.store.contacts.update(contact.row, chosen_at=chosen_at, mutual=0)
        play.hostile.link(MALLORY, step=1)
        said = play.hostile.links[-1].session.hello
        assert said is not None and said.explicit is explicit
