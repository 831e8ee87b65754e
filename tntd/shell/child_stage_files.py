# Paths are bytes here, as the system has them; pathlib takes none.
# ruff: noqa: PTH117, PTH119, PTH120
"""Single large files of a stage: opened, hashed for what is there, patched, finished.

What holds always: what a range is said to hold was read from the open file, or from an older copy
that has not changed since; nothing is believed for its length or its name.  Of what was copied
from an older copy, the copy is read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator
from typing import Final

from blake3 import blake3

from tntd import limits
from tntd.machines import tree
from tntd.shell import child_file, child_folder, child_stage
from tntd.shell.child_folder import Folder
from tntd.shell.files import OpenFile, read_at, write_at
from tntd.tasks import CopyRange, Done, EntryOpened, FinishEntry, Hashed, HashRange, OpenEntry

_READ_BYTES: Final = 1 * limits.MIB
_RESERVE_FROM_BYTES: Final = 1 * limits.MIB  # below, setting space aside costs more than it helps
_WINDOWS: Final = os.name == "nt"


def open_entry(task: OpenEntry) -> tuple[EntryOpened, int]:
    """Open a file of a stage for reading and writing.  Raises OSError, also (EINVAL) where the
    path has a problem."""
    child_folder.check_name(task.name)
    if problem := tree.path_problem(task.path, windows=_WINDOWS):
        raise OSError(errno.EINVAL, problem)
    if task.path:
        above, name = tree.parent(task.path)
        folder = child_stage.hold(task.folder, task.name).enter(above, make=True)
        descriptor = _open(folder, name)
    else:
        with (
            child_stage.open_folder(task.folder) as outer,
            child_stage.part_folder(outer) as parts,
        ):
            descriptor = _open(parts, task.name)
    try:
        found = _fit(descriptor, task.size)
        base_size = -1
        if task.base:
            with contextlib.suppress(OSError):  # then it does not count
                base_size = _base_size(task)
    except OSError:
        os.close(descriptor)
        raise
    return EntryOpened(found.st_ino, found.st_size, base_size), descriptor


def _open(folder: Folder, name: bytes) -> int:
    there = folder.find(name)
    if there is not None:
        exact = folder.tells_spellings(name) or bool(folder.which_of({name}))
        if not stat.S_ISREG(there.st_mode) or not exact:
            raise OSError(errno.EEXIST, tree.TAKEN)
        if child_stage.is_our_file(there, folder):
            descriptor = folder.open_file(name)
            if os.path.samestat(there, os.fstat(descriptor)):
                return descriptor
            os.close(descriptor)
            raise OSError(errno.ESTALE, "")
        folder.remove(name)  # it may be a finished file by another name
    return folder.create(name, 0o600)


def _fit(descriptor: int, size: int) -> os.stat_result:
    """Cut what is too long, set space aside; what there is then."""
    if 0 <= size < os.fstat(descriptor).st_size:
        os.ftruncate(descriptor, size)
    found = os.fstat(descriptor)
    if size >= _RESERVE_FROM_BYTES:
        try:
            child_file.reserve(descriptor, size)
        except OSError:
            os.ftruncate(descriptor, found.st_size)  # gives back what could be set aside
            raise
    return found


def _base_size(task: OpenEntry) -> int:
    with _open_base(task.base, task.path, task.base_ctime_ns) as base:
        return os.fstat(base).st_size


def hash_range(task: HashRange, given: int | None) -> Hashed:
    """The hashes of the blocks in a range; of fewer where the file ends before."""
    _check_range(task)
    if task.base:
        with _open_base(task.base, task.path, task.base_ctime_ns) as base:
            return Hashed(_hashes(base, task))
    return Hashed(_hashes(_given(given), task))


def copy_range(task: CopyRange, given: int | None) -> Hashed:
    """Copy a range of an older copy to the same place; the hashes of what was copied."""
    _check_range(task)
    target = _given(given)
    with _open_base(task.base, task.path, task.base_ctime_ns) as base:
        at, end = task.offset, task.offset + task.length
        end = min(end, os.fstat(base).st_size)
        while at < end:
            at += _copy_some(base, target, at, end - at)
    return Hashed(_hashes(target, task))


def _copy_some(base: int, target: int, at: int, length: int) -> int:
    if hasattr(os, "copy_file_range"):
        try:
            copied = os.copy_file_range(base, target, length, at, at)
        except OSError as error:
            if error.errno not in child_file.NO_SUCH_COPY:
                raise
            copied = 0
        if copied:
            return copied
    buffer = memoryview(bytearray(min(_READ_BYTES, length)))
    got = read_at(OpenFile(base), buffer, at, warm=True) or 0
    if not got:
        raise OSError(errno.ESTALE, "")
    write_at(OpenFile(target), buffer[:got], at)
    return got


def finish_entry(task: FinishEntry, given: int | None) -> Done:
    """Give an open file its length, mode and time."""
    descriptor = _given(given)
    if 0 <= task.size < os.fstat(descriptor).st_size:
        os.ftruncate(descriptor, task.size)
    child_file.set_mode(descriptor, task.executable)
    child_file.set_time(descriptor, task.mtime_ns, time.time_ns())
    return Done()


# -- reading ------------------------------------------------------------------------------


def _hashes(descriptor: int, task: HashRange | CopyRange) -> bytes:
    file = OpenFile(descriptor)
    buffer = memoryview(bytearray(min(_READ_BYTES, task.block_bytes, max(1, task.length))))
    hashes = []
    at, end = task.offset, task.offset + task.length
    while at < end:
        block_end = min(end, at + task.block_bytes)
        digest = blake3(max_threads=1)
        start = at
        while at < block_end:
            got = read_at(file, buffer[: block_end - at], at, warm=True) or 0
            if not got:
                break
            digest.update(buffer[:got])
            at += got
        if at > start:
            hashes.append(digest.digest())
        if at < block_end:
            break
    return b"".join(hashes)


@contextlib.contextmanager
def _open_base(base: bytes, path: bytes, ctime_ns: int) -> Iterator[int]:
    """An older copy, opened for reading.  Raises OSError, ESTALE where it is none any more."""
    if not os.path.isabs(base) or tree.path_problem(path, windows=False):
        raise OSError(errno.EINVAL, "")
    names = [os.path.basename(base), *(path.split(b"/") if path else [])]
    folder = Folder.open(os.path.dirname(base))
    try:
        for name in names[:-1]:
            inner = folder.child(name)
            folder.close()
            folder = inner
        if not stat.S_ISREG(folder.look(names[-1]).st_mode):
            raise OSError(errno.ESTALE, "")
        descriptor = folder.open_read(names[-1])
    finally:
        folder.close()
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_ctime_ns > ctime_ns:
            raise OSError(errno.ESTALE, "")
        yield descriptor
    finally:
        os.close(descriptor)


def _given(descriptor: int | None) -> int:
    if descriptor is None:
        raise OSError(errno.EMFILE, "")  # it came along, and there was no room for it
    return descriptor


def _check_range(task: HashRange | CopyRange) -> None:
    block = task.block_bytes
    if block <= 0 or task.length < 0 or task.offset < 0 or task.offset % block:
        raise OSError(errno.EINVAL, "a range that does not begin with a block")
