"""What the REPL knows about the daemon, and what its prompt and toolbar say.  Pure.

What holds always: this is a copy that any reply or event may replace; nothing is decided on it
that the daemon does not decide again.
"""

from __future__ import annotations

from typing import Final

from tntd.control.schema import Contact, Transfer
from tntd.control.visible import visible

from . import figures, render
from .people import find_contact
from .render import Line

RUNNING: Final = frozenset({"active", "queued", "offered", "paused"})
_TRANSFERS_SHOWN_MAX: Final = 2  # in the toolbar
_ENDED_KEPT_MAX: Final = 100  # to complete their ids


class Model:
    """The copy.  `own_name` and `own_id` are of the daemon that we are attached to."""

    def __init__(self, own_name: str) -> None:
        self.own_name = own_name
        self.own_id = ""
        self.attached = False
        self.contacts: dict[str, Contact] = {}
        self.transfers: dict[str, Transfer] = {}  # that have not ended
        self.decided: dict[str, str] = {}  # id: the state that a command of ours led to, and told
        self.ended: dict[str, Transfer] = {}  # the last ones that have
        self.current: str | None = None  # the id of a contact
        self.unsent = 0  # typed here, not yet taken by the daemon
        self.busy: list[str] = []  # commands under way
        self.question: str | None = None

    # -- changes ----------------------------------------------------------------------

    def set_contacts(self, contacts: list[Contact]) -> None:
        """Everybody, anew."""
        self.contacts = {contact.id: contact for contact in contacts}
        if self.current not in self.contacts:
            self.current = None

    def set_contact(self, contact: Contact) -> None:
        """One contact, new or changed."""
        self.contacts[contact.id] = contact

    def set_transfer(self, transfer: Transfer) -> None:
        """One transfer, new or changed."""
        if transfer.state in RUNNING:
            self.transfers[transfer.id] = transfer
            self.ended.pop(transfer.id, None)
            return
        self.transfers.pop(transfer.id, None)
        self.ended[transfer.id] = transfer
        if len(self.ended) > _ENDED_KEPT_MAX:
            del self.ended[next(iter(self.ended))]

    def forget_transfers(self) -> None:
        """The daemon is gone: nothing is known of them."""
        self.transfers.clear()
        self.ended.clear()

    # -- looking ----------------------------------------------------------------------

    def contact(self) -> Contact | None:
        """The contact of the current conversation."""
        return None if self.current is None else self.contacts.get(self.current)

    def named(self, name: str) -> Contact | None:
        """The contact with exactly that local name."""
        return next((item for item in self.contacts.values() if item.name == name), None)

    def find(self, who: str) -> Contact:
        """The contact that somebody typed.  Raises CommandError."""
        return find_contact(self.contacts.values(), who)

    def first_partner(self) -> Contact | None:
        """The first contact that one can talk to."""
        talkative = ("accepted", "verified")
        return next((item for item in self.contacts.values() if item.trust in talkative), None)

    def first_asking(self) -> Contact | None:
        """The first contact that asks to talk to us."""
        return next((item for item in self.contacts.values() if item.trust == "pending"), None)

    # -- prompt and toolbar -----------------------------------------------------------

    def prompt(self) -> Line:
        """What stands before the input."""
        if self.question is not None:
            return [("class:question", f"{visible(self.question)} [y/N] ")]
        contact = self.contact()
        if contact is None:
            return [("class:prompt.own", visible(self.own_name)), ("class:prompt", "> ")]
        return [("class:prompt.name", visible(contact.name)), ("class:prompt", "> ")]

    def toolbar(self) -> Line:
        """The line at the bottom."""
        line: Line = [("class:toolbar.own", f" {visible(self.own_name)} ")]
        for part in self._toolbar_parts():
            line += [("class:toolbar.rule", "│"), ("", " "), part, ("", " ")]
        return line

    def _toolbar_parts(self) -> list[tuple[str, str]]:
        if not self.attached:
            parts = [("class:toolbar.bad", "daemon gone, waiting for it")]
            return [*parts, ("", f"{self.unsent} unsent")] if self.unsent else parts
        parts = [self._partner(), *self._elsewhere()]
        if self.unsent:
            parts.append(("", f"sending {self.unsent}"))
        # Only what takes its time: anything else would flicker.
        parts += [("", f"{visible(what)}…") for what in self.busy if what.startswith("connect")]
        return parts + self._moving()

    def _partner(self) -> tuple[str, str]:
        contact = self.contact()
        if contact is None:
            return "", f"nobody to talk to yet: {render.nobody(self.first_asking())}"
        state = render.contact_state(contact)
        style = "class:toolbar.good" if state == "online" else "class:toolbar.faint"
        # With a link, what is queued is on its way and has gone before anybody could read that.
        waits = contact.queued and state != "online"
        queued = f", {contact.queued} queued" if waits else ""
        return style, f"{visible(contact.name)} {state}{queued}"

    def _elsewhere(self) -> list[tuple[str, str]]:
        others = [item for item in self.contacts.values() if item.id != self.current]
        unread = [f"{visible(item.name)} {item.unread}" for item in others if item.unread]
        asking = [visible(item.name) for item in others if item.trust == "pending"]
        parts = [("class:toolbar.note", f"unread: {', '.join(unread[:3])}")] if unread else []
        if asking:
            parts.append(("class:toolbar.note", f"asking: {', '.join(asking[:3])}"))
        return parts

    def _moving(self) -> list[tuple[str, str]]:
        active = [item for item in self.transfers.values() if item.state == "active"]
        parts = []
        for item in active[:_TRANSFERS_SHOWN_MAX]:
            arrow = "↑" if item.direction == "out" else "↓"
            name = figures.fitted(visible(item.name), 20)
            parts.append(("", f"{arrow} {name} {render.transfer_progress(item)}"))
        paused = [item for item in self.transfers.values() if item.state == "paused"]
        waiting = len(self.transfers) - len(active) - len(paused)
        more = len(active) - _TRANSFERS_SHOWN_MAX
        if more > 0:
            parts.append(("", f"{more} more"))
        if len(paused) == 1:
            name = figures.fitted(visible(paused[0].name), 20)
            how_far = render.transfer_progress(paused[0])
            parts.append(("class:toolbar.note", f"{name} paused {how_far}"))
        elif paused:
            parts.append(("class:toolbar.note", f"{len(paused):,} paused"))
        if waiting:
            parts.append(("class:toolbar.faint", f"{waiting:,} waiting"))
        return parts
