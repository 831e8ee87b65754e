"""The clients of our user: accepted, numbered, listened to and answered.

What holds always: a client that was opened is closed in exactly one ClientClosed, once its
socket is gone; after CloseClient no line of it is told any more.  Who does not prove within
AUTHORISE_TIMEOUT_S that it is our user's is cut without a word, and before that where its place
is wanted.  There are at most CLIENTS_MAX.
"""

from __future__ import annotations

import logging
import socket
from functools import partial
from pathlib import Path
from typing import Any

from tntd import limits
from tntd.effects import ClientAuthorised, CloseClient, SendLatest, SendLine
from tntd.events import ClientClosed, ClientOpened
from tntd.shell.control_client import Client
from tntd.shell.control_sockets import is_our_user
from tntd.shell.cuts import CutLog
from tntd.shell.door import Door
from tntd.shell.loop import Loop
from tntd.shell.stream import Linger, Stream, StreamEnded

logger = logging.getLogger("tntd")


class ControlServer:
    """Serves the listening sockets that control_sockets opened, and owns them from now on."""

    def __init__(self, loop: Loop, sockets: list[socket.socket], cuts: CutLog) -> None:
        self._loop = loop
        self._cuts = cuts
        self._clients: dict[int, Client] = {}
        self._dirty: dict[Client, None] = {}
        self._lingering: dict[int, Linger] = {}
        self._paths = [Path(sock.getsockname()) for sock in sockets if _is_unix(sock)]
        self._doors = [
            Door(loop, sock, partial(self._accepted, _is_unix(sock))) for sock in sockets
        ]

    @property
    def idle(self) -> bool:
        """There is no client, not even one that is closing."""
        return not (self._clients or self._lingering)

    # -- effects -------------------------------------------------------------------------

    def send(self, effect: SendLine) -> None:
        """Send whole lines, with the next `flush`; ClientDrained follows."""
        client = self._clients.get(effect.client)
        if client is not None:
            client.send(effect.data)
            self._dirty[client] = None

    def send_latest(self, effect: SendLatest) -> None:
        """Send a line that the next of its key may replace."""
        client = self._clients.get(effect.client)
        if client is not None:
            client.send_latest(effect.key, effect.data)
            self._dirty[client] = None

    def authorised(self, effect: ClientAuthorised) -> None:
        """It is one of our user's."""
        client = self._clients.get(effect.client)
        if client is not None:
            client.authorise()

    def close(self, effect: CloseClient) -> None:
        """Flush and close, within LINK_GRACE_S; ClientClosed follows."""
        client = self._clients.pop(effect.client, None)
        if client is not None:
            self._let_go(client)

    # -- for the driver ------------------------------------------------------------------

    def flush(self) -> None:
        """Hand what was sent in this turn to the sockets."""
        dirty, self._dirty = self._dirty, {}
        for client in dirty:
            try:
                client.flush()
            except StreamEnded:
                self._ended(client)

    def listen_anew(self, sock: socket.socket) -> None:
        """Take clients from this socket: the file of the one before is gone."""
        for door in self._doors:
            door.close()
        self._doors = [Door(self._loop, sock, partial(self._accepted, _is_unix(sock)))]

    def stop(self) -> None:
        """Accept no more, take the sockets' files away, close every client with a grace."""
        for path in self._paths:
            # Before the socket itself, so that it cannot be the file of a new daemon.
            path.unlink(missing_ok=True)
        for door in self._doors:
            door.close()
        for number in list(self._clients):
            self.close(CloseClient(number))

    # -- inside --------------------------------------------------------------------------

    def _accepted(self, local: bool, sock: socket.socket, _address: Any) -> None:
        if local and not is_our_user(sock):
            sock.close()
            logger.warning("a client of another user was turned away")
            return
        if len(self._clients) >= limits.CLIENTS_MAX:
            self._cuts.add("", f"more than {limits.CLIENTS_MAX} clients")
            if not self._make_place():
                sock.close()
                return
        number = self._loop.next_number()
        client = Client(self._loop, number, Stream(self._loop, sock), local, self._ended)
        client.timer = self._loop.call_later(
            limits.AUTHORISE_TIMEOUT_S, partial(self._late, client)
        )
        self._clients[number] = client
        self._loop.post(ClientOpened(number, local))

    def _make_place(self) -> bool:
        """Cut the client that has longest not said who it is: over TCP anybody on this machine may
        connect, and all places would be theirs."""
        for number, client in self._clients.items():
            if not client.authorised:
                del self._clients[number]
                self._dirty.pop(client, None)
                client.drop()
                self._loop.post(ClientClosed(number))
                return True
        return False

    def _late(self, client: Client) -> None:
        self._cuts.add("", "a client did not say in time who it is")
        self._ended(client)

    def _ended(self, client: Client) -> None:
        """It has left, or has to: what was sent to it before may still arrive."""
        if self._clients.pop(client.number, None) is not None:
            self._let_go(client)

    def _let_go(self, client: Client) -> None:
        self._dirty.pop(client, None)
        number = client.number

        def done() -> None:
            self._lingering.pop(number, None)
            self._loop.post(ClientClosed(number))

        self._lingering[number] = Linger(self._loop, client.finish(), done)


def _is_unix(sock: socket.socket) -> bool:
    return sock.family == getattr(socket, "AF_UNIX", None)
