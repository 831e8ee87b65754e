"""tntd/wire/README.md against the code: every frame, kind and field, and none that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

import tntd.wire
from tntd.wire.frames import KINDS, TYPES

TEXT = (Path(tntd.wire.__file__).parent / "README.md").read_text("utf-8")
ROWS = re.findall(r"^\| (\w+) \| `(\w+)` \| (.*?) \|", TEXT, re.M)
FRAMES = {int(number, 16): (name, fields) for number, name, fields in ROWS if number[:2] == "0x"}
BODIES = {int(number): (name, fields) for number, name, fields in ROWS if number[:2] != "0x"}


def test_every_frame_and_kind_is_there() -> None:
    assert {number: name for number, (name, _) in FRAMES.items()} == {
        number: cls.__name__ for number, cls in TYPES.items()
    }
    assert {number: name for number, (name, _) in BODIES.items()} == {
        number: cls.__name__ for number, cls in KINDS.items()
    }


@pytest.mark.parametrize(
    ("fields", "cls"),
    [(FRAMES[n][1], TYPES[n]) for n in FRAMES] + [(BODIES[n][1], KINDS[n]) for n in BODIES],
)
def test_every_field_is_there(fields: str, cls: type[msgspec.Struct]) -> None:
    named = re.findall(r"`(\w+)`", re.sub(r"\(.*?\)|:[^|]*", "", fields))
    assert named == [field.name for field in msgspec.structs.fields(cls)]
