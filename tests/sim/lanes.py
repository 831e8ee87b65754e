"""Bulk lanes of simulated daemons: tickets that meet, records on their way, and how lanes end.

What goes over a lane is decided by the real machines (tntd/machines/sending.py, receiving.py); here
is what stands for tntd/shell/lane_*.py: it asks them, and the child, and the disk.

What holds always, as there: both ends need the same ticket, keys of the same link and the same two
public keys; exactly one of LaneFinished and LaneFailed ends a lane, unless CloseLane does; the
sender is finished when its last record is sent, not when it has arrived.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from errno import errorcode
from typing import TYPE_CHECKING, Any

from tntd import limits
from tntd.effects import GrowLane, Inbound, OpenLane, Outbound, StartLane
from tntd.errors import RemoteError
from tntd.events import LaneEntries, LaneFailed, LaneFinished, LaneOpened, LaneProgressed
from tntd.machines.arriving import storage_trouble
from tntd.machines.lane_steps import (
    Close,
    Do,
    End,
    Entries,
    Finished,
    LaneTrouble,
    Put,
    Read,
    Wait,
    Written,
)
from tntd.machines.receiving import Receiver
from tntd.machines.records import CHUNK, PLAIN_BYTES_MAX, Record, RecordType
from tntd.machines.sending import CHANGED, Sender
from tntd.tasks import NOT_BEGUN, Answer, Failed, SyncPart, SyncStage

from .child_source import same
from .disk import File
from .pipe import Pipe

if TYPE_CHECKING:
    from .process import Process

HEADER = struct.Struct(">IB")
Keys = tuple[bytes, bytes, bytes, bytes]


class Lane:
    """One end of a lane."""

    def __init__(self, process: Process, effect: OpenLane, keys: Keys) -> None:
        self.process = process
        self.effect = effect
        self.keys = keys
        self.phase = "waiting"
        self.out: Pipe | None = None
        self.network = process.machine.network
        self._buffer = bytearray()
        self._moved_at = self._put_at = 0.0
        self._eof = False
        self.mover: Source | Sink
        job = effect.job
        self.mover = Source(self, job) if isinstance(job, Outbound) else Sink(self, job)

    # -- beginning -----------------------------------------------------------------------

    def start(self) -> None:
        """Dial, or wait for the dialler."""
        if self.effect.dials:
            self.phase = "dialling"
            self._expect("dialling", limits.DIAL_TIMEOUT_S, "the lane cannot be reached")
            self.network.heap.after(2 * self.network.delay(), self._knock)
        else:
            self._expect("waiting", limits.LANE_TICKET_TIMEOUT_S, "the lane was not dialled")

    def _expect(self, phase: str, seconds: float, text: str) -> None:
        def late() -> None:
            if self.phase == phase:
                self.fail("cut", text)

        self.process.later(seconds, late)

    def _knock(self) -> None:
        if not self.process.alive or self.phase != "dialling":
            return
        machine = self.network.find(self.effect.host, self.effect.port)
        here = self.process.machine.name
        if machine is None or self.network.blocked(here, machine.name):
            return
        other = None if machine.process is None else machine.process.waiting_lane(self.keys)
        if other is None:
            self.fail("cut", "the lane was refused")
            return
        self.phase, other.phase = "greeting", "adopted"
        self._expect("greeting", limits.HANDSHAKE_TIMEOUT_S, "no answer on the lane")
        names = here, machine.name
        self.out = Pipe(self.network, *names, other.receive, other.ended)
        other.out = Pipe(self.network, *reversed(names), self.receive, self.ended)
        other.put(RecordType.HELLO, b"")
        other.open()

    def open(self) -> None:
        """Both ends know the ticket: bytes may flow."""
        self.phase = "moving"
        self.process.loop.post(LaneOpened(self.effect.lane))
        self._moved_at = self._put_at = self.now
        self.process.later(limits.LANE_ALIVE_S, self._look)
        self.guarded(self.mover.opened)

    def begin(self, effect: StartLane) -> None:
        """An outgoing lane is told where to start."""
        if isinstance(self.mover, Source):
            self.mover.start(effect)
            if self.phase == "moving":
                self.guarded(self.mover.opened)

    def grow(self, effect: GrowLane) -> None:
        """There is more of what an outgoing lane sends."""
        if isinstance(self.mover, Source):
            self.mover.grow(effect)
            if self.phase == "moving":
                self.guarded(self.mover.opened)

    @property
    def now(self) -> float:
        """Simulated seconds."""
        return self.network.heap.now

    def _look(self) -> None:
        if self.phase != "moving":
            return
        self.process.later(limits.LANE_ALIVE_S, self._look)
        if self.mover.busy and self.now - self._put_at >= limits.LANE_ALIVE_S:
            self.mover.still_alive()
        due = self.mover.due or (self.out is not None and self.out.queued)
        if due and self.now - self._moved_at >= limits.LANE_IDLE_TIMEOUT_S:
            self.fail("stall", "nothing moved on the lane for a minute")

    # -- ending --------------------------------------------------------------------------

    def fail(self, code: str, text: str) -> None:
        """End it early."""
        if self.phase not in ("closed", "lingering") and self.process.alive:
            self._tell_rest()
            self.process.loop.post(LaneFailed(self.effect.lane, code, text))
        self.close()

    def close(self) -> None:
        """End it without a word."""
        self._tell_rest()
        self.phase = "closed"
        self.mover.close()
        self.process.lanes.pop(self.effect.lane, None)
        if self.out is not None:
            self.out.finish("closed")

    def _tell_rest(self) -> None:
        if self.phase == "moving":
            self.mover.tell_rest()

    def ended(self, reason: str) -> None:
        """The other end is gone, which is noticed when something is to be read."""
        self._eof = True
        if self.phase not in ("moving", "closed") or self.mover.hungry:
            self.fail("cut", "the lane broke")

    def finish(self, *outcome: Any) -> None:
        """All of it is through."""
        self.process.loop.post(LaneFinished(self.effect.lane, *outcome))

    def guarded(self, act: Callable[..., None], *arguments: Any) -> None:
        """Do something of which the lane may end."""
        try:
            act(*arguments)
        except LaneTrouble as trouble:
            self.fail(trouble.code, trouble.text)
        except RemoteError as error:
            # Both ends are honest, so one of them has a bug.
            self.process.machine.watcher.lane_refused(self.process.machine, str(error))
            self.fail("protocol", str(error))

    # -- what both directions need ---------------------------------------------------------

    def tell(self, entries: Entries, *, synced: bool = False) -> None:
        """Tell the node of entries."""
        self.process.loop.post(LaneEntries(self.effect.lane, *entries, synced))

    def ask(self, task: Any, then: Callable[[Answer], None]) -> None:
        """Have the child do something; `then` is called while the lane lives."""

        def answered(answer: Answer) -> None:
            if self.phase == "closed":
                handle = getattr(task, "handle", 0)
                if handle not in self.mover.handles:
                    self.process.files.pop(handle, None)
                return
            self.guarded(then, answer)

        self.process.disk_child.do(task, answered)

    def file(self, handle: int) -> File:
        """An open file of the lane."""
        file = self.process.files.get(handle)
        if file is None:
            code = "source" if isinstance(self.mover, Source) else "storage"
            raise LaneTrouble(code, "the file is not open")
        return file

    def put(self, type: RecordType, plain: bytes) -> None:
        """Send a record."""
        assert self.out is not None
        assert len(plain) <= PLAIN_BYTES_MAX[type]
        self._put_at = self.now
        self.out.push(HEADER.pack(len(plain), type) + plain)

    def press(self) -> None:
        """The budget is full."""
        if isinstance(self.mover, Sink):
            self.mover.press()

    def moved(self) -> None:
        """Bytes went through."""
        self._moved_at = self.now

    # -- records that come -----------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Bytes arrived."""
        if not self.process.alive:
            if self.out is not None:
                self.out.finish("reset")
            return
        self._buffer += data
        self._moved_at = self.now
        self.read()

    def read(self) -> None:
        """Take the records that are here, as long as they are wanted."""
        while self.phase in ("greeting", "moving") and len(self._buffer) >= HEADER.size:
            if self.phase == "moving" and not self.mover.hungry:
                return
            length, number = HEADER.unpack_from(self._buffer)
            end = HEADER.size + length
            if len(self._buffer) < end:
                break
            body = bytes(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            self.guarded(self._take, RecordType(number), body)
        if self._eof and self.phase == "moving" and self.mover.hungry:
            self.fail("cut", "the lane broke")

    def _take(self, type: RecordType, body: bytes) -> None:
        trap, left = self.process.machine.lane_trap
        if trap:
            self.process.machine.lane_trap = (trap, left - 1) if left else ("", 0)
        if trap == "power" and not left:
            machine = self.process.machine
            self.process.later(0.1 * machine.rng.random(), lambda: machine.end("power"))
        if trap == "damage" and not left:
            raise LaneTrouble("protocol", "a record that does not open")
        if trap == "cut" and not left:
            raise LaneTrouble("cut", "the lane broke")
        if type is RecordType.HELLO:
            self.open()
        else:
            self.mover.take(Record(type, memoryview(body)))


class Source:
    """The sending end: tntd/shell/lane_source.py."""

    def __init__(self, lane: Lane, job: Outbound) -> None:
        self._lane = lane
        self._root = job.root
        self._machine = Sender(job, lane.process.new_number)
        self._plain = memoryview(bytearray(limits.RECORD_PLAIN_BYTES_MAX))
        self._started = False
        self._wait: Wait | None = None
        self._pumping = False
        self._told = (0, 0)
        self._told_at = 0.0
        self.handles: set[int] = set()
        self.hungry = True

    @property
    def due(self) -> bool:
        """Whether the receiver is waited for."""
        return self._wait is not None and self._wait.receiver

    @property
    def busy(self) -> bool:
        """Whether it works, although the receiver may hear nothing of it."""
        return self._started and not self.due

    def still_alive(self) -> None:
        """The receiver may wonder."""
        self._lane.put(RecordType.ALIVE, b"")

    def start(self, effect: StartLane) -> None:
        """The receiver is ready."""
        self._machine.start(effect.number, effect.after, effect.asks)
        self._started = True

    def grow(self, effect: GrowLane) -> None:
        """There is more of the file."""
        self._machine.grew(effect.size, whole=effect.whole)
        if not self.due:
            self._wait = None

    def opened(self) -> None:
        """The lane is open, or it may start."""
        self._wake()

    def take(self, record: Record) -> None:
        """A record of the receiver."""
        self._machine.told(record.type, record.plain)
        self._wait = None
        self.tell()
        self._wake()

    def close(self) -> None:
        """Let go of what is open."""
        for handle in self.handles:
            self._lane.process.files.pop(handle, None)
        self.handles.clear()

    def _wake(self, delay: float = 0.0) -> None:
        if not self._pumping and self._started and self._wait is None:
            self._pumping = True
            self._lane.process.later(delay, self._pump)

    def _pump(self) -> None:
        self._pumping = False
        lane = self._lane
        if lane.phase != "moving" or lane.out is None:
            return
        if lane.process.loop.waits:  # its turn comes first, and may be the end of this lane
            self._pumping = True
            lane.process.loop.after_turn(self._pump)
            return
        if lane.out.queued >= 2 * limits.RECORD_PLAIN_BYTES_MAX:
            self._wake(0.02)
            return
        lane.guarded(self._step)
        if lane.phase == "moving":
            self.tell()
            self._wake()

    def _step(self) -> None:
        """One record's work."""
        lane, machine = self._lane, self._machine
        while lane.phase == "moving":
            want = machine.next()
            match want:
                case Put():
                    lane.put(want.type, want.plain)
                    machine.put()
                    self._report()
                    return
                case Read():
                    if self._read(want):
                        self._report()
                        return
                case Do():
                    lane.ask(want.task, lambda answer, task=want.task: self._packed(task, answer))
                case Close():
                    self.handles.discard(want.handle)
                    lane.process.files.pop(want.handle, None)
                case Wait():
                    self._wait = want
                    return
                case End():
                    self._end()
                    return

    def _end(self) -> None:
        lane, machine = self._lane, self._machine
        lane.put(RecordType.END, b"")
        watcher = lane.process.machine.watcher
        watcher.sent(lane.process.machine, lane.effect.ticket, machine.bytes_sent)
        lane.finish(machine.size, machine.digest, machine.bytes_sent, 0)
        lane.phase = "lingering"
        self.close()
        lane.process.later(limits.LANE_IDLE_TIMEOUT_S, lane.close)

    def _packed(self, task: Any, answer: Any) -> None:
        if not isinstance(answer, Failed) and answer.large is not None:
            self.handles.add(task.handle)
        self._machine.packed(answer, task.handle)
        self._wait = None
        self._wake()

    def _read(self, want: Read) -> bool:
        """Read a range; whether it went well."""
        lane, problem = self._lane, ""
        root, inner = self._root, want.large.path
        lane.process.machine.reading(root + b"/" + inner if inner else root)
        file = lane.file(want.handle)
        data = b""
        try:
            lane.process.machine.disk.check()
            data = bytes(file.data[want.offset : want.offset + want.length])
        except OSError as error:
            problem = f"the file cannot be read: {(error.strerror or '').lower()}"
        looks = (want.first or want.last) and not want.growing
        if not problem and (len(data) < want.length or (looks and not same(file, want.large))):
            problem = CHANGED
        if problem:
            self._machine.lost(problem)
            return False
        self._plain[CHUNK.size : CHUNK.size + len(data)] = data
        length = self._machine.took(self._plain)
        if length:
            lane.put(RecordType.CHUNKS, bytes(self._plain[:length]))
        return True

    def _report(self) -> None:
        report = self._machine.take_report()
        if report is not None:
            self._lane.tell(report)
        machine = self._lane.process.machine
        machine.watcher.sent(machine, self._lane.effect.ticket, self._machine.bytes_sent)

    def tell_rest(self) -> None:
        """What is not told yet."""
        self.tell(rest=True)

    def tell(self, *, rest: bool = False) -> None:
        """Tell the node how far it is, not too often but for the `rest`."""
        figures = self._machine.bytes_done, self._machine.bytes_sent
        due = rest or self._lane.now - self._told_at >= limits.PROGRESS_INTERVAL_S
        if due and figures != self._told and self._lane.process.alive:
            self._told, self._told_at = figures, self._lane.now
            self._lane.process.loop.post(LaneProgressed(self._lane.effect.lane, *figures))


class Sink:
    """The receiving end: tntd/shell/lane_sink.py."""

    def __init__(self, lane: Lane, job: Inbound) -> None:
        self._lane = lane
        self._job = job
        self._budget = lane.process.budget
        self._machine = Receiver(job, lane.process.new_number)
        self._unsynced = 0
        self._unsynced_file = 0  # whose all of that is; 0 where it is of several
        self._synced_number = job.number
        self._syncing = False
        self._told = 0
        self._told_at = 0.0
        self.handles: set[int] = set()

    @property
    def hungry(self) -> bool:
        """Whether the next record may be taken."""
        return self._machine.hungry and not self._budget.full

    due = hungry

    @property
    def busy(self) -> bool:
        """Whether it waits for its disk, although the sender may hear nothing of it."""
        return self._machine.working or self._budget.full

    def opened(self) -> None:
        """The lane is open."""

    def still_alive(self) -> None:
        """The sender may wonder."""
        self._lane.put(RecordType.PROGRESS, self._machine.progress())

    def close(self) -> None:
        """Let go of what is open; the rest is the node's to sync, or nobody's."""
        count, self._unsynced = self._unsynced, 0
        self._budget.remove(count)
        for handle in self.handles:
            self._lane.process.files.pop(handle, None)
        self.handles.clear()

    def take(self, record: Record) -> None:
        """A record of the sender."""
        disk = self._lane.process.machine.disk
        for write in self._machine.take(record):
            file = self._lane.file(write.handle)
            try:
                disk.check(writing=True)
            except OSError as error:
                text = (error.strerror or "").lower()
                raise storage_trouble(Failed(errorcode[error.errno or 0], text)) from error
            file.write(write.offset, bytes(write.data), disk.now_ns)
            self._count(len(write.data), write.handle)
        self._step()

    def _step(self) -> None:
        lane, machine = self._lane, self._machine
        while lane.phase == "moving" and (step := machine.next()) is not None:
            match step:
                case Do():
                    lane.ask(step.task, lambda answer, task=step.task: self._answered(task, answer))
                case Put():
                    lane.put(step.type, step.plain)
                case Close():
                    self.handles.discard(step.handle)
                    lane.process.files.pop(step.handle, None)
                case Entries():
                    lane.tell(step)
                case Written():
                    self._count(step.size, 0)
                case Finished():
                    size, digest = machine.bytes_done, machine.digest
                    lane.finish(size, digest, self._machine.bytes_received, machine.bytes_reused)
                    lane.close()
                    return
        if self._unsynced >= limits.UNSYNCED_STEP_BYTES or self._budget.full:
            self.press()
        self._tell()

    def _answered(self, task: Any, answer: Answer) -> None:
        handle = getattr(task, "handle", 0)
        if handle and not isinstance(answer, Failed):
            self.handles.add(handle)
        self._machine.answered(task, answer)
        self._step()
        self._lane.moved()
        self._lane.read()

    def _tell(self) -> None:
        done = self._machine.bytes_done
        if self._lane.phase != "moving" or done == self._told:
            return
        if self._lane.now - self._told_at >= limits.PROGRESS_INTERVAL_S:
            self._told, self._told_at = done, self._lane.now
            self._lane.put(RecordType.PROGRESS, self._machine.progress())
            self._lane.process.loop.post(
                LaneProgressed(self._lane.effect.lane, done, self._machine.bytes_received)
            )

    def tell_rest(self) -> None:
        """What went over this lane counts as sent twice, if it has to come again."""
        if self._machine.bytes_received:
            done = self._machine.bytes_done
            self._lane.process.loop.post(
                LaneProgressed(self._lane.effect.lane, done, self._machine.bytes_received)
            )

    # -- syncs -----------------------------------------------------------------------------

    def _count(self, count: int, handle: int) -> None:
        if not self._unsynced:
            self._unsynced_file = handle
        elif handle != self._unsynced_file:
            self._unsynced_file = 0
        self._unsynced += count
        self._budget.add(count)

    def press(self) -> None:
        """Have what is not synced yet synced now."""
        if self._syncing or not self._unsynced or self._lane.phase != "moving":
            return
        self._syncing = True
        job, count, position = self._job, self._unsynced, self._machine.position
        alone = self._unsynced_file if position[0] == self._synced_number else 0
        stage = job.folder, job.stage
        task = SyncPart(alone, *stage) if alone in self.handles else SyncStage(*stage)
        self._lane.ask(task, lambda answer: self._synced(count, position, answer))

    def _synced(self, count: int, position: tuple[int, bytes, int], answer: Answer) -> None:
        self._syncing = False
        if isinstance(answer, Failed):
            code = "cut" if answer.code in NOT_BEGUN else "storage"
            raise LaneTrouble(code, answer.text)
        self._unsynced -= count
        self._budget.remove(count)
        if position[0] != self._synced_number:
            self._synced_number = position[0]
            self._lane.tell(Entries((), *position), synced=True)
        if self._unsynced >= limits.UNSYNCED_STEP_BYTES or self._budget.full:
            self.press()
        self._lane.read()
