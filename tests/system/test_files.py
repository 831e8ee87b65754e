"""One file between real daemons: whole, checked, never replacing, through crashes and absence."""

from __future__ import annotations

import os
import random
import shutil
import statistics
import time
from pathlib import Path

import pytest

from harness import Daemon, RpcError, open_files, rss, thread_count, wait_for
from moving import (
    MIB,
    Start,
    digest,
    make,
    no_parts,
    pair,
    send,
    slow,
    transfer,
    wait_state,
    waits_for_room,
)


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 10 * MIB + 7])
@pytest.mark.parametrize("sender", ["alice", "bob"])
def test_a_file_arrives_whole(daemon: Start, home: Path, size: int, sender: str) -> None:
    """From both sides of a link: the dialler of a lane is not always its sender."""
    alice, bob = pair(daemon, home)
    source, receiver = (alice, bob) if sender == "alice" else (bob, alice)
    path = make(home / "sample.txt", size)
    path.chmod(0o755)
    os.utime(path, ns=(1_600_000_000_123_456_789, 1_600_000_000_123_456_789))
    (sent,) = send(source, receiver.name, path)
    assert sent["path"] == str(path)
    done = wait_state(source, sent["id"], "done")
    assert done["bytes_done"] == size
    got = transfer(receiver, sent["id"])
    assert got["state"] == "done"
    assert got["direction"] == "in"
    final = Path(got["path"])
    assert final == receiver.downloads / "new_sample.txt"
    assert digest(final) == digest(path)
    assert final.stat().st_mtime_ns == path.stat().st_mtime_ns
    assert os.access(final, os.X_OK)
    assert no_parts(receiver.downloads)


def test_nothing_is_ever_replaced(daemon: Start, home: Path) -> None:
    alice, bob = pair(daemon, home)
    path = make(home / "sample.txt", 1000)
    bob.downloads.mkdir(exist_ok=True)
    (bob.downloads / "new_sample.txt").write_text("mine")
    (bob.downloads / "new_sample (1).txt").mkdir()
    (bob.downloads / "new_sample (2).txt").symlink_to("nowhere")
    first, second = send(alice, "bob", path, path)
    wait_state(alice, first["id"], "done")
    wait_state(alice, second["id"], "done")
    assert (bob.downloads / "new_sample.txt").read_text() == "mine"
    names = {Path(transfer(bob, each["id"])["path"]).name for each in (first, second)}
    assert names == {"new_sample (3).txt", "new_sample (4).txt"}


def test_bad_paths_queue_nothing(daemon: Start, home: Path) -> None:
    alice, _ = pair(daemon, home)
    good = make(home / "good", 10)
    fifo = home / "fifo"
    os.mkfifo(fifo)
    for bad in (home / "missing", fifo):
        with pytest.raises(RpcError) as caught:
            send(alice, "bob", good, bad)
        assert caught.value.code == 6
        assert str(bad) in caught.value.message
    with pytest.raises(RpcError) as caught:
        alice.rpc("transfers.send", to="bob", paths=["relative"])
    assert caught.value.code == 6
    assert alice.rpc("transfers.list")["transfers"] == []


def test_names_that_are_no_utf8(daemon: Start, home: Path) -> None:
    alice, bob = pair(daemon, home)
    raw = os.fsencode(home) + b"/odd\xff\x1b.bin"
    Path(os.fsdecode(raw)).write_bytes(b"data")
    exact = "".join(f"%{byte:02X}" for byte in raw)
    result = alice.rpc("transfers.send", to="bob", paths=[{"path_bytes": exact}])
    (sent,) = result["transfers"]
    assert "%FF" in sent["name"]
    wait_state(alice, sent["id"], "done")
    assert os.listdir(os.fsencode(bob.downloads)) == [b"new_odd\xff%1B.bin"]


def test_queued_for_a_peer_that_is_away(daemon: Start, home: Path) -> None:
    alice, bob = pair(daemon, home)
    bob.sigterm()
    path = make(home / "late.bin", MIB)
    (sent,) = send(alice, "bob", path)
    assert sent["state"] == "queued"
    alice.restart()
    bob.start()
    wait_state(alice, sent["id"], "done")
    assert digest(bob.downloads / "new_late.bin") == digest(path)


def test_a_retried_send_is_one_transfer(daemon: Start, home: Path) -> None:
    alice, bob = pair(daemon, home)
    path = str(make(home / "f", 100))
    results = [
        alice.rpc("transfers.send", to="bob", paths=[path, path], client_ref="x") for _ in range(3)
    ]
    ids = [[each["id"] for each in result["transfers"]] for result in results]
    assert ids[0] == ids[1] == ids[2]
    for id in ids[0]:
        wait_state(alice, id, "done")
    assert len(bob.rpc("transfers.list")["transfers"]) == 2


def test_a_source_that_changed_is_not_sent(daemon: Start, home: Path) -> None:
    alice, bob = pair(daemon, home)
    bob.sigterm()
    path = make(home / "f.bin", 1000)
    gone = make(home / "g.bin", 1000)
    os.utime(path, (1, 1))  # a clock of files may stand still from here to the change
    sent, lost = send(alice, "bob", path, gone)
    path.write_bytes(b"y" * 1000)
    gone.unlink()
    bob.start()
    assert "changed" in wait_state(alice, sent["id"], "failed")["error"]
    assert "no such file" in wait_state(alice, lost["id"], "failed")["error"]
    assert "changed" in wait_state(bob, sent["id"], "failed")["error"]
    assert not list(bob.downloads.iterdir())


def test_offers_wait_where_the_settings_say_so(daemon: Start, home: Path) -> None:
    config = home / "bob.toml"
    config.write_text("auto_accept_bytes_max = 100\n")
    alice, bob = pair(daemon, home, "--config", str(config))
    watching = bob.client(subscribe=True)
    wanted, unwanted, small = (
        send(alice, "bob", make(home / f"f{size}", size))[0] for size in (1001, 1002, 100)
    )
    for each in (wanted, unwanted):
        offered = watching.wait_event("transfer.offered")["transfer"]
        assert offered["id"] == each["id"]
    wait_state(alice, small["id"], "done")
    wait_state(alice, wanted["id"], "offered")
    bob.restart()
    assert transfer(bob, wanted["id"])["state"] == "offered"
    bob.rpc("transfers.accept", transfer=wanted["id"])
    bob.rpc("transfers.decline", transfer=unwanted["id"][:8])
    wait_state(alice, wanted["id"], "done")
    assert wait_state(alice, unwanted["id"], "declined")["error"]
    with pytest.raises(RpcError) as caught:
        bob.rpc("transfers.accept", transfer=unwanted["id"])
    assert caught.value.code == 5


def test_no_room_on_the_receivers_disk(daemon: Start, home: Path) -> None:
    config = home / "bob.toml"
    config.write_text(f"reserve_bytes = {2**60}\n")
    alice, bob = pair(daemon, home, "--config", str(config))
    (sent,) = send(alice, "bob", make(home / "f", 1000))
    wait_state(alice, sent["id"], "offered")
    bob.rpc("transfers.accept", transfer=sent["id"])
    for each in (alice, bob):
        wait_for(lambda each=each: waits_for_room(each, sent["id"]), what="it waits for space")
    assert not list(bob.downloads.glob("new_*"))


@pytest.mark.parametrize("canceller", ["alice", "bob"])
def test_cancelled_from_either_side(daemon: Start, home: Path, canceller: str) -> None:
    alice, bob = pair(daemon, home)
    watching = bob.client(subscribe=True)
    slow(alice, 4 * MIB)
    (sent,) = send(alice, "bob", make(home / "big", 60 * MIB))
    watching.wait_event("transfer.progress")
    who = alice if canceller == "alice" else bob
    assert who.rpc("transfers.cancel", transfer=sent["id"])["transfer"]["state"] == "cancelled"
    for each in (alice, bob):
        wait_state(each, sent["id"], "cancelled")
    wait_for(lambda: no_parts(bob.downloads), what="the part is gone")
    assert not list(bob.downloads.glob("new_*"))
    (after,) = send(alice, "bob", make(home / "small", 10))
    wait_state(alice, after["id"], "done")


@pytest.mark.parametrize("victim", ["sender", "receiver", "both"])
def test_killed_in_the_middle(daemon: Start, home: Path, victim: str) -> None:
    alice, bob = pair(daemon, home)
    path = make(home / "big", 100 * MIB)
    watching = bob.client(subscribe=True)
    slow(alice, 10 * MIB)
    (sent,) = send(alice, "bob", path)
    watching.wait_event("transfer.progress")
    assert not list(bob.downloads.glob("new_*")), "no half file under a final name"
    for each, name in ((alice, "sender"), (bob, "receiver")):
        if victim in (name, "both"):
            each.kill9()
    for each in (alice, bob):
        if each.process is None:
            each.start()
    slow(alice, 0)
    done = wait_state(alice, sent["id"], "done")
    assert done["state"] == transfer(bob, sent["id"])["state"]
    assert digest(bob.downloads / "new_big") == digest(path)
    assert no_parts(bob.downloads)
    assert len(list(bob.downloads.iterdir())) == 1


def test_killed_at_many_moments_of_small_files(daemon: Start, home: Path) -> None:
    """Around the rename: whatever a crash interrupts is finished, once."""
    alice, bob = pair(daemon, home)
    chance = random.Random(7)
    ids: list[str] = []
    for number in range(15):
        path = make(home / f"f{number}.bin", chance.randrange(3 * MIB))
        (sent,) = send(alice, "bob", path)
        ids.append(sent["id"])
        wait_for(lambda sent=sent: transfer(bob, sent["id"])["state"] != "unknown")
        chance.choice((alice, bob)).restart()
    for id in ids:
        wait_state(alice, id, "done")
    assert sorted(path.name for path in bob.downloads.iterdir()) == sorted(
        f"new_f{number}.bin" for number in range(15)
    )
    for number in range(15):
        assert digest(bob.downloads / f"new_f{number}.bin") == digest(home / f"f{number}.bin")


def test_a_gibibyte_with_chat_going_on(daemon: Start, home: Path) -> None:
    alice, bob = pair(daemon, home)
    idle = {each.name: rss(each.pid) for each in (alice, bob)}
    files = {each.name: open_files(each.pid) for each in (alice, bob)}
    path = make(home / "movie.mkv", 1024 * MIB)
    watching = alice.client(subscribe=True)
    (sent,) = send(alice, "bob", path)
    watching.wait_event("transfer.progress", timeout=60)
    said, took = 0, list[float]()
    while (state := transfer(alice, sent["id"])["state"]) != "done":
        assert state in ("queued", "offered", "active")
        said, began = said + 1, time.monotonic()
        one = alice.rpc("messages.send", to="bob", text=f"a{said}")["message"]
        two = bob.rpc("messages.send", to="alice", text=f"b{said}")["message"]
        for each, message in ((alice, one), (bob, two)):
            assert each.rpc("status")["rss_bytes"] < idle[each.name] + 40 * MIB
            assert thread_count(each.pid) == 1, "one thread under load"
            wait_for(lambda each=each, message=message: delivered(each, message["id"]))
        took.append(time.monotonic() - began)
    assert said > 3, "there was chat while the file was under way"
    assert statistics.median(took) < 2.0, "chat is not held up"
    assert digest(bob.downloads / "new_movie.mkv") == digest(path)
    assert [m["text"] for m in bob.all_messages("alice") if m["from"] == "alice"] == [
        f"a{number}" for number in range(1, said + 1)
    ]
    for each in (alice, bob):
        wait_for(lambda each=each: open_files(each.pid) <= files[each.name] + 1)


def delivered(daemon: Daemon, id: str) -> bool:
    other = "bob" if daemon.name == "alice" else "alice"
    page = daemon.rpc("messages.list", conversation=other, limit=4)["messages"]
    return any(m["id"] == id and m["state"] == "delivered" for m in page)


def test_several_at_once_and_both_ways(daemon: Start, home: Path) -> None:
    alice, bob = pair(daemon, home)
    ours = [make(home / f"ours{n}", 20 * MIB + n) for n in range(6)]
    theirs = [make(home / f"theirs{n}", 20 * MIB + n) for n in range(6)]
    there, back = send(alice, "bob", *ours), send(bob, "alice", *theirs)
    for each in there:
        wait_state(alice, each["id"], "done")
    for each in back:
        wait_state(bob, each["id"], "done")
    for path in ours:
        assert digest(bob.downloads / f"new_{path.name}") == digest(path)
    for path in theirs:
        assert digest(alice.downloads / f"new_{path.name}") == digest(path)


def test_a_receiver_that_lost_its_history_is_asked_anew(daemon: Start, home: Path) -> None:
    """It has a copy of itself from before the offer, which its user had already taken."""
    config = home / "bob.toml"
    config.write_text("auto_accept_bytes_max = 0\n")
    alice, bob = pair(daemon, home, "--config", str(config))
    bob.sigterm()
    backup = bob.data.with_name("backup")
    shutil.copytree(bob.data, backup)
    bob.start()
    slow(alice, MIB // 4)
    path = make(home / "f", 4 * MIB)
    (sent,) = send(alice, "bob", path)
    wait_state(alice, sent["id"], "offered")
    bob.rpc("transfers.accept", transfer=sent["id"])
    wait_for(lambda: transfer(bob, sent["id"])["bytes_done"] > 0, what="it is under way")
    bob.kill9()
    shutil.rmtree(bob.data)
    shutil.copytree(backup, bob.data)
    bob.start()
    assert transfer(bob, sent["id"])["state"] in ("unknown", "offered"), "nobody has taken it"
    wait_state(bob, sent["id"], "offered")
    wait_state(alice, sent["id"], "offered")
    assert not list(bob.downloads.glob("new_*"))
    slow(alice, 0)
    bob.rpc("transfers.accept", transfer=sent["id"])
    wait_state(alice, sent["id"], "done")
    assert digest(bob.downloads / "new_f") == digest(path)
