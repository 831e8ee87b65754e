"""A lane's socket with its records: sealed bytes out, opened records in, never waiting.

What holds always: what was put is sent whole and in order, however little the socket takes at
a time; at most one record (and an END behind it) is on its way.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from typing import Final, NoReturn

from tntd.machines import lane_keys, records
from tntd.machines.records import Opener, Record, RecordReader, RecordType, Sealer
from tntd.shell.lane_shared import LaneTrouble

_OUT_BYTES: Final = lane_keys.PREAMBLE_BYTES + records.RECORD_BYTES_MAX + records.OVERHEAD_BYTES
_NOTHING: Final = memoryview(b"")
# Unsent bytes in the kernel from which the socket counts as full: two records keep it busy
# while the next is made, and a lane that is closed has little left to flush.
_NOTSENT_BYTES: Final = 2 * records.RECORD_BYTES_MAX
_TCP_NOTSENT_LOWAT: Final = {"linux": 25, "darwin": 0x201}.get(sys.platform)


class Channel:
    """One connection of one lane.  Its methods raise LaneTrouble("cut") when it is gone."""

    def __init__(self, sock: socket.socket, seals: bytes, opens: bytes, plain: memoryview) -> None:
        """`seals` and `opens` are the keys of the two directions."""
        self.socket = sock
        self._plain = plain
        self._sealer = Sealer(seals)
        self._reader = RecordReader(Opener(opens))
        self._out = memoryview(bytearray(_OUT_BYTES))
        self._sent = self._end = 0
        self._low_water = 1
        _tune(sock)

    @property
    def pending(self) -> bool:
        """Whether bytes wait to be sent."""
        return self._sent < self._end

    def put_bytes(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._out[self._end : self._end + len(data)] = data
        self._end += len(data)

    def put(self, type: RecordType, plain: memoryview = _NOTHING) -> None:
        """Send a record."""
        self._end += self._sealer.seal(type, plain, self._out[self._end :])

    def flush(self) -> int:
        """Send what the socket takes now; how many bytes went."""
        try:
            count = self.socket.send(self._out[self._sent : self._end])
        except BlockingIOError:
            return 0
        except OSError as error:
            raise_cut(error)
        self._sent += count
        if not self.pending:
            self._sent = self._end = 0
        return count

    def receive(self) -> tuple[int, Record | None]:
        """Read what is there, up to the end of one record: how many bytes came, and the record
        if it is whole; its content lasts until the next call on any lane.

        Raises RemoteError where it is none of the other side's.
        """
        try:
            count = self.socket.recv_into(self._reader.room())
        except BlockingIOError:
            return 0, None
        except OSError as error:
            raise_cut(error)
        if count == 0:
            raise LaneTrouble("cut", "the other side closed the lane before its end")
        self._reader.filled(count)
        record = self._reader.next(self._plain)
        self._set_low_water()
        return count, record

    def _set_low_water(self) -> None:
        # Wake up for whole records, not for each packet; never for more than will come, nor
        # for more than surely fits the buffer: the socket would hang.
        if sys.platform != "linux":
            return
        low_water = 1
        missing = self._reader.missing
        if missing > 1:
            room = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 4
            low_water = max(1, min(missing, room))
        if low_water != self._low_water:
            self._low_water = low_water
            with contextlib.suppress(OSError):
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, low_water)


def raise_cut(error: OSError) -> NoReturn:
    """Raises LaneTrouble("cut") in the words of the system."""
    text = os.strerror(error.errno).lower() if error.errno else "unknown error"
    raise LaneTrouble("cut", f"the lane was cut: {text}") from error


def dial(host: str, port: int) -> socket.socket:
    """A socket that connects to a numeric address.  Raises LaneTrouble("cut")."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        family, _, _, _, address = found[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise LaneTrouble("cut", f"no connection to {host}: {error}") from error
    sock.setblocking(False)
    number = sock.connect_ex(address)
    if number not in {0, errno.EINPROGRESS, errno.EWOULDBLOCK}:
        sock.close()
        raise_cut(OSError(number, ""))
    return sock


def connected(sock: socket.socket) -> None:
    """Raises LaneTrouble("cut") where the connection could not be made."""
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise_cut(OSError(number, ""))


def _tune(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if _TCP_NOTSENT_LOWAT is not None:
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _NOTSENT_BYTES)
