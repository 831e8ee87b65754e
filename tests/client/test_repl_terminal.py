"""The REPL as a user has it: real daemons, a real terminal (tmux), keys and screens."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from client_terminal import REPL, Terminal
from harness import Daemon, connect_pair, wait_for

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")

Start = Callable[..., Daemon]
Open = Callable[..., Terminal]


@pytest.fixture
def terminal(home: Path) -> Iterator[Open]:
    opened: list[Terminal] = []

    def start(name: str, **size: int) -> Terminal:
        opened.append(Terminal(home, name, **size))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def say(daemon: Daemon, to: str, *texts: str) -> None:
    for text in texts:
        daemon.rpc("messages.send", to=to, text=text)


def test_two_terminals_on_one_desk(daemon: Start, terminal: Open, home: Path):
    alice, bob = daemon("alice"), daemon("bob")
    here = terminal("alice").repl("--name", "alice", prompt="alice")
    there = terminal("bob").repl("--name", "bob", prompt="bob")
    here.see("nobody to talk to yet: /connect ADDRESS")
    here.line(f"connect {bob.port}").see(r"\* connected to bob \(\w{5}-\w{5}\)", r"^bob>$")
    there.see(r"^\* alice \(\w{5}-\w{5}\) asks to talk to you: /accept alice or /block alice$")
    there.see("nobody to talk to yet: /accept alice").line("too early")
    there.see(r"^! there is nobody to talk to yet; first: /accept alice$")
    there.line(f"/connect {alice.port}")
    there.see(r"^\* connected to alice \(\w{5}-\w{5}\)   verify with /verify alice$", r"^alice>$")
    here.see(r"verify with /verify bob$", "bob online")
    here.line("hello bob")
    there.see(r"^\[\d\d:\d\d\] alice: hello bob$")
    there.line("日本語, ünï ✓")
    here.see(r"^\[\d\d:\d\d\] alice: hello bob$", r"^\[\d\d:\d\d\] bob: 日本語, ünï ✓$")
    assert here.count("hello bob") == there.count("hello bob") == 1
    (home / "sample.txt").write_text("a sample")
    here.line("transfer sample.txt").see(r"^\* bob has sample.txt \(8 B\)$")
    there.see(r"^\* received sample.txt \(8 B\) from alice: .*/new_sample.txt$")
    assert (bob.downloads / "new_sample.txt").read_text() == "a sample"
    here.line("exit").see(r"alice's daemon stays; .*tnt stop stops it", r"^shell\$$")
    there.line("/stop").see(r"^\* bob is stopped$", r"^shell\$$")
    assert bob.process is not None and bob.process.wait(20) == 0


def test_detached_and_attached_again_exactly_what_was_missed(
    pair: tuple[Daemon, Daemon], terminal: Open
):
    alice, bob = pair
    say(bob, "alice", "seen before 1", "seen before 2")
    here = terminal("alice").repl("--name", "alice").see("seen before 2")
    here.line("mine").see(r"alice: mine$")
    here.line("/detach").see(r"^shell\$$").forget()
    missed = [f"missed {number}." for number in range(100)]
    say(bob, "alice", *missed)
    wait_for(lambda: alice.texts("bob")[-1:] == missed[-1:])
    here.repl("--name", "alice").see(r"missed 99\.$")
    lines = here.everything()
    header = next(n for n, line in enumerate(lines) if line.startswith("-- while you were away"))
    assert re.fullmatch(
        r"-- while you were away \(since \d{4}(-\d\d){2} \d\d:\d\d\) --", lines[header]
    )
    above = [line.partition("] ")[2] for line in lines[:header]]
    assert above[-3:] == ["bob: seen before 1", "bob: seen before 2", "alice: mine"]
    below = [line for line in lines[header + 1 :] if line.startswith("[")]
    assert [line.partition("] ")[2] for line in below] == [f"bob: {text}" for text in missed]
    wait_for(lambda: alice.contact("bob")["unread"] == 0)
    here.key("C-d").see(r"^shell\$$").forget()
    here.repl("--name", "alice").see(r"missed 99\.$", r"│")
    assert here.count("while you were away") == 0  # nothing was missed this time


def test_a_killed_repl_loses_nothing(pair: tuple[Daemon, Daemon], terminal: Open):
    alice, bob = pair
    here = terminal("alice").repl("--name", "alice")
    say(bob, "alice", *(f"one {number}." for number in range(30)))
    here.see(r"one 29\.$")
    killed = repl_of(here)
    killed.send_signal(signal.SIGKILL)
    killed.wait(20)
    here.line("reset").see(r"^shell\$$").forget()
    say(bob, "alice", *(f"two {number}." for number in range(30)))
    wait_for(lambda: alice.texts("bob")[-1:] == ["two 29."])
    here.repl("--name", "alice").see(r"two 29\.$")
    shown = "\n".join(here.everything()).partition("while you were away")[2]
    assert [text for text in re.findall(r"bob: (two \d+\.)", shown)] == [
        f"two {number}." for number in range(30)
    ]


def test_a_history_that_was_restored_is_shown_by_what_is_unread(
    pair: tuple[Daemon, Daemon], terminal: Open
):
    """The cursor that the REPL keeps is of the history that was replaced."""
    alice, bob = pair
    bob.sigterm()
    backup = bob.data.with_name("backup")
    shutil.copytree(bob.data, backup)
    bob.start()
    here = terminal("bob").repl("--name", "bob")
    say(alice, "bob", *(f"gone {number}." for number in range(4)))
    here.see(r"gone 3\.$").line("/detach").see(r"^shell\$$").forget()
    bob.kill9()
    shutil.move(bob.data / "client", backup)
    shutil.rmtree(bob.data)
    shutil.copytree(backup, bob.data)
    bob.start()
    say(alice, "bob", *(f"new {number}." for number in range(9)))
    wait_for(lambda: bob.texts("alice")[-1:] == ["new 8."])
    here.repl("--name", "bob").see(r"new 8\.$")
    shown = "\n".join(here.everything())
    assert "4 earlier items from alice" in shown
    assert re.findall(r"alice: (new \d+\.)", shown) == [f"new {number}." for number in range(9)]


def repl_of(terminal: Terminal) -> psutil.Process:
    """The REPL process in that terminal."""
    socket = terminal._socket
    server = next(
        process
        for process in psutil.process_iter(["cmdline"])
        if socket in (process.info["cmdline"] or []) and "new-session" in process.info["cmdline"]
    )
    return next(
        child for child in server.children(recursive=True) if "tnt_client.repl" in child.cmdline()
    )


def test_a_daemon_that_is_killed_and_comes_back(pair: tuple[Daemon, Daemon], terminal: Open):
    alice, bob = pair
    here = terminal("alice").repl("--name", "alice", prompt="bob")
    alice.kill9()
    here.see(r"^\* alice's daemon is gone; waiting for it to come back", "daemon gone")
    say(bob, "alice", "while it was gone")
    here.line("typed while it was gone").see(
        r"^\* kept until .*typed while it was gone$", "1 unsent"
    )
    here.line("/contacts").see("! alice's daemon is gone; try again when it is back")
    alice.start()
    here.see(
        r"^\* alice's daemon is back$",
        r"^\[\d\d:\d\d\] alice: typed while it was gone",
        r"^\[\d\d:\d\d\] bob: while it was gone$",
    )
    wait_for(lambda: bob.texts("alice") == ["while it was gone", "typed while it was gone"])
    here.see("bob online")
    assert here.count("bob: while it was gone") == 1


def test_what_waits_for_somebody_away_is_marked(pair: tuple[Daemon, Daemon], terminal: Open):
    bob = pair[1]
    here = terminal("alice").repl("--name", "alice", prompt="bob").see("bob online")
    bob.kill9()
    here.see(r"^\* bob is offline$", "bob offline")
    here.line("are you there?").see(r"alice: are you there\?   \(queued\)$")
    here.line("hello?").see("bob offline, 2 queued")
    bob.start()
    here.see(r"^\* bob is online$", r"^\* bob has what was queued$")
    wait_for(lambda: bob.texts("alice") == ["are you there?", "hello?"])


def test_completion_of_commands_contacts_and_paths(
    pair: tuple[Daemon, Daemon], terminal: Open, home: Path
):
    (home / "pictures").mkdir()
    (home / "pictures" / "my cat.jpg").write_text("cat")
    here = terminal("alice").repl("--name", "alice", prompt="bob")
    # The menu may be that of the first letters: a key before the last ones would meet it changing.
    here.type("/his").see(r"^bob> /his$", r"/history +look back")
    here.key("Tab").see(r"^bob> /history ?$").key("C-c").see(r"^bob>$")
    here.type("/send b").see(r"^bob> /send b$", r"bob +online")
    here.key("Tab").see(r"^bob> /send bob ?$")
    here.type("pic").see(r"^bob> /send bob pic$", r"^ +pictures/ *$")
    here.key("Tab").see(r"^bob> /send bob pictures/$")
    here.type("my").see(r"^bob> /send bob pictures/my$", "my cat.jpg +3 B").key("Tab").key("Enter")
    here.see(r"^bob> /send bob pictures/my\\ cat.jpg$", r"^\* bob has my cat.jpg \(3 B\)$")
    here.type("transfer pic").key("Tab").see(r"^bob> transfer pictures/$").key("C-c")
    here.type("no menu for /").see(r"^bob> no menu for /$").type("plain text")
    here.see(r"^bob> no menu for /plain text$").see_not("dial a peer|look back")


def test_only_typed_words_are_commands(pair: tuple[Daemon, Daemon], terminal: Open):
    here = terminal("alice").repl("--name", "alice", prompt="bob")
    here.line("transfer nothing.txt").see(
        r"^! nothing was sent: there is no nothing.txt; a blank before it sends the line as text$"
    )
    here.line(" transfer nothing.txt").see(r"alice: transfer nothing.txt$")
    here.line("//stop is a command").see(r"alice: /stop is a command$")
    here.paste("exit\n").see(r"^bob> exit$").key("Enter").see(r"alice: exit$", "taken as text")
    here.paste("/stop\nsecond line\n").see("second line").key("Enter")
    here.see(r"alice: /stop$", r"^ {8}second line$")
    here.key("Up").see(r"^bob> //stop$").key("C-c").see(r"^bob>$")
    expected = [
        "transfer nothing.txt",
        "/stop is a command",
        "exit",
        "/stop\nsecond line",
    ]
    wait_for(lambda: pair[1].texts("alice") == expected)


def test_keys(pair: tuple[Daemon, Daemon], terminal: Open):
    here = terminal("alice").repl("--name", "alice", prompt="bob")
    here.type("half a line").see("half a line").key("C-c").see(r"^bob>$")
    here.type("two").key("M-Enter").type("lines").key("Enter")
    here.see(r"alice: two$", r"^ {8}lines$")
    here.type("x").key("C-d").key("BSpace").key("C-d").see("daemon stays", r"^shell\$$")
    here.repl("--name", "alice").key("Up").see(r"^bob> two$").key("C-c").see(r"^bob>$")
    repl_of(here).send_signal(signal.SIGTERM)
    here.see(r"^shell\$$")


def test_a_message_of_somebody_else_is_not_mistaken(daemon: Start, terminal: Open):
    alice, bob, carol = daemon("alice"), daemon("bob"), daemon("carol")
    connect_pair(alice, bob)
    connect_pair(alice, carol)
    here = terminal("alice").repl("--name", "alice", prompt="bob")
    say(carol, "alice", "it is carol")
    here.see(r"^\[\d\d:\d\d\] carol: it is carol   \(/to carol\)$", "unread: carol 1", r"^bob>$")
    here.line("/to carol").line("hello carol").see(r"^-- carol --$", r"^carol>$")
    here.see(r"alice: hello carol$")
    wait_for(lambda: carol.texts("alice") == ["it is carol", "hello carol"])
    wait_for(lambda: alice.contact("carol")["unread"] == 0)
    here.line("/msg bob and hello bob").see(r"alice -> bob: and hello bob")
    here.line("/to nobody").see("! no contact nobody; you know: bob, carol")


def test_words_are_compared(pair: tuple[Daemon, Daemon], terminal: Open):
    alice, _bob = pair
    here = terminal("alice").repl("--name", "alice", prompt="bob")
    words = alice.rpc("contacts.words", contact="bob")["words"]
    here.line("/verify").see(*words, r"^Does bob see the same words\? \[y/N\]")
    here.key("C-c").see("! bob is not marked as verified", r"^bob>$")
    assert alice.contact("bob")["trust"] == "accepted"
    here.line("/verify bob").see(r"^Does bob see").line("y").see(r"^\* bob is verified$")
    assert alice.contact("bob")["trust"] == "verified"


def test_a_running_transfer_stands_in_the_toolbar(
    pair: tuple[Daemon, Daemon], terminal: Open, home: Path
):
    bob = pair[1]
    with (home / "big.bin").open("wb") as file:
        file.truncate(3 << 30)
    bob.rpc("settings.set", name="download_bytes_per_s", value=100_000_000)  # half a minute
    here = terminal("alice").repl("--name", "alice", prompt="bob")
    here.line("transfer big.bin").see(r"↑ big\.bin \d+% [\d.]+ [KMG]iB/s")
    say(bob, "alice", "chat goes on")
    here.see("bob: chat goes on").line("indeed").see(r"alice: indeed$")
    here.line("/transfers").see(r"^\w{8}  to bob  big.bin \(3 GiB\)  ")
    found = re.findall(r"^(\w{8})  to bob", here.screen(), re.MULTILINE)
    here.line(f"/transfers cancel {found[-1]}").see(r"to bob  big\.bin .* cancelled$|bob has")
    here.see_not(r"↑ big\.bin")


def test_resizing_and_long_lines(pair: tuple[Daemon, Daemon], terminal: Open):
    bob = pair[1]
    here = terminal("alice").repl("--name", "alice", prompt="bob")
    here.type("a rather long line " * 6)
    for columns, rows in ((40, 12), (100, 30), (60, 10)):
        here.resize(columns, rows)
        say(bob, "alice", f"at {columns} columns")
        here.see(r"bob online", r"^bob> a rather long line")
        wait_for(lambda columns=columns: here.count(f"bob: at {columns} columns") == 1)
    here.key("Enter")
    # Of ten rows the menu below the prompt may take eight: what was sent scrolls up.
    wait_for(lambda: here.count("alice: a rather long line") == 1)
    wait_for(lambda: "a rather long line " * 6 in bob.texts("alice"))


def test_a_flood_while_typing_spoils_nothing(pair: tuple[Daemon, Daemon], terminal: Open):
    bob = pair[1]
    here = terminal("alice", columns=120).repl("--name", "alice", prompt="bob")
    with bob.client() as client:
        for number in range(600):
            client.send("messages.send", to="alice", text=f"flood {number}.")
            if number % 20 == 0:
                here.type("ab ")
        client.call("status")
    here.see(r"bob: flood 599\.$", r"^bob> (ab ){29}ab$", timeout=90)
    here.key("Enter").see(r"alice: (ab )+")
    shown = [line.partition("bob: ")[2] for line in here.everything() if "flood" in line]
    assert shown == [f"flood {number}." for number in range(600)]
    wait_for(lambda: bob.texts("alice")[-1].strip() == " ".join(["ab"] * 30))


def test_two_repls_of_one_daemon(pair: tuple[Daemon, Daemon], terminal: Open):
    one = terminal("one").repl("--name", "alice", prompt="bob")
    two = terminal("two").repl("--name", "alice", prompt="bob")
    one.line("from the first")
    two.see(r"alice: from the first$").line("from the second")
    one.see(r"alice: from the second$")
    say(pair[1], "alice", "to both")
    for each in (one, two):
        each.see(r"bob: to both$")
        for text in ("from the first", "from the second", "to both"):
            assert each.count(text) == 1


def test_a_choice_of_several_daemons(daemon: Start, terminal: Open):
    daemon("alice"), daemon("bob")
    here = terminal("desk")
    here.line(" ".join(REPL)).see(r"^ +1  alice$", r"^ +2  bob$", r"^attach to which\?")
    here.line("7").see(r"^attach to which\? 7$", r"^attach to which\? *$").line("2")
    here.see(r"^bob>$").line("exit")
    here.see(r"^shell\$$").line(" ".join([*REPL, "--name", "zoe"]))
    here.see(r"tnt-repl: no daemon named zoe is running; start one with: tntd --name zoe")


def test_a_cursor_that_is_gone_falls_back_to_what_is_unread(
    pair: tuple[Daemon, Daemon], terminal: Open, home: Path
):
    alice, bob = pair
    here = terminal("alice").repl("--name", "alice", prompt="bob")
    say(bob, "alice", "read already")
    here.see("read already")
    wait_for(lambda: alice.contact("bob")["unread"] == 0)
    here.line("exit").see(r"^shell\$$").forget()
    say(bob, "alice", "not read 1", "not read 2")
    wait_for(lambda: alice.contact("bob")["unread"] == 2)
    place = home / "data" / "alice" / "client" / "place.json"
    place.write_text(re.sub(r'"cursor":"\w+', '"cursor":"ffff', place.read_text()))
    here.repl("--name", "alice", prompt="bob").see("not read 2")
    text = "\n".join(here.everything())
    above, _, below = text.partition("-- not read yet --")
    assert "read already" in above and "not read 1" not in above
    assert below.count("not read 1") == below.count("not read 2") == 1


def test_hostile_names_and_texts_stay_text(pair: tuple[Daemon, Daemon], terminal: Open, home: Path):
    bob = pair[1]
    here = terminal("alice").repl("--name", "alice", prompt="bob")
    say(bob, "alice", "\x1b[2J\x1b]0;owned\x07bad", "one\n[00:00] carol: fake", "\u202egnp")
    here.see(r"bob: ␛\[2J␛\]0;owned␇bad$", r"^ {8}\[00:00\] carol: fake$", r"<U\+202E>gnp")
    evil = home / "x\x1b[31m.txt"
    evil.write_text("x")
    bob.rpc("transfers.send", to="alice", paths=[str(evil)])
    here.see(r"\* received x␛\[31m.txt \(1 B\) from bob")


def test_a_file_that_waits_for_a_decision(daemon: Start, terminal: Open, home: Path):
    (home / "ask.toml").write_text("auto_accept_bytes_max = 0\n")
    alice, bob = daemon("alice", "--config", str(home / "ask.toml")), daemon("bob")
    connect_pair(alice, bob)
    here = terminal("alice").repl("--name", "alice", prompt="bob")
    (home / "ask.txt").write_text("may I?")
    bob.rpc("transfers.send", to="alice", paths=[str(home / "ask.txt")])
    here.see(r"\* bob offers ask.txt \(6 B\): /get \w{8} or /decline")
    here.type("/transfers get ").see(r"ask.txt \(6 B\) from bob, offered").key("Tab", "Enter")
    here.see(r"^\* received ask.txt \(6 B\) from bob: .*new_ask.txt$")


def test_the_programs_are_installed():
    for name in ("tnt", "tnt-repl", "tntd"):
        program = Path(sys.executable).parent / name
        done = subprocess.run(
            [str(program), "--version"], capture_output=True, text=True, check=True, env=os.environ
        )
        assert done.stdout.strip().startswith(name)
