"""Clients that come and go: exact replay by cursor, many at once, slow ones."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import Client, Closed, Daemon, RpcError, connect_pair, wait_for

Start = Callable[..., Daemon]


def received(client: Client, count: int) -> list[str]:
    """The texts of the next `count` messages that a client is told of."""
    return [client.wait_event("message.received")["message"]["text"] for _ in range(count)]


def test_detached_for_a_hundred_messages_and_exactly_those(daemon: Start) -> None:
    alice, bob = daemon("alice"), daemon("bob")
    connect_pair(alice, bob)
    client = bob.client(subscribe=True)
    alice.rpc("messages.send", to="bob", text="before")
    assert received(client, 1) == ["before"]
    cursor = client.cursor
    client.close()
    for number in range(100):
        alice.rpc("messages.send", to="bob", text=str(number))
    wait_for(lambda: alice.contact("bob")["queued"] == 0)
    bob.restart()
    alice.rpc("messages.send", to="bob", text="after")
    back = bob.client(since=cursor)
    assert received(back, 101) == [str(number) for number in range(100)] + ["after"]
    alice.rpc("messages.send", to="bob", text="live")
    assert received(back, 1) == ["live"]


def test_every_client_is_told_everything(daemon: Start) -> None:
    alice, bob = daemon("alice"), daemon("bob")
    connect_pair(alice, bob)
    clients = [bob.client(subscribe=True) for _ in range(5)]
    for number in range(50):
        alice.rpc("messages.send", to="bob", text=str(number))
    for client in clients:
        assert received(client, 50) == [str(number) for number in range(50)]


def test_a_slow_client_misses_nothing_and_holds_nobody_up(daemon: Start) -> None:
    alice, bob = daemon("alice"), daemon("bob")
    connect_pair(alice, bob)
    slow, quick = bob.client(subscribe=True), bob.client(subscribe=True)
    sender = alice.client()
    text = "x" * 2000
    for start in range(0, 3000, 500):
        numbers = range(start, start + 500)
        ids = [sender.send("messages.send", to="bob", text=f"{n} {text}") for n in numbers]
        for id in ids:
            sender.reply(id)
    assert [t.split()[0] for t in received(quick, 3000)] == [str(n) for n in range(3000)]
    assert bob.rpc("status")["rss_bytes"] < 120 * 1024 * 1024
    assert [t.split()[0] for t in received(slow, 3000)] == [str(n) for n in range(3000)]


@pytest.mark.parametrize("cursor", ["nonsense", "0123456789ab.5", "x.-1", "."])
def test_a_foreign_cursor_gets_a_fresh_one(daemon: Start, cursor: str) -> None:
    alice = daemon("alice")
    with pytest.raises(RpcError) as caught:
        alice.client().subscribe(cursor)
    assert caught.value.code == 12
    assert alice.client().subscribe(caught.value.data["cursor"])


def test_a_cursor_from_the_future_is_gone(daemon: Start) -> None:
    alice = daemon("alice")
    cursor = alice.client().cursor
    epoch, _, number = cursor.partition(".")
    with pytest.raises(RpcError) as caught:
        alice.client().subscribe(f"{epoch}.{int(number) + 1}")
    assert caught.value.code == 12


def test_a_script_may_close_its_side_when_all_is_asked(daemon: Start, tmp_path: Path) -> None:
    """As with `printf ... | nc -N -U SOCKET`: also the answers that take their time come, and then
    the end."""
    alice, bob = daemon("alice"), daemon("bob")
    connect_pair(alice, bob)
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with alice.client() as client:
        asked = [client.send("transfers.send", to="bob", paths=[str(path)]) for _ in range(5)]
        asked.append(client.send("status"))
        client.sock.shutdown(socket.SHUT_WR)
        lines = []
        with pytest.raises(Closed):
            while True:
                lines.append(json.loads(client.read_line()))
    assert sorted(line["id"] for line in lines if "id" in line) == asked
    assert all("result" in line for line in lines)
    wait_for(lambda: len(list(bob.downloads.glob("new_file*"))) == 5, what="all of it arrives")
