"""The settings that change while the daemon runs: in general, and for one contact.

What holds always: what is set for a contact wins over what is set in general, which wins over
the file; all of it is in the store, so it holds after the next start, too.
"""

from __future__ import annotations

import json
from typing import cast

import msgspec

from tntd.control import schema
from tntd.control.tunables import TUNABLES, Tunable, check_value, find_tunable
from tntd.effects import LimitLanes
from tntd.errors import CommandError
from tntd.machines.naming import show_path
from tntd.node.core import Core
from tntd.settings import Settings
from tntd.store.contacts import ContactRow

Value = bool | int | bytes
EVERYBODY = 0
RATES = ("upload_bytes_per_s", "download_bytes_per_s")


class Preferences:
    """What our user wants, by contact."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._set: dict[tuple[int, str], Value] = {}
        self.reload()

    def reload(self) -> None:
        """Read all of it from the store."""
        found = self._core.store.preferences.all()
        read = {key: _decode(*key, text) for key, text in found.items()}
        self._set = {key: value for key, value in read.items() if value is not None}
        self._core.settings = self._over(self._core.profile.settings, EVERYBODY)

    def of(self, contact: int) -> Settings:
        """The settings that hold for a contact (but `downloads`)."""
        return self._over(self._core.settings, contact)

    def downloads(self, contact: int) -> bytes:
        """The folder where files of a contact arrive."""
        value = self._set.get((contact, "downloads"), self._set.get((EVERYBODY, "downloads")))
        return value if isinstance(value, bytes) else self._core.profile.downloads

    def tell_rates(self) -> None:
        """Have lanes go as fast as they may: limits up and down, bytes a second, 0 for none."""
        settings = self._core.settings
        contacts = sorted({number for number, name in self._set if number and name in RATES})
        each = tuple(
            (number, *(cast(int, self._set.get((number, name), 0)) for name in RATES))
            for number in contacts
        )
        up, down = settings.upload_bytes_per_s, settings.download_bytes_per_s
        self._core.emit(LimitLanes(up, down, cast(tuple[tuple[int, int, int], ...], each)))

    def list(self, contact: ContactRow | None) -> list[schema.Setting]:
        """All that can be set, as it holds now."""
        each = contact is not None
        return [self.show(row, contact) for row in TUNABLES.values() if row.each or not each]

    def show(self, row: Tunable, contact: ContactRow | None) -> schema.Setting:
        """One setting as it holds now."""
        number = EVERYBODY if contact is None else contact.row
        value = self._holds(row, number)
        shown, exact = show_path(value) if isinstance(value, bytes) else (value, None)
        return schema.Setting(
            name=row.name,
            value=shown,
            path_bytes=exact,
            changed=(number, row.name) in self._set,
            meaning=row.meaning,
            contact=None if contact is None else contact.name,
        )

    def _holds(self, row: Tunable, contact: int) -> Value:
        if row.name == "downloads":
            return self.downloads(contact)
        if row.kind == "rate" and contact != EVERYBODY:
            return self._set.get((contact, row.name), 0)
        return cast(Value, getattr(self.of(contact), row.name))

    def folder(self, name: str, value: object, contact: ContactRow | None) -> bytes | None:
        """The folder that this value is, which is to be looked at before it is set; None where it
        is none.  Raises CommandError(INVALID_PARAMS)."""
        row = find_tunable(name, contact is not None)
        if value is None or row.kind != "folder":
            return None
        check_value(row, value)
        found = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        return cast(bytes, found)

    def set(self, name: str, value: object, contact: ContactRow | None) -> schema.Setting:
        """Change one (None: forget the change).  Raises CommandError(INVALID_PARAMS)."""
        row = find_tunable(name, contact is not None)
        number = EVERYBODY if contact is None else contact.row
        if value is not None:
            check_value(row, value)
        if row.kind == "folder" and isinstance(value, str):
            value = value.encode("utf-8", "surrogateescape")
        text = None if value is None else _encode(cast(Value, value))
        self._core.store.preferences.set(number, name, text)
        self.reload()
        return self.show(row, contact)

    def forget(self, contact: int) -> None:
        """The contact was removed; the next one may get its number."""
        self._core.store.preferences.forget(contact)
        self.reload()

    def _over(self, settings: Settings, contact: int) -> Settings:
        names = [row.name for row in TUNABLES.values() if row.name != "downloads"]
        found = {name: self._set[contact, name] for name in names if (contact, name) in self._set}
        return msgspec.structs.replace(settings, **found) if found else settings


def _encode(value: Value) -> str:
    if isinstance(value, bytes):
        return json.dumps({"hex": value.hex()})
    return json.dumps(value)


def _decode(contact: int, name: str, text: str) -> Value | None:
    """None for what cannot be (another version wrote it, say): it is as if it were not set."""
    try:
        row, value = find_tunable(name, contact != EVERYBODY), json.loads(text)
        value = bytes.fromhex(value["hex"]) if row.kind == "folder" else value
        check_value(row, value)
    except (CommandError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return cast(Value, value)
