# Paths are bytes here, as the system has them; pathlib takes none.
# ruff: noqa: PTH103, PTH117
"""Stages: where what arrives is put together, before it gets its name.

A stage is `FOLDER/.tnt-part/NAME`, a file, or a folder for a tree.

What holds always:
- Each component from `.tnt-part` on is opened below the folder that holds it, and never through a
  symbolic link; `.tnt-part` and the stage belong to our user.  So nothing is made, changed or
  removed but in a real folder that was reached from FOLDER by these names.
- What is kept open between requests is looked at before it is used again: each name on the way
  must still lead to the very folder that is open, else the way is gone anew.  Where FOLDER itself
  was put elsewhere and something else is there now, the stage is sought in what is there: in
  vain, mostly, which fails the request; and a stage that was swapped for another does not pass
  Publish, which knows its inode.

Kept open are a few stages, and in each the folders on the way to the last entry: the entries of a
tree come folder by folder.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from typing import Final

from tntd.shell import child_file, child_folder
from tntd.shell.child_folder import PART_FOLDER, Folder
from tntd.tasks import Inspected, PrepareStage

_STAGES_MAX: Final = 4
_RACE_TRIES: Final = 20  # another daemon on the same folder may remove the empty part folder
_BLOCK: Final = 512  # of st_blocks


def open_folder(path: bytes) -> Folder:
    """The folder that stages are below, through symbolic links.  Raises OSError."""
    if not os.path.isabs(path):
        raise OSError(errno.EINVAL, "not an absolute path")
    return Folder.open(path)


def part_folder(folder: Folder) -> Folder:
    """The part folder.  Raises OSError where there is none, or it belongs to somebody else."""
    return our_child(folder, PART_FOLDER)


def our_child(outer: Folder, name: bytes) -> Folder:
    """A folder in `outer`, opened.  Raises OSError where it belongs to somebody else."""
    inner = outer.child(name)
    if not inner.is_owned_with(outer):
        inner.close()
        raise OSError(errno.EPERM, "")
    return inner


class Stage:
    """A stage that is a folder, open, and the folders on the way to where we are in it."""

    def __init__(self, folder: bytes, name: bytes) -> None:
        self._path = folder
        self._names: list[bytes] = [PART_FOLDER, name]
        self._folders: list[Folder] = [open_folder(folder)]
        self._at: bytes = b""
        try:
            for part in self._names:
                self._folders.append(our_child(self._folders[-1], part))
        except OSError:
            self.close()
            raise

    @property
    def root(self) -> Folder:
        """The stage itself."""
        return self._folders[2]

    @property
    def parts(self) -> Folder:
        """The part folder."""
        return self._folders[1]

    @property
    def folder(self) -> Folder:
        """The folder that the part folder is in."""
        return self._folders[0]

    def close(self) -> None:
        """Close all."""
        for folder in self._folders:
            folder.close()
        self._folders.clear()

    def enter(self, path: bytes, *, make: bool) -> Folder:
        """The folder with that path in the tree, which has no problem (machines/tree.py), open
        until the next `enter`; folders that are missing are made.

        Raises OSError, where something else is in the way, too.
        """
        if path == self._at:
            return self._folders[-1]
        names = [*self._names[:2], *(path.split(b"/") if path else [])]
        same = 2
        while same < min(len(names), len(self._names)) and names[same] == self._names[same]:
            same += 1
        self._cut(same)
        try:
            for name in names[same:]:
                self._folders.append(_enter(self._folders[-1], name, make))
                self._names.append(name)
        finally:
            self._at = b"/".join(self._names[2:])
        return self._folders[-1]

    def check(self) -> bool:
        """Leave folders that are not where they were; False where the stage itself is not."""
        try:
            with open_folder(self._path) as now:
                if not os.path.samestat(now.status(), self.folder.status()):
                    return False
            for level, name in enumerate(self._names):
                there = self._folders[level].find(name)
                if there is None or not os.path.samestat(there, self._folders[level + 1].status()):
                    if level < 2:
                        return False
                    self._cut(level)
                    return True
        except OSError:
            return False
        return True

    def _cut(self, count: int) -> None:
        while len(self._names) > count:
            self._names.pop()
            self._folders.pop().close()
        self._at = b"/".join(self._names[2:])


def _enter(outer: Folder, name: bytes, make: bool) -> Folder:
    try:
        return outer.child(name)
    except FileNotFoundError:
        if not make:
            raise
    outer.make_child(name, 0o777)
    return outer.child(name)


# -- stages that are kept open ------------------------------------------------------------

_stages: OrderedDict[tuple[bytes, bytes], Stage] = OrderedDict()


def hold(folder: bytes, name: bytes) -> Stage:
    """The stage, which is a folder; it stays open.  Raises OSError."""
    child_folder.check_name(name)
    key = (folder, name)
    stage = _stages.get(key)
    if stage is not None and not stage.check():
        drop(folder, name)
        stage = None
    if stage is None:
        while len(_stages) >= _STAGES_MAX:
            drop(*next(iter(_stages)))
        stage = _stages[key] = Stage(folder, name)
    _stages.move_to_end(key)
    return stage


def drop(folder: bytes, name: bytes) -> None:
    """Close the stage if it is open."""
    stage = _stages.pop((folder, name), None)
    if stage is not None:
        stage.close()


def forget() -> bool:
    """Close all; whether there were any."""
    had = bool(_stages)
    for key in list(_stages):
        drop(*key)
    return had


# -- making one ---------------------------------------------------------------------------


def prepare_stage(task: PrepareStage) -> Inspected:
    """Make a stage, or find it."""
    child_folder.check_name(task.name)
    drop(task.folder, task.name)
    if not os.path.isabs(task.folder):
        raise OSError(errno.EINVAL, "not an absolute path")
    os.makedirs(task.folder, exist_ok=True)
    with open_folder(task.folder) as folder:
        free = child_file.free_bytes(folder.descriptor if folder.descriptor >= 0 else task.folder)
        for tries_left in reversed(range(_RACE_TRIES)):
            folder.make_child(PART_FOLDER, 0o700)
            try:
                with part_folder(folder) as parts:
                    return _prepare(parts, task, free)
            except FileNotFoundError:
                if not tries_left:
                    raise
    raise AssertionError("unreachable")


def _prepare(parts: Folder, task: PrepareStage, free: int) -> Inspected:
    there = parts.find(task.name)
    if there is not None and not task.tree and _is_other_file(there, parts):
        parts.remove(task.name)
        there = None
    taken = getattr(there, "st_blocks", 0) * _BLOCK if there is not None and not task.tree else 0
    if free + taken < task.size + task.reserve:
        raise OSError(errno.ENOSPC, "")
    if task.tree:
        parts.make_child(task.name, 0o777)
        with our_child(parts, task.name) as stage:
            listing = stage.scan()
            size = int(next(listing, None) is not None)
            listing.close()
            return child_file.inspected(stage.status(), free, size)
    if there is None:
        os.close(parts.create(task.name, 0o600))
    found = parts.look(task.name)
    if not stat.S_ISREG(found.st_mode) or not is_our_file(found, parts):
        raise OSError(errno.EEXIST, "")
    return child_file.inspected(found, free)


def is_our_file(found: os.stat_result, folder: Folder) -> bool:
    """Whether what was found in `folder` is a regular file of ours, by no other name."""
    ours = os.name == "nt" or found.st_uid in (os.geteuid(), folder.status().st_uid)
    return ours and stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def _is_other_file(found: os.stat_result, folder: Folder) -> bool:
    """Whether it is a file, but not to be written to: maybe it has another name, too."""
    return stat.S_ISREG(found.st_mode) and not is_our_file(found, folder)
