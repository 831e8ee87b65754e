"""What the child `disk` does to folders and files, called without a process around it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tntd import limits
from tntd.shell import child_disk, child_file, child_folder, child_tree_remove
from tntd.shell.child_wire import Warm
from tntd.tasks import (
    AnyTask,
    DiscardPart,
    Done,
    Failed,
    Inspect,
    Inspected,
    PrepareStage,
    Publish,
)

MTIME_NS = 1_600_000_000_123_456_700
HOSTILE_NAMES = [b"", b".", b"..", b"a/b", b"/etc/x", b"../x", b"a\0b", b"a/"]


def do(task: AnyTask | Warm, given: int | None = None) -> Inspected | Done | Failed:
    """Do a task; an opened file is closed."""
    answer, opened, _ = child_disk.perform(task, given)
    if opened is not None:
        os.close(opened)
    assert isinstance(answer, Inspected | Done | Failed)
    return answer


def code(task: AnyTask | Warm) -> str:
    """The code with which a task fails."""
    answer = do(task)
    assert isinstance(answer, Failed), answer
    assert answer.text and "/" not in answer.text
    return answer.code


def prepare(folder: bytes, name: bytes = b"part") -> PrepareStage:
    """The task that makes a part."""
    return PrepareStage(folder, name, False, 0, 0)


class Place:
    """A downloads folder, with the tasks on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = os.fsencode(path)
        self.parts = path / ".tnt-part"

    def open_part(self, name: bytes = b"part", content: bytes = b"content") -> int:
        """Make a part; its inode."""
        answer = do(prepare(self.bytes, name))
        assert isinstance(answer, Inspected)
        (self.parts / os.fsdecode(name)).write_bytes(content)
        return answer.inode

    def publish(self, inode: int, name: bytes = b"final", executable: bool = False) -> Publish:
        """The task that gives the part its name."""
        return Publish(self.bytes, b"part", name, inode, MTIME_NS, executable)


@pytest.fixture(autouse=True)
def time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is not cut short where this machine stands still for a moment."""
    monkeypatch.setattr(child_tree_remove, "_STEP_S", 60.0)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A folder that is not there yet."""
    return Place(tmp_path / "downloads" / "here")


# -- inspect, open ------------------------------------------------------------------------


def test_inspect(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    path.chmod(0o755)
    os.utime(path, ns=(0, MTIME_NS))
    found = do(Inspect(os.fsencode(path)))
    assert isinstance(found, Inspected)
    assert (found.kind, found.size, found.mtime_ns, found.executable) == ("file", 5, MTIME_NS, True)
    assert found.inode == path.stat().st_ino and found.device == path.stat().st_dev
    assert found.free > 0
    folder = do(Inspect(os.fsencode(tmp_path)))
    assert isinstance(folder, Inspected) and folder.kind == "folder"
    other = do(Inspect(b"/dev/null"))
    assert isinstance(other, Inspected) and other.kind == "other"
    assert code(Inspect(os.fsencode(tmp_path / "none"))) == "ENOENT"
    assert code(Inspect(b"relative")) == "EINVAL"
    assert code(Inspect(b"/a\0b")) == "EINVAL"


def test_a_file_in_memory_is_known(tmp_path: Path) -> None:
    descriptor = os.memfd_create("x")
    try:
        assert child_file.is_in_memory(descriptor)
    finally:
        os.close(descriptor)


# -- parts --------------------------------------------------------------------------------


def test_a_part_is_private_and_its_folder_is_made(place: Place) -> None:
    place.open_part()
    assert stat.S_IMODE(place.parts.stat().st_mode) == 0o700
    assert stat.S_IMODE((place.parts / "part").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names(place: Place, name: bytes) -> None:
    inode = place.open_part()
    before = sorted(place.path.rglob("*"))
    assert code(prepare(place.bytes, name)) == "EINVAL"
    assert code(DiscardPart(place.bytes, name)) == "EINVAL"
    assert code(place.publish(inode, name)) == "EINVAL"
    assert code(Publish(place.bytes, name, b"final", inode, 0, False)) == "EINVAL"
    assert sorted(place.path.rglob("*")) == before


@pytest.mark.parametrize("name", [b"\xff\xfe", b"new\nline", b"-rf", b"\x1b[31m", b"a" * 255])
def test_odd_names_are_names(place: Place, name: bytes) -> None:
    inode = place.open_part()
    assert isinstance(do(place.publish(inode, name)), Inspected)
    assert os.listdir(place.bytes) == [name]


def test_a_name_that_is_too_long(place: Place) -> None:
    assert code(place.publish(place.open_part(), b"a" * 256)) == "ENAMETOOLONG"


def test_a_symbolic_link_in_place_of_the_part_folder(place: Place, tmp_path: Path) -> None:
    inode = place.open_part()
    elsewhere = tmp_path / "elsewhere"
    place.parts.rename(elsewhere)
    place.parts.symlink_to(elsewhere)
    for task in (
        prepare(place.bytes, b"other"),
        DiscardPart(place.bytes, b"part"),
        place.publish(inode),
    ):
        assert code(task) in {"ENOTDIR", "ELOOP"}
    assert os.listdir(elsewhere) == ["part"]
    assert os.listdir(place.path) == [".tnt-part"]


def test_a_symbolic_link_in_place_of_a_part(place: Place, tmp_path: Path) -> None:
    inode = place.open_part()
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (place.parts / "part").unlink()
    (place.parts / "part").symlink_to(secret)
    assert code(place.publish(inode)) == "ELOOP"
    assert code(prepare(place.bytes)) == "EEXIST"
    assert secret.read_bytes() == b"secret"


def test_a_file_in_place_of_the_part_folder(place: Place) -> None:
    place.path.mkdir(parents=True)
    place.parts.write_bytes(b"mine")
    assert code(prepare(place.bytes)) == "ENOTDIR"
    assert place.parts.read_bytes() == b"mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_part_folder_of_somebody_else(place: Place) -> None:
    inode = place.open_part()
    os.chown(place.parts, 12345, 12345)
    assert code(prepare(place.bytes, b"other")) == "EPERM"
    assert code(place.publish(inode)) == "EPERM"


def test_discard(place: Place) -> None:
    place.open_part(b"one")
    place.open_part(b"two")
    assert do(DiscardPart(place.bytes, b"one")) == Done()
    assert os.listdir(place.parts) == ["two"]
    assert do(DiscardPart(place.bytes, b"one")) == Done()
    assert do(DiscardPart(place.bytes, b"two")) == Done()
    assert os.listdir(place.path) == []
    assert do(DiscardPart(place.bytes, b"two")) == Done()
    assert do(DiscardPart(place.bytes + b"/none", b"two")) == Done()


def test_a_discarded_part_is_shortened_in_steps(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = 64 * limits.MIB
    place.open_part()
    os.truncate(place.parts / "part", 150 * limits.MIB)
    sizes: list[int] = []
    monkeypatch.setattr(os, "ftruncate", lambda _, size: sizes.append(size))
    assert do(DiscardPart(place.bytes, b"part")) == Done()
    assert os.listdir(place.path) == []
    assert sizes == [150 * limits.MIB - step, 150 * limits.MIB - 2 * step]


def test_a_discarded_part_that_has_another_name_too_is_not_shortened(place: Place) -> None:
    place.open_part()
    os.truncate(place.parts / "part", 150 * limits.MIB)
    os.link(place.parts / "part", place.path / "final")
    assert do(DiscardPart(place.bytes, b"part")) == Done()
    assert os.listdir(place.path) == ["final"]
    assert (place.path / "final").stat().st_size == 150 * limits.MIB


def test_a_part_is_discarded_for_good(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one whose removal was interrupted before it was on the disk."""
    synced: list[int] = []
    monkeypatch.setattr(child_folder, "sync", synced.append)
    place.open_part(b"one")
    place.open_part(b"two")
    for count in (1, 2):
        assert do(DiscardPart(place.bytes, b"one")) == Done()
        assert len(synced) == count
    assert do(DiscardPart(place.bytes, b"two")) == Done()
    assert do(DiscardPart(place.bytes, b"two")) == Done()  # the folder of parts is gone
    assert len(synced) == 4


# -- publish ------------------------------------------------------------------------------


def test_publish(place: Place) -> None:
    inode = place.open_part()
    assert isinstance(do(place.publish(inode)), Inspected)
    final = place.path / "final"
    assert os.listdir(place.path) == ["final"]
    assert final.read_bytes() == b"content"
    assert final.stat().st_ino == inode
    assert final.stat().st_mtime_ns == MTIME_NS


@pytest.mark.parametrize(
    ("umask", "executable", "mode"),
    [(0o022, False, 0o644), (0o022, True, 0o755), (0o077, True, 0o700), (0o027, True, 0o750)],
)
def test_the_umask_decides_the_mode(place: Place, umask: int, executable: bool, mode: int) -> None:
    before = os.umask(umask)
    try:
        assert isinstance(do(place.publish(place.open_part(), executable=executable)), Inspected)
    finally:
        os.umask(before)
    assert stat.S_IMODE((place.path / "final").stat().st_mode) == mode


def test_publish_twice_is_publish_once(place: Place) -> None:
    task = place.publish(place.open_part())
    assert isinstance(do(task), Inspected)
    assert isinstance(do(task), Inspected)
    assert os.listdir(place.path) == ["final"]


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling"])
def test_nothing_is_ever_replaced(place: Place, kind: str) -> None:
    inode = place.open_part()
    final = place.path / "final"
    if kind == "file":
        final.write_bytes(b"mine")
    elif kind == "folder":
        final.mkdir()
    else:
        final.symlink_to("/etc/passwd" if kind == "link" else "/nonexistent")
    before = final.lstat()
    assert code(place.publish(inode)) == "EEXIST"
    assert final.lstat().st_ino == before.st_ino and final.lstat().st_mode == before.st_mode
    assert (place.parts / "part").read_bytes() == b"content"
    assert isinstance(do(place.publish(inode, b"final (2)")), Inspected)


def test_a_part_that_is_gone(place: Place) -> None:
    task = place.publish(place.open_part())
    with (place.parts / "part").open():  # as long as it is open, nobody else gets its inode
        (place.parts / "part").unlink()
        assert code(task) == "ENOENT"
        (place.path / "final").write_bytes(b"somebody else's")
        assert code(task) == "ENOENT"


def test_a_part_that_is_another_file(place: Place) -> None:
    inode = place.open_part()
    (place.parts / "other").write_bytes(b"other")
    (place.parts / "other").replace(place.parts / "part")
    assert code(place.publish(inode)) == "ESTALE"


def test_a_time_that_no_file_system_holds(place: Place) -> None:
    inode = place.open_part()
    task = Publish(place.bytes, b"part", b"final", inode, 2**63 - 1, False)
    assert isinstance(do(task), Inspected)


@pytest.fixture(params=["link", "claim"])
def fallback(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A system without the exclusive rename; and without links, too."""

    def missing(*_: object, **__: object) -> None:
        raise OSError(38, "not there")

    monkeypatch.setattr(child_folder.Folder, "_rename_exclusively", missing)
    if request.param == "claim":
        monkeypatch.setattr(os, "link", missing)
    return str(request.param)


def test_without_the_exclusive_rename(place: Place, fallback: str) -> None:
    task = place.publish(place.open_part())
    assert isinstance(do(task), Inspected)
    assert os.listdir(place.path) == ["final"]
    assert (place.path / "final").read_bytes() == b"content"
    assert isinstance(do(task), Inspected)


def test_without_it_nothing_is_replaced_either(place: Place, fallback: str) -> None:
    folder = child_folder.Folder.open(os.fsencode(place.path.parent.parent))
    (place.path.parent.parent / "one").write_bytes(b"one")
    (place.path.parent.parent / "two").write_bytes(b"two")
    with folder, pytest.raises(FileExistsError):
        folder.move(b"one", folder, b"two")
    assert (place.path.parent.parent / "two").read_bytes() == b"two"


def test_stopped_between_link_and_unlink(place: Place) -> None:
    inode = place.open_part()
    os.link(place.parts / "part", place.path / "final")
    # A new part of that name must not empty the finished file.
    assert isinstance(do(place.publish(inode)), Inspected)
    assert os.listdir(place.path) == ["final"]
    assert (place.path / "final").read_bytes() == b"content"


def test_a_new_part_never_empties_a_linked_one(place: Place) -> None:
    place.open_part()
    os.link(place.parts / "part", place.path / "final")
    place.open_part(content=b"")
    assert (place.path / "final").read_bytes() == b"content"


def test_joined_paths_do_the_same(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of systems without calls relative to a descriptor."""
    monkeypatch.setattr(child_folder, "_DESCRIPTORS", False)
    monkeypatch.setattr(
        child_folder.Folder,
        "move",
        lambda self, name, target, new, tree: os.rename(self.where(name), target.where(new)),
    )
    task = place.publish(place.open_part())
    place.open_part(b"other")
    assert isinstance(do(task), Inspected) and isinstance(do(task), Inspected)
    assert (place.path / "final").stat().st_mtime_ns == MTIME_NS
    assert do(DiscardPart(place.bytes, b"other")) == Done()
    assert os.listdir(place.path) == ["final"]
    place.parts.symlink_to("/tmp")
    assert code(prepare(place.bytes)) == "ENOTDIR"


RACE = textwrap.dedent(
    """
    import os, sys
    from tntd.shell import child_disk
    from tntd.tasks import *
    folder, me = os.fsencode(sys.argv[1]), sys.argv[2].encode()
    for number in range(300):
        answer, _, _ = child_disk.perform(PrepareStage(folder, me, False, 0, 0), None)
        assert isinstance(answer, Inspected), answer
        if number % 2:
            task = Publish(folder, me, b"new_%s_%d" % (me, number), answer.inode, 0, False)
        else:
            task = DiscardPart(folder, me)
        answer, _, _ = child_disk.perform(task, None)
        assert isinstance(answer, Done | Inspected), answer
    """
)


def test_two_daemons_on_one_folder(tmp_path: Path) -> None:
    """Each removes the part folder when it looks empty, under the feet of the other."""
    both = [
        subprocess.Popen([sys.executable, "-c", RACE, str(tmp_path), name]) for name in ("a", "b")
    ]
    assert [each.wait(120) for each in both] == [0, 0]
    assert len(os.listdir(tmp_path)) == 300


# -- warm ---------------------------------------------------------------------------------


def test_warm_reads_up_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 3_000_000)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert do(Warm(0, 4_000_000), descriptor) == Done()
        assert do(Warm(2_500_000, 10), descriptor) == Done()
        assert do(Warm(9_000_000, 10), descriptor) == Done()
    finally:
        os.close(descriptor)
    assert code(Warm(0, 10)) == "EMFILE"
