"""Folders to a receiver whose history is an older copy."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness import Daemon, wait_for
from moving import (
    MIB,
    Start,
    files_of,
    make,
    no_parts,
    pair,
    picture,
    send,
    transfer,
    wait_state,
)


def copy_of(daemon: Daemon) -> Path:
    """A copy of all that it knows now."""
    daemon.sigterm()
    backup = daemon.data.with_name("backup")
    shutil.copytree(daemon.data, backup)
    daemon.start()
    return backup


def restore(daemon: Daemon, backup: Path) -> None:
    """It is killed, and knows only what it knew then."""
    daemon.kill9()
    shutil.rmtree(daemon.data)
    shutil.copytree(backup, daemon.data)
    daemon.start()


def test_all_of_a_folder_comes_again_where_the_rest_is_not_known(daemon: Start, home: Path) -> None:
    """Only one file had failed, and the receiver does not know that it has the others."""
    alice, bob = pair(daemon, home)
    backup = copy_of(bob)
    alice.rpc("settings.set", name="upload_bytes_per_s", value=2 * MIB)
    tree = home / "work"
    make(tree / "fine", 1000)
    changes = make(tree / "z" / "changes", 6 * MIB)
    (sent,) = send(alice, "bob", tree)
    wait_for(lambda: transfer(bob, sent["id"])["bytes_done"] > MIB, what="it is in the middle")
    with changes.open("ab") as file:
        file.write(b"more")
    alice.rpc("settings.set", name="upload_bytes_per_s", value=0)
    for each in (alice, bob):
        assert wait_state(each, sent["id"], "failed")["failed"] == 1
    restore(bob, backup)
    assert transfer(bob, sent["id"])["state"] == "unknown"
    alice.rpc("transfers.again", transfer=sent["id"])
    for each in (alice, bob):
        done = wait_state(each, sent["id"], "done")
        assert (done["failed"], done["error"]) == (0, None)
        assert {file["state"] for file in files_of(each, sent["id"])} == {"verified"}
    final = Path(transfer(bob, sent["id"])["path"])
    assert final.name == "new_work (1)", "what came first is not touched"
    assert picture(final) == picture(tree)
    assert (bob.downloads / "new_work" / "fine").read_bytes() == (tree / "fine").read_bytes()
    assert no_parts(bob.downloads)
