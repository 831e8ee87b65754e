"""What the parts of the REPL share: model, feed, screen, the place of the user, long texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .repl_feed import Feed
from .repl_memory import PlaceKeeper
from .repl_model import Model
from .repl_screen import Screen
from .repl_texts import Texts


@dataclass(slots=True)
class Desk:
    """`redraw` brings prompt and toolbar up to date."""

    model: Model
    feed: Feed
    screen: Screen
    keeper: PlaceKeeper
    texts: Texts
    redraw: Callable[[], None]

    def choose_conversation(self) -> None:
        """Where there is no current conversation: the one of last time, or the first contact."""
        model = self.model
        if model.current is not None:
            return
        kept = model.contacts.get(self.keeper.place.conversation or "")
        if kept is not None and kept.trust in ("accepted", "verified"):
            self.talk_to(kept.id)
        elif (partner := model.first_partner()) is not None:
            self.talk_to(partner.id)

    def talk_to(self, contact: str) -> None:
        """Make the contact with this id the current conversation."""
        self.model.current = contact
        self.keeper.talks_to(contact)
