"""The file that goes out on a lane: read without waiting, hashed, and watched for changes.

What holds always: what is told to be the file's hash is that of the bytes that were sent, and
the file was, before the first and after the last of them was read, the one that was inspected;
else the lane fails with "source".  A cold range is read by the child first; once one was
met, the child reads ahead of the lane.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from blake3 import blake3

from tntd import limits
from tntd.effects import OpenLane
from tntd.machines import records
from tntd.machines.records import ChunkKind, RecordType
from tntd.shell.files import read_at, words
from tntd.shell.lane_channel import Channel
from tntd.shell.lane_shared import LaneTrouble, Shared
from tntd.tasks import Answer, Failed

_DATA_AT: Final = records.CHUNK.size
_CHANGED: Final = "the file changed while it was being sent"


class Outgoing:
    """Makes the records of one file.  `wake` is called when a cold range is there, `trouble`
    with a LaneTrouble when it cannot be had."""

    def __init__(
        self,
        effect: OpenLane,
        shared: Shared,
        wake: Callable[[], None],
        trouble: Callable[[LaneTrouble], None],
    ) -> None:
        self._effect = effect
        self._shared = shared
        self._wake = wake
        self._trouble = trouble
        self._hash = blake3(max_threads=1)
        self._warm_to = 0  # end of the range that a child has read
        self._warming = False
        self._closed = False
        self.done_bytes = 0
        self.waiting = False  # for the child
        self.finished = False  # END is put
        self._check()

    def fill(self, channel: Channel) -> None:
        """Put the next record, if its bytes are at hand.  Raises LaneTrouble("source")."""
        plain = self._shared.plain
        at = self._put_data(plain)
        if self.waiting:
            return
        whole = self.done_bytes == self._effect.size
        if whole and at + records.FILE_END_BYTES <= len(plain):
            self._check()
            at = records.put_file_end(plain, at, 0, self._effect.size, self.digest())
            self.finished = True
        channel.put(RecordType.CHUNKS, plain[:at])
        if self.finished:
            channel.put(RecordType.END)

    def digest(self) -> bytes:
        """The BLAKE3 hash of what was read so far."""
        return self._hash.digest()

    def close(self) -> None:
        """Let go; nothing is called back any more."""
        self._closed = True

    # -- inside --------------------------------------------------------------------------

    def _put_data(self, plain: memoryview) -> int:
        """Put the next block's chunk; where it ends, 0 for none."""
        offset = self.done_bytes
        count = min(limits.BLOCK_BYTES, self._effect.size - offset)
        if not count:
            return 0
        data = plain[_DATA_AT : _DATA_AT + count]
        self.waiting = not self._read(data, offset)
        if self.waiting:
            return 0
        self._hash.update(data)
        self.done_bytes += count
        return records.put_chunk(plain, 0, ChunkKind.DATA, 0, offset, count) + count

    def _read(self, data: memoryview, offset: int) -> bool:
        file = self._shared.files.get(self._effect.handle)
        if file is None:
            raise LaneTrouble("source", "the file is not open any more")
        end = offset + len(data)
        try:
            got = read_at(file, data, offset, warm=end <= self._warm_to)
        except OSError as error:
            raise LaneTrouble("source", f"the file cannot be read: {words(error)}") from error
        if got is None:
            self._warm(offset)
            return False
        if got < len(data):
            raise LaneTrouble("source", _CHANGED)
        if self._warm_to and self._warm_to - end <= limits.LANE_WARM_BYTES // 2:
            self._warm(end)
        return True

    def _warm(self, offset: int) -> None:
        start = max(offset, self._warm_to)
        length = min(limits.LANE_WARM_BYTES, self._effect.size - start)
        if self._warming or length <= 0:
            return
        self._warming = True
        self._shared.children.warm(
            self._effect.handle, start, length, lambda answer: self._warmed(start + length, answer)
        )

    def _warmed(self, end: int, answer: Answer) -> None:
        self._warming = False
        if self._closed:
            return
        if isinstance(answer, Failed):
            self._trouble(LaneTrouble("source", f"the file cannot be read: {answer.text}"))
            return
        self._warm_to = end
        self.waiting = False
        self._wake()

    def _check(self) -> None:
        file = self._shared.files.get(self._effect.handle)
        if file is None:
            raise LaneTrouble("source", "the file is not open any more")
        try:
            now = os.fstat(file.descriptor)
        except OSError as error:
            raise LaneTrouble("source", f"the file cannot be read: {words(error)}") from error
        then = self._effect
        if (now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino) != (
            then.size,
            then.mtime_ns,
            then.ctime_ns,
            then.inode,
        ):
            raise LaneTrouble("source", _CHANGED)
