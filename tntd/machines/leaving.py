"""One large file on its way out: what of it was sent, or found to be there already.

What holds always:
- A block is skipped only where it was read and hashed just now and has the hash that the receiver
  told; else it is read a second time, and sent.
- Of a file that grows only what is known to be there is read (`large.size`), and its end is sent
  when that is known to be all (`whole`).  A block is compared once all of it is there; what comes
  before goes out at once, whatever the receiver may have in its place.
"""

from __future__ import annotations

import msgspec
from blake3 import blake3

from tntd import limits
from tntd.machines import pack_record
from tntd.machines.blocks import BlockHasher, block_bytes
from tntd.machines.records import HASH_BYTES
from tntd.tasks import Large


class Leaving:
    """The file of the entry `number`, open as `handle`.  `asks`: the receiver tells what it has of
    it.  Where it is not `whole` it grows, and has blocks as such a file has them to its end."""

    def __init__(
        self, number: int, large: Large, handle: int, *, asks: bool, whole: bool = True
    ) -> None:
        self.number = number
        self.large = large
        self.handle = handle
        self.grows = not whole
        self.whole = whole
        self.blocks = BlockHasher(None if self.grows else large.size)
        self.block_bytes = block_bytes(None if self.grows else large.size)
        self.offset = 0  # of the next range to read
        self.range_bytes = limits.BLOCK_BYTES  # its length at most
        self.announced = False
        self.looked = False  # its first range was read
        self.told_blocks = None if asks else 0  # how many of its blocks the receiver has
        self.told = bytearray()  # their hashes, as far as they are here
        self.compared = blake3(max_threads=1)  # of the block that may be skipped
        self.differs = b""  # hash of the block at `offset`, where the receiver's is another
        self.lost = ""
        self._plain_to = 0  # up to here it is sent without a look at what the receiver has

    def grew(self, size: int, *, whole: bool) -> None:
        """There are `size` bytes by now; `whole`: and that is all."""
        if self.grows and not self.whole:
            self.large = msgspec.structs.replace(self.large, size=size)
            self.whole = whole

    @property
    def _full_end(self) -> int:
        """Where the block that the next range is in ends, if the file is long enough."""
        return (self.offset // self.block_bytes + 1) * self.block_bytes

    @property
    def length(self) -> int:
        """The length of the next range."""
        end = min(self._full_end, self.large.size)
        return min(self.range_bytes, end - self.offset)

    @property
    def compares(self) -> bool:
        """Whether the next range is only to be hashed, since the receiver may have it."""
        if self.differs or self.offset < self._plain_to:
            return False
        size = self.large.size
        there = not self.grows or self._full_end <= size
        return there and self.offset < min((self.told_blocks or 0) * self.block_bytes, size)

    @property
    def waits(self) -> bool:
        """Whether the receiver has to say more before this can go on."""
        if self.told_blocks is None:
            return True
        told = len(self.told) // HASH_BYTES
        if self.lost or self.all_read:  # an older copy may be longer than what grew
            return told < self.told_blocks
        return self.compares and told <= self.offset // self.block_bytes

    @property
    def starves(self) -> bool:
        """Whether all that is known of it went out, and there will be more."""
        return not self.whole and self.offset == self.large.size

    @property
    def all_read(self) -> bool:
        """Whether there is nothing to be read any more."""
        return self.whole and self.looked and self.offset == self.large.size

    @property
    def at_block_end(self) -> bool:
        """Whether `offset` is where a block ends."""
        return self.offset == self.large.size or self.offset % self.block_bytes == 0

    def digest(self) -> bytes:
        """Its digest, once all of it was sent or skipped."""
        if self.grows:
            self.blocks.end()
        return self.blocks.digest()

    def entry(self) -> bytes:
        """The body of its ENTRY chunk."""
        large = self.large
        what: pack_record.What = "growing" if self.grows else "file"
        size = 0 if self.grows else large.size
        return pack_record.encode_entry(
            what, large.path, size, large.mtime_ns, large.executable, b""
        )

    def compare(self, data: memoryview) -> None:
        """Bytes were read that are only to be hashed; `offset` stands behind them."""
        self.compared.update(data)
        if not self.at_block_end:
            return
        hash = self.compared.digest()
        self.compared = blake3(max_threads=1)
        block = self.blocks.at // self.block_bytes
        if hash == self.told[block * HASH_BYTES : (block + 1) * HASH_BYTES]:
            self.blocks.skip(hash)
        else:
            self.differs, self.offset = hash, self.blocks.at

    def sent(self, data: memoryview) -> None:
        """Bytes were read that are sent; `offset` stands behind them."""
        if not self.differs:
            self.blocks.update(data)
            if self.grows:
                self._plain_to = -(-self.offset // self.block_bytes) * self.block_bytes
        elif self.at_block_end:
            # It was hashed a moment ago.  Should it have changed since, the receiver will see.
            self.blocks.skip(self.differs)
            self.differs = b""
