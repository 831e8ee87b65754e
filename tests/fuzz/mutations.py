"""Hypothesis strategies: any bytes, and good input with a few things done to it."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as some

from .target import Target

# Time is not what is tested, and the machine may be busy.
patient = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def inputs(target: Target, size: int = 300) -> some.SearchStrategy[bytes]:
    """What to give to a target."""
    seeds = target.seeds()
    return some.binary(max_size=size) | some.sampled_from(seeds) | mutated(seeds)


@some.composite
def mutated(draw: some.DrawFn, seeds: list[bytes]) -> bytes:
    """One of the seeds with up to four changes."""
    data = draw(some.sampled_from(seeds))
    for _ in range(draw(some.integers(1, 4))):
        at = draw(some.integers(0, len(data)))
        upto = draw(some.integers(at, min(len(data), at + 16)))
        change = draw(some.sampled_from(["replace", "insert", "remove", "repeat", "cut", "splice"]))
        match change:
            case "replace":
                piece = draw(some.binary(min_size=upto - at, max_size=upto - at))
                data = data[:at] + piece + data[upto:]
            case "insert":
                data = data[:at] + draw(some.binary(max_size=8)) + data[at:]
            case "remove":
                data = data[:at] + data[upto:]
            case "repeat":
                data = data[:upto] + data[at:upto] * draw(some.integers(1, 40)) + data[upto:]
            case "cut":
                data = data[:at]
            case "splice":
                other = draw(some.sampled_from(seeds))
                data = data[:at] + other[draw(some.integers(0, len(other))) :]
    return data
