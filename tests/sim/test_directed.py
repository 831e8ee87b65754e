"""Directed scenarios: what was once wrong, and what has to work whatever the seeds bring."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sim.disk import File, Folder
from sim.faults import Faults
from sim.machine import DOWNLOADS, SOURCES, Machine
from sim.scenario import fail_at_every_point, friends, scenario
from sim.stories import is_asked, states, steer, wait_until
from sim.user import User
from sim.watcher import BYSTANDER
from sim.world import World
from tntd.settings import Settings
from tntd.tasks import SyncStage


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


def parts(machine: Machine) -> list[bytes]:
    """The names of the stages on a machine's disk."""
    found = machine.disk.find(DOWNLOADS + b"/.tnt-part")
    return sorted(found.names) if isinstance(found, Folder) else []


def cancel_when_there_is_a_part(world: World) -> None:
    """Ann sends a long file; bob cancels it as soon as he has a part of it."""
    ann, bob = friends(world)
    ann.send_files(ann.friends[0], 1, size=60_000)
    for _ in range(2000):
        if parts(world.machines[1]):
            break
        world.heap.run(world.heap.now + 0.002)
    if bob.client.ready:  # bob has not ended before
        bob.client.request("transfers.list", {}, bob.cancel_one)


@pytest.mark.parametrize("power", [False, True], ids=["crash", "power"])
def test_a_part_is_gone_after_its_cancel_wherever_the_receiver_ends(power: bool):
    worlds: list[World] = []

    def act(world: World) -> None:
        worlds.append(world)
        cancel_when_there_is_a_part(world)
        world.heap.run(world.heap.now + 30.0)

    assert fail_at_every_point(act, lambda world: world.machines[1], power=power) > 10
    assert len(worlds) > 10
    assert not any(parts(machine) for world in worlds for machine in world.machines)


def test_a_part_that_a_failing_disk_keeps_is_removed_when_it_works_again():
    def act(world: World) -> None:
        cancel_when_there_is_a_part(world)
        bob = world.machines[1]
        bob.disk.error_chance = 1.0
        world.heap.run(world.heap.now + 60.0)
        assert parts(bob)
        bob.disk.error_chance = 0.0
        world.heap.run(world.heap.now + 90.0)
        assert bob.runs == 1
        assert not parts(bob)

    scenario(act)


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


def test_what_arrived_whole_is_done_although_its_sender_gave_it_up():
    """The result is late; the sender tries again, and finds that the source has changed."""

    def act(world: World) -> None:
        ann, _ = friends(world)
        ann.send_files(ann.friends[0], 1, size=9000)
        while not world.watcher.files_arrived:
            world.heap.run(world.heap.now + 0.0001)
        world.network.silence("bob", "ann", 2.0)
        for connection in world.network.live():
            world.network.cut(connection)
        (name,) = ann.machine.disk.folder(SOURCES).names
        ann.make_source(SOURCES + b"/" + name)
        world.heap.run(world.heap.now + 30.0)

    world = scenario(act, faults=Faults(released_arrives=0.0, disk_s=0.0))
    assert states(world) == [["done"], ["done"]]


def test_a_client_ref_holds_though_the_clock_is_set_forward():
    def act(world: World) -> None:
        ann, _ = friends(world)
        friend, replies = ann.friends[0], []
        for text in ("once", "another", "once"):
            params = {"to": friend.id, "text": text, "client_ref": text}
            ann.client.request("messages.send", params, lambda *reply: replies.append(reply))
            world.heap.run(world.heap.now + 1.0)
            world.machines[0].clock.wall_offset += 100 * 24 * 3600.0
        assert replies[0][0]["message"]["id"] == replies[2][0]["message"]["id"]

    scenario(act)


@pytest.mark.parametrize("restored", [False, True], ids=["lost", "an older copy"])
def test_an_offer_is_made_again_to_who_has_lost_their_history(restored: bool):
    def act(world: World) -> None:
        ann, bob = friends(world)
        bob.machine.settings = Settings(auto_accept_bytes_max=0)
        bob.machine.end("crash")
        bob.quiet = True
        world.heap.run(world.heap.now + 30.0)
        image = bob.machine.database.copy() if restored else None
        ann.send_files(ann.friends[0], 1, size=9000)
        world.heap.run(world.heap.now + 5.0)
        assert states(world) == [["offered"], ["offered"]]
        world.replace_database(bob.machine, image)
        bob.quiet = False

    world = scenario(act)
    assert world.watcher.damaged


def test_the_result_is_told_again_to_a_sender_with_an_older_history():
    def act(world: World) -> None:
        ann, bob = friends(world)
        bob.machine.settings = Settings(reserve_bytes=0)
        bob.machine.end("crash")
        world.heap.run(world.heap.now + 30.0)
        images = []
        ann.send_files(ann.friends[0], 1, size=9000)
        while not world.watcher.files_arrived:
            world.heap.run(world.heap.now + 0.001)
            images.append(ann.machine.database.copy())
        world.heap.run(world.heap.now + 5.0)
        assert states(world) == [["done"], ["done"]]
        world.replace_database(ann.machine, images[-10])

    world = scenario(act)
    assert states(world) == [["done"], ["done"]]


def test_a_request_is_answered_although_the_turn_of_its_answer_is_undone():
    def act(world: World) -> None:
        ann, _ = friends(world)
        ann.send_files(ann.friends[0], 1, size=9000)
        world.heap.run(world.heap.now + 0.001)  # asked and committed; the disk has not answered
        ann.machine.database.failing = True
        world.heap.run(world.heap.now + 1.0)
        ann.machine.database.failing = False
        world.heap.run(world.heap.now + 10.0)
        assert not ann.wants

    scenario(act, faults=Faults(disk_s=0.1, turn_s=0.0))


def test_what_an_undone_turn_let_go_of_is_let_go_of():
    """The link is given up for its silence just when nothing can be committed."""

    def act(world: World) -> None:
        ann, _ = friends(world)
        world.network.silence("bob", "ann", 120.0)
        world.heap.run(world.heap.now + 20.0)
        ann.machine.database.failing = True
        world.heap.run(world.heap.now + 60.0)

    scenario(act)


@pytest.mark.parametrize("side", [0, 1], ids=["sender", "receiver"])
def test_no_transfer_waits_for_ever_whose_history_went_back(side: int):
    """From every state that either history may go back to."""
    images: list[bytes] = []

    def act(world: World) -> None:
        ann, bob = friends(world)
        machine = world.machines[side]
        ann.send_files(ann.friends[0], 1, size=9000)
        while states(world) != [["done"], ["done"]]:
            world.heap.run(world.heap.now + 0.002)
            image = machine.database.copy()
            if not images or images[-1] != image:
                images.append(image)
            if bob.machine.settings.auto_accept_bytes_max < 9000:
                bob.calm = True
        world.heap.run(world.heap.now + 5.0)
        if number >= 0:
            world.replace_database(machine, images[number])

    number = -1
    scenario(act, idle=False)
    for number in range(0, len(images), 1 + len(images) // 12):  # noqa: B007 - act reads it
        images.clear()
        scenario(act, idle=False)


@pytest.mark.parametrize("side", [0, 1], ids=["sender", "receiver"])
def test_a_cursor_from_before_a_restore_is_gone(side: int):
    """Also where commits fail just then.  The client that comes back reads the lists instead."""
    for fail_in in (None, *range(12)):

        def act(world: World, fail_in: int | None = fail_in) -> None:
            users = friends(world)
            user, ann = users[side], users[0]
            image = user.machine.database.copy()
            write(world, ann, 3)
            user.quiet = True
            user.guest.attach()
            world.heap.run(world.heap.now + 1.0)
            view = user.guest.view
            assert user.guest.ready
            assert len(view.numbers) > 3
            user.guest.leave()
            world.replace_database(user.machine, image)
            user.guest.view = view
            user.machine.on_start.append(lambda: fail(user.machine, fail_in))
            world.heap.run(world.heap.now + 30.0)
            user.quiet = False
            write(world, ann, 9)  # with that, the numbers of before are there again
            user.guest.attach()
            world.heap.run(world.heap.now + 10.0)
            assert user.guest.gone == 1

        scenario(act, idle=False)


def write(world: World, user: User, count: int) -> None:
    """Messages to the only friend, until they have arrived."""
    for _ in range(count):
        user.write(user.friends[0])
    world.heap.run(world.heap.now + 10.0)


def fail(machine: Machine, fail_in: int | None) -> None:
    """So many commits later one fails."""
    machine.database.fail_in = fail_in


# -- trees, the queue, resume ---------------------------------------------------------------


def send_a_tree(world: World) -> None:
    ann, _ = friends(world)
    root = SOURCES + b"/tree"
    for name, size in ((b"a/one", 300), (b"a/two", 9000), (b"three", 500), (b"b/c/four", 5000)):
        ann.make_source(root + b"/" + name, size)
    ann.send_paths(ann.friends[0], [root])


@pytest.mark.parametrize("power", [False, True], ids=["crash", "power"])
@pytest.mark.parametrize("side", [0, 1], ids=["sender", "receiver"])
def test_a_daemon_may_end_at_any_point_of_a_folder(side: int, power: bool):
    worlds: list[World] = []

    def act(world: World) -> None:
        worlds.append(world)
        send_a_tree(world)

    assert fail_at_every_point(act, lambda world: world.machines[side], power=power) > 15
    ends = [states(world) for world in worlds]
    assert all(here == there and here in (["done"], ["declined"], []) for here, there in ends)
    assert ends.count([["done"], ["done"]]) > 10


def sent_and_done(world: World) -> tuple[int, int, int]:
    """Of the only transfer: bytes put on lanes, bytes told as sent twice, its size."""
    (traffic,) = world.watcher.traffic.values()
    query = "SELECT bytes_resent, size FROM transfers"
    return traffic.total, *world.machines[0].database.sql.execute(query).fetchone()


@pytest.mark.parametrize("side", [0, 1], ids=["sender dials", "receiver dials"])
@pytest.mark.parametrize("act", [send_a_tree, send_a_file])
def test_a_cut_costs_what_was_under_way(act, side: int):
    """And what was sent twice is told."""
    number, sprung = 0, True
    while sprung:

        def cut(world: World, number: int = number) -> None:
            world.machines[1].lane_trap = ("cut", number)
            act(world)
            world.heap.run(world.heap.now + 20.0)
            nonlocal sprung
            sprung = world.machines[1].lane_trap == ("", 0)

        world = scenario(cut, seed=1 + side, idle=False)
        sent, told, size = sent_and_done(world)
        assert told == sent - size
        # Two records on the way, those that the child has, and what is begun of a block.
        assert sent - size <= 2 * 2048 + 4 * 2048 + 4096
        number += 1
    assert number > 4


def test_a_file_that_was_sent_before_sends_what_changed():
    def act(world: World) -> None:
        ann, _ = friends(world)
        path = SOURCES + b"/big"
        ann.make_source(path, 60_000)
        for changes in range(3):
            ann.send_paths(ann.friends[0], [path])
            world.heap.run(world.heap.now + 20.0)
            file = ann.machine.disk.find(path)
            assert isinstance(file, File)
            if not changes:
                data = bytes(file.data)
                ann.put_source(path, data[:30_000] + b"changed" + data[30_007:])

    world = scenario(act)
    sent = [traffic.total for traffic in world.watcher.traffic.values()]
    assert sent[0] > 60_000
    assert 0 < sent[1] <= 2 * 8192  # one block of a file of that size, or two
    assert sent[2] == 0


@pytest.mark.parametrize("act", [send_a_tree, send_a_file])
@pytest.mark.parametrize("resumes", [0, 1])
@pytest.mark.parametrize("pauses", [0, 1])
def test_what_is_paused_waits_until_either_side_resumes_it(pauses: int, resumes: int, act):
    def steered(world: World) -> None:
        act(world)
        wait_until(world, lambda: states(world) == [["active"], ["active"]])
        steer(friends(world)[pauses], "pause")
        wait_until(world, lambda: states(world) == [["paused"], ["paused"]])
        for machine in (*world.machines, world.machines[0]):
            machine.end("crash")
            world.heap.run(world.heap.now + 20.0)
            assert states(world) == [["paused"], ["paused"]]
        steer(friends(world)[resumes], "resume")
        world.heap.run(world.heap.now + 20.0)
        assert states(world) == [["done"], ["done"]]

    scenario(steered, faults=Faults(bytes_per_s=20_000))


def grow(user: User, root: bytes) -> None:
    """More files in a folder."""
    for number in range(3):
        user.make_source(b"%s/more %d" % (root, number), 3000)


def test_what_grew_and_is_declined_then_leaves_nothing():
    def act(world: World) -> None:
        ann, bob = friends(world)
        bob.quiet = True
        root = SOURCES + b"/tree"
        grow(ann, root)
        ann.send_paths(ann.friends[0], [root])
        wait_until(world, lambda: bool(parts(bob.machine)))
        sql = bob.machine.database.sql
        assert sql.execute("SELECT part FROM transfers").fetchone() == (1,)
        with bob.machine.database.store.transaction():
            # As where it had turned out larger than is taken without a question.
            (row,) = sql.execute("SELECT row FROM transfers").fetchone()
            bob.machine.database.store.transfers.update(row, state="offered", accepted=0)
        steer(bob, "decline")
        world.heap.run(world.heap.now + 20.0)
        assert not parts(bob.machine)
        bob.quiet = False

    scenario(act, faults=Faults(bytes_per_s=2_000))


@pytest.mark.parametrize("side", [0, 1], ids=["sender", "receiver"])
@pytest.mark.parametrize("taken", [False, True], ids=["free", "taken"])
def test_only_what_failed_is_sent_again_and_nothing_is_replaced(taken: bool, side: int):
    def act(world: World) -> None:
        ann, bob = friends(world)
        root = SOURCES + b"/tree"
        ann.make_source(root + b"/a stays", 300)
        ann.make_source(root + b"/b changes", 9000)
        ann.send_paths(ann.friends[0], [root])
        wait_until(world, lambda: any(t.total > 3000 for t in world.watcher.traffic.values()))
        ann.edit_source(root + b"/b changes")
        world.heap.run(world.heap.now + 20.0)
        assert states(world) == [["failed"], ["failed"]]
        place = DOWNLOADS + b"/new_tree/b changes"
        assert bob.machine.disk.find(place) is None
        if taken:
            bystander = bob.machine.disk.put_durable(place, BYSTANDER)
            world.watcher.bystanders["bob", place] = bystander
        steer(friends(world)[side], "again")
        world.heap.run(world.heap.now + 20.0)
        assert states(world) == ([["failed"], ["failed"]] if taken else [["done"], ["done"]])

    scenario(act, faults=Faults(bytes_per_s=4_000))


@pytest.mark.parametrize("number", range(3, 10))
def test_what_is_sent_again_is_sent_once_more_after_a_cut(number: int):
    def act(world: World) -> None:
        ann, bob = friends(world)
        root = SOURCES + b"/tree"
        ann.make_source(root + b"/changes", 9000)
        ann.send_paths(ann.friends[0], [root])
        ann.machine.source_trap = 2
        world.heap.run(world.heap.now + 20.0)
        assert states(world) == [["failed"], ["failed"]]
        bob.machine.lane_trap = ("cut", number)
        steer(ann, "again")
        world.heap.run(world.heap.now + 20.0)
        assert states(world) == [["done"], ["done"]]
        assert bob.machine.disk.find(DOWNLOADS + b"/new_tree/changes") is not None

    scenario(act)


@pytest.mark.parametrize("act", [send_a_tree, send_a_file])
def test_what_a_failed_sync_has_lost_is_not_believed(act):
    """The disk is full just when what has arrived is to be synced: the system tells it once."""

    def full(world: World) -> None:
        bob = world.machines[1]
        act(world)
        wait_until(world, lambda: is_asked(bob, SyncStage))
        bob.disk.full = True
        wait_until(world, lambda: not is_asked(bob, SyncStage))
        bob.disk.full = False
        world.heap.run(world.heap.now + 60.0)

    scenario(full, faults=Faults(disk_s=0.1))


def failing_once_there(world: World, there: Callable[[], bool]) -> None:
    """Bob's disk fails from when something has its place, but is not told as done, for a while."""
    machine = world.machines[1]
    wait_until(world, there)
    machine.disk.error_chance = 1.0
    world.heap.run(world.heap.now + 30.0)
    assert "done" not in states(world)[0] + states(world)[1]
    machine.disk.error_chance = 0.0
    world.heap.run(world.heap.now + 60.0)
    assert states(world) == [["done"], ["done"]]


@pytest.mark.parametrize("act", [send_a_tree, send_a_file])
def test_what_has_its_name_is_not_forgotten_where_the_disk_fails_then(act):
    def fail(world: World) -> None:
        act(world)
        names = world.machines[1].disk.folder(DOWNLOADS).names
        failing_once_there(world, lambda: any(name.startswith(b"new_") for name in names))
        assert len(names) == 1

    scenario(fail, faults=Faults(disk_s=0.4))


def one_file_fails(world: World) -> bytes:
    """Ann sends a folder, one file of which fails; where that belongs."""
    ann, _ = friends(world)
    ann.make_source(SOURCES + b"/tree/changes", 9000)
    ann.send_paths(ann.friends[0], [SOURCES + b"/tree"])
    ann.machine.source_trap = 2
    world.heap.run(world.heap.now + 30.0)
    assert states(world) == [["failed"], ["failed"]]
    return DOWNLOADS + b"/new_tree/changes"


def test_what_was_moved_to_its_folder_is_not_forgotten_where_the_disk_fails_then():
    def fail(world: World) -> None:
        place = one_file_fails(world)
        steer(friends(world)[0], "again")
        disk = world.machines[1].disk
        failing_once_there(world, lambda: disk.find(place) is not None)

    scenario(fail, faults=Faults(disk_s=0.4))


@pytest.mark.parametrize("power", [False, True], ids=["crash", "power"])
def test_what_was_moved_to_its_folder_is_not_forgotten_by_who_ends_then(power: bool):
    def end(world: World) -> None:
        place, bob = one_file_fails(world), world.machines[1]
        steer(friends(world)[0], "again")
        wait_until(world, lambda: bob.disk.find(place) is not None)
        bob.end("power" if power else "crash")
        world.heap.run(world.heap.now + 30.0)
        assert states(world) == [["done"], ["done"]]

    scenario(end, faults=Faults(disk_s=0.4))
