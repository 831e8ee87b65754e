"""What goes out on a lane: machines/sending.py with its files, read without waiting.

What holds always: a large file was, before the first and after the last of its bytes were read, the
one that was opened; else it is told as failed.  A cold range is read by the child first; once
one was met, the child reads ahead of the lane.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from tntd import limits
from tntd.effects import Outbound, StartLane
from tntd.events import LaneEntries
from tntd.machines import squeeze
from tntd.machines.lane_steps import Close, Do, End, LaneTrouble, Put, Read, Wait
from tntd.machines.records import CHUNK, Record, RecordType
from tntd.machines.sending import CHANGED, GONE, MOVED, Sender
from tntd.machines.squeeze import Gauge, Squeezer
from tntd.shell.files import OpenFile, read_at, words
from tntd.shell.lane_channel import Channel
from tntd.shell.lane_shared import Shared
from tntd.tasks import Answer, Failed, Pack, Packed


class Outgoing:
    """Makes the records of the lane number `lane`.  `wake` is called when something is there that
    was waited for, `trouble` with a LaneTrouble when it cannot be had."""

    def __init__(
        self,
        lane: int,
        job: Outbound,
        shared: Shared,
        wake: Callable[[], None],
        trouble: Callable[[LaneTrouble], None],
        *,
        limit: Callable[[], int],
    ) -> None:
        """`limit` tells the bytes a second that may go at most, 0 where there is no limit."""
        self._lane = lane
        self._shared = shared
        self._wake = wake
        self._trouble = trouble
        self._limit = limit
        self._machine = Sender(job, shared.new_number)
        self._machine.range_bytes = limits.RANGE_BYTES_FIRST
        self._ranges_bytes = 0  # that were read
        self._range: tuple[float, int] | None = None  # when the last one was put, and its length
        self._handles: set[int] = set()
        self._warm_of = 0  # the file of which a range was warmed
        self._warm_to = 0  # end of that range
        self._warming = False
        self._closed = False
        self._started = False
        self._wait: Wait | None = None
        self._gauge: Gauge | None = None  # where the receiver can open what is squeezed
        self._squeezer: Squeezer | None = None
        self.finished = False  # END is put

    @property
    def wants_write(self) -> bool:
        """Whether there is something to do for it but to wait."""
        return self._started and self._wait is None and not self.finished

    @property
    def due(self) -> bool:
        """Whether the receiver is waited for."""
        return self._wait is not None and self._wait.receiver

    @property
    def busy(self) -> bool:
        """Whether it works, although the receiver may hear nothing of it."""
        return self._started and not self.due and not self.finished

    def figures(self) -> tuple[int, int]:
        """Bytes that are done, as the receiver says, and that went out over this lane."""
        return self._machine.bytes_done, self._machine.bytes_sent

    def outcome(self) -> tuple[int, bytes, int, int]:
        """Size, digest, bytes sent and bytes reused, as in LaneFinished."""
        return self._machine.size, self._machine.digest, self._machine.bytes_sent, 0

    def start(self, effect: StartLane) -> None:
        """The receiver is ready for what comes from there on."""
        self._machine.start(effect.number, effect.after, effect.asks)
        self._started = True

    def grew(self, size: int, *, whole: bool) -> None:
        """The file that grows has so many bytes by now; `whole`: and that is all."""
        self._machine.grew(size, whole=whole)
        if not self.due:
            self._wait = None

    def may_squeeze(self) -> None:
        """The receiver can open what is squeezed."""
        if squeeze.available():
            self._gauge = Gauge(self._shared.loop.now().boot)

    def take(self, record: Record) -> None:
        """A record of the receiver.  Raises RemoteError."""
        self._machine.told(record.type, record.plain)
        self._wait = None

    def fill(self, channel: Channel) -> None:
        """Do one record's work, and put the record if there is one.  Raises LaneTrouble."""
        self._fit_ranges()
        while True:
            want = self._machine.next()
            match want:
                case Put():
                    self._put(channel, want.type, memoryview(want.plain), 0)
                    self._machine.put()
                    self._report()
                    return
                case Read():
                    if self._read(want):
                        self._put_chunks(channel, want)
                        return
                    if self._wait is not None:
                        return
                case Do():
                    self._ask(want)
                case Close():
                    self._close_file(want.handle)
                case Wait():
                    self._wait, self._range = want, None
                    return
                case End():
                    channel.put(RecordType.END)
                    self.finished = True
                    return

    def close(self) -> None:
        """Let go; nothing is called back any more."""
        self._closed = True
        for handle in list(self._handles):
            self._close_file(handle)

    # -- inside --------------------------------------------------------------------------

    def _put(self, channel: Channel, type: RecordType, plain: memoryview, file: int) -> None:
        """Put a record, squeezed where that pays; `file` is the large file of a CHUNKS record."""
        gauge, squeezed = self._gauge, None
        if gauge is not None:
            gauge.turn(self._shared.loop.now().boot, blocked=channel.was_blocked())
            if gauge.slow:
                squeezer = self._squeezer = self._squeezer or Squeezer()
                squeezed = squeezer.block(file, plain) if file else squeezer.pack(plain)
            gauge.put(len(squeezed or plain), len(plain))
        channel.put(type, squeezed or plain, squeezed=squeezed is not None)

    def _put_chunks(self, channel: Channel, want: Read) -> None:
        plain = self._shared.plain
        length = self._machine.took(plain)
        self._ranges_bytes += want.length
        if length:
            self._put(channel, RecordType.CHUNKS, plain[:length], want.handle)
            self._range = self._shared.loop.now().boot, want.length
        self._report()

    def _fit_ranges(self) -> None:
        """The last record has gone out: as much as goes in RANGE_S is the next."""
        last, self._range = self._range, None
        limit = self._limit()
        if limit:
            # Not what was measured: who got less would ask for less, until another has it all.
            least = limits.RANGE_BYTES_LIMITED_MIN
            fits = limit * limits.RANGE_S
            self._machine.range_bytes = min(limits.BLOCK_BYTES, max(1, int(fits) // least) * least)
            return
        if self._ranges_bytes < limits.LANE_WINDOW_BYTES + limits.BLOCK_BYTES:
            return
        fits = float(limits.BLOCK_BYTES)
        if last is not None:
            took = self._shared.loop.now().boot - last[0]
            fits = last[1] * limits.RANGE_S / max(took, 1e-6)
        least = limits.RANGE_BYTES_MIN
        self._machine.range_bytes = min(limits.BLOCK_BYTES, max(1, int(fits) // least) * least)

    def _report(self) -> None:
        report = self._machine.take_report()
        if report is not None:
            self._shared.loop.post(LaneEntries(self._lane, *report))

    def _close_file(self, handle: int) -> None:
        self._handles.discard(handle)
        self._shared.files.close(handle)

    def _ask(self, want: Do) -> None:
        task = want.task
        assert isinstance(task, Pack)
        self._shared.children.pack(task, lambda answer: self._packed(task, answer))

    def _packed(self, task: Pack, answer: Answer) -> None:
        assert isinstance(answer, Packed | Failed)
        if self._closed:
            self._shared.files.close(task.handle)
            return
        if isinstance(answer, Packed) and answer.large is not None:
            self._handles.add(task.handle)
        try:
            self._machine.packed(answer, task.handle)
        except LaneTrouble as trouble:
            self._trouble(trouble)
            return
        self._wait = None
        self._wake()

    # -- reading -------------------------------------------------------------------------

    def _read(self, want: Read) -> bool:
        """Read a range; False where it is not there: it is being warmed, or the file is lost."""
        file = self._shared.files.get(want.handle)
        if file is None:
            raise LaneTrouble("source", "the file is not open any more")
        try:
            problem = _difference(file, want) if want.first else ""
            if not problem and not self._fill(file, want):
                problem = _difference(file, want) or CHANGED
            if self._wait is not None:
                return False
            if not problem and want.last:
                problem = _difference(file, want)
        except OSError as error:
            problem = f"the file cannot be read: {words(error)}"
        if problem:
            self._machine.lost(problem)
        return not problem

    def _fill(self, file: OpenFile, want: Read) -> bool:
        """Read it, or have it warmed; False where the file is shorter than it was."""
        end = want.offset + want.length
        warm_to = self._warm_to if self._warm_of == want.handle else 0
        view = self._shared.plain[CHUNK.size : CHUNK.size + want.length]
        got = read_at(file, view, want.offset, warm=end <= warm_to) if want.length else 0
        if got is None:
            self._wait = Wait(receiver=False)
            self._warm(want, want.offset)
            return True
        if warm_to and warm_to - end <= limits.LANE_WARM_BYTES // 2:
            self._warm(want, end)
        return got == want.length

    def _warm(self, want: Read, offset: int) -> None:
        start = max(offset, self._warm_to) if self._warm_of == want.handle else offset
        length = min(limits.LANE_WARM_BYTES, want.large.size - start)
        if self._warming or length <= 0:
            return
        self._warming = True
        self._shared.children.warm(
            want.handle,
            start,
            length,
            lambda answer: self._warmed(want.handle, start + length, answer),
        )

    def _warmed(self, handle: int, end: int, answer: Answer) -> None:
        self._warming = False
        if self._closed:
            return
        if isinstance(answer, Failed) and handle in self._handles:
            try:
                self._machine.lost(f"the file cannot be read: {answer.text}")
            except LaneTrouble as trouble:
                self._trouble(trouble)
                return
        self._warm_of, self._warm_to = handle, end
        self._wait = None
        self._wake()


def _difference(file: OpenFile, want: Read) -> str:
    """What became of the file that was opened; "" where it is the same still, but for what it has
    grown as it should.  Raises OSError."""
    now, then = os.fstat(file.descriptor), want.large
    if want.growing and now.st_ino == then.inode and now.st_size >= then.size:
        return ""
    same = (now.st_size, now.st_mtime_ns, now.st_ino) == (then.size, then.mtime_ns, then.inode)
    if same and now.st_ctime_ns == then.ctime_ns:
        return ""
    if now.st_nlink == 0:
        return GONE
    return MOVED if same else CHANGED
