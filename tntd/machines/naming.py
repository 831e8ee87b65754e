"""Names: of contacts as we keep them, and of files as they arrive.

What holds always: a contact's local name is usable at the prompt and unlike every other one
after NFKC and case folding, and unlike our own; a file's final name is one harmless component.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

from tntd import limits
from tntd.control.names import check_name
from tntd.errors import CommandError, RemoteError
from tntd.machines import tree

_HIDDEN = frozenset({"Cc", "Cf", "Zl", "Zp"})  # but the joiner that emoji need
_UNUSABLE = re.compile(r"[^\w.\-]+")


def fold(name: str) -> str:
    """The form in which names are compared: NFKC and case folding, twice (UAX 31)."""
    once = unicodedata.normalize("NFKC", name).casefold()
    return unicodedata.normalize("NFKC", once).casefold()


def local_name(hint: str, taken: Collection[str]) -> str:
    """A local name for somebody who calls themselves `hint`; `taken` holds folded names."""
    base = _UNUSABLE.sub("-", unicodedata.normalize("NFC", hint)).strip("-._") or "someone"
    base = _cut_text(base, 48)
    number = 1
    while True:
        name = base if number == 1 else f"{base}-{number}"
        if fold(name) not in taken and _usable(name):
            return name
        number += 1
        if number > 2 and not _usable(name):
            base = "someone"


def _usable(name: str) -> bool:
    try:
        check_name(name)
    except CommandError:
        return False
    return True


def _cut_text(text: str, size: int) -> str:
    """The longest beginning of `text` that has at most `size` bytes."""
    return text.encode()[:size].decode(errors="ignore")


def check_file_name(name: bytes) -> None:
    """Raises RemoteError("name") unless `name` is a single path component."""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise RemoteError("name", "the file's name is no plain file name")
    if len(name) > limits.NAME_BYTES_MAX:
        raise RemoteError("name", "the file's name is too long")


def final_name(prefix: str, name: bytes, number: int) -> bytes:
    """The name under which a file arrives: the prefix, the stem, ` (number)` above 0, the
    extension.  Control characters and what other systems cannot hold become %XX; a name that
    grows too long loses the end of its stem, never its extension."""
    safe = _harmless(name)
    if tree.is_windows_device(prefix.encode() + safe):  # as it can be without a prefix
        safe = f"%{safe[0]:02X}".encode() + safe[1:]
    dot = safe.rfind(b".")
    stem, extension = (safe[:dot], safe[dot:]) if dot > 0 else (safe, b"")
    extension = _cut_bytes(extension, 64)
    tail = (f" ({number})".encode() if number else b"") + extension
    room = limits.NAME_BYTES_MAX - len(tail)
    return _cut_bytes(prefix.encode() + stem, room) + tail


def _harmless(name: bytes) -> bytes:
    text = name.decode("utf-8", "surrogateescape")
    parts = []
    for character in text:
        hidden = unicodedata.category(character) in _HIDDEN and character != "\u200d"
        if hidden or character in '\\:*?"<>|/':
            parts.append("".join(f"%{byte:02X}" for byte in character.encode()))
        else:
            parts.append(character)
    safe = "".join(parts).encode("utf-8", "surrogateescape")
    return safe.rstrip(b" .") or b"file"


def _cut_bytes(data: bytes, size: int) -> bytes:
    """The beginning of `data`, at most `size` bytes, never ending inside a UTF-8 character."""
    if len(data) <= size:
        return data
    end = size
    while end > size - 4 and end > 0 and data[end] & 0xC0 == 0x80:
        end -= 1
    return data[:end]


def show_size(count: int) -> str:
    """A number of bytes in words, rounded down to what people say."""
    whole = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
    for unit, size in (*whole, ("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size and (count % size == 0 or not unit.endswith("iB")):
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


def show_path(path: bytes) -> tuple[str, str | None]:
    """A path as text with odd bytes as %XX, and the exact percent-encoded form where the text
    alone would not find it again (else None)."""
    try:
        return path.decode("utf-8"), None
    except UnicodeDecodeError:
        shown = path.decode("utf-8", "surrogateescape")
        text = "".join(
            f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in shown
        )
        exact = "".join(
            chr(b) if (0x30 <= b < 0x7F and chr(b).isalnum()) or b in b"/._-" else f"%{b:02X}"
            for b in path
        )
        return text, exact
