"""The store against a plain model: whatever is done in whatever order, both say the same.

What holds always: a transaction that fails leaves the model's state of before it; a savepoint that
fails undoes its own part; a database that is opened again from its bytes is the same.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sim.database import SimDatabase
from tntd.store.outbox import OutboxRow

KEYS = [bytes([n]) * 32 for n in range(1, 4)]
ids = st.integers(0, 11).map(lambda n: bytes([n]) * 16)
texts = st.sampled_from(["one", "two words", "Ä ß", "x" * 300, "one two three"])
positions = st.integers(0, 30)


class Undone(Exception):
    """Leaves a transaction or a savepoint by the emergency exit."""


@dataclass
class Plain:
    """What the store should have, in lists and dictionaries.  `rows` are the contacts by row."""

    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    outbox: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)
    seen: dict[int, set[bytes]] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)
    transfers: list[dict[str, Any]] = field(default_factory=list)
    events: list[tuple[int, str, int]] = field(default_factory=list)
    settings: dict[str, bytes] = field(default_factory=dict)
    refs: dict[str, list[int]] = field(default_factory=dict)


class StoreAgainstModel(RuleBasedStateMachine):
    """Changes both in the same way, and compares after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.database = SimDatabase(lambda when: None)
        self.model = Plain()

    @property
    def store(self) -> Any:
        return self.database.store

    def change(self, way: str, act: Any) -> None:
        """Do `act` in a transaction; it is kept, or undone by a savepoint or as a whole."""
        before = copy.deepcopy(self.model)
        try:
            with self.store.transaction():
                try:
                    with self.store.savepoint():
                        act()
                        if way == "savepoint":
                            raise Undone
                except Undone:
                    self.model = copy.deepcopy(before)
                if way == "transaction":
                    raise Undone
        except Undone:
            self.model = before

    ways = st.sampled_from(["kept", "kept", "kept", "savepoint", "transaction"])

    def pick(self, number: int) -> int:
        rows = sorted(self.model.rows)
        return rows[number % len(rows)]

    has_contacts = precondition(lambda self: self.model.rows)

    # -- contacts --------------------------------------------------------------------------

    @rule(key=st.sampled_from(KEYS), way=ways)
    def add_contact(self, key: bytes, way: str) -> None:
        if any(row["key"] == key for row in self.model.rows.values()):
            assert self.store.contacts.by_key(key) is not None
            return

        def act() -> None:
            name = f"n{key[0]}"
            found = self.store.contacts.add(key, name, name, trust="pending", epoch=key[:16], at=1)
            row = {"key": key, "name": name, "trust": "pending", "out_highest": 0, "read_upto": 0}
            self.model.rows[found.row] = row

        self.change(way, act)

    @has_contacts
    @rule(number=positions, trust=st.sampled_from(["accepted", "blocked"]), way=ways)
    def set_trust(self, number: int, trust: str, way: str) -> None:
        def act() -> None:
            row = self.pick(number)
            self.store.contacts.update(row, trust=trust)
            self.model.rows[row]["trust"] = trust

        self.change(way, act)

    @has_contacts
    @rule(number=positions, way=ways)
    def remove_contact(self, number: int, way: str) -> None:
        def act() -> None:
            row, model = self.pick(number), self.model
            self.store.contacts.remove(row)
            del model.rows[row]
            model.outbox.pop(row, None)
            model.seen.pop(row, None)
            model.messages = [each for each in model.messages if each["contact"] != row]
            model.transfers = [each for each in model.transfers if each["contact"] != row]

        self.change(way, act)

    # -- outbox ----------------------------------------------------------------------------

    @has_contacts
    @rule(number=positions, id=ids, way=ways)
    def put(self, number: int, id: bytes, way: str) -> None:
        def act() -> None:
            row = self.pick(number)
            contact = self.model.rows[row]
            contact["out_highest"] += 1
            self.store.outbox.add(row, contact["out_highest"], id, 1, b"body")
            self.store.contacts.update(row, out_highest=contact["out_highest"])
            self.model.outbox.setdefault(row, []).append((contact["out_highest"], id))

        self.change(way, act)

    @has_contacts
    @rule(number=positions, upto=positions, way=ways)
    def acknowledge(self, number: int, upto: int, way: str) -> None:
        def act() -> None:
            row = self.pick(number)
            self.store.outbox.drop(row, upto)
            waiting = self.model.outbox.get(row, [])
            self.model.outbox[row] = [each for each in waiting if each[0] > upto]

        self.change(way, act)

    @has_contacts
    @rule(number=positions, way=ways)
    def renumber(self, number: int, way: str) -> None:
        def act() -> None:
            row = self.pick(number)
            waiting = self.model.outbox.get(row, [])
            assert self.store.outbox.renumber(row) == len(waiting)
            self.store.contacts.update(row, out_highest=len(waiting))
            self.model.outbox[row] = [(at, id) for at, (_, id) in enumerate(waiting, 1)]
            self.model.rows[row]["out_highest"] = len(waiting)

        self.change(way, act)

    @has_contacts
    @rule(number=positions, id=ids, way=ways)
    def receive(self, number: int, id: bytes, way: str) -> None:
        def act() -> None:
            row = self.pick(number)
            seen = self.model.seen.setdefault(row, set())
            assert self.store.outbox.was_seen(row, id) == (id in seen)
            if id not in seen:
                self.store.outbox.mark_seen(row, id)
                seen.add(id)

        self.change(way, act)

    # -- messages and transfers --------------------------------------------------------------

    @has_contacts
    @rule(number=positions, id=ids, text=texts, outgoing=st.booleans(), way=ways)
    def write(self, number: int, id: bytes, text: str, outgoing: bool, way: str) -> None:
        def act() -> None:
            row = self.pick(number)
            if self.store.messages.by_id(row, id) is not None:
                return
            values = {"outgoing": outgoing, "kind": "text", "text": text, "state": "queued"}
            found = self.store.messages.add(id, row, sent_at=1, received_at=None, **values)
            if "two" in text:  # in the turn that has brought it
                last = self.store.messages.page(row, 1, None, None, ["two"])[-1]
                assert last.row == found.row
            self.model.messages.append({"row": found.row, "id": id, "contact": row, **values})

        self.change(way, act)

    @has_contacts
    @rule(
        number=positions,
        some=st.lists(ids, unique=True, max_size=12),
        before=st.sampled_from([("queued",), ("queued", "sent")]),
        state=st.sampled_from(["sent", "delivered"]),
        way=ways,
    )
    def advance(
        self, number: int, some: list[bytes], before: tuple[str, ...], state: str, way: str
    ) -> None:
        def act() -> None:
            row = self.pick(number)
            ours = [m for m in self.model.messages if m["contact"] == row and m["id"] in some]
            changed = [message for message in ours if message["state"] in before]
            found = self.store.messages.advance(row, some, before, state)
            assert found == [message["row"] for message in changed]
            for message in changed:
                message["state"] = state

        self.change(way, act)

    @precondition(lambda self: self.model.messages)
    @rule(number=positions, way=ways)
    def mark_read(self, number: int, way: str) -> None:
        def act() -> None:
            last = self.model.messages[number % len(self.model.messages)]
            changed = [
                message
                for message in self.model.messages
                if message["contact"] == last["contact"]
                and message["row"] <= last["row"]
                and message["outgoing"]
                and message["state"] == "delivered"
            ]
            found = self.store.messages.mark_read(last["contact"], last["row"])
            assert found == [message["row"] for message in changed]
            for message in changed:
                message["state"] = "read"

        self.change(way, act)

    @has_contacts
    @rule(number=positions, id=ids, way=ways)
    def queue(self, number: int, id: bytes, way: str) -> None:
        def act() -> None:
            row = self.pick(number)
            if self.store.transfers.by_id(row, id) is not None:
                return
            columns = {"outgoing": 1, "kind": "file", "name": b"n", "size": 1, "executable": 0}
            columns["mtime_ns"] = 1
            found = self.store.transfers.add(id, row, state="queued", created_at=1, **columns)
            transfer = {"row": found.row, "id": id, "contact": row, "state": "queued"}
            self.model.transfers.append(transfer)

        self.change(way, act)

    @precondition(lambda self: self.model.transfers)
    @rule(number=positions, state=st.sampled_from(["active", "done", "failed"]), way=ways)
    def move(self, number: int, state: str, way: str) -> None:
        def act() -> None:
            transfer = self.model.transfers[number % len(self.model.transfers)]
            self.store.transfers.update(transfer["row"], state=state)
            transfer["state"] = state

        self.change(way, act)

    # -- small things ------------------------------------------------------------------------

    @rule(type=st.sampled_from(["message.state", "error"]), ref=positions, way=ways)
    def publish(self, type: str, ref: int, way: str) -> None:
        def act() -> None:
            number = self.store.events.add(1, type, ref, "{}")
            assert not self.model.events or number > self.model.events[-1][0]
            self.model.events.append((number, type, ref))

        self.change(way, act)

    @rule(key=st.sampled_from("ab"), value=st.binary(max_size=5), way=ways)
    def set(self, key: str, value: bytes, way: str) -> None:
        def act() -> None:
            self.store.set_setting(key, value)
            self.store.set_client_ref("messages", key, [*value], 1)
            self.model.settings[key], self.model.refs[key] = value, [*value]

        self.change(way, act)

    @rule()
    def reopen(self) -> None:
        self.database.load(self.database.copy())

    # -- comparing ---------------------------------------------------------------------------

    @invariant()
    def contacts_are_the_same(self) -> None:
        names = ("key", "name", "trust", "out_highest", "read_upto")
        found = {
            row.row: {name: getattr(row, name) for name in names}
            for row in self.store.contacts.all()
        }
        assert found == self.model.rows
        for row in found:
            waiting = self.model.outbox.get(row, [])
            expected = [OutboxRow(number, id, 1, b"body") for number, id in waiting]
            assert self.store.outbox.page(row, 0, 1000) == expected
            assert self.store.outbox.count(row, (1,)) == len(waiting)
            heads = [(number, id, 1) for number, id in waiting if number <= 3]
            assert self.store.outbox.heads(row, 3) == heads

    @invariant()
    def messages_are_the_same(self) -> None:
        for row in self.model.rows:
            mine = [each for each in self.model.messages if each["contact"] == row]
            page = self.store.messages.page(row, 1000, None, None, [])
            assert [(m.row, m.id, m.text, m.state) for m in page] == [
                (m["row"], m["id"], m["text"], m["state"]) for m in mine
            ]
            found = self.store.messages.page(row, 1000, None, None, ["one"])
            assert [m.row for m in found] == [m["row"] for m in mine if "one" in m["text"]]
            unread = sum(1 for m in mine if not m["outgoing"])
            assert self.store.messages.unread(row, 0) == unread
            if mine:
                middle = mine[len(mine) // 2]["row"]
                after = self.store.messages.page(row, 2, None, middle, [])
                expected = [m["row"] for m in mine if m["row"] > middle][:2]
                assert [m.row for m in after] == expected
                before = self.store.messages.page(row, 2, middle, None, [])
                expected = [m["row"] for m in mine if m["row"] < middle][-2:]
                assert [m.row for m in before] == expected

    @invariant()
    def the_rest_is_the_same(self) -> None:
        page = self.store.transfers.page(None, 1000, None, None)
        assert [(t.row, t.id, t.state) for t in page] == [
            (t["row"], t["id"], t["state"]) for t in self.model.transfers
        ]
        live = [t["row"] for t in self.model.transfers if t["state"] in ("queued", "active")]
        assert [t.row for t in self.store.transfers.live()] == live
        events = self.store.events.after(0, 1000)
        assert [(e.number, e.type, e.ref) for e in events] == self.model.events
        for key, value in self.model.settings.items():
            assert self.store.get_setting(key) == value
            assert self.store.get_client_ref("messages", key) == self.model.refs[key]


TestStore = StoreAgainstModel.TestCase
TestStore.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def test_a_full_disk_leaves_the_last_commit():
    database = SimDatabase(lambda when: None)
    store = database.store
    with store.transaction():
        store.set_setting("a", b"1")
    database.set_full(True)
    with pytest.raises(Exception, match="full"), store.transaction(), store.savepoint():
        store.set_setting("a", b"2")
        for number in range(1000):
            store.set_setting(f"big{number}", bytes(5000))
    database.set_full(False)
    assert store.get_setting("a") == b"1"
    assert store.get_setting("big0") is None
