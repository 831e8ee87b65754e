"""Starting in the background, with a stand-in for the daemon that misbehaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from harness import wait_for
from tntd import launch

READY = (
    '{"name":"a","id":"x","pid":1,"peer_port":2,"control":"unix:/x","token_file":null,'
    '"downloads":"/d","log":"/l"}'
)


def play(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Run `program` in place of the daemon."""

    def spawn(arguments: list[str], errors: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=errors
        )

    monkeypatch.setattr(launch, "_spawn", spawn)


def test_ready_with_notes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    play(
        monkeypatch,
        f"import sys; print('a note', file=sys.stderr, flush=True); print({READY!r}, flush=True);"
        f" sys.stdout.close(); open({str(tmp_path / 'on')!r}, 'w').close()",
    )
    outcome = launch.start([])
    assert outcome.ready is not None
    assert (outcome.ready.name, outcome.errors, outcome.exit_code) == ("a", "a note\n", 0)


def test_a_ready_line_in_pieces(monkeypatch: pytest.MonkeyPatch):
    half = len(READY) // 2
    play(
        monkeypatch,
        "import sys, time; out = sys.stdout;"
        f" out.write({READY[:half]!r}); out.flush(); time.sleep(0.1); print({READY[half:]!r})",
    )
    outcome = launch.start([])
    assert outcome.ready is not None and outcome.ready.peer_port == 2


@pytest.mark.parametrize("code", [1, 2, 3, 77])
def test_a_failure_passes_its_words_and_its_exit_code_on(
    monkeypatch: pytest.MonkeyPatch, code: int
):
    play(monkeypatch, f"import sys; print('no', file=sys.stderr); sys.exit({code})")
    assert launch.start([]) == launch.Outcome(None, "no\n", code)


def test_a_silent_death_is_told(monkeypatch: pytest.MonkeyPatch):
    play(monkeypatch, "import os; os.kill(os.getpid(), 9)")
    outcome = launch.start([])
    assert (outcome.ready, outcome.exit_code) == (None, 1)
    assert "ended before it was ready" in outcome.errors


def test_one_that_never_gets_ready_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    begun = tmp_path / "begun"
    spawned: list[int] = []

    def spawn(_arguments: list[str], errors: IO[bytes]) -> subprocess.Popen[bytes]:
        program = (
            "import sys, time; print('{', end='', flush=True);"
            f" open({str(begun)!r}, 'w').close(); time.sleep(600)"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=errors
        )
        spawned.append(process.pid)
        wait_for(begun.exists)  # half of its line is there before the time begins
        return process

    monkeypatch.setattr(launch, "_spawn", spawn)
    monkeypatch.setattr(launch, "READY_TIMEOUT_S", 1.0)
    outcome = launch.start([])
    assert (outcome.ready, outcome.exit_code) == (None, 1)
    assert "not ready after 1 s" in outcome.errors
    with pytest.raises(ProcessLookupError):
        os.kill(spawned[0], 0)
