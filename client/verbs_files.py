"""The verbs about files: send some, look at the queue, decide on an offer."""

from __future__ import annotations

from argparse import Namespace
from contextlib import suppress
from typing import Any

import msgspec

from tntd.control.schema import Transfer, TransferList, TransferResult
from tntd.limits import PATHS_MAX

from . import render
from .failures import Refused, TimedOut, UsageFailure
from .steps import Bars, Call, NextEvent, Script, Show, ask_daemon, given_path, new_ref

_METHODS = {
    "get": "transfers.accept",
    "decline": "transfers.decline",
    "cancel": "transfers.cancel",
}


def send(arguments: Namespace) -> Script[None]:
    """Queue files; with --wait, follow them until the other side has them."""
    yield from _send(arguments, arguments.who, arguments.wait)


def transfer(arguments: Namespace) -> Script[None]:
    """Queue files for the current conversation (REPL)."""
    if not arguments.current:
        raise Refused("there is no conversation yet; choose one with /to WHO")
    yield from _send(arguments, arguments.current, wait=False)


def _send(arguments: Namespace, who: str, wait: bool) -> Script[None]:
    if len(arguments.path) > PATHS_MAX:
        count = f"{len(arguments.path):,} files are too many"
        raise UsageFailure(f"{count}; send {PATHS_MAX:,} at most in one go")
    paths = [given_path(path) for path in arguments.path]
    if wait:
        yield Call("events.subscribe", {})
    params = {"to": who, "paths": paths, "client_ref": new_ref()}
    raw, result = yield from ask_daemon("transfers.send", params, TransferList)
    if wait:
        yield from _follow(raw["transfers"], arguments)
        return
    yield Show(raw["transfers"], [render.queued(item) for item in result.transfers])


def _follow(raw: list[dict[str, Any]], arguments: Namespace) -> Script[None]:
    followed = {item["id"]: item for item in raw}
    yield Bars([_decode(item) for item in followed.values()])
    while any(item["state"] not in render.ENDED for item in followed.values()):
        changed = (yield from _next_of(next(iter(followed.values())))).get("transfer")
        if changed and changed["id"] in followed:
            followed[changed["id"]] = changed
            yield Bars([_decode(item) for item in followed.values()])
    ended = [_decode(item) for item in followed.values()]
    lines = [render.transfer_news(item, arguments.prefix) for item in ended]
    good = [line for item, line in zip(ended, lines, strict=True) if line and item.state == "done"]
    yield Show(list(followed.values()), good)
    bad = [item for item in ended if item.state != "done"]
    if bad:
        reasons = "; ".join(
            f"{item.name} to {item.contact}: {item.error or item.state}" for item in bad
        )
        raise Refused(f"not delivered: {reasons}")


def _next_of(raw: dict[str, Any]) -> Script[dict[str, Any]]:
    try:
        event: dict[str, Any] = yield NextEvent()
    except TimedOut as error:
        raise TimedOut(
            f"{raw['name']} has not arrived at {raw['contact']}'s in time; it stays in the queue "
            "(see: tnt transfers)"
        ) from error
    return event


def _decode(raw: dict[str, Any]) -> Transfer:
    return msgspec.convert(raw, Transfer)


def transfers(arguments: Namespace) -> Script[None]:
    """The queue; or with an action and an id, a decision about one transfer."""
    if arguments.action is not None:
        yield from _decide(arguments)
        return
    if arguments.watch:
        yield Call("events.subscribe", {})
    raw, result = yield from ask_daemon("transfers.list", {}, TransferList)
    lines = [render.transfer_line(item) for item in result.transfers]
    yield Show(raw["transfers"], lines or [render.note("no transfers yet")])
    if arguments.watch:
        with suppress(TimedOut):  # watching for so long was all that was asked
            yield from _watch()


def _decide(arguments: Namespace) -> Script[None]:
    if arguments.transfer is None:
        raise UsageFailure(f"transfers {arguments.action} takes the id of a transfer")
    raw, result = yield from ask_daemon(
        _METHODS[arguments.action], {"transfer": arguments.transfer}, TransferResult
    )
    line = render.transfer_line(result.transfer)
    yield Show([raw["transfer"]], [line])


def _watch() -> Script[None]:
    running: dict[str, Transfer] = {}
    waiting: set[str] = set()
    while True:
        event = yield NextEvent()
        raw = event.get("transfer")
        if not raw:
            continue
        item = _decode(raw)
        running[item.id] = item
        if item.state != "active":
            del running[item.id]
        waits = item.state in ("queued", "offered")
        if event["type"] != "transfer.progress":
            # It is offered, taken and queued again before it moves: to people, all is waiting.
            news = [] if waits and item.id in waiting else [render.transfer_line(item)]
            yield Show([raw], news)
        (waiting.add if waits else waiting.discard)(item.id)
        yield Bars(list(running.values()))
