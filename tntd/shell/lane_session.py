"""One lane, from the agreement over the link to the last byte.

What holds always:
- The side that accepts says nothing before the first record of the dialler has opened.
- Exactly one of LaneFinished and LaneFailed ends a lane, unless CloseLane does, which is silent.
- A call does at most one record's work, and what the lane waits for is derived from its state,
  never remembered.

    WAITING -> MOVING           (we accept: the ticket was shown, lane_stranger.py)
    DIALLING -> GREETING -> MOVING      (we dial)
    MOVING -> LINGERING         (the sender, until the receiver closes)
    any -> CLOSED
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from tntd import limits
from tntd.effects import OpenLane
from tntd.errors import RemoteError
from tntd.events import LaneFailed, LaneFinished, LaneOpened, LaneProgressed
from tntd.machines import lane_keys
from tntd.machines.records import Record, RecordType
from tntd.shell import lane_channel
from tntd.shell.lane_channel import Channel
from tntd.shell.lane_pace import Pace
from tntd.shell.lane_shared import LaneTrouble, Shared
from tntd.shell.lane_sink import Incoming
from tntd.shell.lane_source import Outgoing
from tntd.shell.loop import Timer


class Phase(Enum):
    """Where a lane is."""

    WAITING = auto()
    DIALLING = auto()
    GREETING = auto()
    MOVING = auto()
    LINGERING = auto()
    CLOSED = auto()


_NEXT: Final[dict[Phase, set[Phase]]] = {
    Phase.WAITING: {Phase.DIALLING, Phase.MOVING, Phase.CLOSED},
    Phase.DIALLING: {Phase.GREETING, Phase.CLOSED},
    Phase.GREETING: {Phase.MOVING, Phase.CLOSED},
    Phase.MOVING: {Phase.LINGERING, Phase.CLOSED},
    Phase.LINGERING: {Phase.CLOSED},
    Phase.CLOSED: set(),
}


class Lane:
    """A lane that was asked for by `effect`; `forth` and `back` are the keys of what the dialler
    and the acceptor write.  `ended` is called when it is closed."""

    def __init__(
        self,
        effect: OpenLane,
        forth: bytes,
        back: bytes,
        shared: Shared,
        ended: Callable[[Lane], None],
    ) -> None:
        self.effect = effect
        self.phase = Phase.WAITING
        self._seals, self._opens = (forth, back) if effect.dials else (back, forth)
        self._shared = shared
        self._loop = shared.loop
        self._ended = ended
        self._channel: Channel | None = None
        self._mover: Outgoing | Incoming | None = None
        self._pace: Pace | None = None
        self._timer: Timer | None = None

    def start(self) -> None:
        """Dial, or wait for the dialler."""
        if not self.effect.dials:
            self._expect(limits.LANE_TICKET_TIMEOUT_S, "the other side did not dial the lane")
            return
        try:
            sock = lane_channel.dial(self.effect.host, self.effect.port)
        except LaneTrouble as trouble:
            self.fail(trouble)
            return
        self._go(Phase.DIALLING)
        self._channel = self.channel_for(sock)
        self._expect(limits.DIAL_TIMEOUT_S, "the other side cannot be reached for the lane")
        self.rewatch()

    def channel_for(self, sock: socket.socket) -> Channel:
        """A channel of this lane's keys, from their first record on."""
        return Channel(sock, self._seals, self._opens, self._shared.plain)

    def adopt(self, channel: Channel) -> None:
        """The dialler's first record has opened on this channel: it is the lane's."""
        self._channel = channel
        self._channel.put(RecordType.HELLO)
        self._guarded(self._open)

    def fail(self, trouble: LaneTrouble) -> None:
        """End it early, and say why."""
        if self.phase not in (Phase.LINGERING, Phase.CLOSED):
            self._shared.logger.debug("lane %d failed: %s", self.effect.lane, trouble)
            self._loop.post(LaneFailed(self.effect.lane, trouble.code, trouble.text))
        self.close()

    def close(self) -> None:
        """End it without a word."""
        if self.phase is Phase.CLOSED:
            return
        self._go(Phase.CLOSED)
        self._stop()
        if self._channel is not None:
            self._loop.unwatch(self._channel.socket)
            self._channel.socket.close()
        self._ended(self)

    def press(self) -> None:
        """The budget is full: sync what is written (see lane_sink.py)."""
        if isinstance(self._mover, Incoming):
            self._mover.press()
        self.rewatch()

    def resume(self) -> None:
        """What it waited for, other than its socket, is there: time counts from now."""
        if self._pace is not None:
            self._pace.touch()
        self.rewatch()

    def rewatch(self) -> None:
        """Wait for what the state of the lane needs."""
        if self._channel is None or self.phase is Phase.CLOSED:
            return
        self._loop.watch(
            self._channel.socket, self, read=self._wants_read, write=self._wants_write, bulk=True
        )

    # -- the loop's calls ----------------------------------------------------------------

    def ready(self, readable: bool, writable: bool) -> None:
        """One record's work."""
        if readable and self._wants_read:
            self._guarded(self._read)
        if writable and self._wants_write:
            self._guarded(self._write)

    def broke(self, error: Exception) -> None:
        """A bug of ours: the lane ends."""
        self.fail(LaneTrouble("protocol", "an error in this program ended the lane; see the log"))

    # -- reading and writing -------------------------------------------------------------

    @property
    def _wants_read(self) -> bool:
        if self.phase is Phase.MOVING and not self.effect.sending:
            return not self._shared.budget.full
        return self.phase in (Phase.GREETING, Phase.MOVING, Phase.LINGERING)

    @property
    def _wants_write(self) -> bool:
        if self.phase is Phase.DIALLING:
            return True
        if self.phase is Phase.CLOSED:
            return False
        if self._channel is not None and self._channel.pending:
            return True
        mover = self._mover
        return self.phase is Phase.MOVING and isinstance(mover, Outgoing) and not mover.waiting

    def _guarded(self, act: Callable[[Channel], None]) -> None:
        assert self._channel is not None
        try:
            act(self._channel)
        except LaneTrouble as trouble:
            self.fail(trouble)
        except RemoteError as error:
            self.fail(LaneTrouble("protocol", str(error)))
        else:
            self.rewatch()

    def _read(self, channel: Channel) -> None:
        if self.phase is Phase.LINGERING:
            # The receiver closes: it has all of it.  Anything else does not matter any more.
            self.close()
            return
        count, record = channel.receive()
        if count and self._pace is not None:
            self._pace.touch()
        if record is not None:
            self._take(record, channel)

    def _take(self, record: Record, channel: Channel) -> None:
        if self.phase is Phase.GREETING:
            if record.type is not RecordType.HELLO:
                raise RemoteError("malformed", "a lane that does not begin with HELLO")
            self._open(channel)
            return
        if not isinstance(self._mover, Incoming) or self._pace is None:
            raise RemoteError("malformed", "a record from the receiver of a file")
        self._mover.take(record)
        self._pace.moved(self._mover.done_bytes)
        if self._mover.finished:
            self._finish(self._mover)
            self.close()

    def _write(self, channel: Channel) -> None:
        if self.phase is Phase.DIALLING:
            self._greet(channel)
        mover = self._mover
        sends = isinstance(mover, Outgoing) and self.phase is Phase.MOVING
        if isinstance(mover, Outgoing) and sends and not channel.pending:
            mover.fill(channel)
        if not channel.pending:
            return
        sent = channel.flush()
        if mover is None or self._pace is None or not sends:
            return
        if sent:
            self._pace.moved(mover.done_bytes)
        if mover.finished and not channel.pending:
            self._finish(mover)
            self._go(Phase.LINGERING)
            self._timer = self._loop.call_later(limits.LANE_IDLE_TIMEOUT_S, self.close)

    # -- phases --------------------------------------------------------------------------

    def _greet(self, channel: Channel) -> None:
        lane_channel.connected(channel.socket)
        self._go(Phase.GREETING)
        self._expect(limits.HANDSHAKE_TIMEOUT_S, "the other side did not answer on the lane")
        channel.put_bytes(lane_keys.MAGIC + self.effect.ticket)
        channel.put(RecordType.HELLO)

    def _open(self, _: Channel) -> None:
        self._go(Phase.MOVING)
        self._stop()
        self._loop.post(LaneOpened(self.effect.lane))
        self._pace = Pace(self._loop, self._tell, self._stuck)
        if self.effect.sending:
            self._mover = Outgoing(self.effect, self._shared, self.resume, self.fail)
        else:
            self._mover = Incoming(self.effect, self._shared, self.fail)

    def _finish(self, mover: Outgoing | Incoming) -> None:
        self._loop.post(LaneFinished(self.effect.lane, mover.done_bytes, mover.digest()))
        self._stop()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._pace is not None:
            self._pace.stop()
        if self._mover is not None:
            self._mover.close()

    def _go(self, phase: Phase) -> None:
        if phase not in _NEXT[self.phase]:
            raise AssertionError(f"a lane cannot go from {self.phase.name} to {phase.name}")
        self.phase = phase

    # -- timers and callbacks ------------------------------------------------------------

    def _expect(self, seconds: float, text: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, lambda: self.fail(LaneTrouble("cut", text)))

    def _tell(self, done_bytes: int) -> None:
        self._loop.post(LaneProgressed(self.effect.lane, done_bytes))

    def _stuck(self) -> None:
        due = self._wants_read if isinstance(self._mover, Incoming) else self._wants_write
        if due:
            self.fail(LaneTrouble("cut", "nothing moved on the lane for a minute"))
