"""Connections to a daemon: a blocking one for scripts, an asyncio one for the REPL.

What holds always: both speak through the pure codec (codec.py), so there is one protocol and two
ways to wait.  An event that arrives while a reply is awaited is kept, never dropped, and events
come out in the order of the daemon's log.  Why not asyncio for both: a script starts in a third
of the time without it, and has nothing to do while it waits.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tntd import __version__
from tntd.control.places import Endpoint
from tntd.control.schema import Welcome

from .codec import NONCE_BYTES, Handshake, Incoming, LineCodec, Notice, ProtocolFailure
from .failures import ClientFailure, NoDaemon, NotAnswering, TimedOut

CONNECT_TIMEOUT_S: Final = 5.0  # the daemon is on this machine: connecting and the handshake
CALL_TIMEOUT_S: Final = 60.0  # longer than the longest command, which is a connect
READ_BYTES: Final = 256 * 1024

Event = dict[str, Any]


def _client_name(program: str) -> str:
    return f"{program} {__version__}"


def _gone(endpoint: Endpoint, why: str) -> NoDaemon:
    return NoDaemon(
        f"{endpoint.name}'s daemon does not answer ({why}); start it with: tntd --name "
        f"{endpoint.name}"
    )


def unanswered(endpoint: Endpoint) -> ClientFailure:
    """What to raise where something is at the address, and says nothing in time."""
    name, pid = endpoint.name, endpoint.pid
    if _unix_path(endpoint) is None and not _is_alive(pid):
        return _gone(endpoint, "no answer in time")  # its port is somebody else's by now
    return NotAnswering(
        f"{name}'s daemon (process {pid}) runs but does not answer; try again in a moment, or "
        f"end it (kill -9 {pid}; nothing is lost) and start it again with: tntd --name {name}"
    )


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # there, a signal ends it
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # somebody else's
    return True


def _unix_path(endpoint: Endpoint) -> str | None:
    kind, _, rest = endpoint.control.partition(":")
    return rest if kind == "unix" else None


def _tcp_address(endpoint: Endpoint) -> tuple[str, int]:
    """The host and port of a "tcp:HOST:PORT".  Raises NoDaemon for anything else."""
    kind, _, rest = endpoint.control.partition(":")
    host, _, port = rest.rpartition(":")
    if kind != "tcp" or not port.isdecimal() or len(port) > 5 or int(port) > 65_535:
        raise _gone(endpoint, "its endpoint file is damaged")
    return host.strip("[]"), int(port)


def read_token(endpoint: Endpoint) -> bytes | None:
    """The token of a daemon on TCP, None for one on a Unix socket.  Raises NoDaemon."""
    if endpoint.token_file is None:
        return None
    try:
        return bytes.fromhex(json.loads(Path(endpoint.token_file).read_bytes())["token"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _gone(endpoint, f"no token in {endpoint.token_file}") from error


class Connection:
    """A blocking connection, used from one thread."""

    def __init__(self, endpoint: Endpoint, sock: socket.socket, codec: LineCodec) -> None:
        self.endpoint = endpoint
        self._socket = sock
        self._codec = codec
        self._arrived: deque[Incoming] = deque()
        self._events: deque[Event] = deque()
        self.welcome: Welcome

    @classmethod
    def open(
        cls, endpoint: Endpoint, program: str, timeout: float = CONNECT_TIMEOUT_S
    ) -> Connection:
        """Attach, handshake included, within `timeout` seconds.

        Raises NoDaemon where there is nothing of ours, NotAnswering where it says nothing,
        CommandError where we are refused.
        """
        deadline = time.monotonic() + timeout
        token = read_token(endpoint)
        sock = _connect(endpoint, timeout)
        connection = cls(endpoint, sock, LineCodec())
        try:
            connection._shake_hands(program, token, deadline)
        except ProtocolFailure as error:
            connection.close()
            raise _gone(endpoint, str(error)) from error
        except TimedOut as error:
            connection.close()
            raise unanswered(endpoint) from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _shake_hands(self, program: str, token: bytes | None, deadline: float) -> None:
        nonce = secrets.token_bytes(NONCE_BYTES)
        handshake = Handshake(self._codec, _client_name(program), token, nonce)
        self._send(handshake.first())
        while handshake.welcome is None:
            answer = handshake.receive(self._receive(deadline))
            if answer:
                self._send(answer)
        self.welcome = handshake.welcome

    def call(self, method: str, params: dict[str, Any], timeout: float = CALL_TIMEOUT_S) -> Any:
        """The result of a request.  Raises CommandError, TimedOut or NoDaemon."""
        id, line = self._codec.request(method, params)
        deadline = time.monotonic() + timeout
        self._send(line)
        while True:
            incoming = self._receive(deadline)
            if isinstance(incoming, Notice):
                self._events.append(incoming.params)
            elif incoming.id == id:
                if incoming.error is not None:
                    raise incoming.error
                return incoming.result

    def next_event(self, timeout: float | None) -> Event:
        """The next event, within `timeout` seconds (None: for ever).

        Raises TimedOut or NoDaemon.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._events:
            incoming = self._receive(deadline)
            if isinstance(incoming, Notice):
                self._events.append(incoming.params)
        return self._events.popleft()

    def wait_closed(self, timeout: float) -> bool:
        """Whether the daemon closed the connection within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        try:
            while True:
                self._receive(deadline)
        except NoDaemon:
            return True
        except TimedOut:
            return False

    def close(self) -> None:
        """Close the connection; the daemon goes on."""
        self._socket.close()

    def _send(self, line: bytes) -> None:
        try:
            self._socket.settimeout(CALL_TIMEOUT_S)
            self._socket.sendall(line)
        except OSError as error:
            raise self._lost() from error

    def _receive(self, deadline: float | None) -> Incoming:
        while not self._arrived:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimedOut(f"{self.endpoint.name}'s daemon has not answered in time")
            try:
                self._socket.settimeout(left)
                data = self._socket.recv(READ_BYTES)
            except TimeoutError:
                continue
            except OSError as error:
                raise self._lost() from error
            if not data:
                raise self._lost()
            try:
                self._arrived.extend(self._codec.feed(data))
            except ProtocolFailure as error:
                raise _gone(self.endpoint, str(error)) from error
        return self._arrived.popleft()

    def _lost(self) -> NoDaemon:
        name = self.endpoint.name
        return NoDaemon(f"{name}'s daemon went away; start it again with: tntd --name {name}")


def _connect(endpoint: Endpoint, timeout: float) -> socket.socket:
    path = _unix_path(endpoint)
    try:
        if path is None:
            return socket.create_connection(_tcp_address(endpoint), timeout)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect(path)
        except BaseException:
            sock.close()
            raise
        return sock
    except (TimeoutError, BlockingIOError) as error:  # so many wait already
        raise unanswered(endpoint) from error
    except (OSError, AttributeError, ValueError) as error:
        # AttributeError: a Unix endpoint on a system without such sockets.
        raise _gone(endpoint, "nobody is at its control address") from error


class AsyncConnection:
    """A connection inside an asyncio loop.

    `on_event` is called for each event as it is read, and must not block.  `closed` is set
    when the daemon is gone.  While `room` is clear nothing is read: the daemon then keeps the
    events, which is its job, instead of our memory.
    """

    def __init__(self, endpoint: Endpoint, on_event: Callable[[Event], None]) -> None:
        self.endpoint = endpoint
        self.closed = asyncio.Event()
        self.room = asyncio.Event()
        self.room.set()
        self.welcome: Welcome
        self._on_event = on_event
        self._codec = LineCodec()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, endpoint: Endpoint, program: str, on_event: Callable[[Event], None]
    ) -> AsyncConnection:
        """Attach, handshake included.  Raises NoDaemon, NotAnswering or CommandError."""
        token = read_token(endpoint)
        connection = cls(endpoint, on_event)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await connection._dial()
                await connection._shake_hands(program, token)
        except (TimeoutError, BlockingIOError) as error:
            await connection.close()
            raise unanswered(endpoint) from error
        except (OSError, AttributeError, ValueError, ProtocolFailure) as error:
            await connection.close()
            raise _gone(endpoint, str(error)) from error
        except BaseException:
            await connection.close()
            raise
        connection._reading = asyncio.create_task(connection._read())
        return connection

    async def _dial(self) -> None:
        path = _unix_path(self.endpoint)
        if path is None:
            host, port = _tcp_address(self.endpoint)
            self._reader, self._writer = await asyncio.open_connection(host, port)
        else:
            self._reader, self._writer = await asyncio.open_unix_connection(path)

    async def _shake_hands(self, program: str, token: bytes | None) -> None:
        nonce = secrets.token_bytes(NONCE_BYTES)
        handshake = Handshake(self._codec, _client_name(program), token, nonce)
        self._writer.write(handshake.first())
        while handshake.welcome is None:
            data = await self._reader.read(READ_BYTES)
            if not data:
                raise ProtocolFailure("it closed the connection")
            for incoming in self._codec.feed(data):
                self._writer.write(handshake.receive(incoming))
        self.welcome = handshake.welcome

    async def call(self, method: str, params: dict[str, Any]) -> Any:
        """The result of a request.  Raises CommandError, NotAnswering or NoDaemon."""
        if self.closed.is_set():
            raise self._lost()
        id, line = self._codec.request(method, params)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[id] = answer
        try:
            self._writer.write(line)
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await answer
        except TimeoutError as error:
            raise unanswered(self.endpoint) from error
        finally:
            self._waiting.pop(id, None)

    async def _read(self) -> None:
        try:
            while data := await self._reader.read(READ_BYTES):
                for incoming in self._codec.feed(data):
                    self._deliver(incoming)
                    if not isinstance(incoming, Notice):
                        # Whoever waits for the reply acts on it before later events are told,
                        # so that nobody takes an old answer for newer than they are.
                        await asyncio.sleep(0)
                await self.room.wait()
        except (OSError, ProtocolFailure):
            pass  # told below, as any other end of the connection
        finally:
            self.closed.set()
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(self._lost())

    def _deliver(self, incoming: Incoming) -> None:
        if isinstance(incoming, Notice):
            self._on_event(incoming.params)
            return
        answer = self._waiting.get(incoming.id or 0)
        if answer is None or answer.done():
            return
        if incoming.error is not None:
            answer.set_exception(incoming.error)
        else:
            answer.set_result(incoming.result)

    async def close(self) -> None:
        """Close the connection; the daemon goes on."""
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError):
                await self._reading
        self.closed.set()
        writer = getattr(self, "_writer", None)
        if writer is not None:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _lost(self) -> NoDaemon:
        name = self.endpoint.name
        return NoDaemon(f"{name}'s daemon went away; start it again with: tntd --name {name}")
