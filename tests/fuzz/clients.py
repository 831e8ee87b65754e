"""Targets of the clients: what a bad daemon, or somebody in its place, may say to them."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from tnt_client import render_events
from tnt_client.codec import Handshake, LineCodec, Notice, ProtocolFailure, proof
from tnt_client.connection import Connection, read_token
from tnt_client.failures import NoDaemon, NotAnswering
from tnt_client.render import plain
from tnt_client.repl_feed import Feed
from tnt_client.repl_model import Model
from tntd.control import places, schema
from tntd.control.schema import Contact, Message, Transfer
from tntd.control.visible import visible
from tntd.errors import CommandError
from tntd.limits import LINE_BYTES_MAX
from tntd.machines.addresses import is_numeric

from .source import Source
from .target import Target, scenarios
from .values import WORDS, Pool, struct

TOKEN, NONCE = b"t" * 32, b"n" * 32
_folder = tempfile.TemporaryDirectory(prefix="tnt-fuzz-")
TIMES = (
    "2026-11-24T12:03:00.000Z", "", "x", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999+00:00",
    "2026-11-24", "2026-13-45T99:99:99Z", "\u0661", "1969-12-31T23:59:59-23:59",
)  # fmt: skip
WELCOME = {
    "protocol": 1,
    "version": "1",
    "name": "alice",
    "id": "a-b",
    "peer_port": 1,
    "cursor": "e.1",
}


def client_stream(data: bytes) -> None:
    """What comes from the control socket: handshake, then replies and events, in pieces."""
    source = Source(data)
    token = source.pick([None, TOKEN])
    codec = LineCodec()
    handshake = Handshake(codec, "fuzz 1", token, NONCE)
    handshake.first()
    feed = Feed(Model("alice"), "2026-01-01")
    try:
        for piece in source.pieces():
            for incoming in codec.feed(piece):
                if handshake.welcome is None:
                    sent = handshake.receive(incoming)
                    assert TOKEN.hex().encode() not in sent
                elif isinstance(incoming, Notice):
                    show(incoming.params, feed)
        assert len(codec._buffer) <= LINE_BYTES_MAX
    except (ProtocolFailure, CommandError):
        pass


def show(event: dict[str, Any], feed: Feed, *, replayed: bool = False) -> None:
    """An event on both clients' screens: safe to show, whatever it says."""
    lines = feed.event(event, replayed)
    for line in (render_events.log_line(event), *lines, feed._model.toolbar()):
        text = plain(line)
        assert visible(text) == text, ascii(text)


def _stream_seeds() -> list[bytes]:
    def line(**body: Any) -> bytes:
        return json.dumps({"jsonrpc": "2.0", **body}).encode() + b"\n"

    source, pool = Source(bytes(200)), Pool()
    objects = {"message": Message, "contact": Contact, "transfer": Transfer}
    events = [
        line(
            method="event",
            params={
                "cursor": "e.2",
                "at": "2026-01-01T00:00:00.000Z",
                "type": type,
                **({} if name is None else {name: _shown(source, objects[name], pool)}),
            },
        )
        for type, name in schema.EVENTS.items()
    ]
    error = {"code": 12, "message": "gone", "data": {"hint": "h", "cursor": "e.9"}}
    challenge = {"nonce": NONCE.hex(), "proof": proof(TOKEN, b"daemon", NONCE, NONCE)}
    over_tcp = line(id=1, result=challenge) + line(id=2, result=WELCOME) + events[0]
    welcome = line(id=1, result=WELCOME)
    return [
        *(b"\0\0" + welcome + event for event in events),
        b"\0\0" + line(id=1, error=error),
        b"\1\0" + over_tcp,
    ]


def _shown(source: Source, cls: type[msgspec.Struct], pool: Pool) -> Any:
    return msgspec.to_builtins(struct(source, cls, pool))


def client_events(data: bytes) -> None:
    """Events of the right shape, their values from anywhere, one after the other."""
    source, pool = Source(data), Pool()
    objects = {"message": Message, "contact": Contact, "transfer": Transfer}
    feed = Feed(Model("alice"), "2026-01-01")
    while source.left:
        name = source.pick(list(schema.EVENTS))
        event: dict[str, Any] = {"type": name, "cursor": "e.1", "at": source.pick(TIMES)}
        for kind, cls in objects.items():
            if schema.EVENTS[name] == kind or source.one_in(8):
                shown = _shown(source, cls, pool)
                shown.update({key: source.pick(TIMES) for key in shown if key.endswith("_at")})
                event[kind] = shown
        event.update({key: source.pick(WORDS) for key in ("text", "hint") if source.one_in(4)})
        feed._model.current = source.pick([None, *feed._model.contacts])
        show(event, feed, replayed=source.one_in(4))


def endpoint_files(data: bytes) -> None:
    """A damaged endpoint file and token file, up to the attempt to attach."""
    source = Source(data)
    home = Path(_folder.name)
    (home / "run").mkdir(exist_ok=True)
    token = home / "token"
    token.write_bytes(source.take(source.below(200)))
    (home / "run" / "x.json").write_bytes(source.rest())
    before, os.environ["TNT_HOME"] = os.environ.get("TNT_HOME"), str(home)
    try:
        for endpoint in places.read_endpoints():
            endpoint.token_file = None if endpoint.token_file is None else str(token)
            with suppress(NoDaemon):
                read_token(endpoint)
            if not _leads_out(endpoint.control):
                with suppress(NoDaemon, NotAnswering, CommandError):
                    Connection.open(endpoint, "fuzz", 0.2).close()
    finally:
        if before is None:
            del os.environ["TNT_HOME"]
        else:
            os.environ["TNT_HOME"] = before


def _leads_out(control: str) -> bool:
    """Whether it would look a name up, or reach somebody (nobody is at port 0, or above 65535)."""
    kind, _, place = control.partition(":")
    host, _, port = place.rpartition(":")
    if kind != "tcp" or (host.isascii() and not is_numeric(host.strip("[]"))):
        return kind == "tcp"
    with suppress(ValueError):
        return 0 < int(port) <= 65_535
    return False


def _endpoint_seeds() -> list[bytes]:
    token = json.dumps({"token": TOKEN.hex(), "port": 5, "pid": 7}).encode()
    head = len(token).to_bytes(1, "big") + token
    fields = {"name": "x", "pid": 1, "token_file": "t"}
    controls = ("unix:/nowhere/x.sock", "tcp:127.0.0.1:70000", "tcp:[::1]:0", "unix:", "x")
    return [head + json.dumps({**fields, "control": each}).encode() for each in controls]


CLIENT_TARGETS = (
    Target("client_stream", client_stream, _stream_seeds),
    Target("client_events", client_events, scenarios, 1000),
    Target("endpoint_files", endpoint_files, _endpoint_seeds, 1024),
)
