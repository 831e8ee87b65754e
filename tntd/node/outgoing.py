"""Files that go out: queued, offered, sent over a lane, and told as done when they are.

    queued -> (offer acknowledged) offered -> (accepted) queued -> (lane) active -> (result) done

What holds always: `done` is said only after the receiver's own word that the file is whole,
checked, synced and in its place; a source that changed since it was queued is never sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tntd.effects import CloseHandle
from tntd.errors import Code, CommandError
from tntd.events import LaneFailed, LaneFinished
from tntd.machines.naming import show_path
from tntd.machines.pulse import backoff
from tntd.node.chat import require_accepted
from tntd.node.core import Core
from tntd.node.mail import Mail
from tntd.node.transfers import Moving, Transfers
from tntd.store.contacts import ContactRow
from tntd.store.transfers import TransferRow
from tntd.tasks import PASSING, Answer, Failed, Inspect, Inspected, OpenSource
from tntd.wire.frames import (
    KIND_NUMBERS,
    Body,
    Cancel,
    Decision,
    Frame,
    LaneAnswer,
    LaneOffer,
    Offer,
    Result,
)

LANE_ANSWER_TIMEOUT_S = 20.0  # the receiver opens one file; a spinning disk may sleep first
STRIKES_MAX = 3  # tries that ended in broken bytes, before the transfer fails
SendReply = Callable[[list[TransferRow] | CommandError], None]


@dataclass(slots=True)
class Sending:
    """A `send` whose paths are being looked at."""

    contact: int
    paths: list[bytes]
    ref: str | None
    reply: SendReply
    found: list[Inspected] = field(default_factory=list)


class Outgoing:
    """The sender's half of the queue."""

    def __init__(self, core: Core, mail: Mail, transfers: Transfers) -> None:
        self._core = core
        self._mail = mail
        self._transfers = transfers
        self._rows = core.store.transfers
        # Sent whole, with which ticket; the receiver's word is to come.
        self._awaiting: dict[int, bytes] = {}
        self._tries: dict[int, int] = {}
        self._backing_off: set[int] = set()
        self._strikes: dict[int, int] = {}
        mail.arrived[Decision] = self._decision_arrived
        mail.arrived[Result] = self._result_arrived
        mail.delivered[KIND_NUMBERS[Offer]] = self._offers_delivered
        mail.doubted.append(self._offer_again)

    def reset(self) -> None:
        """Forget all that is not in the store."""
        self._awaiting.clear()
        self._tries.clear()
        self._backing_off.clear()

    def start(self) -> None:
        """What was on its way when the daemon ended waits again."""
        for row in self._rows.live():
            if row.outgoing and row.state == "active":
                self._transfers.move(row, "queued", bytes_done=0)

    # -- the user's send --------------------------------------------------------------

    def send(
        self, contact: ContactRow, paths: list[bytes], ref: str | None, reply: SendReply
    ) -> None:
        """Queue files, all or none of them.  Replies with CommandError(PATH) for a bad path."""
        require_accepted(contact)
        self._look(Sending(contact.row, paths, ref, reply))

    def _look(self, sending: Sending) -> None:
        path = sending.paths[len(sending.found)]
        self._core.ask(Inspect(path), lambda answer: self._looked(sending, path, answer))

    def _looked(self, sending: Sending, path: bytes, answer: Answer) -> None:
        if not isinstance(answer, Inspected) or answer.kind != "file":
            sending.reply(_path_error(path, answer))
            return
        sending.found.append(answer)
        if len(sending.found) < len(sending.paths):
            self._look(sending)
            return
        contact = self._core.store.contacts.get(sending.contact)
        if contact is None:
            sending.reply(CommandError(Code.NO_SUCH_CONTACT, "the contact was removed", ""))
            return
        sending.reply(self._queue(contact, sending))

    def _queue(self, contact: ContactRow, sending: Sending) -> list[TransferRow]:
        store = self._core.store
        known = None if sending.ref is None else store.get_client_ref("transfers", sending.ref)
        if known is not None:
            return [row for each in known if (row := self._rows.get(each)) is not None]
        rows = [
            self._add(contact, path, found)
            for path, found in zip(sending.paths, sending.found, strict=True)
        ]
        if sending.ref is not None:
            numbers = [row.row for row in rows]
            store.set_client_ref("transfers", sending.ref, numbers, self._core.now.wall_ms)
        return rows

    def _add(self, contact: ContactRow, path: bytes, found: Inspected) -> TransferRow:
        id, name = self._core.random(16), path.rstrip(b"/").rpartition(b"/")[2]
        row = self._rows.add(
            id,
            contact.row,
            outgoing=1,
            name=name,
            source=path,
            size=found.size,
            inode=found.inode,
            mtime_ns=found.mtime_ns,
            executable=int(found.executable),
            state="queued",
            created_at=self._core.now.wall_ms,
        )
        # The envelope has the transfer's id, so that its acknowledgement finds the transfer.
        self._mail.put(contact.row, _offer(row), id)
        self._core.publish("transfer.state", row.row, state="queued")
        return row

    def cancel(self, row: TransferRow, reason: str = "", *, failed: bool = False) -> TransferRow:
        """Give a transfer up, and tell the receiver."""
        self._forget(row.row)
        self._mail.put(row.contact, Cancel(transfer=row.id, reason=reason[:500], failed=failed))
        return self._transfers.move(row, "failed" if failed else "cancelled", error=reason or None)

    def cancelled_there(self, row: TransferRow, cancel: Cancel) -> None:
        """The receiver has given it up."""
        self._forget(row.row)
        reason = cancel.reason or "cancelled on the other side"
        self._transfers.move(row, "cancelled", error=reason)

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
                self._mail.put(contact, _offer(row))

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
        if not row.accepted:
            self._transfers.move(row, "queued", accepted=1)
            self.run(contact.row)

    def _result_arrived(self, contact: ContactRow, _id: bytes, body: Body) -> None:
        assert isinstance(body, Result)
        row = self._rows.by_id(contact.row, body.transfer)
        if row is None or not row.outgoing or row.state in ("done", "declined"):
            return
        self._forget(row.row)
        if not body.error:
            self._transfers.move(row, "done", bytes_done=row.size, error=None, digest=body.digest)
        elif not row.ended:
            self._transfers.move(row, "failed", error=body.error)

    def _forget(self, row: int) -> None:
        """It ends: whatever is under way for it is let go of."""
        moving = self._transfers.moving.get(row)
        if moving is not None:
            self._transfers.drop(moving)
        self._awaiting.pop(row, None)
        self._backing_off.discard(row)
        self._tries.pop(row, None)
        self._strikes.pop(row, None)
        self._core.timers.cancel(("again", row))

    # -- lanes ------------------------------------------------------------------------

    def went_up(self, contact: int) -> None:
        """The contact is online: whatever waited for another try need not wait longer."""
        for row in self._rows.live(contact):
            self._backing_off.discard(row.row)
            self._tries.pop(row.row, None)
        self.run(contact)

    def went_down(self, contact: int) -> None:
        """The link is gone, and its lanes with it."""
        for moving in [m for m in self._transfers.moving.values() if m.contact == contact]:
            if moving.outgoing:
                self._transfers.fall_back(moving)
        for row in self._rows.live(contact):
            if row.row in self._awaiting:
                self._sent_in_vain(row)

    def finish_turn(self) -> None:
        """Where a place became free, the next in the queue takes it."""
        if self._transfers.freed:
            self._transfers.freed = False
            for contact in list(self._core.routes):
                self.run(contact)

    def run(self, contact: int) -> None:
        """Begin with as many waiting files as there is room for, oldest first."""
        route = self._core.routes.get(contact)
        if route is None or not route.open:
            return
        for row in self._rows.live(contact):
            if not self._transfers.has_room(contact, outgoing=True):
                return
            if self._is_ready(row):
                self._begin(row)

    def _is_ready(self, row: TransferRow) -> bool:
        waits = row.outgoing and row.accepted and row.state == "queued"
        taken = row.row in self._transfers.moving or row.row in self._awaiting
        return bool(waits) and not taken and row.row not in self._backing_off

    def _begin(self, row: TransferRow) -> None:
        assert row.source is not None
        moving = self._transfers.open_moving(row)
        request = OpenSource(moving.handle, row.source)
        self._core.ask(request, lambda answer: self._opened(moving, answer))

    def _opened(self, moving: Moving, answer: Answer) -> None:
        row, route = self._rows.get(moving.row), self._core.routes.get(moving.contact)
        if row is None or self._transfers.moving.get(moving.row) is not moving or route is None:
            self._core.emit(CloseHandle(moving.handle))  # given up while it was being opened
            return
        if isinstance(answer, Failed) and answer.code in PASSING:
            self._core.log("warning", f"{show_path(row.name)[0]} has to wait: {answer.text}")
            self._transfers.fall_back(moving)
            self._again(row.row)
            return
        if not isinstance(answer, Inspected):
            text = answer.text if isinstance(answer, Failed) else "cannot be read"
            self.cancel(row, f"the source: {text}", failed=True)
            return
        now = (answer.size, answer.mtime_ns, answer.inode)
        if now != (row.size, row.mtime_ns, row.inode):
            self.cancel(row, "the source changed after it was queued; send it again", failed=True)
            return
        moving.inode, moving.mtime_ns, moving.ctime_ns = (
            answer.inode,
            answer.mtime_ns,
            answer.ctime_ns,
        )
        moving.ticket = self._core.random(16)
        self._core.send(route.link, LaneOffer(ticket=moving.ticket, transfer=row.id))
        self._core.timers.set(("offer", row.row), self._core.now.boot + LANE_ANSWER_TIMEOUT_S)
        contact = self._core.store.contacts.get(moving.contact)
        if not route.dialled and contact is not None:
            # The receiver dials as soon as it has answered, so the ticket must be known here.
            self._transfers.open_lane(moving, route, contact)

    def lane_answered(self, contact: ContactRow, frame: Frame) -> None:
        """The receiver is ready for a lane, or says why not."""
        assert isinstance(frame, LaneAnswer)
        row = self._rows.by_id(contact.row, frame.transfer)
        moving = None if row is None else self._transfers.moving.get(row.row)
        route = self._core.routes.get(contact.row)
        if row is not None and frame.code and self._awaiting.get(row.row) == frame.ticket:
            self._sent_in_vain(row)
            self._again(row.row)
            return
        if row is None or moving is None or moving.ticket != frame.ticket or route is None:
            return
        self._core.timers.cancel(("offer", row.row))
        if not frame.code:
            if route.dialled:
                self._transfers.open_lane(moving, route, contact)
            return
        self._transfers.fall_back(moving)
        if frame.code == "finishing":
            self._awaiting[row.row] = frame.ticket
        elif frame.code == "unknown":
            # Their history was lost or restored from a backup: ask anew.
            self._rows.update(row.row, accepted=0)
            self._mail.put(contact.row, _offer(row))
        elif frame.code == "ended":
            self.cancel(row, "it was ended on the other side", failed=True)
        else:
            self._again(row.row)

    def offer_expired(self, number: int) -> None:
        """No answer to the offer of a lane."""
        moving = self._transfers.moving.get(number)
        if moving is not None:
            self._transfers.fall_back(moving)
            self._again(number)

    def lane_finished(self, moving: Moving, event: LaneFinished) -> None:
        """All is sent; now the receiver's word is awaited."""
        self._rows.update(moving.row, bytes_done=event.size, digest=event.digest)
        self._transfers.drop(moving)
        self._awaiting[moving.row] = moving.ticket

    def _sent_in_vain(self, row: TransferRow) -> None:
        """The end of it did not arrive: all of it is to be sent again."""
        del self._awaiting[row.row]
        resent = row.bytes_resent + row.bytes_done
        self._transfers.move(row, "queued", bytes_resent=resent, bytes_done=0)

    def lane_failed(self, moving: Moving, event: LaneFailed) -> None:
        """A lane ended early."""
        row = self._transfers.fall_back(moving)
        if row is None or row.ended:
            return
        if event.code not in ("cut", "source"):
            self._strikes[row.row] = self._strikes.get(row.row, 0) + 1
        if event.code == "source" or self._strikes.get(row.row, 0) >= STRIKES_MAX:
            self.cancel(row, event.text, failed=True)
            return
        self._core.log("info", f"lane of {show_path(row.name)[0]}: {event.code}: {event.text}")
        self._again(row.row)

    def _again(self, number: int) -> None:
        """Try once more after a back-off; others need not wait for it."""
        tries = self._tries.get(number, 0)
        self._tries[number] = tries + 1
        self._backing_off.add(number)
        delay = backoff(tries, self._core.jitter())
        self._core.timers.set(("again", number), self._core.now.boot + delay)

    def again(self, number: int) -> None:
        """The back-off of a transfer is over."""
        self._backing_off.discard(number)
        row = self._rows.get(number)
        if row is not None:
            self.run(row.contact)


def _offer(row: TransferRow) -> Offer:
    return Offer(
        transfer=row.id,
        kind="file",
        name=row.name,
        size=row.size,
        files=1,
        mtime_ns=row.mtime_ns,
        executable=bool(row.executable),
    )


def _path_error(path: bytes, answer: Answer) -> CommandError:
    shown = show_path(path)[0]
    if isinstance(answer, Inspected):
        if answer.kind == "folder":
            what, hint = "is a folder", "only single files can be sent: pack it first (tar, zip)"
        else:
            what, hint = "is no regular file", "devices, pipes and sockets cannot be sent"
        return CommandError(Code.PATH, f"{shown} {what}", hint)
    text = answer.text if isinstance(answer, Failed) else "cannot be looked at"
    return CommandError(Code.PATH, f"{shown}: {text}", "check the path and its permissions")
