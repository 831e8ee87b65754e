"""A run: machines, users and faults from one seed; then calm, and everything must converge."""

from __future__ import annotations

import gc
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

from tntd import limits
from tntd.settings import Settings

from .chaos import Chaos
from .faults import Faults, draw
from .final import check_final, check_idle, unsettled
from .heap import Heap, Violation
from .machine import Machine
from .network import Network
from .user import Friend, User
from .watcher import Watcher

UNTIL_S = 60.0  # faults end
SETTLE_S = 600.0  # at most, until everything has converged
STEP_S = 5.0
IDLE_S = 200.0
NAMES = ("ann", "bob", "cid")
# As in life, but small, so that small files have many blocks and small folders many records.
SMALL = {
    "BLOCK_BYTES": 2048,
    "RECORD_PLAIN_BYTES_MAX": 2048 + 64,
    "PACK_PLAIN_BYTES_MAX": 2048 + 64,
    "PACK_FILE_BYTES_MAX": 600,
    "TREE_BLOCK_BYTES_MIN": 4096,
    "GROWING_BLOCK_BYTES": 8192,
    "TREE_BLOCKS_MAX": 8,
    "HASH_STEP_BYTES": 8192,
    "UNSYNCED_STEP_BYTES": 16384,
    "UNSYNCED_BYTES_MAX": 32768,
    "DISCARD_STEP_FILES": 3,
    "FATES_MAX": 2,
}


@dataclass(slots=True)
class Outcome:
    """What came of a run.  `problem` is empty where all is well."""

    seed: int
    digest: str
    problem: str
    faults: str
    steps: list[str]
    simulated_s: float
    messages: int
    files: int
    crashes: int
    strikes: int

    def report(self) -> str:
        """A failure in words."""
        lines = [f"seed {self.seed}: {self.problem}", f"faults: {self.faults}", "last steps:"]
        return "\n".join([*lines, *(f"  {step}" for step in self.steps)])


class _Bugs(logging.Handler):
    """The driver's log: an exception in it is a bug of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            raise Violation(f"{record.getMessage()}: {error!r}") from error


class World:
    """All of a run."""

    def __init__(self, seed: int, faults: Faults, count: int = 2) -> None:
        self.heap = Heap(seed)
        self.faults = faults
        self.rng = self.heap.stream("world")
        self.watcher = Watcher()
        self.network = Network(self.heap, faults)
        self.machines: list[Machine] = []
        self.users: dict[str, User] = {}
        for name in NAMES[:count]:
            self.add(name)
        self._befriend()
        self.chaos = Chaos(self)

    def add(self, name: str) -> Machine:
        """A machine and its user."""
        settings = Settings(
            auto_accept_bytes_max=self.rng.choice((1 << 30, 3500)),
            reserve_bytes=1000,
            read_receipts=self.rng.random() < 0.7,
        )
        machine = Machine(name, self.network, self.watcher, self.faults, settings)
        machine.host = f"192.0.2.{len(self.machines) + 1}"
        self.network.names[f"{name}.example"] = machine.host
        self.machines.append(machine)
        self.watcher.add(machine)
        self.users[name] = User(machine, self.watcher)
        return machine

    def _befriend(self) -> None:
        by_name = "move" in self.faults.every or self.rng.random() < 0.3
        for index, one in enumerate(self.machines):
            for other in self.machines[index + 1 :]:
                host = f"{other.name}.example" if by_name else other.host
                self.users[one.name].friends.append(Friend(other, f"{host}:{other.port}"))
                self.users[other.name].friends.append(Friend(one))

    def start(self) -> None:
        """Everybody starts their daemon."""
        for machine in self.machines:
            machine.start()

    # -- a whole run ---------------------------------------------------------------------

    def run(self) -> None:
        """Start, live with faults, calm down, converge, idle.  Raises Violation."""
        self.start()
        self.chaos.begin()
        if self.faults.damage:
            self.heap.at(self.faults.damage_at * 0.5, self._copy)
            self.heap.at(self.faults.damage_at, self._damage)
        for user in self.users.values():
            self._plan_act(user)
            self._plan_pipe(user)
        self.heap.run(self.faults.until)
        self.calm()
        self.settle()
        check_final(self)
        self.idle()

    def _plan_act(self, user: User) -> None:
        user.persistent = True

        def act() -> None:
            user.act()
            self._plan_act(user)

        at = self.heap.now + user.rng.expovariate(1.0 / 2.5)
        if at < self.faults.until:
            self.heap.at(at, act)

    def _plan_pipe(self, user: User) -> None:
        def pipe() -> None:
            user.send_pipe()
            self._plan_pipe(user)

        at = self.heap.now + user.pipe_rng.expovariate(1.0 / 25.0)
        if at < self.faults.until:
            self.heap.at(at, pipe)

    def calm(self) -> None:
        """Faults end."""
        self.heap.note("world", "calm")
        self.network.heal()
        for machine in self.machines:
            machine.fuse = machine.source_trap = None
            machine.lane_trap, machine.link_trap = ("", 0), False
            machine.disk.full, machine.disk.error_chance, machine.disk.stuck = False, 0.0, ""
            machine.database.failing, machine.database.fail_in = False, None
            machine.database.set_full(False)
            if machine.process is None:
                machine.start()
            self.users[machine.name].calm_down()

    def settle(self) -> None:
        """Wait until everything has converged.  Raises Violation where it does not."""
        end = self.heap.now + SETTLE_S
        while problem := unsettled(self):
            if self.heap.now >= end:
                raise Violation(f"not converged {SETTLE_S:.0f} s after all faults: {problem}")
            self.heap.run(self.heap.now + STEP_S)

    def idle(self) -> None:
        """Nobody does anything: nothing may happen but keep-alives."""
        for user in self.users.values():
            user.quiet = True
        self.heap.run(self.heap.now + 2 * limits.KEEPALIVE_S)
        before = {machine.name: machine.turns for machine in self.machines}
        self.heap.run(self.heap.now + IDLE_S)
        check_idle(self, before, IDLE_S)

    def run_twice(self, machine: Machine, image: bytes, until: float) -> None:
        """A copy of the machine with the same key and an image of its database runs for a while."""
        name = f"{machine.name}-twin"
        twin = Machine(name, self.network, self.watcher, self.faults, machine.settings)
        twin.identity, twin.host = machine.identity, "203.0.113.9"
        twin.database.load(image)
        self.watcher.add(twin)
        self.watcher.restored(twin)
        user = User(twin, self.watcher)
        user.friends = [Friend(each.machine) for each in self.users[machine.name].friends]
        twin.start()
        self._plan_act(user)

        def end() -> None:
            twin.no_restart = True
            twin.end("crash")
            user.quiet = True

        self.heap.at(until, end)

    # -- damage --------------------------------------------------------------------------

    def _copy(self) -> None:
        self._victim = self.rng.choice(self.machines)
        self._image = self._victim.database.copy()

    def _damage(self) -> None:
        machine = self._victim
        self.heap.note(machine.name, f"damage: {self.faults.damage}")
        if self.faults.damage == "twin":
            until = min(self.faults.until, self.heap.now + 30.0 * self.rng.random())
            self.run_twice(machine, self._image, until)
            return
        self.replace_database(machine, self._image if self.faults.damage == "restore" else None)

    def replace_database(self, machine: Machine, image: bytes | None) -> None:
        """Put an older copy in the place of a machine's database, or none."""
        machine.no_restart = True
        machine.end("crash")
        machine.no_restart = False
        if image is not None:
            machine.database.load(image)
        else:
            machine.database.lose()
        self.watcher.restored(machine)
        self.users[machine.name].client.forget()
        self.users[machine.name].guest.forget()
        for feeder in self.users[machine.name].feeders:
            feeder.forget()
        self.heap.after(self.faults.start_s + 0.1, machine.start)


@contextmanager
def _bugs_told() -> Iterator[None]:
    """What the driver logs as a bug is a violation."""
    logger, handler = logging.getLogger("tntd"), _Bugs()
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


@contextmanager
def _collected_after() -> Iterator[None]:
    """A world is small and all of it is garbage at once: looking for some meanwhile costs a
    sixth of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def simulate(
    seed: int,
    faults: Faults | None = None,
    act: Callable[[World], None] | None = None,
    count: int = 0,
) -> Outcome:
    """Run a seed, with the faults that it draws unless others are given."""
    rng = Heap(seed).stream("faults")
    count = count or rng.choice((2, 2, 2, 3))
    faults = faults or draw(rng, UNTIL_S)
    world = World(seed, faults, count)
    problem = ""
    with _bugs_told(), _collected_after(), mock.patch.multiple(limits, **SMALL):
        try:
            (act or World.run)(world)
        except Violation as violation:
            problem = str(violation)
        except Exception as error:  # noqa: BLE001 - whatever it is, the seed has found it
            problem = "".join(traceback.format_exception(error)[-4:])
    return Outcome(
        seed=seed,
        digest=world.heap.trace.digest(),
        problem=problem,
        faults=faults.words(),
        steps=world.heap.trace.words(),
        simulated_s=world.heap.now,
        messages=sum(len(m.place) for m in world.watcher.mirrors.values()),
        files=world.watcher.files_arrived,
        crashes=sum(machine.runs - 1 for machine in world.machines),
        strikes=world.chaos.count,
    )
