# Paths are bytes here, as the system has them; pathlib takes none.
# ruff: noqa: PTH104, PTH116, PTH118, PTH208
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
from collections.abc import Iterator
from typing import Any, Final, Protocol

from tntd.shell.child_file import NO_SUCH_CALL, TMPFS_MAGICS, file_system, libc, set_time, sync

PART_FOLDER: Final = b".tnt-part"

_DESCRIPTORS: Final = os.open in os.supports_dir_fd and hasattr(os, "O_DIRECTORY")
_NOFOLLOW: Final[int] = getattr(os, "O_NOFOLLOW", 0)
COMMON_FLAGS: Final[int] = (
    getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)
_FOLDER_FLAGS: Final[int] = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _NOFOLLOW | COMMON_FLAGS
_NO_DESCRIPTOR: Final = -1
_CLOSED: Final = -2  # never a path instead: that would be looked up elsewhere
# ext4, XFS, Btrfs, F2FS: where these tell A from a, they tell all spellings apart.
_EXACT_MAGICS: Final = TMPFS_MAGICS | {0xEF53, 0x58465342, 0x9123683E, 0xF2F52010}
_RENAME_NOREPLACE: Final = 1
_RENAME_EXCL: Final = 4
_NO_LINKS: Final = NO_SUCH_CALL | {errno.EPERM, errno.EMLINK}


class Listing(Protocol):
    """An open listing of a folder."""

    def __next__(self) -> os.DirEntry[Any]:
        """The next name."""

    def __iter__(self) -> Iterator[os.DirEntry[Any]]:
        """The listing itself."""

    def close(self) -> None:
        """Close it."""


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
        self._at = None if descriptor == _NO_DESCRIPTOR else descriptor

    @classmethod
    def open(cls, path: bytes) -> Folder:
        """Open the folder at `path`, through symbolic links if need be."""
        if not _DESCRIPTORS:
            os.listdir(path)  # an error where it is none
            return cls(path, _NO_DESCRIPTOR)
        return cls(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | COMMON_FLAGS))

    def again(self) -> Folder:
        """The same folder, opened once more."""
        if self._at is None:
            return Folder(self._path, _NO_DESCRIPTOR)
        return Folder(self._path, os.open(b".", _FOLDER_FLAGS, dir_fd=self._at))

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it; does nothing the second time."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = self._at = _CLOSED

    # -- names in it ---------------------------------------------------------------------

    def child(self, name: bytes) -> Folder:
        """Open the folder `name` in it, which must not be a symbolic link."""
        if self._at is None:
            if not stat.S_ISDIR(self.look(name).st_mode):
                raise OSError(errno.ENOTDIR, "not a folder")
            return Folder(self._join(name), _NO_DESCRIPTOR)
        return Folder(self._join(name), os.open(name, _FOLDER_FLAGS, dir_fd=self._at))

    def make_child(self, name: bytes, mode: int) -> None:
        """Make the folder `name` unless something of that name is there."""
        try:
            os.mkdir(self.where(name), mode, dir_fd=self._at)
        except FileExistsError:
            return

    def make_new_child(self, name: bytes) -> None:
        """Make the folder `name`.  Raises FileExistsError where something is there."""
        os.mkdir(self.where(name), dir_fd=self._at)

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

    def open_read(self, name: bytes) -> int:
        """Open the file `name` for reading, never through a symbolic link."""
        return os.open(self.where(name), os.O_RDONLY | _NOFOLLOW | COMMON_FLAGS, dir_fd=self._at)

    def make_link(self, name: bytes, target: bytes) -> None:
        """Make the symbolic link `name`.  Raises FileExistsError where something is there."""
        os.symlink(target, self.where(name), dir_fd=self._at)

    def read_link(self, name: bytes) -> bytes:
        """Where the symbolic link `name` points to."""
        return os.readlink(self.where(name), dir_fd=self._at)

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

    def status(self) -> os.stat_result:
        """What the folder itself is."""
        return os.fstat(self._at) if self._at is not None else os.stat(self._path)

    def scan(self) -> Listing:
        """Its names, as they are read from the system."""
        return os.scandir(self._path if self._at is None else self._at)

    def tells_spellings(self, name: bytes) -> bool:
        """Whether what is found by `name` has exactly that name, for sure: on many file systems
        other spellings (a for A, another Unicode form) lead to the same file."""
        other = name.swapcase()  # of ASCII letters
        if self._at is None or other == name or file_system(self._at) not in _EXACT_MAGICS:
            return False
        there = self.find(other)
        return there is None or not os.path.samestat(there, self.look(name))

    def which_of(self, names: set[bytes]) -> set[bytes]:
        """Those of `names` that are listed, spelled exactly so."""
        found = set()
        listing = self.scan()
        for entry in listing:
            name = os.fsencode(entry.name)
            if name in names:
                found.add(name)
                if len(found) == len(names):
                    break
        listing.close()
        return found

    def set_time(self, mtime_ns: int, now_ns: int) -> None:
        """Set when it was changed, where the file system can hold that."""
        set_time(self._path if self._at is None else self._at, mtime_ns, now_ns)

    def is_owned_with(self, outer: Folder) -> bool:
        """Whether it is ours, or, as on file systems that show one owner, the owner of `outer`."""
        if self._at is None:
            return True
        return self.status().st_uid in (os.geteuid(), outer.status().st_uid)

    def sync(self) -> None:
        """Bring its names to the disk, where the file system can be asked to."""
        if self._at is None:
            return
        try:
            sync(self.descriptor)
        except OSError as error:
            if error.errno not in NO_SUCH_CALL:
                raise

    def move(self, name: bytes, target: Folder, new: bytes, *, tree: bool = False) -> None:
        """Rename `name`, a file or (`tree`) a folder, to `new` in `target`.  Raises
        FileExistsError where that is taken."""
        if sys.platform == "win32":
            os.rename(self.where(name), target.where(new))  # refuses by itself
            return
        try:
            self._rename_exclusively(name, target, new)
        except OSError as error:
            if error.errno not in NO_SUCH_CALL:
                raise
            if tree:
                self._move_onto_claim(name, target, new, tree=True)
            else:
                self._move_by_link(name, target, new)

    def _rename_exclusively(self, name: bytes, target: Folder, new: bytes) -> None:
        call = getattr(libc, "renameatx_np" if sys.platform == "darwin" else "renameat2", None)
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

    def _move_onto_claim(
        self, name: bytes, target: Folder, new: bytes, *, tree: bool = False
    ) -> None:
        # No exclusive rename and no links: claim the name with an empty file or folder of our own,
        # and replace only that.  A folder that is not empty any more is not replaced.
        if tree:
            os.mkdir(new, 0o700, dir_fd=target._at)
        else:
            os.close(target.create(new, 0o600))
        try:
            os.rename(name, new, src_dir_fd=self._at, dst_dir_fd=target._at)
        except OSError:
            if tree:
                target.remove_child(new)
            else:
                target.remove(new)
            raise

    def where(self, name: bytes) -> bytes:
        """The path of `name` for calls that do not take a folder's descriptor."""
        return name if self._at is not None else self._join(name)

    def _join(self, name: bytes) -> bytes:
        return os.path.join(self._path, name)
