"""One link for each pair, whatever both sides dial.

What holds always: a contact has one route; a second link is a rival until it is decided.
Another instance (they were started anew) replaces at once.  The same instance: the old link is
pinged and replaced if it stays silent for 3 s; if it answers, the one stays that the side with
the smaller key dialled, and the other is closed only after the winner has carried a frame both
ways.  Both sides decide alike, each for itself, so neither closes what the other keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from tntd import limits
from tntd.effects import CloseLink
from tntd.machines.session import Session
from tntd.node.core import Core
from tntd.store.contacts import ContactRow
from tntd.wire.frames import LinkError


class HasSession(Protocol):
    """What is needed of a link here."""

    session: Session


Links = Mapping[int, HasSession]


class Pairs:
    """The rivals of routes.  `ping(link, within)` probes; `take_over(contact, link)` makes a
    link the route."""

    def __init__(
        self,
        core: Core,
        ping: Callable[[int, float], None],
        take_over: Callable[[int, int], None],
    ) -> None:
        self._core = core
        self._ping = ping
        self._take_over = take_over
        self._rivals: dict[int, int] = {}

    def reset(self) -> None:
        """Forget all rivals."""
        self._rivals.clear()

    def settle(self, contact: int, links: Links, number: int) -> None:
        """A link with this contact is greeted: it becomes the route, or a rival of it."""
        route = self._core.routes.get(contact)
        if route is None or route.link not in links:
            self._take_over(contact, number)
        elif _instance(links[route.link]) != _instance(links[number]):
            old, rival = route.link, self._rivals.pop(contact, None)
            self._take_over(contact, number)
            for link in (old, rival):
                if link is not None:
                    # Whoever still reads this is not what was replaced: a second copy.
                    self._core.send(link, LinkError(code="replaced", text=""))
                    self._core.emit(CloseLink(link, "replaced: they were started anew"))
        else:
            previous = self._rivals.get(contact)
            self._rivals[contact] = number
            if previous is not None:
                self._core.emit(CloseLink(previous, "duplicate"))
            self._ping(route.link, limits.PROBE_ANSWER_S)

    def answered(self, row: ContactRow, links: Links, number: int) -> None:
        """A link has carried a frame both ways: decide, if there is something to decide."""
        rival = self._rivals.get(row.row)
        route = self._core.routes.get(row.row)
        if rival is None or route is None or rival not in links or route.link not in links:
            return
        rival_wins = _rank(links[rival].session) < _rank(links[route.link].session)
        if number == route.link and rival_wins:
            self._ping(rival, limits.PROBE_ANSWER_S)
        elif number == route.link:
            del self._rivals[row.row]
            self._core.emit(CloseLink(rival, "duplicate"))
        elif number == rival and rival_wins:
            old = route.link
            del self._rivals[row.row]
            self._take_over(row.row, rival)
            self._core.emit(CloseLink(old, "duplicate"))

    def lost(self, contact: int, number: int) -> int | None:
        """A link is gone: the rival that takes its place, if it was the route and has one."""
        rival = self._rivals.get(contact)
        if rival == number:
            del self._rivals[contact]
            return None
        route = self._core.routes.get(contact)
        return self._rivals.pop(contact, None) if route and route.link == number else None


def _instance(link: HasSession) -> bytes:
    assert link.session.hello is not None
    return link.session.hello.instance


def _rank(session: Session) -> tuple[bytes, bytes]:
    """The smaller one wins: by who dialled, then by a value that both ends share."""
    return session.dialler_key, session.exporter
