"""The three kinds of failure, and the codes that users, scripts and peers see.

What holds always: an error that is one of ours to tell carries what happened, to what, and
what to do next.  Anything that is not one of these classes is a bug: the turn is rolled back
and the part that owned the state is rebuilt from the store.
"""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """Error codes of the control protocol (JSON-RPC 2.0 keeps -32768 to -32000 for itself)."""

    PARSE = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL = -32603
    NO_SUCH_CONTACT = 1
    AMBIGUOUS = 2
    NOT_ACCEPTED = 3
    NO_SUCH_TRANSFER = 4
    WRONG_STATE = 5
    PATH = 6
    UNREACHABLE = 7
    REFUSED_BY_PEER = 8
    LIMIT = 9
    STORAGE = 10
    UNAUTHORISED = 11
    CURSOR_GONE = 12


class CommandError(Exception):
    """A request that cannot be done: becomes the error reply to that one request.

    `message` says what happened and to what; `hint` says what to do next (may be empty);
    `cursor` is a fresh event cursor and is given only with `Code.CURSOR_GONE`.
    """

    def __init__(self, code: Code, message: str, hint: str = "", cursor: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.cursor = cursor


class RemoteError(Exception):
    """A peer broke the protocol: ends that one link and names the cause.

    `code` is a word of the peer protocol (see tntd/wire/README.md), `detail` is for the log.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class StartError(Exception):
    """The daemon cannot start: `message` goes to stderr, `exit_code` to the shell."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
