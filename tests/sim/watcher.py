"""The checkers that look at every commit, every effect and every rename.

What holds always: the watcher knows only what was committed (it is called after the commit), and
compares with it what leaves: an envelope whose message is not committed, an acknowledgement of
what is not, a reply that promises what is not, are violations the moment they leave.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blake3 import blake3

from tntd import limits
from tntd.effects import Effect, SendFrame
from tntd.wire.frames import KIND_NUMBERS, Ack, Envelope, FrameReader, LinkError, Text, decode

from .disk import File
from .heap import Violation

if TYPE_CHECKING:
    from .machine import Machine

TEXT = KIND_NUMBERS[Text]
# What one honest daemon never has to tell another whose history is whole.
DISHONEST = {"malformed", "unexpected", "unsupported", "authentication", "version", "twin", "self"}
DISHONEST |= {"limit", "internal"}
LINKS_MAX = 40  # between few machines, with time-outs of seconds
TASKS_MAX = 200


@dataclass(slots=True)
class Mirror:
    """What a machine has committed.  `sent` and `received` are by the contact's key."""

    row: int = 0
    sent: dict[bytes, list[bytes]] = field(default_factory=dict)
    place: dict[bytes, int] = field(default_factory=dict)  # id of what was sent -> its place
    received: dict[bytes, list[bytes]] = field(default_factory=dict)
    ever: set[bytes] = field(default_factory=set)  # ids received, also before a restore
    upto: dict[bytes, tuple[bytes | None, int]] = field(default_factory=dict)
    done: set[bytes] = field(default_factory=set)


@dataclass(slots=True)
class Epochs:
    """Under which epochs a machine numbers its events, and its envelopes to each contact."""

    events: bytes | None
    envelopes: dict[bytes, bytes]

    @classmethod
    def of(cls, machine: Machine) -> Epochs:
        """What its database says."""
        sql = machine.database.sql
        found = sql.execute("SELECT value FROM settings WHERE key = 'event_epoch'").fetchone()
        envelopes = sql.execute("SELECT key, out_epoch FROM contacts").fetchall()
        return cls(found and found[0], dict(envelopes))


class Watcher:
    """Watches all machines.  `damaged` says that somebody's history was restored or lost."""

    def __init__(self) -> None:
        self.mirrors: dict[str, Mirror] = {}
        self.machines: dict[bytes, list[Machine]] = {}
        self.contents: set[bytes] = set()  # hashes of all files that were ever sent
        self.bystanders: dict[tuple[str, bytes], File] = {}
        self.damaged = False
        self.changed: set[str] = set()  # names of machines whose database is another one now
        self.copies: dict[str, Epochs] = {}  # of machines that had an older copy put back
        self.twins = False
        self.files_arrived = 0
        self._texts: dict[tuple[bytes, bytes], dict[int, bytes]] = {}

    def add(self, machine: Machine) -> None:
        """Watch a machine."""
        self.mirrors[machine.name] = Mirror()
        self.machines.setdefault(machine.identity.public, []).append(machine)

    # -- commits -------------------------------------------------------------------------

    def committed(self, machine: Machine) -> None:
        """A transaction is committed: what is new in it?"""
        mirror, sql = self.mirrors[machine.name], machine.database.sql
        query = (
            "SELECT m.row, m.id, m.outgoing, c.key FROM messages m JOIN contacts c "
            "ON m.contact = c.row WHERE m.row > ? AND m.kind = 'text' ORDER BY m.row"
        )
        for row, id, outgoing, key in sql.execute(query, (mirror.row,)).fetchall():
            mirror.row = row
            if outgoing:
                ids = mirror.sent.setdefault(key, [])
                mirror.place[id] = len(ids)
                ids.append(id)
            else:
                self._received(machine, mirror, id, key)
        for key, epoch, upto in sql.execute("SELECT key, in_epoch, in_upto FROM contacts"):
            mirror.upto[key] = (epoch, upto)
        query = (
            "SELECT t.id, t.digest, c.key FROM transfers t JOIN contacts c ON t.contact = c.row "
            "WHERE t.state = 'done' AND t.outgoing = 1"
        )
        for id, digest, key in sql.execute(query).fetchall():
            if id not in mirror.done:
                mirror.done.add(id)
                self._told_done(digest, key)

    def _received(self, machine: Machine, mirror: Mirror, id: bytes, key: bytes) -> None:
        ids = mirror.received.setdefault(key, [])
        senders = [self.mirrors[each.name] for each in self.machines[key]]
        sender = next((each for each in senders if id in each.place), None)
        if sender is None:
            raise Violation(f"{machine.name} has a message that its sender never committed")
        same = [each for each in ids if each in sender.place]
        expected = sender.place[same[-1]] + 1 if same else 0
        place = sender.place[id]
        if place < expected or (place > expected and not self.damaged):
            raise Violation(f"{machine.name} received message {place}, not {expected}")
        ids.append(id)
        mirror.ever.add(id)

    def _told_done(self, digest: bytes | None, key: bytes) -> None:
        from .machine import DOWNLOADS

        for machine in self.machines[key]:
            for file in machine.disk.durable_names(DOWNLOADS).values():
                if digest is not None and blake3(file.durable).digest() == digest:
                    return
        raise Violation("a sender was told of a file that is not durable in its place")

    def restored(self, machine: Machine) -> None:
        """The machine's database is another one now."""
        self.damaged = True
        self.changed.add(machine.name)
        epochs = Epochs.of(machine)
        if epochs.events is not None:
            self.copies[machine.name] = epochs
        mirror, sql = self.mirrors[machine.name], machine.database.sql
        (mirror.row,) = sql.execute("SELECT coalesce(max(row), 0) FROM messages").fetchone()
        mirror.received.clear()
        query = (
            "SELECT m.id, c.key FROM messages m JOIN contacts c ON m.contact = c.row "
            "WHERE m.kind = 'text' AND m.outgoing = 0 ORDER BY m.row"
        )
        for id, key in sql.execute(query):
            mirror.received.setdefault(key, []).append(id)

    # -- effects -------------------------------------------------------------------------

    def performed(self, machine: Machine, effect: Effect) -> None:
        """An effect is about to be performed."""
        process = machine.process
        if not isinstance(effect, SendFrame) or process is None:
            return
        if len(process.ends) > LINKS_MAX or process.disk_child.length > TASKS_MAX:
            raise Violation(f"{machine.name} has links or tasks without bound")
        end = process.ends.get(effect.link)
        if end is None:
            return
        peer = end.connection.other(end).process.machine
        reader = FrameReader(limits.FRAME_BYTES_MAX)
        reader.feed(effect.data)
        while (found := reader.next_frame()) is not None:
            frame = decode(*found)
            if isinstance(frame, Envelope):
                self._envelope(machine, frame)
            elif isinstance(frame, Ack):
                self._ack(machine, peer, frame)
            elif isinstance(frame, LinkError) and frame.code in DISHONEST and not self.damaged:
                raise Violation(f"{machine.name} ends a link: {frame.code} {frame.text}")

    def _envelope(self, machine: Machine, frame: Envelope) -> None:
        if frame.kind != TEXT:
            return
        same = self.machines[machine.identity.public]
        if not any(frame.id in self.mirrors[each.name].place for each in same):
            raise Violation(f"{machine.name} sends a message that is not committed")
        texts = self._texts.setdefault((machine.identity.public, frame.epoch), {})
        texts[frame.number] = frame.id

    def _ack(self, machine: Machine, peer: Machine, frame: Ack) -> None:
        mirror, key = self.mirrors[machine.name], peer.identity.public
        epoch, upto = mirror.upto.get(key, (None, 0))
        if frame.epoch != epoch or frame.number > upto:
            raise Violation(
                f"{machine.name} acknowledges {frame.number}, but only {upto} is committed"
            )
        texts = self._texts.get((key, frame.epoch), {})
        last = frame.number
        while last in texts and not self.damaged:
            if texts[last] not in mirror.ever:
                raise Violation(f"{machine.name} acknowledges a message that it does not have")
            del texts[last]
            last -= 1

    def promised(self, machine: Machine, id: bytes) -> None:
        """A client was told that this message is queued."""
        if id not in self.mirrors[machine.name].place:
            raise Violation(f"{machine.name} promised a message that is not committed")

    # -- files ---------------------------------------------------------------------------

    def published(self, machine: Machine, name: bytes, file: File) -> None:
        """A part gets its final name."""
        if blake3(bytes(file.data)).digest() not in self.contents:
            raise Violation(f"{machine.name}: {name!r} is not whole, and gets its final name")
        self.files_arrived += 1

    def ended(self, machine: Machine, how: str) -> None:
        """A run has ended: what is on the disk?"""
        if how == "power":
            self.check_files(machine)

    def check_files(self, machine: Machine) -> None:
        """All that stands under a final name is whole, and what stood there before still does."""
        from .machine import DOWNLOADS

        for name, file in sorted(machine.disk.folders[DOWNLOADS].files.items()):
            there = self.bystanders.get((machine.name, name))
            if there is file:
                continue
            if there is not None or blake3(bytes(file.data)).digest() not in self.contents:
                raise Violation(f"{machine.name}: {name!r} is broken, or was replaced")
