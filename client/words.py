"""Words of a line as a shell would cut them, for paths with blanks.  Pure, and never fails.

Why not shlex: it raises on a quote that is still open, which is what a line looks like while it
is typed; it does not tell where a word begins, which completion needs; and on Windows the
backslash is no escape but a part of the path.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

_NEEDS_QUOTES: Final = frozenset(" \t\"'\\")
_BLANKS: Final = frozenset(" \t\n")


@dataclass(frozen=True, slots=True)
class Word:
    """A word without its quotes, and where it begins in the line."""

    text: str
    start: int


def split(line: str, backslash: bool = os.name != "nt") -> list[Word]:
    """The words of a line.  A line that ends in a blank has no empty last word."""
    words: list[Word] = []
    at = 0
    while at < len(line):
        if line[at] in _BLANKS:
            at += 1
            continue
        start = at
        text, at = _word(line, at, backslash)
        words.append(Word(text, start))
    return words


def _word(line: str, at: int, backslash: bool) -> tuple[str, int]:
    text: list[str] = []
    quote = ""
    while at < len(line) and (quote or line[at] not in _BLANKS):
        character = line[at]
        at += 1
        if quote:
            if character == quote:
                quote = ""
                continue
        elif character in "\"'":
            quote = character
            continue
        if character == "\\" and backslash and quote != "'" and at < len(line):
            character = line[at]
            at += 1
        text.append(character)
    return "".join(text), at


def ends_inside(line: str) -> bool:
    """Whether the line ends inside a word, so that a completion goes on with it."""
    words = split(line + "x")
    return bool(words) and words[-1].start < len(line)


def quoted(word: str, windows: bool = os.name == "nt") -> str:
    """The word as it has to be typed to be read as one."""
    if not _NEEDS_QUOTES & set(word):
        return word
    if windows:
        return f'"{word}"'
    return "".join(f"\\{c}" if c in _NEEDS_QUOTES else c for c in word)
