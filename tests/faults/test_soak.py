"""Messages and files through a storm of faults: a short one always, a long one with --long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.soak import Plan, Soak


@pytest.fixture
def soak(home: Path) -> Iterator[Callable[[Plan], Soak]]:
    """Makes a soak that is ended whatever comes of it; its logs are shown where it failed."""
    made: list[Soak] = []

    def make(plan: Plan) -> Soak:
        made.append(Soak(home, plan))
        return made[-1]

    yield make
    for each in made:
        each.close()
        print(each.logs()[-20_000:])


def test_a_short_storm(soak: Callable[[Plan], Soak]) -> None:
    result = soak(Plan(messages=400, files=4, faults=15)).run()
    assert (result.messages, result.files) == (800, 4)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_long_storm(soak: Callable[[Plan], Soak]) -> None:
    result = soak(Plan(messages=10_000, files=20, faults=220, patient=True)).run()
    assert (result.messages, result.files) == (20_000, 20)
    print(result.table())
