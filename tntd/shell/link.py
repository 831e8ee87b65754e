"""One connection to a peer: TLS on a stream, and frames inside TLS.

What holds always: in one turn at most TURN_EVENTS_MAX frames or TURN_BYTES_MAX bytes are taken;
what is left in our hands brings us back in the next turn without sleeping.  Frames sent in one
turn leave as one piece of TLS.  Once frames cannot be told apart nothing more is read.

A link does not know what it is for.  It tells its owner (links.py) when TLS is up and when all
is over, each once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tntd import limits
from tntd.errors import RemoteError
from tntd.events import FrameArrived, LinkBroken
from tntd.shell.loop import Loop, Timer
from tntd.shell.stream import Stream, StreamEnded
from tntd.shell.tls import PIECE_BYTES, TlsError, TlsSession
from tntd.wire.frames import FrameReader

_NOT_TAKEN = "the other side does not take what is sent to it"


class Owner(Protocol):
    """Who keeps the links."""

    def opened(self, link: Link) -> None:
        """TLS is up; gives the link its number."""

    def ended(self, link: Link, reason: str) -> None:
        """All is over; the link has to be let go of."""


class Link:
    """`number` is 0 until TLS is up; `dial` is None where the other side dialled.

    `timer` bounds what is under way (TLS, then authentication), `give_back` returns the place
    that the listener's gate lent (None: there is none to return).
    """

    def __init__(
        self,
        loop: Loop,
        owner: Owner,
        stream: Stream,
        tls: TlsSession,
        *,
        host: str,
        port: int,
        dial: int | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.dial = dial
        self.number = 0
        self.tls = tls
        self.timer: Timer | None = None
        self.give_back: Callable[[], None] | None = None
        self._loop = loop
        self._owner = owner
        self._stream = stream
        self._reader = FrameReader(limits.STRANGER_FRAME_BYTES_MAX)
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._unsent_bytes_max = limits.STRANGER_BUFFER_BYTES_MAX
        self._broken = False

    def start(self) -> None:
        """Join the loop, with the first bytes of TLS where we dialled."""
        self._stream.attach(self)
        self._stream.queue(self.tls.take_outgoing())
        self._stream.push()

    def ready(self, readable: bool, writable: bool) -> None:
        """Read and write what goes."""
        try:
            if readable and not self._broken:
                self._read()
            self._push()
        except (StreamEnded, TlsError) as error:
            self._owner.ended(self, str(error))

    def broke(self, error: Exception) -> None:
        """A bug of ours has hit this link."""
        self._owner.ended(self, f"internal error: {type(error).__name__}")

    def return_place(self) -> None:
        """Give the place at the gate back, the first time."""
        give_back, self.give_back = self.give_back, None
        if give_back is not None:
            give_back()

    def raise_frame_limit(self, frame_bytes_max: int) -> None:
        """They are trusted: take frames of up to so many bytes, and keep more for them."""
        self._reader.frame_bytes_max = frame_bytes_max
        self._unsent_bytes_max = limits.LINK_BUFFER_BYTES_MAX

    def send(self, data: bytes) -> None:
        """Send whole frames, with the next `flush`."""
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        if self._unsent_bytes + self._stream.queued > self._unsent_bytes_max:
            self._owner.ended(self, _NOT_TAKEN)

    def flush(self) -> None:
        """Encrypt what was sent in this turn, and let the socket take what it will."""
        try:
            self._encrypt()
            self._push()
        except (StreamEnded, TlsError) as error:
            self._owner.ended(self, str(error))

    def finish(self) -> Stream:
        """Queue the end of TLS behind all that was sent; the stream that is to be lingered on."""
        try:
            self._encrypt()
            self.tls.finish()
        except TlsError:
            self._unsent.clear()  # an alert took the place of our last words
        self._stream.queue(self.tls.take_outgoing())
        return self._stream

    def drop(self) -> None:
        """Let go of the socket at once, after one try to send what is ready, such as an alert."""
        self._stream.queue(self.tls.take_outgoing())
        try:
            self._stream.push()
        except StreamEnded:
            pass
        finally:
            self._stream.close()

    def _encrypt(self) -> None:
        if self._unsent:
            self.tls.write(b"".join(self._unsent))
            self._unsent.clear()
            self._unsent_bytes = 0

    def _push(self) -> None:
        self._stream.queue(self.tls.take_outgoing())
        try:
            self._stream.push()
        except StreamEnded:
            # Their last words may have come before the end, and say why.
            if not self._broken:
                self._read()
            raise
        # What TLS says by itself, such as answers to key updates, has been counted nowhere yet.
        if self._stream.queued > self._unsent_bytes_max + PIECE_BYTES:
            raise StreamEnded(_NOT_TAKEN)

    def _read(self) -> None:
        room, budget = limits.TURN_EVENTS_MAX, limits.TURN_BYTES_MAX
        while True:
            room -= self._take_frames(room)
            if room == 0:
                self._stream.again()
            if room == 0 or self._broken:
                return
            data = self.tls.read()
            if data:
                self._reader.feed(data)
                continue
            if self.tls.ended:
                raise StreamEnded("the other side closed the link")
            data = self._stream.pull(PIECE_BYTES) if budget > 0 else b""
            if not data:
                return
            budget -= len(data)
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        self.tls.feed(data)
        if self.tls.established and not self.number:
            self._owner.opened(self)

    def _take_frames(self, room: int) -> int:
        for taken in range(room):
            try:
                frame = self._reader.next_frame()
            except RemoteError as error:
                self._broken = True
                self._stream.set_reading(False)
                self._loop.post(LinkBroken(self.number, error.code, error.detail))
                return taken
            if frame is None:
                return taken
            self._loop.post(FrameArrived(self.number, *frame))
        return room
