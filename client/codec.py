"""The control protocol seen from a client: lines, replies, and who is who.  Pure.

What holds always: bytes in, values out.  No socket and no random source is in here, so the
blocking connection (tnt) and the asyncio one (tnt-repl) speak through the very same code, and a
test can feed it byte by byte.

Over TCP the token is never sent.  The daemon proves first that it knows it (somebody else may have
taken the port of a daemon that died), then we do: HMAC-SHA256 over the role and both nonces.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from tntd.control.schema import PROTOCOL, Challenge, Welcome
from tntd.errors import Code, CommandError
from tntd.limits import LINE_BYTES_MAX

NONCE_BYTES: Final = 32

_T = TypeVar("_T")


class ProtocolFailure(Exception):
    """What is at the other end does not speak the control protocol."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to the request `id`: its `result`, or the `error` that it led to."""

    id: int | None
    result: Any
    error: CommandError | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """A notification: an event, in practice."""

    method: str
    params: dict[str, Any]


Incoming = Reply | Notice


class LineCodec:
    """Requests to lines, and received bytes to replies and notifications."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._next_id = 1

    def request(self, method: str, params: dict[str, Any]) -> tuple[int, bytes]:
        """The id of a new request, and its line.

        Raises CommandError for a text that is not valid Unicode.
        """
        id = self._next_id
        body = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
        try:
            line = msgspec.json.encode(body) + b"\n"
        except UnicodeEncodeError as error:
            raise CommandError(
                Code.INVALID_PARAMS, "what was given is not valid Unicode text"
            ) from error
        self._next_id += 1
        return id, line

    def feed(self, data: bytes) -> list[Incoming]:
        """What is complete after `data`.  Raises ProtocolFailure for what is not JSON-RPC."""
        self._buffer += data
        found: list[Incoming] = []
        while (end := self._buffer.find(b"\n", self._searched)) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._searched = 0
            found.append(parse_line(line))
        self._searched = len(self._buffer)
        if self._searched > LINE_BYTES_MAX:
            raise ProtocolFailure("a line of more than a mebibyte")
        return found


def parse_line(line: bytes) -> Incoming:
    """One line of a daemon.  Raises ProtocolFailure."""
    try:
        body = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolFailure("a line that is not JSON") from error
    if not isinstance(body, dict):
        raise ProtocolFailure("a line that is no object")
    method = body.get("method")
    if isinstance(method, str):
        params = body.get("params")
        return Notice(method, params if isinstance(params, dict) else {})
    id = body.get("id")
    number = id if isinstance(id, int) else None
    if isinstance(body.get("error"), dict):
        return Reply(number, None, _command_error(body["error"]))
    if "result" not in body:
        raise ProtocolFailure("a line that is neither request nor reply")
    return Reply(number, body["result"])


def _command_error(body: dict[str, Any]) -> CommandError:
    data = body.get("data")
    data = data if isinstance(data, dict) else {}
    try:
        code = Code(int(body["code"]))
    except (KeyError, TypeError, ValueError):
        code = Code.INTERNAL
    cursor = data.get("cursor")
    return CommandError(
        code,
        str(body.get("message", "the daemon refused without a reason")),
        str(data.get("hint") or ""),
        cursor if isinstance(cursor, str) else None,
    )


def proof(token: bytes, role: bytes, client_nonce: bytes, daemon_nonce: bytes) -> str:
    """The proof in hex that `role` (b"client" or b"daemon") knows `token`."""
    text = role + b"\0" + client_nonce + daemon_nonce
    return hmac.new(token, text, hashlib.sha256).hexdigest()


class Handshake:
    """The first lines of a connection.

    `token` is None on a Unix socket, where the socket itself says who we are.  `nonce` is fresh
    random bytes.  Send `first()`, then give each incoming value to `receive()` and send what it
    returns, until `welcome` is there.
    """

    def __init__(self, codec: LineCodec, client: str, token: bytes | None, nonce: bytes) -> None:
        self.welcome: Welcome | None = None
        self._codec = codec
        self._client = client
        self._token = token
        self._nonce = nonce
        self._challenged = False

    def first(self) -> bytes:
        """The line that opens the connection."""
        params: dict[str, Any] = {"protocol": PROTOCOL, "client": self._client}
        if self._token is not None:
            params["nonce"] = self._nonce.hex()
        return self._codec.request("hello", params)[1]

    def receive(self, incoming: Incoming) -> bytes:
        """What to send now.  Raises CommandError or ProtocolFailure."""
        if not isinstance(incoming, Reply):
            raise ProtocolFailure("an event before the handshake")
        if incoming.error is not None:
            raise incoming.error
        if self._token is None or self._challenged:
            self.welcome = _convert(incoming.result, Welcome)
            return b""
        return self._authorise(self._token, _convert(incoming.result, Challenge))

    def _authorise(self, token: bytes, challenge: Challenge) -> bytes:
        try:
            nonce = bytes.fromhex(challenge.nonce)
        except ValueError as error:
            raise ProtocolFailure("a nonce that is not hex") from error
        expected = proof(token, b"daemon", self._nonce, nonce)
        # As bytes: texts that are not ASCII cannot be compared like this.
        if not hmac.compare_digest(expected.encode(), challenge.proof.encode()):
            raise ProtocolFailure("it does not know the token, so it is not our daemon")
        self._challenged = True
        mine = proof(token, b"client", self._nonce, nonce)
        return self._codec.request("authorise", {"proof": mine})[1]


def _convert(value: Any, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ProtocolFailure(f"a handshake that is not ours: {error}") from error
