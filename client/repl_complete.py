"""Completion in the REPL: commands, contacts, transfers and paths, by the table of verbs.

What holds always: nothing is asked of the daemon; what is known is enough.  Completions of paths
are quoted as the line will be cut into words (words.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from tntd.control.schema import Transfer
from tntd.control.tunables import TUNABLES
from tntd.control.visible import visible

from . import figures, render
from .repl_model import RUNNING, Model
from .steps import typed_path
from .verbs import VERBS, Argument, Kind, Verb, Where, verbs_of
from .verbs_settings import DEFAULT
from .words import ends_inside, quoted, split

ENTRIES_MAX: Final = 300  # of a folder; more is no help


class ReplCompleter(Completer):
    """Completes the line before the cursor."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """The completions, of the word at the cursor."""
        line = document.text_before_cursor
        if line.startswith("transfer "):
            return self._arguments(VERBS["transfer"], line.removeprefix("transfer "))
        if not line.startswith("/") or line.startswith("//") or "\n" in line:
            return ()
        name, blank, rest = line[1:].partition(" ")
        if not blank:
            return self._verbs(name, "/")
        verb = VERBS.get(name)
        if verb is None or not verb.where & Where.REPL:
            return ()
        return self._arguments(verb, rest)

    def _verbs(self, start: str, slash: str) -> Iterator[Completion]:
        for row in verbs_of(Where.REPL):
            if row.name.startswith(start):
                more = " " if row.arguments and slash else ""
                yield Completion(
                    slash + row.name + more,
                    -len(slash + start),
                    display=slash + row.name,
                    display_meta=row.help,
                )

    def _arguments(self, verb: Verb, rest: str) -> Iterable[Completion]:
        words = split(rest)
        inside = ends_inside(rest)
        whole = [word.text for word in (words[:-1] if inside else words)]
        before = [text for text in whole if not text.startswith("--")]
        typed = words[-1].text if inside else ""
        width = len(rest) - words[-1].start if inside else 0
        if typed.startswith("--"):
            return self._options(verb, typed)
        argument = next(iter(verb.arguments[len(before) :]), None)
        if argument is None and verb.arguments and verb.arguments[-1].many:
            argument = verb.arguments[-1]
        if argument is None:
            return ()
        if argument.kind in (Kind.PATH, Kind.VALUE, Kind.CHOICE):
            return _own(argument, before, typed, width)
        return self._known(verb, argument.kind, before, typed)

    def _known(self, verb: Verb, kind: Kind, before: list[str], typed: str) -> Iterable[Completion]:
        """What the daemon's state, or the table of verbs, has for an argument of that kind."""
        match kind:
            case Kind.CONTACT:
                return self._contacts(verb, typed)
            case Kind.CONTACTS:
                return self._contacts(verb, typed.rpartition(",")[2])
            case Kind.TRANSFER:
                return self._transfers(before[0] if verb.name == "transfers" else verb.name, typed)
            case Kind.SETTING:
                return _settings(typed)
            case Kind.VERB:
                return self._verbs(typed, "")
            case _:
                return ()

    def _options(self, verb: Verb, typed: str) -> Iterator[Completion]:
        for option in verb.options:
            if option.where & Where.REPL and f"--{option.name}".startswith(typed):
                yield Completion(f"--{option.name}", -len(typed), display_meta=option.help)

    def _contacts(self, verb: Verb, typed: str) -> Iterator[Completion]:
        asking = verb.name in ("accept", "block")
        everybody = sorted(
            self._model.contacts.values(),
            key=lambda contact: (asking and contact.trust != "pending", contact.name.casefold()),
        )
        for contact in everybody:
            if contact.name.casefold().startswith(typed.casefold()):
                more = " " if len(verb.arguments) > 1 else ""
                yield Completion(
                    contact.name + more,
                    -len(typed),
                    display=visible(contact.name),
                    display_meta=render.contact_state(contact),
                )

    def _transfers(self, action: str, typed: str) -> Iterator[Completion]:
        known = (*self._model.transfers.values(), *self._model.ended.values())
        for transfer in known:
            id = render.transfer_id(transfer)
            if _fits(action, transfer) and id.startswith(typed):
                what = f"{render.transfer_what(transfer)} {render.transfer_peer(transfer)}"
                yield Completion(id, -len(typed), display_meta=f"{what}, {transfer.state}")


def _own(argument: Argument, before: list[str], typed: str, width: int) -> Iterable[Completion]:
    """What has nothing to do with the daemon: paths, and words of a fixed list."""
    if argument.kind is Kind.PATH:
        return paths(typed, width)
    if argument.kind is Kind.CHOICE:
        return [Completion(word, -width) for word in argument.choices if word.startswith(typed)]
    return _values(before[0], typed, width)


def _settings(typed: str) -> Iterator[Completion]:
    for row in TUNABLES.values():
        if row.name.startswith(typed):
            yield Completion(
                row.name + " ", -len(typed), display=row.name, display_meta=row.meaning
            )


def _values(setting: str, typed: str, width: int) -> Iterator[Completion]:
    row = TUNABLES.get(setting)
    words = ("on", "off", DEFAULT) if row is not None and row.kind == "flag" else (DEFAULT,)
    yield from (Completion(word, -width) for word in words if word.startswith(typed))
    if row is not None and row.kind == "folder":
        yield from (path for path in paths(typed, width) if path.text.endswith(os.sep))


def _fits(action: str, transfer: Transfer) -> bool:
    """Whether a command makes sense for a transfer as it is."""
    match action:
        case "get" | "decline":
            return transfer.state == "offered" and transfer.direction == "in"
        case "pause":
            return transfer.state in RUNNING and transfer.state != "paused"
        case "resume":
            return transfer.state == "paused"
        case "again":
            return transfer.state == "failed"
        case "cancel" | "first":
            return transfer.state in RUNNING
        case _:
            return True


def paths(typed: str, width: int) -> Iterator[Completion]:
    """The entries that go on with `typed`, a path without its quotes that takes `width`
    characters of the line."""
    head, tail = os.path.split(typed)
    try:
        folder = typed_path(head or ".")
        with os.scandir(folder) as entries:
            found = sorted(
                (entry.name, entry.is_dir())
                for entry in entries
                if entry.name.startswith(tail) and (tail or not entry.name.startswith("."))
            )
    except (OSError, RuntimeError, ValueError):
        return
    for name, is_folder in found[:ENTRIES_MAX]:
        slash = os.sep if is_folder else ""
        yield Completion(
            quoted(typed[: len(typed) - len(tail)] + name) + slash,
            -width,
            display=visible(name) + slash,
            display_meta="" if is_folder else _size(folder / name),
        )


def _size(path: Path) -> str:
    try:
        return figures.size(path.stat().st_size)
    except OSError:
        return ""
