"""Locks: held by one, freed by any end of the process."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tntd.errors import StartError
from tntd.locks import lock_data, lock_name

HOLD = """
import sys
from pathlib import Path
from tntd.locks import lock_data
held = lock_data(Path(sys.argv[1]), sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


def hold(path: Path, name: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_kill_9_frees_it(tmp_path: Path):
    path = tmp_path / "lock"
    process = hold(path, "alice")
    with pytest.raises(StartError) as caught:
        lock_name(path, "alice")
    assert caught.value.exit_code == 3
    assert str(process.pid) in caught.value.message
    process.kill()
    process.communicate()
    lock_name(path, "alice").release()


def test_a_released_lock_can_be_taken_again(tmp_path: Path):
    lock_name(tmp_path / "lock", "alice").release()
    lock_name(tmp_path / "lock", "alice").release()


@pytest.mark.parametrize(("name", "code"), [("alice", 3), ("bob", 1)])
def test_a_data_folder_has_one_daemon(tmp_path: Path, name: str, code: int):
    process = hold(tmp_path / "lock", "alice")
    with pytest.raises(StartError) as caught:
        lock_data(tmp_path / "lock", name)
    assert caught.value.exit_code == code
    assert "alice" in caught.value.message
    process.kill()
    process.communicate()


def test_garbage_in_the_file_is_harmless(tmp_path: Path):
    (tmp_path / "lock").write_bytes(b"\xff\x00 garbage\n" * 1000)
    held = lock_name(tmp_path / "lock", "alice")
    with pytest.raises(StartError):
        lock_name(tmp_path / "lock", "alice")
    held.release()


def test_a_link_is_not_followed(tmp_path: Path):
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartError, match="cannot use the lock file"):
        lock_name(tmp_path / "lock", "alice")
    assert not (tmp_path / "elsewhere").exists()


def test_on_a_full_disk_it_is_held_none_the_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")

    path = tmp_path / "lock"
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        held = lock_data(path, "alice")
    with pytest.raises(StartError, match="unknown"):
        lock_data(path, "alice")
    held.release()
