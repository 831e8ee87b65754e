"""TLS 1.3 between two daemons, by pyOpenSSL on memory BIOs: bytes in, bytes out, no socket.

What holds always:
- TLS 1.3 and ALPN `tnt/1`, or nothing.  Certificates prove nothing and are not looked at: each
  daemon makes a throw-away one at start that says nothing, and who is who is proved inside
  (machines/session).  A verify callback is not used for that: one that accepts all takes any
  rubbish as a certificate before there is any trust.
- Before the handshake is done at most HANDSHAKE_BYTES_MAX are taken, and after it at most
  TLS_IDLE_BYTES_MAX without a byte of ours in them (key updates, tickets, empty records).
- All that goes wrong in OpenSSL comes out as a TlsError.
- No session is ever resumed: there is no cache and no stateless ticket.  OpenSSL's server still
  sends two session tickets of 79 bytes after its handshake; pyOpenSSL has no
  SSL_CTX_set_num_tickets to forbid it.  They name nothing, as there is no cache for them to
  name anything in, and our client drops them.

Not the ssl module of Python: it has no exporter.
"""

from __future__ import annotations

import datetime
from typing import Final, NoReturn

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from OpenSSL import SSL

from tntd import limits

ALPN: Final = b"tnt/1"
# In pieces of one record, so that OpenSSL's buffers, which never shrink, stay small.
PIECE_BYTES: Final = 16 * limits.KIB


class TlsError(Exception):
    """The TLS of a connection is over, for the reason given in words."""


class Tls:
    """The two contexts of a daemon; make one at start."""

    def __init__(self) -> None:
        key = Ed25519PrivateKey.generate()
        self._accepting = _context()
        self._accepting.use_certificate(_certificate(key))
        self._accepting.use_privatekey(key)
        self._accepting.set_alpn_select_callback(_select_protocol)
        self._dialling = _context()
        self._dialling.set_alpn_protos([ALPN])

    def accept(self) -> TlsSession:
        """The side that was dialled."""
        connection = SSL.Connection(self._accepting, None)
        connection.set_accept_state()
        return TlsSession(connection)

    def dial(self) -> TlsSession:
        """The side that dials; its first bytes are there to be taken."""
        connection = SSL.Connection(self._dialling, None)
        connection.set_connect_state()
        session = TlsSession(connection)
        session.feed(b"")
        return session


class TlsSession:
    """One side of one TLS connection.

    `established` turns true with the handshake, `ended` when the other side has said that it
    will send no more.  After a TlsError there may be an alert to take; nothing else works.
    """

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection
        self._outgoing = bytearray()
        self._handshake_bytes = 0
        self._idle_bytes = 0
        self.established = False
        self.ended = False

    def feed(self, data: bytes) -> None:
        """Take bytes from the network, at most PIECE_BYTES.  Raises TlsError."""
        if not self.established:
            data = self._shake_hands(data)
        if data:
            self._connection.bio_write(data)
            self._idle_bytes += len(data)

    def read(self) -> bytes:
        """What the other side has written, in part; empty until more is fed.  Raises TlsError."""
        if not self.established or self.ended:
            return b""
        try:
            data = self._connection.recv(PIECE_BYTES)
        except SSL.WantReadError:
            self._check_progress()
            return b""
        except SSL.ZeroReturnError:
            self.ended = True
            return b""
        except SSL.Error as error:
            self._fail(error)
        finally:
            self._drain()
        self._idle_bytes = 0
        return data

    def write(self, data: bytes) -> None:
        """Encrypt for the other side.  Raises TlsError."""
        try:
            for at in range(0, len(data), PIECE_BYTES):
                self._connection.sendall(data[at : at + PIECE_BYTES])
                self._drain()
        except SSL.Error as error:
            self._fail(error)

    def take_outgoing(self) -> bytes:
        """Bytes for the network; they are gone from here."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        return data

    def finish(self) -> None:
        """Say that we will write no more."""
        try:
            self._connection.shutdown()
        except SSL.Error:
            return  # in mid-handshake or after an error there is nobody to tell
        self._drain()

    def export(self, label: bytes, context: bytes, length: int) -> bytes:
        """`length` bytes that only the two ends of this connection know (RFC 8446 7.5)."""
        return self._connection.export_keying_material(label, length, context)

    @property
    def key_exchange(self) -> str:
        """The group of the key exchange, such as X25519MLKEM768."""
        return self._connection.get_group_name() or "unknown"

    def _shake_hands(self, data: bytes) -> bytes:
        """Go on with the handshake; what is left of `data` once it is done."""
        room = limits.HANDSHAKE_BYTES_MAX - self._handshake_bytes
        piece, rest = data[:room], data[room:]
        self._handshake_bytes += len(piece)
        if piece:
            self._connection.bio_write(piece)
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            if self._handshake_bytes >= limits.HANDSHAKE_BYTES_MAX:
                raise TlsError("the handshake is too long") from None
            return b""
        except (SSL.Error, _NoCommonProtocol) as error:
            self._fail(error)
        finally:
            self._drain()
        if self._connection.get_alpn_proto_negotiated() != ALPN:
            raise TlsError("the other side does not speak tnt/1")
        self.established = True
        return rest

    def _check_progress(self) -> None:
        if self._idle_bytes > limits.TLS_IDLE_BYTES_MAX:
            raise TlsError("a flood of TLS messages without data")

    def _drain(self) -> None:
        while True:
            try:
                self._outgoing += self._connection.bio_read(PIECE_BYTES)
            except SSL.WantReadError:
                return

    def _fail(self, error: Exception) -> NoReturn:
        self._drain()
        raise TlsError(_in_words(error)) from error


class _NoCommonProtocol(Exception):
    """The dialler does not speak tnt/1."""


def _context() -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_verify(SSL.VERIFY_NONE)
    return context


def _certificate(key: Ed25519PrivateKey) -> x509.Certificate:
    """Self-signed, the same for everybody but for its key; Ed25519 because every flight then
    has the same size."""
    nobody = x509.Name([])
    return (
        x509.CertificateBuilder()
        .subject_name(nobody)
        .issuer_name(nobody)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC))
        .sign(key, None)
    )


def _select_protocol(_connection: SSL.Connection, offered: list[bytes]) -> bytes:
    if ALPN not in offered:
        raise _NoCommonProtocol("the other side does not speak tnt/1")
    return ALPN


def _in_words(error: Exception) -> str:
    """OpenSSL's own words for what went wrong, such as "wrong version number"."""
    if isinstance(error, SSL.SysCallError):
        return "TLS: the connection was cut"
    entries = error.args[0] if error.args else None
    if isinstance(entries, list) and entries and isinstance(entries[-1], tuple):
        return f"TLS: {entries[-1][-1] or 'failed'}"
    return f"TLS: {error}" if str(error) else "TLS: failed"
