"""The records of a bulk lane: sealed, numbered, and the chunks of files inside them.

What holds always:
- A record is header, ciphertext, tag.  The header (version, type, reserved, counter, length of
  the plaintext) is authenticated with it, and the nonce is the counter.  Counters go up by one
  from zero, so a record that is missing, repeated or out of order does not open.
- A header is checked completely before its body is waited for, and a record completely before
  anything is done with one of its chunks.
- Bulk bytes are not copied here: they are sealed and opened between buffers that the caller
  keeps and uses again.

Not TLS records: those are 16 KiB, and pyOpenSSL copies each several times.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tntd import limits
from tntd.errors import RemoteError

VERSION: Final = 1
HEADER: Final = struct.Struct(">BBHQI")
TAG_BYTES: Final = 16
OVERHEAD_BYTES: Final = HEADER.size + TAG_BYTES
RECORD_BYTES_MAX: Final = limits.RECORD_PLAIN_BYTES_MAX + OVERHEAD_BYTES

CHUNK: Final = struct.Struct(">BIQI")
FILE_END: Final = struct.Struct(">Q32s")
FILE_END_BYTES: Final = CHUNK.size + FILE_END.size

_NONCE: Final = struct.Struct(">IQ")


class RecordType(IntEnum):
    """What a record is for: the first of each direction, payload, the last of the sender's."""

    HELLO = 1
    CHUNKS = 2
    END = 3


class ChunkKind(IntEnum):
    """What a chunk is: bytes of a file, or the size and BLAKE3 hash of the whole of it."""

    DATA = 1
    FILE_END = 2


_TYPES: Final = {int(type): type for type in RecordType}
_KINDS: Final = {int(kind): kind for kind in ChunkKind}

PLAIN_BYTES_MAX: Final[dict[RecordType, int]] = {
    RecordType.HELLO: limits.LANE_HELLO_BYTES_MAX,
    RecordType.CHUNKS: limits.RECORD_PLAIN_BYTES_MAX,
    RecordType.END: 0,
}


class Record(NamedTuple):
    """An opened record; `plain` is a view of a buffer that is used again for the next one."""

    type: RecordType
    plain: memoryview


class Chunk(NamedTuple):
    """`data` belongs at `offset` (0 for FILE_END) of the file numbered `file` (0 where a lane
    carries one)."""

    kind: ChunkKind
    file: int
    offset: int
    data: memoryview


# -- sealing ------------------------------------------------------------------------------


class Sealer:
    """Seals the records of one direction of one lane."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._counter = 0

    def seal(self, type: RecordType, plain: memoryview, out: memoryview) -> int:
        """Write the record for `plain` to the beginning of `out`; its length in bytes."""
        header = HEADER.pack(VERSION, type, 0, self._counter, len(plain))
        nonce = _NONCE.pack(0, self._counter)
        self._counter += 1
        end = HEADER.size + len(plain) + TAG_BYTES
        out[: HEADER.size] = header
        self._cipher.encrypt_into(nonce, plain, header, out[HEADER.size : end])
        return end


class Opener:
    """Opens the records of one direction of one lane, in the order in which they were sealed."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._counter = 0

    def check(self, header: memoryview) -> tuple[RecordType, int]:
        """The type and plaintext length of the next record, from its header.

        Raises RemoteError("malformed") where they cannot be, before the body is waited for.
        """
        version, number, reserved, counter, length = HEADER.unpack(header)
        if version != VERSION or reserved:
            raise RemoteError("malformed", f"a lane record of version {version}")
        type = _TYPES.get(number)
        if type is None:
            raise RemoteError("malformed", f"a lane record of type {number}")
        if counter != self._counter:
            raise RemoteError("malformed", f"lane record {counter} instead of {self._counter}")
        if length > PLAIN_BYTES_MAX[type]:
            raise RemoteError("malformed", f"a lane record {type.name} of {length} bytes")
        return type, length

    def open(self, record: memoryview, plain: memoryview) -> Record:
        """Open a whole record into the beginning of `plain`.

        Raises RemoteError: "malformed" as `check`, "authentication" where the tag is wrong.
        """
        header = record[: HEADER.size]
        type, length = self.check(header)
        out = plain[:length]
        nonce = _NONCE.pack(0, self._counter)
        try:
            self._cipher.decrypt_into(nonce, record[HEADER.size :], header, out)
        except InvalidTag as error:
            raise RemoteError("authentication", "a lane record that does not open") from error
        self._counter += 1
        return Record(type, out)


class RecordReader:
    """Collects the bytes of a stream into records, in one buffer.

    Fill `room()` from the socket, tell `filled`, then take `next`.  Beyond the record that is
    awaited it takes only the header of the one behind, so that one read brings one record.
    """

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._buffer = memoryview(bytearray(RECORD_BYTES_MAX + HEADER.size))
        self._have = 0
        self._need = HEADER.size
        self._checked = False

    def room(self) -> memoryview:
        """Where the next bytes go; empty only while a record waits to be taken.

        Raises RemoteError("malformed") where the header that is here cannot be.
        """
        self._look()
        behind = HEADER.size if self._checked else 0
        return self._buffer[self._have : self._need + behind]

    @property
    def missing(self) -> int:
        """Bytes that the body lacks of a record whose header is here; 0 between records."""
        return max(0, self._need - self._have) if self._checked else 0

    def filled(self, count: int) -> None:
        """`count` bytes were put in `room()`."""
        self._have += count

    def next(self, plain: memoryview) -> Record | None:
        """The record if it is whole, opened into `plain`; raises RemoteError as Opener.open."""
        self._look()
        if not self._checked or self._have < self._need:
            return None
        record = self._opener.open(self._buffer[: self._need], plain)
        rest = self._have - self._need
        self._buffer[:rest] = self._buffer[self._need : self._have]
        self._have, self._need, self._checked = rest, HEADER.size, False
        return record

    def _look(self) -> None:
        if self._checked or self._have < HEADER.size:
            return
        _, length = self._opener.check(self._buffer[: HEADER.size])
        self._need = length + OVERHEAD_BYTES
        self._checked = True


# -- chunks -------------------------------------------------------------------------------


def put_chunk(  # noqa: PLR0917
    buffer: memoryview, at: int, kind: ChunkKind, file: int, offset: int, size: int
) -> int:
    """Write the header of a chunk whose `size` bytes follow it; where those begin."""
    CHUNK.pack_into(buffer, at, kind, file, offset, size)
    return at + CHUNK.size


def put_file_end(buffer: memoryview, at: int, file: int, size: int, digest: bytes) -> int:
    """Write the chunk that ends a file; where the next chunk begins."""
    at = put_chunk(buffer, at, ChunkKind.FILE_END, file, 0, FILE_END.size)
    FILE_END.pack_into(buffer, at, size, digest)
    return at + FILE_END.size


def split(plain: memoryview) -> list[Chunk]:
    """The chunks of a CHUNKS record.

    Raises RemoteError("malformed") for a chunk that is cut, empty, of an unknown kind, or one
    too many.
    """
    chunks: list[Chunk] = []
    at = 0
    while at < len(plain):
        if len(chunks) == limits.LANE_CHUNKS_MAX:
            raise RemoteError("malformed", "a lane record of too many chunks")
        chunk = _chunk_at(plain, at)
        chunks.append(chunk)
        at += CHUNK.size + len(chunk.data)
    if not chunks:
        raise RemoteError("malformed", "a lane record without a chunk")
    return chunks


def _chunk_at(plain: memoryview, at: int) -> Chunk:
    if len(plain) - at < CHUNK.size:
        raise RemoteError("malformed", "a chunk header that is cut")
    kind, file, offset, size = CHUNK.unpack_from(plain, at)
    start = at + CHUNK.size
    if size > len(plain) - start:
        raise RemoteError("malformed", "a chunk that is cut")
    known = _KINDS.get(kind)
    if known is None:
        raise RemoteError("malformed", f"a chunk of kind {kind}")
    if size == 0 or (known is ChunkKind.FILE_END and size != FILE_END.size):
        raise RemoteError("malformed", f"a chunk {known.name} of {size} bytes")
    return Chunk(known, file, offset, plain[start : start + size])


# -- one file -----------------------------------------------------------------------------


class Arrival:
    """Checks what arrives of one file against what was agreed, and hashes it.

    The order is fixed: data without a hole from 0 to `size`, FILE_END, then the record END.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.received = 0
        self.complete = False  # FILE_END was there
        self.intact = False  # and its size and hash are those of what arrived
        self._hash = blake3(max_threads=1)

    def expect(self, record: Record) -> list[Chunk]:
        """The chunks of the record, all of which fit; nothing for the record END.

        Raises RemoteError("malformed") where one does not fit; then none is to be used.
        """
        if record.type is RecordType.END and self.complete:
            return []
        if record.type is not RecordType.CHUNKS:
            raise RemoteError("malformed", f"a lane record {record.type.name} out of place")
        chunks = split(record.plain)
        offset, complete = self.received, self.complete
        for chunk in chunks:
            due = offset if chunk.kind is ChunkKind.DATA else 0
            if complete or chunk.file or chunk.offset != due:
                raise RemoteError("malformed", f"a chunk at {chunk.offset} instead of {due}")
            if chunk.kind is ChunkKind.DATA:
                offset += len(chunk.data)
            else:
                complete = True
        if offset > self.size:
            raise RemoteError("malformed", f"more than the {self.size} bytes that were agreed")
        return chunks

    def take(self, chunk: Chunk) -> None:
        """Count and hash a chunk that `expect` gave."""
        if chunk.kind is ChunkKind.DATA:
            self._hash.update(chunk.data)
            self.received += len(chunk.data)
        else:
            size, digest = FILE_END.unpack(chunk.data)
            self.complete = True
            self.intact = size == self.received == self.size and digest == self.digest()

    def digest(self) -> bytes:
        """The BLAKE3 hash of what arrived so far."""
        return self._hash.digest()
