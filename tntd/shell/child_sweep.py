"""Sweeping a stage: what an earlier try has left in it, and the sender does not have any more.

A try may end at any moment, and the next goes on from where all is known to be on the disk.  What
was written beyond that may be anything (a crash of the machine leaves files of the right length
and no content), and is written once more, as long as the sender still has it.  What the sender
has removed meanwhile would stay, and get a final name with the rest.

What holds always:
- Nothing is removed before everything is told that is to stay.
- What is told takes 8 bytes a file.
"""

from __future__ import annotations

import errno
import struct
import time
from array import array
from bisect import bisect_left
from typing import Final

from tntd.machines import tree
from tntd.shell import child_folder, child_stage, child_tree
from tntd.shell.child_tree import Found
from tntd.tasks import Done, SweepStage

_STEP_S: Final = 0.25
_SHELVES: Final = 256  # by their first byte, so that each is sorted at little cost


class _Sweep:
    """What is to stay, and how far the sweep has come."""

    def __init__(self) -> None:
        self._known = [array("Q") for _ in range(_SHELVES)]
        self.count = 0
        self.walk: child_tree.Entries | None = None

    def add(self, known: bytes) -> None:
        """These stay."""
        for (mark,) in struct.iter_unpack(">Q", known):
            self._known[mark >> 56].append(mark)
        self.count += len(known) // tree.MARK_BYTES

    def begin(self, task: SweepStage) -> child_tree.Entries:
        """The walk through the stage.  Raises OSError."""
        if self.walk is None:
            self._known = [array("Q", sorted(shelf)) for shelf in self._known]
            root = child_stage.hold(task.folder, task.name).root
            self.walk = child_tree.walk(root.again(), everything=True)
        return self.walk

    def stays(self, path: bytes) -> bool:
        """Whether this was told."""
        (mark,) = struct.unpack(">Q", tree.mark(path))
        shelf = self._known[mark >> 56]
        at = bisect_left(shelf, mark)
        return at < len(shelf) and shelf[at] == mark

    def close(self) -> None:
        """Close what it holds."""
        if self.walk is not None:
            self.walk.close()


_sweeps: child_tree.Kept[_Sweep] = child_tree.Kept()


def sweep_stage(task: SweepStage) -> Done:
    """Hear what stays; at the end, remove the rest.  Raises OSError: ESTALE, EAGAIN."""
    child_folder.check_name(task.name)
    sweep = _sweeps.take(task.sweep) or _Sweep()
    if task.at != sweep.count:
        sweep.close()
        raise OSError(errno.ESTALE, "not all was told that stays")
    sweep.add(task.known)
    if not task.end:
        _sweeps.put(task.sweep, sweep)
        return Done()
    try:
        _remove(sweep, sweep.begin(task))
    except OSError as error:
        if error.errno == errno.EAGAIN:
            _sweeps.put(task.sweep, sweep)
        else:
            sweep.close()
        raise
    sweep.close()
    return Done()


def _remove(sweep: _Sweep, entries: child_tree.Entries) -> None:
    end_at = time.monotonic() + _STEP_S
    for found in entries:
        if found.what == "file" and not sweep.stays(found.path):
            _remove_one(found)
        if time.monotonic() >= end_at:
            raise OSError(errno.EAGAIN, "more is left")


def _remove_one(found: Found) -> None:
    folder = found.folder
    assert folder is not None
    mtime_ns = folder.status().st_mtime_ns
    folder.remove(found.name)
    folder.set_time(mtime_ns, time.time_ns())  # its own time was set by then


def forget() -> bool:
    """Let go of all; whether there were any."""
    return _sweeps.clear()
