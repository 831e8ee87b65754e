"""Directed scenarios of folders that change while a try to send them is cut short."""

from __future__ import annotations

import pytest

from sim.faults import Faults
from sim.machine import SOURCES
from sim.scenario import friends, scenario
from sim.world import World
from tntd.node.present import item_id


@pytest.mark.parametrize("seed", range(1, 5))
def test_a_transfer_goes_on_whose_contact_links_before_we_have_begun_anew(seed: int):
    """A commit fails in the middle of a file, so the node starts over, after a pause; the
    receiver, started anew as well, dials in that pause."""

    def act(world: World) -> None:
        ann, bob = friends(world)
        bob.send_files(bob.friends[0], 1, size=3000)
        query = "SELECT count(*) FROM transfers WHERE state = 'active'"
        end = world.heap.now + 30.0
        while bob.machine.database.sql.execute(query).fetchone() != (1,):
            assert world.heap.now < end
            world.heap.run(world.heap.now + 0.0005)
        bob.machine.database.fail_in = 0
        ann.machine.end("crash")
        world.heap.run(world.heap.now + 30.0)
        assert world.watcher.files_arrived == 1

    scenario(act, seed=seed, faults=Faults(bytes_per_s=10_000, start_s=0.2), idle=False)


def test_what_failed_before_its_sender_heard_that_it_is_taken_is_asked_for_again():
    """The receiver's word went to a copy of the sender, which runs twice."""

    def act(world: World) -> None:
        ann, bob = friends(world)
        root = SOURCES + b"/tree"
        ann.make_source(root + b"/file", 300)
        ann.send_paths(ann.friends[0], [root])
        query = "SELECT count(*) FROM transfers WHERE accepted = 1"
        end = world.heap.now + 30.0
        while bob.machine.database.sql.execute(query).fetchone() != (1,):
            assert world.heap.now < end
            world.heap.run(world.heap.now + 0.0005)
        for machine in world.machines:
            machine.end("crash")
            store = machine.database.store
            with store.transaction():
                (row,) = store.transfers.live()
                taken = int(machine is bob.machine)
                store.transfers.update(row.row, state="failed", error="lost", accepted=taken)
            machine.database.sql.execute("DELETE FROM outbox")
        world.heap.run(world.heap.now + 20.0)
        params = {"transfer": item_id(row.id)}
        ann.client.request("transfers.again", params, lambda result, error: None)
        world.heap.run(world.heap.now + 20.0)
        query = "SELECT state FROM transfers"
        found = [machine.database.sql.execute(query).fetchall() for machine in world.machines]
        assert found == [[("done",)], [("done",)]]

    scenario(act, idle=False)
