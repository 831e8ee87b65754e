"""What a command does, as values: the steps that it yields to whoever runs it.

A command is a generator.  It yields a step and gets the step's answer back, so one body serves
`tnt`, which blocks on each step, and `tnt-repl`, which awaits it while the user types on; and a
test can run it by hand.  What holds always: a command does no input or output itself.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, unquote_to_bytes

import msgspec

from tntd.control.schema import METHODS, Contact, Transfer
from tntd.errors import CommandError

from .failures import Refused
from .render import Line

PATH_CHARS_MAX: Final = 4096  # as the daemon takes it

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Call:
    """Ask the daemon.  -> the result, undecoded"""

    method: str
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class NextEvent:
    """Wait for the next event (after a call of events.subscribe).  -> the event"""


@dataclass(frozen=True, slots=True)
class Show:
    """Tell the user: `objects` are what `--json` prints, one a line, `lines` what people read."""

    objects: Sequence[Any]
    lines: Sequence[Line]


@dataclass(frozen=True, slots=True)
class Complain:
    """One of several things was refused, and the others go on: say so, where failures are said."""

    error: CommandError


@dataclass(frozen=True, slots=True)
class Bars:
    """How far transfers are: on a terminal this redraws the bars of the step before.  `aside`: on
    standard error, and without a terminal only what they wait for."""

    transfers: Sequence[Transfer]
    aside: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """A yes-or-no question.  -> bool, or None where there is nobody to ask"""

    question: str


@dataclass(frozen=True, slots=True)
class ReadInput:
    """Read standard input to its end.  -> bytes"""


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """Make a private file called `name` for what comes from standard input, which the daemon
    removes when its transfer has ended.  -> its path"""

    name: str


@dataclass(frozen=True, slots=True)
class FeedInput:
    """Write standard input to its end to a private file that `transfers` (ids) send.
    -> the transfers then, undecoded"""

    path: str
    transfers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Attached:
    """-> the cursor of the newest event when we attached to the daemon"""


@dataclass(frozen=True, slots=True)
class MakeLanding:
    """Make a private folder for something to arrive in that goes to `output`.  -> its path"""

    output: str


@dataclass(frozen=True, slots=True)
class Deliver:
    """Give what has arrived its place, `output` ("-": standard output)."""

    transfer: Transfer
    output: str


@dataclass(frozen=True, slots=True)
class DropFolder:
    """Remove a private folder with all that is in it."""

    folder: str


@dataclass(frozen=True, slots=True)
class KeepText:
    """Keep a text as a private file until its transfer has ended (REPL).  -> its path"""

    text: str


@dataclass(frozen=True, slots=True)
class DropText:
    """Remove such a file: it does not become a transfer."""

    path: str


@dataclass(frozen=True, slots=True)
class Switch:
    """Make somebody the current conversation; if `gentle`, only where that surprises nobody.
    A text is a name or id, looked up among the contacts."""

    contact: Contact | str
    gentle: bool = False


@dataclass(frozen=True, slots=True)
class AwaitEnd:
    """The daemon was asked to stop: wait for that.  -> whether it did"""


@dataclass(frozen=True, slots=True)
class Help:
    """Show the table of verbs, or the row of one."""

    verb: str | None


@dataclass(frozen=True, slots=True)
class Leave:
    """End the client; the daemon goes on."""


Step = (
    Call
    | NextEvent
    | Show
    | Complain
    | Bars
    | Ask
    | ReadInput
    | SpoolFile
    | FeedInput
    | Attached
    | MakeLanding
    | Deliver
    | DropFolder
    | KeepText
    | DropText
    | Switch
    | AwaitEnd
    | Help
    | Leave
)
Script = Generator[Step, Any, _T]


def new_ref() -> str:
    """A reference that makes a repeated send the same message or transfer."""
    return secrets.token_hex(16)


def typed_path(text: str) -> Path:
    """A path as it was typed: what is there under that very name, else with a `~` at its beginning
    replaced.  So `./~` never is the home folder, and `~name` is a name where no user is called so.
    """
    # pathlib would take the "./" away first, and fails where there is no such user.
    return Path(text if os.path.lexists(text) else os.path.expanduser(text))  # noqa: PTH111


def given_path(text: str) -> str | dict[str, str]:
    """A path as the daemon takes it: absolute, its last name kept even where it is a link.

    A path that is not UTF-8 becomes `{path_bytes}`, percent-encoded.  Raises Refused for what is
    no path.
    """
    if not text:
        raise Refused("an empty path is no file; name one")
    try:
        path = typed_path(text)
        bare = path.name in ("", "..") or text.endswith("/.")
        whole = str(path.resolve() if bare else path.parent.resolve() / path.name)
    except OSError as error:  # a relative path in a folder that was removed
        raise Refused(
            f"{text} is no usable path: {error.strerror}; go to a folder that is there, or name "
            "the whole path"
        ) from error
    except (RuntimeError, ValueError) as error:
        raise Refused(f"{text} is no usable path: {error}") from error
    if len(whole) > PATH_CHARS_MAX:
        raise Refused(f"{text[:60]}... is no usable path: longer than {PATH_CHARS_MAX} characters")
    try:
        whole.encode()
    except UnicodeEncodeError:
        return {"path_bytes": quote(os.fsencode(whole))}
    return whole


def is_there(transfer: Transfer) -> bool:
    """Whether what has arrived still lies where it arrived."""
    exact = transfer.path_bytes
    path = transfer.path if exact is None else os.fsdecode(unquote_to_bytes(exact))
    return path is not None and os.path.lexists(path)


def ask_daemon(method: str, params: dict[str, Any], kind: type[_T]) -> Script[tuple[Any, _T]]:
    """Call a method: its result as it came (for --json) and decoded (for people).

    Raises Refused where the daemon is of a version whose results are others.
    """
    assert METHODS[method].result is kind
    raw = yield Call(method, params)
    try:
        return raw, msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise Refused(
            f"the daemon's reply to {method} is not understood here ({error}); "
            "daemon and clients have to be of one version: restart the daemon"
        ) from error
