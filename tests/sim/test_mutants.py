"""Each mutant is caught by some seed: what the simulator cannot see it does not prove."""

from __future__ import annotations

import pytest

from sim.mutants import MUTANTS, SEEDS_MAX, catch
from sim.world import simulate

# Where to begin to look, to save time; a seed that does not catch it any more is no harm.
LIKELY = {
    "no de duplication": 18,
    "ids are forgotten": 18,
    "an older copy is not noticed": 44,
    "an undone turn lets go of nothing": 38,
    "cursors outlive a restore": 10,
    "nothing is finished after a start": 21,
    "what may have its name is given up": 14,
    "a part is forgotten": 14,
    "a part is removed in part": 13,
    "a removed part may come back": 40,
    "blocks are told without being read": 104,
    "a position outlives a power cut": 21,
    "again replaces": 16,
    "fates are not told": 16,
    "what is sent twice is not counted": 16,
    "steering is not told": 12,
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str):
    caught = catch(name, LIKELY.get(name, 1))
    assert caught is not None, f"{name!r} survived {SEEDS_MAX} seeds: the simulator has a hole"
    seed, problem = caught
    # It is the mutant that was caught, and nothing of it is left behind.
    assert not simulate(seed).problem, problem


def test_there_are_enough_mutants():
    assert len(MUTANTS) >= 35
