"""The sending end of a lane: what goes over it, and when, from the first entry to the last.

Records of small files come ready from the child (tasks.Pack) and are passed on; large files are
read here, block by block.  Ask `next` what is wanted, do it, tell it here, and ask again:

    Do(task)     give it to the child; `packed` takes the answer
    Put          send this record, then tell `put`
    Read         read a range of the open large file behind `plain[CHUNK.size:]`, then tell `took`,
                 or `lost` where the file is not what it was
    Close        an open file is not needed any more
    Wait         for the child, the receiver's word, or more of a file that grows
    End          send END: that was all

What holds always:
- `next` wants Put and Read until it is told that they are done, so what cannot be done now is
  wanted again; Do and Close are wanted once.
- At most LANE_PACKS_MAX records are made ahead, while a large file streams too; one at a time,
  since where the next begins is known only from the one before.
- The digest of a large file is made of what was sent, and of the hashes that the receiver told and
  that were found the same here (see leaving.py).
- Of a single file that grows no more is read than was told to be there (`grew`).
- A large file that changed, or cannot be read, is told as failed, and the rest goes on.
- Where the folder changed so that the place to go on from is gone, the walk begins anew, a bounded
  number of times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from tntd import limits
from tntd.effects import Outbound
from tntd.errors import RemoteError
from tntd.machines import pack_record, records
from tntd.machines.blocks import block_count
from tntd.machines.lane_steps import Close, Do, End, Entries, LaneTrouble, Put, Read, Wait, Want
from tntd.machines.leaving import Leaving
from tntd.machines.records import (
    CHUNK,
    FILE_END_BYTES,
    HASH_BYTES,
    ChunkKind,
    Have,
    RecordType,
)
from tntd.tasks import PASSING, Entry, Failed, Pack, Packed

CHANGED: Final = "the file changed while it was being sent"
GONE: Final = "the file was removed or replaced while it was being sent"
MOVED: Final = "the file was renamed, or its permissions changed, while it was being sent"
_PASSING: Final = PASSING | {"TIMEOUT", "ECHILD"}  # the same may go well a little later


class _Batch(NamedTuple):
    """What the child made: `anew` where it is the beginning of the walk."""

    packed: Packed
    handle: int
    anew: bool


class Sender:
    """What one lane sends.  `new_number` gives numbers for walks and open files that nobody else
    has."""

    def __init__(self, job: Outbound, new_number: Callable[[], int]) -> None:
        self._job = job
        self._whole = not job.growing
        self._known = job.then[0] if job.then is not None else 0  # bytes of a file that grows
        self._new_number = new_number
        self._walk = new_number()
        self._started = self._asks = False
        self._begin: tuple[int, bytes] | None = None  # of the next record; None: that was all
        self._asked = False
        self._restarts = 0
        self._ahead: deque[_Batch] = deque()
        self._current: Leaving | None = None
        self._closing: deque[int] = deque()
        self._report: Entries | None = None
        self.range_bytes = limits.BLOCK_BYTES  # of a large file in one record, at most
        self.bytes_sent = 0  # file data that went over this lane
        self.size = 0  # of all files that were sent or skipped, from where it began
        self.bytes_done = 0  # as the receiver says
        self.digest = b""  # of a single file, once it is whole

    # -- what happened -------------------------------------------------------------------

    def start(self, number: int, after: bytes, asks: bool) -> None:
        """The receiver has what is before entry `number`, the last of which is `after`; `asks`: it
        tells before each large file what it has of it."""
        if not self._started:
            self._started, self._asks = True, asks
            self._begin = (number, after)

    def grew(self, size: int, *, whole: bool) -> None:
        """The file that grows has `size` bytes by now; `whole`: and that is all."""
        if self._whole:
            return
        self._known, self._whole = max(size, self._known), whole
        if self._current is not None:
            self._current.grew(self._known, whole=whole)

    def packed(self, answer: Packed | Failed, handle: int) -> None:
        """The child answered; a large file that came along is open as `handle`.

        Raises LaneTrouble where it cannot go on.
        """
        self._asked = False
        if isinstance(answer, Failed):
            self._pack_failed(answer)
            return
        assert self._begin is not None
        self._check_root(answer)
        self._ahead.append(_Batch(answer, handle, self._begin[0] == 0))
        if answer.end:
            self._begin = None
        elif answer.large is None:
            self._begin = answer.number, answer.after
        else:
            self._begin = answer.number + 1, answer.large.path
        self._pass_empty()

    def _check_root(self, answer: Packed) -> None:
        """A single file may have changed since the node looked at it."""
        then, large = self._job.then, answer.large
        if then is None or large is None:
            return
        if self._job.growing:
            same = large.inode == then[2]  # its size is looked at with each range
        else:
            same = (large.size, large.mtime_ns, large.inode) == then
        if large.path or not same:
            raise LaneTrouble("source", "the source changed after it was queued; send it again")

    def told(self, type: RecordType, plain: memoryview) -> None:
        """A record of the receiver.  Raises RemoteError("malformed")."""
        if type is RecordType.PROGRESS:
            self.bytes_done, _ = records.read_progress(plain)
        elif type is RecordType.HAVE:
            self._have(records.read_have(plain))
        else:
            raise RemoteError("malformed", f"a record {type.name} out of place")

    def put(self) -> None:
        """The record that was wanted is on its way."""
        file = self._current
        if file is None:
            self._pass(self._ahead.popleft())
        elif not file.announced:
            file.announced = True
        else:
            self._finish(file)
        self._pass_empty()

    def took(self, plain: memoryview) -> int:
        """The range that was wanted is in its place in `plain`.  How many bytes of `plain` are a
        record (CHUNKS) that counts as put from now on; 0 for none."""
        file = self._current
        assert file is not None
        compares, length = file.compares, file.length
        data = plain[CHUNK.size : CHUNK.size + length]
        file.looked = True
        file.offset += length
        if compares:
            file.compare(data)
            return 0
        return self._send(file, plain, data)

    def lost(self, reason: str) -> None:
        """The large file changed, or cannot be read.  Raises LaneTrouble("source") where it is all
        that was to be sent."""
        file = self._current
        assert file is not None
        if not file.large.path:
            raise LaneTrouble("source", reason)
        file.lost = reason

    def take_report(self) -> Entries | None:
        """What went out since this was asked last."""
        report, self._report = self._report, None
        return report

    # -- what is wanted ------------------------------------------------------------------

    def next(self) -> Want:
        """What is to be done next."""
        if self._closing:
            return Close(self._closing.popleft())
        if self._begin is not None and not self._asked and len(self._ahead) < limits.LANE_PACKS_MAX:
            return self._ask(*self._begin)
        if self._current is not None:
            return self._next_of(self._current)
        if self._ahead:
            return Put(RecordType.PACK, self._ahead[0].packed.plain)
        if self._started and not self._asked:
            return End()
        return Wait(receiver=False)

    def _ask(self, number: int, after: bytes) -> Do:
        self._asked = True
        only = None if self._job.only is None else list(self._job.only)
        handle = self._new_number()
        return Do(Pack(self._walk, self._job.root, number, after, handle, only))

    def _next_of(self, file: Leaving) -> Want:
        if not file.announced:
            return Put(RecordType.CHUNKS, records.entry_chunk(file.number, file.entry()))
        if file.waits:
            return Wait(receiver=True)
        if file.lost:
            reason = file.lost.encode("utf-8", "replace")[: limits.ERROR_TEXT_CHARS_MAX]
            body = pack_record.encode_entry("failed", file.large.path, 0, 0, False, reason)
            return Put(RecordType.CHUNKS, records.entry_chunk(file.number, body))
        if file.starves:
            return Wait(receiver=False)
        if not file.all_read:
            file.range_bytes = self.range_bytes
            large, offset, length = file.large, file.offset, file.length
            last = offset + length == large.size
            return Read(file.handle, large, offset, length, not file.looked, last, file.grows)
        end = bytearray(FILE_END_BYTES)
        records.put_file_end(memoryview(end), 0, file.number, file.large.size, file.digest())
        return Put(RecordType.CHUNKS, bytes(end))

    # -- packs ---------------------------------------------------------------------------

    def _pack_failed(self, answer: Failed) -> None:
        if answer.code in _PASSING:
            raise LaneTrouble("cut", answer.text)
        if answer.code != "CHANGED":
            raise LaneTrouble("source", answer.text)
        if self._begin == (0, b"") or self._restarts == limits.LANE_RESTARTS_MAX:
            raise LaneTrouble("source", "the folder changes while it is being sent")
        self._restarts += 1
        self._begin = (0, b"")

    def _pass_empty(self) -> None:
        """Pass over records that hold nothing, up to a large file."""
        while self._current is None and self._ahead and not self._ahead[0].packed.plain:
            self._pass(self._ahead.popleft())

    def _pass(self, batch: _Batch) -> None:
        """The record is on its way, and what comes behind it is due."""
        packed = batch.packed
        if batch.anew:
            self.size = 0
        self.bytes_sent += packed.bytes
        self.size += packed.bytes
        if packed.plain:
            entries = tuple(packed.entries)
            self._report = Entries(entries, packed.number, packed.after, self.size, batch.anew)
        if packed.large is not None:
            # It may have grown, and ended, since it was opened.
            whole = not self._job.growing or (self._whole and packed.large.size == self._known)
            self._current = Leaving(
                packed.number, packed.large, batch.handle, asks=self._asks, whole=whole
            )
            self._current.grew(self._known, whole=self._whole)

    # -- large files ---------------------------------------------------------------------

    def _have(self, have: Have) -> None:
        file = self._current
        if file is None or not file.announced or not self._asks or have.file != file.number:
            raise RemoteError("malformed", f"hashes of entry {have.file}, which is not the one")
        count = block_count(None if file.grows else file.large.size)
        if file.told_blocks is None and have.blocks <= count:
            file.told_blocks = have.blocks
        elif have.blocks != file.told_blocks or not have.blocks:
            raise RemoteError("malformed", f"hashes of {have.blocks} blocks")
        if have.first * HASH_BYTES != len(file.told):
            raise RemoteError("malformed", f"hashes from block {have.first} on")
        file.told += have.hashes

    def _send(self, file: Leaving, plain: memoryview, data: memoryview) -> int:
        at = 0
        if data:
            start = file.offset - len(data)
            at = records.put_chunk(plain, 0, ChunkKind.DATA, file.number, start, len(data))
            at += len(data)
            file.sent(data)
            self.bytes_sent += len(data)
        if file.all_read and not file.waits and at + FILE_END_BYTES <= len(plain):
            digest = file.digest()
            at = records.put_file_end(plain, at, file.number, file.large.size, digest)
            self._finish(file)
            self._pass_empty()
            at = self._announce(plain, at)
        return at

    def _announce(self, plain: memoryview, at: int) -> int:
        """Put the entry of the next large file too, if it is known and there is room."""
        file = self._current
        if file is None:
            return at
        body = file.entry()
        if at + CHUNK.size + len(body) > len(plain):
            return at
        file.announced = True
        return records.put_entry(plain, at, file.number, body)

    def _finish(self, file: Leaving) -> None:
        """Its last chunk is on its way."""
        large = file.large
        state = "failed" if file.lost else "waiting"
        if not file.lost:
            self.size += large.size
            self.digest = b"" if large.path else file.digest()
        entry = Entry(large.path, large.size, state, file.lost)
        self._report = Entries((entry,), file.number + 1, large.path, self.size)
        self._closing.append(file.handle)
        self._current = None
