"""How well two contacts talk while strangers besiege one of them: latency and memory, measured.

    python -m tests.faults.abuse

A text is timed from the call of its sender to the event at its receiver's client, so it has passed
two commits and one link.  The strangers (crowd.py) are a process of their own.  Memory is that of
the daemon that is besieged.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1])]

from harness import Client, Daemon, accept, rss, wait_for, wait_linked

MIB = 1024 * 1024
# Ten times what a busy machine needs; the longest ones tell of the machine, not of the strangers.
MEDIAN_MAX_S = 0.5
P90_MAX_S = 1.0
GROWTH_BYTES_MAX = 32 * MIB
_CROWD = Path(__file__).with_name("crowd.py")


@dataclass(frozen=True)
class Phase:
    """What was measured while something went on."""

    name: str
    latencies: list[float]  # seconds
    memory: int  # bytes, the highest

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.latencies)

    @property
    def p90(self) -> float:
        """Seconds."""
        return sorted(self.latencies)[int(len(self.latencies) * 0.9)]

    @property
    def p99(self) -> float:
        """Seconds."""
        return sorted(self.latencies)[int(len(self.latencies) * 0.99)]

    def row(self) -> str:
        """A row of the table."""
        return (
            f"| {self.name} | {len(self.latencies)} | {self.median * 1000:.1f} ms "
            f"| {self.p99 * 1000:.1f} ms | {max(self.latencies) * 1000:.0f} ms "
            f"| {self.memory / MIB:.0f} MiB |"
        )


class Siege:
    """alice, who is besieged, and bob, her contact."""

    def __init__(self, alice: Daemon, bob: Daemon, home: Path) -> None:
        self.alice = alice
        self.bob = bob
        self._home = home
        # One dial only: no duplicate link that is closed in the middle of a measurement.
        bob.rpc("peers.connect", address=alice.address)
        accept(alice, bob)
        wait_linked(alice, bob)
        self._ends = {each: each.client(subscribe=True) for each in (alice, bob)}
        self._said = 0

    def measure(self, name: str, seconds: float, until: subprocess.Popen[str] | None) -> Phase:
        """Talk both ways for so long, or until the process has ended."""
        latencies, memory = [], 0
        end = time.monotonic() + seconds
        while time.monotonic() < end if until is None else until.poll() is None:
            pair = (self.alice, self.bob) if self._said % 2 else (self.bob, self.alice)
            latencies.append(self._say(*pair))
            memory = max(memory, rss(self.alice.pid))
            time.sleep(0.02)  # the pace of the talk
        return Phase(name, latencies, memory)

    def _say(self, here: Daemon, there: Daemon) -> float:
        self._said += 1
        text = f"text {self._said}"
        began = time.monotonic()
        self._ends[here].send("messages.send", to=there.name, text=text)
        receiver = self._ends[there]
        receiver.wait_event("message.received", lambda event: event["message"]["text"] == text)
        latency = time.monotonic() - began
        for each in self._ends.values():
            each.events.clear()
            each._replies.clear()
        return latency

    @contextlib.contextmanager
    def transfer(self, size: int) -> Iterator[None]:
        """A file moves from alice to bob for the time of a `with`."""
        path = self._home / f"file {self._said}"
        with path.open("wb") as file:
            file.truncate(size)
        call = self.alice.rpc("transfers.send", to="bob", paths=[str(path)])
        id = call["transfers"][0]["id"]
        wait_for(lambda: self._state(id) == "active", what="the file moves")
        yield
        if self._state(id) != "done":
            self.alice.rpc("transfers.cancel", transfer=id)
        else:
            print("(the file was too small: it was done before the measurement)")
        # To remove a part of many GiB keeps a disk's journal busy; that is not to be measured here.
        wait_for(lambda: not list(self.bob.downloads.glob(".tnt-part/*")), what="the part is gone")

    def _state(self, id: str) -> str:
        listed = self.alice.rpc("transfers.list", limit=10)["transfers"]
        return next(str(each["state"]) for each in listed if each["id"] == id)

    @contextlib.contextmanager
    def crowd(self, count: int, rate: float) -> Iterator[subprocess.Popen[str]]:
        """Strangers come to alice."""
        command = [sys.executable, str(_CROWD), str(self.alice.port), str(count), str(rate)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def undisturbed(self) -> None:
        """The link of the two has held, and nobody logged a bug.  Raises AssertionError."""
        for each in (self.alice, self.bob):
            log = each.log()
            assert "Traceback" not in log, log[-5000:]
            assert log.count("is online") == 1, "the link has held"

    def close(self) -> None:
        """Let the clients go."""
        client: Client
        for client in self._ends.values():
            client.close()


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="Chat under siege.")
    parser.add_argument("--strangers", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=150.0, help="strangers a second")
    parser.add_argument("--seconds", type=float, default=15.0, help="of the phases without them")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # what was started is ended
    home = Path(tempfile.mkdtemp(prefix="tnt-abuse-"))
    config = home / "config.toml"
    config.write_text("reserve_bytes = 0\nauto_accept_bytes_max = 1000000000000\n")
    daemons = [
        Daemon(name, home, "--config", str(config), "--downloads", str(home / f"{name}-in"))
        for name in ("alice", "bob")
    ]
    try:
        siege = Siege(daemons[0].start(), daemons[1].start(), home)
        _report(siege, options)
        siege.close()
    finally:
        for each in daemons:
            each.clean_up()
        shutil.rmtree(home, ignore_errors=True)


def _report(siege: Siege, options: argparse.Namespace) -> None:
    large = 20_000 * MIB
    print("| while | texts | median | p99 | longest | memory, highest |\n|---|---|---|---|---|---|")

    def show(phase: Phase) -> None:
        print(phase.row(), flush=True)

    show(siege.measure("nothing else goes on", options.seconds, None))
    with siege.transfer(large):
        show(siege.measure("a file moves", options.seconds, None))
    with siege.crowd(options.strangers, options.rate) as crowd:
        show(siege.measure(f"{options.strangers} strangers come", 0, crowd))
        fates = [json.loads(crowd.communicate()[0])]
    with siege.crowd(options.strangers, options.rate) as crowd, siege.transfer(large):
        show(siege.measure(f"{options.strangers} strangers come and a file moves", 0, crowd))
        fates.append(json.loads(crowd.communicate()[0]))
    show(siege.measure("nothing else, afterwards", options.seconds, None))
    siege.undisturbed()
    print(f"\nThe strangers: {fates}")


if __name__ == "__main__":
    main()
