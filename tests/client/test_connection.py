"""Both connections against a scripted daemon: order, silence, nonsense, and a sudden end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tnt_client.connection import AsyncConnection, Connection
from tnt_client.failures import NoDaemon, NotAnswering, TimedOut
from tntd.control.places import Endpoint
from tntd.errors import Code, CommandError

WELCOME = {
    "protocol": 1,
    "version": "1",
    "name": "fake",
    "id": "aaaaa",
    "peer_port": 1,
    "cursor": "e.0",
}
Answer = Callable[[dict[str, Any]], list[bytes] | None]


def line(**body: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **body}).encode() + b"\n"


def event(number: int) -> bytes:
    return line(method="event", params={"cursor": f"e.{number}", "type": "error"})


@pytest.fixture
def fake(home: Path) -> Iterator[Callable[[Answer], Endpoint]]:
    """`fake(answer)` is a daemon that says hello and then what `answer` gives for each request;
    None ends the connection."""
    listener = socket.socket(socket.AF_UNIX)
    threads: list[threading.Thread] = []

    def serve(answer: Answer) -> None:
        with contextlib.suppress(OSError):
            sock, _ = listener.accept()
            with sock, sock.makefile("rb") as lines:
                for raw in lines:
                    request = json.loads(raw)
                    hello = request["method"] == "hello"
                    made = [line(id=request["id"], result=WELCOME)] if hello else answer(request)
                    if made is None:
                        return
                    sock.sendall(b"".join(made))

    def start(answer: Answer) -> Endpoint:
        path = home / "fake.sock"
        listener.bind(str(path))
        listener.listen()
        threads.append(threading.Thread(target=serve, args=(answer,), daemon=True))
        threads[-1].start()
        return Endpoint(name="fake", pid=1, control=f"unix:{path}")

    yield start
    listener.close()
    for thread in threads:
        thread.join(10)


def test_events_that_come_before_a_reply_are_kept_in_order(fake: Callable[[Answer], Endpoint]):
    endpoint = fake(lambda r: [event(1), event(2), line(id=r["id"], result=5), event(3)])
    connection = Connection.open(endpoint, "test")
    assert connection.welcome.name == "fake"
    assert connection.call("status", {}) == 5
    assert [connection.next_event(5)["cursor"] for _ in range(3)] == ["e.1", "e.2", "e.3"]
    with pytest.raises(TimedOut):
        connection.next_event(0.05)
    connection.close()


def test_a_refusal_comes_as_an_error(fake: Callable[[Answer], Endpoint]):
    refusal = {"code": 4, "message": "no such transfer", "data": {"hint": "look"}}
    connection = Connection.open(fake(lambda r: [line(id=r["id"], error=refusal)]), "test")
    with pytest.raises(CommandError) as caught:
        connection.call("transfers.cancel", {"transfer": "x"})
    assert (caught.value.code, caught.value.hint) == (Code.NO_SUCH_TRANSFER, "look")
    connection.close()


def test_silence_times_out_and_an_end_is_told(fake: Callable[[Answer], Endpoint]):
    answers: dict[str, list[bytes] | None] = {"status": [], "contacts.list": None}
    connection = Connection.open(fake(lambda r: answers[r["method"]]), "test")
    with pytest.raises(TimedOut):
        connection.call("status", {}, timeout=0.05)
    with pytest.raises(NoDaemon, match="went away"):
        connection.call("contacts.list", {})
    connection.close()


def test_nonsense_is_no_daemon(fake: Callable[[Answer], Endpoint]):
    connection = Connection.open(fake(lambda _r: [b"SSH-2.0-OpenSSH_9.2\r\n"]), "test")
    with pytest.raises(NoDaemon, match="not JSON"):
        connection.call("status", {})
    connection.close()


@pytest.mark.parametrize(
    "control", ["unix:/nowhere/at/all.sock", "tcp:127.0.0.1:1", "tcp:127.0.0.1", "pigeon:post", ""]
)
def test_an_endpoint_where_nobody_is(control: str):
    endpoint = Endpoint(name="alice", pid=1, control=control)
    with pytest.raises(NoDaemon, match="tntd --name alice"):
        Connection.open(endpoint, "test")

    async def play() -> None:
        with pytest.raises(NoDaemon, match="tntd --name alice"):
            await AsyncConnection.open(endpoint, "test", lambda _event: None)

    asyncio.run(play())


def test_a_reply_is_acted_on_before_later_events(fake: Callable[[Answer], Endpoint]):
    endpoint = fake(lambda r: [event(1), line(id=r["id"], result=5), event(2), event(3)])
    order: list[str] = []

    async def play() -> None:
        connection = await AsyncConnection.open(
            endpoint, "test", lambda event: order.append(event["cursor"])
        )
        order.append(f"reply {await connection.call('status', {})}")
        async with asyncio.timeout(10):
            while len(order) < 4:
                await asyncio.sleep(0)
        await connection.close()

    asyncio.run(play())
    assert order == ["e.1", "reply 5", "e.2", "e.3"]


def test_whoever_waits_is_told_when_the_daemon_goes(fake: Callable[[Answer], Endpoint]):
    answers: dict[str, list[bytes] | None] = {"status": [], "contacts.list": None}
    endpoint = fake(lambda r: answers[r["method"]])

    async def play() -> None:
        connection = await AsyncConnection.open(endpoint, "test", lambda _event: None)
        waiting = [
            asyncio.create_task(connection.call(method, {}))
            for method in ("status", "contacts.list")
        ]
        for found in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(found, NoDaemon)
        assert connection.closed.is_set()
        with pytest.raises(NoDaemon):
            await connection.call("status", {})
        await connection.close()

    asyncio.run(play())


def test_without_room_nothing_is_read(fake: Callable[[Answer], Endpoint]):
    flood = [event(number) for number in range(20_000)]
    endpoint = fake(lambda r: [line(id=r["id"], result=0), *flood])
    seen: list[str] = []

    async def play() -> None:
        connection = await AsyncConnection.open(
            endpoint, "test", lambda event: (seen.append(event["cursor"]), connection.room.clear())
        )
        await connection.call("status", {})
        while not seen:
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(seen) < len(flood)
        async with asyncio.timeout(20):
            while len(seen) < len(flood):
                connection.room.set()
                await asyncio.sleep(0)
        await connection.close()

    asyncio.run(play())
    assert seen == [f"e.{number}" for number in range(20_000)]


async def _attach(endpoint: Endpoint) -> None:
    await AsyncConnection.open(endpoint, "test", lambda _event: None)


def test_one_that_is_silent_is_there_and_a_port_of_somebody_else_is_not(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tnt_client.connection.CONNECT_TIMEOUT_S", 0.2)
    gone = 2**30  # more than there are processes
    with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as tcp:
        unix.bind(str(home / "silent.sock"))
        unix.listen()
        port = tcp.getsockname()[1]
        for control, pid, kind in (
            (f"unix:{home / 'silent.sock'}", 77, NotAnswering),
            (f"tcp:127.0.0.1:{port}", os.getpid(), NotAnswering),
            (f"tcp:127.0.0.1:{port}", gone, NoDaemon),
        ):
            endpoint = Endpoint(name="fake", pid=pid, control=control)
            with pytest.raises(kind):
                Connection.open(endpoint, "test", 0.2)
            with pytest.raises(kind):
                asyncio.run(_attach(endpoint))
