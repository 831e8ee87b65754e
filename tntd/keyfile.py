"""The file of the identity: 32 secret bytes that must neither leak nor get lost.

What holds always: a seed is used only after it lies whole and synced under its final name; an
existing file is never written to, whatever is in it; and a file that others can read is refused
rather than mended, for its owner should know that the key may have been copied.

The file is made under another name and then renamed: a crash half way leaves no broken key.
The caller holds the lock of the data folder, so nobody else makes one at the same time.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from pathlib import Path

from tntd.control.visible import visible
from tntd.errors import StartError
from tntd.folders import sync_folder

FILE_NAME = "identity.key"
SEED_BYTES = 32
_PREFIX = b"tnt-ed25519-seed: "
_FILE_BYTES_MAX = 1024


def load_or_create(path: Path) -> tuple[bytes, bool]:
    """The seed in `path`, and whether it was made just now.

    Raises StartError where the file cannot be read or written, is readable by others, or holds
    anything but a seed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        return _create(path), True
    except OSError as error:
        raise _unusable(path, str(error.strerror)) from error
    try:
        return _read(descriptor, path), False
    except OSError as error:
        raise _unusable(path, str(error.strerror)) from error
    finally:
        os.close(descriptor)


def _read(descriptor: int, path: Path) -> bytes:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise _unusable(path, "not a regular file")
    if os.name == "posix" and found.st_mode & 0o077:
        raise StartError(
            f"{visible(str(path))} can be read by others (mode {found.st_mode & 0o777:o}), "
            f"so the key in it may have been copied; if you trust it still: chmod 600 {path}"
        )
    return _parse(os.read(descriptor, _FILE_BYTES_MAX), path)


def _parse(data: bytes, path: Path) -> bytes:
    if not data.startswith(_PREFIX):
        raise _unusable(path, "it holds no key of ours")
    text = data.removeprefix(_PREFIX).strip()
    try:
        seed = base64.b32decode(text + b"=" * (-len(text) % 8))
    except (binascii.Error, ValueError) as error:
        raise _unusable(path, "its key is damaged") from error
    if len(seed) != SEED_BYTES:
        raise _unusable(path, f"its key has {len(seed)} bytes, not {SEED_BYTES}")
    return seed


def _create(path: Path) -> bytes:
    seed = os.urandom(SEED_BYTES)
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.unlink(missing_ok=True)  # left by a crash; it was never used
        _write(fresh, _PREFIX + base64.b32encode(seed).rstrip(b"=") + b"\n")
        if os.path.lexists(path):
            raise _unusable(path, "it appeared just now")
        fresh.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        raise StartError(
            f"cannot make the key file {visible(str(path))}: {error.strerror}; check its folder"
        ) from error
    return seed


def _write(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unusable(path: Path, why: str) -> StartError:
    return StartError(
        f"cannot use the key file {visible(str(path))}: {why}; "
        "put a copy of the right file there, or move it away to start with a new identity"
    )
