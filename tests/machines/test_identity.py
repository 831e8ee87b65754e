"""Keys that are none: points of small order, for which a signature fits without a secret.

The curve is done here by hand, so that the list in the code is checked and not repeated.
"""

from __future__ import annotations

import itertools
import os

import pytest

from tntd.errors import RemoteError
from tntd.machines.identity import Identity, verify_accept, verify_dial

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]


def add(one: Point, two: Point) -> Point:
    (x1, y1), (x2, y2) = one, two
    t = D * x1 * x2 * y1 * y2
    x = (x1 * y2 + x2 * y1) * pow(1 + t, -1, P)
    y = (y1 * y2 + x1 * x2) * pow(1 - t, -1, P)
    return x % P, y % P


def times(number: int, point: Point) -> Point:
    total: Point = (0, 1)
    for bit in bin(number)[2:]:
        total = add(total, total)
        if bit == "1":
            total = add(total, point)
    return total


def x_of(y: int) -> int | None:
    """A square root of (y² - 1) / (dy² + 1), where there is one (RFC 8032, 5.1.3)."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    root = pow(square, (P + 3) // 8, P)
    if (root * root - square) % P:
        root = root * pow(2, (P - 1) // 4, P) % P
    return root if (root * root - square) % P == 0 else None


def small_points() -> set[Point]:
    """The eight points whose order divides 8."""
    found: set[Point] = set()
    for y in itertools.count(2):
        x = x_of(y)
        if x is not None:
            generated = times(L, (x, y))
            found |= {times(number, generated) for number in range(8)}
        if len(found) == 8:
            return found
    raise AssertionError("unreachable")


def encodings() -> list[bytes]:
    """Every 32 bytes that may be read as one of the eight points, and as no honest key."""
    ys = {y for _, y in small_points()}
    ys |= {y + P for y in ys if y + P < 2**255}
    return [(y | sign << 255).to_bytes(32, "little") for y in sorted(ys) for sign in (0, 1)]


def test_there_are_fourteen() -> None:
    assert len(encodings()) == 14
    assert bytes(32) in encodings()


@pytest.mark.parametrize("key", encodings(), ids=lambda key: key.hex()[:6] + key.hex()[-2:])
def test_a_point_of_small_order_proves_nothing(key: bytes) -> None:
    signatures = [bytes(64), b"\x01" + bytes(63), key + bytes(32)]
    for signature in signatures:
        for _ in range(20):  # each fits one text in eight, at least
            with pytest.raises(RemoteError, match="authentication"):
                verify_dial(key, signature, os.urandom(32))
            with pytest.raises(RemoteError, match="authentication"):
                verify_accept(key, signature, os.urandom(32), os.urandom(32))


@pytest.mark.parametrize("above", range(19))
def test_a_key_is_written_in_one_way_only(above: int) -> None:
    for sign in (0, 1):
        key = (P + above | sign << 255).to_bytes(32, "little")
        with pytest.raises(RemoteError, match="authentication"):
            verify_dial(key, bytes(64), os.urandom(32))


def test_an_honest_key_is_none_of_them() -> None:
    for _ in range(50):
        someone, exporter = Identity(os.urandom(32)), os.urandom(32)
        verify_dial(someone.public, someone.sign_dial(exporter), exporter)
