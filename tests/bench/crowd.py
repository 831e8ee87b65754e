"""fair and contacts: many at once."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.measure import GIB, MB, MIB, cpu_of_trees, percentile, rss_of_tree
from tests.bench.report import ROOT, say
from tests.bench.scene import ENDED, Bench, Pair, delivered, events, good, transfer_of
from tests.harness import Client, Daemon, attached, connect_pair

RECEIVERS = 8
CONTACTS = 1000
_IDLE_S = 30.0
_SAMPLES = 500
_PAUSE_S = 0.02


@dataclass(slots=True)
class _Runs:
    """What one way of sending has cost, run by run: MB/s, and CPU seconds a GiB of both ends."""

    speeds: list[float] = field(default_factory=list)
    sender: list[float] = field(default_factory=list)
    receivers: list[float] = field(default_factory=list)
    cores: list[float] = field(default_factory=list)

    def add(self, size: int, seconds: float, sender: float, receivers: float) -> None:
        self.speeds.append(size / seconds / MB)
        self.sender.append(sender / (size / GIB))
        self.receivers.append(receivers / (size / GIB))
        self.cores.append((sender + receivers) / seconds)

    def cells(self) -> list[str]:
        rest = (self.sender, self.receivers, self.cores)
        return [
            f"{statistics.median(self.speeds):.0f}",
            *(f"{statistics.median(each):.2f}" for each in rest),
        ]


def fair(bench: Bench) -> None:
    """Eight contacts are sent a file each at the same time; beside it, one contact is sent as much,
    as one file and as the same eight."""
    size = bench.size // RECEIVERS
    source, whole = bench.file("share", size), bench.file("whole", size * RECEIVERS)
    spreads: list[float] = []
    alone, eight, together = _Runs(), _Runs(), _Runs()
    with bench.scene():
        one = bench.daemon("alice")
        others = [bench.daemon(f"bob{number}") for number in range(RECEIVERS)]
        for other in others[1:]:
            connect_pair(one, other)
        pair = Pair(one, others[0])
        ways = [
            (alone, [others[0]], whole),
            (eight, [others[0]] * RECEIVERS, source),
            (together, others, source),
        ]
        for _ in range(bench.runs):
            for runs, receivers, file in ways:
                shares = _all_at_once(pair, receivers, file, runs)
                if runs is together:
                    spreads.append(max(abs(share - 1) for share in shares))
                    rounded = [round(share, 2) for share in shares]
                    say(f"at the first end, in parts of the mean: {rounded}")
    source.unlink()
    whole.unlink()
    head = ("", "MB/s", "CPU s a GiB, sender", "receivers", "cores busy")
    names = ("one contact, one file", f"one contact, {RECEIVERS} files", f"{RECEIVERS} contacts")
    rows = [[name, *way[0].cells()] for name, way in zip(names, ways, strict=True)]
    bench.report.add(f"fair, on {os.cpu_count()} cores", head, rows)
    spread = statistics.median(spreads)
    bench.report.target("8 at once, shares", "within 20 %", f"{spread:.0%}", spread <= 0.2)
    total, single = statistics.median(together.speeds), statistics.median(alone.speeds)
    bench.report.target(
        "8 at once, total against one", "1.0 x", f"{total / single:.2f} x", total >= single
    )


def _all_at_once(pair: Pair, others: list[Daemon], source: Path, runs: _Runs) -> list[float]:
    """Send it to each, and note the cost: what each had when the first was done, in parts of the
    mean."""
    pids = {each.pid for each in others}
    pair.watch.events.clear()
    cpu, began = (cpu_of_trees([pair.one.pid]), cpu_of_trees(pids)), time.monotonic()
    sent = [
        pair.one.rpc("transfers.send", to=each.name, paths=[str(source)])["transfers"][0]["id"]
        for each in others
    ]
    running, shares = set(sent), []
    while running:
        for event in events(pair.watch, 1.0):
            transfer = event.get("transfer", {})
            if transfer.get("id") in running and transfer["state"] in ENDED:
                good(transfer)
                running.discard(transfer["id"])
                shares = shares or [transfer_of(pair.one, id)["bytes_done"] for id in sent]
    runs.add(
        source.stat().st_size * len(sent),
        time.monotonic() - began,
        cpu_of_trees([pair.one.pid]) - cpu[0],
        cpu_of_trees(pids) - cpu[1],
    )
    for each in others:
        _empty(each)
    mean = statistics.mean(shares)
    return [share / mean for share in shares]


def _empty(daemon: Daemon) -> None:
    for each in daemon.downloads.glob("new_*"):
        each.unlink()


# -- contacts -------------------------------------------------------------------------------


def contacts(bench: Bench) -> None:
    """A daemon with very many linked contacts: memory, what it does when idle, messages."""
    count = bench.files or CONTACTS
    _allow_descriptors(count)
    with bench.scene():
        one = bench.daemon("alice")
        alone = rss_of_tree(one.pid)
        with _light_peers(one, count), attached(one) as watch:
            linked = one.rpc("status")["links"]
            assert linked == count, f"{linked} of {count} are linked"
            memory = rss_of_tree(one.pid)
            time.sleep(1)
            idle = _idle_share(one)
            times = _messages(one, watch)
            after = rss_of_tree(one.pid)
    core = f"{idle:.2%}"
    p50, p99 = (percentile(times, part) * 1e3 for part in (0.5, 0.99))
    head = ("MiB, children too", "of it without links", "after the messages", "of a core, idle")
    cells = [*(f"{each / MIB:.1f}" for each in (memory, alone, after)), core]
    bench.report.add(
        f"contacts: {count:,} linked",
        (*head, "message p50 ms", "p99 ms"),
        [[*cells, f"{p50:.1f}", f"{p99:.1f}"]],
    )
    most = max(memory, after) / MIB
    bench.report.target(f"{count:,} contacts, memory", "150 MiB", f"{most:.1f} MiB", most <= 150)
    bench.report.target(f"{count:,} contacts, idle", "1 % of a core", core, idle < 0.01)
    bench.report.target(f"{count:,} contacts, message p99", "20 ms", f"{p99:.1f} ms", p99 < 20)


def _allow_descriptors(count: int) -> None:
    """The light peers need one each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard >= count + 100, f"only {hard} descriptors are allowed here"
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))


@contextlib.contextmanager
def _light_peers(one: Daemon, count: int) -> Iterator[None]:
    """They are started, accepted as they ask, and ended."""
    command = [sys.executable, "-m", "tests.bench.peers", str(one.port), str(count)]
    with attached(one) as watch:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            say(f"linking {count} peers")
            _accept(one, watch, process, count)
            yield
        finally:
            process.kill()
            process.wait()


def _accept(one: Daemon, watch: Client, process: subprocess.Popen[bytes], count: int) -> None:
    online = 0
    while online < count:
        assert process.poll() is None, "the light peers have given up"
        for event in events(watch, 1.0):
            if event["type"] == "contact.request":
                one.rpc("contacts.accept", contact=event["contact"]["id"])
            elif event["type"] == "peer.online":
                online += 1
            elif event["type"] == "peer.offline":
                online -= 1


def _idle_share(one: Daemon) -> float:
    """CPU seconds a second while nobody wants anything."""
    before, began = cpu_of_trees([one.pid]), time.monotonic()
    time.sleep(_IDLE_S)
    return (cpu_of_trees([one.pid]) - before) / (time.monotonic() - began)


def _messages(one: Daemon, watch: Client) -> list[float]:
    """Seconds of messages to one contact or another."""
    names = [each["name"] for each in one.rpc("contacts.list")["contacts"]]
    chance = random.Random(1)
    times = []
    for number in range(_SAMPLES):
        times.append(delivered(watch, chance.choice(names), f"message {number}"))
        watch.events.clear()
        time.sleep(_PAUSE_S)
    return times
