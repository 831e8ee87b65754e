"""Strangers in a crowd: two contacts do not notice much of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from faults.abuse import GROWTH_BYTES_MAX, MEDIAN_MAX_S, P90_MAX_S, Siege
from harness import Daemon, open_files, rss, wait_for, wait_linked

Start = Callable[..., Daemon]
MIB = 1024 * 1024


def test_contacts_talk_while_strangers_come(daemon: Start, home: Path) -> None:
    config = home / "config.toml"
    config.write_text("reserve_bytes = 0\n")
    alice, bob = (
        daemon(name, "--config", str(config), "--downloads", str(home / f"{name}-in"))
        for name in ("alice", "bob")
    )
    siege = Siege(alice, bob, home)
    memory, files = rss(alice.pid), open_files(alice.pid)
    with siege.crowd(600, rate=100) as crowd, siege.transfer(8000 * MIB):
        phase = siege.measure("strangers come and a file moves", 0, crowd)
        assert '"hung up on": 600' in crowd.communicate()[0]
    assert len(phase.latencies) > 20
    assert phase.median < MEDIAN_MAX_S, phase.row()
    assert phase.p90 < P90_MAX_S, phase.row()
    assert phase.memory - memory < GROWTH_BYTES_MAX, phase.row()
    siege.undisturbed()
    wait_for(lambda: open_files(alice.pid) <= files, what="the strangers' descriptors are back")
    siege.close()


def test_a_contact_comes_through_the_crowd(daemon: Start, home: Path) -> None:
    """Its address has places that strangers cannot take."""
    alice, bob = daemon("alice"), daemon("bob")
    siege = Siege(alice, bob, home)
    with siege.crowd(1_000_000, rate=100) as crowd:  # as long as it takes
        wait_for(lambda: "too many strangers" in alice.log() or crowd.poll() is not None)
        for _ in range(3):
            bob.restart()
            wait_linked(alice, bob, 15)
        assert crowd.poll() is None, "they were still there"
    siege.close()
