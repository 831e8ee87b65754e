"""The queue in the store: what is live is found beside however much has ended."""

from __future__ import annotations

from pathlib import Path

from tntd.machines.transfer import NEXT, State
from tntd.store import Store
from tntd.store.transfers import ENDED


def test_what_is_live_is_found_without_a_look_at_what_has_ended(tmp_path: Path) -> None:
    """A peer may say "first" as often as it likes, and a history has many thousands."""
    store, steps = Store.open(tmp_path / "store"), [0]
    same = {"outgoing": 0, "kind": "file", "name": b"n", "size": 1, "mtime_ns": 1, "executable": 0}
    with store.transaction():
        ann = store.contacts.add(b"k" * 32, "ann", "ann", trust="accepted", epoch=b"e" * 16, at=1)
        for number in range(2_000):
            id = number.to_bytes(16, "big")
            store.transfers.add(id, ann.row, state="done", created_at=1, place=-9, **same)
        live = [
            store.transfers.add(
                state.encode().ljust(16), ann.row, state=state, created_at=1, **same
            )
            for state in sorted(set(State) - set(ENDED))
        ]
        store.transfers.update(live[0].row, place=-3)

        def step() -> None:
            steps[0] += 1

        store.transfers._sql.set_progress_handler(step, 10)
        assert [each.row for each in store.transfers.live()] == [each.row for each in live]
        assert len(store.transfers.live(ann.row)) == len(live) == len(NEXT) - len(ENDED)
        assert store.transfers.front() == -4
        store.transfers._sql.set_progress_handler(None, 0)
    store.close()
    assert steps[0] < 200
