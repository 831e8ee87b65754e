"""A machine's disk: files and folders as they are, and as a power cut would leave them.

What holds always: data is durable when its file was synced without an error, an entry of a folder
(a new name, a rename, a removal) when that folder was synced; everything else may be lost, torn
or zeroed when the power goes.  A sync that failed loses what was written: a later one
says nothing of it, as real systems do.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from random import Random

SECTOR = 512


@dataclass(slots=True, eq=False)
class File:
    """A regular file: what is written, and what of it is on the disk for sure."""

    inode: int
    data: bytearray
    durable: bytes = b""
    mtime_ns: int = 0
    ctime_ns: int = 0
    executable: bool = False
    spoiled: bool = False  # a sync failed: what was not durable then never will be

    def write(self, at: int, data: bytes, now_ns: int) -> None:
        """Write in place."""
        if len(self.data) < at:
            self.data.extend(bytes(at - len(self.data)))
        self.data[at : at + len(data)] = data
        self.mtime_ns = self.ctime_ns = now_ns

    def sync(self) -> None:
        """Make it durable."""
        if not self.spoiled:
            self.durable = bytes(self.data)

    def lose_power(self, rng: Random) -> None:
        """What was not synced is dropped, torn or zeroed."""
        data = bytes(self.data)
        if data == self.durable:
            return
        way = rng.choice(("drop", "tear", "zero"))
        if way == "drop":
            self.data = bytearray(self.durable)
        elif way == "zero":
            self.data = bytearray(self.durable + bytes(max(0, len(data) - len(self.durable))))
        else:
            for at in range(0, len(data), SECTOR):
                if rng.random() < 0.5:
                    old = self.durable[at : at + SECTOR]
                    size = min(SECTOR, len(data) - at)
                    self.data[at : at + size] = old.ljust(size, b"\0")[:size]
        self.durable = bytes(self.data)


@dataclass(slots=True, eq=False)
class Folder:
    """Names and what stands behind them."""

    files: dict[bytes, File] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Change:
    """Names set (a file) or removed (None) in folders, together; durable once one of the folders
    was synced, as a rename is in a journal."""

    names: list[tuple[bytes, bytes, File | None]]


class Disk:
    """Folders by absolute path; only what the daemon touches."""

    def __init__(self, rng: Random, free: int = 1 << 40) -> None:
        self.folders: dict[bytes, Folder] = {}
        self._durable: dict[bytes, Folder] = {}
        self._pending: list[Change] = []
        self._rng = rng
        self._inodes = 100
        self.free = free
        self.full = False
        self.error_chance = 0.0

    def check(self, *, writing: bool = False) -> None:
        """Raises the OSError that is due."""
        if self.error_chance and self._rng.random() < self.error_chance:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if writing and self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def make_folder(self, path: bytes) -> None:
        """Make a folder, durably (that is not what is tested here)."""
        self.folders.setdefault(path, Folder())
        self._durable.setdefault(path, Folder())

    def new_file(self, data: bytes = b"", now_ns: int = 0) -> File:
        """A file without a name."""
        self._inodes += 1
        return File(self._inodes, bytearray(data), b"", now_ns, now_ns)

    def put_durable(self, path: bytes, data: bytes, now_ns: int) -> File:
        """A file that somebody else has made and synced."""
        folder, _, name = path.rpartition(b"/")
        file = self.new_file(data, now_ns)
        file.sync()
        self.make_folder(folder)
        self.folders[folder].files[name] = file
        self._durable[folder].files[name] = file
        return file

    def find(self, folder: bytes, name: bytes) -> File | None:
        """The file of this name."""
        there = self.folders.get(folder)
        return None if there is None else there.files.get(name)

    def change(self, *names: tuple[bytes, bytes, File | None]) -> None:
        """Set and remove names at once."""
        for folder, name, file in names:
            _set(self.folders[folder], name, file)
        self._pending.append(Change(list(names)))

    def sync_folder(self, folder: bytes) -> None:
        """Make the names of a folder durable, and what was done before to the same names
        elsewhere."""
        settled: list[Change] = []
        names: set[tuple[bytes, bytes]] = set()
        for change in reversed(self._pending):
            mine = {(where, name) for where, name, _ in change.names}
            if mine & names or any(where == folder for where, _ in mine):
                settled.append(change)
                names |= mine
        self._pending = [change for change in self._pending if change not in settled]
        for change in reversed(settled):
            self._settle(change)

    def durable_names(self, folder: bytes) -> dict[bytes, File]:
        """What a power cut would leave at least."""
        return self._durable[folder].files

    def lose_power(self) -> None:
        """Lose what was not synced, some of it or all."""
        for change in self._pending:
            if self._rng.random() < 0.5:
                self._settle(change)
        self._pending.clear()
        for path, folder in self._durable.items():
            self.folders[path].files = dict(folder.files)
        seen = {file.inode: file for f in self.folders.values() for file in f.files.values()}
        for inode in sorted(seen):
            seen[inode].lose_power(self._rng)
            seen[inode].spoiled = False

    def _settle(self, change: Change) -> None:
        for folder, name, file in change.names:
            _set(self._durable[folder], name, file)


def _set(folder: Folder, name: bytes, file: File | None) -> None:
    if file is None:
        folder.files.pop(name, None)
    else:
        folder.files[name] = file
