"""Clients that do not read: they cost little, disturb nobody, and miss nothing."""

from __future__ import annotations

import json
import statistics
import time

import pytest

from bystanders import SOON_S, Scene
from harness import Client, rss, thread_count, wait_for
from tntd import limits
from tntd.limits import MIB

EVENTS = 10_000
ONE_TURN = limits.TURN_EVENTS_MAX * limits.REPLY_BYTES_MAX  # replies are counted after it


def cursors(events: list[dict[str, object]]) -> list[object]:
    return [event["cursor"] for event in events if "cursor" in event]


def flood(scene: Scene, count: int) -> None:
    """`count` messages to bob: two events each, or three."""
    with scene.alice.client() as sender:
        calls = [
            sender.send("messages.send", to="bob", text=f"{number} " + "x" * 300)
            for number in range(count)
        ]
        for call in calls:
            sender.reply(call)


def delivered(scene: Scene) -> None:
    """Wait until bob has all."""
    wait_for(lambda: scene.alice.contact("bob")["queued"] == 0, what="bob has it all")


def read_upto(client: Client, cursor: str) -> list[dict[str, object]]:
    """The events up to this one."""
    while client.cursor != cursor:
        client._take(time.monotonic() + SOON_S)
    events, client.events = client.events, []
    return events


def test_ten_thousand_events_that_a_client_does_not_read(scene: Scene) -> None:
    delivered(scene)  # so that both begin at the same event
    slow, quick = scene.alice.client(subscribe=True), scene.alice.client(subscribe=True)
    began = quick.cursor
    before, took = rss(scene.alice.pid), list[float]()
    seen: list[object] = []
    for _ in range(10):
        flood(scene, EVENTS // 20)
        seen += cursors(quick.drain(0.01))
        asked = time.monotonic()
        scene.alice.rpc("status")
        took.append(time.monotonic() - asked)
    assert statistics.median(took) < 1.0, "others wait for the slow one"
    assert thread_count(scene.alice.pid) == 1
    assert rss(scene.alice.pid) - before < 16 * MIB
    delivered(scene)
    upto = scene.alice.client().welcome["cursor"]
    seen += cursors(read_upto(quick, upto))
    assert len(seen) >= EVENTS
    assert len(set(seen)) == len(seen)
    assert cursors(read_upto(slow, upto)) == seen  # exactly, in order, without a gap
    with scene.alice.client(since=began) as late:
        late.cursor = began
        assert cursors(read_upto(late, upto)) == seen
    for client in (slow, quick):
        client.close()
    scene.watching.events = read_upto(scene.watching, upto)  # too many to be read soon
    scene.undisturbed(grown=24 * MIB)


def test_whoever_asks_and_does_not_read_is_not_read_either(scene: Scene) -> None:
    before, client = rss(scene.alice.pid), scene.alice.client()
    text = "x" * 60_000
    for _ in range(10):
        client.call("messages.send", to="bob", text=text)
    client.sock.settimeout(1.0)
    params = {"conversation": "bob", "limit": 10}
    ask = {"jsonrpc": "2.0", "id": 1, "method": "messages.list", "params": params}
    line = json.dumps(ask).encode() + b"\n"
    with pytest.raises(TimeoutError):
        for _ in range(20_000):
            client.sock.sendall(line * 64)
    scene.talk()
    assert rss(scene.alice.pid) - before < limits.CLIENT_BUFFER_BYTES_MAX + ONE_TURN + 8 * MIB
    client.close()
    scene.undisturbed()
