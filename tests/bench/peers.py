"""A program with many light peers that are linked with one daemon and acknowledge its mail.

    python -m tests.bench.peers PORT COUNT

Each dials from a loopback address of its own, because a daemon takes few strangers from one.  It
prints a line "linked N" as they come, and goes on until it is ended.  It is a program of its own so
that its work is not counted as the daemon's.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time

from OpenSSL import SSL

from tests.peer import PeerClosed, RawPeer
from tntd.wire.frames import Ack, Envelope, FrameReader, Ping, Pong, decode

RATE_PER_S = 40.0  # the daemon takes 50 handshakes a second from strangers
_TRIES = 20


class LightPeer:
    """One link, open; the daemon's user has accepted it."""

    def __init__(self, number: int, port: int) -> None:
        host = f"127.1.{number // 250}.{number % 250 + 1}"
        sock = socket.create_connection(("127.0.0.1", port), 20, source_address=(host, 0))
        self.peer = RawPeer(sock, dialled=True)
        self.peer.handshake()
        self.peer.authenticate()
        self.peer.greet(name=f"light{number:05}", explicit=True)
        self.peer.trust()
        self._reader: FrameReader = self.peer._reader
        sock.setblocking(False)

    def ready(self) -> None:
        """Read what is there and answer it.  Raises PeerClosed."""
        try:
            data = self.peer.sock.recv(65_536)
        except BlockingIOError:
            return
        if not data:
            raise PeerClosed
        self.peer.tls.bio_write(data)
        self.answer()

    def answer(self) -> None:
        """Answer what has been read."""
        try:
            while True:
                self._reader.feed(self.peer.tls.recv(65_536))
        except SSL.WantReadError:
            pass
        upto = None
        while (found := self._reader.next_frame()) is not None:
            frame = decode(*found)
            if isinstance(frame, Envelope):
                upto = Ack(epoch=frame.epoch, number=frame.number)
            elif isinstance(frame, Ping):
                self.peer.send_frame(Pong(nonce=frame.nonce))
        if upto is not None:
            self.peer.send_frame(upto)


def link(number: int, port: int) -> LightPeer:
    """A new one; tried again where the daemon takes no more strangers for the moment."""
    for _ in range(_TRIES):
        try:
            return LightPeer(number, port)
        except (PeerClosed, OSError, SSL.Error):
            time.sleep(0.5)
    raise SystemExit(f"peer {number} is not let in")


def main() -> None:
    """Link all, then answer for ever."""
    port, count = int(sys.argv[1]), int(sys.argv[2])
    selector = selectors.DefaultSelector()
    due = time.monotonic()
    for number in range(count):
        made = link(number, port)
        selector.register(made.peer.sock, selectors.EVENT_READ, made)
        made.answer()
        print(f"linked {number + 1}", flush=True)
        due = max(due + 1 / RATE_PER_S, time.monotonic())
        _serve(selector, due)
    while True:
        _serve(selector, None)


def _serve(selector: selectors.BaseSelector, until: float | None) -> None:
    """Answer whoever speaks, until then or once."""
    while True:
        left = None if until is None else max(0.0, until - time.monotonic())
        for key, _ in selector.select(left):
            key.data.ready()
        if until is None or time.monotonic() >= until:
            return


if __name__ == "__main__":
    main()
