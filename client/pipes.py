"""Pipes: standard input to a file that can be sent, and what was offered to a place of its own.

What holds always:
- What is read from a pipe is a file in a private folder of the daemon's spool, synced, before it
  is queued.  From then on it is the daemon's to remove, when its transfer has ended.
- Nothing is ever replaced: what arrives gets its name only where there is nothing of that name.
- A piece at a time, however long the pipe is.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import quote

from tntd.control.schema import Transfer
from tntd.limits import MIB

from .failures import OutputLost, Refused
from .render import LANDING, SPOOLED

PIECE_BYTES: Final = 1 * MIB
SPARE_BYTES: Final = 64 * MIB  # of the disk, left free: the daemon's database is on it
TOUCH_S: Final = 600.0  # so that the daemon sees that somebody is at work


def check_name(name: str) -> None:
    """Raises Refused unless a file may be called `name`."""
    fine = name not in ("", ".", "..") and not set(name) & {"/", "\0"}
    if not fine or len(os.fsencode(name)) > 255:
        raise Refused(f"{name[:60]!r} is no name for a file; choose another with --as")


def private_folder(spool: str | None) -> Path:
    """A new folder in the daemon's spool that only its user can look into.  Raises Refused."""
    if spool is None:
        raise Refused("the daemon is of an older version; stop it, and start it again")
    try:
        Path(spool).mkdir(mode=0o700, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=SPOOLED, dir=spool))
    except OSError as error:
        raise Refused(f"{spool} cannot be written: {error.strerror}") from error


# -- from standard input ------------------------------------------------------------------


def keep_input(spool: str | None, name: str, told: Callable[[int], None]) -> str:
    """Standard input to its end, as the file `name` of a new folder; its path.

    `told` is called with the bytes so far.  However it fails, nothing is left.  Raises Refused.
    """
    if sys.stdin is None:
        raise Refused("standard input is closed; nothing was sent")
    folder = private_folder(spool)
    try:
        _fill(folder / name, sys.stdin.buffer, told)
    except OSError as error:
        drop_folder(folder)
        raise Refused(f"{_reason(error)}; nothing was sent") from error
    except BaseException:
        drop_folder(folder)
        raise
    return str(folder / name)


def as_sent(path: str) -> str | dict[str, str]:
    """A path as the daemon takes it; `path_bytes` where it is not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return {"path_bytes": quote(os.fsencode(path))}
    return path


class _InputBroken(OSError):
    """Reading failed, not writing."""


def _reason(error: OSError) -> str:
    if isinstance(error, _InputBroken):
        return f"standard input cannot be read: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk with the data folder has no room for what comes out of the pipe"
    return f"what comes out of the pipe cannot be kept: {error.strerror}"


def _fill(path: Path, source: Any, told: Callable[[int], None]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        _pump(path.parent, source, file, told)
        os.fsync(descriptor)
    _sync_folder(path.parent)
    _sync_folder(path.parent.parent)


def _pump(folder: Path, source: Any, file: Any, told: Callable[[int], None]) -> None:
    size, looked_at, touched = 0, -SPARE_BYTES, time.monotonic()
    while True:
        if size - looked_at >= SPARE_BYTES:
            looked_at = size
            if shutil.disk_usage(folder).free < 2 * SPARE_BYTES:
                raise OSError(errno.ENOSPC, "no space left")
        try:
            piece = source.read1(PIECE_BYTES)
        except OSError as error:
            raise _InputBroken(error.errno, error.strerror) from error
        if not piece:
            return
        left = memoryview(piece)
        while left:
            left = left[file.write(left) :]
        size += len(piece)
        told(size)
        if time.monotonic() - touched > TOUCH_S:
            touched = time.monotonic()
            os.utime(folder)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # of a file system that has no such thing
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- to a place ---------------------------------------------------------------------------


def make_landing(spool: str | None, output: str) -> str:
    """A private folder where something may arrive that goes to `output`: beside it, or in the
    spool where it goes to standard output ("-").  Raises Refused."""
    if output == "-":
        return str(private_folder(spool))
    target = _target(output)
    if target.is_dir() and not target.is_symlink():
        raise Refused(
            f"{output} is a folder; name what is to be in it, such as {output.rstrip('/')}/NAME"
        )
    if os.path.lexists(target):
        raise Refused(f"{output} is there already, and nothing is ever replaced; choose another")
    try:
        return tempfile.mkdtemp(prefix=LANDING, dir=target.parent)
    except OSError as error:
        raise Refused(f"{target.parent} cannot be written: {error.strerror}") from error


def deliver(transfer: Transfer, output: str) -> None:
    """What has arrived goes to `output`.  Raises Refused, OutputLost, BrokenPipeError."""
    source = _arrived(transfer)
    if output == "-":
        with source.open("rb") as file:
            _print(file, source)
        return
    target = _target(output)
    try:
        _move(source, target)
    except FileExistsError as error:
        raise Refused(f"{output} is there by now; what arrived is kept as {source}") from error
    except OSError as error:
        text = f"{output} cannot be made: {error.strerror}; what arrived is kept as {source}"
        raise Refused(text) from error
    _sync_folder(target.parent)


def drop_folder(folder: str | Path) -> None:
    """Remove a private folder and what is in it."""
    shutil.rmtree(folder, ignore_errors=True)


def _target(output: str) -> Path:
    try:
        path = Path(output).expanduser().absolute()
    except RuntimeError as error:
        raise Refused(f"{output} is no usable path: {error}") from error
    if not path.parent.is_dir():
        raise Refused(f"there is no folder {path.parent}; make it first")
    return path


def _arrived(transfer: Transfer) -> Path:
    if transfer.path_bytes is not None:
        from urllib.parse import unquote_to_bytes

        return Path(os.fsdecode(unquote_to_bytes(transfer.path_bytes)))
    return Path(transfer.path or "")


def _move(source: Path, target: Path) -> None:
    """Rename; FileExistsError where anything is there."""
    if source.is_dir():
        target.mkdir(mode=0o700)  # the name is ours, and empty, so it may be replaced
    else:
        try:
            os.link(source, target, follow_symlinks=False)
        except FileExistsError:
            raise
        except (OSError, NotImplementedError):  # a file system without such names
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        else:
            source.unlink()
            return
    try:
        source.replace(target)
    except OSError:
        with suppress(OSError):
            target.rmdir() if source.is_dir() else target.unlink()
        raise


def _print(file: BinaryIO, source: Path) -> None:
    try:
        while piece := file.read(PIECE_BYTES):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise  # whoever read has had enough
    except OSError as error:
        raise OutputLost(
            f"standard output cannot be written: {error.strerror}; what arrived is kept as {source}"
        ) from error
