"""Folders between real daemons: all that is in them, whole or not at all, and what failed again."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

import harness
from harness import Daemon, RpcError, wait_for
from moving import (
    MIB,
    Start,
    digest,
    files_of,
    make,
    make_tree,
    no_parts,
    pair,
    picture,
    send,
    slow,
    transfer,
    wait_state,
)


@pytest.mark.parametrize("sender", ["alice", "bob"])
def test_a_folder_arrives_as_it_is(daemon: Start, home: Path, sender: str) -> None:
    alice, bob = pair(daemon, home)
    source, receiver = (alice, bob) if sender == "alice" else (bob, alice)
    tree = make_tree(home / "photos")
    (sent,) = send(source, receiver.name, tree)
    done = wait_state(source, sent["id"], "done")
    got = wait_state(receiver, sent["id"], "done")
    final = receiver.downloads / "new_photos"
    assert got["path"] == str(final)
    assert picture(final) == picture(tree)
    for each in (done, got):
        assert each["bytes_done"] == each["bytes_total"] > 3 * MIB
        assert each["files"] == 62
        assert (each["skipped"], each["failed"], each["error"]) == (0, 0, None)
    for each in (source, receiver):
        files = files_of(each, sent["id"], limit=7)
        assert len(files) == 62
        assert {file["state"] for file in files} == {"verified"}
    assert no_parts(receiver.downloads)


def test_a_second_time_gets_the_next_number(daemon: Start, home: Path) -> None:
    alice, bob = pair(daemon, home)
    tree = make_tree(home / "photos.d", files=3)
    for name in ("new_photos.d", "new_photos (1).d"):
        (sent,) = send(alice, "bob", tree)
        wait_state(alice, sent["id"], "done")
        assert picture(bob.downloads / name) == picture(tree)


def test_an_empty_folder_and_one_named_with_a_slash(daemon: Start, home: Path) -> None:
    alice, bob = pair(daemon, home)
    (home / "nothing").mkdir()
    result = alice.rpc("transfers.send", to="bob", paths=[f"{home}/nothing/"])
    wait_state(alice, result["transfers"][0]["id"], "done")
    assert list((bob.downloads / "new_nothing").iterdir()) == []


def test_what_cannot_be_sent_is_skipped_and_told(daemon: Start, home: Path) -> None:
    alice, bob = pair(daemon, home)
    tree = home / "mixed"
    tree.mkdir()
    (tree / "good").write_text("good")
    os.mkfifo(tree / "pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tree / "socket"))
    (tree / "out").symlink_to("../elsewhere")
    (tree / "abs").symlink_to("/etc/passwd")
    (tree / "in").symlink_to("good")
    (sent,) = send(alice, "bob", tree)
    done = wait_state(alice, sent["id"], "done")
    assert done["skipped"] == 4
    final = bob.downloads / "new_mixed"
    assert sorted(path.name for path in final.iterdir()) == ["good", "in"]
    assert os.readlink(final / "in") == "good"
    for each in (alice, bob):
        states = {file["path"]: file["state"] for file in files_of(each, sent["id"])}
        assert states == {
            "good": "verified",
            "pipe": "skipped",
            "socket": "skipped",
            "out": "skipped",
            "abs": "skipped",
        }
        reasons = {file["path"]: file.get("reason") for file in files_of(each, sent["id"])}
        assert "link" in reasons["out"]


def test_a_folder_that_is_not_there_any_more(daemon: Start, home: Path) -> None:
    alice, bob = pair(daemon, home)
    bob.sigterm()
    tree = make_tree(home / "gone", files=3)
    (sent,) = send(alice, "bob", tree)
    shutil.rmtree(tree)
    bob.start()
    failed = wait_state(alice, sent["id"], "failed")
    assert "no such file" in failed["error"]
    wait_state(bob, sent["id"], "failed")
    wait_for(lambda: no_parts(bob.downloads))
    assert not list(bob.downloads.glob("new_*"))


def test_files_that_fail_and_then_come_again(daemon: Start, home: Path) -> None:
    """A name that the other side already has in the folder it merges into never is replaced."""
    alice, bob = pair(daemon, home)
    slow(alice, MIB // 2)
    tree = home / "work"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "fine").write_text("fine")
    changes = make(tree / "z" / "changes", 6 * MIB)
    (sent,) = send(alice, "bob", tree)
    wait_for(lambda: transfer(bob, sent["id"])["bytes_done"] > MIB // 2, what="in the middle")
    with changes.open("ab") as file:
        file.write(b"more")
    slow(alice, 0)
    for each in (alice, bob):
        assert wait_state(each, sent["id"], "failed")["failed"] == 1
    final = bob.downloads / "new_work"
    assert (final / "sub" / "fine").read_text() == "fine", "the rest is there"
    assert not (final / "z" / "changes").exists()
    (bad,) = [file for file in files_of(alice, sent["id"]) if file["state"] == "failed"]
    assert (bad["path"], "changed" in bad["reason"]) == ("z/changes", True)

    (final / "z" / "changes").write_text("mine")
    assert alice.rpc("transfers.again", transfer=sent["id"])["transfer"]["id"] == sent["id"]
    for each in (alice, bob):
        wait_for(lambda each=each: "taken there" in (transfer(each, sent["id"])["error"] or ""))
        assert transfer(each, sent["id"])["state"] == "failed"
    assert (final / "z" / "changes").read_text() == "mine"
    (final / "z" / "changes").unlink()

    (final / "sub" / "fine").unlink()  # what went well is not sent once more
    bob.rpc("transfers.again", transfer=sent["id"])
    for each in (alice, bob):
        done = wait_state(each, sent["id"], "done")
        assert (done["failed"], done["error"]) == (0, None)
        assert {file["state"] for file in files_of(each, sent["id"])} == {"verified"}
    assert digest(final / "z" / "changes") == digest(changes)
    assert not (final / "sub" / "fine").exists()
    assert [path.name for path in bob.downloads.iterdir()] == ["new_work"]
    with pytest.raises(RpcError) as caught:
        alice.rpc("transfers.again", transfer=sent["id"])
    assert caught.value.code == 5


def test_what_lies_too_deep_fails_alone(daemon: Start, home: Path) -> None:
    alice, bob = pair(daemon, home)
    tree = home / "work"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "fine").write_text("fine")
    long = "x" * 250
    deep = tree
    for _ in range(110):  # deeper than what is taken
        deep /= "d"
    deep.mkdir(parents=True)
    (deep / long).write_text("deep")
    (sent,) = send(alice, "bob", tree)
    failed = wait_state(alice, sent["id"], "failed")
    assert failed["failed"] >= 1
    got = wait_state(bob, sent["id"], "failed")
    final = Path(got["path"])
    assert (final / "sub" / "fine").read_text() == "fine", "the rest is there"
    (bad,) = [file for file in files_of(alice, sent["id"]) if file["state"] == "failed"]
    assert "deep" in bad["reason"]


def restart_as_others(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start it with no more rights to files than a user other than root has."""
    daemon.sigterm()
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("as root this needs setpriv, which takes the rights of root away")
        less = ["--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all"]
        monkeypatch.setattr(harness, "TNTD", ["setpriv", *less, *harness.TNTD])
    daemon.start()


def test_what_cannot_be_read_is_not_queued(
    daemon: Start, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, _ = pair(daemon, home)
    restart_as_others(alice, monkeypatch)
    (home / "folder").mkdir()
    for shut in (make(home / "file", 10), home / "folder"):
        shut.chmod(0)
        with pytest.raises(harness.RpcError, match=f"{shut}: permission denied") as caught:
            send(alice, "bob", make(home / "good", 10), shut)
        assert caught.value.code == 6
    assert alice.rpc("transfers.list")["transfers"] == []


def test_a_folder_that_could_not_be_read_comes_again(
    daemon: Start, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what is a folder, a link or empty by then."""
    alice, bob = pair(daemon, home)
    restart_as_others(alice, monkeypatch)
    tree = home / "work"
    make(tree / "beside", 1000)
    make(tree / "inner" / "deep" / "file", 1000)
    (tree / "empty").mkdir()
    for name in ("becomes-folder", "becomes-link", "becomes-empty"):
        make(tree / name, 1000)
    shut = [tree / "inner", tree / "empty", *tree.glob("becomes-*")]
    for path in shut:
        path.chmod(0)
    (sent,) = send(alice, "bob", tree)
    failed = wait_state(alice, sent["id"], "failed")
    assert failed["failed"] == len(shut)
    for path in shut:
        path.chmod(0o755)
    for path in tree.glob("becomes-*"):
        path.unlink()
    make(tree / "becomes-folder" / "file", 2000)
    (tree / "becomes-link").symlink_to("beside")
    (tree / "becomes-empty").mkdir()
    alice.rpc("transfers.again", transfer=sent["id"])
    done = wait_state(alice, sent["id"], "done")
    got = wait_state(bob, sent["id"], "done")
    there, here = picture(Path(got["path"])), picture(tree)
    assert there.pop(b".") and here.pop(b".")  # its time is that of the first try
    assert there == here
    for each, row in ((alice, done), (bob, got)):
        assert (row["failed"], row["error"]) == (0, None)
        assert {file["state"] for file in files_of(each, sent["id"])} == {"verified"}
    assert no_parts(bob.downloads)


def test_a_folder_to_a_contact_who_is_away(daemon: Start, home: Path) -> None:
    alice, bob = pair(daemon, home)
    bob.sigterm()
    tree = make_tree(home / "photos", files=5)
    (sent,) = send(alice, "bob", tree)
    alice.restart()
    bob.start()
    wait_state(alice, sent["id"], "done")
    assert picture(bob.downloads / "new_photos") == picture(tree)


@pytest.mark.parametrize("victim", ["sender", "receiver", "both"])
def test_killed_in_the_middle_of_a_folder(daemon: Start, home: Path, victim: str) -> None:
    alice, bob = pair(daemon, home)
    tree = make_tree(home / "many", files=3000)
    make(tree / "a" / "big.bin", 150 * MIB)
    watching = bob.client(subscribe=True)
    slow(alice, 30 * MIB)
    (sent,) = send(alice, "bob", tree)
    watching.wait_event("transfer.progress")
    assert not list(bob.downloads.glob("new_*")), "no half folder under a final name"
    for each, name in ((alice, "sender"), (bob, "receiver")):
        if victim in (name, "both"):
            each.kill9()
    for each in (alice, bob):
        if each.process is None:
            each.start()
    slow(alice, 0)
    done = wait_state(alice, sent["id"], "done", timeout=120)
    assert picture(bob.downloads / "new_many") == picture(tree)
    assert done["bytes_resent"] <= 4 * MIB
    assert transfer(bob, sent["id"])["state"] == "done"
    assert no_parts(bob.downloads)


def test_of_a_folder_that_was_given_up_no_file_counts_as_there(daemon: Start, home: Path) -> None:
    alice, bob = pair(daemon, home)
    tree = home / "tree"
    (tree / "out").parent.mkdir()
    (tree / "out").symlink_to("/etc/passwd")
    for number in range(20):
        make(tree / f"file-{number}", MIB)
    slow(alice, MIB)
    (sent,) = send(alice, "bob", tree)
    wait_for(lambda: "verified" in {each["state"] for each in files_of(bob, sent["id"])})
    alice.rpc("transfers.cancel", transfer=sent["id"])
    wait_state(bob, sent["id"], "cancelled")
    for each, why in ((alice, "the transfer was cancelled"), (bob, "cancelled on the other side")):
        files = files_of(each, sent["id"])
        states = {file["state"] for file in files if file["path"] != "out"}
        assert states == {"failed"}
        assert {file["reason"] for file in files if file["state"] == "failed"} == {why}


def test_a_folder_that_grew_past_the_limit_is_asked_for(daemon: Start, home: Path) -> None:
    """What it came to is seen only on the way; then nothing is lost, and it goes on."""
    config = home / "bob.toml"
    config.write_text(f"auto_accept_bytes_max = {MIB}\n")
    alice, bob = pair(daemon, home, "--config", str(config))
    bob.sigterm()
    tree = home / "tree"
    for number in range(5):
        make(tree / f"small-{number}", 1000)
    (sent,) = send(alice, "bob", tree)
    make(tree / "z" / "large", 3 * MIB)
    bob.start()
    # It is "offered" for a moment as any transfer is, before what was counted first is taken.
    wait_for(lambda: transfer(bob, sent["id"])["bytes_total"] > MIB, what="the new size")
    wait_state(bob, sent["id"], "offered")
    waits = wait_state(alice, sent["id"], "offered")
    assert not waits["failed"]
    bob.rpc("transfers.accept", transfer=sent["id"])
    wait_state(alice, sent["id"], "done")
    wait_state(bob, sent["id"], "done")
    assert picture(bob.downloads / "new_tree") == picture(tree)
    assert no_parts(bob.downloads)
