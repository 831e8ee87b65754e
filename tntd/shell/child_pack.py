# Paths are bytes here, as the system has them; pathlib takes none.
"""Making the plaintext of PACK records: many small files in one, read and hashed here.

What holds always:
- What stands in a record was in the file while nothing about it changed: its size, its times and
  its inode are the same before and after the reading.  Else the entry is "failed", and the rest
  goes on.
- The same entry gets the same number each time, as child_tree.py walks.
- A request takes a moment at most, however much there is to be left out, or to be passed over on
  the way to the entry that is asked for: then it answers with what there is, be it nothing.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import Final

from blake3 import blake3

from tntd import limits
from tntd.machines import pack_record, tree
from tntd.machines.pack_record import CHUNK, FILE_END, FILE_END_BYTES
from tntd.shell import child_file, child_tree
from tntd.shell.child_folder import COMMON_FLAGS
from tntd.shell.child_tree import Found, Kept, Walk
from tntd.shell.files import words
from tntd.tasks import Entry, Large, Pack, Packed

_STEP_S: Final = limits.COUNT_STEP_S
_CHUNKS_OF_FILE: Final = 3
_WINDOWS: Final = os.name == "nt"
_OF_THE_SYSTEM: Final = "the system makes up what is in it, and it has no size"
_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE})  # says nothing of the file

_walks: Kept[Walk] = Kept()
_buffer = bytearray(limits.PACK_PLAIN_BYTES_MAX)  # of the one record that is being made


class Changed(Exception):
    """The entry before the one that is asked for is another one now."""


class _Record:
    """The record that is being filled, and what is told of it."""

    def __init__(self) -> None:
        self._buffer = _buffer
        self._view = memoryview(_buffer)
        self._used = 0
        self._pending = 0
        self._chunks = 0
        self.entries: list[Entry] = []
        self.bytes = 0

    def plain(self) -> bytes:
        """What is in it."""
        return bytes(self._view[: self._used])

    def has_room(self, size: int) -> bool:
        """Whether another entry fits whose body and data are `size` bytes."""
        most = size + 2 * CHUNK.size + FILE_END_BYTES
        return (
            self._used + most <= len(self._buffer)
            and self._chunks + _CHUNKS_OF_FILE <= limits.LANE_CHUNKS_MAX
        )

    def put(self, number: int, body: bytes) -> None:
        """Add an entry without data, for which there is room."""
        self._used = self._put_chunk(self._used, pack_record.ENTRY_KIND, number, body)
        self._chunks += 1

    def put_file(self, number: int, body: bytes, descriptor: int, size: int) -> bool:
        """Write a file, for which there is room, behind what is in it, to be kept or written over;
        False where it does not have `size` bytes any more."""
        at = self._put_chunk(self._used, pack_record.ENTRY_KIND, number, body)
        digest = blake3(max_threads=1)
        if size:
            CHUNK.pack_into(self._buffer, at, pack_record.DATA_KIND, number, 0, size)
            at += CHUNK.size
            view = self._view[at : at + size]
            if not _read(descriptor, view):
                return False
            digest.update(blake3(view, max_threads=1).digest())
            at += size
        CHUNK.pack_into(self._buffer, at, pack_record.FILE_END_KIND, number, 0, FILE_END.size)
        at += CHUNK.size
        FILE_END.pack_into(self._buffer, at, size, digest.digest())
        self._pending = at + FILE_END.size
        return True

    def keep(self) -> None:
        """Add the file that was put last."""
        self._used = self._pending
        self._chunks += _CHUNKS_OF_FILE

    def _put_chunk(self, at: int, kind: int, number: int, body: bytes) -> int:
        CHUNK.pack_into(self._buffer, at, kind, number, 0, len(body))
        at += CHUNK.size
        end = at + len(body)
        self._buffer[at:end] = body
        return end


def pack(task: Pack) -> tuple[Packed, int | None]:
    """The next record, and the next large file, opened.  Raises OSError, Changed."""
    end_at = time.monotonic() + _STEP_S
    walk = _walks.take(task.walk)
    if walk is None or not _stands_at(walk, task):
        if walk is not None:
            walk.close()
        root = child_tree.open_root(task.root)
        if root is None:
            return _pack_root(task)
        walk = Walk(child_tree.walk(root, task.only))
    try:
        packed, opened = _go_on(walk, task, end_at)
    except BaseException:
        walk.close()
        raise
    if packed.end:
        walk.close()
    else:
        _walks.put(task.walk, walk)
    return packed, opened


def forget() -> bool:
    """Let go of all walks; whether there were any."""
    return _walks.clear()


def _stands_at(walk: Walk, task: Pack) -> bool:
    """Whether a walk can go on to where the task begins."""
    return walk.number < task.number or (walk.number, walk.after) == (task.number, task.after)


def _pack_root(task: Pack) -> tuple[Packed, int | None]:
    """A tree that is one file: it is large, whatever its size."""
    if task.number:
        if task.number > 1 or task.after:
            raise Changed
        return Packed(b"", [], 1, b"", 0, None, True), None
    descriptor = os.open(task.root, os.O_RDONLY | COMMON_FLAGS)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a file")
    except OSError:
        os.close(descriptor)
        raise
    return Packed(b"", [], 0, b"", 0, _large(b"", found), True), descriptor


def _go_on(walk: Walk, task: Pack, end_at: float) -> tuple[Packed, int | None]:
    while walk.number < task.number:
        if walk.current is None:
            raise Changed
        walk.advance()
        if walk.number < task.number and time.monotonic() >= end_at:
            # Nothing yet: the same is asked again, and goes on from here.
            return Packed(b"", [], task.number, task.after, 0, None, False), None
    if walk.number and walk.after != task.after:
        raise Changed
    record = _Record()
    large: Large | None = None
    opened: int | None = None
    while walk.current is not None:
        fits, opened, large = _put(record, walk.number, walk.current)
        if opened is not None or not fits:
            break
        walk.advance()
        if time.monotonic() >= end_at:
            break
    end = walk.current is None
    plain = record.plain()
    return Packed(plain, record.entries, walk.number, walk.after, record.bytes, large, end), opened


def _put(record: _Record, number: int, found: Found) -> tuple[bool, int | None, Large | None]:
    """Add an entry: whether it did fit, and where it is a large file, that, open."""
    reason = ""
    if found.what == "file":
        try:
            return _put_file(record, number, found)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise
            reason = words(error)
        return _put_left_out(record, number, "failed", found.path, reason), None, None
    if found.what in {"folder", "folder_end"}:
        body = pack_record.encode_entry(
            "folder" if found.what == "folder" else "folder_end",
            found.path,
            0,
            found.mtime_ns,
            False,
            b"",
        )
        if not record.has_room(len(body)):
            return False, None, None
        record.put(number, body)
        return True, None, None
    if found.what == "link":
        return _put_link(record, number, found), None, None
    what, reason = (found.what, found.reason) if found.what != "other" else _special(found)
    return _put_left_out(record, number, what, found.path, reason), None, None


def _put_left_out(record: _Record, number: int, what: str, path: bytes, reason: str) -> bool:
    state = "skipped" if what == "skipped" else "failed"
    text = reason.encode("utf-8", "replace")[: limits.ERROR_TEXT_CHARS_MAX]
    body = pack_record.encode_entry(
        "skipped" if what == "skipped" else "failed", path, 0, 0, False, text
    )
    if not record.has_room(len(body)):
        return False
    record.put(number, body)
    record.entries.append(Entry(path, 0, state, reason))
    return True


def _put_link(record: _Record, number: int, found: Found) -> bool:
    assert found.folder is not None
    try:
        target = found.folder.read_link(found.name)
    except OSError as error:
        return _put_left_out(record, number, "failed", found.path, words(error))
    if problem := tree.link_problem(found.path, target, windows=_WINDOWS):
        return _put_left_out(record, number, "skipped", found.path, problem)
    if _WINDOWS:
        target = target.replace(b"\\", b"/")
    body = pack_record.encode_entry("link", found.path, 0, 0, False, target)
    if not record.has_room(len(body)):
        return False
    record.put(number, body)
    return True


def _special(found: Found) -> tuple[str, str]:
    """What something is that is no file, folder or link."""
    assert found.folder is not None
    try:
        mode = found.folder.look(found.name).st_mode
    except OSError as error:
        return "failed", words(error)
    kinds = {stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a pipe"}
    return "skipped", f"it is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a file"


def _put_file(record: _Record, number: int, found: Found) -> tuple[bool, int | None, Large | None]:
    assert found.folder is not None
    descriptor = found.folder.open_read(found.name)
    keep = False
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise OSError(errno.EINVAL, tree.CHANGED)
        size = before.st_size
        if not size and child_file.is_of_the_system(descriptor):
            return _put_left_out(record, number, "skipped", found.path, _OF_THE_SYSTEM), None, None
        if size > limits.PACK_FILE_BYTES_MAX:
            keep = True
            return True, descriptor, _large(found.path, before)
        executable = bool(before.st_mode & stat.S_IXUSR)
        body = pack_record.encode_entry(
            "file", found.path, size, before.st_mtime_ns, executable, b""
        )
        if not record.has_room(len(body) + size):
            return False, None, None
        whole = record.put_file(number, body, descriptor, size)
        if whole and _same(before, os.fstat(descriptor)):
            record.keep()
            record.entries.append(Entry(found.path, size, "waiting"))
            record.bytes += size
            return True, None, None
    finally:
        if not keep:
            os.close(descriptor)
    return _put_left_out(record, number, "failed", found.path, tree.CHANGED), None, None


def _large(path: bytes, found: os.stat_result) -> Large:
    return Large(
        path=path,
        size=found.st_size,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
        inode=found.st_ino,
        executable=bool(found.st_mode & stat.S_IXUSR),
    )


def _same(before: os.stat_result, after: os.stat_result) -> bool:
    return (
        before.st_size == after.st_size
        and before.st_mtime_ns == after.st_mtime_ns
        and before.st_ctime_ns == after.st_ctime_ns
    )


def _read(descriptor: int, view: memoryview) -> bool:
    """Fill `view` from the beginning of a file that nobody has read; whether there was enough."""
    if not hasattr(os, "readv"):
        data = os.read(descriptor, len(view))
        view[: len(data)] = data
        return len(data) == len(view)
    got = os.readv(descriptor, [view])
    while got < len(view):
        more = os.readv(descriptor, [view[got:]])
        if not more:
            return False
        got += more
    return True
