"""One large file on its way in: what is here of it already, what comes, and when it is whole.

    opening -> hashing what is here, told as HAVE -> ready -> ended -> finished
    opening -> ready, refused: its bytes are counted and thrown away

What holds always:
- Bytes come in order and without a hole, but for jumps over whole blocks whose hashes were told;
  the hash of such a block then counts for the digest of the file.
- What was here of the part (`in_place`) stays where it is; blocks behind that are copied from the
  older copy when the sender jumps over them, and what was copied is hashed again.
- Of a file that grows only the end tells the size: it is cut to that when it is finished, and only
  whole blocks of it are told.
- The file is finished only when the digest is that of the sender, and every copy is made.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from tntd import limits
from tntd.effects import Inbound
from tntd.errors import RemoteError
from tntd.machines import records
from tntd.machines.blocks import BlockHasher, block_bytes, block_count
from tntd.machines.lane_steps import Close, Do, LaneTrouble, Put, Step, Written
from tntd.machines.pack_record import TreeEntry
from tntd.machines.records import HASH_BYTES, RecordType
from tntd.tasks import (
    AWAY,
    PASSING,
    Answer,
    CopyRange,
    EntryOpened,
    Failed,
    FinishEntry,
    Hashed,
    HashRange,
    OpenEntry,
)

# What keeps one file from being opened, and is no fault of the disk.
_OF_THE_FILE: Final = frozenset(
    {
        "EACCES",
        "EEXIST",
        "EFBIG",
        "EILSEQ",
        "EINVAL",
        "EISDIR",
        "ELOOP",
        "ENAMETOOLONG",
        "ENOTDIR",
        "EPERM",
    }
)
_OF_THE_DISK: Final = frozenset({"ENOSPC", "EDQUOT", "EIO", "EROFS"})
_PASSING: Final = PASSING | {"TIMEOUT", "ECHILD"}  # the same may go well a little later
_NOT_THERE: Final = bytes(HASH_BYTES)  # told as the hash of a block that cannot be read


def storage_trouble(answer: Failed) -> LaneTrouble:
    """The child could not do what all of the transfer needs."""
    if answer.code in AWAY:
        return LaneTrouble("away", answer.text)
    return LaneTrouble("cut" if answer.code in _PASSING else "storage", answer.text)


class Arriving:
    """The file of the entry `number`, open (or soon) as `handle`; appends to `steps` what is to be
    done."""

    def __init__(
        self, job: Inbound, number: int, entry: TreeEntry, handle: int, steps: deque[Step]
    ) -> None:
        self.number = number
        self.entry = entry
        self.size = None if entry.what == "growing" else entry.size  # None: not known yet
        self.handle = handle
        self.ready = False  # its bytes may come
        self.ended = False  # FILE_END was there, and fits
        self.refused = ""  # why it could not be opened
        self.reused = 0  # bytes from the older copy
        self._job = job
        self._steps = steps
        self._blocks = BlockHasher(self.size)
        self._block_bytes = block_bytes(self.size)
        self._in_place = 0  # blocks of the part that were there; those behind are the older copy's
        self._told_blocks = 0  # how many are told in all
        self._told = bytearray()  # their hashes, as far as they are told
        self._copies: deque[tuple[int, int]] = deque()  # runs of blocks, still to be copied
        self._copying = 0  # ranges that are with the child
        self._dropped = False
        base = (job.base, job.base_ctime_ns) if job.asks else ()
        size = -1 if self.size is None else self.size
        steps.append(Do(OpenEntry(handle, job.folder, job.stage, entry.path, size, *base)))

    @property
    def at(self) -> int:
        """Bytes that are here, in order."""
        return self._blocks.at

    @property
    def hungry(self) -> bool:
        """Whether more of it may come."""
        return self.ready and not self._copies

    @property
    def copying(self) -> bool:
        """Whether something is still to be copied."""
        return bool(self._copying or self._copies)

    # -- what comes ----------------------------------------------------------------------

    def check_jump(self, start: int, end: int) -> None:
        """Raises RemoteError unless what is between `start` and `end` need not come."""
        if start == end:
            return
        size, length = self.size, self._block_bytes
        whole = start % length == 0 and (end % length == 0 or end == size)
        known = self._told_blocks * length
        if not whole or not start < end <= (known if size is None else min(known, size)):
            raise RemoteError("malformed", f"a chunk at {end} instead of {start}")

    def data(self, offset: int, data: memoryview) -> None:
        """Bytes came, which fit."""
        self._pass_blocks(offset)
        self._blocks.update(data)

    def end(self, size: int, digest: bytes) -> None:
        """It ends here, with `size` bytes.  Raises LaneTrouble("hash") where it is not what was
        sent."""
        self._pass_blocks(size)
        if self.size is None:
            self._blocks.end()
        self.size = size
        if digest != self._blocks.digest():
            raise LaneTrouble("hash", "what arrived is not what was sent")
        self.ended = True
        self._finish()

    def drop(self) -> None:
        """The sender has given it up."""
        self._dropped = True
        self._copies.clear()
        self._steps.append(Close(self.handle))

    # -- answers -------------------------------------------------------------------------

    def answered(self, task: OpenEntry | HashRange | CopyRange, answer: Answer) -> None:
        """The child answered; raises LaneTrouble."""
        match task, answer:
            case OpenEntry(), EntryOpened() | Failed():
                self._opened(answer)
            case HashRange(), Hashed() | Failed():
                self._hashed(task, answer)
            case CopyRange(), Hashed() | Failed():
                self._copied(task, answer)
            case _:
                raise AssertionError(f"{answer!r} for {task!r}")

    def _opened(self, answer: EntryOpened | Failed) -> None:
        if isinstance(answer, Failed):
            if not self._job.tree or answer.code not in _OF_THE_FILE:
                raise storage_trouble(answer)
            self.refused = answer.text
        elif self._job.asks:
            self._in_place = self._whole_blocks(answer.size)
            self._told_blocks = max(self._in_place, self._whole_blocks(answer.base_size))
        if self._job.asks and not self._told_blocks:
            self._steps.append(Put(RecordType.HAVE, records.have(self.number, 0, 0, b"")))
        self._hash_on()

    def _whole_blocks(self, size: int) -> int:
        """How many blocks of the file are whole where there are `size` bytes."""
        if self.size is not None and size >= self.size:
            return block_count(self.size)
        return min(max(0, size) // self._block_bytes, block_count(self.size))

    def _hash_on(self) -> None:
        """Have the next range of what is here hashed, if any is left."""
        first = len(self._told) // HASH_BYTES
        if first == self._told_blocks:
            self.ready = True
            return
        of_part = first < self._in_place
        end = self._in_place if of_part else self._told_blocks
        offset, length, _ = self._range(first, end, limits.HASH_STEP_BYTES)
        job = self._job
        base = () if of_part else (job.base, self.entry.path, job.base_ctime_ns)
        self._steps.append(Do(HashRange(self.handle, offset, length, self._block_bytes, *base)))

    def _hashed(self, task: HashRange, answer: Hashed | Failed) -> None:
        if isinstance(answer, Failed) and not task.base:
            raise storage_trouble(answer)
        first = len(self._told) // HASH_BYTES
        count = -(-task.length // self._block_bytes)
        hashes = b"" if isinstance(answer, Failed) else answer.hashes[: count * HASH_BYTES]
        # Where there is less than there was, the sender is to send it.
        hashes += _NOT_THERE * (count - len(hashes) // HASH_BYTES)
        plain = records.have(self.number, self._told_blocks, first, hashes)
        self._steps.append(Put(RecordType.HAVE, plain))
        self._told += hashes
        self._hash_on()

    def _range(self, first: int, end: int, step_bytes: int) -> tuple[int, int, int]:
        """Offset and length of the blocks from `first` on, before `end`, and how many they are."""
        count = min(end - first, max(1, step_bytes // self._block_bytes))
        offset, length = first * self._block_bytes, count * self._block_bytes
        if self.size is not None:
            length = min(length, self.size - offset)
        return offset, length, count

    # -- blocks that need not come -------------------------------------------------------

    def _pass_blocks(self, end: int) -> None:
        """What is between here and `end` is here already."""
        if self._blocks.at == end:
            return
        while self._blocks.at < end:
            block = self._blocks.at // self._block_bytes
            self._blocks.skip(self._told_hashes(block, 1))
            if block < self._in_place:
                continue
            if self._copies and self._copies[-1][1] == block:
                self._copies[-1] = (self._copies[-1][0], block + 1)
            else:
                self._copies.append((block, block + 1))
        self._copy_on()

    def _told_hashes(self, first: int, count: int) -> bytes:
        return bytes(self._told[first * HASH_BYTES : (first + count) * HASH_BYTES])

    def _copy_on(self) -> None:
        job = self._job
        while self._copies and self._copying < limits.LANE_COPIES_MAX:
            first, end = self._copies.popleft()
            offset, length, count = self._range(first, end, limits.UNSYNCED_STEP_BYTES)
            if first + count < end:
                self._copies.appendleft((first + count, end))
            self._copying += 1
            base = job.base, self.entry.path, job.base_ctime_ns
            self._steps.append(Do(CopyRange(self.handle, offset, length, self._block_bytes, *base)))

    def _copied(self, task: CopyRange, answer: Hashed | Failed) -> None:
        self._copying -= 1
        if self._dropped:
            return
        if isinstance(answer, Failed):
            if answer.code in _OF_THE_DISK or answer.code in _PASSING:
                raise storage_trouble(answer)
            raise LaneTrouble("cut", f"the older copy here cannot be used any more: {answer.text}")
        count = -(-task.length // self._block_bytes)
        if answer.hashes != self._told_hashes(task.offset // self._block_bytes, count):
            raise LaneTrouble("hash", "what was copied from the older copy here is not what it was")
        self.reused += task.length
        self._steps.append(Written(task.length))
        self._copy_on()
        self._finish()

    def _finish(self) -> None:
        """Have it get its time and mode, once all of it is there."""
        if self.ended and not self.copying and not self.refused:
            entry = self.entry
            size = -1 if self.size is None or entry.what == "file" else self.size
            task = FinishEntry(self.handle, entry.mtime_ns, entry.executable, size)
            self._steps.append(Do(task))
