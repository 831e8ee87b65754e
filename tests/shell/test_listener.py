"""Listening and admission: ports, families, the first byte, floods, and a lack of descriptors."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from harness import free_port
from sides import PeerSide, read_all, spin_turns, spin_until
from tntd import limits
from tntd.effects import Authenticated, Dial, Vouch
from tntd.errors import StartError
from tntd.events import LinkClosed, LinkOpened
from tntd.shell import listening
from tntd.shell.listening import open_listeners


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


# -- opening ---------------------------------------------------------------------------------


def test_by_default_both_families_are_listened_to_on_one_port():
    sockets, port, note = open_listeners([], 0)
    assert note is None
    hosts = ["127.0.0.1", "::1"] if has_ipv6() else ["127.0.0.1"]
    for host in hosts:
        socket.create_connection((host, port), timeout=60).close()
    close(sockets)


def test_where_there_is_no_ipv6_there_is_still_ipv4(monkeypatch: pytest.MonkeyPatch):
    bind = listening._bind

    def without(family: int, address: object, *, dual: bool) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "no IPv6")
        return bind(family, address, dual=dual)

    monkeypatch.setattr(listening, "_bind", without)
    sockets, port, _ = open_listeners([], 0)
    assert [sock.family for sock in sockets] == [socket.AF_INET]
    socket.create_connection(("127.0.0.1", port), timeout=60).close()
    close(sockets)


def test_the_preferred_port_is_taken_again():
    preferred = free_port()  # one that the system gives to nobody meanwhile
    for _ in range(2):
        sockets, port, note = open_listeners([], preferred)
        assert (port, note) == (preferred, None)
        with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
            other, _ = sockets[0].accept()
            other.close()  # leaves a TIME_WAIT on our side
            sock.recv(1)
        close(sockets)


@pytest.mark.parametrize("addresses", [[], [("127.0.0.1", 0)], [("", 0)]])
def test_where_it_is_taken_another_is_and_a_note_says_so(
    addresses: list[tuple[str, int]], taken: socket.socket
):
    preferred = taken.getsockname()[1]
    sockets, port, note = open_listeners(addresses, preferred)
    assert port != preferred
    assert note is not None
    assert str(preferred) in note
    assert str(port) in note
    close(sockets)


def test_several_addresses_share_a_port():
    if not has_ipv6():
        pytest.skip("no IPv6 here")
    sockets, port, _ = open_listeners([("127.0.0.1", 0), ("::1", 0)], 0)
    assert {sock.getsockname()[1] for sock in sockets} == {port}
    close(sockets)


def test_an_explicit_port_is_that_one_or_an_error(taken: socket.socket):
    wanted = free_port()
    sockets, port, note = open_listeners([("127.0.0.1", wanted)], 0)
    assert (port, note) == (wanted, None)
    close(sockets)
    with pytest.raises(StartError, match=r"cannot listen on 127.0.0.1:\d+: address already"):
        open_listeners([("127.0.0.1", taken.getsockname()[1])], 0)


@pytest.mark.parametrize("host", ["192.0.2.77", "no.such.host.invalid", "a" * 200])
def test_an_address_that_is_not_ours_is_an_error(host: str):
    with pytest.raises(StartError, match="cannot listen"):
        open_listeners([(host, 0)], 0)


# -- the first byte --------------------------------------------------------------------------


def test_a_lane_is_handed_on_untouched():
    side = PeerSide()
    with socket.create_connection(("127.0.0.1", side.port)) as sock:
        sock.sendall(b"TNTLANE1 and more")
        spin_until(lambda: side.lanes.adopted, side)
    assert side.lanes.adopted == [("127.0.0.1", b"TNTLANE1")]


def test_mapped_addresses_are_shown_plainly():
    here, there = PeerSide(), PeerSide(host="")
    here.links.dial(Dial(1, "127.0.0.1", there.port))
    spin_until(lambda: there.of(LinkOpened), here, there)
    assert there.of(LinkOpened)[0].host == "127.0.0.1"


# -- admission -------------------------------------------------------------------------------


def test_strangers_are_bounded_and_places_come_back():
    side = PeerSide()
    socks = [socket.create_connection(("127.0.0.1", side.port)) for _ in range(40)]
    spin_until(lambda: side.listener._gate._strangers.places == 32, side)
    for sock in socks[32:]:
        assert read_all(sock, side) == b""
    for sock in socks[:32]:
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
    for sock in socks:
        sock.close()
    spin_until(lambda: side.listener._gate._strangers.places == 0, side)
    with socket.create_connection(("127.0.0.1", side.port)) as sock:
        sock.sendall(b"TNTLANE1")
        spin_until(lambda: side.lanes.adopted, side)


def test_a_contact_gets_in_while_its_own_address_floods():
    here, there = PeerSide(), PeerSide()
    there.listener.vouch(Vouch(frozenset()))
    socks = [socket.create_connection(("127.0.0.1", there.port)) for _ in range(35)]
    spin_until(lambda: there.listener._gate._strangers.places == 32, there)
    there.listener.vouch(Vouch(frozenset({"127.0.0.1"})))
    here.links.dial(Dial(1, "127.0.0.1", there.port))
    spin_until(lambda: there.of(LinkOpened), here, there)
    for sock in socks:
        sock.close()


def test_a_known_contact_does_not_hold_a_strangers_place():
    here, there = PeerSide(), PeerSide()
    places = there.listener._gate._strangers
    for number in (1, 2):
        here.links.dial(Dial(number, "127.0.0.1", there.port))
    spin_until(lambda: len(there.of(LinkOpened)) == 2, here, there)
    assert places.places == 2
    first, second = (event.link for event in there.of(LinkOpened))
    there.links.authenticated(Authenticated(first, True))
    there.links.authenticated(Authenticated(second, False))
    assert places.places == 1, "who is known and not a contact still counts"
    here.links.close_all("enough")
    spin_until(lambda: len(there.of(LinkClosed)) == 2, here, there)
    assert places.places == 0


def test_there_is_a_limit_on_links():
    here, there = PeerSide(), PeerSide(links_max=1)
    here.links.dial(Dial(1, "127.0.0.1", there.port))
    spin_until(lambda: there.of(LinkOpened), here, there)
    with socket.create_connection(("127.0.0.1", there.port)) as sock:
        assert read_all(sock, there) == b""


class Exhausted:
    """A listening socket whose process has no descriptor left, for a while."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.tries = 0
        self.empty = True

    def accept(self) -> tuple[socket.socket, object]:
        self.tries += 1
        if self.empty:
            raise OSError(errno.EMFILE, "too many open files")
        return self.sock.accept()

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self.sock.close()


def test_without_descriptors_accepting_pauses(caplog: pytest.LogCaptureFixture):
    side = PeerSide()
    sockets, port, _ = open_listeners([("127.0.0.1", 0)], 0)
    door = Exhausted(sockets[0])
    listener = type(side.listener)(side.loop, [door], side.links, side.lanes, side.cuts)  # type: ignore[list-item]
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"TNTLANE1")
        spin_until(lambda: door.tries, side)
        spin_turns(50, side)
        assert door.tries == 1
        assert "too many open files" in caplog.text
        door.empty = False
        side.clock.ahead = limits.ACCEPT_PAUSE_S
        spin_until(lambda: side.lanes.adopted, side)
    listener.close()


def test_closing_cuts_who_has_said_nothing():
    side = PeerSide()
    with socket.create_connection(("127.0.0.1", side.port)) as sock:
        spin_until(lambda: side.listener._gate._strangers.places, side)
        side.listener.close()
        assert read_all(sock, side) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", side.port))
