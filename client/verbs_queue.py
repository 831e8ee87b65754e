"""The verbs about the queue: look at it, decide about one transfer, see its files, tidy up."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import msgspec

from tntd.control.schema import Cleaned, FileList, Transfer, TransferList, TransferResult
from tntd.errors import CommandError
from tntd.limits import LIST_LIMIT_MAX

from . import render, render_lists
from .failures import SomeRefused, TimedOut, UsageFailure
from .steps import Bars, Call, Complain, NextEvent, Script, Show, ask_daemon, is_there

FILES_SHOWN_MAX: Final = 200  # in the REPL, so that what was said does not scroll away

ENDED_SHOWN: Final = 50  # by default; what has not ended is always shown
PAGE_TRANSFERS: Final = 250  # so that a daemon answers others in between
COUNTED_MAX: Final = 2_000  # beyond, it is not worth the time to know how many are not shown
# As they follow each other, so that what moves on from one to the next meanwhile is not missed.
_OPEN: Final = ("offered", "paused", "queued", "active")
_ORDER: Final = {state: place for place, state in enumerate(_OPEN, 1)}

_METHODS: Final = {
    "get": "transfers.accept",
    "decline": "transfers.decline",
    "pause": "transfers.pause",
    "resume": "transfers.resume",
    "cancel": "transfers.cancel",
    "first": "transfers.first",
    "again": "transfers.again",
}
ACTIONS: Final = (*_METHODS, "files", "clean")


def decline(arguments: Namespace) -> Script[None]:
    """Refuse offers."""
    yield from decide("decline", arguments)


def pause(arguments: Namespace) -> Script[None]:
    """Let transfers rest."""
    yield from decide("pause", arguments)


def resume(arguments: Namespace) -> Script[None]:
    """Go on with transfers that rest."""
    yield from decide("resume", arguments)


def cancel(arguments: Namespace) -> Script[None]:
    """Give transfers up."""
    yield from decide("cancel", arguments)


def first(arguments: Namespace) -> Script[None]:
    """Put transfers to the front of the queue."""
    yield from decide("first", arguments)


def again(arguments: Namespace) -> Script[None]:
    """Send what failed once more."""
    yield from decide("again", arguments)


def decide(action: str, arguments: Namespace) -> Script[None]:
    """Ask for what the verb `action` means, for each id."""

    def one(id: str) -> Script[None]:
        raw, result = yield from ask_daemon(_METHODS[action], {"transfer": id}, TransferResult)
        line = render.transfer_line(result.transfer, arguments.prefix)
        yield Show([raw["transfer"]], [line])

    # From the last to the first: the first named is to be the very first.
    ids = list(dict.fromkeys(arguments.id))
    yield from _each(ids[::-1] if action == "first" else ids, one)


def _each(ids: list[str], one: Callable[[str], Script[None]]) -> Script[None]:
    """Do it for each of them; one that is refused is told, and the others go on.  Raises
    SomeRefused in the end, and where there is only one, what it was refused with."""
    refused = False
    for id in ids:
        try:
            yield from one(id)
        except CommandError as error:
            if len(ids) == 1:
                raise
            refused = True
            text = error.message if repr(id) in error.message else f"{id}: {error.message}"
            yield Complain(CommandError(error.code, text, error.hint))
    if refused:
        raise SomeRefused


def transfers(arguments: Namespace) -> Script[None]:
    """The queue; or with an action and an id, what that verb does."""
    if arguments.action is not None:
        yield from _act(arguments.action, arguments)
        return
    if arguments.watch:
        yield Call("events.subscribe", {})
    yield from _list(None if arguments.all else arguments.limit, arguments.prefix)
    if arguments.watch:
        with suppress(TimedOut):  # watching for so long was all that was asked
            yield from _watch(arguments)


def _act(action: str, arguments: Namespace) -> Script[None]:
    if action == "clean":
        if arguments.id:
            raise UsageFailure("transfers clean takes no id; it tidies up after all that ended")
        yield from clean(arguments)
    elif not arguments.id:
        raise UsageFailure(f"transfers {action} takes the id of a transfer")
    elif action == "files":
        yield from _each(
            list(dict.fromkeys(arguments.id)), lambda one: _files(one, None, arguments)
        )
    else:
        yield from decide(action, arguments)


_Rows = list[tuple[Any, Transfer]]  # as they came, and decoded


def _list(most: int | None, prefix: str) -> Script[None]:
    """What has ended, up to `most` of it, then all that waits, and last, where one looks first,
    what moves; each oldest first."""
    rows: _Rows = []
    for state in _OPEN:
        rows += yield from _all_in(state)
    ended, left_out, exact = yield from _ended(most)
    newest = {row[1].id: row for row in (*rows, *ended)}  # one may have moved on meanwhile
    shown = sorted(newest.values(), key=lambda row: _ORDER.get(row[1].state, 0))
    lines = [render.transfer_line(item, prefix, is_there(item)) for _, item in shown]
    if left_out:
        number = f"{left_out:,}" if exact else f"at least {left_out:,}"
        text = f"{number} more that ended before are not shown; all: {prefix}transfers --all"
        lines.append(render.note(text))
    yield Show([raw for raw, _ in shown], lines or [render.note("no transfers yet")])


def _page(params: dict[str, Any]) -> Script[_Rows]:
    """A page of the list; nothing where the daemon only repeats itself."""
    raw, result = yield from ask_daemon(
        "transfers.list", {"limit": PAGE_TRANSFERS, **params}, TransferList
    )
    page = list(zip(raw["transfers"], result.transfers, strict=True))
    return [] if page and page[0][1].id == params.get("before") else page


def _all_in(state: str) -> Script[_Rows]:
    rows: _Rows = []
    page = yield from _page({"state": state})
    while page:
        rows = page + rows
        page = yield from _page({"state": state, "before": page[0][1].id})
    return rows


def _ended(most: int | None) -> Script[tuple[_Rows, int, bool]]:
    """The newest that have ended; how many more there are, and whether that is all of them."""
    rows: _Rows = []
    left_out = seen = 0
    page = yield from _page({})
    while page:
        ended = [row for row in page if row[1].state in render.ENDED]
        over = 0 if most is None else max(0, len(rows) + len(ended) - most)
        rows = ended[over:] + rows
        left_out, seen = left_out + over, seen + len(page)
        if left_out and seen >= COUNTED_MAX:
            return rows, left_out, False
        page = yield from _page({"before": page[0][1].id})
    return rows, left_out, True


def _watch(arguments: Namespace) -> Script[None]:
    running: dict[str, Transfer] = {}
    waiting: dict[str, str] = {}
    while True:
        event = yield NextEvent()
        raw = event.get("transfer")
        if not raw:
            continue
        item = msgspec.convert(raw, Transfer)
        running[item.id] = item
        if item.state != "active":
            del running[item.id]
        waits = item.state in ("queued", "offered")
        reason = render.waiting_reason(item)
        if event["type"] != "transfer.progress":
            # Once taken it is queued again before it moves: to people, that is no news.
            known = waits and item.id in waiting and reason in ("", waiting[item.id])
            line = render.transfer_line(item, arguments.prefix)
            yield Show([raw], [] if known else [line])
        waiting.pop(item.id, None)
        if waits:
            waiting[item.id] = reason
        yield Bars(list(running.values()))


def files(arguments: Namespace) -> Script[None]:
    """The files of a transfer, and what became of each."""
    yield from _files(arguments.id, arguments.state, arguments)


def _files(id: str, state: str | None, arguments: Namespace) -> Script[None]:
    counts: Counter[str] = Counter()
    params: dict[str, Any] = {"transfer": id, "limit": LIST_LIMIT_MAX}
    most = FILES_SHOWN_MAX if arguments.prefix == "/" else None
    while True:
        raw, result = yield from ask_daemon("transfers.files", params, FileList)
        if not result.files or _place(result) == params.get("after"):
            break
        shown = [
            (each, file)
            for each, file in zip(raw["files"], result.files, strict=True)
            if state in (None, file.state)
        ]
        left = len(shown) if most is None else most - counts.total()
        lines = [render_lists.file_line(file) for _, file in shown[:left]]
        yield Show([each for each, _ in shown[:left]], lines)
        counts.update(file.state for _, file in shown[:left])
        if len(shown) > left:
            yield Show([], [render.note(f"there are more; all are listed by: tnt files {id}")])
            return
        params = {**params, "after": _place(result)}
    yield Show([], [_end_of_files(counts, state)])


def _place(page: FileList) -> str | dict[str, str]:
    """The path of the last file of a page, as the daemon takes it."""
    last = page.files[-1]
    return last.path if last.path_bytes is None else {"path_bytes": last.path_bytes}


def _end_of_files(counts: Counter[str], state: str | None) -> render.Line:
    if counts:
        return render_lists.files_summary(counts)
    return render.note("no files yet" if state is None else f"no files are {state}")


def clean(_arguments: Namespace) -> Script[None]:
    """Remove what transfers that have ended left unfinished."""
    raw, result = yield from ask_daemon("transfers.clean", {}, Cleaned)
    yield Show([raw], render_lists.cleaned(result))
