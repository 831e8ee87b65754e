"""The connection: opening, settings of SQLite, transactions, savepoints, checkpoints.

What holds always: one connection, held exclusively (no other process can write), WAL with
`synchronous=FULL`, so a transaction that was committed survives a power cut.  There is no
automatic checkpoint, because that would fall into some turn's commit; the loop asks for one
when it is idle, and a turn whose log has grown past a limit makes one.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tntd import limits
from tntd.errors import StartError
from tntd.store.migrations import MIGRATIONS

_LOG_BYTES_MAX = limits.WAL_CHECKPOINT_BYTES


class StoreFailed(Exception):
    """The database could not be written: the turn is lost, nothing of it may be released."""


class Database:
    """An open database.  Raises StartError where it cannot be used."""

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self._commits = 0
        try:
            self.sql = sqlite3.connect(path, isolation_level=None, cached_statements=256)
            self._configure()
            self._migrate()
        except sqlite3.Error as error:
            raise StartError(
                f"cannot use the database {path}: {error}; if another tntd uses it, stop that "
                "one; if it is damaged, put a backup in its place or move it away"
            ) from error

    def _configure(self) -> None:
        for pragma in (
            "busy_timeout=500",
            "locking_mode=EXCLUSIVE",
            "journal_mode=WAL",
            "synchronous=FULL",
            "wal_autocheckpoint=0",
            f"journal_size_limit={limits.WAL_CHECKPOINT_BYTES}",
            "foreign_keys=ON",
            "cache_size=-4096",
            "temp_store=MEMORY",
        ):
            self.sql.execute(f"PRAGMA {pragma}")
        if sys.platform == "darwin":
            self.sql.execute("PRAGMA fullfsync=ON")

    def _migrate(self) -> None:
        (version,) = self.sql.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise StartError(
                f"the database {self.path} was made by a newer TalknTransfer (format {version}, "
                f"this one knows {len(MIGRATIONS)}); install that version or a later one"
            )
        for number, migration in enumerate(MIGRATIONS[version:], version + 1):
            self.sql.execute("BEGIN IMMEDIATE")
            migration(self.sql)
            self.sql.execute(f"PRAGMA user_version={number}")
            self.sql.execute("COMMIT")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commits what was written inside, or rolls back on an exception.

        Raises StoreFailed where SQLite cannot begin, write or commit (disk full, I/O error).
        """
        try:
            self.sql.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise StoreFailed(str(error)) from error
        try:
            yield
            self._commit()
        except BaseException as error:
            if self.sql.in_transaction:
                self.sql.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError):
                raise StoreFailed(str(error)) from error
            raise

    def _commit(self) -> None:
        try:
            self.sql.execute("COMMIT")
        except sqlite3.Error as error:
            raise StoreFailed(str(error)) from error
        self._commits += 1
        if self._commits % limits.WAL_LOOK_COMMITS == 0 and self._log_bytes() > _LOG_BYTES_MAX:
            self.checkpoint()

    def _log_bytes(self) -> int:
        try:
            return Path(f"{self.path}-wal").stat().st_size
        except OSError:
            return 0

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undoes what was written inside if it raises; the transaction around it goes on.

        Raises StoreFailed where the database itself failed inside, for then the transaction
        is gone with it.
        """
        self.sql.execute("SAVEPOINT event")
        try:
            yield
        except BaseException as error:
            self._undo(error)
            raise
        self.sql.execute("RELEASE event")

    def _undo(self, error: BaseException) -> None:
        # SQLite rolls the whole transaction back by itself on some failures (full disk).
        if not self.sql.in_transaction:
            raise StoreFailed(str(error)) from error
        self.sql.execute("ROLLBACK TO event")
        self.sql.execute("RELEASE event")
        if isinstance(error, sqlite3.OperationalError):
            raise StoreFailed(str(error)) from error

    def checkpoint(self) -> None:
        """Move what the log holds into the database file, as far as that goes at once.

        Where the disk refuses, all stays in the log, and the next one tries again.
        """
        if self.sql.in_transaction:
            return
        with suppress(sqlite3.Error):
            self.sql.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Checkpoint and close; the database may not be used after."""
        self.sql.close()
