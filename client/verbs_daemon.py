"""The verbs about the daemon itself: its state, its events, its log, its end."""

from __future__ import annotations

from argparse import Namespace
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from tntd.control import schema
from tntd.control.places import data_dir, read_endpoints
from tntd.control.visible import visible
from tntd.errors import Code, CommandError

from . import render, render_events
from .failures import Refused, TimedOut
from .steps import AwaitEnd, Call, Leave, NextEvent, Script, Show, ask_daemon


def status(_arguments: Namespace) -> Script[None]:
    """The daemon in numbers."""
    raw, result = yield from ask_daemon("status", {}, schema.Status)
    yield Show([raw], render.status(result))


def events(arguments: Namespace) -> Script[None]:
    """Follow the event log, from a cursor or from now on, until interrupted."""
    params = {} if arguments.since is None else {"since": arguments.since}
    try:
        yield Call("events.subscribe", params)
    except CommandError as error:
        if error.code is Code.CURSOR_GONE:
            raise Refused(f"{error.message}; go on from: --since {error.cursor}") from error
        raise
    with suppress(TimedOut):  # following for so long was all that was asked
        while True:
            event: dict[str, Any] = yield NextEvent()
            moves = event.get("type") == "transfer.progress"  # ten times a second: for programs
            yield Show([event], [] if moves else [render_events.log_line(event)])


def stop(_arguments: Namespace) -> Script[None]:
    """End the daemon, and wait until it has ended."""
    daemon = yield Call("status", {})
    raw = yield Call("daemon.shutdown", {})
    if not (yield AwaitEnd()):
        raise Refused(f"{daemon['name']} was asked to stop and has not yet; see its log")
    yield Show([raw], [render.note(f"{daemon['name']} is stopped")])
    yield Leave()


def log_path(name: str) -> Path:
    """Where a profile's log is: where its daemon says, else where it would be by default."""
    told = (endpoint.log for endpoint in read_endpoints() if endpoint.name == name)
    return Path(next(told, None) or data_dir(name) / "tntd.log")


def log(arguments: Namespace) -> Script[None]:
    """The last lines of the daemon's log file."""
    daemon = yield Call("status", {})
    path = log_path(daemon["name"])
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            lines = list(deque(file, maxlen=arguments.lines))
    except OSError as error:
        raise Refused(f"the log {path} cannot be read: {error.strerror}") from error
    shown = [line.rstrip("\n") for line in lines]
    yield Show(
        [{"log": str(path), "lines": shown}],
        [[(render.DIM, visible(str(path)))], *([(render.PLAIN, visible(line))] for line in shown)],
    )
