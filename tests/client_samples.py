"""Objects of the control protocol for tests of the clients, each with all its fields."""

from __future__ import annotations

from typing import Any

from tntd.control.schema import Contact, Message, Transfer


def message(text: str = "hello", **more: Any) -> Message:
    fields = {
        "id": "m1",
        "conversation": "bob",
        "from_": "bob",
        "text": text,
        "sent_at": "2026-11-24T12:03:00.000Z",
        "received_at": None,
        "state": "delivered",
        "kind": "text",
    }
    return Message(**{**fields, **more})


def contact(**more: Any) -> Contact:
    fields = {
        "id": "k7d2a-x3f9q-aaaaa",
        "name": "bob",
        "trust": "accepted",
        "mutual": True,
        "online": True,
        "addresses": [],
        "unread": 0,
        "queued": 0,
    }
    return Contact(**{**fields, **more})


def transfer(**more: Any) -> Transfer:
    fields = {
        "id": "t2345678abcdefgh",
        "direction": "out",
        "contact": "bob",
        "name": "a.bin",
        "files": 1,
        "bytes_total": 64 * 1024 * 1024,
        "bytes_done": 32 * 1024 * 1024,
        "bytes_resent": 0,
        "skipped": 0,
        "failed": 0,
        "rate": 12_900_000,
        "eta_s": 3,
        "state": "active",
        "error": None,
        "path": "/tmp/a.bin",
    }
    return Transfer(**{**fields, **more})
