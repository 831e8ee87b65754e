"""Sizes, rates, durations, times and bars as people read them.  Pure but for the local time zone.

What holds always: the width of a size is small and steady, so that a progress line does not
dance.  Sizes are binary (KiB, MiB), as the settings and limits are.
"""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Final

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_LARGEST: Final = 2**63 - 1  # bytes; no file has more, and a float cannot hold any number


def size(count: int) -> str:
    """`count` bytes: "0 B", "999 B", "1.2 MiB", "64 MiB"."""
    value = float(max(0, min(count, _LARGEST)))
    unit = 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    if unit == 0 or value >= 99.95 or abs(value - round(value)) < 0.05:
        return f"{value:.0f} {_UNITS[unit]}"
    return f"{value:.1f} {_UNITS[unit]}"


def rate(count: int | None) -> str:
    """`count` bytes a second, empty where it is not known."""
    return "" if count is None else f"{size(count)}/s"


def duration(seconds: float | None) -> str:
    """A time span: "8 s", "2 min 5 s", "3 h 10 min", "4 d 2 h"; empty where it is not known."""
    if seconds is None:
        return ""
    whole = int(seconds)
    for length, name, smaller, smaller_name in (
        (86_400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= length:
            rest = whole % length // smaller
            return f"{whole // length} {name}" + (f" {rest} {smaller_name}" if rest else "")
    return f"{whole} s"


def percent(done: int, total: int) -> int:
    """How much is done, 0 to 100; 100 only when all is done.  An empty file counts as done."""
    return 100 if total <= 0 or done >= total else done * 100 // total


def bar(done: int, total: int, width: int) -> str:
    """A bar of `width` cells."""
    full = width if total <= 0 else min(width, done * width // total)
    return "#" * full + "." * (width - full)


def local(stamp: str | None) -> datetime | None:
    """An RFC 3339 time in the local time zone, None for what is not one."""
    if stamp is None:
        return None
    try:
        return datetime.fromisoformat(stamp).astimezone()
    except (ValueError, OverflowError, OSError):
        return None


def clock(stamp: str | None) -> str:
    """Hours and minutes of an RFC 3339 time, local."""
    time = local(stamp)
    return time.strftime("%H:%M") if time else "--:--"


def day(stamp: str | None) -> str:
    """The date of an RFC 3339 time, local: "2026-11-24"."""
    time = local(stamp)
    return time.strftime("%Y-%m-%d") if time else "----------"


def date_and_clock(stamp: str | None) -> str:
    """Date, hours and minutes, local: "2026-11-24 12:03"."""
    return f"{day(stamp)} {clock(stamp)}"


def count(number: int, noun: str, plural: str = "") -> str:
    """`number` with its noun: "1 file", "3,000 files"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def cells(text: str) -> int:
    """How many columns of a terminal a visible text takes."""
    return sum(_cells(character) for character in text)


def _cells(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fitted(text: str, columns: int) -> str:
    """`text`, cut where it is wider than `columns`."""
    if cells(text) <= columns:
        return text
    kept, used = [], 1  # the mark of the cut
    for character in text:
        used += _cells(character)
        if used > columns:
            break
        kept.append(character)
    return "".join(kept) + "…"
