"""What the REPL keeps on disk: private, whole, and no trouble when it is damaged."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from tnt_client import repl_memory
from tnt_client.repl_memory import Place, PlaceKeeper, load_place, open_history, save_place

PLACE = Place(id="k", cursor="e.5", at="2026-11-24T12:00:00.000Z", conversation="c")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TNT_HOME", str(tmp_path))
    return tmp_path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_place_is_kept_for_its_owner_only():
    save_place("alice", PLACE)
    assert load_place("alice") == PLACE
    folder = repl_memory.folder("alice")
    assert [entry.name for entry in folder.iterdir()] == ["place.json"]
    assert load_place("bob") == Place()
    if os.name == "posix":
        assert (mode(folder), mode(folder / "place.json")) == (0o700, 0o600)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"cursor": 5}', b"\xff\x00", b"null"])
def test_a_damaged_place_is_as_good_as_none(damage: bytes):
    save_place("alice", PLACE)
    (repl_memory.folder("alice") / "place.json").write_bytes(damage)
    assert load_place("alice") == Place()


def test_the_place_is_written_soon_and_at_the_end():
    async def play() -> None:
        keeper = PlaceKeeper("alice", pytest.fail)
        keeper.belongs_to("k")
        for number in range(100):
            keeper.reached(f"e.{number}")
        assert load_place("alice").cursor is None  # a flood is one write
        keeper.save()
        assert load_place("alice").cursor == "e.99"
        keeper.belongs_to("another daemon's key")
        assert keeper.place.cursor is None

    asyncio.run(play())


def test_a_disk_that_cannot_be_written_is_told_once(own_home: Path):
    async def play() -> None:
        told: list[str] = []
        keeper = PlaceKeeper("alice", told.append)
        (own_home / "data").write_text("a file where the folder should be")
        keeper.save()
        keeper.save()
        assert len(told) == 1 and "cannot be remembered" in told[0]

    asyncio.run(play())


def test_typed_lines_are_kept_for_their_owner_only():
    history = open_history("alice")
    history.append_string("hello")
    history.append_string("two\nlines")
    assert list(open_history("alice").load_history_strings()) == ["two\nlines", "hello"]
    if os.name == "posix":
        assert mode(repl_memory.folder("alice") / "history") == 0o600


def test_a_long_history_loses_its_older_half(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(repl_memory, "HISTORY_BYTES_MAX", 2_000)
    history = open_history("alice")
    for number in range(100):
        history.append_string(f"line {number}")
    kept = list(open_history("alice").load_history_strings())
    assert kept[0] == "line 99" and 5 < len(kept) < 50
    assert all(line.startswith("line ") for line in kept)


def test_a_line_longer_than_a_message_is_not_kept_on_disk():
    history = open_history("alice")
    history.append_string("short")
    history.append_string("x" * 65_537)
    assert list(open_history("alice").load_history_strings()) == ["short"]
