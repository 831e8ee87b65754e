"""Strangers who ask to be contacts: few, once for each key, and nothing else of them is kept."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bystanders import SOON_S, RawContact, Scene, told
from harness import Daemon, wait_for
from peer import PeerClosed, hello, trusted
from tntd import limits
from tntd.machines.addresses import told_addresses
from tntd.wire.frames import LinkError

Start = Callable[..., Daemon]


def contacts(scene: Scene) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = scene.alice.rpc("contacts.list")["contacts"]
    return [each for each in found if each["name"] != "bob"]


def test_one_request_for_a_key(scene: Scene) -> None:
    seed = os.urandom(32)
    for number in range(8):
        with scene.asker(f"name{number}", seed=seed):
            pass
    assert [each["name"] for each in contacts(scene)] == ["name0"]
    with contextlib.ExitStack() as stack:  # each as if started anew, and pushing the last one out
        for _ in range(10):
            stack.enter_context(scene.asker("again", seed=seed))
    types = [event["type"] for event in scene.events()]
    assert types == ["contact.request"]
    scene.undisturbed()


def test_what_strangers_say_of_themselves_and_us_is_not_kept(scene: Scene) -> None:
    seed = os.urandom(32)
    told_of = ["127.0.0.1:22", "192.0.2.1:80"]
    for code in ("twin", "not_contact", "storage", "\x1b[2J"):
        with scene.asker(seed=seed) as peer:
            peer.send_frame(trusted(port=22, addresses=told_of, lowest=9, highest=2**62))
            peer.send_frame(LinkError(code=code, text="\x1b]0;title\x07" * 30))
            peer.wait_closed()
    (mallory,) = contacts(scene)
    assert (mallory["trust"], mallory["addresses"], mallory["unread"]) == ("pending", [], 0)
    events = scene.events()
    assert {event["type"] for event in events} <= {"contact.request", "contact.changed"}
    assert all(line.isprintable() for line in scene.log())
    scene.undisturbed()


def test_requests_that_wait_are_bounded(scene: Scene) -> None:
    for number in range(limits.PENDING_CONTACTS_MAX):
        source = f"127.9.{number // 25}.2"  # not more than one address may try
        wait_for(lambda number=number, source=source: asked(scene, f"m{number}", source), SOON_S)
    assert len(contacts(scene)) == limits.PENDING_CONTACTS_MAX
    with scene.stranger() as peer:
        peer.authenticate()
        peer.send_frame(hello(name="one too many", explicit=True))
        assert told(peer).code == "limit"
    assert len(contacts(scene)) == limits.PENDING_CONTACTS_MAX
    scene.said("ended by us: limit")
    # Whoever our own user connects to is taken in spite of them.
    scene.undisturbed()


def asked(scene: Scene, name: str, source: str) -> bool:
    try:
        with scene.asker(name, source=source):
            return True
    except (PeerClosed, ConnectionError):
        return False  # too many handshakes at once: again, a little later


def test_links_of_those_who_wait_are_bounded(scene: Scene) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(limits.PENDING_LINKS_MAX):
            source = f"127.8.{number // 16}.2"
            stack.enter_context(scene.asker(f"m{number}", source=source))
        with scene.stranger() as peer:
            peer.send_frame(peer.auth())
            assert told(peer).code == "limit"
        scene.talk()
    scene.undisturbed()


def test_without_strangers_nobody_else_gets_an_answer(daemon: Start, home: Path) -> None:
    config = home / "tnt.toml"
    config.write_text("strangers = false\n")
    alice = daemon("alice", "--config", str(config))
    scene = Scene.__new__(Scene)
    scene.alice, scene.source = alice, "127.0.0.2"
    with scene.stranger() as peer:
        peer.send_frame(peer.auth())
        assert peer.wait_closed() == []
    assert alice.log().count("gets no answer") == 1
    assert alice.rpc("contacts.list")["contacts"] == []


# -- addresses ----------------------------------------------------------------------------

BAD_ADDRESSES = [
    "/etc/passwd",
    "\x1b[2J:1",
    "example.com:80",  # a name would be looked up
    "0.0.0.0:1",
    "224.0.0.1:5",
    "[::]:1",
    "127.0.0.1:99999",
    "127.0.0.1",
]


def test_addresses_that_are_none_are_passed_over(scene: Scene) -> None:
    with scene.contact(trusted={"addresses": BAD_ADDRESSES}) as mallory:
        assert mallory.theirs
        scene.talk()
        assert contacts(scene)[0]["addresses"] == []
    more = {"addresses": ["192.0.2.7:40377", "[2001:db8::1]:1"], "port": 40_377}
    seed = os.urandom(32)
    with scene.contact("carol", seed=seed, trusted=more):
        expected = {f"{scene.source}:40377", "192.0.2.7:40377", "[2001:db8::1]:1"}
        wait_for(lambda: set(contacts(scene)[1]["addresses"]) == expected, SOON_S)
    scene.undisturbed()


def test_a_ninth_address_is_malformed(scene: Scene) -> None:
    peer = scene.asker()
    scene.alice.rpc("contacts.accept", contact="mallory")
    peer.send_frame(trusted(addresses=[f"192.0.2.{number}:1" for number in range(9)]))
    assert told(peer).code == "malformed"
    scene.undisturbed()


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:22",
        "127.9.9.9:22",
        "[::1]:22",
        "[::ffff:127.0.0.1]:22",
        "[::ffff:0.0.0.0]:22",
        "[::ffff:224.0.0.1]:22",
        "169.254.1.1:22",
        "[::ffff:169.254.1.1]:22",
        "[fe80::1]:22",
        "[fe80::1%lo]:22",
        "0.0.0.0:22",
        "[::]:22",
        "[ff02::1]:22",
    ],
)
def test_from_afar_nobody_sends_us_to_our_own_services(text: str) -> None:
    assert told_addresses([text], 0, "192.0.2.7") == []


def test_raw_contacts_come_back(scene: Scene) -> None:
    """A contact that has hung up and comes again finds its outbox as it left it."""
    seed = os.urandom(32)
    with scene.contact(seed=seed) as mallory:
        epoch = mallory.epoch
    again = scene.stranger(seed=seed)
    again.authenticate()
    again.greet(name="mallory")
    with RawContact(again, epoch=epoch) as mallory:
        assert mallory.theirs.peer_epoch == epoch
    scene.undisturbed()
