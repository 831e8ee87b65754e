"""What may be in a tree, and the codec of PACK records."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tntd import limits
from tntd.errors import RemoteError
from tntd.machines import pack_record, records, tree
from tntd.machines.pack_record import CHUNK, FILE_END

names = st.one_of(
    st.binary(min_size=1, max_size=12), st.sampled_from([b"..", b".", b"a", b"b", b"", b"con"])
)
paths = st.lists(names, max_size=6).map(b"/".join)


# -- names and paths ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [b"", b"a", b"a/b", b"\xff\xfe/\n", b"...", b"a b/ c", b"\\", b"C:"]
)
def test_good_paths(path: bytes) -> None:
    assert tree.path_problem(path, windows=False) == ""


@pytest.mark.parametrize(
    "path", [b"/", b"/a", b"a/", b"a//b", b".", b"..", b"a/../b", b"./a", b"a\0", b"a/.", b"../a"]
)
def test_bad_paths(path: bytes) -> None:
    assert tree.path_problem(path, windows=False) == tree.NO_NAME


def test_limits_of_paths() -> None:
    deep = b"/".join([b"a"] * limits.TREE_DEPTH_MAX)
    assert tree.path_problem(deep, windows=False) == ""
    assert tree.path_problem(deep + b"/a", windows=False) == tree.TOO_DEEP
    assert tree.path_problem(b"a" * 255, windows=False) == ""
    assert tree.path_problem(b"a" * 256, windows=False) == tree.NAME_TOO_LONG
    long = b"/".join([b"a" * 250] * 17)
    assert tree.path_problem(long, windows=False) == tree.PATH_TOO_LONG


@pytest.mark.parametrize(
    "name",
    [
        *b"con CON nul.txt Com1 lpt9.tar.gz aux. a. a:b a\\b C: a* a? < > | \x01 CONIN$".split(
            b" "
        ),
        *(b"a ", b"aux ", b'a"', b"a\n", b"|", b"\x01", b"com\xc2\xb9"),
    ],
)
def test_names_that_windows_cannot_hold(name: bytes) -> None:
    assert tree.path_problem(name, windows=False) == ""
    assert tree.path_problem(b"a/" + name, windows=True) == tree.NOT_ON_WINDOWS


@pytest.mark.parametrize("name", [b"console", b"com", b"com10", b".con", b"a.b", b"lpt.x"])
def test_names_that_windows_can_hold(name: bytes) -> None:
    assert tree.path_problem(name, windows=True) == ""


@given(paths)
def test_a_good_path_names_something_below(path: bytes) -> None:
    if not tree.path_problem(path, windows=False):
        joined = posixpath.normpath(posixpath.join(b"/root", path))
        assert joined == (b"/root/" + path if path else b"/root")


# -- links --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (b"l", b"a"),
        (b"l", b"a/b"),
        (b"l", b"./a"),
        (b"l", b"a/"),
        (b"d/l", b"../a"),
        (b"d/e/l", b"../../a/b"),
        (b"l", b"..."),
        (b"l", b"..a"),
    ],
)
def test_links_that_stay_inside(path: bytes, target: bytes) -> None:
    assert tree.link_problem(path, target, windows=False) == ""


@pytest.mark.parametrize(
    ("path", "target", "problem"),
    [
        (b"l", b"/etc/passwd", tree.LEADS_OUT),
        (b"l", b"//a", tree.LEADS_OUT),
        (b"l", b"../a", tree.LEADS_OUT),
        (b"d/l", b"../../a", tree.LEADS_OUT),
        (b"d/l", b".././../a", tree.LEADS_OUT),
        (b"l", b"a/../../b", tree.GOES_UP),
        (b"l", b"sub/../sub/x", tree.GOES_UP),
        (b"d/l", b"a/..", tree.GOES_UP),
        (b"l", b"a\0b", tree.LEADS_OUT),
        (b"l", b"", tree.ODD_LINK),
        (b"l", b".", tree.ODD_LINK),
        (b"d/l", b"..", tree.ODD_LINK),
    ],
)
def test_links_that_do_not(path: bytes, target: bytes, problem: str) -> None:
    assert tree.link_problem(path, target, windows=False) == problem


def test_links_on_windows() -> None:
    for target in (b"a\\b", b"C:a", b"..\\..\\a", b"nul"):
        assert tree.link_problem(b"l", target, windows=True) == tree.NOT_ON_WINDOWS
    assert tree.link_problem(b"d/l", b"../a", windows=True) == ""


@given(paths, paths)
def test_a_good_link_stays_inside(path: bytes, target: bytes) -> None:
    if not path or tree.path_problem(path, windows=False):
        return
    if not tree.link_problem(path, target, windows=False):
        folder = posixpath.dirname(b"/root/" + path)
        assert posixpath.normpath(folder + b"/" + target).startswith(b"/root/")


def test_small_rules() -> None:
    assert tree.join(b"", b"a") == b"a" and tree.join(b"a", b"b") == b"a/b"
    assert tree.parent(b"a/b/c") == (b"a/b", b"c") and tree.parent(b"a") == (b"", b"a")
    assert len(tree.told_path(b"a" * 9999)) == limits.TREE_PATH_BYTES_MAX
    assert tree.told_reason(b"\xff" * 9999) == "\ufffd" * limits.ERROR_TEXT_CHARS_MAX


# -- PACK records -------------------------------------------------------------------------


def entry(number: int, what: str, path: bytes = b"a", size: int = 0, text: bytes = b"") -> bytes:
    """An ENTRY chunk."""
    body = pack_record.encode_entry(what, path, size, 5, False, text)  # type: ignore[arg-type]
    return CHUNK.pack(pack_record.ENTRY_KIND, number, 0, len(body)) + body


def data(number: int, offset: int, content: bytes) -> bytes:
    """A DATA chunk."""
    return CHUNK.pack(pack_record.DATA_KIND, number, offset, len(content)) + content


def end(number: int, size: int) -> bytes:
    """A FILE_END chunk."""
    return CHUNK.pack(2, number, 0, FILE_END.size) + FILE_END.pack(size, b"d" * 32)


GOOD = (
    entry(7, "folder", b"")
    + entry(8, "file", b"x", 5)
    + data(8, 0, b"hel")
    + data(8, 3, b"lo")
    + end(8, 5)
    + entry(9, "file", b"empty")
    + end(9, 0)
    + entry(10, "link", b"l", 0, b"x")
    + entry(11, "failed", b"f", 3, b"why")
    + entry(12, "folder_end", b"")
)


def test_the_shapes_are_those_of_other_records() -> None:
    assert CHUNK.format == records.CHUNK.format and FILE_END.format == records.FILE_END.format
    assert (pack_record.DATA_KIND, pack_record.FILE_END_KIND, pack_record.ENTRY_KIND) == (
        records.ChunkKind.DATA,
        records.ChunkKind.FILE_END,
        records.ChunkKind.ENTRY,
    )


def test_a_record_comes_apart() -> None:
    found = pack_record.parse(GOOD, 7)
    assert [item.entry.what for item in found] == [
        "folder",
        "file",
        "file",
        "link",
        "failed",
        "folder_end",
    ]
    assert [bytes(piece) for piece in found[1].pieces] == [b"hel", b"lo"]
    assert found[1].digest == b"d" * 32 and found[2].pieces == [] and found[3].entry.text == b"x"
    assert found[1].entry.mtime_ns == 5


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        GOOD[:-1],
        GOOD + b"x",
        entry(8, "folder"),  # not the number that is due
        entry(7, "folder") + entry(9, "folder"),
        entry(7, "elsewhere"),
        entry(7, "folder", b"a" * 4097),
        entry(7, "folder") + data(7, 0, b"x"),
        entry(7, "folder") + end(7, 0),
        entry(7, "file", b"x", 2) + data(7, 0, b"x") + end(7, 1),
        entry(7, "file", b"x", 1) + data(7, 0, b"xy") + end(7, 2),
        entry(7, "file", b"x", 1) + data(7, 0, b"x") + end(7, 2),
        entry(7, "file", b"x", 2) + data(7, 0, b"x") + data(7, 0, b"x") + end(7, 2),
        entry(7, "file", b"x", 1) + data(8, 0, b"x") + end(7, 1),
        entry(7, "file", b"x", 1) + data(7, 0, b"x"),
        entry(7, "file", b"x"),
        data(7, 0, b"x"),
        CHUNK.pack(3, 7, 0, 0),
        CHUNK.pack(9, 7, 0, 1) + b"x",
        CHUNK.pack(3, 7, 0, 2**32 - 1) + b"x",
        CHUNK.pack(3, 7, 1, 1) + b"x",
        b"".join(entry(7 + at, "folder", b"") for at in range(limits.LANE_CHUNKS_MAX + 1)),
    ],
)
def test_what_is_no_record_is_refused(plain: bytes) -> None:
    with pytest.raises(RemoteError):
        pack_record.parse(plain, 7)


def test_entries_are_counted_to_a_limit() -> None:
    last = limits.TREE_ENTRIES_MAX - 1
    assert pack_record.parse(entry(last, "folder"), last)
    with pytest.raises(RemoteError):
        pack_record.parse(entry(last, "folder") + entry(last + 1, "folder"), last)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_record_or_refused(plain: bytes) -> None:
    try:
        pack_record.parse(plain, 0)
    except RemoteError:
        return


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_any_change_is_a_record_or_refused(at: int, byte: int) -> None:
    changed = bytearray(GOOD)
    changed[at] = byte
    try:
        found = pack_record.parse(bytes(changed), 7)
    except RemoteError:
        return
    assert len(found) == 6
