"""The numbered steps from an empty database to today's.

What holds always: a step that has been released is never changed, only followed by another;
`PRAGMA user_version` counts the steps that are done; each runs in a transaction of its own.
Tables are STRICT.  Times are milliseconds since 1970 UTC; order is by `row`, never by time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

_FIRST = (
    """CREATE TABLE settings (
        key TEXT PRIMARY KEY, value BLOB NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE contacts (
        row INTEGER PRIMARY KEY,
        key BLOB NOT NULL UNIQUE,
        name TEXT NOT NULL,
        folded TEXT NOT NULL UNIQUE,
        trust TEXT NOT NULL,
        mutual INTEGER NOT NULL DEFAULT 0,
        chosen_at INTEGER NOT NULL DEFAULT 0,
        created_at INTEGER NOT NULL,
        read_upto INTEGER NOT NULL DEFAULT 0,
        out_epoch BLOB NOT NULL,
        out_highest INTEGER NOT NULL DEFAULT 0,
        out_acked INTEGER NOT NULL DEFAULT 0,
        out_acked_id BLOB,
        in_epoch BLOB,
        in_upto INTEGER NOT NULL DEFAULT 0,
        in_upto_id BLOB
    ) STRICT""",
    """CREATE TABLE epochs (
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        contact INTEGER NOT NULL REFERENCES contacts(row) ON DELETE CASCADE,
        epoch BLOB NOT NULL,
        upto INTEGER NOT NULL,
        upto_id BLOB,
        UNIQUE (contact, epoch)
    ) STRICT""",
    """CREATE TABLE addresses (
        contact INTEGER NOT NULL REFERENCES contacts(row) ON DELETE CASCADE,
        host TEXT NOT NULL,
        port INTEGER NOT NULL,
        used_at INTEGER NOT NULL,
        PRIMARY KEY (contact, host, port)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX addresses_by_place ON addresses(host, port)",
    """CREATE TABLE messages (
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        id BLOB NOT NULL,
        contact INTEGER NOT NULL REFERENCES contacts(row) ON DELETE CASCADE,
        outgoing INTEGER NOT NULL,
        kind TEXT NOT NULL,
        text TEXT NOT NULL,
        sent_at INTEGER NOT NULL,
        received_at INTEGER,
        state TEXT NOT NULL,
        UNIQUE (contact, id)
    ) STRICT""",
    "CREATE INDEX messages_by_contact ON messages(contact, row)",
    "CREATE INDEX messages_incoming ON messages(contact, row) WHERE outgoing = 0",
    """CREATE INDEX messages_unread_there ON messages(contact, row)
    WHERE outgoing = 1 AND state = 'delivered'""",
    """CREATE VIRTUAL TABLE messages_words USING fts5 (
        text, content='messages', content_rowid='row',
        tokenize="unicode61 remove_diacritics 2"
    )""",
    """CREATE TRIGGER messages_removed AFTER DELETE ON messages
    WHEN EXISTS (SELECT 1 FROM messages_words_docsize WHERE id = old.row) BEGIN
        INSERT INTO messages_words(messages_words, rowid, text)
        VALUES ('delete', old.row, old.text);
    END""",
    """CREATE TABLE outbox (
        contact INTEGER NOT NULL REFERENCES contacts(row) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        id BLOB NOT NULL,
        kind INTEGER NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (contact, number)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE seen (
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        contact INTEGER NOT NULL REFERENCES contacts(row) ON DELETE CASCADE,
        id BLOB NOT NULL,
        UNIQUE (contact, id)
    ) STRICT""",
    """CREATE TABLE unprocessable (
        row INTEGER PRIMARY KEY,
        contact INTEGER NOT NULL REFERENCES contacts(row) ON DELETE CASCADE,
        id BLOB NOT NULL,
        kind INTEGER NOT NULL,
        body BLOB NOT NULL,
        error TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE transfers (
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        id BLOB NOT NULL,
        contact INTEGER NOT NULL REFERENCES contacts(row) ON DELETE CASCADE,
        outgoing INTEGER NOT NULL,
        kind TEXT NOT NULL,
        name BLOB NOT NULL,
        source BLOB,
        size INTEGER NOT NULL,
        files INTEGER NOT NULL DEFAULT 1,
        counting INTEGER NOT NULL DEFAULT 0,
        growing INTEGER NOT NULL DEFAULT 0,
        inode INTEGER NOT NULL DEFAULT 0,
        mtime_ns INTEGER NOT NULL,
        executable INTEGER NOT NULL,
        state TEXT NOT NULL,
        accepted INTEGER NOT NULL DEFAULT 0,
        by_user INTEGER NOT NULL DEFAULT 0,
        place INTEGER NOT NULL DEFAULT 0,
        again INTEGER NOT NULL DEFAULT 0,
        merging INTEGER NOT NULL DEFAULT 0,
        bytes_done INTEGER NOT NULL DEFAULT 0,
        bytes_sent INTEGER NOT NULL DEFAULT 0,
        bytes_reused INTEGER NOT NULL DEFAULT 0,
        bytes_resent INTEGER NOT NULL DEFAULT 0,
        skipped INTEGER NOT NULL DEFAULT 0,
        failed INTEGER NOT NULL DEFAULT 0,
        kept INTEGER NOT NULL DEFAULT 0,
        skipped_beyond INTEGER NOT NULL DEFAULT 0,
        failed_beyond INTEGER NOT NULL DEFAULT 0,
        bytes_kept INTEGER NOT NULL DEFAULT 0,
        files_beyond INTEGER NOT NULL DEFAULT 0,
        bytes_beyond INTEGER NOT NULL DEFAULT 0,
        error TEXT,
        digest BLOB,
        folder BLOB,
        chosen BLOB,
        part INTEGER NOT NULL DEFAULT 0,
        part_inode INTEGER NOT NULL DEFAULT 0,
        boot BLOB NOT NULL DEFAULT x'',
        number INTEGER NOT NULL DEFAULT 0,
        after BLOB NOT NULL DEFAULT x'',
        synced_number INTEGER NOT NULL DEFAULT 0,
        synced_after BLOB NOT NULL DEFAULT x'',
        synced_bytes INTEGER NOT NULL DEFAULT 0,
        final_ctime_ns INTEGER NOT NULL DEFAULT 0,
        created_at INTEGER NOT NULL,
        UNIQUE (contact, id)
    ) STRICT""",
    """CREATE TABLE tree_files (
        transfer INTEGER NOT NULL REFERENCES transfers(row) ON DELETE CASCADE,
        path BLOB NOT NULL,
        size INTEGER NOT NULL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL,
        behind INTEGER NOT NULL,
        PRIMARY KEY (transfer, path)
    ) STRICT, WITHOUT ROWID""",
    """CREATE INDEX tree_files_bad ON tree_files(transfer, state, path)
    WHERE state IN ('failed', 'skipped', 'again')""",
    """CREATE TABLE preferences (
        contact INTEGER NOT NULL,
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (contact, name)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX transfers_by_state ON transfers(state, row)",
    "CREATE INDEX transfers_by_id ON transfers(id)",
    """CREATE INDEX transfers_ready ON transfers(contact, place, row)
    WHERE outgoing = 1 AND state = 'queued' AND accepted = 1""",
    """CREATE INDEX transfers_offers ON transfers(contact)
    WHERE outgoing = 0 AND state NOT IN ('done', 'failed', 'cancelled', 'declined')""",
    "CREATE INDEX transfers_arrived ON transfers(contact, name) WHERE final_ctime_ns > 0",
    "CREATE INDEX transfers_with_part ON transfers(row) WHERE part = 1",
    """CREATE TABLE client_refs (
        ref TEXT PRIMARY KEY,
        kind TEXT NOT NULL,
        rows BLOB NOT NULL,
        at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX client_refs_by_age ON client_refs(at)",
    """CREATE TABLE events (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        at INTEGER NOT NULL,
        type TEXT NOT NULL,
        ref INTEGER NOT NULL,
        detail TEXT NOT NULL
    ) STRICT""",
)


def _first(sql: sqlite3.Connection) -> None:
    """Contacts, messages, outboxes, transfers, the event log."""
    for statement in _FIRST:
        sql.execute(statement)


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_first,)
