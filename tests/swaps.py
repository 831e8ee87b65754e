"""Folders that somebody swaps for a symbolic link, once or all the time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tntd.shell.child_folder import Folder


def swap(path: Path, target: Path | str) -> None:
    """Put `path` elsewhere and a link in its place."""
    path.rename(path.with_name(path.name + ".moved"))
    path.symlink_to(target)


class Racer:
    """Swaps a folder for a link again and again, at every system call of ours."""

    def __init__(self, victim: Path, outside: Path) -> None:
        self.victim = victim
        self.outside = outside
        self.moved = victim.with_name("moved")

    def swap(self) -> None:
        """To the link, or back."""
        if self.victim.is_symlink():
            self.restore()
        elif self.victim.exists():
            self.victim.rename(self.moved)
            self.victim.symlink_to(self.outside)

    def restore(self) -> None:
        """Back, where it is not."""
        if self.victim.is_symlink():
            self.victim.unlink()
            self.moved.rename(self.victim)

    def race(self, monkeypatch: pytest.MonkeyPatch, call: str, at_once: bool = True) -> None:
        """From now on, before each `call` of a folder, or (not `at_once`) from the second on."""
        real: Callable[..., object] = getattr(Folder, call)
        turn = at_once

        def raced(folder: Folder, *arguments: object, **named: object) -> object:
            nonlocal turn
            if turn:
                self.swap()
            turn = True
            return real(folder, *arguments, **named)

        monkeypatch.setattr(Folder, call, raced)
