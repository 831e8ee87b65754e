"""The table of verbs: one row a verb, read by `tnt`, by the REPL, by help and by completion.

What holds always: a verb that is not in this table does not exist, and one that is has help,
for the row is where all of them look.  The handlers are generators (steps.py), so that the same
body serves both clients.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, Flag, auto
from typing import Final

from tntd.errors import CommandError
from tntd.limits import LIST_LIMIT_MAX, TRANSFER_CONTACTS_MAX

from . import (
    verbs_daemon,
    verbs_files,
    verbs_get,
    verbs_people,
    verbs_queue,
    verbs_repl,
    verbs_settings,
    verbs_talk,
)
from .steps import Script


class Kind(Enum):
    """What an argument is: it decides how it is completed, and how a line is cut into words."""

    CONTACT = auto()
    CONTACTS = auto()  # one or more, with commas between them
    ADDRESS = auto()
    TEXT = auto()  # all the rest of the line
    PATH = auto()
    TRANSFER = auto()
    VERB = auto()
    CHOICE = auto()
    SETTING = auto()
    VALUE = auto()  # of the setting before it
    WORD = auto()


LONGEST: Final = {
    Kind.CONTACT: 256,
    Kind.CONTACTS: 257 * TRANSFER_CONTACTS_MAX,
    Kind.ADDRESS: 300,
    Kind.TRANSFER: 64,
    Kind.WORD: 64,
    Kind.SETTING: 64,
    Kind.VALUE: 4096,
}
"""Characters that the daemon takes for an argument of that kind."""


class Where(Flag):
    """Which client has it."""

    TNT = auto()
    REPL = auto()
    BOTH = TNT | REPL


@dataclass(frozen=True)
class Argument:
    """A positional argument.  `current`: in the REPL it may be left out and is then the current
    conversation."""

    name: str
    kind: Kind
    help: str
    many: bool = False
    optional: bool = False
    current: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Option:
    """An option, `--NAME`.  Without `metavar` and `choices` it takes no value."""

    name: str
    help: str
    metavar: str = ""
    choices: tuple[str, ...] = ()
    number: tuple[int, int] | None = None
    longest: int = 256  # characters, as the daemon takes them
    default: int | None = None
    where: Where = Where.BOTH
    short: str = ""  # the one letter that is typed, if there is one


@dataclass(frozen=True)
class Verb:
    """A row.  `run` is None for what a client does without a daemon (demo)."""

    name: str
    help: str
    run: Callable[[Namespace], Script[None]] | None
    arguments: tuple[Argument, ...] = ()
    options: tuple[Option, ...] = ()
    where: Where = Where.BOTH
    timeout: str = "wait at most so long"  # what --timeout means


def _who(help: str, current: bool = False) -> Argument:
    return Argument("who", Kind.CONTACT, help, current=current)


_NEW = Option("new", "take another key at an address that belonged to a contact")
_YES = Option("yes", "mark as verified without asking: you have compared the words")
_WAIT_SENT = Option(
    "wait", "wait for that state", choices=("sent", "delivered", "read"), where=Where.TNT
)
_WAIT_FILES = Option("wait", "wait until the other side has all of it", where=Where.TNT)
_AS = Option(
    "as",
    "send standard input (the path -) under this name, while it is read",
    "NAME",
    where=Where.TNT,
)
_OUTPUT = Option(
    "output",
    "wait for it, and put it there when it is checked, in place of nothing; - writes a file to "
    "standard output",
    "FILE|-",
    longest=4096,
    where=Where.TNT,
    short="o",
)
_WATCH = Option("watch", "go on and show what changes", where=Where.TNT)
_QUEUE = (
    _WATCH,
    Option("all", "also all that have ended, not only the newest"),
    Option(
        "limit",
        f"so many of those that have ended (default {verbs_queue.ENDED_SHOWN})",
        "N",
        number=(0, 1_000_000),
        default=verbs_queue.ENDED_SHOWN,
    ),
)
_HISTORY = (
    Option("limit", "so many messages at most", "N", number=(1, LIST_LIMIT_MAX)),
    Option("before", "only older ones than this message", "ID", longest=64),
    Option("search", "only those with all these words", "WORDS"),
)
_SINCE = Option("since", "first what came after this cursor", "CURSOR", longest=128)
_LINES = Option("lines", "how many lines (default 20)", "N", number=(1, 100_000), default=20)
_STATE = Option(
    "state",
    "only the files in that state",
    choices=("waiting", "active", "verified", "skipped", "failed"),
)
_ACTION = Argument(
    "action",
    Kind.CHOICE,
    "the same as the command of that name, for those who look for it here",
    optional=True,
    choices=verbs_queue.ACTIONS,
)
_IDS = Argument("id", Kind.TRANSFER, "the transfer, as `transfers` lists it", many=True)
_WHOM = Argument("who", Kind.CONTACT, "for this contact; without it: in general", optional=True)

_ROWS: Final = (
    Verb(
        "connect",
        "dial a peer",
        verbs_people.connect,
        (Argument("address", Kind.ADDRESS, "PORT (this machine), HOST:PORT or [v6]:PORT"),),
        (_NEW,),
    ),
    Verb("contacts", "who may talk to us, and who asks to", verbs_people.contacts),
    Verb("accept", "accept a contact request", verbs_people.accept, (_who("who asks"),)),
    Verb("block", "never hear of somebody again", verbs_people.block, (_who("whom"),)),
    Verb("unblock", "take a block back", verbs_people.unblock, (_who("whom"),)),
    Verb("remove", "forget somebody and all messages", verbs_people.remove, (_who("whom"),)),
    Verb(
        "rename",
        "change the name that somebody has here",
        verbs_people.rename,
        (_who("whom"), Argument("new_name", Kind.WORD, "the new name")),
    ),
    Verb(
        "verify",
        "compare words, and mark somebody as verified",
        verbs_people.verify,
        (_who("whom", current=True),),
        (_YES,),
    ),
    Verb(
        "to",
        "choose the conversation that plain lines go to",
        verbs_repl.to,
        (_who("with whom"),),
        where=Where.REPL,
    ),
    Verb(
        "msg",
        "send a message",
        verbs_talk.msg,
        (_who("to whom"), Argument("text", Kind.TEXT, "the text (in tnt - reads standard input)")),
        (_WAIT_SENT,),
    ),
    Verb(
        "history",
        "look back in a conversation",
        verbs_talk.history,
        (_who("with whom", current=True),),
        _HISTORY,
    ),
    Verb(
        "send",
        "send files and folders",
        verbs_files.send,
        (
            Argument("who", Kind.CONTACTS, "to whom; several with commas: bob,carol"),
            Argument("path", Kind.PATH, "what to send; in tnt - is standard input", many=True),
        ),
        (_AS, _WAIT_FILES),
        timeout="wait at most so long; a pipe takes its time, which counts from its end on",
    ),
    Verb(
        "transfer",
        "send files and folders to the current conversation",
        verbs_files.transfer,
        (Argument("path", Kind.PATH, "what to send", many=True),),
        where=Where.REPL,
    ),
    Verb(
        "transfers",
        "what was, is and will be sent, and how far it is",
        verbs_queue.transfers,
        (_ACTION, Argument("id", Kind.TRANSFER, "its id", many=True, optional=True)),
        _QUEUE,
    ),
    Verb("get", "take what is offered", verbs_get.get, (_IDS,), (_OUTPUT,)),
    Verb("decline", "refuse what is offered", verbs_queue.decline, (_IDS,)),
    Verb("pause", "let a transfer rest, from either side", verbs_queue.pause, (_IDS,)),
    Verb("resume", "go on with a transfer that rests", verbs_queue.resume, (_IDS,)),
    Verb("cancel", "give a transfer up, from either side", verbs_queue.cancel, (_IDS,)),
    Verb("first", "put a transfer to the front of the queue", verbs_queue.first, (_IDS,)),
    Verb("again", "send the files of a transfer that failed once more", verbs_queue.again, (_IDS,)),
    Verb(
        "files",
        "the files of a transfer, and what became of each",
        verbs_queue.files,
        (Argument("id", Kind.TRANSFER, "the transfer, as `transfers` lists it"),),
        (_STATE,),
    ),
    Verb("clean", "remove what ended transfers left unfinished", verbs_queue.clean),
    Verb(
        "settings",
        "what can be changed while the daemon runs",
        verbs_settings.settings,
        (_WHOM,),
    ),
    Verb(
        "set",
        "change a setting, in general or for one contact",
        verbs_settings.set_value,
        (
            Argument("setting", Kind.SETTING, "its name, as `settings` lists it"),
            Argument("value", Kind.VALUE, "such as 2MB, 1.5GiB, on, off; or default"),
            _WHOM,
        ),
    ),
    Verb("status", "the daemon in numbers", verbs_daemon.status),
    Verb(
        "events",
        "follow what happens, one line an event",
        verbs_daemon.events,
        options=(_SINCE,),
        where=Where.TNT,
    ),
    Verb("log", "the last lines of the daemon's log", verbs_daemon.log, options=(_LINES,)),
    Verb("stop", "stop the daemon", verbs_daemon.stop),
    Verb(
        "demo",
        "show on this machine how two daemons talk and pass a file, then clean up",
        None,
        where=Where.TNT,
    ),
    Verb(
        "help",
        "what there is to type",
        verbs_repl.help_lines,
        (Argument("verb", Kind.VERB, "more about one command", optional=True),),
        where=Where.REPL,
    ),
    Verb(
        "detach",
        "leave; the daemon goes on (also: exit, Ctrl-D)",
        verbs_repl.detach,
        where=Where.REPL,
    ),
)

VERBS: Final[dict[str, Verb]] = {row.name: row for row in _ROWS}


def verbs_of(where: Where) -> list[Verb]:
    """The rows that a client has, in the order of the table."""
    return [row for row in _ROWS if row.where & where]


def usage(verb: Verb, where: Where) -> str:
    """How a verb is typed: "history [WHO] [--limit N]"."""
    words = [verb.name]
    for argument in verb.arguments:
        word = "|".join(argument.choices) or argument.name.upper().replace("NEW_NAME", "NAME")
        word += "..." if argument.many or argument.kind is Kind.TEXT else ""
        left_out = argument.optional or (argument.current and bool(where & Where.REPL))
        words.append(f"[{word}]" if left_out else word)
    for option in verb.options:
        if option.where & where:
            value = option.metavar or "|".join(option.choices)
            typed = f"-{option.short}" if option.short else f"--{option.name}"
            words.append(f"[{typed} {value}]" if value else f"[{typed}]")
    return " ".join(words)


_WHOLE_ID: Final = re.compile(r"(, as [a-z2-7]{8})[a-z2-7]{18}$")
_IN_HINT: Final = re.compile(rf"((?:with|first): )({'|'.join(VERBS)})\b")


def hint_as_typed(hint: str, prefix: str) -> str:
    """A hint of the daemon, which names bare verbs, with the verbs as they are typed here:
    `prefix` is "/" or "tnt "."""
    return _IN_HINT.sub(rf"\1{prefix}\2", hint)


def refusal(error: CommandError, prefix: str) -> tuple[str, str]:
    """What the daemon refuses something with, for people: the message, ids in it as short as
    elsewhere, and the hint."""
    return _WHOLE_ID.sub(r"\1", error.message), hint_as_typed(error.hint, prefix)
