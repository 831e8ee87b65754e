"""Performs effects: one row for each, and nothing decided.

What holds always: every effect type has a row (a test compares the table with the union), and
what is sent on links and to clients in a turn leaves with one `flush` at its end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from tntd import effects
from tntd.effects import Effect
from tntd.events import ClientOpened, Event, LineArrived, LinkOpened
from tntd.shell.control_server import ControlServer
from tntd.shell.links import Links
from tntd.shell.listener import Listener
from tntd.tasks import AnyTask

_LEVELS = logging.getLevelNamesMapping()


class Lanes(Protocol):
    """The part of the lanes that effects reach."""

    def open(
        self, effect: effects.OpenLane, export: Callable[[bytes, bytes, int], bytes | None]
    ) -> None:
        """Dial a lane or wait for one; `export` gives None where its link is gone."""

    def start(self, effect: effects.StartLane) -> None:
        """Let an outgoing lane send."""

    def grow(self, effect: effects.GrowLane) -> None:
        """Send more of a file that grows."""

    def limit(self, effect: effects.LimitLanes) -> None:
        """Change how fast lanes may go."""

    def close(self, lane: int) -> None:
        """Drop a lane."""


class Children(Protocol):
    """The part of the children that effects reach."""

    def ask(self, task: int, request: AnyTask) -> None:
        """Give a task to the child that does such."""


class Files(Protocol):
    """The part of the files that effects reach."""

    def close(self, handle: int) -> None:
        """Close an open file."""


class World:
    """The real one.  `stopping` turns true with the effect Stop."""

    def __init__(
        self,
        *,
        links: Links,
        listener: Listener,
        lanes: Lanes,
        control: ControlServer,
        children: Children,
        files: Files,
        logger: logging.Logger,
    ) -> None:
        self.stopping = False
        self._links = links
        self._listener = listener
        self._lanes = lanes
        self._control = control
        self._logger = logger
        self._table: dict[type[Any], Callable[[Any], None]] = {
            effects.Dial: links.dial,
            effects.CancelDial: links.cancel_dial,
            effects.SendFrame: links.send,
            effects.Authenticated: links.authenticated,
            effects.RaiseFrameLimit: links.raise_frame_limit,
            effects.CloseLink: links.close,
            effects.Vouch: listener.vouch,
            effects.OpenLane: self._open_lane,
            effects.StartLane: lanes.start,
            effects.GrowLane: lanes.grow,
            effects.LimitLanes: lanes.limit,
            effects.CloseLane: lambda effect: lanes.close(effect.lane),
            effects.CloseHandle: lambda effect: files.close(effect.handle),
            effects.Ask: lambda effect: children.ask(effect.task, effect.request),
            effects.SendLine: control.send,
            effects.SendLatest: control.send_latest,
            effects.ClientAuthorised: control.authorised,
            effects.CloseClient: control.close,
            effects.Log: self._log,
            effects.Stop: self._stop,
        }

    @property
    def drained(self) -> bool:
        """Nothing is left that has to be flushed or closed."""
        return self._links.idle and self._control.idle

    def perform(self, effect: Effect) -> None:
        """Do it."""
        self._table[type(effect)](effect)

    def flush(self) -> None:
        """Hand what was sent in this turn to the sockets."""
        self._links.flush()
        self._control.flush()

    def disown(self, event: Event) -> None:
        """The node has never heard of what this event told: end the link that it does not know,
        and the client that would wait for an answer for ever."""
        match event:
            case LinkOpened(link=link):
                self.perform(effects.CloseLink(link, "internal error"))
            case ClientOpened(client=client) | LineArrived(client=client):
                self.perform(effects.CloseClient(client))
            case _:
                pass

    def abandon(self, effect: Effect) -> None:
        """Performing it has hit a bug of ours: end the link or client that it was for."""
        match effect:
            case effects.SendFrame(link=link) | effects.Authenticated(link=link):
                self.perform(effects.CloseLink(link, "internal error"))
            case effects.SendLine(client=client) | effects.SendLatest(client=client):
                self.perform(effects.CloseClient(client))
            case _:
                pass

    def _open_lane(self, effect: effects.OpenLane) -> None:
        self._lanes.open(effect, partial(self._links.export, effect.link))

    def _log(self, effect: effects.Log) -> None:
        self._logger.log(_LEVELS.get(effect.level.upper(), logging.ERROR), "%s", effect.text)

    def _stop(self, _effect: effects.Stop) -> None:
        self.stopping = True
        self._listener.close()
        self._control.stop()
        self._links.close_all("the daemon stops")
