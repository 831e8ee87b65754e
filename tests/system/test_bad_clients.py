"""Control clients that send rubbish: each gets its error, and the others notice nothing."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from bystanders import SOON_S, Scene, read_to_end
from harness import Client, Closed, Daemon, RpcError, wait_for
from tntd import limits
from tntd.control.schema import METHODS
from tntd.limits import KIB, MIB

Start = Callable[..., Daemon]
PARSE, INVALID_REQUEST, NO_METHOD, INVALID_PARAMS = -32700, -32600, -32601, -32602


def answer(client: Client) -> dict[str, Any]:
    """The next reply, whatever it is."""
    found: dict[str, Any] = json.loads(client.read_line(SOON_S))
    return found


def request(method: str, id: object = 7, **params: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode()


BAD_LINES: list[tuple[str, bytes, int]] = [
    ("no JSON", b"hello", PARSE),
    ("half of it", b'{"jsonrpc":"2.0","id":1', PARSE),
    ("two on a line", request("status") + request("status"), PARSE),
    ("not UTF-8", b'{"jsonrpc":"2.0","id":1,"method":"\xff\xfe"}', PARSE),
    ("half a surrogate pair", b'{"jsonrpc":"2.0","id":1,"method":"\\ud800"}', PARSE),
    ("an id of half a pair", b'{"jsonrpc":"2.0","id":"\\udc00","method":"status"}', PARSE),
    ("byte order mark", b"\xef\xbb\xbf" + request("status"), PARSE),
    ("zero bytes", bytes(1000), PARSE),
    ("lists without end", b"[" * (MIB - 1), -1),
    ("maps without end", b'{"a":' * 200_000, -1),
    ("deep parameters", request("status")[:-3] + b'{"a":' + b"[" * 500_000, PARSE),
    ("a number", b"7", INVALID_REQUEST),
    ("null", b"null", INVALID_REQUEST),
    ("a batch", b"[" + request("status") + b"]", INVALID_REQUEST),
    ("an empty batch", b"[]", INVALID_REQUEST),
    ("no version", b'{"id":1,"method":"status"}', INVALID_REQUEST),
    ("version 1", b'{"jsonrpc":"1.0","id":1,"method":"status"}', INVALID_REQUEST),
    ("no method", b'{"jsonrpc":"2.0","id":1}', INVALID_REQUEST),
    ("a method that is a list", b'{"jsonrpc":"2.0","id":1,"method":[]}', INVALID_REQUEST),
    ("an id that is a list", request("status", id=[1]), INVALID_REQUEST),
    ("an id that is a fraction", request("status", id=1.5), INVALID_REQUEST),
    ("an id of 5,000 digits", b'{"jsonrpc":"2.0","method":"status","id":' + b"9" * 5000 + b"}", -1),
    ("unknown method", request("rooms.destroy"), NO_METHOD),
    ("a method of ESC", request("\x1b[2J" * 1000), NO_METHOD),
    ("a method of our own names", request("__init__"), NO_METHOD),
    ("hello again", request("hello", protocol=1, client="twice"), INVALID_REQUEST),
    ("authorise again", request("authorise", proof="0" * 64), INVALID_REQUEST),
    ("parameters in a list", b'{"jsonrpc":"2.0","id":1,"method":"status","params":[1]}', -32602),
    ("parameters null", b'{"jsonrpc":"2.0","id":1,"method":"status","params":null}', -32602),
    ("one too many", request("status", extra=1), INVALID_PARAMS),
    ("text of half a pair", request("messages.send", to="bob", text="\ud800"), PARSE),
    ("not UTF-8 in the text", request("messages.send", to="bob", text="?").replace(b"?", b"\xff"),
     INVALID_PARAMS),
    ("text too long", request("messages.send", to="bob", text="x" * 65_537), INVALID_PARAMS),
    ("text too long in bytes", request("messages.send", to="bob", text="ü" * 32_769), 9),
    ("no text", request("messages.send", to="bob", text=""), INVALID_PARAMS),
    ("a limit of 0", request("messages.list", conversation="bob", limit=0), INVALID_PARAMS),
    ("a limit of 1001", request("messages.list", conversation="bob", limit=1001), INVALID_PARAMS),
    ("a limit of 2**70", request("messages.list", conversation="bob", limit=2**70), INVALID_PARAMS),
    ("a message that is none", request("messages.list", conversation="bob", before="\x1b"), -32602),
    ("nobody", request("messages.send", to="\x1b[2Jnobody", text="x"), 1),
    ("a room", request("messages.send", to="#room", text="x"), 1),
    ("a path that is not whole", request("transfers.send", to="bob", paths=["a"]), 6),
    ("a path with NUL", request("transfers.send", to="bob", paths=["/a\0b"]), 6),
    ("a path of rubbish", request("transfers.send", to="bob", paths=[{"path_bytes": "%"}]), 6),
    ("a path that is long", request("transfers.send", to="bob", paths=["/" + "x" * 4000]), 6),
    ("a device", request("transfers.send", to="bob", paths=["/dev/zero"]), 6),
    ("no paths", request("transfers.send", to="bob", paths=[]), INVALID_PARAMS),
    ("1,001 paths", request("transfers.send", to="bob", paths=["/x"] * 1001), INVALID_PARAMS),
    ("no such transfer", request("transfers.cancel", transfer="aaaa"), 4),
    ("a transfer of ESC", request("transfers.cancel", transfer="\x1b[2J"), 4),
    ("a foreign cursor", request("events.subscribe", since="\x1b.1"), 12),
    ("a cursor of 100 digits", request("events.subscribe", since="a." + "9" * 100), 12),
    ("a name with a slash", request("contacts.rename", contact="bob", name="a/b"), INVALID_PARAMS),
    ("a name with ESC", request("contacts.rename", contact="bob", name="\x1b[2J"), INVALID_PARAMS),
    ("a name of newlines", request("contacts.rename", contact="bob", name="a\nb"), INVALID_PARAMS),
    ("our own name", request("contacts.rename", contact="bob", name="ALICE"), INVALID_PARAMS),
    ("no address", request("peers.connect", address="http://\x1b"), INVALID_PARAMS),
    ("no port", request("peers.connect", address="127.0.0.1:99999"), INVALID_PARAMS),
    ("a bad search", request("messages.list", conversation="bob", search="\0"), 0),
    ("searches", request("messages.list", conversation="bob", search='" OR * NEAR( ^a:b"'), 0),
]  # fmt: skip


def test_each_bad_line_has_its_error(scene: Scene) -> None:
    with scene.alice.client() as client:
        for what, line, code in BAD_LINES:
            client.send_raw(line + b"\n")
            found = answer(client)
            if code == 0:
                assert "result" in found, (what, found)
                continue
            error = found["error"]
            assert code in (-1, error["code"]), (what, error)
            assert error["message"].isprintable(), (what, error)
            assert isinstance(error["data"]["hint"], str), (what, error)
            assert len(client._buffer) == 0, what
        assert client.call("status")["name"] == "alice"
    scene.undisturbed()


def test_an_id_comes_back_as_it_was(scene: Scene) -> None:
    with scene.alice.client() as client:
        for id in (
            0,
            -1,
            2**63,
            2**64,
            2**70,
            -(2**70),
            10**300,
            "",
            "x" * 100_000,
            "\0\u202e",
            None,
        ):
            client.send_raw(request("status", id=id) + b"\n")
            found = answer(client)
            assert found["id"] == id
            client.send_raw(request("nothing", id=id) + b"\n")
            assert answer(client)["id"] == id
    scene.undisturbed()


def test_a_notification_is_done_and_not_answered(scene: Scene) -> None:
    with scene.alice.client() as client:
        for line in (
            {"method": "messages.send", "params": {"to": "bob", "text": "a notification"}},
            {"method": "messages.send", "params": {"to": "nobody", "text": "?"}},
        ):
            client.send_raw(json.dumps({"jsonrpc": "2.0", **line}).encode() + b"\n")
        client.send_raw(request("status", id="behind") + b"\n")
        assert answer(client)["id"] == "behind"
    wait_for(lambda: "a notification" in scene.bob.texts("alice"), SOON_S)
    scene.undisturbed()


WRONG = [None, True, -1, 1.5, 2**70, "", "\x1b[2J", "x" * 70_000, [], [[]], {}, {"a": {}}, "\0"]


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"daemon.shutdown"}))
def test_wrong_types_of_every_parameter(scene: Scene, method: str) -> None:
    """Whatever is in a parameter, the answer is a result or an error that was meant."""
    names = METHODS[method].params.__struct_fields__
    with scene.alice.client() as client:
        good = {"contact": "nobody", "to": "nobody", "conversation": "nobody", "text": "x",
                "paths": ["/nothing"], "transfer": "aaaa", "upto": "aaaa", "name": "x",
                "address": "127.0.0.1:1", "protocol": 1, "proof": "0" * 64}  # fmt: skip
        for name in [*names, "unknown"]:
            for wrong in WRONG:
                params = {key: value for key, value in good.items() if key in names}
                client.send_raw(request(method, **{**params, name: wrong}) + b"\n")
                while (found := answer(client)).get("method") == "event":
                    pass
                error = found.get("error", {"code": INVALID_PARAMS, "message": ""})
                assert error["code"] in {INVALID_REQUEST, INVALID_PARAMS, 1, 2, 4, 6, 7, 9, 12}
                assert error["message"].isprintable(), (name, wrong, error)
    assert len([line for line in scene.log() if " WARNING client " in line]) >= len(names)
    scene.undisturbed()


# -- too much -----------------------------------------------------------------------------


def test_a_line_of_a_mebibyte_is_taken_and_one_more_is_the_end(scene: Scene) -> None:
    with scene.alice.client() as client:
        line = request("status")
        client.send_raw(line + b" " * (limits.LINE_BYTES_MAX - len(line)) + b"\n")
        assert answer(client)["result"]["name"] == "alice"
        client.send_raw(b" " * (limits.LINE_BYTES_MAX + 1))
        error = answer(client)
        assert (error["id"], error["error"]["code"]) == (None, INVALID_REQUEST)
        with pytest.raises(Closed):
            client.read_line(SOON_S)
    scene.said("the line is too long")
    scene.undisturbed()


def test_a_line_without_an_end_costs_a_mebibyte_at_most(scene: Scene) -> None:
    with scene.alice.client() as client:
        with contextlib.suppress(Closed):
            for _ in range(64):
                client.send_raw(b"x" * MIB)  # what comes behind the limit is thrown away
        with pytest.raises(Closed):
            assert answer(client)["error"]["code"] == INVALID_REQUEST
            client.read_line(SOON_S)
    scene.undisturbed(grown=4 * MIB)


def test_a_65th_client_is_turned_away(scene: Scene) -> None:
    there = scene.alice.rpc("status")["clients"]
    clients = [scene.alice.client() for _ in range(limits.CLIENTS_MAX - there)]
    with Client.open(scene.alice.ready["control"]) as extra:
        assert read_to_end(extra.sock, SOON_S) == b""
    for client in clients:
        client.close()
    # Told at once, or with others that were cut shortly before, when it is time for their summary.
    scene.said(f"more than {limits.CLIENTS_MAX} clients", within=limits.CUT_SUMMARY_S + SOON_S)
    scene.undisturbed()


# -- before hello -------------------------------------------------------------------------


def test_before_hello_little_is_taken(scene: Scene) -> None:
    control = scene.alice.ready["control"]
    for line, code in (
        (request("status"), INVALID_REQUEST),
        (b"rubbish", PARSE),
        (request("hello", protocol=2, client="x"), INVALID_REQUEST),
        (request("hello", protocol=1, client="x" * 129), INVALID_PARAMS),
    ):
        with Client.open(control) as client:
            client.send_raw(line + b"\n")
            assert answer(client)["error"]["code"] == code
    with Client.open(control) as client:
        client.send_raw(b" " * (4 * KIB + 1))
        assert answer(client)["error"]["code"] == INVALID_REQUEST
        with pytest.raises(Closed):
            client.read_line(SOON_S)
    with Client.open(control) as client:  # what follows a hello has the larger limits at once
        line = request("messages.list", conversation="bob", search="x", id=2)
        client.send_raw(request("hello", protocol=1, client="x") + b"\n")
        client.send_raw(line + b" " * 100_000 + b"\n")
        assert [answer(client)["id"], answer(client)["id"]] == [7, 2]
    scene.undisturbed()


def over_tcp(daemon: Start) -> tuple[Daemon, tuple[str, int], bytes]:
    alice = daemon("alice", "--control", "tcp:127.0.0.1:0")
    host, _, port = alice.ready["control"].removeprefix("tcp:").rpartition(":")
    with open(alice.ready["token_file"]) as file:
        token = bytes.fromhex(json.load(file)["token"])
    return alice, (host, int(port)), token


def test_over_tcp_whoever_does_not_know_the_token_learns_nothing(daemon: Start) -> None:
    alice, where, token = over_tcp(daemon)
    nonce = "00" * 32
    for data in (
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\n\r\n"
        + request("daemon.shutdown") + b"\n",
        b"GET / HTTP/1.1\r\n\r\n",
        request("status") + b"\n",
        request("daemon.shutdown") + b"\n",
        request("hello", protocol=1, client="no nonce") + b"\n",
        request("hello", protocol=1, client="a short one", nonce="00") + b"\n",
        request("hello", protocol=9, client="x", nonce=nonce) + b"\n",
        request("authorise", proof="0" * 64) + b"\n",
        b"\n",
        b"\x16\x03\x01" + os.urandom(200) + b"\n",
        b" " * (4 * KIB + 1),
    ):  # fmt: skip
        with socket.create_connection(where, SOON_S) as sock:
            sock.sendall(data)
            assert read_to_end(sock, SOON_S) == b"", data
    assert token.hex() not in alice.log()
    assert alice.rpc("status")["clients"] == 1


@pytest.mark.parametrize("what", ["another token", "our own proof", "of another connection"])
def test_over_tcp_a_wrong_proof_is_told_and_closed(daemon: Start, what: str) -> None:
    alice, _, token = over_tcp(daemon)

    def hello(client: Client) -> tuple[bytes, str]:
        ours = bytes(32)
        reply = client.call("hello", protocol=1, client="x", nonce=ours.hex())
        assert set(reply) == {"nonce", "proof"}
        return ours + bytes.fromhex(reply["nonce"]), reply["proof"]

    def proof(key: bytes, nonces: bytes) -> str:
        return hmac.new(key, b"client\0" + nonces, hashlib.sha256).hexdigest()

    control = alice.ready["control"]
    with Client.open(control) as first, Client.open(control) as second:
        nonces, theirs = hello(first)
        others, _ = hello(second)
        wrong = {
            "another token": proof(bytes(32), nonces),
            "our own proof": theirs,
            "of another connection": proof(token, others),
        }
        with pytest.raises(RpcError, match="wrong token") as error:
            first.call("authorise", proof=wrong[what])
        assert error.value.code == 11
        with pytest.raises(Closed):
            first.read_line(SOON_S)
        with pytest.raises(Closed):  # a second hello would give a second try
            hello(second)
            hello(second)
    assert alice.rpc("status")["clients"] == 1
    assert alice.log().count("has a wrong token") == 1


def test_whoever_says_nothing_is_cut(daemon: Start) -> None:
    alice, where, _ = over_tcp(daemon)
    with (
        socket.create_connection(where, SOON_S) as silent,
        socket.create_connection(where, SOON_S) as half,
        Client.open(alice.ready["control"]) as greeted,
    ):
        half.sendall(request("hello")[:20])
        greeted.call("hello", protocol=1, client="x", nonce="00" * 32)
        for sock in (silent, half, greeted.sock):
            assert read_to_end(sock, limits.AUTHORISE_TIMEOUT_S + SOON_S) == b""
    assert alice.log().count("a client did not say in time who it is") == 1
    assert alice.rpc("status")["clients"] == 1
