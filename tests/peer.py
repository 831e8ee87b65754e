"""A peer driven by hand: TLS and frames on a blocking socket, to say what no daemon would.

It knows the format of frames (tntd.wire.frames) and the signatures, and none of the rules:
a test may send anything at any time.

    peer = RawPeer.dial("127.0.0.1", daemon.port)
    peer.authenticate()
    peer.greet(name="mallory", explicit=True)
    peer.send_frame(Ping(nonce=1))
    assert peer.read_frame() == Pong(nonce=1)
"""

from __future__ import annotations

import datetime
import os
import socket
import time
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from OpenSSL import SSL

from tntd.machines.identity import Identity
from tntd.wire.frames import HEADER, Auth, Frame, FrameReader, Hello, Trusted, decode, encode

F = TypeVar("F", bound=Frame)

ALPN = b"tnt/1"
EXPORTER = b"EXPORTER-tnt-auth"
TIMEOUT_S = 20.0
_FRAME_BYTES_MAX = 1 << 20


class PeerClosed(Exception):
    """The other end has closed the connection, or reset it."""


class RawPeer:
    """One TLS connection with a daemon, from either side, and our own key."""

    def __init__(
        self, sock: socket.socket, *, dialled: bool, seed: bytes | None = None, alpn: bytes = ALPN
    ) -> None:
        self.identity = Identity(seed or os.urandom(32))
        self.sock = sock
        self.dialled = dialled
        self.peer_key: bytes | None = None
        self.tls = SSL.Connection(_context(alpn), None)
        if dialled:
            self.tls.set_connect_state()
        else:
            self.tls.set_accept_state()
        self._reader = FrameReader(_FRAME_BYTES_MAX)

    @classmethod
    def dial(
        cls, host: str, port: int, *, seed: bytes | None = None, alpn: bytes = ALPN
    ) -> RawPeer:
        """Connect to a daemon and bring TLS up."""
        sock = socket.create_connection((host, port), TIMEOUT_S)
        peer = cls(sock, dialled=True, seed=seed, alpn=alpn)
        peer.handshake()
        return peer

    @classmethod
    def accept(cls, listener: socket.socket, *, seed: bytes | None = None) -> RawPeer:
        """Wait for a daemon to dial us and bring TLS up."""
        listener.settimeout(TIMEOUT_S)
        sock, _ = listener.accept()
        peer = cls(sock, dialled=False, seed=seed)
        peer.handshake()
        return peer

    # -- TLS --------------------------------------------------------------------------

    def handshake(self) -> None:
        """Bring TLS up.  Raises PeerClosed."""
        while True:
            try:
                self.tls.do_handshake()
            except SSL.WantReadError:
                self._flush()
                self.tls.bio_write(self._receive(TIMEOUT_S))
            else:
                self._flush()
                return

    @property
    def exporter(self) -> bytes:
        """What both ends sign."""
        return self.tls.export_keying_material(EXPORTER, 32)

    def send_raw(self, data: bytes) -> None:
        """Send bytes inside TLS.  Raises PeerClosed."""
        view = memoryview(data)
        while view:
            sent = self.tls.send(view[:16_384])
            view = view[sent:]
            self._flush()

    def send_plain(self, data: bytes) -> None:
        """Send bytes beside TLS.  Raises PeerClosed."""
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise PeerClosed from error

    def read_raw(self, timeout: float = TIMEOUT_S) -> bytes:
        """Some bytes from inside TLS.  Raises PeerClosed, TimeoutError."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self.tls.recv(65_536)
            except SSL.WantReadError:
                self._flush()
                self.tls.bio_write(self._receive(deadline - time.monotonic()))
            except (SSL.ZeroReturnError, SSL.Error) as error:
                raise PeerClosed from error

    def _flush(self) -> None:
        while True:
            try:
                data = self.tls.bio_read(65_536)
            except SSL.WantReadError:
                return
            self.send_plain(data)

    def _receive(self, timeout: float) -> bytes:
        self.sock.settimeout(max(0.001, timeout))
        try:
            data = self.sock.recv(65_536)
        except TimeoutError:
            raise
        except OSError as error:
            raise PeerClosed from error
        if not data:
            raise PeerClosed
        return data

    # -- frames -----------------------------------------------------------------------

    def send_frame(self, frame: Frame) -> None:
        """Send one frame.  Raises PeerClosed."""
        self.send_raw(encode(frame))

    def send_body(self, number: int, body: bytes) -> None:
        """Send a frame of any type and body.  Raises PeerClosed."""
        self.send_raw(HEADER.pack(len(body) + 2, number) + body)

    def read_frame(self, timeout: float = TIMEOUT_S) -> Frame | None:
        """The next frame (None: one to be ignored).  Raises PeerClosed, TimeoutError."""
        deadline = time.monotonic() + timeout
        while True:
            found = self._reader.next_frame()
            if found is not None:
                return decode(*found)
            self._reader.feed(self.read_raw(deadline - time.monotonic()))

    def expect(self, kind: type[F], timeout: float = TIMEOUT_S) -> F:
        """The next frame of that type; others before it are dropped."""
        deadline = time.monotonic() + timeout
        while True:
            frame = self.read_frame(deadline - time.monotonic())
            if isinstance(frame, kind):
                return frame

    def wait_closed(self, timeout: float = TIMEOUT_S) -> list[Frame | None]:
        """The frames until the other end closes; fails where it does not in time."""
        deadline = time.monotonic() + timeout
        frames: list[Frame | None] = []
        try:
            while True:
                frames.append(self.read_frame(deadline - time.monotonic()))
        except PeerClosed:
            return frames

    # -- the conversation -------------------------------------------------------------

    def authenticate(self) -> bytes:
        """Prove our key and read theirs, in the order of our side; their public key."""
        if self.dialled:
            self.send_frame(self.auth())
            self.peer_key = self.expect(Auth).key
        else:
            self.peer_key = self.expect(Auth).key
            self.send_frame(self.auth())
        return self.peer_key

    def auth(self) -> Auth:
        """Our proof for this connection."""
        if self.dialled:
            signature = self.identity.sign_dial(self.exporter)
        else:
            assert self.peer_key is not None
            signature = self.identity.sign_accept(self.exporter, self.peer_key)
        return Auth(key=self.identity.public, signature=signature)

    def greet(self, **changes: Any) -> Hello:
        """Send our hello and read theirs."""
        self.send_frame(hello(**changes))
        return self.expect(Hello)

    def trust(self, **changes: Any) -> Trusted:
        """Send our trusted and read theirs; needs their user to accept us, too."""
        self.send_frame(trusted(**changes))
        return self.expect(Trusted)

    def close(self) -> None:
        """Hang up without a word."""
        self.sock.close()

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def hello(**changes: Any) -> Hello:
    """A proper hello, with `changes`."""
    fields: dict[str, Any] = {
        "protocol_min": 1,
        "protocol_max": 1,
        "features": [],
        "instance": os.urandom(16),
        "name": "raw",
        "explicit": False,
        "frame_bytes_max": 128 * 1024,
    }
    return Hello(**{**fields, **changes})


def trusted(**changes: Any) -> Trusted:
    """A proper trusted of an outbox that is new and empty, with `changes`."""
    fields: dict[str, Any] = {
        "epoch": os.urandom(16),
        "lowest": 1,
        "highest": 0,
        "peer_epoch": None,
        "received": 0,
        "received_id": None,
        "port": 0,
        "addresses": [],
    }
    return Trusted(**{**fields, **changes})


def listener() -> socket.socket:
    """A listening socket on 127.0.0.1 for a daemon to dial."""
    return socket.create_server(("127.0.0.1", 0))


def _context(alpn: bytes) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_verify(SSL.VERIFY_NONE, lambda *_: True)
    context.set_alpn_protos([alpn])
    context.set_alpn_select_callback(
        lambda _, offered: alpn if alpn in offered else SSL.NO_OVERLAPPING_PROTOCOLS
    )
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "raw")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, None)
    )
    context.use_certificate(certificate)
    context.use_privatekey(key)
    return context
