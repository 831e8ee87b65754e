"""The spool: only whole folders in it are removed, and only old ones by themselves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tntd import limits
from tntd.shell import child_tree_remove
from tntd.shell.child_disk import perform
from tntd.tasks import CleanSpool, Counted, Done, Failed, Unspool


@pytest.fixture(autouse=True)
def time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is not cut short where this machine stands still for a moment."""
    monkeypatch.setattr(child_tree_remove, "_STEP_S", 60.0)


def made(spool: Path, name: str, age_s: float = 0.0, size: int = 5) -> Path:
    folder = spool / name
    folder.mkdir(parents=True)
    with (folder / "x").open("wb") as file:
        file.truncate(size)
    then = folder.stat().st_mtime - age_s
    os.utime(folder, (then, then))
    return folder


def test_a_folder_is_removed_and_nothing_beside_it(tmp_path: Path):
    spool = tmp_path / "spool"
    one, two = made(spool, "one"), made(spool, "two")
    for _ in range(2):
        assert perform(Unspool(bytes(spool), b"one"), None)[0] == Done()
    assert not one.exists() and two.exists()
    assert perform(Unspool(bytes(tmp_path / "none"), b"one"), None)[0] == Done()


@pytest.mark.parametrize("name", [b"..", b".", b"", b"a/b"])
def test_a_name_that_is_none_removes_nothing(tmp_path: Path, name: bytes):
    made(tmp_path, "spool")
    answer = perform(Unspool(bytes(tmp_path / "spool"), name), None)[0]
    assert isinstance(answer, Failed) and answer.code == "EINVAL"
    assert (tmp_path / "spool" / "x").exists()


def test_a_link_is_removed_and_not_followed(tmp_path: Path):
    kept = made(tmp_path, "elsewhere")
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "link").symlink_to(kept)
    assert perform(Unspool(bytes(tmp_path / "spool"), b"link"), None)[0] == Done()
    assert (kept / "x").exists() and not list((tmp_path / "spool").iterdir())


def test_only_what_is_old_and_not_needed_goes(tmp_path: Path):
    spool = tmp_path / "spool"
    for name, age in (("old", 100), ("kept", 100), ("young", 10)):
        made(spool, name, age)
    assert perform(CleanSpool(bytes(spool), [b"kept"], 60), None)[0] == Counted(1, 5, True)
    assert sorted(path.name for path in spool.iterdir()) == ["kept", "young"]
    assert perform(CleanSpool(bytes(tmp_path / "none"), [], 60), None)[0] == Counted(0, 0, True)


def test_many_files_go_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "DISCARD_STEP_FILES", 2)
    for number in range(5):
        made(tmp_path / "spool", str(number), 100)
    request = CleanSpool(bytes(tmp_path / "spool"), [], 60)
    answers = [perform(request, None)[0] for _ in range(3)]
    assert answers == [Counted(2, 10, False), Counted(2, 10, False), Counted(1, 5, True)]
