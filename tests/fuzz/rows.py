"""Odd rows in the store: whatever its tables admit is shown, and lets the daemon start.

The columns that only ever hold words of ours (states, trust) hold one of them; everything that
came from outside, or that an earlier or later version may have written, holds anything.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tntd.control.schema import EVENTS
from tntd.control.tunables import TUNABLES
from tntd.events import Answered, LineArrived
from tntd.node.present import item_id
from tntd.store import Store
from tntd.tasks import Entry

from .answers import answer
from .bench import Bench
from .source import Source
from .target import Target, scenarios
from .values import EDGES, WORDS

STATES = ("queued", "offered", "active", "paused", "done", "failed", "cancelled", "declined")
FILE_STATES = ("waiting", "verified", "skipped", "failed")
NAMES = (*TUNABLES, "another", "")
VALUES = (
    "5", "true", "-1", "1e400", "99999999999999999999", '"x"', "[]", "{}", '{"hex":"2f61"}',
    '{"hex":"61"}', '{"hex":"2f00"}', '{"hex":"zz"}', '{"hex":5}', "NaN", "null", "", "\0",
    "[" * 5000, "9" * 5000, '{"hex":"2fff"}', "\u0661",
)  # fmt: skip
DETAILS = (
    "{}",
    '{"state":"sent"}',
    '{"text":"t","hint":"h"}',
    '{"state":"done","error":null}',
    '{"x":1}',
    '{"state":5}',
    '{"contact":3}',
    '{"cursor":"x"}',
    "[]",
    "",
    "no",
    "\x00",
)


class Rows:
    """A store that is filled by a source."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.store = Store.open(":memory:")
        with self.store.transaction():
            self.contacts = [self._contact(at) for at in range(1 + source.below(3))]
            for at in range(source.below(5)):
                self._message(at)
            for at in range(source.below(5)):
                self._transfer(at)
            for _ in range(source.below(8)):
                self._event()
            for _ in range(source.below(4)):
                self._preference()

    def number(self) -> int:
        """Any integer that SQLite holds."""
        number = self.source.pick(EDGES)
        return -number if self.source.one_in(3) else number

    def text(self) -> str:
        """Any text that can be stored."""
        text = self.source.pick(WORDS)
        return text + self.source.take(self.source.below(9)).decode("utf-8", "ignore")

    def blob(self, size: int | None = None) -> bytes:
        """Any bytes, or so many."""
        data = self.source.take(self.source.below(20))
        return data if size is None else data[:size].ljust(size, b"\0")

    def maybe(self, value: Any) -> Any:
        """The value or nothing."""
        return value if self.source.below(2) else None

    def _contact(self, at: int) -> int:
        store, source = self.store, self.source
        trust = source.pick(("accepted", "verified", "pending", "blocked"))
        name = f"{self.text()}{at}"
        key = bytes([at]) + self.blob(31)
        row = store.contacts.add(key, name, name, trust=trust, epoch=self.blob(16), at=1)
        store.contacts.update(
            row.row,
            mutual=source.below(2),
            chosen_at=self.number(),
            read_upto=self.number(),
            in_epoch=self.maybe(self.blob(16)),
            in_upto=source.pick(EDGES),
            in_upto_id=self.maybe(self.blob(16)),
        )
        store.contacts.meet(row.row, self.text(), source.below(65536), self.number())
        return row.row

    def _message(self, at: int) -> None:
        self.store.messages.add(
            bytes([at]) + self.blob(15),
            self.source.pick(self.contacts),
            outgoing=bool(self.source.below(2)),
            kind=self.source.pick(("text", "notice", "newer")),
            text=self.text(),
            sent_at=self.number(),
            received_at=self.maybe(self.number()),
            state=self.source.pick(("queued", "sent", "delivered", "read")),
        )

    def _transfer(self, at: int) -> None:
        outgoing = self.source.below(2)
        row = self.store.transfers.add(
            bytes([at]) + self.blob(15),
            self.source.pick(self.contacts),
            outgoing=outgoing,
            kind=self.source.pick(("file", "folder")),
            name=self.blob() or b"n",
            source=b"/" + self.blob() if outgoing else None,
            size=self.source.pick(EDGES),
            mtime_ns=self.number(),
            executable=self.source.below(2),
            state=self.source.pick(STATES),
            accepted=self.source.below(2),
            bytes_done=self.source.pick(EDGES),
            bytes_resent=self.source.pick(EDGES[:8]),
            error=self.maybe(self.text()),
            digest=self.maybe(self.blob(32)),
            folder=b"/" + self.blob(),
            chosen=self.maybe(self.blob() or b"c"),
            created_at=self.number(),
            **self._position(),
        )
        reason, path = self.text(), self.blob()
        state = self.source.pick(FILE_STATES)
        self.store.trees.put(row.row, [Entry(path, self.source.pick(EDGES), state, reason)])

    def _position(self) -> dict[str, object]:
        source = self.source
        if source.below(2):
            return {}
        return {
            "files": source.pick(EDGES),
            "counting": source.below(2),
            "place": self.number(),
            "by_user": source.below(2),
            "again": source.below(2),
            "merging": source.below(2),
            "skipped": source.pick(EDGES),
            "failed": source.pick(EDGES),
            "bytes_sent": source.pick(EDGES),
            "bytes_reused": source.pick(EDGES),
            "part": source.below(2),
            "part_inode": self.number(),
            "boot": self.blob(),
            "number": source.pick(EDGES[:8]),
            "after": self.blob(),
            "synced_number": source.pick(EDGES[:8]),
            "synced_after": self.blob(),
            "synced_bytes": source.pick(EDGES),
            "final_ctime_ns": source.pick(EDGES),
        }

    def _preference(self) -> None:
        contact = self.source.pick((0, *self.contacts))
        name, value = self.source.pick(NAMES), self.source.pick(VALUES)
        self.store.preferences.set(contact, name, value)

    def _event(self) -> None:
        self.store.events.add(
            self.number(),
            self.source.pick((*EVENTS, *EVENTS, "room.changed", "")),
            self.source.below(6),
            self.source.pick(DETAILS),
        )


def stored_rows(data: bytes) -> None:
    """A daemon that starts on them, and a client that looks at everything."""
    source = Source(data)
    rows = Rows(source)
    bench = Bench(store=rows.store)
    try:
        client = bench.open_client(local_user=True)
        since = bench.node._journal.cursor(0)
        calls: list[tuple[str, dict[str, Any]]] = [
            ("hello", {"protocol": 1, "client": "fuzz"}),
            ("events.subscribe", {"since": since}),
            ("contacts.list", {}),
            ("transfers.list", {}),
            ("status", {}),
            ("settings.list", {}),
        ]
        for transfer in rows.store.transfers.page(None, 9, None, None):
            calls.append(("transfers.files", {"transfer": item_id(transfer.id)}))
        for row in rows.store.contacts.all():
            calls.append(("messages.list", {"conversation": row.name[:256]}))
            calls.append(("messages.list", {"conversation": row.name[:256], "search": "a \0"}))
            calls.append(("settings.list", {"contact": row.name[:256]}))
        for id, (method, params) in enumerate(calls):
            body = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
            bench.turn(LineArrived(client, msgspec.json.encode(body)))
            bench.drain(client)
        answered = [each["id"] for each in bench.lines[client] if "id" in each]
        assert answered == list(range(len(calls)))
        assert not any("error" in each for each in bench.lines[client][:6])
        for task in list(bench.tasks):
            bench.turn(Answered(task, answer(source, bench.tasks.pop(task))))
        bench.wait(source.pick((0.6, 20.0, 100.0)))
    finally:
        rows.store.close()


ROW_TARGETS = (Target("stored_rows", stored_rows, scenarios, 1000),)
