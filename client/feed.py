"""Standard input to a file of the spool that is being sent, and word of it to the daemon.

What holds always:
- A piece at a time, however long the pipe is: PIECES_MAX of them are in memory at most.
- What is told is written: at most ten times a second, every ALIVE_S where the pipe is silent (so
  that one that nobody wants any more is noticed), and the end only when all of it is synced.

A thread of its own reads, since a pipe may be silent for ever, and not every system can wait for
one.  It reads the descriptor itself: a thread that is inside of `sys.stdin` would hold up the end
of the program.
"""

from __future__ import annotations

import _thread
import errno
import os
import queue
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

from tntd.control.streams import was_closed
from tntd.limits import KIB, MIB

from .failures import Refused
from .pipes import sync_folder

PIECE_BYTES: Final = 256 * KIB
PIECES_MAX: Final = 16  # read ahead, while a piece is written or the daemon is told
SPARE_BYTES: Final = 64 * MIB  # of the disk, left free: the daemon's database is on it
TELL_S: Final = 0.1
ALIVE_S: Final = 10.0

Tell = Callable[[int, bool], Any]


class _Unreadable(OSError):
    """Reading failed, not writing."""


class _Pieces:
    """What comes out of a descriptor.

    A signal may end the main thread anywhere in here.  So it takes no lock of `threading`, which
    an exception inside leaves in disorder: no Thread (its start waits), no Queue, no Semaphore.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pieces: queue.SimpleQueue[bytes | OSError] = queue.SimpleQueue()
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(PIECES_MAX):
            self._room.put(None)
        _thread.start_new_thread(self._read, ())

    def _read(self) -> None:
        piece: bytes | OSError = b"."
        while piece and not isinstance(piece, OSError):
            self._room.get()
            try:
                piece = os.read(self._descriptor, PIECE_BYTES)
            except OSError as error:
                piece = error
            self._pieces.put(piece)

    def next(self, within: float) -> bytes | None:
        """The next piece, b"" at the end; None where there is none within so many seconds."""
        try:
            piece = self._pieces.get(timeout=max(0.0, within))
        except queue.Empty:
            return None
        self._room.put(None)
        if isinstance(piece, OSError):
            raise _Unreadable(piece.errno, piece.strerror) from piece
        return piece


def input_descriptor() -> int:
    """That of standard input.  Raises Refused where it cannot be read."""
    if sys.stdin is None or was_closed("stdin"):
        raise Refused("standard input is closed; nothing was sent")
    descriptor = sys.stdin.fileno()
    try:
        os.read(descriptor, 0)
    except OSError as error:
        raise Refused(
            f"standard input cannot be read: {error.strerror}; nothing was sent"
        ) from error
    return descriptor


def feed(path: Path, tell: Tell, shown: Callable[[int], None]) -> Any:
    """Standard input to its end, behind what is in the file; what `tell` (bytes so far, whether
    that is all) says in the end.  `shown` is called with the bytes so far.  Raises Refused.
    """
    pieces = _Pieces(input_descriptor())
    try:
        with path.open("ab", buffering=0) as file:
            size = _pump(pieces, file, path.parent, tell, shown)
            os.fsync(file.fileno())
        sync_folder(path.parent)
        sync_folder(path.parent.parent)
    except OSError as error:
        raise Refused(f"{_reason(error)}; {path.name} was not sent") from error
    return tell(size, True)


def _pump(
    pieces: _Pieces, file: BinaryIO, folder: Path, tell: Tell, shown: Callable[[int], None]
) -> int:
    size, room_to = 0, 0
    tell(0, False)
    told, told_at = 0, time.monotonic()
    while True:
        due = told_at + (TELL_S if size > told else ALIVE_S)
        piece = pieces.next(due - time.monotonic())
        if piece == b"":
            return size
        if piece is not None:
            if size + len(piece) > room_to:
                _check_room(folder)
                room_to = size + SPARE_BYTES
            _write(file, piece)
            size += len(piece)
            shown(size)
        if time.monotonic() >= due:
            tell(size, False)
            told, told_at = size, time.monotonic()


def _check_room(folder: Path) -> None:
    if shutil.disk_usage(folder).free < 2 * SPARE_BYTES:
        raise OSError(errno.ENOSPC, "no space left")


def _write(file: BinaryIO, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[file.write(left) :]


def _reason(error: OSError) -> str:
    if isinstance(error, _Unreadable):
        return f"standard input cannot be read: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk with the data folder has no room for what comes out of the pipe"
    return f"what comes out of the pipe cannot be kept: {error.strerror}"
