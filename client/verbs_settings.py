"""The verbs about settings that change while the daemon runs: look at them, change one."""

from __future__ import annotations

from argparse import Namespace
from typing import Any, Final

from tntd.control.schema import Setting, SettingList
from tntd.control.tunables import Tunable, check_value, find_tunable
from tntd.errors import CommandError

from . import render_lists
from .failures import UsageFailure
from .steps import Script, Show, ask_daemon, given_path
from .units import parse_size, parse_switch

DEFAULT: Final = "default"  # typed in place of a value


def settings(arguments: Namespace) -> Script[None]:
    """What holds in general, or for one contact."""
    params = {} if arguments.who is None else {"contact": arguments.who}
    raw, result = yield from ask_daemon("settings.list", params, SettingList)
    yield Show(raw["settings"], render_lists.settings(result.settings))


def set_value(arguments: Namespace) -> Script[None]:
    """Change a setting, in general or for one contact."""
    params: dict[str, Any] = {
        "name": arguments.setting,
        "value": typed_value(arguments.setting, arguments.value, arguments.who is not None),
    }
    if arguments.who is not None:
        params["contact"] = arguments.who
    raw, result = yield from ask_daemon("settings.set", params, Setting)
    yield Show([raw], [render_lists.set_to(result)])


def typed_value(name: str, text: str, for_contact: bool) -> Any:
    """The value that was typed for a setting, as the daemon takes it; None for "default".

    Raises UsageFailure for a setting that is none, and for a value that it cannot have.
    """
    try:
        row = find_tunable(name, for_contact)
        if text.lower() == DEFAULT:
            return None
        value = _value(row, text)
        if row.kind != "folder":
            check_value(row, value)
    except CommandError as error:
        raise UsageFailure(f"{error.message}; {error.hint}") from error
    return value


def _value(row: Tunable, text: str) -> Any:
    match row.kind:
        case "bytes" | "rate":
            value: Any = parse_size(text, rate=row.kind == "rate")
            example = "2MB/s" if row.kind == "rate" else "1.5GiB"
            wanted = f"a number of bytes such as 500k, 20MiB or {example}"
        case "count":
            value = int(text) if text.isdecimal() and text.isascii() and len(text) < 10 else None
            wanted = "a number"
        case "flag":
            value, wanted = parse_switch(text), "on or off"
        case "folder":
            return given_path(text)
    if value is None:
        raise UsageFailure(f"{row.name} cannot be {text!r}: it takes {wanted}, or {DEFAULT}")
    return value
