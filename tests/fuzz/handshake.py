"""TLS between two of ours with somebody between them who turns, drops, adds and repeats bytes.

What OpenSSL makes of it may differ from run to run, for its keys are fresh each time; but it is
always a TlsError or nothing, and nothing that was changed is ever read.
"""

from __future__ import annotations

from contextlib import suppress

from tntd.shell.tls import PIECE_BYTES, Tls, TlsError, TlsSession

from .source import Source
from .target import Target, scenarios

ROUNDS_MAX = 12
_tls = Tls()


def tls(data: bytes) -> None:
    """Both ends, and what is between them."""
    source = Source(data)
    sides = (_tls.dial(), _tls.accept())
    sent: tuple[bytearray, bytearray] = (bytearray(), bytearray())
    for _ in range(ROUNDS_MAX):
        for number, side in enumerate(sides):
            with suppress(TlsError):
                _write(source, side, sent[number])
            got = _pass_on(source, side.take_outgoing(), sides[1 - number])
            assert sent[number].startswith(got)
            del sent[number][: len(got)]
        if not source.left and not any(side.established for side in sides):
            break


def _write(source: Source, side: TlsSession, sent: bytearray) -> None:
    if side.established and source.below(2):
        piece = source.take(source.below(40)) * (1 + source.below(600))
        side.write(piece)
        sent += piece
        if source.one_in(12):
            side.finish()


def _pass_on(source: Source, flight: bytes, other: TlsSession) -> bytes:
    """What the other side reads of the flight, as far as it comes."""
    got = b""
    stream = _bend(source, flight)
    with suppress(TlsError):
        while stream:
            size = 1 + source.below(PIECE_BYTES) if source.one_in(8) else PIECE_BYTES
            other.feed(stream[:size])
            stream = stream[size:]
            while piece := other.read():
                got += piece
    return got


def _bend(source: Source, flight: bytes) -> bytes:
    if not source.one_in(6):
        return flight
    data = bytearray(flight)
    match source.below(4):
        case 0 if data:
            data[source.below(len(data))] ^= 1 + source.below(255)
        case 1:
            data += source.take(source.below(50))
        case 2:
            del data[source.below(len(data) + 1) :]
        case _:
            data += bytes(data)
    return bytes(data)


TLS_TARGETS = (Target("tls", tls, scenarios, 1500),)
