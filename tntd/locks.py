"""One daemon for a name, and one for a data folder: locks that die with their process.

What holds always: a lock belongs to an open file, so the system frees it however its process
ends, kill -9 included, and nothing has to be cleaned up.  The file stays where it is: removing
it would let two daemons each lock a file of the same name.  What stands in it (process id and
profile name) is for the message to whoever comes second, never a proof that anybody runs.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from tntd.control.visible import visible
from tntd.errors import StartError

ALREADY_RUNNING = 3  # exit code: this profile has a daemon
FAILED = 1  # exit code: anything else
_LOCKED_BYTE = 1 << 30  # Windows locks bytes, and locked ones cannot be read by others
_TEXT_BYTES_MAX = 256


class Lock:
    """A held lock; it is freed by `release` or the end of the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Free the lock."""
        os.close(self._descriptor)


def lock_name(path: Path, name: str) -> Lock:
    """Hold the lock of a profile's name.

    Raises StartError: exit code 3 where its daemon is running, 1 where the file cannot be used.
    """
    descriptor = _open(path)
    if _try_lock(descriptor):
        return _held(descriptor, name)
    pid, _ = _read(descriptor)
    os.close(descriptor)
    raise StartError(
        f"{name} is already running (process {pid}); attach with: tnt-repl --name {name}",
        ALREADY_RUNNING,
    )


def lock_data(path: Path, name: str) -> Lock:
    """Hold the lock of a data folder, whatever name it is used under.

    Raises StartError: exit code 3 where the same name holds it, 1 where another does.
    """
    descriptor = _open(path)
    if _try_lock(descriptor):
        return _held(descriptor, name)
    pid, other = _read(descriptor)
    os.close(descriptor)
    raise StartError(
        f"the data folder {visible(str(path.parent))} is in use by {visible(other)} "
        f"(process {pid}); stop that daemon, or choose another folder with --data-dir",
        ALREADY_RUNNING if other == name else FAILED,
    )


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except OSError as error:
        raise StartError(
            f"cannot use the lock file {visible(str(path))}: {error.strerror}; check its folder"
        ) from error


def _held(descriptor: int, name: str) -> Lock:
    with suppress(OSError):  # a full disk: the text is missing, the lock is there
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, f"{os.getpid()} {name}\n".encode())
    return Lock(descriptor)


def _read(descriptor: int) -> tuple[str, str]:
    """Process id and name of the holder, as words even where they cannot be read."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    text = os.read(descriptor, _TEXT_BYTES_MAX).decode(errors="replace")
    pid, _, name = text.strip().partition(" ")
    return (pid, name) if pid.isdigit() and name else ("unknown", "another daemon")


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise StartError(
                f"this file system has no locks ({error.strerror}); "
                "choose a local folder with --data-dir or TNT_HOME"
            ) from error
        return True
