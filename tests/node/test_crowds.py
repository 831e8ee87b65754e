"""Many contacts with many addresses: what one frame of one of them costs."""

from __future__ import annotations

from typing import Any

import pytest

from fuzz.test_findings_transfers import Play
from tntd.effects import Effect, Vouch
from tntd.wire.frames import Trusted


class Shell:
    """Notes what is vouched for."""

    def __init__(self, play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
        self.vouched: list[frozenset[str]] = []
        perform = play.bench._perform

        def note(effect: Effect) -> Any:
            if isinstance(effect, Vouch):
                self.vouched.append(effect.hosts)
            return perform(effect)

        monkeypatch.setattr(play.bench, "_perform", note)


def test_addresses_are_vouched_for_once_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    play = Play()
    play.link  # noqa: B018
    shell = Shell(play, monkeypatch)
    told = [f"10.0.0.{number}:6000" for number in range(8)]
    frame = Trusted(
        epoch=b"E" * 16,
        lowest=1,
        highest=0,
        peer_epoch=None,
        received=0,
        received_id=None,
        port=6000,
        addresses=told,
    )
    play.link.say(*[frame] * 20)
    assert len(shell.vouched) == 1
    assert {"10.0.0.3", "10.0.0.4"} < shell.vouched[0]
    play.command("contacts.remove", contact="mallory")
    assert shell.vouched[1:] == [frozenset()]
