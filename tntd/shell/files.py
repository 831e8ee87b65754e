"""The open files of the daemon, by handle; reading and writing them without waiting.

What holds always: a descriptor has one owner.  The node names files by handles, the children
open them and give the descriptors up to here, and `close` is the only end of them.  Reads and
writes carry their offset, so a descriptor that a child shares is never moved.

A read must not wait for the disk: on Linux `RWF_NOWAIT` refuses where bytes are not in memory,
and `read_at` then answers None.  Where there is no such flag, None comes unless the caller says
that the range was read a moment ago (by a child).  A file in memory (tmpfs) is just read.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Final

from tntd.tasks import Failed

_NOWAIT: Final[int] = getattr(os, "RWF_NOWAIT", 0)
_POSITIONED: Final = hasattr(os, "preadv") and hasattr(os, "pwrite")
_NO_NOWAIT: Final = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}

_WORDS: Final = {
    errno.ENOENT: "no such file or folder",
    errno.EACCES: "permission denied",
    errno.EPERM: "not permitted",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is too large for this system",
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the disk reported an error",
    errno.EISDIR: "it is a folder",
    errno.ENOTDIR: "a part of its path is not a folder",
    errno.ELOOP: "a symbolic link is in the way",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EEXIST: "the name is taken",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open",
    errno.EBADF: "the file is not open",
    errno.ESTALE: "it is not the same file any more",
}


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A descriptor; `in_memory` where its file system has no disk to wait for."""

    descriptor: int
    in_memory: bool = False


class Files:
    """The table of open files."""

    def __init__(self) -> None:
        self._files: dict[int, OpenFile] = {}

    def __len__(self) -> int:
        return len(self._files)

    def put(self, handle: int, file: OpenFile) -> None:
        """Own `file` from now on, in place of what `handle` named before."""
        self.close(handle)
        self._files[handle] = file

    def get(self, handle: int) -> OpenFile | None:
        """The file behind `handle`; None where it is not open."""
        return self._files.get(handle)

    def close(self, handle: int) -> None:
        """Close it; does nothing where it is not open."""
        file = self._files.pop(handle, None)
        if file is not None:
            os.close(file.descriptor)

    def close_all(self) -> None:
        """Close every one."""
        for handle in list(self._files):
            self.close(handle)


def failure(error: OSError) -> Failed:
    """An error of the system as an answer, in words that hold no path."""
    number = error.errno or 0
    code = errno.errorcode.get(number, "EIO")
    return Failed(code, words(error))


def words(error: OSError) -> str:
    """What an error of the system means, without the path."""
    number = error.errno or 0
    return _WORDS.get(number) or error.strerror or os.strerror(number).lower()


def read_at(file: OpenFile, view: memoryview, offset: int, *, warm: bool) -> int | None:
    """Fill `view` with the bytes at `offset`; how many there were (fewer only at the end of the
    file).  None where the disk would have to be waited for; never so where the range is `warm`.

    Raises OSError.
    """
    if not warm and not file.in_memory:
        return _read_cached(file.descriptor, view, offset)
    got = 0
    while got < len(view):
        count = _read_some(file.descriptor, view[got:], offset + got)
        if count == 0:
            break
        got += count
    return got


def write_at(file: OpenFile, data: memoryview, offset: int) -> None:
    """Write all of `data` at `offset`.  Raises OSError."""
    done = 0
    while done < len(data):
        done += _write_some(file.descriptor, data[done:], offset + done)


def _read_cached(descriptor: int, view: memoryview, offset: int) -> int | None:
    if not _NOWAIT:
        return None
    try:
        count = os.preadv(descriptor, [view], offset, _NOWAIT)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno in _NO_NOWAIT:
            return None
        raise
    # Short: the rest is cold, or it is the end; a warm read will tell.
    return count if count == len(view) else None


if _POSITIONED:

    def _read_some(descriptor: int, view: memoryview, offset: int) -> int:
        return os.preadv(descriptor, [view], offset)

    def _write_some(descriptor: int, data: memoryview, offset: int) -> int:
        return os.pwrite(descriptor, data, offset)

else:  # Windows; nobody shares the position of our descriptors there

    def _read_some(descriptor: int, view: memoryview, offset: int) -> int:
        os.lseek(descriptor, offset, os.SEEK_SET)
        data = os.read(descriptor, len(view))
        view[: len(data)] = data
        return len(data)

    def _write_some(descriptor: int, data: memoryview, offset: int) -> int:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, data)
