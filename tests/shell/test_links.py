"""Links between two sides over real sockets, and what becomes of bad ones."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import select
import socket
import struct
import termios

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from sides import PeerSide, read_all, spin_turns, spin_until
from tntd import limits
from tntd.effects import (
    Authenticated,
    CancelDial,
    CloseLink,
    Dial,
    RaiseFrameLimit,
    SendFrame,
)
from tntd.events import DialFailed, FrameArrived, LinkBroken, LinkClosed, LinkOpened
from tntd.shell.tls import PIECE_BYTES, TlsSession
from tntd.wire.frames import HEADER


def frame(body: bytes, number: int = 7) -> bytes:
    return HEADER.pack(len(body) + 2, number) + body


class Pair:
    """Two sides with a link between them, both ends known."""

    def __init__(self) -> None:
        self.here, self.there = PeerSide(), PeerSide()
        self.here.links.dial(Dial(1, "127.0.0.1", self.there.port))
        spin_until(
            lambda: self.here.of(LinkOpened) and self.there.of(LinkOpened), self.here, self.there
        )
        self.opened_here = self.here.of(LinkOpened)[0]
        self.opened_there = self.there.of(LinkOpened)[0]
        self.link, self.mirror = self.opened_here.link, self.opened_there.link
        self.here.links.authenticated(Authenticated(self.link, True))
        self.there.links.authenticated(Authenticated(self.mirror, True))

    def trust(self) -> None:
        for side, link in ((self.here, self.link), (self.there, self.mirror)):
            side.links.raise_frame_limit(RaiseFrameLimit(link, limits.FRAME_BYTES_MAX))

    @property
    def sides(self) -> tuple[PeerSide, PeerSide]:
        return self.here, self.there

    def send(self, *bodies: bytes) -> None:
        for body in bodies:
            self.here.links.send(SendFrame(self.link, frame(body)))

    def arrived(self) -> list[bytes]:
        return [event.body for event in self.there.of(FrameArrived)]


@pytest.fixture
def pair() -> Pair:
    return Pair()


class RawDialler:
    """A stranger with a TLS of our kind, and full control over what is sent when."""

    def __init__(self, side: PeerSide) -> None:
        self.side = side
        self.tls: TlsSession = side.tls.dial()
        self.sock = socket.create_connection(("127.0.0.1", side.port))
        self.sock.setblocking(False)

    def exchange(self) -> None:
        data = self.tls.take_outgoing()
        if data:
            self.sock.sendall(data)
        with contextlib.suppress(BlockingIOError):
            self.tls.feed(self.sock.recv(PIECE_BYTES))

    def join(self) -> int:
        """Bring TLS up; the number of the link over there."""
        before = len(self.side.of(LinkOpened))

        def look() -> bool:
            self.exchange()
            return self.tls.established and len(self.side.of(LinkOpened)) > before

        spin_until(look, self.side)
        return self.side.of(LinkOpened)[-1].link

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self.exchange()


# -- a link ----------------------------------------------------------------------------------


def test_both_ends_hear_of_a_link_and_agree(pair: Pair):
    assert pair.opened_here.dial == 1
    assert pair.opened_there.dial is None
    assert pair.opened_here.host == pair.opened_there.host == "127.0.0.1"
    assert pair.opened_here.port == pair.there.port
    assert pair.opened_here.exporter == pair.opened_there.exporter
    assert len(pair.opened_here.exporter) == 32
    assert pair.opened_here.key_exchange == "X25519MLKEM768"
    keys = [
        side.links.export(link, b"EXPORTER-tnt-lane", b"context", 32)
        for side, link in ((pair.here, pair.link), (pair.there, pair.mirror))
    ]
    assert keys[0] == keys[1]
    assert pair.here.links.export(99, b"EXPORTER-tnt-lane", b"context", 32) is None


def test_frames_arrive_whole_once_and_in_order(pair: Pair):
    pair.here.links.send(SendFrame(pair.link, frame(b"one") + frame(b"", 9)))
    pair.send(b"two")
    spin_until(lambda: len(pair.arrived()) == 3, *pair.sides)
    assert pair.there.of(FrameArrived) == [
        FrameArrived(pair.mirror, 7, b"one"),
        FrameArrived(pair.mirror, 9, b""),
        FrameArrived(pair.mirror, 7, b"two"),
    ]


def test_frames_of_one_turn_leave_as_one_piece(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    pieces: list[int] = []
    write = TlsSession.write

    def count(self: TlsSession, data: bytes) -> None:
        pieces.append(len(data))
        write(self, data)

    monkeypatch.setattr(TlsSession, "write", count)
    pair.send(*(b"%d" % n for n in range(10)))
    pair.here.flush()
    assert len(pieces) == 1


def test_a_big_backlog_goes_through(pair: Pair):
    pair.trust()
    bodies = [os.urandom(100_000) for _ in range(30)]
    pair.send(*bodies)
    pair.here.flush()  # the kernel takes a part, the rest waits for room
    spin_until(lambda: len(pair.arrived()) == len(bodies), *pair.sides)
    assert pair.arrived() == bodies
    assert not pair.there.of(LinkClosed)


@pytest.mark.parametrize("trusted", [False, True])
def test_a_peer_that_does_not_read_is_cut(pair: Pair, trusted: bool):
    if trusted:
        pair.trust()
    body, least = b"x" * 10_000, limits.LINK_BUFFER_BYTES_MAX if trusted else 0
    sent = 0
    while not pair.here.loop._inbox:
        pair.send(body)
        pair.here.flush()
        sent += len(body)
    assert sent > least
    spin_until(lambda: pair.here.of(LinkClosed), pair.here)
    (closed,) = pair.here.of(LinkClosed)
    assert closed.link == pair.link
    assert "does not take" in closed.reason
    pair.send(b"nobody")
    spin_turns(3, pair.here)


def test_a_turn_takes_a_bounded_number_of_frames(pair: Pair):
    pair.send(*(b"" for _ in range(1000)))
    pair.here.flush()
    spin_until(lambda: pair.there.of(FrameArrived), pair.there)
    turns = [len(pair.there.of(FrameArrived))]
    while len(pair.there.of(FrameArrived)) < 1000:
        before = len(pair.there.of(FrameArrived))
        pair.there.spin()
        turns.append(len(pair.there.of(FrameArrived)) - before)
    assert max(turns) <= limits.TURN_EVENTS_MAX
    assert len(turns) <= 1000 // limits.TURN_EVENTS_MAX + 3, "what is in hand does not sleep"


def test_a_turn_takes_a_bounded_number_of_bytes(pair: Pair):
    pair.trust()
    pair.send(*(b"x" * 60_000 for _ in range(40)))
    pair.here.flush()
    counts = [0]

    def look() -> bool:
        counts.append(len(pair.arrived()))
        return counts[-1] == 40

    spin_until(look, *pair.sides)
    most = max(now - before for before, now in itertools.pairwise(counts))
    assert most <= limits.TURN_BYTES_MAX // 60_000 + 1


def test_closing_flushes_and_tells_both(pair: Pair):
    pair.trust()
    bodies = [b"%d" % n + b"x" * 90_000 for n in range(20)]
    pair.send(*bodies)
    pair.here.links.close(CloseLink(pair.link, "enough"))
    pair.send(b"too late")
    spin_until(lambda: pair.here.of(LinkClosed) and pair.there.of(LinkClosed), *pair.sides)
    assert pair.arrived() == bodies
    assert pair.here.of(LinkClosed) == [LinkClosed(pair.link, "enough")]
    (closed,) = pair.there.of(LinkClosed)
    assert "closed" in closed.reason
    assert pair.there.events.index(closed) > pair.there.events.index(
        pair.there.of(FrameArrived)[-1]
    )
    assert pair.here.links.idle
    assert pair.there.links.idle


def test_last_words_arrive_though_the_other_side_is_talking(pair: Pair):
    """Without care its unread frames would turn our close into a reset."""
    for _ in range(20):
        pair.there.links.send(SendFrame(pair.mirror, frame(b"chatter" * 100)))
    pair.there.flush()
    sock = pair.there.links._links[pair.mirror]._stream._sock
    spin_until(lambda: fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)) == bytes(4))  # it is there
    pair.send(b"the reason")
    pair.here.links.close(CloseLink(pair.link, "enough"))
    spin_turns(20, pair.here)  # the other side is not looking yet
    pair.here.clock.ahead += limits.LINK_GRACE_S
    spin_until(lambda: pair.here.of(LinkClosed), pair.here)
    spin_until(lambda: pair.there.of(LinkClosed), pair.there)
    assert pair.arrived() == [b"the reason"]


def test_frames_after_a_close_are_not_told(pair: Pair):
    pair.here.links.close(CloseLink(pair.link, "enough"))
    pair.there.links.send(SendFrame(pair.mirror, frame(b"too late")))
    pair.there.flush()
    spin_until(lambda: pair.here.of(LinkClosed), *pair.sides)
    assert not pair.here.of(FrameArrived)


def test_a_close_does_not_wait_for_ever(pair: Pair):
    pair.trust()
    pair.send(*(b"x" * 100_000 for _ in range(40)))
    pair.here.links.close(CloseLink(pair.link, "enough"))
    spin_turns(20, pair.here)
    assert not pair.here.of(LinkClosed)
    pair.here.clock.ahead += limits.LINK_GRACE_S
    spin_until(lambda: pair.here.of(LinkClosed), pair.here)
    assert pair.here.links.idle


def test_a_cut_connection_is_told_once(pair: Pair):
    pair.send(b"before the cut")
    pair.here.flush()
    pair.here.links._links[pair.link]._stream.close()
    spin_until(lambda: pair.there.of(LinkClosed), pair.there)
    spin_turns(3, pair.there)
    assert pair.arrived() == [b"before the cut"]
    assert len(pair.there.of(LinkClosed)) == 1


def test_closing_all(pair: Pair):
    pair.here.links.dial(Dial(2, "127.0.0.1", pair.there.port))
    pair.here.links.close_all("the daemon stops")
    spin_until(lambda: pair.here.links.idle and pair.there.of(LinkClosed), *pair.sides)
    assert [event.reason for event in pair.here.of(LinkClosed)] == ["the daemon stops"]
    assert not pair.here.of(DialFailed)


# -- dials -----------------------------------------------------------------------------------


def dialled_by(side: PeerSide, server: socket.socket) -> socket.socket:
    """The connection of a side that dials this server, once it has said something."""
    found: list[socket.socket] = []

    def look() -> bool:
        if select.select([server], [], [], 0)[0]:
            found.append(server.accept()[0])
        return bool(found and select.select(found, [], [], 0)[0])

    spin_until(look, side)
    return found[0]


def test_a_dial_that_nobody_answers_fails():
    side = PeerSide()
    with socket.socket() as sock:  # which has the port, so that nobody else listens there
        sock.bind(("127.0.0.1", 0))
        side.links.dial(Dial(5, "127.0.0.1", sock.getsockname()[1]))
        spin_until(lambda: side.of(DialFailed), side)
    (failed,) = side.of(DialFailed)
    assert failed.dial == 5
    assert "refused" in failed.reason


@pytest.mark.parametrize("host", ["localhost", "nowhere.invalid", "", "a" * 300, "fe80::1%none"])
def test_a_dial_asks_no_name_server(host: str):
    side = PeerSide()
    side.links.dial(Dial(5, host, 4000))
    spin_until(lambda: side.of(DialFailed), side)


def test_a_dial_to_ipv6():
    side = PeerSide()
    with socket.socket(socket.AF_INET6) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        side.links.dial(Dial(5, "::1", sock.getsockname()[1]))
        spin_until(lambda: side.of(DialFailed), side)
    assert "refused" in side.of(DialFailed)[0].reason


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_dial_that_reaches_something_else_fails(says: bytes):
    side = PeerSide()
    with socket.create_server(("127.0.0.1", 0)) as server:
        side.links.dial(Dial(5, "127.0.0.1", server.getsockname()[1]))
        other = dialled_by(side, server)
        other.sendall(says)
        if says:
            spin_until(lambda: side.of(DialFailed), side)
            assert "TLS" in side.of(DialFailed)[0].reason
        else:  # it is silent
            spin_turns(10, side)
            assert not side.of(DialFailed)
            side.clock.ahead = limits.DIAL_TIMEOUT_S
            spin_until(lambda: side.of(DialFailed), side)
            assert "no answer within 10 s" in side.of(DialFailed)[0].reason
        other.close()
    assert side.links.idle


def test_a_dial_that_is_cut_in_mid_handshake_fails():
    side = PeerSide()
    with socket.create_server(("127.0.0.1", 0)) as server:
        side.links.dial(Dial(5, "127.0.0.1", server.getsockname()[1]))
        other = dialled_by(side, server)
        other.recv(10)
        other.close()
        spin_until(lambda: side.of(DialFailed), side)
    spin_turns(3, side)
    assert len(side.of(DialFailed)) == 1


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_cancelled_dial_says_nothing(turns: int):
    side = PeerSide()
    with socket.create_server(("127.0.0.1", 0)) as server:
        side.links.dial(Dial(5, "127.0.0.1", server.getsockname()[1]))
        spin_turns(turns, side)
        side.links.cancel_dial(CancelDial(5))
        side.links.cancel_dial(CancelDial(5))
        side.clock.ahead = 2 * limits.DIAL_TIMEOUT_S
        spin_turns(10, side)
    assert side.events == []
    assert side.links.idle


def test_an_acceptor_that_does_not_say_who_it_is_is_left():
    here, there = PeerSide(), PeerSide()
    here.links.dial(Dial(1, "127.0.0.1", there.port))
    spin_until(lambda: here.of(LinkOpened), here, there)
    here.clock.ahead = limits.HANDSHAKE_TIMEOUT_S
    spin_until(lambda: here.of(LinkClosed), here)
    assert "who it is" in here.of(LinkClosed)[0].reason


def test_a_link_to_oneself_is_nothing_special():
    side = PeerSide()
    side.links.dial(Dial(1, "127.0.0.1", side.port))
    spin_until(lambda: len(side.of(LinkOpened)) == 2, side)
    assert len({event.link for event in side.of(LinkOpened)}) == 2


# -- strangers -------------------------------------------------------------------------------


def test_a_stranger_byte_by_byte():
    side = PeerSide()
    raw = RawDialler(side)
    while not (raw.tls.established and side.of(LinkOpened)):
        for byte in raw.tls.take_outgoing():
            raw.sock.sendall(bytes([byte]))
            side.spin()
        side.spin()
        raw.exchange()
    raw.tls.write(frame(b"slowly") + frame(b"but surely"))
    for byte in raw.tls.take_outgoing():
        raw.sock.sendall(bytes([byte]))
        side.spin()
    spin_until(lambda: len(side.of(FrameArrived)) == 2, side)
    assert [event.body for event in side.of(FrameArrived)] == [b"slowly", b"but surely"]


def test_a_frame_over_the_limit_breaks_the_link():
    side = PeerSide()
    raw = RawDialler(side)
    link = raw.join()
    raw.send(frame(b"good") + HEADER.pack(limits.STRANGER_FRAME_BYTES_MAX + 1, 7) + b"x" * 100)
    raw.send(frame(b"after the break"))
    spin_until(lambda: side.of(LinkBroken), side)
    spin_turns(5, side)
    assert [event.body for event in side.of(FrameArrived)] == [b"good"]
    (broken,) = side.of(LinkBroken)
    assert (broken.link, broken.code) == (link, "malformed")
    side.links.send(SendFrame(link, frame(b"why", 0x10)))
    side.links.close(CloseLink(link, "malformed"))

    def look() -> bool:
        raw.exchange()
        return raw.tls.ended or bool(raw.tls.read())

    spin_until(look, side)


def test_a_frame_of_the_raised_limit_is_taken():
    side = PeerSide()
    raw = RawDialler(side)
    side.links.raise_frame_limit(RaiseFrameLimit(raw.join(), limits.FRAME_BYTES_MAX))
    raw.send(frame(b"x" * (limits.FRAME_BYTES_MAX - 2)))
    spin_until(lambda: side.of(FrameArrived), side)


def test_a_silent_link_is_cut_unless_it_is_known():
    side = PeerSide()
    known, unknown = RawDialler(side), RawDialler(side)
    side.links.authenticated(Authenticated(known.join(), False))
    link = unknown.join()
    side.clock.ahead = limits.HANDSHAKE_TIMEOUT_S
    spin_until(lambda: side.of(LinkClosed), side)
    spin_turns(3, side)
    assert [event.link for event in side.of(LinkClosed)] == [link]


@pytest.mark.parametrize("first", [b"", b"\x16", b"\x16\x03\x01\x05\x00\x01"])
def test_a_silent_connection_is_cut(first: bytes, caplog: pytest.LogCaptureFixture):
    side = PeerSide()
    with socket.create_connection(("127.0.0.1", side.port)) as sock:
        sock.sendall(first)
        spin_turns(10, side)
        side.clock.ahead = limits.HANDSHAKE_TIMEOUT_S
        assert read_all(sock, side) == b""
    assert side.events == []
    assert "it stayed silent" in caplog.text


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x16garbage" * 100, b"\x00" * 99])
def test_garbage_is_cut_at_once(garbage: bytes, caplog: pytest.LogCaptureFixture):
    side = PeerSide()
    with socket.create_connection(("127.0.0.1", side.port)) as sock:
        sock.sendall(garbage)
        answer = read_all(sock, side)
    assert answer[:1] in (b"", b"\x15"), "nothing, or an alert"
    assert side.events == []
    assert len(caplog.records) == 1


def test_a_handshake_of_a_mebibyte_is_cut(caplog: pytest.LogCaptureFixture):
    side = PeerSide()
    with socket.create_connection(("127.0.0.1", side.port)) as sock:
        sock.setblocking(False)
        data = (b"\x16\x03\x01\x40\x00\x01\x01\xff\xff" + b"\x00" * 16_380) * 64
        with contextlib.suppress(ConnectionError):
            sock.send(data)
        read_all(sock, side)
    assert side.events == []
    assert len(caplog.records) == 1
    assert side.links.idle


def test_a_flood_of_cuts_is_a_line_and_a_summary(caplog: pytest.LogCaptureFixture):
    side = PeerSide()
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", side.port)) as sock:
            sock.sendall(b"x")
            read_all(sock, side)
    assert len(caplog.records) == 1
    side.clock.ahead = limits.CUT_SUMMARY_S
    spin_turns(2, side)
    assert len(caplog.records) == 2
    assert "29 more connections" in caplog.text
    assert "29 x neither TLS nor a lane" in caplog.text
    side.clock.ahead *= 3
    spin_turns(2, side)
    assert len(caplog.records) == 2


class KeyUpdates:
    """TLS records that OpenSSL does not make by itself: one byte of data after another, before
    each a new key and the request for one (RFC 8446 4.6.3), which has to be answered."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._renew()

    def next(self, byte: bytes) -> bytes:
        update = self._record(b"\x18\0\0\1\1", 22)
        self._secret = self._expand(b"traffic upd", 48)
        self._renew()
        return update + self._record(byte, 23)

    def _renew(self) -> None:
        self._key, self._iv = AESGCM(self._expand(b"key", 32)), self._expand(b"iv", 12)
        self._count = 0

    def _record(self, data: bytes, kind: int) -> bytes:
        nonce = (int.from_bytes(self._iv, "big") ^ self._count).to_bytes(12, "big")
        self._count += 1
        head = struct.pack(">BHH", 23, 0x0303, len(data) + 17)
        return head + self._key.encrypt(nonce, data + bytes([kind]), head)

    def _expand(self, label: bytes, size: int) -> bytes:
        info = struct.pack(">HB", size, 6 + len(label)) + b"tls13 " + label + b"\0"
        return HKDFExpand(hashes.SHA384(), size, info).derive(self._secret)


def test_answers_to_key_updates_do_not_pile_up_for_who_does_not_read_them() -> None:
    side, keys = PeerSide(), list[bytes]()
    side.tls._dialling.set_keylog_callback(lambda _, line: keys.append(line))
    dialler = RawDialler(side)

    def opened() -> bool:
        dialler.exchange()
        return bool(side.of(LinkOpened))

    spin_until(opened, side)
    (link,) = side.links._links.values()
    side.links.authenticated(Authenticated(link.number, False))
    link._stream._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    (secret,) = [line.split()[2] for line in keys if line.startswith(b"CLIENT_TRAFFIC_SECRET_0")]
    updates = KeyUpdates(bytes.fromhex(secret.decode()))
    data = bytearray(b"".join(updates.next(byte.to_bytes()) for byte in frame(bytes(3000)) * 40))

    def closed() -> bool:
        if data:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                del data[: dialler.sock.send(data)]
        assert link._stream.queued < 2 * limits.STRANGER_BUFFER_BYTES_MAX
        return bool(side.of(LinkClosed))

    spin_until(closed, side)
    assert "does not take" in side.of(LinkClosed)[0].reason
    dialler.sock.close()


def test_dials_have_the_same_bound_as_links() -> None:
    here, there = PeerSide(links_max=3), PeerSide()
    for dial in range(1, 6):
        here.links.dial(Dial(dial, "127.0.0.1", there.port))
    spin_until(lambda: len(here.of(LinkOpened)) == 3 and len(here.of(DialFailed)) == 2, here, there)
    assert [event.dial for event in here.of(DialFailed)] == [4, 5]
    here.links.close(CloseLink(here.of(LinkOpened)[0].link, "enough"))
    here.links.dial(Dial(6, "127.0.0.1", there.port))
    spin_until(lambda: len(here.of(LinkOpened)) == 4, here, there)
