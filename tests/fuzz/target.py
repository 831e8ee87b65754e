"""What a target is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple


class Target(NamedTuple):
    """`run` takes any bytes and raises only for a bug; `seeds` makes inputs that reach deep;
    `bytes_max` is how long an input is worth trying."""

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    bytes_max: int = 4096


def scenarios() -> list[bytes]:
    """Seeds for a target that reads its input as decisions."""
    return [hashlib.shake_128(bytes([number])).digest(700) for number in range(12)]
