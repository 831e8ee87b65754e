"""`tnt` with odd input and in odd places: empty and endless words, streams that are closed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import Daemon, connect_pair, run

TNT = [sys.executable, "-P", "-m", "tnt_client.tnt"]
Start = Callable[..., Daemon]


def tnt(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run([*TNT, *arguments], home)


def failed(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, (done.stdout, done.stderr)
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("tnt: ")
    for word in words:
        assert word in done.stderr


@pytest.fixture
def pair(daemon: Start) -> tuple[Daemon, Daemon]:
    alice, bob = daemon("alice"), daemon("bob")
    connect_pair(alice, bob)
    return alice, bob


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
    failed(shell("--name alice msg bob - <&-"), 1, "empty message")
    failed(shell("--name alice contacts --json >/dev/full"), 1, "standard output", "No space")
    failed(shell("demo >/dev/full"), 1, "standard output", "No space")


def test_what_is_sent_to_somebody_blocked_says_so(home: Path, pair: tuple[Daemon, Daemon]):
    assert tnt(home, "block", "--name", "alice", "bob").returncode == 0
    failed(tnt(home, "msg", "--name", "alice", "bob", "hi"), 1, "bob is blocked", "unblock bob")
    sample = home / "sample.txt"
    sample.write_text("a sample")
    where = ("send", "--name", "alice", "bob", str(sample))
    failed(tnt(home, *where), 1, "bob is blocked", "unblock bob")
