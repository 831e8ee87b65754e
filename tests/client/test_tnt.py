"""`tnt` against real daemons: what it does, what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import Daemon, connect_pair, environment, run, wait_for

TNT = [sys.executable, "-P", "-m", "tnt_client.tnt"]
Start = Callable[..., Daemon]


def tnt(home: Path, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return run([*TNT, *arguments], home, **more)


def objects(home: Path, *arguments: str, **more: Any) -> list[dict[str, Any]]:
    """The objects that a command prints with --json; it must succeed."""
    done = tnt(home, arguments[0], "--json", *arguments[1:], **more)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def failed(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """It ended with that code and one line on standard error with those words."""
    assert done.returncode == code, (done.stdout, done.stderr)
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("tnt: ")
    for word in words:
        assert word in done.stderr


# -- which daemon -------------------------------------------------------------------------


def test_no_daemon_is_exit_code_3(home: Path):
    failed(tnt(home, "status"), 3, "start one with: tntd --name NAME")
    failed(tnt(home, "status", "--name", "zoe"), 3, "zoe", "tntd --name zoe")
    failed(tnt(home, "--name", "../x", "status"), 3)


def test_the_only_one_that_runs_is_it_and_a_dead_one_does_not_count(home: Path, daemon: Start):
    dead, alive = daemon("dead"), daemon("alive")
    several = tnt(home, "status")
    failed(several, 2, "alive", "dead", "--name")
    assert objects(home, "status", "--name", "dead")[0]["name"] == "dead"
    dead.kill9()
    assert objects(home, "status")[0]["name"] == "alive"
    failed(tnt(home, "status", "--name", "dead"), 3, "tntd --name dead")
    alive.kill9()
    failed(tnt(home, "status"), 3)


def test_name_before_and_after_the_verb_and_in_the_environment(home: Path, daemon: Start):
    daemon("alice"), daemon("bob")
    assert json.loads(tnt(home, "--name", "bob", "status", "--json").stdout)["name"] == "bob"
    assert json.loads(tnt(home, "status", "--json", "--name", "alice").stdout)["name"] == "alice"
    os.environ["TNT_NAME"] = "bob"
    try:
        assert json.loads(tnt(home, "status", "--json").stdout)["name"] == "bob"
        assert (
            json.loads(tnt(home, "--name", "alice", "status", "--json").stdout)["name"] == "alice"
        )
    finally:
        del os.environ["TNT_NAME"]


def test_over_tcp_with_a_token(home: Path, daemon: Start):
    alice = daemon("alice", "--control", "tcp:127.0.0.1:0")
    assert objects(home, "status")[0]["id"] == alice.id
    token_file = Path(alice.ready["token_file"])
    kept = token_file.read_text()
    token_file.write_text(kept.replace(json.loads(kept)["token"], "00" * 32))
    failed(tnt(home, "--name", "alice", "status"), 3, "token")
    token_file.unlink()
    failed(tnt(home, "--name", "alice", "status"), 3, "token")


def seconds_to_time_out(home: Path, name: list[str], words: tuple[str, ...]) -> float:
    began = time.monotonic()
    failed(tnt(home, *name, "status", "--timeout", "0.1"), 4, *words)
    return time.monotonic() - began


@pytest.mark.parametrize("control", ["", "tcp:127.0.0.1:0"])
def test_a_daemon_that_does_not_answer_is_told_from_none(home: Path, daemon: Start, control: str):
    alice = daemon("alice", *(["--control", control] if control else []))
    words = (
        f"alice's daemon (process {alice.pid}) runs but does not answer",
        f"kill -9 {alice.pid}",
    )
    os.kill(alice.pid, signal.SIGSTOP)
    try:
        failed(tnt(home, "--name", "alice", "status"), 1, *words)
        failed(tnt(home, "status"), 1, *words)
        for name in ([], ["--name", "alice"]):
            # A busy machine makes tries longer, but never one this short that waits for 2 s.
            wait_for(lambda name=name: seconds_to_time_out(home, name, words) < 1.9)
        daemon("bob")
        failed(tnt(home, "status"), 2, "several daemons are running (alice, bob)")
    finally:
        os.kill(alice.pid, signal.SIGCONT)
    assert objects(home, "status", "--name", "alice")[0]["name"] == "alice"


def test_a_daemon_that_stops_answering(home: Path, pair: tuple[Daemon, Daemon]):
    bob = pair[1]
    watch = [*TNT, "msg", "--name", "bob", "--timeout", "3", "alice", "-"]
    with subprocess.Popen(
        watch, env=environment(home), stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as sender:
        wait_for(lambda: bob.rpc("status")["clients"] == 2)
        os.kill(bob.pid, signal.SIGSTOP)
        try:
            _, told = sender.communicate("text", timeout=30)
        finally:
            os.kill(bob.pid, signal.SIGCONT)
    assert (sender.returncode, told) == (
        4,
        "tnt: bob's daemon has not answered within the time given; "
        "what was asked of it may be done all the same\n",
    )


# -- people -------------------------------------------------------------------------------


def test_meeting_and_accepting(home: Path, daemon: Start):
    alice, bob = daemon("alice"), daemon("bob")
    met = tnt(home, "connect", "--name", "alice", bob.address)
    assert met.returncode == 0 and "once they have accepted you" in met.stdout
    wait_for(lambda: bob.rpc("contacts.list")["contacts"])  # her hello is the last that is said
    (asking,) = objects(home, "contacts", "--name", "bob")
    assert (asking["name"], asking["trust"]) == ("alice", "pending")
    failed(tnt(home, "msg", "--name", "bob", "alice", "hi"), 1, "accept")
    (accepted,) = objects(home, "accept", "--name", "bob", "alice")
    assert accepted["trust"] == "accepted"
    wait_for(lambda: alice.contact("bob")["mutual"])
    shown = tnt(home, "contacts", "--name", "alice").stdout
    assert "bob" in shown and "online" in shown and "not verified" in shown


def test_names_trust_and_words(home: Path, pair: tuple[Daemon, Daemon]):
    mine = objects(home, "verify", "--name", "alice", "bob")[0]["words"]
    theirs = objects(home, "verify", "--name", "bob", "alice")[0]["words"]
    assert mine == theirs and len(mine) >= 6
    asked = tnt(home, "verify", "--name", "alice", "bob")
    assert asked.returncode == 0 and "--yes" in asked.stdout and mine[0] in asked.stdout
    assert pair[0].contact("bob")["trust"] == "accepted"
    (verified,) = objects(home, "verify", "--name", "alice", "--yes", "bob")
    assert verified["trust"] == "verified"
    (renamed,) = objects(home, "rename", "--name", "alice", "bob", "rob")
    assert renamed["name"] == "rob"
    assert objects(home, "block", "--name", "alice", "rob")[0]["trust"] == "blocked"
    assert objects(home, "unblock", "--name", "alice", "rob")[0]["trust"] != "blocked"
    assert objects(home, "remove", "--name", "alice", "rob")[0]["name"] == "rob"
    # Bob has not forgotten us: the most that can be there is a new request of his.
    assert all(c["trust"] == "pending" for c in objects(home, "contacts", "--name", "alice"))
    failed(tnt(home, "accept", "--name", "alice", "rob"), 1, "rob")


def test_an_address_where_nobody_is(home: Path, daemon: Start):
    daemon("alice")
    failed(tnt(home, "connect", "127.0.0.1:1"), 1, "127.0.0.1:1")
    failed(tnt(home, "connect", "nonsense"), 1, "nonsense")


# -- messages -----------------------------------------------------------------------------


def test_a_message_and_its_delivery(home: Path, pair: tuple[Daemon, Daemon]):
    (sent,) = objects(home, "msg", "--name", "alice", "--wait", "delivered", "bob", "hello", "bob")
    assert sent["text"] == "hello bob" and sent["state"] in ("delivered", "read")
    assert pair[1].texts("alice") == ["hello bob"]
    done = tnt(home, "msg", "--name", "alice", "bob", "it's ✓ fine")
    assert done.returncode == 0 and "bob" in done.stdout
    wait_for(lambda: pair[1].texts("alice") == ["hello bob", "it's ✓ fine"])


def test_a_message_from_standard_input(home: Path, pair: tuple[Daemon, Daemon], tmp_path: Path):
    def send(data: bytes) -> subprocess.CompletedProcess[str]:
        source = tmp_path / "input"
        source.write_bytes(data)
        with source.open("rb") as file:
            return tnt(home, "msg", "--name", "alice", "bob", "-", stdin=file)

    assert send("zwei\nZeilen ü\n".encode()).returncode == 0
    assert pair[0].texts("bob") == ["zwei\nZeilen ü"]
    failed(send(b"\xff\xfe"), 1, "UTF-8", "tnt send bob FILE")
    failed(send(b"\n"), 1, "empty")
    assert send(b"x" * 65_536).returncode == 0
    failed(send(b"x" * 65_537), 1, "65,537 bytes", "as a file", "tnt send bob FILE")
    failed(send("ä".encode() * 40_000), 1, "80,000 bytes")


def test_waiting_for_somebody_who_is_away_times_out(home: Path, pair: tuple[Daemon, Daemon]):
    pair[1].kill9()
    done = tnt(home, "msg", "--name", "alice", "--wait", "delivered", "--timeout", "3", "bob", "x")
    failed(done, 4, "queued", "bob")
    assert pair[0].texts("bob") == ["x"]
    assert "queued for bob" in tnt(home, "msg", "--name", "alice", "bob", "y").stdout


def test_looking_back(home: Path, pair: tuple[Daemon, Daemon]):
    for number in range(5):
        pair[0].rpc("messages.send", to="bob", text=f"number {number}")
    newest = objects(home, "history", "--name", "alice", "--limit", "2", "bob")
    assert [item["text"] for item in newest] == ["number 3", "number 4"]
    older = objects(
        home, "history", "--name", "alice", "--limit", "2", "--before", newest[0]["id"], "bob"
    )
    assert [item["text"] for item in older] == ["number 1", "number 2"]
    found = objects(home, "history", "--name", "alice", "--search", "number 3", "bob")
    assert [item["text"] for item in found] == ["number 3"]
    shown = tnt(home, "history", "--name", "alice", "bob").stdout.splitlines()
    assert shown[0].startswith("-- 20") and shown[1].endswith("] alice: number 0")
    assert (
        "no such messages"
        in tnt(home, "history", "--name", "alice", "--search", "zz", "bob").stdout
    )
    failed(tnt(home, "history", "--name", "alice", "carol"), 1, "carol")


def test_hostile_text_does_not_reach_the_terminal(home: Path, pair: tuple[Daemon, Daemon]):
    text = "\x1b[2J\u202ered\x07\x9b1m"
    pair[1].rpc("messages.send", to="alice", text=text)
    wait_for(lambda: pair[0].texts("bob"))
    assert objects(home, "history", "--name", "alice", "bob")[0]["text"] == text
    for format in ([], ["--json"]):
        done = tnt(home, "history", "--name", "alice", *format, "bob")
        assert not set(done.stdout) & {"\x1b", "\u202e", "\x07", "\x9b"}


# -- files --------------------------------------------------------------------------------


def test_a_file_waited_for(home: Path, pair: tuple[Daemon, Daemon], tmp_path: Path):
    source = tmp_path / "a file.bin"
    source.write_bytes(os.urandom(3_000_000))
    (item,) = objects(home, "send", "--name", "alice", "--wait", "bob", str(source))
    assert (item["state"], item["bytes_done"]) == ("done", 3_000_000)
    assert (pair[1].downloads / "new_a file.bin").read_bytes() == source.read_bytes()
    again = run(
        [*TNT, "send", "--name", "alice", "--wait", "bob", "a file.bin"], home, cwd=tmp_path
    )
    assert again.returncode == 0
    assert "100%" in again.stdout and "\x1b" not in again.stdout
    assert again.stdout.endswith("* bob has a file.bin (2.9 MiB)\n")
    assert (pair[1].downloads / "new_a file (1).bin").exists()
    listed = objects(home, "transfers", "--name", "bob")
    assert [entry["direction"] for entry in listed] == ["in", "in"]


def test_a_file_that_cannot_be_sent(home: Path, pair: tuple[Daemon, Daemon], tmp_path: Path):
    failed(tnt(home, "send", "--name", "alice", "bob", str(tmp_path / "none")), 1, "none")
    failed(tnt(home, "send", "--name", "alice", "bob", ""), 1, "empty path")
    failed(tnt(home, "send", "--name", "alice", "nobody", __file__), 1, "nobody")
    pair[1].kill9()
    done = tnt(home, "send", "--name", "alice", "--wait", "--timeout", "3", "bob", __file__)
    failed(done, 4, "stays in the queue")
    (item,) = objects(home, "transfers", "--name", "alice")
    cancelled = objects(home, "transfers", "--name", "alice", "cancel", item["id"][:8])
    assert cancelled[0]["state"] == "cancelled"
    failed(tnt(home, "transfers", "--name", "alice", "cancel", item["id"]), 1)
    several = tnt(home, "cancel", "--name", "alice", item["id"], "zzz")
    assert several.returncode == 1 and several.stderr.count("\ntnt: no transfer 'zzz'; ") == 1
    assert several.stderr.startswith(f"tnt: {item['id']}: test_tnt.py is cancelled already; ")
    failed(tnt(home, "transfers", "--name", "alice", "cancel"), 2, "id of a transfer")


def is_in_state(daemon: Daemon, id_: str, state: str) -> bool:
    listed = daemon.rpc("transfers.list", state=state)["transfers"]
    return any(item["id"] == id_ for item in listed)


def test_offers_are_taken_or_declined(home: Path, daemon: Start, tmp_path: Path):
    config = tmp_path / "ask.toml"
    config.write_text("auto_accept_bytes_max = 10\n")
    alice, bob = daemon("alice"), daemon("bob", "--config", str(config))
    connect_pair(alice, bob)
    source = tmp_path / "x.txt"
    source.write_text("more than ten bytes")
    for verb, state in (("get", "done"), ("decline", "declined")):
        (item,) = objects(home, "send", "--name", "alice", "bob", str(source))
        wait_for(lambda id_=item["id"]: is_in_state(bob, id_, "offered"))
        objects(home, "transfers", "--name", "bob", verb, item["id"])
        wait_for(lambda id_=item["id"], state=state: is_in_state(alice, id_, state))
    declined = tnt(home, "send", "--name", "alice", "--wait", "--timeout", "1", "bob", str(source))
    assert declined.returncode == 4
    assert (bob.downloads / "new_x.txt").read_text() == "more than ten bytes"


# -- the daemon ---------------------------------------------------------------------------


def test_following_events_from_a_cursor(home: Path, pair: tuple[Daemon, Daemon]):
    alice, _bob = pair
    with alice.client() as client:
        since = client.cursor
    ids = [alice.rpc("messages.send", to="bob", text=f"{n}")["message"]["id"] for n in range(3)]
    # The time is for all of it, from attaching on.
    found = objects(home, "events", "--name", "alice", "--since", since, "--timeout", "4")
    queued = [
        event["message"]["id"]
        for event in found
        if event["type"] == "message.state" and event["message"]["state"] == "queued"
    ]
    assert queued == ids
    assert all(event["cursor"] for event in found if event["type"] != "transfer.progress")
    shown = tnt(home, "events", "--name", "alice", "--since", since, "--timeout", "4")
    assert shown.returncode == 0 and "message.state" in shown.stdout
    gone = tnt(home, "events", "--name", "alice", "--since", "ffff.1")
    failed(gone, 1, "--since ")


def test_events_end_with_the_daemon(home: Path, daemon: Start):
    alice = daemon("alice")
    with subprocess.Popen(
        [*TNT, "events", "--name", "alice"],
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as follower:
        wait_for(lambda: alice.rpc("status")["clients"] >= 2)
        alice.kill9()
        _out, errors = follower.communicate(timeout=20)
    assert follower.returncode == 3 and "went away" in errors


def test_a_reader_that_has_enough(home: Path, pair: tuple[Daemon, Daemon]):
    for number in range(200):
        pair[0].rpc("messages.send", to="bob", text=f"{number} " + "x" * 2_000)
    command = " ".join([*TNT, "history", "--name", "alice", "--limit", "200", "bob"])
    done = run(["/bin/sh", "-c", f"{command} | head -n 1"], home)
    assert done.stdout.count("\n") == 1 and done.stderr == ""


def test_status_log_and_stop(home: Path, daemon: Start):
    alice = daemon("alice")
    (status,) = objects(home, "status")
    assert (status["name"], status["id"]) == ("alice", alice.id)
    assert str(status["peer_port"]) in tnt(home, "status").stdout
    log = tnt(home, "log", "--lines", "5")
    assert log.returncode == 0 and "tntd.log" in log.stdout.splitlines()[0]
    stopped = tnt(home, "stop")
    assert stopped.returncode == 0 and "alice is stopped" in stopped.stdout
    failed(tnt(home, "status"), 3)
    assert alice.process is not None and alice.process.wait(20) == 0


def test_the_log_of_a_daemon_with_another_data_folder(home: Path, daemon: Start):
    daemon("alice", "--data-dir", str(home / "elsewhere"))
    log = tnt(home, "log")
    assert log.returncode == 0
    assert log.stdout.splitlines()[0] == str(home / "elsewhere" / "tntd.log")
    assert "ready: peer port" in log.stdout


def test_an_interrupt_leaves_no_traceback(home: Path, daemon: Start):
    alice = daemon("alice")
    with subprocess.Popen(
        [*TNT, "events"], env=environment(home), stderr=subprocess.PIPE, text=True
    ) as follower:
        wait_for(lambda: alice.rpc("status")["clients"] >= 2)
        follower.send_signal(signal.SIGINT)
        _out, errors = follower.communicate(timeout=20)
    assert (follower.returncode, errors) == (130, "")


def test_tnt_starts_without_the_terminal_library():
    code = "import sys, tnt_client.tnt; print('prompt_toolkit' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_repl_wants_a_terminal(home: Path):
    done = run([sys.executable, "-P", "-m", "tnt_client.repl"], home)
    assert done.returncode == 2 and "tnt" in done.stderr and done.stderr.count("\n") == 1
