"""A TCP proxy that spoils what goes through it, to stand between two real daemons.

What holds always: without a fault it carries every byte unchanged; a fault can be put on and taken
off while connections are open, for each direction alone; and `close` ends every thread.  Bytes are
never dropped out of the middle of a stream, because TCP does not do that either: silence keeps
them back, and a cut loses what had not gone through yet.

Two threads a connection, which look at the faults before each piece.  They wake up by themselves
every TICK_S, so that a fault need not know what a thread waits for.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

TICK_S = 0.1
PIECE_BYTES = 64 * 1024
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


@dataclass
class Way:
    """The faults of one direction; what is set counts from the next piece of bytes on."""

    delay_s: float = 0.0  # kept back so long, each piece
    rate: float = 0.0  # bytes a second; 0: no limit
    silent: bool = False  # nothing goes through, and nothing is lost
    corrupt: int = 0  # in so many pieces to come, one bit is turned
    cut_after: int = -1  # after so many bytes everything is cut; -1: never
    moved: int = 0  # bytes so far
    usual_rate: float = 0.0  # the rate while there is no fault

    def clear(self) -> None:
        """No faults any more."""
        self.delay_s, self.rate, self.silent = 0.0, self.usual_rate, False
        self.corrupt, self.cut_after = 0, -1


@dataclass(eq=False)
class _Pair:
    """The two sockets of one connection."""

    near: socket.socket
    far: socket.socket
    dead: bool = False
    halves: set[str] = field(default_factory=set)  # directions that were closed by a fault
    ended: int = 0  # directions that are through

    def close(self, *, reset: bool = False) -> None:
        """No more of it; the threads notice within TICK_S."""
        for sock in (self.near, self.far):
            with contextlib.suppress(OSError):
                if reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                else:
                    sock.shutdown(socket.SHUT_RDWR)
        self.dead = True


class Proxy:
    """Listens on `port` of 127.0.0.1 and leads to `target`, a port of 127.0.0.1.

    `forth` is the way from who connects to the target, `back` the other; `refuse` closes new
    connections at once.
    """

    def __init__(self, target: int, seed: int = 0, *, buffer_bytes: int = 0) -> None:
        """`buffer_bytes`: what a socket of ours may hold, about; 0: what the system thinks fit."""
        self.target = target
        self.forth = Way()
        self.back = Way()
        self.refuse = False
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._pairs: set[_Pair] = set()
        self._closed = False
        self._threads: set[threading.Thread] = set()
        self._buffer_bytes = buffer_bytes
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._bound(self._listener)  # what it accepts has the same
        self._listener.settimeout(TICK_S)
        self.port: int = self._listener.getsockname()[1]
        self._start(self._listen)

    @property
    def address(self) -> str:
        """Where to connect."""
        return f"127.0.0.1:{self.port}"

    @property
    def count(self) -> int:
        """Connections that are open now."""
        return len(self._pairs)

    # -- faults of whole connections ----------------------------------------------------

    def cut(self, *, reset: bool) -> int:
        """End every connection, with a reset or an orderly end; how many there were."""
        pairs = self._all()
        for pair in pairs:
            pair.close(reset=reset)
        return len(pairs)

    def half_close(self, way: str) -> int:
        """On every connection, say that nothing more comes that way ("forth" or "back"), and lose
        what does; the other way stays open.  How many there were."""
        pairs = self._all()
        for pair in pairs:
            pair.halves.add(way)
            with contextlib.suppress(OSError):
                (pair.far if way == "forth" else pair.near).shutdown(socket.SHUT_WR)
        return len(pairs)

    def clear(self) -> None:
        """No faults any more; what was cut stays cut."""
        self.refuse = False
        self.forth.clear()
        self.back.clear()

    def close(self) -> None:
        """End everything."""
        self._closed = True
        self.cut(reset=True)
        for thread in list(self._threads):
            thread.join(10)
        self._listener.close()

    # -- threads -------------------------------------------------------------------------

    def _all(self) -> list[_Pair]:
        with self._lock:
            return list(self._pairs)

    def _start(self, run: object, *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)  # type: ignore[arg-type]
        with self._lock:
            self._threads = {each for each in self._threads if each.is_alive()} | {thread}
            thread.start()

    def _listen(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                time.sleep(TICK_S)
                continue
            self._accept(near)

    def _accept(self, near: socket.socket) -> None:
        try:
            if self.refuse:
                raise ConnectionRefusedError
            far = socket.create_connection(("127.0.0.1", self.target), 5)
            self._bound(far)
        except OSError:
            near.close()
            return
        pair = _Pair(near, far)
        for sock in (near, far):
            sock.settimeout(TICK_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._pairs.add(pair)
        self._start(self._carry, pair, "forth", near, far, self.forth)
        self._start(self._carry, pair, "back", far, near, self.back)

    def _bound(self, sock: socket.socket) -> None:
        if self._buffer_bytes:
            for which in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                sock.setsockopt(socket.SOL_SOCKET, which, self._buffer_bytes)

    def _carry(
        self, pair: _Pair, name: str, source: socket.socket, goal: socket.socket, way: Way
    ) -> None:
        try:
            while not pair.dead:
                piece = _read(source)
                if piece == b"":
                    with contextlib.suppress(OSError):
                        goal.shutdown(socket.SHUT_WR)
                    break
                if piece is not None and name not in pair.halves:
                    self._pass(pair, piece, goal, way)
        except OSError:
            pair.close(reset=True)
        self._end(pair)

    def _pass(self, pair: _Pair, piece: bytes, goal: socket.socket, way: Way) -> None:
        if way.delay_s:
            _wait(pair, way.delay_s)
        while way.silent and not pair.dead:
            time.sleep(TICK_S / 2)
        if way.corrupt > 0:
            way.corrupt -= 1
            piece = self._spoil(piece)
        if 0 <= way.cut_after <= len(piece):
            piece, way.cut_after = piece[: way.cut_after], -1
            _write(pair, goal, piece)
            self.cut(reset=True)
        elif way.cut_after >= 0:
            way.cut_after -= len(piece)
        way.moved += len(piece)  # before it is there: what it brings about may be seen at once
        _write(pair, goal, piece)
        if way.rate:
            _wait(pair, len(piece) / way.rate)

    def _spoil(self, piece: bytes) -> bytes:
        spoilt = bytearray(piece)
        spoilt[self._chance.randrange(len(piece))] ^= 1 << self._chance.randrange(8)
        return bytes(spoilt)

    def _end(self, pair: _Pair) -> None:
        with self._lock:
            pair.ended += 1
            last = pair.ended == 2
            if last:
                self._pairs.discard(pair)
        if last:
            pair.near.close()
            pair.far.close()


def _read(source: socket.socket) -> bytes | None:
    try:
        return source.recv(PIECE_BYTES)
    except TimeoutError:
        return None


def _write(pair: _Pair, goal: socket.socket, piece: bytes) -> None:
    view = memoryview(piece)
    while view and not pair.dead:
        with contextlib.suppress(TimeoutError):
            view = view[goal.send(view) :]


def _wait(pair: _Pair, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not pair.dead and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, TICK_S))
