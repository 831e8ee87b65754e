"""What the keys of a lane are made from: label and context for the link's TLS exporter.

What holds always: each ticket, pair of ends and direction has a key of its own, so that a record
can be passed on neither to another lane nor back to where it came from.  The exporter binds
the lane to the very TLS connection that agreed the ticket (RFC 8446 7.5; precedents: RFC 5764,
RFC 8915).
"""

from __future__ import annotations

from typing import Final

LABEL: Final = b"EXPORTER-tnt-lane"
KEY_BYTES: Final = 32
TICKET_BYTES: Final = 16
MAGIC: Final = b"TNTLANE1"
PREAMBLE_BYTES: Final = len(MAGIC) + TICKET_BYTES

_FORTH: Final = b"\0"  # written by the end that dialled the link
_BACK: Final = b"\1"


def contexts(ticket: bytes, dialler: bytes, acceptor: bytes) -> tuple[bytes, bytes]:
    """The exporter contexts of what the dialler writes, and of what the acceptor writes."""
    both = ticket + dialler + acceptor
    return both + _FORTH, both + _BACK
