"""The durable outboxes, and what of the contacts' outboxes was already received."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from tntd import limits


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """An envelope that waits for its acknowledgement."""

    number: int
    id: bytes
    kind: int
    body: bytes


class Outbox:
    """The tables `outbox`, `seen`, `epochs` and `unprocessable`."""

    def __init__(self, sql: sqlite3.Connection) -> None:
        self._sql = sql

    def add(self, contact: int, number: int, id: bytes, kind: int, body: bytes) -> None:
        """Put an envelope at the end."""
        self._sql.execute(
            "INSERT INTO outbox(contact, number, id, kind, body) VALUES (?, ?, ?, ?, ?)",
            (contact, number, id, kind, body),
        )

    def page(self, contact: int, after: int, limit: int) -> list[OutboxRow]:
        """Up to `limit` envelopes with numbers above `after`, in order."""
        query = (
            "SELECT number, id, kind, body FROM outbox WHERE contact = ? AND number > ? "
            "ORDER BY number LIMIT ?"
        )
        return [OutboxRow(*found) for found in self._sql.execute(query, (contact, after, limit))]

    def heads(self, contact: int, upto: int) -> list[tuple[int, bytes, int]]:
        """(number, id, kind) of the envelopes up to `upto`, in order, without their bodies."""
        query = (
            "SELECT number, id, kind FROM outbox WHERE contact = ? AND number <= ? ORDER BY number"
        )
        return list(self._sql.execute(query, (contact, upto)))

    def id_at(self, contact: int, number: int) -> bytes | None:
        """The id of the envelope with this number, if it still waits."""
        query = "SELECT id FROM outbox WHERE contact = ? AND number = ?"
        found = self._sql.execute(query, (contact, number)).fetchone()
        return None if found is None else found[0]

    def drop(self, contact: int, upto: int) -> None:
        """Remove the envelopes up to `upto`: they are acknowledged."""
        self._sql.execute("DELETE FROM outbox WHERE contact = ? AND number <= ?", (contact, upto))

    def count(self, contact: int, kinds: tuple[int, ...]) -> int:
        """How many envelopes of these kinds wait."""
        marks = ", ".join("?" for _ in kinds)
        query = f"SELECT count(*) FROM outbox WHERE contact = ? AND kind IN ({marks})"
        return int(self._sql.execute(query, (contact, *kinds)).fetchone()[0])

    def renumber(self, contact: int) -> int:
        """Number what waits from 1 on, in order, and return how many there are."""
        numbers = [
            number
            for (number,) in self._sql.execute(
                "SELECT number FROM outbox WHERE contact = ? ORDER BY number", (contact,)
            )
        ]
        # The new number is never above the old one, so in this order none is taken.
        for new, old in enumerate(numbers, 1):
            self._sql.execute(
                "UPDATE outbox SET number = ? WHERE contact = ? AND number = ?",
                (new, contact, old),
            )
        return len(numbers)

    def holds(self, contact: int, id: bytes) -> bool:
        """Whether the envelope of this id is not acknowledged yet."""
        query = "SELECT 1 FROM outbox WHERE contact = ? AND id = ?"
        return self._sql.execute(query, (contact, id)).fetchone() is not None

    def was_seen(self, contact: int, id: bytes) -> bool:
        """Whether an envelope with this id was already received."""
        query = "SELECT 1 FROM seen WHERE contact = ? AND id = ?"
        return self._sql.execute(query, (contact, id)).fetchone() is not None

    def mark_seen(self, contact: int, id: bytes) -> None:
        """Remember an id; the oldest are forgotten past the limit, in steps."""
        cursor = self._sql.execute("INSERT INTO seen(contact, id) VALUES (?, ?)", (contact, id))
        if int(cursor.lastrowid or 0) % 1024 == 0:
            self._sql.execute(
                "DELETE FROM seen WHERE contact = ? AND row <= ("
                "SELECT row FROM seen WHERE contact = ? ORDER BY row DESC LIMIT 1 OFFSET ?)",
                (contact, contact, limits.SEEN_IDS_MAX),
            )

    def keep_epoch(self, contact: int, epoch: bytes, upto: int, upto_id: bytes | None) -> None:
        """Remember how far an epoch of the contact's outbox had come here; the latest few."""
        self._sql.execute(
            "INSERT OR REPLACE INTO epochs(contact, epoch, upto, upto_id) VALUES (?, ?, ?, ?)",
            (contact, epoch, upto, upto_id),
        )
        self._sql.execute(
            "DELETE FROM epochs WHERE contact = ? AND row <= ("
            "SELECT row FROM epochs WHERE contact = ? ORDER BY row DESC LIMIT 1 OFFSET ?)",
            (contact, contact, limits.EPOCHS_KEPT_MAX),
        )

    def kept_epoch(self, contact: int, epoch: bytes) -> tuple[int, bytes | None] | None:
        """How far an earlier epoch had come here: (number, its envelope's id), if there was one."""
        query = "SELECT upto, upto_id FROM epochs WHERE contact = ? AND epoch = ?"
        found = self._sql.execute(query, (contact, epoch)).fetchone()
        return None if found is None else (found[0], found[1])

    def keep_unprocessable(
        self, contact: int, id: bytes, kind: int, body: bytes, error: str
    ) -> None:
        """Keep an envelope on which our own code failed twice."""
        self._sql.execute(
            "INSERT INTO unprocessable(contact, id, kind, body, error) VALUES (?, ?, ?, ?, ?)",
            (contact, id, kind, body, error),
        )
