"""A machine's disk: files, folders and links as they are, and as a power cut would leave them.

What holds always: data is durable when its file was synced without an error, an entry of a folder
(a new name, a rename, a removal) when that folder was synced, or all of the disk at once was;
everything else may be lost, torn or zeroed when the power goes.  A sync that failed loses what
was written: a later one says nothing of it, as real systems do.  Numbers of inodes that a power
cut has freed are given again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from tntd.tasks import Inspected

SECTOR = 512


def failed(number: int) -> OSError:
    """The error of this number."""
    return OSError(number, os.strerror(number))


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

    @property
    def dirty(self) -> bool:
        """Whether something was written that is not on the disk."""
        return bytes(self.data) != self.durable

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
class Link:
    """A symbolic link."""

    inode: int
    target: bytes
    ctime_ns: int = 0


@dataclass(slots=True, eq=False)
class Folder:
    """Names and what stands behind them; `durable` is what a power cut would leave at least."""

    inode: int
    names: dict[bytes, File | Folder | Link] = field(default_factory=dict)
    durable: dict[bytes, File | Folder | Link] = field(default_factory=dict)
    mtime_ns: int = 0
    ctime_ns: int = 0


Node = File | Folder | Link
Name = tuple[Folder, bytes, Node | None]


class Disk:
    """A tree of folders.  `clock` tells the wall time, for times of files."""

    def __init__(self, rng: Random, clock: Callable[[], int], free: int = 1 << 40) -> None:
        self.root = Folder(2)
        self._clock = clock
        self._pending: list[list[Name]] = []  # each durable once one of its folders was synced
        self._rng = rng
        self._inodes = 100
        self.free = free
        self.full = False
        self.error_chance = 0.0
        self.stuck = ""  # "removed": nothing of a stage can be; "moved": nor get another name

    @property
    def now_ns(self) -> int:
        """Nanoseconds since 1970."""
        return self._clock()

    def check(self, *, writing: bool = False) -> None:
        """Raises the OSError that is due."""
        if self.error_chance and self._rng.random() < self.error_chance:
            raise failed(errno.EIO)
        if writing and self.full:
            raise failed(errno.ENOSPC)

    # -- looking -------------------------------------------------------------------------

    def find(self, path: bytes) -> Node | None:
        """What is at an absolute path; no link is followed."""
        node: Node | None = self.root
        for name in path.split(b"/"):
            if name:
                node = node.names.get(name) if isinstance(node, Folder) else None
        return node

    def find_durable(self, path: bytes) -> Node | None:
        """What a power cut would leave at a path at least."""
        node: Node | None = self.root
        for name in path.split(b"/"):
            if name:
                node = node.durable.get(name) if isinstance(node, Folder) else None
        return node

    def inspected(self, node: Node, size: int | None = None) -> Inspected:
        """What `stat` says; `size` in place of that of the file."""
        kind, own = "other", 0
        if isinstance(node, File):
            kind, own = "file", len(node.data)
        elif isinstance(node, Folder):
            kind = "folder"
        return Inspected(
            kind=kind,
            size=own if size is None else size,
            mtime_ns=0 if isinstance(node, Link) else node.mtime_ns,
            ctime_ns=node.ctime_ns,
            device=1,
            inode=node.inode,
            executable=isinstance(node, File) and node.executable,
            free=self.free_now,
        )

    @property
    def free_now(self) -> int:
        """Free bytes."""
        return 0 if self.full else self.free

    def folder(self, path: bytes) -> Folder:
        """The folder at an absolute path.  Raises OSError."""
        node = self.find(path)
        if node is None:
            raise failed(errno.ENOENT)
        if not isinstance(node, Folder):
            raise failed(errno.ENOTDIR)
        return node

    # -- things that somebody else has made and synced -------------------------------------

    def make_folder(self, path: bytes) -> Folder:
        """Make a folder and those above, durably."""
        folder = self.root
        for name in path.split(b"/"):
            if name:
                inner = folder.names.get(name)
                if not isinstance(inner, Folder):
                    inner = self.new_folder()
                    folder.names[name] = folder.durable[name] = inner
                folder = inner
        return folder

    def put_durable(self, path: bytes, data: bytes) -> File:
        """A file, in place of what was there."""
        folder, _, name = path.rpartition(b"/")
        file = self.new_file(data)
        file.sync()
        self._put(self.make_folder(folder), name, file)
        return file

    def put_link(self, path: bytes, target: bytes) -> None:
        """A symbolic link."""
        folder, _, name = path.rpartition(b"/")
        self._put(self.make_folder(folder), name, self.new_link(target))

    def remove_durable(self, path: bytes) -> None:
        """Take something away."""
        folder, _, name = path.rpartition(b"/")
        self._put(self.folder(folder), name, None)

    def _put(self, folder: Folder, name: bytes, node: Node | None) -> None:
        _set(folder.names, name, node)
        _set(folder.durable, name, node)
        folder.mtime_ns = folder.ctime_ns = self.now_ns

    # -- what the daemon does ----------------------------------------------------------------

    def new_file(self, data: bytes = b"") -> File:
        """A file without a name."""
        return File(self._inode(), bytearray(data), b"", self.now_ns, self.now_ns)

    def new_folder(self) -> Folder:
        """A folder without a name."""
        return Folder(self._inode(), {}, {}, self.now_ns, self.now_ns)

    def new_link(self, target: bytes) -> Link:
        """A link without a name."""
        return Link(self._inode(), target, self.now_ns)

    def _inode(self) -> int:
        self._inodes += 1
        return self._inodes

    def change(self, *names: Name) -> None:
        """Set and remove names at once."""
        for folder, name, node in names:
            _set(folder.names, name, node)
            folder.mtime_ns = folder.ctime_ns = self.now_ns
            if node is not None:
                node.ctime_ns = self.now_ns
        self._pending.append(list(names))

    def sync_folder(self, folder: Folder) -> None:
        """Make the names of a folder durable, and what was done before to the same names
        elsewhere."""
        settled: list[list[Name]] = []
        left: list[list[Name]] = []
        names: set[tuple[int, bytes]] = set()
        for change in reversed(self._pending):
            mine = {(id(where), name) for where, name, _ in change}
            if mine & names or any(where is folder for where, _, _ in change):
                settled.append(change)
                names |= mine
            else:
                left.append(change)
        self._pending = left[::-1]
        for change in reversed(settled):
            _settle(change)

    def sync_all(self) -> None:
        """Make everything durable."""
        pending, self._pending = self._pending, []
        for change in pending:
            _settle(change)
        for node in below(self.root):
            if isinstance(node, File):
                node.sync()

    def lose_power(self) -> None:
        """Lose what was not synced, some of it or all."""
        for change in self._pending:
            if self._rng.random() < 0.5:
                _settle(change)
        self._pending.clear()
        self._lose_below(self.root)
        self._inodes = max(node.inode for node in below(self.root))

    def _lose_below(self, folder: Folder) -> None:
        folder.names = dict(folder.durable)
        for node in folder.names.values():
            if isinstance(node, Folder):
                self._lose_below(node)
            elif isinstance(node, File):
                node.lose_power(self._rng)
                node.spoiled = False


def below(folder: Folder) -> Iterator[Node]:
    """The folder and all that is in it."""
    yield folder
    for node in folder.names.values():
        if isinstance(node, Folder):
            yield from below(node)
        else:
            yield node


def files(folder: Folder, path: bytes = b"") -> Iterator[tuple[bytes, File | Link]]:
    """Paths, relative to the folder, of all files and links in it, and these."""
    for name, node in folder.names.items():
        at = path + b"/" + name if path else name
        if isinstance(node, Folder):
            yield from files(node, at)
        else:
            yield at, node


def _settle(change: list[Name]) -> None:
    for folder, name, node in change:
        _set(folder.durable, name, node)


def _set(names: dict[bytes, Node], name: bytes, node: Node | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node
