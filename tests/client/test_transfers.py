"""`tnt` and the queue with real daemons: several at once, bars on a terminal, what failed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client_terminal import Terminal
from harness import Daemon, connect_pair, run, wait_for

TNT = [sys.executable, "-P", "-m", "tnt_client.tnt"]
Start = Callable[..., Daemon]


@pytest.fixture
def three(daemon: Start) -> tuple[Daemon, Daemon, Daemon]:
    alice, bob, carol = daemon("alice"), daemon("bob"), daemon("carol")
    connect_pair(alice, bob)
    connect_pair(alice, carol)
    return alice, bob, carol


@pytest.fixture
def folder(home: Path) -> Path:
    """A folder with a file in a folder, an empty one, and a pipe."""
    made = home / "photos"
    (made / "trip").mkdir(parents=True)
    (made / "trip" / "one.jpg").write_bytes(os.urandom(300_000))
    (made / "empty").mkdir()
    os.mkfifo(made / "pipe")
    return made


def tnt(home: Path, name: str, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return run([*TNT, words[0], "--name", name, *words[1:]], home, **more)


def test_files_and_folders_for_several_as_plain_lines(
    home: Path, three: tuple[Daemon, Daemon, Daemon], folder: Path
):
    (home / "note.txt").write_text("note")
    done = tnt(home, "alice", "send", "--wait", "bob,carol", "photos", "note.txt", cwd=home)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout and "photos to carol  [" in done.stdout
    ends = [line for line in done.stdout.splitlines() if line.startswith("* ")]
    assert [line.partition(";")[0] for line in ends] == [
        "* bob has photos (1 file, 293 KiB)",
        "* bob has note.txt (4 B)",
        "* carol has photos (1 file, 293 KiB)",
        "* carol has note.txt (4 B)",
    ]
    listed = tnt(home, "alice", "transfers", "--json").stdout.splitlines()
    kinds = [json.loads(line)["kind"] for line in listed]
    assert kinds == ["folder", "file", "folder", "file"]
    shown = tnt(home, "alice", "files", json.loads(listed[0])["id"]).stdout
    assert "pipe  it is a pipe, not a file\n" in shown
    assert shown.endswith("* 2 files: 1 verified, 1 skipped\n")


def test_what_failed_is_named_and_the_rest_is_there(
    home: Path, three: tuple[Daemon, Daemon, Daemon]
):
    three[2].rpc("settings.set", name="ask_always", value=True)
    for name in ("a.txt", "b.txt"):
        (home / name).write_text(name)
    with subprocess.Popen(
        [*TNT, "send", "--name", "alice", "--wait", "bob,carol", "a.txt"],
        cwd=home,
        env={**os.environ, "TNT_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as sender:
        offers = wait_for(lambda: three[2].rpc("transfers.list", state="offered")["transfers"])
        three[2].rpc("transfers.decline", transfer=offers[0]["id"])
        out, told = sender.communicate(timeout=60)
    assert sender.returncode == 1
    assert out.endswith("* bob has a.txt (5 B)\n")
    assert told == "tnt: not delivered: a.txt to carol: declined there\n"


@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
def test_bars_on_a_terminal(home: Path, three: tuple[Daemon, Daemon, Daemon], folder: Path):
    (home / "slow.bin").write_bytes(os.urandom(45_000_000))
    bob = three[1]
    assert "1.5 MB/s" in tnt(home, "bob", "set", "download_bytes_per_s", "1500k").stdout
    here = Terminal(home, "desk", columns=100)
    try:
        words = "send --name alice --wait bob photos slow.bin"
        here.line(f"{' '.join(TNT)} {words}")
        here.see(r"^slow.bin  \[#+\.+\] +\d+%  [\d.]+ \w+ of 42.9 MiB  [\d.]+ [KM]iB/s")
        bob.rpc("settings.set", name="download_bytes_per_s", value=0)  # the rest of half a minute
        here.see(
            r"^slow.bin  \[#+\] 100%  42.9 MiB of 42.9 MiB  done$",
            r"^photos  \[#+\] 100%  293 KiB of 293 KiB  done$",
            r"^\* bob has photos \(1 file, 293 KiB\); 1 file left out, tnt files \w{8} tells why$",
            r"^\* bob has slow.bin \(42.9 MiB\)$",
            r"^shell\$$",
        )
    finally:
        here.close()
    assert (bob.downloads / "new_photos" / "empty").is_dir()


def test_settings_in_general_and_for_somebody(home: Path, three: tuple[Daemon, Daemon, Daemon]):
    assert "1 MB/s" in tnt(home, "alice", "set", "download_bytes_per_s", "1MB").stdout
    assert tnt(home, "alice", "set", "upload_bytes_per_s", "500k", "bob").returncode == 0
    lines = tnt(home, "alice", "settings", "bob").stdout.splitlines()
    assert any("upload_bytes_per_s" in line and "500 kB/s" in line for line in lines)
    three[0].restart()
    general = tnt(home, "alice", "settings").stdout
    assert "1 MB/s" in general and "500 kB/s" not in general
    assert tnt(home, "alice", "set", "download_bytes_per_s", "default").returncode == 0
    assert "1 MB/s" not in tnt(home, "alice", "settings").stdout


def test_verbs_of_the_queue(home: Path, three: tuple[Daemon, Daemon, Daemon]):
    bob = three[1]
    bob.rpc("settings.set", name="download_bytes_per_s", value=250_000)
    (home / "slow.bin").write_bytes(os.urandom(16_000_000))
    (item,) = [
        json.loads(line)
        for line in tnt(home, "alice", "send", "--json", "bob", "slow.bin", cwd=home).stdout.split(
            "\n"
        )
        if line
    ]
    id_ = item["id"][:8]
    wait_for(lambda: bob.rpc("transfers.list", state="active")["transfers"])
    for side, verb, state in (
        ("bob", "pause", "paused"),
        ("alice", "resume", "queued"),
        ("alice", "first", ""),
        ("alice", "pause", "paused"),
        ("bob", "resume", "queued"),
        ("bob", "cancel", "cancelled"),
    ):
        wait_for(lambda verb=verb: settled(three, verb, id_))
        done = tnt(home, side, verb, id_)
        assert done.returncode == 0 and state in done.stdout, (verb, done)
    wait_for(lambda: three[0].rpc("transfers.list", state="cancelled")["transfers"])
    assert tnt(home, "bob", "clean").stdout == "* nothing unfinished was left behind\n"
    refused = tnt(home, "alice", "resume", id_)
    assert refused.returncode == 1 and "only what is paused can be resumed" in refused.stderr


def settled(three: tuple[Daemon, Daemon, Daemon], verb: str, id_: str) -> bool:
    """Whether each of the two has the other's word, so that the verb makes sense: one may be
    paused still, from before, where the other one has gone on and was paused once more."""
    states = [
        item["state"]
        for daemon in three[:2]
        for item in daemon.rpc("transfers.list")["transfers"]
        if item["id"].startswith(id_)
    ]
    return [state == "paused" for state in states] == [verb == "resume"] * 2


def test_a_single_file_is_sent_again_once(home: Path, three: tuple[Daemon, Daemon, Daemon]):
    alice, bob = three[0], three[1]
    bob.kill9()
    (home / "note.txt").write_text("note")
    sent = tnt(home, "alice", "send", "--json", "bob", "note.txt", cwd=home)
    (home / "note.txt").write_text("other")
    bob.start()
    first = json.loads(sent.stdout)["id"]
    wait_for(lambda: state_of(alice, first) == "failed")
    once = json.loads(tnt(home, "alice", "again", "--json", first).stdout)
    assert once["id"] != first
    wait_for(lambda: state_of(alice, once["id"]) == "done")
    twice = tnt(home, "alice", "again", first)
    assert twice.returncode == 1
    assert f"note.txt was sent again already, as {once['id'][:8]}; if that failed" in twice.stderr
    assert len(alice.rpc("transfers.list")["transfers"]) == 2
    assert (bob.downloads / "new_note.txt").read_text() == "other"


def state_of(daemon: Daemon, id_: str) -> str:
    items = daemon.rpc("transfers.list")["transfers"]
    return next(str(item["state"]) for item in items if item["id"] == id_)
