"""What was found by these targets, or while they were written: one test for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from client_samples import contact, message, transfer
from fuzz.bench import Bench
from fuzz.clients import show
from fuzz.conversation import Conversation
from fuzz.peer import MALLORY, Hostile
from fuzz.source import Source
from tnt_client import repl_memory
from tnt_client.codec import Handshake, LineCodec, ProtocolFailure, Reply
from tnt_client.connection import Connection, read_token
from tnt_client.failures import NoDaemon, Refused
from tnt_client.repl_feed import Feed
from tnt_client.repl_model import Model
from tnt_client.steps import ask_daemon
from tntd import config
from tntd.control import places
from tntd.control.places import Endpoint
from tntd.control.schema import ContactList
from tntd.errors import StartError
from tntd.events import Answered, LineArrived, LinkClosed
from tntd.tasks import Failed, Inspect, Inspected
from tntd.wire.frames import Decision, Envelope, LaneAnswer, LaneOffer, encode, encode_body

DEEP = 100_000


def endpoint(control: str = "tcp:127.0.0.1:1", token_file: str | None = None) -> Endpoint:
    return Endpoint(name="x", pid=1, control=control, token_file=token_file)


# -- files of the clients -----------------------------------------------------------------


@pytest.mark.parametrize("data", [b'{"name":"\xce"}', b'{"\xce":1}', b'{"a":' + b"[" * DEEP])
def test_a_damaged_endpoint_file_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.setenv("TNT_HOME", str(tmp_path))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a.json").write_bytes(data)
    (tmp_path / "run" / "x.json").write_bytes(msgspec.json.encode(endpoint()))
    assert places.read_endpoints() == [endpoint()]


def test_a_damaged_place_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TNT_HOME", str(tmp_path))
    (repl_memory.make_folder("x") / "place.json").write_bytes(b'{"x":' + b"[" * DEEP)
    assert repl_memory.load_place("x") == repl_memory.Place()


@pytest.mark.parametrize("data", [b"[" * DEEP, b'{"token":' + b"[" * DEEP, b"9" * 5000, b"\xff"])
def test_a_damaged_token_file_is_said(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "token").write_bytes(data)
    with pytest.raises(NoDaemon, match="no token in"):
        read_token(endpoint(token_file=str(tmp_path / "token")))


@pytest.mark.parametrize("port", ["65536", "9" * 30, "9" * 5000, "\u0661"])
def test_an_endpoint_with_a_port_that_cannot_be_is_said(port: str) -> None:
    with pytest.raises(NoDaemon, match="does not answer"):
        Connection.open(endpoint(f"tcp:127.0.0.1:{port}"), "test", 1.0)


@pytest.mark.parametrize("proof", ["\u00c7", "", "\U0001f600" * 64])
def test_a_stranger_whose_proof_is_no_hex_is_a_stranger(proof: str) -> None:
    handshake = Handshake(LineCodec(), "test", b"t" * 32, b"n" * 32)
    handshake.first()
    with pytest.raises(ProtocolFailure, match="does not know the token"):
        handshake.receive(Reply(1, {"nonce": "6e" * 32, "proof": proof}))


@pytest.mark.parametrize(
    "event",
    [
        {"message": msgspec.to_builtins(message())},
        {"contact": msgspec.to_builtins(contact())},
        {"transfer": msgspec.to_builtins(transfer())},
        {"type": "transfer.state", "transfer": msgspec.to_builtins(transfer(bytes_total=10**400))},
        {"type": "transfer.state", "transfer": msgspec.to_builtins(transfer(rate=-(10**400)))},
    ],
    ids=["message", "contact", "transfer", "huge size", "huge rate"],
)
def test_an_event_without_a_type_or_of_impossible_numbers_is_shown(event: dict[str, Any]) -> None:
    show(event, Feed(Model("alice"), "2026-01-01"))


def test_a_reply_of_another_shape_is_said() -> None:
    script = ask_daemon("contacts.list", {}, ContactList)
    next(script)
    with pytest.raises(Refused, match="of one version"):
        script.send({"contacts": [{"id": 5}]})


# -- the configuration --------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "reserve_bytes = " + "9" * 5000,
        "reserve_bytes = 0x" + "f" * 5000,
        "listen = " + "[" * DEEP,
        "listen = " + "{a=" * 20_000,
        "listen." + ".".join("a" * 5000) + " = 1",
    ],
    ids=["long number", "long hexadecimal", "deep list", "deep table", "deep key"],
)
def test_a_configuration_that_breaks_the_parser_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(StartError) as caught:
        config.load(tmp_path / "c.toml", {})
    assert "c.toml" in caught.value.message
    assert len(caught.value.message) < 1000


# -- the journal --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type", "detail"),
    [
        ("room.changed", "{}"),
        ("message.received", "[]"),
        ("message.received", ""),
        ("message.received", '{"state":5}'),
        ("error", "no"),
        ("error", '{"x":' + "[" * DEEP),
    ],
)
def test_an_event_that_cannot_be_read_does_not_hold_up_the_others(type: str, detail: str) -> None:
    bench = Bench()
    with bench.store.transaction():
        bench.store.events.add(1, type, 1, detail)
        bench.store.events.add(1, "error", 0, '{"text":"t","hint":"h","cursor":"x","more":1}')
    client = bench.open_client(local_user=True)
    for method, params in (
        ("hello", {"protocol": 1, "client": "test"}),
        ("events.subscribe", {"since": bench.node._journal.cursor(0)}),
    ):
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        bench.turn(LineArrived(client, json.dumps(body).encode()))
    shown = [line["params"] for line in bench.lines[client] if line.get("method") == "event"]
    assert [event["text"] for event in shown] == ["t"]
    assert shown[0]["cursor"] == bench.node._journal.cursor(2)


# -- a contact that has gone bad --------------------------------------------------------------


class Sending:
    """A file on its way to a contact, at the point where its source is being opened."""

    def __init__(self) -> None:
        self.hostile = Hostile(Source(b""))
        self.bench = self.hostile.bench
        self.link: Conversation = self.hostile.links[0]
        self.hostile.around.command("transfers.send", to="mallory", paths=["/f"])
        self.answer(Inspect, Inspected("file", 5, 1, 1, 1, 1, False, 1 << 40))
        (self.row,) = self.bench.store.transfers.page(None, 9, None, None)
        self._number = 0

    def answer(self, kind: type, answer: Inspected | Failed) -> None:
        tasks = self.bench.tasks
        (task,) = [number for number in tasks if isinstance(tasks[number], kind)]
        del tasks[task]
        self.bench.turn(Answered(task, answer))

    def decide(self, *, accepted: bool) -> None:
        self._number += 1
        kind, body = encode_body(Decision(transfer=self.row.id, accepted=accepted))
        id = bytes([self._number]) * 16
        epoch, _ = self.hostile._standing()
        self.link.say(Envelope(epoch=epoch, number=self._number, id=id, kind=kind, body=body))

    @property
    def state(self) -> str:
        row = self.bench.store.transfers.get(self.row.row)
        assert row is not None
        return row.state


def test_a_contact_that_declines_what_it_has_accepted_gets_nothing_more() -> None:
    sending = Sending()
    sending.decide(accepted=True)
    sending.decide(accepted=False)
    # That it was looked at for nothing must not start the whole node over.
    sending.answer(Inspect, Failed("ENOENT", "no such file"))
    assert sending.state == "declined"
    assert sending.bench.node._queue.transfers.moving == {}


def test_a_contact_that_declines_what_it_was_sent_whole() -> None:
    sending = Sending()
    sending.decide(accepted=True)
    sending.answer(Inspect, Inspected("file", 5, 1, 1, 1, 1, False, 0))
    ticket = sending.bench.node._queue.transfers.moving[sending.row.row].ticket
    word = LaneAnswer(ticket=ticket, transfer=sending.row.id, code="finishing")
    sending.link.say(word)
    sending.decide(accepted=False)
    sending.link.say(word)
    assert sending.state == "declined"
    assert sending.link.alive


def test_a_word_on_a_link_that_was_replaced_by_one_that_is_gone() -> None:
    hostile = Hostile(Source(b""))
    (old,) = hostile.links
    hostile.link(MALLORY, step=1)
    fresh = hostile.links[-1]
    hello = msgspec.structs.replace(hostile._hello(), instance=b"2" * 16)
    offer = LaneOffer(ticket=b"t" * 16, transfer=b"x" * 16)
    # All in one turn, so that the old link is not closed yet.
    hostile.bench.turn(
        *fresh.events(encode(hello)),
        LinkClosed(fresh.link, "cut"),
        *old.events(encode(offer)),
    )
    assert not old.alive
