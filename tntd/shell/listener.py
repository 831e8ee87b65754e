"""Accepting peers: the gate admits, the first byte says what a connection wants to be.

What holds always: who is not admitted is closed before anything is read or spent on them; who
is, has until HANDSHAKE_TIMEOUT_S after being accepted to say who they are.  A TLS hello begins
with 0x16, a lane with the T of its magic; anything else is cut without a word.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from tntd import limits
from tntd.effects import Vouch
from tntd.machines.addresses import plain_host
from tntd.machines.gate import Gate, Place, Refusal
from tntd.shell.cuts import CutLog
from tntd.shell.door import Door
from tntd.shell.links import Links
from tntd.shell.loop import Loop
from tntd.shell.stream import in_words

TLS_HELLO = b"\x16"
LANE_HELLO = b"T"


class _GiveBack(Protocol):
    def __call__(self, *, free: bool = False) -> None: ...


class LaneHost(Protocol):
    """Who takes the connections that want to be lanes."""

    def adopt(self, sock: socket.socket, host: str, release: Callable[[bool], None]) -> None:
        """Take the socket, nothing of which was read; `release` returns its place, once, and says
        whether it has proved to be one of our lanes."""


class Listener:
    """The listening sockets of peers, in the loop."""

    def __init__(
        self,
        loop: Loop,
        sockets: list[socket.socket],
        links: Links,
        lanes: LaneHost,
        cuts: CutLog,
    ) -> None:
        self._gate = Gate(loop.now().boot)
        self._loop = loop
        self._links = links
        self._lanes = lanes
        self._cuts = cuts
        self._arrivals: set[_Arrival] = set()
        self._doors = [Door(loop, sock, self._accepted) for sock in sockets]

    def vouch(self, effect: Vouch) -> None:
        """These are the addresses of contacts."""
        self._gate.vouch(effect.hosts)

    def close(self) -> None:
        """Accept no more, and cut who has not said anything yet."""
        for door in self._doors:
            door.close()
        for arrival in list(self._arrivals):
            arrival.cut(None)

    def _accepted(self, sock: socket.socket, address: Any) -> None:
        host = plain_host(address[0])
        found = self._admit(host)
        if isinstance(found, str):
            sock.close()
            self._cuts.add(host, found)
            return
        with contextlib.suppress(OSError):  # on a socket that is dead already
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        arrival = _Arrival(
            self._loop, sock, (host, address[1]), partial(self._gate.leave, found), self._decided
        )
        self._arrivals.add(arrival)

    def _admit(self, host: str) -> Place | str:
        """A place, or why there is none."""
        if self._links.full:
            return "too many links"
        found = self._gate.admit(host, self._loop.now().boot)
        return found.value if isinstance(found, Refusal) else found

    def _decided(self, arrival: _Arrival, first: bytes, reason: str | None) -> None:
        """`first` is the first byte; without one it was cut for `reason`, or by us for None."""
        self._arrivals.discard(arrival)
        if first == TLS_HELLO:
            self._links.adopt(
                arrival.sock, arrival.host, arrival.port, arrival.give_back, arrival.deadline
            )
            return
        if first == LANE_HELLO:
            self._lanes.adopt(arrival.sock, arrival.host, lambda ours: arrival.give_back(free=ours))
            return
        arrival.give_back()
        arrival.sock.close()
        if first or reason:
            self._cuts.add(arrival.host, reason or "neither TLS nor a lane")


class _Arrival:
    """An accepted connection that has not sent its first byte."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        address: tuple[str, int],
        give_back: _GiveBack,
        decided: Callable[[_Arrival, bytes, str | None], None],
    ) -> None:
        self.sock = sock
        self.host, self.port = address
        self.give_back = give_back
        self.deadline = loop.now().boot + limits.HANDSHAKE_TIMEOUT_S
        self._loop = loop
        self._decided = decided
        self._timer = loop.call_at(self.deadline, lambda: self.cut("it stayed silent"))
        sock.setblocking(False)
        loop.watch(sock, self, read=True, write=False)

    def ready(self, readable: bool, writable: bool) -> None:
        """Look at the first byte and leave it there."""
        try:
            first = self.sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.cut(in_words(error))
            return
        if not first:
            self.cut("it left without a word")
            return
        self._leave()
        self._decided(self, first, None)

    def broke(self, error: Exception) -> None:
        """A bug of ours."""
        self.cut(f"internal error: {type(error).__name__}")

    def cut(self, reason: str | None) -> None:
        """No more of this one."""
        self._leave()
        self._decided(self, b"", reason)

    def _leave(self) -> None:
        self._timer.cancel()
        self._loop.unwatch(self.sock)
