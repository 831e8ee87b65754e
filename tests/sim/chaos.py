"""Strikes: each kind of fault as it is done to the world, at random times until `until`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .machine import DOWNLOADS, Machine
from .watcher import BYSTANDER

if TYPE_CHECKING:
    from .world import World

WINDOW_S = 6.0  # the longest time that a disk stays full, or a way silent, for most strikes
LONG_S = 70.0  # longer than the keep-alive


class Chaos:
    """Strikes a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._heap = world.heap
        self._faults = world.faults
        self._rng = world.heap.stream("chaos")
        self._moves = 0
        self.count = 0
        self._table: dict[str, Callable[[Machine], None]] = {
            "kill": lambda machine: machine.end("crash"),
            "crash": self._crash,
            "power": self._power,
            "shutdown": lambda machine: machine.stop(),
            "cut": self._cut,
            "silence": self._silence,
            "partition": self._partition,
            "move": self._move,
            "set clock": self._set_clock,
            "suspend": lambda machine: machine.sleep(self._window()),
            "disk full": self._disk_full,
            "disk error": self._disk_error,
            "commit error": self._commit_error,
            "child death": self._child_death,
            "lane cut": self._lane_cut,
            "lane damage": self._lane_damage,
            "client leaves": self._client_leaves,
            "bystander": self._bystander,
            "source changes": self._source_changes,
            "download changes": lambda machine: world.users[machine.name].edit_download(),
        }

    def begin(self) -> None:
        """Plan the first strike of each kind."""
        for kind in self._faults.every:
            self._plan(kind)

    def strike(self, kind: str, machine: Machine) -> None:
        """Do it now."""
        self.count += 1
        self._heap.note(machine.name, f"strike: {kind}")
        self._table[kind](machine)

    def _plan(self, kind: str) -> None:
        at = self._heap.now + self._rng.expovariate(1.0 / self._faults.every[kind])
        if at < self._faults.until:
            self._heap.at(at, lambda: self._due(kind))

    def _due(self, kind: str) -> None:
        self.strike(kind, self._rng.choice(self._world.machines))
        self._plan(kind)

    def _window(self) -> float:
        return self._rng.uniform(0.1, WINDOW_S if self._rng.random() < 0.8 else LONG_S)

    def _until(self, begin: Callable[[bool], None]) -> None:
        """Call with True now, and with False after a while."""
        begin(True)
        end = min(self._heap.now + self._window(), self._faults.until)
        self._heap.at(end, lambda: begin(False))

    def _power(self, machine: Machine) -> None:
        if self._rng.random() < 0.5:
            machine.end("power")
        else:  # while something arrives
            machine.lane_trap = ("power", self._rng.randrange(12))

    # -- kinds ---------------------------------------------------------------------------

    def _crash(self, machine: Machine) -> None:
        machine.fuse = self._rng.randrange(30)
        machine.fuse_power = self._rng.random() < 0.3

    def _cut(self, machine: Machine) -> None:
        live = self._world.network.live()
        if self._rng.random() < 0.7:
            self._world.network.cut_in = self._rng.randrange(12)
        elif live:
            self._world.network.cut(self._rng.choice(live))

    def _silence(self, machine: Machine) -> None:
        other = self._rng.choice([each for each in self._world.machines if each is not machine])
        seconds = self._window()
        self._world.network.silence(machine.name, other.name, seconds)

    def _partition(self, machine: Machine) -> None:
        seconds = self._window()
        for other in self._world.machines:
            if other is not machine:
                self._world.network.silence(machine.name, other.name, seconds)
                self._world.network.silence(other.name, machine.name, seconds)

    def _move(self, machine: Machine) -> None:
        self._moves += 1
        machine.host = f"198.51.100.{self._moves % 200 + 1}"
        self._world.network.names[f"{machine.name}.example"] = machine.host
        for connection in self._world.network.live():
            if any(end.process.machine is machine for end in connection.ends):
                for end in connection.ends:
                    end.out.drop()

    def _set_clock(self, machine: Machine) -> None:
        machine.clock.wall_offset += self._rng.choice((-1, 1)) * 10 ** self._rng.uniform(0, 7)
        machine.schedule()

    def _disk_full(self, machine: Machine) -> None:
        def turn(full: bool) -> None:
            machine.disk.full = full
            machine.database.set_full(full)

        self._until(turn)

    def _disk_error(self, machine: Machine) -> None:
        chance = self._rng.choice((0.1, 1.0))

        def turn(failing: bool) -> None:
            machine.disk.error_chance = chance if failing else 0.0

        self._until(turn)

    def _commit_error(self, machine: Machine) -> None:
        def turn(failing: bool) -> None:
            machine.database.failing = failing

        roll = self._rng.random()
        if roll < 0.7:
            machine.database.fail_in = self._rng.randrange(12)
            machine.link_trap = roll < 0.3
        else:
            self._until(turn)

    def _child_death(self, machine: Machine) -> None:
        if machine.process is not None:
            machine.process.disk_child.die()
            machine.process.net_child.die()

    def _lane_cut(self, machine: Machine) -> None:
        machine.lane_trap = ("cut", self._rng.randrange(12))

    def _lane_damage(self, machine: Machine) -> None:
        machine.lane_trap = ("damage", self._rng.randrange(12))

    def _source_changes(self, machine: Machine) -> None:
        if self._rng.random() < 0.5:
            machine.source_trap = self._rng.randrange(12)
        else:
            self._world.users[machine.name].change_source()

    def _client_leaves(self, machine: Machine) -> None:
        user = self._world.users[machine.name]
        self._rng.choice((user.client, user.guest)).leave()

    def _bystander(self, machine: Machine) -> None:
        """Somebody else puts a file where one of ours wants to go."""
        path = self._place_wanted(machine)
        above = path.rpartition(b"/")[0]
        if machine.disk.find(path) is None and machine.disk.find(above) is not None:
            file = machine.disk.put_durable(path, BYSTANDER)
            self._world.watcher.bystanders[machine.name, path] = file

    def _place_wanted(self, machine: Machine) -> bytes:
        """Where something of ours may want to go: into a folder that arrived, or beside it."""
        query = (
            "SELECT t.chosen, f.path FROM tree_files f JOIN transfers t ON f.transfer = t.row "
            "WHERE f.state IN ('failed', 'waiting') AND t.outgoing = 0 AND t.chosen IS NOT NULL"
        )
        found = machine.database.sql.execute(query).fetchall()
        if found and self._rng.random() < 0.8:
            return DOWNLOADS + b"/" + b"/".join(self._rng.choice(found))
        other = self._rng.choice(self._world.machines)
        ref = f"{other.name}-{self._rng.randrange(1, 20)}"
        return f"{DOWNLOADS.decode()}/new_{ref}{self._rng.choice(('-0.bin', ''))}".encode()
