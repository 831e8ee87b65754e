"""Which of their outbox's epochs counts, where they have said several on several links."""

from __future__ import annotations

from fuzz.peer import MALLORY
from fuzz.test_findings_transfers import Play
from tntd import limits
from tntd.wire.frames import Ack, Envelope, Text, Trusted, encode_body


def test_what_another_link_said_before_does_not_hold_up_this_one() -> None:
    """They renewed their outbox while two links were up: what they had said on the one before
    that came in after what they say on the other since.  Its envelopes are not passed over."""
    play = Play()
    link, contacts = play.link, play.bench.store.contacts
    play.say(Text(text="first", sent_at=1))
    row = contacts.by_key(MALLORY.public)
    assert row is not None and row.in_epoch is not None
    with play.bench.store.transaction():
        play.bench.store.outbox.keep_epoch(row.row, row.in_epoch, row.in_upto, row.in_upto_id)
        contacts.update(row.row, in_epoch=b"F" * 16, in_upto=57, in_upto_id=None)
    number = row.in_upto + 1
    kind, data = encode_body(Text(text="second", sent_at=2))
    link.say(Envelope(epoch=row.in_epoch, number=number, id=b"2" * 16, kind=kind, body=data))
    found = play.bench.store.messages.page(row.row, 9, None, None, [])
    assert [message.text for message in found] == ["first", "second"]
    acks = [frame for frame in play.link_frames() if isinstance(frame, Ack)]
    assert acks[-1] == Ack(epoch=row.in_epoch, number=number)


def test_who_makes_us_renew_our_outbox_again_and_again_is_cut() -> None:
    """All that waits is numbered anew each time, and each client's cursor is void."""
    play = Play()
    link, contacts = play.link, play.bench.store.contacts
    epochs = set()
    for _ in range(limits.RENEWALS_MAX + 1):
        assert link.alive
        row = contacts.by_key(MALLORY.public)
        assert row is not None
        epochs.add(row.out_epoch)
        denied = Trusted(
            epoch=b"E" * 16,
            lowest=1,
            highest=0,
            peer_epoch=row.out_epoch,
            received=row.out_highest + 9,
            received_id=b"r" * 16,
            port=0,
            addresses=[],
        )
        link.say(denied)
    assert not link.alive and len(epochs) == limits.RENEWALS_MAX + 1
