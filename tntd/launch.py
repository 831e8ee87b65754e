"""Starting the daemon in the background: a new process of the foreground program.

What holds always: the caller is told "ready" only after the daemon said so on its ready pipe,
which is its standard output; until then its standard error is kept, and shown if it fails; its
exit code becomes the caller's.  Once ready, the daemon lets go of all three.

Never by fork: a forked interpreter shares locks, descriptors and library state with its parent,
and Windows and macOS have no safe one.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import IO

import msgspec

READY_TIMEOUT_S = 30.0  # a large database may have to be brought up to date first
_READY_BYTES_MAX = 64 * 1024


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The ready line of `tntd --json`; its addresses are ready to use when it is printed.
    `control` is "unix:PATH" or "tcp:HOST:PORT", `token_file` null for the former."""

    name: str
    id: str
    pid: int
    peer_port: int
    control: str
    token_file: str | None
    downloads: str
    log: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a start ended: `ready` is what the daemon said, None where it failed; `errors` is
    what it said on standard error; `exit_code` is for the shell."""

    ready: Ready | None
    errors: str
    exit_code: int


def start(arguments: list[str]) -> Outcome:
    """Run `tntd` with `arguments` in the background until it is ready or has failed."""
    with tempfile.TemporaryFile() as errors:
        process = _spawn(arguments, errors)
        try:
            ready = _read_line(process, time.monotonic() + READY_TIMEOUT_S)
        except (KeyboardInterrupt, TimeoutError):
            process.kill()
            process.wait()
            return Outcome(None, _text(errors) + _not_ready(), 1)
        if ready:
            return Outcome(msgspec.json.decode(ready, type=Ready), _text(errors), 0)
        code = process.wait()
        return Outcome(None, _text(errors) or _died(code), code if code > 0 else 1)


def detach() -> None:
    """In the daemon, once ready: let go of what the caller waits for."""
    sys.stdout.flush()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    if nothing > 2:
        os.close(nothing)


def _spawn(arguments: list[str], errors: IO[bytes]) -> subprocess.Popen[bytes]:
    # -P: a file named like one of our modules in the current folder is never run.
    command = [sys.executable, "-P", "-m", "tntd", "--foreground", "--detached", *arguments]
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        start_new_session=True,
        creationflags=flags,
    )


def _read_line(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """The first line of its output; empty where it ended without one.  Raises TimeoutError."""
    assert process.stdout is not None
    if sys.platform == "win32":  # pipes cannot be selected on there: wait without a bound
        return process.stdout.readline(_READY_BYTES_MAX)
    line = b""
    while not line.endswith(b"\n") and len(line) < _READY_BYTES_MAX:
        left = max(0.0, deadline - time.monotonic())
        readable, _, _ = select.select([process.stdout], [], [], left)
        if not readable:
            raise TimeoutError
        data = os.read(process.stdout.fileno(), _READY_BYTES_MAX)
        if not data:
            return b""
        line += data
    return line


def _text(errors: IO[bytes]) -> str:
    errors.seek(0)
    return errors.read(_READY_BYTES_MAX).decode(errors="replace")


def _not_ready() -> str:
    return (
        f"tntd: not ready after {READY_TIMEOUT_S:.0f} s, so it was ended; "
        "start it with --foreground to look on, or see its log\n"
    )


def _died(code: int) -> str:
    return f"tntd: the daemon ended before it was ready (code {code}); see its log\n"
