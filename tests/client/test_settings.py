"""Settings that change while the daemon runs: how they are typed, sent and shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_fake import FakeDaemon
from tnt_client.failures import UsageFailure
from tnt_client.units import exact_size, parse_size, parse_switch
from tntd.control.schema import Setting, SettingList
from tntd.control.tunables import TUNABLES, check_value, find_tunable
from tntd.errors import Code, CommandError
from tntd.limits import LANES_MAX


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("2MB", 2_000_000),
        ("2 mb", 2_000_000),
        ("500k", 500_000),
        ("1.5GiB", 3 << 29),
        ("1Ki", 1024),
        ("12B", 12),
        ("0.5k", 500),
        ("8PiB", 8 << 50),
        ("9999999999999999999", None),
        ("8000000P", None),
        ("-1", None),
        ("1.5.5k", None),
        ("2iB", None),
        ("2MB/s", None),
        ("two", None),
        ("", None),
        ("٣", None),
    ],
)
def test_sizes_with_units(text: str, size: int | None):
    assert parse_size(text) == size


def test_a_rate_may_say_that_it_is_one():
    assert parse_size("2MB/s", rate=True) == 2_000_000


@given(st.integers(0, 2**63 - 1))
def test_what_is_shown_can_be_typed(size: int):
    assert parse_size(exact_size(size)) == size


def test_switches():
    assert [parse_switch(text) for text in ("on", "Yes", "off", "false", "maybe")] == [
        True,
        True,
        False,
        False,
        None,
    ]


def setting(name: str, value: Any, **more: Any) -> Setting:
    fields = {"name": name, "value": value, "changed": True, "meaning": TUNABLES[name].meaning}
    return Setting(**{**fields, **more})


def answers(params: dict[str, Any]) -> Setting:
    default = {"rate": 0, "bytes": 0, "count": 3, "flag": False, "folder": "/home/a"}
    value, changed = params["value"], params["value"] is not None
    if not changed:
        value = default[TUNABLES[params["name"]].kind]
    return setting(params["name"], value, changed=changed, contact=params.get("contact"))


@pytest.mark.parametrize(
    ("words", "sent", "shown"),
    [
        (["upload_bytes_per_s", "2MB"], 2_000_000, "upload_bytes_per_s is 2 MB/s"),
        (["upload_bytes_per_s", "2MB/s", "bob"], 2_000_000, "upload_bytes_per_s for bob is 2 MB/s"),
        (["download_bytes_per_s", "0"], 0, "download_bytes_per_s is no limit"),
        (["download_bytes_per_s", "default"], None, "is no limit, as by default"),
        (["transfers_max", "5"], 5, "transfers_max is 5"),
        (["auto_accept_bytes_max", "1.5GiB"], 3 << 29, "auto_accept_bytes_max is 1.5 GiB"),
        (["ask_always", "on", "bob"], True, "ask_always for bob is on"),
        (["downloads", "/srv/in"], "/srv/in", "downloads is /srv/in"),
    ],
)
def test_a_setting_is_set(words: list[str], sent: Any, shown: str):
    daemon = FakeDaemon({"settings.set": answers})
    assert shown in daemon.tnt("set", *words)
    assert shown in daemon.repl("set", *words)
    params = daemon.asked[0][1]
    assert (params["name"], params["value"]) == (words[0], sent)
    assert params.get("contact") == (words[2] if len(words) > 2 else None)


def test_a_folder_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    daemon = FakeDaemon({"settings.set": answers})
    daemon.tnt("set", "downloads", "in")
    assert daemon.asked[0][1]["value"] == str(tmp_path / "in")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["colour", "red"], "there are: upload_bytes_per_s, download"),
        (["transfers_max", "5", "bob"], "cannot be set for one contact; there are: upload"),
        (["transfers_max", "0"], f"it is a number from 1 to {LANES_MAX}"),
        (["transfers_max", "many"], "takes a number, or default"),
        (["upload_bytes_per_s", "fast"], "takes a number of bytes such as 500k"),
        (["ask_always", "perhaps"], "takes on or off, or default"),
    ],
)
def test_what_cannot_be_is_wrong_usage_and_says_what_can(words: list[str], says: str):
    daemon = FakeDaemon({})
    with pytest.raises(UsageFailure) as failed:
        daemon.tnt("set", *words)
    assert says in failed.value.message and daemon.asked == []


def test_settings_are_listed():
    items = [
        setting("upload_bytes_per_s", 2_000_000, contact="bob"),
        setting("download_bytes_per_s", 0, contact="bob", changed=False),
        setting("ask_always", False, contact="bob", changed=False),
        setting("downloads", "/srv/\x1b[2J", contact="bob"),
    ]
    daemon = FakeDaemon({"settings.list": SettingList(settings=items)})
    shown = daemon.tnt("settings", "bob").splitlines()
    assert daemon.asked[0][1] == {"contact": "bob"}
    assert shown[0] == "-- for bob --"
    assert shown[1].split("  ")[0] == "upload_bytes_per_s" and shown[1].endswith("(set)")
    assert " 2 MB/s " in shown[1] and " no limit of its own " in shown[2] and " off " in shown[3]
    assert "/srv/␛[2J" in shown[4]
    assert json.loads(daemon.tnt("settings", json=True).splitlines()[0])["value"] == 2_000_000
    assert daemon.asked[1][1] == {}


# -- the table ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "good"),
    [
        ("ask_always", True, True),
        ("ask_always", 1, False),
        ("transfers_max", True, False),
        ("transfers_max", LANES_MAX + 1, False),
        ("upload_bytes_per_s", 2**63 - 1, True),
        ("upload_bytes_per_s", 2**63, False),
        ("upload_bytes_per_s", -1, False),
        ("upload_bytes_per_s", "2MB", False),
        ("downloads", "/srv/in", True),
        ("downloads", b"/srv/\xff", True),
        ("downloads", "in", False),
        ("downloads", "", False),
        ("downloads", "/a\0b", False),
        ("downloads", 5, False),
        ("downloads", None, False),
    ],
)
def test_values_that_can_be(name: str, value: object, good: bool):
    row = find_tunable(name, for_contact=False)
    if good:
        check_value(row, value)
        return
    with pytest.raises(CommandError) as failed:
        check_value(row, value)
    assert failed.value.code is Code.INVALID_PARAMS and failed.value.hint.startswith("it is ")
