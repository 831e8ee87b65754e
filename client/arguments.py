"""Command lines to values: argparse built from the table of verbs, for both clients.

What holds always: there is no second list of verbs or options.  The REPL reads its lines through
the same parsers as `tnt`; only how a line becomes words differs (repl_lines.py).
"""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from tntd import __version__

from .failures import UsageFailure
from .verbs import LONGEST, VERBS, Argument, Kind, Option, Verb, Where, usage, verbs_of


def tnt_parser() -> argparse.ArgumentParser:
    """The parser of the program `tnt`."""
    parser = argparse.ArgumentParser(
        prog="tnt",
        description="Talk and pass files through a running daemon, for scripts.",
        epilog="exit codes: 0 done, 1 refused or failed, 2 usage, 3 no daemon, 4 timed out",
    )
    parser.add_argument("--version", action="version", version=f"tnt {__version__}")
    parser.add_argument("--name", help="which daemon, where several run (or TNT_NAME)")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for row in verbs_of(Where.TNT):
        verb = verbs.add_parser(
            row.name,
            help=row.help,
            description=row.help,
            usage=f"tnt {usage(row, Where.TNT)}",
            allow_abbrev=False,
        )
        # SUPPRESS: a name given before the verb must not be overwritten by a default.
        verb.add_argument("--name", default=argparse.SUPPRESS, help="which daemon")
        verb.add_argument("--json", action="store_true", help="objects instead of words")
        verb.add_argument("--timeout", type=_seconds, metavar="SECONDS", help=row.timeout)
        _fill(verb, row, Where.TNT)
    return parser


def repl_arguments(row: Verb, words: list[str], current: str) -> argparse.Namespace:
    """The arguments of a verb typed in the REPL; `current` is the current conversation.

    Raises UsageFailure.
    """
    parser = _ReplParser(prog=f"/{row.name}", add_help=False, allow_abbrev=False)
    _fill(parser, row, Where.REPL)
    parsed = parser.parse_args(words)
    for argument in row.arguments:
        if argument.current and getattr(parsed, argument.name) is None:
            if not current:
                raise UsageFailure("there is no conversation yet; choose one with /to WHO")
            setattr(parsed, argument.name, current)
    parsed.current, parsed.prefix, parsed.json = current, "/", False
    return parsed


def only_in_tnt(row: Verb, words: list[str]) -> str:
    """The first of the words that is an option which only `tnt` has; "" where none is."""
    options = {"--json", "--timeout", "--name"}
    for option in row.options:
        if not option.where & Where.REPL:
            options |= {f"--{option.name}", f"-{option.short or '-' + option.name}"}
    return next((word for word in words if word.partition("=")[0] in options), "")


class _ReplParser(argparse.ArgumentParser):
    """Raises instead of ending the program."""

    def error(self, message: str) -> NoReturn:
        raise UsageFailure(f"{message}; it is typed: /{usage(VERBS[self.prog[1:]], Where.REPL)}")


def _fill(parser: argparse.ArgumentParser, row: Verb, where: Where) -> None:
    for argument in row.arguments:
        _add_argument(parser, argument, where)
    for option in row.options:
        if option.where & where:
            _add_option(parser, option)
        else:
            parser.set_defaults(**{option.name: option.default})


def _add_argument(parser: argparse.ArgumentParser, argument: Argument, where: Where) -> None:
    more: dict[str, Any] = {}
    if argument.many or argument.kind is Kind.TEXT:
        more["nargs"] = "*" if argument.optional else "+"
    elif argument.optional or (argument.current and where is Where.REPL):
        more["nargs"] = "?"
    if argument.choices:
        more["choices"] = argument.choices
    else:
        more["metavar"] = argument.name.upper().replace("NEW_NAME", "NAME")
    if argument.kind in LONGEST:
        more["type"] = _short_text(LONGEST[argument.kind])
    parser.add_argument(argument.name, help=argument.help, **more)


def _add_option(parser: argparse.ArgumentParser, option: Option) -> None:
    more: dict[str, Any] = {"help": option.help, "default": option.default}
    if option.choices:
        more["choices"] = option.choices
    elif option.number is not None:
        more["type"] = _number(*option.number)
        more["metavar"] = option.metavar
    elif option.metavar:
        more["type"] = _short_text(option.longest)
        more["metavar"] = option.metavar
    else:
        more["action"] = "store_true"
        more["default"] = False
    short = [f"-{option.short}"] if option.short else []
    parser.add_argument(*short, f"--{option.name}", **more)


def _number(least: int, most: int) -> Any:
    def convert(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"a number from {least} to {most:,}, not {text!r}")
        return int(text)

    return convert


def _short_text(longest: int) -> Any:
    def convert(text: str) -> str:
        if not text:
            raise argparse.ArgumentTypeError("it is empty")
        if len(text) > longest:
            count = f"{len(text):,} characters, and {longest} is the most"
            raise argparse.ArgumentTypeError(f"it has {count}")
        return text

    return convert


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"seconds, more than 0, not {text!r}")
    return value
