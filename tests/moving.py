"""What tests of transfers share: files and folders to send, and waiting for how they end."""

from __future__ import annotations

import hashlib
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import Daemon, connect_pair, wait_for

Start = Callable[..., Daemon]
MIB = 1024 * 1024


def make(path: Path, size: int) -> Path:
    """A file of random bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    chance = random.Random(size)
    with path.open("wb") as file:
        while size > 0:
            file.write(chance.randbytes(min(size, 8 * MIB)))
            size -= 8 * MIB
    return path


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pair(daemon: Start, home: Path, *options: str) -> tuple[Daemon, Daemon]:
    """Two linked daemons with downloads folders of their own."""
    alice = daemon("alice", "--downloads", str(home / "a"))
    bob = daemon("bob", "--downloads", str(home / "b"), *options)
    connect_pair(alice, bob)
    return alice, bob


def send(daemon: Daemon, to: str, *paths: Path) -> list[dict[str, Any]]:
    result = daemon.rpc("transfers.send", to=to, paths=[str(path) for path in paths])
    transfers: list[dict[str, Any]] = result["transfers"]
    return transfers


def transfer(daemon: Daemon, id: str) -> dict[str, Any]:
    """The transfer as it stands there; also one that is not known there yet."""
    found: list[dict[str, Any]] = daemon.rpc("transfers.list", limit=1000)["transfers"]
    none = {"state": "unknown", "bytes_done": 0, "bytes_total": 0, "error": None}
    return next((each for each in found if each["id"] == id), none)


def wait_state(daemon: Daemon, id: str, state: str, timeout: float = 60) -> dict[str, Any]:
    wait_for(lambda: transfer(daemon, id)["state"] == state, timeout, f"{id} {state}")
    return transfer(daemon, id)


def slow(daemon: Daemon, rate: int) -> None:
    """From now on it sends `rate` bytes a second, 0 for as many as go: few enough that a test which
    is held up for some seconds still finds a transfer in the middle."""
    daemon.rpc("settings.set", name="upload_bytes_per_s", value=rate)


def waits_for_room(daemon: Daemon, id: str) -> bool:
    """Whether it says that it waits because the disk is full, and that it will go on.  (While it
    was offered it may have said that there is no room, too.)"""
    found = transfer(daemon, id)
    why = found["error"] or ""
    full = "the disk is full" in why or "not enough free space" in why
    return found["state"] == "queued" and full and "it will be tried again" in why


def no_parts(folder: Path) -> bool:
    return not list(folder.glob(".tnt-part/*"))


def make_tree(root: Path, files: int = 60, seed: int = 1) -> Path:
    """A folder with what folders hold: empty ones, odd names, modes, times, links, large files."""
    chance = random.Random(seed)
    folders = [root, root / "a", root / "a" / "deep" / "er", root / "b with space", root / "empty"]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        path = chance.choice(folders[:4]) / f"file-{number}.bin"
        path.write_bytes(chance.randbytes(chance.choice([0, 1, 100, 5_000, 100_000, 200_000])))
        path.chmod(chance.choice([0o644, 0o755]))
        os.utime(path, ns=(1, 1_500_000_000_000_000_000 + number))
    make(root / "large.bin", 3 * MIB + 17)
    Path(os.fsdecode(os.fsencode(root) + b"/odd\xff\x01name")).write_bytes(b"odd")
    (root / "a" / "inside").symlink_to("../b with space")
    for folder in reversed(folders):
        os.utime(folder, ns=(1, 1_400_000_000_000_000_000))
    return root


def picture(root: Path) -> dict[bytes, tuple[object, ...]]:
    """All that is below a folder: kind, mode, time, and hash or target."""
    found: dict[bytes, tuple[object, ...]] = {}
    for folder, folders, names in os.walk(os.fsencode(root)):
        for name in [b"", *folders, *names]:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            key = os.path.relpath(path, os.fsencode(root))
            if stat.S_ISLNK(info.st_mode):
                found[key] = ("link", os.readlink(path))
            elif stat.S_ISDIR(info.st_mode):
                found[key] = ("folder", info.st_mtime_ns)
            else:
                text = digest(Path(os.fsdecode(path)))
                found[key] = ("file", bool(info.st_mode & 0o100), info.st_mtime_ns, text)
    return found


def files_of(daemon: Daemon, id: str, limit: int = 1000) -> list[dict[str, Any]]:
    """The files of a transfer and their states, all pages."""
    found: list[dict[str, Any]] = []
    more: dict[str, Any] = {}
    while page := daemon.rpc("transfers.files", transfer=id, limit=limit, **more)["files"]:
        found += page
        last = page[-1]
        exact = last.get("path_bytes")
        more = {"after": {"path_bytes": exact} if exact else last["path"]}
    return found
