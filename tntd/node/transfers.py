"""What both directions of the transfer queue share: rows, states, lanes in use, progress.

What holds always: a state changes only as the table in machines/transfer.py has it, in the
store and with an event; what is in memory here (lanes, rates) is gone after a crash, and the
transfer begins again from what the store says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tntd import limits
from tntd.control import schema
from tntd.effects import CloseHandle, CloseLane, OpenLane
from tntd.errors import Code, CommandError
from tntd.machines.transfer import Rate, may_follow
from tntd.node import present
from tntd.node.core import Core, Route
from tntd.store.contacts import ContactRow
from tntd.store.transfers import TransferRow


@dataclass(slots=True)
class Moving:
    """A transfer that has a file open and a lane, or is about to have one."""

    row: int
    contact: int
    outgoing: bool
    lane: int
    handle: int
    ticket: bytes
    rate: Rate
    size: int
    inode: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    bytes_done: int = 0
    started: bool = False  # the lane is open


class Transfers:
    """The queue.  `moved` has the rows whose progress is to be told at the end of the turn."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._rows = core.store.transfers
        self.moving: dict[int, Moving] = {}
        self._by_lane: dict[int, Moving] = {}
        self.moved: set[int] = set()
        self.freed = False  # a place among those that move became free in this turn

    def reset(self) -> None:
        """Close all that is open: the node starts over from the store."""
        for moving in list(self.moving.values()):
            self.drop(moving)
        self.moved.clear()

    def find(self, text: str) -> TransferRow:
        """The transfer that an id or an unambiguous prefix of at least 4 characters means.

        Raises CommandError: NO_SUCH_TRANSFER, AMBIGUOUS.
        """
        plain = text.lower()
        found = self._matching(plain) if plain.isalnum() and plain.isascii() else []
        if len(found) > 1:
            raise CommandError(Code.AMBIGUOUS, f"{text!r} fits several transfers", "give more")
        if not found:
            raise CommandError(
                Code.NO_SUCH_TRANSFER, f"no transfer {text!r}", "see them with: transfers"
            )
        return found[0]

    def _matching(self, prefix: str) -> list[TransferRow]:
        if not 4 <= len(prefix) <= 26:
            return []
        low = present.parse_item_id(prefix.ljust(26, "a"))
        # 26 characters are 130 bits, so the last one of a whole id ends in two zero bits.
        high = present.parse_item_id(prefix if len(prefix) == 26 else prefix.ljust(26, "7"))
        if low is None or high is None:
            return []
        return self._rows.with_prefix(low, high)

    def open_moving(self, row: TransferRow) -> Moving:
        """A place among those that move, for a try that begins now."""
        core = self._core
        moving = Moving(
            row.row,
            row.contact,
            bool(row.outgoing),
            core.number(),
            core.number(),
            b"",
            Rate(core.now.boot, 0),
            row.size,
        )
        self.moving[row.row] = self._by_lane[moving.lane] = moving
        return moving

    def open_lane(self, moving: Moving, route: Route, contact: ContactRow) -> None:
        """Have a lane opened for what moves, with the ticket that was agreed on the link."""
        ours = self._core.profile.identity.public
        self._core.emit(
            OpenLane(
                lane=moving.lane,
                link=route.link,
                ticket=moving.ticket,
                dials=route.dialled,
                host=route.host,
                port=route.port,
                dialler=ours if route.dialled else contact.key,
                acceptor=contact.key if route.dialled else ours,
                sending=moving.outgoing,
                handle=moving.handle,
                size=moving.size,
                inode=moving.inode,
                mtime_ns=moving.mtime_ns,
                ctime_ns=moving.ctime_ns,
            )
        )

    def lane_opened(self, moving: Moving) -> None:
        """Bytes begin to flow."""
        row = self._rows.get(moving.row)
        if row is not None and not row.ended:
            moving.started = True
            self.move(row, "active")

    def by_lane(self, lane: int) -> Moving | None:
        """What moves over this lane."""
        return self._by_lane.get(lane)

    def drop(self, moving: Moving) -> None:
        """It no longer moves: its lane and its file are closed."""
        if self.moving.get(moving.row) is moving:
            del self.moving[moving.row]
        self._by_lane.pop(moving.lane, None)
        self.freed = True
        self._core.emit(CloseLane(moving.lane))
        self._core.emit(CloseHandle(moving.handle))

    def has_room(self, contact: int, *, outgoing: bool) -> bool:
        """Whether one more may move to (else: from) this contact.  The directions are counted
        each for itself, or two sides that send much would wait for each other."""
        same = [moving for moving in self.moving.values() if moving.outgoing == outgoing]
        mine = sum(1 for moving in same if moving.contact == contact)
        return mine < limits.LANES_PER_CONTACT_MAX and len(same) < limits.LANES_MAX

    def move(self, row: TransferRow, state: str, **changes: object) -> TransferRow:
        """Change the state (and other columns) of a transfer, and tell of it."""
        if row.state != state:
            assert may_follow(row.state, state), f"{row.state} -> {state}"
        elif not changes:
            return row
        self._rows.update(row.row, state=state, **changes)
        fresh = self._rows.get(row.row)
        assert fresh is not None
        if row.state != state:
            told: dict[str, object] = {"state": state, "error": fresh.error}
            self._core.publish("transfer.state", row.row, **told)
        return fresh

    def fall_back(self, moving: Moving) -> TransferRow | None:
        """A try ended early: what it moved counts as sent again, and the transfer waits."""
        self.drop(moving)
        row = self._rows.get(moving.row)
        if row is None or row.state != "active":
            return row
        resent = row.bytes_resent + moving.bytes_done
        return self.move(row, "queued", bytes_resent=resent, bytes_done=0)

    def progressed(self, lane: int, bytes_done: int) -> None:
        """Bytes went through a lane."""
        moving = self._by_lane.get(lane)
        if moving is not None:
            moving.bytes_done = bytes_done
            moving.rate.note(self._core.now.boot, bytes_done)
            self.moved.add(moving.row)

    def show(self, row: TransferRow, contact: ContactRow | None = None) -> schema.Transfer:
        """A transfer as it stands now."""
        contact = contact or self._core.store.contacts.get(row.contact)
        name = "" if contact is None else contact.name
        moving = self.moving.get(row.row)
        if moving is None or not moving.started:
            return present.transfer(row, name)
        rate = moving.rate.per_second()
        return present.transfer(row, name, bytes_done=moving.bytes_done, rate=rate)

    def take_moved(self) -> Iterator[schema.Transfer]:
        """The transfers whose progress is to be told, once."""
        moved, self.moved = self.moved, set()
        for number in sorted(moved):
            row = self._rows.get(number)
            if row is not None and row.state == "active":
                yield self.show(row)
