"""The session: transcripts of two of them, and the table of what may come when."""

from __future__ import annotations

import itertools

import pytest

from tntd.errors import RemoteError
from tntd.machines.identity import Identity
from tntd.machines.session import ALLOWED, Session, State
from tntd.wire.frames import (
    HEADER,
    TYPES,
    Auth,
    Frame,
    FrameReader,
    Hello,
    LinkError,
    Ping,
    Trusted,
    encode,
)

ALICE, BOB = Identity(b"a" * 32), Identity(b"b" * 32)
EXPORTER = b"e" * 32


def hello(**changes: object) -> Hello:
    fields: dict[str, object] = {
        "protocol_min": 1,
        "protocol_max": 1,
        "features": [],
        "instance": b"i" * 16,
        "name": "x",
        "explicit": True,
        "frame_bytes_max": 131072,
    }
    return Hello(**{**fields, **changes})  # type: ignore[arg-type]


def trusted() -> Trusted:
    return Trusted(
        epoch=b"e" * 16,
        lowest=1,
        highest=0,
        peer_epoch=None,
        received=0,
        received_id=None,
        port=0,
        addresses=[],
    )


def give(session: Session, frame: Frame) -> Frame | None:
    """Pass a frame through its bytes, one byte at a time."""
    reader = FrameReader(1 << 20)
    for byte in encode(frame):
        assert reader.next_frame() is None
        reader.feed(bytes([byte]))
    found = reader.next_frame()
    assert found is not None
    return session.receive(*found)


def pair() -> tuple[Session, Session]:
    return Session(ALICE, EXPORTER, dialled=True), Session(BOB, EXPORTER, dialled=False)


def test_the_whole_way_to_trust() -> None:
    dialler, acceptor = pair()
    give(acceptor, dialler.auth())
    assert acceptor.peer_key == ALICE.public
    give(dialler, acceptor.auth())
    assert dialler.peer_key == BOB.public
    for session in (dialler, acceptor):
        give(session, hello())
        assert session.state is State.KNOWN
        session.said_trusted = True
        assert not session.open
        give(session, trusted())
        assert session.open
    assert dialler.dialler_key == acceptor.dialler_key == ALICE.public
    assert dialler.acceptor_key == acceptor.acceptor_key == BOB.public


def test_a_middleman_cannot_pass_proofs_on() -> None:
    dialler = Session(ALICE, b"1" * 32, dialled=True)
    acceptor = Session(BOB, b"2" * 32, dialled=False)
    with pytest.raises(RemoteError, match="authentication"):
        give(acceptor, dialler.auth())


def test_a_reflected_proof_is_our_own_key() -> None:
    dialler, _ = pair()
    with pytest.raises(RemoteError, match="self"):
        give(dialler, dialler.auth())


def test_a_proof_of_the_wrong_role() -> None:
    _, acceptor = pair()
    acceptor.peer_key = ALICE.public
    as_acceptor = Auth(key=ALICE.public, signature=ALICE.sign_accept(EXPORTER, BOB.public))
    acceptor.peer_key = None
    with pytest.raises(RemoteError, match="authentication"):
        give(acceptor, as_acceptor)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"protocol_min": 2, "protocol_max": 3}, "version"),
        ({"name": "a\x1b[31m"}, "malformed"),
        ({"name": "a\nb"}, "malformed"),
        ({"name": "\u202eevil"}, "malformed"),
    ],
)
def test_bad_hellos(changes: dict[str, object], code: str) -> None:
    dialler, acceptor = pair()
    give(acceptor, dialler.auth())
    with pytest.raises(RemoteError) as caught:
        give(acceptor, hello(**changes))
    assert caught.value.code == code


@pytest.mark.parametrize(("state", "kind"), list(itertools.product(State, TYPES.values())))
def test_every_frame_in_every_state(state: State, kind: type[Frame]) -> None:
    """What the table does not allow ends the link; nothing else is tried here."""
    session = Session(ALICE, EXPORTER, dialled=True)
    session.state = state
    session.said_trusted = True
    number = next(n for n, cls in TYPES.items() if cls is kind)
    try:
        session.receive(number, b"\x80")
        outcome = "taken"
    except RemoteError as error:
        outcome = error.code
    # An empty map is malformed for every type: the decoding comes before the table.
    assert outcome == "malformed"
    if kind is Ping:
        allowed = Ping in ALLOWED[state]
        if allowed:
            assert isinstance(give(session, Ping(nonce=1)), Ping)
        else:
            with pytest.raises(RemoteError, match="unexpected"):
                give(session, Ping(nonce=1))


def test_nothing_flows_before_we_trust_too() -> None:
    session, _ = pair()
    session.state, session.said_trusted = State.OPEN, False
    for frame in (f for f in _flowing()):
        with pytest.raises(RemoteError, match="unexpected"):
            give(session, frame)


def _flowing() -> list[Frame]:
    from tntd.wire.frames import Ack, Envelope, LaneAnswer, LaneOffer

    id = b"i" * 16
    return [
        Ack(epoch=id, number=1),
        Envelope(epoch=id, number=1, id=id, kind=1, body=b""),
        LaneOffer(ticket=id, transfer=id),
        LaneAnswer(ticket=id, transfer=id, code=""),
    ]


def test_unknown_types_are_passed_over_or_end_the_link() -> None:
    session, _ = pair()
    assert session.receive(0x0FFF, b"anything") is None
    with pytest.raises(RemoteError, match="unsupported"):
        session.receive(0x0FFE, b"anything")


def test_the_last_word_is_taken_in_every_state() -> None:
    for state in State:
        session, _ = pair()
        session.state = state
        assert isinstance(give(session, LinkError(code="limit", text="")), LinkError)


def test_an_impossible_length_is_refused_at_once() -> None:
    reader = FrameReader(4096)
    reader.feed(HEADER.pack(4097, 2))
    with pytest.raises(RemoteError, match="malformed"):
        reader.next_frame()
