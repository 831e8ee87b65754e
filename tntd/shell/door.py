"""A listening socket: accepts who waits, as many as a turn may.

What holds always: one connection that has gone again before it was accepted stops nobody, and
without a descriptor left we pause for ACCEPT_PAUSE_S, instead of spinning on a socket that stays
ready.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from typing import Any

from tntd import limits
from tntd.shell.loop import Loop
from tntd.shell.stream import in_words

# What accept says of one connection that has gone again, and not of itself (accept(2)).
_GONE = {
    getattr(errno, name, 0)
    for name in ("ECONNABORTED", "ECONNRESET", "EPERM", "EPROTO", "ENETDOWN")
}

logger = logging.getLogger("tntd")


class Door:
    """One listening socket in the loop; `accepted` gets each connection and its address."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        accepted: Callable[[socket.socket, Any], None],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._accepted = accepted
        self._closed = False
        self._open()

    def ready(self, readable: bool, writable: bool) -> None:
        """Accept who waits, as many as a turn may."""
        for _ in range(limits.TURN_EVENTS_MAX):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _GONE:
                    continue
                self._pause(error)  # most likely no descriptor is left
                return
            self._accepted(sock, address)

    def broke(self, error: Exception) -> None:
        """A bug of ours: try again later."""
        self._later()

    def close(self) -> None:
        """Listen no more."""
        self._closed = True
        self._loop.unwatch(self._sock)
        self._sock.close()

    def _pause(self, error: OSError) -> None:
        logger.warning("cannot accept connections for a moment: %s", in_words(error))
        self._loop.unwatch(self._sock)
        self._later()

    def _later(self) -> None:
        self._loop.call_later(limits.ACCEPT_PAUSE_S, self._open)

    def _open(self) -> None:
        if not self._closed:
            self._loop.watch(self._sock, self, read=True, write=False)
