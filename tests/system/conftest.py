"""One scene for many tests (see bystanders.py), because each needs two daemons.

What holds always: a test finds alice and bob as if they were new, but for their talk; after a test
that did not get to its end they are replaced.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bystanders import Scene
from harness import Daemon

_LOG_CHARS_SHOWN = 8_000


class Stage:
    """Daemons and the scene that they play in, made when it is needed."""

    def __init__(self) -> None:
        self.scene: Scene | None = None
        self._home = Path()
        self._started: list[Daemon] = []

    def set(self) -> Scene:
        """A scene in which nothing is wrong."""
        if self.scene is None:
            self._home = Path(tempfile.mkdtemp(prefix="tnt-"))
            self.scene = Scene(self._start)
        self.scene.begin()
        return self.scene

    def _start(self, name: str, *options: str, **more: Any) -> Daemon:
        made = Daemon(name, self._home, *options, **more)
        self._started.append(made)
        return made.start()

    def clear(self) -> None:
        """End what was started."""
        for each in self._started:
            each.clean_up()
        if self._started:
            shutil.rmtree(self._home, ignore_errors=True)
        self._started.clear()
        self.scene = None


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    """The daemons of all tests that share them (in this worker)."""
    made = Stage()
    yield made
    made.clear()


@pytest.fixture
def scene(stage: Stage) -> Iterator[Scene]:
    """alice, who is to be attacked, and bob, who is not to notice.  A test ends with
    `scene.undisturbed()`."""
    try:
        scene = stage.set()
        yield scene
    finally:
        failed = stage.scene is None or not stage.scene.at_peace
        if failed:
            for each in stage._started:  # shown where a test has failed
                print(f"--- log of {each.name}\n{each.log()[-_LOG_CHARS_SHOWN:]}{each.stderr()}")
            stage.clear()
