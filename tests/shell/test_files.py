"""Open files by handle, and reads that do not wait."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tntd.shell import files as files_module
from tntd.shell.files import Files, OpenFile, failure, read_at, words, write_at

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def file(tmp_path: Path) -> Iterator[OpenFile]:
    """An open file with CONTENT."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    opened = OpenFile(os.open(path, os.O_RDWR))
    yield opened
    os.close(opened.descriptor)


def is_open(descriptor: int) -> bool:
    """Whether a descriptor is open."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_a_handle_owns_its_descriptor() -> None:
    table = Files()
    first, second = (OpenFile(os.open(os.devnull, os.O_RDONLY)) for _ in range(2))
    table.put(1, first)
    table.put(1, second)
    assert not is_open(first.descriptor)
    assert table.get(1) is second
    table.close(1)
    assert not is_open(second.descriptor)
    assert table.get(1) is None
    table.close(1)


def test_close_all() -> None:
    table = Files()
    opened = [OpenFile(os.open(os.devnull, os.O_RDONLY)) for _ in range(3)]
    for handle, each in enumerate(opened):
        table.put(handle, each)
    assert len(table) == 3
    table.close_all()
    assert len(table) == 0
    assert not any(is_open(each.descriptor) for each in opened)


def test_a_warm_read_gives_what_there_is(file: OpenFile) -> None:
    buffer = memoryview(bytearray(100))
    assert read_at(file, buffer, 256, warm=True) == 100
    assert buffer == CONTENT[256:356]
    assert read_at(file, buffer, len(CONTENT) - 7, warm=True) == 7
    assert read_at(file, buffer, len(CONTENT) + 7, warm=True) == 0


def test_a_read_that_is_not_known_to_be_warm_gives_all_or_nothing(file: OpenFile) -> None:
    buffer = memoryview(bytearray(100))
    assert read_at(file, buffer, 256, warm=False) in {None, 100}
    assert read_at(file, buffer, len(CONTENT) - 7, warm=False) is None


def test_without_the_flag_every_cold_read_waits_for_the_child(
    file: OpenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "_NOWAIT", 0)
    buffer = memoryview(bytearray(100))
    assert read_at(file, buffer, 0, warm=False) is None
    in_memory = OpenFile(file.descriptor, in_memory=True)
    assert read_at(in_memory, buffer, 0, warm=False) == 100


def test_writes_go_where_they_belong(file: OpenFile) -> None:
    write_at(file, memoryview(b"there"), 2)
    write_at(file, memoryview(b"end"), len(CONTENT))
    assert os.pread(file.descriptor, 8, 0) == b"\x00\x01there\x07"
    assert os.pread(file.descriptor, 8, len(CONTENT)) == b"end"


def test_errors_in_words() -> None:
    assert words(OSError(errno.ENOSPC, "No space left on device")) == "the disk is full"
    assert failure(OSError(errno.ENOENT, "", "/secret")).text == "no such file or folder"
    assert failure(OSError(errno.EINVAL, "not a file")).text == "not a file"
    assert failure(OSError(errno.EXDEV, "")).code == "EXDEV"
    assert failure(OSError("odd")).code == "EIO"
