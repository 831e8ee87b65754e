"""The end of a stage: brought to the disk, given its name, or merged into what has one.

What holds always:
- Nothing is ever replaced: not by the name that a stage gets, nor by a file that is moved into a
  folder that is there.
- A task done twice is as one done once.  What tells our own finished work from a thing of somebody
  else is the inode of the stage.
- What has its name is not forgotten: an error from then on, or one that hides whether it has, is
  told as UNSURE, and the same is asked again until the name is on the disk for sure.
- A sync of data that failed is told as such and not tried again: the system reports lost data once
  and forgets it.  The stage is taken away with it, since the daemon may end before it hears of
  that, and would go on from what only seems to be there.
- A stage that is a folder is synced through the descriptor that was open while it was written to,
  where there is one: that is the one which is told.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Final

from tntd.limits import KIB, MIB
from tntd.machines import tree
from tntd.shell import child_file, child_folder, child_stage, child_tree, child_tree_remove
from tntd.shell.child_folder import PART_FOLDER, Folder, Listing
from tntd.tasks import (
    Done,
    Entry,
    Inspected,
    MergeStage,
    Publish,
    SyncPart,
    SyncStage,
    Unpacked,
)

_FATES_BYTES_MAX: Final = 512 * KIB  # told of one merge; more would not fit an answer
_COMPARED_BYTES_MAX: Final = 256 * MIB  # in one pass over a stage
_COMPARE_BYTES: Final = 256 * KIB
# These say for sure what is there, and what is not.
_TELLING: Final = frozenset(
    {
        errno.ENOENT,
        errno.EEXIST,
        errno.ENOTDIR,
        errno.ELOOP,
        errno.ESTALE,
        errno.ENAMETOOLONG,
        errno.EILSEQ,
        errno.EINVAL,
    }
)


class _Lost(OSError):
    """The system could not bring data to the disk, and has said so."""


class Unsure(OSError):
    """Whether a stage has its final name, or has it for sure, cannot be told now."""


@contextlib.contextmanager
def unsure() -> Iterator[None]:
    """An error in here leaves that open, but for those that tell what is there."""
    try:
        yield
    except OSError as error:
        if error.errno in _TELLING or isinstance(error, Unsure):
            raise
        raise Unsure(error.errno, "") from error


# -- to the disk --------------------------------------------------------------------------


def sync_stage(task: SyncStage) -> Done:
    """Bring all of a stage to the disk, and that it is there."""
    child_folder.check_name(task.name)
    with child_stage.open_folder(task.folder) as folder:
        with child_stage.part_folder(folder) as parts:
            try:
                if stat.S_ISDIR(parts.look(task.name).st_mode):
                    _sync_tree(child_stage.hold(task.folder, task.name).root)
                else:
                    _sync_file(parts, task.name)
            except _Lost:
                _take_away(task.folder, parts, task.name)
                raise
            parts.sync()
        folder.sync()
    return Done()


def sync_part(task: SyncPart, descriptor: int) -> Done:
    """Bring what was written to an open file of a stage to the disk."""
    child_folder.check_name(task.name)
    try:
        child_file.sync_data(descriptor)
    except OSError:
        with (
            contextlib.suppress(OSError),
            child_stage.open_folder(task.folder) as folder,
            child_stage.part_folder(folder) as parts,
        ):
            _take_away(task.folder, parts, task.name)
        raise
    return Done()


def _take_away(folder: bytes, parts: Folder, name: bytes) -> None:
    """Nobody is to find this stage any more; as much as can be done where a disk fails."""
    child_stage.drop(folder, name)
    lost = name + child_tree_remove.LOST  # what cannot be removed now goes when the transfer ends
    with contextlib.suppress(OSError):
        _remove(parts, lost)
        tree = stat.S_ISDIR(parts.look(name).st_mode)
        parts.move(name, parts, lost, tree=tree)
        _remove(parts, lost)


def _remove(parts: Folder, name: bytes) -> None:
    while True:
        try:
            child_tree_remove.remove(parts, name, child_tree_remove.Step())
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
        else:
            return


def _sync_tree(root: Folder) -> None:
    if root.descriptor >= 0:
        if child_file.is_in_memory(root.descriptor):
            return
        try:
            if child_file.sync_all(root.descriptor):
                return
        except OSError as error:
            raise _Lost(error.errno, "") from error
    for found in child_tree.walk(root.again(), everything=True):
        if found.folder is None:
            continue
        if found.what == "file":
            _sync_file(found.folder, found.name)
        elif found.what == "folder_end":
            found.folder.sync()


def _sync_file(folder: Folder, name: bytes) -> None:
    descriptor = folder.open_file(name)
    try:
        child_file.sync(descriptor)
    except OSError as error:
        raise _Lost(error.errno, "") from error
    finally:
        os.close(descriptor)


# -- to its name --------------------------------------------------------------------------


def publish(task: Publish) -> Inspected:
    """Give a stage its final name."""
    child_folder.check_name(task.part)
    child_folder.check_name(task.name)
    child_stage.drop(task.folder, task.part)
    with unsure():
        folder = child_stage.open_folder(task.folder)
    with folder:
        if not _is_published(folder, task):
            with child_stage.part_folder(folder) as parts:
                _finish(parts, task)
                _give_name(parts, folder, task)
        with unsure():
            return _settle(folder, task)


def _is_published(folder: Folder, task: Publish) -> bool:
    """Whether this was done before, up to its name at least.

    Raises OSError: ENOENT where neither the stage nor its published form is there, EEXIST where
    something else has the name.
    """
    with unsure():
        there = folder.find(task.name)
    if there is not None and _is_stage(there, task):
        return True
    part = None
    with contextlib.suppress(FileNotFoundError), child_stage.part_folder(folder) as parts:
        part = parts.find(task.part)
    if part is None:
        raise OSError(errno.ENOENT, "")
    if there is not None:
        raise OSError(errno.EEXIST, "")
    return False


def _give_name(parts: Folder, folder: Folder, task: Publish) -> None:
    try:
        parts.move(task.part, folder, task.name, tree=task.tree)
    except OSError as error:
        with unsure():
            there = folder.find(task.name)
        if there is None or not _is_stage(there, task):
            raise
        raise Unsure(error.errno, "") from error  # linked to its name, and its old one stays


def _settle(folder: Folder, task: Publish) -> Inspected:
    """The name is there: now for sure."""
    folder.sync()
    with contextlib.suppress(FileNotFoundError), child_stage.part_folder(folder) as parts:
        part = None if task.tree else parts.find(task.part)
        if part is not None and part.st_ino == task.inode:
            parts.remove(task.part)  # linked to its name, and then the machine stopped
        with contextlib.suppress(OSError):
            _remove(parts, task.part + child_tree_remove.LOST)
        parts.sync()
    folder.remove_child(PART_FOLDER)
    free = child_file.free_bytes(folder.descriptor if folder.descriptor >= 0 else task.folder)
    return child_file.inspected(folder.look(task.name), free)


def _is_stage(found: os.stat_result, task: Publish) -> bool:
    kind = stat.S_ISDIR if task.tree else stat.S_ISREG
    return kind(found.st_mode) and found.st_ino == task.inode


def _finish(parts: Folder, task: Publish) -> None:
    """Times and mode of a file, on the disk before the name is; a folder has its own."""
    if task.tree:
        if not _is_stage(parts.look(task.part), task):
            raise OSError(errno.ESTALE, "")
        return
    descriptor = parts.open_file(task.part)
    try:
        found = os.fstat(descriptor)
        child_file.must_be_file(found)
        if found.st_ino != task.inode:
            raise OSError(errno.ESTALE, "")
        child_file.set_mode(descriptor, task.executable)
        where = descriptor if os.utime in os.supports_fd else parts.where(task.part)
        child_file.set_time(where, task.mtime_ns, found.st_atime_ns)
        child_file.sync(descriptor)
    finally:
        os.close(descriptor)


# -- into a folder that is there ----------------------------------------------------------


def merge_stage(task: MergeStage) -> Unpacked:
    """Move what is in a stage into a folder, and remove the stage where nothing is left."""
    child_folder.check_name(task.name)
    child_folder.check_name(task.into)
    child_stage.drop(task.folder, task.name)
    with (
        unsure(),
        child_stage.open_folder(task.folder) as folder,
        folder.child(task.into) as target,
    ):
        if target.status().st_ino != task.inode:
            raise OSError(errno.ESTALE, "")
        try:
            fates, count = _merge_into(target, folder, task)
        except FileNotFoundError as error:  # somebody is at work there
            raise Unsure(error.errno, "") from error
        folder.remove_child(PART_FOLDER)
    return Unpacked(fates, count, b"", 0)


def _merge_into(target: Folder, folder: Folder, task: MergeStage) -> tuple[list[Entry], int]:
    """What could not be moved, as far as it is to be told, and how much that is in all."""
    fates: list[Entry] = []
    count = 0
    parts = _find_child(folder, PART_FOLDER)
    if parts is None:
        _sync_tree(target)  # done before
        return fates, count
    with parts:
        stage = _find_child(parts, task.name)
        if stage is not None:
            with stage:
                fates, count = _merge(stage, target, task.told)
        _sync_tree(target)
        parts.remove_child(task.name)
        parts.sync()
    return fates, count


def _find_child(folder: Folder, name: bytes) -> Folder | None:
    try:
        return child_stage.our_child(folder, name)
    except FileNotFoundError:
        return None


def _merge(stage: Folder, target: Folder, told: int) -> tuple[list[Entry], int]:
    """Move all that can be moved; what is left.  Once more where something went: a listing may
    miss what moved while it was read."""
    while True:
        merge = _Merge(stage, target, told)
        merge.run()
        if not merge.moved:
            return merge.fates, merge.left


class _Merge:
    """One pass over a stage."""

    def __init__(self, stage: Folder, target: Folder, told: int) -> None:
        # Folders on the way down, each with where its contents go (None: nowhere), its open
        # listing, its path, and its name.
        self._way: list[tuple[Folder, Folder | None, Listing, bytes, bytes]] = [
            (stage, target, stage.scan(), b"", b"")
        ]
        self._told = told
        self._bytes = 0
        self._compared = 0
        self.left = 0
        self.moved = False
        self.fates: list[Entry] = []

    def run(self) -> None:
        """Do it."""
        try:
            while self._way:
                source, target, listing, path, _ = self._way[-1]
                entry = next(listing, None)
                if entry is None:
                    self._leave()
                    continue
                name = os.fsencode(entry.name)
                self._take(source, target, name, tree.join(path, name))
        finally:
            while self._way:
                self._leave()

    def _take(self, source: Folder, target: Folder | None, name: bytes, path: bytes) -> None:
        found = source.find(name)
        if found is None:
            return
        is_folder = stat.S_ISDIR(found.st_mode)
        if target is not None and self._move(source, target, name, found):
            self.moved = True
        elif is_folder:
            inner = source.child(name)
            into = _existing(target, name) if target is not None else None
            self._way.append((inner, into, inner.scan(), path, name))
        else:
            self._fail(path, found.st_size)

    def _move(self, source: Folder, target: Folder, name: bytes, found: os.stat_result) -> bool:
        try:
            source.move(name, target, name, tree=stat.S_ISDIR(found.st_mode))
        except FileExistsError:
            there = target.find(name)
            if stat.S_ISDIR(found.st_mode) or there is None:
                return False
            # Linked to its name, and then the machine stopped; or it came with the rest before.
            if not os.path.samestat(there, found) and not self._is_same(
                source, target, name, found, there
            ):
                return False
            source.remove(name)
        return True

    def _is_same(
        self,
        source: Folder,
        target: Folder,
        name: bytes,
        found: os.stat_result,
        there: os.stat_result,
    ) -> bool:
        """Whether both are links to the same, or files with the same in them, as far as there is
        time to look in one request."""
        if stat.S_IFMT(found.st_mode) != stat.S_IFMT(there.st_mode):
            return False
        if stat.S_ISLNK(found.st_mode):
            return source.read_link(name) == target.read_link(name)
        self._compared += found.st_size
        if found.st_size != there.st_size or self._compared > _COMPARED_BYTES_MAX:
            return False
        with (
            os.fdopen(source.open_read(name), "rb", buffering=0) as came,
            os.fdopen(target.open_read(name), "rb", buffering=0) as stands,
        ):
            piece = came.read(_COMPARE_BYTES)
            while piece and piece == stands.read(_COMPARE_BYTES):
                piece = came.read(_COMPARE_BYTES)
        return not piece

    def _leave(self) -> None:
        source, target, listing, _, name = self._way.pop()
        listing.close()
        if self._way:  # else they belong to the caller
            source.close()
            if target is not None:
                target.close()
            self._way[-1][0].remove_child(name)

    def _fail(self, path: bytes, size: int) -> None:
        self.left += 1
        if self.left <= self._told:
            return  # a listing that nothing changes has the same order each time
        self._bytes += len(path) + 64
        if self._bytes <= _FATES_BYTES_MAX:
            self.fates.append(Entry(path, size, "failed", tree.TAKEN_THERE))


def _existing(target: Folder, name: bytes) -> Folder | None:
    """The folder of that name; None where the name is taken by something else."""
    try:
        return target.child(name)
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            raise
        return None
