"""One run of a daemon: the real driver, node and store, and a world that performs effects.

What holds always: the turn is tntd/shell/driver.py as it is; each commit and each effect is a
point where the run may end (`Crash`), before or after; what a run has released before stays
released.  A run that has ended does nothing more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tntd import effects
from tntd.effects import Effect
from tntd.events import ClientOpened, Event, LaneFailed, LineArrived, LinkOpened, Now
from tntd.node import Node
from tntd.shell.driver import Driver
from tntd.shell.lane_shared import Budget

from .child import Child
from .disk import File
from .lanes import Keys, Lane
from .loop import SimLoop
from .network import End

if TYPE_CHECKING:
    from .client import Client
    from .machine import Machine

CLIENT_BUFFER_MAX = 16 << 20  # nobody asks for more here


class Process:
    """A daemon that runs on a machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.alive = True
        self.stopping = False
        self.loop = SimLoop(machine.clock, machine.schedule)
        self.ends: dict[int, End] = {}
        self.dials: set[int] = set()
        self.files: dict[int, File] = {}
        self.lanes: dict[int, Lane] = {}
        self.clients: dict[int, Client] = {}
        self.budget = Budget()  # of bytes that all lanes have written and not synced
        self.budget.on_full = lambda: self._all_lanes(lambda lane: lane.press())
        self.budget.on_room = lambda: self._all_lanes(lambda lane: lane.read())
        self.disk_child = Child(self, machine.faults.disk_s)
        self.net_child = Child(self, machine.faults.disk_s)
        self._table = self._rows()
        store = machine.database.store
        self.node = Node(store, machine.profile())
        handle = self.node.handle

        def handled(event: Event, now: Now) -> list[Effect]:
            effects = handle(event, now)
            machine.handled(effects)
            return effects

        self.node.handle = handled  # type: ignore[method-assign]
        self.driver = Driver(self.loop, machine.clock, store, self.node, self)  # type: ignore[arg-type]

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Run `action` in so many seconds if this run has not ended by then."""

        def run() -> None:
            if self.alive:
                action()

        self.machine.heap.after(seconds, run)

    def waiting_lane(self, keys: Keys) -> Lane | None:
        """The lane that waits for a dialler with these keys."""
        for lane in self.lanes.values():
            if lane.phase == "waiting" and not lane.effect.dials and lane.keys == keys:
                return lane
        return None

    def _all_lanes(self, act: Callable[[Lane], None]) -> None:
        for lane in list(self.lanes.values()):
            act(lane)

    def new_number(self) -> int:
        """A number for a walk or an open file of a lane; none of the node's."""
        return -self.loop.next_number()

    # -- what the driver calls -------------------------------------------------------------

    @property
    def drained(self) -> bool:
        """Not asked here: a stop lets all that was sent arrive."""
        return True

    def perform(self, effect: Effect) -> None:
        """Do it, unless the run ends right before or after."""
        self.machine.point("effect")
        self.machine.heap.note(self.machine.name, effect)
        self.machine.watcher.performed(self.machine, effect)
        self._table[type(effect)](effect)

    def flush(self) -> None:
        """Frames have left already: a crash between two effects of a turn lets the first go."""

    def disown(self, event: Event) -> None:
        """As tntd/shell/world.py."""
        match event:
            case LinkOpened(link=link):
                self.perform(effects.CloseLink(link, "internal error"))
            case ClientOpened(client=client) | LineArrived(client=client):
                self.perform(effects.CloseClient(client))
            case _:
                pass

    def abandon(self, effect: Effect) -> None:
        """A bug: the log of the driver has told the watcher."""

    # -- effects -------------------------------------------------------------------------

    def _rows(self) -> dict[type[Any], Callable[[Any], None]]:
        return {
            effects.Dial: lambda effect: self.machine.network.dial(self, effect),
            effects.CancelDial: lambda effect: self.dials.discard(effect.dial),
            effects.SendFrame: self._send_frame,
            effects.Authenticated: self._authenticated,
            effects.RaiseFrameLimit: self._raise_limit,
            effects.CloseLink: self._close_link,
            effects.Vouch: _nothing,
            effects.OpenLane: self._open_lane,
            effects.StartLane: self._start_lane,
            effects.GrowLane: self._grow_lane,
            effects.LimitLanes: _nothing,
            effects.CloseLane: self._close_lane,
            effects.CloseHandle: lambda effect: self.files.pop(effect.handle, None),
            effects.Ask: self._ask,
            effects.SendLine: self._send_line,
            effects.SendLatest: self._send_latest,
            effects.ClientAuthorised: _nothing,
            effects.CloseClient: self._close_client,
            effects.Log: _nothing,
            effects.Stop: self._stop,
        }

    def _send_frame(self, effect: effects.SendFrame) -> None:
        end = self.ends.get(effect.link)
        if end is not None:
            end.send(effect.data)

    def _authenticated(self, effect: effects.Authenticated) -> None:
        end = self.ends.get(effect.link)
        if end is not None:
            end.known = True

    def _raise_limit(self, effect: effects.RaiseFrameLimit) -> None:
        end = self.ends.get(effect.link)
        if end is not None:
            end.raise_limit(effect.frame_bytes_max)

    def _close_link(self, effect: effects.CloseLink) -> None:
        end = self.ends.get(effect.link)
        if end is not None:
            end.close(effect)

    def _open_lane(self, effect: effects.OpenLane) -> None:
        end = self.ends.get(effect.link)
        if end is None:
            text = "the link of the lane is gone"
            self.loop.post(LaneFailed(effect.lane, "cut", text))
            return
        keys = (end.connection.exporter, effect.ticket, effect.dialler, effect.acceptor)
        lane = self.lanes[effect.lane] = Lane(self, effect, keys)
        lane.start()

    def _start_lane(self, effect: effects.StartLane) -> None:
        lane = self.lanes.get(effect.lane)
        if lane is not None:
            lane.begin(effect)

    def _grow_lane(self, effect: effects.GrowLane) -> None:
        lane = self.lanes.get(effect.lane)
        if lane is not None:
            lane.grow(effect)

    def _close_lane(self, effect: effects.CloseLane) -> None:
        lane = self.lanes.get(effect.lane)
        if lane is not None:
            lane.close()

    def _ask(self, effect: effects.Ask) -> None:
        resolve = type(effect.request).__name__ == "Resolve"
        child = self.net_child if resolve else self.disk_child
        child.ask(effect.task, effect.request)

    def _send_line(self, effect: effects.SendLine) -> None:
        client = self.clients.get(effect.client)
        if client is not None:
            client.receive(effect.data)

    def _send_latest(self, effect: effects.SendLatest) -> None:
        client = self.clients.get(effect.client)
        if client is not None and not client.unread:
            client.receive_latest(effect.data)

    def _close_client(self, effect: effects.CloseClient) -> None:
        client = self.clients.pop(effect.client, None)
        if client is not None:
            client.closed()

    def _stop(self, _effect: effects.Stop) -> None:
        self.stopping = True


def _nothing(_effect: Effect) -> None:
    return None
