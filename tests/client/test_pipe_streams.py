"""`tnt send WHO - --as NAME` while its pipe still runs: what is there is sent, and how it ends."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import Daemon, RpcError, connect_pair, environment, wait_for

TNT = [sys.executable, "-P", "-m", "tnt_client.tnt"]
BROKE_OFF = "the pipe broke off before its end"
MIB = 1 << 20
Start = Callable[..., Daemon]


class Feeder:
    """`tnt send` with an open pipe."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def end(self) -> tuple[int, str, str]:
        """Close the pipe; exit code, output and errors."""
        out, told = self.process.communicate(timeout=60)
        return self.process.returncode, out.decode(), told.decode()


@contextmanager
def feeding(home: Path, *words: str, to: str = "bob", name: str = "x") -> Iterator[Feeder]:
    command = [*TNT, "send", "--name", "alice", to, "-", *words, "--as", name]
    with subprocess.Popen(
        command,
        env=environment(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield Feeder(process)
        finally:
            process.kill()


def parts_of(daemon: Daemon) -> bytes:
    """What is in the one part that arrives there."""
    for part in (daemon.downloads / ".tnt-part").glob("*.part"):
        with suppress(FileNotFoundError):  # it was moved or removed just now
            return part.read_bytes()
    return b""


def arrived(daemon: Daemon, name: str = "x") -> bytes:
    path = daemon.downloads / f"new_{name}"
    wait_for(path.exists)
    return path.read_bytes()


def left_in(folder: Path) -> list[Path]:
    found = []
    for root, folders, files in os.walk(folder / "spool"):  # which may be removed meanwhile
        found += [Path(root) / name for name in folders + files]
    return found


def items(daemon: Daemon) -> list[dict[str, Any]]:
    return list(daemon.rpc("transfers.list")["transfers"])


def ends(daemon: Daemon) -> list[tuple[str, str | None]]:
    return [(item["state"], item["error"]) for item in items(daemon)]


def failed_everywhere(alice: Daemon, bob: Daemon) -> None:
    """Nothing of it is anywhere."""
    for side in (alice, bob):
        wait_for(lambda side=side: ends(side) == [("failed", BROKE_OFF)])
    wait_for(lambda: not left_in(alice.data))
    wait_for(lambda: not parts_of(bob))
    assert not (bob.downloads / "new_x").exists()


def test_bytes_arrive_while_the_pipe_is_open(home: Path, pair: tuple[Daemon, Daemon]):
    alice, bob = pair
    with feeding(home) as feeder:
        feeder.write(b"first")
        wait_for(lambda: parts_of(bob) == b"first")
        for side in pair:
            (item,) = wait_for(
                lambda side=side: [
                    item
                    for item in items(side)
                    if (item["state"], item["bytes_done"]) == ("active", 5)
                ]
            )
            assert (item["counting"], item["kind"]) == (True, "file")
        feeder.write(b" second")
        wait_for(lambda: parts_of(bob) == b"first second")
        assert not (bob.downloads / "new_x").exists()
        code, out, told = feeder.end()
    assert (code, out, told) == (0, "* x (12 B) is queued for bob\n", "")
    assert arrived(bob) == b"first second"
    for side in pair:
        wait_for(lambda side=side: ends(side) == [("done", None)])
        (item,) = items(side)
        assert (item["bytes_total"], item["bytes_done"], item["counting"]) == (12, 12, False)
    wait_for(lambda: not left_in(alice.data))


def test_an_empty_pipe(home: Path, pair: tuple[Daemon, Daemon]):
    with feeding(home, "--wait") as feeder:
        assert feeder.end()[0] == 0
    assert arrived(pair[1]) == b""


def test_it_is_waited_for_by_several(home: Path, daemon: Start, pair: tuple[Daemon, Daemon]):
    alice, bob = pair
    carol = daemon("carol")
    connect_pair(alice, carol)
    bob.rpc("settings.set", name="ask_always", value=True)
    other = home / "other"
    other.write_text("other")
    with feeding(home, str(other), "--wait", to="bob,carol") as feeder:
        feeder.write(b"bytes")
        wait_for(lambda: parts_of(carol) == b"bytes")  # bob has not taken it yet
        wait_for(lambda: [state for state, _ in ends(bob)] == ["offered"] * 2)
        for item in items(bob):
            bob.rpc(
                "transfers.decline" if item["name"] == "other" else "transfers.accept",
                transfer=item["id"],
            )
        code, out, told = feeder.end()
    assert code == 1 and "not delivered: other to bob" in told
    assert sorted(line for line in out.splitlines() if line.startswith("* ")) == [
        "* bob has x (5 B)",
        "* carol has other (5 B)",
        "* carol has x (5 B)",
    ]


def test_an_offer_shows_in_the_end_how_much_it_is(home: Path, pair: tuple[Daemon, Daemon]):
    bob = pair[1]
    bob.rpc("settings.set", name="ask_always", value=True)
    with feeding(home) as feeder:
        wait_for(lambda: [item["counting"] for item in items(bob)] == [True])
        feeder.write(b"x" * 100)
        assert feeder.end()[0] == 0
    wait_for(lambda: [item["bytes_total"] for item in items(bob)] == [100])
    assert [item["counting"] for item in items(bob)] == [False]
    bob.rpc("transfers.accept", transfer=items(bob)[0]["id"])
    assert arrived(bob) == b"x" * 100


def test_more_than_is_taken_without_a_question_asks(home: Path, pair: tuple[Daemon, Daemon]):
    bob = pair[1]
    bob.rpc("settings.set", name="auto_accept_bytes_max", value=1000)
    with feeding(home) as feeder:
        feeder.write(b"x" * 900)
        wait_for(lambda: len(parts_of(bob)) == 900)
        feeder.write(b"y" * 900)
        wait_for(lambda: [item["state"] for item in items(bob)] == ["offered"])
        feeder.write(b"z" * 900)
        bob.rpc("transfers.accept", transfer=items(bob)[0]["id"])
        wait_for(lambda: len(parts_of(bob)) == 2700)
        assert feeder.end()[0] == 0
    assert arrived(bob) == b"x" * 900 + b"y" * 900 + b"z" * 900


@pytest.mark.parametrize("wait", [True, False])
def test_a_timeout_counts_from_the_end_of_the_pipe(
    home: Path, pair: tuple[Daemon, Daemon], wait: bool
):
    pair[1].kill9()
    with feeding(home, "--timeout", "3", *(["--wait"] if wait else [])) as feeder:
        wait_for(lambda: items(pair[0]))
        begun = time.monotonic()
        wait_for(lambda: time.monotonic() > begun + 3.5)
        feeder.write(b"late")
        code, out, told = feeder.end()
    words = "tnt: x has not arrived at bob's in time; it stays in the queue (see: tnt transfers)\n"
    assert (code, told) == ((4, words) if wait else (0, "")), out
    assert [state for state, _ in ends(pair[0])] == ["queued"]


# -- pipes that break off -----------------------------------------------------------------


def test_a_client_that_is_killed_fails_it(home: Path, pair: tuple[Daemon, Daemon]):
    alice, bob = pair
    with feeding(home) as feeder:
        feeder.write(b"some bytes")
        wait_for(lambda: parts_of(bob) == b"some bytes")
        feeder.process.kill()
        failed_everywhere(alice, bob)
    (item,) = items(alice)
    with pytest.raises(RpcError) as refused:
        alice.rpc("transfers.again", transfer=item["id"])
    assert "fill the pipe again" in str(refused.value)


def test_a_transfer_that_ends_on_the_way_ends_the_client(home: Path, pair: tuple[Daemon, Daemon]):
    alice, bob = pair
    with feeding(home) as feeder:
        feeder.write(b"some bytes")
        wait_for(lambda: parts_of(bob) == b"some bytes")
        bob.rpc("transfers.cancel", transfer=items(bob)[0]["id"])
        wait_for(lambda: [item["state"] for item in items(alice)] == ["cancelled"])
        with suppress(BrokenPipeError):  # it may have asked meanwhile
            feeder.write(b"more")
        assert feeder.process.wait(30) == 1
        assert feeder.process.stderr is not None
        told = feeder.process.stderr.read().decode()
    assert told.startswith("tnt: x is cancelled") and told.count("\n") == 1
    wait_for(lambda: not left_in(alice.data))


# -- daemons that are killed --------------------------------------------------------------


@pytest.mark.parametrize("who", ["alice", "bob", "both"])
def test_daemons_that_are_killed_go_on(home: Path, pair: tuple[Daemon, Daemon], who: str):
    """The client comes back to its daemon; what is there is not sent twice but for a block."""
    alice, bob = pair
    data = os.urandom(40 * MIB)
    with feeding(home, "--wait") as feeder:
        feeder.write(data[: 20 * MIB])
        wait_for(lambda: len(parts_of(bob)) == 20 * MIB)
        for side in pair:
            if who in (side.name, "both"):
                side.kill9()
        some = 20 * MIB + 1000
        feeder.write(data[20 * MIB : some])
        for side in pair:
            if who in (side.name, "both"):
                side.start()
        wait_for(lambda: len(parts_of(bob)) == some, 60)
        feeder.write(data[some:])
        code, out, told = feeder.end()
    assert (code, told) == (0, ""), out
    assert hashlib.sha256(arrived(bob)).digest() == hashlib.sha256(data).digest()
    (item,) = items(alice)
    assert item["bytes_resent"] <= 16 * MIB
    wait_for(lambda: not left_in(alice.data))


def test_a_daemon_that_is_stopped_and_started_goes_on(home: Path, pair: tuple[Daemon, Daemon]):
    alice, bob = pair
    with feeding(home) as feeder:
        feeder.write(b"before")
        wait_for(lambda: parts_of(bob) == b"before")
        alice.sigterm()
        alice.start()
        wait_for(lambda: [item["state"] for item in items(alice)] == ["active"])
        feeder.write(b" and after")
        wait_for(lambda: parts_of(bob) == b"before and after")
        assert feeder.end()[0] == 0
    assert arrived(bob) == b"before and after"


def test_a_pipe_that_ends_while_nobody_is_there(home: Path, pair: tuple[Daemon, Daemon]):
    bob = pair[1]
    bob.kill9()
    with feeding(home) as feeder:
        feeder.write(b"for later")
        assert feeder.end()[0] == 0
    bob.start()
    assert arrived(bob) == b"for later"


# -- how much it takes --------------------------------------------------------------------


def test_a_long_pipe_takes_no_memory_and_does_not_wait_for_its_end(
    home: Path, pair: tuple[Daemon, Daemon]
):
    bob = pair[1]
    piece, digest, most = os.urandom(4 * MIB), hashlib.sha256(), 0
    with feeding(home) as feeder:
        watched = [psutil.Process(feeder.process.pid)]
        watched += [psutil.Process(side.pid) for side in pair]
        for number in range(75):
            feeder.write(piece)
            digest.update(piece)
            if number % 10 == 9:
                most = max(most, *(each.memory_info().rss for each in watched))
        wait_for(lambda: [item["bytes_done"] for item in items(bob)] == [300 * MIB], 120)
        assert feeder.end()[0] == 0
    assert hashlib.sha256(arrived(bob)).digest() == digest.digest()
    assert most < 150 * MIB
