"""Bulk lanes: connections of their own for the bytes of files.

The node agrees a ticket over the link and asks both ends to open; the side that dialled the
link dials the lane too, to the same port.  See ../wire/LANE.md for the protocol.

What holds always: a connection becomes a lane only by a first record sealed with keys that only
the two ends of the link can have; a ticket is good for one lane and for 30 s.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from logging import Logger
from typing import Final

from tntd import limits
from tntd.effects import GrowLane, LimitLanes, OpenLane, StartLane
from tntd.events import LaneFailed
from tntd.machines import lane_keys, squeeze
from tntd.shell.children import Children
from tntd.shell.cuts import CutLog
from tntd.shell.files import Files
from tntd.shell.lane_session import Lane, Phase
from tntd.shell.lane_shared import Shared
from tntd.shell.lane_stranger import Stranger
from tntd.shell.lane_throttle import Throttles
from tntd.shell.loop import Loop

# The TLS exporter of the lane's link: (label, context, length) -> key; None where it is gone.
Export = Callable[[bytes, bytes, int], bytes | None]

_STRANGERS_MAX: Final = limits.STRANGERS_MAX + limits.CONTACT_RESERVE_MAX


class Lanes:
    """All lanes of the daemon."""

    def __init__(self, loop: Loop, files: Files, children: Children, logger: Logger) -> None:
        squeeze.available()  # loaded now, not when there may be no descriptor left
        self._loop = loop
        self._cuts = CutLog(loop)
        self._shared = Shared(loop, files, children, logger, Throttles(loop))
        self._shared.budget.on_full = self._press
        self._shared.budget.on_room = self._resume
        self._shared.throttles.up.on_free = self._shared.throttles.down.on_free = self._let_go_on
        self._lanes: dict[int, Lane] = {}
        self._strangers: dict[Stranger, tuple[str, Callable[[bool], None]]] = {}

    def open(self, effect: OpenLane, export: Export) -> None:
        """Open a lane: LaneOpened, LaneProgressed, LaneEntries, LaneFinished or LaneFailed
        follow."""
        forth, back = (
            export(lane_keys.LABEL, context, lane_keys.KEY_BYTES)
            for context in lane_keys.contexts(effect.ticket, effect.dialler, effect.acceptor)
        )
        if forth is None or back is None:
            self._loop.post(LaneFailed(effect.lane, "cut", "the connection to them is gone"))
            return
        lane = self._lanes[effect.lane] = Lane(effect, forth, back, self._shared, self._ended)
        lane.start()

    def start(self, effect: StartLane) -> None:
        """Let an outgoing lane send; does nothing where there is none of that number."""
        found = self._lanes.get(effect.lane)
        if found is not None:
            found.begin(effect)

    def grow(self, effect: GrowLane) -> None:
        """There is more of what an outgoing lane sends; does nothing where there is no such."""
        found = self._lanes.get(effect.lane)
        if found is not None:
            found.grow(effect)

    def limit(self, effect: LimitLanes) -> None:
        """Change how fast lanes may go."""
        self._shared.throttles.limit(effect)

    def close(self, lane: int) -> None:
        """Drop a lane; does nothing where there is none of that number."""
        found = self._lanes.get(lane)
        if found is not None:
            found.close()

    def adopt(self, sock: socket.socket, host: str, release: Callable[[bool], None]) -> None:
        """Take over a connection that was accepted from `host`, nothing of which is read yet
        and whose first byte is that of a lane.  `release` is called once: with True when it has
        proved to be one of our lanes, with False when it is closed."""
        sock.setblocking(False)
        if len(self._strangers) >= _STRANGERS_MAX:
            sock.close()
            release(False)
            self._cuts.add(host, "too many that may be lanes")
            return
        stranger = Stranger(sock, self._loop, self._find, self._stranger_done)
        self._strangers[stranger] = (host, release)

    def close_all(self) -> None:
        """Drop everything."""
        for lane in list(self._lanes.values()):
            lane.close()
        for stranger in list(self._strangers):
            stranger.close("the daemon ends")

    # -- called back ---------------------------------------------------------------------

    def _find(self, ticket: bytes) -> Lane | None:
        for lane in self._lanes.values():
            waits = lane.phase is Phase.WAITING and not lane.effect.dials
            if waits and lane.effect.ticket == ticket:
                return lane
        return None

    def _stranger_done(self, stranger: Stranger, reason: str) -> None:
        host, release = self._strangers.pop(stranger)
        release(not reason)
        if reason:
            self._cuts.add(host, reason)

    def _ended(self, lane: Lane) -> None:
        self._lanes.pop(lane.effect.lane, None)

    def _press(self) -> None:
        for lane in list(self._lanes.values()):
            lane.press()

    def _let_go_on(self) -> None:
        for lane in list(self._lanes.values()):
            lane.let_go_on()

    def _resume(self) -> None:
        for lane in list(self._lanes.values()):
            lane.resume()
