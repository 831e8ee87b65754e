"""The identity's file: made once, private, never overwritten."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tntd import keyfile
from tntd.errors import StartError


def test_a_key_is_made_once_and_read_again(tmp_path: Path):
    path = tmp_path / "identity.key"
    seed, fresh = keyfile.load_or_create(path)
    assert (len(seed), fresh) == (32, True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes().startswith(b"tnt-ed25519-seed: ")
    assert keyfile.load_or_create(path) == (seed, False)
    assert [entry.name for entry in tmp_path.iterdir()] == ["identity.key"]


def test_two_keys_differ(tmp_path: Path):
    one, _ = keyfile.load_or_create(tmp_path / "one")
    two, _ = keyfile.load_or_create(tmp_path / "two")
    assert one != two


def test_what_a_crash_left_half_written_is_no_key(tmp_path: Path):
    (tmp_path / "identity.key.new").write_bytes(b"tnt-ed25519-se")
    _, fresh = keyfile.load_or_create(tmp_path / "identity.key")
    assert fresh
    assert not (tmp_path / "identity.key.new").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int):
    path = tmp_path / "identity.key"
    keyfile.load_or_create(path)
    path.chmod(mode)
    with pytest.raises(StartError, match="chmod 600"):
        keyfile.load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode, "not mended behind the user's back"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        b"tnt-ed25519-seed: ",
        b"tnt-ed25519-seed: !!!!",
        b"tnt-ed25519-seed: MFRGG",
        b"tnt-ed25519-seed: " + b"A" * 56,
        os.urandom(500),
    ],
)
def test_a_wrong_key_is_an_error_and_stays_as_it_is(tmp_path: Path, data: bytes):
    path = tmp_path / "identity.key"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(StartError, match="cannot use the key file"):
        keyfile.load_or_create(path)
    assert path.read_bytes() == data


def test_a_folder_or_a_dangling_link_is_no_key(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "link"):
        with pytest.raises(StartError):
            keyfile.load_or_create(tmp_path / name)
    assert not (tmp_path / "nowhere").exists()


def test_it_is_synced_before_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[str] = []
    real_sync, real_rename = os.fsync, Path.rename

    def sync(descriptor: int) -> None:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        calls.append("sync folder" if folder else "sync file")
        real_sync(descriptor)

    def rename(self: Path, target: Path) -> Path:
        calls.append("rename")
        return real_rename(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "rename", rename)
    keyfile.load_or_create(tmp_path / "identity.key")
    assert calls == ["sync file", "rename", "sync folder"]
