"""Clients that follow events: what was removed meanwhile, and who came after it."""

from __future__ import annotations

from typing import Any

import msgspec

from fuzz.bench import WALL_MS, Bench
from tntd.events import ClientDrained, LineArrived


class Desk:
    """A daemon and its user's client, which is not told of events by itself."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.user = self.attach()
        self.before = self.bench.lines[self.user][0]["result"]["cursor"]

    def attach(self) -> int:
        client = self.bench.open_client(local_user=True)
        self.ask(client, "hello", protocol=1, client="test")
        return client

    def ask(self, number: int, method: str, **params: object) -> dict[str, Any]:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        self.bench.turn(LineArrived(number, msgspec.json.encode(body)))
        return self.bench.lines[number][-1]

    def add(self, name: str, trust: str = "accepted") -> int:
        with self.bench.store.transaction():
            key = name[0].encode() * 32
            added = self.bench.store.contacts.add(
                key, name, name, trust=trust, epoch=b"e" * 16, at=WALL_MS
            )
        return added.row

    def follow(self) -> list[dict[str, Any]]:
        """What a client is told that comes back now, as long as there is a reason for a turn."""
        client = self.attach()
        seen = len(self.bench.lines[client])
        self.ask(client, "events.subscribe", since=self.before)
        drained = seen
        while True:
            due = self.bench.node.deadline()
            if len(self.bench.lines[client]) > drained:
                drained = len(self.bench.lines[client])
                self.bench.turn(ClientDrained(client))
            elif due is not None and due <= self.bench.now.boot:
                self.bench.turn()
            else:
                break
        told = self.bench.lines[client][seen:]
        return [line["params"] for line in told if line.get("method") == "event"]


def test_events_behind_many_of_what_was_removed_come_at_once() -> None:
    desk = Desk()
    anna, _ = desk.add("anna"), desk.add("ben")
    with desk.bench.store.transaction():
        desk.bench.store.events.add_all(WALL_MS, "message.received", [1000 + anna] * 2600, "{}")
    desk.ask(desk.user, "messages.send", to="ben", text="hello")
    assert [event["message"]["text"] for event in desk.follow()] == ["hello"]


def test_events_of_a_removed_contact_are_not_shown_as_those_of_the_next() -> None:
    desk = Desk()
    first = desk.add("zoe", "pending")
    desk.ask(desk.user, "contacts.accept", contact="zoe")
    desk.ask(desk.user, "contacts.remove", contact="zoe")
    second = desk.add("yan", "pending")
    assert desk.follow() == []
    desk.ask(desk.user, "contacts.remove", contact="yan")
    assert first < second < desk.add("xia", "pending")
