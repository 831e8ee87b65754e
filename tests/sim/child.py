"""The child processes of a simulated daemon: the tasks of tntd/tasks.py on the simulated disk.

What holds always: each task means what tntd/shell/child_disk.py makes of it, step by step (a
`yield` between two steps), because a child may die and a power cut may come between any two.
A child does one task after the other; one that died is replaced and its task done again.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Generator
from typing import TYPE_CHECKING

from tntd.events import Answered
from tntd.tasks import (
    Answer,
    AnyTask,
    DiscardPart,
    Done,
    Failed,
    Inspect,
    Inspected,
    OpenPart,
    OpenSource,
    Publish,
    Resolve,
    Resolved,
    SyncPart,
)

from .disk import Disk, File

if TYPE_CHECKING:
    from .process import Process

PARTS = b".tnt-part"
Steps = Generator[None, None, Answer]
DEATHS_MAX = 3  # of one task, so that none fails only because its child dies


def failed(number: int) -> OSError:
    """The error of this number."""
    return OSError(number, os.strerror(number))


def inspected(disk: Disk, file: File) -> Inspected:
    """What `stat` says."""
    return Inspected(
        kind="file",
        size=len(file.data),
        mtime_ns=file.mtime_ns,
        ctime_ns=file.ctime_ns,
        device=1,
        inode=file.inode,
        executable=file.executable,
        free=0 if disk.full else disk.free,
    )


class Tasks:
    """The tasks as steps.  `files` is the table of open files, by handle."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._disk = process.machine.disk
        self._files = process.files

    def steps(self, task: AnyTask) -> Steps:
        """The steps of a task; they end with its answer or an OSError."""
        match task:
            case Inspect():
                return self._inspect(task)
            case OpenSource():
                return self._open_source(task)
            case OpenPart():
                return self._open_part(task)
            case SyncPart():
                return self._sync(task)
            case Publish():
                return self._publish(task)
            case DiscardPart():
                return self._discard(task)
        return self._resolve(task)

    def _inspect(self, task: Inspect) -> Steps:
        self._disk.check()
        yield
        if task.path in self._disk.folders:
            free = 0 if self._disk.full else self._disk.free
            return Inspected("folder", 0, 0, 0, 1, 1, False, free)
        return inspected(self._disk, self._look(task.path))

    def _open_source(self, task: OpenSource) -> Steps:
        self._disk.check()
        yield
        file = self._look(task.path)
        self._files[task.handle] = file
        return inspected(self._disk, file)

    def _look(self, path: bytes) -> File:
        folder, _, name = path.rpartition(b"/")
        file = self._disk.find(folder, name)
        if file is None:
            raise failed(errno.ENOENT)
        return file

    def _open_part(self, task: OpenPart) -> Steps:
        parts = _parts(task.folder)
        self._disk.make_folder(task.folder)
        if (0 if self._disk.full else self._disk.free) < task.size + task.reserve:
            raise failed(errno.ENOSPC)
        self._disk.make_folder(parts)
        yield
        self._disk.check(writing=True)
        if self._disk.find(parts, task.name) is not None:
            self._disk.change((parts, task.name, None))
            yield
        file = self._disk.new_file()
        self._disk.change((parts, task.name, file))
        yield
        self._files[task.handle] = file
        return inspected(self._disk, file)

    def _sync(self, task: SyncPart) -> Steps:
        file = self._files.get(task.handle)
        if file is None:
            raise failed(errno.EBADF)
        yield
        self._sync_file(file)
        return Done()

    def _sync_file(self, file: File) -> None:
        try:
            self._disk.check(writing=bytes(file.data) != file.durable)
        except OSError:
            file.spoiled = bytes(file.data) != file.durable
            raise
        file.sync()

    def _publish(self, task: Publish) -> Steps:
        disk, parts = self._disk, _parts(task.folder)
        disk.check()
        yield
        there, part = disk.find(task.folder, task.name), disk.find(parts, task.part)
        if there is not None and there.inode == task.inode:
            if part is there:
                disk.change((parts, task.part, None))
                disk.sync_folder(parts)
            yield
            disk.sync_folder(task.folder)
            return Done()
        if part is None:
            raise failed(errno.ENOENT)
        if there is not None:
            raise failed(errno.EEXIST)
        if part.inode != task.inode:
            raise failed(errno.ESTALE)
        part.executable, part.mtime_ns = task.executable, task.mtime_ns
        yield
        self._sync_file(part)
        yield
        if disk.find(task.folder, task.name) is not None:
            raise failed(errno.EEXIST)
        disk.change((task.folder, task.name, part), (parts, task.part, None))
        self._process.machine.watcher.published(self._process.machine, task.name, part)
        yield
        disk.check()
        disk.sync_folder(task.folder)
        yield
        disk.sync_folder(parts)
        return Done()

    def _discard(self, task: DiscardPart) -> Steps:
        self._disk.check()
        yield
        parts = _parts(task.folder)
        if self._disk.find(parts, task.name) is not None:
            self._disk.change((parts, task.name, None))
        yield
        self._disk.check()
        self._sync_removal(parts)
        return Done()

    def _sync_removal(self, parts: bytes) -> None:
        self._disk.sync_folder(parts)

    def _resolve(self, task: Resolve) -> Steps:
        yield
        host = self._process.machine.network.names.get(task.host)
        return Failed("UNRESOLVED", "no such name") if host is None else Resolved([host])


def _parts(folder: bytes) -> bytes:
    return folder + b"/" + PARTS


class Child:
    """One child process: a queue of tasks.  `delay_s` is what a step takes at most."""

    def __init__(self, process: Process, delay_s: float) -> None:
        self._process = process
        self._tasks = Tasks(process)
        self._delay_s = delay_s
        self._rng = process.machine.rng
        self._queue: deque[tuple[int, AnyTask]] = deque()
        self._running: Steps | None = None
        self._deaths = 0

    @property
    def length(self) -> int:
        """How many tasks wait."""
        return len(self._queue)

    def ask(self, number: int, task: AnyTask) -> None:
        """Have a task done: Answered follows."""
        self._queue.append((number, task))
        if len(self._queue) == 1:
            self._begin()

    def die(self) -> None:
        """The process dies; another does its task again."""
        if self._running is not None and self._deaths < DEATHS_MAX:
            self._deaths += 1
            self._running = None
            self._process.later(0.25, self._begin)

    def orphan(self) -> None:
        """The daemon is gone: the child may still end the task it is at."""
        if self._running is not None and self._rng.random() < 0.5:
            for _ in range(self._rng.randrange(8)):
                try:
                    next(self._running)
                except (StopIteration, OSError):
                    break
        self._running = None
        self._queue.clear()

    def _begin(self) -> None:
        self._running = self._tasks.steps(self._queue[0][1])
        self._step(self._running)

    def _step(self, running: Steps) -> None:
        if running is not self._running:
            return  # the child that did this has died
        try:
            next(running)
        except StopIteration as end:
            self._answer(end.value)
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "EIO")
            self._answer(Failed(name, (error.strerror or "").lower()))
        else:
            delay = self._delay_s * self._rng.random()
            self._process.later(delay, lambda: self._step(running))

    def _answer(self, answer: Answer) -> None:
        number, _ = self._queue.popleft()
        self._running, self._deaths = None, 0
        self._process.loop.post(Answered(number, answer))
        if self._queue:
            self._begin()
