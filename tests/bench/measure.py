"""What a run has cost: wall time, CPU time of all who took part, memory.

CPU time is user and system time together.  Of a process that lives on it is read from the
kernel's book (`/proc/PID/stat`, with the children that it has waited for, and those that still
run); of a tool that ends it is what the kernel books to its parent, us.
"""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

MB = 1_000_000
MIB = 1 << 20
GIB = 1 << 30
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_USER_TIME = 11  # in the fields of /proc/PID/stat behind the name; four times follow each other


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of a run, and CPU seconds of all who took part in it."""

    seconds: float
    cpu: float


def spread(values: Sequence[float], form: str = ".0f") -> str:
    """The median, and where there are several the least and the most."""
    middle = format(statistics.median(values), form)
    if len(values) == 1:
        return middle
    return f"{middle} ({format(min(values), form)} to {format(max(values), form)})"


def percentile(values: Iterable[float], part: float) -> float:
    """The value that `part` (0 to 1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def tree(pid: int) -> list[int]:
    """The process and all below it that run now."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return []


def cpu_of_trees(pids: Iterable[int]) -> float:
    """CPU seconds of these processes with all their children, dead and alive."""
    ticks = 0
    for pid in (each for root in pids for each in tree(root)):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(each) for each in fields[_USER_TIME : _USER_TIME + 4])
    return ticks / _TICKS_PER_S


def cpu_of_ended_children() -> float:
    """CPU seconds of all our own children that have ended, with theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rss_of_tree(pid: int) -> int:
    """Resident bytes of a process and its children together."""
    return rss_of(tree(pid))


def rss_of(pids: Iterable[int]) -> int:
    """Resident bytes of these processes together; those that are gone have none."""
    pages = 0
    for each in pids:
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{each}/statm").read_text().split()[1])
    return pages * _PAGE_BYTES


def loopback_bytes() -> int:
    """Bytes that went over the loopback device since the machine started."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, fields = line.partition(":")
        if name.strip() == "lo":
            return int(fields.split()[0])
    return 0


class Meter:
    """Measures what happens in a `with`; `servers` are processes that live on."""

    def __init__(self, servers: Iterable[int] = ()) -> None:
        self._servers = list(servers)
        self.cost = Cost(0.0, 0.0)

    def _cpu(self) -> float:
        return cpu_of_trees(self._servers) + cpu_of_ended_children()

    @contextlib.contextmanager
    def measured(self, settle: Callable[[], None] = lambda: None) -> Iterator[None]:
        """`settle` is called when the time is taken, before the CPU time is read: it waits until
        those who took part have ended."""
        cpu, began = self._cpu(), time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        settle()
        self.cost = Cost(seconds, self._cpu() - cpu)


class Memory:
    """The most that each of some daemons with its children held, above what it held at first.
    The children are those of the beginning: to look for new ones each time would cost too much."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._trees = {pid: tree(pid) for pid in pids}
        self.idle = {pid: rss_of(those) for pid, those in self._trees.items()}
        self.peak = dict(self.idle)
        self.curve: list[tuple[float, list[int]]] = []
        self._began = time.monotonic()

    def look(self) -> None:
        """Take a sample."""
        now = {pid: rss_of(those) for pid, those in self._trees.items()}
        self.peak = {pid: max(self.peak[pid], now[pid]) for pid in now}
        above = [now[pid] - self.idle[pid] for pid in now]
        self.curve.append((time.monotonic() - self._began, above))

    def above(self) -> list[float]:
        """MiB above the first sample at the worst, in the order of the pids."""
        return [(self.peak[pid] - self.idle[pid]) / MIB for pid in self.idle]
