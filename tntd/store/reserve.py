"""The reserve: a file of 4 MiB beside the database, given up when the database cannot be written.

What holds always: while `held`, RESERVE_BYTES of the disk are really ours, so that on a full disk
they can be handed to the database: acknowledgements, cancels and deletions still commit, and with
them the user can make room.  Whatever would make the history longer has to wait for `take`, which
succeeds only where as much again is free beside it: else one message more would use it up, and we
would give and take without end.

No failure of the reserve itself is an error: without it we are as well off as anybody else.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from tntd import limits

FILE_NAME = "reserve"


class Reserve:
    """The file `path`.  It is not touched before `take`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.held = False

    def take(self) -> bool:
        """Set the space aside, if there is enough of it; whether it is held now."""
        if not self.held:
            try:
                self.held = self._allocate()
            except OSError:
                self.give_up()  # a part of it would help nobody
        return self.held

    def give_up(self) -> None:
        """Let the database have the space."""
        self.held = False
        try:
            os.truncate(self._path, 0)
        except OSError:
            return  # a disk that takes nothing any more; there is nothing to gain on it

    def _allocate(self) -> bool:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            there = _allocated(descriptor)
            if _free(descriptor) < 2 * limits.RESERVE_BYTES - there:
                return False
            _write_over(descriptor)
            return True
        finally:
            os.close(descriptor)


def _allocated(descriptor: int) -> int:
    found = os.fstat(descriptor)
    return min(limits.RESERVE_BYTES, getattr(found, "st_blocks", 0) * 512)


def _free(descriptor: int) -> int:
    """Bytes that we may still use; plenty where the system does not say."""
    if not hasattr(os, "fstatvfs"):
        return 2 * limits.RESERVE_BYTES
    found = os.fstatvfs(descriptor)
    return found.f_bavail * found.f_frsize


def _write_over(descriptor: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, limits.RESERVE_BYTES)
        return
    for _ in range(limits.RESERVE_BYTES // limits.MIB):
        if os.write(descriptor, bytes(limits.MIB)) < limits.MIB:
            raise OSError(errno.ENOSPC, "")
