"""A crowd of strangers at one daemon's door, as a process of its own.

    python crowd.py PORT COUNT RATE

What holds always: COUNT connections in all, at most RATE begun a second and HELD_MAX open at once,
all from this machine (127.0.0.0/8) to this machine; it ends when the last is over.  Most strangers
say nothing or nonsense; some go as far as a stranger can: a TLS handshake, then noise or silence.
It prints what became of them as JSON.
"""

from __future__ import annotations

import contextlib
import json
import random
import selectors
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import Iterator

HELD_MAX = 700
PATIENCE_S = 12.0  # the daemon's own time-out is 5 s
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"  # the beginning of a TLS hello of 512 bytes
KINDS = [
    "silent",
    "noise",
    "http",
    "half a hello",
    "hello bomb",
    "lane",
    "drip",
    "tls",
    "tls noise",
]


def source(number: int) -> str:
    """An address of this machine that is not its usual one; some come twice."""
    number = number % 4500
    return f"127.{1 + number // 62500}.{1 + number // 250 % 250}.{1 + number % 250}"


class Stranger:
    """One connection."""

    def __init__(self, number: int, kind: str, port: int) -> None:
        self.kind = kind
        self.until = time.monotonic() + PATIENCE_S
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.bind((source(number), 0))
        with contextlib.suppress(BlockingIOError):
            self.sock.connect(("127.0.0.1", port))
        self.said = False
        self.tls: ssl.SSLObject | None = None
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        if kind.startswith("tls"):
            self.tls = _context().wrap_bio(self.incoming, self.outgoing)

    def speak(self) -> None:
        """Say what this kind of stranger says, once connected."""
        chance = random.Random(self.sock.fileno())
        words = {
            "noise": chance.randbytes(2000),
            "http": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
            "half a hello": HELLO,
            "hello bomb": HELLO + bytes(60_000),
            "lane": b"TNTLANE1" + chance.randbytes(200),
            "drip": b"\x16",
        }
        if self.tls is not None:
            self.shake()
        elif self.kind in words:
            self._send(words[self.kind])
        self.said = True

    def shake(self) -> None:
        """One step of a handshake; noise behind it."""
        assert self.tls is not None
        try:
            self.tls.do_handshake()
            if self.kind == "tls noise":
                self.tls.write(random.Random(1).randbytes(8000))
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            return
        if self.outgoing.pending:
            self._send(self.outgoing.read())

    def hear(self) -> bool:
        """Read; False at the end."""
        try:
            data = self.sock.recv(65_536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if data and self.tls is not None:
            self.incoming.write(data)
            self.shake()
        return bool(data)

    def _send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.sock.send(data)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["tnt/1"])
    return context


class Crowd:
    """All of them."""

    def __init__(self, port: int, count: int, rate: float) -> None:
        self._port = port
        self._count = count
        self._rate = rate
        self._selector = selectors.DefaultSelector()
        self._held: set[Stranger] = set()
        self.fates: Counter[str] = Counter()

    def run(self) -> None:
        """Come, talk and go."""
        began = time.monotonic()
        come = 0
        while come < self._count or self._held:
            due = min(self._count, int((time.monotonic() - began) * self._rate) + 1)
            while come < due and len(self._held) < HELD_MAX:
                self._come(come)
                come += 1
            for stranger, mask in self._ready():
                if mask & selectors.EVENT_WRITE and not stranger.said:
                    stranger.speak()
                    self._selector.modify(stranger.sock, selectors.EVENT_READ, stranger)
                if mask & selectors.EVENT_READ and not stranger.hear():
                    self._leave(stranger, "hung up on")
            now = time.monotonic()
            for stranger in [each for each in self._held if each.until < now]:
                self._leave(stranger, "left by itself")

    def _come(self, number: int) -> None:
        try:
            stranger = Stranger(number, KINDS[number % len(KINDS)], self._port)
        except OSError:
            self.fates["not begun"] += 1
            return
        self._held.add(stranger)
        both = selectors.EVENT_READ | selectors.EVENT_WRITE
        self._selector.register(stranger.sock, both, stranger)

    def _ready(self) -> Iterator[tuple[Stranger, int]]:
        for key, mask in self._selector.select(0.02):
            if key.data in self._held:
                yield key.data, mask

    def _leave(self, stranger: Stranger, fate: str) -> None:
        if stranger in self._held:
            self._held.discard(stranger)
            self._selector.unregister(stranger.sock)
            stranger.sock.close()
            self.fates[fate] += 1


if __name__ == "__main__":
    crowd = Crowd(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
    crowd.run()
    print(json.dumps(crowd.fates))
