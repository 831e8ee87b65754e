"""Bulk lanes of simulated daemons: tickets that meet, blocks on their way, and how lanes end.

What holds always, as in tntd/shell/lanes.py: both ends need the same ticket, keys of the same link
and the same two public keys; exactly one of LaneFinished and LaneFailed ends a lane, unless
CloseLane does; the sender is finished when its last byte is sent, not when it has arrived.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from blake3 import blake3

from tntd import limits
from tntd.effects import OpenLane
from tntd.events import LaneFailed, LaneFinished, LaneOpened, LaneProgressed

from .disk import File
from .pipe import Pipe

if TYPE_CHECKING:
    from .process import Process

BLOCK = 4096  # of a file; small, so that small files have many
UNDER_WAY_MAX = 4 * BLOCK
HEADER = struct.Struct(">IB")
HELLO, DATA, END = 1, 2, 3
CHANGED = "the file changed while it was being sent"
Keys = tuple[bytes, bytes, bytes, bytes]


class Trouble(Exception):
    """`code` and `text` of LaneFailed."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Lane:
    """One end of a lane."""

    def __init__(self, process: Process, effect: OpenLane, keys: Keys) -> None:
        self.process = process
        self.effect = effect
        self.keys = keys
        self.phase = "waiting"
        self.out: Pipe | None = None
        self._network = process.machine.network
        self._disk = process.machine.disk
        self._buffer = bytearray()
        self._hash = blake3()
        self._done = 0
        self._told_at = 0.0
        self._moved_at = 0.0

    # -- beginning -----------------------------------------------------------------------

    def start(self) -> None:
        """Dial, or wait for the dialler."""
        if self.effect.dials:
            self.phase = "dialling"
            self._expect("dialling", limits.DIAL_TIMEOUT_S, "the lane cannot be reached")
            self._network.heap.after(2 * self._network.delay(), self._knock)
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
        machine = self._network.find(self.effect.host, self.effect.port)
        here = self.process.machine.name
        if machine is None or self._network.blocked(here, machine.name):
            return
        other = None if machine.process is None else machine.process.waiting_lane(self.keys)
        if other is None:
            self.fail("cut", "the lane was refused")
            return
        self.phase, other.phase = "greeting", "adopted"
        self._expect("greeting", limits.HANDSHAKE_TIMEOUT_S, "no answer on the lane")
        names = here, machine.name
        self.out = Pipe(self._network, *names, other.receive, other.ended)
        other.out = Pipe(self._network, *reversed(names), self.receive, self.ended)
        other.put(HELLO, b"")
        other.open()

    def open(self) -> None:
        """Both ends know the ticket: bytes may flow."""
        self.phase = "moving"
        self.process.loop.post(LaneOpened(self.effect.lane))
        self._moved_at = self._network.heap.now
        self.process.later(limits.LANE_IDLE_TIMEOUT_S, self._look)
        if self.effect.sending:
            self._guarded(self._check)
            self.process.later(0.0, self._pump)

    def _look(self) -> None:
        if self.phase != "moving":
            return
        left = self._moved_at + limits.LANE_IDLE_TIMEOUT_S - self._network.heap.now
        if left > 0:
            self.process.later(left, self._look)
        else:
            self.fail("cut", "nothing moved on the lane for a minute")

    # -- ending --------------------------------------------------------------------------

    def fail(self, code: str, text: str) -> None:
        """End it early."""
        if self.phase not in ("closed", "lingering") and self.process.alive:
            self.process.loop.post(LaneFailed(self.effect.lane, code, text))
        self.close()

    def close(self) -> None:
        """End it without a word."""
        self.phase = "closed"
        self.process.lanes.pop(self.effect.lane, None)
        if self.out is not None:
            self.out.finish("closed")

    def ended(self, reason: str) -> None:
        """The other end is gone."""
        if self.phase != "closed":
            self.fail("cut", "the lane broke")

    def _finish(self) -> None:
        self.process.loop.post(LaneFinished(self.effect.lane, self._done, self._hash.digest()))

    def _guarded(self, act: object, *arguments: object) -> None:
        try:
            act(*arguments)  # type: ignore[operator]
        except Trouble as trouble:
            self.fail(trouble.code, trouble.text)
        except OSError as error:
            code = "source" if self.effect.sending else "storage"
            self.fail(code, (error.strerror or "").lower())

    # -- sending -------------------------------------------------------------------------

    def put(self, kind: int, body: bytes) -> None:
        """Send a record."""
        assert self.out is not None
        self.out.push(HEADER.pack(len(body), kind) + body)

    def _file(self) -> File:
        file = self.process.files.get(self.effect.handle)
        if file is None:
            raise Trouble("source" if self.effect.sending else "storage", "the file is not open")
        return file

    def _check(self) -> None:
        file, then = self._file(), self.effect
        now = (len(file.data), file.mtime_ns, file.ctime_ns, file.inode)
        if now != (then.size, then.mtime_ns, then.ctime_ns, then.inode):
            raise Trouble("source", CHANGED)

    def _pump(self) -> None:
        if self.phase == "moving" and self.out is not None:
            if self.out.queued < UNDER_WAY_MAX:
                self._guarded(self._send_block)
            if self.phase == "moving":
                self.process.later(0.0 if self.out.queued < UNDER_WAY_MAX else 0.02, self._pump)

    def _send_block(self) -> None:
        file, size = self._file(), self.effect.size
        if self._done < size:
            self._disk.check()
            data = bytes(file.data[self._done : min(size, self._done + BLOCK)])
            if len(data) < min(BLOCK, size - self._done):
                raise Trouble("source", CHANGED)
            self._hash.update(data)
            self.put(DATA, data)
            self._moved(len(data))
        if self._done == size:
            self._check()
            self.put(END, self._hash.digest())
            self._finish()
            self.phase = "lingering"

    def _moved(self, count: int) -> None:
        self._done += count
        now = self._moved_at = self._network.heap.now
        if now - self._told_at >= limits.PROGRESS_INTERVAL_S:
            self._told_at = now
            self.process.loop.post(LaneProgressed(self.effect.lane, self._done))

    # -- receiving -----------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Bytes arrived."""
        if not self.process.alive:
            if self.out is not None:
                self.out.finish("reset")
            return
        self._buffer += data
        while self.phase in ("greeting", "moving") and len(self._buffer) >= HEADER.size:
            length, kind = HEADER.unpack_from(self._buffer)
            end = HEADER.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            self._guarded(self._take, kind, body)

    def _take(self, kind: int, body: bytes) -> None:
        trap, left = self.process.machine.lane_trap
        if trap:
            self.process.machine.lane_trap = (trap, left - 1) if left else ("", 0)
        if trap == "damage" and not left:
            raise Trouble("protocol", "a record that does not open")
        if trap == "cut" and not left:
            raise Trouble("cut", "the lane broke")
        if kind == HELLO:
            self.open()
            return
        file = self._file()
        if kind == DATA:
            self._disk.check(writing=True)
            file.write(self._done, body, self.process.machine.now_ns())
            self._hash.update(body)
            self._moved(len(body))
        elif self._done != self.effect.size or body != self._hash.digest():
            raise Trouble("hash", "what arrived is not what was sent")
        else:
            self._finish()
            self.close()
