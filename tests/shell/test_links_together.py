"""Links under a random mixture of everything, and what has to hold whatever happens.

A run is repeated by its seed.
"""

from __future__ import annotations

import gc
import os
import random
import socket
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from sides import PeerSide, spin_until
from tntd import limits
from tntd.effects import (
    Authenticated,
    CancelDial,
    CloseLink,
    Dial,
    RaiseFrameLimit,
    SendFrame,
)
from tntd.events import DialFailed, FrameArrived, LinkBroken, LinkClosed, LinkOpened
from tntd.wire.frames import HEADER

STEPS = 400


@pytest.fixture(autouse=True)
def wide_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ADDRESS_BURST", 10_000)
    monkeypatch.setattr(limits, "HANDSHAKE_BURST", 10_000)


class Chaos:
    """Two sides, and somebody who does things at random."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.sides = (PeerSide(), PeerSide())
        self.dials: Counter[int] = Counter()
        self.cancelled: set[int] = set()
        self.sent: dict[tuple[int, int], list[bytes]] = defaultdict(list)
        self.raw: list[socket.socket] = []

    def step(self) -> None:
        index = self.random.randrange(2)
        side, other = self.sides[index], self.sides[1 - index]
        action = self.random.choice(
            [self.dial, self.send, self.send, self.send, self.close, self.cancel, self.rubbish]
            + [self.spin] * 5
        )
        action(index, side, other)

    def spin(self, index: int, side: PeerSide, other: PeerSide) -> None:
        side.spin()

    def dial(self, index: int, side: PeerSide, other: PeerSide) -> None:
        number = sum(self.dials.values()) + 1
        self.dials[index] += 1
        port = other.port if self.random.random() < 0.9 else 1
        side.links.dial(Dial(number, "127.0.0.1", port))

    def cancel(self, index: int, side: PeerSide, other: PeerSide) -> None:
        total = sum(self.dials.values())
        if total and self.random.random() < 0.3:
            number = self.random.randint(max(1, total - 2), total)
            self.cancelled.add(number)
            side.links.cancel_dial(CancelDial(number))

    def links(self, side: PeerSide) -> list[int]:
        return sorted(side.links._links)

    def send(self, index: int, side: PeerSide, other: PeerSide) -> None:
        for link in self.links(side)[-3:]:
            side.links.authenticated(Authenticated(link, self.random.random() < 0.5))
            side.links.raise_frame_limit(RaiseFrameLimit(link, limits.FRAME_BYTES_MAX))
            for _ in range(self.random.randrange(4)):
                body = os.urandom(self.random.choice([0, 1, 100, 3000]))
                self.sent[index, link].append(body)
                side.links.send(SendFrame(link, HEADER.pack(len(body) + 2, 7) + body))

    def close(self, index: int, side: PeerSide, other: PeerSide) -> None:
        links = self.links(side)
        if links and self.random.random() < 0.5:
            link = self.random.choice(links)
            side.links.close(CloseLink(link, "chance"))

    def rubbish(self, index: int, side: PeerSide, other: PeerSide) -> None:
        """A stranger, or a link that is broken from below."""
        links = self.links(side)
        if links and self.random.random() < 0.3:
            side.links._links[self.random.choice(links)]._stream.queue(os.urandom(50))
            return
        sock = socket.create_connection(("127.0.0.1", side.port))
        sock.sendall(self.random.choice([b"", b"\x16", b"TNT", b"GET /", b"\x16" + os.urandom(99)]))
        self.raw.append(sock)

    def settle(self) -> None:
        """Calm: all is closed, and time passes."""
        for side in self.sides:
            side.links.close_all("the end")
        for sock in self.raw:
            sock.close()
        for side in self.sides:
            side.clock.ahead += limits.DIAL_TIMEOUT_S
        spin_until(lambda: all(side.links.idle for side in self.sides), *self.sides)
        spin_until(lambda: not any(self.places(side) for side in self.sides), *self.sides)

    @staticmethod
    def places(side: PeerSide) -> int:
        gate = side.listener._gate
        return gate._strangers.places + gate._reserve.places


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens(seed: int):
    chaos = Chaos(seed)
    before = open_descriptors()
    for _ in range(STEPS):
        chaos.step()
    chaos.settle()
    for side in chaos.sides:
        check_ends(chaos, side)
    check_frames(chaos)
    assert open_descriptors() == before


def open_descriptors() -> int:
    """How many this process has, where the system tells."""
    gc.collect()  # those of earlier tests
    table = Path("/proc/self/fd")
    return len(list(table.iterdir())) if table.exists() else 0


def check_ends(chaos: Chaos, side: PeerSide) -> None:
    """Each link was opened and closed once, and each dial came to one end at most."""
    opened = [event.link for event in side.of(LinkOpened)]
    assert sorted(opened) == sorted(event.link for event in side.of(LinkClosed))
    assert len(set(opened)) == len(opened)
    dials = Counter(event.dial for event in side.of(LinkOpened) if event.dial is not None)
    dials.update(event.dial for event in side.of(DialFailed))
    assert max(dials.values(), default=0) <= 1
    order = {event.link: at for at, event in enumerate(side.events) if type(event) is LinkOpened}
    ends = {event.link: at for at, event in enumerate(side.events) if type(event) is LinkClosed}
    for at, event in enumerate(side.events):
        if isinstance(event, FrameArrived | LinkBroken):
            assert order[event.link] < at < ends[event.link]


def check_frames(chaos: Chaos) -> None:
    """What arrived is a beginning of what was sent on that very link."""
    for index, side in enumerate(chaos.sides):
        exporters = {event.exporter: event.link for event in chaos.sides[1 - index].of(LinkOpened)}
        for event in side.of(LinkOpened):
            arrived = [each.body for each in side.of(FrameArrived) if each.link == event.link]
            mirror = exporters.get(event.exporter)
            sent = chaos.sent[1 - index, mirror] if mirror is not None else []
            assert arrived == sent[: len(arrived)]
