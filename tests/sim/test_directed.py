"""Directed scenarios: what was once wrong, and what has to work whatever the seeds bring."""

from __future__ import annotations

import pytest

from sim.machine import Machine
from sim.scenario import fail_at_every_point, friends, scenario
from sim.world import World


def send_a_message(world: World) -> None:
    ann, bob = friends(world)
    ann.write(ann.friends[0])
    bob.write(bob.friends[0])


def send_a_file(world: World) -> None:
    ann, _ = friends(world)
    ann.send_files(ann.friends[0], 1, size=9000)


@pytest.mark.parametrize("power", [False, True], ids=["crash", "power"])
@pytest.mark.parametrize("side", [0, 1], ids=["sender", "receiver"])
@pytest.mark.parametrize("act", [send_a_message, send_a_file])
def test_a_daemon_may_end_at_any_point(act, side: int, power: bool):
    def pick(world: World) -> Machine:
        return world.machines[side]

    assert fail_at_every_point(act, pick, power=power) > 10


@pytest.mark.parametrize("side", [0, 1], ids=["sender dials", "receiver dials"])
@pytest.mark.parametrize("what", ["cut", "damage"])
def test_a_lane_may_break_at_any_record(side: int, what: str):
    """Also behind the sender's last byte, when the sender believes that all is there."""
    number, sprung = 0, True
    while sprung:

        def act(world: World, number: int = number) -> None:
            sender = friends(world)[side]
            receiver = world.machines[1 - side]
            receiver.lane_trap = (what, number)
            sender.send_files(sender.friends[0], 1, size=9000)
            world.heap.run(world.heap.now + 20.0)
            nonlocal sprung
            sprung = receiver.lane_trap == ("", 0)

        world = scenario(act, idle=False)
        assert world.watcher.files_arrived == 1
        number += 1
    assert number > 4
