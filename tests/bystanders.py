"""A scene for bad input: somebody does wrong, and nobody else may notice.

alice is the one who is attacked.  bob is her contact, linked all the time; a client of hers
follows events.  After each wrong, `undisturbed` looks whether the two still talk, whether their
link has held, and whether alice has one thread, no open file more than before and no traceback
in her log.  `said` looks for the one line in it.
"""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

from harness import (
    Client,
    Daemon,
    accept,
    open_files,
    rss,
    thread_count,
    wait_for,
    wait_linked,
)
from peer import RawPeer, trusted
from tntd.limits import MIB
from tntd.wire.frames import (
    Ack,
    Body,
    Envelope,
    Frame,
    LinkError,
    Ping,
    Pong,
    Trusted,
    decode_body,
    encode_body,
)

B = TypeVar("B", bound=Body)
F = TypeVar("F", bound=Frame)

SOON_S = 10.0  # the bound of what takes milliseconds when nobody is disturbed


class Scene:
    """alice, bob and alice's watching client."""

    def __init__(self, start: Callable[..., Daemon], *options: str) -> None:
        self.alice = start("alice", *options)
        self.bob = start("bob")
        # One dial only: of two links one would be closed, at some time.
        self.alice.rpc("peers.connect", address=self.bob.address)
        accept(self.bob, self.alice)
        wait_linked(self.alice, self.bob)
        self.watching: Client = self.alice.client(subscribe=True)
        self._texts = itertools.count(1)
        self._scenes = itertools.count(1)
        self.talk()
        self._files = open_files(self.alice.pid)
        self.begin()

    def begin(self) -> None:
        """From now on things are watched.  Contacts of an earlier scene are forgotten, and
        strangers come from an address that is not known yet."""
        self.at_peace = False
        self.forget()
        number = next(self._scenes)
        self.source = f"127.{number // 250 + 1}.{number % 250 + 1}.2"
        self._log_at = len(self.alice.log())
        self._rss = rss(self.alice.pid)
        self.events()

    def forget(self) -> None:
        """alice removes all contacts but bob."""
        for contact in self.alice.rpc("contacts.list")["contacts"]:
            if contact["name"] != "bob":
                self.alice.rpc("contacts.remove", contact=contact["id"])

    # -- what is said ------------------------------------------------------------------

    def log(self) -> list[str]:
        """The lines of alice's log since the scene was set."""
        return self.alice.log()[self._log_at :].splitlines()

    def lines(self) -> list[str]:
        """The same without the summary of those who were cut, which tells of earlier scenes."""
        return [line for line in self.log() if " more connections were cut within " not in line]

    def said(self, *words: str, times: int = 1, within: float = SOON_S) -> None:
        """Each of `words` comes to stand in exactly `times` lines."""
        for each in words:
            wait_for(lambda each=each: self._count(each) >= times, within, f"{each!r} in the log")
            assert self._count(each) == times, self.log()

    def _count(self, words: str) -> int:
        return sum(1 for line in self.log() if words in line)

    def events(self) -> list[dict[str, Any]]:
        """What alice's watching client was told since the last time, but for the talk with bob."""
        mark = self.alice.rpc("messages.send", to="bob", text="a mark")["message"]["id"]
        self.watching.wait_event(
            "message.state", lambda event: event["message"]["id"] == mark, SOON_S
        )
        found, self.watching.events = self.watching.events, []
        return [e for e in found if e.get("message", {}).get("conversation") != "bob"]

    # -- what is undisturbed -----------------------------------------------------------

    def undisturbed(self, *, grown: int = 20 * MIB) -> None:
        """Nobody has noticed anything; alice's memory has grown by at most `grown` bytes."""
        self.talk()
        log = "\n".join(self.log())
        assert "Traceback" not in log, log
        assert "ERROR" not in log, log
        assert self.alice.stderr() == ""
        assert thread_count(self.alice.pid) == 1
        wait_for(
            lambda: open_files(self.alice.pid) <= self._files,
            what=f"at most {self._files} open files",
        )
        assert rss(self.alice.pid) - self._rss < grown
        offline = [e["contact"]["name"] for e in self.events() if e["type"] == "peer.offline"]
        assert "bob" not in offline
        self.at_peace = True

    def talk(self) -> None:
        """A text each way, soon."""
        number = next(self._texts)
        self.alice.rpc("messages.send", to="bob", text=f"from alice {number}")
        self.bob.rpc("messages.send", to="alice", text=f"from bob {number}")
        expected = {f"from alice {number}", f"from bob {number}"}
        for each, other in ((self.alice, "bob"), (self.bob, "alice")):
            wait_for(
                lambda each=each, other=other: expected <= set(each.texts(other, limit=4)),
                SOON_S,
                f"both texts at {each.name}",
            )

    # -- who does wrong ----------------------------------------------------------------

    def connect(self, source: str | None = None) -> socket.socket:
        """A TCP connection with alice, from one of the addresses of this machine."""
        address = (source or self.source, 0)
        return socket.create_connection(("127.0.0.1", self.alice.port), 20, source_address=address)

    def stranger(self, source: str | None = None, **more: Any) -> RawPeer:
        """Somebody who has done TLS with alice, and nothing else."""
        peer = RawPeer(self.connect(source), dialled=True, **more)
        peer.handshake()
        return peer

    def asker(self, name: str = "mallory", **more: Any) -> RawPeer:
        """Somebody whose contact request waits at alice."""
        peer = self.stranger(**more)
        peer.authenticate()
        peer.greet(name=name, explicit=True)
        # alice says hello as soon as a key is proved; only this shows that she has heard ours.
        peer.send_frame(Ping(nonce=1))
        peer.expect(Pong)
        return peer

    def contact(self, name: str = "mallory", **more: Any) -> RawContact:
        """A contact of alice's who has an open link and does not play by the rules; `trusted`
        changes what they say of their outbox and addresses."""
        changes = more.pop("trusted", {})
        peer = self.asker(name, **more)
        self.alice.rpc("contacts.accept", contact=name)
        return RawContact(peer, **changes)


class RawContact:
    """The other end of an open link, whose outbox is kept by hand.

    What comes from alice is acknowledged as it is read, and kept in `mail`.
    """

    def __init__(self, peer: RawPeer, **changes: Any) -> None:
        self.peer = peer
        ours = trusted(**changes)
        self.epoch = ours.epoch
        self.number = 0
        self.mail: list[Envelope] = []
        self._acked = 0
        self._others: list[Frame] = []
        peer.send_frame(ours)
        self.theirs: Trusted = peer.expect(Trusted)

    # -- out ---------------------------------------------------------------------------

    def put(self, body: Body, id: bytes | None = None) -> bytes:
        """Send the next envelope; its id."""
        return self.put_raw(*encode_body(body), id)

    def put_raw(self, kind: int, body: bytes, id: bytes | None = None) -> bytes:
        """Send the next envelope with any kind and body; its id."""
        self.number += 1
        id = id or os.urandom(16)
        self.peer.send_frame(
            Envelope(epoch=self.epoch, number=self.number, id=id, kind=kind, body=body)
        )
        return id

    def acknowledged(self) -> None:
        """Wait until all that was put is acknowledged."""
        while self._acked < self.number:
            self._read()
        assert self._acked == self.number

    # -- in ----------------------------------------------------------------------------

    def take(self, kind: type[B]) -> B:
        """The next body of that kind out of the mail; others before it are dropped."""
        while True:
            while not self.mail:
                self._read()
            envelope = self.mail.pop(0)
            body = decode_body(envelope.kind, envelope.body)
            if isinstance(body, kind):
                return body

    def expect(self, kind: type[F]) -> F:
        """The next frame of that type that is no mail; others before it are dropped."""
        while True:
            while not self._others:
                self._read()
            frame = self._others.pop(0)
            if isinstance(frame, kind):
                return frame

    def _read(self) -> None:
        frame = self.peer.read_frame()
        if isinstance(frame, Envelope):
            self.mail.append(frame)
            self.peer.send_frame(Ack(epoch=frame.epoch, number=frame.number))
        elif isinstance(frame, Ack):
            assert frame.epoch == self.epoch
            self._acked = frame.number
        elif frame is not None:
            self._others.append(frame)

    # -- the end -----------------------------------------------------------------------

    def told(self) -> LinkError:
        """The error that ends the link."""
        return told(self.peer)

    def close(self) -> None:
        """Hang up."""
        self.peer.close()

    def __enter__(self) -> RawContact:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def told(peer: RawPeer) -> LinkError:
    """The error that alice ends this link with; it is the last frame."""
    frames = peer.wait_closed()
    peer.close()
    assert frames, "closed without a word"
    assert isinstance(frames[-1], LinkError), frames
    return frames[-1]


def read_to_end(sock: socket.socket, timeout: float = 20.0) -> bytes:
    """All that comes until the other end closes; a reset is an end, too."""
    deadline = time.monotonic() + timeout
    data = b""
    try:
        while True:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            piece = sock.recv(65_536)
            if not piece:
                return data
            data += piece
    except ConnectionError:
        return data
