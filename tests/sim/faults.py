"""What goes wrong in a run: the kinds and how often, drawn for each seed.

What holds always: a kind that is not drawn does not happen at all, so that there are runs with a
single kind of fault and runs with all of them; and everything is over at `until`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

# Kinds that strike a machine or the network once in a while.
STRIKES = (
    "kill",
    "crash",  # before or after a commit, or between two effects
    "power",
    "shutdown",
    "cut",
    "silence",
    "partition",
    "move",
    "set clock",
    "suspend",
    "disk full",
    "disk error",
    "commit error",
    "child death",
    "lane cut",
    "lane damage",
    "client leaves",
    "bystander",
    "source changes",
    "download changes",
)
# Kinds that damage the history itself, at most one of them in a run.
DAMAGES = ("restore", "lose", "twin")


@dataclass(slots=True)
class Faults:
    """`every` has the mean seconds between two strikes of a kind; the rest are properties of
    the world that hold for the whole run."""

    until: float = 0.0
    every: dict[str, float] = field(default_factory=dict)
    damage: str = ""
    damage_at: float = 0.0
    latency_s: float = 0.001
    jitter: float = 0.0
    bytes_per_s: float = 1e9
    chopped: float = 0.0  # chance that what is sent arrives in small pieces
    released_arrives: float = 1.0  # chance that bytes sent before a crash still arrive
    client_lag_s: float = 0.01
    turn_s: float = 0.001
    disk_s: float = 0.002
    start_s: float = 1.0
    start_crash: float = 0.0

    def words(self) -> str:
        """One line for people."""
        kinds = ", ".join(f"{kind} every {mean:.0f} s" for kind, mean in self.every.items())
        damage = f"; {self.damage} at {self.damage_at:.0f} s" if self.damage else ""
        return (
            f"until {self.until:.0f} s: {kinds or 'none'}{damage}; latency "
            f"{self.latency_s * 1000:.1f} ms, {self.bytes_per_s:.0f} bytes/s, chopped "
            f"{self.chopped:.2f}, released arrives {self.released_arrives:.2f}, client lag "
            f"{self.client_lag_s:.2f} s, start crash {self.start_crash:.2f}"
        )


def draw(rng: Random, until: float) -> Faults:
    """The faults of a seed."""
    share = rng.choice((0.1, 0.3, 0.5, 0.9))
    every = {kind: round(2.0 * 30.0 ** rng.random(), 2) for kind in STRIKES if rng.random() < share}
    damage = rng.choice(DAMAGES) if rng.random() < 0.3 else ""
    return Faults(
        until=until,
        every=every,
        damage=damage,
        damage_at=until * rng.uniform(0.4, 0.9),
        latency_s=0.0002 * 1000.0 ** rng.random(),
        jitter=rng.choice((0.0, 0.5, 3.0)),
        bytes_per_s=rng.choice((1e9, 1e6, 2e4, 6e3)),
        chopped=rng.choice((0.0, 0.1, 1.0)),
        released_arrives=rng.choice((0.0, 0.5, 1.0)),
        client_lag_s=rng.choice((0.0, 0.01, 0.5, 3.0)),
        turn_s=rng.choice((0.0, 0.001, 0.02)),
        disk_s=rng.choice((0.0, 0.002, 0.2)),
        start_s=rng.choice((0.0, 0.5, 5.0)),
        start_crash=rng.choice((0.0, 0.0, 0.3)),
    )
