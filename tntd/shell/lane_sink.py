"""The file that comes in on a lane: checked, written, hashed, and synced in small steps.

What holds always: a record is checked as a whole before any of it is written; what is written
is the agreed size at most, without a hole; and no more than UNSYNCED_BYTES_MAX (and a record)
of all lanes together waits for the disk, because a commit of the store would wait for it too.
A sync that failed ends the lane: what the system has lost it will not tell twice.
"""

from __future__ import annotations

from collections.abc import Callable

from tntd import limits
from tntd.effects import OpenLane
from tntd.machines.records import Arrival, Chunk, ChunkKind, Record, RecordType
from tntd.shell.files import OpenFile, words, write_at
from tntd.shell.lane_shared import LaneTrouble, Shared
from tntd.tasks import PASSING, Answer, Failed


class Incoming:
    """Writes the records of one file.  `trouble` is called with a LaneTrouble when the disk
    fails behind our back."""

    def __init__(
        self, effect: OpenLane, shared: Shared, trouble: Callable[[LaneTrouble], None]
    ) -> None:
        self._handle = effect.handle
        self._shared = shared
        self._trouble = trouble
        self._arrival = Arrival(effect.size)
        self._unsynced = 0
        self._syncing = False
        self._closed = False
        self.finished = False  # END was there, and all is as the sender said

    @property
    def done_bytes(self) -> int:
        """Bytes written."""
        return self._arrival.received

    def take(self, record: Record) -> None:
        """Write what a record holds.

        Raises RemoteError where it does not fit what was agreed, LaneTrouble "storage" where the
        disk refuses, "hash" where what arrived is not what was sent.
        """
        chunks = self._arrival.expect(record)
        file = self._shared.files.get(self._handle)
        if file is None:
            raise LaneTrouble("storage", "the part is not open any more")
        for chunk in chunks:
            self._take(chunk, file)
        if self._unsynced >= limits.UNSYNCED_STEP_BYTES:
            self.press()
        self.finished = record.type is RecordType.END

    def digest(self) -> bytes:
        """The BLAKE3 hash of what was written so far."""
        return self._arrival.digest()

    def press(self) -> None:
        """Have what is not synced yet synced now."""
        if self._syncing or not self._unsynced or self._closed:
            return
        self._syncing = True
        count = self._unsynced
        self._shared.children.sync(self._handle, lambda answer: self._synced(count, answer))

    def close(self) -> None:
        """Let go; the rest is the node's to sync, or nobody's."""
        self._closed = True
        count, self._unsynced = self._unsynced, 0
        self._shared.budget.remove(count)

    # -- inside --------------------------------------------------------------------------

    def _take(self, chunk: Chunk, file: OpenFile) -> None:
        if chunk.kind is ChunkKind.DATA:
            try:
                write_at(file, chunk.data, chunk.offset)
            except OSError as error:
                raise LaneTrouble("storage", words(error)) from error
        self._arrival.take(chunk)
        if chunk.kind is ChunkKind.DATA:
            self._unsynced += len(chunk.data)
            self._shared.budget.add(len(chunk.data))
        elif not self._arrival.intact:
            raise LaneTrouble("hash", "what arrived is not what was sent")

    def _synced(self, count: int, answer: Answer) -> None:
        self._syncing = False
        if self._closed:
            return
        if isinstance(answer, Failed):
            code = "cut" if answer.code in PASSING else "storage"
            self._trouble(LaneTrouble(code, answer.text))
            return
        self._unsynced -= count
        self._shared.budget.remove(count)
        if self._unsynced >= limits.UNSYNCED_STEP_BYTES or self._shared.budget.full:
            self.press()
