"""Open files as the child `disk` uses them: times, modes, space, and the way to the disk.

What holds always: what a file system cannot do (hold a time, know modes, set space aside) is left
out, since the file is whole without; what loses data is an OSError.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import sys
from typing import Final

from tntd.tasks import Inspected

TMPFS_MAGICS: Final = frozenset({0x01021994, 0x858458F6})  # tmpfs, ramfs
# What the system tells as files: proc, sysfs, debugfs, tracefs, securityfs, cgroup, cgroup2.
_SYSTEM_MAGICS: Final = frozenset(
    {0x9FA0, 0x62656572, 0x64626720, 0x74726163, 0x73636673, 0x27E0EB, 0x63677270}
)
NO_SUCH_CALL: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
# Of copy_file_range: between these files, or on this system, there is none.
NO_SUCH_COPY: Final = NO_SUCH_CALL | {errno.EXDEV, errno.EPERM, errno.EBADF, errno.ETXTBSY}
_F_FULLFSYNC: Final = 51

libc = ctypes.CDLL(None, use_errno=True) if sys.platform != "win32" else None


def set_time(where: int | bytes, mtime_ns: int, accessed_ns: int) -> None:
    """Set the times of an open file or a path.  One that cannot be held is left out: what it
    belongs to is whole without."""
    try:
        os.utime(where, ns=(accessed_ns, mtime_ns))
    except (OSError, OverflowError, TypeError):  # the latter for a descriptor on Windows
        return


def set_mode(descriptor: int, executable: bool) -> None:
    """Give an open file the mode that a new one would have, where there are modes."""
    if not hasattr(os, "fchmod"):
        return
    umask = os.umask(0o077)
    os.umask(umask)
    mode = 0o666 & ~umask
    if executable:
        mode |= (mode & 0o444) >> 2
    with contextlib.suppress(PermissionError):  # no modes here; the file itself is whole
        os.fchmod(descriptor, mode)


def must_be_file(found: os.stat_result) -> None:
    """Raises OSError unless it is a regular file."""
    if stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EISDIR, "")
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a file")


def inspected(
    found: os.stat_result, free: int, size: int | None = None, *, readable: bool = True
) -> Inspected:
    """What was found, as an answer; `size` in place of what the system says."""
    kind = "other"
    if stat.S_ISREG(found.st_mode):
        kind = "file"
    elif stat.S_ISDIR(found.st_mode):
        kind = "folder"
    return Inspected(
        kind=kind,
        size=found.st_size if size is None else size,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
        device=found.st_dev,
        inode=found.st_ino,
        executable=bool(found.st_mode & stat.S_IXUSR),
        free=free,
        readable=readable,
    )


# -- open files ---------------------------------------------------------------------------


def sync(descriptor: int) -> None:
    """Bring data and metadata to the disk itself.  Raises OSError."""
    if sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(descriptor, _F_FULLFSYNC)
        except OSError as error:
            if error.errno not in NO_SUCH_CALL:
                raise
        else:
            return
    os.fsync(descriptor)


def sync_all(descriptor: int) -> bool:
    """Bring the whole file system of an open file to the disk; False where that cannot be asked
    for.  Raises OSError."""
    call = getattr(libc, "syncfs", None)
    if sys.platform != "linux" or call is None:
        return False
    ctypes.set_errno(0)
    if call(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return True


def sync_data(descriptor: int) -> None:
    """As `sync`; of the metadata at least the size."""
    if sys.platform == "linux":
        os.fdatasync(descriptor)
    else:
        sync(descriptor)


def free_bytes(where: int | bytes) -> int:
    """What is free for us on the file system of an open file, or of a path."""
    if sys.platform == "win32":
        import shutil

        return shutil.disk_usage(where).free
    found = os.statvfs(where)
    return found.f_bavail * found.f_frsize


def file_system(descriptor: int) -> int:
    """The kind of file system that an open file is on, as Linux numbers them; else 0."""
    if sys.platform != "linux" or libc is None:
        return 0
    space = (ctypes.c_long * 64)()  # struct statfs, which begins with f_type
    if libc.fstatfs(descriptor, ctypes.byref(space)):
        return 0
    return space[0] & 0xFFFFFFFF


def is_in_memory(descriptor: int) -> bool:
    """Whether the file system of an open file has no disk to wait for."""
    return file_system(descriptor) in TMPFS_MAGICS


def is_of_the_system(descriptor: int) -> bool:
    """Whether what is in an open file is made when it is read: its size says nothing."""
    return file_system(descriptor) in _SYSTEM_MAGICS


def reserve(descriptor: int, size: int) -> None:
    """Set `size` bytes of disk aside where that is quick, without changing the file's size.
    Raises OSError where there are not so many."""
    call = getattr(libc, "fallocate64", None) or getattr(libc, "fallocate", None)
    if sys.platform != "linux" or call is None or is_in_memory(descriptor):
        return
    keep_size = 1
    ctypes.set_errno(0)
    if call(descriptor, keep_size, ctypes.c_longlong(0), ctypes.c_longlong(size)):
        number = ctypes.get_errno()
        if number not in NO_SUCH_CALL:
            raise OSError(number, os.strerror(number))
