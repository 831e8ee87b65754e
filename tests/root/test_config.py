"""The configuration file and the options: what is taken, and what the errors say."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from tntd import config
from tntd.errors import StartError
from tntd.settings import HELP, Settings


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TNT_HOME", str(tmp_path))


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text, "utf-8")
    return path


def test_without_a_file_the_defaults_hold():
    assert config.load(None, {}) == Settings()


def test_the_default_file_is_read():
    config.default_path().parent.mkdir()
    config.default_path().write_text('prefix = "got_"\n')
    assert config.load(None, {}).prefix == "got_"


def test_options_win_over_the_file(tmp_path: Path):
    file = write(tmp_path, 'log_level = "error"\nprefix = "a_"\n')
    settings = config.load(file, {"log_level": "debug"})
    assert (settings.log_level, settings.prefix) == ("debug", "a_")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prefxi = 'x'", ["'prefxi'", "did you mean 'prefix'?"]),
        ("zzz = 1", ["'zzz'", "--print-config"]),
        ("[profile]\nprefix = 'x'", ["no setting 'profile'"]),
        ("prefix = 7", ["prefix cannot be 7", "without /"]),
        ("prefix = '../'", ["prefix cannot be '../'"]),
        ("strangers = 'no'", ["strangers cannot be 'no'", "true or false"]),
        ("reserve_bytes = -1", ["reserve_bytes cannot be -1", "0 or more"]),
        ("listen = ['6000']", ["listen cannot be", "HOST:PORT"]),
        ("listen = ['a:70000']", ["listen cannot be", "HOST:PORT"]),
        ("listen = ['::1:6000']", ["listen cannot be", "[::]:6000"]),
        ("control = 'tcp:192.0.2.1:5000'", ["control cannot be", "127.0.0.1"]),
        ("control = 'unix:relative'", ["control cannot be", "absolute"]),
        ("downloads = 'here'", ["downloads cannot be 'here'", "absolute"]),
        ("log_level = 'loud'", ["log_level cannot be 'loud'", "debug, info, warning, error"]),
        ("advertise = ['x']", ["advertise cannot be"]),
        (f"advertise = ['{'a' * 60}:6000']", ["advertise cannot be", "64 characters"]),
        ("prefix = ", ["not TOML", "--print-config"]),
        ("\x00", ["not TOML"]),
    ],
)
def test_an_error_names_file_key_and_what_is_allowed(tmp_path: Path, text: str, words: list[str]):
    file = write(tmp_path, text)
    with pytest.raises(StartError) as caught:
        config.load(file, {})
    assert str(file) in caught.value.message
    assert [word for word in words if word not in caught.value.message] == []
    assert caught.value.exit_code == 1


def test_a_key_with_an_escape_sequence_drives_no_terminal(tmp_path: Path):
    with pytest.raises(StartError) as caught:
        config.load(write(tmp_path, '"\\u001b[2J" = 1'), {})
    assert caught.value.message.isprintable()


def test_a_named_file_must_exist(tmp_path: Path):
    with pytest.raises(StartError, match="--config"):
        config.load(tmp_path / "none.toml", {})


def test_a_huge_file_is_refused(tmp_path: Path):
    with pytest.raises(StartError, match="64 KiB"):
        config.load(write(tmp_path, "#" * 300_000), {})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("listen", ["0.0.0.0:0", "[::]:6000", "localhost:1"]),
        ("control", ""),
        ("control", "unix:/run/x.sock"),
        ("control", "tcp:127.0.0.1:0"),
        ("control", "tcp:[::1]:5000"),
        ("downloads", "~/Downloads"),
        ("advertise", []),
        ("prefix", ""),
    ],
)
def test_good_values_are_taken(key: str, value: Any):
    assert config.check_option(key, value) == value


def test_print_config_is_toml_with_every_setting_and_its_default(tmp_path: Path):
    text = config.print_config()
    table = tomllib.loads(text)
    assert set(table) | {"advertise"} == set(HELP)
    assert config.load(write(tmp_path, text), {}) == Settings()
    assert [meaning for meaning in HELP.values() if f"# {meaning}\n" not in text] == []


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("127.0.0.1:6000", ("127.0.0.1", 6000)),
        ("[::1]:0", ("::1", 0)),
        ("some.host:65535", ("some.host", 65535)),
    ],
)
def test_split_address(text: str, parts: tuple[str, int]):
    assert config.split_address(text) == parts


@pytest.mark.parametrize("text", ["", "x", ":1", "x:", "x:-1", "x:65536", "::1:5", "x:１", "a\n:1"])
def test_split_address_refuses(text: str):
    with pytest.raises(ValueError, match="not "):
        config.split_address(text)
