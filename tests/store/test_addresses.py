"""The addresses of a contact: the latest ones, whatever the clock said meanwhile."""

from __future__ import annotations

from tntd import limits
from tntd.store import Store

YEAR_MS = 365 * 24 * 3600 * 1000
NOW_MS = 57 * YEAR_MS


def test_addresses_met_while_the_clock_was_ahead_make_room_for_later_ones() -> None:
    store = Store.open(":memory:")
    with store.transaction():
        contact = store.contacts.add(
            b"k" * 32, "bob", "bob", trust="accepted", epoch=b"e" * 16, at=1
        )
        for number in range(limits.ADDRESSES_MAX):
            store.contacts.meet(contact.row, f"10.0.0.{number}", 6000, NOW_MS + 50 * YEAR_MS)
        for number in range(3):  # told together
            store.contacts.meet(contact.row, f"10.9.9.{number}", 6000, NOW_MS)
        found = store.contacts.addresses(contact.row)
    assert len(found) == limits.ADDRESSES_MAX
    assert found[:3] == [(f"10.9.9.{number}", 6000) for number in range(3)]
