"""Where a profile's files are, for the daemon and for clients alike.

`TNT_HOME` moves config, data and runtime files together under one folder.  For each running
daemon there is an endpoint file `NAME.json` in the runtime folder: it says how to attach.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path

import msgspec
import platformdirs

# The shortest limit among platforms for a Unix socket's path is macOS's 104 with its NUL.
SOCKET_PATH_BYTES_MAX = 100


class Endpoint(msgspec.Struct, kw_only=True):
    """How to attach to a daemon: `control` is "unix:PATH" or "tcp:HOST:PORT"; `log` is where its
    log file is, `spool` the folder for files that are made only to be sent."""

    name: str
    pid: int
    control: str
    token_file: str | None = None
    log: str | None = None
    spool: str | None = None


def config_dir() -> Path:
    """The folder of the configuration file."""
    home = os.environ.get("TNT_HOME")
    return Path(home).absolute() / "config" if home else platformdirs.user_config_path("tnt")


def data_dir(name: str) -> Path:
    """The default folder of a profile's identity and database."""
    home = os.environ.get("TNT_HOME")
    base = Path(home).absolute() / "data" if home else platformdirs.user_data_path("tnt")
    return base / name


def runtime_dir() -> Path:
    """The folder of sockets, locks and endpoint files."""
    home = os.environ.get("TNT_HOME")
    return Path(home).absolute() / "run" if home else _user_runtime_dir()


def _user_runtime_dir() -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that XDG_RUNTIME_DIR is not set is no user's concern
        return platformdirs.user_runtime_path("tnt")


def downloads_dir() -> Path:
    """Where files arrive unless the settings say otherwise."""
    home = os.environ.get("TNT_HOME")
    return Path(home).absolute() / "downloads" if home else platformdirs.user_downloads_path()


def socket_path(name: str) -> Path:
    """The control socket of a profile: `NAME.sock`, or a hashed name where that is too long."""
    path = runtime_dir() / f"{name}.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    short = runtime_dir() / f"{digest}.sock"
    if len(os.fsencode(short)) <= SOCKET_PATH_BYTES_MAX:
        return short
    # TNT_HOME itself is too deep: the user's own runtime folder, whose path is short.
    return _user_runtime_dir() / f"{digest}.sock"


def endpoint_path(name: str) -> Path:
    """The endpoint file of a profile."""
    return runtime_dir() / f"{name}.json"


def read_endpoints() -> list[Endpoint]:
    """The endpoint files that are there, by name; their daemons may have died since."""
    found: list[Endpoint] = []
    try:
        files = sorted(runtime_dir().glob("*.json"))
    except OSError:
        return found
    for file in files:
        try:
            found.append(msgspec.json.decode(file.read_bytes(), type=Endpoint))
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
    return found
