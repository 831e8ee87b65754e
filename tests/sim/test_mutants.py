"""Each mutant is caught by some seed: what the simulator cannot see it does not prove."""

from __future__ import annotations

import pytest

from sim.mutants import MUTANTS, SEEDS_MAX, catch
from sim.world import simulate

# Where to begin to look, to save time; a seed that does not catch it any more is no harm.
LIKELY = {
    "no de duplication": 14,
    "ids are forgotten": 38,
    "both links kept": 11,
    "an undone turn lets go of nothing": 62,
    "nothing is finished after a start": 70,
    "a part is forgotten": 97,
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str):
    caught = catch(name, LIKELY.get(name, 1))
    assert caught is not None, f"{name!r} survived {SEEDS_MAX} seeds: the simulator has a hole"
    seed, problem = caught
    # It is the mutant that was caught, and nothing of it is left behind.
    assert not simulate(seed).problem, problem


def test_there_are_enough_mutants():
    assert len(MUTANTS) >= 8
