"""PACK records: many small files in one record, as both children write and read them.

The plaintext is a row of chunks (see records.py for their header).  Each entry of the tree
begins with an ENTRY chunk; that of a file is followed by its DATA, if it has any, and by its
FILE_END.  The number in a chunk is the entry's; in one record they go up by one.

What holds always: `parse` looks at a record completely before it gives anything of it, and what
it gives has been checked for all but the names and the hashes.

Not a part of records.py, which brings the ciphers along: the child that uses this needs none, and
stays 7 MiB smaller without.  The shapes of chunks are the same, which a test holds.
"""

from __future__ import annotations

import struct
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from tntd import limits
from tntd.errors import RemoteError

CHUNK: Final = struct.Struct(">BIQI")
FILE_END: Final = struct.Struct(">Q32s")
DATA_KIND: Final = 1
FILE_END_KIND: Final = 2
ENTRY_KIND: Final = 3
FILE_END_BYTES: Final = CHUNK.size + FILE_END.size

What = Literal["file", "growing", "folder", "folder_end", "link", "skipped", "failed"]
_Bytes = Annotated[bytes, msgspec.Meta(max_length=limits.TREE_PATH_BYTES_MAX)]


class TreeEntry(msgspec.Struct, frozen=True, array_like=True):
    """The body of an ENTRY chunk.  `text` is the target of a link, or the reason (UTF-8) why
    something is skipped or failed; `size` in bytes.  "growing" is a file whose end tells its size;
    it comes by itself, never in a PACK record."""

    what: What
    path: _Bytes
    size: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    mtime_ns: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    executable: bool
    text: _Bytes


class PackedEntry(NamedTuple):
    """An entry of a record; of a file, with its bytes in pieces and the hash that ends it."""

    entry: TreeEntry
    pieces: list[memoryview]
    digest: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(TreeEntry)


def encode_entry(  # noqa: PLR0917
    what: What, path: bytes, size: int, mtime_ns: int, executable: bool, text: bytes
) -> bytes:
    """The body of an ENTRY chunk."""
    return _encoder.encode((what, path, size, mtime_ns, executable, text))


def decode_entry(body: memoryview) -> TreeEntry:
    """The entry in the body of an ENTRY chunk.  Raises RemoteError("malformed")."""
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteError("malformed", f"an entry: {error}") from error


def parse(plain: bytes, number: int) -> list[PackedEntry]:
    """The entries of a PACK record, the first of which has the number `number`.

    Raises RemoteError("malformed") where the record is not made of whole entries in a row.
    """
    view = memoryview(plain)
    found: list[PackedEntry] = []
    at, chunks = 0, 0
    while at < len(view):
        body, at = _chunk(view, at, ENTRY_KIND, number + len(found), 0)
        entry = decode_entry(body)
        pieces: list[memoryview] = []
        digest = b""
        if entry.what == "growing":
            raise RemoteError("malformed", "a growing file among small ones")
        if entry.what == "file":
            digest, at = _parse_file(view, at, entry, number + len(found), pieces)
            chunks += 1
        chunks += 1 + len(pieces)
        found.append(PackedEntry(entry, pieces, digest))
    if not found or chunks > limits.LANE_CHUNKS_MAX:
        raise RemoteError("malformed", f"a record of {chunks} chunks")
    if number + len(found) > limits.TREE_ENTRIES_MAX:
        raise RemoteError("malformed", "more entries than can be counted")
    return found


def _parse_file(
    view: memoryview, at: int, entry: TreeEntry, number: int, pieces: list[memoryview]
) -> tuple[bytes, int]:
    offset = 0
    while offset < entry.size:
        piece, at = _chunk(view, at, DATA_KIND, number, offset)
        offset += len(piece)
        pieces.append(piece)
    body, at = _chunk(view, at, FILE_END_KIND, number, 0)
    if len(body) != FILE_END.size:
        raise RemoteError("malformed", f"the end of a file in {len(body)} bytes")
    size, digest = FILE_END.unpack(body)
    if not size == offset == entry.size:
        raise RemoteError("malformed", f"a file of {offset} instead of {entry.size} bytes")
    return digest, at


def _chunk(
    view: memoryview, at: int, kind: int, number: int, offset: int
) -> tuple[memoryview, int]:
    """The body of the chunk at `at`, which must be of that kind, number and offset, and where it
    ends."""
    start = at + CHUNK.size
    if start > len(view):
        raise RemoteError("malformed", "a chunk header that is cut")
    header = CHUNK.unpack_from(view, at)
    size = header[3]
    if header != (kind, number, offset, size):
        raise RemoteError("malformed", f"chunk {header[:3]} instead of {(kind, number, offset)}")
    end: int = start + size
    if size == 0 or end > len(view):
        raise RemoteError("malformed", "a chunk that is empty or cut")
    return view[start:end], end
