"""The event log: what happened, in order, as references, for clients that come back.

What holds always: numbers only grow and are never used twice (AUTOINCREMENT); an event keeps a
reference and what may since have changed of it, never the whole object.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from tntd import limits

_PRUNED_EVERY = 1024


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event: `ref` is the row of the message, contact or transfer that its type is about,
    `detail` JSON of what is kept of its state at that time.  `at` is ms since 1970 UTC."""

    number: int
    at: int
    type: str
    ref: int
    detail: str


class EventLog:
    """The table `events`."""

    def __init__(self, sql: sqlite3.Connection) -> None:
        self._sql = sql

    def add(self, at: int, type: str, ref: int, detail: str) -> int:
        """A new event; returns its number."""
        cursor = self._sql.execute(
            "INSERT INTO events(at, type, ref, detail) VALUES (?, ?, ?, ?)", (at, type, ref, detail)
        )
        number = int(cursor.lastrowid or 0)
        if number % _PRUNED_EVERY == 0:
            self._prune(number, at)
        return number

    def add_all(self, at: int, type: str, refs: list[int], detail: str) -> None:
        """The same event of several things, in this order."""
        if len(refs) > 1:
            self._sql.executemany(
                "INSERT INTO events(at, type, ref, detail) VALUES (?, ?, ?, ?)",
                ((at, type, ref, detail) for ref in refs[:-1]),
            )
        number = self.add(at, type, refs[-1], detail)
        if number % _PRUNED_EVERY < len(refs) - 1:
            self._prune(number, at)

    def _prune(self, newest: int, at: int) -> None:
        """Drop what is too old from the beginning on, up to the first event that is not: looking
        through a million events would hold everything up."""
        first = next(
            self._sql.execute(
                "SELECT number FROM events WHERE at >= ? ORDER BY number LIMIT 1",
                (at - limits.EVENTS_KEPT_S * 1000,),
            ),
            (newest,),
        )[0]
        # A clock set far forward may not empty the log.
        by_age = min(first - 1, newest - _PRUNED_EVERY)
        self._sql.execute(
            "DELETE FROM events WHERE number <= ?", (max(newest - limits.EVENTS_KEPT_MAX, by_age),)
        )

    def after(self, number: int, limit: int) -> list[EventRow]:
        """Up to `limit` events after this number, in order."""
        query = (
            "SELECT number, at, type, ref, detail FROM events WHERE number > ? "
            "ORDER BY number LIMIT ?"
        )
        return [EventRow(*found) for found in self._sql.execute(query, (number, limit))]

    def span(self) -> tuple[int, int]:
        """The number before the oldest event that is kept, and the newest number ever given."""
        found = self._sql.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'")
        newest = next((int(seq) for (seq,) in found), 0)
        (oldest,) = self._sql.execute("SELECT min(number) FROM events").fetchone()
        return (newest if oldest is None else oldest - 1), newest
