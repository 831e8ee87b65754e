"""Pause, resume, first, again: what users of either side want of a transfer in the queue.

What holds always: the sender's queue is the queue.  The sender does what its user or the
receiver's wishes and tells the receiver how things stand; the receiver shows its own user's
wish at once, and then whatever the sender tells, in order.  So both sides end with the same.
"""

from __future__ import annotations

from collections.abc import Callable

from tntd.errors import Code, CommandError
from tntd.machines.naming import show_path
from tntd.node.core import Core
from tntd.node.incoming import Incoming
from tntd.node.mail import Mail
from tntd.node.outgoing import Outgoing
from tntd.node.present import item_id
from tntd.node.sending import Sending, SendReply, offer
from tntd.node.transfers import Transfers
from tntd.store.contacts import ContactRow
from tntd.store.transfers import NONE_BEYOND, TransferRow
from tntd.wire.frames import Body, Cancel, Steer


class Steering:
    """The two halves of the queue, steered."""

    def __init__(  # noqa: PLR0917
        self,
        core: Core,
        mail: Mail,
        transfers: Transfers,
        outgoing: Outgoing,
        incoming: Incoming,
        sending: Sending,
    ) -> None:
        self._core = core
        self._mail = mail
        self._transfers = transfers
        self._outgoing = outgoing
        self._incoming = incoming
        self._sending = sending
        self._rows = core.store.transfers
        self._acts: dict[str, Callable[[TransferRow], TransferRow]] = {
            "pause": self._pause,
            "resume": self._resume,
            "first": self._first,
            "again": self._again,
        }
        mail.arrived[Steer] = self._arrived

    # -- our user ----------------------------------------------------------------------

    def pause(self, row: TransferRow) -> TransferRow:
        """Stop a transfer until somebody resumes it.  Raises CommandError(WRONG_STATE)."""
        if row.ended or row.state == "paused" or (row.state == "offered" and not row.outgoing):
            raise _wrong(row, "only what is queued or under way can be paused")
        if self._is_arriving(row):
            raise _wrong(row, "all of it is over; it is being put in place")
        return self._steer(row, "pause")

    def resume(self, row: TransferRow) -> TransferRow:
        """Let it go on.  Raises CommandError(WRONG_STATE)."""
        if row.state != "paused":
            raise _wrong(row, "only what is paused can be resumed")
        return self._steer(row, "resume")

    def first(self, row: TransferRow) -> TransferRow:
        """To the front of the queue.  Raises CommandError(WRONG_STATE)."""
        if row.ended:
            raise _wrong(row, "it is not in the queue any more")
        return self._steer(row, "first")

    def again(self, row: TransferRow, reply: SendReply) -> None:
        """Send what failed once more; replies with the transfer, a new one for a single file.

        Raises CommandError(WRONG_STATE).
        """
        if row.state != "failed":
            raise _wrong(row, "only what has failed can be sent again")
        if row.tree:
            reply([self._steer(row, "again")])
            return
        contact = self._core.store.contacts.get(row.contact)
        if row.growing:
            raise _wrong(row, "it came from a pipe, of which nothing is kept; fill the pipe again")
        if not row.outgoing or row.source is None or contact is None:
            raise _wrong(row, "ask the sender to send it again")
        self._sending.send([contact], [row.source], self._again_ref(row), reply)

    def _again_ref(self, row: TransferRow) -> str:
        """Under what the new transfer of a single file is remembered: asked twice, it is still one.

        Raises CommandError(WRONG_STATE) where it was sent again, and not given up since.
        """
        while True:
            ref = f"again {item_id(row.id)}"
            known = self._core.store.get_client_ref("transfers", ref)
            newer = self._rows.get(known[0]) if known else None
            if newer is None:
                return ref
            if newer.state not in ("cancelled", "declined"):
                text = f"{show_path(row.name)[0]} was sent again already, as {item_id(newer.id)}"
                hint = "if that failed too: again, with its id; see the queue with: transfers"
                raise CommandError(Code.WRONG_STATE, text, hint)
            row = newer

    def _steer(self, row: TransferRow, act: str) -> TransferRow:
        fresh = self._acts[act](row)
        self._mail.put(row.contact, _word(row, act))
        if act == "again" and row.outgoing and not fresh.accepted:
            # It failed before we heard that they take it (a copy of us did): ask once more.
            self._mail.put(row.contact, offer(fresh))
        return fresh

    def _is_arriving(self, row: TransferRow) -> bool:
        part = self._outgoing if row.outgoing else self._incoming
        return part.is_arriving(row.row)

    # -- the other side ----------------------------------------------------------------

    def _arrived(self, contact: ContactRow, _id: bytes, body: Body) -> None:
        assert isinstance(body, Steer)
        row = self._rows.by_id(contact.row, body.transfer)
        act = body.act
        if row is not None and act == "again" and row.state == "paused" and not row.outgoing:
            act = "resume"  # it was begun again here, and then their earlier pause came
        if row is None or act not in self._acts or not self._fits(row, act):
            self._refuse(contact, row, body)
            return
        self._acts[act](row)
        if row.outgoing:
            self._mail.put(contact.row, _word(row, act))

    def _refuse(self, contact: ContactRow, row: TransferRow | None, steer: Steer) -> None:
        """They may wait for what will not come: one of the two histories is an older copy."""
        if row is None and steer.from_sender:
            return  # they will offer a lane for it, and then hear that we know nothing of it
        if steer.act == "again" and (row is None or (row.outgoing and row.ended)):
            ended = "not known there any more" if row is None else f"{row.state} there already"
            cancel = Cancel(transfer=steer.transfer, reason=f"it is {ended}", failed=True)
            self._mail.put(contact.row, cancel)

    def _fits(self, row: TransferRow, act: str) -> bool:
        """Whether it makes sense now; a wish may have crossed with another."""
        if act == "again":
            return row.tree and row.state == "failed" and bool(row.accepted)
        # A receiver that wishes something does not have all, whatever was sent.
        if row.ended or (not row.outgoing and self._is_arriving(row)):
            return False
        if act == "pause":
            return row.state != "paused" and (bool(row.outgoing) or bool(row.accepted))
        return act == "first" or row.state == "paused"

    # -- what is done ------------------------------------------------------------------

    def _pause(self, row: TransferRow) -> TransferRow:
        part = self._outgoing if row.outgoing else self._incoming
        row = part.let_go(row)
        return self._transfers.move(row, "paused", error=None)

    def _resume(self, row: TransferRow) -> TransferRow:
        waits = row.outgoing and not row.accepted
        offered = waits and not self._core.store.outbox.holds(row.contact, row.id)
        row = self._transfers.move(row, "offered" if offered else "queued")
        self._outgoing.run(row.contact)
        return row

    def _first(self, row: TransferRow) -> TransferRow:
        self._rows.update(row.row, place=self._rows.front())
        fresh = self._rows.get(row.row)
        assert fresh is not None
        self._core.publish("transfer.state", row.row, state=fresh.state, error=fresh.error)
        self._outgoing.run(row.contact)
        return fresh

    def _again(self, row: TransferRow) -> TransferRow:
        trees = self._core.store.trees
        # Where it failed as a whole, nothing of it was put in place: all of it goes once more.
        some = row.failed > 0 or row.again if row.outgoing else row.final_ctime_ns > 0
        changes: dict[str, object] = {"again": int(some), "failed": 0, "error": None}
        if some:
            trees.restore(row.row)
        else:
            trees.doubt(row.row, -1)
            changes |= {**NONE_BEYOND, "number": 0}
        if not row.outgoing:
            if not row.accepted:  # it failed while our user was asked, who wants it
                changes |= {"accepted": 1, "by_user": 1}
            changes |= self._incoming.begin_anew(row)
            changes |= {} if some else {"chosen": None}  # else a start would put it in place
        row = self._transfers.move(row, "queued", **changes)
        self._outgoing.run(row.contact)
        return row


def _word(row: TransferRow, act: str) -> Steer:
    return Steer(transfer=row.id, act=act, from_sender=bool(row.outgoing))


def _wrong(row: TransferRow, hint: str) -> CommandError:
    return CommandError(Code.WRONG_STATE, f"{show_path(row.name)[0]} is {row.state}", hint)
