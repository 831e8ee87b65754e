"""How a client fails, as values with the exit code that scripts see.

What holds always: the text of a failure is one line that says what happened, to what, and what to
do next.  A refusal by the daemon is a CommandError (tntd.errors) and leads to exit code 1; the
others are here.  They carry unchecked text, so whoever shows one makes it visible first.
"""

from __future__ import annotations

from typing import Final

DONE: Final = 0
REFUSED: Final = 1
USAGE: Final = 2
NO_DAEMON: Final = 3
TIMED_OUT: Final = 4
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells say it


class ClientFailure(Exception):
    """Something that ends the command: `message` is one line, `exit_code` is for the shell."""

    exit_code = REFUSED

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Refused(ClientFailure):
    """What was asked cannot be done, and the client knows it without asking the daemon."""


class SomeRefused(ClientFailure):
    """Some of what was asked was refused, all of which has been told: the exit code is left."""

    def __init__(self) -> None:
        super().__init__("")


class OutputLost(ClientFailure):
    """What is printed goes nowhere any more: standard output cannot be written."""


class UsageFailure(ClientFailure):
    """The command line does not make sense."""

    exit_code = USAGE


class NoDaemon(ClientFailure):
    """There is no daemon to talk to, or it went away meanwhile."""

    exit_code = NO_DAEMON


class NotAnswering(ClientFailure):
    """There is a daemon, and it says nothing."""


class Interrupted(ClientFailure):
    """The user has interrupted it, and it is good to know what became of it."""

    exit_code = INTERRUPTED


class TimedOut(ClientFailure):
    """What was waited for has not come in time."""

    exit_code = TIMED_OUT
