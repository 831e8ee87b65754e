"""A slice of seeds, and that a seed is a run.  Long hunts: `python -m tests.sim --seeds A-B`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sim.faults import Faults
from sim.world import simulate

ROOT = Path(__file__).parents[2]
CHUNKS, CHUNK = 8, 8


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_nothing_is_lost(chunk: int):
    for seed in range(chunk * CHUNK + 1, (chunk + 1) * CHUNK + 1):
        outcome = simulate(seed)
        assert not outcome.problem, outcome.report()


def test_nothing_is_lost_where_nothing_goes_wrong():
    outcome = simulate(0, Faults(until=60.0))
    assert not outcome.problem, outcome.report()
    assert outcome.messages > 50
    assert outcome.files > 5
    assert outcome.crashes == 0


def run(hash_seed: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.sim", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_seed_is_a_run():
    first, second = (run(hash_seed, "--seeds", "3-7", "--jobs", "1") for hash_seed in "12")
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout == second.stdout
    assert len(first.stdout.splitlines()) == 6
    # In another process, after other runs, too.
    assert f"seed 7 {simulate(7).digest} ok" in first.stdout


def test_a_failure_is_told_in_words():
    def spin(world):
        for _ in range(4000):
            world.machines[0].start()
            world.machines[0].schedule()
            world.heap.run(world.heap.now)

    outcome = simulate(5, Faults(until=10.0, turn_s=0.0), spin)
    report = outcome.report()
    assert "seed 5: ann turns without end" in report
    assert "faults: until 10 s: none" in report
    assert "ann         starts" in report
