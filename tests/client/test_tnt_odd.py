"""`tnt` with odd input and in odd places: empty and endless words, streams that are closed."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import Daemon, environment, run, wait_for

TNT = [sys.executable, "-P", "-m", "tnt_client.tnt"]
ALICE = ["--name", "alice"]
Start = Callable[..., Daemon]


def tnt(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run([*TNT, *arguments], home)


def failed(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, (done.stdout, done.stderr)
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("tnt: ")
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["accept", ""],
        ["accept", "x" * 257],
        ["connect", ""],
        ["connect", "x" * 301],
        ["rename", "bob", ""],
        ["rename", "bob", "x" * 65],
        ["msg", "", "hi"],
        ["history", "bob", "--search", ""],
        ["history", "bob", "--search", "x" * 257],
        ["history", "bob", "--before", "x" * 65],
        ["transfers", "get", ""],
        ["events", "--since", ""],
    ],
)
def test_what_is_empty_or_endless_is_wrong_usage(home: Path, daemon: Start, words: list[str]):
    done = tnt(home, *words)
    assert done.returncode == 2
    assert "is empty" in done.stderr or "is the most" in done.stderr


def test_what_is_just_not_too_long_is_understood_by_the_daemon(home: Path, daemon: Start):
    daemon("alice")
    for words in (
        ["accept", "x" * 256],
        ["connect", "x" * 300],
        ["transfers", "get", "x" * 64],
        ["events", "--since", "x" * 128],
    ):
        done = tnt(home, *words)
        assert done.returncode == 1 and "Expected" not in done.stderr, done.stderr


def test_too_many_files_and_a_path_without_end(home: Path, pair: tuple[Daemon, Daemon]):
    where = ("send", "--name", "alice", "bob")
    failed(tnt(home, *where, *["a"] * 1001), 2, "1,001 files", "1,000 at most")
    failed(tnt(home, *where, "x/" * 3000), 1, "no usable path")


def test_standard_streams_that_are_closed_or_full(home: Path, pair: tuple[Daemon, Daemon]):
    def shell(line: str) -> subprocess.CompletedProcess[str]:
        return run(["sh", "-c", f'"$@" {line}', "sh", *TNT], home)

    assert shell("--name alice status >&-").returncode == 0
    assert shell("--name alice status <&- >&- 2>&-").returncode == 0
    failed(shell("--name alice msg bob - <&-"), 1, "standard input is closed; nothing was sent")
    failed(shell("--name alice contacts --json >/dev/full"), 1, "standard output", "No space")
    failed(shell("demo >/dev/full"), 1, "standard output", "No space")


def test_a_pipe_that_was_closed_from_the_start_is_refused(home: Path, pair: tuple[Daemon, Daemon]):
    alice, bob = pair
    closed = run(
        ["sh", "-c", '"$@" <&-', "sh", *TNT, "send", "bob", "-", "--as", "x", *ALICE], home
    )
    failed(closed, 1, "standard input is closed; nothing was sent")
    assert not alice.rpc("transfers.list")["transfers"]
    assert not list((alice.data / "spool").glob("*"))
    id_ = offered(alice, bob, home)
    words = [*TNT, "get", "--name", "bob", id_, "-o", "-"]
    for line, told in (
        (">&-", "standard output is closed, so nothing was taken"),
        ("1</dev/null", "standard output cannot be written"),
    ):
        failed(run(["sh", "-c", f'"$@" {line}', "sh", *words], home), 1, told)
    ours, theirs = pty.openpty()
    done = subprocess.run(
        words, env=environment(home), stdout=theirs, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 1 and "to the terminal" in done.stderr and "| less" in done.stderr
    assert [item["state"] for item in bob.rpc("transfers.list")["transfers"]] == ["offered"]
    assert run(words, home).stdout == "a sample"


def offered(alice: Daemon, bob: Daemon, home: Path) -> str:
    """The id of what alice offers bob, who is asked."""
    bob.rpc("settings.set", name="ask_always", value=True)
    (home / "sample.txt").write_text("a sample")
    alice.rpc("transfers.send", to="bob", paths=[str(home / "sample.txt")])
    (item,) = wait_for(lambda: bob.rpc("transfers.list", state="offered")["transfers"])
    return str(item["id"])


def test_a_place_with_a_slash_is_a_folder(home: Path, pair: tuple[Daemon, Daemon]):
    id_ = offered(*pair, home)
    done = tnt(home, "get", "--name", "bob", id_, "-o", f"{home}/here/")
    failed(done, 1, f"there is no folder {home}/here/; ")
    assert not (home / "here").exists()
    assert [item["state"] for item in pair[1].rpc("transfers.list")["transfers"]] == ["offered"]


def test_a_place_that_cannot_be_looked_at_is_refused(home: Path, pair: tuple[Daemon, Daemon]):
    id_ = offered(*pair, home)
    looped = home / "looped"
    looped.symlink_to("looped")
    get = ("get", "--name", "bob", id_, "-o")
    for place in ("x" * 300, f"{'x' * 300}/y", f"{'x' * 300}/"):
        failed(tnt(home, *get, place), 1, "no usable place", "too long; choose another")
    failed(tnt(home, *get, f"{looped}/y"), 1, "there is no folder")
    for words in ((*get, "x"), ("send", "--name", "alice", "bob", "x")):
        gone = 'mkdir "$0" && cd "$0" && rmdir "$0" && exec "$@"'
        done = run(["sh", "-c", gone, str(home / "gone"), *TNT, *words], home)
        failed(done, 1, "x is no usable p", "No such file or directory; ")
        assert "Errno" not in done.stderr
    assert [item["state"] for item in pair[1].rpc("transfers.list")["transfers"]] == ["offered"]


def test_a_message_of_odd_bytes_is_refused_and_an_emoji_arrives_in_any_locale(
    home: Path, pair: tuple[Daemon, Daemon]
):
    def send(text: bytes, **more: str) -> subprocess.CompletedProcess[str]:
        environ = {**environment(home), **more}
        words = [*TNT, "msg", *ALICE, "bob"]
        return subprocess.run(
            [*map(os.fsencode, words), text],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )

    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for more in ({}, plain):
        failed(send(b"arg\xff", **more), 1, "the message is not UTF-8 text; send it as a file: tnt")
        assert send("ärger 🙂".encode(), **more).returncode == 0
    assert pair[0].texts("bob") == ["ärger 🙂"] * 2


def test_what_is_sent_to_somebody_blocked_says_so(home: Path, pair: tuple[Daemon, Daemon]):
    assert tnt(home, "block", "--name", "alice", "bob").returncode == 0
    failed(tnt(home, "msg", "--name", "alice", "bob", "hi"), 1, "bob is blocked", "unblock bob")
    sample = home / "sample.txt"
    sample.write_text("a sample")
    where = ("send", "--name", "alice", "bob", str(sample))
    failed(tnt(home, *where), 1, "bob is blocked", "unblock bob")
