"""What the simulated child `disk` does with the spool, as tntd/shell/child_spool.py.

Nothing here is old enough to be swept away at a start: what is left in the spool in the end was
forgotten.
"""

from __future__ import annotations

from tntd.tasks import CleanSpool, Counted, Done, Unspool

from .child_source import Steps
from .disk import Disk, Folder


class Spool:
    """The tasks."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def unspool(self, task: Unspool) -> Steps:
        """Remove a folder of the spool for good."""
        disk = self._disk
        disk.check()
        yield
        spool = disk.find(task.folder)
        if isinstance(spool, Folder):
            inner = spool.names.get(task.name)
            if isinstance(inner, Folder):
                for name in list(inner.names):
                    disk.change((inner, name, None))
                    yield
                disk.change((spool, task.name, None))
            disk.check()
            disk.sync_folder(spool)
        return Done()

    def clean(self, task: CleanSpool) -> Steps:
        """Look through it."""
        self._disk.check()
        yield
        return Counted(0, 0, True)
