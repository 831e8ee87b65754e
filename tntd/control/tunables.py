"""The settings that change while the daemon runs: one row a setting, and what may be its value.

What holds always: daemon and clients read the same table, so what is offered, listed and refused
is the same everywhere.  What is not set here is as the file of settings has it; what is not set
for a contact is as it is in general, except for rates, where both limits hold at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal

import msgspec

from tntd.errors import Code, CommandError
from tntd.limits import LANES_MAX

Kind = Literal["bytes", "rate", "count", "flag", "folder"]
Value = bool | int | str

_NUMBERS: Final = {
    "bytes": (0, 2**63 - 1, "a number of bytes from 0 on"),
    "rate": (0, 2**63 - 1, "bytes a second, 0 for no limit"),
    "count": (1, LANES_MAX, f"a number from 1 to {LANES_MAX}"),
}


class Tunable(msgspec.Struct, frozen=True):
    """A row.  `each`: it can be set for a contact, too."""

    name: str
    kind: Kind
    meaning: str
    each: bool = True


TUNABLES: Final[dict[str, Tunable]] = {
    row.name: row
    for row in (
        Tunable("upload_bytes_per_s", "rate", "how fast files are sent at most; 0: no limit"),
        Tunable("download_bytes_per_s", "rate", "how fast files are taken at most; 0: no limit"),
        Tunable(
            "transfers_max",
            "count",
            "how many transfers move at once in each direction",
            each=False,
        ),
        Tunable(
            "transfers_per_contact_max",
            "count",
            "how many transfers move at once to, or from, one contact",
            each=False,
        ),
        Tunable(
            "auto_accept_bytes_max", "bytes", "offers up to this size are taken without a question"
        ),
        Tunable("ask_always", "flag", "take no offer without a question"),
        Tunable("downloads", "folder", "the folder where files arrive"),
    )
}


def find_tunable(name: str, for_contact: bool) -> Tunable:
    """The row of that name.  Raises CommandError(INVALID_PARAMS), which lists what there is."""
    row = TUNABLES.get(name)
    if row is not None and (row.each or not for_contact):
        return row
    names = ", ".join(each.name for each in TUNABLES.values() if each.each or not for_contact)
    if row is not None:
        message = f"{name} cannot be set for one contact"
    else:
        message = f"no setting {name} that can change while the daemon runs"
    raise CommandError(Code.INVALID_PARAMS, message, f"there are: {names}")


def check_value(row: Tunable, value: object) -> None:
    """Raises CommandError(INVALID_PARAMS) for a value that the setting cannot have.

    A path is given as text, or, where it is not UTF-8, as the bytes that it has been decoded to.
    """
    if row.kind == "flag":
        good, wanted = isinstance(value, bool), "true or false"
    elif row.kind == "folder":
        good = isinstance(value, str | bytes) and _is_absolute(os.fsdecode(value))
        wanted = "the absolute path of a folder"
    else:
        least, most, wanted = _NUMBERS[row.kind]
        good = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
    if not good:
        raise CommandError(
            Code.INVALID_PARAMS, f"{row.name} cannot be {_shown(value)}", f"it is {wanted}"
        )


def _is_absolute(path: str) -> bool:
    return Path(path).is_absolute() and "\0" not in path


def _shown(value: object) -> str:
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
