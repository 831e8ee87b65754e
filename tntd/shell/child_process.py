"""One child process as the daemon sees it: a queue of jobs, and a program that does them.

What holds always:
- A job is answered exactly once, in the order of the jobs: by the child, or as Failed after it
  took too long twice or killed the child again and again.
- A child that dies or takes too long is replaced and the jobs it had are done again; a child
  that dies as soon as it is started is replaced after a back-off.
- At most CHILD_REQUESTS_MAX jobs are with the child, so its socket never fills for long; the
  others wait here.

The deadline is that of the oldest job: the child does one after the other, so the ones behind it
have not begun.  A descriptor that goes with a job is ours until the answer, for a repetition.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from logging import Logger

from tntd import limits
from tntd.shell import child_wire
from tntd.shell.child_wire import Crashed, Inbox, Request, Warm
from tntd.shell.loop import Loop, Timer
from tntd.tasks import Answer, AnyTask, Failed

# The answer, an open file that came up with it and is the callee's, and whether it is in memory.
OnAnswer = Callable[[Answer, int | None, bool], None]

_TIMEOUTS_MAX = 2
_REAP_INTERVAL_S = 1.0
_CLOSE_WAIT_S = 0.5


@dataclass(slots=True, eq=False)
class Job:
    """A request that is not answered yet; `descriptor` goes with it, and is closed at its end."""

    task: AnyTask | Warm
    on_answer: OnAnswer
    descriptor: int | None = None
    timeouts: int = 0
    deaths: int = 0

    def finish(self, answer: Answer, opened: int | None = None, in_memory: bool = False) -> None:
        """Give the answer."""
        self.release()
        self.on_answer(answer, opened, in_memory)

    def release(self) -> None:
        """Close what was to go with it."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def command(kind: str, where: str) -> list[str]:
    """How a child is started; `where` is its descriptor, or "-"."""
    return [sys.executable, "-P", "-m", "tntd.shell.child", kind, where]


class ChildProcess:
    """The child of one kind, and whoever replaces it."""

    def __init__(self, kind: str, loop: Loop, logger: Logger, deadline_s: float) -> None:
        self._kind = kind
        self._loop = loop
        self._logger = logger
        self._deadline_s = deadline_s
        self._waiting: deque[Job] = deque()
        self._under_way: dict[int, Job] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._inbox = Inbox()
        self._out: deque[tuple[bytes, int | None]] = deque()
        self._started_at = 0.0
        self._head_since = 0.0  # boot time since which the oldest job is being done
        self._quick_deaths = 0
        self._deadline: Timer | None = None
        self._restart: Timer | None = None
        self._dying: list[subprocess.Popen[bytes]] = []
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the program; where that fails it is tried again later."""
        self._restart = None
        self._started_at = self._loop.now().boot
        ours, theirs = socket.socketpair()
        try:
            self._process = _spawn(self._kind, theirs)
        except OSError as error:
            ours.close()
            self._logger.error("cannot start the %s helper: %s", self._kind, error)
            self._replace(self._back_off(), self._oldest())
            return
        finally:
            theirs.close()
        ours.setblocking(False)
        self._socket, self._inbox = ours, Inbox()
        self._pump()

    def submit(self, job: Job) -> None:
        """Have a job done."""
        self._waiting.append(job)
        self._pump()

    def close(self) -> None:
        """End the child and forget the jobs.  Waits for it, for a moment."""
        self._closed = True
        for timer in (self._deadline, self._restart):
            if timer is not None:
                timer.cancel()
        self._let_go()
        for process in self._dying:
            _end(process)
        for job in (*self._under_way.values(), *self._waiting):
            job.release()
        self._under_way.clear()
        self._waiting.clear()

    # -- the loop's calls ----------------------------------------------------------------

    def ready(self, readable: bool, writable: bool) -> None:
        """Take answers and send requests."""
        try:
            if readable and not self._receive():
                self._died()
                return
        except (OSError, ValueError) as error:
            self._logger.warning("the %s helper: %s", self._kind, error)
            self._died()
            return
        if writable:
            self._pump()

    def broke(self, error: Exception) -> None:
        """A bug of ours: another child, the same jobs."""
        self._died()

    # -- requests and answers ------------------------------------------------------------

    def _pump(self) -> None:
        if self._socket is None:
            return
        while self._waiting and len(self._under_way) < limits.CHILD_REQUESTS_MAX:
            self._hand_over(self._waiting.popleft())
        with contextlib.suppress(OSError):  # the child is gone; reading will tell
            self._flush(self._socket)
        self._loop.watch(self._socket, self, read=True, write=bool(self._out))

    def _hand_over(self, job: Job) -> None:
        number = self._loop.next_number()
        try:
            data = child_wire.encode(Request(number, job.task))
        except ValueError as error:
            job.finish(Failed("EINVAL", str(error)))
            return
        if not self._under_way:
            self._head_began()
        self._under_way[number] = job
        self._out.append((data, job.descriptor))

    def _flush(self, sock: socket.socket) -> None:
        while self._out:
            data, descriptor = self._out[0]
            try:
                sent = child_wire.send(sock, data, descriptor)
            except BlockingIOError:
                return
            if sent < len(data):
                self._out[0] = (data[sent:], None)
                return
            self._out.popleft()

    def _receive(self) -> bool:
        assert self._socket is not None
        sock = self._socket
        alive = self._inbox.receive(sock)
        while (body := self._inbox.next()) is not None:
            message = child_wire.up_decoder.decode(body)
            if isinstance(message, Crashed):
                self._logger.error("the %s helper crashed:\n%s", self._kind, message.text)
                continue
            reply = message.reply
            job = self._under_way.pop(reply.id)
            opened = None
            if child_wire.gives_file(job.task, reply.answer):
                opened = self._inbox.take_descriptor()
            self._head_began()
            job.finish(reply.answer, opened, reply.in_memory)
        if alive:
            self._pump()
        return alive

    # -- deadline ------------------------------------------------------------------------

    def _head_began(self) -> None:
        self._head_since = self._loop.now().boot
        # One timer, looked after when it fires, not one for each job.
        if self._deadline is None:
            self._deadline = self._loop.call_later(self._deadline_s, self._deadline_came)

    def _deadline_came(self) -> None:
        self._deadline = None
        if not self._under_way:
            return
        due = self._head_since + self._deadline_s
        if self._loop.now().boot < due:
            self._deadline = self._loop.call_at(due, self._deadline_came)
            return
        self._logger.warning(
            "the %s helper did not answer for %.0f s and is replaced", self._kind, self._deadline_s
        )
        head = next(iter(self._under_way.values()))
        head.timeouts += 1
        self._replace(0.0, None)

    # -- life and death ------------------------------------------------------------------

    def _died(self) -> None:
        self._logger.warning("the %s helper has ended and is started again", self._kind)
        self._replace(self._back_off(), self._oldest())

    def _oldest(self) -> Job | None:
        if self._under_way:
            return next(iter(self._under_way.values()))
        return self._waiting[0] if self._waiting else None

    def _replace(self, delay: float, blamed: Job | None) -> None:
        """Another child, `delay` seconds later, for the same jobs; `blamed` is the one that the
        old child seems to have died of."""
        self._let_go()
        self._waiting.extendleft(reversed(self._under_way.values()))
        self._under_way.clear()
        self._out.clear()
        if blamed is not None:
            blamed.deaths += 1
        self._give_up_oldest()
        if self._closed or self._restart is not None:
            return
        self._restart = self._loop.call_later(delay, self.start)

    def _give_up_oldest(self) -> None:
        if not self._waiting:
            return
        oldest = self._waiting[0]
        if oldest.timeouts >= _TIMEOUTS_MAX:
            self._waiting.popleft().finish(Failed("TIMEOUT", "it took too long"))
        elif oldest.deaths >= limits.CHILD_DEATHS_MAX:
            self._waiting.popleft().finish(Failed("ECHILD", "the helper program keeps ending"))

    def _back_off(self) -> float:
        lived = self._loop.now().boot - self._started_at
        self._quick_deaths = self._quick_deaths + 1 if lived < limits.CHILD_QUICK_DEATH_S else 1
        if self._quick_deaths <= 1:
            return 0.0
        delay: float = limits.CHILD_BACKOFF_FIRST_S * 2.0 ** min(self._quick_deaths - 2, 16)
        return min(delay, limits.CHILD_BACKOFF_MAX_S)

    def _let_go(self) -> None:
        if self._socket is not None:
            self._loop.unwatch(self._socket)
            self._socket.close()
            self._socket = None
        self._inbox.close()
        if self._process is not None:
            if not self._closed:
                self._process.kill()
            self._dying.append(self._process)
            self._process = None
        if not self._closed:
            self._reap()

    def _reap(self) -> None:
        # A process that waits for a broken disk cannot be killed; it is not waited for here.
        self._dying = [process for process in self._dying if process.poll() is None]
        if self._dying:
            self._loop.call_later(_REAP_INTERVAL_S, self._reap)


def _spawn(kind: str, theirs: socket.socket) -> subprocess.Popen[bytes]:
    passes = sys.platform != "win32"
    arguments = command(kind, str(theirs.fileno()) if passes else "-")
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL if passes else subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        close_fds=True,
        pass_fds=[theirs.fileno()] if passes else [],
        start_new_session=True,
        cwd="/" if passes else None,
    )
    if sys.platform == "win32" and process.stdin is not None:
        process.stdin.write(theirs.share(process.pid))
        process.stdin.close()
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a child whose socket is closed; kill it if it does not end by itself."""
    for _ in range(2):
        try:
            process.wait(_CLOSE_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
