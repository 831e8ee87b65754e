"""resume and delta: what is there already is not sent again."""

from __future__ import annotations

import filecmp
import random
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measure import GIB, MIB, loopback_bytes, spread
from tests.bench.report import say
from tests.bench.scene import ENDED, Bench, Pair, transfer_of
from tests.harness import Daemon, attached

RESENT_MAX = 4 * MIB
PLACES = 10
_PLACE_BYTES = 4096
Figures = dict[str, tuple[float, int]]  # seconds and bytes of each way to send


def resume(bench: Bench) -> None:
    """kill -9 in the middle of a file, of one side or both."""
    rows: list[list[str]] = []
    waits: list[float] = []
    resent: list[int] = []
    source = bench.file("resume")
    for who in ("receiver", "sender", "both"):
        found = [_cut(bench, source, who) for _ in range(bench.runs)]
        waits += [each.wait for each in found]
        resent += [each.again for each in found]
        rows.append(
            [
                who,
                spread([each.wait for each in found], ".2f"),
                spread([each.again / MIB for each in found], ".2f"),
                spread([each.wire / MIB for each in found], ".1f"),
            ]
        )
    source.unlink()
    head = (
        "kill -9 of",
        "seconds until bytes flow",
        "MiB sent twice",
        "MiB on the wire above size",
    )
    bench.report.add(f"resume: at half of {bench.size / GIB:.4g} GiB", head, rows)
    worst, again = statistics.median(waits), max(resent)
    bench.report.target("resume, from both up", "2 s", f"{worst:.2f} s", worst <= 2)
    bench.report.target(
        "resume, sent twice", "4 MiB", f"{again / MIB:.2f} MiB", again <= RESENT_MAX
    )


@dataclass(frozen=True, slots=True)
class Cut:
    """Seconds until bytes flowed again; bytes sent twice as the daemons count them; bytes over the
    loopback device above the size, whoever sent them, with all headers."""

    wait: float
    again: int
    wire: int


def _cut(bench: Bench, source: Path, who: str) -> Cut:
    with bench.pair() as pair:
        before = loopback_bytes()
        sent = pair.send(source)
        pair.watch.wait_event(
            "transfer.progress",
            lambda event: event["transfer"]["bytes_done"] >= bench.size // 2,
            timeout=300,
        )
        killed = {"receiver": [pair.two], "sender": [pair.one], "both": [pair.one, pair.two]}[who]
        for each in killed:
            each.kill9()
        for each in killed:
            each.start()
        began = time.monotonic()
        _flowing(pair.two, sent)
        wait = time.monotonic() - began
        done = pair.waited_for(sent)
        wire = loopback_bytes() - before - bench.size
        again = max(done["bytes_resent"], transfer_of(pair.two, sent)["bytes_resent"])
        copy = pair.two.downloads / f"new_{source.name}"
        assert filecmp.cmp(source, copy, shallow=False), "the copy differs"
        say(f"kill -9 of {who}: {wait:.2f} s, {again / MIB:.2f} MiB sent twice")
        return Cut(wait, int(again), wire)


def _flowing(receiver: Daemon, id: str) -> None:
    """Wait until bytes move (or all have)."""
    with attached(receiver) as client:
        if transfer_of(receiver, id)["state"] not in ENDED:
            client.wait_event("transfer.progress", lambda event: event["transfer"]["id"] == id, 120)


# -- delta ----------------------------------------------------------------------------------


def delta(bench: Bench) -> None:
    """A file that was sent before, changed in some places, then not at all; beside rsync."""
    source = bench.file("delta")
    ways: dict[str, Callable[[], None]] = {}
    with bench.pair() as pair:
        ways["TalknTransfer"] = lambda: _send(pair, source)
        for rival in bench.rivals.here:
            if rival.name.startswith("rsync"):
                into = bench.folder / f"delta-{len(ways)}"
                into.mkdir()
                ways[rival.name] = lambda rival=rival, into=into: rival.send(source, into)

        def once() -> Figures:
            return {name: _wire(way) for name, way in ways.items()}

        full, changed, same = once(), [], []
        for number in range(bench.runs):
            _change(source, number)
            changed.append(once())
            same.append(once())
    _tell(bench, full, changed, same)
    source.unlink()
    for folder in bench.folder.glob("delta-*"):
        shutil.rmtree(folder)


def _send(pair: Pair, source: Path) -> None:
    """Send it; the copy stays, it is what the next one is compared with."""
    pair.ended(pair.send(source))


def _wire(way: Callable[[], None]) -> tuple[float, int]:
    """Seconds, and bytes over the loopback device, whoever sent them."""
    before, began = loopback_bytes(), time.perf_counter()
    way()
    return time.perf_counter() - began, loopback_bytes() - before


def _change(source: Path, seed: int) -> None:
    """Other bytes in some places."""
    chance = random.Random(seed)
    with source.open("r+b") as file:
        for _ in range(PLACES):
            file.seek(chance.randrange(source.stat().st_size - _PLACE_BYTES))
            file.write(chance.randbytes(_PLACE_BYTES))


def _tell(bench: Bench, full: Figures, changed: list[Figures], same: list[Figures]) -> None:
    def cell(name: str, runs: list[Figures]) -> list[str]:
        seconds = statistics.median(run[name][0] for run in runs)
        return [f"{seconds:.2f}", f"{_bytes(name, runs) / MIB:.1f}"]

    rows = [[name, *cell(name, [full]), *cell(name, changed), *cell(name, same)] for name in full]
    head = ("", "first s", "MiB", f"{PLACES} places s", "MiB", "unchanged s", "MiB")
    title = f"delta: {bench.size / GIB:.4g} GiB, bytes over the loopback device"
    bench.report.add(title, head, rows)
    ours = _bytes("TalknTransfer", changed)
    bound = (PLACES * 2 + 4) * max(MIB, _block_bytes(bench.size))
    bench.report.target(
        f"delta: {PLACES} changed places", "their blocks", f"{ours / MIB:.1f} MiB", ours <= bound
    )


def _bytes(name: str, runs: list[Figures]) -> int:
    """The least of some runs: others on this machine can only add to it."""
    return min(run[name][1] for run in runs)


def _block_bytes(size: int) -> int:
    block = MIB
    while block * 16_384 < size:
        block *= 2
    return block
