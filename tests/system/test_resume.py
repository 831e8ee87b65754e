"""Resume and delta between real daemons: what is there is not sent again."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.proxy import Proxy
from harness import Daemon, accept, wait_for, wait_linked
from moving import MIB, Start, digest, make, pair, send, slow, transfer, wait_state


@pytest.fixture
def between(daemon: Start, home: Path) -> Iterator[tuple[Daemon, Daemon, Proxy]]:
    """alice and bob, and what stands between them; alice dials, so lanes go through it, too, and
    neither finds another way."""
    config = home / "both.toml"
    config.write_text("advertise = []\nlearn_addresses = false\n")
    alice = daemon("alice", "--config", str(config), "--downloads", str(home / "a"))
    bob = daemon("bob", "--config", str(config), "--downloads", str(home / "b"))
    proxy = Proxy(bob.port, buffer_bytes=64 * 1024)  # it adds little to what is under way
    alice.rpc("peers.connect", address=proxy.address)
    accept(bob, alice)
    wait_linked(alice, bob)
    yield alice, bob, proxy
    proxy.close()


def moves(daemon: Daemon, id: str, more: int) -> bool:
    """Whether more than so many bytes of it came over a lane that is open."""
    found = transfer(daemon, id)
    return bool(found["state"] == "active" and found["bytes_done"] > more)


def until_a_quarter(bob: Daemon, id: str, size: int) -> None:
    wait_for(lambda: transfer(bob, id)["bytes_done"] > size // 4, 60, "a quarter of it is there")


@pytest.mark.parametrize("victim", ["sender", "receiver", "both", "link"])
def test_it_goes_on_where_it_was(between: tuple[Daemon, Daemon, Proxy], victim: str) -> None:
    """What ends it comes while it is slow: it is in the middle for sure."""
    alice, bob, proxy = between
    slow(alice, 10 * MIB)
    size = 80 * MIB
    path = make(alice.home / "big", size)
    (sent,) = send(alice, "bob", path)
    until_a_quarter(bob, sent["id"], size)
    before = transfer(bob, sent["id"])
    assert (before["state"], before["bytes_done"] < size) == ("active", True)
    if victim == "link":
        assert proxy.cut(reset=True), "there was something to cut"
    victims = {"sender": [alice], "receiver": [bob], "both": [alice, bob]}.get(victim, [])
    for each in victims:
        each.kill9()
    assert not list(bob.downloads.glob("new_*")), "it was not over"
    for each in victims:
        each.start()
    slow(alice, 0)
    done = wait_state(alice, sent["id"], "done")
    assert digest(bob.downloads / "new_big") == digest(path)
    assert done["bytes_resent"] <= 4 * MIB
    assert wait_state(bob, sent["id"], "done")["bytes_done"] == size
    # Whatever they count themselves: so much went from one to the other.
    assert size <= proxy.forth.moved <= size + 5 * MIB


def test_a_sender_that_was_killed_tells_what_it_sent_twice(daemon: Start, home: Path) -> None:
    """It does not know what it had sent, but its receiver knows what came."""
    alice, bob = pair(daemon, home)
    slow(alice, 200 * 1024)
    size = MIB - 1  # one block, of which a piece is not kept
    (sent,) = send(alice, "bob", make(home / "small", size))
    wait_for(lambda: transfer(bob, sent["id"])["bytes_done"] > 0, 60, "some of it is there")
    alice.kill9()
    came = wait_state(bob, sent["id"], "queued")["bytes_done"]
    assert 0 < came < size
    alice.start()
    slow(alice, 0)
    # What came right before the end may be counted and not be shown.
    assert came <= wait_state(alice, sent["id"], "done")["bytes_resent"] < size


def test_what_was_sent_twice_is_counted_though_both_were_killed_one_after_the_other(
    daemon: Start, home: Path
) -> None:
    """Each has forgotten a lane, of which the other one knows."""
    alice, bob = pair(daemon, home)
    slow(alice, 100 * 1024)
    size = MIB - 1  # one block, of which a piece is not kept
    (sent,) = send(alice, "bob", make(home / "small", size))
    some, came = 200 * 1024, 0
    for victim, other in ((bob, alice), (alice, bob), (alice, bob)):
        for each in (bob, alice):
            wait_for(lambda each=each: moves(each, sent["id"], some), 60, "some of it is there")
        victim.kill9()
        known = wait_state(other, sent["id"], "queued")["bytes_done"]
        came += known if victim is alice else some
        victim.start()
    slow(alice, 0)
    assert wait_state(alice, sent["id"], "done")["bytes_resent"] >= came


def test_a_part_that_was_damaged_is_mended(daemon: Start, home: Path) -> None:
    """As after a power loss that left holes: nothing is believed that was not read."""
    alice, bob = pair(daemon, home)
    slow(alice, 10 * MIB)
    size = 80 * MIB
    path = make(home / "big", size)
    (sent,) = send(alice, "bob", path)
    until_a_quarter(bob, sent["id"], size)
    bob.kill9()
    (part,) = (bob.downloads / ".tnt-part").iterdir()
    with part.open("r+b") as file:
        for at in (0, 5 * MIB + 5, 15 * MIB):
            file.seek(at)
            file.write(bytes(4096))
    bob.start()
    slow(alice, 0)
    wait_state(alice, sent["id"], "done")
    assert digest(bob.downloads / "new_big") == digest(path)


def test_only_what_changed_is_sent(between: tuple[Daemon, Daemon, Proxy]) -> None:
    """Measured between the two."""
    alice, bob, proxy = between
    size = 40 * MIB + 333
    path = make(alice.home / "disk.img", size)

    def sent_for() -> int:
        """Send it to its end; the bytes that went to bob for it."""
        before = proxy.forth.moved
        (sent,) = send(alice, "bob", path)
        done = wait_state(alice, sent["id"], "done")
        assert done["bytes_resent"] == 0
        assert done["bytes_done"] == path.stat().st_size
        return proxy.forth.moved - before

    around = MIB // 4  # records, offers, and what else they say
    assert size <= sent_for() <= size + around
    assert sent_for() <= around, "an identical file"
    assert digest(bob.downloads / "new_disk (1).img") == digest(path)
    chance = random.Random(1)
    blocks = {size // MIB}
    with path.open("r+b") as file:
        for _ in range(10):
            at = chance.randrange(40 * MIB - 100)
            blocks |= {at // MIB, (at + 99) // MIB}
            file.seek(at)
            file.write(os.urandom(100))
        file.seek(0, 2)
        file.write(b"more")
    changed = (len(blocks) - 1) * MIB + 337
    assert 8 * MIB < changed < 15 * MIB
    assert changed <= sent_for() <= changed + around
    assert digest(bob.downloads / "new_disk (2).img") == digest(path)
    assert digest(bob.downloads / "new_disk (1).img") == digest(bob.downloads / "new_disk.img")


def test_an_older_copy_that_was_changed_here_is_not_used(daemon: Start, home: Path) -> None:
    """Its hashes would tell the sender what our user has made of it."""
    alice, bob = pair(daemon, home)
    path = make(home / "f.bin", 5 * MIB)
    (first,) = send(alice, "bob", path)
    wait_state(alice, first["id"], "done")
    (bob.downloads / "new_f.bin").write_bytes(path.read_bytes()[: 4 * MIB] + b"mine")
    (second,) = send(alice, "bob", path)
    wait_state(alice, second["id"], "done")
    assert digest(bob.downloads / "new_f (1).bin") == digest(path)
