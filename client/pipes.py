"""Pipes: a file for what comes out of one (see feed.py), and what was offered to its own place.

What holds always:
- What is read from a pipe is a file in a private folder of the daemon's spool.  Once it is queued,
  it is the daemon's to remove, when its transfer has ended.
- Nothing is ever replaced: what arrives gets its name only where there is nothing of that name.
- A piece at a time, however long the pipe is.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import quote

from tntd.control.schema import Transfer
from tntd.control.streams import was_closed
from tntd.limits import MIB

from .failures import OutputLost, Refused
from .render import LANDING, SPOOLED
from .steps import typed_path

PIECE_BYTES: Final = 1 * MIB
_SLASHES: Final = tuple(filter(None, (os.sep, os.altsep)))


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


def spool_file(spool: str | None, name: str) -> str:
    """An empty file `name` in a new folder of the spool; its path.  Raises Refused."""
    path = private_folder(spool) / name
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        drop_folder(path.parent)
        raise Refused(f"{path} cannot be made: {error.strerror}") from error
    return str(path)


def as_sent(path: str) -> str | dict[str, str]:
    """A path as the daemon takes it; `path_bytes` where it is not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return {"path_bytes": quote(os.fsencode(path))}
    return path


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where that can be asked for."""
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
        _check_output()
        return str(private_folder(spool))
    try:
        target = _target(output)
        is_folder = target.is_dir() and not target.is_symlink()
    except OSError as error:
        raise Refused(f"{output} is no usable place: {error.strerror}; choose another") from error
    if is_folder:
        raise Refused(
            f"{output} is a folder; name what is to be in it, such as {output.rstrip('/')}/NAME"
        )
    if os.path.lexists(target):
        raise Refused(f"{output} is there already, and nothing is ever replaced; choose another")
    try:
        return tempfile.mkdtemp(prefix=LANDING, dir=target.parent)
    except OSError as error:
        raise Refused(f"{target.parent} cannot be written: {error.strerror}") from error


def _check_output() -> None:
    """Before anything is taken.  Raises Refused unless any bytes may go to standard output."""
    if was_closed("stdout"):
        raise Refused("standard output is closed, so nothing was taken; name a file: -o FILE")
    if sys.stdout.isatty():
        raise Refused(
            "what arrives would go to the terminal as it is, so nothing was taken; name a file "
            "(-o FILE), or pipe it: tnt get ID -o - | less"
        )
    try:
        os.write(sys.stdout.fileno(), b"")
    except OSError as error:
        raise Refused(
            f"standard output cannot be written: {error.strerror}; nothing was taken"
        ) from error


def deliver(transfer: Transfer, output: str) -> None:
    """What has arrived goes to `output`.  Raises Refused, OutputLost, BrokenPipeError."""
    source = _arrived(transfer)
    if output == "-":
        with source.open("rb") as file:
            _print(file, source)
        return
    try:
        target = _target(output)
        _move(source, target)
    except FileExistsError as error:
        raise Refused(f"{output} is there by now; what arrived is kept as {source}") from error
    except OSError as error:
        text = f"{output} cannot be made: {error.strerror}; what arrived is kept as {source}"
        raise Refused(text) from error
    sync_folder(target.parent)


def drop_folder(folder: str | Path) -> None:
    """Remove a private folder and what is in it."""
    shutil.rmtree(folder, ignore_errors=True)


def _target(output: str) -> Path:
    """Raises Refused, and OSError where it cannot be looked at."""
    path = typed_path(output).absolute()
    if output.endswith(_SLASHES) and not path.is_dir():
        raise Refused(f"there is no folder {output}; make it first, or leave the slash out")
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
