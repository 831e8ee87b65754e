"""What a typed line means: the pure step from a line to an action.

What holds always: only what begins with a slash, and the three bare-word habits of the first
TalknTransfer (`transfer PATH`, `connect ADDRESS`, `exit`), are commands; everything else is text.
`as_text` turns any line into one that means exactly that text, which is how pasted lines are
kept from being commands: for every text t, `parse(as_text(t))` is the message t.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .arguments import only_in_tnt
from .failures import UsageFailure
from .verbs import VERBS, Kind, Verb, Where
from .words import split

_CONNECT: Final = re.compile(r"connect[ \t]+(\d{1,5}|\S+:\d{1,5})[ \t]*")
_TRANSFER: Final = re.compile(r"transfer[ \t]+(\S.*)", re.DOTALL)
_BLANK: Final = " \t"
AS_TEXT_HINT: Final = "a blank before it sends the line as text"


@dataclass(frozen=True, slots=True)
class Nothing:
    """A blank line."""


@dataclass(frozen=True, slots=True)
class Say:
    """A message to the current conversation."""

    text: str


@dataclass(frozen=True, slots=True)
class Run:
    """A command with its words.  `bare` where it was typed without a slash."""

    verb: Verb
    words: list[str]
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Explain:
    """Nothing is done; the user is told why."""

    text: str
    hint: str


Action = Nothing | Say | Run | Explain


def parse(line: str, exists: Callable[[str], bool]) -> Action:
    """The action of a line.  `exists` says whether a path that was typed is there."""
    if not line.strip():
        return Nothing()
    if line.startswith("//"):
        return Say(line[1:])
    if line.startswith("/"):
        return _command(line[1:], exists)
    if line.startswith(" ") and _is_bare(line.lstrip(" ")):
        return Say(line[1:])
    return _bare(line, exists) or Say(line)


def as_text(text: str) -> str:
    """The line that is the message `text`, whatever it looks like."""
    if text.startswith("/"):
        return "/" + text
    return " " + text if _is_bare(text.lstrip(" ")) else text


def _is_bare(line: str) -> bool:
    return bool(
        line.rstrip(_BLANK) == "exit" or _CONNECT.fullmatch(line) or _TRANSFER.fullmatch(line)
    )


def _bare(line: str, exists: Callable[[str], bool]) -> Action | None:
    if line.rstrip(_BLANK) == "exit":
        return Run(VERBS["detach"], [], bare=True)
    if found := _CONNECT.fullmatch(line):
        return Run(VERBS["connect"], [found[1]], bare=True)
    if found := _TRANSFER.fullmatch(line):
        paths = path_words(found[1], exists)
        missing = [path for path in paths if not exists(path)]
        if missing:
            return Explain(f"nothing was sent: there is no {missing[0]}", AS_TEXT_HINT)
        return Run(VERBS["transfer"], paths, bare=True)
    return None


def _command(rest: str, exists: Callable[[str], bool]) -> Action:
    name, _, tail = rest.replace("\t", " ").partition(" ") if "\n" not in rest else _cut(rest)
    verb = VERBS.get({"exit": "detach", "quit": "detach", "?": "help"}.get(name, name))
    if verb is None or not verb.where & Where.REPL:
        return Explain(f"no command /{name}", "/help lists them; // begins a text with a slash")
    try:
        return Run(verb, _words(verb, tail.strip(" "), exists))
    except UsageFailure as failure:
        return Explain(f"/{name}: {failure.message}", f"/help {name}")


def _cut(rest: str) -> tuple[str, str, str]:
    found = re.match(r"(\S*)(\s?)(.*)", rest, re.DOTALL)
    assert found is not None
    return found[1], found[2], found[3]


def _words(verb: Verb, tail: str, exists: Callable[[str], bool]) -> list[str]:
    kinds = [argument.kind for argument in verb.arguments]
    if Kind.TEXT in kinds:
        before = kinds.index(Kind.TEXT)
        # "--": a text may begin with dashes.
        words = tail.split(None, before)
        _check_options(verb, words[:before])
        return ["--", *words] if tail else []
    if Kind.PATH in kinds:
        before = kinds.index(Kind.PATH)
        parts = tail.split(None, before)
        if len(parts) <= before:
            return parts
        paths = path_words(parts[before], exists)
        _check_options(verb, [*parts[:before], *(path for path in paths if not exists(path))])
        return ["--", *parts[:before], *paths]
    words = [word.text for word in split(tail)]
    _check_options(verb, words)
    return words


def _check_options(verb: Verb, words: list[str]) -> None:
    """Raises UsageFailure for an option that is not for the REPL."""
    if option := only_in_tnt(verb, words):
        anyway = "; here, what changes is shown anyway" if option in ("--wait", "--watch") else ""
        raise UsageFailure(f"{option} is only for tnt in a shell{anyway}")


def path_words(tail: str, exists: Callable[[str], bool]) -> list[str]:
    """The paths in the rest of a line: all of it where that is one existing path (blanks need no
    quotes then), else its words as a shell would cut them."""
    whole = tail.strip(_BLANK)
    return [whole] if exists(whole) else [word.text for word in split(tail)]
