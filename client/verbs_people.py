"""The verbs about contacts: who may talk to us, and whether they are who we think."""

from __future__ import annotations

from argparse import Namespace

from tntd.control.schema import ContactList, ContactResult, WordsResult
from tntd.control.visible import visible

from . import render
from .failures import Refused
from .people import find_contact
from .steps import Ask, Script, Show, Switch, ask_daemon

_Told = Script[None]
_WORDS_A_ROW = 6


def connect(arguments: Namespace) -> _Told:
    """Dial an address; the daemon answers once linked."""
    params = {"address": arguments.address, "new": arguments.new}
    raw, result = yield from ask_daemon("peers.connect", params, ContactResult)
    yield Show([raw["contact"]], [render.connected(result.contact, arguments.prefix)])
    yield Switch(result.contact, gentle=True)


def contacts(arguments: Namespace) -> _Told:
    """List everybody."""
    raw, result = yield from ask_daemon("contacts.list", {}, ContactList)
    lines = render.contacts(result.contacts)
    if not lines:
        lines = [render.note(f"no contacts yet; dial one with {arguments.prefix}connect ADDRESS")]
    yield Show(raw["contacts"], lines)


def _change(method: str, who: str, news: str) -> _Told:
    raw, result = yield from ask_daemon(method, {"contact": who}, ContactResult)
    yield Show([raw["contact"]], [render.note(news.format(result.contact.name))])


def accept(arguments: Namespace) -> _Told:
    """Accept a contact request."""
    raw, result = yield from ask_daemon(
        "contacts.accept", {"contact": arguments.who}, ContactResult
    )
    name = result.contact.name
    yield Show([raw["contact"]], [render.note(f"{name} is accepted, and may talk to you now")])
    yield Switch(result.contact, gentle=True)


def block(arguments: Namespace) -> _Told:
    """Never hear of somebody again."""
    yield from _change("contacts.block", arguments.who, "{} is blocked")


def unblock(arguments: Namespace) -> _Told:
    """Take a block back."""
    raw, result = yield from ask_daemon(
        "contacts.unblock", {"contact": arguments.who}, ContactResult
    )
    news = f"{result.contact.name} is no longer blocked"
    if result.contact.trust == "pending":
        news += f"; to talk again: {arguments.prefix}accept {result.contact.name}"
    yield Show([raw["contact"]], [render.note(news)])


def remove(arguments: Namespace) -> _Told:
    """Forget somebody and their history; in the REPL after a question."""
    who = arguments.who
    if arguments.prefix == "/":
        _, known = yield from ask_daemon("contacts.list", {}, ContactList)
        contact = find_contact(known.contacts, who)
        who = contact.id
        if not (yield Ask(f"Forget {contact.name} and all messages?")):
            yield Show([], [render.note(f"{contact.name} stays; nothing was removed")])
            return
    yield from _change("contacts.remove", who, "{} is forgotten, with all messages")


def rename(arguments: Namespace) -> _Told:
    """Change the local name of somebody."""
    params = {"contact": arguments.who, "name": arguments.new_name}
    raw, result = yield from ask_daemon("contacts.rename", params, ContactResult)
    news = f"{arguments.who} is {result.contact.name} now"
    yield Show([raw["contact"]], [render.note(news)])


def verify(arguments: Namespace) -> _Told:
    """Show the words of both keys, ask whether they are the same, and note it."""
    who = {"contact": arguments.who}
    raw, result = yield from ask_daemon("contacts.words", who, WordsResult)
    name = result.contact.name
    words = [visible(word) for word in result.words]
    rows = [words[at : at + _WORDS_A_ROW] for at in range(0, len(words), _WORDS_A_ROW)]
    yield Show(
        [raw] if not arguments.yes else [],
        [
            render.note(f"{name} must see the same words; read them to each other aloud:"),
            *([(render.NAME, f"  {' '.join(row)}")] for row in rows),
        ],
    )
    sure = arguments.yes
    if not sure and not arguments.json:
        sure = yield Ask(f"Does {visible(name)} see the same words?")
    if sure:
        yield from _change("contacts.verified", result.contact.id, "{} is verified")
    elif sure is None or arguments.json:
        hint = f"if they are the same: {arguments.prefix}verify {name} --yes"
        yield Show([], [render.note(hint)])
    else:
        raise Refused(
            f"{name} is not marked as verified; if the words differ, somebody may be in between: "
            f"{arguments.prefix}block {name}"
        )
