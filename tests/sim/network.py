"""The network between the machines: addresses, dials, links, and what goes wrong with them.

What holds always: both ends of a connection have the same exporter value and nobody else does;
a dial ends in LinkOpened or DialFailed, a link in one LinkClosed, as tntd/shell/links.py has it;
a process that has ended hears nothing more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tntd import limits
from tntd.effects import CloseLink, Dial
from tntd.errors import RemoteError
from tntd.events import DialFailed, FrameArrived, LinkBroken, LinkClosed, LinkOpened
from tntd.wire.frames import FrameReader

from .faults import Faults
from .heap import Heap
from .pipe import Pipe

if TYPE_CHECKING:
    from .machine import Machine
    from .process import Process


class End:
    """One end of a link, in one process.  `known` ends the time-out for strangers."""

    def __init__(self, process: Process, connection: Connection, number: int) -> None:
        self.process = process
        self.connection = connection
        self.number = number
        self.reader = FrameReader(limits.STRANGER_FRAME_BYTES_MAX)
        self.unsent_max = limits.STRANGER_BUFFER_BYTES_MAX
        self.out: Pipe
        self.open = True
        self.told = False  # the node has heard of it
        self.known = False
        self.broken = False
        self._early = b""

    def opened(self, event: LinkOpened) -> None:
        """TLS is up here: the node hears of it, and then of what has come already."""
        self.told = True
        self.process.ends[self.number] = self
        self.process.loop.post(event)
        early, self._early = self._early, b""
        if early:
            self.receive(early)

    def send(self, data: bytes) -> None:
        """Send whole frames; a link that is stuck is closed."""
        self.out.push(data)
        self.connection.sent()
        if self.out.queued > self.unsent_max:
            self.lost("the other side does not take what is sent to it")
            self.out.drop()

    def receive(self, data: bytes) -> None:
        """Bytes arrived."""
        if not self.process.alive:
            self.connection.reset(self)
            return
        if not self.open or self.broken:
            return
        if not self.told:
            self._early += data
            return
        self.reader.feed(data)
        try:
            while (frame := self.reader.next_frame()) is not None:
                self.process.loop.post(FrameArrived(self.number, *frame))
        except RemoteError as error:
            self.broken = True
            self.process.loop.post(LinkBroken(self.number, error.code, error.detail))

    def lost(self, reason: str) -> None:
        """The connection is gone."""
        if self.open and self.told and self.process.alive:
            self.process.ends.pop(self.number, None)
            self.process.loop.post(LinkClosed(self.number, reason))
        self.open = False
        self.out.finish("the other side closed the link")

    def raise_limit(self, frame_bytes_max: int) -> None:
        """The other side is trusted: longer frames are taken, and more is kept for it."""
        self.reader.frame_bytes_max = frame_bytes_max
        self.unsent_max = limits.LINK_BUFFER_BYTES_MAX

    def close(self, effect: CloseLink) -> None:
        """The node closes it: what was sent goes out, then the end."""
        self.open = False
        self.process.ends.pop(self.number, None)
        self.out.finish("the other side closed the link")
        self.process.later(0.001, lambda: self._closed(effect.reason))

    def _closed(self, reason: str) -> None:
        self.process.loop.post(LinkClosed(self.number, reason))


class Connection:
    """A link between two processes: `ends[0]` dialled."""

    def __init__(self, network: Network, dialler: Process, acceptor: Process) -> None:
        self.exporter = network.rng.randbytes(32)
        self._network = network
        first = End(dialler, self, dialler.loop.next_number())
        second = End(acceptor, self, acceptor.loop.next_number())
        self.ends = (first, second)
        for end, other in ((first, second), (second, first)):
            names = end.process.machine.name, other.process.machine.name
            end.out = Pipe(network, *names, other.receive, other.lost)

    def other(self, end: End) -> End:
        """The opposite end."""
        return self.ends[1] if end is self.ends[0] else self.ends[0]

    def sent(self) -> None:
        """Something was sent: a cut may wait for just that."""
        network = self._network
        if network.cut_in is not None:
            network.cut_in -= 1
            if network.cut_in < 0:
                network.cut_in = None
                network.cut(self)

    def reset(self, end: End) -> None:
        """Bytes came to a process that is no more: the sender is told."""
        end.out.finish("connection reset by the other side")

    @property
    def alive(self) -> bool:
        """Whether at least one process still counts on it."""
        return any(end.open and end.process.alive for end in self.ends)


class Network:
    """All machines and the ways between them."""

    def __init__(self, heap: Heap, faults: Faults) -> None:
        self.heap = heap
        self.faults = faults
        self.rng = heap.stream("network")
        self.machines: dict[str, Machine] = {}
        self.connections: list[Connection] = []
        self.cut_in: int | None = None  # so many frames later the link that they are on is cut
        self.names: dict[str, str] = {}  # host names and where they lead
        self._silent: dict[tuple[str, str], float] = {}
        self._waiting: list[Callable[[], None]] = []

    # -- ways ----------------------------------------------------------------------------

    def blocked(self, source: str, target: str) -> bool:
        """Whether nothing arrives from one machine at another now."""
        if not (self.machines[source].reachable and self.machines[target].reachable):
            return True
        return self._silent.get((source, target), 0.0) > self.heap.now

    def silence(self, source: str, target: str, seconds: float) -> None:
        """Nothing arrives in this direction for a while."""
        until = self.heap.now + seconds
        self._silent[source, target] = max(until, self._silent.get((source, target), 0.0))
        self.heap.at(until, self.kick)

    def heal(self) -> None:
        """All ways are free."""
        self._silent.clear()
        self.kick()

    def wait(self, retry: Callable[[], None]) -> None:
        """Call back at the next `kick`."""
        self._waiting.append(retry)

    def kick(self) -> None:
        """Something has changed: what was held tries again."""
        waiting, self._waiting = self._waiting, []
        for retry in waiting:
            self.heap.after(0.0, retry)

    def live(self) -> list[Connection]:
        """The connections that somebody counts on."""
        self.connections = [each for each in self.connections if each.alive]
        return self.connections

    def delay(self) -> float:
        """Seconds that one piece takes."""
        return self.faults.latency_s * (1.0 + self.faults.jitter * self.rng.random())

    def find(self, host: str, port: int) -> Machine | None:
        """Who has this address now."""
        for machine in self.machines.values():
            if machine.host == host and machine.port == port:
                return machine
        return None

    # -- dials ---------------------------------------------------------------------------

    def dial(self, process: Process, effect: Dial) -> None:
        """Connect: LinkOpened or DialFailed follows."""
        process.dials.add(effect.dial)
        late = f"no answer within {limits.DIAL_TIMEOUT_S:.0f} s"
        process.later(limits.DIAL_TIMEOUT_S, lambda: self._failed(process, effect, late))
        self.heap.after(self.delay(), lambda: self._knock(process, effect))

    def _failed(self, process: Process, effect: Dial, reason: str) -> None:
        if process.alive and effect.dial in process.dials:
            process.dials.discard(effect.dial)
            process.loop.post(DialFailed(effect.dial, reason))

    def _knock(self, process: Process, effect: Dial) -> None:
        if not process.alive or effect.dial not in process.dials:
            return
        machine = self.find(effect.host, effect.port)
        if machine is None:
            if self.rng.random() < 0.5:
                process.later(self.delay(), lambda: self._failed(process, effect, "no route"))
            return  # else nobody says anything
        here, there = process.machine.name, machine.name
        if here != there and (self.blocked(here, there) or self.blocked(there, here)):
            return
        if machine.process is None:
            process.later(self.delay(), lambda: self._failed(process, effect, "refused"))
            return
        self._connect(process, effect, machine.process)

    def _connect(self, dialler: Process, effect: Dial, acceptor: Process) -> None:
        connection = Connection(self, dialler, acceptor)
        self.connections.append(connection)
        first, second = connection.ends
        delay = 2 * self.delay()
        self.heap.after(delay, lambda: self._opened(first, effect))
        port = self.rng.randrange(32768, 60000)
        host = dialler.machine.host
        self.heap.after(delay + self.delay(), lambda: self._accepted(second, host, port))

    def _opened(self, end: End, effect: Dial) -> None:
        process = end.process
        if not process.alive or effect.dial not in process.dials or not end.open:
            self._failed(process, effect, "the connection broke")
            end.open = False
            end.out.finish("the dial was given up")
            return
        process.dials.discard(effect.dial)
        exporter = end.connection.exporter
        end.opened(LinkOpened(end.number, effect.dial, effect.host, effect.port, exporter, "sim"))
        self._watch(end, "it did not say who it is")

    def _accepted(self, end: End, host: str, port: int) -> None:
        process = end.process
        if not process.alive or not end.open:
            end.out.finish("connection reset by the other side")
            return
        end.opened(LinkOpened(end.number, None, host, port, end.connection.exporter, "sim"))
        self._watch(end, "it stayed silent")

    def _watch(self, end: End, reason: str) -> None:
        def late() -> None:
            if end.open and not end.known:
                end.lost(reason)

        end.process.later(limits.HANDSHAKE_TIMEOUT_S, late)

    # -- faults --------------------------------------------------------------------------

    def cut(self, connection: Connection) -> None:
        """The connection breaks at some byte; an end may not even notice."""
        for end in connection.ends:
            end.out.cut(self.rng.random())
            if self.rng.random() < 0.8:
                end.out.finish("the connection broke")
            else:
                end.out.drop()

    def ended(self, process: Process, how: str) -> None:
        """A process is no more: what it has sent may arrive, what comes to it does not."""
        for connection in self.live():
            for end in connection.ends:
                if end.process is not process:
                    continue
                if how != "stop" and self.rng.random() >= self.faults.released_arrives:
                    end.out.cut(self.rng.random())
                if how != "power":
                    end.out.finish("the other side closed the connection")
                end.open = False
