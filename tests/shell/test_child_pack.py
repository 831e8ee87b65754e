"""What the child `disk` makes of the folders that are to be sent."""

from __future__ import annotations

import gc
import os
import socket
import sys
from pathlib import Path

import pytest
from blake3 import blake3

from tntd import limits
from tntd.machines import pack_record, tree
from tntd.machines.pack_record import PackedEntry
from tntd.shell import child_disk, child_folder, child_pack, child_tree
from tntd.tasks import (
    Answer,
    AnyTask,
    Counted,
    CountTree,
    Entry,
    Failed,
    Inspect,
    Inspected,
    Pack,
    Packed,
)

MTIME_NS = 1_600_000_000_123_456_700
SMALL = limits.PACK_FILE_BYTES_MAX


def do(task: AnyTask) -> tuple[Answer, int | None]:
    """Do a task."""
    answer, opened, _ = child_disk.perform(task, None)
    return answer, opened


def failed(task: AnyTask) -> str:
    """The code with which a task fails."""
    answer, opened = do(task)
    assert isinstance(answer, Failed) and opened is None, answer
    return answer.code


class Sender:
    """Asks for records as a lane does."""

    def __init__(self, root: Path | bytes, only: list[bytes] | None = None) -> None:
        self.root = os.fsencode(root)
        self.only = only
        self.number = 0
        self.after = b""
        self.items: list[PackedEntry] = []
        self.fates: list[Entry] = []
        self.large: list[tuple[bytes, bytes]] = []
        self.records = 0
        self.bytes = 0
        self.end = False

    def step(self, walk: int = 1) -> Packed:
        """One record, and the large file behind it."""
        task = Pack(walk, self.root, self.number, self.after, 9, self.only)
        answer, opened = do(task)
        assert isinstance(answer, Packed), answer
        assert len(answer.plain) <= limits.PACK_PLAIN_BYTES_MAX
        if answer.plain:
            self.records += 1
            self.items += pack_record.parse(answer.plain, self.number)
            assert answer.number == self.number + len(pack_record.parse(answer.plain, self.number))
        self.number, self.after = answer.number, answer.after
        self.fates += answer.entries
        self.bytes += answer.bytes
        self.end = answer.end
        assert (opened is None) == (answer.large is None)
        if answer.large is not None and opened is not None:
            assert answer.large.size == os.fstat(opened).st_size
            self.large.append((answer.large.path, os.pread(opened, answer.large.size, 0)))
            os.close(opened)
            self.number, self.after = self.number + 1, answer.large.path
        return answer

    def all(self) -> Sender:
        """All of it."""
        while not self.end:
            self.step()
        return self

    def walked(self) -> list[tuple[str, bytes]]:
        """What came."""
        return [(item.entry.what, item.entry.path) for item in self.items]

    def texts(self) -> dict[bytes, str]:
        """Reasons and targets."""
        return {item.entry.path: item.entry.text.decode() for item in self.items if item.entry.text}


@pytest.fixture(autouse=True)
def time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is not cut short where this machine stands still for a moment."""
    monkeypatch.setattr(child_pack, "_STEP_S", 60.0)
    monkeypatch.setattr(limits, "COUNT_STEP_S", 60.0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An empty folder to be sent."""
    path = tmp_path / "source"
    path.mkdir()
    return path


def digest(content: bytes) -> bytes:
    """The hash of a file that has one block."""
    inner = blake3(content).digest() if content else b""
    return blake3(inner).digest()


# -- records ------------------------------------------------------------------------------


def test_files_folders_and_links(source: Path) -> None:
    (source / "sub" / "empty").mkdir(parents=True)
    (source / "sub" / "file").write_bytes(b"content")
    (source / "sub" / "file").chmod(0o755)
    os.utime(source / "sub" / "file", ns=(0, MTIME_NS))
    (source / "sub" / "link").symlink_to("../none")
    os.utime(source / "sub", ns=(0, MTIME_NS + 1))
    sender = Sender(source).all()
    walked = sender.walked()
    assert walked[0] == ("folder", b"") and walked[-1] == ("folder_end", b"")
    assert walked[1] == ("folder", b"sub") and walked[-2] == ("folder_end", b"sub")
    assert walked.index(("folder_end", b"sub/empty")) == walked.index(("folder", b"sub/empty")) + 1
    items = {item.entry.path: item for item in sender.items if item.entry.what != "folder"}
    file = items[b"sub/file"]
    assert b"".join(file.pieces) == b"content" and file.digest == digest(b"content")
    assert (file.entry.size, file.entry.mtime_ns, file.entry.executable) == (7, MTIME_NS, True)
    assert items[b"sub/link"].entry.text == b"../none"
    assert items[b"sub"].entry.mtime_ns == MTIME_NS + 1
    assert sender.fates == [Entry(b"sub/file", 7, "waiting")] and sender.bytes == 7
    assert sender.number == len(walked) == 8


def test_what_is_left_out_is_told(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(source / "pipe")
    with socket.socket(socket.AF_UNIX) as listening, monkeypatch.context() as patch:
        patch.chdir(source)
        listening.bind("socket")
    (source / "out").symlink_to("/etc/passwd")
    (source / "up").symlink_to("../x")
    (source / ".tnt-part").mkdir()
    (source / ".tnt-part" / "part").write_bytes(b"x")
    sender = Sender(source).all()
    assert sender.texts() == {
        b"pipe": "it is a pipe, not a file",
        b"socket": "it is a socket, not a file",
        b"out": tree.LEADS_OUT,
        b"up": tree.LEADS_OUT,
        b".tnt-part": "parts of other transfers",
    }
    assert {what for what, path in sender.walked() if path} == {"skipped"}
    assert {(fate.path, fate.state, fate.reason) for fate in sender.fates} == {
        (path, "skipped", text) for path, text in sender.texts().items()
    }


def test_names_of_any_bytes(source: Path) -> None:
    odd = [b"\xff\xfe", b"new\nline", b"\x1b[31m", "ü".encode(), b"a" * 255]
    for name in odd:
        (source / os.fsdecode(name)).write_bytes(name)
    sender = Sender(source).all()
    assert {path for _, path in sender.walked() if path} == set(odd)


def test_too_deep_and_too_long(source: Path) -> None:
    at = os.open(source, os.O_RDONLY)
    for _ in range(limits.TREE_DEPTH_MAX + 1):
        os.mkdir("d", dir_fd=at)
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)
    at = os.open(source, os.O_RDONLY)
    for _ in range(17):
        os.mkdir("x" * 250, dir_fd=at)
        inner = os.open("x" * 250, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)
    sender = Sender(source).all()
    reasons = {fate.reason: fate for fate in sender.fates}
    assert set(reasons) == {tree.TOO_DEEP, tree.PATH_TOO_LONG}
    assert len(reasons[tree.PATH_TOO_LONG].path) == limits.TREE_PATH_BYTES_MAX
    # And at another start it is walked to the same place.
    other = Sender(source)
    other.number, other.after = sender.number - 1, sender.items[-2].entry.path
    assert other.step(2).end


def test_small_files_share_records(source: Path) -> None:
    for number in range(300):
        (source / f"{number:04}").write_bytes(b"x" * 4000)
    sender = Sender(source).all()
    assert len(sender.items) == 302 and 5 <= sender.records <= 7
    assert sender.bytes == 300 * 4000


def test_records_have_a_limit_of_chunks(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LANE_CHUNKS_MAX", 30)
    for number in range(100):
        (source / f"{number}").touch()
    sender = Sender(source).all()
    assert sender.records >= 7 and len(sender.items) == 102


@pytest.mark.parametrize("size", [0, 1, SMALL - 1, SMALL])
def test_sizes_that_are_packed(source: Path, size: int) -> None:
    content = os.urandom(size)
    (source / "file").write_bytes(content)
    sender = Sender(source).all()
    item = sender.items[1]
    assert b"".join(item.pieces) == content and item.digest == digest(content)


def test_large_files_come_open(source: Path) -> None:
    for name in ("a", "b", "c"):
        (source / name).write_bytes(name.encode() * (SMALL + 1))
    (source / "small").write_bytes(b"x")
    sender = Sender(source).all()
    assert {(path, content[:1], len(content)) for path, content in sender.large} == {
        (name, name, SMALL + 1) for name in (b"a", b"b", b"c")
    }
    assert sender.number == len(sender.items) + 3 == 6


def test_a_large_file_can_be_asked_for_again(source: Path) -> None:
    (source / "large").write_bytes(b"x" * (SMALL + 1))
    sender = Sender(source)
    first = sender.step()
    sender.number, sender.after = first.number, first.after
    second = sender.step()
    assert first.large == second.large is not None and second.plain == b""
    sender.all()
    assert sender.walked() == [("folder", b""), ("folder_end", b"")]


def test_the_root_is_a_file(source: Path, tmp_path: Path) -> None:
    path = source / "file"
    path.write_bytes(b"tiny")
    (tmp_path / "link").symlink_to(path)
    sender = Sender(tmp_path / "link")
    packed = sender.step()
    assert packed.plain == b"" and packed.end and (packed.number, packed.after) == (0, b"")
    assert sender.large == [(b"", b"tiny")]
    assert sender.step().large is None
    assert failed(Pack(1, os.fsencode(path), 2, b"", 9)) == "CHANGED"


def test_the_root_is_a_link_to_a_folder(source: Path, tmp_path: Path) -> None:
    (source / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(source)
    assert ("file", b"file") in Sender(tmp_path / "link").all().walked()


@pytest.mark.parametrize(
    ("root", "code"), [(b"/none", "ENOENT"), (b"x", "EINVAL"), (b"/dev/null", "EINVAL")]
)
def test_no_root(root: bytes, code: str) -> None:
    assert failed(Pack(1, root, 0, b"", 9)) == code


# -- going on -----------------------------------------------------------------------------


def test_another_child_goes_on_from_anywhere(source: Path) -> None:
    for folder in range(5):
        (source / str(folder)).mkdir()
        for number in range(40):
            (source / str(folder) / str(number)).write_bytes(b"x" * 3000)
    whole = Sender(source).all()
    broken = Sender(source)
    while not broken.end:
        broken.step()
        assert child_disk.forget() == (not broken.end)
    assert broken.walked() == whole.walked() and broken.records == whole.records
    for at in range(1, len(whole.items), 17):
        part = Sender(source)
        part.number, part.after = at, whole.items[at - 1].entry.path
        assert part.all().walked() == whole.walked()[at:]


def test_a_changed_folder_is_told(source: Path) -> None:
    (source / "a").touch()
    assert failed(Pack(1, os.fsencode(source), 2, b"b", 9)) == "CHANGED"
    assert failed(Pack(1, os.fsencode(source), 9, b"a", 9)) == "CHANGED"
    sender = Sender(source)
    sender.number, sender.after = 2, b"a"
    assert sender.all().walked() == [("folder_end", b"")]


def test_a_step_takes_a_moment(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress, or the way to it, is told before all is done; in the end it is all there."""
    monkeypatch.setattr(child_pack, "_STEP_S", 0.0)
    for number in range(20):
        (source / str(number)).write_bytes(b"x")
    sender = Sender(source)
    assert sender.step().number == 1
    sender.all()
    assert sender.records == len(sender.items) == 22
    late = Sender(source)
    late.number, late.after = 21, sender.items[20].entry.path
    empty = 0
    while not late.end:
        packed = late.step(2)
        empty += not packed.plain
        assert packed.number >= 21
    assert late.walked() == [("folder_end", b"")] and empty


def open_descriptors() -> int:
    """How many this process has, but for those that earlier tests have dropped."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_walks_are_kept_in_small_number(source: Path) -> None:
    for number in range(10):
        (source / str(number)).write_bytes(b"x" * SMALL)
    child_disk.forget()  # what earlier tests have begun
    before = open_descriptors()
    for walk in range(50):
        Sender(source).step(walk)
    assert open_descriptors() <= before + 2 * child_tree.WALKS_MAX
    assert child_disk.forget()
    assert open_descriptors() == before
    assert not child_disk.forget()


def test_no_descriptors_left(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept makes room."""
    for number in range(3):
        (source / str(number)).write_bytes(b"x" * SMALL)
    Sender(source).step(2)
    real = child_folder.Folder.open_read
    tries = []

    def once(self: child_folder.Folder, name: bytes) -> int:
        tries.append(name)
        if len(tries) == 1:
            raise OSError(24, "too many")
        return real(self, name)

    monkeypatch.setattr(child_folder.Folder, "open_read", once)
    sender = Sender(source)
    assert len(sender.all().walked()) == 5


# -- what happens meanwhile ---------------------------------------------------------------


def test_a_file_that_changes_while_it_is_read(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (source / name).write_bytes(b"x" * 100)
    real = child_pack._read

    def grows(descriptor: int, view: memoryview) -> bool:
        done = real(descriptor, view)
        with open(f"/proc/self/fd/{descriptor}", "ab") as file:
            if file.tell() and os.readlink(f"/proc/self/fd/{descriptor}").endswith("b"):
                file.write(b"more")
        return done

    monkeypatch.setattr(child_pack, "_read", grows)
    sender = Sender(source).all()
    assert {fate.path: fate.state for fate in sender.fates} == {
        b"a": "waiting",
        b"b": "failed",
        b"c": "waiting",
    }
    assert sender.texts() == {b"b": tree.CHANGED} and sender.bytes == 200


def test_a_file_that_shrinks_while_it_is_read(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "a").write_bytes(b"x" * 100)
    real = os.readv

    def shrinks(descriptor: int, views: list[memoryview]) -> int:
        os.truncate(source / "a", 50)
        return real(descriptor, views)

    monkeypatch.setattr(os, "readv", shrinks)
    assert Sender(source).all().texts() == {b"a": tree.CHANGED}


def test_things_that_vanish_or_turn_into_something_else(source: Path) -> None:
    for number in range(6):
        (source / str(number)).write_bytes(b"x" * SMALL)
    sender = Sender(source)
    sender.step()
    for number in range(6):
        (source / str(number)).unlink()
        if number % 2:
            (source / str(number)).symlink_to("/etc/passwd")
    sender.all()
    states = {fate.state for fate in sender.fates}
    assert states <= {"waiting", "failed"} and "failed" in states
    assert not any(b"root:" in bytes(piece) for item in sender.items for piece in item.pieces)


def test_a_folder_that_cannot_be_opened(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "closed").mkdir()
    (source / "file").write_bytes(b"x")

    def refuse(self: child_folder.Folder, name: bytes) -> child_folder.Folder:
        raise PermissionError(13, "no")

    monkeypatch.setattr(child_folder.Folder, "child", refuse)
    sender = Sender(source).all()
    assert sender.texts() == {b"closed": "permission denied"}
    assert ("file", b"file") in sender.walked() and sender.number == 4


# -- only some ----------------------------------------------------------------------------


def test_only_some_paths(source: Path) -> None:
    (source / "a" / "b").mkdir(parents=True)
    (source / "c").mkdir()
    for path in ("a/1", "a/b/2", "a/b/3", "c/4", "5"):
        (source / path).write_bytes(path.encode())
    only = [b"a/b/3", b"none", b"c/4", b"a/1", b"a/none/x", b"../../etc/passwd", b"a/b/2", b"c"]
    sender = Sender(source, only).all()
    assert sender.walked() == [
        ("folder", b""),
        ("folder", b"a"),
        ("folder", b"a/b"),
        ("file", b"a/b/3"),
        ("failed", b"none"),
        ("folder", b"c"),
        ("file", b"c/4"),
        ("file", b"a/1"),
        ("failed", b"a/none/x"),
        ("failed", b"../../etc/passwd"),
        ("file", b"a/b/2"),
        ("folder", b"c"),
        ("file", b"c/4"),
        ("folder_end", b"c"),
        ("folder_end", b"c"),
        ("folder_end", b"a/b"),
        ("folder_end", b"a"),
        ("folder_end", b""),
    ]
    part = Sender(source, only)
    part.number, part.after = 6, b"c"
    assert part.all().walked() == sender.walked()[6:]


# -- counting -----------------------------------------------------------------------------


def test_count(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "sub").mkdir()
    (source / "link").symlink_to("sub")
    for number in range(10):
        (source / "sub" / str(number)).write_bytes(b"x" * number)
    root = os.fsencode(source)
    assert do(CountTree(1, root)) == (Counted(10, 45, True), None)
    assert do(CountTree(1, root + b"/sub/9")) == (Counted(1, 9, True), None)
    assert failed(CountTree(1, b"/none")) == "ENOENT"
    monkeypatch.setattr(limits, "COUNT_STEP_S", 0.0)
    counts = []
    while not counts or not counts[-1].end:
        answer, _ = do(CountTree(2, root))
        assert isinstance(answer, Counted)
        counts.append(answer)
    assert counts[-1] == Counted(10, 45, True) and len(counts) > 10
    assert [count.files for count in counts] == sorted(count.files for count in counts)


@pytest.mark.skipif(sys.platform != "linux", reason="there is such a folder on Linux only")
def test_what_the_system_makes_up_is_not_sent_as_an_empty_file() -> None:
    """It has no size before it is read."""
    sender = Sender(Path("/proc/sys/kernel/random")).all()
    assert sender.fates and {each.state for each in sender.fates} == {"skipped"}
    assert not any(kind == "file" for kind, _ in sender.walked())
    answer, _ = do(Inspect(b"/proc/cpuinfo"))
    assert isinstance(answer, Inspected) and answer.kind == "other"
