"""Names that people choose, for profiles and contacts: what may be one.

What holds always: a name can be typed at a prompt and in a shell, stands on one line, and is
a harmless file name everywhere, because a profile's files are called after it.
"""

from __future__ import annotations

import unicodedata

from tntd.errors import Code, CommandError

NAME_BYTES_MAX = 64
_SIGNS = frozenset("-_.")
_CATEGORIES = frozenset("LMN")  # letters, the marks on them, digits


def check_name(name: str) -> str:
    """A profile's or contact's name, normalised (NFC).

    Raises CommandError(INVALID_PARAMS) for one that is empty, longer than NAME_BYTES_MAX,
    begins with "-" or ".", or holds anything but letters, digits, - _ and dots.
    """
    name = unicodedata.normalize("NFC", name)
    bad = any(
        each not in _SIGNS and unicodedata.category(each)[0] not in _CATEGORIES for each in name
    )
    if not name or bad or len(name.encode()) > NAME_BYTES_MAX or name[0] in "-.":
        shown = name if name.isprintable() else ascii(name)
        raise CommandError(
            Code.INVALID_PARAMS,
            f"not a usable name: {shown!r}"
            if name.isprintable()
            else f"not a usable name: {shown}",
            f"use letters, digits, - _ . ({NAME_BYTES_MAX} bytes at most, and no - or . at first)",
        )
    return name
