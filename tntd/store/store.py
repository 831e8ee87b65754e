"""The store: one object for all tables of a profile's database."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tntd.store.contacts import Contacts
from tntd.store.database import Database, StoreFailed
from tntd.store.eventlog import EventLog
from tntd.store.messages import Messages
from tntd.store.outbox import Outbox
from tntd.store.preferences import Preferences
from tntd.store.reserve import FILE_NAME, Reserve
from tntd.store.transfers import Transfers
from tntd.store.trees import Trees

CLIENT_REFS_KEPT_MIN = 1024
CLIENT_REFS_KEPT_MS = 7 * 24 * 3600 * 1000  # a script that retries later than that is not retrying


class Store:
    """An open database.  All reading and writing happens inside `transaction()`.

    A transaction that fails gives up the reserve (see reserve.py); from then on, until `make_room`
    has succeeded, the store is `short`: it is to be kept for what must be written.

    Raises StartError where the database cannot be opened or was made by a newer program.
    """

    def __init__(self, path: Path | str) -> None:
        in_memory = path == ":memory:"
        self._reserve = None if in_memory else Reserve(Path(path).with_name(FILE_NAME))
        self._database = Database(path)
        self.make_room()
        sql = self._database.sql
        self._sql = sql
        self.contacts = Contacts(sql)
        self.messages = Messages(sql)
        self.outbox = Outbox(sql)
        self.transfers = Transfers(sql)
        self.trees = Trees(sql)
        self.preferences = Preferences(sql)
        self.events = EventLog(sql)

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """Open or create the database at `path`."""
        return cls(path)

    def transaction(self) -> AbstractContextManager[None]:
        """One turn: committed whole, or not at all.  Raises StoreFailed."""
        return self._transaction()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with self._database.transaction():
                yield
                self.messages.index()
        except StoreFailed:
            if self._reserve is not None:
                self._reserve.give_up()
                self._database.checkpoint()  # the log can be written from its beginning again
            raise
        finally:
            self.messages.transaction_over()

    def savepoint(self) -> AbstractContextManager[None]:
        """One event of a turn, undone if it raises.  Raises StoreFailed."""
        return self._database.savepoint()

    @property
    def short(self) -> bool:
        """Whether the disk has no room for what can wait."""
        return self._reserve is not None and not self._reserve.held

    def make_room(self) -> bool:
        """Set space aside again, if there is enough; whether there is room for everything."""
        return self._reserve is None or self._reserve.take()

    def idle(self) -> None:
        """Use a quiet moment: a passive checkpoint."""
        self._database.checkpoint()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def get_setting(self, key: str) -> bytes | None:
        """A small thing that is kept by name."""
        found = self._sql.execute("SELECT value FROM settings WHERE key = ?", (key,)).fetchone()
        return None if found is None else found[0]

    def set_setting(self, key: str, value: bytes) -> None:
        """Keep a small thing by name."""
        self._sql.execute(
            "INSERT INTO settings(key, value) VALUES (?, ?) "
            "ON CONFLICT DO UPDATE SET value = excluded.value",
            (key, value),
        )

    def get_client_ref(self, kind: str, ref: str) -> list[int] | None:
        """The rows that an earlier call with this `client_ref` made."""
        found = self._sql.execute(
            "SELECT rows FROM client_refs WHERE ref = ?", (f"{kind}:{ref}",)
        ).fetchone()
        return None if found is None else [row for (row,) in struct.iter_unpack("<q", found[0])]

    def set_client_ref(self, kind: str, ref: str, rows: list[int], at: int) -> None:
        """Remember what a call with this `client_ref` made; old ones are forgotten, but never
        the latest: a clock that is set forward makes nothing old."""
        self._sql.execute(
            "DELETE FROM client_refs WHERE at < ? AND at < ("
            "SELECT at FROM client_refs ORDER BY at DESC LIMIT 1 OFFSET ?)",
            (at - CLIENT_REFS_KEPT_MS, CLIENT_REFS_KEPT_MIN),
        )
        self._sql.execute(
            "INSERT OR REPLACE INTO client_refs(ref, kind, rows, at) VALUES (?, ?, ?, ?)",
            (f"{kind}:{ref}", kind, struct.pack(f"<{len(rows)}q", *rows), at),
        )
