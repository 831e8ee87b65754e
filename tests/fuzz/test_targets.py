"""Every target with any bytes and with bent good input; the longer hunt is `python -m tests.fuzz`.

What holds always: decoders raise only the errors that they declare, and the node none at all.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from fuzz.mutations import inputs, patient
from fuzz.peer import Hostile
from fuzz.source import Source
from fuzz.target import Target, scenarios
from fuzz.targets import TARGETS

SCENARIOS = [name for name, target in TARGETS.items() if target.seeds is scenarios]
DECODERS = [name for name in TARGETS if name not in SCENARIOS]
CHUNKS = 3  # so that they can run at once


@pytest.mark.parametrize("name", DECODERS)
def test_any_bytes_are_taken_or_refused(name: str) -> None:
    target = TARGETS[name]

    @settings(patient, max_examples=300)
    @given(inputs(target))
    def check(data: bytes) -> None:
        target.run(data)

    check()


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("name", SCENARIOS)
def test_any_scenario_is_survived(name: str, chunk: int) -> None:
    target = TARGETS[name]

    @settings(patient, max_examples=80)
    @given(some.binary(min_size=200, max_size=500) | inputs(target))
    def check(data: bytes) -> None:
        target.run(data)

    check()


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_seeds_are_clean(target: Target) -> None:
    seeds = target.seeds()
    assert seeds
    assert max(len(seed) for seed in seeds) <= target.bytes_max
    for seed in seeds:
        target.run(seed)


def test_scenarios_get_deep() -> None:
    """A fuzzer that never leaves the porch finds nothing, and is content."""
    messages, states = 0, set()
    for seed in scenarios():
        hostile = Hostile(Source(seed))
        hostile.play()
        store = hostile.bench.store
        messages += len(store.messages.page(1, 100, None, None, []))
        states |= {row.state for row in store.transfers.page(None, 100, None, None)}
        store.close()
    assert messages
    assert len(states) >= 4, states
