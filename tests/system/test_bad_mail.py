"""Envelopes that are wrong: refused one by one, while the queue behind them goes on."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import msgspec
import pytest

from bystanders import RawContact, Scene
from peer import PeerClosed, trusted
from raw_lane import offer
from tntd import limits
from tntd.wire.frames import (
    KIND_NUMBERS,
    KINDS,
    Ack,
    Body,
    Cancel,
    Decision,
    Envelope,
    LaneAnswer,
    LaneOffer,
    Offer,
    Read,
    Refused,
    Result,
    Text,
    Trusted,
    encode_body,
)

ID = b"i" * 16


def pack(**fields: object) -> bytes:
    return msgspec.msgpack.encode(fields)


def refused() -> Iterator[tuple[str, int, bytes]]:
    """What is refused, and with which code."""
    for kind in (0, 4, 15, 23, 255, 65_535):
        yield "unknown", kind, pack(text="?")
    for kind in KINDS:
        for body in (b"", b"\xc1", b"\x80", b"\x91\x80", b"\xdf\xff\xff\xff\xff", b"\x81\xa1z"):
            yield "malformed", kind, body
    text = KIND_NUMBERS[Text]
    yield "malformed", text, pack(text=b"bytes", sent_at=0)
    yield "malformed", text, pack(text="no time")
    yield "malformed", text, pack(text="before 1970", sent_at=-1)
    yield "malformed", text, pack(text="x" * (limits.TEXT_BYTES_MAX + 1), sent_at=0)
    yield "malformed", text, b"\x82\xa7sent_at\x00\xa4text\xa3\xed\xa0\x80"  # half a surrogate pair
    yield "malformed", text, b"\x82\xa7sent_at\x00\xa4text\xa2\xc3\x28"
    yield "limit", text, pack(text="ü" * (limits.TEXT_BYTES_MAX // 2 + 1), sent_at=0)
    yield "limit", text, pack(text="", sent_at=0)
    deep = b"\x83\xa4text\xa1x\xa7sent_at\x00\xa1z" + b"\x91" * 60_000 + b"\xc0"
    yield "malformed", text, deep


def test_bad_envelopes_are_refused_and_the_queue_goes_on(scene: Scene) -> None:
    with scene.contact() as mallory:
        cases = list(refused())
        for number, (_, kind, body) in enumerate(cases):
            mallory.put_raw(kind, body, number.to_bytes(16, "big"))
            mallory.put(Text(text=f"behind {number}", sent_at=0))
        mallory.acknowledged()
        answers = [mallory.take(Refused) for _ in cases]
        assert [int.from_bytes(each.id, "big") for each in answers] == list(range(len(cases)))
        codes = [each.code for each in answers]
        assert codes == [code for code, _, _ in cases]
        found = [message["text"] for message in scene.alice.all_messages("mallory")]
        assert found == [f"behind {number}" for number in range(len(cases))]
        scene.said("refused an envelope of mallory: ", times=len(cases))
    scene.undisturbed()


def test_an_envelope_over_its_limit_ends_the_link(scene: Scene) -> None:
    with scene.contact() as mallory:
        mallory.put_raw(1, bytes(limits.ENVELOPE_BODY_BYTES_MAX + 1))
        assert mallory.told().code == "malformed"
    scene.said("ended by us: malformed")
    scene.undisturbed()


def test_what_is_repeated_is_taken_once(scene: Scene) -> None:
    with scene.contact() as mallory:
        mallory.put(Text(text="once", sent_at=0), ID)
        mallory.put(Text(text="again under a new number", sent_at=0), ID)
        mallory.number -= 1
        mallory.put(Text(text="again under the same number", sent_at=0), ID)
        mallory.acknowledged()
        assert scene.alice.texts("mallory") == ["once"]
        mallory.number -= 1
        mallory.put(Text(text="another one under a used number", sent_at=0))
        assert mallory.told().code == "twin"
    assert scene.alice.texts("mallory") == ["once"]
    scene.undisturbed()


def test_of_another_epoch_nothing_is_taken(scene: Scene) -> None:
    with scene.contact() as mallory:
        number, body = encode_body(Text(text="stale", sent_at=0))
        stale = Envelope(epoch=os.urandom(16), number=1, id=ID, kind=number, body=body)
        mallory.peer.send_frame(stale)
        mallory.peer.send_frame(Ack(epoch=os.urandom(16), number=2**63 - 1))
        mallory.put(Text(text="now", sent_at=0))
        mallory.acknowledged()
    assert scene.alice.texts("mallory") == ["now"]
    scene.undisturbed()


def test_a_gap_is_told_to_the_user(scene: Scene) -> None:
    with scene.contact() as mallory:
        mallory.number = 2**63 - 3
        mallory.put(Text(text="the last but one", sent_at=2**63 - 1))
        mallory.put(Text(text="the last", sent_at=0))
        mallory.acknowledged()
        notice, *texts = scene.alice.all_messages("mallory")
        assert notice["kind"] == "notice"
        assert str(2**63 - 3) in notice["text"]
        assert [each["text"] for each in texts] == ["the last but one", "the last"]
    scene.undisturbed()


# -- acknowledgements ---------------------------------------------------------------------


def test_who_acknowledges_too_early_harms_only_themselves(scene: Scene) -> None:
    count = limits.WINDOW_ENVELOPES_MAX + 44
    with scene.contact() as mallory, scene.alice.client() as user:
        calls = [
            user.send("messages.send", to="mallory", text=f"text {number}")
            for number in range(count)
        ]
        for call in calls:
            user.reply(call)
        while mallory.peer.expect(Envelope).number < limits.WINDOW_ENVELOPES_MAX:
            pass  # the window is full; what is behind it has not left alice
        mallory.peer.send_frame(Ack(epoch=mallory.theirs.epoch, number=count - 1))
        assert mallory.peer.expect(Envelope).number == count
        mallory.peer.send_frame(Ack(epoch=mallory.theirs.epoch, number=count + 1))
        assert mallory.told().code == "malformed"
    scene.said(f"ended by us: malformed: an acknowledgement of {count + 1}, never sent")
    scene.undisturbed()


@pytest.mark.parametrize("number", [1, 2**63 - 1])
def test_an_acknowledgement_out_of_nothing_ends_the_link(scene: Scene, number: int) -> None:
    with scene.contact() as mallory:
        mallory.peer.send_frame(Ack(epoch=mallory.theirs.epoch, number=0))
        mallory.peer.send_frame(Ack(epoch=mallory.theirs.epoch, number=number))
        assert mallory.told().code == "malformed"
    scene.undisturbed()


# -- trusted, again and again -------------------------------------------------------------


def test_a_trusted_that_claims_too_much_loses_nothing(scene: Scene) -> None:
    """Nor does it help to claim it again and again."""
    with scene.contact() as mallory:

        def claim() -> None:
            said = trusted(
                epoch=mallory.epoch,
                peer_epoch=mallory.theirs.epoch,
                received=2**63 - 1,
                received_id=os.urandom(16),
            )
            mallory.peer.send_frame(said)
            mallory.theirs = mallory.expect(Trusted)

        texts = {f"text {number}" for number in range(limits.RENEWALS_MAX)}
        for text in sorted(texts):
            scene.alice.rpc("messages.send", to="mallory", text=text)
            claim()
        seen: set[str] = set()
        while max(texts) not in seen:
            seen.add(mallory.take(Text).text)
        assert seen == texts
        with pytest.raises(PeerClosed):
            claim()
    scene.undisturbed()


# -- words about transfers, in every order ------------------------------------------------


def words(transfer: bytes) -> dict[str, Body]:
    """All that can be said about a transfer."""
    return {
        "yes": Decision(transfer=transfer, accepted=True),
        "no": Decision(transfer=transfer, accepted=False, reason="no\x1b[2J"),
        "done": Result(transfer=transfer),
        "failed": Result(transfer=transfer, error="bad\nluck"),
        "cancel": Cancel(transfer=transfer),
        "give up": Cancel(transfer=transfer, reason="\u202e", failed=True),
        "refused": Refused(id=transfer, code="unknown"),
        "read": Read(upto=transfer),
    }


def say_all(mallory: RawContact, start: Callable[[], bytes]) -> None:
    """Every two of the words, in every order, about a new transfer each."""
    for pair in itertools.product(words(ID), repeat=2):
        transfer = start()
        for each in pair:
            mallory.put(words(transfer)[each])
        answer = LaneAnswer(ticket=os.urandom(16), transfer=transfer, code="")
        mallory.peer.send_frame(answer)
        mallory.peer.send_frame(LaneOffer(ticket=os.urandom(16), transfer=transfer))
    mallory.acknowledged()


def test_words_about_transfers_of_ours_in_every_order(scene: Scene) -> None:
    source = scene.alice.home / "source"
    source.write_bytes(b"x" * 100)

    def send() -> bytes:
        scene.alice.rpc("transfers.send", to="mallory", paths=[str(source)])
        return mallory.take(Offer).transfer

    with scene.contact() as mallory:
        say_all(mallory, send)
    scene.undisturbed()


def test_words_about_transfers_of_theirs_in_every_order(scene: Scene) -> None:
    with scene.contact() as mallory:
        say_all(mallory, lambda: offer(mallory, b"theirs", 100))
        say_all(mallory, lambda: offer(mallory, b"huge", 2**63 - 1))
    scene.undisturbed()


def test_words_about_transfers_of_others_change_nothing(scene: Scene) -> None:
    source = scene.alice.home / "for carol"
    source.write_bytes(b"x" * 100)
    with scene.contact("carol") as carol, scene.contact("mallory") as mallory:
        scene.alice.rpc("transfers.send", to="carol", paths=[str(source)])
        transfer = carol.take(Offer).transfer
        for each in words(transfer).values():
            mallory.put(each)
        mallory.acknowledged()
        states = {"queued", "offered"}  # carol has not answered yet
        (row,) = scene.alice.rpc("transfers.list", limit=1)["transfers"]
        assert (row["contact"], row["state"] in states) == ("carol", True)
    scene.undisturbed()
