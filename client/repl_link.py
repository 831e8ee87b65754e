"""The REPL's attachment to its daemon: attach, follow, notice its end, attach again.

What holds always: whoever calls gets a reply or an error, never silence; and when the daemon is
back, its events go on from the last one that was shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

import msgspec

from tntd.control.places import Endpoint
from tntd.control.schema import ContactList, Transfer, TransferList
from tntd.errors import Code, CommandError

from . import render
from .connection import AsyncConnection, Event
from .discover import find_daemon
from .failures import ClientFailure, NoDaemon
from .repl_catch_up import CatchUp
from .repl_desk import Desk

PROGRAM: Final = "tnt-repl"
REFRESH_DELAY_S: Final = 0.15  # so that many events are one look at the contacts
WAIT_TOLD_S: Final = 1.0  # each transfer is offered, but most are taken before that
RETRY_FIRST_S: Final = 0.2
RETRY_MAX_S: Final = 2.0
_TOLD: Final = ("paused", "cancelled", "declined")
_RUNNING: Final = ("queued", "offered", "active", "paused")


class Link:
    """The attachment."""

    def __init__(self, desk: Desk, endpoint: Endpoint) -> None:
        self.attached = asyncio.Event()
        self.stopping = False  # the user has asked for the daemon's end: nothing to wonder about
        self._desk = desk
        self._endpoint = endpoint
        self._connection: AsyncConnection | None = None
        self._catch_up: CatchUp | None = None
        self._chores: dict[str, asyncio.Task[None]] = {}

    @property
    def name(self) -> str:
        """The daemon's name."""
        return self._endpoint.name

    async def call(self, method: str, params: dict[str, Any]) -> Any:
        """Ask the daemon.  Raises CommandError, TimedOut, NoDaemon."""
        if self._connection is None or not self.attached.is_set():
            raise NoDaemon(f"{self.name}'s daemon is gone; try again when it is back")
        result = await self._connection.call(method, params)
        self._note(method, result)
        return result

    def _note(self, method: str, result: Any) -> None:
        """What a decision of ours led to is known at once, so that its event is no news."""
        if method.startswith("transfers.") and isinstance(result, dict) and "transfer" in result:
            with suppress(msgspec.ValidationError):  # of a newer daemon
                transfer = msgspec.convert(result["transfer"], Transfer)
                self._desk.model.set_transfer(transfer)
                if transfer.state in _TOLD:
                    self._desk.model.decided[transfer.id] = transfer.state

    # -- coming and going -------------------------------------------------------------

    async def open(self) -> None:
        """Attach for the first time, with context.  Raises NoDaemon or CommandError."""
        await self._attach(first=True)
        self._desk.keeper.save()  # from here on even a kill -9 comes back to this place

    async def run(self) -> None:
        """Notice when the daemon goes, and attach again when it is back, for ever."""
        while True:
            assert self._connection is not None
            await self._connection.closed.wait()
            self._lost()
            if self.stopping:
                return
            await self._come_back()

    def _lost(self) -> None:
        desk = self._desk
        self.attached.clear()
        desk.model.attached = False
        desk.model.forget_transfers()
        if not self.stopping:
            text = (
                f"{self.name}'s daemon is gone; waiting for it to come back "
                f"(start it with: tntd --name {self.name})"
            )
            desk.screen.show([render.note(text)])
        desk.redraw()

    async def _come_back(self) -> None:
        delay = RETRY_FIRST_S
        while True:
            try:
                self._endpoint = find_daemon(self.name, PROGRAM)
                await self._attach(first=False)
                return
            except (ClientFailure, CommandError):
                await asyncio.sleep(delay)
                delay = min(delay * 1.5, RETRY_MAX_S)

    async def wait_end(self, timeout: float) -> bool:
        """Whether the daemon ended within `timeout` seconds."""
        assert self._connection is not None
        try:
            async with asyncio.timeout(timeout):
                await self._connection.closed.wait()
        except TimeoutError:
            self.stopping = False
            return False
        return True

    async def close(self) -> None:
        """Detach; the daemon goes on."""
        for task in self._chores.values():
            task.cancel()
        if self._connection is not None:
            await self._connection.close()

    # -- attaching --------------------------------------------------------------------

    async def _attach(self, first: bool) -> None:
        if self._connection is not None:
            await self._connection.close()
        self._catch_up = None
        connection = await AsyncConnection.open(self._endpoint, PROGRAM, self._on_event)
        self._connection = connection
        desk = self._desk
        desk.screen.room = connection.room
        welcome = connection.welcome
        desk.model.own_name, desk.model.own_id = welcome.name, welcome.id
        desk.keeper.belongs_to(welcome.id)
        self._catch_up = CatchUp(desk, welcome.cursor)
        replays = await self._subscribe(connection)
        await self._learn(connection)
        if not first:
            desk.screen.show([render.note(f"{self.name}'s daemon is back")])
        if replays:
            await self._catch_up.wait()
            await self._catch_up.show_replay(connection.call, context=first)
        else:
            await self._catch_up.show_unread(connection.call, context=first)
        self._go_on()

    async def _subscribe(self, connection: AsyncConnection) -> bool:
        """Follow events; whether from where the user was (else only from now on)."""
        cursor = self._desk.keeper.place.cursor
        if cursor is not None:
            try:
                await connection.call("events.subscribe", {"since": cursor})
                return True
            except CommandError as error:
                if error.code is not Code.CURSOR_GONE:
                    raise
        answer = await connection.call("events.subscribe", {})
        self._desk.keeper.reached(str(answer["cursor"]))
        return False

    async def _learn(self, connection: AsyncConnection) -> None:
        desk = self._desk
        answer = await connection.call("contacts.list", {})
        contacts = msgspec.convert(answer, ContactList).contacts
        desk.model.set_contacts(contacts)
        desk.feed.know(contacts)
        desk.choose_conversation()
        for state in (*_RUNNING, "failed"):
            answer = await connection.call("transfers.list", {"state": state})
            for transfer in msgspec.convert(answer, TransferList).transfers:
                desk.model.set_transfer(transfer)

    def _go_on(self) -> None:
        """From catching up to following."""
        assert self._catch_up is not None
        late = self._catch_up.finish()
        self._catch_up = None
        self._desk.model.attached = True
        self.attached.set()
        for event in late:
            self._follow(event)
        self.mark_read()
        self._chore("tidy", self._tidy())
        self._desk.redraw()

    # -- following --------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        if self._catch_up is not None:
            self._catch_up.take(event)
        else:
            self._follow(event)

    def _follow(self, event: Event) -> None:
        desk = self._desk
        lines = desk.feed.event(event)
        cursor = event.get("cursor")
        then = (lambda: desk.keeper.reached(str(cursor))) if cursor else None
        desk.screen.show(lines, then)
        desk.choose_conversation()
        if str(event.get("type")).startswith("message."):
            self.refresh()
        if event.get("type") == "transfer.state":
            with suppress(KeyError, msgspec.ValidationError):  # of a newer daemon
                transfer = msgspec.convert(event["transfer"], Transfer)
                desk.texts.ended(transfer)
                if transfer.state in render.WAITING:
                    self._chore(f"waits {transfer.id}", self._tell_wait(transfer.id))
        self.mark_read()
        desk.redraw()

    # -- chores -----------------------------------------------------------------------

    def refresh(self) -> None:
        """Look at the contacts again, soon: their unread and queued counts have changed."""
        self._chore("refresh", self._refresh())

    def mark_read(self) -> None:
        """Tell the daemon, soon, what has been shown in the current conversation."""
        if self._desk.feed.read is not None:
            self._chore("read", self._mark_read())

    def _chore(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = self._chores.get(name)
        if task is not None and not task.done():
            work.close()  # the one under way has not looked yet
            return
        self._chores[name] = asyncio.create_task(work)

    async def _tidy(self) -> None:
        with suppress(ClientFailure, CommandError):
            await self._desk.texts.tidy(self.call)

    async def _tell_wait(self, id: str) -> None:
        await asyncio.sleep(WAIT_TOLD_S)
        self._chores.pop(f"waits {id}", None)
        self._desk.screen.show(self._desk.feed.waits(id))

    async def _refresh(self) -> None:
        await asyncio.sleep(REFRESH_DELAY_S)
        self._chores.pop("refresh", None)  # what comes from here on needs another look
        with suppress(ClientFailure, CommandError):
            answer = await self.call("contacts.list", {})
            self._desk.model.set_contacts(msgspec.convert(answer, ContactList).contacts)
            self._desk.redraw()

    async def _mark_read(self) -> None:
        await asyncio.sleep(REFRESH_DELAY_S)
        self._chores.pop("read", None)
        read, self._desk.feed.read = self._desk.feed.read, None
        if read is None:
            return
        with suppress(ClientFailure, CommandError):
            await self.call("messages.read", {"conversation": read[0], "upto": read[1]})
