"""Opening the sockets that peers dial: IPv6 and IPv4 on one port, kept from start to start.

What holds always: all addresses that leave the port open get the same one, the preferred one
where it is free; if it is not, a free one is taken and a note says so.  A port that was asked
for by number is that one or an error.

On POSIX SO_REUSEADDR lets a restart take its port back at once; on Windows that option would let
another program take it from us, so it is the opposite one there.
"""

from __future__ import annotations

import errno
import socket
import sys
from typing import Any

from tntd.errors import StartError
from tntd.machines.addresses import show_address
from tntd.shell.stream import in_words

_BACKLOG = 128
_TRIES = 20
_ABSENT = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}


def open_listeners(
    addresses: list[tuple[str, int]], preferred_port: int
) -> tuple[list[socket.socket], int, str | None]:
    """Listen on each (host, port); a host of "" is all interfaces, a port of 0 is open to
    choice.  No address at all means ("", 0).

    The sockets, the port that was chosen (or else the first one asked for), and a note for the
    user where the preferred port was taken.  Raises StartError.
    """
    wanted = addresses or [("", 0)]
    if all(port for _, port in wanted):
        return _listen(wanted, 0), wanted[0][1], None
    if preferred_port:
        try:
            return _listen(wanted, preferred_port), preferred_port, None
        except _PortTaken:
            pass
    sockets, port = _listen_anywhere(wanted)
    note = f"peer port {preferred_port} is taken, so {port} is used" if preferred_port else None
    return sockets, port, note


class _PortTaken(Exception):
    """The port that all should share is not free for all."""


def _listen_anywhere(wanted: list[tuple[str, int]]) -> tuple[list[socket.socket], int]:
    open_host = next(host for host, port in wanted if not port)
    for _ in range(_TRIES):
        # The system chooses for the first; then all are tried on that port.
        first = _listen_host(open_host, 0, 0)
        port: int = first[0].getsockname()[1]
        _close(first)
        try:
            return _listen(wanted, port), port
        except _PortTaken:
            continue
    raise StartError(
        "no free port was found that all listen addresses can share; "
        "give one with --listen HOST:PORT"
    )


def _listen(wanted: list[tuple[str, int]], shared_port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for host, port in wanted:
            sockets += _listen_host(host, port or shared_port, port)
    except BaseException:
        _close(sockets)
        raise
    return sockets


def _listen_host(host: str, port: int, asked: int) -> list[socket.socket]:
    """Sockets for one address; `asked` is the port that the user named, 0 for none."""
    try:
        if not host:
            return _listen_all(port)
        family, address = _resolve(host, port)
        return [_bind(family, address, dual=False)]
    except OSError as error:
        if error.errno == errno.EADDRINUSE and not asked:
            raise _PortTaken from error
        shown = show_address(host or "*", port)
        raise StartError(
            f"cannot listen on {shown}: {in_words(error)}; choose another with --listen HOST:PORT"
        ) from error


def _listen_all(port: int) -> list[socket.socket]:
    """All interfaces: one socket for both families where the system can, else one each."""
    dual = sys.platform != "openbsd"
    try:
        six = _bind(socket.AF_INET6, ("::", port, 0, 0), dual=dual)
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        return [_bind(socket.AF_INET, ("0.0.0.0", port), dual=False)]
    if dual:
        return [six]
    try:
        return [six, _bind(socket.AF_INET, ("0.0.0.0", six.getsockname()[1]), dual=False)]
    except BaseException:
        six.close()
        raise


def _resolve(host: str, port: int) -> tuple[int, Any]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise OSError("no such host here") from error
    family, _, _, _, address = found[0]
    return family, address


def _bind(family: int, address: Any, *, dual: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not dual))
        sock.bind(address)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()
