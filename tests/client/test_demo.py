"""`tnt demo`: it shows what it says, and leaves nothing behind however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from harness import wait_for

DEMO = [sys.executable, "-P", "-m", "tnt_client.tnt", "demo"]


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """The folder in which the demo makes its own."""
    return tmp_path


def start(room: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*DEMO, *options],
        env={**os.environ, "TMPDIR": str(room)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def nothing_is_left(room: Path) -> bool:
    """No folder, and no daemon that runs in one."""
    if list(room.iterdir()):
        return False
    for process in psutil.process_iter():
        try:
            if str(room) in process.environ().get("TNT_HOME", ""):
                return False
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return True


def test_the_demo_shows_all_of_it(room: Path):
    with start(room) as demo:
        shown, errors = demo.communicate(timeout=120)
    assert (demo.returncode, errors) == (0, "")
    for step in (
        "two daemons run in a folder of their own: alice on port ",
        "each dialled the other's port",
        "alice wrote to bob",
        "bob wrote to alice",
        "100%  64 MiB of 64 MiB",
        "alice sent bob 64 MiB in",
        "alice sent bob a folder of 500 small files in",
        "saved as new_random.bin",
        "the BLAKE3 hash is the same on both sides",
        "-- while you were away (since ",
        "alice: message 5 while bob was away",
        "exactly what was missed",
        "both daemons are stopped",
        "the folder is removed",
    ):
        assert shown.count(step) == 1, step
    wait_for(lambda: nothing_is_left(room))


def test_as_objects(room: Path):
    with start(room, "--json") as demo:
        shown, _errors = demo.communicate(timeout=120)
    steps = [json.loads(line) for line in shown.splitlines()]
    assert demo.returncode == 0 and len(steps) == 11 and all(step["ok"] for step in steps)


def test_a_demo_that_fails_says_so_and_cleans_up(room: Path):
    with start(room, "--timeout", "0.001") as demo:
        shown, _errors = demo.communicate(timeout=120)
    assert demo.returncode == 4 and "failed alice's daemon is not ready" in shown
    wait_for(lambda: nothing_is_left(room))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_cleans_up(room: Path, number: signal.Signals):
    with start(room) as demo:
        assert demo.stdout is not None
        assert "two daemons run" in demo.stdout.readline()
        demo.send_signal(number)
        _shown, errors = demo.communicate(timeout=60)
    assert (demo.returncode, errors) == (128 + number, "")
    wait_for(lambda: nothing_is_left(room))
