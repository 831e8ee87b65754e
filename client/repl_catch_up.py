"""What was missed, shown on attach: context above a line, below it each missed thing once.

What holds always: with a usable cursor, what was missed is exactly what the daemon logged after
it; without one (the first time, or too old) it is what no client has marked as read.  What
was seen before stands above the line, faint, and never below it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import msgspec

from tntd.control.schema import Contact, Message, MessageList

from . import figures, render
from .connection import Event
from .render import Line
from .repl_desk import Desk

CONTEXT_MESSAGES: Final = 5
PAGE_MESSAGES: Final = 200
SILENCE_S: Final = 0.5  # after it, what the newest cursor was about must have been removed
GATHERED_MAX: Final = 5_000  # shown together as missed; what comes after is shown as it comes

Ask = Callable[[str, dict[str, Any]], Awaitable[Any]]


class CatchUp:
    """One attaching.  Events go to `take` until `finish` hands over those not yet shown."""

    def __init__(self, desk: Desk, until: str) -> None:
        """`until` is the newest cursor at the time of attaching."""
        self._desk = desk
        self._until = until
        self._events: list[Event] = []
        self._arrived = asyncio.Event()

    def take(self, event: Event) -> None:
        """An event that came meanwhile."""
        self._events.append(event)
        self._arrived.set()

    def finish(self) -> list[Event]:
        """The events that have come and not been shown."""
        events, self._events = self._events, []
        return events

    async def wait(self) -> None:
        """Until the newest event of the time of attaching is here, or nothing comes any more."""
        if self._desk.keeper.place.cursor == self._until:
            return
        checked = 0
        with suppress(TimeoutError):
            while len(self._events) < GATHERED_MAX:
                fresh = self._events[checked:]
                checked = len(self._events)
                if any(event.get("cursor") == self._until for event in fresh):
                    return
                self._arrived.clear()
                async with asyncio.timeout(SILENCE_S):
                    await self._arrived.wait()

    async def show_replay(self, ask: Ask, context: bool) -> None:
        """The events that have come, as missed; above them, if `context`, what was before."""
        desk = self._desk
        events = self.finish()
        above = await self._context(ask, self._first_received(events)) if context else []
        since = figures.date_and_clock(desk.keeper.place.at)
        missed = [line for event in events for line in desk.feed.event(event, replayed=True)]
        header = [render.separator(f"while you were away (since {since})")]
        desk.screen.show([*above, *(header if missed and context else []), *missed])
        cursors = [str(event["cursor"]) for event in events if event.get("cursor")]
        if cursors:
            desk.screen.show([], lambda: desk.keeper.reached(cursors[-1]))

    async def show_unread(self, ask: Ask, context: bool) -> None:
        """What is unread, by contact; above it, if `context`, what was before."""
        desk = self._desk
        unread: list[Message] = []
        for contact in desk.model.contacts.values():
            if contact.unread:
                unread += await _unread(ask, contact)
        current = desk.model.contact()
        here = [m.id for m in unread if current is not None and m.conversation == current.name]
        above = await self._context(ask, here[0] if here else None) if context else []
        missed = [line for message in unread for line in desk.feed.received(message)]
        if context:
            asking = [c for c in desk.model.contacts.values() if c.trust == "pending"]
            missed += [render.request(contact) for contact in asking]
        header = [render.separator("not read yet")] if missed else []
        desk.screen.show([*above, *header, *missed])

    def _first_received(self, events: list[Event]) -> str | None:
        """The id of the first missed message of the current conversation."""
        contact = self._desk.model.contact()
        for event in events:
            message = event.get("message")
            if (
                contact is not None
                and event.get("type") == "message.received"
                and isinstance(message, dict)
                and message.get("conversation") == contact.name
            ):
                return str(message.get("id"))
        return None

    async def _context(self, ask: Ask, before: str | None) -> list[Line]:
        current = self._desk.model.current
        if current is None:
            return []
        params: dict[str, Any] = {"conversation": current, "limit": CONTEXT_MESSAGES}
        if before is not None:
            params["before"] = before
        page = msgspec.convert(await ask("messages.list", params), MessageList)
        return self._desk.feed.context(page.messages)


async def _unread(ask: Ask, contact: Contact) -> list[Message]:
    found: list[Message] = []
    params: dict[str, Any] = {"conversation": contact.id, "limit": PAGE_MESSAGES}
    while len(found) < contact.unread:
        page = msgspec.convert(await ask("messages.list", params), MessageList).messages
        if not page:
            break
        found = [message for message in page if message.from_ == message.conversation] + found
        params["before"] = page[0].id
    return found[-contact.unread :]
