"""Lanes of files that are written while they are sent, with real sockets, files and children."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lane_model import digest
from lane_world import (
    RECEIVER,
    SENDER,
    STAGE,
    World,
    begin,
    effect_of,
    export,
    inbound,
    receiving,
)
from tntd import limits
from tntd.effects import GrowLane, Outbound
from tntd.events import LaneFailed, LaneFinished, LaneOpened

MIB = limits.MIB


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.children.start()
    yield made
    made.close()


class Grown:
    """A file that grows, and the lane that sends it."""

    def __init__(self, world: World, folder: Path, *, asks: bool = False) -> None:
        self.world = world
        self.source = folder / "source"
        self.source.touch()
        self.part = folder / "there" / ".tnt-part" / os.fsdecode(STAGE)
        if not asks:
            world.stage(folder / "there")
        job = inbound(folder / "there", 100 * MIB, asks=asks)
        port = world.listen(world.others)
        world.others.open(receiving(job, dials=False), export)
        then = self.size, 0, self.source.stat().st_ino
        out = Outbound(os.fsencode(self.source), then=then, growing=True)
        world.lanes.open(effect_of(SENDER, out, dials=True, port=port), export)
        world.lanes.start(begin(asks=asks))
        world.wait(LaneOpened, SENDER)

    @property
    def size(self) -> int:
        return self.source.stat().st_size

    def write(self, data: bytes) -> None:
        """Write some, and wait until it is there."""
        with self.source.open("ab") as file:
            file.write(data)
        self.world.lanes.grow(GrowLane(SENDER, self.size, whole=False))
        self.world.until(lambda: self.part.stat().st_size >= self.size)

    def end(self) -> None:
        self.world.lanes.grow(GrowLane(SENDER, self.size, whole=True))


def test_it_arrives_as_it_grows(world: World, tmp_path: Path) -> None:
    grown, data = Grown(world, tmp_path), os.urandom(5 * MIB)
    grown.write(data[:1])
    grown.write(data[1 : 3 * MIB])
    assert world.of(LaneFinished) == []
    grown.write(data[3 * MIB :])
    grown.end()
    expected = len(data), digest(data, grew=True), len(data), 0
    assert world.wait(LaneFinished, SENDER) == LaneFinished(SENDER, *expected)
    assert world.wait(LaneFinished, RECEIVER) == LaneFinished(RECEIVER, *expected)
    assert grown.part.read_bytes() == data


def test_no_more_than_was_told_is_sent(world: World, tmp_path: Path) -> None:
    grown = Grown(world, tmp_path)
    grown.source.write_bytes(b"told, and not told")
    world.lanes.grow(GrowLane(SENDER, 4, whole=False))
    world.until(lambda: grown.part.stat().st_size)
    world.turns(0.2)
    assert grown.part.read_bytes() == b"told"


def test_a_silent_pipe_is_no_silence_of_the_lane(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LANE_IDLE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(limits, "LANE_ALIVE_S", 0.05)
    grown = Grown(world, tmp_path)
    for _ in range(2):
        world.turns(1.0)
        grown.write(b"some")
    grown.end()
    world.wait(LaneFinished, RECEIVER)
    assert world.of(LaneFailed) == []


def test_what_the_part_has_behind_the_end_is_cut(world: World, tmp_path: Path) -> None:
    world.stage(tmp_path / "there").write_bytes(b"what was there before, and longer")
    grown = Grown(world, tmp_path, asks=True)
    with grown.source.open("ab") as file:
        file.write(b"new")
    grown.end()
    world.wait(LaneFinished, RECEIVER)
    assert grown.part.read_bytes() == b"new"


def test_a_source_that_became_shorter_or_another_ends_the_lane(
    world: World, tmp_path: Path
) -> None:
    grown = Grown(world, tmp_path)
    grown.write(b"0123456789")
    os.truncate(grown.source, 5)
    world.lanes.grow(GrowLane(SENDER, 12, whole=False))
    failed = world.wait(LaneFailed, SENDER)
    assert failed == LaneFailed(SENDER, "source", "the file changed while it was being sent")
