"""The outboxes at work: envelopes put in, pumped out, taken in, acknowledged.

What holds always: an acknowledgement is made in the turn that commits what it acknowledges, so it
leaves only after; an envelope leaves the store only when its acknowledgement has come; and
whatever cannot be understood is committed as refused, so that the queue behind it goes on.
"""

from __future__ import annotations

from collections.abc import Callable

from tntd import limits
from tntd.effects import SendFrame
from tntd.errors import RemoteError
from tntd.machines.outbox import Ours, Standing, Theirs, Verdict, Window, forgot, judge, stand
from tntd.node.core import Core, Route
from tntd.store.contacts import ContactRow
from tntd.wire.frames import (
    Ack,
    Body,
    Envelope,
    Refused,
    Trusted,
    decode_body,
    encode,
    encode_body,
)

Arrived = Callable[[ContactRow, bytes, Body], None]
Left = Callable[[ContactRow, list[bytes]], None]
UNPROCESSABLE_AFTER = 2  # failures of our own code on one envelope


class Mail:
    """All outboxes.  The node fills the tables `arrived` (what to do with a body that came),
    `delivered` and `under_way` (which ids of a kind were acknowledged, or are merely sent);
    `doubted` is called with a contact's row when one of the two sides turns out to have lost
    what it once knew: an older copy of its history was restored, or none, or it runs twice;
    `renewed` where that side is ours."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._contacts = core.store.contacts
        self._outbox = core.store.outbox
        self.arrived: dict[type[Body], Arrived] = {}
        self.delivered: dict[int, Left] = {}
        self.under_way: dict[int, Left] = {}
        self.doubted: list[Callable[[int], None]] = []
        self.renewed: list[Callable[[], None]] = []
        self._doubts: set[int] = set()
        self._dirty: set[int] = set()
        self._owed: dict[int, int] = {}  # link -> contact whose envelopes it brought
        self._failures: dict[bytes, int] = {}

    def reset(self) -> None:
        """Forget all that is not in the store (but what our code failed on)."""
        self._dirty.clear()
        self._doubts.clear()
        self._owed.clear()

    def put(self, contact: int, body: Body, id: bytes | None = None) -> bytes:
        """Put an envelope into the contact's outbox, in this turn's transaction; its id."""
        row = self._contacts.get(contact)
        assert row is not None
        id = id or self._core.random(16)
        number = row.out_highest + 1
        self._outbox.add(contact, number, id, *encode_body(body))
        self._contacts.update(contact, out_highest=number)
        self._dirty.add(contact)
        return id

    # -- a link comes up ---------------------------------------------------------------

    def trusted_frame(self, row: ContactRow) -> Trusted:
        """What we say of both outboxes when a link comes up."""
        advertise = self._core.settings.advertise
        return Trusted(
            epoch=row.out_epoch,
            lowest=row.out_acked + 1,
            highest=row.out_highest,
            peer_epoch=row.in_epoch,
            received=row.in_upto,
            received_id=row.in_upto_id,
            port=0 if advertise == [] else self._core.peer_port,
            addresses=advertise or [],
        )

    def take_trusted(self, row: ContactRow, trusted: Trusted) -> bool:
        """Compare memories; True where ours had to be renewed and Trusted is to be said again."""
        self.take_epoch(row, trusted)
        theirs = Theirs(trusted.peer_epoch, trusted.received, trusted.received_id)
        ours = Ours(row.out_epoch, row.out_highest, row.out_acked, row.out_acked_id)
        standing = stand(ours, theirs, self._outbox.id_at(row.row, trusted.received))
        if standing is Standing.CATCH_UP:
            self._drop(row, trusted.received)
        if standing is Standing.RENEW:
            self.renew(row)
        if standing is Standing.RENEW or forgot(ours, theirs):
            self._doubts.add(row.row)
        return standing is Standing.RENEW

    def take_epoch(self, row: ContactRow, trusted: Trusted) -> None:
        """From now on their envelopes are of this epoch, the latest or one that came before."""
        upto = row.in_upto
        if trusted.epoch != row.in_epoch:
            # A renewed outbox, or another copy of it: what was known of this one is known still.
            if row.in_epoch is not None:
                self._doubts.add(row.row)
                self._outbox.keep_epoch(row.row, row.in_epoch, row.in_upto, row.in_upto_id)
            known = self._outbox.kept_epoch(row.row, trusted.epoch)
            if known is not None:
                self._core.complain(
                    f"{row.name}'s profile seems to run twice, or an old copy was restored",
                    "ask them to stop all copies but one",
                    row.row,
                )
            upto, upto_id = known or (0, None)
            self._contacts.update(row.row, in_epoch=trusted.epoch, in_upto=upto, in_upto_id=upto_id)
        if trusted.lowest > upto + 1 and trusted.highest >= upto:
            self._note_lost(row, trusted.lowest - 1 - upto)
            self._tell_renewed()
            self._contacts.update(row.row, in_upto=trusted.lowest - 1, in_upto_id=None)

    def renew(self, row: ContactRow) -> None:
        """Begin a new epoch: our memory is older than the peer's, or a twin uses our key."""
        count = self._outbox.renumber(row.row)
        self._contacts.update(
            row.row,
            out_epoch=self._core.random(16),
            out_highest=count,
            out_acked=0,
            out_acked_id=None,
        )
        self._core.log("warning", f"the outbox for {row.name} begins a new epoch")
        self._tell_renewed()

    def _tell_renewed(self) -> None:
        for call in self.renewed:
            call()

    def bind(self, contact: int, route: Route) -> None:
        """From now on the outbox goes over this link, from the last acknowledgement on."""
        row = self._contacts.get(contact)
        assert row is not None
        route.window = Window(row.out_acked)
        self._dirty.add(contact)

    # -- what comes in ----------------------------------------------------------------

    def take_ack(self, row: ContactRow, ack: Ack) -> None:
        """Their acknowledgement.  Raises RemoteError for a number that was never assigned.

        It may be above what this link has carried: what an earlier link had released can arrive
        after the two sides have compared their memories.
        """
        if ack.epoch != row.out_epoch or ack.number <= row.out_acked:
            return
        if ack.number > row.out_highest:
            raise RemoteError("malformed", f"an acknowledgement of {ack.number}, never sent")
        self._drop(row, ack.number)
        route = self._core.routes.get(row.row)
        if route is not None and route.open:
            route.window.note_acked(ack.number)
        self._dirty.add(row.row)

    def _drop(self, row: ContactRow, upto: int) -> None:
        heads = self._outbox.heads(row.row, upto)
        by_kind: dict[int, list[bytes]] = {}
        for _, id, kind in heads:
            by_kind.setdefault(kind, []).append(id)
        for kind, ids in by_kind.items():
            if kind in self.delivered:
                self.delivered[kind](row, ids)
        last_id = heads[-1][1] if heads else None
        self._outbox.drop(row.row, upto)
        self._contacts.update(row.row, out_acked=upto, out_acked_id=last_id)

    def take_envelope(self, row: ContactRow, link: int, envelope: Envelope) -> None:
        """Commit an envelope, once.  Raises RemoteError("twin"), or "storage" where the disk has
        room only for what must be written: it comes again when there is more."""
        if envelope.epoch != row.in_epoch:
            return  # from before a renewal; it comes again under its new number
        self._owed[link] = row.row
        seen = self._outbox.was_seen(row.row, envelope.id)
        verdict = judge(envelope.number, row.in_upto, seen)
        if verdict is Verdict.TWIN:
            raise RemoteError("twin", f"number {envelope.number} came with another id before")
        if envelope.number <= row.in_upto:
            return
        if self._core.store.short:
            raise RemoteError("storage", "the disk is full here")
        if envelope.number > row.in_upto + 1:
            self._note_lost(row, envelope.number - row.in_upto - 1)
        if verdict is Verdict.NEW:
            self._open(row, envelope)
            self._outbox.mark_seen(row.row, envelope.id)
        self._contacts.update(row.row, in_upto=envelope.number, in_upto_id=envelope.id)

    def _open(self, row: ContactRow, envelope: Envelope) -> None:
        failures = self._failures.get(envelope.id, 0)
        try:
            if failures >= UNPROCESSABLE_AFTER:
                raise RemoteError("unprocessable", "our own code failed on it twice")
            body = decode_body(envelope.kind, envelope.body)
            with self._core.store.savepoint():
                self.arrived[type(body)](row, envelope.id, body)
        except RemoteError as refused:
            self._refuse(row, envelope, refused)

    def _refuse(self, row: ContactRow, envelope: Envelope, refused: RemoteError) -> None:
        if refused.code == "unprocessable":
            self._outbox.keep_unprocessable(
                row.row, envelope.id, envelope.kind, envelope.body, refused.detail
            )
            self._failures.pop(envelope.id, None)
        self._core.log("warning", f"refused an envelope of {row.name}: {refused}")
        self.put(row.row, Refused(id=envelope.id, code=refused.code))

    def note_failure(self, envelope: Envelope) -> None:
        """Our own code failed on this envelope and was rolled back."""
        self._failures[envelope.id] = self._failures.get(envelope.id, 0) + 1

    def _note_lost(self, row: ContactRow, count: int) -> None:
        core = self._core
        self._doubts.add(row.row)
        text = (
            f"{count} earlier item{'s' if count != 1 else ''} from {row.name} did not reach this "
            "copy of the history (it was lost or restored from a backup, or they were removed here)"
        )
        added = core.store.messages.add(
            core.random(16),
            row.row,
            outgoing=False,
            kind="notice",
            text=text,
            sent_at=core.now.wall_ms,
            received_at=core.now.wall_ms,
            state="delivered",
        )
        core.publish("message.received", added.row)

    # -- the end of a turn ------------------------------------------------------------

    def finish_turn(self) -> None:
        """Send the acknowledgements that are owed, then what there is room for."""
        for link, contact in self._owed.items():
            row = self._contacts.get(contact)
            if row is not None and row.in_epoch is not None:
                self._core.send(link, Ack(epoch=row.in_epoch, number=row.in_upto))
        self._owed.clear()
        for contact in sorted(self._doubts):
            if self._contacts.get(contact) is not None:
                for call in self.doubted:
                    call(contact)
        self._doubts.clear()
        for contact in sorted(self._dirty):
            route = self._core.routes.get(contact)
            if route is not None and route.open:
                self._pump(contact, route)
        self._dirty.clear()

    def _pump(self, contact: int, route: Route) -> None:
        window, frames = route.window, []
        contact_row, room = self._contacts.get(contact), window.room()
        if not room or contact_row is None:
            return
        epoch = contact_row.out_epoch
        for row in self._outbox.page(contact, window.sent, room):
            if not window.room():
                break
            data = encode(
                Envelope(epoch=epoch, number=row.number, id=row.id, kind=row.kind, body=row.body)
            )
            window.note_sent(row.number, len(data))
            frames.append(data)
        if not frames:
            return
        self._core.emit(SendFrame(route.link, b"".join(frames)))
        # Shown as merely sent only if it takes noticeable time: the usual acknowledgement comes
        # sooner, and a state that nobody sees need not be written.
        self._core.timers.set(("sent", contact), self._core.now.boot + limits.SENT_MARK_DELAY_S)

    def mark_sent(self, contact: int) -> None:
        """What has been under way for a while is shown as sent."""
        row, route = self._contacts.get(contact), self._core.routes.get(contact)
        if row is None or route is None or not route.open:
            return
        by_kind: dict[int, list[bytes]] = {}
        for _, id, kind in self._outbox.heads(contact, route.window.sent):
            by_kind.setdefault(kind, []).append(id)
        for kind, ids in by_kind.items():
            if kind in self.under_way:
                self.under_way[kind](row, ids)
