"""Targets that are one decoder each: the daemon's, of every kind of bytes that it reads."""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from tntd import config, keyfile, limits
from tntd.control import schema
from tntd.control.jsonrpc import BadRequest, encode_error, encode_result, parse_request
from tntd.errors import CommandError, RemoteError, StartError
from tntd.machines import naming, records
from tntd.machines.addresses import is_numeric, parse_address, plain_host, told_addresses
from tntd.machines.identity import Identity
from tntd.machines.records import Arrival, Opener, RecordReader, RecordType, Sealer
from tntd.machines.session import Session, State
from tntd.shell import child_wire
from tntd.wire.frames import (
    KINDS,
    TYPES,
    Body,
    FrameReader,
    decode_body,
    encode,
    encode_body,
)

from .source import Source
from .target import Target
from .values import Pool, struct

ALICE, BOB = Identity(b"a" * 32), Identity(b"b" * 32)
EXPORTER = b"e" * 32
FRAME_CODES = {"malformed", "unsupported", "authentication", "unexpected", "version", "self"}
_folder = tempfile.TemporaryDirectory(prefix="tnt-fuzz-")


def _sample(cls: type[msgspec.Struct]) -> Any:
    return struct(Source(bytes(100)), cls, Pool())


# -- peer frames --------------------------------------------------------------------------


def frames(data: bytes) -> None:
    """A stream of a peer, in pieces, to a session in any state."""
    source = Source(data)
    session = Session(ALICE, EXPORTER, dialled=bool(source.below(2)))
    session.state = source.pick(list(State))
    session.said_trusted = bool(source.below(2))
    limit = source.pick([limits.STRANGER_FRAME_BYTES_MAX, limits.FRAME_BYTES_MAX])
    reader = FrameReader(limit)
    try:
        for piece in source.pieces():
            reader.feed(piece)
            while (found := reader.next_frame()) is not None:
                assert len(found[1]) <= limit
                frame = session.receive(*found)
                assert frame is None or encode(frame)
    except RemoteError as error:
        assert error.code in FRAME_CODES, error
    assert session.peer_key != ALICE.public


def _frame_seeds() -> list[bytes]:
    head = bytes([0, 3, 1, 1])
    dialler = Session(BOB, EXPORTER, dialled=True)
    hello = encode(_sample(next(cls for cls in TYPES.values() if cls.__name__ == "Hello")))
    stream = encode(dialler.auth()) + hello
    singles = [head + b"\0" + encode(_sample(cls)) for cls in TYPES.values()]
    return [*singles, bytes([0, 0, 1, 0, 0]) + stream]


def bodies(data: bytes) -> None:
    """The body of an envelope of any kind."""
    kind, body = int.from_bytes(data[:2], "big"), data[2:]
    try:
        found: Body = decode_body(kind, body)
    except RemoteError as error:
        assert error.code in {"malformed", "unknown"}, error
        return
    assert decode_body(*encode_body(found)) == found


def _body_seeds() -> list[bytes]:
    made = [encode_body(_sample(cls)) for cls in KINDS.values()]
    return [kind.to_bytes(2, "big") + body for kind, body in made]


# -- lanes --------------------------------------------------------------------------------


def lane(data: bytes) -> None:
    """A lane's stream: first what a stranger sends, then (sealed) what a bad contact does."""
    source = Source(data)
    plain = memoryview(bytearray(limits.RECORD_PLAIN_BYTES_MAX))
    sealer, out = Sealer(b"k" * 32), memoryview(bytearray(records.RECORD_BYTES_MAX))
    arrival = Arrival(source.below(600))
    reader = RecordReader(Opener(b"k" * 32))
    try:
        while source.left:
            kind = source.pick([*RecordType, None])
            content = source.take(source.below(200))
            if kind is None:
                stream = content  # not sealed
            elif len(content) <= records.PLAIN_BYTES_MAX[kind]:
                stream = bytes(out[: sealer.seal(kind, memoryview(content), out)])
            else:
                continue
            _read_records(reader, arrival, stream, plain)
    except RemoteError as error:
        assert error.code in {"malformed", "authentication"}, error
    assert arrival.received <= arrival.size
    assert arrival.complete or not arrival.intact


def _read_records(reader: RecordReader, arrival: Arrival, stream: bytes, plain: memoryview) -> None:
    while stream:
        room = reader.room()
        piece = stream[: len(room)]
        room[: len(piece)] = piece
        reader.filled(len(piece))
        stream = stream[len(piece) :]
        while (record := reader.next(plain)) is not None:
            before = arrival.received
            for chunk in arrival.expect(record):
                arrival.take(chunk)
            assert before <= arrival.received <= arrival.size


def _lane_seeds() -> list[bytes]:
    chunk = records.CHUNK.pack(1, 0, 0, 3) + b"abc"
    end = bytearray(records.FILE_END_BYTES)
    digest = Arrival(3)
    digest.take(records.split(memoryview(chunk))[0])
    records.put_file_end(memoryview(end), 0, 0, 3, digest.digest())
    both = chunk + bytes(end)
    return [
        b"\0\3\1" + bytes([len(both)]) + both + b"\2\0",
        b"\0\3\1" + bytes([len(chunk)]) + chunk,
        b"\0\3\3" + bytes([40]) + bytes(40),
    ]


# -- control lines, names, addresses ---------------------------------------------------------


def request_line(data: bytes) -> None:
    """A line of a client, without the daemon."""
    try:
        request = parse_request(data)
    except BadRequest as error:
        reply = encode_error(error.id, error)
    else:
        assert isinstance(request.params, request.method.params)
        reply = encode_result(request.id, request.params)
    assert reply.endswith(b"\n") and b"\n" not in reply[:-1]
    assert msgspec.json.decode(reply)["jsonrpc"] == "2.0"


def _line_seeds() -> list[bytes]:
    return [
        json.dumps(
            {
                "jsonrpc": "2.0",
                "id": 1,
                "method": row.name,
                "params": msgspec.to_builtins(_sample(row.params)),
            }
        ).encode()
        for row in schema.METHODS.values()
    ]


def names(data: bytes) -> None:
    """Names and addresses, as peers tell them and as people type them."""
    text = data.decode("utf-8", "surrogateescape" if data[:1] == b"\0" else "ignore")
    with suppress(CommandError):
        host, port = parse_address(text)
        assert 1 <= port <= 65_535
        plain_host(host)
    for host, port in told_addresses([text], 5, "127.0.0.1"):
        assert is_numeric(host) and 0 < port <= 65_535
    if text.isprintable():
        taken = {naming.fold(text), naming.fold("someone")}
        assert naming.fold(naming.local_name(text[:64], taken)) not in taken
    with suppress(RemoteError):
        naming.check_file_name(data)
        final = naming.final_name("new_", data, len(data))
        assert 0 < len(final) <= limits.NAME_BYTES_MAX
        assert b"/" not in final and b"\0" not in final and final not in (b".", b"..")
    shown, _ = naming.show_path(data)
    shown.encode()


# -- files --------------------------------------------------------------------------------


@contextmanager
def _file(data: bytes, mode: int = 0o600) -> Any:
    path = Path(_folder.name) / "file"
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    path.chmod(mode)
    yield path


def config_file(data: bytes) -> None:
    """The configuration."""
    with _file(data) as path, suppress(StartError):
        config.load(path, {})


def key_file(data: bytes) -> None:
    """The identity's file."""
    with _file(data) as path:
        with suppress(StartError):
            seed, fresh = keyfile.load_or_create(path)
            assert len(seed) == keyfile.SEED_BYTES and not fresh
        assert path.read_bytes() == data


# -- children -----------------------------------------------------------------------------


def child_messages(data: bytes) -> None:
    """What the daemon and its children read of each other.

    Both are ours: a message that cannot be read ends the child, by any ordinary error.
    """
    source = Source(data)
    decoder: Any = source.pick([child_wire.up_decoder, child_wire.request_decoder])
    ours, theirs = socket.socketpair()
    inbox = child_wire.Inbox()
    try:
        theirs.sendall(source.rest())
        theirs.close()
        while inbox.receive(ours):
            while (body := inbox.next()) is not None:
                decoder.decode(body)
    except (ValueError, msgspec.DecodeError, RecursionError):
        pass
    finally:
        inbox.close()
        ours.close()


def _child_seeds() -> list[bytes]:
    from tntd.tasks import Done, Inspect, Inspected

    stat = _sample(Inspected)
    messages: list[Any] = [
        child_wire.Replied(child_wire.Reply(1, stat)),
        child_wire.Replied(child_wire.Reply(2, Done())),
        child_wire.Crashed("x"),
    ]
    request = child_wire.encode(child_wire.Request(1, Inspect(b"/x")))
    return [b"\0" + b"".join(child_wire.encode(m) for m in messages), b"\1" + request * 2]


def _plain(*seeds: bytes) -> Callable[[], list[bytes]]:
    return lambda: list(seeds)


_ADDRESSES = (b"6000", b"host:1", b"[fe80::1%eth0]:5", b"127.0.0.1:65535", b"\0\xff.txt", b"a/b")
_KEY = b"tnt-ed25519-seed: " + b"A" * 52 + b"\n"

DECODER_TARGETS = (
    Target("frames", frames, _frame_seeds),
    Target("bodies", bodies, _body_seeds),
    Target("lane", lane, _lane_seeds),
    Target("request_line", request_line, _line_seeds),
    Target("names", names, _plain(*_ADDRESSES), 512),
    Target("config_file", config_file, lambda: [config.print_config().encode(), b"a.b=[{c=1}]"]),
    Target("key_file", key_file, _plain(_KEY, _KEY[:-9]), 512),
    Target("child_messages", child_messages, _child_seeds),
)
