"""Names that people choose, for profiles and contacts: what may be one.

What holds always: a name can be typed at a prompt and in a shell, stands on one line, and is
a harmless file name everywhere, because a profile's files are called after it.
"""

from __future__ import annotations

import re
import unicodedata

from tntd.errors import Code, CommandError

NAME_BYTES_MAX = 64
_FORBIDDEN = re.compile(r"[/\\:*?\"<>|#@\s]")


def check_name(name: str) -> str:
    """A profile's or contact's name, normalised (NFC).

    Raises CommandError(INVALID_PARAMS) for one that is empty, longer than NAME_BYTES_MAX,
    begins with "-" or ".", or holds blanks, control characters, or any of / \\ : * ? " < > | # @.
    """
    name = unicodedata.normalize("NFC", name)
    bad = _FORBIDDEN.search(name) or not name.isprintable()
    if not name or len(name.encode()) > NAME_BYTES_MAX or name[0] in "-." or bad:
        shown = name if name.isprintable() else ascii(name)
        raise CommandError(
            Code.INVALID_PARAMS,
            f"not a usable name: {shown!r}"
            if name.isprintable()
            else f"not a usable name: {shown}",
            'use up to 64 bytes of letters, digits, - _ . without blanks or / \\ : * ? " < > | # @',
        )
    return name
