"""The verbs that only the REPL has: they change the client, not the daemon."""

from __future__ import annotations

from argparse import Namespace

from .steps import Help, Leave, Script, Switch


def to(arguments: Namespace) -> Script[None]:
    """Choose the conversation that plain lines go to."""
    yield Switch(arguments.who)


def detach(_arguments: Namespace) -> Script[None]:
    """Leave; the daemon goes on."""
    yield Leave()


def help_lines(arguments: Namespace) -> Script[None]:
    """The table of verbs, or one of them in full."""
    yield Help(arguments.verb)
