"""Attached clients: their handshake, their requests, and events as they can take them.

What holds always: a client is only a cursor into the event log.  Events are read for it when all
that it was sent before has gone into its socket, so a slow client costs nothing and misses
nothing; nothing is answered before the turn that did it is committed; and a TCP client that
has not proved the token learns nothing but a proof that we have it.
"""

from __future__ import annotations

import hmac
from collections import Counter
from dataclasses import dataclass

from tntd import __version__
from tntd.control import schema
from tntd.control.jsonrpc import (
    BadRequest,
    Request,
    RequestId,
    encode_error,
    encode_event,
    encode_result,
    parse_request,
)
from tntd.control.visible import visible
from tntd.effects import ClientAuthorised, CloseClient, SendLatest, SendLine
from tntd.errors import Code, CommandError
from tntd.machines.identity import key_to_id
from tntd.node import present
from tntd.node.commands import PENDING, Handler
from tntd.node.core import NO_ROOM, Core
from tntd.node.journal import Journal
from tntd.node.transfers import Transfers

NONCE_BYTES = 32
_SEE = "see tntd/control/README.md"
# What makes the history longer; all else is still done on a disk that is full.
NEED_ROOM = {"messages.send", "transfers.send", "transfers.accept", "peers.connect"}


@dataclass(slots=True)
class Client:
    """A client: `upto` is the event that it has been sent, None where it follows none;
    `released` is the same as of the last turn that was committed."""

    number: int
    local_user: bool
    welcome: bool = False
    nonces: bytes = b""
    upto: int | None = None
    released: int | None = None
    busy: bool = False
    left: bool = False  # it says no more


class Clients:
    """All clients; the node fills `handlers`, one for each method."""

    def __init__(self, core: Core, journal: Journal, transfers: Transfers) -> None:
        self._core = core
        self._journal = journal
        self._transfers = transfers
        self.all: dict[int, Client] = {}
        self.handlers: dict[str, Handler] = {}
        # Asked or answered in this turn, which is not yet committed.
        self._asked: list[tuple[int, RequestId]] = []
        self._pending: Counter[tuple[int, RequestId]] = Counter()  # a script may give all one id

    def count(self) -> int:
        """How many clients have said hello."""
        return sum(1 for client in self.all.values() if client.welcome)

    # -- events -----------------------------------------------------------------------

    def opened(self, number: int, local_user: bool) -> None:
        """A client connected."""
        self.all[number] = Client(number, local_user)
        self._core.clients.add(number)

    def closed(self, number: int) -> None:
        """A client is gone."""
        self.all.pop(number, None)
        self._core.clients.discard(number)
        for key in [key for key in self._pending if key[0] == number]:
            del self._pending[key]

    def drained(self, number: int) -> None:
        """All that a client was sent is in its socket: it can take more."""
        client = self.all.get(number)
        if client is not None:
            client.busy = False

    def left(self, number: int) -> None:
        """A client says no more: it goes when it has all its answers."""
        client = self.all.get(number)
        if client is not None:
            client.left = True

    def line(self, number: int, line: bytes) -> None:
        """One line from a client."""
        client = self.all.get(number)
        if client is None or (client.welcome and not line.strip()):
            return
        try:
            request = parse_request(line)
            self._asked.append((number, request.id))
            self._core.client = number
            self._request(client, request)
        except BadRequest as error:
            self._bad(client, error)

    def too_long(self, number: int) -> None:
        """A client sent an endless line."""
        client = self.all.get(number)
        if client is not None:
            text = "the line is too long"
            self._bad(client, BadRequest(Code.INVALID_REQUEST, text, "at most 1 MiB a line"))
            self._core.emit(CloseClient(number))

    def failed(self, number: int, line: bytes) -> None:
        """Our own code failed on this line and was rolled back."""
        client = self.all.get(number)
        try:
            id = parse_request(line).id
        except BadRequest as bad:
            id = bad.id
        if client is not None and client.welcome:
            error = CommandError(Code.INTERNAL, "the daemon failed on this request", "see the log")
            self._core.emit(SendLine(number, encode_error(id, error)))

    def _bad(self, client: Client, error: BadRequest) -> None:
        self._core.log("warning", f"client {client.number}: {error.message}")
        if client.welcome or client.local_user:
            self._core.emit(SendLine(client.number, encode_error(error.id, error)))
        else:
            self._core.emit(CloseClient(client.number))

    # -- requests ---------------------------------------------------------------------

    def _request(self, client: Client, request: Request) -> None:
        if not client.welcome:
            self._greet(client, request)
            return
        if request.method.name == "events.subscribe":
            self._run(
                client.number, request, lambda _params, _reply: self._subscribe(client, request)
            )
            return
        handler = self.handlers.get(request.method.name)
        if handler is None:
            text = f"{request.method.name} comes only once, before all others"
            raise BadRequest(Code.INVALID_REQUEST, text, _SEE, request.id)
        self._run(client.number, request, handler)

    def _run(self, number: int, request: Request, handler: Handler) -> None:
        key = (number, request.id)

        def reply(outcome: object) -> None:
            self._pending[key] -= 1
            if self._pending[key] <= 0:  # below: it was given up meanwhile
                del self._pending[key]
            self._asked.append(key)  # it has its answer when this turn is committed
            self._reply(number, request, outcome)

        self._pending[key] += 1
        try:
            self._check_room(request.method.name)
            outcome = handler(request.params, reply)
        except CommandError as error:
            outcome = error
        if outcome is not PENDING:
            reply(outcome)

    def _check_room(self, method: str) -> None:
        if method in NEED_ROOM and self._core.store.short:
            raise CommandError(Code.STORAGE, *NO_ROOM)

    def _reply(self, number: int, request: Request, outcome: object) -> None:
        if request.notification:
            return
        if isinstance(outcome, CommandError):
            data = encode_error(request.id, outcome)
        else:
            data = encode_result(request.id, outcome)
        self._core.emit(SendLine(number, data))

    def _subscribe(self, client: Client, request: Request) -> schema.Subscribed:
        assert isinstance(request.params, schema.SubscribeParams)
        since = request.params.since
        number = self._journal.newest() if since is None else self._journal.parse(since)
        client.upto = number
        return schema.Subscribed(cursor=self._journal.cursor(number))

    # -- the handshake ----------------------------------------------------------------

    def _greet(self, client: Client, request: Request) -> None:
        params = request.params
        if isinstance(params, schema.HelloParams) and not client.nonces:
            if params.protocol != schema.PROTOCOL:
                text = f"this daemon speaks control protocol {schema.PROTOCOL}"
                raise BadRequest(
                    Code.INVALID_REQUEST, text, "use clients of its version", request.id
                )
            self._core.log("debug", f"client {client.number} is {visible(params.client)}")
            if client.local_user:
                self._welcome(client, request)
                return
            self._challenge(client, request, params.nonce)
            return
        if isinstance(params, schema.AuthoriseParams) and client.nonces:
            if hmac.compare_digest(self._proof(b"client", client.nonces), params.proof):
                self._welcome(client, request)
                return
            self._core.log("warning", f"client {client.number} has a wrong token")
            error = CommandError(Code.UNAUTHORISED, "wrong token", "read the token file again")
            self._core.emit(SendLine(client.number, encode_error(request.id, error)))
            self._core.emit(CloseClient(client.number))
            return
        raise BadRequest(Code.INVALID_REQUEST, "say hello first", _SEE, request.id)

    def _challenge(self, client: Client, request: Request, nonce: str | None) -> None:
        if nonce is None or self._core.profile.token is None:
            raise BadRequest(Code.INVALID_REQUEST, "a nonce is needed over TCP", _SEE, request.id)
        ours = self._core.random(NONCE_BYTES)
        client.nonces = bytes.fromhex(nonce) + ours
        proof = self._proof(b"daemon", client.nonces)
        self._reply(client.number, request, schema.Challenge(nonce=ours.hex(), proof=proof))

    def _proof(self, role: bytes, nonces: bytes) -> str:
        token = self._core.profile.token
        assert token is not None
        return hmac.digest(token, role + b"\0" + nonces, "sha256").hex()

    def _welcome(self, client: Client, request: Request) -> None:
        client.welcome = True
        self._core.emit(ClientAuthorised(client.number))
        profile = self._core.profile
        welcome = schema.Welcome(
            protocol=schema.PROTOCOL,
            version=__version__,
            name=profile.name,
            id=key_to_id(profile.identity.public),
            peer_port=self._core.peer_port,
            cursor=self._journal.cursor(self._journal.newest()),
        )
        self._reply(client.number, request, welcome)

    # -- turns ------------------------------------------------------------------------

    def begin_turn(self) -> None:
        """The turn before this one was committed and released."""
        self._asked.clear()
        for client in self.all.values():
            client.released = client.upto

    def finish_turn(self) -> None:
        """Send events to every client that follows and has taken what it was sent before."""
        newest = self._journal.newest() if self.all else 0
        for client in self.all.values():
            if client.upto is None or client.busy or client.upto >= newest:
                continue
            data, client.upto = self._journal.read(client.upto)
            if data:
                client.busy = True
                self._core.emit(SendLine(client.number, data))
            elif client.upto < newest:  # a page of what has been removed: nothing drains after it
                self._core.timers.set(("events", 0), self._core.now.boot)
        self._tell_progress()
        self._close_left()

    def _close_left(self) -> None:
        """Close those that have left and wait for nothing more."""
        wait = {number for number, _ in self._pending}
        for client in self.all.values():
            if client.left and client.number not in wait:
                self._core.emit(CloseClient(client.number))

    def _tell_progress(self) -> None:
        for transfer in self._transfers.take_moved():
            at = present.timestamp(self._core.now.wall_ms)
            data = encode_event({"at": at, "type": "transfer.progress", "transfer": transfer})
            for client in self.all.values():
                if client.upto is not None:
                    self._core.emit(SendLatest(client.number, transfer.id, data))

    def restart(self, error: CommandError) -> None:
        """The last turn was not committed: whoever asked in it, or still waits, is told."""
        for client in self.all.values():
            client.upto = client.released
            client.busy = False
        for number, id in dict.fromkeys([*self._asked, *self._pending]):
            if id is not None:
                self._core.emit(SendLine(number, encode_error(id, error)))
        self._asked.clear()
        self._pending.clear()
        self._close_left()
