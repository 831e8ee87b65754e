"""What the simulated child `disk` does with what arrives: stages made, filled, synced, placed.

What holds always, as in tntd/shell/child_unpack.py, child_stage*.py and child_tree_remove.py, step
by step (a `yield` between two): nothing is replaced; a task done twice is as one done once; what
tells our own finished work from anything else is the inode of the stage.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator

from tntd import limits
from tntd.errors import RemoteError
from tntd.machines import pack_record, tree
from tntd.machines.blocks import block_hash, digest_of
from tntd.machines.pack_record import PackedEntry, TreeEntry
from tntd.shell.child_stage_end import unsure
from tntd.shell.child_tree_remove import LOST, is_asked_for
from tntd.tasks import (
    CleanStages,
    CopyRange,
    Counted,
    DiscardPart,
    Done,
    Entry,
    EntryOpened,
    Failed,
    FinishEntry,
    Hashed,
    HashRange,
    MergeStage,
    OpenEntry,
    PrepareStage,
    Publish,
    SweepStage,
    SyncPart,
    SyncStage,
    Unpack,
    Unpacked,
)

from .child_source import PARTS, Steps, block_hashes
from .disk import Disk, File, Folder, Link, Node, below, failed, files

OF_THE_DISK = {errno.ENOSPC, errno.EIO}


class _Refused(Exception):
    """An entry that cannot be put in place; says why."""


class Stage:
    """Tasks about what arrives.  `files` is the table of open files, by handle; `published` is
    told of a stage just when it gets its final name."""

    def __init__(
        self,
        disk: Disk,
        opened: dict[int, File],
        published: Callable[[bytes, bytes, Node], None],
    ) -> None:
        self._disk = disk
        self._files = opened
        self._published = published
        self._sweeps: dict[int, list[bytes]] = {}

    def _parts(self, folder: bytes) -> Folder:
        return self._disk.folder(folder + b"/" + PARTS)

    def _stage(self, folder: bytes, name: bytes) -> Folder:
        return self._disk.folder(folder + b"/" + PARTS + b"/" + name)

    def _open_file(self, handle: int) -> File:
        file = self._files.get(handle)
        if file is None:
            raise failed(errno.EBADF)
        return file

    # -- making --------------------------------------------------------------------------

    def prepare(self, task: PrepareStage) -> Steps:
        """Make a stage, or find it."""
        disk = self._disk
        folder = disk.make_folder(task.folder)
        disk.check(writing=True)
        if PARTS not in folder.names:
            disk.change((folder, PARTS, disk.new_folder()))
            yield
        parts = self._parts(task.folder)
        there = parts.names.get(task.name)
        taken = len(there.data) if isinstance(there, File) else 0
        if disk.free_now + taken < task.size + task.reserve:
            raise failed(errno.ENOSPC)
        yield
        if there is None:
            there = disk.new_folder() if task.tree else disk.new_file()
            disk.change((parts, task.name, there))
        if isinstance(there, Folder) != task.tree:
            raise failed(errno.EEXIST)
        yield
        return disk.inspected(there, int(bool(there.names)) if isinstance(there, Folder) else None)

    # -- small files -----------------------------------------------------------------------

    def unpack(self, task: Unpack) -> Steps:
        """Put the entries of a record in place."""
        try:
            packed = pack_record.parse(task.plain, task.number)
        except RemoteError as error:
            return Failed("EBADMSG", str(error))
        stage = self._stage(task.folder, task.name)
        made: set[bytes] = set()
        fates: list[Entry] = []
        size = 0
        for item in packed:
            entry = item.entry
            if entry.what == "file":
                size += entry.size
            try:
                fate = yield from self._take(stage, item, made)
            except (OSError, _Refused) as error:
                if isinstance(error, OSError) and error.errno in OF_THE_DISK:
                    raise
                fate = None
                if entry.what != "folder_end":
                    fate = Entry(entry.path, entry.size, "failed", str(error))
            fates += [fate] if fate is not None else []
            if task.again and fate is None and entry.what in {"folder", "link"}:
                fates.append(Entry(entry.path, 0, "there"))
        return Unpacked(fates, task.number + len(packed), packed[-1].entry.path, size)

    def _take(
        self, stage: Folder, item: PackedEntry, made: set[bytes]
    ) -> Generator[None, None, Entry | None]:
        entry = item.entry
        if entry.what in {"skipped", "failed"}:
            if entry.what == "failed":
                self._take_away(stage, entry.path)
            return Entry(entry.path, entry.size, entry.what, tree.told_reason(entry.text))
        if problem := tree.path_problem(entry.path, windows=False):
            raise _Refused(problem)
        if entry.what == "folder_end":
            self._enter(stage, entry.path, make=False).mtime_ns = entry.mtime_ns
            return None
        if entry.what == "folder" and not entry.path:
            return None
        above, name = tree.parent(entry.path)
        folder = self._enter(stage, above, make=True)
        if entry.what == "file":
            yield from self._put_file(folder, name, item, made)
            return Entry(entry.path, entry.size, "verified")
        self._put_other(folder, name, entry)
        return None

    def _take_away(self, stage: Folder, path: bytes) -> None:
        above, name = tree.parent(path)
        try:
            folder = self._enter(stage, above, make=False)
        except OSError:
            return
        if isinstance(folder.names.get(name), File):
            self._disk.change((folder, name, None))

    def _put_other(self, folder: Folder, name: bytes, entry: TreeEntry) -> None:
        disk, there = self._disk, folder.names.get(name)
        if entry.what == "folder":
            if there is None:
                disk.change((folder, name, disk.new_folder()))
            elif not isinstance(there, Folder):
                raise _Refused(tree.TAKEN)
            return
        if problem := tree.link_problem(entry.path, entry.text, windows=False):
            raise _Refused(problem)
        if there is None:
            disk.change((folder, name, disk.new_link(entry.text)))
        elif not isinstance(there, Link) or there.target != entry.text:
            raise _Refused(tree.TAKEN)

    def _put_file(
        self, folder: Folder, name: bytes, item: PackedEntry, made: set[bytes]
    ) -> Generator[None, None, None]:
        disk, entry = self._disk, item.entry
        data = b"".join(item.pieces)
        if digest_of([block_hash(data)] if data else []) != item.digest:
            raise _Refused(tree.DAMAGED)
        disk.check(writing=True)
        there = folder.names.get(name)
        if there is not None:
            if entry.path in made or not isinstance(there, File):
                raise _Refused(tree.TAKEN)
            disk.change((folder, name, None))
            yield
        file = disk.new_file()
        disk.change((folder, name, file))
        made.add(entry.path)
        yield
        try:
            disk.check(writing=True)
        except OSError:
            disk.change((folder, name, None))
            raise
        file.write(0, data, disk.now_ns)
        file.mtime_ns, file.executable = entry.mtime_ns, entry.executable
        yield

    def _enter(self, stage: Folder, path: bytes, *, make: bool) -> Folder:
        folder = stage
        for name in path.split(b"/") if path else []:
            inner = folder.names.get(name)
            if inner is None and make:
                inner = self._disk.new_folder()
                self._disk.change((folder, name, inner))
            if inner is None:
                raise failed(errno.ENOENT)
            if not isinstance(inner, Folder):
                raise failed(errno.ENOTDIR)
            folder = inner
        return folder

    # -- large files -----------------------------------------------------------------------

    def open_entry(self, task: OpenEntry) -> Steps:
        """Open a file of a stage for reading and writing."""
        disk = self._disk
        disk.check(writing=True)
        if task.path:
            above, name = tree.parent(task.path)
            folder = self._enter(self._stage(task.folder, task.name), above, make=True)
        else:
            folder, name = self._parts(task.folder), task.name
        yield
        file = folder.names.get(name)
        if file is None:
            file = disk.new_file()
            disk.change((folder, name, file))
            yield
        if not isinstance(file, File):
            raise failed(errno.EEXIST)
        if 0 <= task.size < len(file.data):
            del file.data[task.size :]
        size, base_size = len(file.data), -1
        if task.base:
            base = self._base(task.base, task.path, task.base_ctime_ns)
            base_size = -1 if base is None else len(base.data)
        self._files[task.handle] = file
        return EntryOpened(file.inode, size, base_size)

    def _base(self, base: bytes, path: bytes, ctime_ns: int) -> File | None:
        node = self._disk.find(base + b"/" + path if path else base)
        return node if isinstance(node, File) and node.ctime_ns <= ctime_ns else None

    def hash_range(self, task: HashRange) -> Steps:
        """The hashes of the blocks in a range."""
        self._disk.check()
        yield
        if task.base:
            file = self._base(task.base, task.path, task.base_ctime_ns)
            if file is None:
                raise failed(errno.ESTALE)
        else:
            file = self._open_file(task.handle)
        return Hashed(self._hashes(file, task))

    def _hashes(self, file: File, task: HashRange | CopyRange) -> bytes:
        data = bytes(file.data[task.offset : task.offset + task.length])
        return block_hashes(data, task.block_bytes)

    def copy_range(self, task: CopyRange) -> Steps:
        """Copy a range of an older copy; the hashes of what was copied."""
        self._disk.check(writing=True)
        target = self._open_file(task.handle)
        base = self._base(task.base, task.path, task.base_ctime_ns)
        if base is None:
            raise failed(errno.ESTALE)
        data = bytes(base.data[task.offset : task.offset + task.length])
        half = len(data) // 2
        target.write(task.offset, data[:half], self._disk.now_ns)
        yield
        target.write(task.offset + half, data[half:], self._disk.now_ns)
        return Hashed(self._hashes(target, task))

    def finish_entry(self, task: FinishEntry) -> Steps:
        """Give an open file its time and mode."""
        file = self._open_file(task.handle)
        yield
        if 0 <= task.size < len(file.data):
            del file.data[task.size :]
        file.mtime_ns, file.executable = task.mtime_ns, task.executable
        return Done()

    # -- to the disk -----------------------------------------------------------------------

    def sync_part(self, task: SyncPart) -> Steps:
        """Bring an open file to the disk."""
        file = self._open_file(task.handle)
        yield
        try:
            self.sync_file(file)
        except OSError:
            self._lose(task.folder, task.name)
            raise
        return Done()

    def _lose(self, folder: bytes, name: bytes) -> None:
        """A stage of which something was lost: gone, or at least not found any more."""
        parts = self._disk.find(folder + b"/" + PARTS)
        if not isinstance(parts, Folder) or name not in parts.names or self._disk.stuck == "moved":
            return
        lost = [(parts, name + LOST, parts.names[name])] if self._disk.stuck else []
        self._disk.change((parts, name, None), *lost)

    def sync_file(self, file: File) -> None:
        """What `fsync` does."""
        try:
            self._disk.check(writing=file.dirty)
        except OSError:
            file.spoiled = file.spoiled or file.dirty
            raise
        file.sync()

    def sync_tree(self, folder: Folder) -> None:
        """What `syncfs` does; where it fails, of what is in the folder."""
        found = [node for node in below(folder) if isinstance(node, File)]
        try:
            self._disk.check(writing=any(file.dirty for file in found))
        except OSError:
            for file in found:
                file.spoiled = file.spoiled or file.dirty
            raise
        self._disk.sync_all()

    def sync_stage(self, task: SyncStage) -> Steps:
        """Bring all of a stage to the disk, and that it is there."""
        folder, parts = self._disk.folder(task.folder), self._parts(task.folder)
        node = parts.names.get(task.name)
        if node is None:
            raise failed(errno.ENOENT)
        yield
        try:
            if isinstance(node, Folder):
                self.sync_tree(node)
            elif isinstance(node, File):
                self.sync_file(node)
        except OSError:
            self._lose(task.folder, task.name)
            raise
        yield
        self._disk.sync_folder(parts)
        self._disk.sync_folder(folder)
        return Done()

    # -- to its name -----------------------------------------------------------------------

    def publish(self, task: Publish) -> Steps:
        """Give a stage its final name."""
        disk = self._disk
        with unsure():
            disk.check()
        folder = disk.folder(task.folder)
        yield
        there = folder.names.get(task.name)
        if there is None or isinstance(there, Folder) != task.tree or there.inode != task.inode:
            yield from self._rename(task, folder)
        yield
        with unsure():
            disk.check()
        disk.sync_folder(folder)
        yield
        parts = folder.names.get(PARTS)
        if isinstance(parts, Folder) and task.part + LOST in parts.names and not disk.stuck:
            disk.change((parts, task.part + LOST, None))
        self._remove_parts(folder)
        return disk.inspected(folder.names[task.name])

    def _rename(self, task: Publish, folder: Folder) -> Generator[None, None, None]:
        disk = self._disk
        parts = folder.names.get(PARTS)
        part = parts.names.get(task.part) if isinstance(parts, Folder) else None
        if part is None or not isinstance(parts, Folder):
            raise failed(errno.ENOENT)
        if task.name in folder.names:
            raise failed(errno.EEXIST)
        if part.inode != task.inode or isinstance(part, Folder) != task.tree:
            raise failed(errno.ESTALE)
        if isinstance(part, File):
            part.executable, part.mtime_ns = task.executable, task.mtime_ns
            yield
            self.sync_file(part)
        yield
        if task.name in folder.names:
            raise failed(errno.EEXIST)
        disk.change((folder, task.name, part), (parts, task.part, None))
        self._published(task.part, task.folder + b"/" + task.name, part)

    def _remove_parts(self, folder: Folder) -> None:
        parts = folder.names.get(PARTS)
        if isinstance(parts, Folder) and not parts.names:
            self._disk.change((folder, PARTS, None))

    def merge(self, task: MergeStage) -> Steps:
        """Move what is in a stage into a folder that is there."""
        disk = self._disk
        with unsure():
            disk.check()
        folder = disk.folder(task.folder)
        target = folder.names.get(task.into)
        if target is None:
            raise failed(errno.ENOENT)
        if not isinstance(target, Folder):
            raise failed(errno.ENOTDIR)
        if target.inode != task.inode:
            raise failed(errno.ESTALE)
        yield
        parts = folder.names.get(PARTS)
        fates: list[Entry] = []
        stage = parts.names.get(task.name) if isinstance(parts, Folder) else None
        if isinstance(parts, Folder) and isinstance(stage, Folder):
            yield from self._merge(stage, target, b"", fates)
            with unsure():
                self.sync_tree(target)
            yield
            if not stage.names:
                disk.change((parts, task.name, None))
            disk.sync_folder(parts)
        else:
            with unsure():
                self.sync_tree(target)
        self._remove_parts(folder)
        return Unpacked(fates, 0, b"", 0)

    def _merge(
        self, stage: Folder, target: Folder | None, path: bytes, fates: list[Entry]
    ) -> Generator[None, None, None]:
        disk = self._disk
        for name, node in list(stage.names.items()):
            at = tree.join(path, name)
            there = target.names.get(name) if target is not None else None
            if target is not None and there is None:
                disk.change((target, name, node), (stage, name, None))
            elif isinstance(node, Folder):
                into = there if isinstance(there, Folder) else None
                yield from self._merge(node, into, at, fates)
                if not node.names:
                    disk.change((stage, name, None))
            elif isinstance(node, File) and isinstance(there, File) and node.data == there.data:
                disk.change((stage, name, None))
            else:
                size = len(node.data) if isinstance(node, File) else 0
                fates.append(Entry(at, size, "failed", tree.TAKEN_THERE))
            yield

    # -- removing --------------------------------------------------------------------------

    def forget(self) -> None:
        """Another child does the tasks from now on."""
        self._sweeps.clear()

    def sweep(self, task: SweepStage) -> Steps:
        """Remove the files that were not told."""
        disk = self._disk
        known = self._sweeps.pop(task.sweep, [])
        if task.at != len(known):
            raise failed(errno.ESTALE)
        known += [task.known[at : at + 8] for at in range(0, len(task.known), 8)]
        if not task.end:
            self._sweeps[task.sweep] = known
            return Done()
        stage = self._stage(task.folder, task.name)
        disk.check()
        yield
        gone = [
            path
            for path, node in files(stage)
            if isinstance(node, File) and tree.mark(path) not in known
        ]
        for path in gone:
            self._take_away(stage, path)
            yield
        return Done()

    def discard(self, task: DiscardPart) -> Steps:
        """Remove a stage for good, and the part folder when it is empty."""
        disk = self._disk
        disk.check()
        yield
        folder = disk.find(task.folder)
        if not isinstance(folder, Folder):
            return Done()
        parts = folder.names.get(PARTS)
        if not isinstance(parts, Folder):
            self.sync_removal(folder)
            return Done()
        left = [limits.DISCARD_STEP_FILES]
        yield from self._remove(parts, task.name, left)
        yield from self._remove(parts, task.name + LOST, left)
        disk.check()
        self.sync_removal(parts)
        yield
        self._remove_parts(folder)
        return Done()

    def _remove(self, folder: Folder, name: bytes, left: list[int]) -> Generator[None, None, None]:
        node = folder.names.get(name)
        if node is None:
            return
        if self._disk.stuck:
            raise failed(errno.EIO)
        if isinstance(node, Folder):
            for inner in list(node.names):
                yield from self._remove(node, inner, left)
        elif not left[0]:
            raise failed(errno.EAGAIN)
        else:
            left[0] -= 1
        self._disk.change((folder, name, None))
        yield

    def sync_removal(self, folder: Folder) -> None:
        """Make sure that what was removed does not come back."""
        self._disk.sync_folder(folder)

    def clean(self, task: CleanStages) -> Steps:
        """Remove stages for a moment."""
        disk = self._disk
        disk.check()
        yield
        folder = disk.folder(task.folder)
        parts = folder.names.get(PARTS)
        if not isinstance(parts, Folder):
            return Counted(0, 0, True)
        left = [limits.DISCARD_STEP_FILES]
        end = True
        try:
            for name in list(parts.names):
                ours = name.startswith(task.prefix) and is_asked_for(name, task)
                if ours and name not in task.keep:
                    yield from self._remove(parts, name, left)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
            end = False
        disk.sync_folder(parts)
        self._remove_parts(folder)
        return Counted(limits.DISCARD_STEP_FILES - left[0], 0, end)
