"""Parts of the shell on real sockets, without a node: what a test sees of one side.

Several sides share one thread, as each only ever does what is ready.  Time is put forward by
hand, so that no test waits for a time-out, and none comes because the machine stood still.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TypeVar

from tntd.events import Event, Now
from tntd.shell.clock import Clock
from tntd.shell.cuts import CutLog
from tntd.shell.links import Links
from tntd.shell.listener import Listener
from tntd.shell.listening import open_listeners
from tntd.shell.loop import Loop
from tntd.shell.tls import Tls

E = TypeVar("E", bound=Event)
BOUND_S = 60.0


class SteppedClock(Clock):
    """A real clock that can be put forward, and stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0
        self.wall_ahead_ms = 0
        self._stopped: tuple[Now, float] | None = None

    def stop(self) -> None:
        """From now on it goes only where it is put forward."""
        self._stopped = super().now(), super().awake()

    def awake(self) -> float:
        return self._stopped[1] if self._stopped else super().awake()

    def now(self) -> Now:
        now = self._stopped[0] if self._stopped else super().now()
        return Now(now.boot + self.ahead, now.wall_ms + self.wall_ahead_ms)


class NoLanes:
    """Takes lanes and closes them; remembers what they began with."""

    def __init__(self) -> None:
        self.adopted: list[tuple[str, bytes]] = []

    def adopt(self, sock: socket.socket, host: str, release: Callable[[], None]) -> None:
        self.adopted.append((host, sock.recv(8, socket.MSG_PEEK)))
        sock.close()
        release()


class Side:
    """A loop, and the events that it has told so far."""

    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.clock.stop()
        self.loop = Loop(self.clock)
        self.events: list[Event] = []

    def spin(self) -> None:
        """One turn without sleeping."""
        self.loop.collect(0.0)
        self.events += self.loop.take_events()
        self.flush()
        self.loop.run_bulk()

    def flush(self) -> None:
        """What the world does at the end of a turn."""

    def of(self, kind: type[E]) -> list[E]:
        """The events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]


class PeerSide(Side):
    """A side with links and a listener on loopback."""

    def __init__(self, links_max: int = 4000, host: str = "127.0.0.1") -> None:
        super().__init__()
        self.tls = Tls()
        self.cuts = CutLog(self.loop)
        self.links = Links(self.loop, self.tls, self.cuts, links_max)
        sockets, self.port, _ = open_listeners([(host, 0)], 0)
        self.lanes = NoLanes()
        self.listener = Listener(self.loop, sockets, self.links, self.lanes, self.cuts)

    def flush(self) -> None:
        self.links.flush()


def spin_until(look: Callable[[], object], *sides: Side) -> None:
    """Turn all sides until `look` finds something true."""
    end = time.monotonic() + BOUND_S
    while not look():
        if time.monotonic() > end:
            raise AssertionError(f"not within {BOUND_S} s; {[side.events[-9:] for side in sides]}")
        for side in sides:
            side.spin()
        time.sleep(0.0005)


def spin_turns(count: int, *sides: Side) -> None:
    """Turn all sides a number of times: to see that something does not happen."""
    for _ in range(count):
        for side in sides:
            side.spin()


def read_all(sock: socket.socket, *sides: Side) -> bytes:
    """What comes on a raw socket until its end (a reset counts as one); then it is closed."""
    sock.setblocking(False)
    data = bytearray()
    ended = False

    def look() -> bool:
        nonlocal ended
        try:
            piece = sock.recv(65536)
            data.extend(piece)
            ended = not piece
        except BlockingIOError:
            pass
        except ConnectionError:
            ended = True
        return ended

    spin_until(look, *sides)
    sock.close()
    return bytes(data)
