"""tntd/control/README.md says what the code says: no more, no less."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
import pytest

from tntd.control import schema
from tntd.control.schema import EVENTS, METHODS
from tntd.control.tunables import TUNABLES
from tntd.errors import Code

TEXT = (Path(__file__).parents[2] / "tntd" / "control" / "README.md").read_text("utf-8")


def chapters(level: str, text: str) -> dict[str, str]:
    """The sections of a heading level, by heading."""
    parts = re.split(rf"^{level} (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


CHAPTERS = chapters("##", TEXT)
METHOD_SECTIONS = {
    heading.strip("`"): text for heading, text in chapters("###", CHAPTERS["Methods"]).items()
}
OBJECT_SECTIONS = chapters("###", CHAPTERS["Objects"])


def first_cells(section: str) -> list[str]:
    """What stands in backticks in the first column of the tables of a section."""
    return re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE)


def field_names(struct: type[Any]) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(struct)]


def structs_below(kind: Any, found: set[type[Any]]) -> set[type[Any]]:
    """Every struct that a value of this type may hold."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        found.add(kind)
        for field in msgspec.structs.fields(kind):
            structs_below(field.type, found)
    elif get_origin(kind) is not None:
        for part in get_args(kind):
            structs_below(part, found)
    return found


def result_structs() -> dict[str, type[Any]]:
    found: set[type[Any]] = {schema.Challenge}
    for method in METHODS.values():
        structs_below(method.result, found)
    return {struct.__name__: struct for struct in found}


def test_every_method_is_there_and_none_else():
    assert sorted(METHOD_SECTIONS) == sorted(METHODS)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_method_has_its_parameters_result_and_example(name: str):
    section = METHOD_SECTIONS[name]
    method = METHODS[name]
    assert first_cells(section) == field_names(method.params)
    result = method.result.__name__
    assert f"[{result}](#{result.lower()})" in section
    assert len(re.findall(r"^    \{", section, flags=re.MULTILINE)) == 2, "params and result"


def test_every_object_is_there_and_none_else():
    assert sorted(OBJECT_SECTIONS) == sorted(result_structs())


@pytest.mark.parametrize("name", sorted(result_structs()))
def test_an_object_has_its_fields(name: str):
    assert first_cells(OBJECT_SECTIONS[name]) == field_names(result_structs()[name])


def test_every_event_is_there_with_what_it_carries():
    rows = re.findall(r"^\| `([a-z.]+)` \| (.+?) \|", CHAPTERS["Events"], flags=re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(EVENTS)
    for name, carries in rows:
        key = EVENTS[name]
        assert key is None or carries == f"`{key}`"


def test_every_error_code_is_there_and_none_else():
    rows = re.findall(r"^\| (-?\d+) \| `([A-Z_]+)` \|", CHAPTERS["Errors"], flags=re.MULTILINE)
    assert sorted((int(number), name) for number, name in rows) == sorted(
        (code.value, code.name) for code in Code
    )


def test_every_tunable_is_there_in_order_and_with_whom_it_may_be_for():
    rows = re.findall(
        r"^\| `([a-z_]+)` \| .+? \| (yes|no) \|", CHAPTERS["Settings"], flags=re.MULTILINE
    )
    assert rows == [(row.name, "yes" if row.each else "no") for row in TUNABLES.values()]


def test_links_lead_somewhere():
    headings = re.findall(r"^##+ (.+)$", TEXT, flags=re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}
    links = set(re.findall(r"\]\(#([^)]+)\)", TEXT))
    assert links <= anchors
