"""The benchmarks still run: at tiny sizes, of which no figure means anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCENARIOS = ("single", "small", "delta")


def test_scenarios_get_to_their_end() -> None:
    """Without the other tools, whatever this machine has."""
    options = ["--runs", "1", "--size", "2", "--files", "5"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", *SCENARIOS, *options],
        cwd=ROOT,
        env={**os.environ, "PATH": "/nonexistent"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "did not get to its end" not in done.stdout
    for name in SCENARIOS:
        assert f"## {name}:" in done.stdout
    assert done.stdout.count("| TalknTransfer |") >= len(SCENARIOS)


def test_a_scenario_that_there_is_not_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "none"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "no scenario none" in done.stderr
