"""What the REPL keeps on disk for each profile: how far the user has seen, and the typed lines.

What holds always: the cursor on disk is never ahead of what was shown, so a REPL that is killed
shows a little again at most and loses nothing.  A damaged or missing file is no error: the daemon
knows what is unread.  Files are readable by their owner only, and replaced in one step.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from tntd.control.places import data_dir
from tntd.limits import TEXT_BYTES_MAX

HISTORY_BYTES_MAX: Final = 512 * 1024  # of typed lines; the older half is dropped beyond it
SAVE_DELAY_S: Final = 0.5  # so that a flood of messages is one write, not a thousand


class Place(msgspec.Struct, kw_only=True, frozen=True):
    """How far the user has seen: `cursor` of the daemon with the key `id`, as it was at `at`
    (RFC 3339), in the `conversation` with that contact's id."""

    id: str = ""
    cursor: str | None = None
    at: str | None = None
    conversation: str | None = None


def now() -> str:
    """The time, as the control protocol writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def folder(name: str) -> Path:
    """The client's folder of a profile."""
    return data_dir(name) / "client"


def make_folder(name: str) -> Path:
    """The client's folder of a profile, made where it is missing.  Raises OSError."""
    data_dir(name).parent.mkdir(parents=True, exist_ok=True)
    for path in (data_dir(name), folder(name)):
        path.mkdir(mode=0o700, exist_ok=True)
    return folder(name)


def load_place(name: str) -> Place:
    """What is kept about the profile `name`; an empty one where there is nothing usable."""
    try:
        return msgspec.json.decode((folder(name) / "place.json").read_bytes(), type=Place)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Place()


def save_place(name: str, place: Place) -> None:
    """Keep it, in one step.  Raises OSError."""
    target = make_folder(name) / "place.json"
    fresh = target.with_name(f"place.{os.getpid()}.{secrets.token_hex(4)}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(place))
        fresh.replace(target)
    except BaseException:
        with suppress(OSError):
            fresh.unlink()
        raise


class _LineHistory(FileHistory):
    """Typed lines in a file; a disk that is full costs the history, not the chat.  What is longer
    than a message is remembered for this run only: it would push all else out of the file."""

    def store_string(self, string: str) -> None:
        if len(string) <= TEXT_BYTES_MAX:
            with suppress(OSError):
                super().store_string(string)


def open_history(name: str) -> History:
    """The typed lines of the profile `name`, in memory only where there is no disk for them."""
    try:
        path = make_folder(name) / "history"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        if path.stat().st_size > HISTORY_BYTES_MAX:
            _halve(path)
    except OSError:
        return InMemoryHistory()
    return _LineHistory(str(path))


def _halve(path: Path) -> None:
    kept = path.read_bytes()[-HISTORY_BYTES_MAX // 2 :]
    # An entry begins with a line "# TIME" after an empty line.
    start = kept.find(b"\n# ")
    path.write_bytes(kept[start:] if start >= 0 else b"")


class PlaceKeeper:
    """Keeps a profile's place: at once in memory, soon on disk, for sure at the end."""

    def __init__(self, name: str, trouble: Callable[[str], None]) -> None:
        """`trouble` is called, once, with why the place cannot be kept on disk."""
        self.place = load_place(name)
        self._name = name
        self._trouble = trouble
        self._saving: asyncio.TimerHandle | None = None
        self._told = False

    def belongs_to(self, id: str) -> None:
        """The daemon has this key; a place of another one is of no use."""
        if self.place.id != id:
            self.place = Place(id=id)

    def reached(self, cursor: str) -> None:
        """All events up to this cursor are on the screen."""
        self._change(cursor=cursor)

    def talks_to(self, contact: str | None) -> None:
        """The current conversation, by the id of the contact."""
        if contact != self.place.conversation:
            self._change(conversation=contact)

    def _change(self, **changes: str | None) -> None:
        self.place = msgspec.structs.replace(self.place, **changes)
        if self._saving is None:
            loop = asyncio.get_running_loop()
            self._saving = loop.call_later(SAVE_DELAY_S, self.save)

    def save(self) -> None:
        """Bring it to the disk now."""
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None
        self.place = msgspec.structs.replace(self.place, at=now())
        try:
            save_place(self._name, self.place)
        except OSError as error:
            if not self._told:
                self._told = True
                self._trouble(f"what you have seen cannot be remembered: {error.strerror}")
