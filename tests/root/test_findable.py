"""The runtime folder goes with its user's last session; the daemon is found when they return."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import TNTD, Daemon, run, wait_for

Start = Callable[..., Daemon]


@pytest.mark.parametrize("options", [[], ["--control", "tcp:127.0.0.1:0"]], ids=["unix", "tcp"])
def test_what_is_gone_from_the_runtime_folder_comes_back(
    daemon: Start, home: Path, options: list[str]
) -> None:
    alice = daemon("alice", *options)
    attached = alice.client()
    runtime = home / "run"
    shutil.rmtree(runtime)
    assert attached.call("status")["name"] == "alice", "who was attached stays"
    # The lock is made first, the endpoint file last.
    wait_for((runtime / "alice.json").exists, what="the endpoint file")
    again = run([*TNTD, "--name", "alice"], home)
    assert (again.returncode, "is already running" in again.stderr) == (3, True)
    assert alice.client().call("status")["name"] == "alice"
    assert attached.call("status")["name"] == "alice"
    assert (runtime / "alice.json").stat().st_mode & 0o777 == 0o600
    assert runtime.stat().st_mode & 0o777 == 0o700
    assert alice.sigterm() == 0
    assert [path.name for path in runtime.iterdir()] == ["alice.lock"]


def test_while_it_cannot_be_put_back_it_is_tried_again_and_said_once(
    daemon: Start, home: Path
) -> None:
    alice = daemon("alice")
    runtime = home / "run"
    runtime.rename(home / "gone")
    runtime.write_text("not a folder")  # as if its user were not back yet
    wait_for(lambda: "clients cannot find this daemon" in alice.log())
    runtime.unlink()
    wait_for((runtime / "alice.json").exists, what="the endpoint file")
    assert alice.client().call("status")["name"] == "alice"
    assert alice.log().count("clients cannot find this daemon") == 1
