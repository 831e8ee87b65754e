"""The queue between real daemons: paused, resumed, put first, sent to several, from either side."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from harness import Client, Daemon, RpcError, connect_pair, wait_for
from moving import MIB, Start, digest, make, no_parts, pair, send, slow, transfer, wait_state


@pytest.mark.parametrize("who", ["sender", "receiver"])
def test_paused_and_resumed_from_either_side(daemon: Start, home: Path, who: str) -> None:
    alice, bob = pair(daemon, home)
    hand = alice if who == "sender" else bob
    other = bob if who == "sender" else alice
    path = make(home / "big", 100 * MIB)
    watching = bob.client(subscribe=True)
    slow(alice, 10 * MIB)
    (sent,) = send(alice, "bob", path)
    watching.wait_event("transfer.progress")
    told = hand.client(subscribe=True)
    assert hand.rpc("transfers.pause", transfer=sent["id"])["transfer"]["state"] == "paused"
    first = told.wait_event("transfer.state")["transfer"]["state"]
    assert first == "paused", "not queued in between"
    wait_state(other, sent["id"], "paused")
    other.restart()
    assert transfer(other, sent["id"])["state"] == "paused", "it outlives a restart"
    with pytest.raises(RpcError) as caught:
        hand.rpc("transfers.pause", transfer=sent["id"])
    assert caught.value.code == 5
    slow(alice, 0)
    # Whoever of the two wants to may let it go on.
    assert other.rpc("transfers.resume", transfer=sent["id"])["transfer"]["state"] != "paused"
    done = wait_state(alice, sent["id"], "done")
    wait_state(bob, sent["id"], "done")
    assert digest(bob.downloads / "new_big") == digest(path)
    assert done["bytes_resent"] <= 4 * MIB


def test_paused_while_the_other_side_is_away(daemon: Start, home: Path) -> None:
    alice, bob = pair(daemon, home)
    bob.sigterm()
    (sent,) = send(alice, "bob", make(home / "f", 1000))
    alice.rpc("transfers.pause", transfer=sent["id"])
    bob.start()
    wait_state(bob, sent["id"], "paused")
    bob.rpc("transfers.resume", transfer=sent["id"])
    wait_state(alice, sent["id"], "done")


def one_at_a_time(daemon: Start, home: Path) -> tuple[Daemon, Daemon]:
    """As `pair`; alice sends one file after the other, slowly at first."""
    config = home / "alice.toml"
    config.write_text(f"transfers_per_contact_max = 1\nupload_bytes_per_s = {MIB // 4}\n")
    alice = daemon("alice", "--config", str(config))
    bob = daemon("bob", "--downloads", str(home / "b"))
    connect_pair(alice, bob)
    return alice, bob


def begun(watching: Client, count: int) -> list[str]:
    """The ids of the next transfers of which bytes begin to flow, in order."""
    ids: list[str] = []
    while len(ids) < count:
        changed = watching.wait_event("transfer.state", timeout=60)["transfer"]
        if changed["state"] == "active" and changed["id"] not in ids:
            ids.append(changed["id"])
    return ids


def test_oldest_first(daemon: Start, home: Path) -> None:
    """Over all that was sent: in one go, one after the other, and while nobody was there."""
    alice, bob = one_at_a_time(daemon, home)
    watching = alice.client(subscribe=True)
    paths = [make(home / f"f{n}", 2 * MIB - n) for n in range(6)]
    sent = send(alice, "bob", *paths[:2])
    sent += send(alice, "bob", paths[2])
    assert begun(watching, 1) == [sent[0]["id"]]
    bob.sigterm()
    sent += send(alice, "bob", *paths[3:])
    bob.start()
    alice.rpc("settings.set", name="upload_bytes_per_s", value=0)
    assert begun(watching, 6) == [each["id"] for each in sent]
    for each in sent:
        wait_state(alice, each["id"], "done")


@pytest.mark.parametrize("who", ["sender", "receiver"])
def test_first_in_the_queue(daemon: Start, home: Path, who: str) -> None:
    alice, bob = one_at_a_time(daemon, home)
    watching, told = alice.client(subscribe=True), alice.client(subscribe=True)
    paths = [make(home / f"f{n}", 10 * MIB + n) for n in range(4)]
    one, two, three, four = send(alice, "bob", *paths)
    assert begun(watching, 1) == [one["id"]]

    def next_of(each: dict[str, Any]) -> str:
        """The state in the next event of that transfer."""
        event = told.wait_event("transfer.state", lambda e: e["transfer"]["id"] == each["id"])
        return str(event["transfer"]["state"])

    for each in (three, four):  # "queued" is also what it is before it is offered
        assert [next_of(each) for _ in range(3)] == ["queued", "offered", "queued"], "it is taken"
    hand = alice if who == "sender" else bob
    for each in (three, four):  # the last word has the front
        hand.rpc("transfers.first", transfer=each["id"])
        assert next_of(each) == "queued", "told once more, for its new place"
    assert transfer(alice, one["id"])["state"] == "active", "what moves is not held up"
    alice.rpc("settings.set", name="upload_bytes_per_s", value=0)
    assert begun(watching, 3) == [four["id"], three["id"], two["id"]]
    wait_state(alice, two["id"], "done")


@pytest.mark.parametrize("whose", ["sender", "receiver"])
def test_so_many_move_in_all(daemon: Start, home: Path, whose: str) -> None:
    """Over several contacts; here each of them may have three."""
    alice, bob = pair(daemon, home)
    carol = daemon("carol", "--downloads", str(home / "c"))
    connect_pair(alice, carol)
    limit = "upload_bytes_per_s" if whose == "sender" else "download_bytes_per_s"
    alice.rpc("settings.set", name=limit, value=MIB)
    alice.rpc("settings.set", name="transfers_max", value=2)
    for each in (bob, carol):
        paths = [make(home / f"{each.name}{n}", 40 * MIB + n) for n in range(3)]
        if whose == "sender":
            send(alice, each.name, *paths)
        else:
            send(each, "alice", *paths)

    def moving() -> list[int]:
        """The bytes that are done of each that moves."""
        found = alice.rpc("transfers.list")["transfers"]
        return [each["bytes_done"] for each in found if each["state"] == "active"]

    def going() -> bool:
        now = moving()
        assert len(now) <= 2
        return len(now) == 2 and min(now) >= MIB

    wait_for(going, what="two of them have come some way, while others wait")
    alice.rpc("settings.set", name="transfers_max", value=4)
    wait_for(lambda: len(moving()) == 4, what="two more")
    alice.rpc("settings.set", name=limit, value=0)
    for each in alice.rpc("transfers.list")["transfers"]:
        wait_state(alice, each["id"], "done")


def test_many_small_files_at_once(daemon: Start, home: Path) -> None:
    """Each has a lane of its own, and none of them is taken for a flood of strangers."""
    alice, bob = pair(daemon, home)
    paths = [make(home / "many" / f"f{number}", number) for number in range(250)]
    watching = alice.client(subscribe=True)
    waiting = {each["id"] for each in send(alice, "bob", *paths)}
    while waiting:
        changed = watching.wait_event("transfer.state", timeout=60)["transfer"]
        assert changed["error"] is None
        if changed["state"] == "done":
            waiting.discard(changed["id"])
    for path in paths:
        assert digest(bob.downloads / f"new_{path.name}") == digest(path)
    assert no_parts(bob.downloads)
    for each in (alice, bob):
        log = each.log()
        assert "handshakes" not in log and "cut" not in log


def test_one_send_to_several(daemon: Start, home: Path) -> None:
    alice, bob = pair(daemon, home)
    carol = daemon("carol", "--downloads", str(home / "c"))
    connect_pair(alice, carol)
    path = make(home / "f", 5000)
    result = alice.rpc("transfers.send", to=["bob", "carol"], paths=[str(path)])["transfers"]
    assert [each["contact"] for each in result] == ["bob", "carol"]
    for each in result:
        wait_state(alice, each["id"], "done")
    for each in (bob, carol):
        assert digest(each.downloads / "new_f") == digest(path)
    with pytest.raises(RpcError) as caught:
        alice.rpc("transfers.send", to=["bob", "nobody"], paths=[str(path)])
    assert caught.value.code == 1
    assert len(alice.rpc("transfers.list")["transfers"]) == 2


def test_settings_change_while_it_runs(daemon: Start, home: Path) -> None:
    alice, bob = pair(daemon, home)
    bob.rpc("settings.set", name="ask_always", value=True, contact="alice")
    (asked,) = send(alice, "bob", make(home / "f", 10))
    wait_state(bob, asked["id"], "offered")
    bob.rpc("settings.set", name="ask_always", value=None, contact="alice")
    bob.rpc("settings.set", name="downloads", value=str(home / "own"), contact="alice")
    bob.restart()
    (taken,) = send(alice, "bob", make(home / "g", 10))
    wait_state(alice, taken["id"], "done")
    assert (home / "own" / "new_g").stat().st_size == 10
    assert transfer(bob, taken["id"])["path"] == str(home / "own" / "new_g")
    with pytest.raises(RpcError) as caught:
        bob.rpc("settings.set", name="no such", value=1)
    assert caught.value.code == -32602


def test_what_is_left_over_is_cleaned(daemon: Start, home: Path) -> None:
    alice, bob = pair(daemon, home)
    parts = bob.downloads / ".tnt-part"
    watching = bob.client(subscribe=True)
    slow(alice, 10 * MIB)
    (sent,) = send(alice, "bob", make(home / "big", 100 * MIB))
    watching.wait_event("transfer.progress")
    bob.rpc("transfers.pause", transfer=sent["id"])
    ours = next(parts.iterdir()).name[:12]
    (parts / f"{ours}orphan.part").write_bytes(b"x" * 1000)
    (parts / f"{ours}folder.part" / "in").mkdir(parents=True)
    (parts / f"{ours}folder.part" / "in" / "it").write_bytes(b"y" * 500)
    (parts / "other-profile.part").write_bytes(b"of somebody else")
    cleaned = bob.rpc("transfers.clean")
    assert cleaned["removed"] >= 2
    assert cleaned["bytes"] >= 1500
    assert len(list(parts.iterdir())) == 2, "what is paused is kept, and what is not ours"
    (parts / "other-profile.part").unlink()
    slow(alice, 0)
    bob.rpc("transfers.resume", transfer=sent["id"])
    assert wait_state(alice, sent["id"], "done")["bytes_resent"] <= 4 * MIB
    wait_for(lambda: no_parts(bob.downloads))


@pytest.mark.parametrize("name", ["upload_bytes_per_s", "download_bytes_per_s"])
@pytest.mark.parametrize("whom", ["all", "one contact"])
def test_a_limit_holds_and_changes_while_it_moves(
    daemon: Start, home: Path, name: str, whom: str
) -> None:
    alice, bob = pair(daemon, home)
    limited, other = (alice, "bob") if name.startswith("up") else (bob, "alice")
    contact = {} if whom == "all" else {"contact": other}
    limited.rpc("settings.set", name=name, value=2 * MIB, **contact)
    watching = bob.client(subscribe=True)
    (sent,) = send(alice, "bob", make(home / "big", 300 * MIB))
    watching.wait_event("transfer.progress")
    began, before = time.monotonic(), transfer(bob, sent["id"])["bytes_done"]
    assert before < 100 * MIB, "it has hardly begun"
    # At this limit 6 MiB take 3 s: half of that at least, and no multiple of it.
    wait_for(lambda: transfer(bob, sent["id"])["bytes_done"] >= before + 6 * MIB, 20, "it goes on")
    assert time.monotonic() - began >= 1.5
    limited.rpc("settings.set", name=name, value=None, **contact)
    wait_state(alice, sent["id"], "done")
