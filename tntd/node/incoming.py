"""What comes in: offered, taken, and what lanes bring of it.

    offered -> (taken) queued -> (lane) active -> whole: arriving.py puts it in place

What holds always: where a lane goes on from is what the store says is in the stage, and of what
was written last only so much as a crash of the machine cannot have taken back.
"""

from __future__ import annotations

from tntd.effects import Inbound
from tntd.errors import Code, CommandError, RemoteError
from tntd.events import LaneEntries, LaneFailed, LaneFinished
from tntd.machines.naming import check_file_name, show_path
from tntd.node.arriving import NO_BOOT, Arriving, result_of
from tntd.node.considering import Considering
from tntd.node.core import Core
from tntd.node.mail import Mail
from tntd.node.outgoing import STRIKES_MAX
from tntd.node.parts import Parts
from tntd.node.preferences import Preferences
from tntd.node.transfers import Moving, Transfers
from tntd.store.contacts import ContactRow
from tntd.store.transfers import TransferRow
from tntd.tasks import AWAY, OPEN, PASSING, SICK, Answer, Failed, Inspected, PrepareStage
from tntd.wire.frames import (
    Body,
    Cancel,
    Decision,
    Frame,
    LaneAnswer,
    LaneOffer,
    Offer,
    Result,
)

OFFERS_MAX = 10_000  # live ones from one contact
SIZE_MAX = 2**63 - 1
KINDS = ("file", "folder")


class Incoming:
    """The receiver's half of the queue."""

    def __init__(
        self,
        core: Core,
        mail: Mail,
        transfers: Transfers,
        parts: Parts,
        preferences: Preferences,
    ) -> None:
        self._core = core
        self._mail = mail
        self._transfers = transfers
        self._parts = parts
        self._preferences = preferences
        self._considering = Considering(core, mail, preferences, self._take)
        self._arriving = Arriving(core, mail, transfers, parts)
        self._rows = core.store.transfers
        self._strikes: dict[int, int] = {}
        mail.arrived[Offer] = self._offer_arrived
        mail.doubted.append(self._decide_again)

    def reset(self) -> None:
        """Forget all that is not in the store."""
        self._arriving.reset()
        self._parts.reset()

    def start(self) -> None:
        """Finish what a crash has interrupted, and look again at what nobody has decided."""
        for row in self._rows.live():
            if row.outgoing or row.row in self._transfers.moving or self._arriving.has(row.row):
                continue
            if self._arriving.resume(row):
                continue
            if row.state == "active":
                self._transfers.move(row, "queued")
            elif row.state == "offered":
                self._considering.consider(row, anew=False)
        self._parts.sweep()

    # -- offers -----------------------------------------------------------------------

    def _offer_arrived(self, contact: ContactRow, _id: bytes, body: Body) -> None:
        assert isinstance(body, Offer)
        known = self._rows.by_id(contact.row, body.transfer)
        if known is not None:
            if known.counting and not known.ended and not known.outgoing:
                self._counted_there(known, body)
                fresh = self._rows.get(known.row)
                if fresh is not None and fresh.accepted:  # which they may not know any more
                    self.say_again(fresh)
            else:
                self.say_again(known)
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
            kind=body.kind,
            name=body.name,
            size=body.size,
            files=body.files,
            counting=int(body.counting),
            mtime_ns=body.mtime_ns,
            executable=int(body.executable),
            state="offered",
            created_at=self._core.now.wall_ms,
        )
        self._considering.consider(row, anew=True)

    def _counted_there(self, row: TransferRow, offer: Offer) -> None:
        """They have counted more of their folder, which may be on its way meanwhile."""
        if self._arriving.has(row.row):
            return  # all of it is here
        moving = self._transfers.moving.get(row.row)
        if row.state == "offered" or not self._grew(row, offer.size):
            self._rows.update(row.row, size=offer.size)
        elif moving is not None:
            self._answer(moving, row, "undecided")  # they may have sent all of it by now
        self._rows.update(row.row, files=offer.files, counting=int(offer.counting))
        if row.state == "offered":
            self._core.publish("transfer.offered", row.row)
        self._transfers.moved.add(row.row)

    def say_again(self, row: TransferRow) -> None:
        """They do not know what was answered: one of the two histories is an older copy."""
        if row.outgoing or row.state == "offered":
            return
        word: Body = Decision(transfer=row.id, accepted=True)
        if row.state == "done":
            word = result_of(row)
        elif row.state == "declined":
            word = Decision(transfer=row.id, accepted=False, reason="declined there")
        elif row.ended:
            word = Cancel(transfer=row.id, reason=row.error or "", failed=row.state == "failed")
        self._mail.put(row.contact, word)

    def _decide_again(self, contact: int) -> None:
        """A history was lost or restored: they may not know that we wait for their files."""
        for row in self._rows.live(contact):
            if not row.outgoing and row.accepted and not self._arriving.has(row.row):
                self._mail.put(contact, Decision(transfer=row.id, accepted=True))

    def _objection(self, contact: ContactRow, offer: Offer) -> str:
        """Why this offer cannot even be shown to our user, or nothing."""
        if offer.kind not in KINDS or (offer.kind == "file" and offer.files != 1):
            return "their TalknTransfer cannot take this kind of transfer"
        try:
            check_file_name(offer.name)
        except RemoteError as error:
            return error.detail
        waiting = self._rows.count_offers(contact.row)
        return "too many of your files wait there already" if waiting >= OFFERS_MAX else ""

    def accept(self, row: TransferRow, folder: bytes | None = None) -> TransferRow:
        """Our user takes an offer, to `folder` where that is given.  Raises
        CommandError(WRONG_STATE)."""
        self._check_offered(row)
        if folder is not None and row.folder not in (None, folder):
            assert row.folder is not None
            raise CommandError(
                Code.WRONG_STATE,
                f"a part of {show_path(row.name)[0]} is in {show_path(row.folder)[0]} already",
                "take it without naming another place",
            )
        return self._take(row, by_user=1, folder=folder)

    def decline(self, row: TransferRow) -> TransferRow:
        """Our user refuses an offer.  Raises CommandError(WRONG_STATE)."""
        self._check_offered(row)
        self._mail.put(
            row.contact, Decision(transfer=row.id, accepted=False, reason="declined there")
        )
        # It may have been under way before it turned out larger.
        return self._end(row, "declined", None)

    def _check_offered(self, row: TransferRow) -> None:
        if row.outgoing:
            raise CommandError(
                Code.WRONG_STATE,
                f"{show_path(row.name)[0]} is sent from here; the other side takes or declines it",
                "give it up with: cancel",
            )
        if row.state != "offered":
            taken = row.state in ("queued", "active", "done")
            raise CommandError(
                Code.WRONG_STATE,
                f"{show_path(row.name)[0]} is {row.state}, not an offer that waits here",
                "offers wait to be taken with: set ask_always on"
                if taken
                else "see the queue with: transfers",
            )

    def _take(self, row: TransferRow, by_user: int = 0, folder: bytes | None = None) -> TransferRow:
        self._mail.put(row.contact, Decision(transfer=row.id, accepted=True))
        folder = row.folder or folder or self._preferences.downloads(row.contact)
        changes = {"accepted": 1, "by_user": by_user, "folder": folder, "error": None}
        return self._transfers.move(row, "queued", **changes)

    # -- giving up --------------------------------------------------------------------

    def is_arriving(self, row: int) -> bool:
        """Whether all of it is here, and is being synced or put in place."""
        return self._arriving.has(row)

    def place(self, row: int) -> None:
        """It is time to try once more to put in place what has arrived."""
        self._arriving.place(row)

    def let_go(self, row: TransferRow) -> TransferRow:
        """Stop what is under way for it."""
        moving = self._transfers.moving.get(row.row)
        fresh = None if moving is None else self._transfers.stop(moving)
        return fresh or row

    def begin_anew(self, row: TransferRow) -> dict[str, object]:
        """What changes where it is sent again, from its first entry on."""
        self.let_go(row)
        there = {"number": 0, "after": b"", "synced_number": 0, "synced_after": b""}
        return {**there, "bytes_done": 0, "merging": 0}

    def cancel(self, row: TransferRow) -> TransferRow:
        """Our user gives it up.  Raises CommandError(WRONG_STATE) when it is as good as done."""
        if self._arriving.has(row.row) and not self._arriving.rests(row.row):
            raise CommandError(
                Code.WRONG_STATE,
                f"{show_path(row.name)[0]} has arrived and is being put in place",
                "delete it when it is there",
            )
        return self.drop(row)

    def drop(self, row: TransferRow) -> TransferRow:
        """Give it up whatever it has come to, and tell the sender."""
        self._mail.put(row.contact, Cancel(transfer=row.id))
        return self._end(row, "cancelled", None)

    def cancelled_there(self, row: TransferRow, cancel: Cancel) -> None:
        """The sender has given it up, or could not go on."""
        if self._arriving.has(row.row) and (cancel.failed or not self._arriving.rests(row.row)):
            return  # it is whole: the result tells them
        reason = cancel.reason or "cancelled on the other side"
        self._end(row, "failed" if cancel.failed else "cancelled", reason)

    def _fail(self, row: TransferRow, reason: str) -> None:
        self._mail.put(row.contact, Result(transfer=row.id, error=reason[:500]))
        self._end(row, "failed", reason)

    def _end(self, row: TransferRow, state: str, error: str | None) -> TransferRow:
        self._arriving.forget(row.row)
        self._strikes.pop(row.row, None)
        return self._transfers.end(row, state, error, self._parts)

    # -- lanes ------------------------------------------------------------------------

    def went_down(self, contact: int) -> None:
        """The link is gone, and its lanes with it."""
        for moving in [m for m in self._transfers.moving.values() if m.contact == contact]:
            if not moving.outgoing and not self._arriving.has(moving.row):
                self._transfers.fall_back(moving)

    def lane_offered(self, contact: ContactRow, frame: Frame) -> None:
        """The sender is ready: look at the stage, then open a lane."""
        assert isinstance(frame, LaneOffer)
        row = self._rows.by_id(contact.row, frame.transfer)
        code = self._unready(row, frame)
        if code or row is None:
            if row is not None and code == "finishing" and row.row in self._transfers.moving:
                # They wait with this ticket now: should it come to nothing, it is the one to name.
                self._transfers.moving[row.row].ticket = frame.ticket
            route = self._core.routes.get(contact.row)
            if route is not None:  # there may be none: it came on a link that was replaced
                answer = LaneAnswer(ticket=frame.ticket, transfer=frame.transfer, code=code)
                self._core.send(route.link, answer)
            if row is not None and row.state == "done":
                self.say_again(row)  # theirs may be an older copy of the history
            return
        stale = self._transfers.moving.get(row.row)
        if stale is not None:
            row = self._transfers.fall_back(stale) or row
        folder = row.folder or self._preferences.downloads(row.contact)
        told: dict[str, int] = {}
        if row.open_ended and not row.again:
            told = {"size": frame.size, "files": frame.files if row.tree else 1}
        self._rows.update(row.row, part=1, folder=folder, **told)
        self._transfers.hear_count(row, frame.sent)
        reserve = self._core.settings.reserve_bytes + self._transfers.to_come(folder)
        moving = self._transfers.open_moving(row)
        moving.ticket = frame.ticket
        size = int(told.get("size", row.size))
        to_come = max(0, size - row.bytes_done) if row.tree else size
        name = self._parts.name(row)
        request = PrepareStage(folder, name, row.tree, to_come, reserve)
        self._core.ask(request, lambda answer: self._prepared(moving, answer))

    def _unready(self, row: TransferRow | None, frame: LaneOffer) -> str:
        """Why a lane cannot be opened for this transfer now, or nothing."""
        if row is None or row.outgoing:
            return "unknown"
        if row.state in ("cancelled", "declined", "failed"):
            return "ended"
        placed = row.chosen is not None and not row.again  # or will be, as soon as we have begun
        if row.state == "done" or placed or self._arriving.has(row.row):
            return "finishing"  # the result is on its way
        if frame.again and not row.again:
            return "unknown"  # they believe that the rest is here: a copy of us took it, say
        if not row.accepted or self._grew(row, frame.size):
            return "undecided"
        if row.state == "paused":
            return "busy"
        room = self._transfers.has_room(row.contact, outgoing=False)
        return "" if room or row.row in self._transfers.moving else "full"

    def _grew(self, row: TransferRow, size: int) -> bool:
        """Whether it turned out larger than what is taken without a question; then it is asked."""
        limit = self._preferences.of(row.contact).auto_accept_bytes_max
        if row.by_user or not row.open_ended or size <= max(limit, row.size):
            return False
        self._ask_anew(self.let_go(row), size)
        return True

    def _ask_anew(self, row: TransferRow, size: int) -> None:
        """It has `size` bytes at least: our user is asked, and what is here of it stays."""
        row = self._transfers.move(row, "offered", accepted=0, size=size)
        self._considering.ask_for_size(row, anew=True)

    def _prepared(self, moving: Moving, answer: Answer) -> None:
        row, route = self._rows.get(moving.row), self._core.routes.get(moving.contact)
        if row is None or self._transfers.moving.get(moving.row) is not moving:
            return
        if isinstance(answer, Failed) and (answer.code in PASSING or self._hung(row, answer)):
            full = answer.code in ("ENOSPC", "EDQUOT")
            self._try_again(moving, row, "not enough free space" if full else answer.text)
            return
        if isinstance(answer, Failed) and answer.code in AWAY | SICK and row.part_inode:
            self._try_again(moving, row, answer.text)  # it was there before
            return
        if not isinstance(answer, Inspected):
            text = answer.text if isinstance(answer, Failed) else "cannot be written"
            self._fail(row, f"the receiver's downloads folder: {text}")
            return
        contact = self._core.store.contacts.get(moving.contact)
        if route is None or not route.open or contact is None:
            self._transfers.fall_back(moving)
            return
        job = self._job(moving, row, answer)
        moving.bytes_done = job.bytes_done
        self._transfers.open_lane(moving, route, contact, job)
        self._core.send(
            route.link,
            LaneAnswer(
                ticket=moving.ticket,
                transfer=row.id,
                code="",
                number=job.number,
                after=job.after,
                asks=job.asks,
                received=row.bytes_sent,
            ),
        )

    def _hung(self, row: TransferRow, failed: Failed) -> bool:
        """Whether our disk only did not answer, and not too often: it costs all others minutes."""
        if failed.code in OPEN:
            self._strikes[row.row] = self._strikes.get(row.row, 0) + 1
        return failed.code in OPEN and self._strikes[row.row] < STRIKES_MAX

    def _job(self, moving: Moving, row: TransferRow, stage: Inspected) -> Inbound:
        number, after, done = row.number, row.after, row.bytes_done
        # A single file is whole only with its digest, which was not committed with a name.
        if not row.tree or stage.inode != row.part_inode or not stage.size:
            number, after, done = 0, b"", 0  # else: another stage than the one that was written
        elif row.boot != self._core.profile.boot:
            number, after, done = row.synced_number, row.synced_after, row.synced_bytes
        self._rows.update(
            row.row, part_inode=stage.inode, number=number, after=after, bytes_done=done
        )
        self._transfers.look_back(row, number)
        moving.swept = not row.tree or not stage.size
        old = None if stage.size else self._rows.older_copy(row)
        usable = old is not None and old.folder is not None and old.chosen is not None
        return Inbound(
            folder=row.folder or self._core.profile.downloads,
            stage=self._parts.name(row),
            tree=row.tree,
            size_max=self._size_max(row),
            number=number,
            after=after,
            bytes_done=done,
            asks=bool(stage.size) or usable,
            base=_place(old) if old is not None and usable else b"",
            base_ctime_ns=old.final_ctime_ns if old is not None and usable else 0,
            again=bool(row.again),
        )

    def _size_max(self, row: TransferRow) -> int:
        if not row.open_ended:
            return row.size
        if row.by_user:
            return SIZE_MAX
        return max(row.size, self._preferences.of(row.contact).auto_accept_bytes_max)

    def lane_entries(self, moving: Moving, event: LaneEntries) -> None:
        """Files of a folder are written and checked."""
        row = self._rows.get(moving.row)
        if row is None or row.ended:
            return
        changes: dict[str, object] = {
            "number": event.number,
            "after": event.after,
            "bytes_done": event.bytes_done,
            "boot": self._core.profile.boot,
        }
        if event.synced:
            changes |= {
                "synced_number": event.number,
                "synced_after": event.after,
                "synced_bytes": event.bytes_done,
            }
        if row.tree:
            if event.anew:
                self._transfers.look_back(row, 0)
                moving.swept = False
            trees = self._core.store.trees
            trees.put(row.row, trees.known_things(row.row, event.entries), event.number)
        if row.counting:
            # What is here is at least there; a sender that still counts has not told of it yet.
            changes |= self._at_least(row, event.bytes_done)
        self._rows.update(row.row, **changes)
        self._transfers.note_done(moving, max(moving.bytes_done, event.bytes_done))

    def _at_least(self, row: TransferRow, bytes_done: int) -> dict[str, object]:
        kept = self._core.store.trees.kept(row.row)
        return {"files": max(row.files, kept), "size": max(row.size, bytes_done)}

    def lane_failed(self, moving: Moving, event: LaneFailed) -> None:
        """A lane ended early: the sender offers another, unless it is our disk."""
        row = self._transfers.fall_back(moving)
        if row is None or row.ended:
            return
        if event.code == "size" and row.state == "queued":
            self._ask_anew(row, min(self._size_max(row) + 1, SIZE_MAX))
            self._answer(moving, row, "undecided")
            return
        if event.code not in ("cut", "stall", "storage", "away"):
            self._strikes[row.row] = self._strikes.get(row.row, 0) + 1
        self._core.log("info", f"lane of {show_path(row.name)[0]}: {event.code}: {event.text}")
        ours = event.code in ("storage", "away")
        text = f"the receiver's downloads folder: {event.text}" if ours else event.text
        if event.code == "storage" or self._strikes.get(row.row, 0) >= STRIKES_MAX:
            self._fail(row, text)
            return
        if event.code == "away":
            self._rows.update(row.row, boot=NO_BOOT)  # of what was not synced, some may be lost
        self._transfers.explain(row.row, f"{text}; it will be tried again")
        # The sender may have written its last byte, and then it knows nothing of this.
        self._answer(moving, row, "broken", text)

    def lane_finished(self, moving: Moving, event: LaneFinished) -> None:
        """All of it is written and checked: to the disk with it, and to its place."""
        self._strikes.pop(moving.row, None)
        row = self._rows.get(moving.row)
        if row is not None and row.open_ended and not row.tree:
            self._rows.update(row.row, size=event.size)
        elif row is not None and not row.tree and event.size != row.size:
            self._fail(row, f"{event.size} bytes came, and {row.size} were offered")
            return
        self._arriving.begin(moving, event)

    def _answer(self, moving: Moving, row: TransferRow, code: str, text: str = "") -> None:
        route = self._core.routes.get(row.contact)
        if route is not None and route.open:
            answer = LaneAnswer(ticket=moving.ticket, transfer=row.id, code=code, text=text)
            self._core.send(route.link, answer)

    def _try_again(self, moving: Moving, row: TransferRow, text: str) -> None:
        """Not now, for a reason that will pass: the sender offers another lane."""
        self._core.log("warning", f"{show_path(row.name)[0]} has to wait: {text}")
        self._transfers.fall_back(moving)
        self._transfers.explain(row.row, f"{text}; it will be tried again")
        self._answer(moving, row, "busy", f"the receiver's downloads folder: {text}")


def _place(row: TransferRow) -> bytes:
    assert row.folder is not None and row.chosen is not None
    return row.folder.rstrip(b"/") + b"/" + row.chosen
