"""Transfers in the REPL: the queue steered from both sides, folders, what the toolbar shows."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from client_terminal import Terminal
from harness import Daemon, wait_for

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")

Repls = tuple[Terminal, Terminal]


@pytest.fixture
def repls(pair: tuple[Daemon, Daemon], home: Path) -> Iterator[Repls]:
    here, there = Terminal(home, "alice", columns=100), Terminal(home, "bob", columns=100)
    here.repl("--name", "alice", prompt="bob")
    there.repl("--name", "bob", prompt="alice")
    yield here, there
    here.close()
    there.close()


def make_slow(home: Path, daemon: Daemon) -> None:
    """A file that takes a minute at the speed at which the daemon takes it from now on."""
    (home / "slow.bin").write_bytes(os.urandom(16_000_000))
    daemon.rpc("settings.set", name="download_bytes_per_s", value=250_000)


def id_of(daemon: Daemon, name: str) -> str:
    found = [t for t in daemon.rpc("transfers.list")["transfers"] if t["name"] == name]
    return str(found[-1]["id"][:8])


def test_a_transfer_is_steered_from_both_sides(
    pair: tuple[Daemon, Daemon], repls: Repls, home: Path
):
    alice, bob = pair
    here, there = repls
    make_slow(home, bob)
    here.line("transfer slow.bin").see(r"↑ slow\.bin \d+% [\d.]+ [KM]iB/s")
    there.see(r"↓ slow\.bin \d+% [\d.]+ [KM]iB/s")
    id_ = id_of(alice, "slow.bin")
    there.line(f"/pause {id_}").see(r"^\w{8}  from alice  slow.bin .* paused \d+%$")
    there.see(r"slow\.bin paused \d+%")
    here.see(rf"^\* slow.bin .* to bob is paused; /resume {id_}$", r"│ slow\.bin paused \d+%")
    (home / "note.txt").write_text("goes on")
    here.line("transfer note.txt").see(r"^\* bob has note.txt \(7 B\)$")
    here.line(f"/resume {id_}").see(r"│ ↑ slow\.bin \d+%")
    here.line(f"/first {id_}").see(r"^bob> /first ", r"^\w{8}  to bob  slow.bin .* active \d+%")
    here.line(f"/pause {id_}").see(r"^\w{8}  to bob  slow.bin .* paused \d+%$")
    there.see(rf"^\* slow.bin .* from alice is paused; /resume {id_}$")
    there.line(f"/resume {id_}").see(r"│ ↓ slow\.bin \d+%")
    there.line(f"/cancel {id_}").see(r"^\w{8}  from alice  slow.bin .* cancelled$")
    here.see(r"^\* slow.bin .* to bob was cancelled: cancelled on the other side$")
    there.line(f"/cancel {id_} zzzz").see(
        rf"^! {id_}: slow.bin is cancelled already; nothing is left to cancel$",
        r"^! no transfer 'zzzz'; see them with: /transfers$",
    )
    there.line("/clean").see(r"^\* nothing unfinished was left behind$")
    # What a command of one's own has led to is told once, by the command.
    assert there.count("from alice was cancelled") == 0
    assert here.count("to bob is paused") == 1 and there.count("from alice is paused") == 1
    assert "slow.bin" not in {path.name for path in bob.downloads.rglob("*")}


def test_a_folder_by_its_bare_line_with_completion(
    pair: tuple[Daemon, Daemon], repls: Repls, home: Path
):
    bob = pair[1]
    here, there = repls
    (home / "photos" / "empty").mkdir(parents=True)
    (home / "photos" / "one.jpg").write_bytes(b"1" * 1024)
    (home / "photos" / "two.jpg").write_bytes(b"2" * 1024)
    (home / "photos" / "out").symlink_to("/etc/hostname")
    here.type("transfer pho").key("Tab").see(r"^bob> transfer photos/$").key("Enter")
    here.see(r"^\* bob has photos \(2 files, 2 KiB\); 1 file left out, /files \w{8} tells why$")
    there.see(r"^\* received photos \(2 files, 2 KiB\) from alice: .*new_photos; 1 file left out")
    assert (bob.downloads / "new_photos" / "empty").is_dir()
    id_ = id_of(bob, "photos")
    for each in (here, there):
        each.line(f"/files {id_}").see(
            r"^skipped +0 B  out  the link leads out of what is sent$",
            r"^verified +1 KiB  one.jpg$",
            r"^\* 3 files: 2 verified, 1 skipped$",
        )


def test_an_offer_is_taken_or_declined_where_one_wants_to_be_asked(
    pair: tuple[Daemon, Daemon], repls: Repls, home: Path
):
    here, there = repls
    there.line("/set ask_always on alice").see(r"^\* ask_always for alice is on$")
    for verb, name, told in (
        ("get", "a.txt", r"^\* bob has a.txt"),
        ("decline", "b.txt", r"^\* b.txt .* to bob was declined"),
    ):
        (home / name).write_text("asked for")
        here.line(f"transfer {name}").see(rf"^\* {name} \(9 B\) is queued for bob$")
        asks = rf"^\* alice offers {name} \(9 B\): /get (\w{{8}}) or /decline \w{{8}}$"
        there.see(asks)
        here.see(rf"^\* {name} \(9 B\) to bob waits: bob is asked")
        id_ = re.findall(asks, there.screen(), re.MULTILINE)[-1]
        there.line(f"/{verb} {id_}").see(rf"^{id_}  from alice  {name} \(9 B\)  \w+")
        here.see(told)
    assert there.count("from alice was declined") == 0


def test_what_failed_is_sent_again(pair: tuple[Daemon, Daemon], repls: Repls, home: Path):
    alice, bob = pair
    here, there = repls
    folder = home / "mixed"
    folder.mkdir()
    (folder / "good").write_text("good")
    (folder / "changes").write_bytes(os.urandom(24_000_000))
    bob.rpc("settings.set", name="download_bytes_per_s", value=1_000_000)
    here.line("transfer mixed").see(r"↑ mixed \d+%")
    wait_for(lambda: alice.rpc("transfers.list")["transfers"][0]["bytes_done"] > 0)
    (folder / "changes").write_bytes(b"changed")
    bob.rpc("settings.set", name="download_bytes_per_s", value=0)
    here.see(
        r"^! mixed .* to bob failed: 1 of 2 files failed; changes: .*; /files \w{8} tells why, "
    )
    here.line(f"/again {id_of(alice, 'mixed')}").see(r"^\* bob has mixed \(2 files")
    there.see(r"^\* received mixed \(2 files")
    assert (bob.downloads / "new_mixed" / "changes").read_bytes() == b"changed"
