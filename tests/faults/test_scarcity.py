"""No descriptors left, and helper processes that are killed: said, survived, recovered from."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import (
    Client,
    Daemon,
    accept,
    connect_pair,
    open_files,
    thread_count,
    wait_for,
    wait_linked,
)
from moving import slow

Start = Callable[..., Daemon]
MIB = 1024 * 1024


@pytest.fixture
def pair(daemon: Start, home: Path) -> tuple[Daemon, Daemon]:
    """Two linked daemons with downloads folders of their own."""
    alice = daemon("alice", "--downloads", str(home / "a"))
    bob = daemon("bob", "--downloads", str(home / "b"))
    connect_pair(alice, bob)
    return alice, bob


@contextlib.contextmanager
def few_descriptors(daemon: Daemon, spare: int) -> Iterator[None]:
    """For a while the daemon may open only so many more."""
    process = psutil.Process(daemon.pid)
    soft, hard = process.rlimit(resource.RLIMIT_NOFILE)
    process.rlimit(resource.RLIMIT_NOFILE, (open_files(daemon.pid) + spare, hard))
    try:
        yield
    finally:
        process.rlimit(resource.RLIMIT_NOFILE, (soft, hard))


def talk(one: Daemon, two: Daemon, number: int) -> None:
    """A text each way, soon."""
    for here, there in ((one, two), (two, one)):
        text = f"{here.name} {number}"
        here.rpc("messages.send", to=there.name, text=text)
        wait_for(lambda there=there, here=here, text=text: text in there.texts(here.name), 15, text)


def send(daemon: Daemon, to: str, path: Path, size: int) -> str:
    path.write_bytes(b"z" * size)
    id: str = daemon.rpc("transfers.send", to=to, paths=[str(path)])["transfers"][0]["id"]
    return id


def state(daemon: Daemon, id: str) -> dict[str, Any]:
    found = daemon.rpc("transfers.list")["transfers"]
    return next((each for each in found if each["id"] == id), {"state": "unknown"})


def done(daemon: Daemon, *ids: str) -> None:
    ended = ("done", "failed")
    for each in ids:
        wait_for(lambda each=each: state(daemon, each)["state"] in ended, 90, f"{each} done")
        assert state(daemon, each)["state"] == "done", state(daemon, each)


def test_no_descriptor_is_left(pair: tuple[Daemon, Daemon], home: Path) -> None:
    alice, bob = pair
    before = open_files(alice.pid)
    ids: list[str] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(few_descriptors(alice, spare=5))
        crowd = [
            stack.enter_context(socket.create_connection(("127.0.0.1", alice.port), 20))
            for _ in range(20)
        ]
        crowd += [stack.enter_context(Client.open(alice.ready["control"])).sock for _ in range(20)]
        assert crowd
        wait_for(lambda: "cannot accept connections for a moment" in alice.log(), what="said")
        ids.append(send(alice, "bob", home / "one", 3 * MIB))
        ids.append(send(bob, "alice", home / "two", 3 * MIB))
        for number in range(5):
            talk(alice, bob, number)
        cpu = psutil.Process(alice.pid).cpu_times().user
        time.sleep(2)  # to measure: it does not spin on a socket that stays ready
        assert psutil.Process(alice.pid).cpu_times().user - cpu < 1
    done(alice, ids[0])
    done(bob, ids[1])
    talk(alice, bob, 99)
    alice.client().close()
    wait_for(lambda: open_files(alice.pid) <= before, what=f"{before} descriptors again")
    assert "Traceback" not in alice.log() + bob.log()
    assert thread_count(alice.pid) == 1


def living(pid: int) -> list[psutil.Process]:
    """The helpers of a daemon that run; those that have ended may still be listed."""
    found = []
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
    return found


@pytest.mark.parametrize("victim", ["sender", "receiver"])
def test_helpers_are_killed(pair: tuple[Daemon, Daemon], home: Path, victim: str) -> None:
    """Both of a daemon, again and again, while files move."""
    alice, bob = pair
    daemon = alice if victim == "sender" else bob
    pid, before = daemon.pid, open_files(daemon.pid)
    slow(alice, 10 * MIB)
    ids = [send(alice, "bob", home / f"f{number}", 20 * MIB) for number in range(4)]
    killed = 0
    for number in range(4):
        # At least one of them; how long the other is waited for grows each time.
        for child in wait_for(lambda: living(pid), what="a helper runs"):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
                killed += 1
        talk(alice, bob, number)
    slow(alice, 0)
    assert killed >= 4
    done(alice, *ids)
    assert daemon.pid == pid
    for number in range(4):
        found = bob.downloads / f"new_f{number}"
        assert found.read_bytes() == (home / f"f{number}").read_bytes()
    assert {each.name for each in bob.downloads.iterdir()} == {f"new_f{n}" for n in range(4)}
    assert "helper has ended and is started again" in daemon.log()
    assert "Traceback" not in alice.log() + bob.log()
    wait_for(lambda: len(living(pid)) == 2, what="both helpers run again")
    wait_for(lambda: open_files(pid) <= before + 1, what="descriptors are given back")


def test_a_helper_that_cannot_be_started(pair: tuple[Daemon, Daemon], home: Path) -> None:
    """No descriptor for a new helper: it is said, tried again, and works in the end."""
    alice, bob = pair
    with few_descriptors(alice, spare=1):
        for child in psutil.Process(alice.pid).children():
            child.kill()
        wait_for(lambda: "cannot start the" in alice.log(), what="it is said")
        talk(alice, bob, 1)
    id = send(alice, "bob", home / "f", MIB)
    done(alice, id)
    assert "Traceback" not in alice.log()


@pytest.mark.parametrize("dialler", ["alice", "bob"])
@pytest.mark.parametrize("victim", ["alice", "bob"])
def test_no_descriptor_for_a_file(daemon: Start, home: Path, victim: str, dialler: str) -> None:
    """The file waits; it does not fail for something that passes."""
    alice = daemon("alice", "--downloads", str(home / "a"))
    bob = daemon("bob", "--downloads", str(home / "b"))
    one, two = (alice, bob) if dialler == "alice" else (bob, alice)
    one.rpc("peers.connect", address=two.address)
    accept(two, one)
    wait_linked(alice, bob)
    with few_descriptors(alice if victim == "alice" else bob, spare=0):
        id = send(alice, "bob", home / "f", MIB)
        talk(alice, bob, 1)
        for _ in range(20):
            assert state(alice, id)["state"] in ("queued", "offered", "active"), state(alice, id)
            time.sleep(0.1)  # to look at it for a while
        talk(alice, bob, 2)
    done(alice, id)
    assert (bob.downloads / "new_f").read_bytes() == (home / "f").read_bytes()
    assert "Traceback" not in alice.log() + bob.log()
