"""memory and million: what the daemons hold, whatever they send."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

from tests.bench.files import FILE_BYTES, FILES
from tests.bench.measure import MIB, Memory
from tests.bench.report import say
from tests.bench.scene import Bench, Pair, TransferFailed
from tests.harness import RpcError, wait_linked

BOUND_MIB = 40.0
MILLION = 1_000_000
_AT_ONCE = 500  # paths in one request
_DRAINED_S = 120.0


def memory(bench: Bench) -> None:
    """The most that a daemon with its children holds above idle, in three loads."""
    rows = []
    loads = (
        ("one file", _one_file, bench.runs),
        ("many files", _many, bench.runs),
        ("a queue", _queue, 1),  # takes long, and hardly differs
    )
    for name, load, runs in loads:
        say(f"memory: {name}")
        worst = [0.0, 0.0]
        try:
            for _ in range(runs):
                worst = [max(pair) for pair in zip(worst, load(bench), strict=True)]
        except (RpcError, TransferFailed, AssertionError, OSError) as error:
            rows.append([name, "-", f"cannot be done: {error}"])
            continue
        rows.append([name, *(f"{each:.1f}" for each in worst)])
        bench.report.target(
            f"memory above idle, {name}", "40 MiB", f"{max(worst):.1f} MiB", max(worst) <= BOUND_MIB
        )
    head = ("MiB above idle, with children, at most", "sender", "receiver")
    bench.report.add("memory", head, rows)


def _one_file(bench: Bench) -> list[float]:
    source = bench.file("single")
    try:
        return _sent(bench, source)
    finally:
        source.unlink()


def _many(bench: Bench) -> list[float]:
    source = bench.tree("small", bench.files or FILES, FILE_BYTES)
    try:
        return _sent(bench, source)
    finally:
        shutil.rmtree(source)


def _sent(bench: Bench, source: Path) -> list[float]:
    with bench.pair() as pair:
        seen = Memory(pair.pids)
        pair.timed(source, seen.look)
        return seen.above()


def _queue(bench: Bench) -> list[float]:
    """As many transfers as files, queued while the other is away, who then comes back."""
    count = bench.files or FILES
    source = bench.tree("queue", count, 1)
    paths = sorted(str(path) for path in source.rglob("*") if path.is_file())
    try:
        with bench.pair() as pair:
            return _queued(pair, paths)
    finally:
        shutil.rmtree(source)


def _queued(pair: Pair, paths: list[str]) -> list[float]:
    alone = Memory([pair.one.pid])
    pair.two.sigterm()
    for first in range(0, len(paths), _AT_ONCE):
        part = paths[first : first + _AT_ONCE]
        pair.one.rpc("transfers.send", timeout=120, to=pair.two.name, paths=part)
        alone.look()
    pair.two.start()
    both = Memory(pair.pids)
    both.idle[pair.one.pid] = alone.idle[pair.one.pid]
    wait_linked(pair.one, pair.two)
    say(f"{_left(pair)} are queued, and both are linked")
    deadline = time.monotonic() + _DRAINED_S
    told = time.monotonic()
    while (left := _left(pair)) and time.monotonic() < deadline:
        both.look()
        if time.monotonic() - told > 10:
            say(f"{left} are left")
            told = time.monotonic()
        time.sleep(0.2)
    if left:
        say(f"{left} are still in the queue; not waited for")
    both.look()
    return [max(alone.above()[0], both.above()[0]), both.above()[1]]


def _left(pair: Pair) -> int:
    counts = pair.one.rpc("status")["transfers"]
    return int(counts["active"] + counts["queued"])


# -- a million ------------------------------------------------------------------------------


def million(bench: Bench) -> None:
    """A folder of very many empty files: when the first arrives, and how memory goes."""
    count = bench.files or MILLION
    source = _empty_files(bench.folder / "sources" / "million", count)
    with bench.pair() as pair:
        seen = Memory(pair.pids)
        began = time.monotonic()
        sent = pair.send(source)
        first = _first_file(pair.two.downloads / ".tnt-part", began)
        looked = 0.0

        def look() -> None:
            nonlocal looked
            if time.monotonic() - looked > 0.5:
                looked = time.monotonic()
                seen.look()

        pair.ended(sent, look)
        took = time.monotonic() - began
    shutil.rmtree(source)
    steps = range(0, 11)
    marks = [seen.curve[step * (len(seen.curve) - 1) // 10][1] for step in steps]
    rows = [
        [who, *(f"{mark[index] / MIB:.1f}" for mark in marks)]
        for index, who in enumerate(("sender", "receiver"))
    ]
    head = ("MiB above idle", *(f"{step * 10} %" for step in steps))
    bench.report.add(f"million: {count:,} empty files", head, rows)
    bench.report.note(
        f"First file at the receiver after {first:.2f} s; {count / took:,.0f} files/s; "
        f"at most {seen.above()[0]:.1f} and {seen.above()[1]:.1f} MiB above idle."
    )
    worst = max(seen.above())
    bench.report.target(f"{count:,} files, first arrives", "1 s", f"{first:.2f} s", first <= 1)
    bench.report.target(f"{count:,} files, memory", "40 MiB", f"{worst:.1f} MiB", worst <= 40)


def _empty_files(folder: Path, count: int) -> Path:
    say(f"making {count:,} empty files")
    folder.mkdir(parents=True)
    for number in range(count):
        os.close(os.open(folder / f"{number:07}", os.O_CREAT | os.O_WRONLY))
    return folder


def _first_file(parts: Path, began: float) -> float:
    """Seconds until anything is in a staged folder; at most a minute."""
    while time.monotonic() - began < 60:
        with contextlib.suppress(OSError), os.scandir(parts) as stages:
            for stage in stages:
                if stage.is_dir() and any(os.scandir(stage.path)):
                    return time.monotonic() - began
        time.sleep(0.005)
    return 60.0
