"""Contacts and the addresses at which they were met."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, fields

from tntd import limits


@dataclass(frozen=True, slots=True)
class ContactRow:
    """A contact as it is stored; `out_*` is our outbox for them, `in_*` what came from theirs.

    `out_highest` is the highest number assigned, `out_acked` the highest that they have
    acknowledged and `out_acked_id` its envelope's id; `in_upto` and `in_upto_id` are the same
    for what we have committed of theirs.  Times are milliseconds since 1970 UTC.
    """

    row: int
    key: bytes
    name: str
    trust: str
    mutual: bool
    chosen_at: int
    read_upto: int
    out_epoch: bytes
    out_highest: int
    out_acked: int
    out_acked_id: bytes | None
    in_epoch: bytes | None
    in_upto: int
    in_upto_id: bytes | None

    @property
    def accepted(self) -> bool:
        """Whether our user has accepted them."""
        return self.trust in ("accepted", "verified")


_REMOVED_SETTING = "contact_row_removed"  # the highest that was given to somebody who is gone
_COLUMNS = ", ".join(field.name for field in fields(ContactRow))


def _row(found: tuple[object, ...]) -> ContactRow:
    return ContactRow(*found)  # type: ignore[arg-type]


class Contacts:
    """The tables `contacts` and `addresses`."""

    def __init__(self, sql: sqlite3.Connection) -> None:
        self._sql = sql

    def get(self, row: int) -> ContactRow | None:
        """The contact with this row."""
        return self._one("row = ?", row)

    def by_key(self, key: bytes) -> ContactRow | None:
        """The contact with this public key."""
        return self._one("key = ?", key)

    def by_folded_name(self, folded: str) -> ContactRow | None:
        """The contact whose name folds to this."""
        return self._one("folded = ?", folded)

    def _one(self, where: str, value: object) -> ContactRow | None:
        found = self._sql.execute(
            f"SELECT {_COLUMNS} FROM contacts WHERE {where}", (value,)
        ).fetchone()
        return None if found is None else _row(found)

    def all(self) -> list[ContactRow]:
        """All contacts, oldest first."""
        return [_row(f) for f in self._sql.execute(f"SELECT {_COLUMNS} FROM contacts ORDER BY row")]

    def between(self, low: bytes, high: bytes) -> list[ContactRow]:
        """The contacts whose keys are from `low` to `high`, oldest first."""
        query = f"SELECT {_COLUMNS} FROM contacts WHERE key BETWEEN ? AND ? ORDER BY row"
        return [_row(found) for found in self._sql.execute(query, (low, high))]

    def count(self, trust: str | None = None) -> int:
        """How many there are, in all or with this trust."""
        query = "SELECT count(*) FROM contacts WHERE ? IS NULL OR trust = ?"
        return int(self._sql.execute(query, (trust, trust)).fetchone()[0])

    def folded_names(self) -> set[str]:
        """All names in use, folded."""
        return {name for (name,) in self._sql.execute("SELECT folded FROM contacts")}

    def add(
        self, key: bytes, name: str, folded: str, *, trust: str, epoch: bytes, at: int
    ) -> ContactRow:
        """A new contact whose outbox begins with `epoch`; its row was never another's."""
        cursor = self._sql.execute(
            "INSERT INTO contacts(row, key, name, folded, trust, out_epoch, created_at) "
            "VALUES (1 + max("
            "(SELECT coalesce(max(row), 0) FROM contacts), "
            "(SELECT coalesce(max(CAST(value AS INTEGER)), 0) FROM settings WHERE key = ?)"
            "), ?, ?, ?, ?, ?, ?)",
            (_REMOVED_SETTING, key, name, folded, trust, epoch, at),
        )
        row = self.get(int(cursor.lastrowid or 0))
        assert row is not None
        return row

    def update(self, row: int, **changes: object) -> None:
        """Change columns of one contact."""
        names = ", ".join(f"{name} = ?" for name in changes)
        self._sql.execute(f"UPDATE contacts SET {names} WHERE row = ?", (*changes.values(), row))

    def remove(self, row: int) -> None:
        """Forget a contact, its history, outbox and transfers, but not that its row was given: the
        event log still refers to it."""
        self._sql.execute("DELETE FROM contacts WHERE row = ?", (row,))
        self._sql.execute(
            "INSERT INTO settings(key, value) VALUES (?, ?) ON CONFLICT DO UPDATE "
            "SET value = excluded.value WHERE CAST(value AS INTEGER) < ?",
            (_REMOVED_SETTING, str(row).encode(), row),
        )

    def addresses(self, row: int) -> list[tuple[str, int]]:
        """Where this contact was met, the latest first."""
        query = "SELECT host, port FROM addresses WHERE contact = ? ORDER BY used_at DESC, host"
        return [(host, port) for host, port in self._sql.execute(query, (row,))]

    def all_hosts(self) -> set[str]:
        """All hosts at which accepted contacts were met."""
        query = (
            "SELECT DISTINCT host FROM addresses JOIN contacts ON contact = row "
            "WHERE trust IN ('accepted', 'verified')"
        )
        return {host for (host,) in self._sql.execute(query)}

    def owners(self, host: str, port: int) -> list[ContactRow]:
        """The contacts that were met at this address."""
        columns = ", ".join(f"contacts.{name.strip()}" for name in _COLUMNS.split(","))
        query = (
            f"SELECT {columns} FROM addresses JOIN contacts ON contact = row "
            "WHERE host = ? AND port = ? ORDER BY row"
        )
        return [_row(found) for found in self._sql.execute(query, (host, port))]

    def meet(self, row: int, host: str, port: int, at: int) -> None:
        """Remember an address; only the latest few are kept."""
        # A clock that was ahead for a while does not make what was met then the latest for ever.
        self._sql.execute(
            "UPDATE addresses SET used_at = ? WHERE contact = ? AND used_at > ?", (at - 1, row, at)
        )
        self._sql.execute(
            "INSERT INTO addresses(contact, host, port, used_at) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET used_at = excluded.used_at",
            (row, host, port, at),
        )
        for old_host, old_port in self.addresses(row)[limits.ADDRESSES_MAX :]:
            self.unmeet(row, old_host, old_port)

    def unmeet(self, row: int, host: str, port: int) -> None:
        """Forget an address."""
        self._sql.execute(
            "DELETE FROM addresses WHERE contact = ? AND host = ? AND port = ?", (row, host, port)
        )
