"""Paths as clients give them."""

from __future__ import annotations

from pathlib import PureWindowsPath

import pytest

from fuzz.test_findings_transfers import Play
from tntd.node import file_commands
from tntd.tasks import Inspect, Inspected
from tntd.wire.frames import Offer

FILE = Inspected("file", 5, 1, 1, 1, 1, False, 0)


@pytest.mark.parametrize("path", ["C:\\Users\\ann\\f.txt", "C:/Users/ann/f.txt"])
def test_what_windows_calls_a_file_is_offered_by_its_name_alone(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(file_commands, "PurePath", PureWindowsPath)
    play = Play()
    play.command("transfers.send", to="mallory", paths=[path])
    assert play.answer(Inspect, FILE).path == b"C:/Users/ann/f.txt"
    (offer,) = [each for each in play.told() if isinstance(each, Offer)]
    assert offer.name == b"f.txt"


def test_odd_bytes_of_a_path_stay_as_they_are() -> None:
    play = Play()
    path = {"path_bytes": "/a%FF/%5C%0A/f%E9"}
    play.command("transfers.send", to="mallory", paths=[path])
    assert play.answer(Inspect, FILE).path == b"/a\xff/\\\n/f\xe9"
