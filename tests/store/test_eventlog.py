"""The event log: how far it reaches back, and what keeping it short costs."""

from __future__ import annotations

import pytest

from tntd import limits
from tntd.store import Store
from tntd.store.eventlog import EventLog

MONTH_MS = limits.EVENTS_KEPT_S * 1000


def numbers(log: EventLog) -> list[int]:
    return [row.number for row in log.after(0, 1 << 20)]


def test_old_events_go_and_young_ones_stay() -> None:
    store = Store.open(":memory:")
    with store.transaction():
        store.events.add_all(1, "error", [0] * 1500, "{}")
        store.events.add_all(MONTH_MS, "error", [0] * 1500, "{}")
        store.events.add_all(MONTH_MS + 2, "error", [0] * 1500, "{}")
        assert numbers(store.events) == list(range(1501, 4501))


def test_a_clock_set_far_forward_leaves_some(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(":memory:")
    with store.transaction():
        store.events.add_all(1, "error", [0] * 3000, "{}")
        store.events.add_all(9 * MONTH_MS, "error", [0] * 100, "{}")
        assert numbers(store.events) == list(range(3100 - 1023, 3101))
        monkeypatch.setattr(limits, "EVENTS_KEPT_MAX", 500)
        store.events.add_all(9 * MONTH_MS, "error", [0] * 1000, "{}")
        assert numbers(store.events) == list(range(3601, 4101))


def test_where_nothing_is_old_nothing_is_looked_through() -> None:
    store = Store.open(":memory:")
    with store.transaction():
        store.events.add_all(5, "error", [0] * 50_000, "{}")
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        store._sql.set_progress_handler(count, 1000)
        store.events.add_all(5, "error", [0] * 1024, "{}")
    assert steps < 60  # of a thousand instructions each, most of them for adding
