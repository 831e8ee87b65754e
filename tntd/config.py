"""The configuration: a TOML file and the command line's options become one `Settings` value.

What holds always: nothing is guessed and nothing ignored.  Each key is checked by itself, and an
error names the file, the key and what is allowed; an unknown key is an error that suggests
the nearest one.  Options of the command line are checked by the same rules and win.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from tntd.control import places
from tntd.control.visible import visible
from tntd.errors import StartError
from tntd.limits import LANES_MAX
from tntd.settings import HELP, Settings

FILE_NAME: Final = "config.toml"
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOOPBACK_HOSTS: Final = ("127.0.0.1", "::1", "localhost")
_FILE_BYTES_MAX: Final = 64 * 1024  # ours fill 3; a dotted key costs the parser its square

# What a value of each setting may be, in words, for errors and for --print-config.
ALLOWED: Final[dict[str, str]] = {
    "listen": 'a list of "HOST:PORT" with port 0 to 65535, such as ["0.0.0.0:6000", "[::]:6000"]',
    "control": '"unix:PATH" (absolute), or "tcp:HOST:PORT" with the host 127.0.0.1 or ::1',
    "downloads": "the absolute path of a folder; ~ is your home",
    "prefix": "up to 64 characters without / and \\",
    "auto_accept_bytes_max": "a whole number of bytes, 0 or more",
    "reserve_bytes": "a whole number of bytes, 0 or more",
    "ask_always": "true or false",
    "transfers_max": f"a whole number from 1 to {LANES_MAX}",
    "transfers_per_contact_max": f"a whole number from 1 to {LANES_MAX}",
    "upload_bytes_per_s": "a whole number of bytes a second, 0 or more",
    "download_bytes_per_s": "a whole number of bytes a second, 0 or more",
    "strangers": "true or false",
    "advertise": 'a list of up to 8 "HOST:PORT", each of up to 64 characters',
    "learn_addresses": "true or false",
    "read_receipts": "true or false",
    "log_level": ", ".join(LOG_LEVELS),
}


def default_path() -> Path:
    """The file that is read where no other is named; it need not exist."""
    return places.config_dir() / FILE_NAME


def load(file: Path | None, options: dict[str, Any]) -> Settings:
    """The settings of `file` (None: the default file, if there is one), with `options` over them.

    `options` holds settings of the command line, already checked by `check_option`.
    Raises StartError for anything wrong in the file.
    """
    values = _read(file or default_path(), needed=file is not None)
    return msgspec.convert({**values, **options}, Settings)


def check_option(key: str, value: Any) -> Any:
    """`value`, fit for the setting `key`.  Raises ValueError, saying what is allowed."""
    try:
        checked = msgspec.convert(value, _FIELDS[key].type)
    except msgspec.ValidationError:
        checked = None
    fits = _FITS.get(key)
    if (checked is None and value is not None) or (fits is not None and not fits(checked)):
        raise ValueError(f"{key} cannot be {_shown(value)}; allowed: {ALLOWED[key]}")
    return checked


def _shown(value: Any) -> str:
    try:
        shown = repr(visible(value)) if isinstance(value, str) else visible(str(value))
    except (ValueError, RecursionError):
        return "that"  # a number of thousands of digits, or tables in tables without end
    return shown[:80]


def split_address(text: str) -> tuple[str, int]:
    """`HOST:PORT` or `[v6]:PORT` as its parts.  Raises ValueError."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not host or (":" in host and not bracketed) or not host.isprintable():
        raise ValueError(f"not HOST:PORT: {text!r}")
    if not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise ValueError(f"not a port from 0 to 65535: {port!r}")
    return host, int(port)


def print_config() -> str:
    """Every setting with its meaning, what it may be, and its default, as a TOML file."""
    parts = [
        "# Settings of TalknTransfer, with their defaults.  Put what you change into\n"
        f"# {default_path()}, or into a file of your own: tntd --config FILE\n"
    ]
    for name, field in _FIELDS.items():
        value = _default(field)
        line = f"{name} = {_toml(value)}" if value is not None else f"# {name} = []"
        parts.append(f"# {HELP[name]}\n# ({ALLOWED[name]})\n{line}\n")
    return "\n".join(parts)


# -- reading the file ---------------------------------------------------------------------


def _read(path: Path, *, needed: bool) -> dict[str, Any]:
    shown = visible(str(path))
    try:
        with path.open("rb") as stream:
            data = stream.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not needed:
            return {}
        raise StartError(
            f"cannot read the configuration {shown}: {error.strerror}; "
            "give another file with --config"
        ) from error
    if len(data) > _FILE_BYTES_MAX:
        raise StartError(f"{shown} is no configuration of ours: it is larger than 64 KiB")
    try:
        table = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # also: a number that is too long, lists too deep
        raise StartError(
            f"{shown} is not TOML: {visible(str(error))}; compare it with: tntd --print-config"
        ) from error
    return {key: _checked(shown, key, value) for key, value in table.items()}


def _checked(shown: str, key: str, value: Any) -> Any:
    if key not in _FIELDS:
        raise StartError(f"{shown}: no setting {visible(key)!r}; {_suggestion(key)}")
    try:
        return check_option(key, value)
    except ValueError as error:
        raise StartError(f"{shown}: {error}") from error


def _suggestion(key: str) -> str:
    near = difflib.get_close_matches(key.lower(), _FIELDS, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return "the settings are listed by: tntd --print-config"


# -- what a type cannot say ---------------------------------------------------------------


def _are_addresses(value: list[str] | None) -> bool:
    return all(_is_address(text) for text in value or [])


def _is_address(text: str) -> bool:
    try:
        split_address(text)
    except ValueError:
        return False
    return True


def _is_control(value: str) -> bool:
    kind, _, place = value.partition(":")
    if kind == "tcp" and _is_address(place):
        return split_address(place)[0] in LOOPBACK_HOSTS
    return value == "" or (kind == "unix" and _is_path(place))


def _is_folder(value: str) -> bool:
    return value == "" or _is_path(value)


def _is_path(text: str) -> bool:
    try:
        return "\0" not in text and Path(text).expanduser().is_absolute()
    except RuntimeError:  # ~somebody who is not there
        return False


_FITS: Final[dict[str, Callable[[Any], bool]]] = {
    "listen": _are_addresses,
    "advertise": _are_addresses,
    "control": _is_control,
    "downloads": _is_folder,
    "log_level": LOG_LEVELS.__contains__,
}


# -- writing it ---------------------------------------------------------------------------

_FIELDS: Final = {field.name: field for field in msgspec.structs.fields(Settings)}


def _default(field: msgspec.structs.FieldInfo) -> Any:
    factory = field.default_factory
    return field.default if factory is msgspec.NODEFAULT else factory()


def _toml(value: Any) -> str:
    """JSON's strings, numbers, booleans and lists are TOML's too."""
    return json.dumps(value)
