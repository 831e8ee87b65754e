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

EXPORTER = b"e" * 32


class Conversation:
    """One link as the other side has it; it answers the handshake by itself."""

    def __init__(self, bench: Bench, identity: Identity, link: int, *, dialled: bool) -> None:
        self.bench = bench
        self.link = link
        self.session = Session(identity, EXPORTER, dialled=dialled)
        self.reader = FrameReader(limits.FRAME_BYTES_MAX)

    @property
    def alive(self) -> bool:
        return self.link in self.bench.links and self.link not in self.bench.closed_links

    def say(self, *frames: Frame) -> None:
        """Whole frames, in one turn."""
        self.stream(b"".join(encode(frame) for frame in frames))

    def stream(self, data: bytes) -> None:
        """Bytes, cut into frames as the shell does it."""
        if not self.alive:
            return
        self.reader.feed(data)
        events: list[FrameArrived | LinkBroken] = []
        try:
            while (found := self.reader.next_frame()) is not None:
                events.append(FrameArrived(self.link, *found))
        except RemoteError as error:
            events.append(LinkBroken(self.link, error.code, error.detail))
            self.reader = FrameReader(limits.FRAME_BYTES_MAX)
        if events:
            self.bench.turn(*events)

    def shake_hands(self, hello: Hello, trusted: Trusted | None) -> None:
        """As far as it goes."""
        if self.session.dialled:
            self.say(self.session.auth())
        self._listen()
        if self.session.peer_key is None:
            return
        self.say(*([] if self.session.dialled else [self.session.auth()]), hello)
        self._listen()
        if trusted is not None:
            self.session.said_trusted = True
            self.say(trusted)

    def _listen(self) -> None:
        frames = self.bench.frames.get(self.link, [])
        for frame in frames:
            if isinstance(frame, Auth | Hello | Trusted):
                number = NUMBERS[type(frame)]
                self.session.receive(number, msgspec.msgpack.encode(frame))
        frames.clear()
