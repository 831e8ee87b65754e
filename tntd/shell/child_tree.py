# Paths are bytes here, as the system has them; pathlib takes none.
# ruff: noqa: PTH116, PTH117
"""Walking what is to be sent: entry after entry, folder by folder, never all at once.

What holds always:
- The order is that of the system's listing, depth first: a folder, what is in it, its end.  It is
  the same each time as long as the folder does not change, so the number of an entry and the
  path of the one before are a place to go on from.
- A folder is listed while it is walked: what is kept is one open listing for each folder above.
- Below the root nothing is followed: each folder is opened below the one that holds it.

Walks are kept between requests, by the number that the daemon gives them, since to begin anew for
each record would cost a walk a record.  They are only a short cut: a walk that is not kept
any more, or stands elsewhere, is walked anew.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Generator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from tntd import limits
from tntd.machines import tree
from tntd.shell.child_folder import PART_FOLDER, Folder
from tntd.shell.files import words
from tntd.tasks import Counted, CountTree

WALKS_MAX = limits.LANES_MAX


class Found(NamedTuple):
    """An entry of a walk: `what` is "folder", "folder_end", "file", "link", "other", "skipped" or
    "failed"; `name` is looked up in `folder`, which is open until the next entry is asked for."""

    what: str
    path: bytes
    folder: Folder | None = None
    name: bytes = b""
    mtime_ns: int = 0
    reason: str = ""


Entries = Generator[Found, None, None]


def open_root(root: bytes) -> Folder | None:
    """The folder to be sent, through a link; None where it is a file.  Raises OSError."""
    if not os.path.isabs(root):
        raise OSError(errno.EINVAL, "not an absolute path")
    found = os.stat(root)
    if stat.S_ISDIR(found.st_mode):
        return Folder.open(root)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a file or folder")
    return None


def walk(root: Folder, only: list[bytes] | None = None, *, everything: bool = False) -> Entries:
    """The entries below an open folder, which is closed in the end; part folders are told as
    skipped unless `everything` is wanted."""
    if only is not None:
        return _walk_only(root, only)
    return _walk_below(root, b"", 0, None, everything=everything)


class _Level:
    """A folder on the way down."""

    __slots__ = ("folder", "listing", "mtime_ns", "path")

    def __init__(self, folder: Folder, path: bytes) -> None:
        self.folder = folder
        self.path = path
        try:
            self.mtime_ns = folder.status().st_mtime_ns
            self.listing = folder.scan()
        except OSError:
            folder.close()
            raise

    def close(self) -> None:
        self.listing.close()
        self.folder.close()


def _walk_below(
    root: Folder, path: bytes, depth: int, outer: Folder | None, *, everything: bool = False
) -> Entries:
    """The folder `root` with the path `path`, and all that is in it."""
    levels: list[_Level] = []
    try:
        levels.append(_Level(root, path))
        yield Found("folder", path, outer, b"", levels[0].mtime_ns)
        while levels:
            level = levels[-1]
            entry = None
            try:
                entry = next(level.listing, None)
            except OSError as error:
                yield Found("failed", level.path, reason=words(error))
            if entry is None:
                yield Found("folder_end", level.path, level.folder, b"", level.mtime_ns)
                levels.pop().close()
                continue
            name = os.fsencode(entry.name)
            if name == PART_FOLDER and not everything:
                path = tree.join(level.path, name)
                yield Found("skipped", tree.told_path(path), reason="parts of other transfers")
                continue
            found = _look(level, name, entry, depth + len(levels))
            if isinstance(found, _Level):
                levels.append(found)
                found = Found("folder", found.path, level.folder, name, found.mtime_ns)
            yield found
    finally:
        for level in levels:
            level.close()


def _look(level: _Level, name: bytes, entry: os.DirEntry[Any], depth: int) -> Found | _Level:
    path = level.path + b"/" + name if level.path else name
    # The listing names no component that is not plain; what is left is its length.
    if len(path) > limits.TREE_PATH_BYTES_MAX:
        return Found("failed", tree.told_path(path), reason=tree.PATH_TOO_LONG)
    if depth > limits.TREE_DEPTH_MAX:
        return Found("failed", path, reason=tree.TOO_DEEP)
    try:
        if entry.is_file(follow_symlinks=False):
            return Found("file", path, level.folder, name)
        if entry.is_symlink():
            return Found("link", path, level.folder, name)
        if not entry.is_dir(follow_symlinks=False):
            return Found("other", path, level.folder, name)
        return _Level(level.folder.child(name), path)
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            raise  # says nothing of this folder
        return Found("failed", path, reason=words(error))


# -- some paths of a tree -----------------------------------------------------------------


def _walk_only(root: Folder, only: list[bytes]) -> Entries:
    """The things at these paths in their order, each folder above them once, and before; the ends
    of these folders at last, those inside before those outside."""
    above: dict[bytes, int] = {}
    with root:
        above[b""] = root.status().st_mtime_ns
        yield Found("folder", b"", root, b"", above[b""])
        for path in only:
            if path:
                yield from _walk_one(root, path, above)
        for path in reversed(above):
            yield Found("folder_end", path, root, b"", above[path])


def _walk_one(root: Folder, path: bytes, above: dict[bytes, int]) -> Entries:
    opened: list[Folder] = []
    try:
        *folders, name = path.split(b"/")
        try:
            if tree.path_problem(path, windows=False):
                raise OSError(errno.EINVAL, tree.NO_NAME)
            folder = root
            for part in folders:
                folder = folder.child(part)
                opened.append(folder)
            found = folder.look(name)
        except OSError as error:
            yield Found("failed", tree.told_path(path), reason=words(error))
            return
        at = b""
        for part, inner in zip(folders, opened, strict=True):
            at = tree.join(at, part)
            if at not in above:
                above[at] = inner.status().st_mtime_ns
                yield Found("folder", at, inner, b"", above[at])
        yield from _walk_named(folder, name, path, found.st_mode)
    finally:
        for folder in opened:
            folder.close()


def _walk_named(folder: Folder, name: bytes, path: bytes, mode: int) -> Entries:
    if not stat.S_ISDIR(mode):
        what = "other"
        if stat.S_ISREG(mode):
            what = "file"
        elif stat.S_ISLNK(mode):
            what = "link"
        yield Found(what, path, folder, name)
        return
    try:
        inner = folder.child(name)
    except OSError as error:
        yield Found("failed", path, reason=words(error))
        return
    yield from _walk_below(inner, path, path.count(b"/") + 1, folder)


# -- walks that are kept ------------------------------------------------------------------


class Walk:
    """A walk and where it stands: `current` is entry `number`, None at the end; `after` is the
    path of the one before.  Raises OSError as the walk does."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self.number = 0
        self.after = b""
        self.current = next(entries, None)

    def advance(self) -> None:
        """Go to the next entry."""
        assert self.current is not None
        self.number += 1
        self.after = self.current.path
        self.current = next(self._entries, None)

    def close(self) -> None:
        """Close what it holds."""
        self._entries.close()


class Closable(Protocol):
    """What is kept."""

    def close(self) -> None:
        """Close what it holds."""


K = TypeVar("K", bound=Closable)


class Kept(Generic[K]):
    """A few things by number; the one that was used longest ago makes room for another."""

    def __init__(self) -> None:
        self._kept: dict[int, K] = {}

    def take(self, number: int) -> K | None:
        """Take it out."""
        return self._kept.pop(number, None)

    def put(self, number: int, kept: K) -> None:
        """Keep it, as the newest."""
        self.drop(number)
        while len(self._kept) >= WALKS_MAX:
            self.drop(next(iter(self._kept)))
        self._kept[number] = kept

    def drop(self, number: int) -> None:
        """Close and forget it."""
        old = self._kept.pop(number, None)
        if old is not None:
            old.close()

    def clear(self) -> bool:
        """Close and forget all; whether there were any."""
        had = bool(self._kept)
        for number in list(self._kept):
            self.drop(number)
        return had


# -- counting -----------------------------------------------------------------------------


class Count:
    """A count under way."""

    def __init__(self, entries: Entries) -> None:
        self.entries = entries
        self.files = 0
        self.bytes = 0

    def step(self, due: Callable[[], bool]) -> bool:
        """Count until `due`; whether that is all."""
        for found in self.entries:
            if found.what == "file" and found.folder is not None:
                status = found.folder.find(found.name)
                if status is not None:
                    self.files += 1
                    self.bytes += status.st_size
            if due():
                return False
        return True

    def close(self) -> None:
        """Close what it holds."""
        self.entries.close()


_counts: Kept[Count] = Kept()


def count_tree(task: CountTree) -> Counted:
    """Count for a moment, on from where the last request with that number stood."""
    count = _counts.take(task.walk)
    if count is None:
        root = open_root(task.root)
        if root is None:
            return Counted(1, os.stat(task.root).st_size, True)
        count = Count(walk(root))
    end_at = time.monotonic() + limits.COUNT_STEP_S
    end = count.step(lambda: time.monotonic() >= end_at)
    if end:
        count.close()
    else:
        _counts.put(task.walk, count)
    return Counted(count.files, count.bytes, end)


def forget() -> bool:
    """Let go of all counts; whether there were any."""
    return _counts.clear()
