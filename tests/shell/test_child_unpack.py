"""What the child `disk` makes of the records that arrive, also of those of a hostile sender."""

from __future__ import annotations

import contextlib
import gc
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swaps import Racer, swap
from tntd.machines import pack_record, tree
from tntd.machines.pack_record import CHUNK, FILE_END
from tntd.shell import child_disk, child_folder, child_stage, child_unpack
from tntd.tasks import (
    Answer,
    AnyTask,
    Done,
    Entry,
    EntryOpened,
    Failed,
    Inspected,
    MergeStage,
    OpenEntry,
    PrepareStage,
    Publish,
    SyncStage,
    Unpack,
    Unpacked,
)

MTIME_NS = 1_600_000_000_123_456_700
Item = tuple[str, bytes, bytes]  # what, path, content or target or reason


def do(task: AnyTask) -> Answer:
    """Do a task; an opened file is closed."""
    answer, opened, _ = child_disk.perform(task, None)
    if opened is not None:
        os.close(opened)
    return answer


def digest(content: bytes) -> bytes:
    """The hash of a file that has one block."""
    return blake3(blake3(content).digest() if content else b"").digest()


def record(number: int, *items: Item, executable: bool = False, wrong: bool = False) -> bytes:
    """A PACK record."""
    out = []
    for at, (what, path, text) in enumerate(items, number):
        size = len(text) if what == "file" else 0
        told = b"" if what == "file" else text
        body = pack_record.encode_entry(what, path, size, MTIME_NS, executable, told)  # type: ignore[arg-type]
        out.append(CHUNK.pack(pack_record.ENTRY_KIND, at, 0, len(body)) + body)
        if what == "file":
            if text:
                out.append(CHUNK.pack(pack_record.DATA_KIND, at, 0, size) + text)
            out.append(CHUNK.pack(2, at, 0, FILE_END.size))
            out.append(FILE_END.pack(size, bytes(32) if wrong else digest(text)))
    return b"".join(out)


class Place:
    """A downloads folder with a stage."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = os.fsencode(path)
        self.stage = path / ".tnt-part" / "stage"
        self.number = 0

    def prepare(self, tree: bool = True, size: int = 0, reserve: int = 0) -> Inspected:
        """Make the stage."""
        answer = do(PrepareStage(self.bytes, b"stage", tree, size, reserve))
        assert isinstance(answer, Inspected), answer
        return answer

    def unpack(self, *items: Item, executable: bool = False, wrong: bool = False) -> Unpacked:
        """Unpack a record."""
        plain = record(self.number, *items, executable=executable, wrong=wrong)
        answer = do(Unpack(self.bytes, b"stage", self.number, plain))
        assert isinstance(answer, Unpacked), answer
        assert answer.number == self.number + len(items) and answer.after == items[-1][1]
        self.number = answer.number
        return answer

    def fate(self, *items: Item) -> str:
        """The reason why the last of these did not go well, "" where it did."""
        entries = self.unpack(*items).entries
        mine = [entry for entry in entries if entry.path == items[-1][1]]
        assert all((entry.state == "failed") == bool(entry.reason) for entry in mine)
        return mine[-1].reason if mine else ""

    def code(self, task: AnyTask) -> str:
        """The code with which a task fails."""
        answer = do(task)
        assert isinstance(answer, Failed), answer
        assert answer.text and "/" not in answer.text
        return answer.code


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """With a stage for a tree."""
    made = Place(tmp_path / "downloads")
    made.prepare()
    yield made
    child_disk.forget()


# -- what goes well -----------------------------------------------------------------------


def test_files_folders_and_links(place: Place) -> None:
    answer = place.unpack(
        ("folder", b"", b""),
        ("folder", b"sub", b""),
        ("file", b"sub/file", b"content"),
        ("file", b"sub/\xff\n", b""),
        ("link", b"sub/link", b"../sub/file"),
        ("skipped", b"sub/pipe", b"it is a pipe"),
        ("failed", b"sub/gone", b"\xffgone"),
        ("folder_end", b"sub", b""),
        ("folder_end", b"", b""),
    )
    assert answer.entries == [
        Entry(b"sub/file", 7, "verified"),
        Entry(b"sub/\xff\n", 0, "verified"),
        Entry(b"sub/pipe", 0, "skipped", "it is a pipe"),
        Entry(b"sub/gone", 0, "failed", "\ufffdgone"),
    ]
    assert answer.bytes == 7
    file = place.stage / "sub" / "file"
    assert file.read_bytes() == b"content" and file.stat().st_mtime_ns == MTIME_NS
    assert (place.stage / "sub").stat().st_mtime_ns == MTIME_NS
    assert place.stage.stat().st_mtime_ns == MTIME_NS
    assert os.readlink(place.stage / "sub" / "link") == "../sub/file"
    assert os.listdir(os.fsencode(place.stage / "sub")).count(b"\xff\n") == 1


@pytest.mark.parametrize(
    ("umask", "executable", "mode"), [(0o022, False, 0o644), (0o022, True, 0o755), (0o77, 1, 0o700)]
)
def test_the_umask_decides_the_mode(place: Place, umask: int, executable: bool, mode: int) -> None:
    before = os.umask(umask)
    try:
        place.unpack(("folder", b"d", b""), ("file", b"d/f", b"x"), executable=bool(executable))
    finally:
        os.umask(before)
    assert stat.S_IMODE((place.stage / "d" / "f").stat().st_mode) == mode
    assert stat.S_IMODE((place.stage / "d").stat().st_mode) == 0o777 & ~umask


def test_a_record_twice_is_a_record_once(place: Place) -> None:
    items: list[Item] = [("folder", b"d", b"")]
    items += [("file", b"d/%d" % number, b"x") for number in range(50)]
    items += [("file", b"d/%", b"no letters"), ("link", b"d/link", b"0"), ("folder_end", b"d", b"")]
    first = place.unpack(*items)
    for forget in (False, True):
        if forget:
            child_disk.forget()  # as another child
        place.number = 0
        (place.stage / "d" / "7").write_bytes(b"half")
        (place.stage / "d" / "8").unlink()
        assert place.unpack(*items) == first
    assert (place.stage / "d" / "7").read_bytes() == b"x"
    assert len(os.listdir(place.stage / "d")) == 52


def test_parents_are_made(place: Place) -> None:
    assert place.fate(("file", b"a/b/c/d", b"x")) == ""
    assert (place.stage / "a" / "b" / "c" / "d").read_bytes() == b"x"


def test_a_time_that_no_file_system_holds(place: Place) -> None:
    body = pack_record.encode_entry("file", b"f", 0, -(2**63), False, b"")
    plain = CHUNK.pack(3, 0, 0, len(body)) + body
    plain += CHUNK.pack(2, 0, 0, FILE_END.size) + FILE_END.pack(0, digest(b""))
    answer = do(Unpack(place.bytes, b"stage", 0, plain))
    assert isinstance(answer, Unpacked) and answer.entries[0].state == "verified"


# -- one entry that fails -----------------------------------------------------------------


def test_a_wrong_hash(place: Place) -> None:
    answer = place.unpack(("file", b"f", b"x"), wrong=True)
    assert answer.entries == [Entry(b"f", 1, "failed", tree.DAMAGED)]
    assert os.listdir(place.stage) == []


def test_two_entries_of_one_name(place: Place) -> None:
    assert place.fate(("file", b"f", b"1"), ("file", b"f", b"2")) == tree.TAKEN
    assert (place.stage / "f").read_bytes() == b"1"
    assert place.fate(("folder", b"d", b""), ("file", b"d", b"2")) == tree.TAKEN
    assert place.fate(("file", b"g", b"2"), ("folder", b"g", b"")) == tree.TAKEN
    assert place.fate(("link", b"l", b"f"), ("link", b"l", b"g")) == tree.TAKEN
    assert place.fate(("link", b"l", b"f")) == ""
    assert place.fate(("file", b"l", b"x")) == tree.TAKEN
    assert place.fate(("folder", b"l", b"")) == tree.TAKEN
    assert os.readlink(place.stage / "l") == "f"


def test_a_file_with_another_name_is_not_touched(place: Place, tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    os.link(tmp_path / "mine", place.stage / "f")
    assert place.fate(("file", b"f", b"x")) == tree.TAKEN
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_spellings_of_one_name(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that takes A for a."""
    real = child_folder.Folder.create
    real_look = child_folder.Folder.look

    def create(self: child_folder.Folder, name: bytes, mode: int) -> int:
        return real(self, name.lower(), mode)

    def look(self: child_folder.Folder, name: bytes) -> os.stat_result:
        return real_look(self, name.lower())

    monkeypatch.setattr(child_folder.Folder, "create", create)
    monkeypatch.setattr(child_folder.Folder, "look", look)
    assert place.fate(("file", b"name", b"1"), ("file", b"NAME", b"2")) == tree.TAKEN
    assert place.fate(("file", b"Name", b"2")) == tree.TAKEN
    assert (place.stage / "name").read_bytes() == b"1"
    task = OpenEntry(1, place.bytes, b"stage", b"NAme", 5)
    answer = do(task)
    assert answer == Failed("EEXIST", "the name is taken")
    assert place.fate(("file", b"name", b"3")) == ""


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (b"", tree.NO_NAME),
        (b"/etc/x", tree.NO_NAME),
        (b"../x", tree.NO_NAME),
        (b"a/../../x", tree.NO_NAME),
        (b"a//b", tree.NO_NAME),
        (b"a\0b", tree.NO_NAME),
        (b"x" * 256, tree.NAME_TOO_LONG),
        (b"/".join([b"d"] * 101), tree.TOO_DEEP),
    ],
)
@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_paths_that_are_none(place: Place, what: str, path: bytes, reason: str) -> None:
    if what != "folder" or path:
        assert place.fate(("folder", b"a", b""), (what, path, b"x")) == reason
        assert os.listdir(place.stage) == ["a"] and os.listdir(place.path) == [".tnt-part"]


@pytest.mark.parametrize("target", [b"/etc", b"../../..", b"d/../..", b"d/..", b"", b"a\0b"])
def test_links_that_lead_out(place: Place, target: bytes) -> None:
    reason = place.fate(("folder", b"d", b""), ("link", b"d/link", target))
    assert reason in {tree.LEADS_OUT, tree.GOES_UP, tree.ODD_LINK}
    assert os.listdir(place.stage / "d") == []


def test_links_of_the_same_transfer_are_not_followed(place: Place) -> None:
    place.unpack(("folder", b"d", b""), ("link", b"l", b"d"), ("link", b"m", b"none"))
    for path in (b"l/x", b"m/x", b"l/x/y"):
        assert place.fate(("file", path, b"x")) in {
            "a symbolic link is in the way",
            "a part of its path is not a folder",
        }
    place.unpack(("folder_end", b"l", b""))
    assert place.fate(("file", b"l", b"x")) == tree.TAKEN
    opened = place.code(OpenEntry(1, place.bytes, b"stage", b"l/x", 1))
    assert opened in {"ENOTDIR", "ELOOP"}
    assert place.code(OpenEntry(1, place.bytes, b"stage", b"m", 1)) == "EEXIST"
    assert os.listdir(place.stage / "d") == []


# -- what fails the request ---------------------------------------------------------------


def test_a_record_that_is_none_changes_nothing(place: Place) -> None:
    good = record(0, ("file", b"a", b"x"))
    for plain in (b"", good[:-1], good + b"x", b"x" * 100):
        assert place.code(Unpack(place.bytes, b"stage", 0, plain)) == "EBADMSG"
    assert place.code(Unpack(place.bytes, b"stage", 1, good)) == "EBADMSG"
    assert os.listdir(place.stage) == []


def test_what_comes_again_is_told_also_where_it_is_no_file_any_more(place: Place) -> None:
    place.prepare()
    items: list[Item] = [
        ("folder", b"d", b""),
        ("link", b"l", b"d"),
        ("file", b"d/f", b"x"),
        ("link", b"bad", b"/etc"),
        ("folder_end", b"d", b""),
    ]
    answer = do(Unpack(place.bytes, b"stage", 0, record(0, *items), again=True))
    assert isinstance(answer, Unpacked)
    assert [(each.path, each.state) for each in answer.entries] == [
        (b"d", "there"),
        (b"l", "there"),
        (b"d/f", "verified"),
        (b"bad", "failed"),
    ]


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"\0"])
def test_stages_of_no_name(place: Place, name: bytes) -> None:
    plain = record(0, ("file", b"a", b"x"))
    for task in (
        Unpack(place.bytes, name, 0, plain),
        PrepareStage(place.bytes, name, True, 0, 0),
        OpenEntry(1, place.bytes, name, b"x", 1),
        SyncStage(place.bytes, name),
        MergeStage(place.bytes, name, b"x", 1),
        MergeStage(place.bytes, b"stage", name, 1),
        Publish(place.bytes, b"stage", name, 1, 0, False, True),
    ):
        assert place.code(task) == "EINVAL"


def test_no_stage(place: Place) -> None:
    plain = record(0, ("file", b"a", b"x"))
    assert place.code(Unpack(place.bytes, b"other", 0, plain)) == "ENOENT"
    assert place.code(Unpack(place.bytes + b"/none", b"stage", 0, plain)) == "ENOENT"
    assert place.code(Unpack(b"relative", b"stage", 0, plain)) == "EINVAL"
    (place.path / ".tnt-part" / "file").touch()
    assert place.code(Unpack(place.bytes, b"file", 0, plain)) == "ENOTDIR"


def test_a_full_disk_fails_the_request_which_can_be_repeated(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    items: list[Item] = [("file", b"%d" % number, b"x") for number in range(9)]
    plain = record(0, *items)
    real, written = child_unpack._write, []

    def full(descriptor: int, data: memoryview) -> None:
        written.append(data)
        if len(written) == 5:
            raise OSError(28, "full")
        real(descriptor, data)

    monkeypatch.setattr(child_unpack, "_write", full)
    task = Unpack(place.bytes, b"stage", 0, plain)
    assert place.code(task) == "ENOSPC"
    answer = do(task)
    assert isinstance(answer, Unpacked) and len(answer.entries) == 9
    assert {entry.state for entry in answer.entries} == {"verified"}
    assert {path.read_bytes() for path in place.stage.iterdir()} == {b"x"}


def test_a_stage_of_somebody_else(place: Place) -> None:
    plain = record(0, ("file", b"a", b"x"))
    if os.geteuid():
        pytest.skip("needs root")
    os.chown(place.stage, 12345, -1)
    child_disk.forget()
    assert place.code(Unpack(place.bytes, b"stage", 0, plain)) == "EPERM"
    assert place.code(PrepareStage(place.bytes, b"stage", True, 0, 0)) == "EPERM"


# -- swapped under our feet ---------------------------------------------------------------


def test_a_folder_of_the_stage_is_swapped(place: Place, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    place.unpack(("folder", b"a", b""), ("folder", b"a/b", b""), ("file", b"a/b/1", b"x"))
    swap(place.stage / "a", outside)
    assert place.fate(("file", b"a/b/2", b"x")) != ""
    assert place.fate(("file", b"a/3", b"x")) != ""
    place.unpack(("folder_end", b"a", b""))
    assert place.fate(("folder", b"a", b"")) == tree.TAKEN
    assert os.listdir(outside) == [] and outside.stat().st_mtime_ns != MTIME_NS
    assert os.listdir(place.stage / "a.moved" / "b") == ["1"]


@pytest.mark.parametrize("which", ["stage", "parts", "downloads"])
def test_the_way_to_the_stage_is_swapped(place: Place, tmp_path: Path, which: str) -> None:
    outside = tmp_path / "outside"
    (outside / "stage").mkdir(parents=True)
    place.unpack(("file", b"1", b"x"))
    path = {"stage": place.stage, "parts": place.stage.parent, "downloads": place.path}[which]
    swap(path, outside)
    plain = record(1, ("file", b"2", b"x"))
    codes = {"ENOTDIR", "ELOOP", "ENOENT"}
    assert place.code(Unpack(place.bytes, b"stage", 1, plain)) in codes
    assert place.code(OpenEntry(1, place.bytes, b"stage", b"3", 1)) in codes
    assert place.code(SyncStage(place.bytes, b"stage")) in codes
    assert os.listdir(outside) == ["stage"] and os.listdir(outside / "stage") == []


def test_the_stage_is_another_one(place: Place) -> None:
    """Another folder of ours by that name: it is a stage, but not the one that is published."""
    inode = place.prepare().inode
    place.unpack(("file", b"1", b"x"))
    place.stage.rename(place.stage.with_name("moved"))
    place.stage.mkdir()
    place.unpack(("file", b"2", b"x"))
    assert os.listdir(place.stage) == ["2"]
    assert place.code(Publish(place.bytes, b"stage", b"final", inode, 0, False, True)) == "ESTALE"


# -- a hostile sender ---------------------------------------------------------------------

part_names = st.one_of(
    st.sampled_from([b"a", b"b", b"A", b"l", b"..", b".", b"", b"\0", b"c" * 256]),
    st.binary(min_size=1, max_size=4),
)
tree_paths = st.lists(part_names, min_size=0, max_size=4).map(b"/".join)
targets = st.one_of(tree_paths, st.sampled_from([b"/etc", b"../../x", b"a/b", b"..", b"../a"]))
whats = st.sampled_from(["file", "folder", "folder_end", "link", "skipped", "failed"])
hostile_items = st.lists(st.tuples(whats, tree_paths, targets), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(hostile_items, tree_paths), min_size=1, max_size=4), st.booleans())
def test_nothing_leaves_the_stage(
    tmp_path_factory: pytest.TempPathFactory, steps: list[list[Item] | bytes], forget: bool
) -> None:
    """Whatever the entries are called, and wherever their links point."""
    top = tmp_path_factory.mktemp("hostile")
    place = Place(top / "downloads")
    place.prepare()
    guard = top / "outside"
    guard.mkdir()
    for step in steps:
        if isinstance(step, bytes):
            answer = do(OpenEntry(1, place.bytes, b"stage", step, 10))
            assert isinstance(answer, EntryOpened | Failed)
        else:
            place.unpack(*step)
        if forget:
            child_disk.forget()
    child_disk.forget()
    assert sorted(os.listdir(top)) == ["downloads", "outside"] and os.listdir(guard) == []
    assert os.listdir(place.path) == [".tnt-part"]
    assert os.listdir(place.stage.parent) == ["stage"]
    stage = os.path.realpath(os.fsencode(place.stage))
    for folder, folders, files in os.walk(stage):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            with contextlib.suppress(OSError):  # a link that leads around in a circle
                real = os.path.realpath(path, strict=False)
                assert real.startswith(stage + b"/") or real == stage, (path, real)


@pytest.mark.parametrize("call", ["child", "create", "make_link", "look", "find", "remove"])
def test_swapped_between_any_two_calls(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    outside = tmp_path / "outside"
    (outside / "b").mkdir(parents=True)
    Racer(place.stage / "a", outside).race(monkeypatch, call)
    for number in range(5):
        place.unpack(
            ("folder", b"a", b""),
            ("folder", b"a/b", b""),
            ("file", b"a/b/%d" % number, b"x"),
            ("file", b"a/%d" % number, b"x"),
            ("link", b"a/l%d" % number, b"x"),
            ("folder_end", b"a", b""),
        )
        do(OpenEntry(1, place.bytes, b"stage", b"a/b/large", 1))
    assert os.listdir(outside) == ["b"] and os.listdir(outside / "b") == []


# -- what is kept -------------------------------------------------------------------------


def open_descriptors() -> int:
    """How many this process has, but for those that earlier tests have dropped."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_few_descriptors_are_kept(place: Place) -> None:
    child_disk.forget()
    before = open_descriptors()
    for number in range(20):
        name = b"stage%d" % number
        do(PrepareStage(place.bytes, name, True, 0, 0))
        path = b"/".join([b"d"] * 9)
        do(Unpack(place.bytes, name, 0, record(0, ("file", path, b"x"))))
    assert open_descriptors() <= before + 4 * 11
    assert child_stage.forget()
    assert open_descriptors() == before


def test_a_failed_way_is_not_taken_for_a_good_one(place: Place) -> None:
    place.unpack(("file", b"a/b/f", b"x"))
    assert place.fate(("file", b"a/c/f/g/h", b"1"), ("file", b"a/c/f", b"2")) == tree.TAKEN
    assert place.fate(("file", b"a/b/f/g/h", b"1")) != ""
    assert place.fate(("file", b"a/b/i", b"1")) == "" == place.fate(("file", b"a/j", b"1"))
    assert (place.stage / "a" / "b" / "i").exists() and (place.stage / "a" / "j").exists()


def test_synced(place: Place) -> None:
    place.unpack(("file", b"a/b", b"x"))
    assert do(SyncStage(place.bytes, b"stage")) == Done()
