"""A process with the whole shell and a node of ten lines: two links to itself, frames between.

Run by test_driver.py with a folder; says in one line of JSON what it has done, then idles until
a signal ends it.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from sides import NoLanes
from tntd.effects import Authenticated, Dial, Effect, SendFrame, Stop, Vouch
from tntd.events import Event, FrameArrived, LinkOpened, Now, Started, StopRequested
from tntd.shell.clock import Clock
from tntd.shell.control_server import ControlServer
from tntd.shell.control_sockets import open_unix
from tntd.shell.cuts import CutLog
from tntd.shell.driver import Driver
from tntd.shell.files import Files
from tntd.shell.links import Links
from tntd.shell.listener import Listener
from tntd.shell.listening import open_listeners
from tntd.shell.loop import Loop
from tntd.shell.tls import Tls
from tntd.shell.world import World
from tntd.signals import Signals
from tntd.store.database import Database
from tntd.wire.frames import HEADER

FRAMES = 100


class TinyNode:
    """Dials itself and sends frames along."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.frames = 0

    def handle(self, event: Event, now: Now) -> list[Effect]:
        match event:
            case Started():
                return [Vouch(frozenset({"127.0.0.1"})), Dial(1, "127.0.0.1", self.port)]
            case LinkOpened(link=link, dial=1):
                frame = HEADER.pack(4, 7) + b"hi"
                return [Authenticated(link, True), *[SendFrame(link, frame)] * FRAMES]
            case LinkOpened(link=link):
                return [Authenticated(link, True)]
            case FrameArrived():
                self.frames += 1
                if self.frames == FRAMES:
                    print(json.dumps({"frames": self.frames}), flush=True)
            case StopRequested():
                return [Stop()]
        return []

    def finish_turn(self, now: Now) -> list[Effect]:
        return []

    def fault(self, event: Event, error: Exception, now: Now) -> list[Effect]:
        sys.exit(f"{event}: {error!r}")

    def restart(self, reason: str, now: Now) -> list[Effect]:
        sys.exit(reason)

    def deadline(self) -> float | None:
        return None


class TinyStore(Database):
    """The transactions of the real store."""

    def idle(self) -> None:
        self.checkpoint()


class NoChildren:
    """Nobody asks them."""

    def ask(self, task: int, request: object) -> None:
        raise NotImplementedError


class NoLanesEither(NoLanes):
    """Nobody opens one."""

    def open(self, effect: object, export: object) -> None:
        raise NotImplementedError

    def start(self, effect: object) -> None:
        raise NotImplementedError

    def limit(self, effect: object) -> None:
        raise NotImplementedError

    def grow(self, effect: object) -> None:
        raise NotImplementedError

    def close(self, lane: int) -> None:
        raise NotImplementedError


def main(folder: Path) -> None:
    clock = Clock()
    loop = Loop(clock)
    cuts = CutLog(loop)
    links = Links(loop, Tls(), cuts)
    lanes = NoLanesEither()
    sockets, port, _ = open_listeners([], 0)
    listener = Listener(loop, sockets, links, lanes, cuts)
    control = ControlServer(loop, [open_unix(folder / "control")], cuts)
    world = World(
        links=links,
        listener=listener,
        lanes=lanes,
        control=control,
        children=NoChildren(),
        files=Files(),
        logger=logging.getLogger("tntd"),
    )
    store = TinyStore(folder / "store")
    driver = Driver(loop, clock, store, TinyNode(port), world)
    signals = Signals(loop, lambda: None)
    loop.post(Started(port))
    driver.run()
    signals.close()
    store.close()


main(Path(sys.argv[1]))
