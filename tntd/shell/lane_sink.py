"""What comes in on a lane: machines/receiving.py with its files, synced in small steps.

What holds always: a record is checked as a whole before any of it is written; and no more than
UNSYNCED_BYTES_MAX (and a few records) of all lanes together wait for the disk, because a commit of
the store would wait for it too.  A sync that failed ends the lane: what the system has lost
it will not tell twice.

A large file is synced alone where nothing but it is unsynced; else the whole stage is, and then the
position that was reached before is on the disk for sure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from tntd import limits
from tntd.effects import Inbound
from tntd.errors import RemoteError
from tntd.events import LaneEntries
from tntd.machines.arriving import storage_trouble
from tntd.machines.lane_steps import (
    Close,
    Do,
    Entries,
    Finished,
    LaneTask,
    LaneTrouble,
    Put,
    Write,
    Written,
)
from tntd.machines.receiving import Receiver
from tntd.machines.records import Record, RecordType
from tntd.shell.files import failure, write_at
from tntd.shell.lane_channel import Channel
from tntd.shell.lane_shared import Shared
from tntd.tasks import (
    NOT_BEGUN,
    Answer,
    CopyRange,
    Failed,
    FinishEntry,
    HashRange,
    OpenEntry,
    SyncPart,
    SyncStage,
    Unpack,
)


class Incoming:
    """Takes the records of the lane number `lane`.  `wake` is called when it is ready for more, or
    has something to say; `trouble` with a LaneTrouble when the disk fails behind our back."""

    def __init__(
        self,
        lane: int,
        job: Inbound,
        shared: Shared,
        wake: Callable[[], None],
        trouble: Callable[[LaneTrouble], None],
    ) -> None:
        self._lane = lane
        self._job = job
        self._shared = shared
        self._wake = wake
        self._trouble = trouble
        self._machine = Receiver(job, shared.new_number)
        self._handles: set[int] = set()
        self._puts: deque[Put] = deque()
        self._progress_due = False
        self._unsynced = 0
        self._unsynced_file = 0  # whose all of that is; 0 where it is of several
        self._synced_number = job.number  # the position that the disk has
        self._syncing = False
        self._closed = False
        self.finished = False  # END was there, all is as the sender said, and is about to be told

    @property
    def hungry(self) -> bool:
        """Whether a record may be taken."""
        return self._machine.hungry and not self._shared.budget.full and not self.finished

    @property
    def busy(self) -> bool:
        """Whether it waits for its disk, although the sender may hear nothing of it."""
        return self._machine.working or self._shared.budget.full

    @property
    def wants_write(self) -> bool:
        """Whether it has something to say."""
        return bool(self._puts) or self._progress_due

    def figures(self) -> tuple[int, int]:
        """The bytes that are done, and the entries."""
        return self._machine.bytes_done, self._machine.position[0]

    @property
    def received(self) -> int:
        """Bytes of files that came over this lane."""
        return self._machine.bytes_received

    def outcome(self) -> tuple[int, bytes, int, int]:
        """Size, digest, bytes that came and bytes reused, as in LaneFinished."""
        machine = self._machine
        return machine.bytes_done, machine.digest, machine.bytes_received, machine.bytes_reused

    def tell_progress(self) -> None:
        """Say how far it is as soon as the socket has room."""
        self._progress_due = True

    def take(self, record: Record) -> None:
        """Use a record.

        Raises RemoteError where it does not fit what was agreed, LaneTrouble "storage" where the
        disk refuses, "hash" where what arrived is not what was sent.
        """
        for write in self._machine.take(record):
            self._write(write)
        self._go_on()

    def fill(self, channel: Channel) -> None:
        """Put what is to be said, as far as there is room."""
        while self._puts and channel.has_room(len(self._puts[0].plain)):
            put = self._puts.popleft()
            channel.put(put.type, memoryview(put.plain))
        if self._progress_due and not channel.pending:
            channel.put(RecordType.PROGRESS, memoryview(self._machine.progress()))
        self._progress_due = False

    def press(self) -> None:
        """Have what is not synced yet synced now."""
        if self._syncing or not self._unsynced or self._closed:
            return
        self._syncing = True
        count, position = self._unsynced, self._machine.position
        alone = self._unsynced_file if position[0] == self._synced_number else 0

        def synced(answer: Answer) -> None:
            if self._synced(count, answer) and position[0] != self._synced_number:
                self._synced_number = position[0]
                self._shared.loop.post(LaneEntries(self._lane, (), *position, synced=True))

        if self._shared.files.get(alone) is not None:
            self._shared.children.sync(SyncPart(alone, self._job.folder, self._job.stage), synced)
        else:
            task = SyncStage(self._job.folder, self._job.stage)
            self._shared.children.sync_stage(task, synced)

    def close(self) -> None:
        """Let go; the rest is the node's to sync, or nobody's."""
        self._closed = True
        count, self._unsynced = self._unsynced, 0
        self._shared.budget.remove(count)
        for handle in list(self._handles):
            self._close_file(handle)

    # -- inside --------------------------------------------------------------------------

    def _write(self, write: Write) -> None:
        file = self._shared.files.get(write.handle)
        if file is None:
            raise LaneTrouble("storage", "the part is not open any more")
        try:
            write_at(file, write.data, write.offset)
        except OSError as error:
            raise storage_trouble(failure(error)) from error
        self._count(len(write.data), write.handle)

    def _count(self, count: int, handle: int) -> None:
        if not self._unsynced:
            self._unsynced_file = handle
        elif handle != self._unsynced_file:
            self._unsynced_file = 0
        self._unsynced += count
        self._shared.budget.add(count)

    def _go_on(self) -> None:
        """Do what the machine wants."""
        while (step := self._machine.next()) is not None:
            match step:
                case Do(task):
                    self._do(task)
                case Put():
                    self._puts.append(step)
                case Close(handle):
                    self._close_file(handle)
                case Entries():
                    self._shared.loop.post(LaneEntries(self._lane, *step))
                case Written(size):
                    self._count(size, 0)
                case Finished():
                    self.finished = True
        if self._unsynced >= limits.UNSYNCED_STEP_BYTES or self._shared.budget.full:
            self.press()

    def _do(self, task: LaneTask) -> None:
        children = self._shared.children

        def answered(answer: Answer) -> None:
            self._answered(task, answer)

        match task:
            case Unpack():
                children.unpack(task, answered)
            case OpenEntry():
                children.open_entry(task, answered)
            case HashRange():
                children.hash_range(task, answered)
            case CopyRange():
                children.copy_range(task, answered)
            case FinishEntry():
                children.finish_entry(task, answered)
            case _:
                raise AssertionError(f"not a task of this end: {task!r}")

    def _answered(self, task: LaneTask, answer: Answer) -> None:
        if isinstance(task, OpenEntry) and not isinstance(answer, Failed):
            self._handles.add(task.handle)
        if self._closed:
            if isinstance(task, OpenEntry):
                self._close_file(task.handle)
            return
        try:
            self._machine.answered(task, answer)
            self._go_on()
        except LaneTrouble as trouble:
            self._trouble(trouble)
        except RemoteError as error:
            self._trouble(LaneTrouble("protocol", str(error)))
        else:
            self._wake()

    def _close_file(self, handle: int) -> None:
        self._handles.discard(handle)
        self._shared.files.close(handle)

    def _synced(self, count: int, answer: Answer) -> bool:
        """Count what is synced; False where it is not."""
        self._syncing = False
        if self._closed:
            return False
        if isinstance(answer, Failed):
            # What it has lost it says once: a stage after that is not to be believed.
            code = "cut" if answer.code in NOT_BEGUN else "storage"
            self._trouble(LaneTrouble(code, answer.text))
            return False
        self._unsynced -= count
        self._shared.budget.remove(count)
        if self._unsynced >= limits.UNSYNCED_STEP_BYTES or self._shared.budget.full:
            self.press()
        return True
