"""How fast is one lane over loopback?  Two processes, a real file, no daemon around them.

    python tests/bench/lane.py [MEGABYTES] [FOLDER]

FOLDER (default /dev/shm) holds the file and its copy; both are removed.  With `--profile` the
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

from tntd.effects import OpenLane
from tntd.events import Answered, Event, LaneFailed, LaneFinished
from tntd.shell.children import Children
from tntd.shell.clock import Clock
from tntd.shell.files import Files
from tntd.shell.lanes import Lanes
from tntd.shell.loop import Loop
from tntd.tasks import Inspected, OpenPart, OpenSource

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
                if isinstance(event, wanted):
                    return event
                if isinstance(event, LaneFailed):
                    raise SystemExit(f"{event}")
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


def effect(sending: bool, port: int, size: int, inspected: Inspected) -> OpenLane:
    """The sender dials, the receiver accepts."""
    stamp = (inspected.inode, inspected.mtime_ns, inspected.ctime_ns) if sending else ()
    return OpenLane(
        1, 1, TICKET, sending, "127.0.0.1", port, DIALLER, ACCEPTOR, sending, 1, size, *stamp
    )


def send(port: int, path: Path) -> None:
    """The process that sends."""
    bench = Bench()
    bench.children.ask(1, OpenSource(1, os.fsencode(path)))
    found = bench.inspected()
    bench.lanes.open(effect(True, port, found.size, found), export)
    bench.until(LaneFinished)
    time.sleep(0.1)  # the receiver closes first
    bench.close()


def receive(size: int, folder: Path, dial: Callable[[int], subprocess.Popen[bytes]]) -> float:
    """The process that receives; seconds between the first byte and the last."""
    bench = Bench()
    bench.children.ask(1, OpenPart(1, os.fsencode(folder), b"part", size, 0))
    found = bench.inspected()
    with socket.create_server(("127.0.0.1", 0)) as server:
        bench.lanes.open(effect(False, 0, size, found), export)
        sender = dial(server.getsockname()[1])
        sock, _ = server.accept()
    began = time.perf_counter()
    bench.lanes.adopt(sock, "127.0.0.1", lambda: None)
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


def main() -> None:
    """Run it."""
    arguments = [each for each in sys.argv[1:] if not each.startswith("-")]
    if "--send" in sys.argv:
        with profiled():
            send(int(arguments[0]), Path(arguments[1]))
        return
    size = int(arguments[0] if arguments else 2000) * MB
    base = arguments[1] if len(arguments) > 1 else "/dev/shm"
    with tempfile.TemporaryDirectory(dir=base) as name:
        folder = Path(name)
        source = folder / "source"
        block = os.urandom(MB)
        with source.open("wb") as file:
            for _ in range(size // MB):
                file.write(block)
        more = [each for each in sys.argv if each == "--profile"]
        with profiled():
            took = receive(
                size,
                folder,
                lambda port: subprocess.Popen(
                    [sys.executable, __file__, "--send", str(port), str(source), *more]
                ),
            )
        part = folder / ".tnt-part" / "part"
        assert part.stat().st_size == size
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"{size / MB / took:.0f} MB/s; receiver's CPU {used.ru_utime + used.ru_stime:.2f} s")


if __name__ == "__main__":
    main()
