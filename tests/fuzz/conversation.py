"""One link as its other end has it: real proofs, the shell's cutting of bytes into frames."""

from __future__ import annotations

import msgspec

from tntd import limits
from tntd.errors import RemoteError
from tntd.events import FrameArrived, LinkBroken
from tntd.machines.identity import Identity
from tntd.machines.session import Session
from tntd.wire.frames import NUMBERS, Auth, Frame, FrameReader, Hello, Trusted, encode

from .bench import Bench


def exporter(link: int) -> bytes:
    """What both ends of a link derive from its TLS; no two links have the same."""
    return bytes([link % 256]) * 32


class Conversation:
    """One link as the other side has it."""

    def __init__(self, bench: Bench, identity: Identity, link: int, *, dialled: bool) -> None:
        self.bench = bench
        self.link = link
        self.session = Session(identity, exporter(link), dialled=dialled)
        self.reader = FrameReader(limits.FRAME_BYTES_MAX)
        self.greeted = False

    @property
    def alive(self) -> bool:
        """Whether the daemon still reads it."""
        return self.link in self.bench.links and self.link not in self.bench.closed_links

    def say(self, *frames: Frame) -> None:
        """Whole frames, in one turn."""
        self.stream(b"".join(encode(frame) for frame in frames))

    def stream(self, data: bytes) -> None:
        """Bytes, in one turn."""
        events = self.events(data) if self.alive else []
        if events:
            self.bench.turn(*events)

    def events(self, data: bytes) -> list[FrameArrived | LinkBroken]:
        """What the shell makes of the bytes."""
        self.reader.feed(data)
        events: list[FrameArrived | LinkBroken] = []
        try:
            while (found := self.reader.next_frame()) is not None:
                events.append(FrameArrived(self.link, *found))
        except RemoteError as error:
            events.append(LinkBroken(self.link, error.code, error.detail))
            self.reader = FrameReader(limits.FRAME_BYTES_MAX)
        return events

    def prove(self) -> None:
        """Who we are, and who they are."""
        if self.session.dialled:
            self.say(self.session.auth())
            self._listen()
            return
        self._listen()
        if self.session.peer_key is not None:
            self.say(self.session.auth())

    def greet(self, hello: Hello) -> None:
        """What comes after the proofs."""
        if self.session.peer_key is not None:
            self.greeted = True
            self.say(hello)
            self._listen()

    def trust(self, trusted: Trusted) -> None:
        """The last step, after which all may flow."""
        self.session.said_trusted = True
        self.say(trusted)

    def _listen(self) -> None:
        frames = self.bench.frames.get(self.link, [])
        for frame in frames:
            if isinstance(frame, Auth | Hello | Trusted):
                number = NUMBERS[type(frame)]
                self.session.receive(number, msgspec.msgpack.encode(frame))
        frames.clear()
