"""Directed scenarios of a profile that runs twice."""

from __future__ import annotations

from sim.scenario import friends, scenario
from sim.world import World


def test_no_link_of_the_original_outlives_its_twins_without_being_told():
    """Two links of the original are up, one of them dead unnoticed, when its twin comes: the
    other would be taken up again once the twin is gone, by a peer that knows the twin's numbers
    and drops the original's envelopes as from before a renewal."""

    def act(world: World) -> None:
        ann, bob = friends(world)
        image = ann.machine.database.copy()
        ann.write(ann.friends[0])
        world.heap.run(world.heap.now + 5.0)
        (connection,) = world.network.live()
        of_ann = next(end for end in connection.ends if end.process.machine is ann.machine)
        of_ann.out.drop()
        connection.other(of_ann).out.finish("the connection broke")
        assert bob.machine.process is not None
        pairs = bob.machine.process.node._links._pairs
        end = world.heap.now + 10.0
        while not pairs._rivals and world.heap.now < end:
            world.heap.run(world.heap.now + 0.002)
        assert pairs._rivals
        world.run_twice(ann.machine, image, world.heap.now + 20.0)
        world.heap.run(world.heap.now + 40.0)
        ann.write(ann.friends[0])

    scenario(act, idle=False)
