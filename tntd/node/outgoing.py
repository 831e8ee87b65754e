"""What goes out: offered, sent over a lane, and told as done when it is.

    queued -> (offer acknowledged) offered -> (accepted) queued -> (lane) active -> (result) done

What holds always: `done` is said only after the receiver's own word that all of it is whole,
checked, synced and in its place; a file that changed since it was queued is never sent.  Where
a lane goes on from is the receiver's to say, because only what it has counts.
"""

from __future__ import annotations

from tntd import limits
from tntd.effects import GrowLane, Outbound, StartLane
from tntd.events import LaneEntries, LaneFailed, LaneFinished
from tntd.machines.naming import show_path
from tntd.node.core import Core
from tntd.node.mail import Mail
from tntd.node.sending import offer
from tntd.node.transfers import Moving, Transfers
from tntd.node.waits import Waits
from tntd.store.contacts import ContactRow
from tntd.store.transfers import TransferRow
from tntd.tasks import OPEN, PASSING, Answer, Entry, Failed, Inspect, Inspected
from tntd.wire.frames import (
    KIND_NUMBERS,
    Asking,
    Body,
    Cancel,
    Decision,
    Fates,
    Frame,
    LaneAnswer,
    LaneOffer,
    Offer,
    Result,
    Steer,
)

LANE_ANSWER_TIMEOUT_S = 20.0  # the receiver opens one file; a spinning disk may sleep first
_WAITS_FOR_LANE = frozenset({"", "broken", "busy", "full"})  # codes of who waits for a lane
OFFERED_KEPT_MAX = 1024
STRIKES_MAX = 3  # tries that ended in broken bytes, or a disk that hung, before it fails
ENDED_MAX = 4  # answers that it is over, before we believe that they will not say how
FATES_TAKEN_MAX = 100_000  # files that did not arrive, told by the receiver of one transfer


class Outgoing:
    """The sender's half of the queue."""

    def __init__(self, core: Core, mail: Mail, transfers: Transfers) -> None:
        self._core = core
        self._mail = mail
        self._transfers = transfers
        self._rows = core.store.transfers
        # Sent whole, with which ticket; the receiver's word is to come.
        self._awaiting: dict[int, bytes] = {}
        self.waits = Waits(core, self.run)
        self._strikes: dict[int, int] = {}
        self._ended: dict[int, int] = {}  # how often they said that it is over
        self._offered: dict[int, None] = {}  # lanes, the last ones
        self._eager: set[int] = set()  # contacts to whom something may be ready to go
        mail.arrived[Decision] = self._decision_arrived
        mail.arrived[Asking] = self._asking_arrived
        mail.arrived[Result] = self._result_arrived
        mail.arrived[Fates] = self._fates_arrived
        mail.delivered[KIND_NUMBERS[Offer]] = self._offers_delivered
        mail.doubted.append(self._offer_again)

    def reset(self) -> None:
        """Forget all that is not in the store."""
        self._awaiting.clear()
        self._offered.clear()
        self.waits.reset()
        self._eager.clear()

    def start(self) -> None:
        """What was on its way when the daemon ended waits again.  Somebody may have linked with us
        before this, and something move already."""
        for row in self._rows.live():
            under_way = row.row in self._transfers.moving or row.row in self._awaiting
            if row.outgoing and row.state == "active" and not under_way:
                self._transfers.move(row, "queued")
                self.run(row.contact)

    # -- what users do --------------------------------------------------------------

    def cancel(self, row: TransferRow, reason: str = "", *, failed: bool = False) -> TransferRow:
        """Give a transfer up, and tell the receiver."""
        self._forget(row.row)
        self._mail.put(row.contact, Cancel(transfer=row.id, reason=reason[:500], failed=failed))
        return self._transfers.move(row, "failed" if failed else "cancelled", error=reason or None)

    def cancelled_there(self, row: TransferRow, cancel: Cancel) -> None:
        """The receiver has given it up."""
        self._forget(row.row)
        reason = cancel.reason or "cancelled on the other side"
        self._transfers.move(row, "failed" if cancel.failed else "cancelled", error=reason)

    def is_arriving(self, row: int) -> bool:
        """Whether all of it is sent, and the receiver's word is awaited."""
        return row in self._awaiting

    def let_go(self, row: TransferRow) -> TransferRow:
        """Stop what is under way for it."""
        moving = self._transfers.moving.get(row.row)
        fresh = None if moving is None else self._transfers.stop(moving)
        self._forget(row.row)
        return fresh or row

    # -- envelopes from the receiver -----------------------------------------------------

    def _offers_delivered(self, contact: ContactRow, ids: list[bytes]) -> None:
        for id in ids:
            row = self._rows.by_id(contact.row, id)
            if row is not None and row.state == "queued" and not row.accepted:
                self._transfers.move(row, "offered")

    def _offer_again(self, contact: int) -> None:
        """A history was lost or restored: they may not know what we offered, or we not what they
        said to it.  What they have accepted they are asked again when its lane is offered."""
        for row in self._rows.live(contact):
            if row.outgoing and not row.accepted:
                self._mail.put(contact, offer(row))

    def _decision_arrived(self, contact: ContactRow, _id: bytes, body: Body) -> None:
        assert isinstance(body, Decision)
        row = self._rows.by_id(contact.row, body.transfer)
        if row is None or not row.outgoing or row.ended:
            if body.accepted:
                # Theirs or ours is an older copy of the history: nothing will come.
                ended = "not known there any more" if row is None else f"{row.state} there already"
                cancel = Cancel(transfer=body.transfer, reason=f"it is {ended}", failed=True)
                self._mail.put(contact.row, cancel)
            return
        if not body.accepted:
            self._forget(row.row)  # they may have accepted it before
            self._transfers.move(row, "declined", error=body.reason or "declined")
            return
        if row.accepted:
            return
        if row.state == "paused":
            self._rows.update(row.row, accepted=1, error=None)
            self._mail.put(contact.row, Steer(transfer=row.id, act="pause", from_sender=True))
            return
        self._transfers.move(row, "queued", accepted=1, error=None)
        self.run(contact.row)

    def _asking_arrived(self, contact: ContactRow, _id: bytes, body: Body) -> None:
        assert isinstance(body, Asking)
        row = self._rows.by_id(contact.row, body.transfer)
        if row is None or not row.outgoing or row.ended:
            return
        self._transfers.explain(row.row, f"{contact.name} is asked first: {body.reason}")

    def _fates_arrived(self, contact: ContactRow, _id: bytes, body: Body) -> None:
        assert isinstance(body, Fates)
        row = self._rows.by_id(contact.row, body.transfer)
        if row is None or not row.outgoing or not row.tree or row.state == "done":
            return
        told = [each for each in body.files if each.state in ("skipped", "failed")]
        trees = self._core.store.trees
        sizes = trees.sizes(row.row, [each.path for each in told])
        if sum(count for count, _ in trees.count_bad(row.row).values()) > FATES_TAKEN_MAX:
            return
        # Files that we do not know may have gone out right before a crash.
        trees.put(
            row.row,
            [Entry(each.path, sizes.get(each.path, 0), each.state, each.reason) for each in told],
        )

    def _result_arrived(self, contact: ContactRow, _id: bytes, body: Body) -> None:
        assert isinstance(body, Result)
        row = self._rows.by_id(contact.row, body.transfer)
        if row is None or not row.outgoing or row.state == "done":
            return
        moving = self._transfers.moving.get(row.row)
        if moving is not None:
            self._rows.update(row.row, **self._transfers.sent(moving, row))
        self._forget(row.row)
        self.waits.room(contact.row)  # there is one less that moves there
        if not body.error:
            self._arrived(self._rows.get(row.row) or row, body)
        elif not row.ended:
            self._transfers.move(row, "failed", error=body.error)

    def _arrived(self, row: TransferRow, result: Result) -> None:
        changes: dict[str, object] = {"bytes_done": row.size, "error": None}
        if row.tree:
            self._core.store.trees.arrived(row.row)
            changes = self._transfers.settle(row)
        done = int(str(changes["bytes_done"]))
        reused = min(result.reused, done)
        # Each counts what the other forgets where it is killed.
        sent = max(row.bytes_sent, min(result.received, limits.TREE_BYTES_MAX))
        changes |= {
            "digest": result.digest,
            "bytes_reused": reused,
            "bytes_resent": max(0, sent - (done - reused)),
            "again": 0,
        }
        state = "failed" if changes.get("failed") else "done"
        if state == "done" or not row.ended:
            self._transfers.move(row, state, **changes)

    def _forget(self, row: int) -> None:
        """It ends: whatever is under way for it is let go of."""
        moving = self._transfers.moving.get(row)
        if moving is not None:
            self._transfers.drop(moving)
        self._awaiting.pop(row, None)
        self.waits.forget(row)
        self._strikes.pop(row, None)
        self._ended.pop(row, None)

    # -- lanes ------------------------------------------------------------------------

    def went_up(self, contact: int) -> None:
        """The contact is online: whatever waited for another try need not wait longer."""
        self.waits.went_up(contact, self._rows.get)
        self.run(contact)

    def went_down(self, contact: int) -> None:
        """The link is gone, and its lanes with it."""
        for moving in [m for m in self._transfers.moving.values() if m.contact == contact]:
            if moving.outgoing:
                self._transfers.fall_back(moving)
        for number in sorted(self._awaiting):
            row = self._rows.get(number)
            if row is not None and row.contact == contact:
                self._sent_in_vain(row)

    def run(self, contact: int) -> None:
        """Something may be ready to go to this contact: seen to at the end of the turn."""
        self._eager.add(contact)
        self._transfers.freed = True

    def finish_turn(self) -> None:
        """Where a place became free, the next in the queue takes it."""
        if not self._transfers.freed:
            return
        self._transfers.freed = False
        for contact in sorted(self._eager):
            if self._fill(contact):
                self._eager.discard(contact)

    def _fill(self, contact: int) -> bool:
        """Begin with as many as there is room for; False where others have to wait for room.

        The queue may hold many thousands: only as much of it is read as can be begun, and one more,
        which is to wait for room.
        """
        route = self._core.routes.get(contact)
        if route is None or not route.open:
            return True  # when it comes up, this is asked again
        if self.waits.is_full(contact):
            return True  # when it has room, this is asked again
        busy = len(self._transfers.moving) + len(self._awaiting) + self.waits.count
        for row in self._rows.ready(contact, busy + self._core.settings.transfers_max + 1):
            if not self._is_ready(row):
                continue
            if not self._transfers.has_room(contact, outgoing=True):
                return False
            self._begin(row)
        return True

    def _is_ready(self, row: TransferRow) -> bool:
        taken = row.row in self._transfers.moving or row.row in self._awaiting
        return not taken and not self.waits.has(row.row)

    def _begin(self, row: TransferRow) -> None:
        self._look(self._transfers.open_moving(row), row)

    def _look(self, moving: Moving, row: TransferRow) -> None:
        assert row.source is not None
        self._core.ask(
            Inspect(row.source),
            lambda answer: self._looked(moving, answer, grew=bool(row.growing)),
        )

    def grew(self, row: TransferRow) -> None:
        """More is known of what grows, or that it was all: tell the lane, if there is one."""
        moving = self._transfers.moving.get(row.row)
        if moving is not None and moving.asked:
            self._core.emit(GrowLane(moving.lane, row.size, whole=not row.growing))

    def _looked(self, moving: Moving, answer: Answer, *, grew: bool) -> None:
        row, route = self._rows.get(moving.row), self._core.routes.get(moving.contact)
        if row is None or self._transfers.moving.get(moving.row) is not moving or route is None:
            return  # given up meanwhile
        if grew and not row.growing:
            self._look(moving, row)  # it has ended since it was looked at
            return
        if isinstance(answer, Failed) and (answer.code in PASSING or self._hung(row, answer)):
            self._wait(moving, answer.text)
            return
        if not isinstance(answer, Inspected):
            text = answer.text if isinstance(answer, Failed) else "cannot be read"
            self.cancel(row, f"the source: {text}", failed=True)
            return
        if not _same(row, answer):
            self.cancel(row, "the source changed after it was queued; send it again", failed=True)
            return
        moving.ticket = self._core.random(16)
        lane_offer = LaneOffer(
            ticket=moving.ticket,
            transfer=row.id,
            size=row.size,
            files=row.files,
            sent=row.bytes_sent,
            again=bool(row.again),
        )
        self._core.send(route.link, lane_offer)
        self._offered[row.row] = None
        while len(self._offered) > OFFERED_KEPT_MAX:
            del self._offered[next(iter(self._offered))]
        self._core.timers.set(("offer", row.row), self._core.now.boot + LANE_ANSWER_TIMEOUT_S)
        contact = self._core.store.contacts.get(moving.contact)
        if not route.dialled and contact is not None:
            # The receiver dials as soon as it has answered, so the ticket must be known here.
            self._transfers.open_lane(moving, route, contact, self._job(row))

    def _hung(self, row: TransferRow, failed: Failed) -> bool:
        """Whether the disk only did not answer, and not too often: it costs all others minutes."""
        if failed.code in OPEN:
            self._strikes[row.row] = self._strikes.get(row.row, 0) + 1
        return failed.code in OPEN and self._strikes[row.row] < STRIKES_MAX

    def _job(self, row: TransferRow) -> Outbound:
        assert row.source is not None
        if not row.tree:
            then = row.size, row.mtime_ns, row.inode
            return Outbound(row.source, then=then, growing=bool(row.growing))
        if not row.again:
            return Outbound(row.source)
        return Outbound(row.source, tuple(self._core.store.trees.again(row.row)))

    def _wait(self, moving: Moving, text: str) -> None:
        """Not now, for a reason that will pass."""
        row = self._transfers.fall_back(moving)
        if row is not None and not row.ended:
            self._core.log("warning", f"{show_path(row.name)[0]} has to wait: {text}")
            self._transfers.explain(row.row, text)
            self.waits.later(row.row)

    def lane_answered(self, contact: ContactRow, frame: Frame) -> None:
        """The receiver is ready for a lane, or says why not."""
        assert isinstance(frame, LaneAnswer)
        row = self._rows.by_id(contact.row, frame.transfer)
        moving = None if row is None else self._transfers.moving.get(row.row)
        route = self._core.routes.get(contact.row)
        if row is not None and frame.code and self._awaiting.get(row.row) == frame.ticket:
            self._sent_in_vain(row)
            if frame.text:
                self._transfers.explain(row.row, frame.text)
            self.waits.later(row.row)
            return
        if row is not None and row.ended and row.outgoing and frame.code in _WAITS_FOR_LANE:
            self._say_over(row)
            return
        if row is None or moving is None or moving.ticket != frame.ticket or route is None:
            return
        if not frame.code and not self._core.timers.has(("offer", row.row)):
            return  # answered before
        self._core.timers.cancel(("offer", row.row))
        if not frame.code:
            self.waits.took(contact.row)
            self._transfers.hear_count(row, frame.received)
            self._transfers.look_back(row, frame.number)
            if route.dialled:
                self._transfers.open_lane(moving, route, contact, self._job(row))
            self._core.emit(StartLane(moving.lane, frame.number, frame.after, frame.asks))
            return
        self._not_ready(contact, moving, frame)

    def _say_over(self, row: TransferRow) -> None:
        """It ended here, by an older word of theirs, say, and they wait for a lane: tell them, once
        for each lane that was offered."""
        if row.row in self._offered:
            del self._offered[row.row]
            reason = f"it is {row.state} already"
            self._mail.put(row.contact, Cancel(transfer=row.id, reason=reason, failed=True))

    def _not_ready(self, contact: ContactRow, moving: Moving, frame: LaneAnswer) -> None:
        row = self._transfers.fall_back(moving)
        if row is None or row.ended:
            return
        if frame.code == "finishing":
            self._awaiting[row.row] = frame.ticket
        elif frame.code == "unknown":
            # Their history was lost or restored from a backup: ask anew, for all of it.
            self._transfers.begin_whole(row)
            self._rows.update(row.row, accepted=0)
            self._mail.put(contact.row, offer(row))
            if row.state == "queued":
                self._transfers.move(row, "offered")
        elif frame.code == "undecided" and row.state == "queued":
            # Larger than they take without a question, as it turned out.
            self._transfers.move(row, "offered", accepted=0)
        elif frame.code == "ended":
            self._ended_there(row)
        elif frame.code == "full":
            self.waits.full(contact.row)
        else:
            if frame.text:
                self._transfers.explain(row.row, f"{frame.text}; it will be tried again")
            self.waits.later(row.row)

    def _ended_there(self, row: TransferRow) -> None:
        """Their word on how it ended is on its way, unless one of the histories is an older one."""
        self._ended[row.row] = self._ended.get(row.row, 0) + 1
        if self._ended[row.row] < ENDED_MAX:
            self.waits.later(row.row)
        else:
            self.cancel(row, "it was ended on the other side", failed=True)

    def offer_expired(self, number: int) -> None:
        """No answer to the offer of a lane."""
        moving = self._transfers.moving.get(number)
        if moving is not None:
            self._transfers.fall_back(moving)
            self.waits.later(number)

    def lane_entries(self, moving: Moving, event: LaneEntries) -> None:
        """Files of a folder went out, or were left out."""
        row = self._rows.get(moving.row)
        if row is not None and row.tree:
            if event.anew:
                self._transfers.look_back(row, 0)
            entries = event.entries
            if row.again:
                # The lane may break before the receiver hears how they end: its word counts.
                entries = tuple(Entry(each.path, each.size, "waiting") for each in entries)
            self._core.store.trees.put(row.row, entries, event.number)
            self._rows.update(row.row, number=event.number)

    def lane_finished(self, moving: Moving, event: LaneFinished) -> None:
        """All is sent; now the receiver's word is awaited."""
        row = self._rows.get(moving.row)
        if row is None:
            return
        moving.bytes_sent = event.bytes_sent
        digest = event.digest or None
        self._rows.update(row.row, **self._transfers.sent(moving, row), digest=digest)
        self._transfers.drop(moving, finished=True)
        self._awaiting[moving.row] = moving.ticket

    def _sent_in_vain(self, row: TransferRow) -> None:
        """The end of it did not arrive: another lane goes on from what did."""
        del self._awaiting[row.row]
        self._transfers.move(row, "queued")

    def lane_failed(self, moving: Moving, event: LaneFailed) -> None:
        """A lane ended early."""
        row = self._transfers.fall_back(moving)
        if row is None or row.ended:
            return
        if event.code not in ("cut", "stall", "source"):
            self._strikes[row.row] = self._strikes.get(row.row, 0) + 1
        if event.code == "source" or self._strikes.get(row.row, 0) >= STRIKES_MAX:
            self.cancel(row, event.text, failed=True)
            return
        self._core.log("info", f"lane of {show_path(row.name)[0]}: {event.code}: {event.text}")
        self._transfers.explain(row.row, f"{event.text}; it will be tried again")
        self.waits.later(row.row)

    def again(self, number: int) -> None:
        """The back-off of a transfer is over."""
        self.waits.over(number)
        row = self._rows.get(number)
        if row is not None:
            self.run(row.contact)


def _same(row: TransferRow, now: Inspected) -> bool:
    """Whether what is to be sent is what was queued, or has grown as it should."""
    if row.tree:
        return now.kind == "folder"
    if row.growing:
        return (now.kind, now.inode) == ("file", row.inode)
    then = ("file", row.size, row.mtime_ns, row.inode)
    return (now.kind, now.size, now.mtime_ns, now.inode) == then
