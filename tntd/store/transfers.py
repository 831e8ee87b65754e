"""The transfer queue, both directions."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, fields

# States in which nothing more happens.
ENDED = ("done", "failed", "cancelled", "declined")
# Of a walk that begins anew.
NONE_BEYOND = {"skipped_beyond": 0, "failed_beyond": 0, "files_beyond": 0, "bytes_beyond": 0}


@dataclass(frozen=True, slots=True)
class TransferRow:
    """A transfer.

    `source` is the absolute path of what goes out, `inode` and `mtime_ns` are a single file's when
    it was queued.  While `counting`, `size` and `files` are what is known so far; `growing`: it
    comes from a pipe whose end has not come (or never came).  `folder` and `chosen` are where what
    comes in is to stand, committed before it is put there; `final_ctime_ns` is when that was, and
    `inode` then what stands there.
    `place` orders the queue.  `by_user`: our user took the offer.  `again`: only files that failed
    before are sent, into `chosen`; `merging`: all of them are here and being moved there.
    `kept` files of it, of `bytes_kept` bytes, are in `tree_files`; of those for which there was no
    room, `skipped_beyond` and `failed_beyond` are counted, and `files_beyond` that went well, of
    `bytes_beyond` bytes (after a cut, some may be counted twice).

    `part` says that there may be a stage, of inode `part_inode` (of what goes out: that its source
    was spooled only to be sent).  In it are the entries before
    `number` (the last is `after`, `bytes_done` bytes), which was so in the boot `boot` of the
    machine; the disk has those before `synced_number` for sure.
    """

    row: int
    id: bytes
    contact: int
    outgoing: bool
    kind: str
    name: bytes
    source: bytes | None
    size: int
    files: int
    counting: bool
    growing: bool
    inode: int
    mtime_ns: int
    executable: bool
    state: str
    accepted: bool
    by_user: bool
    place: int
    again: bool
    merging: bool
    bytes_done: int
    bytes_sent: int
    bytes_reused: int
    bytes_resent: int
    skipped: int
    failed: int
    kept: int
    skipped_beyond: int
    failed_beyond: int
    bytes_kept: int
    files_beyond: int
    bytes_beyond: int
    error: str | None
    digest: bytes | None
    folder: bytes | None
    chosen: bytes | None
    part: bool
    part_inode: int
    boot: bytes
    number: int
    after: bytes
    synced_number: int
    synced_after: bytes
    synced_bytes: int
    final_ctime_ns: int

    @property
    def tree(self) -> bool:
        """Whether it is a folder."""
        return self.kind == "folder"

    @property
    def open_ended(self) -> bool:
        """Whether more may come than was offered."""
        return self.tree or bool(self.counting)

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in ENDED


_COLUMNS = ", ".join(field.name for field in fields(TransferRow))
_ENDED_SQL = "('done', 'failed', 'cancelled', 'declined')"
# All others: by these they are found, and what has ended long ago is not read.
_LIVE_SQL = "('queued', 'offered', 'active', 'paused')"


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
        """All transfers (of a contact) that have not ended, in the order of the queue."""
        query = (
            f"SELECT {_COLUMNS} FROM transfers WHERE state IN {_LIVE_SQL} "
            "AND (? IS NULL OR contact = ?) ORDER BY place, row"
        )
        return [_row(found) for found in self._sql.execute(query, (contact, contact))]

    def ready(self, contact: int, limit: int) -> list[TransferRow]:
        """The first `limit` that wait for a lane to this contact, in the order of the queue."""
        query = (
            f"SELECT {_COLUMNS} FROM transfers WHERE contact = ? AND outgoing = 1 "
            "AND state = 'queued' AND accepted = 1 ORDER BY place, row LIMIT ?"
        )
        return [_row(found) for found in self._sql.execute(query, (contact, limit))]

    def count_offers(self, contact: int) -> int:
        """How many that come from this contact have not ended."""
        query = (
            "SELECT count(*) FROM transfers WHERE contact = ? AND outgoing = 0 "
            f"AND state NOT IN {_ENDED_SQL}"
        )
        return int(self._sql.execute(query, (contact,)).fetchone()[0])

    def incoming(self) -> list[tuple[int, bytes]]:
        """Contacts and ids of those that come in, have not ended, and may have a part."""
        query = (
            "SELECT contact, id FROM transfers "
            f"WHERE outgoing = 0 AND state NOT IN {_ENDED_SQL} AND folder IS NOT NULL"
        )
        return self._sql.execute(query).fetchall()

    def with_part(self) -> list[TransferRow]:
        """All transfers that may have a part file."""
        query = f"SELECT {_COLUMNS} FROM transfers WHERE part = 1 ORDER BY row"
        return [_row(found) for found in self._sql.execute(query)]

    def needs_spooled(self, source: bytes) -> bool:
        """Whether a transfer that has not ended is of this file, spooled only to be sent."""
        query = (
            "SELECT 1 FROM transfers WHERE part = 1 AND outgoing = 1 AND source = ? "
            f"AND state NOT IN {_ENDED_SQL} LIMIT 1"
        )
        return self._sql.execute(query, (source,)).fetchone() is not None

    def older_copy(self, row: TransferRow) -> TransferRow | None:
        """What came from the same contact under the same name before, and arrived."""
        found = self._sql.execute(
            f"SELECT {_COLUMNS} FROM transfers WHERE contact = ? AND outgoing = 0 AND name = ? "
            "AND kind = ? AND final_ctime_ns > 0 AND row <> ? ORDER BY row DESC LIMIT 1",
            (row.contact, row.name, row.kind, row.row),
        ).fetchone()
        return None if found is None else _row(found)

    def folders(self) -> list[bytes]:
        """All folders where something arrived or was to arrive."""
        query = "SELECT DISTINCT folder FROM transfers WHERE folder IS NOT NULL ORDER BY folder"
        return [folder for (folder,) in self._sql.execute(query)]

    def front(self) -> int:
        """The place before all others in the queue."""
        query = f"SELECT min(place) FROM transfers WHERE state IN {_LIVE_SQL}"
        return int(self._sql.execute(query).fetchone()[0] or 0) - 1

    def count(self, *states: str) -> int:
        """How many are in one of these states."""
        marks = ", ".join("?" for _ in states)
        query = f"SELECT count(*) FROM transfers WHERE state IN ({marks})"
        return int(self._sql.execute(query, states).fetchone()[0])

    def update(self, row: int, **changes: object) -> None:
        """Change columns of one transfer."""
        names = ", ".join(f"{name} = ?" for name in changes)
        self._sql.execute(f"UPDATE transfers SET {names} WHERE row = ?", (*changes.values(), row))
