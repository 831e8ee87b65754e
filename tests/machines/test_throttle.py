"""A limit of bytes a second: no more than that goes, and no much less."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tntd.machines.throttle import Bucket


def moved(bucket: Bucket, seconds: float, now: float = 0.0, most: int = 1 << 18) -> int:
    """The bytes that go in that time, where somebody always wants to move `most`."""
    total, end = 0, now + seconds
    while now < end:
        allowed = bucket.allowance(now)
        assert allowed is not None
        if not allowed:
            due = bucket.free_at()
            assert due > now
            now = due
            continue
        count = min(allowed, most)
        bucket.spend(count)
        total += count
        now += 1e-6
    return total


@pytest.mark.parametrize("rate", [1, 10, 1000, 50_000, 10**6, 10**8, 10**10])
def test_the_rate_is_kept(rate: int) -> None:
    assert 0.9 * rate * 10 - 2 <= moved(Bucket(rate, 0.0), 10) <= 1.1 * rate * 10 + 2


def test_pieces_are_small_where_the_line_is_slow() -> None:
    bucket = Bucket(50_000, 0.0)
    assert bucket.allowance(0.0) == 0
    assert bucket.free_at() == 0.05
    assert bucket.allowance(0.05) == 2500
    assert bucket.allowance(100.0) == 5000  # what was not used is not kept for long


def test_no_limit() -> None:
    bucket = Bucket(0, 0.0)
    assert bucket.allowance(0.0) is None
    bucket.spend(10**12)
    assert bucket.allowance(0.0) is None and bucket.free_at() == 0.0


def test_a_rate_that_changes_holds_at_once() -> None:
    bucket = Bucket(10**8, 0.0)
    bucket.allowance(1.0)
    bucket.change(1000, 1.0)
    assert moved(bucket, 10, 1.0) <= 10_000 + 200
    bucket.change(10**6, 11.0)
    assert moved(bucket, 10, 11.0) >= 0.9 * 10**7
    bucket.change(0, 21.0)
    assert bucket.allowance(21.0) is None


@given(st.integers(1, 10**9), st.lists(st.floats(0, 0.5), min_size=1, max_size=50))
def test_whenever_it_is_asked(rate: int, pauses: list[float]) -> None:
    bucket, now, total = Bucket(rate, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        allowed = bucket.allowance(now)
        assert allowed is not None and allowed >= 0
        bucket.spend(allowed)
        total += allowed
        assert total <= rate * now + max(1.0, rate * 0.1)
