"""Small input that wants to become large: every decoder has a bound on memory and time.

Memory is what Python allocates beyond the input, time is the processor's, so that a busy machine
does not matter.
"""

from __future__ import annotations

import time
import tracemalloc

import pytest

from fuzz.targets import TARGETS
from tntd import limits

MEMORY_BYTES_MAX = 40 * limits.MIB  # a line of the largest kind, decoded: a list of empty lists
PROCESSOR_S_MAX = 5.0
SIZE = limits.LINE_BYTES_MAX - 200
# How much can come to each: beyond it, it is refused by its size alone.
SIZES = {
    "frames": limits.FRAME_BYTES_MAX,
    "bodies": limits.ENVELOPE_BODY_BYTES_MAX,
    "lane": SIZE,
    "pack": limits.PACK_PLAIN_BYTES_MAX,
    "request_line": SIZE,
    "config_file": 64 * limits.KIB,
    "key_file": limits.KIB,
    "client_stream": SIZE,
    "endpoint_files": SIZE,
}


def json_line(middle: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":1,"method":"status","params":' + middle + b"}"


def filled(start: bytes, piece: bytes, end: bytes = b"") -> bytes:
    return start + piece * ((SIZE - len(start) - len(end)) // len(piece)) + end


BOMBS = {
    "zeros": bytes(SIZE),
    "ones": b"\xff" * SIZE,
    "deep lists": b"[" * SIZE,
    "deep maps": filled(b"", b'{"":'),
    "deep messagepack": b"\x91" * SIZE,
    "wide messagepack": b"\xdd\x00\x0f\x00\x00" + b"\x90" * (SIZE - 5),
    "wide lists": json_line(filled(b"[", b"[],", b"[]]")),
    "wide maps": json_line(filled(b"{", b'"a":{},', b'"b":1}')),
    "long number": json_line(b"9" * SIZE),
    "long fraction": json_line(b"0." + b"1" * SIZE + b"e-999999999"),
    "escapes": json_line(filled(b'"', b"\\u202e", b'"')),
    "dots": filled(b"a", b".a", b"=1"),
    "tables": filled(b"", b"[a]\n"),
    "inline tables": filled(b"a=", b"{a="),
    "brackets": filled(b"[", b"::", b"]:1"),
    "wide text": filled(b"", "\ufdfa".encode()),  # one character that folds to eighteen
    "combining": filled(b"a", "\u0300".encode()),
}


def bombs(name: str) -> list[bytes]:
    """As they come to this target, also behind the decisions that it reads first."""
    heads = [b"", bytes(5), b"\0\3\1\1\0", b"\0\1"]
    return [head + bomb[: SIZES[name] - 5] for bomb in BOMBS.values() for head in heads]


@pytest.mark.parametrize("name", SIZES)
def test_bombs_do_not_go_off(name: str) -> None:
    target = TARGETS[name]
    target.run(b"")  # what is made once is not counted
    for bomb in bombs(name):
        tracemalloc.start()
        try:
            before = time.process_time()
            target.run(bomb)
            spent = time.process_time() - before
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert spent < PROCESSOR_S_MAX, bomb[:30]
        assert peak < MEMORY_BYTES_MAX + 4 * len(bomb), bomb[:30]
