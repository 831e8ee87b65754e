"""Commands in the REPL that ask, refuse or hint: real daemons, a real terminal."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from client_terminal import Terminal
from harness import Daemon, wait_for

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")


@pytest.fixture
def here(pair: tuple[Daemon, Daemon], home: Path) -> Iterator[Terminal]:
    terminal = Terminal(home, "alice", columns=100)
    yield terminal.repl("--name", "alice", prompt="bob")
    terminal.close()


def test_whom_one_removes_is_asked_about(pair: tuple[Daemon, Daemon], here: Terminal):
    alice, bob = pair
    here.line("/remove zoe").see(r"^! no contact zoe; you know: bob$")
    here.line("/remove bob").see(r"^Forget bob and all messages\? \[y/N\] $|messages\? \[y/N\]")
    here.line("n").see(r"^\* bob stays; nothing was removed$")
    assert alice.contact("bob")["trust"] == "accepted"
    bob.kill9()
    here.line("/remove bob").see(r"messages\? \[y/N\]$|messages\? \[y/N\] ?$")
    here.line("y").see(r"^\* bob is forgotten, with all messages$")
    assert not alice.rpc("contacts.list")["contacts"]


def test_whoever_is_no_longer_blocked_is_to_be_accepted(
    pair: tuple[Daemon, Daemon], here: Terminal
):
    alice, bob = pair
    here.line("/block bob").see(r"^\* bob is blocked$")
    here.line("/unblock bob").see(r"^\* bob is no longer blocked; to talk again: /accept bob$")
    here.line("/accept bob").see(r"^\* bob is accepted, and may talk to you now$")
    bob.rpc("messages.send", to="alice", text="again")
    wait_for(lambda: alice.texts("bob") == ["again"])


def test_options_of_tnt_are_refused_by_name(
    pair: tuple[Daemon, Daemon], here: Terminal, home: Path
):
    alice, bob = pair
    (home / "f").write_text("f")
    here.line("/transfers --watch").see(
        r"^! /transfers: --watch is only for tnt in a shell; here, what changes is shown anyway"
    )
    here.line("/get 5k -o x").see(r"^! /get: -o is only for tnt in a shell")
    here.line("/send bob f --wait").see(r"^! /send: --wait is only for tnt in a shell")
    assert not alice.rpc("transfers.list")["transfers"]
    (home / "--wait").write_text("w")
    here.line("/send bob f --wait").see(r"^\* bob has f \(1 B\)$", r"^\* bob has --wait \(1 B\)$")
    wait_for((bob.downloads / "new_--wait").exists)
