"""Hashes of blocks: a file has one digest, however it is given."""

from __future__ import annotations

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from lane_model import digest, hashes, small_limits
from tntd import limits
from tntd.limits import GIB, MIB
from tntd.machines.blocks import BlockHasher, block_bytes, block_count, block_hash, digest_of


@pytest.mark.parametrize(
    ("size", "length", "count"),
    [
        (0, MIB, 0),
        (1, MIB, 1),
        (MIB, MIB, 1),
        (MIB + 1, MIB, 2),
        (16 * GIB, MIB, 16_384),
        (16 * GIB + 1, 2 * MIB, 8193),
        (1024 * GIB, 64 * MIB, 16_384),
        (limits.TREE_BYTES_MAX, 2**49, 16_384),
    ],
)
def test_blocks_of_a_file(size: int, length: int, count: int) -> None:
    assert (block_bytes(size), block_count(size)) == (length, count)


def test_the_digest_as_it_is_documented() -> None:
    data = bytes(range(256)) * 5000
    first, second = blake3(data[:MIB]).digest(), blake3(data[MIB:]).digest()
    assert digest(data) == blake3(first + second).digest()
    assert digest(b"") == blake3(b"").digest() == digest_of([])
    assert digest(b"x") == blake3(blake3(b"x").digest()).digest() == digest_of([block_hash(b"x")])


@given(st.binary(max_size=300), st.lists(st.integers(1, 40)), st.data())
def test_any_pieces_and_known_blocks(content: bytes, cuts: list[int], data: st.DataObject) -> None:
    with small_limits():
        hasher, length = BlockHasher(len(content)), block_bytes(len(content))
        known = hashes(content, length)
        cuts = [*cuts, 1] if cuts else [len(content) or 1]
        while hasher.at < len(content):
            assert hasher.within == bool(hasher.at % length)
            if not hasher.within and data.draw(st.booleans()):
                hasher.skip(known[hasher.at // length])
                continue
            cut = cuts[hasher.at % len(cuts)]
            hasher.update(memoryview(content)[hasher.at : hasher.at + cut])
        assert hasher.digest() == digest(content)
