"""The reserve of disk space, and the database's log that may not grow without end."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from faults.disks import small_disk
from tntd import limits
from tntd.store import Store, StoreFailed
from tntd.store.reserve import Reserve


def test_the_space_is_really_taken(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "reserve")
    assert not reserve.held
    assert reserve.take()
    found = (tmp_path / "reserve").stat()
    assert found.st_size == limits.RESERVE_BYTES
    assert found.st_blocks * 512 >= limits.RESERVE_BYTES
    assert stat.S_IMODE(found.st_mode) == 0o600
    reserve.give_up()
    assert not reserve.held
    assert (tmp_path / "reserve").stat().st_blocks == 0
    assert reserve.take()


def test_it_is_kept_over_a_restart(tmp_path: Path) -> None:
    disk = small_disk(tmp_path / "disk", 9 * limits.MIB)
    try:
        assert Reserve(disk.path / "reserve").take()
        disk.fill(leave=limits.RESERVE_BYTES + limits.MIB)
        assert Reserve(disk.path / "reserve").take(), "it is there already: only the rest counts"
    finally:
        disk.close()


def test_it_is_not_taken_from_the_last_free_space(tmp_path: Path) -> None:
    disk = small_disk(tmp_path / "disk", 16 * limits.MIB)
    try:
        disk.fill(leave=2 * limits.RESERVE_BYTES - limits.MIB)
        reserve = Reserve(disk.path / "reserve")
        assert not reserve.take()
        assert (disk.path / "reserve").stat().st_blocks == 0
        disk.free()
        assert reserve.take()
    finally:
        disk.close()


def test_no_failure_of_it_is_an_error(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "missing" / "reserve")
    assert not reserve.take()
    reserve.give_up()


# Within an event; and, as at the end of a turn, outside of all. (More than the cache holds.)
@pytest.mark.parametrize("within", [Store.savepoint, contextlib.nullcontext])
def test_a_store_without_room_is_short_until_there_is_some(
    tmp_path: Path, within: Callable[[Store], AbstractContextManager[object]]
) -> None:
    disk = small_disk(tmp_path / "disk", 16 * limits.MIB)
    store = Store.open(disk.path / "tnt.db")
    try:
        assert not store.short
        disk.fill()
        with pytest.raises(StoreFailed), store.transaction(), within(store):
            store.set_setting("large", os.urandom(8 * limits.MIB))
        assert store.short
        with store.transaction():
            store.set_setting("small", b"1")
        assert not store.make_room()
        disk.free()
        assert store.make_room()
        assert not store.short
        with store.transaction():
            assert store.get_setting("small") == b"1"
            assert store.get_setting("large") is None
    finally:
        store.close()
        disk.close()


def test_a_store_in_memory_has_none() -> None:
    store = Store.open(":memory:")
    assert not store.short
    assert store.make_room()


def test_the_log_does_not_grow_without_end(tmp_path: Path) -> None:
    """Also where there is no quiet moment to tidy up in."""
    store = Store.open(tmp_path / "tnt.db")
    value = os.urandom(32 * limits.KIB)
    highest = 0
    for number in range(1500):
        with store.transaction():
            store.set_setting("x", value + bytes([number % 256]))
        highest = max(highest, (tmp_path / "tnt.db-wal").stat().st_size)
    one_look = limits.WAL_LOOK_COMMITS * (len(value) + 16 * limits.KIB)
    assert highest < limits.WAL_CHECKPOINT_BYTES + one_look
    store.close()
