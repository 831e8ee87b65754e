"""At the door: who gets an answer, whose key is expected, and what we say of ourselves.

What holds always: an address that belonged to one contact and answers with another key is
refused, loudly, unless our user said that it is new; a blocked contact, or a stranger where
none are wanted, gets no answer and so learns nothing.
"""

from __future__ import annotations

from tntd import limits
from tntd.errors import Code, CommandError, RemoteError
from tntd.machines.addresses import show_address
from tntd.machines.identity import short_id
from tntd.machines.session import PROTOCOL
from tntd.node.core import Core
from tntd.node.dialling import Attempt, Dialling
from tntd.store.contacts import ContactRow
from tntd.wire.frames import Hello

FEATURES = ["text", "file"]


class Reception:
    """What is decided about a peer before it is greeted."""

    def __init__(self, core: Core, dialling: Dialling) -> None:
        self._core = core
        self._rows = core.store.contacts
        self._dialling = dialling
        self._complained: set[tuple[int, str, int]] = set()

    def is_unwanted(self, row: ContactRow | None) -> bool:
        """Whether somebody who dialled us gets no answer at all."""
        if row is None:
            return not self._core.settings.strangers
        return row.trust == "blocked" or not (row.accepted or self._core.settings.strangers)

    def check_expected(self, attempt: Attempt, key: bytes) -> None:
        """Refuse, loudly, another key than the one that is expected at this address.

        Raises RemoteError("wrong_key").
        """
        where = show_address(attempt.target.typed, attempt.target.port)
        if attempt.contact is not None:
            expected = self._rows.get(attempt.contact)
            owners = [] if expected is None else [expected]
        else:
            owners = self._rows.owners(attempt.target.typed, attempt.target.port)
        if not owners or any(owner.key == key for owner in owners):
            return
        if attempt.new:
            for owner in owners:
                self._rows.unmeet(owner.row, attempt.target.typed, attempt.target.port)
            return
        text = (
            f"{where} was {owners[0].name}'s address and now answers with another key "
            f"({short_id(key)})"
        )
        hint = f"if that is meant to be: connect --new {where}"
        if (owners[0].row, attempt.target.typed, attempt.target.port) not in self._complained:
            self._complained.add((owners[0].row, attempt.target.typed, attempt.target.port))
            self._core.complain(text, hint, owners[0].row)
        if attempt.explicit:
            self._dialling.answer(attempt, CommandError(Code.REFUSED_BY_PEER, text, hint))
        raise RemoteError("wrong_key", "another key than expected")

    def hello(self, attempt: Attempt | None, row: ContactRow | None) -> Hello:
        """What we say of ourselves; `attempt` is the dial that led here."""
        now, window = self._core.now.wall_ms, limits.EXPLICIT_WINDOW_S * 1000
        # On both sides of now: the clock may have been ahead, for a little or for years.
        recent = row is not None and abs(now - row.chosen_at) < window
        asked = row is not None and row.accepted and not row.mutual and recent
        return Hello(
            protocol_min=PROTOCOL,
            protocol_max=PROTOCOL,
            features=FEATURES,
            instance=self._core.instance,
            name=self._core.profile.name,
            explicit=asked or (attempt is not None and attempt.explicit),
            frame_bytes_max=limits.FRAME_BYTES_MAX,
        )
