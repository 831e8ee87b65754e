"""The world: a row for each effect, and what is let go of when something of ours fails."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, get_args

import pytest

from sides import PeerSide
from tntd.effects import (
    Ask,
    CloseClient,
    CloseHandle,
    CloseLane,
    CloseLink,
    Effect,
    Log,
    OpenLane,
    Outbound,
    SendFrame,
    SendLine,
    StartLane,
    Stop,
)
from tntd.events import ClientOpened, LineArrived, LinkOpened, TimeCame
from tntd.shell.control_server import ControlServer
from tntd.shell.control_sockets import open_unix
from tntd.shell.world import World
from tntd.tasks import Inspect


class Part:
    """Stands for children, files and lanes; notes what is asked of it."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.calls.append((name, *args))


class WorldSide(PeerSide):
    """A side with a whole world."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.part = Part()
        self.control = ControlServer(self.loop, [open_unix(folder / "control")], self.cuts)
        self.world = World(
            links=self.links,
            listener=self.listener,
            lanes=self.part,
            control=self.control,
            children=self.part,
            files=self.part,
            logger=logging.getLogger("tntd"),
        )


@pytest.fixture
def side(home: Path) -> WorldSide:
    return WorldSide(home)


def test_every_effect_has_a_row(side: WorldSide):
    assert set(side.world._table) == set(get_args(Effect))


def test_effects_reach_the_part_that_does_them(side: WorldSide):
    side.world.perform(Ask(5, Inspect(b"/")))
    side.world.perform(CloseHandle(6))
    start = StartLane(7, 0, b"", False)
    side.world.perform(start)
    side.world.perform(CloseLane(7))
    assert side.part.calls == [
        ("ask", 5, Inspect(b"/")),
        ("close", 6),
        ("start", start),
        ("close", 7),
    ]


def test_a_lane_whose_link_is_gone_gets_no_keys(side: WorldSide):
    effect = OpenLane(1, 99, b"", True, "127.0.0.1", 1, b"", b"", Outbound(b"/x"))
    side.world.perform(effect)
    ((name, opened, export),) = side.part.calls
    assert (name, opened) == ("open", effect)
    assert export(b"EXPORTER-tnt-lane", b"", 32) is None


def test_log_lines_have_their_level(side: WorldSide, caplog: pytest.LogCaptureFixture):
    caplog.set_level("DEBUG", "tntd")
    for level in ("debug", "warning", "nonsense"):
        side.world.perform(Log(level, "100 % sure"))
    assert [record.levelname for record in caplog.records] == ["DEBUG", "WARNING", "ERROR"]
    assert caplog.records[0].getMessage() == "100 % sure"


def test_stopping_closes_the_doors(side: WorldSide, home: Path):
    side.world.perform(Stop())
    assert side.world.stopping
    assert side.world.drained
    assert not (home / "control").exists()


def test_what_the_node_never_heard_of_is_closed(side: WorldSide, monkeypatch: pytest.MonkeyPatch):
    performed: list[Effect] = []
    monkeypatch.setattr(side.world, "perform", performed.append)
    side.world.disown(LinkOpened(4, None, "", 1, b"", ""))
    side.world.disown(ClientOpened(5, True))
    side.world.disown(LineArrived(6, b"{}"))
    side.world.disown(TimeCame())
    assert performed == [CloseLink(4, "internal error"), CloseClient(5), CloseClient(6)]


def test_what_could_not_be_performed_ends_its_link_or_client(
    side: WorldSide, monkeypatch: pytest.MonkeyPatch
):
    performed: list[Effect] = []
    monkeypatch.setattr(side.world, "perform", performed.append)
    side.world.abandon(SendFrame(4, b""))
    side.world.abandon(SendLine(5, b""))
    side.world.abandon(CloseHandle(6))
    assert performed == [CloseLink(4, "internal error"), CloseClient(5)]
