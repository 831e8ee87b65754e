"""A TCP connection on its way: a socket that is waiting for the other side to take it.

What holds always: exactly one of `connected` and `failed` is called, and never from within
`start`; after `cancel` neither is.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

from tntd.shell.loop import Loop
from tntd.shell.stream import in_words

# What connect says when it has only begun; Windows has its own number.
_BEGUN = {0, errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", 0)}


class Dialling:
    """Connects to a numeric host without waiting.

    The constructor raises OSError where it cannot even begin: not a numeric address, no
    descriptor, no route.
    """

    def __init__(
        self,
        loop: Loop,
        host: str,
        port: int,
        connected: Callable[[socket.socket], None],
        failed: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._connected = connected
        self._failed = failed
        self._sock = _begin(host, port)
        loop.watch(self._sock, self, read=False, write=True)

    def ready(self, readable: bool, writable: bool) -> None:
        """It is decided."""
        number = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._loop.unwatch(self._sock)
        if number:
            self._sock.close()
            self._failed(in_words(OSError(number, os.strerror(number))))
        else:
            self._connected(self._sock)

    def broke(self, error: Exception) -> None:
        """A bug of ours."""
        self.cancel()
        self._failed(f"internal error: {type(error).__name__}")

    def cancel(self) -> None:
        """Give it up; nobody is called."""
        self._loop.unwatch(self._sock)
        self._sock.close()


def _begin(host: str, port: int) -> socket.socket:
    # Numeric only, so it asks nobody; it knows the scope of fe80::1%eth0.
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except (socket.gaierror, UnicodeError) as error:
        raise OSError(f"not a numeric address: {host!r}") from error
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = sock.connect_ex(address)
        if number not in _BEGUN:
            raise OSError(number, os.strerror(number))
    except BaseException:
        sock.close()
        raise
    return sock
