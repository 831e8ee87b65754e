"""The transfer queue, both directions."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, fields

# States in which nothing more happens.
ENDED = ("done", "failed", "cancelled", "declined")


@dataclass(frozen=True, slots=True)
class TransferRow:
    """A transfer.  `source` is the absolute path of what goes out; `folder` and `chosen` are
    where what comes in is to stand, committed before it is put there.  `inode`, `mtime_ns` and
    `ctime_ns` are the source's when it was queued; `part_inode` is the part file's once it is
    whole, checked and synced; `part` says that there may be a part file."""

    row: int
    id: bytes
    contact: int
    outgoing: bool
    name: bytes
    source: bytes | None
    size: int
    inode: int
    mtime_ns: int
    ctime_ns: int
    executable: bool
    state: str
    accepted: bool
    bytes_done: int
    bytes_resent: int
    error: str | None
    digest: bytes | None
    folder: bytes | None
    chosen: bytes | None
    part_inode: int
    part: bool

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in ENDED


_COLUMNS = ", ".join(field.name for field in fields(TransferRow))
_ENDED_SQL = "('done', 'failed', 'cancelled', 'declined')"


def _row(found: tuple[object, ...]) -> TransferRow:
    return TransferRow(*found)  # type: ignore[arg-type]


class Transfers:
    """The table `transfers`."""

    def __init__(self, sql: sqlite3.Connection) -> None:
        self._sql = sql

    def add(self, id: bytes, contact: int, **columns: object) -> TransferRow:
        """A new transfer at the end of the queue."""
        names = ", ".join(columns)
        marks = ", ".join("?" for _ in columns)
        cursor = self._sql.execute(
            f"INSERT INTO transfers(id, contact, {names}) VALUES (?, ?, {marks})",
            (id, contact, *columns.values()),
        )
        row = self.get(int(cursor.lastrowid or 0))
        assert row is not None
        return row

    def get(self, row: int) -> TransferRow | None:
        """The transfer with this row."""
        found = self._sql.execute(
            f"SELECT {_COLUMNS} FROM transfers WHERE row = ?", (row,)
        ).fetchone()
        return None if found is None else _row(found)

    def by_id(self, contact: int, id: bytes) -> TransferRow | None:
        """The transfer with this id that goes to or comes from this contact."""
        found = self._sql.execute(
            f"SELECT {_COLUMNS} FROM transfers WHERE contact = ? AND id = ?", (contact, id)
        ).fetchone()
        return None if found is None else _row(found)

    def with_prefix(self, low: bytes, high: bytes) -> list[TransferRow]:
        """Up to two transfers whose id lies between `low` and `high`, both included."""
        query = f"SELECT {_COLUMNS} FROM transfers WHERE id >= ? AND id <= ? ORDER BY id LIMIT 2"
        return [_row(found) for found in self._sql.execute(query, (low, high))]

    def page(
        self, state: str | None, limit: int, before: int | None, after: int | None
    ) -> list[TransferRow]:
        """Up to `limit` transfers, oldest first: those right after the row `after`, else the
        last ones before the row `before` (or of all)."""
        where, values = ["1"], []
        for condition, value in (("state = ?", state), ("row < ?", before), ("row > ?", after)):
            if value is not None:
                where.append(condition)
                values.append(value)
        order = "ASC" if after is not None else "DESC"
        rows = [
            _row(found)
            for found in self._sql.execute(
                f"SELECT {_COLUMNS} FROM transfers WHERE {' AND '.join(where)} "
                f"ORDER BY row {order} LIMIT ?",
                (*values, limit),
            )
        ]
        return rows if after is not None else rows[::-1]

    def live(self, contact: int | None = None) -> list[TransferRow]:
        """All transfers (of a contact) that have not ended, oldest first."""
        query = (
            f"SELECT {_COLUMNS} FROM transfers WHERE state NOT IN {_ENDED_SQL} "
            "AND (? IS NULL OR contact = ?) ORDER BY row"
        )
        return [_row(found) for found in self._sql.execute(query, (contact, contact))]

    def with_part(self) -> list[TransferRow]:
        """All transfers that may have a part file."""
        query = f"SELECT {_COLUMNS} FROM transfers WHERE part = 1 ORDER BY row"
        return [_row(found) for found in self._sql.execute(query)]

    def count(self, *states: str) -> int:
        """How many are in one of these states."""
        marks = ", ".join("?" for _ in states)
        query = f"SELECT count(*) FROM transfers WHERE state IN ({marks})"
        return int(self._sql.execute(query, states).fetchone()[0])

    def update(self, row: int, **changes: object) -> None:
        """Change columns of one transfer."""
        names = ", ".join(f"{name} = ?" for name in changes)
        self._sql.execute(f"UPDATE transfers SET {names} WHERE row = ?", (*changes.values(), row))
