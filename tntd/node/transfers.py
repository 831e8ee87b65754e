"""What both directions of the transfer queue share: rows, states, lanes in use, progress.

What holds always: a state changes only as the table in machines/transfer.py has it, in the
store and with an event; what is in memory here (lanes, rates) is gone after a crash, and the
transfer begins again from what the store says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tntd import limits
from tntd.control import schema
from tntd.effects import CloseLane, Inbound, OpenLane, Outbound
from tntd.errors import Code, CommandError
from tntd.events import LaneProgressed
from tntd.machines.naming import show_path
from tntd.machines.transfer import Rate, may_follow
from tntd.node import present
from tntd.node.core import Core, Route
from tntd.node.parts import Parts
from tntd.store.contacts import ContactRow
from tntd.store.transfers import NONE_BEYOND, TransferRow
from tntd.store.trees import FileRow

REASON_CHARS_MAX = 500  # of a file's path and why it failed


@dataclass(slots=True)
class Moving:
    """A transfer that has a lane, or is about to have one."""

    row: int
    contact: int
    outgoing: bool
    lane: int
    ticket: bytes
    rate: Rate
    bytes_done: int = 0
    bytes_sent: int = 0  # on this lane, as far as it was told
    bytes_counted: int = 0  # of these, what the store has
    swept: bool = True  # nothing is in the stage that another try has left
    asked: bool = False  # the lane is to be opened
    started: bool = False  # the lane is open


class Transfers:
    """The queue.  `moved` has the rows whose progress is to be told at the end of the turn."""

    def __init__(self, core: Core, parts: Parts) -> None:
        self._core = core
        self._parts = parts
        self._rows = core.store.transfers
        self.moving: dict[int, Moving] = {}
        self._by_lane: dict[int, Moving] = {}
        self._closed: dict[int, Moving] = {}  # by lane; its last word may still come
        self.moved: set[int] = set()
        self.freed = False  # a place among those that move became free in this turn

    def reset(self) -> None:
        """Close all that is open: the node starts over from the store."""
        for moving in list(self.moving.values()):
            self.drop(moving)
        self.moved.clear()
        self._closed.clear()

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

    def fresh(self, row: TransferRow) -> TransferRow:
        """The row as it is by now."""
        found = self._rows.get(row.row)
        assert found is not None
        return found

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
        core, done = self._core, row.bytes_done
        rate = Rate(core.now.boot, 0)
        moving = Moving(row.row, row.contact, bool(row.outgoing), core.number(), b"", rate, done)
        self.moving[row.row] = self._by_lane[moving.lane] = moving
        return moving

    def open_lane(
        self, moving: Moving, route: Route, contact: ContactRow, job: Outbound | Inbound
    ) -> None:
        """Have a lane opened for what moves, with the ticket that was agreed on the link; once,
        however often the other side agrees."""
        if moving.asked:
            return
        moving.asked = True
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
                job=job,
                contact=moving.contact,
            )
        )

    def lane_opened(self, moving: Moving) -> None:
        """Bytes begin to flow."""
        row = self._rows.get(moving.row)
        if row is not None and not row.ended:
            moving.started = True
            self.move(row, "active", error=None)

    def by_lane(self, lane: int) -> Moving | None:
        """What moves over this lane."""
        return self._by_lane.get(lane)

    def drop(self, moving: Moving, *, finished: bool = False) -> None:
        """It no longer moves: its lane is closed, or, where all went through it (`finished`), stays
        until the receiver closes it."""
        if self.moving.get(moving.row) is moving:
            del self.moving[moving.row]
            self._core.timers.cancel(("still", moving.row))
        self._by_lane.pop(moving.lane, None)
        self.freed = True
        if finished:
            return
        self._core.emit(CloseLane(moving.lane))
        self._closed[moving.lane] = moving
        while len(self._closed) > limits.LANES_MAX:
            del self._closed[next(iter(self._closed))]

    def has_room(self, contact: int, *, outgoing: bool) -> bool:
        """Whether one more may move to (else: from) this contact.  The directions are counted
        each for itself, or two sides that send much would wait for each other."""
        same = [moving for moving in self.moving.values() if moving.outgoing == outgoing]
        mine = sum(1 for moving in same if moving.contact == contact)
        settings = self._core.settings
        return mine < settings.transfers_per_contact_max and len(same) < settings.transfers_max

    def to_come(self, folder: bytes) -> int:
        """Bytes that folders under way to this place still need; for single files they are set
        aside there."""
        count = 0
        for moving in self.moving.values():
            row = None if moving.outgoing else self._rows.get(moving.row)
            if row is not None and row.tree and row.folder == folder:
                count += max(0, row.size - moving.bytes_done)
        return count

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
            told: dict[str, object] = {"state": state, "error": self._why(fresh)}
            self._core.publish("transfer.state", row.row, **told)
        if fresh.outgoing and fresh.part and fresh.ended:
            self._parts.discard(fresh)
        return fresh

    def explain(self, number: int, error: str) -> None:
        """Say why it waits, also to those who follow it; once, however often that comes back."""
        row = self._rows.get(number)
        if row is None or row.error == error:
            return
        self._rows.update(number, error=error)
        told: dict[str, object] = {"state": row.state, "error": self._why(self.fresh(row))}
        self._core.publish("transfer.state", number, **told)

    def fall_back(self, moving: Moving) -> TransferRow | None:
        """A try ended early: the transfer waits for another, which goes on from here."""
        row = self.stop(moving)
        return self.move(row, "queued") if row is not None and row.state == "active" else row

    def stop(self, moving: Moving) -> TransferRow | None:
        """End what is under way; the state is the caller's to change."""
        self.drop(moving)
        row = self._rows.get(moving.row)
        if row is None or row.state != "active":
            return row
        self._rows.update(row.row, **self.sent(moving, row))
        return self._rows.get(moving.row)

    def sent(self, moving: Moving, row: TransferRow) -> dict[str, object]:
        """What is to be remembered of a lane that ends: how far it came, what it has sent."""
        count = moving.bytes_sent - moving.bytes_counted
        moving.bytes_counted = moving.bytes_sent
        return {"bytes_done": moving.bytes_done, "bytes_sent": _more_sent(row, count)}

    def end(self, row: TransferRow, state: str, error: str | None, parts: Parts) -> TransferRow:
        """An incoming one ends without having arrived: nothing is left of it."""
        moving = self.moving.get(row.row)
        if moving is not None:
            self.drop(moving)
        if row.part:
            parts.discard(row)
        return self.move(row, state, error=error)

    def hear_count(self, row: TransferRow, count: int) -> None:
        """The other side knows of so many bytes that went over lanes that have ended; each counts
        what the other forgets where it is killed."""
        if row.bytes_sent < count <= limits.TREE_BYTES_MAX:
            self._rows.update(row.row, bytes_sent=count)

    def progressed(self, event: LaneProgressed) -> None:
        """Bytes went through a lane."""
        moving = self._by_lane.get(event.lane)
        if moving is not None:
            moving.bytes_sent = event.bytes_sent
            self._note_rate(moving)
            # A sender has 0 until its receiver says where it goes on: what was known holds so long.
            self.note_done(moving, event.bytes_done or moving.bytes_done)
            return
        closed = self._closed.get(event.lane)
        row = None if closed is None else self._rows.get(closed.row)
        if closed is not None and row is not None:
            more = max(0, event.bytes_sent - closed.bytes_counted)
            closed.bytes_counted += more  # one may have been on its way, and the rest comes
            self._rows.update(row.row, bytes_sent=_more_sent(row, more))

    def note_done(self, moving: Moving, bytes_done: int) -> None:
        """So much of it is at the receiver, checked."""
        moving.bytes_done = bytes_done
        self.moved.add(moving.row)

    def _note_rate(self, moving: Moving) -> None:
        """Of what goes over the lane: what is found to be there already costs no time."""
        now = self._core.now.boot
        moving.rate.note(now, moving.bytes_sent)
        self._core.timers.set(("still", moving.row), now + Rate.WINDOW_S)

    def stands_still(self, row: int) -> None:
        """Nothing has gone over the lane of this one for so long that its rate is 0: to be told."""
        if row in self.moving:
            self.moved.add(row)

    def look_back(self, row: TransferRow, number: int) -> None:
        """The sender's walk goes on from entry `number`: what was told of those behind is told
        again, where they are still there."""
        if not row.tree or row.again:
            return
        if not number:
            self._rows.update(row.row, **NONE_BEYOND)
        if number < row.number:
            self._core.store.trees.doubt(row.row, number)

    def begin_whole(self, row: TransferRow) -> None:
        """Not only what failed is to go: where the next lane begins, `look_back` forgets what was
        told of the rest."""
        if row.again:
            self._rows.update(row.row, again=0, failed=0, number=max(1, row.number))

    def settle(self, row: TransferRow) -> dict[str, object]:
        """What its files came to: counts, and in words where some failed."""
        row = self._rows.get(row.row) or row  # its counts may be newer
        trees = self._core.store.trees
        bad = trees.count_bad(row.row)
        (skipped, bytes_skipped), (failed, bytes_failed) = bad["skipped"], bad["failed"]
        files = row.kept - skipped + row.files_beyond + row.failed_beyond
        size = row.bytes_kept - bytes_skipped + row.bytes_beyond
        size = max(0, min(size, limits.TREE_BYTES_MAX))
        error = None
        if failed:
            worst = trees.bad(row.row, "failed", 1)[0]
            error = _told(worst)
        if row.failed_beyond:
            error = (
                f"{row.failed_beyond} files failed beyond the {limits.TREE_FILES_KEPT_MAX} that "
                "are listed; send the folder anew, in several parts"
            )
        return {
            "skipped": skipped + row.skipped_beyond,
            "failed": failed + row.failed_beyond,
            "files": files,
            "size": size,
            "bytes_done": max(0, size - bytes_failed - bad["again"][1]),
            "error": error,
            "counting": 0,
        }

    def show(self, row: TransferRow, contact: ContactRow | None = None) -> schema.Transfer:
        """A transfer as it stands now."""
        contact = contact or self._core.store.contacts.get(row.contact)
        name = "" if contact is None else contact.name
        row = replace(row, error=self._why(row))
        moving = self.moving.get(row.row)
        if moving is None or not moving.started:
            return present.transfer(row, name)
        rate = moving.rate.per_second(self._core.now.boot)
        return present.transfer(row, name, bytes_done=moving.bytes_done, rate=rate)

    def _why(self, row: TransferRow) -> str | None:
        """Why it is not over: where the contact is away, or has not accepted us, that, whatever was
        wrong before."""
        route = self._core.routes.get(row.contact)
        contact = self._core.store.contacts.get(row.contact)
        if row.state != "queued" or contact is None or (route is not None and route.open):
            return row.error
        if not contact.mutual:
            return f"{contact.name} has not accepted you yet; it goes when they have"
        why = f"{contact.name} is offline"
        if row.contact in self._core.silent:
            silence = int(limits.KEEPALIVE_S + limits.KEEPALIVE_ANSWER_S)
            why = f"no answer from {contact.name} for {silence} s"
        return f"{why}; it goes on when they are back"

    def take_moved(self) -> Iterator[schema.Transfer]:
        """The transfers whose progress is to be told, once."""
        moved, self.moved = self.moved, set()
        for number in sorted(moved):
            row = self._rows.get(number)
            if row is not None and row.state == "active":
                yield self.show(row)


def _more_sent(row: TransferRow, count: int) -> int:
    """What went over its lanes, with `count` bytes more; the other side may have told anything."""
    return min(row.bytes_sent + count, limits.TREE_BYTES_MAX)


def _told(file: FileRow) -> str:
    """A file of a folder and why it failed; a long path loses its middle, the reason nothing."""
    path, reason = show_path(file.path)[0], file.reason[:REASON_CHARS_MAX]
    room = max(16, REASON_CHARS_MAX - len(reason) - 2)
    if len(path) > room:
        half = (room - 3) // 2
        path = f"{path[:half]}...{path[-half:]}"
    return f"{path}: {reason}"
