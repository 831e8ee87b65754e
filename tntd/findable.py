"""How clients find this daemon: its control socket, its token, and the files that tell of them.

What holds always: what is gone from the runtime folder while the daemon runs is put there anew
within LOOK_S.  On Linux that folder goes when its user's last session ends, and the daemon is to be
found when they are back.  What somebody else has put there meanwhile is left alone.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tntd import locks
from tntd.config import split_address
from tntd.control import places
from tntd.errors import StartError
from tntd.folders import private_folder, write_private
from tntd.machines.addresses import show_address
from tntd.settings import Settings
from tntd.shell.control_server import ControlServer
from tntd.shell.control_sockets import open_tcp, open_unix
from tntd.shell.loop import Loop

LOOK_S = 5.0
TOKEN_BYTES = 32

logger = logging.getLogger("tntd")


@dataclass(frozen=True, slots=True)
class Control:
    """Where clients attach: with a Unix socket its path, with TCP the token and its file."""

    sock: socket.socket
    address: str
    path: Path | None = None
    token: bytes | None = None
    token_file: Path | None = None


def open_control(stack: ExitStack, name: str, settings: Settings) -> Control:
    """Listen where the settings say; `stack` closes it.  Raises StartError."""
    default = "unix:" if hasattr(socket, "AF_UNIX") else "tcp:127.0.0.1:0"
    kind, _, where = (settings.control or default).partition(":")
    if kind == "tcp":
        return _open_tcp(stack, name, *split_address(where))
    path = Path(where).expanduser() if where else places.socket_path(name)
    sock = open_unix(path)
    stack.callback(sock.close)
    stack.callback(_remove, path)
    return Control(sock, f"unix:{path}", path)


def _open_tcp(stack: ExitStack, name: str, host: str, port: int) -> Control:
    sock = open_tcp(host, port)
    stack.callback(sock.close)
    address = show_address(*sock.getsockname()[:2])
    token_file = places.runtime_dir() / f"{name}.token"
    return Control(sock, f"tcp:{address}", None, secrets.token_bytes(TOKEN_BYTES), token_file)


class Findable:
    """Keeps a daemon findable from `start` on, until `stack` is closed."""

    def __init__(
        self,
        stack: ExitStack,
        control: Control,
        endpoint: places.Endpoint,
        server: ControlServer,
        loop: Loop,
    ) -> None:
        self._stack = stack
        self._control = control
        self._server = server
        self._loop = loop
        self._name = endpoint.name
        self._files = {places.endpoint_path(self._name): msgspec.json.encode(endpoint)}
        self._trouble = ""
        if control.token is not None and control.token_file is not None:
            port = control.sock.getsockname()[1]
            text = {"token": control.token.hex(), "port": port, "pid": endpoint.pid}
            self._files[control.token_file] = msgspec.json.encode(text)

    def start(self) -> None:
        """Write the files.  Raises StartError."""
        for path, data in self._files.items():
            self._stack.callback(_remove, path)
            _write(path, data)
        self._loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        self._loop.call_later(LOOK_S, self._look)
        paths = [*self._files, *([self._control.path] if self._control.path else [])]
        if all(map(os.path.lexists, paths)):
            return
        try:
            self._put_back()
        except StartError as error:
            if error.message != self._trouble:  # the folder may be away until its user is back
                logger.warning("clients cannot find this daemon: %s", error.message)
            self._trouble = error.message
            return
        self._trouble = ""
        logger.info("the runtime folder was emptied; clients find this daemon there again")

    def _put_back(self) -> None:
        """Raises StartError."""
        lock = private_folder(places.runtime_dir()) / f"{self._name}.lock"
        if not lock.exists():
            self._stack.callback(locks.lock_name(lock, self._name).release)
        path = self._control.path
        if path is not None and not os.path.lexists(path):
            self._server.listen_anew(open_unix(path))
        for each, data in self._files.items():
            _write(each, data)


def _write(path: Path, data: bytes) -> None:
    try:
        write_private(path, data)
    except OSError as error:
        raise StartError(f"cannot write {path}: {error.strerror}; check its folder") from error


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
