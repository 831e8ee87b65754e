"""Sizes, rates and switches as people type them, to values; and back, exactly.  Pure.

What holds always: what `exact_size` writes, `parse_size` reads as the same number.  MB is a million
bytes and MiB 1,048,576, as the standards have it; a bare k, M or G is decimal, too.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

_LARGEST: Final = 2**63 - 1
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_SIZE: Final = re.compile(r"(\d{1,19}(?:\.\d{1,9})?)\s*([kmgtp]?)(i?)(b?)(/s)?", re.ASCII)
_YES: Final = frozenset({"yes", "on", "true", "1"})
_NO: Final = frozenset({"no", "off", "false", "0"})


def parse_size(text: str, rate: bool = False) -> int | None:
    """Bytes of "2MB", "500k", "1.5GiB", "4096"; of a rate also "2MB/s".  None for what is none."""
    found = _SIZE.fullmatch(text.strip().lower())
    if found is None:
        return None
    number, power, binary, _, per_second = found.groups()
    if (binary and not power) or (per_second and not rate):
        return None
    value = Fraction(number) * (1024 if binary else 1000) ** _POWERS[power]
    return int(value) if value <= _LARGEST else None


def exact_size(count: int) -> str:
    """`count` bytes without rounding, as short as can be: "10 GiB", "2.5 MB", "1234567 B"."""
    found = [f"{count} B"]
    for base, letters, end in ((1024, "KMGTP", "iB"), (1000, "kMGTP", "B")):
        for power, letter in enumerate(letters, 1):
            tenths, rest = divmod(count * 10, base**power)
            if tenths >= 10 and not rest:
                whole, tenth = divmod(tenths, 10)
                found.append(f"{whole}{f'.{tenth}' if tenth else ''} {letter}{end}")
    return min(found, key=len)


def parse_switch(text: str) -> bool | None:
    """True of "on" and the like, False of "off"; None for what is neither."""
    word = text.strip().lower()
    return True if word in _YES else False if word in _NO else None
