"""Files that come in: offered, taken, written, checked, synced, put in place.

    offered -> (taken) queued -> (lane) active -> synced -> named -> in place: done

What holds always: the final name is committed before the file is renamed to it, and the sender is
told "done" in the turn that commits it, after the folder was synced; so a start after a crash
finishes what was begun.  Nothing is ever replaced: a name that is taken gets the next number.
"""

from __future__ import annotations

from tntd import limits
from tntd.effects import CloseHandle
from tntd.errors import Code, CommandError, RemoteError
from tntd.events import LaneFailed, LaneFinished
from tntd.machines.naming import check_file_name, final_name, show_path
from tntd.node.core import Core
from tntd.node.mail import Mail
from tntd.node.outgoing import STRIKES_MAX
from tntd.node.parts import Parts, part_name
from tntd.node.transfers import Moving, Transfers
from tntd.store.contacts import ContactRow
from tntd.store.transfers import TransferRow
from tntd.tasks import (
    PASSING,
    Answer,
    Done,
    Failed,
    Inspect,
    Inspected,
    OpenPart,
    Publish,
    SyncPart,
)
from tntd.wire.frames import Body, Cancel, Decision, Frame, LaneAnswer, LaneOffer, Offer, Result

OFFERS_MAX = 10_000  # live ones from one contact


class Incoming:
    """The receiver's half of the queue."""

    def __init__(self, core: Core, mail: Mail, transfers: Transfers, parts: Parts) -> None:
        self._core = core
        self._mail = mail
        self._transfers = transfers
        self._parts = parts
        self._rows = core.store.transfers
        self._finishing: set[int] = set()  # whole and checked; being synced or put in place
        self._strikes: dict[int, int] = {}
        mail.arrived[Offer] = self._offer_arrived
        mail.doubted.append(self._decide_again)

    def reset(self) -> None:
        """Forget all that is not in the store."""
        self._finishing.clear()
        self._parts.reset()

    def start(self) -> None:
        """Finish what a crash has interrupted, and look again at what nobody has decided."""
        for row in self._rows.live():
            if row.outgoing:
                continue
            if row.chosen is not None:
                self._finishing.add(row.row)
                self._publish(row)
            elif row.state == "active":
                self._transfers.move(row, "queued", bytes_done=0)
            elif row.state == "offered":
                self._consider(row, anew=False)
        self._parts.sweep()

    # -- offers -----------------------------------------------------------------------

    def _offer_arrived(self, contact: ContactRow, _id: bytes, body: Body) -> None:
        assert isinstance(body, Offer)
        known = self._rows.by_id(contact.row, body.transfer)
        if known is not None:
            self._say_again(known)
            return
        reason = self._objection(contact, body)
        if reason:
            self._core.log("warning", f"declined a file from {contact.name}: {reason}")
            self._mail.put(
                contact.row, Decision(transfer=body.transfer, accepted=False, reason=reason)
            )
            return
        row = self._rows.add(
            body.transfer,
            contact.row,
            outgoing=0,
            name=body.name,
            size=body.size,
            mtime_ns=body.mtime_ns,
            executable=int(body.executable),
            state="offered",
            created_at=self._core.now.wall_ms,
        )
        self._consider(row, anew=True)

    def _say_again(self, row: TransferRow) -> None:
        """They ask for what was answered: one of the two histories is an older copy."""
        if row.outgoing or row.state == "offered":
            return
        word: Body = Decision(transfer=row.id, accepted=True)
        if row.state == "done":
            word = Result(transfer=row.id, digest=row.digest)
        elif row.state == "declined":
            word = Decision(transfer=row.id, accepted=False, reason="declined there")
        elif row.ended:
            word = Cancel(transfer=row.id, reason=row.error or "", failed=row.state == "failed")
        self._mail.put(row.contact, word)

    def _decide_again(self, contact: int) -> None:
        """A history was lost or restored: they may not know that we wait for their files."""
        for row in self._rows.live(contact):
            if not row.outgoing and row.accepted and row.row not in self._finishing:
                self._mail.put(contact, Decision(transfer=row.id, accepted=True))

    def _objection(self, contact: ContactRow, offer: Offer) -> str:
        """Why this offer cannot even be shown to our user, or nothing."""
        if offer.kind != "file" or offer.files != 1:
            return "their TalknTransfer cannot take this kind of transfer"
        try:
            check_file_name(offer.name)
        except RemoteError as error:
            return error.detail
        waiting = sum(1 for row in self._rows.live(contact.row) if not row.outgoing)
        return "too many of your files wait there already" if waiting >= OFFERS_MAX else ""

    def _consider(self, row: TransferRow, *, anew: bool) -> None:
        """Take it by ourselves where the settings say so and the disk has room, else ask."""
        if row.size > self._core.settings.auto_accept_bytes_max:
            if anew:
                self._core.publish("transfer.offered", row.row)
            return
        request = Inspect(self._core.profile.downloads)
        self._core.ask(request, lambda answer: self._measured(row.row, answer, anew=anew))

    def _measured(self, number: int, answer: Answer, *, anew: bool) -> None:
        row = self._rows.get(number)
        if row is None or row.state != "offered":
            return
        free = answer.free if isinstance(answer, Inspected) else 0
        if free - row.size >= self._core.settings.reserve_bytes:
            self._take(row)
        elif anew:
            self._core.publish("transfer.offered", row.row)

    def accept(self, row: TransferRow) -> TransferRow:
        """Our user takes an offer.  Raises CommandError(WRONG_STATE)."""
        self._check_offered(row)
        return self._take(row)

    def decline(self, row: TransferRow) -> TransferRow:
        """Our user refuses an offer.  Raises CommandError(WRONG_STATE)."""
        self._check_offered(row)
        self._mail.put(
            row.contact, Decision(transfer=row.id, accepted=False, reason="declined there")
        )
        return self._transfers.move(row, "declined")

    def _check_offered(self, row: TransferRow) -> None:
        if row.outgoing or row.state != "offered":
            raise CommandError(
                Code.WRONG_STATE,
                f"{show_path(row.name)[0]} is {row.state}, not an offer that waits here",
                "see the queue with: transfers",
            )

    def _take(self, row: TransferRow) -> TransferRow:
        self._mail.put(row.contact, Decision(transfer=row.id, accepted=True))
        folder = self._core.profile.downloads
        return self._transfers.move(row, "queued", accepted=1, folder=folder)

    # -- giving up --------------------------------------------------------------------

    def cancel(self, row: TransferRow) -> TransferRow:
        """Our user gives it up.  Raises CommandError(WRONG_STATE) when it is as good as done."""
        if row.row in self._finishing:
            raise CommandError(
                Code.WRONG_STATE,
                f"{show_path(row.name)[0]} has arrived and is being put in place",
                "delete the file when it is there",
            )
        return self.drop(row)

    def drop(self, row: TransferRow) -> TransferRow:
        """Give it up whatever it has come to, and tell the sender."""
        self._mail.put(row.contact, Cancel(transfer=row.id))
        return self._end(row, "cancelled", None)

    def cancelled_there(self, row: TransferRow, cancel: Cancel) -> None:
        """The sender has given it up, or could not go on."""
        if row.row in self._finishing:
            return  # it is whole: the result tells them
        reason = cancel.reason or "cancelled on the other side"
        self._end(row, "failed" if cancel.failed else "cancelled", reason)

    def _fail(self, row: TransferRow, reason: str) -> None:
        self._mail.put(row.contact, Result(transfer=row.id, error=reason[:500]))
        self._end(row, "failed", reason)

    def _end(self, row: TransferRow, state: str, error: str | None) -> TransferRow:
        moving = self._transfers.moving.get(row.row)
        if moving is not None:
            self._transfers.drop(moving)
        self._finishing.discard(row.row)
        if row.part:
            self._parts.discard(row)
        return self._transfers.move(row, state, error=error)

    # -- lanes ------------------------------------------------------------------------

    def went_down(self, contact: int) -> None:
        """The link is gone, and its lanes with it."""
        for moving in [m for m in self._transfers.moving.values() if m.contact == contact]:
            if not moving.outgoing and moving.row not in self._finishing:
                self._transfers.fall_back(moving)

    def lane_offered(self, contact: ContactRow, frame: Frame) -> None:
        """The sender is ready: open the part, then a lane."""
        assert isinstance(frame, LaneOffer)
        row = self._rows.by_id(contact.row, frame.transfer)
        code = self._unready(row)
        if code or row is None:
            route = self._core.routes.get(contact.row)
            if route is not None:  # there may be none: it came on a link that was replaced
                answer = LaneAnswer(ticket=frame.ticket, transfer=frame.transfer, code=code)
                self._core.send(route.link, answer)
            if row is not None and row.state == "done":
                self._say_again(row)  # theirs may be an older copy of the history
            return
        stale = self._transfers.moving.get(row.row)
        if stale is not None:
            row = self._transfers.fall_back(stale) or row
        self._rows.update(row.row, part=1)
        moving = self._transfers.open_moving(row)
        moving.ticket = frame.ticket
        request = OpenPart(
            moving.handle,
            row.folder or self._core.profile.downloads,
            part_name(row),
            row.size,
            self._core.settings.reserve_bytes,
        )
        self._core.ask(request, lambda answer: self._opened(moving, answer))

    def _unready(self, row: TransferRow | None) -> str:
        """Why a lane cannot be opened for this transfer now, or nothing."""
        if row is None or row.outgoing:
            return "unknown"
        if row.state in ("cancelled", "declined", "failed"):
            return "ended"
        if row.state == "done" or row.row in self._finishing:
            return "finishing"  # the result is on its way
        if not row.accepted:
            return "undecided"
        room = self._transfers.has_room(row.contact, outgoing=False)
        return "" if room or row.row in self._transfers.moving else "busy"

    def _opened(self, moving: Moving, answer: Answer) -> None:
        row, route = self._rows.get(moving.row), self._core.routes.get(moving.contact)
        if row is None or self._transfers.moving.get(moving.row) is not moving:
            self._core.emit(CloseHandle(moving.handle))
            return
        if isinstance(answer, Failed) and answer.code in PASSING:
            self._try_again(moving, row, "busy", answer.text)
            return
        if not isinstance(answer, Inspected):
            text = answer.text if isinstance(answer, Failed) else "cannot be written"
            if isinstance(answer, Failed) and answer.code == "ENOSPC":
                text = "not enough free space"
            self._fail(row, f"the receiver's downloads folder: {text}")
            return
        contact = self._core.store.contacts.get(moving.contact)
        if route is None or not route.open or contact is None:
            self._transfers.fall_back(moving)
            return
        moving.inode = answer.inode
        self._transfers.open_lane(moving, route, contact)
        self._core.send(route.link, LaneAnswer(ticket=moving.ticket, transfer=row.id, code=""))

    def lane_failed(self, moving: Moving, event: LaneFailed) -> None:
        """A lane ended early: the sender offers another, unless it is our disk."""
        row = self._transfers.fall_back(moving)
        if row is None or row.ended:
            return
        if event.code not in ("cut", "storage"):
            self._strikes[row.row] = self._strikes.get(row.row, 0) + 1
        self._core.log("info", f"lane of {show_path(row.name)[0]}: {event.code}: {event.text}")
        if event.code == "storage" or self._strikes.get(row.row, 0) >= STRIKES_MAX:
            self._fail(row, event.text)
            return
        # The sender may have written its last byte, and then it knows nothing of this.
        self._answer(moving, row, "broken")

    def _answer(self, moving: Moving, row: TransferRow, code: str) -> None:
        route = self._core.routes.get(row.contact)
        if route is not None and route.open:
            answer = LaneAnswer(ticket=moving.ticket, transfer=row.id, code=code)
            self._core.send(route.link, answer)

    def _try_again(self, moving: Moving, row: TransferRow, code: str, text: str) -> None:
        """Not now, for a reason that will pass: the sender offers another lane."""
        self._core.log("warning", f"{show_path(row.name)[0]} has to wait: {text}")
        self._transfers.fall_back(moving)
        self._answer(moving, row, code)

    # -- from the last byte to its place -------------------------------------------------

    def lane_finished(self, moving: Moving, event: LaneFinished) -> None:
        """All bytes are written and their hash is the sender's: to the disk with them."""
        self._rows.update(moving.row, bytes_done=event.size, digest=event.digest)
        self._finishing.add(moving.row)
        self._core.ask(SyncPart(moving.handle), lambda answer: self._synced(moving, answer))

    def _synced(self, moving: Moving, answer: Answer) -> None:
        row = self._rows.get(moving.row)
        passing = isinstance(answer, Failed) and answer.code in PASSING
        if row is not None and not row.ended and isinstance(answer, Failed) and passing:
            self._finishing.discard(row.row)
            self._try_again(moving, row, "broken", answer.text)
            return
        self._transfers.drop(moving)
        if row is None or row.ended:
            return
        if not isinstance(answer, Done):
            text = answer.text if isinstance(answer, Failed) else "sync failed"
            self._fail(row, f"the receiver's disk: {text}")
            return
        self._choose(row, 0, part_inode=moving.inode)

    def _choose(self, row: TransferRow, number: int, **changes: object) -> None:
        """Commit to a name, then ask for the rename: a crash between the two is finished later."""
        chosen = final_name(self._core.settings.prefix, row.name, number)
        self._publish(self._transfers.move(row, "active", chosen=chosen, **changes), number)

    def _look_for_name(self, row: TransferRow, number: int) -> None:
        """Look at one name after another and commit to the first free one: a look is a hundred
        times cheaper than a commit and a rename that fails."""
        if number > limits.NAME_TRIES_MAX:
            self._fail(row, "no free name was found in the receiver's folder")
            return
        assert row.folder is not None
        name = final_name(self._core.settings.prefix, row.name, number)
        request = Inspect(row.folder.rstrip(b"/") + b"/" + name)
        self._core.ask(request, lambda answer: self._looked(row.row, number, answer))

    def _looked(self, transfer: int, number: int, answer: Answer) -> None:
        row = self._rows.get(transfer)
        if row is None or row.ended:
            return
        if isinstance(answer, Inspected):
            self._look_for_name(row, number + 1)
        else:
            self._choose(row, number)

    def _publish(self, row: TransferRow, number: int = -1) -> None:
        assert row.folder is not None and row.chosen is not None
        request = Publish(
            folder=row.folder,
            part=part_name(row),
            name=row.chosen,
            inode=row.part_inode,
            mtime_ns=row.mtime_ns,
            executable=bool(row.executable),
        )
        self._core.ask(request, lambda answer: self._published(row.row, number, answer))

    def _published(self, transfer: int, number: int, answer: Answer) -> None:
        row = self._rows.get(transfer)
        if row is None or row.ended:
            return
        if isinstance(answer, Done):
            self._finishing.discard(row.row)
            self._strikes.pop(row.row, None)
            self._transfers.move(row, "done", bytes_done=row.size, error=None, part=0)
            self._mail.put(row.contact, Result(transfer=row.id, digest=row.digest))
        elif isinstance(answer, Failed) and answer.code == "EEXIST":
            self._look_for_name(row, number + 1)
        elif isinstance(answer, Failed) and answer.code == "ENOENT":
            self._fail(row, "the part file vanished from the receiver's folder")
        else:
            text = answer.text if isinstance(answer, Failed) else "rename failed"
            self._fail(row, f"the receiver's downloads folder: {text}")
