"""The hash of a file, made of the hashes of its blocks.

A file is cut into blocks of the same length, `block_bytes` of its size, the last one as long as
it comes.  Its digest is the BLAKE3 hash of the BLAKE3 hashes of its blocks, one behind the other,
also where there is one block or none.  So the hash of a block that is already at the other side
counts for the whole, and nothing has to be read twice.

Of a file that still grows the size is not known (None): its blocks have GROWING_BLOCK_BYTES.
"""

from __future__ import annotations

from collections.abc import Iterable

from blake3 import blake3

from tntd import limits


def block_bytes(size: int | None) -> int:
    """The length of the blocks of a file of `size` bytes: 1 MiB, doubled until there are at most
    TREE_BLOCKS_MAX."""
    if size is None:
        return limits.GROWING_BLOCK_BYTES
    length = limits.TREE_BLOCK_BYTES_MIN
    while size > length * limits.TREE_BLOCKS_MAX:
        length *= 2
    return length


def block_count(size: int | None) -> int:
    """How many blocks a file of `size` bytes has; as many as hashes are told of at most, where that
    is not known."""
    if size is None:
        return limits.TREE_BLOCKS_MAX
    return -(-size // block_bytes(size))


def block_hash(data: bytes | memoryview) -> bytes:
    """The hash of one block."""
    return blake3(data, max_threads=1).digest()


def digest_of(hashes: Iterable[bytes]) -> bytes:
    """The digest of a file with these hashes of blocks."""
    whole = blake3(max_threads=1)
    for each in hashes:
        whole.update(each)
    return whole.digest()


class BlockHasher:
    """The digest of a file whose bytes, or hashes of whole blocks, are given in order."""

    def __init__(self, size: int | None) -> None:
        """`size` is that of the file, in bytes; None where only its `end` will tell."""
        self._size = limits.TREE_BYTES_MAX if size is None else size
        self._block_bytes = block_bytes(size)
        self._whole = blake3(max_threads=1)
        self._block = blake3(max_threads=1)
        self._fresh = True  # the block is not begun
        self._at = 0
        self._end = min(self._block_bytes, self._size)  # of the block that `_at` is in

    @property
    def at(self) -> int:
        """Bytes that were given so far."""
        return self._at

    @property
    def within(self) -> bool:
        """Whether a block is begun and not whole."""
        return not self._fresh

    def update(self, data: memoryview) -> None:
        """The next bytes; never more than the file has."""
        while data:
            piece = data[: self._end - self._at]
            assert piece, "more than the file has"
            if self._fresh:
                self._block, self._fresh = blake3(max_threads=1), False
            self._block.update(piece)
            if self._at + len(piece) == self._end:
                self._finish(self._block.digest())
            else:
                self._at += len(piece)
            data = data[len(piece) :]

    def skip(self, hash: bytes) -> None:
        """The next block, whole, by its hash; only between two blocks."""
        assert not self.within and self._at < self._size
        self._finish(hash)

    def end(self) -> None:
        """There is no more of it than was given, however much was expected."""
        self._size = self._end = self._at
        if self.within:
            self._finish(self._block.digest())

    def digest(self) -> bytes:
        """The digest of the file; only once all of it was given."""
        assert self._at == self._size
        return self._whole.digest()

    def _finish(self, hash: bytes) -> None:
        self._whole.update(hash)
        self._fresh = True
        self._at = self._end
        self._end = min(self._at + self._block_bytes, self._size)
