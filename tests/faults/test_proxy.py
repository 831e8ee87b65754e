"""The proxy that spoils: it must do to the bytes what it is said to do, and nothing else."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from faults.proxy import Proxy
from harness import wait_for

DATA = os.urandom(300_000)


class Ends:
    """Both ends of a connection through a proxy."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(20)
        self.proxy = Proxy(listener.getsockname()[1])
        stack.callback(self.proxy.close)
        self.near = stack.enter_context(
            socket.create_connection(("127.0.0.1", self.proxy.port), 20)
        )
        self.far = stack.enter_context(listener.accept()[0])
        for sock in (self.near, self.far):
            sock.settimeout(20)
        wait_for(lambda: self.proxy.count == 1)


@pytest.fixture
def ends() -> Iterator[Ends]:
    with contextlib.ExitStack() as stack:
        yield Ends(stack)


def send(sock: socket.socket, data: bytes, *, end: bool = True) -> None:
    """Send from a thread, so that a test can read meanwhile."""

    def run() -> None:
        with contextlib.suppress(OSError):
            sock.sendall(data)
            if end:
                sock.shutdown(socket.SHUT_WR)

    threading.Thread(target=run, daemon=True).start()


def receive(sock: socket.socket, size: int = 1 << 30) -> bytes:
    """So many bytes, or all up to the end."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while len(data) < size and (piece := sock.recv(65_536)):
            data += piece
    return data


def test_without_a_fault_all_goes_through(ends: Ends) -> None:
    send(ends.near, DATA)
    assert receive(ends.far) == DATA
    send(ends.far, DATA)
    assert receive(ends.near) == DATA
    wait_for(lambda: ends.proxy.count == 0)


def test_bits_are_turned_one_way(ends: Ends) -> None:
    ends.proxy.forth.corrupt = 1
    send(ends.near, DATA)
    got = receive(ends.far)
    turned = [a ^ b for a, b in zip(got, DATA, strict=True) if a != b]
    assert [each.bit_count() for each in turned] == [1]
    send(ends.far, DATA)
    assert receive(ends.near) == DATA


@pytest.mark.parametrize("reset", [True, False])
def test_a_cut(ends: Ends, reset: bool) -> None:
    assert ends.proxy.cut(reset=reset) == 1
    for sock in (ends.near, ends.far):
        assert receive(sock) == b""


def test_a_cut_after_so_many_bytes(ends: Ends) -> None:
    ends.proxy.forth.cut_after = 100_001
    send(ends.near, DATA, end=False)
    got = receive(ends.far)
    assert len(got) <= 100_001
    assert DATA.startswith(got)
    wait_for(lambda: ends.proxy.count == 0)


def test_silence_one_way_loses_nothing(ends: Ends) -> None:
    ends.proxy.forth.silent = True
    send(ends.near, DATA)
    send(ends.far, b"the other way", end=False)
    assert receive(ends.near, 13) == b"the other way"
    ends.far.settimeout(0.3)
    with pytest.raises(TimeoutError):
        ends.far.recv(1)
    ends.far.settimeout(20)
    ends.proxy.clear()
    assert receive(ends.far) == DATA


def test_one_half_closed(ends: Ends) -> None:
    assert ends.proxy.half_close("forth") == 1
    assert receive(ends.far) == b""
    send(ends.near, DATA, end=False)
    send(ends.far, DATA)
    assert receive(ends.near) == DATA


@pytest.mark.parametrize("fault", ["delay_s", "rate"])
def test_slow(ends: Ends, fault: str) -> None:
    setattr(ends.proxy.forth, fault, {"delay_s": 0.3, "rate": 500_000.0}[fault])
    began = time.monotonic()
    send(ends.near, DATA)
    assert receive(ends.far) == DATA
    assert time.monotonic() - began > 0.25


def test_nobody_gets_through(ends: Ends) -> None:
    ends.proxy.refuse = True
    with socket.create_connection(("127.0.0.1", ends.proxy.port), 20) as sock:
        assert receive(sock) == b""
    assert ends.proxy.count == 1
