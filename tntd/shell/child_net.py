"""The child `net`: looks names up, which may wait for a server for many seconds."""

from __future__ import annotations

import socket

from tntd import limits
from tntd.shell.child_wire import Warm
from tntd.tasks import Answer, AnyTask, Failed, Resolve, Resolved


def perform(task: AnyTask | Warm, _given: int | None) -> tuple[Answer, int | None, bool]:
    """Do a task of this child; see child.py."""
    if not isinstance(task, Resolve):
        raise TypeError(f"not a task of this child: {task!r}")
    return resolve(task), None, False


def resolve(task: Resolve) -> Answer:
    """The numeric addresses of a host, in the system's order of preference (RFC 6724)."""
    try:
        found = socket.getaddrinfo(task.host, task.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return Failed("UNRESOLVED", (error.strerror or "the name is not known").lower())
    except (UnicodeError, ValueError):
        return Failed("UNRESOLVED", "it is not a host name")
    except OSError as error:
        return Failed("UNRESOLVED", (error.strerror or "the look-up failed").lower())
    addresses = [_numeric(row[4]) for row in found]
    return Resolved(list(dict.fromkeys(addresses))[: limits.RESOLVED_MAX])


def _numeric(address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]) -> str:
    host = str(address[0])
    scope = address[3] if len(address) == 4 else 0
    # Link-local addresses mean nothing without their interface.
    return f"{host}%{scope}" if scope and "%" not in host else host
