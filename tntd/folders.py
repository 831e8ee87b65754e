"""Folders and small files of a profile: private, whole, and on a local disk.

What holds always: a folder made here is its owner's only (0700); one that others may change is
refused, for whoever can rename files in it can put another key or socket there.  A small file
is written beside its place and renamed onto it, so that nobody ever reads half of one.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path

from tntd.control.visible import visible
from tntd.errors import StartError

# SQLite's locks and syncs cannot be trusted there, and neither can ours.
_NETWORK_TYPES = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs"}
    | {"fuse.sshfs", "gfs2", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs"}
)
_MOUNTS = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")  # how a blank in a path is written there


def private_folder(path: Path) -> Path:
    """Make `path` (0700) unless it is there.

    Raises StartError where it cannot be made, belongs to somebody else, or others may write to
    it.
    """
    shown = visible(str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        found, above = path.stat(), path.parent.stat()
    except OSError as error:
        raise StartError(
            f"cannot make the folder {shown}: {error.strerror}; check who owns {shown} "
            "and the folders above it, or choose another place"
        ) from error
    if os.name == "posix":
        for owner in (found.st_uid, above.st_uid):
            if os.geteuid() not in (0, owner) and owner != 0:
                raise StartError(
                    f"the folder {shown}, or the one above it, belongs to another user; "
                    "choose another place"
                )
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise StartError(f"others may write to the folder {shown}; first: chmod 700 {shown}")
    return path


def refuse_network(path: Path) -> None:
    """Raises StartError where `path` (existing) is on a network file system.  Only Linux tells."""
    if not sys.platform.startswith("linux"):
        return
    try:
        mounts = _MOUNTS.read_text("utf-8", "surrogateescape")
    except OSError:
        return
    kind = mount_type(mounts, str(path.resolve()))
    if kind in _NETWORK_TYPES:
        raise StartError(
            f"the data folder {visible(str(path))} is on a network file system ({kind}), where "
            "a database is not safe; choose a local folder with --data-dir"
        )


def mount_type(mounts: str, path: str) -> str | None:
    """The file system type at the absolute `path`, by the text of /proc/self/mountinfo."""
    best, kind = "", None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # of two on one point the later one is on top
            best, kind = point, after.split(" ")[0]
    return kind


def write_private(path: Path, data: bytes) -> None:
    """Put a small file (0600) with `data` at `path`, in one step.  Raises OSError."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(fresh, flags, 0o600)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
    fresh.replace(path)


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk.  Windows has no such call and needs none."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
