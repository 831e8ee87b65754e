"""Compression of records: it comes back, is never more than it may be, and only where it pays."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tntd import limits
from tntd.errors import RemoteError
from tntd.machines import records
from tntd.machines.records import Opener, RecordType, Sealer
from tntd.machines.squeeze import Gauge, Squeezer, unsqueeze

MAX = limits.RECORD_PLAIN_BYTES_MAX
TEXT = b"".join(b"%d times around the block\n" % number for number in range(20_000))[:MAX]
NOISE = os.urandom(MAX)
patient = settings(deadline=None)


def squeezed(plain: bytes) -> bytes:
    """Squeezed, whatever it gains."""
    from backports import zstd

    return zstd.compress(plain, 1)


@patient
@given(st.binary(max_size=5000), st.integers(1, 50))
def test_what_is_squeezed_comes_back(plain: bytes, times: int) -> None:
    plain *= times
    assert unsqueeze(memoryview(squeezed(plain)), len(plain)) == plain


def test_a_record_goes_and_comes() -> None:
    out, plain = memoryview(bytearray(MAX + 100)), memoryview(bytearray(MAX))
    sealer, opener = Sealer(b"k" * 32), Opener(b"k" * 32, records.RECEIVER_TAKES)
    opener.opens_squeezed = True
    for type, content in (
        (RecordType.CHUNKS, TEXT),
        (RecordType.CHUNKS, NOISE),
        (RecordType.PACK, TEXT[: limits.PACK_PLAIN_BYTES_MAX]),
    ):
        small = Squeezer().block(1, memoryview(content))
        assert (small is None) == (content is NOISE)
        assert small is None or len(small) < len(content) // 3
        flags = records.SQUEEZED if small else 0
        length = sealer.seal(type, small or content, out, flags)
        record = opener.open(out[:length], plain)
        assert (record.type, record.plain) == (type, content)


@pytest.mark.parametrize(
    ("type", "flags", "able"),
    [
        (RecordType.CHUNKS, 1, False),
        (RecordType.CHUNKS, 2, True),
        (RecordType.CHUNKS, 3, True),
        (RecordType.CHUNKS, 256, True),
        (RecordType.END, 1, True),
        (RecordType.ALIVE, 1, True),
        (RecordType.HELLO, 1, True),
    ],
)
def test_flags_that_cannot_be(type: RecordType, flags: int, able: bool) -> None:
    out = memoryview(bytearray(100))
    length = Sealer(b"k" * 32).seal(type, b"", out, flags)
    opener = Opener(b"k" * 32, records.RECEIVER_TAKES)
    opener.opens_squeezed = able
    with pytest.raises(RemoteError, match="malformed: a record"):
        opener.check(out[:length][:16])


def test_a_bomb_does_not_go_off() -> None:
    bomb = squeezed(bytes(100 * MAX))
    assert len(bomb) < MAX
    with pytest.raises(RemoteError, match="malformed"):
        unsqueeze(memoryview(bomb), MAX)
    assert len(unsqueeze(memoryview(squeezed(bytes(MAX))), MAX)) == MAX
    with pytest.raises(RemoteError, match="malformed"):
        unsqueeze(memoryview(squeezed(bytes(MAX + 1))), MAX)


def test_a_frame_that_asks_for_a_large_window_is_refused() -> None:
    from backports import zstd

    options = {zstd.CompressionParameter.window_log: 27}
    frame = zstd.ZstdCompressor(options=options)
    data = frame.compress(b"x" * 100, zstd.ZstdCompressor.FLUSH_BLOCK) + frame.flush()
    with pytest.raises(RemoteError, match="malformed"):
        unsqueeze(memoryview(data), MAX)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        squeezed(TEXT)[:-1],
        squeezed(TEXT) + b"x",
        squeezed(TEXT) * 2,
        squeezed(TEXT)[:100] + b"x" * 100,
    ],
)
def test_frames_that_cannot_be(data: bytes) -> None:
    with pytest.raises(RemoteError, match="malformed"):
        unsqueeze(memoryview(data), MAX)


@patient
@given(st.binary(max_size=300), st.integers(0, 60), st.integers(0, 255))
def test_any_bytes_are_opened_or_refused(data: bytes, at: int, value: int) -> None:
    changed = bytearray(squeezed(data))
    changed[at % len(changed)] = value
    for each in (data, bytes(changed)):
        try:
            assert len(unsqueeze(memoryview(each), 1000)) <= 1000
        except RemoteError as error:
            assert error.code == "malformed"


def test_the_first_block_decides_for_the_file() -> None:
    squeezer = Squeezer()
    assert squeezer.block(1, memoryview(TEXT)) is not None
    assert squeezer.block(1, memoryview(NOISE)) is None
    assert squeezer.block(1, memoryview(TEXT)) is None
    assert squeezer.block(2, memoryview(TEXT)) is not None
    assert squeezer.block(3, memoryview(TEXT)[:1000]) is None


def test_records_of_small_files_by_their_beginning() -> None:
    squeezer = Squeezer()
    assert squeezer.pack(memoryview(TEXT)) is not None
    assert squeezer.pack(memoryview(NOISE[: 1 << 17] + TEXT[: 1 << 17])) is None
    assert squeezer.pack(memoryview(TEXT[: 1 << 15] + NOISE[: 7 << 15])) is None
    assert squeezer.pack(memoryview(TEXT[:2000])) is not None


# -- when it pays -------------------------------------------------------------------------


def second(gauge: Gauge, start: float, rate: int, *, blocked: bool, squeezes: int = 1) -> bool:
    """A second of records at a rate (bytes that the way carries); whether it is slow then."""
    turns = 20
    for turn in range(turns + 1):
        gauge.turn(start + turn / turns, blocked=blocked)
        carried = rate // turns
        gauge.put(carried, carried * squeezes)
    return gauge.slow


def test_a_slow_way_is_squeezed_for_and_a_fast_one_is_not() -> None:
    gauge = Gauge(0.0)
    assert not gauge.slow
    assert not second(gauge, 0, 500_000_000, blocked=True)
    assert second(gauge, 2, 10_000_000, blocked=True)
    assert not second(gauge, 4, 100_000_000, blocked=True)


def test_a_sender_that_is_slow_itself_does_not_squeeze() -> None:
    assert not second(Gauge(0.0), 0, 10_000_000, blocked=False)


def test_it_goes_on_while_more_goes_through() -> None:
    gauge = Gauge(0.0)
    assert second(gauge, 0, 50_000_000, blocked=True)
    # Squeezed, it is no longer the way that we wait for.
    assert second(gauge, 2, 30_000_000, blocked=False, squeezes=4)
    assert not second(gauge, 4, 40_000_000, blocked=False, squeezes=1)
