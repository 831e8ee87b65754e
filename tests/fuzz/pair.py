"""Two nodes and a folder between them: wishes of both users that cross, lanes that come and go.

What holds always, when all has been heard and every lane had its chance: both sides show the
same, whatever crossed and in which order it was heard.
"""

from __future__ import annotations

from collections import deque

import msgspec

from tntd import limits
from tntd.events import (
    Answered,
    Event,
    FrameArrived,
    LaneEntries,
    LaneFailed,
    LaneFinished,
    LaneOpened,
    LineArrived,
    LinkOpened,
)
from tntd.machines.identity import Identity
from tntd.node.present import item_id
from tntd.store.transfers import TransferRow
from tntd.tasks import (
    Answer,
    AnyTask,
    Counted,
    CountTree,
    DiscardPart,
    Done,
    Entry,
    Failed,
    Inspected,
    MergeStage,
    SweepStage,
    SyncStage,
    Unpacked,
)
from tntd.wire.frames import HEADER, encode

from .bench import ALICE, Bench
from .source import Source
from .target import Target, scenarios

BOB = Identity(b"b" * 32)
LINK = 1000
ACTS = ("pause", "pause", "resume", "resume", "first", "again", "cancel")
STEPS_MAX = 60
ROUNDS_MAX = 300
FILES = (b"a", b"b")


class Side:
    """One of the two, with its user."""

    def __init__(self, identity: Identity, *, sends: bool) -> None:
        self.bench = Bench(identity=identity)
        self.sends = sends
        self.heard: deque[bytes] = deque()  # frames that are on their way to it
        self.heard_at = self.bench.now.boot
        self._ids = 0
        self.client = self.bench.open_client(local_user=True)
        self.command("hello", protocol=1, client="pair")

    def command(self, method: str, **params: object) -> None:
        """A request of its user."""
        self._ids += 1
        body = {"jsonrpc": "2.0", "id": self._ids, "method": method, "params": params}
        self.bench.turn(LineArrived(self.client, msgspec.json.encode(body)))

    @property
    def has_it(self) -> bool:
        """Whether the transfer is known to it."""
        return bool(self.bench.store.transfers.page(None, 1, None, None))

    @property
    def row(self) -> TransferRow:
        """The transfer."""
        return self.bench.store.transfers.page(None, 1, None, None)[-1]


class Pair:
    """The sender (alice) and the receiver (bob), linked."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._met: set[int] = set()  # lanes whose other end has gone its way
        self.alice, self.bob = Side(ALICE, sends=True), Side(BOB, sends=False)
        self.sides = (self.alice, self.bob)
        self.alice.command("peers.connect", address="127.0.0.9:9")
        dial = next(iter(self.alice.bench.dials))
        del self.alice.bench.dials[dial]
        for side, number in ((self.alice, dial), (self.bob, None)):
            side.bench.open_link(LINK)
            opened = LinkOpened(LINK, number, "127.0.0.9", 9, b"e" * 32, "X25519")
            side.bench.turn(opened)
        self.quiet()
        self.bob.command("contacts.accept", contact="alice")
        self.quiet()
        self.alice.command("transfers.send", to="bob", paths=["/tree"])
        self.answer(self.alice, well=True)
        self.answer(self.alice, well=True)

    # -- what goes on --------------------------------------------------------------------

    def collect(self) -> None:
        """What the two have said is on its way."""
        for side, other in (self.sides, self.sides[::-1]):
            frames = side.bench.frames.get(LINK, [])
            other.heard.extend(encode(frame) for frame in frames)
            frames.clear()

    def hear(self, side: Side) -> None:
        """The next frame arrives."""
        self.collect()
        if side.heard:
            data = side.heard.popleft()
            side.heard_at = side.bench.now.boot
            _, number = HEADER.unpack_from(data)
            side.bench.turn(FrameArrived(LINK, number, data[HEADER.size :]))
            self.collect()

    def wait(self, side: Side, seconds: float) -> None:
        """Time goes by, but not so much in silence that the link is given up for dead."""
        if side.bench.now.boot + seconds < side.heard_at + limits.KEEPALIVE_S:
            side.bench.wait(seconds)

    def answer(self, side: Side, *, well: bool = False) -> None:
        """A child answers."""
        tasks = side.bench.tasks
        if tasks:
            task = min(tasks)
            side.bench.turn(Answered(task, self._answer(tasks.pop(task), well=well)))

    def _answer(self, request: AnyTask, *, well: bool) -> Answer:
        fails = not well and self.source.one_in(6)
        match request:
            case CountTree():
                return Counted(len(FILES), 5, True)
            case SweepStage() | SyncStage() | DiscardPart():
                return Done()
            case MergeStage() if not fails:
                return Unpacked([], 0, b"", 0)
            case _ if fails:
                return Failed(self.source.pick(("EACCES", "ENOSPC")), "it did not work")
        return Inspected("folder", 1, 1, 1, 1, 1, False, 1 << 50)

    def lane(self, side: Side, *, well: bool = False) -> None:
        """A lane of one side goes its whole way, breaks, or finds nobody."""
        lanes = side.bench.lanes
        if not lanes:
            return
        number, effect = lanes.popitem()
        other = self.bob if side is self.alice else self.alice
        met = [key for key, each in other.bench.lanes.items() if each.ticket == effect.ticket]
        # Nothing is sent before it may be, nothing arrives before it was sent.
        waits = number not in side.bench.starts if side.sends else bool(met)
        if waits:
            lanes[number] = effect
        elif not (met or number in self._met) or (not well and self.source.one_in(5)):
            code = "cut" if well else self.source.pick(("cut", "cut", "storage", "away", "source"))
            side.bench.turn(LaneFailed(number, code, "it broke"))
        else:
            self._met.update(met)
            side.bench.turn(*self._way(side, number, well=well))

    def _way(self, side: Side, lane: int, *, well: bool) -> list[Event]:
        state = "waiting" if side.sends else "verified"
        found = [Entry(path, 2, state) for path in FILES]
        if not side.sends and not well and self.source.one_in(3):
            found[-1] = Entry(FILES[-1], 2, "failed", "no room")
        entries = LaneEntries(lane, tuple(found), 3, FILES[-1], 4)
        return [LaneOpened(lane), entries, LaneFinished(lane, 4, b"", bytes_sent=4)]

    # -- how it ends ---------------------------------------------------------------------

    def quiet(self, *, well: bool = True) -> None:
        """All that is on its way arrives, all that is asked is answered."""
        for _ in range(ROUNDS_MAX):
            self.collect()
            if not any(side.heard or side.bench.tasks for side in self.sides):
                return
            for side in self.sides:
                self.hear(side)
                self.answer(side, well=well)
        raise AssertionError("they go on and on")

    def settle(self) -> None:
        """Every lane gets its chance, until nothing is left to do."""
        for _ in range(60):
            self.quiet()
            if self.bob.row.state == "offered":
                self.bob.command("transfers.accept", transfer=item_id(self.bob.row.id))
                self.quiet()
            if not any(side.bench.lanes for side in self.sides) and self._rests():
                return
            for side in self.sides:
                self.lane(side, well=True)
            for side in self.sides:
                side.bench.wait(5.0)

    def _rests(self) -> bool:
        return all(side.row.ended or side.row.state == "paused" for side in self.sides)

    def check(self) -> None:
        """Both sides show the same."""
        ours, theirs = self.alice.row, self.bob.row
        shown = (ours.state, theirs.state)
        same = ours.state == theirs.state
        # What fails here before it was sent is cancelled there, with a reason.
        assert same or set(shown) == {"failed", "cancelled"}, shown
        if not ours.ended:
            assert bool(ours.again) == bool(theirs.again), (ours, theirs)
        assert ours.failed == theirs.failed, (ours.failed, theirs.failed)


def pair(data: bytes) -> None:
    """A scenario."""
    source = Source(data)
    made = Pair(source)
    try:
        for _ in range(STEPS_MAX):
            if not source.left:
                break
            side = source.pick(made.sides)
            match source.below(8):
                case 0 | 1 | 2:
                    made.hear(side)
                case 3 | 4:
                    made.answer(side)
                case 5:
                    made.lane(side)
                case 6:
                    made.wait(side, source.pick((0.1, 1.0, 5.0)))
                case _ if side.has_it:
                    act = source.pick(ACTS if source.one_in(4) else ACTS[:-1])
                    side.command(f"transfers.{act}", transfer=item_id(side.row.id))
        made.settle()
        made.check()
    finally:
        for side in made.sides:
            side.bench.store.close()


PAIR_TARGETS = (Target("pair", pair, scenarios, 800),)
