"""The two child processes: who does which task, and where open files go.

`disk` does what may wait for a disk, `net` what may wait for a name server (see child.py).

What holds always: every task that is asked is answered; open files that come up are in the
table of files before the answer is told.  Where files cannot travel between processes
(Windows), tasks about open files are done in place.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from logging import Logger

from tntd import limits
from tntd.events import Answered
from tntd.shell import child_wire
from tntd.shell.child_process import ChildProcess, Job, OnAnswer
from tntd.shell.child_wire import Warm
from tntd.shell.files import Files, OpenFile, failure
from tntd.shell.loop import Loop
from tntd.tasks import (
    Answer,
    AnyTask,
    CopyRange,
    Failed,
    FinishEntry,
    HashRange,
    OpenEntry,
    Pack,
    Resolve,
    SyncPart,
    SyncStage,
    Unpack,
)

Callback = Callable[[Answer], None]
Opening = Pack | OpenEntry  # what brings an open file up, sometimes

_NOT_OPEN = Failed("EBADF", "the file is not open")


class Children:
    """Does tasks; answers come as Answered events, or to a callback for the shell's own."""

    def __init__(
        self,
        loop: Loop,
        files: Files,
        logger: Logger,
        *,
        deadline_s: float = limits.CHILD_DEADLINE_S,
    ) -> None:
        self._loop = loop
        self._files = files
        self._disk = ChildProcess("disk", loop, logger, deadline_s)
        self._net = ChildProcess("net", loop, logger, deadline_s)

    @property
    def pids(self) -> list[int]:
        """Process ids of the children that run now."""
        return [child.pid for child in (self._disk, self._net) if child.pid is not None]

    def start(self) -> None:
        """Start both.  To be called before the identity key is read."""
        self._disk.start()
        self._net.start()

    def close(self) -> None:
        """End both; what they had not answered stays unanswered."""
        self._disk.close()
        self._net.close()

    def ask(self, task: int, request: AnyTask) -> None:
        """Have a task of the node done: Answered follows."""
        self._do(request, lambda answer: self._loop.post(Answered(task, answer)))

    # -- for the lanes: each answers with what the task says, or Failed ---------------------

    def sync(self, task: SyncPart, callback: Callback) -> None:
        """Bring what was written to an open file to the disk."""
        self._do(task, callback)

    def warm(self, handle: int, offset: int, length: int, callback: Callback) -> None:
        """Bring a range of an open file into memory."""
        self._with_file(handle, Warm(offset, length), lambda answer, *_: callback(answer))

    def pack(self, task: Pack, callback: Callback) -> None:
        """Make the next record; where `large` is in the answer, it is open as `task.handle`."""
        self._do(task, callback)

    def unpack(self, task: Unpack, callback: Callback) -> None:
        """Put the entries of a record in place."""
        self._do(task, callback)

    def open_entry(self, task: OpenEntry, callback: Callback) -> None:
        """Open a file of a stage as `task.handle`."""
        self._do(task, callback)

    def hash_range(self, task: HashRange, callback: Callback) -> None:
        """Hash the blocks of a range of an open file, or of an older copy."""
        self._do(task, callback)

    def copy_range(self, task: CopyRange, callback: Callback) -> None:
        """Copy a range of an older copy to an open file."""
        self._do(task, callback)

    def finish_entry(self, task: FinishEntry, callback: Callback) -> None:
        """Give an open file its time and mode."""
        self._do(task, callback)

    def sync_stage(self, task: SyncStage, callback: Callback) -> None:
        """Bring a stage to the disk."""
        self._do(task, callback)

    # -- who does it -----------------------------------------------------------------------

    def _do(self, request: AnyTask, callback: Callback) -> None:
        def answered(answer: Answer, opened: int | None, in_memory: bool) -> None:
            if opened is None and child_wire.gives_file(request, answer):
                answer = Failed("EMFILE", "too many files are open")  # lost on its way to us
            if opened is not None:
                assert isinstance(request, Opening)
                self._files.put(request.handle, OpenFile(opened, in_memory))
            callback(answer)

        if isinstance(request, Resolve):
            self._net.submit(Job(request, answered))
        elif child_wire.takes_file(request):
            assert isinstance(request, SyncPart | HashRange | CopyRange | FinishEntry)
            self._with_file(request.handle, request, answered)
        elif child_wire.PASSES_FILES or not isinstance(request, Opening):
            self._disk.submit(Job(request, answered))
        else:
            _do_in_place(request, None, answered)

    def _with_file(self, handle: int, task: AnyTask | Warm, on_answer: OnAnswer) -> None:
        file = self._files.get(handle)
        if file is None:
            on_answer(_NOT_OPEN, None, False)
        elif not child_wire.PASSES_FILES:
            _do_in_place(task, file.descriptor, on_answer)
        else:
            # A copy of the descriptor, the same open file: it outlives a close meanwhile.
            try:
                copy = os.dup(file.descriptor)
            except OSError as error:
                on_answer(failure(error), None, False)
                return
            self._disk.submit(Job(task, on_answer, copy))


def _do_in_place(task: AnyTask | Warm, descriptor: int | None, on_answer: OnAnswer) -> None:
    from tntd.shell import child_disk

    on_answer(*child_disk.perform(task, descriptor))
