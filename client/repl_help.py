"""The REPL's help, made from the table of verbs.  Pure."""

from __future__ import annotations

from .render import DIM, NAME, PLAIN, Line, trouble
from .verbs import VERBS, Verb, Where, usage, verbs_of

_BARE: tuple[tuple[str, str], ...] = (
    ("any other line", "is a message to the current conversation"),
    ("transfer PATH...", "as a whole line: the same as /transfer"),
    ("connect ADDRESS", "as a whole line: the same as /connect"),
    ("exit", "as a whole line: the same as /detach"),
    ("//text", "a message that begins with a slash"),
    (" transfer ...", "with a blank before it: a message, not a command"),
    ("Alt-Enter", "a new line in the message"),
)


def lines(verb: str | None) -> list[Line]:
    """All verbs with one line each, or all about one."""
    if verb is None:
        return _all_verbs()
    row = VERBS.get(verb.lstrip("/"))
    if row is None or not row.where & Where.REPL:
        return [trouble(f"no command /{verb.lstrip('/')}", "/help lists them")]
    return _one_verb(row)


def _all_verbs() -> list[Line]:
    rows = [(f"/{usage(row, Where.REPL)}", row.help) for row in verbs_of(Where.REPL)]
    rows = [
        (text if len(text) <= 34 else f"/{text[1:].split()[0]} ...", help) for text, help in rows
    ]
    width = max(len(text) for text, _ in (*rows, *_BARE)) + 2
    return [[(NAME, text.ljust(width)), (PLAIN, help)] for text, help in (*rows, *_BARE)]


def _one_verb(row: Verb) -> list[Line]:
    found: list[Line] = [[(NAME, f"/{usage(row, Where.REPL)}")], [(PLAIN, f"  {row.help}")]]
    for argument in row.arguments:
        name = argument.name.upper().replace("NEW_NAME", "NAME")
        found.append([(DIM, f"  {name:10}"), (PLAIN, argument.help)])
    for option in row.options:
        if option.where & Where.REPL:
            found.append([(DIM, f"  --{option.name:8}"), (PLAIN, option.help)])
    return found
