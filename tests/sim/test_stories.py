"""Directed scenarios of what hunts have found, and of what seeds seldom bring about."""

from __future__ import annotations

import pytest

from sim.scenario import fail_at_every_point
from sim.stories import (
    again_and_cut,
    lose,
    more_is_written_than_fits_a_window,
    send_a_long_file,
    send_a_long_tree,
    send_again_what_changes,
    send_and_lose,
    some_files_fail,
    states,
    take_all,
    what_is_not_there_any_more_is_swept_out,
)
from sim.world import World


@pytest.mark.parametrize("read", range(6))
def test_what_changes_while_it_is_sent_again_and_the_lane_is_cut_is_told_alike(read: int):
    """The receiver has not heard that it changed; the next lane may bring it, or not."""
    record = 0
    while again_and_cut(read, record):
        record += 1
    assert record > 4


@pytest.mark.parametrize("power", [False, True], ids=["crash", "power"])
@pytest.mark.parametrize("side", [0, 1], ids=["sender", "receiver"])
def test_a_daemon_may_end_at_any_point_of_what_is_sent_again(side: int, power: bool):
    worlds: list[World] = []

    def begin(world: World) -> None:
        worlds.append(world)
        some_files_fail(world)

    count = fail_at_every_point(
        send_again_what_changes, lambda world: world.machines[side], power=power, begin=begin
    )
    assert count > 15
    for here, there in map(states, worlds):
        assert here == there
        assert here in (["failed"], ["done"])


@pytest.mark.parametrize("act", [send_a_long_file, send_a_long_tree])
@pytest.mark.parametrize("how", ["crash", "cut"])
@pytest.mark.parametrize("stuck", ["", "removed"])
def test_what_a_sync_has_lost_is_not_believed_though_nobody_heard_of_it(stuck: str, how: str, act):
    lose(act, how, stuck)


def test_a_daemon_may_end_at_any_point_of_a_sync_that_loses_something():
    worlds: list[World] = []

    def begin(world: World) -> None:
        worlds.append(world)
        take_all(world, world.machines[1])

    count = fail_at_every_point(
        send_and_lose, lambda world: world.machines[1], power=False, begin=begin
    )
    assert count > 15
    ends = [states(world) for world in worlds]
    assert all(here == there for here, there in ends)
    assert {here[0] for here, _ in ends} == {"done", "failed"}


@pytest.mark.parametrize("act", [send_a_long_file, send_a_long_tree])
@pytest.mark.parametrize("stuck", ["", "removed", "moved"])
def test_what_a_sync_has_lost_is_removed_when_the_disk_works_again(stuck: str, act):
    lose(act, "heard", stuck)


@pytest.mark.parametrize("seed", range(1, 9))
def test_what_its_sender_has_removed_meanwhile_does_not_arrive(seed: int):
    what_is_not_there_any_more_is_swept_out(seed)


def test_no_more_is_under_way_than_was_promised():
    more_is_written_than_fits_a_window()
