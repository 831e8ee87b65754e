"""One lane, from the agreement over the link to the last byte.

What holds always:
- The side that accepts says nothing before the first record of the dialler has opened.
- Exactly one of LaneFinished and LaneFailed ends a lane, unless CloseLane does, which is silent.
- A call does at most one record's work, and what the lane waits for is derived from its state,
  never remembered.

    WAITING -> MOVING           (we accept: the ticket was shown, lane_stranger.py)
    DIALLING -> GREETING -> MOVING      (we dial)
    MOVING -> LINGERING         (all is told: the sender stays until the receiver closes, the
                                receiver until its last word has gone out)
    any -> CLOSED
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from tntd import limits
from tntd.effects import GrowLane, OpenLane, Outbound, StartLane
from tntd.errors import RemoteError
from tntd.events import LaneFailed, LaneFinished, LaneOpened, LaneProgressed
from tntd.machines import lane_keys, records
from tntd.machines.lane_steps import LaneTrouble
from tntd.machines.records import Greeting, RecordType
from tntd.shell import lane_channel
from tntd.shell.lane_channel import Channel
from tntd.shell.lane_pace import Pace
from tntd.shell.lane_shared import Shared
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
        self._mover: Outgoing | Incoming
        job = effect.job
        if isinstance(job, Outbound):
            self._mover = Outgoing(
                effect.lane, job, shared, self.resume, self.fail, limit=self._limit
            )
        else:
            self._mover = Incoming(effect.lane, job, shared, self.resume, self.fail)
        self._pace: Pace | None = None
        self._timer: Timer | None = None
        throttles = shared.throttles
        self._throttle = throttles.up if isinstance(job, Outbound) else throttles.down
        self._held = False  # by its limit
        self._told = -1  # bytes that are done, to the node of a receiver

    def start(self) -> None:
        """Dial, or wait for the dialler."""
        if not self.effect.dials:
            self._expect(
                limits.LANE_TICKET_TIMEOUT_S, "the other side opened no connection for files"
            )
            return
        try:
            sock = lane_channel.dial(self.effect.host, self.effect.port)
        except LaneTrouble as trouble:
            self.fail(trouble)
            return
        self._go(Phase.DIALLING)
        self._channel = self.channel_for(sock)
        self._expect(limits.DIAL_TIMEOUT_S, "the other side cannot be reached for files")
        self.rewatch()

    def begin(self, effect: StartLane) -> None:
        """The receiver is ready: files may go out, once the lane is open."""
        if isinstance(self._mover, Outgoing):
            self._mover.start(effect)
            self.resume()

    def grow(self, effect: GrowLane) -> None:
        """There is more of the file that goes out, or it has ended."""
        if isinstance(self._mover, Outgoing):
            self._mover.grew(effect.size, whole=effect.whole)
            self.resume()

    def channel_for(self, sock: socket.socket) -> Channel:
        """A channel of this lane's keys, from their first record on."""
        sends = isinstance(self._mover, Outgoing)
        return Channel(sock, self._seals, self._opens, self._shared.plain, sends=sends)

    def adopt(self, channel: Channel, greeting: Greeting) -> None:
        """The dialler's first record has opened on this channel: it is the lane's."""
        self._channel = channel
        self._channel.put(RecordType.HELLO, records.greeting())
        self._guarded(lambda _: self._open(greeting))

    def fail(self, trouble: LaneTrouble) -> None:
        """End it early, and say why."""
        if self.phase not in (Phase.LINGERING, Phase.CLOSED):
            self._shared.logger.debug("lane %d failed: %s", self.effect.lane, trouble)
            self._tell_rest()
            self._loop.post(LaneFailed(self.effect.lane, trouble.code, trouble.text))
        self.close()

    def close(self) -> None:
        """End it without a word."""
        if self.phase is Phase.CLOSED:
            return
        self._tell_rest()
        self._go(Phase.CLOSED)
        self._stop_timers()
        self._mover.close()
        if self._channel is not None:
            self._loop.unwatch(self._channel.socket)
            self._channel.socket.close()
            self._channel = None  # its buffers go now, not when cycles are looked for
        self._ended(self)

    def press(self) -> None:
        """The budget is full: sync what is written (see lane_sink.py)."""
        if isinstance(self._mover, Incoming):
            self._mover.press()
        self.rewatch()

    def resume(self) -> None:
        """What it waited for, other than its socket, is there: time counts from now."""
        if self._pace is not None:
            self._pace.moved()
        self.rewatch()

    def let_go_on(self) -> None:
        """A limit of bytes a second may leave room again."""
        if self._held:
            self._held = False
            self.rewatch()

    def rewatch(self) -> None:
        """Wait for what the state of the lane needs."""
        if self._channel is None:
            return
        if self.phase is Phase.MOVING and isinstance(self._mover, Incoming):
            self._look_at_end(self._mover, self._channel)
        if self.phase is Phase.CLOSED:
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
        self.fail(LaneTrouble("protocol", "an error in this program ended it; see the log"))

    # -- reading and writing -------------------------------------------------------------

    @property
    def _wants_read(self) -> bool:
        if isinstance(self._mover, Incoming):
            return self.phase is Phase.GREETING or (
                self.phase is Phase.MOVING and self._mover.hungry and not self._held
            )
        return self.phase in (Phase.GREETING, Phase.MOVING, Phase.LINGERING)

    @property
    def _wants_write(self) -> bool:
        if self.phase is Phase.DIALLING:
            return True
        if self.phase is Phase.CLOSED:
            return False
        if self._held and isinstance(self._mover, Outgoing):
            return False
        if self._channel is not None and self._channel.pending:
            return True
        return self.phase is Phase.MOVING and self._mover.wants_write

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
            self._linger(channel)
            return
        most = self._allowance() if isinstance(self._mover, Incoming) else None
        if most == 0:
            return
        count, record = channel.receive(most)
        if count and self._pace is not None:
            self._pace.touch()
            if isinstance(self._mover, Incoming):
                self._throttle.spend(self.effect.contact, count)
        if record is None:
            return
        if self.phase is Phase.GREETING:
            if record.type is not RecordType.HELLO:
                raise RemoteError(
                    "malformed", "a connection for files that does not begin with HELLO"
                )
            self._open(records.read_greeting(record.plain))
            return
        if record.type is RecordType.HELLO:
            raise RemoteError("malformed", "a second HELLO")
        self._mover.take(record)
        if self._pace is not None:
            self._pace.moved()

    def _write(self, channel: Channel) -> None:
        if self.phase is Phase.DIALLING:
            self._greet(channel)
        elif self.phase is Phase.MOVING and not channel.pending:
            self._mover.fill(channel)
            if self._pace is not None and channel.pending:
                self._pace.put()
        if not channel.pending:
            return
        self._flush(channel)
        if channel.pending:
            return
        if self.phase is Phase.LINGERING and isinstance(self._mover, Incoming):
            self.close()
        elif isinstance(self._mover, Outgoing) and self._mover.finished:
            self._finish()

    def _flush(self, channel: Channel) -> None:
        most = self._allowance() if isinstance(self._mover, Outgoing) else None
        if most == 0:
            return
        count = channel.flush(most)
        if count and self._pace is not None:
            self._pace.moved()
            if isinstance(self._mover, Outgoing):
                self._throttle.spend(self.effect.contact, count)

    def _allowance(self) -> int | None:
        """The bytes that may move now; with 0 it is held until there is room.  What opens a lane
        is never held."""
        if self._pace is None:
            return None
        most = self._throttle.allowance(self.effect.contact)
        self._held = most == 0
        return most

    def _limit(self) -> int:
        return self._throttle.rate(self.effect.contact)

    def _linger(self, channel: Channel) -> None:
        """The receiver goes on telling how far it is, and closes when it has all of it.  Whatever
        else it says does not matter any more."""
        try:
            count, _ = channel.receive()
        except (LaneTrouble, RemoteError):
            self.close()
            return
        if count:
            self._stay()

    def _look_at_end(self, mover: Incoming, channel: Channel) -> None:
        """Whether all is here: then only our last word is to be sent."""
        if not mover.finished:
            return
        mover.fill(channel)
        self._finish()
        if not channel.pending:
            self.close()

    # -- phases --------------------------------------------------------------------------

    def _greet(self, channel: Channel) -> None:
        lane_channel.connected(channel.socket)
        self._go(Phase.GREETING)
        self._expect(
            limits.HANDSHAKE_TIMEOUT_S, "the other side did not answer on the connection for files"
        )
        channel.put_bytes(lane_keys.MAGIC + self.effect.ticket)
        channel.put(RecordType.HELLO, records.greeting())

    def _open(self, greeting: Greeting) -> None:
        self._go(Phase.MOVING)
        if isinstance(self._mover, Outgoing) and greeting.zstd:
            self._mover.may_squeeze()
        self._stop_timers()
        self._loop.post(LaneOpened(self.effect.lane))
        self._pace = Pace(self._loop, self)

    def _finish(self) -> None:
        self._loop.post(LaneFinished(self.effect.lane, *self._mover.outcome()))
        self._go(Phase.LINGERING)
        self._stop_timers()
        self._mover.close()
        self._stay()

    def _tell_rest(self) -> None:
        """What went over this lane counts as sent twice, if it has to come again."""
        if self._pace is None:
            return
        if isinstance(self._mover, Outgoing):
            self._pace.tell_rest()
        else:
            done = self._mover.figures()[0]
            self._loop.post(LaneProgressed(self.effect.lane, done, self._mover.received))

    def _stay(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(limits.LANE_IDLE_TIMEOUT_S, self.close)

    def _stop_timers(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._pace is not None:
            self._pace.stop()
            self._pace = None

    def _go(self, phase: Phase) -> None:
        if phase not in _NEXT[self.phase]:
            raise AssertionError(f"a lane cannot go from {self.phase.name} to {phase.name}")
        self.phase = phase

    # -- timers and callbacks ------------------------------------------------------------

    def _expect(self, seconds: float, text: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, lambda: self.fail(LaneTrouble("cut", text)))

    # -- called by the pace --------------------------------------------------------------

    def figures(self) -> tuple[int, ...]:
        """How far it is."""
        return self._mover.figures()

    def tell(self) -> None:
        """Tell the node how far it is, and, as the receiver, the sender."""
        mover = self._mover
        if isinstance(mover, Outgoing):
            self._loop.post(LaneProgressed(self.effect.lane, *mover.figures()))
            return
        done = mover.figures()[0]
        if done != self._told:
            self._told = done
            self._loop.post(LaneProgressed(self.effect.lane, done, mover.received))
        mover.tell_progress()
        self.rewatch()

    def still_alive(self) -> None:
        """Say that we are here, where the other side may wonder."""
        channel = self._channel
        busy = self._mover.busy or self._throttle.limits(self.effect.contact)
        if channel is None or channel.pending or not busy:
            return
        if isinstance(self._mover, Outgoing):
            channel.put(RecordType.ALIVE)
        else:
            self._mover.tell_progress()
        self.rewatch()

    def stuck(self) -> None:
        """Nothing moved for long.  Of a record that comes very slowly there may be bytes that did
        not wake us."""
        if self._wants_read and isinstance(self._mover, Incoming):
            self._guarded(self._read)
        if self._pace is None or not self._pace.idle:
            return
        pending = self._channel is not None and self._channel.pending
        due = self._mover.due if isinstance(self._mover, Outgoing) else self._mover.hungry
        if (due or pending) and not self._held:
            self.fail(LaneTrouble("stall", "nothing moved on the connection for a minute"))
