"""The files of transferred folders, and what became of each.

What holds always: a file has one row for each transfer; what is told again replaces what was
told before.  A transfer has a bounded number of rows, since the other side chooses how many files
there are: of those beyond, the ones that did not go well are counted, in `transfers`.  A single
file is not in here: its transfer says all.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

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
_COUNT = (
    "UPDATE transfers SET kept = kept + ?, skipped_beyond = skipped_beyond + ?, "
    "failed_beyond = failed_beyond + ? WHERE row = ?"
)

_Row = tuple[int, bytes, int, str, str, int]


@dataclass(frozen=True, slots=True)
class FileRow:
    """A file of a folder.  `state` is "verified" (receiver), "waiting" (sender: it was sent, and is
    verified when the transfer has ended), "again" (it is to be sent once more), "skipped" or
    "failed"."""

    path: bytes
    size: int
    state: str
    reason: str


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
        room = limits.TREE_FILES_KEPT_MAX - self._kept(transfer)
        beyond: Counter[str] = Counter()
        if len(rows) <= room:
            added = self._sql.executemany(_ADD, rows).rowcount
            if added < len(rows):
                self._sql.executemany(_CHANGE, rows)
        else:
            added = self._put_some(rows, room, beyond)
        self._sql.execute(_COUNT, (added, beyond["skipped"], beyond["failed"], transfer))

    def _kept(self, transfer: int) -> int:
        query = "SELECT kept FROM transfers WHERE row = ?"
        return int(self._sql.execute(query, (transfer,)).fetchone()[0])

    def _put_some(self, rows: list[_Row], room: int, beyond: Counter[str]) -> int:
        """One by one, as many new ones as there is room for; how many that were."""
        added = 0
        for row in rows:
            if self._sql.execute(_CHANGE, row).rowcount:
                continue
            if added < room:
                self._sql.execute(_ADD, row)
                added += 1
            else:
                beyond[row[3]] += 1
        return added

    def doubt(self, transfer: int, number: int) -> None:
        """Forget the files from entry `number` on: they are told again, or are no longer there.
        Reads all rows, as `count` does."""
        gone = self._sql.execute(
            "DELETE FROM tree_files WHERE transfer = ? AND behind > ?", (transfer, number)
        ).rowcount
        self._sql.execute(_COUNT, (-gone, 0, 0, transfer))

    def verified(self, transfer: int, after: bytes | None, limit: int) -> list[bytes]:
        """Paths of up to `limit` files that have arrived, those behind the path `after`."""
        found = self._sql.execute(
            "SELECT path FROM tree_files WHERE transfer = ? AND state = 'verified' "
            "AND (? IS NULL OR path > ?) ORDER BY path LIMIT ?",
            (transfer, after, after, limit),
        )
        return [path for (path,) in found]

    def page(self, transfer: int, after: bytes | None, limit: int) -> list[FileRow]:
        """Up to `limit` files by path, those behind the path `after`."""
        found = self._sql.execute(
            "SELECT path, size, state, reason FROM tree_files "
            "WHERE transfer = ? AND (? IS NULL OR path > ?) ORDER BY path LIMIT ?",
            (transfer, after, after, limit),
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

    def count_bad(self, transfer: int) -> tuple[int, int]:
        """How many were skipped, and how many failed."""
        found = dict(
            self._sql.execute(
                "SELECT state, count(*) FROM tree_files "
                "WHERE transfer = ? AND state IN ('failed', 'skipped', 'again') GROUP BY state",
                (transfer,),
            ).fetchall()
        )
        return found.get("skipped", 0), found.get("failed", 0)

    def count(self, transfer: int) -> tuple[int, int, int]:
        """How many files there are that were not skipped, their bytes, and the bytes of those that
        arrived.  Reads all rows: about a millisecond for each 10,000 files."""
        found = self._sql.execute(
            # Not sum(): the sizes of files that failed are what the other side says.
            "SELECT count(*), total(size), "
            "total(CASE WHEN state IN ('verified', 'waiting') THEN size END) "
            "FROM tree_files WHERE transfer = ? AND state <> 'skipped'",
            (transfer,),
        ).fetchone()
        files, size, done = (min(int(each), TREE_BYTES_MAX) for each in found)
        return files, size, done

    def bytes_failed(self, transfer: int) -> int:
        """The bytes of the files that failed."""
        query = (
            "SELECT total(size) FROM tree_files WHERE transfer = ? AND state = 'failed' "
            "AND state IN ('failed', 'skipped', 'again')"
        )
        return min(int(self._sql.execute(query, (transfer,)).fetchone()[0]), TREE_BYTES_MAX)

    def sizes(self, transfer: int, paths: Iterable[bytes]) -> dict[bytes, int]:
        """The sizes of those of these files that there are."""
        query = "SELECT size FROM tree_files WHERE transfer = ? AND path = ?"
        found = {path: self._sql.execute(query, (transfer, path)).fetchone() for path in paths}
        return {path: row[0] for path, row in found.items() if row is not None}

    def restore(self, transfer: int, paths: Iterable[bytes]) -> None:
        """These files are to be sent again."""
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

    def again(self, transfer: int, limit: int) -> list[bytes]:
        """Paths of up to `limit` files that are to be sent again."""
        return [each.path for each in self.bad(transfer, "again", limit)]
