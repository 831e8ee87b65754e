"""The checkers that look at every commit, every effect and every rename.

What holds always: the watcher knows only what was committed (it is called after the commit), and
compares with it what leaves: an envelope whose message is not committed, an acknowledgement of
what is not, a reply that promises what is not, are violations the moment they leave.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tntd import limits
from tntd.effects import Effect, Log, SendFrame
from tntd.machines.blocks import BlockHasher
from tntd.node.present import item_id, parse_item_id
from tntd.wire.frames import KIND_NUMBERS, Ack, Envelope, FrameReader, LinkError, Text, decode

from .disk import File, Folder, Node
from .heap import Violation
from .sources import FOLDER, Sources, tree, what_is, what_of

if TYPE_CHECKING:
    from .machine import Machine

TEXT = KIND_NUMBERS[Text]
# What one honest daemon never has to tell another whose history is whole.
DISHONEST = {"malformed", "unexpected", "unsupported", "authentication", "version", "twin", "self"}
DISHONEST |= {"limit", "internal"}
BYSTANDER = b"somebody else's"


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
    transfer_row: int = 0


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


@dataclass(slots=True)
class Send:
    """A transfer as it was queued: who sends what, since when."""

    machine: str
    source: bytes
    tree: bool
    since: float


@dataclass(slots=True)
class Traffic:
    """File data of one transfer that was put on lanes, by ticket."""

    by_ticket: dict[bytes, int] = field(default_factory=dict)
    life: tuple[int, int] = (0, 0)  # of the sender, when the last of them was opened
    forgotten: int = 0  # bytes that neither side knew of when the last of them was opened

    @property
    def total(self) -> int:
        """Bytes over all lanes."""
        return sum(self.by_ticket.values())


class Watcher:
    """Watches all machines.  Where somebody's history was restored, lost or ran twice, less is
    asked of what that touches: `went_back` and `touched` say what does."""

    def __init__(self) -> None:
        self.mirrors: dict[str, Mirror] = {}
        self.machines: dict[bytes, list[Machine]] = {}
        self.sources = Sources()
        self.sources.contents.add(what_of(BYSTANDER))
        self.sends: dict[bytes, Send] = {}
        self.traffic: dict[bytes, Traffic] = {}
        self.bystanders: dict[tuple[str, bytes], File] = {}
        self.changed: set[str] = set()  # names of machines whose database is another one now
        self.forgotten: dict[str, set[bytes]] = {}  # parts that these had when it was changed
        self.copies: dict[str, Epochs] = {}  # of machines that had an older copy put back
        self.undone: set[str] = set()  # names of machines that had a turn undone
        self.restarts: dict[str, int] = {}  # how often a turn was undone
        self.files_arrived = 0
        self.trees_arrived = 0
        self._arrived: dict[tuple[str, bytes], tuple[bytes, Node]] = {}
        self._tickets: dict[bytes, bytes] = {}
        self._keys: set[bytes] = set()  # whose history was restored, lost or ran twice
        self._edited: set[File] = set()  # what somebody has written into since it arrived
        self._texts: dict[tuple[bytes, bytes], dict[int, bytes]] = {}

    def add(self, machine: Machine) -> None:
        """Watch a machine."""
        self.mirrors[machine.name] = Mirror()
        self.machines.setdefault(machine.identity.public, []).append(machine)

    @property
    def damaged(self) -> bool:
        """Whether anybody's history was restored, lost or ran twice."""
        return bool(self._keys)

    def went_back(self, key: bytes) -> bool:
        """Whether the history of the one with this key was restored, lost or ran twice."""
        return key in self._keys

    def touched(self, machine: Machine, key: bytes) -> bool:
        """Whether that is so of either of two."""
        return machine.identity.public in self._keys or key in self._keys

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
        self._committed_transfers(machine, mirror)
        query = (
            "SELECT t.id, t.digest, c.key FROM transfers t JOIN contacts c ON t.contact = c.row "
            "WHERE t.state = 'done' AND t.outgoing = 1"
        )
        for id, digest, key in sql.execute(query).fetchall():
            if id not in mirror.done:
                mirror.done.add(id)
                self._told_done(machine, id, digest, key)

    def _committed_transfers(self, machine: Machine, mirror: Mirror) -> None:
        sql = machine.database.sql
        query = "SELECT row, id, outgoing, source, kind FROM transfers WHERE row > ?"
        for row, id, outgoing, source, kind in sql.execute(query, (mirror.transfer_row,)):
            mirror.transfer_row = max(mirror.transfer_row, row)
            if outgoing and id not in self.sends:
                send = Send(machine.name, source, kind == "folder", machine.heap.now)
                self.sends[id] = send
        moving = machine.process.node._queue.transfers.moving if machine.process else {}
        if moving:
            paused = sql.execute("SELECT row FROM transfers WHERE state = 'paused'")
            for (row,) in paused:
                if row in moving:
                    raise Violation(f"{machine.name} moves a transfer that is paused")

    def _received(self, machine: Machine, mirror: Mirror, id: bytes, key: bytes) -> None:
        ids = mirror.received.setdefault(key, [])
        senders = [self.mirrors[each.name] for each in self.machines[key]]
        sender = next((each for each in senders if id in each.place), None)
        if sender is None:
            raise Violation(f"{machine.name} has a message that its sender never committed")
        same = [each for each in ids if each in sender.place]
        expected = sender.place[same[-1]] + 1 if same else 0
        place = sender.place[id]
        if place < expected or (place > expected and not self.touched(machine, key)):
            raise Violation(f"{machine.name} received message {place}, not {expected}")
        ids.append(id)
        mirror.ever.add(id)

    def _told_done(self, machine: Machine, id: bytes, digest: bytes | None, key: bytes) -> None:
        query = "SELECT row, folder, chosen FROM transfers WHERE id = ? AND outgoing = 0"
        for other in self.machines[key]:
            for row, folder, chosen in other.database.sql.execute(query, (id,)):
                if chosen is None or folder is None:
                    continue
                node = other.disk.find_durable(folder + b"/" + chosen)
                if node is not None and self._is_durable(other, row, node, digest):
                    return
            if other.name in self.changed and self._is_kept(other, id, digest):
                return  # its history has forgotten that
        raise Violation(f"{machine.name} was told of {item_id(id)}, which is not durable there")

    def _is_kept(self, machine: Machine, id: bytes, digest: bytes | None) -> bool:
        """The same where the receiver's history says nothing of it any more."""
        path, node = self._arrived.get((machine.name, id), (b"", None))
        if node is None or machine.disk.find_durable(path) is not node:
            return False
        return self._is_durable(machine, -1, node, digest)

    def _is_durable(self, machine: Machine, row: int, node: Node, digest: bytes | None) -> bool:
        """Whether a power cut would leave all of a transfer that was told as done."""
        if isinstance(node, File):
            known = what_is(node, durable=True) in self.sources.contents
            told = {None, digest_of(node.durable), digest_of(node.durable, grew=True)}
            return known and (digest in told or node in self._edited)
        there = dict(tree(node, durable=True))
        query = "SELECT path FROM tree_files WHERE transfer = ? AND state = 'verified'"
        for (path,) in machine.database.sql.execute(query, (row,)):
            file = there.get(path)
            if not isinstance(file, File) or file.dirty:
                return False
            if what_is(file) not in self.sources.contents:
                return False
        return True

    def restored(self, machine: Machine) -> None:
        """The machine's database is another one now."""
        self._keys.add(machine.identity.public)
        self.changed.add(machine.name)
        self.forgotten.setdefault(machine.name, set()).update(parts_of(machine))
        epochs = Epochs.of(machine)
        if epochs.events is not None:
            self.copies[machine.name] = epochs
        mirror, sql = self.mirrors[machine.name], machine.database.sql
        (mirror.row,) = sql.execute("SELECT coalesce(max(row), 0) FROM messages").fetchone()
        (mirror.transfer_row,) = sql.execute(
            "SELECT coalesce(max(row), 0) FROM transfers"
        ).fetchone()
        mirror.received.clear()
        query = (
            "SELECT m.id, c.key FROM messages m JOIN contacts c ON m.contact = c.row "
            "WHERE m.kind = 'text' AND m.outgoing = 0 ORDER BY m.row"
        )
        for id, key in sql.execute(query):
            mirror.received.setdefault(key, []).append(id)
            mirror.ever.add(id)

    # -- effects -------------------------------------------------------------------------

    def performed(self, machine: Machine, effect: Effect) -> None:
        """An effect is about to be performed."""
        process = machine.process
        if isinstance(effect, Log) and effect.text.startswith("starting over"):
            self.undone.add(machine.name)
            self.restarts[machine.name] = self.restarts.get(machine.name, 0) + 1
        if not isinstance(effect, SendFrame) or process is None:
            return
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
            elif isinstance(frame, LinkError) and self._is_dishonest(machine, peer, frame.code):
                raise Violation(f"{machine.name} ends a link: {frame.code} {frame.text}")

    def _is_dishonest(self, machine: Machine, peer: Machine, code: str) -> bool:
        """Whether an honest daemon never has to tell that another honest one."""
        twice = code == "twin" and self.touched(machine, peer.identity.public)
        return code in DISHONEST and not twice

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
        while last in texts and not self.went_back(key):
            if texts[last] not in mirror.ever:
                raise Violation(f"{machine.name} acknowledges a message that it does not have")
            del texts[last]
            last -= 1

    def promised(self, machine: Machine, id: bytes) -> None:
        """A client was told that this message is queued."""
        if id not in self.mirrors[machine.name].place:
            raise Violation(f"{machine.name} promised a message that is not committed")

    # -- files ---------------------------------------------------------------------------

    def sent(self, machine: Machine, ticket: bytes, count: int) -> None:
        """So many bytes of file data were put on the lane with this ticket."""
        id = self._tickets.get(ticket)
        if id is None and machine.process is not None:
            for moving in machine.process.node._queue.transfers.moving.values():
                if moving.ticket == ticket:
                    query = "SELECT id FROM transfers WHERE row = ?"
                    found = machine.database.sql.execute(query, (moving.row,)).fetchone()
                    id = self._tickets[ticket] = found[0]
        if id is not None:
            traffic = self.traffic.setdefault(id, Traffic(life=self._life(machine)))
            if ticket not in traffic.by_ticket:
                _, traffic.forgotten = self.forgotten_of(machine, id, traffic)
                traffic.life = self._life(machine)
            traffic.by_ticket[ticket] = count

    def _life(self, machine: Machine) -> tuple[int, int]:
        return machine.runs, self.restarts.get(machine.name, 0)

    def forgotten_of(self, machine: Machine, id: bytes, traffic: Traffic) -> tuple[bool, int]:
        """Whether the sender has ended, or had a turn undone, since the last lane was opened, and
        how many bytes neither side knows of."""
        if traffic.life == self._life(machine):
            return False, traffic.forgotten
        return True, traffic.total - self._counted(id)

    def _counted(self, id: bytes) -> int:
        """What is committed on either side of the bytes that went over lanes of a transfer: each
        tells the other when a lane is opened."""
        query = "SELECT bytes_sent FROM transfers WHERE id = ?"
        machines = [each for same in self.machines.values() for each in same]
        found = [row for each in machines for row in each.database.sql.execute(query, (id,))]
        return max((count for (count,) in found), default=0)

    def lane_refused(self, machine: Machine, why: str) -> None:
        """A lane of two honest daemons ends for what one of them sent.  (A folder may grow,
        and then be more than was agreed.)"""
        if not why.endswith("bytes agreed"):
            raise Violation(f"{machine.name} refuses a record of a lane: {why}")

    def edited(self, file: File) -> None:
        """Somebody has changed what had arrived."""
        self._edited.add(file)
        self.sources.contents.add(what_of(bytes(file.data)))

    def published(self, machine: Machine, part: bytes, path: bytes, node: Node) -> None:
        """A stage gets its final name."""
        id = parse_item_id(part.rpartition(b"-")[2].removesuffix(b".part").decode()) or b""
        self.files_arrived += 1
        self.trees_arrived += isinstance(node, Folder)
        before = None if machine.name in self.changed else self._arrived.get((machine.name, id))
        if before is not None and machine.disk.find(before[0]) is before[1]:
            raise Violation(f"{machine.name}: {path!r} arrives twice")
        self._arrived[machine.name, id] = path, node
        for inner, each in tree(node):
            self._check_arrived(machine, id, path, inner, each)
        if isinstance(node, Folder):
            self._check_whole(machine, id, node)

    def _check_arrived(
        self, machine: Machine, id: bytes, path: bytes, inner: bytes, node: Node
    ) -> None:
        from .machine import SPOOL

        what, send = what_is(node), self.sends.get(id)
        known = what in self.sources.contents or not isinstance(node, File)
        if known and send is not None:
            source = send.source + b"/" + inner if inner else send.source
            spooled = source.startswith(SPOOL)  # it had to grow first
            at = not send.tree and not spooled
            known = self.sources.was(send.machine, source, what, send.since, at=at)
        if not known:
            shown = path + b"/" + inner if inner else path
            raise Violation(f"{machine.name}: {shown!r} is not whole, and gets its final name")

    def _check_whole(self, machine: Machine, id: bytes, node: Folder) -> None:
        """All that stood in the source all the time is there, or told as failed or skipped."""
        send, there = self.sends[id], dict(tree(node))
        query = (
            "SELECT f.path, f.state, f.size FROM tree_files f JOIN transfers t "
            "ON f.transfer = t.row WHERE t.id = ? AND t.outgoing = 0"
        )
        states = {p: (state, size) for p, state, size in machine.database.sql.execute(query, (id,))}
        # A copy of a profile has not the disk that the rest was put in place on.
        elsewhere = self.went_back(machine.identity.public)
        for path, (state, _) in states.items():
            if state == "verified" and not (elsewhere or isinstance(there.get(path), File)):
                raise Violation(f"{machine.name}: {path!r} is told as verified, and is not there")
        for path, what in self.sources.stayed(send.machine, send.source, send.since):
            state, _ = states.get(path, ("", 0))
            fine = {"skipped", "failed", "verified"} if elsewhere else {"skipped", "failed"}
            fine_folder = elsewhere and what == FOLDER  # of which nothing is listed
            if path not in there and state not in fine and not fine_folder:
                raise Violation(f"{machine.name}: {path!r} is missing, and nothing is told of it")
            if what not in {FOLDER} and not what.startswith(b"->") and not state:
                raise Violation(f"{machine.name}: nothing is told of {path!r}")

    def ended(self, machine: Machine, how: str) -> None:
        """A run has ended: what is on the disk?"""
        if how == "power":
            self.check_files(machine)
            # What has lost its name again may get it once more.
            for key, (path, node) in list(self._arrived.items()):
                if key[0] == machine.name and machine.disk.find(path) is not node:
                    del self._arrived[key]

    def check_files(self, machine: Machine) -> None:
        """All that stands under a final name is whole, and what stood there before still does."""
        from .child_source import PARTS
        from .machine import DOWNLOADS

        for (name, path), file in self.bystanders.items():
            if name == machine.name and machine.disk.find(path) is not file:
                raise Violation(f"{machine.name}: {path!r} of somebody else was replaced")
        for name, node in sorted(machine.disk.folder(DOWNLOADS).names.items()):
            for inner, each in tree(node) if name != PARTS else ():
                if isinstance(each, File) and what_is(each) not in self.sources.contents:
                    raise Violation(f"{machine.name}: {name!r} {inner!r} is broken")


def parts_of(machine: Machine) -> list[bytes]:
    """The names of the stages on a machine's disk."""
    from .child_source import PARTS
    from .machine import DOWNLOADS

    parts = machine.disk.find(DOWNLOADS + b"/" + PARTS)
    return sorted(parts.names) if isinstance(parts, Folder) else []


def digest_of(data: bytes, *, grew: bool = False) -> bytes:
    """The digest of a file, as machines/blocks.py makes it; `grew`: it was sent while it did."""
    blocks = BlockHasher(None if grew else len(data))
    blocks.update(memoryview(data))
    blocks.end()
    return blocks.digest()
