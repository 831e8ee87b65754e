"""A machine's database: a real store on real SQLite in memory, its copies, and its failures.

What holds always: what a crash or a power cut leaves is the last commit, as SQLite promises with
a write-ahead log and synchronous=FULL; where that setting is missing a power cut falls back to
the last checkpoint.  A full disk is SQLite's own: no page may be added.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from tntd.store import Store, StoreFailed

FULL_SYNC = 2


class SimDatabase:
    """`on_commit` is called around each commit with "before commit" and "after commit"."""

    def __init__(self, on_commit: Callable[[str], None]) -> None:
        self._on_commit = on_commit
        self.failing = False
        self.fail_in: int | None = None  # so many commits later one fails
        self.store: Store
        self._open(None)

    @property
    def sql(self) -> sqlite3.Connection:
        """The connection, for looking."""
        return self.store._sql

    def copy(self) -> bytes:
        """An image of what is committed."""
        return self.sql.serialize()

    def load(self, image: bytes) -> None:
        """Put an older copy in its place."""
        self._open(image)

    def lose(self) -> None:
        """A new, empty database."""
        self._open(None)

    def lose_power(self) -> None:
        """Fall back to what was synced."""
        (level,) = self.sql.execute("PRAGMA synchronous").fetchone()
        if level < FULL_SYNC:
            self._open(self._synced)

    def set_full(self, full: bool) -> None:
        """Whether the file may grow."""
        (pages,) = self.sql.execute("PRAGMA page_count").fetchone()
        self.sql.execute(f"PRAGMA max_page_count={pages if full else 1 << 30}")

    def _open(self, image: bytes | None) -> None:
        self.store = Store.open(":memory:")
        if image is not None:
            self.sql.deserialize(image)
            self.sql.execute("PRAGMA foreign_keys=ON")
        self._synced = self.copy()
        database = self.store._database
        commit, checkpoint = database._commit, database.checkpoint

        def guarded_commit() -> None:
            self._on_commit("before commit")
            if self.fail_in is not None:
                self.fail_in -= 1
            if self.failing or (self.fail_in is not None and self.fail_in < 0):
                self.fail_in = None
                raise StoreFailed("disk I/O error")
            commit()
            self._on_commit("after commit")

        def noted_checkpoint() -> None:
            checkpoint()
            (level,) = self.sql.execute("PRAGMA synchronous").fetchone()
            if level < FULL_SYNC:
                self._synced = self.copy()

        database._commit = guarded_commit  # type: ignore[method-assign]
        database.checkpoint = noted_checkpoint  # type: ignore[method-assign]
