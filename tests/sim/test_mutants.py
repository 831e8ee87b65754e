"""Each mutant is caught by a seed or its story: what the simulator cannot see it does not prove."""

from __future__ import annotations

import pytest

from sim.mutants import MUTANTS, SEEDS_MAX, STORIES, catch
from sim.world import simulate

# Where to begin to look, to save time; a seed that does not catch it any more is no harm.
LIKELY = {
    "no de duplication": 6,
    "ids are forgotten": 6,
    "an older copy is not noticed": 44,
    "commits are not synced": 4,
    "lost timer on reconnect": 5,
    "an undone turn lets go of nothing": 39,
    "cursors outlive a restore": 44,
    "nothing is finished after a start": 17,
    "a part is forgotten": 14,
    "a part is removed in part": 41,
    "a removed part may come back": 144,
    "a broken lane is not told": 8,
    "what may have its name is given up": 14,
    "blocks are told without being read": 32,
    "a position outlives a power cut": 46,
    "a feeder that is lost is waited for": 7,
    "again replaces": 62,
    "fates are not told": 16,
    "what is sent twice is not counted": 16,
    "steering is not told": 6,
    "both links kept": 4,
    "events of a failed turn are not told again": 3,
    "a kept epoch is forgotten": 89,
    "an offer is made once": 44,
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str):
    caught = catch(name, LIKELY.get(name, 1))
    assert caught is not None, f"{name!r} survived {SEEDS_MAX} seeds: the simulator has a hole"
    seed, problem = caught
    # It is the mutant that was caught, and nothing of it is left behind.
    if name in STORIES:
        STORIES[name]()
    else:
        assert not simulate(seed).problem, problem


def test_there_are_enough_mutants():
    assert len(MUTANTS) >= 49
