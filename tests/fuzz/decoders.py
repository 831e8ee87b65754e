"""Targets that are one decoder each: the daemon's, of every kind of bytes that it reads."""

from __future__ import annotations

import json
import posixpath
import socket
import tempfile
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, get_args

import msgspec

from tntd import config, keyfile, limits, tasks
from tntd.control import schema
from tntd.control.jsonrpc import BadRequest, encode_error, encode_result, parse_request
from tntd.errors import CommandError, RemoteError, StartError
from tntd.machines import naming, tree
from tntd.machines.addresses import is_numeric, parse_address, plain_host, told_addresses
from tntd.machines.identity import Identity
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
    _tree_names(data)


def _tree_names(data: bytes) -> None:
    """As a path in a tree, and as a link with its target behind the first newline."""
    path, _, target = data.partition(b"\n")
    for windows in (False, True):
        if path and not tree.path_problem(path, windows=windows):
            assert posixpath.normpath(b"/r/" + path) == b"/r/" + path
            above, name = tree.parent(path)
            assert tree.join(above, name) == path and name not in (b"", b".", b"..")
            if not tree.link_problem(path, target, windows=windows):
                leads = posixpath.normpath(posixpath.join(b"/r", above, target))
                assert leads.startswith(b"/r/"), leads
    assert len(tree.told_reason(data)) <= limits.ERROR_TEXT_CHARS_MAX


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
    """One message of each kind, both ways."""
    answers = [_sample(cls) for cls in get_args(tasks.Answer)]
    requests = [_sample(cls) for cls in (*get_args(tasks.AnyTask), child_wire.Warm)]
    up = [child_wire.Replied(child_wire.Reply(1, each)) for each in answers]
    down = [child_wire.Request(1, each) for each in requests]
    large = _sample(tasks.Packed)
    large = msgspec.structs.replace(large, large=_sample(tasks.Large))
    up.append(child_wire.Replied(child_wire.Reply(2, large, in_memory=True)))
    encoded = [child_wire.encode(each) for each in (*up, child_wire.Crashed("x"))]
    return [
        *(b"\0" + each for each in encoded),
        *(b"\1" + child_wire.encode(each) for each in down),
        b"\0" + b"".join(encoded),
    ]


def _plain(*seeds: bytes) -> Callable[[], list[bytes]]:
    return lambda: list(seeds)


_ADDRESSES = (b"6000", b"host:1", b"[fe80::1%eth0]:5", b"127.0.0.1:65535", b"\0\xff.txt", b"a/b")
_TREE = (b"a/b/c\n../x", b"a/../b", b"a/b\n../../c/d", b"con.txt\na.", b"a\n..", b"a/b\n./..//c")
_KEY = b"tnt-ed25519-seed: " + b"A" * 52 + b"\n"

DECODER_TARGETS = (
    Target("frames", frames, _frame_seeds),
    Target("bodies", bodies, _body_seeds),
    Target("request_line", request_line, _line_seeds),
    Target("names", names, _plain(*_ADDRESSES, *_TREE), 512),
    Target("config_file", config_file, lambda: [config.print_config().encode(), b"a.b=[{c=1}]"]),
    Target("key_file", key_file, _plain(_KEY, _KEY[:-9]), 512),
    Target("child_messages", child_messages, _child_seeds),
)
