"""The decisions of the durable outbox: what to resend, what is new, what was lost.

What holds always, for each contact: envelopes are numbered 1, 2, 3 ... within an epoch and sent
in that order; the receiver commits them in that order and acknowledges the highest number, only
after its commit; what is at or below that number is dropped by both.  So each arrives exactly once
whatever is cut or crashes.  The numbers alone cannot tell a database that was restored
from an older copy, which would give the same numbers to other envelopes: therefore the receiver
also tells the *id* behind its highest number, and a sender whose own record disagrees begins
a new epoch and numbers what is unacknowledged anew; ids keep that exactly once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum

from tntd import limits


@dataclass(frozen=True, slots=True)
class Ours:
    """What we remember of our own outbox for a contact."""

    epoch: bytes
    highest: int
    acked: int
    acked_id: bytes | None


@dataclass(frozen=True, slots=True)
class Theirs:
    """What the other side says has arrived of it; the id is None where it has none to tell
    (nothing received, or it skipped over what it can never get)."""

    epoch: bytes | None
    received: int
    received_id: bytes | None


class Standing(Enum):
    """What follows for our outbox when a link comes up."""

    GO_ON = "go on"  # they have what we know they have (or nothing of this epoch)
    CATCH_UP = "catch up"  # they have more: acknowledgements were lost on the way
    RENEW = "renew"  # our memory is older than theirs: begin a new epoch


def stand(ours: Ours, theirs: Theirs, id_at_received: bytes | None) -> Standing:
    """Compare the two memories; `id_at_received` is the id of our waiting envelope with the
    number `theirs.received`, where there is one."""
    if theirs.epoch != ours.epoch or theirs.received < ours.acked:
        return Standing.GO_ON
    if theirs.received > ours.highest:
        return Standing.RENEW
    if theirs.received == ours.acked:
        same = theirs.received_id is None or theirs.received_id == ours.acked_id
        return Standing.GO_ON if same else Standing.RENEW
    return Standing.CATCH_UP if theirs.received_id == id_at_received else Standing.RENEW


def forgot(ours: Ours, theirs: Theirs) -> bool:
    """Whether they have less than they once acknowledged: their memory was lost, or is older.

    Who has skipped over what was lost tells the number up to which they did, without an id: what
    they said of it before may have been cut off on its way.
    """
    if theirs.epoch == ours.epoch:
        skipped = 0 < theirs.received == ours.acked and theirs.received_id is None
        return theirs.received < ours.acked or skipped
    return ours.acked > 0


class Verdict(Enum):
    """What an arriving envelope is."""

    NEW = "new"
    REPEATED = "repeated"  # seen under this number or an earlier one
    TWIN = "twin"  # another envelope came under this number: two databases use one key


def judge(number: int, in_upto: int, seen: bool) -> Verdict:
    """Judge an envelope by its number and by whether its id was seen before."""
    if number <= in_upto:
        return Verdict.REPEATED if seen else Verdict.TWIN
    return Verdict.REPEATED if seen else Verdict.NEW


class Window:
    """What is under way on the one link that the outbox is bound to.

    Numbers up to `acked` are done, up to `sent` on their way; at most WINDOW_ENVELOPES_MAX
    and WINDOW_BYTES_MAX are on their way at once.
    """

    def __init__(self, acked: int) -> None:
        self.acked = acked
        self.sent = acked
        self._under_way: deque[tuple[int, int]] = deque()
        self._bytes = 0

    def room(self) -> int:
        """How many more envelopes may be sent now."""
        if self._bytes >= limits.WINDOW_BYTES_MAX:
            return 0
        return limits.WINDOW_ENVELOPES_MAX - len(self._under_way)

    def note_sent(self, number: int, size: int) -> None:
        """An envelope of `size` bytes is on its way."""
        self.sent = number
        self._under_way.append((number, size))
        self._bytes += size

    def note_acked(self, number: int) -> bool:
        """They have all up to `number`, some of it perhaps over an earlier link; False where
        that is no progress."""
        if number <= self.acked:
            return False
        self.acked = number
        self.sent = max(self.sent, number)
        while self._under_way and self._under_way[0][0] <= number:
            self._bytes -= self._under_way.popleft()[1]
        return True
