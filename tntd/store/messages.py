"""The history of conversations, and the words in it.

What holds always: each committed message is in the full-text index.  It gets there at the end of
its transaction, with all others of it: each savepoint around it would make FTS5 write out what
it has, which takes longer than all the rest that a message needs.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A message; `received_at` is None until it is committed on the receiving side."""

    row: int
    id: bytes
    contact: int
    outgoing: bool
    kind: str
    text: str
    sent_at: int
    received_at: int | None
    state: str


_COLUMNS = ", ".join(f"messages.{field.name}" for field in fields(MessageRow))


_AT_ONCE = 64
_MARKS = ", ".join("?" * _AT_ONCE)


def _row(found: tuple[object, ...]) -> MessageRow:
    return MessageRow(*found)  # type: ignore[arg-type]


def _quoted(word: str) -> str:
    """A word as FTS5 takes it; a zero byte would end the whole query in the middle of it."""
    return '"' + word.replace("\0", " ").replace('"', '""') + '"'


class Messages:
    """The table `messages` and its full-text index."""

    def __init__(self, sql: sqlite3.Connection) -> None:
        self._sql = sql
        self._new: int | None = None  # no row before this one is missing in the index

    def add(
        self,
        id: bytes,
        contact: int,
        *,
        outgoing: bool,
        kind: str,
        text: str,
        sent_at: int,
        received_at: int | None,
        state: str,
    ) -> MessageRow:
        """A new message at the end of its conversation."""
        cursor = self._sql.execute(
            "INSERT INTO messages(id, contact, outgoing, kind, text, sent_at, received_at, state) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (id, contact, outgoing, kind, text, sent_at, received_at, state),
        )
        row = int(cursor.lastrowid or 0)
        self._new = row if self._new is None else min(row, self._new)
        return MessageRow(row, id, contact, outgoing, kind, text, sent_at, received_at, state)

    def index(self) -> None:
        """Put what is new into the full-text index, as far as it is not there."""
        if self._new is not None:
            self._sql.execute(
                "INSERT INTO messages_words(rowid, text) SELECT row, text FROM messages "
                "WHERE row >= ? AND NOT EXISTS ("
                "SELECT 1 FROM messages_words_docsize WHERE id = messages.row)",
                (self._new,),
            )

    def transaction_over(self) -> None:
        """All that was new is indexed, or undone."""
        self._new = None

    def get(self, row: int) -> MessageRow | None:
        """The message with this row."""
        return self._one("row = ?", row)

    def by_id(self, contact: int, id: bytes) -> MessageRow | None:
        """The message with this id in this conversation."""
        return self._one("contact = ? AND id = ?", contact, id)

    def _one(self, where: str, *values: object) -> MessageRow | None:
        found = self._sql.execute(
            f"SELECT {_COLUMNS} FROM messages WHERE {where}", values
        ).fetchone()
        return None if found is None else _row(found)

    def page(
        self, contact: int, limit: int, before: int | None, after: int | None, search: list[str]
    ) -> list[MessageRow]:
        """Up to `limit` messages, oldest first: those right after the row `after`, else the
        last ones before the row `before` (or of all).  All `search` words must occur."""
        where, values = ["messages.contact = ?"], [contact]
        tables = "messages"
        query: list[object] = []
        if search:
            self.index()  # also what this turn has brought
            tables = "messages_words JOIN messages ON messages.row = messages_words.rowid"
            where.insert(0, "messages_words MATCH ?")
            query.append(" ".join(_quoted(word) for word in search))
        if before is not None:
            where.append("messages.row < ?")
            values.append(before)
        if after is not None:
            where.append("messages.row > ?")
            values.append(after)
        order = "ASC" if after is not None else "DESC"
        rows = [
            _row(found)
            for found in self._sql.execute(
                f"SELECT {_COLUMNS} FROM {tables} WHERE {' AND '.join(where)} "
                f"ORDER BY messages.row {order} LIMIT ?",
                (*query, *values, limit),
            )
        ]
        return rows if after is not None else rows[::-1]

    def advance(
        self,
        contact: int,
        ids: list[bytes],
        before: tuple[str, ...],
        state: str,
        received_at: int | None = None,
    ) -> list[int]:
        """Change the state of those of these messages that are in one of the states `before`;
        their rows, oldest first.  A `received_at` of None leaves it as it is."""
        befores = ", ".join("?" * len(before))
        rows: list[int] = []
        for start in range(0, len(ids), _AT_ONCE):
            some = ids[start : start + _AT_ONCE]
            some += some[:1] * (_AT_ONCE - len(some))  # so that it is always the same statement
            rows += [
                row
                for (row,) in self._sql.execute(
                    "UPDATE messages SET state = ?, received_at = coalesce(?, received_at) "
                    f"WHERE contact = ? AND id IN ({_MARKS}) AND state IN ({befores}) "
                    "RETURNING row",
                    (state, received_at, contact, *some, *before),
                )
            ]
        return sorted(rows)

    def mark_read(self, contact: int, row: int) -> list[int]:
        """Change our delivered messages up to `row` to "read"; their rows, oldest first."""
        query = (
            "UPDATE messages SET state = 'read' WHERE contact = ? AND row <= ? AND outgoing = 1 "
            "AND state = 'delivered' RETURNING row"
        )
        return sorted(found for (found,) in self._sql.execute(query, (contact, row)))

    def unread(self, contact: int, read_upto: int) -> int:
        """How many messages came after the row `read_upto`."""
        query = "SELECT count(*) FROM messages WHERE contact = ? AND row > ? AND outgoing = 0"
        return int(self._sql.execute(query, (contact, read_upto)).fetchone()[0])

    def last_incoming_text(self, contact: int, upto: int) -> bytes | None:
        """The id of the newest text from the contact, at or before the row `upto`."""
        query = (
            "SELECT id FROM messages WHERE contact = ? AND outgoing = 0 AND kind = 'text' "
            "AND row <= ? ORDER BY row DESC LIMIT 1"
        )
        found = self._sql.execute(query, (contact, upto)).fetchone()
        return None if found is None else found[0]
