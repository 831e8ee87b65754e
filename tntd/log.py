"""The log file: one line a record, rotated by size, reopened on SIGHUP.

What holds always: no control character gets into the file, whatever a peer called itself, so
reading the log cannot drive a terminal or forge a line.  A traceback takes several lines, each
indented.  A log that cannot be written never stops the daemon: the record is lost.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import time
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path

from tntd.control.visible import visible
from tntd.errors import StartError
from tntd.limits import MIB

FILE_NAME = "tntd.log"
FILE_BYTES_MAX = 1 * MIB
OLD_FILES_MAX = 3


class LogFile(logging.handlers.RotatingFileHandler):
    """The handler behind the logger `tntd`; files are readable by their owner only."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where the file cannot be opened."""
        super().__init__(
            path,
            maxBytes=FILE_BYTES_MAX,
            backupCount=OLD_FILES_MAX,
            encoding="utf-8",
            errors="backslashreplace",
        )
        self.setFormatter(_Visible())

    def reopen(self) -> None:
        """Open the file of that name anew, after somebody else has moved the old one."""
        self.acquire()
        try:
            # Without a stream, each record tries to open the file.
            stream, self.stream = self.stream, None
            if stream:
                stream.close()
            self.stream = self._open()
        except OSError:
            pass  # records are lost until it can be opened
        finally:
            self.release()

    def _open(self) -> TextIOWrapper:
        return open(
            self.baseFilename, "a", encoding="utf-8", errors="backslashreplace", opener=_private
        )


def open_log(path: Path, level: str) -> LogFile:
    """Send what the logger `tntd` says to `path`, from `level` ("info", ...) on.

    Raises StartError where the file cannot be opened.
    """
    logging.raiseExceptions = False
    try:
        handler = LogFile(path)
    except OSError as error:
        raise StartError(
            f"cannot write the log {visible(str(path))}: {error.strerror}; check its folder"
        ) from error
    logger = logging.getLogger("tntd")
    logger.setLevel(level.upper())
    logger.propagate = False
    logger.addHandler(handler)
    return handler


def close_log(handler: LogFile) -> None:
    """Take the file from the logger and close it."""
    logging.getLogger("tntd").removeHandler(handler)
    with suppress(OSError):  # what a full disk has not taken by now is lost
        handler.close()


class _Visible(logging.Formatter):
    """`2026-11-24T08:00:00.123Z INFO text`, and a traceback's lines indented below."""

    def format(self, record: logging.LogRecord) -> str:
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        message = visible(record.getMessage())
        lines = [f"{second}.{int(record.msecs):03d}Z {record.levelname} {message}"]
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            lines += [f"    {visible(line)}" for line in trace.split("\n")]
        return "\n".join(lines)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o600)
