"""Texts that are too long for a message: private files until they have been transferred.

What holds always: a file here goes away only once its transfer has ended, or if it never became
one; so a text that is queued for somebody who is offline is still there when they come back, and
nothing is left behind.  Whether a transfer has ended only the daemon knows; it is asked on attach.
A file is known by its name, which is the same in the daemon's list whatever the folder is called.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from tntd.control.schema import Transfer, TransferList
from tntd.limits import LIST_LIMIT_MAX

from .failures import Refused
from .render import ENDED
from .repl_memory import folder, make_folder

STRAY_AGE_S: Final = 3600.0  # a file without a transfer may be about to get one

Ask = Callable[[str, dict[str, Any]], Awaitable[Any]]


class Texts:
    """The files of the profile `name`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def keep(self, text: str) -> str:
        """Write a text; the file's path.  Raises Refused where the disk does not take it."""
        try:
            return self._write(text.encode("utf-8", "replace"))
        except OSError as error:
            raise Refused(f"the text cannot be kept as a file: {error.strerror}") from error

    def _write(self, data: bytes) -> str:
        texts = make_folder(self._name) / "texts"
        texts.mkdir(mode=0o700, exist_ok=True)
        path = texts / f"text-{datetime.now():%Y%m%d-%H%M%S-%f}.txt"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
        except OSError:
            self.drop(str(path))
            raise
        return str(path)

    def drop(self, path: str) -> None:
        """Remove a file that does not become a transfer."""
        with suppress(OSError):
            Path(path).unlink()

    def ended(self, transfer: Transfer) -> None:
        """Remove the file of a transfer, if it is one of ours and has ended."""
        if transfer.direction == "out" and transfer.state in ENDED:
            file = self._files().get(transfer.name)
            if file is not None:
                self.drop(str(file))

    async def tidy(self, ask: Ask) -> None:
        """Remove the files whose transfers have ended meanwhile.  Raises what `ask` does."""
        left = self._files()
        params: dict[str, Any] = {"limit": LIST_LIMIT_MAX}
        while left:
            page = msgspec.convert(await ask("transfers.list", params), TransferList).transfers
            if not page:
                break
            for transfer in page:
                self.ended(transfer)
                if transfer.direction == "out":
                    left.pop(transfer.name, None)
            params["before"] = page[0].id
        for path in left.values():
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > STRAY_AGE_S:
                    path.unlink()

    def _files(self) -> dict[str, Path]:
        try:
            return {path.name: path for path in folder(self._name).glob("texts/text-*.txt")}
        except OSError:
            return {}
