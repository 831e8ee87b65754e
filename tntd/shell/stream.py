"""A connected socket that never waits, with the bytes that it has still to send.

What holds always: whether the loop looks for room to write is derived from the queue, never
stored.  The end of the other side is told in one way, as a StreamEnded, by whichever call meets
it first.

Closing takes care (`Linger`): a TCP socket that is closed with unread bytes in it answers with a
reset, and that can destroy our last words on their way.  So: flush, say that no more comes, read
and throw away until the other side is done too, or until a grace is over.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from tntd import limits
from tntd.shell.loop import Handler, Loop

_SEND_BYTES = limits.TURN_BYTES_MAX


class StreamEnded(Exception):
    """The connection is over, for the reason given in words."""


class Stream:
    """A non-blocking socket in the loop, owned by one handler at a time."""

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._queue = bytearray()
        self._handler: Handler | None = None
        self._reading = True

    @property
    def queued(self) -> int:
        """Bytes that the socket has not taken yet."""
        return len(self._queue)

    @property
    def reading(self) -> bool:
        """Whether the loop looks for bytes that come."""
        return self._reading

    def attach(self, handler: Handler) -> None:
        """From now on `handler` is told when something can be done."""
        self._handler = handler
        self._watch()

    def set_reading(self, reading: bool) -> None:
        """Whether to look for bytes that come."""
        self._reading = reading
        self._watch()

    def again(self) -> None:
        """Have the handler called as readable in the next turn in any case."""
        self._loop.again(self._sock)

    def queue(self, data: bytes) -> None:
        """Add bytes to send; `push` sends them."""
        self._queue += data

    def push(self) -> None:
        """Send what goes now.  Raises StreamEnded."""
        try:
            while self._queue and self._send_some():
                pass
        except OSError as error:
            self._queue.clear()
            raise StreamEnded(in_words(error)) from error
        finally:
            self._watch()

    def pull(self, size: int) -> bytes:
        """Up to `size` bytes; empty where there are none now.  Raises StreamEnded."""
        try:
            data = self._sock.recv(size)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError as error:
            raise StreamEnded(in_words(error)) from error
        if not data:
            raise StreamEnded("the other side closed the connection")
        return data

    def end_writing(self) -> None:
        """Say that we send no more.  Raises StreamEnded."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise StreamEnded(in_words(error)) from error

    def close(self) -> None:
        """Let go of the socket, at once."""
        if self._handler is not None:
            self._loop.unwatch(self._sock)
            self._handler = None
        self._sock.close()

    def _send_some(self) -> bool:
        with memoryview(self._queue) as view, view[:_SEND_BYTES] as part:
            try:
                sent = self._sock.send(part)
            except (BlockingIOError, InterruptedError):
                return False
        del self._queue[:sent]
        return True

    def _watch(self) -> None:
        if self._handler is not None:
            self._loop.watch(self._sock, self._handler, read=self._reading, write=bool(self._queue))


class Linger:
    """The end of a stream: calls `done` once it is closed, within LINK_GRACE_S."""

    def __init__(self, loop: Loop, stream: Stream, done: Callable[[], None]) -> None:
        self._stream = stream
        self._done = done
        self._told = False
        self._timer = loop.call_later(limits.LINK_GRACE_S, self.end)
        stream.attach(self)
        stream.set_reading(True)
        # Not by itself: `done` may not be called before whoever closes has noted this object.
        stream.again()

    def ready(self, readable: bool, writable: bool) -> None:
        """Flush, then tell, then listen for the end."""
        try:
            self._stream.push()
            if not self._stream.queued and not self._told:
                self._told = True
                self._stream.end_writing()
            if readable:
                self._discard()
        except StreamEnded:
            self.end()

    def broke(self, error: Exception) -> None:
        """Then without grace."""
        self.end()

    def end(self) -> None:
        """Close now."""
        self._timer.cancel()
        self._stream.close()
        self._done()

    def _discard(self) -> None:
        left = limits.TURN_BYTES_MAX
        while left > 0 and (data := self._stream.pull(left)):
            left -= len(data)


def in_words(error: OSError) -> str:
    """What the system says about a connection, in small letters and without numbers."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused (nobody listens there)"
    if error.errno:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__
