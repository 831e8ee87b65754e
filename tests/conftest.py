"""Fixtures for tests that run real daemons: a home of their own, and a factory that cleans up."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from harness import Daemon, connect_pair

# What is true of all inputs does not depend on the machine, which may be busy: none of them is
# measured, nor how long it takes to make them up.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

_daemons = pytest.StashKey[list[Daemon]]()
_LOG_CHARS_SHOWN = 8_000


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--long` also runs what takes many minutes."""
    parser.addoption("--long", action="store_true", help="run the tests marked `long`, too")


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known, and interrupts possible."""
    config.addinivalue_line("markers", "long: takes many minutes; runs only with --long")
    # Whoever starts the tests in the background may have interrupts ignored, and programs started
    # from here would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long runs out, unless they are asked for."""
    if config.getoption("--long"):
        return
    asked_for = pytest.mark.skip(reason="a long run; start it with --long")
    for item in items:
        if item.get_closest_marker("long") is not None:
            item.add_marker(asked_for)


@pytest.fixture
def home() -> Iterator[Path]:
    """A TNT_HOME of this test, with a short path (sockets have a limit), removed at its end."""
    folder = Path(tempfile.mkdtemp(prefix="tnt-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def daemon(home: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Daemon]]:
    """`daemon("alice")` starts a daemon; options of `tntd` and of `Daemon` may follow."""
    started: list[Daemon] = request.node.stash.setdefault(_daemons, [])

    def start(name: str, *options: str, **more: Any) -> Daemon:
        made = Daemon(name, more.pop("home", home), *options, **more)
        started.append(made)
        return made.start()

    yield start
    for each in started:
        each.clean_up()


@pytest.fixture
def pair(daemon: Callable[..., Daemon]) -> tuple[Daemon, Daemon]:
    """alice and bob, who have accepted each other and are linked; they share a downloads folder."""
    alice, bob = daemon("alice"), daemon("bob")
    connect_pair(alice, bob)
    return alice, bob


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[pytest.TestReport]:
    """Put the daemons' logs into the report of a test that failed."""
    report: pytest.TestReport = yield
    if report.failed:
        for each in item.stash.get(_daemons, []):
            text = each.log()[-_LOG_CHARS_SHOWN:] + each.stderr()[-_LOG_CHARS_SHOWN:]
            report.sections.append((f"log of {each.name}", text))
    return report
