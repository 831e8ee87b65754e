"""The verbs that send files and folders, to one contact or to several."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any, Final

import msgspec

from tntd.control.schema import ContactList, Transfer, TransferList
from tntd.limits import PATHS_MAX, TRANSFER_CONTACTS_MAX

from . import render
from .failures import Interrupted, NoDaemon, NotAnswering, Refused, TimedOut, UsageFailure
from .pipes import as_sent, check_name
from .steps import (
    Attached,
    Bars,
    Call,
    DropFolder,
    FeedInput,
    NextEvent,
    Script,
    Show,
    SpoolFile,
    ask_daemon,
    given_path,
    new_ref,
)

IDS_TOLD_MAX: Final = 8  # in a line that somebody may copy
INPUT: Final = "-"  # among the paths: standard input


def send(arguments: Namespace) -> Script[None]:
    """Queue files and folders; with --wait, follow them until the other side has them."""
    _check_input(arguments)
    to = yield from _recipients(arguments.who)
    yield from _send(arguments, to, arguments.wait)


def transfer(arguments: Namespace) -> Script[None]:
    """Queue files and folders for the current conversation (REPL)."""
    if not arguments.current:
        raise Refused("there is no conversation yet; choose one with /to WHO")
    yield from _send(arguments, [arguments.current], wait=False)


def _recipients(who: str) -> Script[list[str]]:
    """The contacts that somebody typed, separated by commas; but a name may hold a comma itself,
    so where there is such a contact it is meant."""
    if "," not in who:
        return [who]
    _, known = yield from ask_daemon("contacts.list", {}, ContactList)
    if any(contact.name.casefold() == who.casefold() for contact in known.contacts):
        return [who]
    several = list(dict.fromkeys(who.split(",")))
    if "" in several:
        raise UsageFailure(f"{who}: a name is missing; write several as: bob,carol")
    if len(several) > TRANSFER_CONTACTS_MAX:
        raise UsageFailure(
            f"{len(several):,} contacts are too many; send to {TRANSFER_CONTACTS_MAX} at most in "
            "one go"
        )
    return several


def _send(arguments: Namespace, to: list[str], wait: bool) -> Script[None]:
    number = len(arguments.path) * len(to)
    if number > PATHS_MAX:
        for_each = f" ({len(arguments.path):,} for each contact)" if len(to) > 1 else ""
        raise UsageFailure(
            f"{number:,} files are too many{for_each}; send {PATHS_MAX:,} at most in one go, or "
            "their folder"
        )
    paths = [given_path(path) for path in arguments.path if path != INPUT]
    raw: list[dict[str, Any]] = []
    if paths:
        raw += yield from _queue(to, paths)
    if INPUT in arguments.path:
        raw += yield from _send_input(to, getattr(arguments, "as"))
    items = [msgspec.convert(item, Transfer) for item in raw]
    if wait:
        yield Call("events.subscribe", {"since": (yield Attached())})
        yield from _follow(raw, items, arguments)
        return
    yield Show(raw, [render.queued(item) for item in items])


def _queue(to: list[str], paths: list[Any], **more: Any) -> Script[list[dict[str, Any]]]:
    who = to[0] if len(to) == 1 else to
    params = {"to": who, "paths": paths, "client_ref": new_ref(), **more}
    raw, _ = yield from ask_daemon("transfers.send", params, TransferList)
    queued: list[dict[str, Any]] = raw["transfers"]
    return queued


def _check_input(arguments: Namespace) -> None:
    """Raises UsageFailure where it is not clear what is sent, or under which name."""
    count, name = arguments.path.count(INPUT), getattr(arguments, "as")
    if count and arguments.prefix == "/":
        raise Refused("- reads standard input only in tnt; a file of that name is ./-")
    if count > 1:
        raise UsageFailure("there is only one standard input; write - once")
    if count and name is None:
        raise UsageFailure("- sends standard input, which has no name; give it one: --as NAME")
    if name is not None and not count:
        raise UsageFailure("--as names standard input; write - among the paths to send it")
    if name is not None:
        check_name(name)


def _send_input(to: list[str], name: str) -> Script[list[dict[str, Any]]]:
    """Standard input as a file of that name, sent while it is read; to its end.  Once it is queued,
    the daemon gives it up, and removes the file, where we are gone before the end."""
    path = yield SpoolFile(name)
    try:
        queued = yield from _queue(to, [as_sent(path)], growing=True)
    except BaseException:
        yield DropFolder(str(Path(path).parent))
        raise
    try:
        raw = yield FeedInput(path, tuple(item["id"] for item in queued))
    except KeyboardInterrupt as error:
        raise Interrupted(f"{name} was not sent: the pipe broke off before its end") from error
    except (NoDaemon, NotAnswering) as error:
        raise type(error)(f"{name} was not sent: {error.message}") from error
    fed: list[dict[str, Any]] = raw["transfers"]
    return fed


def _follow(raw: list[dict[str, Any]], items: list[Transfer], arguments: Namespace) -> Script[None]:
    """Show how far they are until all have ended.  Raises Refused, naming what has failed."""
    last = {item["id"]: item for item in raw}
    followed = {item.id: item for item in items}
    going = {item.id for item in items if item.state not in render.ENDED}
    try:
        yield from _until_ended(last, followed, going)
    except KeyboardInterrupt as error:
        raise Interrupted(_stays([item for id, item in followed.items() if id in going])) from error
    yield from _outcome(list(last.values()), list(followed.values()), arguments.prefix)


def _until_ended(
    last: dict[str, dict[str, Any]], followed: dict[str, Transfer], going: set[str]
) -> Script[None]:
    yield Bars(list(followed.values()))
    while going:
        waited_for = next(item for id, item in followed.items() if id in going)
        changed = (yield from _next_of(waited_for, len(going))).get("transfer")
        if not changed or changed["id"] not in followed:
            continue
        item = msgspec.convert(changed, Transfer)
        last[item.id], followed[item.id] = changed, item
        (going.discard if item.state in render.ENDED else going.add)(item.id)
        yield Bars(list(followed.values()))


def _stays(items: list[Transfer]) -> str:
    """What becomes of transfers that are not waited for any more."""
    if not items:
        return "all of it has ended (see: tnt transfers)"
    stay = f" and {len(items) - 1:,} more stay" if len(items) > 1 else " stays"
    them = "them" if len(items) > 1 else "it"
    ids = " ".join(render.transfer_id(item) for item in items[:IDS_TOLD_MAX])
    more = "..." if len(items) > IDS_TOLD_MAX else ""
    return f"{items[0].name}{stay} in the queue; to give {them} up: tnt cancel {ids}{more}"


def _outcome(raw: list[dict[str, Any]], ended: list[Transfer], prefix: str) -> Script[None]:
    lines = [render.transfer_news(item, prefix) for item in ended]
    good = [line for item, line in zip(ended, lines, strict=True) if line and item.state == "done"]
    yield Show(raw, good)
    bad = [item for item in ended if item.state != "done"]
    if bad:
        reasons = "; ".join(
            f"{item.name} to {item.contact}: {_reason(item, prefix)}" for item in bad
        )
        raise Refused(f"not delivered: {reasons}")


def _reason(item: Transfer, prefix: str) -> str:
    if item.state == "failed":
        return render.transfer_failure(item, prefix)
    return item.error or item.state


def _next_of(item: Transfer, number: int) -> Script[dict[str, Any]]:
    try:
        event: dict[str, Any] = yield NextEvent()
    except TimedOut as error:
        others = f" and {number - 1:,} more" if number > 1 else ""
        have, it, stays = ("have", "they", "stay") if number > 1 else ("has", "it", "stays")
        paused = ", it is paused" if item.state == "paused" and number == 1 else ""
        raise TimedOut(
            f"{item.name}{others} {have} not arrived at {item.contact}'s in time{paused}; "
            f"{it} {stays} in the queue (see: tnt transfers)"
        ) from error
    return event
