"""A connection that says it is a lane, and has not proved it.

What holds always: it is told nothing, whatever it sends; it has HANDSHAKE_TIMEOUT_S in all; a
ticket is used up only by a first record that opens with its keys, so that somebody who merely
saw a ticket cannot spend it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from tntd import limits
from tntd.errors import RemoteError
from tntd.machines import lane_keys, records
from tntd.machines.lane_steps import LaneTrouble
from tntd.machines.records import RecordType
from tntd.shell.lane_channel import Channel
from tntd.shell.lane_session import Lane, Phase
from tntd.shell.loop import Loop


class Stranger:
    """Reads the preamble and the first record.  `find` gives the lane that waits with a
    ticket; `done` is called once: with "" when a lane has taken the connection, with the
    reason when it was closed."""

    def __init__(
        self,
        sock: socket.socket,
        loop: Loop,
        find: Callable[[bytes], Lane | None],
        done: Callable[[Stranger, str], None],
    ) -> None:
        self._socket = sock
        self._loop = loop
        self._find = find
        self._done = done
        self._preamble = b""
        self._lane: Lane | None = None
        self._channel: Channel | None = None
        self._timer = loop.call_later(
            limits.HANDSHAKE_TIMEOUT_S, lambda: self.close("a lane that said too little in time")
        )
        loop.watch(sock, self, read=True, write=False)

    def ready(self, readable: bool, _writable: bool) -> None:
        """Read on; nothing is read beyond what is needed."""
        if not readable:
            return
        try:
            if self._channel is None:
                self._read_preamble()
            else:
                self._read_record(self._channel)
        except (LaneTrouble, RemoteError, OSError) as error:
            self.close(str(error))

    def broke(self, _error: Exception) -> None:
        """A bug of ours."""
        self.close("an error in this program")

    def close(self, reason: str) -> None:
        """Close it."""
        self._let_go()
        self._socket.close()
        self._done(self, reason)

    def _let_go(self) -> None:
        self._timer.cancel()
        self._loop.unwatch(self._socket)

    def _read_preamble(self) -> None:
        try:
            data = self._socket.recv(lane_keys.PREAMBLE_BYTES - len(self._preamble))
        except BlockingIOError:
            return
        if not data:
            raise LaneTrouble("cut", "closed before the lane began")
        self._preamble += data
        magic = lane_keys.MAGIC[: len(self._preamble)]
        if not self._preamble.startswith(magic):
            raise RemoteError("malformed", "not the beginning of a lane")
        if len(self._preamble) == lane_keys.PREAMBLE_BYTES:
            self._lane = self._find(self._preamble[len(lane_keys.MAGIC) :])
            if self._lane is None:
                raise RemoteError("authentication", "a lane with an unknown ticket")
            self._channel = self._lane.channel_for(self._socket)

    def _read_record(self, channel: Channel) -> None:
        _, record = channel.receive()
        if record is None:
            return
        if record.type is not RecordType.HELLO:
            raise RemoteError("malformed", "a lane that does not begin with HELLO")
        lane = self._lane
        if lane is None or lane.phase is not Phase.WAITING:
            raise RemoteError("authentication", "a lane with a ticket that was used")
        greeting = records.read_greeting(record.plain)
        self._let_go()
        self._done(self, "")
        lane.adopt(channel, greeting)
