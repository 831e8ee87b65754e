"""Whoever connects and is not one of ours: rubbish, silence, floods."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from bystanders import SOON_S, Scene, read_to_end
from harness import Daemon, wait_for, wait_linked
from peer import PeerClosed, RawPeer
from tntd import limits
from tntd.limits import MIB

Start = Callable[..., Daemon]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="needs every address of 127.0.0.0/8"
)

NOT_TLS = {
    "zeroes": bytes(100),
    "a browser": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "one byte": b"\xff",
    "random": b"\x99" + os.urandom(5000),
}
TLS_ALERT = b"\x15"


def hello_of(context: ssl.SSLContext) -> bytes:
    """The first flight of Python's own TLS client."""
    out = ssl.MemoryBIO()
    session = context.wrap_bio(ssl.MemoryBIO(), out)
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return out.read()


def client_context(alpn: list[str], highest: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = highest
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


def bad_tls() -> dict[str, bytes]:
    """What begins like TLS and is none that alice takes."""
    newest, older = ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2
    return {
        "a record of rubbish": b"\x16\x03\x01\x00\x40" + os.urandom(64),
        "a wrong version": b"\x16\xff\xff\x00\x40" + os.urandom(64),
        "TLS 1.2": hello_of(client_context(["tnt/1"], older)),
        "another protocol": hello_of(client_context(["h2", "http/1.1"], newest)),
    }


def test_what_is_not_tls_is_cut_without_a_word(daemon: Start) -> None:
    scene = Scene(daemon)
    for what, data in NOT_TLS.items():
        with scene.connect() as sock:
            sock.sendall(data)
            assert read_to_end(sock, SOON_S) == b"", what
    scene.said("was cut: neither TLS nor a lane")  # the others: one line, a little later
    scene.undisturbed()


@pytest.mark.parametrize("what", list(bad_tls()))
def test_bad_tls_gets_an_alert_at_most(daemon: Start, what: str) -> None:
    scene = Scene(daemon)
    with scene.connect() as sock:
        sock.sendall(bad_tls()[what])
        answer = read_to_end(sock, SOON_S)
    assert answer == b"" or answer.startswith(TLS_ALERT)
    assert len(answer) < 16  # nothing about us: no certificate, no name
    scene.said(f"a connection with {scene.source} was cut")
    assert len(scene.log()) == 1
    scene.undisturbed()


def test_tls_without_our_protocol_leads_nowhere(daemon: Start) -> None:
    scene = Scene(daemon)
    context = client_context([], ssl.TLSVersion.TLSv1_3)
    with context.wrap_socket(scene.connect()) as session:
        session.settimeout(SOON_S)
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            assert session.recv(1) == b""
    scene.said("was cut: the other side does not speak tnt/1")
    scene.undisturbed()


def test_a_tls_hello_of_mebibytes_is_cut_after_a_few_kibibytes(daemon: Start) -> None:
    scene = Scene(daemon)
    record = b"\x16\x03\x01" + struct.pack(">H", 16_000)
    first = record + b"\x01\xff\xff\xff\x03\x03" + bytes(15_994)
    with scene.connect() as sock:
        sock.settimeout(SOON_S)
        with contextlib.suppress(ConnectionError):
            sock.sendall(first)
            for _ in range(400):
                sock.sendall(record + bytes(16_000))
            pytest.fail("6 MiB of hello were taken")
        assert not read_to_end(sock, SOON_S).startswith(b"\x16")
    scene.said("was cut")
    scene.undisturbed(grown=4 * MIB)


# -- silence ------------------------------------------------------------------------------


def proved(scene: Scene) -> RawPeer:
    """Somebody who has proved a key, and then says nothing."""
    peer = scene.stranger()
    peer.authenticate()
    return peer


def silent(scene: Scene) -> dict[str, socket.socket]:
    """Connections that stop at one point or another, to be kept open."""
    hello = hello_of(client_context(["tnt/1"], ssl.TLSVersion.TLSv1_3))
    found = {what: scene.connect() for what in ("nothing", "half a hello", "half a lane", "drip")}
    found["half a hello"].sendall(hello[: len(hello) // 2])
    found["half a lane"].sendall(b"TNTLANE1" + bytes(4))
    found["after TLS"] = scene.stranger().sock
    half = scene.stranger()
    half.send_raw(b"\x00\x00\x00\x80\x00\x02\x82")
    found["half a frame"] = half.sock
    found["after its proof"] = proved(scene).sock
    return found


def test_who_says_nothing_is_cut_after_a_few_seconds(daemon: Start) -> None:
    scene = Scene(daemon)
    began = time.monotonic()
    waiting = silent(scene)
    drops = iter(hello_of(client_context(["tnt/1"], ssl.TLSVersion.TLSv1_3))[:-1])
    ended: dict[str, float] = {}
    while waiting and time.monotonic() < began + 3 * limits.HANDSHAKE_TIMEOUT_S:
        if "drip" in waiting:  # a byte now and then keeps nobody
            with contextlib.suppress(OSError):
                waiting["drip"].sendall(bytes([next(drops)]))
        for what, sock in list(waiting.items()):
            if has_ended(sock, 0.01):
                ended[what] = time.monotonic() - began
                waiting.pop(what).close()
    assert not waiting
    assert min(ended.values()) > limits.HANDSHAKE_TIMEOUT_S - 1, ended
    scene.said(f"a connection with {scene.source} was cut: it stayed silent")
    scene.said(f"a connection with {scene.source} was cut: a lane that said too little in time")
    scene.undisturbed()


def has_ended(sock: socket.socket, within: float) -> bool:
    sock.settimeout(within)
    try:
        return not sock.recv(65_536)
    except TimeoutError:
        return False
    except ConnectionError:
        return True


# -- floods -------------------------------------------------------------------------------


def is_open(sock: socket.socket) -> bool:
    """Whether the other end still holds this connection."""
    sock.settimeout(0.0)
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def held(socks: list[socket.socket]) -> int:
    return sum(1 for sock in socks if is_open(sock))


def test_strangers_are_bounded_for_an_address_and_in_all(daemon: Start) -> None:
    scene = Scene(daemon)
    with contextlib.ExitStack() as stack:

        def crowd(source: str, count: int) -> list[socket.socket]:
            return [stack.enter_context(scene.connect(source)) for _ in range(count)]

        one = crowd(scene.source, 40)
        wait_for(lambda: held(one) == limits.STRANGERS_PER_ADDRESS_MAX, SOON_S)
        all_of_them = one + [sock for last in range(3, 8) for sock in crowd(f"127.0.0.{last}", 32)]
        wait_for(lambda: held(all_of_them) == limits.STRANGERS_MAX, SOON_S)
        scene.said(f"a connection with {scene.source} was cut: too many strangers from one network")
    # They have left: there is room again.
    wait_for(lambda: can_greet(scene), SOON_S)
    scene.undisturbed()


def can_greet(scene: Scene) -> bool:
    try:
        with scene.stranger("127.0.0.99") as peer:
            peer.authenticate()
            return True
    except (PeerClosed, ConnectionError):
        return False


@contextlib.contextmanager
def flood(scene: Scene) -> Iterator[None]:
    """For the time of a `with`, strangers come and say a part of a hello, 200 a second; where one
    of them is cut the next takes the place."""
    hello = hello_of(client_context(["tnt/1"], ssl.TLSVersion.TLSv1_3))
    over = threading.Event()

    def run() -> None:
        with contextlib.ExitStack() as stack:
            here: list[socket.socket] = []
            for number in itertools.count():
                if number % 10 == 0:
                    for sock in [each for each in here if not is_open(each)]:
                        here.remove(sock)
                        sock.close()
                    if over.wait(0.05):
                        return
                with contextlib.suppress(OSError):
                    sock = stack.enter_context(scene.connect(f"127.0.1.{number % 250 + 1}"))
                    here.append(sock)
                    sock.settimeout(SOON_S)
                    sock.sendall(hello[: 1 + number % len(hello)])

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_flood_of_strangers_does_not_keep_contacts_out(daemon: Start) -> None:
    scene = Scene(daemon)
    with flood(scene):
        wait_for(lambda: not can_greet(scene), SOON_S, "strangers have filled their places")
        scene.talk()
        scene.bob.restart()
        wait_linked(scene.alice, scene.bob, SOON_S)
        scene.talk()
        wait_for(lambda: not can_greet(scene), SOON_S, "they are still there")
