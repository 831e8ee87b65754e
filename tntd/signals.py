"""Signals as input of the loop: no code runs inside a signal handler.

What holds always: a signal only writes its number to a socket pair that the loop watches, so it
ends a `select` and is dealt with in a turn like everything else.  SIGTERM and SIGINT ask for a
clean end, SIGHUP (where there is one) reopens the log.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable

from tntd.events import StopRequested
from tntd.shell.loop import Loop

_ENDING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGBREAK") if hasattr(signal, name)
)
_REOPENING = getattr(signal, "SIGHUP", None)


class Signals:
    """The loop's handler of the socket pair."""

    def __init__(self, loop: Loop, reopen_log: Callable[[], None]) -> None:
        self._loop = loop
        self._reopen_log = reopen_log
        self._reading, self._writing = socket.socketpair()
        self._reading.setblocking(False)
        self._writing.setblocking(False)
        for number in _ENDING:
            signal.signal(number, _nothing)
        if _REOPENING is not None:
            signal.signal(_REOPENING, _nothing)
        signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        loop.watch(self._reading, self, read=True, write=False)

    def ready(self, readable: bool, writable: bool) -> None:
        """Deal with the signals that came."""
        try:
            numbers = self._reading.recv(64)
        except BlockingIOError:
            return
        if _REOPENING is not None and _REOPENING in numbers:
            self._reopen_log()
        if any(number in numbers for number in _ENDING):
            self._loop.post(StopRequested())

    def broke(self, error: Exception) -> None:
        """Without signals the daemon could not be ended: end it now."""
        self._loop.post(StopRequested())

    def close(self) -> None:
        """Give the signals back to the system."""
        signal.set_wakeup_fd(-1)
        for number in _ENDING:
            signal.signal(number, signal.SIG_DFL)
        self._loop.unwatch(self._reading)
        self._reading.close()
        self._writing.close()


def _nothing(number: int, frame: object) -> None:
    """The wake-up socket does the work; a handler of Python's must be there for it."""
