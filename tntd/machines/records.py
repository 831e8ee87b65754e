"""The records of a bulk lane: sealed, numbered, and what is inside them.

What holds always:
- A record is header, ciphertext, tag.  The header (version, type, flags, counter, length of the
  plaintext) is authenticated with it, and the nonce is the counter.  Counters go up by one
  from zero, so a record that is missing, repeated or out of order does not open.
- A header is checked completely before its body is waited for, and a record completely before
  anything is done with one of its chunks.
- Bulk bytes are not copied here: they are sealed and opened between buffers that the caller
  keeps and uses again.
- Each direction has its own types of records: one of the other direction is refused by its
  header, so a side that sends a file needs room for small records only.

Not TLS records: those are 16 KiB, and pyOpenSSL copies each several times.  See ../wire/LANE.md.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tntd import limits
from tntd.errors import RemoteError
from tntd.machines import pack_record, squeeze

VERSION: Final = 1
HEADER: Final = struct.Struct(">BBHQI")
TAG_BYTES: Final = 16
OVERHEAD_BYTES: Final = HEADER.size + TAG_BYTES
RECORD_BYTES_MAX: Final = limits.RECORD_PLAIN_BYTES_MAX + OVERHEAD_BYTES

CHUNK: Final = pack_record.CHUNK
FILE_END: Final = pack_record.FILE_END
FILE_END_BYTES: Final = pack_record.FILE_END_BYTES

HAVE: Final = struct.Struct(">III")
PROGRESS: Final = struct.Struct(">QI")
HASH_BYTES: Final = 32

SQUEEZED: Final = 1  # a flag: the plaintext is zstd (see squeeze.py) of what the type says

_NONCE: Final = struct.Struct(">IQ")


class RecordType(IntEnum):
    """What a record is for: the first of each direction; from the sender a piece of a large file,
    its last word, whole small files, and a sign of life; from the receiver the hashes of what it
    has, and how far it is."""

    HELLO = 1
    CHUNKS = 2
    END = 3
    PACK = 4
    HAVE = 5
    PROGRESS = 6
    ALIVE = 7


class ChunkKind(IntEnum):
    """What a chunk is: bytes of a file, the size and hash of the whole of it, or what the entry is
    (see pack_record.TreeEntry)."""

    DATA = pack_record.DATA_KIND
    FILE_END = pack_record.FILE_END_KIND
    ENTRY = pack_record.ENTRY_KIND


_TYPES: Final = {int(type): type for type in RecordType}
_KINDS: Final = {int(kind): kind for kind in ChunkKind}

PLAIN_BYTES_MAX: Final[dict[RecordType, int]] = {
    RecordType.HELLO: limits.LANE_HELLO_BYTES_MAX,
    RecordType.CHUNKS: limits.RECORD_PLAIN_BYTES_MAX,
    RecordType.END: 0,
    RecordType.PACK: limits.PACK_PLAIN_BYTES_MAX,
    RecordType.HAVE: HAVE.size + limits.LANE_HAVE_BLOCKS_MAX * HASH_BYTES,
    RecordType.PROGRESS: PROGRESS.size,
    RecordType.ALIVE: 0,
}
# What may be squeezed, where the receiver has said that it can open it.
MAY_BE_SQUEEZED: Final = frozenset({RecordType.CHUNKS, RecordType.PACK})
# What each end takes.
RECEIVER_TAKES: Final = frozenset(
    {RecordType.HELLO, RecordType.CHUNKS, RecordType.END, RecordType.PACK, RecordType.ALIVE}
)
SENDER_TAKES: Final = frozenset({RecordType.HELLO, RecordType.HAVE, RecordType.PROGRESS})


class Record(NamedTuple):
    """An opened record; `plain` is a view of a buffer that is used again for the next one."""

    type: RecordType
    plain: memoryview


class Chunk(NamedTuple):
    """`data` belongs at `offset` (0 but for DATA) of the entry numbered `file`."""

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

    def seal(
        self, type: RecordType, plain: memoryview | bytes, out: memoryview, flags: int = 0
    ) -> int:
        """Write the record for `plain` to the beginning of `out`; its length in bytes."""
        header = HEADER.pack(VERSION, type, flags, self._counter, len(plain))
        nonce = _NONCE.pack(0, self._counter)
        self._counter += 1
        end = HEADER.size + len(plain) + TAG_BYTES
        out[: HEADER.size] = header
        self._cipher.encrypt_into(nonce, plain, header, out[HEADER.size : end])
        return end


class Opener:
    """Opens the records of one direction of one lane, in the order in which they were sealed; only
    those of the types that it `takes`, and squeezed ones only where we said that we can."""

    def __init__(self, key: bytes, takes: frozenset[RecordType]) -> None:
        self._cipher = AESGCM(key)
        self._counter = 0
        self._takes = takes
        self.opens_squeezed = False

    @property
    def plain_bytes_max(self) -> int:
        """The longest plaintext that there may be."""
        return max(PLAIN_BYTES_MAX[type] for type in self._takes)

    def check(self, header: memoryview) -> tuple[RecordType, int]:
        """The type and plaintext length of the next record, from its header.

        Raises RemoteError("malformed") where they cannot be, before the body is waited for.
        """
        version, number, flags, counter, length = HEADER.unpack(header)
        if version != VERSION:
            raise RemoteError("malformed", f"a record of version {version}")
        if flags and not (flags == SQUEEZED and number in MAY_BE_SQUEEZED and self.opens_squeezed):
            raise RemoteError("malformed", f"a record {number} with flags {flags:#x}")
        type = _TYPES.get(number, RecordType.HELLO)
        if type != number or type not in self._takes:
            raise RemoteError("malformed", f"a record of type {number} out of place")
        if counter != self._counter:
            raise RemoteError("malformed", f"record {counter} instead of {self._counter}")
        if length > PLAIN_BYTES_MAX[type]:
            raise RemoteError("malformed", f"a record {type.name} of {length} bytes")
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
            raise RemoteError("authentication", "a record that does not open") from error
        self._counter += 1
        if record[3]:  # the flags, which were checked
            out = memoryview(squeeze.unsqueeze(out, PLAIN_BYTES_MAX[type]))
        return Record(type, out)


class RecordReader:
    """Collects the bytes of a stream into records, in one buffer.

    Fill `room()` from the socket, tell `filled`, then take `next`.  Beyond the record that is
    awaited it takes only the header of the one behind, so that one read brings one record.
    """

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._buffer = memoryview(bytearray(opener.plain_bytes_max + OVERHEAD_BYTES + HEADER.size))
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
            raise RemoteError("malformed", "a record of too many chunks")
        chunk = _chunk_at(plain, at)
        chunks.append(chunk)
        at += CHUNK.size + len(chunk.data)
    if not chunks:
        raise RemoteError("malformed", "a record without a chunk")
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


def put_entry(buffer: memoryview, at: int, file: int, body: bytes) -> int:
    """Write the chunk of an entry (see pack_record.encode_entry); where the next chunk begins."""
    at = put_chunk(buffer, at, ChunkKind.ENTRY, file, 0, len(body))
    buffer[at : at + len(body)] = body
    return at + len(body)


def entry_chunk(file: int, body: bytes) -> bytes:
    """The chunk of an entry by itself."""
    return CHUNK.pack(ChunkKind.ENTRY, file, 0, len(body)) + body


def first_entry(plain: memoryview) -> int:
    """The number of the entry that a PACK record begins with; the rest is for others to check.

    Raises RemoteError("malformed").
    """
    if len(plain) <= CHUNK.size:
        raise RemoteError("malformed", "a record of small files that is empty")
    kind, file, offset, _ = CHUNK.unpack_from(plain)
    if kind != ChunkKind.ENTRY or offset:
        raise RemoteError("malformed", f"a record of small files that begins with chunk {kind}")
    number: int = file
    return number


# -- HELLO --------------------------------------------------------------------------------


class Greeting(msgspec.Struct, frozen=True):
    """The plaintext of HELLO, as a map: what its side can open.  Fields that are not known are
    passed over; an empty plaintext is an empty map."""

    zstd: bool = False


_greeting_encoder = msgspec.msgpack.Encoder()
_greeting_decoder = msgspec.msgpack.Decoder(Greeting)


def greeting() -> bytes:
    """The plaintext of our HELLO."""
    return _greeting_encoder.encode(Greeting(zstd=squeeze.available()))


def read_greeting(plain: memoryview) -> Greeting:
    """What a HELLO says.  Raises RemoteError("malformed")."""
    if not plain:
        return Greeting()
    try:
        return _greeting_decoder.decode(plain)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteError("malformed", f"a greeting: {error}") from error


# -- what the receiver says ---------------------------------------------------------------


class Have(NamedTuple):
    """The hashes of the blocks of entry `file` from block `first` on; `blocks` are told in all."""

    file: int
    blocks: int
    first: int
    hashes: memoryview


def have(file: int, blocks: int, first: int, hashes: bytes) -> bytes:
    """The plaintext of a HAVE record."""
    return HAVE.pack(file, blocks, first) + hashes


def read_have(plain: memoryview) -> Have:
    """What a HAVE record says.  Raises RemoteError("malformed")."""
    count, rest = divmod(len(plain) - HAVE.size, HASH_BYTES)
    if count < 0 or rest:
        raise RemoteError("malformed", f"hashes in {len(plain)} bytes")
    file, blocks, first = HAVE.unpack_from(plain)
    if first + count > blocks or bool(count) != bool(blocks):
        raise RemoteError("malformed", f"{count} hashes from {first} on of {blocks}")
    return Have(file, blocks, first, plain[HAVE.size :])


def read_progress(plain: memoryview) -> tuple[int, int]:
    """The bytes that are done and the number of the next entry, of a PROGRESS record.

    Raises RemoteError("malformed").
    """
    if len(plain) != PROGRESS.size:
        raise RemoteError("malformed", f"progress in {len(plain)} bytes")
    done, entries = PROGRESS.unpack(plain)
    if done > limits.TREE_BYTES_MAX:
        raise RemoteError("malformed", f"progress of {done} bytes")
    return done, entries
