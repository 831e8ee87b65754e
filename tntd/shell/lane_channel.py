"""A lane's socket with its records: sealed bytes out, opened records in, never waiting.

What holds always: what was put is sent whole and in order, however little the socket takes at
a time; at most one large record is on its way, and a small one behind it.

Bounded is also what the kernel holds of a lane, since a cut loses it: the receiver's buffer is of
a fixed size, which the sender's system is told as its window, and the sender's socket counts as
full long before its buffer is.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
import sys
from pathlib import Path
from typing import Final, NoReturn

from tntd import limits
from tntd.machines import records, squeeze
from tntd.machines.lane_steps import LaneTrouble
from tntd.machines.records import (
    OVERHEAD_BYTES,
    PLAIN_BYTES_MAX,
    Opener,
    Record,
    RecordReader,
    RecordType,
    Sealer,
)

if sys.platform == "linux":
    import fcntl

_SMALL_BYTES: Final = 1 * limits.KIB  # greeting, END and signs of life, beside a large record
_NOTHING: Final = memoryview(b"")
# Unsent bytes in the kernel from which the socket counts as full: they keep it busy while the
# next record is made, and a lane that is closed has little left to flush.
_NOTSENT_BYTES: Final = 512 * limits.KIB
# Of a receiver.  Linux makes it twice as much, for what packets cost beside their bytes, and over
# loopback all of that is bytes: 2.25 MiB there, and 0.5 MiB unsent, are in the kernels at most.
_RECEIVE_BUFFER_BYTES: Final = limits.LANE_WINDOW_BYTES // (2 if sys.platform == "linux" else 1)
_SIOCOUTQNSD: Final = 0x894B  # Linux
_TCP_NOTSENT_LOWAT: Final = {"linux": 25, "darwin": 0x201}.get(sys.platform)


class Channel:
    """One connection of one lane.  Its methods raise LaneTrouble("cut") when it is gone."""

    def __init__(
        self, sock: socket.socket, seals: bytes, opens: bytes, plain: memoryview, *, sends: bool
    ) -> None:
        """`seals` and `opens` are the keys of the two directions; `sends`: the files go out."""
        self.socket = sock
        self._plain = plain
        self._sealer = Sealer(seals)
        says, hears = records.RECEIVER_TAKES, records.SENDER_TAKES
        if not sends:
            says, hears = hears, says
        opener = Opener(opens, hears)
        opener.opens_squeezed = squeeze.available()
        self._reader = RecordReader(opener)
        largest = max(PLAIN_BYTES_MAX[type] for type in says)
        self._out = memoryview(bytearray(largest + OVERHEAD_BYTES + _SMALL_BYTES))
        self._sent = self._end = 0
        self._sealed_bytes = 0
        self._short = False  # not all of the last record went out at once
        self._low_water = 1
        _tune(sock, sends)

    @property
    def pending(self) -> bool:
        """Whether bytes wait to be sent."""
        return self._sent < self._end

    def put_bytes(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._out[self._end : self._end + len(data)] = data
        self._end += len(data)

    def has_room(self, size: int) -> bool:
        """Whether a record of `size` bytes of plaintext may be put now."""
        return self._end + size + OVERHEAD_BYTES <= len(self._out)

    def put(
        self, type: RecordType, plain: memoryview | bytes = _NOTHING, *, squeezed: bool = False
    ) -> None:
        """Send a record, for which there is room."""
        self._sealed_bytes += len(plain)
        if self._sealed_bytes > limits.LANE_KEY_BYTES_MAX:
            raise LaneTrouble("cut", "the connection carried as much as one key may seal")
        flags = records.SQUEEZED if squeezed else 0
        self._end += self._sealer.seal(type, plain, self._out[self._end :], flags)

    def flush(self, most: int | None = None) -> int:
        """Send what the socket takes now, `most` bytes at most; how many bytes went."""
        end = self._end if most is None else min(self._end, self._sent + most)
        try:
            count = self.socket.send(self._out[self._sent : end])
        except BlockingIOError:
            return 0
        except OSError as error:
            raise_cut(error)
        self._sent += count
        self._short = self._short or self.pending
        if not self.pending:
            self._sent = self._end = 0
        return count

    def was_blocked(self) -> bool:
        """Whether the connection has not carried yet what was put since this was asked last."""
        short, self._short = self._short, False
        return short or _unsent(self.socket) > 0

    def receive(self, most: int | None = None) -> tuple[int, Record | None]:
        """Read what is there, up to the end of one record and `most` bytes: how many came, and the
        record if it is whole; its content lasts until the next call on any lane.

        Raises RemoteError where it is none of the other side's.
        """
        try:
            count = self.socket.recv_into(self._reader.room()[:most])
        except BlockingIOError:
            return 0, None
        except OSError as error:
            raise_cut(error)
        if count == 0:
            raise LaneTrouble("cut", "the other side closed the connection before its end")
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


def _unsent(sock: socket.socket) -> int:
    """Bytes that wait in the kernel because the way is full; 0 where it does not tell."""
    if sys.platform != "linux":
        return 0
    count = bytearray(4)
    with contextlib.suppress(OSError):  # it is gone, which sending will tell
        fcntl.ioctl(sock, _SIOCOUTQNSD, count)
    return int.from_bytes(count, sys.byteorder)


def raise_cut(error: OSError) -> NoReturn:
    """Raises LaneTrouble("cut") in the words of the system."""
    text = os.strerror(error.errno).lower() if error.errno else "unknown error"
    raise LaneTrouble("cut", f"the connection was cut: {text}") from error


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


def _tune(sock: socket.socket, sends: bool) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if _TCP_NOTSENT_LOWAT is not None:
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _NOTSENT_BYTES)
        elif sends:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _NOTSENT_BYTES)
        if not sends and _buffer_bytes_allowed() >= _RECEIVE_BUFFER_BYTES:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)


@functools.cache
def _buffer_bytes_allowed() -> int:
    """The largest buffer that we may ask for.  Where that is too small (Linux lets its own tuning
    go further than us), we do not ask, since that would make lanes over long ways slow."""
    if sys.platform != "linux":
        return _RECEIVE_BUFFER_BYTES
    try:
        return int(Path("/proc/sys/net/core/rmem_max").read_text("ascii"))
    except (OSError, ValueError):
        return 0
