"""How fast is one lane over loopback?  Two processes, real files, no daemon around them.

    python tests/bench/lane.py [MEGABYTES] [FOLDER]
    python tests/bench/lane.py --small COUNT [FOLDER]      COUNT files of 4 KiB
    python tests/bench/lane.py --medium COUNT [FOLDER]     COUNT files of 200 KiB

FOLDER (default /dev/shm) holds the files and their copy; both are removed.  With `--profile` the
two processes print where their time went.
"""

from __future__ import annotations

import contextlib
import cProfile
import logging
import os
import pstats
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tntd.effects import Inbound, OpenLane, Outbound, StartLane
from tntd.events import Answered, Event, LaneFailed, LaneFinished
from tntd.shell.children import Children
from tntd.shell.clock import Clock
from tntd.shell.files import Files
from tntd.shell.lanes import Lanes
from tntd.shell.loop import Loop
from tntd.tasks import Inspected, PrepareStage

TICKET, DIALLER, ACCEPTOR = b"t" * 16, b"d" * 32, b"a" * 32
MB = 1_000_000


class Bench:
    """The parts that a lane needs, and a turn without a node."""

    def __init__(self) -> None:
        self.loop, self.files = Loop(Clock()), Files()
        logger = logging.getLogger("bench")
        self.children = Children(self.loop, self.files, logger)
        self.lanes = Lanes(self.loop, self.files, self.children, logger)
        self.children.start()

    def until(self, wanted: type[Event]) -> Event:
        """Turn until an event of this type."""
        while True:
            self.loop.collect(None)
            for event in self.loop.take_events():
                if isinstance(event, LaneFailed):
                    raise SystemExit(f"{event}")
                if isinstance(event, wanted):
                    return event
            self.loop.run_bulk()

    def linger(self) -> None:
        """Turn until the other side has all and has closed: to close before would cut it."""
        while self.lanes._lanes:
            self.loop.collect(None)
            self.loop.run_bulk()

    def close(self) -> None:
        """End the children."""
        self.lanes.close_all()
        self.files.close_all()
        self.children.close()

    def inspected(self) -> Inspected:
        """The answer to what was asked."""
        event = self.until(Answered)
        assert isinstance(event, Answered)
        assert isinstance(event.answer, Inspected), event.answer
        return event.answer


def export(label: bytes, context: bytes, length: int) -> bytes:
    """Stands for the exporter of a link."""
    return (label + context)[-length:]


def effect(dials: bool, port: int, job: Inbound | Outbound) -> OpenLane:
    """The sender dials, the receiver accepts."""
    return OpenLane(1, 1, TICKET, dials, "127.0.0.1", port, DIALLER, ACCEPTOR, job)


def send(port: int, path: Path) -> None:
    """The process that sends."""
    bench = Bench()
    bench.lanes.open(effect(True, port, Outbound(os.fsencode(path))), export)
    bench.lanes.start(StartLane(1, 0, b"", False))
    bench.until(LaneFinished)
    bench.linger()
    bench.close()


def receive(
    tree: bool, size: int, folder: Path, dial: Callable[[int], subprocess.Popen[bytes]]
) -> float:
    """The process that receives; seconds between the first byte and the last."""
    bench = Bench()
    bench.children.ask(1, PrepareStage(os.fsencode(folder), b"part", tree, size, 0))
    bench.inspected()
    job = Inbound(os.fsencode(folder), b"part", tree, size, 0, b"", 0, False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        bench.lanes.open(effect(False, 0, job), export)
        sender = dial(server.getsockname()[1])
        sock, _ = server.accept()
    began = time.perf_counter()
    bench.lanes.adopt(sock, "127.0.0.1", lambda _: None)
    bench.until(LaneFinished)
    took = time.perf_counter() - began
    bench.close()
    sender.wait()
    return took


@contextlib.contextmanager
def profiled() -> Iterator[None]:
    """Print where the time went, where that was asked."""
    profile = cProfile.Profile()
    if "--profile" in sys.argv:
        profile.enable()
    yield
    profile.disable()
    if "--profile" in sys.argv:
        pstats.Stats(profile).sort_stats("tottime").print_stats(20)


def make(source: Path, count: int, size: int) -> None:
    """One file, or a folder of `count` files of `size` bytes."""
    block = os.urandom(min(size, MB))
    if not count:
        with source.open("wb") as file:
            for _ in range(size // len(block)):
                file.write(block)
        return
    for number in range(count):
        folder = source / f"folder{number // 100}"
        if number % 100 == 0:
            folder.mkdir(parents=True)
        (folder / f"file{number}").write_bytes(block)


def cpu_seconds() -> float:
    """Of this process and of all that have ended."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in both)


def run(count: int, size: int, base: str) -> None:
    """Measure it once, and print it."""
    with tempfile.TemporaryDirectory(dir=base) as name:
        folder = Path(name)
        source = folder / "source"
        make(source, count, size)
        more = [each for each in sys.argv if each == "--profile"]
        total = size * max(1, count)
        before = cpu_seconds()
        with profiled():
            took = receive(
                bool(count),
                total,
                folder,
                lambda port: subprocess.Popen(
                    [sys.executable, __file__, "--send", str(port), str(source), *more]
                ),
            )
        used = cpu_seconds() - before
        part = folder / ".tnt-part" / "part"
        arrived = sum(each.stat().st_size for each in part.rglob("*") if each.is_file())
        assert (arrived if count else part.stat().st_size) == total
    rate = f"{count / took:.0f} files/s, " if count else ""
    print(f"{rate}{total / MB / took:.0f} MB/s; {used / total * 2**30:.2f} CPU s a GiB, both ends")


def main() -> None:
    """Run it."""
    arguments = [each for each in sys.argv[1:] if not each.startswith("-")]
    if "--send" in sys.argv:
        with profiled():
            send(int(arguments[0]), Path(arguments[1]))
        return
    number = int(arguments[0]) if arguments else 0
    base = arguments[1] if len(arguments) > 1 else "/dev/shm"
    if "--small" in sys.argv:
        run(number or 10_000, 4096, base)
    elif "--medium" in sys.argv:
        run(number or 2000, 200 * 1024, base)
    else:
        run(0, (number or 2000) * MB, base)


if __name__ == "__main__":
    main()
