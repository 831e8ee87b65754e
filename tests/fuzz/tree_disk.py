"""The files behind both ends of a lane, in memory: a child that is honest, blocks that are small.

What holds always: what is sent of a path is `content`; what is there of it before is a part, or an
older copy, that is the same, or the same up to a point, as the input decides.
"""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

from tntd import limits
from tntd.errors import RemoteError
from tntd.machines import pack_record
from tntd.machines.blocks import block_bytes, block_hash, digest_of
from tntd.tasks import (
    Answer,
    CopyRange,
    Done,
    Entry,
    EntryOpened,
    Failed,
    FinishEntry,
    Hashed,
    HashRange,
    OpenEntry,
    Unpack,
    Unpacked,
)

from .source import Source

BLOCK = 8
CODES = ("EEXIST", "EACCES", "ENOSPC", "EMFILE", "EIO", "TIMEOUT", "ENOENT")
LaneTask = OpenEntry | HashRange | CopyRange | FinishEntry | Unpack


def small_blocks() -> mock._patch[dict[str, int]]:
    """While it holds, files of some bytes have as many blocks as large ones have else."""
    sizes = {"TREE_BLOCK_BYTES_MIN": BLOCK, "HASH_STEP_BYTES": 16, "UNSYNCED_STEP_BYTES": 16}
    return mock.patch.multiple(limits, **sizes)


def content(path: bytes, size: int) -> bytes:
    """What the sender has at a path."""
    pattern = bytes((each * 7 + len(path)) % 251 for each in range(256)) + path
    return (pattern * (size // len(pattern) + 1))[:size]


def blocks(data: bytes, length: int) -> list[bytes]:
    """The hashes of the blocks."""
    return [block_hash(data[at : at + length]) for at in range(0, len(data), length)]


def digest(data: bytes) -> bytes:
    """The digest of a file."""
    return digest_of(blocks(data, block_bytes(len(data))))


class Disk:
    """The receiver's child.  `finished` has what was finished, by path."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.open: dict[int, tuple[bytes, bytearray]] = {}
        self.finished: dict[bytes, bytes] = {}
        self.check_finish: Callable[[int, bytes], None] = lambda _handle, _data: None
        self.harsh = True  # it fails, now and then

    def answer(self, task: LaneTask) -> Answer:
        """Do it."""
        if self.harsh and self._source.one_in(16):
            return Failed(self._source.pick(CODES), "it did not work")
        match task:
            case OpenEntry():
                return self._open(task)
            case HashRange():
                data = self._old(task.path) if task.base else bytes(self.open[task.handle][1])
                return Hashed(self._hashes(data, task))
            case CopyRange():
                return self._copy(task)
            case FinishEntry():
                path, data = self.open[task.handle]
                self.check_finish(task.handle, bytes(data))
                self.finished[path] = bytes(data)
                return Done()
            case Unpack():
                return self._unpack(task)

    def write(self, handle: int, offset: int, data: bytes) -> None:
        """As the loop does."""
        file = self.open[handle][1]
        file.extend(bytes(max(0, offset + len(data) - len(file))))
        file[offset : offset + len(data)] = data

    def _open(self, task: OpenEntry) -> EntryOpened:
        part = self._bent(content(task.path, min(task.size, 80)))
        part = part[: self._source.pick((0, 0, len(part), BLOCK, 2 * BLOCK + 1))]
        self.open[task.handle] = (task.path, bytearray(part))
        old = len(self._old(task.path)) if task.base else -1
        return EntryOpened(1, len(part), old)

    def _old(self, path: bytes) -> bytes:
        """The older copy: its beginning is the same, its second block is not."""
        data = bytearray(content(path, 37))
        data[BLOCK] ^= len(path) % 2
        return bytes(data)

    def _bent(self, data: bytes) -> bytes:
        if data and self._source.one_in(3):
            at = self._source.below(len(data))
            return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        return data

    def _hashes(self, data: bytes, task: HashRange | CopyRange) -> bytes:
        piece = data[task.offset : task.offset + task.length]
        return b"".join(blocks(piece, task.block_bytes))

    def _copy(self, task: CopyRange) -> Answer:
        data = self._old(task.path)
        self.write(task.handle, task.offset, data[task.offset : task.offset + task.length])
        return Hashed(self._hashes(data, task))

    def _unpack(self, task: Unpack) -> Answer:
        try:
            found = pack_record.parse(task.plain, task.number)
        except RemoteError as error:
            return Failed("EBADMSG", str(error))
        entries = []
        for each in found:
            entry = each.entry
            if entry.what in ("file", "failed", "skipped"):
                state = "verified" if entry.what == "file" else entry.what
                entries.append(Entry(entry.path, entry.size, state))
            if entry.what == "file":
                self.finished[entry.path] = b"".join(bytes(piece) for piece in each.pieces)
        size = sum(each.entry.size for each in found if each.entry.what == "file")
        return Unpacked(entries, task.number + len(found), found[-1].entry.path, size)
