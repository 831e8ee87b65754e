"""Opening the sockets that clients attach to, and asking the system who is behind one.

What holds always: the Unix socket has mode 0600, in a folder where nobody else could put another
in its place (one that we make has mode 0700; one that was there is not changed); what a dead
daemon left there is replaced, the socket of a living one never, and nothing that is no socket.
TCP is loopback, whatever was asked for.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
import struct
import sys
from pathlib import Path

from tntd.control.visible import visible
from tntd.errors import StartError
from tntd.shell.stream import in_words

_BACKLOG = 64
_ALREADY_RUNNING = 3  # the exit code of tntd
_PEERCRED = struct.Struct("3i")  # Linux: pid, uid, gid
_SOL_LOCAL = 0  # macOS and BSD
_LOCAL_PEERCRED = 1
_XUCRED = struct.Struct("2I")  # its head: version, uid
_XUCRED_BYTES = 76


def open_unix(path: Path) -> socket.socket:
    """Listen at `path`.  Raises StartError, with exit code 3 where a daemon lives there."""
    shown = visible(str(path))
    if not hasattr(socket, "AF_UNIX"):
        raise StartError(
            "this system has no Unix sockets for programs in Python; use --control tcp:127.0.0.1:0"
        )
    try:
        _prepare_folder(path.parent)
        _remove_stale(path)
        return _bind_unix(path)
    except OSError as error:
        raise StartError(
            f"cannot listen for clients at {shown}: {in_words(error)}; choose another place with "
            "--control unix:PATH"
        ) from error


def open_tcp(host: str, port: int) -> socket.socket:
    """Listen on a loopback address; port 0 is chosen by the system.  Raises StartError."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        address = ipaddress.ip_address("0.0.0.0")
    if not address.is_loopback:
        raise StartError(
            f"{visible(host)} is not a loopback address, and no client may come from the network; "
            "use --control tcp:127.0.0.1:0"
        )
    sock = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6)
    try:
        if sys.platform == "win32":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((str(address), port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise StartError(
            f"cannot listen for clients on {host} port {port}: {in_words(error)}; choose another "
            "with --control tcp:HOST:PORT"
        ) from error
    return sock


def is_our_user(sock: socket.socket) -> bool:
    """Whether the process at the other end of a Unix socket runs as our user, as far as the
    system can tell; where it cannot, the modes of socket and folder keep others out."""
    if sys.platform == "win32":
        return True
    try:
        uid = _peer_uid(sock)
    except OSError:
        return False  # it has gone again
    return uid is None or uid == os.geteuid()


def _peer_uid(sock: socket.socket) -> int | None:
    peercred = getattr(socket, "SO_PEERCRED", None)
    if sys.platform == "linux" and peercred is not None:
        data = sock.getsockopt(socket.SOL_SOCKET, peercred, _PEERCRED.size)
        return int(_PEERCRED.unpack(data)[1])
    if sys.platform == "darwin" or "bsd" in sys.platform:
        data = sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_BYTES)
        return int(_XUCRED.unpack_from(data)[1])
    return None


def _prepare_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if sys.platform == "win32":
        return
    found = folder.stat()
    others_may_write = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
    if found.st_uid not in (os.geteuid(), 0) or others_may_write:
        raise StartError(
            f"other users could replace the control socket in {visible(str(folder))}; choose a "
            "folder of your own with --control unix:PATH"
        )


def _remove_stale(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise StartError(
            f"{visible(str(path))} is there and is no socket; move it away, or choose another "
            "place with --control unix:PATH"
        )
    if _is_alive(path):
        raise StartError(
            f"a daemon is already listening at {visible(str(path))}; attach to it with tnt-repl, "
            "or stop it with tnt stop",
            _ALREADY_RUNNING,
        )
    path.unlink(missing_ok=True)


def _is_alive(path: Path) -> bool:
    probe = socket.socket(socket.AF_UNIX)
    probe.setblocking(False)
    try:
        number = probe.connect_ex(str(path))
    finally:
        probe.close()
    return number not in (errno.ECONNREFUSED, errno.ENOENT)


def _bind_unix(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        sock.bind(str(path))
        path.chmod(0o600)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(mask)
    return sock
