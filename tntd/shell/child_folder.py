# Paths are bytes here, as the system has them; pathlib takes none.
# ruff: noqa: PTH104, PTH118, PTH208
"""Folders as the child `disk` uses them: single names below a folder that is held open.

What holds always: nothing that somebody else puts in the way (a symbolic link in place of a
folder or of a file) is followed, because each name is looked up below a descriptor and
without following; and a rename never replaces anything.  Where the system has no calls
relative to a descriptor (Windows), paths are joined instead.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from typing import Final

_DESCRIPTORS: Final = os.open in os.supports_dir_fd and hasattr(os, "O_DIRECTORY")
_NOFOLLOW: Final[int] = getattr(os, "O_NOFOLLOW", 0)
COMMON_FLAGS: Final[int] = (
    getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)
_RENAME_NOREPLACE: Final = 1
_RENAME_EXCL: Final = 4
_TMPFS_MAGICS: Final = {0x01021994, 0x858458F6}  # tmpfs, ramfs
_NO_SUCH_CALL: Final = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_NO_LINKS: Final = _NO_SUCH_CALL | {errno.EPERM, errno.EMLINK}
_F_FULLFSYNC: Final = 51

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform != "win32" else None


def check_name(name: bytes) -> None:
    """Raises OSError(EINVAL) unless `name` is a single component."""
    bad = b"/" in name or b"\0" in name or name in (b"", b".", b"..")
    if sys.platform == "win32":
        bad = bad or any(byte in name for byte in b'\\:*?"<>|')
    if bad:
        raise OSError(errno.EINVAL, "not a single name")


class Folder:
    """An open folder; a context manager."""

    def __init__(self, path: bytes, descriptor: int) -> None:
        self._path = path
        self.descriptor = descriptor  # -1 where there are none for folders

    @classmethod
    def open(cls, path: bytes) -> Folder:
        """Open the folder at `path`, through symbolic links if need be."""
        if not _DESCRIPTORS:
            os.listdir(path)  # an error where it is none
            return cls(path, -1)
        return cls(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | COMMON_FLAGS))

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)

    # -- names in it ---------------------------------------------------------------------

    def child(self, name: bytes) -> Folder:
        """Open the folder `name` in it, which must not be a symbolic link."""
        if self.descriptor < 0:
            if not stat.S_ISDIR(self.look(name).st_mode):
                raise OSError(errno.ENOTDIR, "not a folder")
            return Folder(self._join(name), -1)
        flags = os.O_RDONLY | os.O_DIRECTORY | _NOFOLLOW | COMMON_FLAGS
        return Folder(self._join(name), os.open(name, flags, dir_fd=self.descriptor))

    def make_child(self, name: bytes, mode: int) -> None:
        """Make the folder `name` unless something of that name is there."""
        try:
            os.mkdir(self.where(name), mode, dir_fd=self._at)
        except FileExistsError:
            return

    def remove_child(self, name: bytes) -> None:
        """Remove the folder `name` if it is there and empty."""
        try:
            os.rmdir(self.where(name), dir_fd=self._at)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY}:
                raise

    def create(self, name: bytes, mode: int) -> int:
        """Make the file `name`, which must not be there; its descriptor."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOFOLLOW | COMMON_FLAGS
        return os.open(self.where(name), flags, mode, dir_fd=self._at)

    def open_file(self, name: bytes) -> int:
        """Open the file `name` for reading and writing, never through a symbolic link."""
        return os.open(self.where(name), os.O_RDWR | _NOFOLLOW | COMMON_FLAGS, dir_fd=self._at)

    def look(self, name: bytes) -> os.stat_result:
        """What is at `name`; of a symbolic link, itself."""
        return os.stat(self.where(name), dir_fd=self._at, follow_symlinks=False)

    def find(self, name: bytes) -> os.stat_result | None:
        """As `look`, None where there is nothing."""
        try:
            return self.look(name)
        except FileNotFoundError:
            return None

    def remove(self, name: bytes) -> bool:
        """Remove the file `name`; whether there was one."""
        try:
            os.unlink(self.where(name), dir_fd=self._at)
        except FileNotFoundError:
            return False
        return True

    # -- the folder itself ---------------------------------------------------------------

    def sync(self) -> None:
        """Bring its names to the disk, where the file system can be asked to."""
        if self.descriptor < 0:
            return
        try:
            sync(self.descriptor)
        except OSError as error:
            if error.errno not in _NO_SUCH_CALL:
                raise

    def move(self, name: bytes, target: Folder, new: bytes) -> None:
        """Rename `name` to `new` in `target`.  Raises FileExistsError where that is taken."""
        if sys.platform == "win32":
            os.rename(self.where(name), target.where(new))  # refuses by itself
            return
        try:
            self._rename_exclusively(name, target, new)
        except OSError as error:
            if error.errno not in _NO_SUCH_CALL:
                raise
            self._move_by_link(name, target, new)

    def _rename_exclusively(self, name: bytes, target: Folder, new: bytes) -> None:
        call = getattr(_libc, "renameatx_np" if sys.platform == "darwin" else "renameat2", None)
        if call is None:
            raise OSError(errno.ENOSYS, "no such call")
        flag = _RENAME_EXCL if sys.platform == "darwin" else _RENAME_NOREPLACE
        ctypes.set_errno(0)
        if call(self.descriptor, name, target.descriptor, new, ctypes.c_uint(flag)):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def _move_by_link(self, name: bytes, target: Folder, new: bytes) -> None:
        try:
            os.link(
                name,
                new,
                src_dir_fd=self.descriptor,
                dst_dir_fd=target.descriptor,
                follow_symlinks=False,
            )
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._move_onto_claim(name, target, new)
            return
        self.remove(name)

    def _move_onto_claim(self, name: bytes, target: Folder, new: bytes) -> None:
        # No exclusive rename and no links: claim the name with an empty file of our own, and
        # replace only that.
        os.close(target.create(new, 0o600))
        try:
            os.rename(name, new, src_dir_fd=self.descriptor, dst_dir_fd=target.descriptor)
        except OSError:
            target.remove(new)
            raise

    @property
    def _at(self) -> int | None:
        return self.descriptor if self.descriptor >= 0 else None

    def where(self, name: bytes) -> bytes:
        """The path of `name` for calls that do not take a folder's descriptor."""
        return name if self.descriptor >= 0 else self._join(name)

    def _join(self, name: bytes) -> bytes:
        return os.path.join(self._path, name)


# -- open files ---------------------------------------------------------------------------


def sync(descriptor: int) -> None:
    """Bring data and metadata to the disk itself.  Raises OSError."""
    if sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(descriptor, _F_FULLFSYNC)
        except OSError as error:
            if error.errno not in _NO_SUCH_CALL:
                raise
        else:
            return
    os.fsync(descriptor)


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


def is_in_memory(descriptor: int) -> bool:
    """Whether the file system of an open file has no disk to wait for."""
    if sys.platform != "linux" or _libc is None:
        return False
    space = (ctypes.c_long * 64)()  # struct statfs, which begins with f_type
    if _libc.fstatfs(descriptor, ctypes.byref(space)):
        return False
    return (space[0] & 0xFFFFFFFF) in _TMPFS_MAGICS


def reserve(descriptor: int, size: int) -> None:
    """Set `size` bytes of disk aside where that is quick, without changing the file's size.
    Raises OSError where there are not so many."""
    call = getattr(_libc, "fallocate64", None) or getattr(_libc, "fallocate", None)
    if sys.platform != "linux" or call is None or is_in_memory(descriptor):
        return
    keep_size = 1
    ctypes.set_errno(0)
    if call(descriptor, keep_size, ctypes.c_longlong(0), ctypes.c_longlong(size)):
        number = ctypes.get_errno()
        if number not in _NO_SUCH_CALL:
            raise OSError(number, os.strerror(number))
