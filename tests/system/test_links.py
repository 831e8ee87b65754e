"""Links between real daemons: one for each pair, trust, wrong keys, coming back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import Daemon, RpcError, accept, connect_pair, thread_count, wait_for, wait_linked

Start = Callable[..., Daemon]
ROUNDS = 50


def links(daemon: Daemon) -> int:
    return int(daemon.rpc("status")["links"])


def test_both_sides_dial_at_once_fifty_times(daemon: Start) -> None:
    alice, bob = daemon("alice"), daemon("bob")
    connect_pair(alice, bob)
    at_alice, at_bob = alice.client(), bob.client()
    for number in range(ROUNDS):
        one = at_alice.send("peers.connect", address=bob.address)
        two = at_bob.send("peers.connect", address=alice.address)
        assert at_alice.reply(one)["contact"]["name"] == "bob"
        assert at_bob.reply(two)["contact"]["name"] == "alice"
        alice.rpc("messages.send", to="bob", text=f"a{number}")
        bob.rpc("messages.send", to="alice", text=f"b{number}")
    wait_for(lambda: not alice.contact("bob")["queued"] and not bob.contact("alice")["queued"])
    wait_linked(alice, bob)
    assert links(alice) == links(bob) == 1
    expected = [f"a{number}" for number in range(ROUNDS)]
    assert [m["text"] for m in bob.all_messages("alice") if m["from"] == "alice"] == expected
    for each in (alice, bob):
        wait_for(lambda each=each: established(each) <= 2, what="one connection is left")


def established(daemon: Daemon) -> int:
    """Open connections of the daemon on its peer port, both ways (each end counts once)."""
    import psutil

    found = psutil.Process(daemon.pid).net_connections("inet")
    return sum(1 for connection in found if connection.status == "ESTABLISHED")


@pytest.mark.parametrize("round", range(5))
def test_both_dial_for_the_first_time_at_once(daemon: Start, round: int) -> None:
    alice, bob = daemon("alice"), daemon("bob")
    at_alice, at_bob = alice.client(), bob.client()
    one = at_alice.send("peers.connect", address=bob.address)
    two = at_bob.send("peers.connect", address=alice.address)
    at_alice.reply(one)
    at_bob.reply(two)
    wait_linked(alice, bob)
    assert alice.contact("bob")["trust"] == bob.contact("alice")["trust"] == "accepted"
    assert alice.contact("bob")["key_exchange"] == "X25519MLKEM768"


def test_connect_from_one_side_is_a_request_that_waits(daemon: Start) -> None:
    alice, bob = daemon("alice"), daemon("bob")
    watching = bob.client(subscribe=True)
    alice.rpc("peers.connect", address=bob.address)
    asked = watching.wait_event("contact.request")["contact"]
    assert (asked["name"], asked["trust"]) == ("alice", "pending")
    alice.rpc("messages.send", to="bob", text="are you there?")
    with pytest.raises(RpcError) as caught:
        bob.rpc("messages.send", to="alice", text="who?")
    assert caught.value.code == 3
    assert "accept alice" in caught.value.data["hint"]
    assert bob.texts("alice") == []
    assert alice.contact("bob")["queued"] == 1
    assert not alice.contact("bob")["mutual"]
    bob.rpc("contacts.accept", contact="alice")
    assert watching.wait_event("message.received")["message"]["text"] == "are you there?"
    wait_linked(alice, bob)


def test_a_request_is_accepted_while_the_asker_is_away(daemon: Start) -> None:
    alice, bob = daemon("alice"), daemon("bob")
    watching = bob.client(subscribe=True)
    alice.rpc("peers.connect", address=bob.address)
    watching.wait_event("contact.request")
    alice.rpc("messages.send", to="bob", text="hello")
    alice.kill9()
    bob.rpc("contacts.accept", contact="alice")
    alice.start()
    wait_linked(alice, bob)
    wait_for(lambda: bob.texts("alice") == ["hello"])


def test_blocked_and_removed(daemon: Start) -> None:
    alice, bob = daemon("alice"), daemon("bob")
    connect_pair(alice, bob)
    bob.rpc("contacts.block", contact="alice")
    wait_for(lambda: not alice.contact("bob")["online"])
    with pytest.raises(RpcError):
        alice.rpc("peers.connect", address=bob.address)
    bob.rpc("contacts.unblock", contact="alice")
    bob.rpc("contacts.accept", contact="alice")
    alice.rpc("peers.connect", address=bob.address)
    wait_linked(alice, bob)
    watching = alice.client(subscribe=True)
    bob.rpc("contacts.remove", contact="alice")
    told = watching.wait_event("error", timeout=60)
    assert "does not have you as a contact" in told["text"]
    assert bob.rpc("contacts.list")["contacts"] == []


def test_another_key_at_a_known_address_is_refused_loudly(daemon: Start, home: Path) -> None:
    alice, bob = daemon("alice"), daemon("bob")
    connect_pair(alice, bob)
    address = bob.address
    watching = alice.client(subscribe=True)
    bob.kill9()
    mallory = daemon("mallory", listen=address)
    with pytest.raises(RpcError) as caught:
        alice.rpc("peers.connect", address=address)
    assert caught.value.code == 8
    assert "--new" in caught.value.data["hint"]
    told = watching.wait_event("error")
    assert "another key" in told["text"]
    assert [c["name"] for c in alice.rpc("contacts.list")["contacts"]] == ["bob"]
    assert alice.rpc("peers.connect", address=address, new=True)["contact"]["id"] == mallory.id


def test_connecting_to_oneself_and_to_nobody(daemon: Start) -> None:
    alice = daemon("alice")
    with pytest.raises(RpcError) as caught:
        alice.rpc("peers.connect", address=alice.address)
    assert caught.value.code == 5
    assert "this very daemon" in caught.value.message
    with pytest.raises(RpcError) as caught:
        alice.rpc("peers.connect", address="127.0.0.1:9")
    assert caught.value.code == 7
    with pytest.raises(RpcError) as caught:
        alice.rpc("peers.connect", address="no.such.host.invalid:9")
    assert caught.value.code == 7


def test_a_restarted_peer_is_linked_again_from_either_side(daemon: Start) -> None:
    alice, bob = daemon("alice"), daemon("bob")
    connect_pair(alice, bob)
    for each in (alice, bob, alice):
        each.restart()
        wait_linked(alice, bob)
    assert thread_count(alice.pid) == 1


def test_a_peer_that_moved_to_another_port_is_found(daemon: Start) -> None:
    alice, bob = daemon("alice"), daemon("bob", listen=None)
    alice.rpc("peers.connect", address=bob.address)
    accept(bob, alice)
    wait_linked(alice, bob)
    port = bob.port
    bob.sigterm()
    squatter = daemon("squatter", listen=f"127.0.0.1:{port}")
    bob.start()
    assert bob.port != port
    wait_linked(alice, bob)
    assert squatter.rpc("status")["contacts"] == 0


# -- databases that go back in time, or are gone ---------------------------------------------


def test_a_restored_backup_of_the_sender_loses_and_doubles_nothing(daemon: Start) -> None:
    alice, bob = daemon("alice"), daemon("bob")
    connect_pair(alice, bob)
    for number in range(5):
        alice.rpc("messages.send", to="bob", text=f"old {number}")
    wait_for(lambda: alice.contact("bob")["queued"] == 0)
    alice.sigterm()
    backup = alice.data.with_name("backup")
    shutil.copytree(alice.data, backup)
    alice.start()
    for number in range(5):
        alice.rpc("messages.send", to="bob", text=f"lost {number}")
    wait_for(lambda: alice.contact("bob")["queued"] == 0)
    cursor = alice.client().cursor
    alice.sigterm()
    bob.sigterm()
    shutil.rmtree(alice.data)
    shutil.copytree(backup, alice.data)
    alice.start()
    # New messages take the numbers of those that the backup has never seen, and more.
    for number in range(9):
        alice.rpc("messages.send", to="bob", text=f"new {number}")
    bob.start()
    wait_for(lambda: alice.contact("bob")["queued"] == 0)
    assert bob.texts("alice") == [
        *(f"old {number}" for number in range(5)),
        *(f"lost {number}" for number in range(5)),
        *(f"new {number}" for number in range(9)),
    ]
    # What a program remembers of the events of before is of another history.
    with pytest.raises(RpcError) as caught:
        alice.client().subscribe(cursor)
    assert caught.value.code == 12
    assert alice.client().subscribe(caught.value.data["cursor"])


def test_a_restored_backup_of_the_receiver_says_what_it_misses(daemon: Start) -> None:
    alice, bob = daemon("alice"), daemon("bob")
    connect_pair(alice, bob)
    bob.sigterm()
    backup = bob.data.with_name("backup")
    shutil.copytree(bob.data, backup)
    bob.start()
    for number in range(4):
        alice.rpc("messages.send", to="bob", text=f"gone {number}")
    wait_for(lambda: alice.contact("bob")["queued"] == 0)
    bob.kill9()
    shutil.rmtree(bob.data)
    shutil.copytree(backup, bob.data)
    bob.start()
    alice.rpc("messages.send", to="bob", text="now")
    wait_for(lambda: "now" in bob.texts("alice"))
    notice, now = bob.rpc("messages.list", conversation="alice")["messages"]
    assert notice["kind"] == "notice"
    assert "4 earlier items from alice" in notice["text"]
    assert now["text"] == "now"


def test_a_lost_database_is_said_and_mended_by_connecting_again(daemon: Start) -> None:
    alice, bob = daemon("alice"), daemon("bob")
    connect_pair(alice, bob)
    for number in range(3):
        alice.rpc("messages.send", to="bob", text=f"first {number}")
    wait_for(lambda: alice.contact("bob")["queued"] == 0)
    watching = alice.client(subscribe=True)
    bob.kill9()
    for file in bob.data.glob("tnt.db*"):
        file.unlink()
    bob.start()
    told = watching.wait_event("error", timeout=60)
    assert "does not have you as a contact" in told["text"]
    alice.rpc("messages.send", to="bob", text="waits")
    alice.rpc("peers.connect", address=bob.address)
    accept(bob, alice)
    wait_for(lambda: alice.contact("bob")["queued"] == 0)
    kinds = [(m["kind"], m["text"]) for m in bob.all_messages("alice")]
    assert kinds[-1] == ("text", "waits")
    assert kinds[0][0] == "notice"
    bob.rpc("messages.send", to="alice", text="back")
    wait_for(lambda: "back" in alice.texts("bob"))


def test_two_copies_of_one_profile_are_a_loud_error(daemon: Start, home: Path) -> None:
    alice, bob = daemon("alice"), daemon("bob")
    connect_pair(alice, bob)
    alice.rpc("messages.send", to="bob", text="one")
    wait_for(lambda: alice.contact("bob")["queued"] == 0)
    alice.sigterm()
    copy_home = home / "copy"
    copy = Daemon("alice", copy_home)
    shutil.copytree(alice.data, copy.data)
    alice.start()
    wait_linked(alice, bob)
    watching = alice.client(subscribe=True)
    twin = daemon("alice", home=copy_home)
    alice.rpc("messages.send", to="bob", text="from the one")
    twin.rpc("messages.send", to="bob", text="from the other")
    told = watching.wait_event("error")
    assert "twice" in told["text"]
    # One at a time, everything arrives all the same.
    twin.sigterm()
    alice.restart()
    wait_for(lambda: "from the one" in bob.texts("alice"))
    alice.sigterm()
    twin.start()
    wait_for(lambda: "from the other" in bob.texts("alice"))
    texts = [m["text"] for m in bob.all_messages("alice") if m["kind"] == "text"]
    assert sorted(texts) == ["from the one", "from the other", "one"], "nothing twice"
