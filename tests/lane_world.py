"""The shell's parts without a node: a turn by hand, and what was posted in it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import psutil

from harness import wait_for
from tntd.effects import Inbound, OpenLane, Outbound, StartLane
from tntd.events import Answered, Event, Now
from tntd.shell.children import Children
from tntd.shell.clock import Clock
from tntd.shell.files import Files
from tntd.shell.lanes import Lanes
from tntd.shell.loop import Loop
from tntd.tasks import Answer, AnyTask, Inspected, PrepareStage

TICKET, DIALLER, ACCEPTOR = b"t" * 16, b"d" * 32, b"a" * 32
SENDER, RECEIVER = 1, 2  # numbers of lanes
STAGE = b"stage"
CHILD_DEADLINE_S = 30.0
_TURN_S = 0.02
_LOOK_S = 0.05
_BOUND_S = 60.0  # of what should take well under a second; the machine may be busy

E = TypeVar("E", bound=Event)


def export(label: bytes, context: bytes, length: int) -> bytes | None:
    """Stands for the exporter of a link: each context has a key of its own."""
    return (label + context)[-length:]


class CalmClock(Clock):
    """A clock on which a machine that stands still for a while costs next to nothing: however
    late somebody looks at it, _LOOK_S at most have passed since the last look.  So what has to
    happen within a time has its turns for it.  It can be put forward."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0
        self._seen = self._calm = super().now().boot

    def now(self) -> Now:
        now = super().now()
        self._calm += min(now.boot - self._seen, _LOOK_S)
        self._seen = now.boot
        return Now(self._calm + self.ahead, now.wall_ms)


class World:
    """Loop, files, children and two sides' lanes, with every event that was posted."""

    def __init__(self) -> None:
        self.clock = CalmClock()
        self.loop, self.files = Loop(self.clock), Files()
        self.logger = logging.getLogger("tntd")
        self.children = Children(self.loop, self.files, self.logger, deadline_s=CHILD_DEADLINE_S)
        self.lanes = Lanes(self.loop, self.files, self.children, self.logger)
        self.others = Lanes(self.loop, self.files, self.children, self.logger)
        self.events: list[Event] = []
        self.released = self.proved = 0
        self._tasks = 0
        self._cleaners: list[Callable[[], None]] = []

    def close(self) -> None:
        """End everything."""
        for cleaner in self._cleaners:
            cleaner()
        self.lanes.close_all()
        self.others.close_all()
        self.files.close_all()
        self.children.close()
        self.loop.close()

    # -- turns ---------------------------------------------------------------------------

    def turn(self) -> None:
        """One turn, of 20 ms at most."""
        deadline = self.clock.now().boot + _TURN_S
        self.loop.collect(deadline)
        self.events += self.loop.take_events()
        self.loop.run_bulk()

    def until(self, happened: Callable[[], object], seconds: float = _BOUND_S) -> None:
        """Turn until `happened`."""
        end = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < end, f"it did not happen; events: {self.events[-10:]}"
            self.turn()

    def until_still(self, figure: Callable[[], object]) -> None:
        """Turn until `figure` has been the same for a good many turns."""
        same, last = 0, figure()
        end = time.monotonic() + _BOUND_S
        while same < 20:
            assert time.monotonic() < end, f"it does not come to rest: {last}"
            self.turn()
            same, last = (same + 1 if figure() == last else 0), figure()

    def turns(self, seconds: float) -> None:
        """Turn for some time, to see that something does not happen."""
        end = self.clock.now().boot + seconds
        while self.clock.now().boot < end:
            self.turn()

    def of(self, type: type[E], lane: int | None = None) -> list[E]:
        """The events of a type (of a lane) so far."""
        found = [event for event in self.events if isinstance(event, type)]
        return [each for each in found if lane is None or getattr(each, "lane", None) == lane]

    def wait(self, type: type[E], lane: int | None = None, seconds: float = _BOUND_S) -> E:
        """The first event of a type (of a lane)."""
        self.until(lambda: self.of(type, lane), seconds)
        return self.of(type, lane)[0]

    # -- children ------------------------------------------------------------------------

    def ask(self, request: AnyTask) -> int:
        """Ask a task; its number."""
        self._tasks += 1
        self.children.ask(self._tasks, request)
        return self._tasks

    def answer(self, task: int, seconds: float = _BOUND_S) -> Answer:
        """The answer to a task, which comes once."""
        self.until(lambda: self._answers(task), seconds)
        (answer,) = self._answers(task)
        return answer

    def do(self, request: AnyTask, seconds: float = _BOUND_S) -> Answer:
        """Ask and wait."""
        return self.answer(self.ask(request), seconds)

    def _answers(self, task: int) -> list[Answer]:
        return [each.answer for each in self.of(Answered) if each.task == task]

    @property
    def disk(self) -> int:
        """The process id of the child `disk`."""
        pid = self.children._disk.pid
        assert pid is not None
        return pid

    def stop_disk(self) -> int:
        """Make the child `disk` hang; its process id."""
        pid = self.disk
        os.kill(pid, signal.SIGSTOP)
        self._cleaners.append(lambda: _kill(pid))
        wait_for(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        return pid

    def kill_disk(self) -> int:
        """Kill the child `disk`; its process id.  Where one was killed just before, the next is
        waited for."""
        self.until(lambda: self.children._disk.pid is not None)
        pid = self.disk
        os.kill(pid, signal.SIGKILL)
        return pid

    def put_forward(self) -> None:
        """What a child is doing has taken too long."""
        self.turn()  # it has been handed over
        self.clock.ahead += CHILD_DEADLINE_S

    # -- lanes ---------------------------------------------------------------------------

    def stage(self, folder: Path, *, tree: bool = False, size: int = 0) -> Path:
        """Prepare where it is written."""
        found = self.do(PrepareStage(os.fsencode(folder), STAGE, tree, size, 0))
        assert isinstance(found, Inspected), found
        return folder / ".tnt-part" / os.fsdecode(STAGE)

    def listen(self, lanes: Lanes) -> int:
        """A listener that gives every connection to `lanes`; its port."""
        server = socket.create_server(("127.0.0.1", 0))
        server.setblocking(False)
        world = self

        class Listener:
            def ready(self, readable: bool, writable: bool) -> None:
                sock, address = server.accept()
                lanes.adopt(sock, address[0], world._release)

            def broke(self, error: Exception) -> None:
                raise AssertionError("the listener broke") from error

        self.loop.watch(server, Listener(), read=True, write=False)
        self._cleaners.append(lambda: (self.loop.unwatch(server), server.close())[1])
        port: int = server.getsockname()[1]
        return port

    def _release(self, proved: bool) -> None:
        self.released += 1
        self.proved += proved


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def effect_of(
    lane: int, job: Outbound | Inbound, *, dials: bool, port: int = 0, ticket: bytes = TICKET
) -> OpenLane:
    """The effect that opens one end."""
    return OpenLane(lane, 1, ticket, dials, "127.0.0.1", port, DIALLER, ACCEPTOR, job)


def sending(
    root: Path, *, dials: bool, port: int = 0, ticket: bytes = TICKET, lane: int = SENDER
) -> OpenLane:
    """The effect at the side that sends."""
    job = Outbound(os.fsencode(root))
    return effect_of(lane, job, dials=dials, port=port, ticket=ticket)


def inbound(folder: Path, size_max: int, *, tree: bool = False, **changes: Any) -> Inbound:
    """What the receiver takes, from the beginning."""
    job = Inbound(os.fsencode(folder), STAGE, tree, size_max, 0, b"", 0, False)
    return replace(job, **changes)


def receiving(
    job: Inbound, *, dials: bool, port: int = 0, ticket: bytes = TICKET, lane: int = RECEIVER
) -> OpenLane:
    """The effect at the side that receives."""
    return effect_of(lane, job, dials=dials, port=port, ticket=ticket)


def begin(
    lane: int = SENDER, number: int = 0, after: bytes = b"", *, asks: bool = False
) -> StartLane:
    """The effect that lets the sender go."""
    return StartLane(lane, number, after, asks)
