"""A computer: disk, database, clock, address, and the daemon that runs on it or does not.

What holds always: one turn at a time, only while it is awake and the daemon runs; whatever ends
a run goes through `end`, which leaves exactly what that kind of end leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tntd.effects import CloseLink, Effect
from tntd.events import Started, StopRequested
from tntd.machines.identity import Identity
from tntd.node.core import Profile
from tntd.settings import Settings

from .bounds import check_bounds
from .database import SimDatabase
from .disk import Disk
from .faults import Faults
from .heap import Heap, Violation
from .loop import WALL_START_S, SimClock
from .process import Process

if TYPE_CHECKING:
    from .network import Network
    from .watcher import Watcher

HOME = b"/home"
DOWNLOADS = HOME + b"/downloads"
SOURCES = HOME + b"/sources"
SPOOL = HOME + b"/spool"
TURNS_PER_S_MAX = 3000
NOISE_S = 1e-6  # so that a clock that is computed is not a hair too early


class Crash(BaseException):
    """The daemon ends here.  Not an Exception: nothing of the daemon may catch it."""


def _nothing(_path: bytes) -> None:
    return None


class Machine:
    """`fuse` is how many more points (commits, effects) the daemon lives, None for no end;
    `fuse_power` says that the power goes then."""

    def __init__(
        self, name: str, network: Network, watcher: Watcher, faults: Faults, settings: Settings
    ) -> None:
        self.name = name
        self.network = network
        self.watcher = watcher
        self.faults = faults
        self.settings = settings
        self.heap: Heap = network.heap
        self.rng = self.heap.stream(f"machine {name}")
        self.identity = Identity(self.rng.randbytes(32))
        self.host, self.port = "", 7000 + len(network.machines)
        self.clock = SimClock(self.heap)
        self.disk = Disk(self.heap.stream(f"disk {name}"), self.now_ns)
        self.disk.make_folder(DOWNLOADS)
        self.disk.make_folder(SOURCES)
        self.disk.make_folder(SPOOL)
        self.database = SimDatabase(self._at_commit)
        self.process: Process | None = None
        self.powered, self.asleep = True, False
        self.boot = self.rng.randbytes(16)  # another one after each power cut
        self.fuse: int | None = None
        self.fuse_power = False
        self.points = 0
        self.runs = 0
        self.turns = 0
        self.no_restart = False
        self.lane_trap = ("", 0)  # what happens to one of its lanes, so many records later
        self.link_trap = False  # the turn fails in which a link is given up
        self.source_trap: int | None = None  # so many reads later a file changes that is being sent
        self.edit_source: Callable[[bytes], None] = _nothing
        self.on_start: list[Callable[[], None]] = []
        self._scheduled = False
        self._wake_at: float | None = None
        self._second = (0, 0)
        network.machines[name] = self

    @property
    def reachable(self) -> bool:
        """Whether its network card answers."""
        return self.powered and not self.asleep

    def profile(self) -> Profile:
        """What a daemon is told at start."""
        return Profile(
            identity=self.identity,
            name=self.name,
            settings=self.settings,
            downloads=DOWNLOADS,
            entropy=self.rng.randbytes,
            rss_bytes=lambda: 1 << 24,
            boot=self.boot,
            spool=SPOOL,
        )

    def handled(self, effects: list[Effect]) -> None:
        """The node wants this, and nothing of it is committed."""
        if self.link_trap and any(isinstance(effect, CloseLink) for effect in effects):
            self.link_trap, self.database.fail_in = False, 0

    def reading(self, path: bytes) -> None:
        """A lane is about to read some of a large file: somebody may write into it just now."""
        if self.source_trap is not None:
            self.source_trap -= 1
            if self.source_trap < 0:
                self.source_trap = None
                self.edit_source(path)

    def now_ns(self) -> int:
        """Wall time, for files."""
        return int((WALL_START_S + self.heap.now + self.clock.wall_offset) * 1e9)

    # -- turns ---------------------------------------------------------------------------

    def schedule(self) -> None:
        """Something has happened: a turn follows soon."""
        if not self._scheduled:
            self._scheduled = True
            self.heap.after(self.faults.turn_s * self.rng.random(), self._run_scheduled)

    def _run_scheduled(self) -> None:
        self._scheduled = False
        self._turn()

    def _turn(self) -> None:
        process = self.process
        if process is None or self.asleep:
            return
        self._count_turn()
        try:
            process.driver.turn()
        except Crash:
            self.end("power" if self.fuse_power else "crash")
            return
        if process.stopping:
            self.end("stop")
            return
        forgotten = process.ends.keys() - process.node._links.all.keys()
        if forgotten and not process.loop.waits:
            raise Violation(f"{self.name} has forgotten link {min(forgotten)}, which is open")
        check_bounds(self, process)
        self._plan(process)

    def _count_turn(self) -> None:
        self.turns += 1
        second, count = self._second
        now = int(self.heap.now)
        self._second = (now, count + 1 if now == second else 1)
        if self._second[1] > TURNS_PER_S_MAX:
            raise Violation(f"{self.name} turns without end")

    def _plan(self, process: Process) -> None:
        wake = process.loop.wake_at(process.node.deadline())
        if wake is None:
            return
        at = max(self.clock.to_heap(wake) + NOISE_S, self.heap.now)
        if self._wake_at is not None and self.heap.now < self._wake_at <= at:
            return
        self._wake_at = at
        self.heap.at(at, lambda: self._woken(at))

    def _woken(self, at: float) -> None:
        if self._wake_at == at:
            self._wake_at = None
            self._turn()

    def point(self, what: str) -> None:
        """A place where the daemon may end."""
        self.points += 1
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self.fuse = None
                self.heap.note(self.name, f"ends at a point: {what}")
                raise Crash

    def _at_commit(self, when: str) -> None:
        if when == "after commit":
            self.watcher.committed(self)
        if self.process is not None:
            self.point(when)

    # -- lives ---------------------------------------------------------------------------

    def start(self) -> None:
        """Start the daemon (and the machine, where it is off)."""
        if self.process is not None or self.no_restart:
            return
        if not self.powered:
            self.powered = True
            self.boot = self.rng.randbytes(16)
            self.clock.booted_at = self.heap.now - self.rng.uniform(5.0, 60.0)
        self.heap.note(self.name, "starts")
        self.runs += 1
        self._scheduled, self._wake_at = False, None
        if self.heap.now < self.faults.until and self.rng.random() < self.faults.start_crash:
            self.fuse, self.fuse_power = self.rng.randrange(8), self.rng.random() < 0.5
        process = self.process = Process(self)
        process.loop.post(Started(self.port))
        self.network.kick()
        self._scheduled = True
        self._run_scheduled()
        if self.process is process:
            for call in self.on_start:
                call()

    def stop(self) -> None:
        """Ask the daemon to end."""
        if self.process is not None:
            self.process.loop.post(StopRequested())

    def end(self, how: str) -> None:
        """The daemon's run ends: "crash", "power" or "stop"."""
        process, self.process = self.process, None
        if process is None:
            return
        self.heap.note(self.name, f"ended: {how}")
        process.alive = False
        if how != "power":
            process.disk_child.orphan()
        self.network.ended(process, how)
        for lane in list(process.lanes.values()):
            if lane.out is not None:
                lane.out.cut(self.rng.random())
                if how != "power":
                    lane.out.finish("the lane broke")
        for client in list(process.clients.values()):
            client.closed()
        if how == "power":
            self.powered = False
            self.disk.lose_power()
            self.database.lose_power()
        self.watcher.ended(self, how)
        if not self.no_restart:
            delay = self.faults.start_s * (0.5 + self.rng.random())
            self.heap.after(delay + 0.01, self.start)

    def sleep(self, seconds: float) -> None:
        """Suspend; the boot clock runs on."""
        if self.asleep or not self.powered:
            return
        self.asleep = True
        self.heap.note(self.name, f"sleeps for {seconds:.1f} s")

        def wake() -> None:
            self.asleep = False
            self.clock.slept += seconds
            self.heap.note(self.name, "wakes")
            self.network.kick()
            self._turn()

        self.heap.after(seconds, wake)
