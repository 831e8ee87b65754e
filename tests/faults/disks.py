"""Bad disks for real daemons: a small one that is full, one that takes nothing, a locked file.

What holds always: a mount is made in a mount namespace of this process alone, so it ends with it,
however that ends; a limit is put on one process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

_CLONE_NEWNS = 0x20000
_PRIVATE = 1 << 18 | 1 << 14  # MS_PRIVATE | MS_REC
_PIECE = bytes(64 * 1024)
_libc = ctypes.CDLL(None, use_errno=True)


class SmallDisk:
    """A tmpfs of `size` bytes at `path`."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self._filler = path / "filler"
        path.mkdir(parents=True)
        options = f"size={size},mode=0700".encode()
        if _libc.mount(b"none", os.fsencode(path), b"tmpfs", 0, options):
            raise OSError(ctypes.get_errno(), "mount")

    def fill(self, leave: int = 0) -> None:
        """Use all of it up, but for `leave` bytes (a page more or less)."""
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(_PIECE)
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(_PIECE[:4096])
        if leave:
            os.truncate(self._filler, max(0, self._filler.stat().st_size - leave))

    def free(self) -> None:
        """There is room again."""
        self._filler.unlink()

    def close(self) -> None:
        """Unmount it."""
        _libc.umount2(os.fsencode(self.path), 2)  # MNT_DETACH


def small_disk(path: Path, size: int) -> SmallDisk:
    """A small disk at `path`; skips the test, and says so, where mounting is not allowed."""
    try:
        if _libc.unshare(_CLONE_NEWNS) or _libc.mount(b"none", b"/", None, _PRIVATE, None):
            raise OSError(ctypes.get_errno(), "unshare")
        return SmallDisk(path, size)
    except (OSError, AttributeError) as error:
        pytest.skip(
            f"cannot mount a small disk here ({error}): a disk that takes nothing is tested by "
            "test_a_disk_that_takes_nothing, with a file-size limit, all the same"
        )


@contextlib.contextmanager
def nothing_writable(pid: int) -> Iterator[None]:
    """For a while, no byte that the process writes to a file is taken."""
    process = psutil.Process(pid)
    soft, hard = process.rlimit(resource.RLIMIT_FSIZE)
    process.rlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.rlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def locked(*paths: Path) -> Iterator[None]:
    """For a while, the files are read-only even for who has them open; skips the test, and says
    so, where the file system or our rights do not allow that."""
    done = _attribute("+i", paths)
    try:
        if done.returncode:
            pytest.skip(f"cannot make files immutable here: {done.stderr.strip()}")
        yield
    finally:
        _attribute("-i", paths)


def _attribute(change: str, paths: tuple[Path, ...]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["chattr", change, *map(str, paths)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess([], 1, "", "there is no chattr")
