"""Which outgoing transfers, and which contacts, are tried again only after a while.

    a transfer whose try failed     backs off by itself, and others go meanwhile
    a contact that has no room      nothing is offered to them until they are done with something,
                                    or a while has passed

What holds always: nothing of this is in the store, so a start begins with no waits; who waits has a
timer that ends it.
"""

from __future__ import annotations

from collections.abc import Callable

from tntd.machines.pulse import backoff
from tntd.node.core import Core
from tntd.store.transfers import TransferRow

FULL_TRIES_MAX = 4  # doublings of the wait for room: 8 s


class Waits:
    """`run` is called with a contact to whom something may go again."""

    def __init__(self, core: Core, run: Callable[[int], None]) -> None:
        self._core = core
        self._run = run
        self._tries: dict[int, int] = {}
        self._backing_off: set[int] = set()
        self._full_tries: dict[int, int] = {}  # by contact, since they took something last
        self._full: set[int] = set()

    def reset(self) -> None:
        """Forget all that is not in the store."""
        for contact in list(self._full):
            self._core.timers.cancel(("full", contact))
        self._tries.clear()
        self._backing_off.clear()
        self._full_tries.clear()
        self._full.clear()

    # -- transfers ---------------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many transfers back off."""
        return len(self._backing_off)

    def has(self, transfer: int) -> bool:
        """Whether this transfer backs off."""
        return transfer in self._backing_off

    def later(self, transfer: int) -> None:
        """Try it once more after a back-off; others need not wait for it."""
        tries = self._tries.get(transfer, 0)
        self._tries[transfer] = tries + 1
        self._backing_off.add(transfer)
        delay = backoff(tries, self._core.jitter())
        self._core.timers.set(("again", transfer), self._core.now.boot + delay)

    def over(self, transfer: int) -> None:
        """The back-off of a transfer has passed."""
        self._backing_off.discard(transfer)

    def forget(self, transfer: int) -> None:
        """It ends."""
        self._tries.pop(transfer, None)
        self._backing_off.discard(transfer)
        self._core.timers.cancel(("again", transfer))

    def went_up(self, contact: int, find: Callable[[int], TransferRow | None]) -> None:
        """The contact is online: whatever waits for another try need not wait longer."""
        for transfer in sorted(self._backing_off):
            row = find(transfer)
            if row is None or row.contact == contact:
                self._backing_off.discard(transfer)
                self._tries.pop(transfer, None)
        self.took(contact)
        self.room(contact)

    # -- contacts ----------------------------------------------------------------------

    def is_full(self, contact: int) -> bool:
        """Whether the contact has said that there is no room among what moves there."""
        return contact in self._full

    def full(self, contact: int) -> None:
        """The contact has no room."""
        if contact in self._full:
            return
        tries = self._full_tries.get(contact, 0)
        self._full_tries[contact] = min(tries + 1, FULL_TRIES_MAX)
        self._full.add(contact)
        delay = backoff(tries, self._core.jitter())
        self._core.timers.set(("full", contact), self._core.now.boot + delay)

    def took(self, contact: int) -> None:
        """The contact had room for one."""
        self._full_tries.pop(contact, None)

    def room(self, contact: int) -> None:
        """The contact may have room again."""
        if contact in self._full:
            self._full.discard(contact)
            self._core.timers.cancel(("full", contact))
            self._run(contact)
