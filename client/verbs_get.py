"""The verb that takes offers: into the downloads folder, or to a place of one's own.

What holds always: with a place, either all of it is there, checked, under that name, or nothing;
and whoever gives up (Ctrl-C, a time-out) gives the transfer up, as with any program that fetches
something.
"""

from __future__ import annotations

from argparse import Namespace
from contextlib import suppress
from typing import Any, Final

import msgspec

from tntd.control.schema import Transfer, TransferList, TransferResult
from tntd.errors import CommandError
from tntd.limits import LIST_LIMIT_MAX

from . import render, verbs_queue
from .failures import (
    ClientFailure,
    Interrupted,
    NoDaemon,
    OutputLost,
    Refused,
    TimedOut,
    UsageFailure,
)
from .pipes import as_sent
from .steps import Bars, Call, Deliver, DropFolder, MakeLanding, NextEvent, Script, Show, ask_daemon

STANDARD_OUTPUT: Final = "-"


def get(arguments: Namespace) -> Script[None]:
    """Take offers; with -o, one to a place of its own."""
    if arguments.output is None:
        yield from verbs_queue.decide("get", arguments)
        return
    if len(arguments.id) > 1:
        raise UsageFailure("-o is the place of one transfer; take the others one by one")
    if arguments.output == STANDARD_OUTPUT and arguments.json:
        raise UsageFailure("--json and -o - both want standard output; leave one of them out")
    offer = yield from _offered(arguments.id[0])
    if offer is not None and offer.kind == "folder" and arguments.output == STANDARD_OUTPUT:
        raise Refused(
            f"{offer.name} is a folder, which cannot go to standard output; name a place "
            f"for it: tnt get {arguments.id[0]} -o FOLDER"
        )
    folder = yield MakeLanding(arguments.output)
    yield from _fetch(arguments, offer, folder)


def _offered(id: str) -> Script[Transfer | None]:
    """The offer that is meant, before anything is decided; the daemon says where it is none."""
    params: dict[str, Any] = {"state": "offered", "limit": LIST_LIMIT_MAX}
    while True:
        _, page = yield from ask_daemon("transfers.list", params, TransferList)
        for item in page.transfers:
            if item.id.startswith(id.lower()):
                return item
        if not page.transfers or page.transfers[0].id == params.get("before"):
            return None
        params = {**params, "before": page.transfers[0].id}


def _fetch(arguments: Namespace, offer: Transfer | None, folder: str) -> Script[None]:
    item: Transfer | None = None
    raw: dict[str, Any] = {}
    maybe: Transfer | None = None  # what may be taken by now, whether we hear of it or not
    try:
        yield Call("events.subscribe", {})
        params = {"transfer": arguments.id[0], "folder": as_sent(folder)}
        maybe = offer
        answer, result = yield from ask_daemon("transfers.accept", params, TransferResult)
        raw, item = answer["transfer"], result.transfer
        maybe = item
        while item.state not in render.ENDED:
            yield Bars([item], aside=True)
            changed = (yield NextEvent()).get("transfer")
            if changed and changed["id"] == item.id:
                raw, item = changed, msgspec.convert(changed, Transfer)
        yield Bars([item], aside=True)
    except NoDaemon as error:
        place = f"; what was begun goes on when it is back, to {folder}" if item else ""
        raise NoDaemon(error.message + place) from error
    except BaseException as error:
        refused = item is None and isinstance(error, CommandError)  # what there is, is not ours
        id = item.id if item is not None else arguments.id[0]
        yield from _give_up("" if refused or maybe is None else id, folder)
        raise _in_words(error, maybe) from error
    yield from _hand_over(arguments, raw, item, folder)


def _give_up(id: str, folder: str) -> Script[None]:
    with suppress(ClientFailure, CommandError):  # it may have ended by itself
        if id:
            yield Call("transfers.cancel", {"transfer": id})
    yield DropFolder(folder)


def _in_words(error: BaseException, item: Transfer | None) -> BaseException:
    """What to raise in place of `error`, for whoever does not know that it was cancelled."""
    if item is not None and isinstance(error, KeyboardInterrupt):
        return Interrupted(f"{item.name} was cancelled, and nothing is left of it")
    if item is not None and isinstance(error, TimedOut):
        return TimedOut(f"{item.name} has not arrived in time and was cancelled")
    return error


def _hand_over(
    arguments: Namespace, raw: dict[str, Any], item: Transfer, folder: str
) -> Script[None]:
    if item.state != "done":
        if item.path is None:
            yield DropFolder(folder)
        kept = f"; what arrived is {item.path}" if item.path else ""
        why = render.transfer_failure(item, arguments.prefix)
        reason = why if item.state == "failed" else item.error or item.state
        raise Refused(f"{item.name} from {item.contact}: {reason}{kept}")
    try:
        yield Deliver(item, arguments.output)
    except (Refused, OutputLost):
        raise  # it is kept
    except BaseException:
        yield DropFolder(folder)
        raise
    yield DropFolder(folder)
    if arguments.output != STANDARD_OUTPUT:
        text = f"received {render.transfer_what(item)} {render.transfer_peer(item)}"
        yield Show(
            [{**raw, "path": arguments.output}], [render.note(f"{text}: {arguments.output}")]
        )
