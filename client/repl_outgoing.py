"""Messages on their way from the prompt to the daemon, in order, while the user types on.

What holds always: a typed message goes to the daemon exactly once, however often it has to be said:
each carries a `client_ref`, so after a daemon that went away in between it is sent again and is the
same message.  What could not be handed over when the REPL ends is told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

import msgspec

from tntd.control.schema import MessageResult
from tntd.errors import CommandError

from . import render
from .failures import ClientFailure
from .repl_desk import Desk
from .repl_link import Link
from .steps import new_ref
from .verbs import hint_as_typed


@dataclass(slots=True)
class _Letter:
    to: str
    name: str
    text: str
    ref: str = field(default_factory=new_ref)


class Outgoing:
    """The queue."""

    def __init__(self, desk: Desk, link: Link) -> None:
        self._desk = desk
        self._link = link
        self._letters: deque[_Letter] = deque()
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def put(self, to: str, name: str, text: str) -> None:
        """Send `text` to the contact with the id `to`, called `name` here."""
        self._letters.append(_Letter(to, name, text))
        self._empty.clear()
        self._wake.set()
        if not self._link.attached.is_set():
            note = f"kept until {self._link.name}'s daemon is back: {text}"
            self._desk.screen.show([[(render.DIM, render.plain(render.note(note)))]])
        self._count()

    async def run(self) -> None:
        """Hand over one after the other, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._letters:
                await self._link.attached.wait()
                await self._hand_over(self._letters[0])
            self._empty.set()

    async def _hand_over(self, letter: _Letter) -> None:
        params = {"to": letter.to, "text": letter.text, "client_ref": letter.ref}
        try:
            answer = await self._link.call("messages.send", params)
        except CommandError as error:
            text = f"not sent to {letter.name}: {error.message}"
            self._desk.screen.show([render.trouble(text, hint_as_typed(error.hint, "/"))])
        except ClientFailure:
            await asyncio.sleep(0)  # let the link notice, then wait for it
            return
        else:
            message = msgspec.convert(answer, MessageResult).message
            self._desk.screen.show(self._desk.feed.own(message))
        self._letters.popleft()
        self._count()

    def _count(self) -> None:
        self._desk.model.unsent = len(self._letters)
        self._desk.redraw()

    async def flush(self, timeout: float) -> list[str]:
        """Wait until all is handed over, `timeout` seconds at most; the texts that were not."""
        try:
            async with asyncio.timeout(timeout):
                await self._empty.wait()
        except TimeoutError:
            pass
        return [letter.text for letter in self._letters]
