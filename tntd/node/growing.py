"""What goes out while it is still written: a client tells how much of a file in the spool there is.

    growing -> (the client says that this is all) a file like any other
    growing -> (the client goes away before) failed

What holds always: no more of it is sent than its client said is there, and it never counts as whole
before its client said so and the file has just that size.  So a pipe that broke off arrives nowhere
under its name.  After a start of the daemon its client has FEEDER_TIMEOUT_S to tell of it.
"""

from __future__ import annotations

from collections.abc import Callable

from tntd.errors import Code, CommandError
from tntd.limits import FEEDER_TIMEOUT_S
from tntd.machines.naming import show_path
from tntd.node.core import Core
from tntd.node.mail import Mail
from tntd.node.outgoing import Outgoing
from tntd.node.sending import Sending, offer, path_error
from tntd.node.transfers import Transfers
from tntd.store.transfers import TransferRow
from tntd.tasks import Answer, Inspect, Inspected

BROKE_OFF = "the pipe broke off before its end"


class Growing:
    """The outgoing transfers that grow, and the clients that feed them."""

    def __init__(
        self, core: Core, mail: Mail, transfers: Transfers, outgoing: Outgoing, sending: Sending
    ) -> None:
        self._core = core
        self._mail = mail
        self._transfers = transfers
        self._outgoing = outgoing
        self._rows = core.store.transfers
        self._feeders: dict[int, int] = {}  # clients, by the row that they feed
        sending.on_growing = self._added

    def reset(self) -> None:
        """Forget all that is not in the store."""
        self._feeders.clear()

    def start(self) -> None:
        """Those who fed them may come back."""
        for row in self._rows.live():
            if row.growing:
                self._wait(row.row, FEEDER_TIMEOUT_S)

    def _wait(self, row: int, seconds: float) -> None:
        self._core.timers.set(("unfed", row), self._core.now.boot + seconds)

    def _added(self, row: int, client: int) -> None:
        """It was queued for this client, which may have gone away before."""
        if client in self._core.clients:
            self._feeders[row] = client
        else:
            self._wait(row, 0.0)

    # -- what clients tell ---------------------------------------------------------------

    def grown(self, rows: list[TransferRow], size: int) -> None:
        """There are `size` bytes by now.  Raises CommandError(WRONG_STATE, INVALID_PARAMS)."""
        for row in self._fed(rows, size):
            if size == row.size:
                continue
            self._rows.update(row.row, size=size)
            self._outgoing.grew(self._transfers.fresh(row))

    def ended(
        self, rows: list[TransferRow], size: int, reply: Callable[[CommandError | None], None]
    ) -> None:
        """These `size` bytes are all.  Replies with CommandError(PATH) where the file cannot be
        looked at; raises CommandError as `grown`."""
        fed = self._fed(rows, size)
        if not fed:
            reply(None)  # it was said before
            return
        source = fed[0].source
        assert source is not None

        def looked(answer: Answer) -> None:
            if not isinstance(answer, Inspected):
                reply(path_error(source, answer))
                return
            for row in fed:
                self._end(row.row, size, answer)
            reply(None)

        self._core.ask(Inspect(source), looked)

    def _fed(self, rows: list[TransferRow], size: int) -> list[TransferRow]:
        """Those that still grow, fed by the client that asks.  None where all are whole."""
        for row in rows:
            if row.source != rows[0].source or not row.outgoing:
                raise _refused("these transfers are not of one growing file")
        live = [row for row in rows if row.growing and not row.ended]
        if any(size < row.size for row in live):
            raise _refused("there were more bytes of it before")
        for row in live:
            self._feeders[row.row] = self._core.client
            self._core.timers.cancel(("unfed", row.row))
        broken = [row for row in rows if row.growing]
        if broken and not live:
            row = broken[0]
            why = f": {row.error}" if row.error else ""
            text = f"{show_path(row.name)[0]} is {row.state}{why}"
            raise CommandError(Code.WRONG_STATE, text, "nothing more of it is sent")
        return live

    def _end(self, number: int, size: int, found: Inspected) -> None:
        row = self._rows.get(number)
        if row is None or row.ended or not row.growing:
            return
        self._feeders.pop(number, None)
        if (found.kind, found.size, found.inode) != ("file", size, row.inode):
            text = "what came out of the pipe was changed before it was sent"
            self._outgoing.cancel(row, text, failed=True)
            return
        whole = {"size": size, "mtime_ns": found.mtime_ns, "growing": 0, "counting": 0}
        self._rows.update(number, **whole)
        row = self._transfers.fresh(row)
        self._outgoing.grew(row)
        self._mail.put(row.contact, offer(row))  # now they can see how much it is

    # -- nobody tells --------------------------------------------------------------------

    def client_gone(self, client: int) -> None:
        """What this client did not feed to the end will have none."""
        for number in sorted(row for row, feeder in self._feeders.items() if feeder == client):
            del self._feeders[number]
            self.expire(number)

    def expire(self, number: int) -> None:
        """Nobody feeds it."""
        row = self._rows.get(number)
        if row is not None and row.growing and not row.ended:
            self._outgoing.cancel(row, BROKE_OFF, failed=True)


def _refused(text: str) -> CommandError:
    return CommandError(Code.INVALID_PARAMS, text, "see tntd/control/README.md")
