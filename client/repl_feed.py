"""Events of the daemon to lines on the screen, each thing once.  Pure.

What holds always: a message is shown once, whether its event, the reply to our own send or a look
at the history brings it first; and events that only repeat what the toolbar says make no line.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from tntd.control.schema import Contact, Message, Transfer
from tntd.control.visible import visible

from . import figures, render
from .render import Line
from .repl_model import Model
from .verbs import hint_as_typed

_SEEN_MAX: Final = 20_000  # ids of shown messages; far more than any replay overlaps
_ARRIVED: Final = ("delivered", "read")


class Feed:
    """Turns events into lines and keeps `model` up to date.  `today` is the local date."""

    def __init__(self, model: Model, today: str) -> None:
        self._model = model
        self._day = today
        self._seen: dict[str, None] = {}
        self._waiting: dict[str, set[str]] = {}  # contact's name to own messages marked queued
        self._known: dict[str, Contact] = {}  # as last told to the user
        self._waits: dict[str, str] = {}  # id of a transfer to what it was last said to wait for
        self._away: set[str] = set()  # ids of contacts that the user knows to be offline
        self.read: tuple[str, str] | None = None  # contact id, last message shown to the user

    def event(self, event: dict[str, Any], replayed: bool = False) -> list[Line]:
        """The lines that an event deserves.  `replayed`: it happened while nobody looked."""
        type = str(event.get("type"))
        try:
            if "message" in event:
                message = msgspec.convert(event["message"], Message)
                return self._message(type, message, replayed)
            if "transfer" in event:
                return self._transfer(type, msgspec.convert(event["transfer"], Transfer))
            if type == "error":
                hint = hint_as_typed(str(event.get("hint") or ""), "/")
                return [render.trouble(str(event.get("text")), hint)]
            if "contact" in event:
                return self._contact(type, msgspec.convert(event["contact"], Contact), replayed)
        except msgspec.ValidationError:
            pass  # an event of a newer daemon
        return []

    # -- messages ---------------------------------------------------------------------

    def is_new(self, id: str) -> bool:
        """Whether the message has not been shown; from now on it has."""
        if id in self._seen:
            return False
        self._seen[id] = None
        if len(self._seen) > _SEEN_MAX:
            del self._seen[next(iter(self._seen))]
        return True

    def _message(self, type: str, message: Message, replayed: bool) -> list[Line]:
        if type == "message.received":
            return self.received(message)
        if message.state == "queued" and not replayed:
            return self.own(message)
        return self._arrived(message) if message.state in _ARRIVED else []

    def received(self, message: Message) -> list[Line]:
        """A message of somebody else."""
        if not self.is_new(message.id):
            return []
        contact = self._model.named(message.conversation)
        here = contact is not None and contact.id == self._model.current
        self._note_read(message)
        shown = render.message(message, self._model.own_name, elsewhere=not here)
        return [*self._new_day(message), *shown]

    def _note_read(self, message: Message) -> None:
        contact = self._model.contact()
        if contact is not None and message.from_ == message.conversation == contact.name:
            self.read = (contact.id, message.id)

    def own(self, message: Message) -> list[Line]:
        """A message of ours, from this REPL or from another client."""
        if not self.is_new(message.id):
            return []
        contact = self._model.named(message.conversation)
        waits = contact is None or not (contact.online and contact.mutual)
        if waits and message.state == "queued":
            self._waiting.setdefault(message.conversation, set()).add(message.id)
        here = contact is not None and contact.id == self._model.current
        shown = render.message(
            message, self._model.own_name, elsewhere=not here, mark="queued" if waits else ""
        )
        return [*self._new_day(message), *shown]

    def context(self, messages: list[Message]) -> list[Line]:
        """Earlier messages, faint, whether shown before or not."""
        lines: list[Line] = []
        for message in messages:
            self.is_new(message.id)
            self._note_read(message)
            lines += self._new_day(message)
            lines += render.message(message, self._model.own_name, faint=True)
        return lines

    def recall(self, messages: list[Message]) -> list[Line]:
        """A look back: what has not been shown yet as it is, the rest faint."""
        lines: list[Line] = []
        for message in messages:
            fresh = message.id not in self._seen and message.from_ == message.conversation
            lines += self.received(message) if fresh else self.context([message])
        return lines

    def _arrived(self, message: Message) -> list[Line]:
        waiting = self._waiting.get(message.conversation, set())
        if message.id not in waiting:
            return []
        waiting.discard(message.id)
        if waiting:
            return []
        del self._waiting[message.conversation]
        return [[(render.DIM, f"* {visible(message.conversation)} has what was queued")]]

    def _new_day(self, message: Message) -> list[Line]:
        day = figures.day(message.sent_at)
        if day == self._day:
            return []
        self._day = day
        return [render.separator(day)]

    # -- contacts ---------------------------------------------------------------------

    def know(self, contacts: Iterable[Contact], *, just_met: bool = False) -> None:
        """The user knows of these contacts as they are; only what changes is news.  Whoever was
        `just_met` is about to be online, which is none."""
        for contact in contacts:
            self._known[contact.id] = contact
            if contact.mutual and not contact.online and not just_met:
                self._away.add(contact.id)

    def _contact(self, type: str, contact: Contact, replayed: bool) -> list[Line]:
        before = self._known.get(contact.id)
        self._known[contact.id] = contact
        self._model.set_contact(contact)
        if type == "contact.request":
            return [render.request(contact)] if contact.trust == "pending" else []
        if replayed:
            return []
        if type in ("peer.online", "peer.offline"):
            return self._presence(contact)
        if before is None or before.trust == "pending":
            return self._met(contact)
        if contact.mutual and not before.mutual:
            return [render.connected(contact, "/")]
        if contact.name != before.name:
            return [render.note(f"{before.name} is called {contact.name} now")]
        return []

    def _presence(self, contact: Contact) -> list[Line]:
        """Coming and going of the one being talked to; of others the toolbar is enough."""
        changed = (contact.id in self._away) == contact.online
        if contact.online:
            self._away.discard(contact.id)
        else:
            self._away.add(contact.id)
        if not changed or contact.id != self._model.current:
            return []
        state = "online" if contact.online else "offline"
        return [[(render.DIM, f"* {visible(contact.name)} is {state}")]]

    def _met(self, contact: Contact) -> list[Line]:
        """Somebody new; where a command of ours brought it about, that command tells."""
        ours = any(what.startswith(("connect", "accept")) for what in self._model.busy)
        if ours or contact.trust not in ("accepted", "verified"):
            return []
        return [render.connected(contact, "/")]

    # -- transfers --------------------------------------------------------------------

    def _transfer(self, type: str, transfer: Transfer) -> list[Line]:
        before = self._model.transfers.get(transfer.id)
        self._model.set_transfer(transfer)
        if transfer.state in render.ENDED:
            self._waits.pop(transfer.id, None)
        if type == "transfer.progress" or (type == "transfer.offered") != (
            transfer.state == "offered"
        ):
            return []  # the toolbar shows it, or it is an offer that has been decided since
        if self._model.decided.get(transfer.id) == transfer.state:
            del self._model.decided[transfer.id]
            return []  # a command of ours led to it, and has told
        if transfer.state == "paused" and before is not None and before.state == "paused":
            return []  # known
        line = render.transfer_news(transfer, "/")
        return [] if line is None else [line]

    def waits(self, id: str) -> list[Line]:
        """What a transfer that still waits waits for, if that is worth a line and was not said."""
        item = self._model.transfers.get(id)
        if item is None or item.direction == "in" or item.state not in ("offered", "queued"):
            return []
        contact = self._model.named(item.contact)
        reason = render.waiting_reason(item)
        if item.state == "queued" and contact is not None and not contact.online:
            reason = render.away(contact)  # it may be newer than the reason
        if not reason or self._waits.get(id) == reason:
            return []
        self._waits[id] = reason
        what = f"{render.transfer_what(item)} {render.transfer_peer(item)}"
        return [render.note(f"{what} waits: {reason}")]
