"""One link's conversation, from the first frame to trust: which frame may come when.

    dialler                              acceptor
    Auth (signs exporter)       ->       verifies; may fall silent
    verifies                    <-       Auth (signs exporter and the dialler's key), Hello
    Hello                       ->
    Trusted, when our user has accepted them            (each side for itself)
    Envelope, Ack, lanes                                (once both have said Trusted)

What holds always: the table `ALLOWED` is the whole truth on what may arrive in which state; a
frame that is not in it ends the link.  The session never decides about trust: the node
does, and tells it.  Nothing here reads a clock or makes randomness.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from tntd.errors import RemoteError
from tntd.machines.identity import Identity, verify_accept, verify_dial
from tntd.wire.frames import (
    Ack,
    Auth,
    Envelope,
    Frame,
    Hello,
    LaneAnswer,
    LaneOffer,
    LinkError,
    Ping,
    Pong,
    Trusted,
    decode,
)

PROTOCOL: Final = 1


class State(Enum):
    """How far a link has come."""

    PROVING = "proving"  # waiting for their Auth
    GREETING = "greeting"  # their key is proved; waiting for their Hello
    KNOWN = "known"  # both greeted; they have not said Trusted
    OPEN = "open"  # they have said Trusted


ALLOWED: Final[dict[State, frozenset[type[Frame]]]] = {
    State.PROVING: frozenset({Auth, LinkError}),
    State.GREETING: frozenset({Hello, LinkError}),
    State.KNOWN: frozenset({Trusted, Ping, Pong, LinkError}),
    State.OPEN: frozenset({Trusted, Envelope, Ack, Ping, Pong, LaneOffer, LaneAnswer, LinkError}),
}
# What they may send only after we, too, have said Trusted.
_NEEDS_OUR_TRUST: Final = frozenset({Envelope, Ack, LaneOffer, LaneAnswer})


class Session:
    """The state of one link.  `exporter` is this connection's 32 bytes; `dialled` is ours."""

    def __init__(self, identity: Identity, exporter: bytes, *, dialled: bool) -> None:
        self._identity = identity
        self.exporter = exporter
        self.dialled = dialled
        self.state = State.PROVING
        self.peer_key: bytes | None = None
        self.hello: Hello | None = None
        self.trusted: Trusted | None = None  # the latest that they sent
        self.said_trusted = False

    @property
    def open(self) -> bool:
        """Whether both sides have said Trusted, so that envelopes may flow."""
        return self.said_trusted and self.state is State.OPEN

    @property
    def dialler_key(self) -> bytes:
        """The public key of the side that dialled; only once theirs is proved."""
        assert self.peer_key is not None
        return self._identity.public if self.dialled else self.peer_key

    @property
    def acceptor_key(self) -> bytes:
        """The public key of the side that was dialled; only once theirs is proved."""
        assert self.peer_key is not None
        return self.peer_key if self.dialled else self._identity.public

    def auth(self) -> Auth:
        """Our own proof: the dialler's at once, the acceptor's after the dialler's."""
        if self.dialled:
            return Auth(
                key=self._identity.public, signature=self._identity.sign_dial(self.exporter)
            )
        assert self.peer_key is not None, "the acceptor proves itself second"
        signature = self._identity.sign_accept(self.exporter, self.peer_key)
        return Auth(key=self._identity.public, signature=signature)

    def receive(self, number: int, body: bytes) -> Frame | None:
        """Take one frame: the frame, when it may come now, or None for one to ignore.

        Raises RemoteError: "malformed", "unsupported", "authentication", "unexpected" (a frame
        of the wrong type at the wrong time), "version".
        """
        frame = decode(number, body)
        if frame is None:
            return None
        kind = type(frame)
        if kind not in ALLOWED[self.state] or (kind in _NEEDS_OUR_TRUST and not self.said_trusted):
            raise RemoteError("unexpected", f"{kind.__name__} while {self.state.value}")
        if isinstance(frame, Auth):
            self._take_auth(frame)
        elif isinstance(frame, Hello):
            self._take_hello(frame)
        elif isinstance(frame, Trusted):
            self.trusted = frame
            self.state = State.OPEN
        return frame

    def _take_auth(self, auth: Auth) -> None:
        if auth.key == self._identity.public:
            raise RemoteError("self", "the other end has our own key")
        if self.dialled:
            verify_accept(auth.key, auth.signature, self.exporter, self._identity.public)
        else:
            verify_dial(auth.key, auth.signature, self.exporter)
        self.peer_key = auth.key
        self.state = State.GREETING

    def _take_hello(self, hello: Hello) -> None:
        if not hello.protocol_min <= PROTOCOL <= hello.protocol_max:
            spoken = f"{hello.protocol_min} to {hello.protocol_max}"
            raise RemoteError("version", f"they speak protocol {spoken}, we speak {PROTOCOL}")
        if not hello.name.isprintable():
            raise RemoteError("malformed", "a name with control characters in it")
        self.hello = hello
        self.state = State.KNOWN
