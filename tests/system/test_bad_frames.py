"""Frames that are broken, too long, or of the wrong type at the wrong time."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable

import msgspec
import pytest

from bystanders import SOON_S, Scene, told
from peer import PeerClosed, RawPeer, hello, trusted
from tntd import limits
from tntd.limits import MIB
from tntd.wire.frames import (
    HEADER,
    NUMBERS,
    TYPES,
    Ack,
    Auth,
    Envelope,
    Frame,
    Hello,
    LaneAnswer,
    LaneOffer,
    LinkError,
    Ping,
    Pong,
    Text,
    Trusted,
    encode,
    encode_body,
)


def good(kind: type[Frame], peer: RawPeer) -> Frame:
    """A frame of that type with nothing wrong in it."""
    some_id = os.urandom(16)
    number, body = encode_body(Text(text="hi", sent_at=0))
    frames: dict[type[Frame], Frame] = {
        Auth: peer.auth(),
        Hello: hello(explicit=True),
        Trusted: trusted(),
        Envelope: Envelope(epoch=some_id, number=1, id=some_id, kind=number, body=body),
        Ack: Ack(epoch=some_id, number=0),
        Ping: Ping(nonce=77),
        Pong: Pong(nonce=77),
        LinkError: LinkError(code="bye", text=""),
        LaneOffer: LaneOffer(ticket=some_id, transfer=some_id),
        LaneAnswer: LaneAnswer(ticket=some_id, transfer=some_id, code=""),
    }
    return frames[kind]


# -- every type in every state ------------------------------------------------------------


def proved(scene: Scene) -> RawPeer:
    peer = scene.stranger()
    peer.authenticate()
    return peer


def they_trust(scene: Scene) -> RawPeer:
    """Their user has accepted alice, hers not them."""
    peer = scene.asker()
    peer.send_frame(trusted())
    return peer


def we_trust(scene: Scene) -> RawPeer:
    """alice's user has accepted them, theirs not alice."""
    peer = scene.asker()
    scene.alice.rpc("contacts.accept", contact="mallory")
    peer.expect(Trusted)
    return peer


STATES: dict[str, Callable[[Scene], RawPeer]] = {
    "nothing said": lambda scene: scene.stranger(),
    "proved": proved,
    "greeted": lambda scene: scene.asker(),
    "they trust": they_trust,
    "we trust": we_trust,
    "open": lambda scene: scene.contact().peer,
}
# What may come; anything else ends the link.  Written out once more here, from the protocol.
MAY_COME: dict[str, set[type[Frame]]] = {
    "nothing said": {Auth, LinkError},
    "proved": {Hello, LinkError},
    "greeted": {Trusted, Ping, Pong, LinkError},
    "they trust": {Trusted, Ping, Pong, LinkError},
    "we trust": {Trusted, Ping, Pong, LinkError},
    "open": {Trusted, Envelope, Ack, Ping, Pong, LaneOffer, LaneAnswer, LinkError},
}


def still_speaks(scene: Scene, state: str, peer: RawPeer) -> bool:
    """Whether alice still listens on this link, shown by the next proper step."""
    step = {"nothing said": peer.auth(), "proved": hello(explicit=True)}.get(state, Ping(nonce=5))
    try:
        peer.send_frame(step)
        peer.expect(Auth if state == "nothing said" else Hello if state == "proved" else Pong)
    except PeerClosed:
        return False
    return True


@pytest.mark.parametrize("state", list(STATES))
def test_every_type_in_every_state(scene: Scene, state: str) -> None:
    for kind in TYPES.values():
        with STATES[state](scene) as peer:
            peer.send_frame(good(kind, peer))
            if kind not in MAY_COME[state]:
                where = f"{scene.source}:{peer.sock.getsockname()[1]}"
                error = told(peer)
                assert error.code == "unexpected", (kind, error)
                assert kind.__name__ in error.text
                scene.said(f"at {where} ended by us: unexpected: {kind.__name__} while ")
            elif kind is LinkError:
                assert peer.wait_closed() is not None
            else:
                peer.send_body(0x7FFF, b"odd: to be ignored")
                peer.send_body(0x7FFE, b"even: not to be")
                assert told(peer).code == "unsupported", kind
        scene.forget()
    scene.undisturbed()


@pytest.mark.parametrize("state", list(STATES))
def test_broken_bodies_in_every_state(scene: Scene, state: str) -> None:
    for kind in sorted(MAY_COME[state], key=lambda kind: NUMBERS[kind]):
        for body in (b"", b"\xc1", b"\x80", b"\x90", b"\xdf\xff\xff\xff\xff"):
            with STATES[state](scene) as peer:
                peer.send_body(NUMBERS[kind], body)
                assert told(peer).code == "malformed"
            scene.forget()
    scene.undisturbed()


def test_unknown_types_are_ignored_where_odd(scene: Scene) -> None:
    for state, bring in STATES.items():
        with bring(scene) as peer:
            for number in (0x0001, 0x0007, 0xFFFF):
                peer.send_body(number, os.urandom(100))
            assert still_speaks(scene, state, peer), state
        scene.forget()
    scene.undisturbed()


# -- sizes --------------------------------------------------------------------------------


def test_a_stranger_s_frame_of_more_than_4_kib_ends_the_link(scene: Scene) -> None:
    for bring in (scene.stranger, lambda: proved(scene), scene.asker):
        with bring() as peer:
            peer.send_raw(HEADER.pack(limits.STRANGER_FRAME_BYTES_MAX + 1, 0x0004))
            assert told(peer).code == "malformed"
    scene.said("a frame of 4097 bytes", times=3)
    scene.undisturbed()


@pytest.mark.parametrize("length", [0, 1, limits.FRAME_BYTES_MAX + 1, 2**32 - 1])
def test_a_contact_s_frame_of_a_wrong_length_ends_the_link(scene: Scene, length: int) -> None:
    mallory = scene.contact()
    mallory.peer.send_raw(struct.pack(">IH", length, 0x0008))
    assert mallory.told().code == "malformed"
    scene.said(f"ended by us: malformed: a frame of {length} bytes")
    scene.undisturbed()


def test_the_largest_frame_is_taken(scene: Scene) -> None:
    mallory = scene.contact()
    mallory.peer.send_body(0x0009, bytes(limits.FRAME_BYTES_MAX - 2))
    mallory.put(Text(text="behind it", sent_at=0))
    mallory.acknowledged()
    assert scene.alice.texts("mallory") == ["behind it"]
    mallory.peer.close()
    scene.undisturbed()


def test_a_frame_that_is_cut_short_is_nobody_s_trouble(scene: Scene) -> None:
    frame = encode(Ping(nonce=5))
    for bring in (scene.stranger, scene.asker, lambda: scene.contact().peer):
        for size in (1, 4, 5, len(frame) - 1):
            with bring() as peer:
                peer.send_raw(frame[:size])
            scene.forget()
    scene.undisturbed()


def test_maps_by_the_million_cost_no_memory(scene: Scene) -> None:
    with scene.contact().peer as peer:  # a million do not even begin
        body = b"\x81\xa1z\xdd" + struct.pack(">I", 1_000_000) + b"\x80" * 1_000_000
        with pytest.raises(PeerClosed):
            peer.send_body(NUMBERS[Trusted], body)
            told(peer)
            raise PeerClosed
    count = limits.FRAME_BYTES_MAX - 100
    many = b"\xdd" + struct.pack(">I", count) + b"\x80" * count
    for number in (1, 2, 3):
        mallory = scene.contact(f"mallory{number}")
        in_unknown = msgspec.msgpack.encode({"nonce": 5})[1:] + b"\xa1z" + many
        for _ in range(10):  # in a field that nobody knows it is skipped
            mallory.peer.send_body(NUMBERS[Ping], b"\x82" + in_unknown)
        for _ in range(10):
            assert mallory.peer.expect(Pong) == Pong(nonce=5)
        mallory.peer.send_body(NUMBERS[Trusted], b"\x81\xa9addresses" + many)
        assert mallory.told().code == "malformed"
    scene.undisturbed(grown=4 * MIB)


# -- who sends and does not read ----------------------------------------------------------


def test_who_asks_and_does_not_read_is_cut_before_it_costs_much(scene: Scene) -> None:
    peer = scene.asker()
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.sock.settimeout(SOON_S)
    pings = encode(Ping(nonce=2**60)) * 1000
    with pytest.raises(PeerClosed):
        for _ in range(2000):
            peer.send_raw(pings)
    peer.close()
    scene.said("the other side does not take what is sent to it")
    scene.undisturbed(grown=4 * MIB)


# -- hellos -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "evil\x1b[2Jname"},
        {"name": "two\nlines"},
        {"name": "nul\0"},
        {"name": "\u202eecila"},
        {"name": "zero\u200bwidth"},
        {"name": ""},
        {"name": "x" * 65},
        {"features": ["x"] * 33},
        {"features": ["x" * 33]},
        {"instance": b"short"},
        {"frame_bytes_max": 1023},
        {"frame_bytes_max": 2**31},
        {"protocol_min": 0},
    ],
    ids=lambda changes: ascii(changes)[1:40],
)
def test_a_bad_hello_ends_the_link(scene: Scene, changes: dict[str, object]) -> None:
    with proved(scene) as peer:
        peer.send_frame(hello(explicit=True, **changes))
        assert told(peer).code == "malformed"
    assert [c["name"] for c in scene.alice.rpc("contacts.list")["contacts"]] == ["bob"]
    (line,) = scene.lines()
    assert line.isprintable()
    scene.undisturbed()


@pytest.mark.parametrize(("lowest", "highest"), [(2, 9), (2, 1), (65_535, 65_535)])
def test_another_version_is_told_so(scene: Scene, lowest: int, highest: int) -> None:
    with proved(scene) as peer:
        peer.send_frame(hello(explicit=True, protocol_min=lowest, protocol_max=highest))
        error = told(peer)
    assert error.code == "version"
    assert "we speak 1" in error.text
    scene.said("ended by us: version")
    scene.undisturbed()


def test_a_stranger_who_does_not_ask_is_not_taken(scene: Scene) -> None:
    with proved(scene) as peer:
        peer.send_frame(hello(explicit=False))
        assert told(peer).code == "not_contact"
    scene.undisturbed()
