"""Folders: private, and on a local disk."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tntd import folders
from tntd.errors import StartError

MOUNTS = """\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:26 / /home rw - nfs4 server:/home rw
31 30 0:27 / /home/local\\040disk rw - ext4 /dev/vdb rw
32 22 0:28 / /mnt rw - ext4 /dev/vdc rw
33 32 0:29 / /mnt rw - fuse.sshfs host: rw
"""


def test_a_new_folder_is_its_owners_only(tmp_path: Path):
    made = folders.private_folder(tmp_path / "a" / "b")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert folders.private_folder(made) == made


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path, mode: int):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    with pytest.raises(StartError, match="chmod 700"):
        folders.private_folder(tmp_path / "open")


def test_a_file_in_the_way_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StartError, match="cannot make the folder"):
            folders.private_folder(path)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/x", "ext4"),
        ("/home", "nfs4"),
        ("/home/alice", "nfs4"),
        ("/homes", "ext4"),
        ("/home/local disk/alice", "ext4"),
        ("/mnt/data", "fuse.sshfs"),
    ],
)
def test_the_mount_that_a_path_is_on(path: str, kind: str):
    assert folders.mount_type(MOUNTS, path) == kind


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    table = tmp_path / "mountinfo"
    table.write_text(f"1 0 0:1 / {tmp_path} rw - cifs //server/x rw\n")
    monkeypatch.setattr(folders, "_MOUNTS", table)
    with pytest.raises(StartError, match=r"cifs.*--data-dir"):
        folders.refuse_network(tmp_path)
    table.write_text("garbage\n1 2 3\n")
    folders.refuse_network(tmp_path)


def test_a_small_file_is_private_and_replaced_whole(tmp_path: Path):
    path = tmp_path / "alice.json"
    folders.write_private(path, b"one")
    folders.write_private(path, b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["alice.json"]
