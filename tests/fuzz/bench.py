"""A whole node in memory with the world around it: what it asks for is kept, what it says checked.

What holds always: a turn is made as the driver makes one (savepoint, transaction, release), but an
exception out of the node is not forgiven: it ends the test.  Nothing is told to the node that the
shell could not tell it: no frame on a link that was closed, no event of a lane that is none.
"""

from __future__ import annotations

import random
from typing import Any

import msgspec

from tntd import limits
from tntd.control.visible import visible
from tntd.effects import (
    Ask,
    CancelDial,
    ClientAuthorised,
    CloseClient,
    CloseLane,
    CloseLink,
    Dial,
    Effect,
    Log,
    OpenLane,
    RaiseFrameLimit,
    SendFrame,
    SendLatest,
    SendLine,
    StartLane,
    Stop,
)
from tntd.events import (
    ClientClosed,
    ClientDrained,
    ClientOpened,
    ClockJumped,
    Event,
    LinkClosed,
    Now,
    Started,
    TimeCame,
)
from tntd.machines.addresses import is_numeric
from tntd.machines.identity import Identity
from tntd.node import Node
from tntd.node.core import Profile
from tntd.settings import Settings
from tntd.shell import child_wire
from tntd.store import Store
from tntd.tasks import AnyTask
from tntd.wire.frames import Envelope, Frame, FrameReader, decode, decode_body

from .values import Pool

ALICE = Identity(b"a" * 32)
TOKEN = b"t" * 32
LEVELS = {"debug", "info", "warning", "error"}
WALL_MS = 1_800_000_000_000


class Bench:
    """A daemon without a shell.  `frames` is what it said on each link since it was read."""

    def __init__(
        self,
        settings: Settings | None = None,
        store: Store | None = None,
        identity: Identity = ALICE,
    ) -> None:
        self.store = store or Store.open(":memory:")
        self._entropy = random.Random(1)
        self.profile = Profile(
            identity=identity,
            name="alice" if identity is ALICE else "bob",
            settings=settings or Settings(),
            downloads=b"/downloads",
            entropy=self._entropy.randbytes,
            rss_bytes=lambda: 1 << 24,
            token=TOKEN,
        )
        self.now = Now(1000.0, WALL_MS)
        self.pool = Pool()
        self.stopped = False
        self.fail_next = False  # the commit of the next turn
        self._number = 0
        self.start()

    def start(self) -> None:
        """A new run on the same store."""
        self.links: dict[int, FrameReader] = {}
        self.frames: dict[int, list[Frame]] = {}
        self._limits: dict[int, int] = {}
        self.closed_links: list[int] = []
        self.clients: dict[int, bool] = {}
        self.lines: dict[int, list[dict[str, Any]]] = {}
        self.tasks: dict[int, AnyTask] = {}
        self.dials: dict[int, Dial] = {}
        self.lanes: dict[int, OpenLane] = {}
        self.starts: dict[int, StartLane] = {}
        with self.store.transaction():
            self.node = Node(self.store, self.profile)
        self.turn(Started(6000))

    def number(self) -> int:
        """A number for a link or client."""
        self._number += 1
        return self._number

    # -- turns ------------------------------------------------------------------------

    def turn(self, *events: Event, commit_fails: bool = False) -> None:
        """One turn; what the shell would tell after it is told in the next one."""
        told = [*(LinkClosed(link, "closed") for link in self._take_closed()), *events]
        deadline = self.node.deadline()
        if deadline is not None and deadline <= self.now.boot:
            told.append(TimeCame())
        try:
            with self.store.transaction():
                effects = self._handle(told)
                if commit_fails or self.fail_next:
                    raise CommitFailed
        except CommitFailed:
            self.fail_next = False
            effects = self.node.restart("the disk is full", self.now)
        for effect in effects:
            self._perform(effect)
        self._look()

    def _handle(self, events: list[Event]) -> list[Effect]:
        effects: list[Effect] = []
        for event in events:
            with self.store.savepoint():
                effects += self.node.handle(event, self.now)
        return effects + self.node.finish_turn(self.now)

    def _take_closed(self) -> list[int]:
        closed, self.closed_links = self.closed_links, []
        for link in closed:
            self.links.pop(link, None)
        return closed

    def wait(self, seconds: float, *, jump: bool = False) -> None:
        """Time goes by; then a turn."""
        self.now = Now(self.now.boot + seconds, self.now.wall_ms + int(seconds * 1000))
        self.turn(*([ClockJumped()] if jump else []))

    # -- clients ----------------------------------------------------------------------

    def open_client(self, *, local_user: bool) -> int:
        """A client connects."""
        client = self.number()
        self.clients[client], self.lines[client] = local_user, []
        self.turn(ClientOpened(client, local_user))
        return client

    def close_client(self, client: int) -> None:
        """A client is gone."""
        if self.clients.pop(client, None) is not None:
            self.turn(ClientClosed(client))

    def drain(self, client: int) -> None:
        """A client has read everything."""
        if client in self.clients:
            self.turn(ClientDrained(client))

    # -- effects ----------------------------------------------------------------------

    def _perform(self, effect: Effect) -> None:  # noqa: C901, PLR0912
        match effect:
            case SendFrame():
                self._hear(effect)
            case RaiseFrameLimit():
                self._limits[effect.link] = effect.frame_bytes_max
            case CloseLink():
                if effect.link in self.links and effect.link not in self.closed_links:
                    self.closed_links.append(effect.link)
            case Dial():
                assert is_numeric(effect.host), effect
                self.dials[effect.dial] = effect
            case CancelDial():
                self.dials.pop(effect.dial, None)
            case Ask():
                child_wire.encode(child_wire.Request(1, effect.request))
                self.tasks[effect.task] = effect.request
            case OpenLane():
                assert len(effect.ticket) == 16 and effect.link in self.links, effect
                assert effect.lane not in self.lanes, "a lane that is opened twice"
                self.lanes[effect.lane] = effect
            case StartLane():
                assert effect.lane in self.lanes, "a lane that is started before it is opened"
                self.starts[effect.lane] = effect
            case CloseLane():
                self.lanes.pop(effect.lane, None)
            case SendLine() | SendLatest():
                self._tell(effect.client, effect.data)
            case CloseClient():
                self.clients.pop(effect.client, None)
            case ClientAuthorised():
                assert effect.client in self.clients
            case Log():
                assert effect.level in LEVELS
                assert visible(effect.text) == effect.text, ascii(effect.text)
            case Stop():
                self.stopped = True

    def _hear(self, effect: SendFrame) -> None:
        reader = self.links.get(effect.link)
        if reader is None:
            return
        reader.feed(effect.data)
        while (found := reader.next_frame()) is not None:
            frame = decode(*found)
            assert frame is not None
            self.pool.learn(frame)
            if isinstance(frame, Envelope):
                self.pool.learn(decode_body(frame.kind, frame.body))
            self.frames[effect.link].append(frame)

    def _tell(self, client: int, data: bytes) -> None:
        assert data.endswith(b"\n")
        for line in data.splitlines(keepends=True):
            assert len(line) <= limits.LINE_BYTES_MAX
            found = msgspec.json.decode(line)
            assert found["jsonrpc"] == "2.0"
            shown = found.get("params", {}).get("transfer", {})
            assert (shown.get("rate") or 0) >= 0 and (shown.get("eta_s") or 0) >= 0, shown
            if client in self.lines:
                self.lines[client].append(found)

    def open_link(self, link: int) -> None:
        """A link is there: from now on frames on it are read."""
        self.links[link] = FrameReader(limits.FRAME_BYTES_MAX)
        self.frames[link] = []

    # -- what holds between turns --------------------------------------------------------

    def _look(self) -> None:
        """What is in the node's memory agrees with the store and has a bound."""
        transfers: Any = self.node._queue.transfers
        assert len(transfers.moving) <= 2 * limits.LANES_MAX
        for row in (self.store.transfers.get(number) for number in transfers.moving):
            assert row is None or row.state in ("queued", "active"), f"{row.state} and still moving"
        live = {moving.lane for moving in transfers.moving.values()}
        assert set(self.lanes) <= live, "a lane that nobody waits for"
        for contact in self.store.contacts.all():
            assert 0 <= contact.out_acked <= contact.out_highest


class CommitFailed(Exception):
    """The disk is full."""
