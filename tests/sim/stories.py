"""Scenarios that catch what seeds do not, or seldom: each is a test, and some have a mutant.

What holds always: a story is a function without arguments that raises AssertionError where the
product breaks a promise; a mutant that names it (`mutants.py`) is caught by it alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

from tntd import limits
from tntd.node.present import item_id
from tntd.settings import Settings
from tntd.store.trees import NOT_SENT
from tntd.tasks import SyncPart, SyncStage

from .child_source import PARTS
from .disk import File, Folder, files
from .faults import Faults
from .machine import DOWNLOADS, SOURCES, Machine
from .scenario import Act, friends, scenario
from .user import User
from .watcher import parts_of
from .world import World

STEP_S = 0.002


# -- words ----------------------------------------------------------------------------------


def wait_until(
    world: World, reached: Callable[[], bool], seconds: float = 30.0, step: float = STEP_S
) -> None:
    """Until something is so, or it never will be."""
    end = world.heap.now + seconds
    while not reached():
        assert world.heap.now < end, "that never came"
        world.heap.run(world.heap.now + step)


def states(world: World) -> list[list[str]]:
    """The states of all transfers, machine by machine."""
    query = "SELECT state FROM transfers ORDER BY row"
    return [[s for (s,) in m.database.sql.execute(query)] for m in world.machines]


def steer(user: User, verb: str, which: int = 0) -> None:
    """Have the user do something with one of their transfers."""
    found = user.machine.database.sql.execute("SELECT id FROM transfers ORDER BY row").fetchall()
    params = {"transfer": item_id(found[which][0])}
    user.client.request(f"transfers.{verb}", params, lambda result, error: None)


def is_asked(machine: Machine, *tasks: type) -> bool:
    """Whether the child has such a task."""
    process = machine.process
    return process is not None and any(isinstance(each, tasks) for each in process.disk_child.tasks)


def send_a_long_file(world: World) -> None:
    """One that is synced while it arrives."""
    ann, _ = friends(world)
    ann.send_files(ann.friends[0], 1, size=40_000)


def send_a_long_tree(world: World) -> None:
    """The same of a folder."""
    ann, _ = friends(world)
    for number in range(8):
        ann.make_source(b"%s/tree/file %d" % (SOURCES, number), (500, 9000)[number % 2])
    ann.send_paths(ann.friends[0], [SOURCES + b"/tree"])


def take_all(world: World, machine: Machine, **others: Any) -> None:
    """Begin anew with a daemon that asks nobody before it takes something."""
    machine.settings = Settings(reserve_bytes=0, **others)
    machine.end("crash")
    world.heap.run(world.heap.now + 10.0)


def some_files_fail(world: World, count: int = 1) -> None:
    """Ann sends a folder, some files of which fail, as they change while they are read."""
    ann, bob = friends(world)
    take_all(world, bob.machine)
    root = SOURCES + b"/tree"
    for number in range(count):
        ann.make_source(b"%s/changes %d" % (root, number), 9000)
    changed: set[bytes] = set()

    def reading(path: bytes) -> None:
        if path not in changed:
            changed.add(path)
            ann.edit_source(path)

    with mock.patch.object(ann.machine, "reading", reading):
        ann.send_paths(ann.friends[0], [root])
        world.heap.run(world.heap.now + 30.0)
    assert states(world) == [["failed"], ["failed"]]


# -- what a sync has lost -------------------------------------------------------------------


def lose(act: Act, how: str, stuck: str = "") -> None:
    """The disk is full just when what has come so far is synced.  The daemon hears of it ("heard"),
    or not: it ends right then ("crash"), or the lane was cut meanwhile ("cut").  `stuck`: the stage
    cannot be "removed", nor "moved", for a while."""

    def run(world: World) -> None:
        bob = world.machines[1]
        act(world)
        wait_until(world, lambda: is_asked(bob, SyncPart, SyncStage), step=0.0005)
        assert parts_of(bob)
        if how == "cut":
            assert bob.process is not None
            for lane in list(bob.process.lanes.values()):
                lane.fail("cut", "the lane broke")
        bob.disk.full, bob.disk.stuck = True, stuck
        wait_until(world, lambda: not is_asked(bob, SyncPart, SyncStage), step=0.0002)
        bob.disk.full = False
        if how == "heard" and stuck:
            world.heap.run(world.heap.now + 60.0)
            assert parts_of(bob)
        bob.disk.stuck = ""
        if how == "crash":
            bob.end("crash")
        world.heap.run(world.heap.now + 120.0)
        end = "failed" if how == "heard" else "done"
        assert states(world) == [[end], [end]]
        assert not parts_of(bob)

    scenario(run, faults=Faults(disk_s=0.05, turn_s=0.02, bytes_per_s=40_000), idle=False)


def send_and_lose(world: World) -> None:
    """For fail_at_every_point: the same, with nobody who waits for anything."""
    bob, end = world.machines[1], world.heap.now + 3.0
    send_a_long_file(world)
    for full, step in ((True, 0.0005), (False, 0.0002)):
        while is_asked(bob, SyncPart, SyncStage) != full and world.heap.now < end:
            world.heap.run(world.heap.now + step)
        bob.disk.full = full


def a_sync_loses_something_and_the_daemon_ends() -> None:
    """Of a file."""
    lose(send_a_long_file, "crash")


# -- sent again -----------------------------------------------------------------------------


def again_and_cut(read: int, record: int) -> bool:
    """What failed is sent again, changes at a read once more, and the lane is cut at a record;
    whether it came to that."""
    sprung = False

    def run(world: World) -> None:
        ann, bob = friends(world)
        some_files_fail(world)
        ann.machine.source_trap, bob.machine.lane_trap = read, ("cut", record)
        steer(ann, "again")
        world.heap.run(world.heap.now + 30.0)
        here, there = states(world)
        assert here == there
        assert here in (["done"], ["failed"])
        place = DOWNLOADS + b"/new_tree/changes 0"
        assert (bob.machine.disk.find(place) is not None) == (here == ["done"])
        for machine in world.machines:  # it may change, but it is not left out
            (error,) = machine.database.sql.execute("SELECT error FROM transfers").fetchone()
            assert NOT_SENT not in (error or "")
        nonlocal sprung
        sprung = bob.machine.lane_trap == ("", 0)

    scenario(run, idle=False)
    return sprung


def what_changes_is_sent_once_more() -> None:
    """The lane is cut before the receiver has heard of the change."""
    again_and_cut(0, 3)


def fewer_are_sent_again_than_are_waited_for() -> None:
    """The two sides have other limits: what does not come is missed."""

    def run(world: World) -> None:
        ann, _ = friends(world)
        some_files_fail(world, count=2)
        with mock.patch.object(limits, "AGAIN_FILES_MAX", 1):
            steer(ann, "again")
            wait_until(world, lambda: states(world)[0] != ["failed"])
            assert states(world)[1] == ["failed"]
        world.heap.run(world.heap.now + 30.0)
        assert states(world) == [["failed"], ["failed"]]

    scenario(run, faults=Faults(latency_s=0.05))


def send_again_what_changes(world: World) -> None:
    """For fail_at_every_point, after `some_files_fail`: what failed is sent again, and changes."""
    ann, _ = friends(world)
    ann.machine.source_trap = 2
    if ann.client.ready:
        steer(ann, "again")


def what_is_not_there_any_more_is_swept_out(seed: int = 3) -> None:
    """The power goes while a folder arrives, and its sender removes some of what is in the stage:
    it does not arrive."""

    def run(world: World) -> None:
        ann, bob = friends(world)
        root = ann.send_tree(ann.friends[0], files=12)
        wait_until(world, lambda: len(_staged(bob.machine)) >= 3, step=0.0005)
        stage = _staged(bob.machine)
        bob.machine.end("power")
        for path in sorted(stage)[::2]:
            ann.machine.disk.remove_durable(root + b"/" + path)
            world.watcher.sources.gone("ann", root + b"/" + path, world.heap.now)
        world.heap.run(world.heap.now + 30.0)
        source, arrived = ann.machine.disk.folder(root), bob.machine.disk.folder(DOWNLOADS).names
        (name,) = (name for name, node in arrived.items() if name != PARTS)
        assert files_of(arrived[name]) == files_of(source)

    scenario(run, seed=seed, idle=False)


def files_of(node: object) -> set[bytes]:
    """Relative paths of the files in a folder."""
    assert isinstance(node, Folder)
    return {path for path, each in files(node) if isinstance(each, File)}


def _staged(machine: Machine) -> set[bytes]:
    parts = machine.disk.find(DOWNLOADS + b"/" + PARTS)
    found = parts.names.values() if isinstance(parts, Folder) else ()
    return next((files_of(each) for each in found if isinstance(each, Folder)), set())


# -- no room --------------------------------------------------------------------------------


def a_contact_has_room_again_without_a_word() -> None:
    """The only one that moves there is paused: nothing ends, and another may go."""

    def run(world: World) -> None:
        ann, bob = friends(world)
        take_all(world, bob.machine, transfers_per_contact_max=1)
        for _ in range(2):
            ann.send_files(ann.friends[0], 1, size=9000)
        wait_until(world, lambda: "active" in states(world)[1])
        bob.quiet = True
        world.heap.run(world.heap.now + 0.2)
        steer(bob, "pause", states(world)[1].index("active"))
        world.heap.run(world.heap.now + 40.0)
        assert sorted(states(world)[1]) == ["done", "paused"]
        bob.quiet = False

    scenario(run, faults=Faults(bytes_per_s=6_000))


# -- what went over lanes -------------------------------------------------------------------


def both_sides_end_one_after_the_other() -> None:
    """Each counts what the other forgets."""

    def run(world: World) -> None:
        send_a_long_file(world)
        for machine in world.machines:
            before = _total(world)
            wait_until(world, lambda before=before: _total(world) > before + 8000)
            machine.end("crash")
        world.heap.run(world.heap.now + 60.0)
        assert states(world) == [["done"], ["done"]]

    scenario(run, faults=Faults(bytes_per_s=20_000), idle=False)


def _total(world: World) -> int:
    return sum(traffic.total for traffic in world.watcher.traffic.values())


# -- much at once ---------------------------------------------------------------------------


def more_is_written_than_fits_a_window() -> None:
    """And none is lost, and no more is under way than was promised."""

    def run(world: World) -> None:
        ann, _ = friends(world)
        for _ in range(limits.WINDOW_ENVELOPES_MAX + 44):
            ann.write(ann.friends[0])
        world.heap.run(world.heap.now + 30.0)

    scenario(run, faults=Faults(latency_s=0.2), idle=False)
