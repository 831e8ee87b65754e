"""Limits of bytes a second, on real sockets: kept, shared, changed in the middle."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lane_world import RECEIVER, World, begin, export, inbound, receiving, sending
from tntd import limits
from tntd.effects import LimitLanes
from tntd.events import LaneFailed, LaneFinished, LaneOpened, LaneProgressed
from tntd.machines import squeeze

MB = 1_000_000
NOISE = os.urandom(MB)  # that cannot be squeezed
ALICE, BOB = 1, 2  # contacts


@pytest.fixture
def world() -> Iterator[World]:
    """Both ends, with children."""
    made = World()
    made.children.start()
    yield made
    made.close()


class Transfers:
    """Lanes that send one file of 40 MB each."""

    def __init__(self, world: World, tmp_path: Path, contacts: list[int]) -> None:
        self.world = world
        self.parts: list[Path] = []
        (tmp_path / "source").write_bytes(NOISE * 40)
        port = world.listen(world.lanes)
        for number, contact in enumerate(contacts, 10):
            ticket = bytes([number]) * 16
            there = tmp_path / f"there{number}"
            self.parts.append(world.stage(there))
            job = inbound(there, 40 * MB)
            into = receiving(job, dials=False, ticket=ticket, lane=number)
            world.lanes.open(replace(into, contact=contact), export)
            out = sending(tmp_path / "source", dials=True, port=port, ticket=ticket, lane=-number)
            world.others.open(replace(out, contact=contact), export)
            world.others.start(begin(-number))
        world.until(lambda: len(world.of(LaneOpened)) == 2 * len(contacts))

    def sizes(self) -> list[int]:
        """What is written of each."""
        return [part.stat().st_size for part in self.parts]

    def rates(self, seconds: float = 1.5) -> list[float]:
        """How fast each goes, in MB a second."""
        self.world.turns(0.3)
        before, began = self.sizes(), self.world.clock.now().boot
        self.world.turns(seconds)
        took = self.world.clock.now().boot - began
        return [(now - then) / MB / took for then, now in zip(before, self.sizes(), strict=True)]


def limit(world: World, direction: str, rate: int, contacts: dict[int, int] | None = None) -> None:
    """Limit the sending or the receiving side."""
    each = (contacts or {}).items()
    if direction == "up":
        world.others.limit(LimitLanes(rate, 0, tuple((who, up, 0) for who, up in each)))
    else:
        world.lanes.limit(LimitLanes(0, rate, tuple((who, 0, down) for who, down in each)))


@pytest.mark.parametrize("direction", ["up", "down"])
def test_all_together(world: World, tmp_path: Path, direction: str) -> None:
    limit(world, direction, 3 * MB)
    transfers = Transfers(world, tmp_path, [ALICE, ALICE, BOB])
    rates = transfers.rates(2.0)
    assert 2.0 < sum(rates) < 3.6
    assert min(rates) > 0.5
    limit(world, direction, 0)
    world.until(lambda: len(world.of(LaneFinished)) == 6)
    assert world.of(LaneFailed) == []


def test_below_a_limit_progress_comes_in_small_steps(world: World, tmp_path: Path) -> None:
    """From the first record on, and the same for all: else who got less would ask for less."""
    limit(world, "up", MB // 10)
    Transfers(world, tmp_path, [ALICE, BOB])

    def steps(lane: int) -> list[int]:
        return [each.bytes_done for each in world.of(LaneProgressed, lane) if each.bytes_done]

    world.until(lambda: steps(10) and steps(11))
    for lane in (10, 11):
        assert steps(lane)[0] <= 64 * 1024, "less than what goes in a second"
    limit(world, "up", 0)
    world.until(lambda: len(world.of(LaneFinished)) == 4)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_one_contact(world: World, tmp_path: Path, direction: str) -> None:
    limit(world, direction, 0, {ALICE: 1 * MB})
    transfers = Transfers(world, tmp_path, [ALICE, BOB])
    world.until(lambda: world.of(LaneFinished, 11))
    assert transfers.sizes()[0] < 20 * MB
    assert 0.6 < transfers.rates()[0] < 1.3
    limit(world, direction, 0, {ALICE: 0, BOB: 5})
    world.until(lambda: world.of(LaneFinished, 10))


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_slow_line_is_not_silent(
    world: World, tmp_path: Path, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record takes half a minute at that rate; but its pieces come all the time."""
    monkeypatch.setattr(limits, "LANE_IDLE_TIMEOUT_S", 0.6)
    limit(world, direction, 10_000)
    Transfers(world, tmp_path, [ALICE])
    world.turns(1.5)
    assert world.of(LaneFailed) == []


def test_what_can_be_squeezed_gets_through_a_slow_way_sooner(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small files and a large one, of text and of noise; all of it arrives as it was."""
    monkeypatch.setattr(squeeze, "_MEASURED_S", 0.1)
    root = tmp_path / "root"
    (root / "small").mkdir(parents=True)
    text = b"".join(b"%d times around the block\n" % number for number in range(200_000))
    (root / "text").write_bytes(text)
    (root / "noise").write_bytes(os.urandom(600_000))
    for number in range(100):
        (root / "small" / str(number)).write_bytes(text[number * 1000 :][:20_000])
    size = len(text) + 600_000 + 100 * 20_000
    stage = world.stage(tmp_path / "there", tree=True)
    limit(world, "up", MB)
    port = world.listen(world.lanes)
    world.lanes.open(receiving(inbound(tmp_path / "there", size, tree=True), dials=False), export)
    world.others.open(sending(root, dials=True, port=port), export)
    world.others.start(begin())
    began = world.clock.now().boot
    finished = world.wait(LaneFinished, RECEIVER)
    assert world.clock.now().boot - began < 0.7 * size / MB
    assert finished.bytes_sent == finished.size == size
    for path in root.rglob("*"):
        if path.is_file():
            assert (stage / path.relative_to(root)).read_bytes() == path.read_bytes()


def test_waiting_costs_few_wake_ups(world: World, tmp_path: Path) -> None:
    limit(world, "up", 100_000)
    Transfers(world, tmp_path, [ALICE])
    world.turns(0.3)
    turns, end = 0, world.clock.now().boot + 1
    while world.clock.now().boot < end:
        world.loop.collect(None)
        world.events += world.loop.take_events()
        world.loop.run_bulk()
        turns += 1
    assert turns < 200
