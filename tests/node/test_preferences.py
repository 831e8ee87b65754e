"""Settings that change while the daemon runs: whose value holds, and for how long."""

from __future__ import annotations

import pytest

from fuzz.bench import Bench
from tntd.effects import LimitLanes
from tntd.errors import CommandError
from tntd.node.preferences import Preferences
from tntd.settings import Settings
from tntd.store.contacts import ContactRow


@pytest.fixture
def bench() -> Bench:
    return Bench(Settings(auto_accept_bytes_max=7, upload_bytes_per_s=100))


@pytest.fixture
def preferences(bench: Bench) -> Preferences:
    return bench.node._preferences


@pytest.fixture
def bob(bench: Bench) -> ContactRow:
    with bench.store.transaction():
        return bench.store.contacts.add(
            b"b" * 32, "bob", "bob", trust="accepted", epoch=b"e" * 16, at=1
        )


def test_a_contact_wins_over_all_who_win_over_the_file(
    bench: Bench, preferences: Preferences, bob: ContactRow
) -> None:
    with bench.store.transaction():
        assert preferences.of(bob.row).auto_accept_bytes_max == 7
        preferences.set("auto_accept_bytes_max", 8, None)
        assert preferences.of(bob.row).auto_accept_bytes_max == 8
        preferences.set("auto_accept_bytes_max", 9, bob)
        assert preferences.of(bob.row).auto_accept_bytes_max == 9
        assert preferences.of(bob.row + 1).auto_accept_bytes_max == 8
        preferences.set("auto_accept_bytes_max", None, bob)
        preferences.set("auto_accept_bytes_max", None, None)
        assert preferences.of(bob.row).auto_accept_bytes_max == 7


def test_rates_of_a_contact_are_beside_those_of_all(
    bench: Bench, preferences: Preferences, bob: ContactRow
) -> None:
    core = bench.node._core
    with bench.store.transaction():
        preferences.tell_rates()
        assert core.effects[-1] == LimitLanes(100, 0, ())
        assert preferences.set("upload_bytes_per_s", 5, bob).value == 5
        preferences.tell_rates()
        assert core.effects[-1] == LimitLanes(100, 0, ((bob.row, 5, 0),))
    assert bench.node._core.settings.upload_bytes_per_s == 100


def test_folders_are_kept_as_bytes(bench: Bench, preferences: Preferences, bob: ContactRow) -> None:
    with bench.store.transaction():
        shown = preferences.set("downloads", b"/\xff", bob)
    assert (shown.value, shown.path_bytes, shown.changed) == ("/%FF", "/%FF", True)
    bench.start()
    fresh = bench.node._preferences
    assert (fresh.downloads(bob.row), fresh.downloads(0)) == (b"/\xff", b"/downloads")


@pytest.mark.parametrize(
    ("name", "value", "for_bob"),
    [
        ("transfers_max", 0, False),
        ("transfers_max", 2, True),
        ("ask_always", 1, False),
        ("downloads", "here", False),
        ("upload_bytes_per_s", True, False),
        ("listen", "x", False),
    ],
)
def test_what_cannot_be_is_refused_and_not_kept(  # noqa: PLR0917
    bench: Bench,
    preferences: Preferences,
    bob: ContactRow,
    name: str,
    value: object,
    for_bob: bool,
) -> None:
    with pytest.raises(CommandError):
        preferences.set(name, value, bob if for_bob else None)
    assert bench.store.preferences.all() == {}
