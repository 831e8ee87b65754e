"""The control server: who may attach, lines in and out, slow and rude clients."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sides import Side, read_all, spin_turns, spin_until
from tntd import limits
from tntd.effects import ClientAuthorised, CloseClient, SendLatest, SendLine
from tntd.errors import StartError
from tntd.events import (
    ClientClosed,
    ClientDrained,
    ClientLeft,
    ClientOpened,
    LineArrived,
    LineTooLong,
)
from tntd.shell import control_sockets
from tntd.shell.control_server import ControlServer
from tntd.shell.control_sockets import open_tcp, open_unix
from tntd.shell.cuts import CutLog


class ControlSide(Side):
    """A side with a control server on a Unix socket and on loopback TCP."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        tcp = open_tcp("127.0.0.1", 0)
        self.address = tcp.getsockname()
        self.lets_go = True  # as the node does of who has left and waits for nothing
        self.server = ControlServer(self.loop, [open_unix(path), tcp], CutLog(self.loop))

    def flush(self) -> None:
        for event in self.of(ClientLeft) if self.lets_go else ():
            self.server.close(CloseClient(event.client))
        self.server.flush()

    def attach(self, *, local: bool = True, authorised: bool = True) -> tuple[socket.socket, int]:
        """A client of ours, and its number."""
        sock = socket.socket(socket.AF_UNIX if local else socket.AF_INET)
        sock.connect(str(self.path) if local else self.address)
        before = len(self.of(ClientOpened))
        spin_until(lambda: len(self.of(ClientOpened)) > before, self)
        opened = self.of(ClientOpened)[-1]
        assert opened.local_user is local
        if authorised:
            self.server.authorised(ClientAuthorised(opened.client))
        return sock, opened.client

    def lines(self) -> list[bytes]:
        return [event.line for event in self.of(LineArrived)]


@pytest.fixture
def side(home: Path) -> Iterator[ControlSide]:
    side = ControlSide(home / "run" / "alice.sock")
    yield side
    side.server.stop()


def receive(sock: socket.socket, count: int, side: Side) -> bytes:
    """Exactly so many bytes."""
    sock.setblocking(False)
    data = b""

    def look() -> bool:
        nonlocal data
        with contextlib.suppress(BlockingIOError):
            data += sock.recv(count - len(data))
        return len(data) == count

    spin_until(look, side)
    return data


# -- sockets ---------------------------------------------------------------------------------


def test_the_socket_is_for_our_user_only(side: ControlSide):
    assert stat.S_IMODE(side.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(side.path.parent.stat().st_mode) == 0o700


def test_a_folder_that_was_there_is_left_as_it_is(home: Path):
    home.chmod(0o755)
    open_unix(home / "a.sock").close()
    assert stat.S_IMODE(home.stat().st_mode) == 0o755


def test_a_folder_where_others_may_write_is_refused(home: Path):
    home.chmod(0o777)
    with pytest.raises(StartError, match="other users could replace"):
        open_unix(home / "a.sock")
    home.chmod(0o1777)
    open_unix(home / "a.sock").close()
    home.chmod(0o700)


def test_a_stale_socket_is_replaced_and_a_living_one_is_not(home: Path):
    path = home / "a.sock"
    open_unix(path).close()  # as after kill -9: the file stays
    assert path.exists()
    sock = open_unix(path)
    with pytest.raises(StartError) as caught:
        open_unix(path)
    assert caught.value.exit_code == 3
    sock.close()


def test_something_else_in_its_place_is_not_removed(home: Path):
    path = home / "a.sock"
    path.write_text("precious")
    with pytest.raises(StartError, match="is no socket"):
        open_unix(path)
    assert path.read_text() == "precious"


def test_a_path_that_is_too_long_is_an_error_in_words(home: Path):
    with pytest.raises(StartError, match="choose another place"):
        open_unix(home / ("a" * 120))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org", "", "a\nb"])
def test_tcp_is_loopback_only(host: str):
    with pytest.raises(StartError, match="loopback"):
        open_tcp(host, 0)


def test_stopping_takes_the_file_away(side: ControlSide):
    side.attach()
    side.server.stop()
    assert not side.path.exists()
    spin_until(lambda: side.of(ClientClosed), side)
    assert side.server.idle


def test_another_user_is_turned_away(side: ControlSide, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control_sockets, "_peer_uid", lambda sock: os.geteuid() + 1)
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(side.path))
    assert read_all(sock, side) == b""
    assert side.events == []


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs to be root")
def test_another_user_is_really_turned_away(side: ControlSide):
    for folder in (side.path.parent, side.path.parent.parent):
        folder.chmod(0o755)
    side.path.chmod(0o666)
    code = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX);"
        "s.connect(sys.argv[1]); print(repr(s.recv(1)))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(side.path)], stdout=subprocess.PIPE
    ) as other:
        spin_until(lambda: other.poll() is not None, side)
        assert other.stdout is not None
        assert other.stdout.read() == b"b''\n"
    assert side.events == []


# -- lines -----------------------------------------------------------------------------------


@pytest.mark.parametrize("local", [True, False])
def test_lines_in_and_out(side: ControlSide, local: bool):
    sock, client = side.attach(local=local)
    sock.sendall(b'{"a": 1}\n{"b": 2}\nhalf')
    spin_until(lambda: len(side.lines()) == 2, side)
    sock.sendall(b" a line\n")
    spin_until(lambda: len(side.lines()) == 3, side)
    assert side.lines() == [b'{"a": 1}', b'{"b": 2}', b"half a line"]
    side.server.send(SendLine(client, b"one\n"))
    side.server.send(SendLine(client, b"two\nthree\n"))
    assert receive(sock, 14, side) == b"one\ntwo\nthree\n"
    assert side.of(ClientDrained) == [ClientDrained(client)]
    sock.close()
    spin_until(lambda: side.of(ClientClosed), side)
    assert side.server.idle


def test_byte_by_byte(side: ControlSide):
    sock, _ = side.attach()
    for byte in b"one\ntwo\n\n":
        sock.sendall(bytes([byte]))
        spin_turns(2, side)
    assert side.lines() == [b"one", b"two", b""]


def test_a_line_of_a_mebibyte_is_taken_and_one_byte_more_is_not(side: ControlSide):
    sock, _ = side.attach()
    send_slowly(sock, b"x" * limits.LINE_BYTES_MAX + b"\n", side)
    spin_until(side.lines, side)
    assert len(side.lines()[0]) == limits.LINE_BYTES_MAX
    send_slowly(sock, b"x" * (limits.LINE_BYTES_MAX + 1), side)
    spin_until(lambda: side.of(LineTooLong), side)
    send_slowly(sock, b"\nnot read any more\n", side, turns=20)
    assert len(side.lines()) == 1
    client = side.of(LineTooLong)[0].client
    side.server.send(SendLine(client, b"too long\n"))
    side.server.close(CloseClient(client))
    assert read_all(sock, side) == b"too long\n"
    spin_until(lambda: side.of(ClientClosed), side)


def send_slowly(sock: socket.socket, data: bytes, side: Side, turns: int = 2000) -> None:
    """Send while the side turns, as both live in one thread."""
    sock.setblocking(False)
    for _ in range(turns):
        with contextlib.suppress(BlockingIOError):
            data = data[sock.send(data) :]
        side.spin()
        if not data:
            return


def test_before_it_is_known_a_client_may_say_little(side: ControlSide):
    sock, _ = side.attach(local=False, authorised=False)
    sock.sendall(b"x" * (limits.UNAUTHORISED_LINE_BYTES_MAX + 1))
    assert read_all(sock, side) == b""
    assert not side.of(LineTooLong)
    assert not side.of(LineArrived)
    spin_until(lambda: side.of(ClientClosed), side)


def test_a_local_client_is_told_that_its_line_is_too_long(side: ControlSide):
    sock, client = side.attach(local=True, authorised=False)
    sock.sendall(b"x" * (limits.UNAUTHORISED_LINE_BYTES_MAX + 1))
    spin_until(lambda: side.of(LineTooLong), side)
    side.server.close(CloseClient(client))
    assert read_all(sock, side) == b""


def test_a_long_line_right_behind_the_hello_is_measured_as_that_of_a_known_one(side: ControlSide):
    sock, client = side.attach(local=True, authorised=False)
    sock.sendall(b"hello\n" + b"x" * 50_000 + b"\n")
    spin_until(side.lines, side)
    assert side.lines() == [b"hello"]
    side.server.authorised(ClientAuthorised(client))
    spin_until(lambda: len(side.lines()) == 2, side)


def test_who_does_not_say_who_it_is_is_cut(side: ControlSide):
    known, _ = side.attach(local=False)
    unknown, client = side.attach(local=False, authorised=False)
    side.clock.ahead = limits.AUTHORISE_TIMEOUT_S
    assert read_all(unknown, side) == b""
    spin_until(lambda: side.of(ClientClosed), side)
    assert [event.client for event in side.of(ClientClosed)] == [client]
    known.close()


def test_a_browser_gets_no_answer(side: ControlSide):
    """The node closes who does not begin with a hello; nothing is said here on the way."""
    sock, client = side.attach(local=False, authorised=False)
    sock.sendall(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" + b'{"jsonrpc": "2.0"}' * 1000)
    spin_until(lambda: side.of(LineArrived), side)
    assert side.lines() == [b"POST / HTTP/1.1\r"]
    side.server.close(CloseClient(client))
    assert read_all(sock, side) == b""
    assert len(side.lines()) == 1


def test_there_are_not_more_clients_than_allowed(side: ControlSide):
    socks = [side.attach()[0] for _ in range(limits.CLIENTS_MAX)]
    extra = socket.socket(socket.AF_UNIX)
    extra.connect(str(side.path))
    assert read_all(extra, side) == b""
    socks[0].close()
    spin_until(lambda: side.of(ClientClosed), side)
    socks.append(side.attach()[0])
    for sock in socks:
        sock.close()


def test_who_does_not_say_who_it_is_keeps_nobody_out(side: ControlSide):
    ours = side.attach(local=False)[0]
    silent = [side.attach(local=False, authorised=False) for _ in range(limits.CLIENTS_MAX - 1)]
    more = [side.attach(local=False)[0] for _ in range(2)]
    spin_until(lambda: len(side.of(ClientClosed)) == 2, side)
    assert [event.client for event in side.of(ClientClosed)] == [number for _, number in silent[:2]]
    assert read_all(silent[0][0], side) == b""
    for sock in (ours, *more):
        sock.sendall(b"here\n")
    spin_until(lambda: side.lines() == [b"here"] * 3, side)
    for sock in (ours, *more, *(sock for sock, _ in silent[1:])):
        sock.close()


def test_a_turn_takes_a_bounded_number_of_lines(side: ControlSide):
    sock, _ = side.attach()
    sock.sendall(b"\n" * 500)
    while len(side.lines()) < 500:
        before = len(side.lines())
        side.spin()
        assert 0 < len(side.lines()) - before <= limits.TURN_EVENTS_MAX


# -- slow clients ----------------------------------------------------------------------------


def test_who_does_not_read_is_not_read(side: ControlSide):
    sock, client = side.attach()
    piece = b"x" * 511 * 1024 + b"\n"
    for _ in range(10):
        side.server.send(SendLine(client, piece))
    side.spin()
    sock.sendall(b"one more\n")
    spin_turns(20, side)
    assert side.lines() == []
    assert not side.of(ClientDrained)
    received = receive(sock, len(piece), side)
    spin_turns(5, side)
    assert side.lines() == [], "not before half of it has gone"
    received += receive(sock, 9 * len(piece), side)
    assert received == piece * 10
    spin_until(lambda: side.lines() == [b"one more"], side)
    assert len(side.of(ClientDrained)) == 1


def test_lines_in_hand_wait_while_it_does_not_read(side: ControlSide):
    sock, client = side.attach()
    sock.sendall(b"\n" * 100)
    side.spin()
    assert len(side.lines()) == limits.TURN_EVENTS_MAX
    side.server.send(SendLine(client, b"x" * (limits.CLIENT_BUFFER_BYTES_MAX + 2**20)))
    spin_turns(10, side)
    assert len(side.lines()) == limits.TURN_EVENTS_MAX
    receive(sock, limits.CLIENT_BUFFER_BYTES_MAX, side)
    spin_until(lambda: len(side.lines()) == 100, side)


def test_the_latest_replaces_what_has_not_gone(side: ControlSide):
    sock, client = side.attach()
    full = b"x" * 2**20 + b"\n"
    side.server.send(SendLine(client, full))
    side.spin()
    for n in range(100):
        side.server.send_latest(SendLatest(client, "a", b"a%d\n" % n))
        side.server.send_latest(SendLatest(client, "b", b"b%d\n" % n))
        side.spin()
    assert receive(sock, len(full), side) == full
    assert receive(sock, 8, side) == b"a99\nb99\n"
    spin_turns(5, side)
    assert len(side.of(ClientDrained)) == 1


def test_the_latest_does_not_overtake_nor_is_it_overtaken(side: ControlSide):
    sock, client = side.attach()
    side.server.send(SendLine(client, b"active\n"))
    side.server.send_latest(SendLatest(client, "t", b"50 %\n"))
    side.server.send(SendLine(client, b"done\n"))
    assert receive(sock, 17, side) == b"active\n50 %\ndone\n"


def test_the_latest_is_bounded(side: ControlSide):
    _, client = side.attach()
    side.server.send(SendLine(client, b"x" * 2**20))
    side.spin()
    for n in range(1000):
        side.server.send_latest(SendLatest(client, str(n), b"x" * 1000))
    assert len(side.server._clients[client]._latest) <= 256


# -- ends ------------------------------------------------------------------------------------


def test_a_script_that_closes_its_side_still_gets_its_answer(side: ControlSide):
    """However late: the node knows when it has them all."""
    side.lets_go = False
    sock, client = side.attach()
    sock.sendall(b"status\n")
    sock.shutdown(socket.SHUT_WR)
    spin_until(lambda: side.of(ClientLeft), side)
    assert side.lines() == [b"status"]
    spin_turns(10, side)
    side.server.send(SendLine(client, b"answer\n"))
    spin_turns(10, side)
    assert not side.of(ClientClosed) and len(side.of(ClientLeft)) == 1
    side.lets_go = True
    assert read_all(sock, side) == b"answer\n"
    spin_until(lambda: side.of(ClientClosed), side)


def test_who_has_left_for_good_is_closed_with_its_answer(side: ControlSide):
    side.lets_go = False
    sock, client = side.attach()
    sock.sendall(b"status\n")
    sock.close()
    spin_until(lambda: side.of(ClientLeft), side)
    side.server.send(SendLine(client, b"answer\n"))
    spin_until(lambda: side.of(ClientClosed), side)


def test_who_says_nothing_is_not_waited_for(side: ControlSide):
    side.lets_go = False
    sock, _ = side.attach(authorised=False)
    sock.shutdown(socket.SHUT_WR)
    spin_until(lambda: side.of(ClientClosed), side)
    assert read_all(sock, side) == b""


@pytest.mark.parametrize("local", [True, False])
def test_closing_flushes(side: ControlSide, local: bool):
    sock, client = side.attach(local=local)
    sock.sendall(b"unread\n" * 10)
    data = b"x" * 3 * 2**20
    side.server.send(SendLine(client, data))
    side.server.close(CloseClient(client))
    side.server.send(SendLine(client, b"too late"))
    assert read_all(sock, side) == data
    spin_until(lambda: side.of(ClientClosed), side)
    assert not side.lines()


def test_a_close_does_not_wait_for_ever(side: ControlSide):
    _sock, client = side.attach()
    side.server.send(SendLine(client, b"x" * 3 * 2**20))
    side.server.close(CloseClient(client))
    spin_turns(10, side)
    assert not side.of(ClientClosed)
    side.clock.ahead = limits.LINK_GRACE_S
    spin_until(lambda: side.of(ClientClosed), side)


def test_effects_for_a_client_that_is_gone_do_nothing(side: ControlSide):
    for perform, effect in (
        (side.server.send, SendLine(77, b"x\n")),
        (side.server.send_latest, SendLatest(77, "k", b"x\n")),
        (side.server.authorised, ClientAuthorised(77)),
        (side.server.close, CloseClient(77)),
    ):
        call: Callable[[object], None] = perform  # type: ignore[assignment]
        call(effect)
    side.spin()
    assert side.events == []
