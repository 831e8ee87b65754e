"""Taking PACK records apart: each entry becomes a file, folder or link of the stage.

What holds always:
- A record is read completely before anything of it is done; its names are not believed.
- A file is written only where its hash fits, always a new one, and never in place of anything but
  of our own earlier try at the same entry: a file that stands there by exactly that name (other
  spellings can lead to the same file on file systems that do not tell A from a) and by no other.
- What is wrong with one entry fails that entry.  What is wrong with the disk (it is full, say)
  fails the request, which can be repeated as it is.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from typing import Final

from blake3 import blake3

from tntd.machines import pack_record, tree
from tntd.machines.pack_record import PackedEntry, TreeEntry
from tntd.shell import child_stage
from tntd.shell.child_file import set_time
from tntd.shell.child_folder import Folder
from tntd.shell.child_stage import Stage
from tntd.shell.files import words
from tntd.tasks import Entry, Unpack, Unpacked

# Not the fault of one entry.
OF_THE_DISK: Final = frozenset(
    {
        errno.ENOSPC,
        getattr(errno, "EDQUOT", errno.ENOSPC),
        errno.EIO,
        errno.EROFS,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
    }
)
_WINDOWS: Final = os.name == "nt"


class _Refused(Exception):
    """An entry that cannot be put in place; says why."""


def unpack(task: Unpack) -> Unpacked:
    """Put the entries of a record in place.  Raises RemoteError for a record that is none, and
    OSError."""
    packed = pack_record.parse(task.plain, task.number)
    unpacking = _Unpacking(child_stage.hold(task.folder, task.name), packed, task.again)
    for item in packed:
        unpacking.take(item)
    return Unpacked(
        unpacking.fates, task.number + len(packed), packed[-1].entry.path, unpacking.bytes
    )


class _Unpacking:
    """A record on its way into the stage."""

    def __init__(self, stage: Stage, packed: list[PackedEntry], again: bool) -> None:
        self._stage = stage
        self._packed = packed
        self._again = again
        self._now_ns = time.time_ns()
        self._good_parent = b""
        self._made: set[bytes] = set()
        self._exact: dict[bytes, bool] = {}
        self._listed: dict[bytes, set[bytes]] = {}
        self.fates: list[Entry] = []
        self.bytes = 0  # of all files of the record, whatever became of them

    def take(self, item: PackedEntry) -> None:
        """Put one entry in place, or tell why not."""
        entry = item.entry
        if entry.what in {"skipped", "failed"}:
            reason = tree.told_reason(entry.text)
            self.fates.append(Entry(entry.path, entry.size, entry.what, reason))
            self._take_away(entry.path)
            return
        try:
            if entry.what == "file":
                self.bytes += entry.size
                self._put_file(item)
                self.fates.append(Entry(entry.path, entry.size, "verified"))
            elif entry.what == "folder":
                self._put_folder(entry)
            elif entry.what == "link":
                self._put_link(entry)
            else:
                self._end_folder(entry)
            if self._again and entry.what in {"folder", "link"}:
                self.fates.append(Entry(entry.path, 0, "there"))
        except (OSError, _Refused) as error:
            self._fail(entry, error)

    def _take_away(self, path: bytes) -> None:
        """Remove what stands there of our own earlier try at an entry that is none any more: of a
        large file that changed while it came, say."""
        parent, name = tree.parent(path)
        if not path or tree.path_problem(path, windows=_WINDOWS):
            return
        try:
            folder = self._stage.enter(parent, make=False)
            if folder.find(name) is not None:
                self._clear(folder, parent, name, _is_lone_file)
                folder.remove(name)
        except _Refused:
            return
        except OSError as error:
            if error.errno in OF_THE_DISK:
                raise

    def _fail(self, entry: TreeEntry, error: OSError | _Refused) -> None:
        if isinstance(error, OSError):
            if error.errno in OF_THE_DISK:
                raise error
            reason = words(error)
        else:
            reason = str(error)
        # The end of a folder has nothing but its time to lose.
        if entry.what != "folder_end":
            self.fates.append(Entry(entry.path, entry.size, "failed", reason))

    def _put_file(self, item: PackedEntry) -> None:
        entry = item.entry
        if _digest(item.pieces) != item.digest:
            raise _Refused(tree.DAMAGED)
        folder, parent, name = self._place(entry.path)
        mode = 0o777 if entry.executable else 0o666  # less what the umask takes away
        try:
            descriptor = folder.create(name, mode)
        except FileExistsError:
            self._clear(folder, parent, name, _is_lone_file)
            folder.remove(name)
            descriptor = folder.create(name, mode)
        self._made.add(entry.path)
        try:
            for piece in item.pieces:
                _write(descriptor, piece)
            set_time(descriptor, entry.mtime_ns, self._now_ns)
        except OSError:
            folder.remove(name)
            raise
        finally:
            os.close(descriptor)
        if _WINDOWS:
            set_time(folder.where(name), entry.mtime_ns, self._now_ns)

    def _put_folder(self, entry: TreeEntry) -> None:
        if not entry.path:
            return  # the stage itself
        folder, parent, name = self._place(entry.path)
        try:
            folder.make_new_child(name)
        except FileExistsError:
            self._clear(folder, parent, name, lambda found: stat.S_ISDIR(found.st_mode), again=True)

    def _put_link(self, entry: TreeEntry) -> None:
        folder, parent, name = self._place(entry.path)
        if problem := tree.link_problem(entry.path, entry.text, windows=_WINDOWS):
            raise _Refused(problem)
        try:
            folder.make_link(name, entry.text)
        except FileExistsError:
            self._clear(folder, parent, name, lambda found: stat.S_ISLNK(found.st_mode), again=True)
            if folder.read_link(name) != entry.text:
                raise _Refused(tree.TAKEN) from None

    def _end_folder(self, entry: TreeEntry) -> None:
        if problem := tree.path_problem(entry.path, windows=_WINDOWS):
            raise _Refused(problem)
        self._stage.enter(entry.path, make=False).set_time(entry.mtime_ns, self._now_ns)

    def _place(self, path: bytes) -> tuple[Folder, bytes, bytes]:
        """Where an entry goes: the open folder, its path, and the name there."""
        parent, name = tree.parent(path)
        if parent and parent == self._good_parent:
            problem = tree.name_problem(name, windows=_WINDOWS)
        else:
            problem = tree.path_problem(path, windows=_WINDOWS) if path else tree.NO_NAME
        if problem:
            raise _Refused(problem)
        self._good_parent = parent
        return self._stage.enter(parent, make=True), parent, name

    def _clear(
        self,
        folder: Folder,
        parent: bytes,
        name: bytes,
        fits: Callable[[os.stat_result], bool],
        *,
        again: bool = False,
    ) -> None:
        """Raises _Refused unless what stands there is our own earlier try: from an earlier time
        that this record was unpacked, or (`again`) from this one."""
        before = again or tree.join(parent, name) not in self._made
        if not before or not self._is_exact(folder, parent, name):
            raise _Refused(tree.TAKEN)
        if not fits(folder.look(name)):
            raise _Refused(tree.TAKEN)

    def _is_exact(self, folder: Folder, parent: bytes, name: bytes) -> bool:
        if parent not in self._exact:
            self._exact[parent] = folder.tells_spellings(name)
        return self._exact[parent] or name in self._names_in(folder, parent)

    def _names_in(self, folder: Folder, parent: bytes) -> set[bytes]:
        """Names of this record that are in the folder, as they are listed there.  Looked up once a
        record: such a folder may have a million names."""
        if parent not in self._listed:
            wanted = {
                name
                for above, name in (tree.parent(item.entry.path) for item in self._packed)
                if above == parent
            }
            self._listed[parent] = folder.which_of(wanted)
        return self._listed[parent]


def _is_lone_file(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def _digest(pieces: list[memoryview]) -> bytes:
    """The hash of a file (see machines/blocks.py) that has at most one block."""
    if not pieces:
        return blake3(max_threads=1).digest()
    block = blake3(max_threads=1)
    for piece in pieces:
        block.update(piece)
    return blake3(block.digest(), max_threads=1).digest()


def _write(descriptor: int, data: memoryview) -> None:
    done = os.write(descriptor, data)
    while done < len(data):
        done += os.write(descriptor, data[done:])
