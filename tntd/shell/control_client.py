"""One attached client: lines in, lines out, and patience with slow ones.

What holds always:
- Until it is authorised one line is taken a turn, of at most UNAUTHORISED_LINE_BYTES_MAX, so that
  what follows a `hello` in the same packet is measured by the limits that the hello earned.
- Replies that it does not read pile up to CLIENT_BUFFER_BYTES_MAX; then it is not read either,
  until half of that has gone.
- Lines go out in the order in which they were sent.  A `latest` line waits while anything
  is unsent, and is replaced by the next of its key.
- When all that was sent has gone into the socket, the node is told, once.
"""

from __future__ import annotations

from collections.abc import Callable

from tntd import limits
from tntd.events import ClientDrained, ClientLeft, LineArrived, LineTooLong
from tntd.shell.loop import Loop, Timer
from tntd.shell.stream import Stream, StreamEnded

_READ_BYTES = 64 * limits.KIB
_LATEST_MAX = 256  # running transfers whose progress one client can be told of at once


class Client:
    """A client in the loop.  `local` says that the socket itself proves who it is."""

    def __init__(
        self,
        loop: Loop,
        number: int,
        stream: Stream,
        local: bool,
        ended: Callable[[Client], None],
    ) -> None:
        self.number = number
        self.timer: Timer | None = None
        self._loop = loop
        self._stream = stream
        self._local = local
        self._ended = ended
        self._authorised = False
        self._lines = bytearray()
        self._searched = 0  # so much of `_lines` has no newline
        self._latest: dict[str, bytes] = {}
        self._owes_drained = False
        self._deaf = False  # too long a line, or the end: nothing more is read
        self._full = False  # replies are not taken
        stream.attach(self)

    def ready(self, readable: bool, writable: bool) -> None:
        """Write and read what goes."""
        try:
            if writable:
                self.flush()
            if readable:
                self._read()
        except StreamEnded:
            self._ended(self)

    def broke(self, error: Exception) -> None:
        """A bug of ours has hit this client."""
        self._ended(self)

    @property
    def authorised(self) -> bool:
        """Whether it is one of our user's."""
        return self._authorised

    def authorise(self) -> None:
        """It is one of our user's."""
        self._authorised = True
        if self.timer is not None:
            self.timer.cancel()

    def send(self, data: bytes) -> None:
        """Send whole lines, with the next `flush`."""
        self._queue_latest()  # what came before goes before
        self._stream.queue(data)
        self._owes_drained = True
        self._regulate()

    def send_latest(self, key: str, data: bytes) -> None:
        """Send a line when there is room, in place of the last one of this key."""
        if key in self._latest or len(self._latest) < _LATEST_MAX:
            self._latest[key] = data

    def flush(self) -> None:
        """Let the socket take what it will.  Raises StreamEnded."""
        self._stream.push()
        if not self._stream.queued and self._latest:
            self._queue_latest()
            self._stream.push()
        if not self._stream.queued and self._owes_drained:
            self._owes_drained = False
            self._loop.post(ClientDrained(self.number))
        self._regulate()

    def finish(self) -> Stream:
        """No more lines; the stream that is to be lingered on."""
        if self.timer is not None:
            self.timer.cancel()
        return self._stream

    def drop(self) -> None:
        """Let go of the socket, at once."""
        self.finish().close()

    def _queue_latest(self) -> None:
        if self._stream.queued < limits.CLIENT_BUFFER_BYTES_MAX:
            for line in self._latest.values():
                self._stream.queue(line)
        self._latest.clear()

    def _regulate(self) -> None:
        """Read only from those who read."""
        if self._full:
            self._full = self._stream.queued > limits.CLIENT_BUFFER_BYTES_MAX // 2
        else:
            self._full = self._stream.queued > limits.CLIENT_BUFFER_BYTES_MAX
        reading = not self._full and not self._deaf
        if reading and not self._stream.reading:
            self._stream.again()  # lines may be in our hands already
        self._stream.set_reading(reading)

    def _read(self) -> None:
        room = limits.TURN_EVENTS_MAX if self._authorised else 1
        budget = limits.TURN_BYTES_MAX
        while not (self._deaf or self._full):
            if self._take_line():
                room -= 1
                if room:
                    continue
                self._stream.again()
                return
            data = self._pull() if budget > 0 else b""
            if not data:
                return
            budget -= len(data)
            self._lines += data

    def _pull(self) -> bytes:
        try:
            return self._stream.pull(_READ_BYTES)
        except StreamEnded:
            if not self._authorised:
                raise
            # A script may close its side and then wait for what it asked for.
            self._deaf = True
            self._regulate()
            self._loop.post(ClientLeft(self.number))
            return b""

    def _take_line(self) -> bool:
        limit = limits.LINE_BYTES_MAX if self._authorised else limits.UNAUTHORISED_LINE_BYTES_MAX
        end = self._lines.find(b"\n", self._searched)
        if (end if end >= 0 else len(self._lines)) > limit:
            self._refuse()
            return False
        if end < 0:
            self._searched = len(self._lines)
            return False
        line = bytes(self._lines[:end])
        del self._lines[: end + 1]
        self._searched = 0
        self._loop.post(LineArrived(self.number, line))
        return True

    def _refuse(self) -> None:
        """Too long a line: an unknown one over TCP gets no answer at all."""
        self._deaf = True
        self._lines.clear()
        self._regulate()
        if self._authorised or self._local:
            self._loop.post(LineTooLong(self.number))
        else:
            self._ended(self)
