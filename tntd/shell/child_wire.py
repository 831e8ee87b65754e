"""What the daemon and a child say to each other: requests and replies on a stream socket.

A message is a 32-bit big-endian length and MessagePack.  Open files travel beside it as
descriptors (SCM_RIGHTS), at most one a message, attached to its first byte.

What holds always: descriptors arrive no later than the message that they belong to and in the
same order, so the n-th message that carries one owns the n-th descriptor.  Both sides run the
same program, so there is nothing to negotiate; a message that cannot be read is a bug, and ends
the child.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from typing import Final

import msgspec

from tntd import limits
from tntd.tasks import (
    Answer,
    AnyTask,
    CopyRange,
    EntryOpened,
    FinishEntry,
    HashRange,
    OpenEntry,
    Pack,
    Packed,
    SyncPart,
    Task,
)

# Whether open files can travel between processes here; else the daemon opens them itself.
PASSES_FILES: Final = hasattr(socket, "SCM_RIGHTS") and hasattr(socket, "recv_fds")

_LENGTH: Final = struct.Struct(">I")
_RECEIVE_BYTES: Final = 256 * limits.KIB  # a record of small files in one read, or two
_DESCRIPTORS_MAX: Final = 16  # in one read; the system stops after each message with one
_CLOEXEC: Final[int] = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Warm(Task, tag="warm", frozen=True):
    """disk: bring a range of the open file that comes along into memory.  -> Done"""

    offset: int
    length: int


class Request(msgspec.Struct, frozen=True):
    """A task for the child, to be answered with the same `id`."""

    id: int
    task: AnyTask | Warm


class Reply(msgspec.Struct, frozen=True):
    """The answer; `in_memory` belongs to a file that comes along (see files.py)."""

    id: int
    answer: Answer
    in_memory: bool = False


class Crashed(msgspec.Struct, frozen=True, tag="crashed"):
    """The last word of a child that hit a bug of ours: its traceback, for the log."""

    text: str


class Replied(msgspec.Struct, frozen=True, tag="replied"):
    """A reply on its way up; tagged, to be told from Crashed."""

    reply: Reply


Up = Replied | Crashed

_encoder = msgspec.msgpack.Encoder()
request_decoder = msgspec.msgpack.Decoder(Request)
up_decoder: msgspec.msgpack.Decoder[Up] = msgspec.msgpack.Decoder(Up)


def takes_file(task: AnyTask | Warm) -> bool:
    """Whether an open file goes down with the request."""
    if isinstance(task, HashRange):
        return not task.base
    return isinstance(task, SyncPart | Warm | CopyRange | FinishEntry)


def gives_file(task: AnyTask | Warm, answer: Answer) -> bool:
    """Whether an open file comes up with the answer."""
    if isinstance(task, Pack):
        return isinstance(answer, Packed) and answer.large is not None
    return isinstance(task, OpenEntry) and isinstance(answer, EntryOpened)


def encode(message: Request | Up) -> bytes:
    """The bytes of a message.  Raises ValueError where it is too long."""
    body = _encoder.encode(message)
    if len(body) > limits.CHILD_MESSAGE_BYTES_MAX:
        raise ValueError(f"a message of {len(body)} bytes")
    return _LENGTH.pack(len(body)) + body


def send(sock: socket.socket, data: bytes, descriptor: int | None) -> int:
    """Send the beginning of `data`, with the descriptor; how many bytes went.  OSError."""
    if descriptor is None:
        return sock.send(data)
    return socket.send_fds(sock, [data], [descriptor])


class Inbox:
    """Cuts a stream into messages and keeps the descriptors that came with it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._descriptors: deque[int] = deque()

    def receive(self, sock: socket.socket) -> bool:
        """Read what is there, once; False at the end of the stream.  Raises OSError."""
        if not PASSES_FILES:
            data = sock.recv(_RECEIVE_BYTES)
        else:
            data, descriptors, _, _ = socket.recv_fds(
                sock, _RECEIVE_BYTES, _DESCRIPTORS_MAX, _CLOEXEC
            )
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
                self._descriptors.append(descriptor)
        self._buffer += data
        return bool(data)

    def next(self) -> bytes | None:
        """The body of the next whole message.  Raises ValueError where it cannot be one."""
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > limits.CHILD_MESSAGE_BYTES_MAX:
            raise ValueError(f"a message of {length} bytes")
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            body = bytes(view[_LENGTH.size : end])
        del self._buffer[:end]
        return body

    def take_descriptor(self) -> int | None:
        """The next descriptor, which is the caller's from now on."""
        return self._descriptors.popleft() if self._descriptors else None

    def close(self) -> None:
        """Close the descriptors that nobody took."""
        while self._descriptors:
            os.close(self._descriptors.popleft())
