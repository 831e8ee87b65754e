"""Directed scenarios in the simulated world: a quiet beginning, one thing that happens, the end.

What holds always: a scenario begins when everybody is linked and nothing is under way, and ends
with everything that a run from a seed has to satisfy (final.py).
"""

from __future__ import annotations

from collections.abc import Callable

from .faults import Faults
from .final import check_final
from .heap import Violation
from .machine import Machine
from .user import User
from .world import World, simulate

Act = Callable[[World], None]
BEGIN_S = 60.0  # at most, until all are linked


def friends(world: World) -> tuple[User, User]:
    """The two users of a world of two; the first dials."""
    ann, bob = world.machines
    return world.users[ann.name], world.users[bob.name]


def scenario(act: Act, *, seed: int = 1, faults: Faults | None = None, idle: bool = True) -> World:
    """Run one; raises AssertionError with the whole report where something is wrong."""
    worlds: list[World] = []

    def run(world: World) -> None:
        worlds.append(world)
        world.start()
        world.settle()
        act(world)
        world.calm()
        world.settle()
        check_final(world)
        if idle:
            world.idle()

    outcome = simulate(seed, faults or Faults(), run, count=2)
    assert not outcome.problem, outcome.report()
    return worlds[0]


def fail_at_every_point(
    act: Act, pick: Callable[[World], Machine], *, power: bool, begin: Act | None = None
) -> int:
    """Run `act` again and again, after `begin`, ending the daemon of a machine at its n-th commit
    or effect, for every n until there is none left.  Returns how many there were."""
    number, burned = 0, True
    while burned:

        def run(world: World, number: int = number) -> None:
            if begin is not None:
                begin(world)
            machine = pick(world)
            machine.fuse, machine.fuse_power = number, power
            act(world)
            world.heap.run(world.heap.now + 30.0)
            nonlocal burned
            burned = machine.fuse is None

        scenario(run, seed=number, idle=False)
        number += 1
        if number > 1000:
            raise Violation("there is no end of points")
    return number - 1
