# Paths are bytes here, as the system has them; pathlib takes none.
# ruff: noqa: PTH103, PTH116, PTH117
"""The child `disk`: opens, inspects, syncs, publishes; everything that may wait for a disk.

What holds always:
- A part lives in `FOLDER/.tnt-part`, a folder of ours alone, until it is renamed to its name in
  FOLDER; nothing under that name is ever replaced.
- A task done twice is as one done once.  What tells our own finished work from a file of
  somebody else is the inode of the part.
- An error is an answer.  A sync that failed is told as such and not tried again: the system
  reports lost data once and forgets it.
"""

from __future__ import annotations

import errno
import os
import stat

from tntd import limits
from tntd.shell import child_folder
from tntd.shell.child_folder import Folder
from tntd.shell.child_wire import Warm
from tntd.shell.files import OpenFile, failure, read_at
from tntd.tasks import (
    Answer,
    AnyTask,
    DiscardPart,
    Done,
    Inspect,
    Inspected,
    OpenPart,
    OpenSource,
    Publish,
    SyncPart,
)

PART_FOLDER = b".tnt-part"
_READ_BYTES = 1 * limits.MIB
_SHORTEN_BYTES = 64 * limits.MIB
_RESERVE_FROM_BYTES = 1 * limits.MIB  # below, setting space aside costs more than it helps
_RACE_TRIES = 20  # another daemon on the same folder may remove the empty part folder meanwhile
_READ_FLAGS = os.O_RDONLY | child_folder.COMMON_FLAGS


def perform(task: AnyTask | Warm, given: int | None) -> tuple[Answer, int | None, bool]:
    """Do a task of this child; see child.py."""
    opened: int | None = None
    try:
        answer, opened = _perform(task, given)
    except OSError as error:
        return failure(error), None, False
    except ValueError:  # a zero byte in a path
        return failure(OSError(errno.EINVAL, "")), None, False
    in_memory = opened is not None and child_folder.is_in_memory(opened)
    return answer, opened, in_memory


def _perform(task: AnyTask | Warm, given: int | None) -> tuple[Answer, int | None]:
    match task:
        case Inspect():
            return inspect(task), None
        case OpenSource():
            return open_source(task)
        case OpenPart():
            return open_part(task)
        case Publish():
            return publish(task), None
        case DiscardPart():
            return discard_part(task), None
        case SyncPart() | Warm():
            if given is None:
                raise OSError(errno.EBADF, "no file came along")
            return (warm(given, task) if isinstance(task, Warm) else sync_part(given)), None
    raise TypeError(f"not a task of this child: {task!r}")


def inspect(task: Inspect) -> Inspected:
    """What is at a path, through symbolic links."""
    return _inspected(os.stat(_absolute(task.path)), child_folder.free_bytes(task.path))


def open_source(task: OpenSource) -> tuple[Inspected, int]:
    """Open a regular file for reading."""
    path = _absolute(task.path)
    _must_be_file(os.stat(path))  # before opening: opening a device may do something
    descriptor = os.open(path, _READ_FLAGS)
    return _inspect_open(descriptor), descriptor


def open_part(task: OpenPart) -> tuple[Inspected, int]:
    """Open a new, empty part."""
    child_folder.check_name(task.name)
    path = _absolute(task.folder)
    os.makedirs(path, exist_ok=True)
    with Folder.open(path) as folder:
        free = child_folder.free_bytes(folder.descriptor if folder.descriptor >= 0 else path)
        if free < task.size + task.reserve:
            raise OSError(errno.ENOSPC, "")
        descriptor = _create_part(folder, task.name)
    try:
        if task.size >= _RESERVE_FROM_BYTES:
            child_folder.reserve(descriptor, task.size)
    except OSError:
        os.close(descriptor)
        discard_part(DiscardPart(task.folder, task.name))
        raise
    return _inspect_open(descriptor), descriptor


def sync_part(descriptor: int) -> Done:
    """Bring written data to the disk."""
    child_folder.sync_data(descriptor)
    return Done()


def warm(descriptor: int, task: Warm) -> Done:
    """Read a range so that it is in memory."""
    buffer = memoryview(bytearray(min(_READ_BYTES, task.length)))
    at, end = task.offset, task.offset + task.length
    while at < end:
        view = buffer[: end - at]
        got = read_at(OpenFile(descriptor), view, at, warm=True) or 0
        if got < len(view):
            break
        at += got
    return Done()


def publish(task: Publish) -> Done:
    """Give a part its final name."""
    child_folder.check_name(task.part)
    child_folder.check_name(task.name)
    with Folder.open(_absolute(task.folder)) as folder:
        if not _is_published(folder, task):
            with _part_folder(folder) as parts:
                _finish_file(parts, task)
                parts.move(task.part, folder, task.name)
                folder.sync()
                parts.sync()
        folder.remove_child(PART_FOLDER)
    return Done()


def discard_part(task: DiscardPart) -> Done:
    """Remove a part for good, and the part folder when it is empty."""
    child_folder.check_name(task.name)
    try:
        with Folder.open(_absolute(task.folder)) as folder:
            _discard(folder, task.name)
    except FileNotFoundError:
        return Done()
    return Done()


def _discard(folder: Folder, name: bytes) -> None:
    try:
        with _part_folder(folder) as parts:
            _shorten(parts, name)
            parts.remove(name)
            # Also where it was gone already: a power cut may bring back what was removed.
            parts.sync()
    except FileNotFoundError:
        folder.sync()
        return
    folder.remove_child(PART_FOLDER)


def _shorten(parts: Folder, name: bytes) -> None:
    """Give a long part's space back in steps: all at once would hold up the file system, and
    with it the commits of the database, for seconds.  A part that cannot be shortened is not."""
    try:
        descriptor = parts.open_file(name)
    except OSError:
        return
    try:
        found = os.fstat(descriptor)
        # With two names it is a finished file, of which only the name here is to go.
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            _cut_down(descriptor, found)
    except OSError:
        return
    finally:
        os.close(descriptor)


def _cut_down(descriptor: int, found: os.stat_result) -> None:
    size = found.st_size
    reserved = getattr(found, "st_blocks", 0) * 512
    if reserved > size + _SHORTEN_BYTES:
        os.ftruncate(descriptor, reserved)  # else the first step frees all that was set aside
        size = reserved
    while size > _SHORTEN_BYTES:
        size -= _SHORTEN_BYTES
        os.ftruncate(descriptor, size)


# -- parts --------------------------------------------------------------------------------


def _part_folder(folder: Folder) -> Folder:
    """Open the part folder.  Raises OSError where it is none, or belongs to somebody else."""
    parts = folder.child(PART_FOLDER)
    if parts.descriptor >= 0:
        owner = os.fstat(parts.descriptor).st_uid
        # Some file systems show one owner for everything.
        if owner not in (os.geteuid(), os.fstat(folder.descriptor).st_uid):
            parts.__exit__()
            raise OSError(errno.EPERM, "")
    return parts


def _create_part(folder: Folder, name: bytes) -> int:
    for tries_left in reversed(range(_RACE_TRIES)):
        folder.make_child(PART_FOLDER, 0o700)
        try:
            with _part_folder(folder) as parts:
                # A new file, not the old one emptied: that might be a finished one by another name.
                parts.remove(name)
                return parts.create(name, 0o600)
        except FileNotFoundError:
            if not tries_left:
                raise
    raise AssertionError("unreachable")


def _is_published(folder: Folder, task: Publish) -> bool:
    """Whether this was done before, wholly or up to its last step, which is then done here.

    Raises OSError: ENOENT where neither the part nor its published file is there, EEXIST where
    something else has the name.
    """
    there = folder.find(task.name)
    ours = there is not None and stat.S_ISREG(there.st_mode) and there.st_ino == task.inode
    try:
        with _part_folder(folder) as parts:
            part = parts.find(task.part)
            if ours and part is not None and part.st_ino == task.inode:
                parts.remove(task.part)  # linked to its name, and then the machine stopped
                parts.sync()
    except FileNotFoundError:
        part = None
    if ours:
        folder.sync()
    elif part is None:
        raise OSError(errno.ENOENT, "")
    elif there is not None:
        raise OSError(errno.EEXIST, "")
    return ours


def _finish_file(parts: Folder, task: Publish) -> None:
    """Times and mode, on the disk before the name is."""
    descriptor = parts.open_file(task.part)
    try:
        found = os.fstat(descriptor)
        _must_be_file(found)
        if found.st_ino != task.inode:
            raise OSError(errno.ESTALE, "")
        _set_mode(descriptor, task.executable)
        _set_time(parts, descriptor, found.st_atime_ns, task)
        child_folder.sync(descriptor)
    finally:
        os.close(descriptor)


def _set_mode(descriptor: int, executable: bool) -> None:
    if not hasattr(os, "fchmod"):
        return
    umask = os.umask(0o077)
    os.umask(umask)
    mode = 0o666 & ~umask
    if executable:
        mode |= (mode & 0o444) >> 2
    try:
        os.fchmod(descriptor, mode)
    except PermissionError:
        return  # a file system without modes; the file itself is whole


def _set_time(parts: Folder, descriptor: int, accessed_ns: int, task: Publish) -> None:
    where = descriptor if os.utime in os.supports_fd else parts.where(task.part)
    try:
        os.utime(where, ns=(accessed_ns, task.mtime_ns))
    except (OSError, OverflowError):
        return  # a time that this file system cannot hold; the file itself is whole


# -- small --------------------------------------------------------------------------------


def _absolute(path: bytes) -> bytes:
    if not os.path.isabs(path):
        raise OSError(errno.EINVAL, "not an absolute path")
    return path


def _must_be_file(found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EISDIR, "")
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a file")


def _inspect_open(descriptor: int) -> Inspected:
    try:
        found = os.fstat(descriptor)
        _must_be_file(found)
        free = 0 if os.name == "nt" else child_folder.free_bytes(descriptor)
    except OSError:
        os.close(descriptor)
        raise
    return _inspected(found, free)


def _inspected(found: os.stat_result, free: int) -> Inspected:
    kind = "other"
    if stat.S_ISREG(found.st_mode):
        kind = "file"
    elif stat.S_ISDIR(found.st_mode):
        kind = "folder"
    return Inspected(
        kind=kind,
        size=found.st_size,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
        device=found.st_dev,
        inode=found.st_ino,
        executable=bool(found.st_mode & stat.S_IXUSR),
        free=free,
    )
