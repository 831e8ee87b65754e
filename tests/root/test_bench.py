"""The benchmarks still run: at tiny sizes, of which no figure means anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("names", [("single", "small", "delta"), ("memory", "fair")])
def test_scenarios_get_to_their_end(names: tuple[str, ...]) -> None:
    """Without the other tools, whatever this machine has.  The others need sizes at which a file
    is under way for a while."""
    options = ["--runs", "1", "--size", "2", "--files", "5"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", *names, *options],
        cwd=ROOT,
        env={**os.environ, "PATH": "/nonexistent"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "did not get to its end" not in done.stdout
    for name in names:
        assert f"## {name}" in done.stdout
    measured = re.findall(r"^\| .*\d", done.stdout, re.M)
    assert len(measured) >= len(names)


def test_a_scenario_that_there_is_not_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "none"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 2
    assert "no scenario none" in done.stderr
