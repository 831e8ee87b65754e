"""Proofs of identity that prove nothing: wrong, replayed, passed on, by a key that is none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from bystanders import SOON_S, Scene, told
from harness import Client, Daemon, RpcError, wait_for
from peer import RawPeer, hello, listener
from tntd.machines.identity import Identity, id_to_key
from tntd.wire.frames import Auth, Hello, LinkError


def refused(scene: Scene, peer: RawPeer, code: str = "authentication") -> None:
    """alice ends this link and says why, here and in her log, and nothing about herself."""
    port = peer.sock.getsockname()[1]
    frames = peer.wait_closed()
    assert [type(frame) for frame in frames] == [LinkError], frames
    assert isinstance(frames[0], LinkError)
    assert frames[0].code == code
    # A port may be used twice by the system, so there may be two such lines.
    where = f"a peer at {scene.source}:{port}"
    wait_for(lambda: any(f"{where} ended by us: {code}" in line for line in scene.log()), SOON_S)


# -- who dials alice ----------------------------------------------------------------------


def test_a_wrong_signature_ends_the_link(scene: Scene) -> None:
    wrong: dict[str, Callable[[RawPeer], bytes]] = {
        "zeroes": lambda peer: bytes(64),
        "random": lambda peer: os.urandom(64),
        "over another connection": lambda peer: peer.identity.sign_dial(os.urandom(32)),
        "as acceptor": lambda peer: peer.identity.sign_accept(peer.exporter, peer.identity.public),
        "by another key": lambda peer: Identity(os.urandom(32)).sign_dial(peer.exporter),
        "one bit turned": lambda peer: (
            bytes([peer.auth().signature[0] ^ 1]) + peer.auth().signature[1:]
        ),
        # s + L instead of s: the same number, written in a second way
        "malleable": lambda peer: peer.auth().signature[:32] + plus_order(peer.auth().signature),
    }
    for sign in wrong.values():
        with scene.stranger() as peer:
            peer.send_frame(Auth(key=peer.identity.public, signature=sign(peer)))
            refused(scene, peer)
    assert len(scene.lines()) == len(wrong)
    scene.undisturbed()


def plus_order(signature: bytes) -> bytes:
    order = 2**252 + 27742317777372353535851937790883648493
    return (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")


def test_a_key_that_is_none_proves_nothing(scene: Scene) -> None:
    identity_point = b"\x01" + bytes(31)
    for key, signature in [
        (bytes(32), bytes(64)),
        (identity_point, identity_point + bytes(32)),  # fits every text, where not looked at
        (identity_point[:31] + b"\x80", identity_point + bytes(32)),
        (b"\xee" + b"\xff" * 30 + b"\x7f", identity_point + bytes(32)),  # the same point as p + 1
        (b"\xff" * 32, b"\xff" * 64),
        (b"\x02" + bytes(31), bytes(64)),  # on no point of the curve
    ]:
        for _ in range(4):  # 32 zero bytes fit one exporter in four
            with scene.stranger() as peer:
                peer.send_frame(Auth(key=key, signature=signature))
                refused(scene, peer)
    scene.undisturbed()


def test_our_own_key_is_told_from_others(scene: Scene) -> None:
    key = id_to_key(scene.alice.id)
    assert key is not None
    with scene.stranger() as peer:
        peer.send_frame(Auth(key=key, signature=bytes(64)))
        refused(scene, peer, "self")
    scene.undisturbed()


def test_a_signature_is_good_for_one_connection(scene: Scene) -> None:
    with scene.stranger() as first:
        first.authenticate()
        proof = first.auth()
        with scene.stranger() as second:
            second.send_frame(proof)
            refused(scene, second)
    scene.undisturbed()


# -- whom alice dials ---------------------------------------------------------------------


@contextmanager
def dialled(victim: Daemon) -> Iterator[tuple[RawPeer, Client, int]]:
    """The victim's user connects to somebody: that one, and the user's call that waits."""
    with listener() as door, victim.client() as user:
        call = user.send("peers.connect", address=f"127.0.0.1:{door.getsockname()[1]}")
        with RawPeer.accept(door) as peer:
            yield peer, user, call


def test_who_is_dialled_has_to_prove_a_key(scene: Scene) -> None:
    zeroes = Auth(key=bytes(32), signature=bytes(64))
    wrong: dict[str, Callable[[RawPeer], Auth]] = {
        "no key": lambda peer: zeroes,
        "wrong": lambda peer: Auth(key=peer.identity.public, signature=os.urandom(64)),
        "as dialler": lambda peer: Auth(
            key=peer.identity.public, signature=peer.identity.sign_dial(peer.exporter)
        ),
        "for another": lambda peer: Auth(
            key=peer.identity.public,
            signature=peer.identity.sign_accept(peer.exporter, os.urandom(32)),
        ),
    }
    for answer in wrong.values():
        with dialled(scene.alice) as (peer, user, call):
            peer.expect(Auth)
            peer.send_frame(answer(peer))
            peer.send_frame(hello(explicit=True))
            assert told(peer).code == "authentication"
            with pytest.raises(RpcError, match=r"signature|the key is none") as error:
                user.reply(call)
            assert (error.value.code, error.value.data["hint"] != "") == (7, True)
    scene.said("ended by us: authentication", times=len(wrong))
    assert [c["name"] for c in scene.alice.rpc("contacts.list")["contacts"]] == ["bob"]
    scene.undisturbed()


def test_our_own_proof_sent_back_proves_nothing(scene: Scene) -> None:
    with dialled(scene.alice) as (peer, user, call):
        peer.send_frame(peer.expect(Auth))
        peer.send_frame(hello(explicit=True))
        assert told(peer).code == "self"
        with pytest.raises(RpcError, match="this very daemon"):
            user.reply(call)
    scene.undisturbed()


# -- somebody in between ------------------------------------------------------------------


def test_a_dialler_s_proof_cannot_be_passed_on(scene: Scene) -> None:
    with dialled(scene.bob) as (to_bob, user, call), scene.stranger() as to_alice:
        to_alice.send_frame(to_bob.expect(Auth))  # bob's own, for what he thinks is alice
        refused(scene, to_alice)
        to_bob.close()
        with pytest.raises(RpcError) as error:
            user.reply(call)
        assert error.value.code == 7
    scene.undisturbed()


def test_an_acceptor_s_proof_cannot_be_passed_on(scene: Scene) -> None:
    with dialled(scene.alice) as (to_alice, user, call):
        to_alice.expect(Auth)
        with RawPeer.dial("127.0.0.1", scene.bob.port) as to_bob:
            to_bob.send_frame(to_bob.auth())
            bobs = to_bob.expect(Auth)
            to_bob.expect(Hello)
            to_alice.send_frame(bobs)
            to_alice.send_frame(hello(name="bob", explicit=True))
            assert told(to_alice).code == "authentication"
        with pytest.raises(RpcError, match="signature"):
            user.reply(call)
    scene.said("ended by us: authentication")
    scene.undisturbed()
