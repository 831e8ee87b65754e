"""Text from elsewhere, made safe to show: nobody can drive the reader's terminal.

What holds always: the result has no character of the Unicode categories Cc, Cf (but the joiner
that emoji need), Cs, Co, Cn, Zl or Zp, except newline and tab where they are allowed.  Controls
become their picture (U+2400 block), others `<U+XXXX>`.
"""

from __future__ import annotations

import unicodedata

_JOINER = "\u200d"
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def visible(text: str, *, lines: bool = False) -> str:
    """`text` with control, format and direction-changing characters made visible.

    `lines` keeps newline and tab, for text that may stand on several lines.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_show(character, lines) for character in text)


def _show(character: str, lines: bool) -> str:
    if lines and character in "\n\t":
        return character
    if character == _JOINER or unicodedata.category(character) not in _HIDDEN:
        return character
    point = ord(character)
    if point < 0x20:
        return chr(0x2400 + point)
    if point == 0x7F:
        return "\u2421"
    return f"<U+{point:04X}>"
