"""Settings that our user changed while the daemon ran: for all (contact 0), and for contacts."""

from __future__ import annotations

import sqlite3


class Preferences:
    """The table `preferences`; values are JSON text."""

    def __init__(self, sql: sqlite3.Connection) -> None:
        self._sql = sql

    def all(self) -> dict[tuple[int, str], str]:
        """Every one, by contact and name."""
        found = self._sql.execute("SELECT contact, name, value FROM preferences")
        return {(contact, name): value for contact, name, value in found}

    def set(self, contact: int, name: str, value: str | None) -> None:
        """Keep a value, or forget it (None)."""
        if value is None:
            self._sql.execute(
                "DELETE FROM preferences WHERE contact = ? AND name = ?", (contact, name)
            )
            return
        self._sql.execute(
            "INSERT INTO preferences(contact, name, value) VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET value = excluded.value",
            (contact, name, value),
        )

    def forget(self, contact: int) -> None:
        """The contact was removed."""
        self._sql.execute("DELETE FROM preferences WHERE contact = ?", (contact,))
