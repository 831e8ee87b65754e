"""The transfer queue: its parts joined, and the events of lanes routed to them."""

from __future__ import annotations

from collections.abc import Callable

from tntd.errors import Code, CommandError
from tntd.events import LaneEntries, LaneFailed, LaneFinished, LaneOpened, LaneProgressed
from tntd.machines.naming import show_path
from tntd.node.core import Core
from tntd.node.growing import Growing
from tntd.node.incoming import Incoming
from tntd.node.mail import Mail
from tntd.node.outgoing import Outgoing
from tntd.node.parts import Parts
from tntd.node.preferences import Preferences
from tntd.node.sending import Sending
from tntd.node.steering import Steering
from tntd.node.transfers import Transfers
from tntd.store.contacts import ContactRow
from tntd.store.transfers import TransferRow
from tntd.wire.frames import Body, Cancel


class Queue:
    """Both directions of it."""

    def __init__(self, core: Core, mail: Mail, preferences: Preferences) -> None:
        self.on_stall: Callable[[int], None] = _nothing  # with a contact: is their link alive?
        self._rows = core.store.transfers
        self.parts = Parts(core)
        self.transfers = Transfers(core, self.parts)
        self.sending = Sending(core, mail, self.parts)
        self.outgoing = Outgoing(core, mail, self.transfers)
        self.growing = Growing(core, mail, self.transfers, self.outgoing, self.sending)
        self.incoming = Incoming(core, mail, self.transfers, self.parts, preferences)
        self.steering = Steering(
            core, mail, self.transfers, self.outgoing, self.incoming, self.sending
        )
        mail.arrived[Cancel] = self._cancel_arrived

    def reset(self) -> None:
        """Forget all that is not in the store."""
        self.outgoing.reset()
        self.growing.reset()
        self.incoming.reset()

    def start(self) -> None:
        """Go on from what the store says."""
        self.outgoing.start()
        self.sending.start()
        self.growing.start()
        self.incoming.start()
        self.parts.clean_spool()

    def run_all(self) -> None:
        """More may move than before."""
        self.transfers.freed = True

    def lane_changed(self, event: LaneOpened | LaneEntries | LaneFinished | LaneFailed) -> None:
        """Something came of a lane."""
        moving = self.transfers.by_lane(event.lane)
        if moving is None:
            if isinstance(event, LaneFinished):  # closed meanwhile, but it counts
                self.transfers.progressed(LaneProgressed(event.lane, 0, event.bytes_sent))
            return
        part = self.outgoing if moving.outgoing else self.incoming
        match event:
            case LaneOpened():
                self.transfers.lane_opened(moving)
            case LaneEntries():
                part.lane_entries(moving, event)
            case LaneFinished():
                part.lane_finished(moving, event)
            case LaneFailed():
                part.lane_failed(moving, event)
                if event.code == "stall":
                    self.on_stall(moving.contact)

    def cancel(self, row: TransferRow) -> TransferRow:
        """Our user gives a transfer up.  Raises CommandError(WRONG_STATE)."""
        if row.ended:
            raise CommandError(
                Code.WRONG_STATE,
                f"{show_path(row.name)[0]} is {row.state} already",
                "nothing is left to cancel",
            )
        part = self.outgoing if row.outgoing else self.incoming
        return part.cancel(row)

    def end_all(self, contact: int) -> None:
        """The contact is blocked or removed: nothing moves to or from them any more."""
        for row in self._rows.live(contact):
            if row.outgoing:
                self.outgoing.cancel(row)
            else:
                self.incoming.drop(row)

    def _cancel_arrived(self, contact: ContactRow, _id: bytes, body: Body) -> None:
        assert isinstance(body, Cancel)
        row = self._rows.by_id(contact.row, body.transfer)
        if row is None:
            return
        if not row.ended:
            part = self.outgoing if row.outgoing else self.incoming
            part.cancelled_there(row, body)
        elif not row.outgoing and row.state == "done":
            self.incoming.say_again(row)  # theirs is an older copy of the history, say


def _nothing(_contact: int) -> None:
    return None
