"""`transfers.grown` by hand: what a client of one's own may say, and what it is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import Client, Daemon, RpcError, attached, connect_pair, wait_for
from tntd.errors import Code

Start = Callable[..., Daemon]


def spooled(alice: Daemon, data: bytes = b"") -> Path:
    path = alice.data / "spool" / "mine" / "x"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


def send(client: Client, path: Path, to: Any = "bob") -> list[str]:
    sent = client.call("transfers.send", to=to, paths=[str(path)], growing=True)["transfers"]
    return [each["id"] for each in sent]


def refused(client: Client, method: str, code: Code, **params: Any) -> str:
    with pytest.raises(RpcError) as caught:
        client.call(method, **params)
    assert caught.value.code == code, caught.value
    return caught.value.message


def test_only_one_file_of_the_spool_may_grow(home: Path, pair: tuple[Daemon, Daemon]):
    alice, _ = pair
    path, other = spooled(alice), home / "other"
    other.touch()
    with attached(alice) as client:
        for paths in ([other], [path, path], [path.parent], [alice.data / "spool"]):
            refused(
                client,
                "transfers.send",
                Code.INVALID_PARAMS,
                to="bob",
                paths=[str(each) for each in paths],
                growing=True,
            )
        assert client.call("transfers.list")["transfers"] == []


def test_what_is_told_only_grows_and_ends_once(home: Path, pair: tuple[Daemon, Daemon]):
    alice, bob = pair
    path = spooled(alice, b"12345")
    with attached(alice) as client:
        ids = send(client, path)
        refused(client, "transfers.grown", Code.INVALID_PARAMS, transfers=ids, bytes=4)
        refused(client, "transfers.grown", Code.NO_SUCH_TRANSFER, transfers=["abcdefgh"], bytes=9)
        (item,) = client.call("transfers.grown", transfers=ids, bytes=5)["transfers"]
        assert (item["bytes_total"], item["counting"]) == (5, True)
        for _ in range(2):
            (item,) = client.call("transfers.grown", transfers=ids, bytes=5, end=True)["transfers"]
            assert (item["bytes_total"], item["counting"]) == (5, False)
    wait_for((bob.downloads / "new_x").exists)
    assert (bob.downloads / "new_x").read_bytes() == b"12345"


def test_an_end_that_is_not_there_fails_it(home: Path, pair: tuple[Daemon, Daemon]):
    alice, bob = pair
    with attached(alice) as client:
        ids = send(client, spooled(alice, b"12345"))
        (item,) = client.call("transfers.grown", transfers=ids, bytes=6, end=True)["transfers"]
        assert item["state"] == "failed"
        refused(client, "transfers.grown", Code.WRONG_STATE, transfers=ids, bytes=7)
    wait_for(
        lambda: [each["state"] for each in bob.rpc("transfers.list")["transfers"]] == ["failed"]
    )
    assert not (bob.downloads / "new_x").exists()


def test_the_others_go_on_where_a_contact_is_removed(
    home: Path, daemon: Start, pair: tuple[Daemon, Daemon]
):
    alice, bob = pair
    carol = daemon("carol")
    connect_pair(alice, carol)
    path = spooled(alice, b"12345")
    with attached(alice) as client:
        ids = send(client, path, ["bob", "carol"])
        client.call("transfers.grown", transfers=ids, bytes=5)
        alice.rpc("contacts.remove", contact="carol")
        client.call("transfers.grown", transfers=ids, bytes=5, end=True)
    wait_for(lambda: [each["state"] for each in bob.rpc("transfers.list")["transfers"]] == ["done"])
