"""Files of folders: one row for each, and no more of them than are promised."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tntd import limits
from tntd.store import Store
from tntd.store.transfers import TransferRow
from tntd.store.trees import FileRow
from tntd.tasks import Entry


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with a transfer of a folder."""
    yield from filled(tmp_path)


def filled(folder: Path) -> Iterator[Store]:
    store = Store.open(folder / "store")
    with store.transaction():
        contact = store.contacts.add(
            b"k" * 32, "ann", "ann", trust="accepted", epoch=b"e" * 16, at=1
        )
        columns = {"outgoing": 0, "kind": "folder", "name": b"n", "size": 1, "mtime_ns": 1}
        store.transfers.add(
            b"i" * 16, contact.row, state="active", executable=0, created_at=1, **columns
        )
        yield store
    store.close()


def row(store: Store) -> TransferRow:
    """The transfer."""
    (found,) = store.transfers.live()
    return found


def put(store: Store, *entries: Entry) -> None:
    """What became of files."""
    store.trees.put(row(store).row, entries)


def test_what_is_told_again_replaces_what_was_told(store: Store) -> None:
    put(store, Entry(b"a", 1, "verified"), Entry(b"b", 2, "failed", "full"))
    put(store, Entry(b"b", 3, "verified"), Entry(b"c", 4, "skipped", "a pipe"))
    assert store.trees.page(row(store).row, None, 9) == [
        FileRow(b"a", 1, "verified", ""),
        FileRow(b"b", 3, "verified", ""),
        FileRow(b"c", 4, "skipped", "a pipe"),
    ]
    assert row(store).kept == 3


def test_what_is_to_be_sent_again_stays_so_when_it_goes_out(store: Store) -> None:
    put(store, Entry(b"a", 1, "failed", "full"))
    store.trees.restore(row(store).row)
    put(store, Entry(b"a", 1, "waiting"))
    assert store.trees.again(row(store).row) == [b"a"]
    put(store, Entry(b"a", 1, "verified"))
    assert store.trees.again(row(store).row) == []


def test_no_more_are_kept_than_there_is_room_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond, those that did not go well are counted; those that are known still change."""
    monkeypatch.setattr(limits, "TREE_FILES_KEPT_MAX", 3)
    put(store, Entry(b"a", 1, "verified"), Entry(b"b", 1, "failed", "full"))
    put(
        store,
        Entry(b"b", 1, "verified"),
        Entry(b"c", 1, "verified"),
        Entry(b"d", 1, "verified"),
        Entry(b"e", 1, "failed", "full"),
        Entry(b"f", 1, "failed", "full"),
        Entry(b"g", 1, "skipped", "a pipe"),
    )
    found = store.trees.page(row(store).row, None, 9)
    assert [(each.path, each.state) for each in found] == [
        (path, "verified") for path in (b"a", b"b", b"c")
    ]
    counts = row(store)
    assert (counts.kept, counts.skipped_beyond, counts.failed_beyond) == (3, 1, 2)
    for number in range(20):
        put(store, Entry(b"%d" % number, 1, "failed", "full"))
    assert len(store.trees.page(row(store).row, None, 99)) == 3
    assert row(store).failed_beyond == 22


_SIZES = st.integers(0, 1000)
_STATES = st.sampled_from(["verified", "waiting", "skipped", "failed"])
_ENTRIES = st.lists(st.builds(Entry, st.sampled_from([b"a", b"b", b"c", b"d"]), _SIZES, _STATES))


@given(st.lists(st.tuples(_ENTRIES, st.integers(0, 9), st.booleans())))
def test_files_and_bytes_are_counted_as_they_come(steps: list[tuple[Any, int, bool]]) -> None:
    """Nobody has to read all rows in the end, however many there are."""
    with tempfile.TemporaryDirectory() as folder:
        for store in filled(Path(folder)):
            for entries, number, doubts in steps:
                store.trees.put(row(store).row, entries, number)
                if doubts:
                    store.trees.doubt(row(store).row, number - 1)
                found = store.trees.page(row(store).row, None, 99)
                assert row(store).kept == len(found)
                assert row(store).bytes_kept == sum(each.size for each in found)
                for state, counted in store.trees.count_bad(row(store).row).items():
                    sizes = [each.size for each in found if each.state == state]
                    assert counted == (len(sizes), sum(sizes))


def test_a_page_costs_the_same_wherever_it_begins(store: Store) -> None:
    """A folder may have a million files, and the loop waits for each page."""
    files = [b"%06d" % number for number in range(20_000)]
    store.trees.put(1, [Entry(each, 1, "verified") for each in files])
    sql, steps = store.trees._sql, [0]

    def step() -> None:
        steps[-1] += 1

    sql.set_progress_handler(step, 10)
    for after in (files[0], files[-20]):
        assert store.trees.verified(1, after, 10) == files[files.index(after) + 1 :][:10]
        assert [each.path for each in store.trees.page(1, after, 10)][-1] == files[
            files.index(after) + 10
        ]
        steps.append(0)
    sql.set_progress_handler(None, 0)
    assert steps[1] <= steps[0] + 5
