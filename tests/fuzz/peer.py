"""A contact that has gone bad: proved and trusted, and then anything, while the daemon lives on.

Its bytes may only ever end its own link: an exception out of the node would, in the daemon, undo
an event, and for events that are not its own frames start the whole node over.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tntd.events import (
    Answered,
    DialFailed,
    LaneFailed,
    LaneFinished,
    LaneOpened,
    LaneProgressed,
    LineArrived,
    LinkClosed,
    LinkOpened,
)
from tntd.machines.identity import Identity
from tntd.settings import Settings
from tntd.tasks import (
    Answer,
    AnyTask,
    DiscardPart,
    Done,
    Failed,
    Inspect,
    Inspected,
    OpenPart,
    OpenSource,
    Publish,
    Resolve,
    Resolved,
    SyncPart,
)
from tntd.wire.frames import (
    HEADER,
    TYPES,
    Ack,
    Body,
    Cancel,
    Decision,
    Envelope,
    Frame,
    Hello,
    LaneAnswer,
    LaneOffer,
    Offer,
    Read,
    Refused,
    Result,
    Text,
    Trusted,
    encode,
    encode_body,
)

from .bench import Bench
from .conversation import EXPORTER, Conversation
from .source import Source
from .target import Target, scenarios
from .values import struct

MALLORY, STRANGER = Identity(b"m" * 32), Identity(b"s" * 32)
STEPS_MAX = 120
CODES = ("ENOENT", "EACCES", "ENOSPC", "EEXIST", "TIMEOUT", "UNRESOLVED")
FLOWING = (Envelope, Ack, LaneOffer, LaneAnswer, Trusted, LaneAnswer, Envelope)
BODIES: tuple[type[Body], ...] = (
    Offer, Offer, Offer, Decision, Decision, Decision, Result, Cancel, Text, Read, Refused,
)  # fmt: skip
TRUST = ("accept",) * 5 + ("verified", "unblock", "unblock", "block", "remove")
WAITS_S = (0.01, 0.06, 0.6, 3.1, 16.0, 31.0, 61.0, 1000.0)
SETTINGS = (
    Settings(),
    Settings(auto_accept_bytes_max=0, advertise=["h:1"]),
    Settings(strangers=False, learn_addresses=False, read_receipts=False, advertise=[]),
)


class Hostile:
    """Plays a scenario."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.bench = Bench(source.pick(SETTINGS))
        self.user = self.bench.open_client(local_user=True)
        self._ids = 0
        self.links: list[Conversation] = []
        self.command("hello", protocol=1, client="fuzz")
        self.command("events.subscribe")
        self.command("peers.connect", address="127.0.0.9:9")
        self.link(MALLORY, step=3)
        often = [self.envelope, self.answer, self.lane_word, self.lane, self.user_does]
        self.steps: list[Callable[[], None]] = [
            *often * 4, self.answer, self.time, self.drain, self.flowing, self.bad, self.another,
            self.cut,
        ]  # fmt: skip

    def play(self) -> None:
        """Step by step, as long as there are decisions."""
        for _ in range(STEPS_MAX):
            if not self.source.left or self.bench.stopped:
                break
            self.source.pick(self.steps)()
        self.bench.wait(1.0)
        if not self.bench.stopped:
            self.bench.start()  # what is stored lets a new run begin
            self.bench.wait(70.0)

    # -- the link ----------------------------------------------------------------------

    @property
    def current(self) -> Conversation | None:
        """A link that is up; where there is none, mostly a new one."""
        alive = [each for each in self.links if each.alive]
        if not alive and not self.source.one_in(8):
            self.link(MALLORY, step=3)
            alive = [each for each in self.links[-1:] if each.alive]
        return self.source.pick(alive) if alive else None

    def link(self, identity: Identity, step: int = -1) -> None:
        """A link comes up, by a dial of theirs or ours, and gets `step` steps far."""
        bench, number = self.bench, self.bench.number()
        dial = next(iter(bench.dials), None)
        if step < 0:
            step = self.source.pick((3, 3, 3, 0, 1, 2))
            dial = dial if self.source.below(2) else None
        bench.dials.pop(dial or 0, None)
        bench.open_link(number)
        bench.turn(LinkOpened(number, dial, "127.0.0.9", 9, EXPORTER, "X25519"))
        made = Conversation(bench, identity, number, dialled=dial is None)
        self.links.append(made)
        if step:
            made.shake_hands(self._hello(), self._trusted() if step == 3 else None)

    def _hello(self) -> Hello:
        instance = self.source.pick((b"1" * 16, b"1" * 16, b"2" * 16))
        fixed = {"protocol_min": 1, "instance": instance, "name": "mallory", "explicit": True}
        return struct(self.source, Hello, self.bench.pool, **fixed)  # type: ignore[no-any-return]

    def _standing(self) -> tuple[bytes, int]:
        """The epoch and number up to which the daemon has our envelopes."""
        row = self.bench.store.contacts.by_key(MALLORY.public)
        known = row is not None and row.in_epoch is not None
        return (row.in_epoch, row.in_upto) if row and known else (b"E" * 16, 0)  # type: ignore[return-value]

    def _trusted(self) -> Trusted:
        epoch, upto = self._standing()
        return Trusted(
            epoch=epoch,
            lowest=1,
            highest=upto,
            peer_epoch=None,
            received=0,
            received_id=None,
            port=0,
            addresses=[],
        )

    def another(self) -> None:
        """One more link, mostly of the same contact; or a dial of ours that fails."""
        dial = next(iter(self.bench.dials), None)
        if dial is not None and self.source.one_in(3):
            del self.bench.dials[dial]
            self.bench.turn(DialFailed(dial, "refused"))
            return
        self.link(self.source.pick((MALLORY, MALLORY, MALLORY, STRANGER)))

    def bad(self) -> None:
        """What is likely to end the link."""
        self.source.pick((self.any_frame, self.raw_frame, self.bent_frame, self.raw_stream))()

    def cut(self) -> None:
        """What comes from below."""
        self.source.pick((self.hang_up, self.storage))()

    def hang_up(self) -> None:
        """A link is cut."""
        found = self.current
        if found is not None:
            del self.bench.links[found.link]
            self.bench.turn(LinkClosed(found.link, "cut"))

    # -- frames ------------------------------------------------------------------------

    def envelope(self) -> None:
        """Envelopes that are due, with proper bodies: what a real contact could send."""
        found = self.current
        if found is None:
            return
        epoch, upto = self._standing()
        frames = []
        for ahead in range(1 + self.source.below(3)):
            body = self._body()
            kind, data = encode_body(body)
            id = self.source.take(2).ljust(16, b"i")
            number = min(upto + 1 + ahead, 2**63 - 1)
            frames.append(Envelope(epoch=epoch, number=number, id=id, kind=kind, body=data))
            self.bench.pool.learn(body)
        found.say(*frames)

    def _body(self) -> Body:
        """A body that mostly speaks of what there is."""
        cls, source = self.source.pick(BODIES), self.source
        fixed: dict[str, object] = {}
        rows = self.bench.store.transfers.page(None, 20, None, None)
        if cls is Offer and not source.one_in(6):
            fixed = {"kind": "file", "files": 1, "size": 5, "name": b"n" + source.take(1)}
        elif cls in (Decision, Result, Cancel) and rows and not source.one_in(6):
            fixed = {"transfer": source.pick(rows).id}
        if cls is Decision and not source.one_in(4):
            fixed["accepted"] = True
        if cls is Result and not source.one_in(4):
            fixed["error"] = ""
        return struct(source, cls, self.bench.pool, **fixed)  # type: ignore[no-any-return]

    def flowing(self) -> None:
        """A frame that may come on an open link, its values from anywhere."""
        self._say(self.source.pick(FLOWING))

    def any_frame(self) -> None:
        """A frame of any type."""
        self._say(self.source.pick(list(TYPES.values())))

    def _say(self, cls: type[Frame]) -> None:
        found = self.current
        if found is not None:
            found.say(struct(self.source, cls, self.bench.pool))

    def lane_word(self) -> None:
        """A word on a lane: an answer to an offer of the daemon's, or an offer."""
        found, source = self.current, self.source
        rows = self.bench.store.transfers.page(None, 20, None, None)
        if found is None or not rows:
            return
        row = source.pick(rows)
        moving = self.bench.node._transfers.moving.get(row.row)
        ticket = source.take(1).ljust(16, b"t") if moving is None else moving.ticket
        ticket = ticket.ljust(16, b"\0")
        if row.outgoing:
            code = source.pick(("", "", "busy", "finishing", "unknown", "ended", "broken"))
            found.say(LaneAnswer(ticket=ticket, transfer=row.id, code=code))
        else:
            found.say(LaneOffer(ticket=ticket, transfer=row.id))

    def raw_frame(self) -> None:
        """Any type, any body."""
        found = self.current
        if found is not None:
            number = self.source.pick([*TYPES, 0x0FFF, 0x0FFE])
            body = self.source.take(self.source.below(60))
            found.stream(HEADER.pack(len(body) + 2, number) + body)

    def raw_stream(self) -> None:
        """Bytes that need not be frames."""
        found = self.current
        if found is not None:
            found.stream(self.source.take(self.source.below(40)))

    def bent_frame(self) -> None:
        """A frame with some bytes turned."""
        found = self.current
        if found is None:
            return
        cls = self.source.pick(list(TYPES.values()))
        data = bytearray(encode(struct(self.source, cls, self.bench.pool)))
        for _ in range(1 + self.source.below(3)):
            data[self.source.below(len(data))] ^= 1 << self.source.below(8)
        found.stream(bytes(data))

    # -- everybody else ----------------------------------------------------------------

    def command(self, method: str, **params: object) -> None:
        """A request of our own user."""
        self._ids += 1
        body = {"jsonrpc": "2.0", "id": self._ids, "method": method, "params": params}
        self.bench.turn(LineArrived(self.user, msgspec.json.encode(body)))

    def user_does(self) -> None:
        """Our user goes on as if nothing were wrong."""
        source = self.source
        who = source.pick(["mallory", *(row.name for row in self.bench.store.contacts.all())])
        match source.below(16):
            case 0 | 1 | 2 | 3 | 4 | 5:
                paths = ["/home/file", "/home/x"][: 1 + source.below(2)]
                self.command("transfers.send", to=who, paths=paths)
            case 6 | 7:
                self.command("messages.send", to=who, text="hello")
            case 8 | 9 | 10 | 11:
                self._decide(source.pick(("accept", "accept", "decline", "cancel")))
            case 12:
                self.command(f"contacts.{source.pick(TRUST)}", contact=who)
            case 13:
                self.command("peers.connect", address=source.pick(("9", "h:9", "[::1]:9")))
            case _:
                listed = {"messages": {"conversation": who}, "transfers": {}, "contacts": {}}
                kind = source.pick(list(listed))
                self.command(f"{kind}.list", **listed[kind])

    def _decide(self, word: str) -> None:
        from tntd.node.present import item_id

        rows = self.bench.store.transfers.page(None, 20, None, None)
        if rows:
            row = self.source.pick(rows)
            self.command(f"transfers.{word}", transfer=item_id(row.id))

    def drain(self) -> None:
        """Our user's client has read everything, and looks."""
        self.bench.drain(self.user)

    def answer(self) -> None:
        """A child answers."""
        tasks = self.bench.tasks
        if tasks:
            task = self.source.pick(sorted(tasks)[:8])
            self.bench.turn(Answered(task, self._answer(tasks.pop(task))))

    def _answer(self, request: AnyTask) -> Answer:
        if self.source.one_in(4):
            return Failed(self.source.pick(CODES), "it did not work")
        match request:
            case Inspect() | OpenSource() | OpenPart():
                kind = self.source.pick(("file", "file", "file", "folder"))
                size = self.source.pick((5, 5, 5, 6))
                free = self.source.pick((1 << 40, 1 << 40, 0))
                return Inspected(kind, size, 1, 1, 1, 1, False, free)
            case SyncPart() | Publish() | DiscardPart():
                return Done()
            case Resolve():
                return Resolved(["127.0.0.9", "::1"][: self.source.below(3)])

    def lane(self) -> None:
        """A lane goes on, or ends."""
        lanes = self.bench.lanes
        if not lanes:
            return
        number = self.source.pick(sorted(lanes))
        doing = self.source.below(5)
        if doing < 2:
            made = (LaneOpened(number), LaneProgressed(number, 3))[doing]
            self.bench.turn(made)
            return
        effect = lanes.pop(number)
        if doing == 2:
            code = self.source.pick(("cut", "source", "storage", "hash", "protocol"))
            self.bench.turn(LaneFailed(number, code, "it broke"))
        else:
            self.bench.turn(LaneOpened(number), LaneFinished(number, effect.size, b"d" * 32))

    def time(self) -> None:
        """Time goes by."""
        self.bench.wait(self.source.pick(WAITS_S), jump=self.source.one_in(6))

    def storage(self) -> None:
        """A commit fails, or the daemon is started anew."""
        if self.source.below(2):
            self.bench.turn(commit_fails=True)
            self.links.clear()
            return
        self.bench.start()
        self.links.clear()
        self.user = self.bench.open_client(local_user=True)
        self.command("hello", protocol=1, client="fuzz")
        self.command("events.subscribe")


def hostile_contact(data: bytes) -> None:
    """A scenario."""
    hostile = Hostile(Source(data))
    try:
        hostile.play()
    finally:
        hostile.bench.store.close()


PEER_TARGETS = (Target("hostile_contact", hostile_contact, scenarios, 1500),)
