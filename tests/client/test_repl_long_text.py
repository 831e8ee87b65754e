"""The REPL in a real terminal: a text too long for a message, and leaving in a hurry."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client_terminal import Terminal
from harness import Daemon, wait_for

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")

LONG = "".join(f"line {number} of a long text\n" for number in range(4_000))  # 97 KiB


@pytest.fixture
def terminal(home: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(name: str) -> Terminal:
        opened.append(Terminal(home, name))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def kept(home: Path) -> list[Path]:
    return list((home / "data/alice/client/texts").glob("*"))


def test_a_long_text_goes_as_a_file_after_a_question(
    pair: tuple[Daemon, Daemon], terminal: Callable[..., Terminal], home: Path
):
    _alice, bob = pair
    here = terminal("alice").repl("--name", "alice", prompt="bob")
    question = r"This is 97 KiB, more than a message holds\. Send it as a file\? \[y/N\]$"
    here.paste(LONG).see(r"line 3999").key("Enter").see(question)
    here.line("n").see(r"\* nothing was sent; the arrow up brings the text back")
    assert kept(home) == []
    here.key("Up").see("line 3999").key("Enter").see(question)
    here.line("y").see(r"\* text-[\d-]+\.txt \(96.6 KiB\) is queued for bob", r"\* bob has text-")
    (arrived,) = bob.downloads.glob("new_text-*.txt")
    assert arrived.read_text() == LONG.rstrip("\n")
    wait_for(lambda: kept(home) == [])


def test_it_waits_for_somebody_offline(
    pair: tuple[Daemon, Daemon], terminal: Callable[..., Terminal], home: Path
):
    alice, bob = pair
    bob.kill9()
    wait_for(lambda: not alice.contact("bob")["online"])
    here = terminal("alice").repl("--name", "alice", prompt="bob")
    here.paste(LONG).see(r"line 3999").key("Enter").see(r"\[y/N\]")
    here.line("y").see("is queued for bob").line("exit").see(r"^shell\$$")
    assert len(kept(home)) == 1
    (waits,) = alice.rpc("transfers.list")["transfers"]
    alice.rpc("transfers.cancel", transfer=waits["id"])
    here.repl("--name", "alice", prompt="bob")
    wait_for(lambda: kept(home) == [])


def test_what_was_typed_before_exit_is_done(
    pair: tuple[Daemon, Daemon], terminal: Callable[..., Terminal], home: Path
):
    alice, _bob = pair
    (home / "sample.txt").write_text("a sample")
    here = terminal("alice").repl("--name", "alice", prompt="bob")
    here.type("/contacts\rtransfer sample.txt\rhello\rexit\r")
    here.see(r"is queued for bob", r"daemon stays", r"^shell\$$")
    assert [item["name"] for item in alice.rpc("transfers.list")["transfers"]] == ["sample.txt"]
    here.forget().repl("--name", "alice", prompt="bob")
    here.type("/stop\rexit\r").see(r"\* alice is stopped", r"^shell\$$").see_not("daemon stays")
    assert alice.process is not None and alice.process.wait(20) == 0


def test_an_unknown_name_is_told_once(
    pair: tuple[Daemon, Daemon], terminal: Callable[..., Terminal]
):
    here = terminal("alice").repl("--name", "alice", prompt="bob")
    here.line("/to nobody").see(r"! no contact nobody; you know: bob")
    assert here.count("/to nobody") == 1
