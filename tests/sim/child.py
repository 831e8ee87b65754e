"""The child processes of a simulated daemon: the tasks of tntd/tasks.py on the simulated disk.

What holds always: each task means what the child of tntd/shell makes of it, step by step (a
`yield` between two steps), because a child may die and a power cut may come between any two.
A child does one task after the other; one that died is replaced and its task done again.  What is
asked for by a lane is answered to the lane, everything else to the node.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tntd import tasks
from tntd.events import Answered
from tntd.shell.child_stage_end import Unsure
from tntd.tasks import Answer, AnyTask, Failed, Resolve, Resolved

from .child_source import Source, Steps
from .child_spool import Spool
from .child_stage import Stage

if TYPE_CHECKING:
    from .process import Process

DEATHS_MAX = 3  # of one task, so that none fails only because its child dies
OnAnswer = Callable[[Answer], None]


class Tasks:
    """The tasks as steps; they end with an answer or an OSError."""

    def __init__(self, process: Process) -> None:
        machine = process.machine

        def published(part: bytes, path: bytes, node: Any) -> None:
            machine.watcher.published(machine, part, path, node)

        self._process = process
        source = self._source = Source(machine.disk, process.files, machine.rng)
        stage = self._stage = Stage(machine.disk, process.files, published)
        spool = Spool(machine.disk)
        self._table: dict[type[Any], Callable[[Any], Steps]] = {
            tasks.Inspect: source.inspect,
            tasks.CountTree: source.count,
            tasks.Pack: source.pack,
            tasks.PrepareStage: stage.prepare,
            tasks.Unpack: stage.unpack,
            tasks.OpenEntry: stage.open_entry,
            tasks.HashRange: stage.hash_range,
            tasks.CopyRange: stage.copy_range,
            tasks.FinishEntry: stage.finish_entry,
            tasks.SyncPart: stage.sync_part,
            tasks.SweepStage: stage.sweep,
            tasks.SyncStage: stage.sync_stage,
            tasks.Publish: stage.publish,
            tasks.MergeStage: stage.merge,
            tasks.DiscardPart: stage.discard,
            tasks.CleanStages: stage.clean,
            tasks.Unspool: spool.unspool,
            tasks.CleanSpool: spool.clean,
            tasks.Resolve: self._resolve,
        }

    def steps(self, task: AnyTask) -> Steps:
        """The steps of a task."""
        return self._table[type(task)](task)

    def forget(self) -> None:
        """Another child does them from now on."""
        self._source.forget()
        self._stage.forget()

    def _resolve(self, task: Resolve) -> Steps:
        yield
        host = self._process.machine.network.names.get(task.host)
        return Failed("UNRESOLVED", "no such name") if host is None else Resolved([host])


class Child:
    """One child process: a queue of tasks.  `delay_s` is what a step takes at most."""

    def __init__(self, process: Process, delay_s: float) -> None:
        self._process = process
        self._tasks = Tasks(process)
        self._delay_s = delay_s
        self._rng = process.machine.rng
        self._queue: deque[tuple[OnAnswer, AnyTask]] = deque()
        self._running: Steps | None = None
        self._deaths = 0

    @property
    def tasks(self) -> list[AnyTask]:
        """The tasks that wait, or are being done."""
        return [task for _, task in self._queue]

    @property
    def length(self) -> int:
        """How many tasks wait."""
        return len(self._queue)

    def ask(self, number: int, task: AnyTask) -> None:
        """Have a task done: Answered follows."""
        self.do(task, lambda answer: self._process.loop.post(Answered(number, answer)))

    def do(self, task: AnyTask, then: OnAnswer) -> None:
        """Have a task done: `then` is called with its answer."""
        self._queue.append((then, task))
        if len(self._queue) == 1:
            self._process.later(0.0, self._begin)  # never while somebody is still asking

    def die(self) -> None:
        """The process dies; another does its task again."""
        self._tasks.forget()
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
        if self._queue:
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
            unsure = isinstance(error, Unsure)
            name = "UNSURE" if unsure else errno.errorcode.get(error.errno or 0, "EIO")
            self._answer(Failed(name, (error.strerror or "").lower()))
        else:
            delay = self._delay_s * self._rng.random()
            self._process.later(delay, lambda: self._step(running))

    def _answer(self, answer: Answer) -> None:
        then, _ = self._queue.popleft()
        self._running, self._deaths = None, 0
        more = bool(self._queue)
        then(answer)
        if more:
            self._begin()
