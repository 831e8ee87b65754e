"""Long hunts: many seeds on all cores, one line each; and every mutant.

Each seed is a run of its own, so processes share nothing but the list of what is left to do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

from .mutants import MUTANTS, catch
from .world import Outcome, simulate


def hunt(first: int, last: int, jobs: int | None = None) -> bool:
    """Run the seeds from `first` to `last`, both included; True where none failed."""
    failed, messages, files, crashes, strikes = [], 0, 0, 0, 0
    for outcome in _spread(simulate, range(first, last + 1), jobs):
        print(f"seed {outcome.seed} {outcome.digest} {'FAILED' if outcome.problem else 'ok'}")
        messages, files = messages + outcome.messages, files + outcome.files
        crashes, strikes = crashes + outcome.crashes, strikes + outcome.strikes
        if outcome.problem:
            failed.append(outcome.seed)
            print(outcome.report(), flush=True)
    print(
        f"{last - first + 1} seeds, {len(failed)} failed {failed or ''}: {messages} messages, "
        f"{files} files, {crashes} ends of daemons, {strikes} faults"
    )
    return not failed


def hunt_mutants(jobs: int | None = None) -> bool:
    """Try every mutant; True where all were caught."""
    survived = []
    for name, caught in _spread(_catch, MUTANTS, jobs):
        if caught is None:
            survived.append(name)
            print(f"{name}: SURVIVED", flush=True)
        else:
            by = f"seed {caught[0]}" if caught[0] else "its story"
            print(f"{name}: caught by {by}", flush=True)
    return not survived


def _catch(name: str) -> tuple[str, tuple[int, str] | None]:
    return name, catch(name)


def _spread(work: Callable[..., Outcome | tuple], items: Iterable, jobs: int | None) -> Iterator:
    """The results in the order of the items, worked out on all cores."""
    count = jobs or os.cpu_count() or 1
    if count == 1:
        yield from map(work, items)
        return
    with ProcessPoolExecutor(count) as pool:
        yield from pool.map(work, items, chunksize=1)
