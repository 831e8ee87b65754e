"""chat and messages: how long a message takes, alone, beside a file, and among thousands."""

from __future__ import annotations

import contextlib
import json
import select
import sqlite3
import statistics
import time
from pathlib import Path

from tests.bench.measure import MB, cpu_of_trees, percentile, spread
from tests.bench.scene import ENDED, Bench, Pair, delivered, good, transfer_of
from tests.harness import Daemon, RpcError, wait_for, wait_linked

SAMPLES = 500
PAUSE_S = 0.02
QUEUED = 10_000
_TRANSFERS_AT_ONCE = 2
_LINKED = "linked: from the first request to the last acknowledgement"
_AWAY = "queued while the other is away: from the link to the last acknowledgement"


def chat(bench: Bench) -> None:
    """Message to "delivered", idle and while files keep both daemons busy."""
    source = bench.file("load")
    idle, busy, rates, shares = [], [], [], []
    with bench.pair() as pair:
        for _ in range(bench.runs):
            idle += _talk(pair, None)
            load = Load(pair, source)
            began, cpu = time.monotonic(), cpu_of_trees(pair.pids)
            busy += _talk(pair, load)
            seconds = time.monotonic() - began
            shares.append((cpu_of_trees(pair.pids) - cpu) / seconds)
            rates.append(load.bytes_done() / seconds / MB)
            load.finish()
    source.unlink()
    rows = [
        [name, str(len(times)), *(f"{percentile(times, part) * 1e3:.1f}" for part in (0.5, 0.99))]
        for name, times in (("idle", idle), ("while files are sent", busy))
    ]
    head = ("message to delivered", "messages", "p50 ms", "p99 ms")
    bench.report.add("chat", head, rows)
    rate, share = statistics.median(rates), statistics.median(shares)
    bench.report.note(f"Files meanwhile: {rate:.0f} MB/s, both daemons use {share:.2f} cores.")
    more = (percentile(busy, 0.99) - percentile(idle, 0.99)) * 1e3
    bound = 20 if bench.disk else 10
    what = f"chat beside a transfer, p99 above idle, {'disk' if bench.disk else 'memory'}"
    bench.report.target(what, f"{bound} ms", f"{more:.1f} ms", more <= bound)


class Load:
    """Files from the first to the second, one after the other without a pause."""

    def __init__(self, pair: Pair, source: Path) -> None:
        self.pair, self.source = pair, source
        self.size = source.stat().st_size
        self.ended = 0
        self.running = {pair.send(source) for _ in range(_TRANSFERS_AT_ONCE)}
        pair.watch.wait_event("transfer.progress")

    def keep(self) -> None:
        """Look at the events that came; send the next where one has ended."""
        events, self.pair.watch.events = self.pair.watch.events, []
        for event in events:
            transfer = event.get("transfer", {})
            if transfer.get("id") in self.running and transfer["state"] in ENDED:
                good(transfer)
                self.running.discard(transfer["id"])
                self.ended += 1
                Path(transfer_of(self.pair.two, transfer["id"])["path"]).unlink()
                self.running.add(self.pair.send(self.source))

    def bytes_done(self) -> int:
        """What has gone through since the beginning."""
        open_ones = sum(transfer_of(self.pair.one, id)["bytes_done"] for id in self.running)
        return self.ended * self.size + int(open_ones)

    def finish(self) -> None:
        """Send no more."""
        for id in self.running:
            with contextlib.suppress(RpcError):  # it has ended by itself
                self.pair.one.rpc("transfers.cancel", transfer=id)
        wait_for(lambda: all(self._over(id) for id in self.running))
        self.pair.remove_arrived()
        self.pair.watch.drain(0.5)

    def _over(self, id: str) -> bool:
        return transfer_of(self.pair.two, id)["state"] in ENDED


def _talk(pair: Pair, load: Load | None) -> list[float]:
    """The seconds of each of some messages; the load is looked after between them."""
    times = []
    for number in range(SAMPLES):
        times.append(delivered(pair.watch, pair.two.name, f"message {number}"))
        if load is not None:
            load.keep()
        else:
            pair.watch.events.clear()
        time.sleep(PAUSE_S)
    return times


# -- messages -------------------------------------------------------------------------------


def messages(bench: Bench) -> None:
    """One alone, and ten thousand at once."""
    _one_alone(bench)
    count = bench.files or QUEUED
    now, later = [], []
    for _ in range(bench.runs):
        with bench.pair() as pair:
            pair.watch.close()  # nobody follows events here
            now.append(count / _all_at_once(pair, count))
            later.append(count / _after_a_night(pair, count))
    rows = [[_LINKED, spread(now, ",.0f")], [_AWAY, spread(later, ",.0f")]]
    bench.report.add(f"messages: {count:,} at once", ("", "a second"), rows)
    for name, rates in (("linked", now), ("after an absence", later)):
        rate = statistics.median(rates)
        what = f"{count:,} messages at once, {name}, a second"
        bench.report.target(what, "5,000", f"{rate:,.0f}", rate >= 5000)


def _one_alone(bench: Bench) -> None:
    times, commits = [], []
    with bench.pair() as pair:
        beside = [Beside(each) for each in (pair.one, pair.two)]
        for number in range(bench.runs * SAMPLES // 2):
            times.append(delivered(pair.watch, pair.two.name, f"message {number}"))
            pair.watch.events.clear()
            time.sleep(PAUSE_S / 2)
            commits.append(sum(each.commit() for each in beside))
            time.sleep(PAUSE_S / 2)
    message, needed = (statistics.median(each) * 1e3 for each in (times, commits))
    rows = [[f"{message:.2f}", f"{percentile(times, 0.99) * 1e3:.2f}", f"{needed:.2f}"]]
    head = ("message to delivered, median ms", "p99 ms", "two commits, median ms")
    bench.report.add("messages: one alone", head, rows)
    what = f"one message, median above its two commits, {'disk' if bench.disk else 'memory'}"
    more = message - needed
    bench.report.target(what, "3 ms", f"{more:.2f} ms", more <= 3)


class Beside:
    """A database beside a daemon's, to see what a commit costs there."""

    def __init__(self, daemon: Daemon) -> None:
        self._connection = sqlite3.connect(daemon.data / "beside.sqlite", isolation_level=None)
        for word in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
            self._connection.execute(f"PRAGMA {word}")
        self._connection.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, text TEXT)")

    def commit(self) -> float:
        """The seconds that one row takes."""
        began = time.perf_counter()
        self._connection.execute("BEGIN")
        self._connection.execute("INSERT INTO rows (text) VALUES ('a message')")
        self._connection.execute("COMMIT")
        return time.perf_counter() - began


def _all_at_once(pair: Pair, count: int) -> float:
    """Seconds until the last is acknowledged."""
    began = time.perf_counter()
    _queue(pair.one, pair.two.name, count)
    _wait_sent(pair)
    return time.perf_counter() - began


def _after_a_night(pair: Pair, count: int) -> float:
    """Seconds from the link to the last acknowledgement."""
    pair.two.sigterm()
    _queue(pair.one, pair.two.name, count)
    pair.two.start()
    wait_linked(pair.one, pair.two)
    began = time.perf_counter()
    left = pair.one.contact(pair.two.name)["queued"]
    assert left > count // 2, f"only {left} are left, too late to measure"
    _wait_sent(pair)
    return (time.perf_counter() - began) * count / left


def _wait_sent(pair: Pair) -> None:
    """Asking rarely: who asks takes time away."""
    while pair.one.contact(pair.two.name)["queued"]:
        time.sleep(0.02)


def _queue(daemon: Daemon, to: str, count: int) -> None:
    """Make that many requests without waiting for their answers one by one."""
    with daemon.client() as client:
        requests = b"".join(
            json.dumps(
                {
                    "jsonrpc": "2.0",
                    "id": number,
                    "method": "messages.send",
                    "params": {"to": to, "text": f"message {number} of many"},
                }
            ).encode()
            + b"\n"
            for number in range(count)
        )
        left, answers = memoryview(requests), 0
        client.sock.setblocking(False)
        while answers < count:
            readable, writable, _ = select.select(
                [client.sock], [client.sock] if left else [], [], 60
            )
            assert readable or writable, "the daemon is silent"
            if writable:
                left = left[client.sock.send(left[: 1 << 16]) :]
            if readable:
                data = client.sock.recv(1 << 20)
                assert data, "the daemon has hung up"
                assert b'"error"' not in data, data[:300]
                answers += data.count(b"\n")
