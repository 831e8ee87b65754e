"""How often somebody is dialled who does not want us."""

from __future__ import annotations

from fuzz.test_findings_transfers import Play
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
