"""Which daemon a client attaches to: `--name`, else TNT_NAME, else the only one running.

What holds always: an endpoint file alone does not count.  A daemon that was killed leaves its file
behind, so a candidate is one that answers a handshake; or one that is there and says nothing, for
to take another one in its place would be to speak as somebody else.
"""

from __future__ import annotations

import os
import time
import unicodedata
from typing import Final

from tntd.control.places import Endpoint, read_endpoints
from tntd.errors import CommandError

from .connection import Connection
from .failures import NoDaemon, NotAnswering, UsageFailure

PROBE_TIMEOUT_S: Final = 2.0
PROBE_LEAST_S: Final = 0.01  # also where the time is over: whoever is there is to be named


class SeveralDaemons(UsageFailure):
    """More than one daemon is running and nobody said which: `endpoints` are they."""

    def __init__(self, endpoints: list[Endpoint]) -> None:
        names = ", ".join(endpoint.name for endpoint in endpoints)
        super().__init__(f"several daemons are running ({names}); say which with --name NAME")
        self.endpoints = endpoints


def wanted_name(option: str | None) -> str | None:
    """The name that the user asked for, by option or environment, normalised as names are."""
    name = option or os.environ.get("TNT_NAME") or None
    return unicodedata.normalize("NFC", name) if name else None


def is_running(endpoint: Endpoint, program: str, timeout: float = PROBE_TIMEOUT_S) -> bool:
    """Whether a daemon of ours is there; it may be too busy to answer within `timeout` seconds."""
    try:
        Connection.open(endpoint, program, timeout).close()
    except NotAnswering:
        return True
    except (NoDaemon, CommandError):
        return False
    return True


def find_daemon(name: str | None, program: str, deadline: float | None = None) -> Endpoint:
    """The endpoint to attach to.  Raises NoDaemon or SeveralDaemons."""
    endpoints = read_endpoints()
    if name is not None:
        for endpoint in endpoints:
            if endpoint.name == name:
                return endpoint
        raise NoDaemon(f"no daemon named {name} is running; start one with: tntd --name {name}")
    running = []
    for endpoint in endpoints:
        left = PROBE_TIMEOUT_S if deadline is None else deadline - time.monotonic()
        if is_running(endpoint, program, max(PROBE_LEAST_S, min(left, PROBE_TIMEOUT_S))):
            running.append(endpoint)
    if not running:
        raise NoDaemon("no daemon is running; start one with: tntd --name NAME")
    if len(running) > 1:
        raise SeveralDaemons(running)
    return running[0]
