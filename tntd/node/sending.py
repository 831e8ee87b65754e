"""The user's `send`: paths are looked at, counted for a moment, and queued, all of them or none.

What holds always: one `send` with a client_ref is one set of transfers, however often it is
repeated; a large folder does not wait for its count, which goes on while it is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tntd.errors import Code, CommandError
from tntd.machines.naming import show_path
from tntd.node.chat import require_accepted
from tntd.node.core import Core
from tntd.node.mail import Mail
from tntd.node.parts import Parts
from tntd.store.contacts import ContactRow
from tntd.store.transfers import TransferRow
from tntd.tasks import Answer, Counted, CountTree, Failed, Inspect, Inspected
from tntd.wire.frames import Offer

SendReply = Callable[[list[TransferRow] | CommandError], None]


@dataclass(slots=True)
class Found:
    """A path that was looked at; `counted` is of a folder, `walk` the number of its count."""

    path: bytes
    seen: Inspected
    walk: int = 0
    counted: Counted | None = None


@dataclass(slots=True)
class Send:
    """A `send` whose paths are being looked at."""

    contacts: list[int]
    paths: list[bytes]
    ref: str | None
    reply: SendReply
    feeder: int = 0  # the client that will tell how it grows
    found: list[Found] = field(default_factory=list)


class Sending:
    """Puts files and folders into the queue."""

    def __init__(self, core: Core, mail: Mail, parts: Parts) -> None:
        self._core = core
        self._mail = mail
        self._parts = parts
        self.on_growing: Callable[[int, int], None]  # a row, and the client that feeds it
        self._rows = core.store.transfers

    def send(
        self,
        contacts: list[ContactRow],
        paths: list[bytes],
        ref: str | None,
        reply: SendReply,
        *,
        growing: bool = False,
    ) -> None:
        """Queue every path for every contact; of one that is `growing`, growing.py hears how much
        there is.  Replies with CommandError(PATH) for a bad path, raises
        CommandError(NOT_ACCEPTED, INVALID_PARAMS)."""
        for contact in contacts:
            require_accepted(contact)
        if growing and (len(paths) != 1 or not self._parts.spooled(paths[0])):
            text = "what is growing is one file in the spool"
            raise CommandError(Code.INVALID_PARAMS, text, "see tntd/control/README.md")
        feeder = self._core.client if growing else 0
        self._look(Send([contact.row for contact in contacts], paths, ref, reply, feeder))

    def start(self) -> None:
        """Counts that a restart has interrupted begin anew."""
        for row in self._rows.live():
            if row.outgoing and row.counting and row.tree:
                self._count_on(row.row, self._core.number())

    def _look(self, send: Send) -> None:
        path = send.paths[len(send.found)]
        self._core.ask(Inspect(path), lambda answer: self._looked(send, path, answer))

    def _looked(self, send: Send, path: bytes, answer: Answer) -> None:
        if not isinstance(answer, Inspected) or answer.kind == "other":
            gone = isinstance(answer, Failed) and answer.code == "ENOENT"
            kept = not (gone and self._parts.spooled(path))
            send.reply(path_error(path, answer) if kept else _not_kept(path))
            return
        if not answer.readable:
            send.reply(path_error(path, Failed("EACCES", "permission denied")))
            return
        found = Found(path, answer)
        send.found.append(found)
        if answer.kind == "folder":
            found.walk = self._core.number()
            request = CountTree(found.walk, path)
            self._core.ask(request, lambda counted: self._counted(send, found, counted))
        else:
            self._next(send)

    def _counted(self, send: Send, found: Found, answer: Answer) -> None:
        if isinstance(answer, Counted):
            found.counted = answer
            self._next(send)
        else:
            send.reply(path_error(found.path, answer))

    def _next(self, send: Send) -> None:
        if len(send.found) < len(send.paths):
            self._look(send)
            return
        contacts = [self._core.store.contacts.get(each) for each in send.contacts]
        there = [contact for contact in contacts if contact is not None]
        if len(there) < len(contacts):
            send.reply(CommandError(Code.NO_SUCH_CONTACT, "the contact was removed", ""))
        else:
            send.reply(self._queue(there, send))

    def _queue(self, contacts: list[ContactRow], send: Send) -> list[TransferRow]:
        store = self._core.store
        known = None if send.ref is None else store.get_client_ref("transfers", send.ref)
        if known is not None:
            return [row for each in known if (row := self._rows.get(each)) is not None]
        feeder = send.feeder
        rows = [self._add(contact, found, feeder) for contact in contacts for found in send.found]
        if send.ref is not None:
            numbers = [row.row for row in rows]
            store.set_client_ref("transfers", send.ref, numbers, self._core.now.wall_ms)
        return rows

    def _add(self, contact: ContactRow, found: Found, feeder: int) -> TransferRow:
        id, seen = self._core.random(16), found.seen
        growing = feeder > 0 and seen.kind == "file"
        counted = found.counted or Counted(1, seen.size, True)
        row = self._rows.add(
            id,
            contact.row,
            outgoing=1,
            kind=seen.kind,
            name=found.path.rstrip(b"/").rpartition(b"/")[2] or b"files",
            source=found.path,
            size=counted.bytes,
            files=counted.files,
            counting=int(growing or not counted.end),
            growing=int(growing),
            inode=seen.inode,
            mtime_ns=seen.mtime_ns,
            executable=int(seen.executable),
            part=int(seen.kind == "file" and bool(self._parts.spooled(found.path))),
            state="queued",
            created_at=self._core.now.wall_ms,
        )
        # The envelope has the transfer's id, so that its acknowledgement finds the transfer.
        self._mail.put(contact.row, offer(row), id)
        self._core.publish("transfer.state", row.row, state="queued")
        if growing:
            self.on_growing(row.row, feeder)
        elif row.counting:
            self._count_on(row.row, found.walk)
        return row

    def _count_on(self, number: int, walk: int) -> None:
        row = self._rows.get(number)
        if row is None or row.ended or not row.counting:
            return
        assert row.source is not None
        request = CountTree(walk, row.source)
        self._core.ask(request, lambda answer: self._counted_on(number, walk, answer))

    def _counted_on(self, number: int, walk: int, answer: Answer) -> None:
        row = self._rows.get(number)
        if row is None or row.ended or not row.counting:
            return
        if not isinstance(answer, Counted):
            self._rows.update(number, counting=0)  # the walk of the transfer itself says why
            return
        # A count that began anew shows less for a while.
        files, size = max(row.files, answer.files), max(row.size, answer.bytes)
        if answer.end:
            files, size = answer.files, answer.bytes
        self._rows.update(number, files=files, size=size, counting=int(not answer.end))
        fresh = self._rows.get(number)
        if answer.end and fresh is not None:
            self._mail.put(fresh.contact, offer(fresh))  # the last word on how much it is
        self._count_on(number, walk)


def offer(row: TransferRow) -> Offer:
    """What the receiver is told of a transfer."""
    return Offer(
        transfer=row.id,
        kind=row.kind,
        name=row.name,
        size=row.size,
        files=row.files,
        mtime_ns=row.mtime_ns,
        executable=bool(row.executable),
        counting=bool(row.counting),
    )


def _not_kept(path: bytes) -> CommandError:
    name = show_path(path.rpartition(b"/")[2])[0]
    text = f"{name} came from a pipe, of which nothing is kept once its transfer has ended"
    return CommandError(Code.PATH, text, "fill the pipe again")


def path_error(path: bytes, answer: Answer) -> CommandError:
    """Why a path cannot be sent."""
    shown = show_path(path)[0]
    if isinstance(answer, Inspected):
        hint = (
            "devices, pipes, sockets and what the system tells in files such as those of /proc "
            "cannot be sent; send what comes out of them: ... | tnt send WHO - --as NAME"
        )
        return CommandError(Code.PATH, f"{shown} is no regular file and no folder", hint)
    text = answer.text if isinstance(answer, Failed) else "cannot be looked at"
    return CommandError(Code.PATH, f"{shown}: {text}", "check the path and its permissions")
