"""The files of transferred folders, and what became of each.

What holds always: a file has one row for each transfer; what is told again replaces what was
told before.  A transfer has a bounded number of rows, since the other side chooses how many files
there are: of those beyond, the ones that did not go well are counted, in `transfers`.  A single
file is not in here: its transfer says all.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, fields

from tntd import limits
from tntd.limits import TREE_BYTES_MAX
from tntd.tasks import Entry

_ADD = (
    "INSERT INTO tree_files(transfer, path, size, state, reason, behind) "
    "VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING"
)
_CHANGE = (
    "UPDATE tree_files SET size = ?3, reason = ?5, behind = ?6, "
    # What is to be sent once more stays so when it goes out: only the receiver's word ends that.
    "state = CASE WHEN state = 'again' AND ?4 = 'waiting' THEN state ELSE ?4 END "
    "WHERE transfer = ?1 AND path = ?2"
)
_PATH_COSTS_BYTES = 16  # in a request to the child, beside its own
NOT_SENT = "it was not sent this time; send the failed files again"
_Row = tuple[int, bytes, int, str, str, int]


@dataclass(slots=True)
class _Counts:
    """The columns of `transfers` that are counted here, so that nobody has to read all rows."""

    kept: int
    bytes_kept: int
    skipped_beyond: int
    failed_beyond: int
    files_beyond: int
    bytes_beyond: int


_COUNTED = tuple(field.name for field in fields(_Counts))


@dataclass(frozen=True, slots=True)
class FileRow:
    """A file of a folder.  `state` is "verified" (receiver), "waiting" (sender: it was sent, and is
    verified when the transfer has ended), "again" (it is to be sent once more), "skipped" or
    "failed"."""

    path: bytes
    size: int
    state: str
    reason: str


def _behind(after: bytes | None) -> tuple[str, tuple[bytes, ...]]:
    """The condition that a path is behind `after`, and its values; not "? IS NULL OR ...", for
    which all paths before it would be read, too."""
    return ("", ()) if after is None else ("AND path > ?", (after,))


class Trees:
    """The table `tree_files`."""

    def __init__(self, sql: sqlite3.Connection) -> None:
        self._sql = sql

    def put(self, transfer: int, entries: Iterable[Entry], behind: int = 0) -> None:
        """What became of these files; entry number `behind` comes after them."""
        rows = [
            (transfer, each.path, each.size, each.state, each.reason, behind) for each in entries
        ]
        if not rows:
            return
        counts = self._counts(transfer)
        if counts.kept + len(rows) > limits.TREE_FILES_KEPT_MAX or not self._add_all(rows, counts):
            for row in rows:
                self._put_one(row, counts)
        self._set_counts(transfer, counts)

    def known_things(self, transfer: int, entries: Iterable[Entry]) -> list[Entry]:
        """The same without folders and links that are "there": they have no rows, but those that
        were told as failed before, which thereby are verified."""
        return [
            Entry(each.path, 0, "verified") if each.state == "there" else each
            for each in entries
            if each.state != "there" or self.sizes(transfer, [each.path])
        ]

    def kept(self, transfer: int) -> int:
        """How many files of it are known."""
        return self._counts(transfer).kept

    def _counts(self, transfer: int) -> _Counts:
        query = f"SELECT {', '.join(_COUNTED)} FROM transfers WHERE row = ?"
        return _Counts(*self._sql.execute(query, (transfer,)).fetchone())

    def _set_counts(self, transfer: int, counts: _Counts) -> None:
        # Sizes of files that failed are what the other side says: their sum may be anything.
        values = [max(0, min(getattr(counts, name), TREE_BYTES_MAX)) for name in _COUNTED]
        names = ", ".join(f"{name} = ?" for name in _COUNTED)
        self._sql.execute(f"UPDATE transfers SET {names} WHERE row = ?", (*values, transfer))

    def _add_all(self, rows: list[_Row], counts: _Counts) -> bool:
        """Add them where all are new, as they mostly are; else do nothing."""
        self._sql.execute("SAVEPOINT adding")
        added = self._sql.executemany(_ADD, rows).rowcount
        if added < len(rows):
            self._sql.execute("ROLLBACK TO adding")
        self._sql.execute("RELEASE adding")
        if added < len(rows):
            return False
        counts.kept += added
        counts.bytes_kept += sum(row[2] for row in rows)
        return True

    def _put_one(self, row: _Row, counts: _Counts) -> None:
        transfer, path, size, state = row[:4]
        known = self.sizes(transfer, [path])
        if known:
            self._sql.execute(_CHANGE, row)
            counts.bytes_kept += size - known[path]
        elif counts.kept < limits.TREE_FILES_KEPT_MAX:
            self._sql.execute(_ADD, row)
            counts.kept += 1
            counts.bytes_kept += size
        elif state == "skipped":
            counts.skipped_beyond += 1
        elif state == "failed":
            counts.failed_beyond += 1
        else:
            counts.files_beyond += 1
            counts.bytes_beyond += size

    def doubt(self, transfer: int, number: int) -> None:
        """Forget the files from entry `number` on: they are told again, or are no longer there.
        Reads all rows: about a millisecond for each 10,000 files."""
        counts = self._counts(transfer)
        which, values = "transfer = ? AND behind > ?", (transfer, number)
        query = f"SELECT count(*), total(size) FROM tree_files WHERE {which}"
        gone, size = self._sql.execute(query, values).fetchone()
        self._sql.execute(f"DELETE FROM tree_files WHERE {which}", values)
        counts.kept -= gone
        counts.bytes_kept = counts.bytes_kept - int(size) if counts.kept else 0
        self._set_counts(transfer, counts)

    def verified(self, transfer: int, after: bytes | None, limit: int) -> list[bytes]:
        """Paths of up to `limit` files that have arrived, those behind the path `after`."""
        behind, values = _behind(after)
        found = self._sql.execute(
            "SELECT path FROM tree_files WHERE transfer = ? AND state = 'verified' "
            f"{behind} ORDER BY path LIMIT ?",
            (transfer, *values, limit),
        )
        return [path for (path,) in found]

    def page(self, transfer: int, after: bytes | None, limit: int) -> list[FileRow]:
        """Up to `limit` files by path, those behind the path `after`."""
        behind, values = _behind(after)
        found = self._sql.execute(
            "SELECT path, size, state, reason FROM tree_files "
            f"WHERE transfer = ? {behind} ORDER BY path LIMIT ?",
            (transfer, *values, limit),
        )
        return [FileRow(*each) for each in found]

    def bad(self, transfer: int, state: str, limit: int) -> list[FileRow]:
        """Up to `limit` files that are "failed" (or "skipped"), by path."""
        found = self._sql.execute(
            "SELECT path, size, state, reason FROM tree_files INDEXED BY tree_files_bad "
            "WHERE transfer = ? AND state = ? AND state IN ('failed', 'skipped', 'again') "
            "ORDER BY path LIMIT ?",
            (transfer, state, limit),
        )
        return [FileRow(*each) for each in found]

    def count_bad(self, transfer: int) -> dict[str, tuple[int, int]]:
        """How many were skipped, failed, or are to be sent again, and how many bytes that is; by
        state."""
        found = self._sql.execute(
            # Not sum(): the sizes of files that failed are what the other side says.
            "SELECT state, count(*), total(size) FROM tree_files INDEXED BY tree_files_bad "
            "WHERE transfer = ? AND state IN ('failed', 'skipped', 'again') GROUP BY state",
            (transfer,),
        )
        none = {"skipped": (0, 0), "failed": (0, 0), "again": (0, 0)}
        return none | {state: (count, int(size)) for state, count, size in found}

    def sizes(self, transfer: int, paths: Iterable[bytes]) -> dict[bytes, int]:
        """The sizes of those of these files that there are."""
        query = "SELECT size FROM tree_files WHERE transfer = ? AND path = ?"
        found = {path: self._sql.execute(query, (transfer, path)).fetchone() for path in paths}
        return {path: row[0] for path, row in found.items() if row is not None}

    def restore(self, transfer: int) -> None:
        """Files that failed are to be sent again, as many as go at once."""
        paths, room = [], limits.AGAIN_PATHS_BYTES_MAX
        for each in self.bad(transfer, "failed", limits.AGAIN_FILES_MAX):
            room -= len(each.path) + _PATH_COSTS_BYTES
            if room < 0:
                break
            paths.append(each.path)
        self._sql.executemany(
            "UPDATE tree_files SET state = 'again', reason = '' WHERE transfer = ? AND path = ?",
            [(transfer, path) for path in paths],
        )

    def arrived(self, transfer: int) -> None:
        """What was sent again has arrived, where it is not told as failed."""
        self._sql.execute(
            "UPDATE tree_files INDEXED BY tree_files_bad SET state = 'waiting' "
            "WHERE transfer = ? AND state = 'again' AND state IN ('failed', 'skipped', 'again')",
            (transfer,),
        )

    def miss(self, transfer: int) -> None:
        """What was to be sent again, and is not told of, has not come."""
        self._sql.execute(
            "UPDATE tree_files INDEXED BY tree_files_bad SET state = 'failed', reason = ? "
            "WHERE transfer = ? AND state = 'again' AND state IN ('failed', 'skipped', 'again')",
            (NOT_SENT, transfer),
        )

    def again(self, transfer: int) -> list[bytes]:
        """Paths of the files that are to be sent again."""
        return [each.path for each in self.bad(transfer, "again", limits.AGAIN_FILES_MAX)]
