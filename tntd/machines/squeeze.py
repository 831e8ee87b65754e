"""Compression of records, where it pays: zstd (RFC 8878), one frame a record.

What holds always: opening a frame never makes more than was allowed for it, whatever it says of
itself; and data is squeezed only while the way is slow (see Gauge), and only what gains by it, so
that a fast way and data that cannot be squeezed lose nothing.

The package has the interface of Python 3.14's own `compression.zstd`, uses no threads, and is
imported with the first lane only.
"""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import Any, Final

from tntd.errors import RemoteError

SLOW_BYTES_PER_S: Final = 60_000_000  # below, a core squeezes faster than the way carries
_SAVES: Final = 0.8  # of the length at most: else it is not worth the other side's time
_LEVEL: Final = 1
_LOOK_BYTES: Final = 64 * 1024
_LEAST_BYTES: Final = 1024
_WINDOW_LOG_MAX: Final = 20  # 1 MiB: no record is longer
_MEASURED_S: Final = 1.0


@functools.cache
def _zstd() -> ModuleType | None:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        return None
    return zstd


def available() -> bool:
    """Whether we can squeeze and open what is squeezed."""
    return _zstd() is not None


def unsqueeze(data: memoryview, most: int) -> bytes:
    """What was squeezed; raises RemoteError("malformed") where it is none, or more than `most`
    bytes."""
    zstd = _zstd()
    assert zstd is not None
    options = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX}
    opener = zstd.ZstdDecompressor(options=options)
    try:
        plain: bytes = opener.decompress(data, max_length=most + 1)
    except zstd.ZstdError as error:
        raise RemoteError("malformed", f"a squeezed record: {error}") from error
    if not opener.eof or opener.unused_data or len(plain) > most:
        raise RemoteError("malformed", "a squeezed record that is not whole, or too long")
    return plain


class Squeezer:
    """Squeezes for one lane; what it learnt of a file holds for the rest of it."""

    def __init__(self) -> None:
        zstd = _zstd()
        assert zstd is not None
        self._frame = zstd.ZstdCompressor.FLUSH_FRAME
        self._compressor: Any = zstd.ZstdCompressor(level=_LEVEL)
        self._file = 0
        self._worth = True
        self._known = False  # whether the file's first piece was seen

    def block(self, file: int, plain: memoryview) -> bytes | None:
        """The squeezed record of a piece of the large file with that number (never 0); None where
        it does not gain.  The first piece decides for the file."""
        if file != self._file:
            self._file, self._worth, self._known = file, True, False
        if not self._worth or len(plain) < _LEAST_BYTES:
            return None
        squeezed = self._squeeze(plain) if self._known else self._look_and_squeeze(plain)
        self._known, self._worth = True, squeezed is not None
        return squeezed

    def pack(self, plain: memoryview) -> bytes | None:
        """The squeezed record of small files; None where its beginning does not gain."""
        if len(plain) < _LEAST_BYTES:
            return None
        return self._look_and_squeeze(plain)

    def _look_and_squeeze(self, plain: memoryview) -> bytes | None:
        # Of files of 200 KiB that do not gain, the whole would cost a tenth of all their time more.
        if len(plain) > _LOOK_BYTES and self._squeeze(plain[:_LOOK_BYTES]) is None:
            return None
        return self._squeeze(plain)

    def _squeeze(self, plain: memoryview) -> bytes | None:
        squeezed: bytes = self._compressor.compress(plain, self._frame)
        return squeezed if len(squeezed) <= _SAVES * len(plain) else None


class Gauge:
    """Whether the way is slow: measured over a second in which mostly it was what we waited for.

    While it squeezes, it goes on where the way is no longer what we wait for, too, as long as
    more goes through than went before.  Times are boot seconds.
    """

    def __init__(self, now: float) -> None:
        self.slow = False
        self._began = now
        self._turns = self._blocked = 0
        self._carried = 0  # bytes that the way carried
        self._moved = 0  # bytes that they stand for
        self._before = 0.0  # bytes a second that it carried when it was found slow

    def turn(self, now: float, *, blocked: bool) -> None:
        """A record may go; `blocked`: what we put before has not gone out yet."""
        if now - self._began >= _MEASURED_S:
            self._judge(now - self._began)
            self._began = now
            self._turns = self._blocked = self._carried = self._moved = 0
        self._turns += 1
        self._blocked += blocked

    def put(self, carried: int, moved: int) -> None:
        """A record of `carried` bytes was put, in place of `moved`."""
        self._carried += carried
        self._moved += moved

    def _judge(self, seconds: float) -> None:
        rate = self._carried / seconds
        if 2 * self._blocked > self._turns:
            if not self.slow:
                self._before = rate
            self.slow = rate < SLOW_BYTES_PER_S
        elif self.slow:
            self.slow = rate < SLOW_BYTES_PER_S and self._moved / seconds > self._before
