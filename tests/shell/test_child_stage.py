"""Stages: made, filled with large files, merged, given their names, removed."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from moving import picture
from swaps import Racer, swap
from tntd import limits
from tntd.machines import tree
from tntd.shell import (
    child_disk,
    child_file,
    child_folder,
    child_stage_files,
    child_sweep,
    child_tree_remove,
)
from tntd.tasks import (
    Answer,
    AnyTask,
    CleanStages,
    CopyRange,
    Counted,
    DiscardPart,
    Done,
    Entry,
    EntryOpened,
    Failed,
    FinishEntry,
    Hashed,
    HashRange,
    Inspected,
    MergeStage,
    OpenEntry,
    PrepareStage,
    Publish,
    SweepStage,
    SyncPart,
    SyncStage,
    Unpacked,
)

MTIME_NS = 1_600_000_000_123_456_700
MIB = limits.MIB


def do(task: AnyTask, given: int | None = None) -> Answer:
    """Do a task; an opened file is closed."""
    answer, opened, _ = child_disk.perform(task, given)
    if opened is not None:
        os.close(opened)
    return answer


def code(task: AnyTask, given: int | None = None) -> str:
    """The code with which a task fails."""
    answer = do(task, given)
    assert isinstance(answer, Failed), answer
    assert answer.text and "/" not in answer.text
    return answer.code


class Place:
    """A downloads folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = os.fsencode(path)
        self.parts = path / ".tnt-part"
        self.stage = self.parts / "stage"

    def prepare(self, tree: bool = True, name: bytes = b"stage") -> Inspected:
        """Make a stage."""
        answer = do(PrepareStage(self.bytes, name, tree, 0, 0))
        assert isinstance(answer, Inspected), answer
        return answer

    def open(self, path: bytes, size: int, **base: object) -> tuple[EntryOpened, int]:
        """Open a file of the stage."""
        task = OpenEntry(1, self.bytes, b"stage", path, size, **base)  # type: ignore[arg-type]
        answer, opened, _ = child_disk.perform(task, None)
        assert isinstance(answer, EntryOpened) and opened is not None, answer
        return answer, opened

    def publish(self, inode: int, name: bytes = b"final", tree: bool = True) -> Publish:
        """The task that gives the stage its name."""
        return Publish(self.bytes, b"stage", name, inode, MTIME_NS, False, tree)


@pytest.fixture(autouse=True)
def time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is not cut short where this machine stands still for a moment."""
    for module in (child_sweep, child_tree_remove):
        monkeypatch.setattr(module, "_STEP_S", 60.0)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A folder that is not there yet."""
    yield Place(tmp_path / "downloads" / "here")
    child_disk.forget()


@pytest.fixture
def base(tmp_path: Path) -> tuple[bytes, int, bytes]:
    """An older copy: its path, ctime, content."""
    path = tmp_path / "older"
    content = os.urandom(3 * MIB + 17)
    path.write_bytes(content)
    return os.fsencode(path), path.stat().st_ctime_ns, content


# -- making one ---------------------------------------------------------------------------


def test_prepare_a_tree(place: Place) -> None:
    made = place.prepare()
    assert (made.kind, made.size) == ("folder", 0) and made.inode == place.stage.stat().st_ino
    assert stat.S_IMODE(place.parts.stat().st_mode) == 0o700
    (place.stage / "x").touch()
    again = place.prepare()
    assert (again.inode, again.size) == (made.inode, 1)
    assert code(PrepareStage(place.bytes, b"stage", False, 0, 0)) == "EEXIST"


def test_prepare_a_file(place: Place) -> None:
    made = place.prepare(tree=False)
    assert (made.kind, made.size) == ("file", 0) and made.inode == place.stage.stat().st_ino
    place.stage.write_bytes(b"12345")
    again = place.prepare(tree=False)
    assert (again.inode, again.size) == (made.inode, 5)
    os.link(place.stage, place.path / "finished")
    other = place.prepare(tree=False)
    assert other.inode != made.inode and other.size == 0
    assert (place.path / "finished").read_bytes() == b"12345"
    assert code(PrepareStage(place.bytes, b"stage", True, 0, 0)) == "ENOTDIR"


def test_room_beside_what_is_there(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_file, "free_bytes", lambda _: 10 * MIB)
    place.prepare(tree=False)
    assert code(PrepareStage(place.bytes, b"stage", False, 10 * MIB, 1)) == "ENOSPC"
    place.stage.write_bytes(b"x" * MIB)
    assert isinstance(do(PrepareStage(place.bytes, b"stage", False, 10 * MIB, MIB)), Inspected)
    assert code(PrepareStage(place.bytes, b"stage", False, 11 * MIB, 1)) == "ENOSPC"


def test_a_link_is_no_stage(place: Place, tmp_path: Path) -> None:
    place.prepare(name=b"other")
    outside = tmp_path / "outside"
    outside.mkdir()
    place.stage.symlink_to(outside)
    assert code(PrepareStage(place.bytes, b"stage", True, 0, 0)) in {"ENOTDIR", "ELOOP"}
    assert code(PrepareStage(place.bytes, b"stage", False, 0, 0)) == "EEXIST"
    assert code(OpenEntry(1, place.bytes, b"stage", b"", 1)) == "EEXIST"
    assert code(OpenEntry(1, place.bytes, b"stage", b"x", 1)) in {"ENOTDIR", "ELOOP"}
    assert os.listdir(outside) == []


# -- large files --------------------------------------------------------------------------


@pytest.mark.parametrize("path", [b"", b"a/b/large"])
def test_open_and_open_again(place: Place, path: bytes) -> None:
    place.prepare(tree=bool(path))
    first, opened = place.open(path, 100)
    assert (first.size, first.base_size) == (0, -1)
    assert first.inode == os.fstat(opened).st_ino
    os.pwrite(opened, b"x" * 100, 0)
    os.close(opened)
    for size, there in ((200, 100), (100, 100), (40, 40), (0, 0)):
        again, opened = place.open(path, size)
        assert (again.inode, again.size) == (first.inode, there)
        assert os.pread(opened, 200, 0) == b"x" * there
        os.close(opened)


def test_space_is_set_aside_and_given_back(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.prepare()
    _, opened = place.open(b"f", 8 * MIB)
    assert os.fstat(opened).st_size == 0 and os.fstat(opened).st_blocks * 512 >= 8 * MIB
    os.close(opened)
    real = child_file.reserve

    def full(descriptor: int, size: int) -> None:
        real(descriptor, size // 2)
        raise OSError(28, "full")

    monkeypatch.setattr(child_file, "reserve", full)
    assert code(OpenEntry(1, place.bytes, b"stage", b"f", 8 * MIB)) == "ENOSPC"
    assert (place.stage / "f").stat().st_blocks == 0


def test_paths_with_a_problem(place: Place) -> None:
    place.prepare()
    assert do(OpenEntry(1, place.bytes, b"stage", b"a/../b", 1)) == Failed("EINVAL", tree.NO_NAME)


def test_a_part_with_another_name_is_made_anew(place: Place) -> None:
    place.prepare()
    (place.stage / "f").write_bytes(b"old")
    os.link(place.stage / "f", place.path / "other")
    answer, opened = place.open(b"f", 10)
    os.close(opened)
    assert answer.size == 0 and (place.path / "other").read_bytes() == b"old"
    (place.stage / "d").mkdir()
    os.mkfifo(place.stage / "pipe")
    for name in (b"d", b"pipe"):
        assert code(OpenEntry(1, place.bytes, b"stage", name, 1)) == "EEXIST"


def test_finish(place: Place) -> None:
    place.prepare()
    _, opened = place.open(b"f", 10)
    for executable, mode in ((True, 0o755), (False, 0o644)):
        umask = os.umask(0o022)
        assert do(FinishEntry(1, MTIME_NS, executable), opened) == Done()
        os.umask(umask)
        found = (place.stage / "f").stat()
        assert stat.S_IMODE(found.st_mode) == mode and found.st_mtime_ns == MTIME_NS
    os.close(opened)
    assert code(FinishEntry(1, MTIME_NS, False)) == "EMFILE"


# -- what is there ------------------------------------------------------------------------


def hashes(content: bytes, block: int) -> bytes:
    """The hashes of its blocks."""
    return b"".join(
        blake3(content[at : at + block]).digest() for at in range(0, len(content), block)
    )


def test_hashes_of_ranges(place: Place) -> None:
    content = os.urandom(3 * MIB + 17)
    place.prepare()
    _, opened = place.open(b"f", len(content))
    os.pwrite(opened, content, 0)
    for block in (MIB, 2 * MIB, 64 * MIB):
        whole = Hashed(hashes(content, block))
        assert do(HashRange(1, 0, len(content), block), opened) == whole
        assert do(HashRange(1, 0, 64 * MIB, block), opened) == whole  # it ends before
    assert do(HashRange(1, MIB, MIB, MIB), opened) == Hashed(hashes(content[MIB : 2 * MIB], MIB))
    assert do(HashRange(1, 2 * MIB, MIB + 9, MIB), opened) == Hashed(
        hashes(content[2 * MIB : 3 * MIB + 9], MIB)
    )
    assert do(HashRange(1, 8 * MIB, MIB, MIB), opened) == Hashed(b"")
    for offset, length, block in ((1, 1, MIB), (0, 1, 0), (0, -1, MIB), (-MIB, 1, MIB)):
        assert code(HashRange(1, offset, length, block), opened) == "EINVAL"
    assert code(HashRange(1, 0, 1, MIB)) == "EMFILE"
    os.close(opened)


def test_an_older_copy(place: Place, base: tuple[bytes, int, bytes]) -> None:
    path, ctime, content = base
    place.prepare(tree=False)
    answer, opened = place.open(b"", len(content), base=path, base_ctime_ns=ctime)
    assert (answer.size, answer.base_size) == (0, len(content))
    assert do(HashRange(1, 0, len(content), MIB, path, b"", ctime)) == Hashed(hashes(content, MIB))
    copied = do(CopyRange(1, MIB, 64 * MIB, MIB, path, b"", ctime), opened)
    assert copied == Hashed(hashes(content[MIB:], MIB))
    assert os.pread(opened, len(content), MIB) == content[MIB:]
    # It counts also where something is there of the part itself: that may be less of it.
    os.close(opened)
    answer, opened = place.open(b"", len(content), base=path, base_ctime_ns=ctime)
    assert (answer.size, answer.base_size) == (len(content), len(content))
    os.close(opened)


def test_a_copy_without_the_call_for_it(
    place: Place, base: tuple[bytes, int, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, ctime, content = base
    place.prepare()
    _, opened = place.open(b"f", len(content))

    def refuse(*_: object) -> int:
        raise OSError(18, "between devices")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    assert do(CopyRange(1, 0, 64 * MIB, MIB, path, b"", ctime), opened) == Hashed(
        hashes(content, MIB)
    )
    assert os.pread(opened, 4 * MIB, 0) == content
    os.close(opened)


def test_an_older_copy_that_is_none_any_more(
    place: Place, base: tuple[bytes, int, bytes], tmp_path: Path
) -> None:
    path, ctime, content = base
    place.prepare()
    older = tmp_path / "folder" / "sub"
    older.mkdir(parents=True)
    os.rename(path, older / "f")
    ctime = (older / "f").stat().st_ctime_ns
    root = os.fsencode(older.parent)
    good, opened = place.open(b"f", 10, base=root + b"/sub", base_ctime_ns=ctime)
    assert good.base_size == len(content)
    (tmp_path / "folder" / "link").symlink_to("sub")
    (older / "pipe").touch()
    (older / "pipe").unlink()
    os.mkfifo(older / "pipe")
    (older / "link").symlink_to("f")
    assert do(HashRange(1, 0, 1, MIB, root, b"sub/f", ctime)) == Hashed(hashes(content[:1], 1))
    for path_in, when in (
        (b"sub/f", ctime - 1),
        (b"link/f", ctime),
        (b"sub/link", ctime),
        (b"sub/pipe", 2**62),
        (b"sub", 2**62),
        (b"none", ctime),
        (b"../folder/sub/f", ctime),
    ):
        failed = code(HashRange(1, 0, 1, MIB, root, path_in, when))
        assert failed in {"ESTALE", "ENOTDIR", "ELOOP", "ENOENT", "EINVAL"}
        assert code(CopyRange(1, 0, 1, MIB, root, path_in, when), opened) == failed
    os.close(opened)
    answer, opened = place.open(b"f", 10, base=root, base_ctime_ns=ctime)
    assert answer.base_size == -1
    os.close(opened)


def test_a_base_that_ends_early_is_no_endless_copy(
    place: Place, base: tuple[bytes, int, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, ctime, _ = base
    place.prepare()
    _, opened = place.open(b"f", 10)
    monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    monkeypatch.setattr(child_stage_files, "read_at", lambda *_, **__: 0)
    assert code(CopyRange(1, 0, 10, MIB, path, b"", ctime), opened) == "ESTALE"
    os.close(opened)


# -- the disk -----------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [True, False])
def test_sync(place: Place, monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    place.prepare()
    (place.stage / "d" / ".tnt-part").mkdir(parents=True)
    (place.stage / "d" / ".tnt-part" / "f").write_bytes(b"x")
    (place.stage / "g").write_bytes(b"x")
    synced: list[int] = []

    def note(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(child_file, "sync", note)
    monkeypatch.setattr(child_folder, "sync", note)
    if not whole:
        monkeypatch.setattr(child_file, "sync_all", lambda _: False)
    assert do(SyncStage(place.bytes, b"stage")) == Done()
    inside = [place.stage, place.stage / "g", place.stage / "d", place.stage / "d" / ".tnt-part"]
    inside.append(place.stage / "d" / ".tnt-part" / "f")
    wanted = [place.parts, place.path] + ([] if whole else inside)
    assert sorted(synced) == sorted(path.stat().st_ino for path in wanted)


def test_sync_of_a_file(place: Place) -> None:
    place.prepare(tree=False)
    assert do(SyncStage(place.bytes, b"stage")) == Done()
    assert code(SyncStage(place.bytes, b"none")) == "ENOENT"


# -- to its name --------------------------------------------------------------------------


def test_publish_a_tree(place: Place) -> None:
    inode = place.prepare().inode
    (place.stage / "f").write_bytes(b"x")
    os.utime(place.stage, ns=(0, MTIME_NS + 5))
    task = place.publish(inode)
    for _ in range(2):
        answer = do(task)
        assert isinstance(answer, Inspected)
        assert (answer.kind, answer.inode, answer.mtime_ns) == ("folder", inode, MTIME_NS + 5)
        assert answer.ctime_ns == (place.path / "final").stat().st_ctime_ns
        assert os.listdir(place.path) == ["final"]
    assert (place.path / "final" / "f").read_bytes() == b"x"


def test_publish_a_file_tells_what_stands_there(place: Place) -> None:
    inode = place.prepare(tree=False).inode
    answer = do(place.publish(inode, tree=False))
    found = (place.path / "final").stat()
    assert isinstance(answer, Inspected)
    assert (answer.inode, answer.ctime_ns, answer.mtime_ns) == (
        inode,
        found.st_ctime_ns,
        MTIME_NS,
    )


def without_the_exclusive_rename(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a system that has none."""

    def missing(*_: object) -> None:
        raise OSError(38, "not there")

    monkeypatch.setattr(child_folder.Folder, "_rename_exclusively", missing)


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("kind", ["file", "folder", "full", "link", "dangling"])
def test_a_tree_never_replaces_anything(
    place: Place, monkeypatch: pytest.MonkeyPatch, kind: str, exclusive: bool
) -> None:
    if not exclusive:
        without_the_exclusive_rename(monkeypatch)
    inode = place.prepare().inode
    (place.stage / "f").write_bytes(b"x")
    final = place.path / "final"
    if kind == "file":
        final.touch()
    elif kind in {"folder", "full"}:
        final.mkdir()
        if kind == "full":
            (final / "mine").touch()
    else:
        final.symlink_to("/tmp" if kind == "link" else "/none")
    before = final.lstat()
    assert code(place.publish(inode)) == "EEXIST"
    assert final.lstat().st_ino == before.st_ino
    assert isinstance(do(place.publish(inode, b"final (2)")), Inspected)
    assert os.listdir(place.path / "final (2)") == ["f"]


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_name_that_appears_at_the_last_moment(
    place: Place, monkeypatch: pytest.MonkeyPatch, exclusive: bool
) -> None:
    """Between the look and the rename: an empty folder, which a plain rename would replace."""
    if not exclusive:
        without_the_exclusive_rename(monkeypatch)
    inode = place.prepare().inode
    final = place.path / "final"
    real = child_folder.Folder.move

    def late(self: child_folder.Folder, *arguments: object, **named: object) -> None:
        final.mkdir()
        real(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(child_folder.Folder, "move", late)
    before = None
    assert code(place.publish(inode)) == "EEXIST"
    before = final.stat().st_ino
    assert before != inode and place.stage.stat().st_ino == inode


def test_a_claim_that_fails_is_taken_back(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    without_the_exclusive_rename(monkeypatch)
    inode = place.prepare().inode

    def fails(*_: object, **__: object) -> None:
        raise OSError(5, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fails)
        assert code(place.publish(inode)) == "EIO"
    assert os.listdir(place.path) == [".tnt-part"]
    assert isinstance(do(place.publish(inode)), Inspected)


@pytest.mark.parametrize("tree", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_a_stage_of_which_something_was_lost_is_gone(
    place: Place, monkeypatch: pytest.MonkeyPatch, tree: bool, whole: bool
) -> None:
    """The system says once what it has lost, and the daemon may end before it hears of that."""
    place.prepare(tree=tree)
    path = place.stage / "file" if tree else place.stage
    path.write_bytes(b"seems to be there")
    lost = place.parts / "stage.lost"
    lost.mkdir()
    (lost / "of an earlier time").touch()

    def fails(_: object) -> None:
        raise OSError(28, "no space")

    descriptor = os.open(path, os.O_RDWR)
    with monkeypatch.context() as patch:
        for name in ("sync", "sync_data", "sync_all"):
            patch.setattr(child_file, name, fails)
        patch.setattr(child_file, "is_in_memory", lambda _: False)
        if whole:
            assert code(SyncStage(place.bytes, b"stage")) == "ENOSPC"
        else:
            assert code(SyncPart(1, place.bytes, b"stage"), descriptor) == "ENOSPC"
    os.close(descriptor)
    assert list(place.parts.iterdir()) == []
    assert place.prepare(tree=tree).size == 0


def test_what_was_lost_and_could_not_be_removed_goes_with_its_stage(place: Place) -> None:
    place.prepare(tree=True)
    (place.parts / "stage.lost").mkdir()
    (place.parts / "stage.lost" / "file").touch()
    assert isinstance(do(DiscardPart(place.bytes, b"stage")), Done)
    assert not place.parts.exists()


@pytest.mark.parametrize("is_tree", [True, False])
def test_what_was_lost_does_not_outlive_what_came_in_its_place(place: Place, is_tree: bool) -> None:
    task = place.publish(place.prepare(is_tree).inode, tree=is_tree)
    (place.parts / "stage.lost").mkdir()
    (place.parts / "stage.lost" / "file").touch()
    assert isinstance(do(task), Inspected)
    assert os.listdir(place.path) == ["final"]


def fail_syncs_of_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk that has just broken."""

    def fails(_: object) -> None:
        raise OSError(5, "broken")

    monkeypatch.setattr(child_folder, "sync", fails)
    monkeypatch.setattr(child_file, "sync_all", fails)


@pytest.mark.parametrize("is_tree", [True, False])
def test_what_has_its_name_is_not_forgotten(
    place: Place, monkeypatch: pytest.MonkeyPatch, is_tree: bool
) -> None:
    task = place.publish(place.prepare(is_tree).inode, tree=is_tree)
    with monkeypatch.context() as patch:
        fail_syncs_of_folders(patch)
        for _ in range(3):
            assert code(task) == "UNSURE"
            assert "final" in os.listdir(place.path) and not place.stage.exists()
    assert isinstance(do(task), Inspected)
    assert os.listdir(place.path) == ["final"]


def test_a_look_that_fails_says_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    task = place.publish(place.prepare().inode)

    def fails(*_: object) -> None:
        raise OSError(5, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(child_folder.Folder, "look", fails)
        assert code(task) == "UNSURE"
    assert isinstance(do(task), Inspected)


def test_a_file_whose_old_name_stays(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    without_the_exclusive_rename(monkeypatch)
    task = place.publish(place.prepare(tree=False).inode, tree=False)

    def fails(*_: object, **__: object) -> None:
        raise OSError(5, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", fails)
        assert code(task) == "UNSURE"
    assert (place.path / "final").stat().st_nlink == 2
    assert isinstance(do(task), Inspected)
    assert (place.path / "final").stat().st_nlink == 1


def test_what_is_not_the_stage_is_not_published(place: Place) -> None:
    inode = place.prepare().inode
    assert code(place.publish(inode + 1)) == "ESTALE"
    assert code(place.publish(inode, tree=False)) in {"EISDIR", "ESTALE"}
    place.stage.rmdir()
    assert code(place.publish(inode)) == "ENOENT"
    place.stage.symlink_to("/tmp")
    assert code(place.publish(inode)) == "ESTALE"


# -- merging ------------------------------------------------------------------------------


def test_merge(place: Place) -> None:
    place.prepare()
    final = place.path / "final"
    (final / "both").mkdir(parents=True)
    (final / "taken").write_bytes(b"mine")
    (final / "wall").write_bytes(b"mine")
    (final / "door").symlink_to("/tmp")
    for path in ("new/a/b", "both/c", "taken", "wall/d", "door/e", "f"):
        (place.stage / path).parent.mkdir(parents=True, exist_ok=True)
        (place.stage / path).write_bytes(b"theirs")
    (place.stage / "both" / "link").symlink_to("c")
    task = MergeStage(place.bytes, b"stage", b"final", final.stat().st_ino)
    failed = {
        Entry(path, 6, "failed", tree.TAKEN_THERE) for path in (b"taken", b"wall/d", b"door/e")
    }
    for _ in range(2):
        answer = do(task)
        assert isinstance(answer, Unpacked) and set(answer.entries) == failed
    for path in ("new/a/b", "both/c", "both/link", "f"):
        assert (final / path).read_bytes() == b"theirs"
    assert (final / "taken").read_bytes() == (final / "wall").read_bytes() == b"mine"
    assert sorted(os.listdir(place.stage)) == ["door", "taken", "wall"]
    (final / "taken").unlink()
    (final / "wall").unlink()
    (final / "door").unlink()
    for _ in range(2):
        assert do(task) == Unpacked([], 0, b"", 0)
    assert os.listdir(place.path) == ["final"] and (final / "door" / "e").exists()


def test_what_came_before_and_is_the_same_is_no_failure(place: Place) -> None:
    place.prepare()
    final = place.path / "final"
    for root in (place.stage, final):
        root.mkdir(exist_ok=True)
        (root / "same").write_bytes(b"same")
        (root / "empty").touch()
        (root / "link").symlink_to("same")
        (root / "other").write_bytes(bytes(root is final) * 300_000)
    (place.stage / "elsewhere").symlink_to("same")
    (final / "elsewhere").symlink_to("other")
    before = {path.name: path.lstat().st_ino for path in final.iterdir()}
    answer = do(MergeStage(place.bytes, b"stage", b"final", final.stat().st_ino))
    assert isinstance(answer, Unpacked)
    assert sorted(each.path for each in answer.entries) == [b"elsewhere", b"other"]
    assert {path.name: path.lstat().st_ino for path in final.iterdir()} == before
    assert sorted(os.listdir(place.stage)) == ["elsewhere", "other"]


def test_what_was_moved_is_not_forgotten(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.prepare()
    final = place.path / "final"
    final.mkdir()
    for name in ("moved", "taken"):
        (place.stage / name).write_bytes(b"x")
    (final / "taken").touch()
    task = MergeStage(place.bytes, b"stage", b"final", final.stat().st_ino)
    with monkeypatch.context() as patch:
        fail_syncs_of_folders(patch)
        for _ in range(3):
            assert code(task) == "UNSURE"
    answer = Unpacked([Entry(b"taken", 1, "failed", tree.TAKEN_THERE)], 1, b"", 0)
    assert do(task) == answer == do(task)
    assert (final / "moved").read_bytes() == b"x"


def test_a_merge_with_somebody_else_at_work(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.prepare()
    final = place.path / "final"
    final.mkdir()
    (place.stage / "f").write_bytes(b"x")
    task = MergeStage(place.bytes, b"stage", b"final", final.stat().st_ino)

    def fails(*_: object, **__: object) -> None:
        raise OSError(2, "gone")

    with monkeypatch.context() as patch:
        patch.setattr(child_folder.Folder, "move", fails)
        assert code(task) == "UNSURE"
    assert do(task) == Unpacked([], 0, b"", 0) and (final / "f").exists()


def test_merge_into_another_folder(place: Place) -> None:
    place.prepare()
    (place.path / "final").mkdir()
    task = MergeStage(place.bytes, b"stage", b"final", place.stage.stat().st_ino)
    assert code(task) == "ESTALE"
    (place.path / "link").symlink_to("final")
    inode = (place.path / "final").stat().st_ino
    assert code(MergeStage(place.bytes, b"stage", b"link", inode)) in {"ENOTDIR", "ELOOP"}
    assert code(MergeStage(place.bytes, b"stage", b"none", inode)) == "ENOENT"


def test_merge_stopped_between_link_and_unlink(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_the_exclusive_rename(monkeypatch)
    place.prepare()
    final = place.path / "final"
    final.mkdir()
    (place.stage / "f").write_bytes(b"x")
    (place.stage / "g").write_bytes(b"x")
    os.link(place.stage / "f", final / "f")
    answer = do(MergeStage(place.bytes, b"stage", b"final", final.stat().st_ino))
    assert answer == Unpacked([], 0, b"", 0)
    assert sorted(os.listdir(final)) == ["f", "g"] and (final / "f").stat().st_nlink == 1


def test_a_merge_tells_as_much_at_once_as_fits_an_answer(place: Place) -> None:
    place.prepare()
    final = place.path / "final"
    final.mkdir()
    names = {f"{number:0250}" for number in range(3000)}
    for name in names:
        (place.stage / name).touch()
        (final / name).write_bytes(b"mine")
    told: list[bytes] = []
    while len(told) < len(names):
        task = MergeStage(place.bytes, b"stage", b"final", final.stat().st_ino, len(told))
        answer = do(task)
        assert isinstance(answer, Unpacked) and answer.number == len(names)
        assert 0 < len(answer.entries) < 2500
        told += [each.path for each in answer.entries]
    assert {os.fsdecode(path) for path in told} == names and len(told) == len(names)


# -- a way that is swapped ------------------------------------------------------------------

GONE = {"ENOTDIR", "ELOOP", "ENOENT", "ESTALE", "EEXIST", "UNSURE"}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of somebody else's that looks like every place on the way."""
    made = tmp_path / "outside"
    for folder in (".tnt-part/stage/sub", "stage/sub", "sub", "final/sub"):
        (made / folder).mkdir(parents=True)
        (made / folder / "f").write_bytes(b"mine")
    return made


def theirs(place: Place) -> None:
    """What a stage holds."""
    for name in ("sub/f", "sub/g", "h"):
        (place.stage / name).parent.mkdir(exist_ok=True)
        (place.stage / name).write_bytes(b"theirs")


def contents(top: Path, content: bytes) -> list[str]:
    """The names of all files there that hold that, links not followed."""
    files = [Path(folder) / name for folder, _, names in os.walk(top) for name in names]
    return sorted(p.name for p in files if not p.is_symlink() and p.read_bytes() == content)


@pytest.mark.parametrize("which", ["stage", "parts", "downloads"])
@pytest.mark.parametrize("tree", [True, False])
def test_nothing_is_published_from_a_way_that_was_swapped(
    place: Place, outside: Path, which: str, tree: bool
) -> None:
    inode = place.prepare(tree).inode
    shutil.rmtree(outside / "final")  # the name is free there, too
    if tree:
        theirs(place)
    else:
        place.stage.write_bytes(b"theirs")
        for each in (outside / "stage", outside / ".tnt-part" / "stage"):
            shutil.rmtree(each)
            each.write_bytes(b"mine")
    before = picture(outside)
    path = {"stage": place.stage, "parts": place.parts, "downloads": place.path}[which]
    swap(path, outside / "stage" if which == "stage" else outside)
    assert code(place.publish(inode, tree=tree)) in GONE
    assert not os.path.lexists(place.path / "final") or which == "downloads"
    assert picture(outside) == before
    path.unlink()
    path.with_name(path.name + ".moved").rename(path)
    assert isinstance(do(place.publish(inode, tree=tree)), Inspected), "it is there as before"


@pytest.mark.parametrize("which", ["stage", "parts", "downloads", "final"])
def test_nothing_is_merged_over_a_way_that_was_swapped(
    place: Place, outside: Path, which: str
) -> None:
    place.prepare()
    theirs(place)
    final = place.path / "final"
    final.mkdir()
    task = MergeStage(place.bytes, b"stage", b"final", final.stat().st_ino)
    before = picture(outside)
    way = {"stage": place.stage, "parts": place.parts, "downloads": place.path, "final": final}
    target = outside / which if which in {"stage", "final"} else outside
    swap(way[which], target)
    assert code(task) in GONE
    assert picture(outside) == before
    way[which].unlink()
    way[which].with_name(way[which].name + ".moved").rename(way[which])
    assert do(task) == Unpacked([], 0, b"", 0)
    assert contents(final, b"theirs") == ["f", "g", "h"]


# Before which calls, and whether it is swapped before the first of them, too.
RACES = [
    (call, odd)
    for call in ("child", "look", "find", "move", "remove_child", "sync", "status")
    for odd in (True, False)
]


@pytest.mark.parametrize("race", RACES, ids=str)
@pytest.mark.parametrize("which", ["stage", "parts", "downloads"])
def test_swapped_while_it_is_published(
    place: Place,
    outside: Path,
    monkeypatch: pytest.MonkeyPatch,
    race: tuple[str, bool],
    which: str,
) -> None:
    inode = place.prepare().inode
    theirs(place)
    shutil.rmtree(outside / "final")
    before = picture(outside)
    path = {"stage": place.stage, "parts": place.parts, "downloads": place.path}[which]
    racer = Racer(path, outside / "stage" if which == "stage" else outside)
    with monkeypatch.context() as patch:
        racer.race(patch, *race)
        for _ in range(3):
            do(place.publish(inode))
    racer.restore()
    assert picture(outside) == before
    assert contents(place.path.parent, b"theirs") == ["f", "g", "h"], "nothing is lost"


@pytest.mark.parametrize("race", RACES, ids=str)
@pytest.mark.parametrize("which", ["stage", "parts", "downloads", "final", "source", "target"])
def test_swapped_while_it_is_merged(
    place: Place,
    outside: Path,
    monkeypatch: pytest.MonkeyPatch,
    race: tuple[str, bool],
    which: str,
) -> None:
    place.prepare()
    theirs(place)
    final = place.path / "final"
    (final / "sub").mkdir(parents=True)
    before = picture(outside)
    way = {
        "stage": (place.stage, "stage"),
        "parts": (place.parts, ""),
        "downloads": (place.path, ""),
        "final": (final, "final"),
        "source": (place.stage / "sub", "sub"),
        "target": (final / "sub", "sub"),
    }
    path, name = way[which]
    racer = Racer(path, outside / name)
    task = MergeStage(place.bytes, b"stage", b"final", final.stat().st_ino)
    with monkeypatch.context() as patch:
        racer.race(patch, *race)
        for _ in range(3):
            do(task)
    racer.restore()
    assert picture(outside) == before
    assert contents(place.path.parent, b"theirs") == ["f", "g", "h"], "nothing is lost"


# -- removing -----------------------------------------------------------------------------


def discard(place: Place, name: bytes = b"stage") -> int:
    """Remove a stage; in how many steps."""
    for step in range(1, 1000):
        answer = do(DiscardPart(place.bytes, name))
        if answer == Done():
            return step
        assert isinstance(answer, Failed) and answer.code == "EAGAIN"
    raise AssertionError


def test_discard_a_tree(place: Place, tmp_path: Path) -> None:
    place.prepare()
    (tmp_path / "outside" / "sub").mkdir(parents=True)
    (place.stage / "a" / "b" / "c").mkdir(parents=True)
    (place.stage / "a" / "link").symlink_to(tmp_path / "outside")
    (place.stage / "a" / "b" / "f").write_bytes(b"x")
    os.mkfifo(place.stage / "pipe")
    assert discard(place) == 1 == discard(place)
    assert os.listdir(place.path) == []
    assert os.listdir(tmp_path / "outside") == ["sub"]


def test_discard_in_steps(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DISCARD_STEP_FILES", 10)
    place.prepare()
    for folder in range(5):
        (place.stage / str(folder)).mkdir()
        for number in range(9):
            (place.stage / str(folder) / str(number)).touch()
    assert 5 <= discard(place) <= 7
    assert os.listdir(place.path) == []


def test_a_folder_that_stays_is_not_asked_for_without_end(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk hangs there, say, or a removed file that is open elsewhere: EAGAIN would be asked
    again at once, and for as long as that is so."""
    place.prepare()
    (place.stage / "busy").mkdir()
    (place.stage / "f").write_bytes(b"x")
    real = os.rmdir

    def rmdir(name: bytes, dir_fd: int) -> None:
        if name == b"busy":
            raise OSError(errno.EBUSY, "")
        real(name, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", rmdir)
        asked = [do(DiscardPart(place.bytes, b"stage")) for _ in range(3)]
        codes = [each.code for each in asked if isinstance(each, Failed)]
        assert codes[-2:] == ["ENOTEMPTY", "ENOTEMPTY"]
        cleaned = do(CleanStages(place.bytes, b"", []))
        assert isinstance(cleaned, Failed) and cleaned.code == "ENOTEMPTY"
    assert discard(place) == 1


def test_a_large_file_is_cut_down_in_steps(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_tree_remove, "_STEP_S", 0.05)
    place.prepare()
    (place.stage / "d").mkdir()
    os.truncate(os.open(place.stage / "d" / "f", os.O_CREAT | os.O_WRONLY), 640 * MIB)
    sizes = []
    real = os.ftruncate

    def slow(descriptor: int, size: int) -> None:
        sizes.append(size // MIB)
        real(descriptor, size)

    monkeypatch.setattr(child_tree_remove.time, "monotonic", lambda: len(sizes) * 1.0)
    monkeypatch.setattr(os, "ftruncate", slow)
    assert discard(place) > 5
    assert sizes == list(range(576, 0, -64))


def test_clean(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert do(CleanStages(place.bytes, b"", [])) == Counted(0, 0, True)
    monkeypatch.setattr(limits, "DISCARD_STEP_FILES", 4)
    for name in (b"one", b"two", b"three"):
        place.prepare(name=name)
        for number in range(3):
            (place.parts / os.fsdecode(name) / str(number)).write_bytes(b"12345")
    place.prepare(tree=False, name=b"four")
    (place.parts / "four").write_bytes(b"1234567")
    counts = []
    while not counts or not counts[-1].end:
        answer = do(CleanStages(place.bytes, b"", [b"two", b"none"]))
        assert isinstance(answer, Counted)
        counts.append(answer)
    assert sum(count.files for count in counts) == 7 and len(counts) >= 2
    assert sum(count.bytes for count in counts) == 37
    assert os.listdir(place.parts) == ["two"]
    assert do(CleanStages(place.bytes, b"", [b"two"])) == Counted(0, 0, True)
    while do(CleanStages(place.bytes, b"", [])) != Counted(0, 0, True):
        pass
    assert os.listdir(place.path) == []


def test_clean_some_names_only(place: Place) -> None:
    for name in (b"a", b"b", b"c", b"d", b"e"):
        place.prepare(tree=False, name=name)
    assert do(CleanStages(place.bytes, b"", [b"c"], b"a", b"d")) == Counted(2, 0, True)
    assert sorted(os.listdir(place.parts)) == ["a", "c", "e"]
    assert do(CleanStages(place.bytes, b"", [], b"a", b"")) == Counted(2, 0, True)
    assert os.listdir(place.parts) == ["a"]


def test_one_stage_that_cannot_be_removed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (b"a", b"bad", b"c"):
        place.prepare(tree=False, name=name)
    real = child_folder.Folder.remove

    def refuse(self: child_folder.Folder, name: bytes) -> bool:
        if name == b"bad":
            raise PermissionError(1, "no")
        return real(self, name)

    monkeypatch.setattr(child_folder.Folder, "remove", refuse)
    assert do(CleanStages(place.bytes, b"", [])) == Counted(2, 0, False)
    assert code(CleanStages(place.bytes, b"", [])) == "EPERM"
    assert os.listdir(place.parts) == ["bad"]


# -- sweeping -----------------------------------------------------------------------------


def sweep(
    place: Place, *paths: bytes, at: int = 0, end: bool = True, number: int = 1
) -> SweepStage:
    """A request of which these paths are known."""
    known = b"".join(map(tree.mark, paths))
    return SweepStage(number, place.bytes, b"stage", at, known, end)


def filled(place: Place, *paths: str) -> None:
    """Files in the stage."""
    place.prepare()
    for path in paths:
        file = place.stage / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)


def files_in(folder: Path) -> set[str]:
    """Relative paths of the files below."""
    return {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}


def test_sweep_leaves_what_was_told(place: Place) -> None:
    filled(place, "a", "b", "in/a", "in/deep/a", "in/deep/b")
    (place.stage / "link").symlink_to("in/a")
    os.utime(place.stage / "in/deep", ns=(MTIME_NS, MTIME_NS))
    assert do(sweep(place, b"a", b"in/deep/b", end=False)) == Done()
    assert len(files_in(place.stage)) == 6  # nothing before all is told
    assert do(sweep(place, b"in/a", at=2)) == Done()
    assert files_in(place.stage) == {"a", "in/a", "in/deep/b", "link"}
    assert (place.stage / "in/deep").stat().st_mtime_ns == MTIME_NS


def test_a_sweep_that_was_told_to_another_is_begun_anew(place: Place) -> None:
    filled(place, "a", "b")
    assert do(sweep(place, b"a", end=False)) == Done()
    child_disk.forget()
    assert code(sweep(place, b"b", at=1)) == "ESTALE"
    assert code(sweep(place, b"b", at=1, number=2)) == "ESTALE"
    assert files_in(place.stage) == {"a", "b"}
    assert do(sweep(place, b"a", b"b", number=3)) == Done()
    assert files_in(place.stage) == {"a", "b"}


def test_a_long_sweep_goes_in_steps(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_sweep, "_STEP_S", 0.0)
    filled(place, *(f"folder {number % 3}/{number}" for number in range(12)))
    stays = b"folder 1/4"
    request, count = sweep(place, stays), 0
    while isinstance(answer := do(request), Failed):
        assert answer.code == "EAGAIN"
        request, count = sweep(place, at=1), count + 1
    assert (answer, count > 10) == (Done(), True)
    assert files_in(place.stage) == {"folder 1/4"}
