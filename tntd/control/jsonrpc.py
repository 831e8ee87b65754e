"""JSON-RPC 2.0, one message a line: the coding, without any socket.

What holds always: `parse_request` either gives a request whose parameters have the shape of
its method, or raises a CommandError that carries the right standard code.  Batches are not
taken (answered as an invalid request).  Source: https://www.jsonrpc.org/specification
"""

from __future__ import annotations

from typing import Any

import msgspec

from tntd.control.schema import METHODS, Method, Params
from tntd.errors import Code, CommandError

RequestId = int | str | None


class _Request(msgspec.Struct, kw_only=True):
    jsonrpc: str
    method: str
    id: int | str | msgspec.UnsetType | None = msgspec.UNSET
    params: msgspec.Raw = msgspec.Raw(b"{}")


class Request(msgspec.Struct, frozen=True):
    """A checked request.  `notification` is True where no reply is wanted."""

    id: RequestId
    method: Method
    params: Params
    notification: bool


class BadRequest(CommandError):
    """A line that is no valid request; `id` is the request's where it could be read."""

    def __init__(self, code: Code, message: str, hint: str, id: RequestId = None) -> None:
        super().__init__(code, message, hint)
        self.id = id


_decoder = msgspec.json.Decoder(_Request)
_encoder = msgspec.json.Encoder()
_params_decoders = {name: msgspec.json.Decoder(row.params) for name, row in METHODS.items()}


def parse_request(line: bytes) -> Request:
    """The request in a line.  Raises BadRequest."""
    try:
        raw = _decoder.decode(line)
    except msgspec.ValidationError as error:
        raise BadRequest(
            Code.INVALID_REQUEST, f"not a JSON-RPC request: {error}", "see tntd/control/README.md"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(
            Code.PARSE, f"not JSON: {error}", "send one JSON object a line, in UTF-8"
        ) from error
    id = None if isinstance(raw.id, msgspec.UnsetType) else raw.id
    if raw.jsonrpc != "2.0":
        raise BadRequest(Code.INVALID_REQUEST, 'jsonrpc is not "2.0"', 'send "jsonrpc":"2.0"', id)
    method = METHODS.get(raw.method)
    if method is None:
        raise BadRequest(
            Code.METHOD_NOT_FOUND,
            f"no method {raw.method[:64]!r}",
            "see tntd/control/README.md",
            id,
        )
    try:
        params = _params_decoders[method.name].decode(raw.params)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(
            Code.INVALID_PARAMS, f"{method.name}: {error}", "see tntd/control/README.md", id
        ) from error
    return Request(id, method, params, isinstance(raw.id, msgspec.UnsetType))


def encode_result(id: RequestId, result: object) -> bytes:
    """A reply, with its newline."""
    return _encoder.encode({"jsonrpc": "2.0", "id": id, "result": result}) + b"\n"


def encode_error(id: RequestId, error: CommandError) -> bytes:
    """An error reply, with its newline."""
    data: dict[str, str] = {"hint": error.hint}
    if error.cursor is not None:
        data["cursor"] = error.cursor
    body = {"code": int(error.code), "message": error.message, "data": data}
    return _encoder.encode({"jsonrpc": "2.0", "id": id, "error": body}) + b"\n"


def encode_event(params: dict[str, Any]) -> bytes:
    """A notification `event`, with its newline."""
    return _encoder.encode({"jsonrpc": "2.0", "method": "event", "params": params}) + b"\n"
