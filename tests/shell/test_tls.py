"""TLS between two sides: what is agreed, what is refused, and how little a stranger may send."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from OpenSSL import SSL

from tntd import limits
from tntd.shell import tls
from tntd.shell.tls import PIECE_BYTES, Tls, TlsError, TlsSession


@pytest.fixture(scope="module")
def both() -> Tls:
    return Tls()


def carry(source: TlsSession, target: TlsSession, piece: int = PIECE_BYTES) -> int:
    """Bring what is ready from one side to the other."""
    data = source.take_outgoing()
    for at in range(0, len(data), piece):
        target.feed(data[at : at + piece])
        target.read() if not target.established else None
    return len(data)


def joined(both: Tls, piece: int = PIECE_BYTES) -> tuple[TlsSession, TlsSession]:
    dialler, acceptor = both.dial(), both.accept()
    for _ in range(3):
        carry(dialler, acceptor, piece)
        carry(acceptor, dialler, piece)
    assert dialler.established
    assert acceptor.established
    return dialler, acceptor


def read_all(session: TlsSession) -> bytes:
    data = b""
    while piece := session.read():
        data += piece
    return data


def raw_client(change: Callable[[SSL.Context], None]) -> SSL.Connection:
    """A dialler of somebody else's making."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_alpn_protos([b"tnt/1"])
    change(context)
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    return connection


def shake(client: SSL.Connection, acceptor: TlsSession) -> None:
    """A handshake of a raw client; raises what either side raises."""
    for _ in range(4):
        with contextlib.suppress(SSL.WantReadError):
            client.do_handshake()
        try:
            while True:
                acceptor.feed(client.bio_read(PIECE_BYTES))
        except SSL.WantReadError:
            pass
        finally:
            data = acceptor.take_outgoing()
            if data:
                client.bio_write(data)


def test_what_two_sides_agree(both: Tls):
    dialler, acceptor = joined(both)
    assert dialler.key_exchange == acceptor.key_exchange == "X25519MLKEM768"
    assert dialler._connection.get_protocol_version_name() == "TLSv1.3"
    args = (b"EXPORTER-tnt-auth", b"", 32)
    assert dialler.export(*args) == acceptor.export(*args)
    assert dialler.export(b"EXPORTER-tnt-lane", b"a", 32) != dialler.export(
        b"EXPORTER-tnt-lane", b"b", 32
    )
    other, _ = joined(both)
    assert other.export(*args) != dialler.export(*args)


@pytest.mark.parametrize("piece", [1, 7, PIECE_BYTES])
def test_bytes_go_both_ways_however_they_are_chopped(both: Tls, piece: int):
    dialler, acceptor = joined(both, piece)
    big = os.urandom(100_000)
    dialler.write(big)
    got = b""
    data = dialler.take_outgoing()
    step = piece if piece > 1 else 997
    for at in range(0, len(data), step):
        acceptor.feed(data[at : at + step])
        got += read_all(acceptor)
    assert got == big
    acceptor.write(b"back")
    carry(acceptor, dialler)
    assert read_all(dialler) == b"back"


def test_the_end_is_told(both: Tls):
    dialler, acceptor = joined(both)
    dialler.write(b"last words")
    dialler.finish()
    carry(dialler, acceptor)
    assert read_all(acceptor) == b"last words"
    assert acceptor.ended
    acceptor.write(b"still heard")
    carry(acceptor, dialler)
    assert read_all(dialler) == b"still heard"


def test_garbage_is_refused(both: Tls):
    acceptor = both.accept()
    with pytest.raises(TlsError, match="TLS"):
        acceptor.feed(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(TlsError):
        both.accept().feed(b"\x16\x03\x01\x00\x10" + b"\xff" * 16)
    # An error of one connection does not stay behind for the next.
    joined(both)


def test_garbage_after_the_handshake_is_refused(both: Tls):
    dialler, acceptor = joined(both)
    with pytest.raises(TlsError):
        acceptor.feed(b"\x17\x03\x03\x00\x40" + b"\x00" * 64)
        acceptor.read()
    assert acceptor.take_outgoing(), "an alert"
    dialler.write(b"x")
    joined(both)


def test_a_changed_byte_is_refused(both: Tls):
    dialler, acceptor = joined(both)
    dialler.write(b"hello")
    data = bytearray(dialler.take_outgoing())
    data[-1] ^= 1
    acceptor.feed(bytes(data))
    with pytest.raises(TlsError, match="TLS"):
        acceptor.read()


def test_a_handshake_of_a_mebibyte_is_refused(both: Tls):
    acceptor = both.accept()
    # One ClientHello that claims 128 KiB, in records of 16 KiB.
    record = b"\x16\x03\x01\x40\x00"
    body = b"\x01\x01\xff\xff" + os.urandom(16_380)
    fed = 0
    with pytest.raises(TlsError, match=r"too long|TLS"):
        for _ in range(64):
            acceptor.feed(record + body[: PIECE_BYTES - len(record)])
            fed += PIECE_BYTES
    assert fed <= PIECE_BYTES
    assert acceptor._handshake_bytes <= limits.HANDSHAKE_BYTES_MAX


def test_a_slow_hello_is_refused_at_the_limit(both: Tls):
    acceptor = both.accept()
    acceptor.feed(b"\x16\x03\x01\x40\x00\x01\x00\xff\xff")
    with pytest.raises(TlsError, match="too long"):
        for _ in range(limits.HANDSHAKE_BYTES_MAX):
            acceptor.feed(b"\x00")
    assert acceptor._handshake_bytes == limits.HANDSHAKE_BYTES_MAX


def test_tls_1_2_is_refused(both: Tls):
    client = raw_client(lambda context: context.set_max_proto_version(SSL.TLS1_2_VERSION))
    with pytest.raises(TlsError, match=r"version|protocol"):
        shake(client, both.accept())


@pytest.mark.parametrize("protocols", [[b"http/1.1"], [b"tnt/2", b"h2"]])
def test_another_protocol_is_refused(both: Tls, protocols: list[bytes]):
    client = raw_client(lambda context: context.set_alpn_protos(protocols))
    with pytest.raises(TlsError, match="tnt/1"):
        shake(client, both.accept())
    joined(both)


def test_no_protocol_is_refused(both: Tls):
    context = SSL.Context(SSL.TLS_METHOD)
    client = SSL.Connection(context, None)
    client.set_connect_state()
    acceptor = both.accept()
    with pytest.raises(TlsError, match="tnt/1"):
        shake(client, acceptor)
    assert not acceptor.established


def test_a_dialler_refuses_an_acceptor_without_the_protocol(both: Tls):
    key = Ed25519PrivateKey.generate()
    context = SSL.Context(SSL.TLS_METHOD)
    context.use_certificate(tls._certificate(key))
    context.use_privatekey(key)
    server = SSL.Connection(context, None)
    server.set_accept_state()
    dialler = both.dial()
    server.bio_write(dialler.take_outgoing())
    with pytest.raises(SSL.WantReadError):
        server.do_handshake()
    with pytest.raises(TlsError, match="tnt/1"):
        dialler.feed(server.bio_read(PIECE_BYTES))


def test_a_certificate_of_the_dialler_is_no_matter(both: Tls):
    key = Ed25519PrivateKey.generate()

    def with_certificate(context: SSL.Context) -> None:
        context.use_certificate(tls._certificate(key))
        context.use_privatekey(key)

    client = raw_client(with_certificate)
    acceptor = both.accept()
    shake(client, acceptor)
    assert acceptor.established
    assert acceptor._connection.get_peer_certificate() is None


def test_a_session_is_never_resumed(both: Tls):
    """OpenSSL's server sends tickets and cannot be told not to from here; they open nothing."""
    contexts: list[SSL.Context] = []
    client = raw_client(contexts.append)
    acceptor = both.accept()
    shake(client, acceptor)
    acceptor.write(b"x")
    client.bio_write(acceptor.take_outgoing())
    assert client.recv(10) == b"x"
    session = client.get_session()
    assert session is not None
    again = SSL.Connection(contexts[0], None)
    again.set_connect_state()
    again.set_session(session)
    acceptor = both.accept()
    shake(again, acceptor)
    assert acceptor.established
    assert not SSL._lib.SSL_session_reused(again._ssl)  # type: ignore[attr-defined]


def test_what_the_acceptor_sends_after_the_handshake(both: Tls):
    """Two tickets of 79 bytes, and nothing else."""
    dialler, acceptor = both.dial(), both.accept()
    carry(dialler, acceptor)
    carry(acceptor, dialler)
    carry(dialler, acceptor)
    assert len(acceptor.take_outgoing()) == 2 * 79


def test_the_acceptor_tells_the_same_to_everybody():
    sizes = set()
    for _ in range(5):
        some = Tls()
        dialler, acceptor = some.dial(), some.accept()
        carry(dialler, acceptor)
        sizes.add(len(acceptor.take_outgoing()))
    assert len(sizes) == 1


def test_no_server_name_is_told(both: Tls):
    dialler, acceptor = joined(both)
    assert dialler.established
    assert acceptor._connection.get_servername() is None


def test_tls_without_data_is_refused(both: Tls, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "TLS_IDLE_BYTES_MAX", 4096)
    dialler, acceptor = joined(both)
    for _ in range(3):  # with data in it it may go on for ever
        dialler.write(b"x" * 2000)
        carry(dialler, acceptor)
        assert len(read_all(acceptor)) == 2000
    dialler.write(b"x" * 10_000)
    data = dialler.take_outgoing()
    with pytest.raises(TlsError, match="flood"):
        for at in range(0, 8000, 1000):
            acceptor.feed(data[at : at + 1000])
            assert acceptor.read() == b""


def test_after_an_error_nothing_breaks(both: Tls):
    acceptor = both.accept()
    with pytest.raises(TlsError):
        acceptor.feed(b"garbage, garbage, garbage")
    acceptor.finish()
    acceptor.take_outgoing()
    with pytest.raises(TlsError):
        acceptor.write(b"x")
    assert acceptor.read() == b""
