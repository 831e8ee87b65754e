"""A contact that has gone bad: proved and trusted, and then anything, while the daemon lives on.

Its bytes may only ever end its own link: an exception out of the node would, in the daemon, undo
an event, and for events that are not its own frames start the whole node over.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tntd.events import DialFailed, Event, LinkClosed, LinkOpened
from tntd.machines.identity import Identity
from tntd.settings import Settings
from tntd.store.transfers import TransferRow
from tntd.wire.frames import (
    HEADER,
    TYPES,
    Ack,
    Asking,
    Body,
    Cancel,
    Decision,
    Envelope,
    Fates,
    FileState,
    Frame,
    Hello,
    LaneAnswer,
    LaneOffer,
    LinkError,
    Offer,
    Pong,
    Read,
    Refused,
    Result,
    Steer,
    Text,
    Trusted,
    encode,
    encode_body,
)

from .answers import PATHS
from .around import Around
from .bench import Bench
from .conversation import Conversation, exporter
from .source import Source
from .target import Target, scenarios
from .values import EDGES, WORDS, struct

MALLORY, STRANGER = Identity(b"m" * 32), Identity(b"s" * 32)
STEPS_MAX = 120
FLOWING = (Envelope, Ack, LaneOffer, LaneAnswer, Trusted, LaneAnswer, Envelope)
BODIES: tuple[type[Body], ...] = (
    Offer, Offer, Offer, Decision, Decision, Decision, Result, Cancel, Text, Read, Refused, Steer,
    Steer, Fates,
)  # fmt: skip
OF_A_TRANSFER = (Asking, Decision, Result, Cancel, Steer, Fates)
ACTS = ("pause", "resume", "first", "again")
FATES = ("failed", "skipped", "failed", "verified", "waiting", "")
CODES = ("", "", "", "busy", "full", "finishing", "unknown", "undecided", "ended", "broken")
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
        self.around = around = Around(self.bench, source)
        self.links: list[Conversation] = []
        around.command("peers.connect", address="127.0.0.9:9")
        self.link(MALLORY, step=3)
        often = [self.envelope, around.answer, self.lane_word, around.lane, around.user_does]
        self.steps: list[Callable[[], None]] = [
            *often * 4, around.answer, around.time, around.drain, self.flowing, self.bad,
            self.another, self.cut, self.honest, self.honest, self.at_once,
            self.far, self.far, self.far,
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
        bench.turn(LinkOpened(number, dial, "127.0.0.9", 9, exporter(number), "X25519"))
        made = Conversation(bench, identity, number, dialled=dial is None)
        self.links.append(made)
        if step >= 1:
            made.prove()
        if step >= 2:
            made.greet(self._hello())
        if step >= 3:
            made.trust(self._trusted())

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

    def at_once(self) -> None:
        """Several links in one turn: what ends one has not yet closed the others."""
        events: list[Event] = []
        for _ in range(2 + self.source.below(4)):
            found = self.current
            if found is None:
                continue
            if not found.greeted and found.session.peer_key is not None:
                found.greeted = True
                frame: Frame = self._hello()
            elif self.source.one_in(3):
                del self.bench.links[found.link]
                events.append(LinkClosed(found.link, "cut"))
                continue
            else:
                frame = struct(self.source, self.source.pick(FLOWING), self.bench.pool)
            events += found.events(encode(frame))
        self.bench.turn(*events)

    def honest(self) -> None:
        """What keeps a link going: acknowledgements, signs of life, where the outboxes stand."""
        found, source = self.current, self.source
        row = self.bench.store.contacts.by_key(MALLORY.public)
        if found is None or row is None:
            return
        number = source.pick((row.out_highest, row.out_acked + 1, row.out_acked, 0))
        match source.below(4):
            case 0 | 1:
                found.say(Ack(epoch=row.out_epoch, number=number))
            case 2:
                found.say(Pong(nonce=source.below(5)))
            case _:
                head = self.bench.store.outbox.id_at(row.row, number)
                told = {"peer_epoch": row.out_epoch, "received": number, "received_id": head}
                changed = {} if source.one_in(3) else {"epoch": row.in_epoch or b"E" * 16}
                found.say(msgspec.structs.replace(self._trusted(), **told, **changed))

    def bad(self) -> None:
        """What is likely to end the link."""
        bad = (self.any_frame, self.raw_frame, self.bent_frame, self.raw_stream, self.last_word)
        self.source.pick(bad)()

    def last_word(self) -> None:
        """They end it for a reason that means something to us."""
        found = self.current
        if found is not None:
            code = self.source.pick(("twin", "replaced", "not_contact", "storage", "self"))
            found.say(LinkError(code=code, text="\x1b[2J"))

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
        rows = self._rows()
        if cls is Offer and not source.one_in(6):
            fixed = {"kind": "file", "files": 1, "size": 5, "name": b"n" + source.take(1)}
            if source.below(2):
                fixed |= {"kind": "folder", "files": source.pick((1, 0, 3, 2**63 - 1))}
        elif cls in OF_A_TRANSFER and rows and not source.one_in(6):
            fixed = {"transfer": source.pick(rows).id}
        if cls is Steer and not source.one_in(8):
            fixed["act"] = source.pick(ACTS)
        if cls is Fates:
            fixed["files"] = self._fates()
        if cls is Decision and not source.one_in(4):
            fixed["accepted"] = True
        if cls is Result and not source.one_in(4):
            fixed["error"] = ""
        return struct(source, cls, self.bench.pool, **fixed)  # type: ignore[no-any-return]

    def _rows(self) -> list[TransferRow]:
        """The transfers that are worth a word, mostly those that are taken."""
        rows = self.bench.store.transfers.page(None, 20, None, None)
        taken = [row for row in rows if row.accepted and not row.ended][:4]
        return taken if taken and self.source.below(3) else rows

    def _fates(self) -> list[FileState]:
        source = self.source
        return [
            FileState(source.pick(PATHS), source.pick(FATES), source.pick(WORDS)[:512])
            for _ in range(source.below(4))
        ]

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
        rows = self._rows()
        if found is None or not rows:
            return
        row = source.pick(rows)
        moving = self.bench.node._queue.transfers.moving.get(row.row)
        ticket = source.take(1).ljust(16, b"t") if moving is None else moving.ticket
        ticket = ticket.ljust(16, b"\0")
        if row.outgoing:
            fixed = {"ticket": ticket, "transfer": row.id, "code": source.pick(CODES)}
            found.say(struct(source, LaneAnswer, self.bench.pool, **fixed))
        else:
            size = source.pick((5, 5, 0, *EDGES))
            files = source.pick((1, 3, 2**63 - 1))
            found.say(LaneOffer(ticket=ticket, transfer=row.id, size=size, files=files))

    def far(self) -> None:
        """A word on a lane, and what it takes to get further from there."""
        around = self.around
        for step in (self.envelope, around.answer, self.lane_word, around.answer, around.lane):
            step()
        for step in (around.lane, around.answer, around.answer):
            step()

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

    def storage(self) -> None:
        """A commit fails, or the daemon is started anew."""
        if self.source.below(2):
            self.bench.turn(commit_fails=True)
        else:
            self.bench.start()
            self.around.attach()
        self.links.clear()


def hostile_contact(data: bytes) -> None:
    """A scenario."""
    hostile = Hostile(Source(data))
    try:
        hostile.play()
    finally:
        hostile.bench.store.close()


PEER_TARGETS = (Target("hostile_contact", hostile_contact, scenarios, 1500),)
