"""kill -9 at random moments of a large file and of a large folder: always whole in the end.

What holds always: what is sent twice is counted, and small for each kill.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from harness import Daemon, wait_for
from moving import MIB, Start, digest, make, make_tree, no_parts, pair, picture, send, transfer

RESENT_MAX = 4 * MIB  # for each kill


def kill_at_random(alice: Daemon, bob: Daemon, id: str, moments: int, seed: int) -> int:
    """Kill one or both, again and again, while the transfer is under way; how often."""
    chance = random.Random(seed)
    kills = 0
    while kills < moments:
        _wait_until_it_moves(alice, bob, id)
        time.sleep(chance.random() * 0.1)  # a moment by chance, nothing is awaited
        if transfer(alice, id)["state"] == "done":
            break
        victims = chance.choice([[alice], [bob], [alice, bob]])
        for each in victims:
            each.kill9()
        for each in victims:
            each.start()
        kills += 1
    return kills


def _wait_until_it_moves(alice: Daemon, bob: Daemon, id: str) -> None:
    before = transfer(bob, id)["bytes_done"]

    def moves() -> bool:
        found = transfer(bob, id)
        return bool(found["state"] == "active" and found["bytes_done"] != before)

    wait_for(lambda: transfer(alice, id)["state"] == "done" or moves(), 120)


def slowly(*daemons: Daemon, rate: int) -> None:
    """So that there are many moments in it."""
    for each in daemons:
        each.rpc("settings.set", name="upload_bytes_per_s", value=rate)


def the_file(daemon: Start, home: Path, size: int, moments: int, rate: int) -> str:
    """Kill while a file is under way; a line of what was seen."""
    alice, bob = pair(daemon, home)
    slowly(alice, rate=rate)
    path = make(home / "big", size)
    (sent,) = send(alice, "bob", path)
    kills = kill_at_random(alice, bob, sent["id"], moments, seed=1)
    slowly(alice, rate=0)
    wait_for(lambda: transfer(alice, sent["id"])["state"] == "done", 600, "it is done")
    assert digest(bob.downloads / "new_big") == digest(path)
    assert no_parts(bob.downloads)
    resent = transfer(alice, sent["id"])["bytes_resent"]
    assert resent <= kills * RESENT_MAX
    assert kills >= moments // 2, "it was under way when it was killed"
    return f"{size // MIB} MiB, {kills} kills, {resent / MIB:.1f} MiB sent twice"


def the_folder(daemon: Start, home: Path, files: int, moments: int, rate: int) -> str:
    """The same with a folder."""
    alice, bob = pair(daemon, home)
    slowly(alice, rate=rate)
    tree = make_tree(home / "many", files=files)
    (sent,) = send(alice, "bob", tree)
    kills = kill_at_random(alice, bob, sent["id"], moments, seed=2)
    slowly(alice, rate=0)
    wait_for(lambda: transfer(alice, sent["id"])["state"] == "done", 600, "it is done")
    assert picture(bob.downloads / "new_many") == picture(tree)
    assert no_parts(bob.downloads)
    resent = transfer(alice, sent["id"])["bytes_resent"]
    assert resent <= kills * RESENT_MAX
    assert kills >= moments // 2, "it was under way when it was killed"
    return f"{files} files, {kills} kills, {resent / MIB:.1f} MiB sent twice"


def test_a_file_through_some_kills(daemon: Start, home: Path) -> None:
    print(the_file(daemon, home, 200 * MIB, 6, 25 * MIB))


def test_a_folder_through_some_kills(daemon: Start, home: Path) -> None:
    print(the_folder(daemon, home, 1500, 6, 10 * MIB))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_file_through_50_kills(daemon: Start, home: Path) -> None:
    print(the_file(daemon, home, 2048 * MIB, 50, 60 * MIB))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_folder_through_50_kills(daemon: Start, home: Path) -> None:
    print(the_folder(daemon, home, 5000, 50, 8 * MIB))
