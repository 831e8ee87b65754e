"""Each mutant is caught by some seed: what the simulator cannot see it does not prove."""

from __future__ import annotations

import pytest

from sim.mutants import MUTANTS, SEEDS_MAX, catch
from sim.world import simulate


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str):
    caught = catch(name)
    assert caught is not None, f"{name!r} survived {SEEDS_MAX} seeds: the simulator has a hole"
    seed, problem = caught
    # It is the mutant that was caught, and nothing of it is left behind.
    assert not simulate(seed).problem, problem


def test_there_are_enough_mutants():
    assert len(MUTANTS) >= 8
