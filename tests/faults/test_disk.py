"""A disk that is full, takes nothing, or turns read-only: said, survived, and recovered from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faults.disks import SmallDisk, locked, nothing_writable, small_disk
from harness import Daemon, RpcError, connect_pair, wait_for, wait_linked
from moving import (
    digest,
    make,
    make_tree,
    picture,
    send,
    slow,
    transfer,
    wait_state,
    waits_for_room,
)
from tntd import limits

Start = Callable[..., Daemon]
MIB = 1024 * 1024
STORAGE = 10


@pytest.fixture
def disk(home: Path) -> Iterator[SmallDisk]:
    """alice's data folder is a disk of 24 MiB."""
    made = small_disk(home / "data" / "alice", 24 * MIB)
    yield made
    made.close()


def pair(daemon: Start, home: Path) -> tuple[Daemon, Daemon]:
    """Two linked daemons, whose downloads are on the other disk."""
    alice = daemon("alice", "--downloads", str(home / "a"))
    bob = daemon("bob", "--downloads", str(home / "b"))
    connect_pair(alice, bob)
    return alice, bob


def reserve(daemon: Daemon) -> int:
    return (daemon.data / "reserve").stat().st_size


def refused(daemon: Daemon, method: str, **params: Any) -> RpcError:
    """The error of a request that the disk does not allow."""
    with pytest.raises(RpcError) as caught:
        daemon.rpc(method, **params)
    assert caught.value.code == STORAGE, caught.value
    assert "disk space" in caught.value.data["hint"]
    return caught.value


def flood(sender: Daemon, to: str, count: int, size: int = 4000) -> list[str]:
    """Queue messages; their texts."""
    texts = [f"{sender.name} {number} " + "x" * size for number in range(count)]
    for text in texts:
        sender.rpc("messages.send", to=to, text=text)
    return texts


def heard(daemon: Daemon, other: str) -> list[str]:
    return [m["text"] for m in daemon.all_messages(other) if m["from"] == other]


def all_heard(daemon: Daemon, other: str, texts: list[str]) -> None:
    """They arrive: all, once, in order."""
    wait_for(lambda: len(heard(daemon, other)) >= len(texts), 90, "all that was sent arrives")
    assert heard(daemon, other) == texts


def no_traceback(*daemons: Daemon) -> None:
    for each in daemons:
        assert "Traceback" not in each.log() + each.stderr()


def test_a_full_disk(daemon: Start, home: Path, disk: SmallDisk) -> None:
    alice, bob = pair(daemon, home)
    carol = daemon("carol", "--downloads", str(home / "c"))
    connect_pair(alice, carol)
    carol.sigterm()
    path = home / "f.bin"
    path.write_bytes(b"x" * 1000)
    (sent,) = alice.rpc("transfers.send", to="carol", paths=[str(path)])["transfers"]
    watching = alice.client(subscribe=True)
    first = flood(bob, "alice", 3)
    all_heard(alice, "bob", first)
    assert reserve(alice) == limits.RESERVE_BYTES

    disk.fill()
    texts = first + flood(bob, "alice", 400)
    wait_for(lambda: reserve(alice) == 0, what="the reserve is given up")
    # It is said: to whoever watches, to whoever asks, in the log, and to the other side.
    said = watching.wait_event("error", lambda event: "disk" in event["text"])
    assert "free some disk space" in said["hint"]
    refused(alice, "messages.send", to="bob", text="no room")
    refused(alice, "transfers.send", to="bob", paths=[str(path)])
    refused(alice, "peers.connect", address=bob.address)
    wait_for(lambda: "the store failed" in alice.log(), what="it is logged")
    wait_for(lambda: "ended it: storage" in bob.log(), what="bob's log")
    # What is promised is kept, and what can be done is done.
    arrived = heard(alice, "bob")
    assert arrived == texts[: len(arrived)]
    assert bob.contact("alice")["queued"] >= len(texts) - len(arrived) > 0
    assert alice.rpc("transfers.cancel", transfer=sent["id"])["transfer"]["state"] == "cancelled"
    alice.rpc("messages.read", conversation="bob", upto=alice.all_messages("bob")[-1]["id"])
    alice.rpc("contacts.remove", contact="carol")

    disk.free()
    all_heard(alice, "bob", texts)
    wait_for(lambda: reserve(alice) == limits.RESERVE_BYTES, what="a reserve again")
    alice.rpc("messages.send", to="bob", text="there is room")
    all_heard(bob, "alice", ["there is room"])
    wait_for(lambda: not bob.contact("alice")["queued"])
    no_traceback(alice, bob)


def test_acknowledgements_on_a_full_disk(daemon: Start, home: Path, disk: SmallDisk) -> None:
    """What was queued before still goes out, and leaves the outbox."""
    alice, bob = pair(daemon, home)
    bob.sigterm()
    texts = flood(alice, "bob", 50)
    disk.fill()
    with pytest.raises(RpcError):
        flood(alice, "bob", 5000)
    wait_for(lambda: reserve(alice) == 0)
    queued = alice.contact("bob")["queued"]
    assert queued >= len(texts)
    bob.start()
    wait_for(lambda: alice.contact("bob")["queued"] == 0, 90, "all is acknowledged")
    assert len(heard(bob, "alice")) == queued
    assert heard(bob, "alice")[:50] == texts
    assert reserve(alice) == 0, "the disk is still full"
    disk.free()
    wait_for(lambda: reserve(alice) == limits.RESERVE_BYTES)
    no_traceback(alice, bob)


def test_killed_and_started_on_a_full_disk(daemon: Start, home: Path, disk: SmallDisk) -> None:
    alice, bob = pair(daemon, home)
    disk.fill()
    texts = flood(bob, "alice", 400)
    wait_for(lambda: reserve(alice) == 0)
    arrived = len(heard(alice, "bob"))
    disk.fill()  # what the reserve gave, too
    for _ in range(3):
        alice.restart()
        assert len(heard(alice, "bob")) >= arrived, "what was acknowledged is there"
        refused(alice, "messages.send", to="bob", text="no room")
    disk.free()
    all_heard(alice, "bob", texts)
    wait_linked(alice, bob)
    alice.rpc("messages.send", to="bob", text="there is room")
    assert alice.sigterm() == 0
    assert bob.stderr() == ""


def test_a_disk_that_takes_nothing(daemon: Start, home: Path) -> None:
    """As by a quota, or an I/O error: not even the reserve helps."""
    alice, bob = pair(daemon, home)
    watching = alice.client(subscribe=True)
    with nothing_writable(alice.pid):
        texts = flood(bob, "alice", 20)
        error = refused(alice, "messages.send", to="bob", text="no")
        assert error.message
        wait_for(lambda: "ended it: storage" in bob.log(), what="bob is told")
        assert heard(alice, "bob") == [], "reading goes on"
        assert alice.rpc("status")["name"] == "alice"
        with pytest.raises(RpcError):
            alice.rpc("contacts.rename", contact="bob", name="robert")
    all_heard(alice, "bob", texts)
    wait_linked(alice, bob)
    assert alice.contact("bob")["name"] == "bob"
    message = alice.rpc("messages.send", to="bob", text="yes")["message"]
    watching.wait_event("message.state", lambda event: event["message"]["id"] == message["id"])
    assert heard(bob, "alice") == ["yes"]
    no_traceback(alice, bob)
    assert alice.sigterm() == 0


def test_it_can_be_stopped_while_nothing_can_be_written(daemon: Start, home: Path) -> None:
    alice, _ = pair(daemon, home)
    with nothing_writable(alice.pid):
        refused(alice, "messages.send", to="bob", text="no")
        assert alice.sigterm() == 0
    alice.start()
    assert alice.all_messages("bob") == []


def test_a_store_that_turns_read_only(daemon: Start, home: Path) -> None:
    alice, bob = pair(daemon, home)
    with locked(*alice.data.glob("tnt.db*")):
        texts = flood(bob, "alice", 20)
        refused(alice, "messages.send", to="bob", text="no")
        wait_for(lambda: "the store failed" in alice.log(), what="it is logged")
        assert heard(alice, "bob") == []
    all_heard(alice, "bob", texts)
    no_traceback(alice, bob)


def test_downloads_on_a_full_disk(daemon: Start, home: Path) -> None:
    """A file has no room: it waits and says why, chat goes on; it comes when there is room."""
    small = small_disk(home / "downloads", 8 * MIB)
    config = home / "bob.toml"
    config.write_text("reserve_bytes = 0\n")
    alice = daemon("alice")
    bob = daemon("bob", "--config", str(config), "--downloads", str(small.path))
    try:
        connect_pair(alice, bob)
        path = home / "f.bin"
        path.write_bytes(b"y" * (4 * MIB))
        small.fill()
        (sent,) = alice.rpc("transfers.send", to="bob", paths=[str(path)])["transfers"]
        bob_has = lambda: bob.rpc("transfers.list")["transfers"]  # noqa: E731
        wait_for(lambda: [each["state"] for each in bob_has()] == ["offered"], what="it asks")
        bob.rpc("transfers.accept", transfer=sent["id"])
        for each in (alice, bob):
            wait_for(lambda each=each: waits_for_room(each, sent["id"]), what="it says why")
        alice.rpc("messages.send", to="bob", text="still here")
        all_heard(bob, "alice", ["still here"])
        small.free()
        done = wait_state(alice, sent["id"], "done")
        assert done["error"] is None
        assert (small.path / "new_f.bin").read_bytes() == path.read_bytes()
        no_traceback(alice, bob)
    finally:
        alice.clean_up()
        bob.clean_up()
        small.close()


def test_a_disk_that_fills_up_in_the_middle_of_a_file(daemon: Start, home: Path) -> None:
    """On a file system where no space is set aside: what is there is kept, and not sent again."""
    small = small_disk(home / "downloads", 32 * MIB)
    config = home / "bob.toml"
    config.write_text("reserve_bytes = 0\n")
    alice = daemon("alice")
    bob = daemon("bob", "--config", str(config), "--downloads", str(small.path))
    try:
        connect_pair(alice, bob)
        size = 24 * MIB
        path = make(home / "f.bin", size)
        slow(alice, 2 * MIB)
        (sent,) = send(alice, "bob", path)
        wait_for(lambda: transfer(bob, sent["id"])["bytes_done"] > size // 4, what="a quarter")
        small.fill()
        slow(alice, 0)
        for each in (alice, bob):
            wait_for(lambda each=each: waits_for_room(each, sent["id"]), what="it says why")
        kept = transfer(bob, sent["id"])["bytes_done"]
        assert kept > size // 4
        assert not list(small.path.glob("new_*"))
        alice.rpc("messages.send", to="bob", text="still here")
        all_heard(bob, "alice", ["still here"])
        small.free()
        done = wait_state(alice, sent["id"], "done")
        assert done["error"] is None
        assert done["bytes_resent"] <= 4 * MIB < kept, "it went on where it was"
        assert digest(small.path / "new_f.bin") == digest(path)
        no_traceback(alice, bob)
    finally:
        alice.clean_up()
        bob.clean_up()
        small.close()


def test_a_disk_that_fills_up_in_the_middle_of_a_folder(daemon: Start, home: Path) -> None:
    """What is there is kept, and it goes on when there is room again."""
    small = small_disk(home / "downloads", 16 * MIB)
    config = home / "bob.toml"
    config.write_text("reserve_bytes = 0\n")
    alice = daemon("alice")
    bob = daemon("bob", "--config", str(config), "--downloads", str(small.path))
    try:
        connect_pair(alice, bob)
        tree = make_tree(home / "tree", files=80)
        slow(alice, MIB // 2)
        (sent,) = send(alice, "bob", tree)
        wait_for(lambda: transfer(bob, sent["id"])["bytes_done"] > 0, what="it has begun")
        small.fill()
        slow(alice, 0)
        wait_for(lambda: "again" in (transfer(alice, sent["id"])["error"] or ""), what="it waits")
        assert not list(small.path.glob("new_*"))
        small.free()
        wait_state(alice, sent["id"], "done")
        assert picture(small.path / "new_tree") == picture(tree)
        no_traceback(alice, bob)
    finally:
        alice.clean_up()
        bob.clean_up()
        small.close()


def test_a_downloads_folder_that_is_locked_in_the_end(daemon: Start, home: Path) -> None:
    """What has arrived is kept until it may be put in its place, and its user sees why it waits."""
    alice, bob = pair(daemon, home)
    path = make(home / "f.bin", 4 * MIB)
    slow(alice, MIB)
    id = send(alice, "bob", path)[0]["id"]
    wait_for(lambda: transfer(bob, id).get("bytes_done"), what="it comes")
    with locked(home / "b"):
        slow(alice, 0)
        words = "the receiver's downloads folder: not permitted; it will be tried again"
        wait_for(lambda: transfer(bob, id)["error"] == words, what="it says why")
        assert transfer(alice, id)["state"] == "active"
        alice.rpc("messages.send", to="bob", text="still here")
        all_heard(bob, "alice", ["still here"])
    wait_state(alice, id, "done")
    assert digest(home / "b" / "new_f.bin") == digest(path)
    assert [each.name for each in (home / "b").iterdir()] == ["new_f.bin"]
