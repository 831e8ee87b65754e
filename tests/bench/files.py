"""single and small: one large file, and many small ones, beside the tools of today."""

from __future__ import annotations

import filecmp
import os
import shutil
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.bench.measure import GIB, MB, Cost, spread
from tests.bench.report import say
from tests.bench.rivals import count
from tests.bench.scene import Bench, Pair, TransferFailed, interleaved
from tests.harness import RpcError

OURS = "TalknTransfer"
FILES = 10_000
FILE_BYTES = 4096
_GCM, _PIPE, _TAR, _RSYNC = (
    "scp aes128-gcm",
    "TLS pipe (socat)",
    "tar through ssh",
    "rsync, not encrypted",
)
Costs = dict[str, list[Cost]]  # of each run, in order; nobody is left out of some runs only


def single(bench: Bench) -> None:
    """One file of the size that was asked for."""
    source = bench.file("single")
    costs = _race(bench, source, lambda name: name != _TAR)
    source.unlink()
    gib = bench.size / GIB
    rows = [
        [
            name,
            spread([bench.size / each.seconds / MB for each in runs]),
            spread([each.cpu / gib for each in runs], ".2f"),
            f"{_median(each.cpu / each.seconds for each in runs):.2f}",
            _ratios(costs, name),
        ]
        for name, runs in costs.items()
    ]
    head = ("", "MB/s", "CPU s/GiB", "cores", f"{OURS} is")
    bench.report.add(f"single: a file of {gib:.4g} GiB", head, rows)
    _target(bench, costs, _GCM, 2.0, "1 GiB file, speed against")
    _target(bench, costs, _PIPE, 1.1, "1 GiB file, speed against")
    if OURS in costs and _PIPE in costs:
        ours, pipe = (_median(each.cpu / gib for each in costs[name]) for name in (OURS, _PIPE))
        what = "CPU seconds for a GiB, all processes"
        bench.report.target(
            what, f"at most the TLS pipe's {pipe:.2f}, aim 3.0", f"{ours:.2f}", ours <= pipe
        )


def small(bench: Bench) -> None:
    """Many small files in folders of a hundred."""
    files = bench.files or FILES
    source = bench.tree("small", files, FILE_BYTES)
    costs = _race(bench, source, lambda name: name != _PIPE)
    shutil.rmtree(source)
    rows = [
        [
            name,
            spread([files / each.seconds for each in runs], ",.0f"),
            spread([each.cpu for each in runs], ".2f"),
            f"{_median(each.cpu / each.seconds for each in runs):.2f}",
            _ratios(costs, name),
        ]
        for name, runs in costs.items()
    ]
    head = ("", "files/s", "CPU s", "cores", f"{OURS} is")
    bench.report.add(f"small: {files:,} files of 4 KiB", head, rows)
    _target(bench, costs, _TAR, 1.0, "10,000 files, speed against")
    _target(bench, costs, _RSYNC, 1.0, "10,000 files, speed against (an aim)")


def _race(bench: Bench, source: Path, takes_part: Callable[[str], bool]) -> Costs:
    """What each run of each has cost; ours first."""
    others = {each.name: each for each in bench.rivals.here if takes_part(each.name)}
    all_costs: Costs = {OURS: [], **{name: [] for name in others}}
    with bench.pair() as pair:
        for number, name in interleaved(bench.runs, list(all_costs)):
            bench.calm()
            if name == OURS:
                cost = _ours(pair, source, number == 0)
            else:
                cost = others[name].timed(source, bench.folder / "arrived")
            if cost is not None:
                all_costs[name].append(cost)
                say(f"{name}: {cost.seconds:.2f} s, {cost.cpu:.2f} CPU s")
    for name, reason in bench.rivals.missing.items():
        if takes_part(name):
            bench.report.note(f"Skipped: {name}: {reason}.")
    if not all_costs[OURS]:
        bench.report.note(f"{OURS} cannot do this.")
    return {name: costs for name, costs in all_costs.items() if costs}


def _ours(pair: Pair, source: Path, compare: bool) -> Cost | None:
    """A run of ours; the first one is compared byte by byte."""
    try:
        if compare:
            pair.ended(pair.send(source))
            _same(source, next(pair.two.downloads.glob("new_*")))
            pair.remove_arrived()
        return pair.timed(source)
    except (RpcError, TransferFailed) as error:
        say(f"{OURS}: {error}")
        return None


def _same(source: Path, copy: Path) -> None:
    if source.is_file():
        assert filecmp.cmp(source, copy, shallow=False), "the copy differs"
        return
    assert count(source) == count(copy), "the copy is not whole"
    for folder, _, names in os.walk(source):
        other = copy / Path(folder).relative_to(source)
        assert filecmp.cmpfiles(folder, other, names, shallow=False)[1:] == ([], [])


def _ratios(costs: Costs, name: str) -> str:
    """How ours compares, run by run, so that what slows the machine down for a while counts
    for both."""
    if name == OURS or OURS not in costs:
        return ""
    pairs = list(zip(costs[OURS], costs[name], strict=False))
    speed = _median(other.seconds / ours.seconds for ours, other in pairs)
    cpu = _median(ours.cpu / max(other.cpu, 0.01) for ours, other in pairs)
    return f"{speed:.2f} x as fast, {cpu:.2f} of its CPU"


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _target(bench: Bench, costs: Costs, other: str, times: float, what: str) -> None:
    if OURS in costs and other in costs:
        pairs = zip(costs[OURS], costs[other], strict=False)
        ratio = _median(theirs.seconds / ours.seconds for ours, theirs in pairs)
        bench.report.target(f"{what} {other}", f"{times} x", f"{ratio:.2f} x", ratio >= times)
