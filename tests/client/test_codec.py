"""The pure protocol of the clients: lines in, values out; the handshake of both transports."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tnt_client.codec import Handshake, LineCodec, Notice, ProtocolFailure, Reply, proof
from tntd.errors import Code, CommandError
from tntd.limits import LINE_BYTES_MAX

WELCOME = {
    "protocol": 1,
    "version": "1.0.0",
    "name": "alice",
    "id": "aaaaa-bbbbb",
    "peer_port": 4,
    "cursor": "e.7",
}
TOKEN, OURS, THEIRS = b"t" * 32, b"o" * 32, b"d" * 32


def line(**body: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **body}).encode() + b"\n"


STREAM = (
    line(id=1, result={"ok": "ä\u2028"})
    + line(method="event", params={"cursor": "e.1", "type": "error", "text": "x"})
    + line(id=2, error={"code": 12, "message": "gone", "data": {"hint": "h", "cursor": "e.9"}})
    + line(id=None, error={"code": -32700, "message": "not JSON"})
)


@pytest.mark.parametrize("step", [1, 7, len(STREAM)])
def test_a_stream_in_pieces_gives_the_same_values(step: int):
    codec = LineCodec()
    found = []
    for at in range(0, len(STREAM), step):
        found += codec.feed(STREAM[at : at + step])
    reply, notice, gone, bad = found
    assert reply == Reply(1, {"ok": "ä\u2028"})
    assert notice == Notice("event", {"cursor": "e.1", "type": "error", "text": "x"})
    assert isinstance(gone, Reply) and gone.error is not None
    assert (gone.error.code, gone.error.hint, gone.error.cursor) == (Code.CURSOR_GONE, "h", "e.9")
    assert isinstance(bad, Reply) and bad.id is None and bad.error is not None
    assert bad.error.code is Code.PARSE


def test_requests_have_ids_of_their_own():
    codec = LineCodec()
    (first, one), (second, two) = codec.request("status", {}), codec.request("status", {"a": "\n"})
    assert first != second and one.endswith(b"\n") and two.count(b"\n") == 1
    assert json.loads(two) == {
        "jsonrpc": "2.0",
        "id": second,
        "method": "status",
        "params": {"a": "\n"},
    }


def test_text_that_is_not_unicode_is_refused_in_words():
    with pytest.raises(CommandError) as caught:
        LineCodec().request("messages.send", {"text": "\udcff"})
    assert caught.value.code is Code.INVALID_PARAMS


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 400 Bad Request\n", b"[]\n", b"{}\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n"]
)
def test_what_is_not_the_protocol_is_a_failure(data: bytes):
    with pytest.raises(ProtocolFailure):
        LineCodec().feed(data)


def test_a_line_without_end_is_a_failure():
    codec = LineCodec()
    with pytest.raises(ProtocolFailure):
        for _ in range(3):
            codec.feed(b"x" * (LINE_BYTES_MAX // 2))


def test_an_error_code_of_a_newer_daemon_is_still_an_error():
    (reply,) = LineCodec().feed(line(id=1, error={"code": 99, "message": "new"}))
    assert isinstance(reply, Reply) and reply.error is not None
    assert (reply.error.code, reply.error.message) == (Code.INTERNAL, "new")


def handshake(token: bytes | None) -> Handshake:
    return Handshake(LineCodec(), "test 1", token, OURS)


def test_hello_over_a_unix_socket():
    start = handshake(None)
    hello = json.loads(start.first())
    assert hello["method"] == "hello"
    assert hello["params"] == {"protocol": 1, "client": "test 1"}
    assert start.receive(Reply(1, WELCOME)) == b""
    assert start.welcome is not None and start.welcome.cursor == "e.7"


def test_hello_over_tcp_proves_the_token_and_never_sends_it():
    start = handshake(TOKEN)
    first = start.first()
    assert json.loads(first)["params"]["nonce"] == OURS.hex()
    challenge = {"nonce": THEIRS.hex(), "proof": proof(TOKEN, b"daemon", OURS, THEIRS)}
    second = start.receive(Reply(1, challenge))
    assert json.loads(second)["method"] == "authorise"
    assert json.loads(second)["params"] == {"proof": proof(TOKEN, b"client", OURS, THEIRS)}
    assert start.welcome is None
    assert start.receive(Reply(2, WELCOME)) == b""
    assert start.welcome is not None
    assert TOKEN.hex().encode() not in first + second


@pytest.mark.parametrize(
    "challenge",
    [
        {"nonce": THEIRS.hex(), "proof": proof(b"x" * 32, b"daemon", OURS, THEIRS)},
        {"nonce": THEIRS.hex(), "proof": proof(TOKEN, b"client", OURS, THEIRS)},
        {"nonce": "zz", "proof": "00"},
        {"nonce": 5},
        WELCOME,
    ],
)
def test_a_stranger_on_the_port_gets_no_proof_from_us(challenge: dict[str, Any]):
    start = handshake(TOKEN)
    start.first()
    with pytest.raises(ProtocolFailure):
        start.receive(Reply(1, challenge))


def test_a_refusal_is_passed_on():
    start = handshake(None)
    with pytest.raises(CommandError):
        start.receive(Reply(1, None, CommandError(Code.LIMIT, "too many clients")))
    with pytest.raises(ProtocolFailure):
        start.receive(Notice("event", {}))
