"""The log: visible text, one line a record, rotation, reopening."""

from __future__ import annotations

import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tntd import log
from tntd.errors import StartError

logger = logging.getLogger("tntd")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tntd.log"


@pytest.fixture
def handler(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[log.LogFile]:
    """The log; the logger is as it was for the tests that come after."""
    monkeypatch.setattr(logging, "raiseExceptions", logging.raiseExceptions)
    level, propagate = logger.level, logger.propagate
    opened = log.open_log(path, "info")
    yield opened
    log.close_log(opened)
    logger.setLevel(level)
    logger.propagate = propagate


def test_a_line_has_time_level_and_text(handler: log.LogFile, path: Path):
    logger.info("listening on %s", 5)
    logger.debug("not at this level")
    (line,) = path.read_text().splitlines()
    assert line.endswith("Z INFO listening on 5")
    assert line[:2] == "20" and line[10] == "T"


def test_the_file_is_private(handler: log.LogFile, path: Path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_control_character_gets_in(handler: log.LogFile, path: Path):
    logger.warning("name %s", "a\x1b[2J\nFORGED\r\u202e\x9b\x00")
    text = path.read_text()
    assert text.count("\n") == 1
    assert text[:-1].isprintable()


def test_lone_surrogates_are_shown(handler: log.LogFile, path: Path):
    handler.handle(logging.LogRecord("tntd", logging.INFO, "", 0, "%s", ("\udcff",), None))
    assert "<U+DCFF>" in path.read_text()


def test_a_traceback_is_indented_and_visible(handler: log.LogFile, path: Path):
    try:
        raise ValueError("bad \x1b[31m\nthing")
    except ValueError:
        logger.exception("it failed")
    first, *rest = path.read_text().splitlines()
    assert first.endswith("ERROR it failed")
    assert rest and all(line.startswith("    ") and line.isprintable() for line in rest)


def test_old_files_are_kept_up_to_a_number(handler: log.LogFile, path: Path):
    for _ in range(450):
        logger.info("x" * 10_000)
    sizes = sorted(file.stat().st_size for file in path.parent.iterdir())
    assert len(sizes) == 1 + log.OLD_FILES_MAX
    assert sizes[-1] <= log.FILE_BYTES_MAX


def test_reopening_follows_the_name(handler: log.LogFile, path: Path):
    logger.info("one")
    moved = path.rename(path.with_name("moved"))
    logger.info("two")
    handler.reopen()
    logger.info("three")
    assert "two" in moved.read_text()
    assert path.read_text().splitlines()[0].endswith("three")


def test_a_log_that_cannot_be_opened_is_a_start_error(tmp_path: Path):
    with pytest.raises(StartError, match="cannot write the log"):
        log.open_log(tmp_path / "no" / "such.log", "info")


def test_a_reopening_that_fails_is_made_up_for(handler: log.LogFile, path: Path):
    moved = path.rename(path.with_name("moved"))
    path.mkdir()  # so that nothing can be opened there
    handler.reopen()
    logger.warning("lost")
    path.rmdir()
    logger.warning("found again")
    assert "found again" in path.read_text()
    assert "lost" not in path.read_text() + moved.read_text()
