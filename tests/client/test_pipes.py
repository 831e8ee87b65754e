"""`tnt send WHO - --as NAME` and `tnt get ID -o PLACE`, with real daemons and real pipes."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import to_builtins

from client_fake import FakeDaemon
from client_samples import transfer
from harness import Daemon, connect_pair, environment, run, wait_for
from tnt_client import feed, pipes
from tnt_client.failures import Interrupted, Refused
from tntd.control.schema import TransferList, TransferResult
from tntd.errors import Code, CommandError
from tntd.node.parts import SPOOL_AGE_S

TNT = [sys.executable, "-P", "-m", "tnt_client.tnt"]
Start = Callable[..., Daemon]


@pytest.fixture
def pair(daemon: Start) -> tuple[Daemon, Daemon]:
    alice, bob = daemon("alice"), daemon("bob")
    connect_pair(alice, bob)
    bob.rpc("settings.set", name="ask_always", value=True)
    return alice, bob


def tnt(home: Path, name: str, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return run([*TNT, words[0], "--name", name, *words[1:]], home, **more)


def failed(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, (done.stdout, done.stderr)
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("tnt: ")
    assert [word for word in words if word not in done.stderr] == [], done.stderr


def piped(home: Path, data: bytes, *words: str) -> subprocess.CompletedProcess[bytes]:
    """`tnt send --name alice WORDS` with these bytes in its pipe."""
    return subprocess.run(
        [*TNT, "send", "--name", "alice", *words],
        env=environment(home),
        input=data,
        capture_output=True,
        timeout=60,
        check=False,
    )


def left_in(folder: Path) -> list[Path]:
    """What lies in a spool or beside a place, hidden or not."""
    found = []
    for root, folders, files in os.walk(folder / "spool"):  # which may be removed meanwhile
        found += [Path(root) / name for name in folders + files]
    return found


def the_offer(daemon: Daemon) -> str:
    def look() -> list[Any]:
        return daemon.rpc("transfers.list", state="offered")["transfers"]

    return str(wait_for(look)[0]["id"])


def offered(alice: Daemon, bob: Daemon, source: Path) -> str:
    """The id of what alice offers bob."""
    alice.rpc("transfers.send", to="bob", paths=[str(source)])
    return the_offer(bob)


def state_of(daemon: Daemon, id_: str) -> str:
    items = daemon.rpc("transfers.list")["transfers"]
    return next(str(item["state"]) for item in items if item["id"] == id_)


# -- sending ------------------------------------------------------------------------------


def test_a_pipe_arrives_at_several_and_leaves_nothing(home: Path, daemon: Start):
    alice, bob, carol = daemon("alice"), daemon("bob"), daemon("carol")
    connect_pair(alice, bob)
    connect_pair(alice, carol)
    data = os.urandom(3_000_000)
    done = piped(home, data, "bob,carol", "-", "--as", "from a pipe.bin", "--wait")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"* bob has from a pipe.bin (2.9 MiB)\n" in done.stdout
    for name in ("new_from a pipe.bin", "new_from a pipe (1).bin"):  # they share a folder here
        assert (bob.downloads / name).read_bytes() == data
    wait_for(lambda: not left_in(alice.data))


def test_a_pipe_waits_for_who_is_away_and_survives_a_kill(home: Path, daemon: Start):
    alice, bob = daemon("alice", "--data-dir", str(home / "else where")), daemon("bob")
    connect_pair(alice, bob)
    bob.kill9()
    done = piped(home, b"for later", "bob", "-", "--as", "later.txt")
    assert done.returncode == 0 and b"later.txt (9 B) is queued for bob" in done.stdout
    (folder,) = (home / "else where" / "spool").iterdir()
    (file,) = folder.iterdir()
    assert [path.stat().st_mode & 0o777 for path in (folder.parent, folder, file)] == [
        0o700,
        0o700,
        0o600,
    ]
    os.utime(folder, (1, 1))
    alice.restart()
    bob.start()
    wait_for((bob.downloads / "new_later.txt").exists)
    wait_for(lambda: not left_in(home / "else where"))


def test_a_pipe_that_was_declined_or_cancelled_leaves_nothing(
    home: Path, pair: tuple[Daemon, Daemon]
):
    alice, bob = pair
    for side, verb in ((bob, "decline"), (alice, "cancel")):
        assert piped(home, b"x", "bob", "-", "--as", "x").returncode == 0
        assert left_in(alice.data)
        side.rpc(f"transfers.{verb}", transfer=the_offer(bob))
        wait_for(lambda: not left_in(alice.data))
        wait_for(lambda: not bob.rpc("transfers.list", state="offered")["transfers"])


def test_what_killed_clients_left_goes_at_a_start_of_the_daemon(home: Path, daemon: Start):
    alice = daemon("alice")
    for name, age in (("old", SPOOL_AGE_S + 60), ("young", 60)):
        folder = alice.data / "spool" / name
        folder.mkdir(parents=True)
        (folder / "x").write_text("x")
        then = folder.stat().st_mtime - age
        os.utime(folder, (then, then))
    alice.restart()
    wait_for(lambda: not (alice.data / "spool" / "old").exists())
    assert (alice.data / "spool" / "young" / "x").exists()


def test_an_interrupt_while_the_pipe_runs_fails_it(home: Path, pair: tuple[Daemon, Daemon]):
    alice, bob = pair
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        with subprocess.Popen(
            [*TNT, "send", "--name", "alice", "bob", "-", "--as", "x"],
            env=environment(home),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as sender:
            assert sender.stdin is not None
            sender.stdin.write(b"x" * 100_000)  # more than a pipe holds: it is being read
            sender.stdin.flush()
            wait_for(lambda: any(path.is_file() for path in left_in(alice.data)))
            sender.send_signal(number)
            assert sender.wait(30) == code
            assert sender.stderr is not None
            told = sender.stderr.read()
        words = b"tnt: x was not sent: the pipe broke off before its end\n"
        assert told == (words if code == 130 else b"")
        wait_for(lambda: not left_in(alice.data))
    for side in (alice, bob):
        wait_for(
            lambda side=side: (
                [(item["state"], item["error"]) for item in side.rpc("transfers.list")["transfers"]]
                == [("failed", "the pipe broke off before its end")] * 2
            )
        )


def test_a_pipe_needs_a_name_and_somebody_to_go_to(home: Path, pair: tuple[Daemon, Daemon]):
    for words, code, told in (
        (("bob", "-"), 2, "--as NAME"),
        (("bob", __file__, "--as", "x"), 2, "write - among the paths"),
        (("bob", "-", "-", "--as", "x"), 2, "only one standard input"),
        (("bob", "-", "--as", "a/b"), 1, "is no name for a file"),
        (("bob", "-", "--as", ".."), 1, "is no name for a file"),
        (("zoe", "-", "--as", "x"), 1, "zoe"),
        (("bob", "-", "nowhere", "--as", "x"), 1, "nowhere"),
    ):
        failed(tnt(home, "alice", "send", *words), code, told)
        assert not left_in(pair[0].data)


def test_a_pipe_that_cannot_be_read_sends_nothing(home: Path, pair: tuple[Daemon, Daemon]):
    with (home / "only written").open("wb") as broken:
        done = tnt(home, "alice", "send", "bob", "-", "--as", "x", stdin=broken)
    failed(done, 1, "standard input cannot be read")
    assert not left_in(pair[0].data) and not pair[0].rpc("transfers.list")["transfers"]


def test_a_long_pipe_in_constant_memory(home: Path, pair: tuple[Daemon, Daemon]):
    """400 MiB through a program that may have 200 MiB of data, both ways."""
    bob = pair[1]
    command = " ".join([*TNT, "send", "--name", "alice", "bob", "-", "--as", "long"])
    limited = f"head -c 400M /dev/zero | (ulimit -d 200000; exec {command})"
    assert run(["bash", "-c", limited], home, timeout=140).returncode == 0
    id_ = the_offer(bob)
    command = " ".join([*TNT, "get", "--name", "bob", id_, "-o", "-"])
    done = run(["bash", "-c", f"(ulimit -d 200000; exec {command}) | wc -c"], home, timeout=140)
    assert (done.stdout.strip(), done.stderr) == (str(400 << 20), "")
    wait_for(lambda: not left_in(pair[0].data) and not left_in(bob.data))


# -- taking -------------------------------------------------------------------------------


def test_an_offer_goes_to_standard_output_and_to_a_file(
    home: Path, pair: tuple[Daemon, Daemon], tmp_path: Path
):
    alice, bob = pair
    source = tmp_path / "source"
    source.write_text("some bytes\n")
    done = tnt(home, "bob", "get", offered(alice, bob, source)[:8], "-o", "-")
    assert (done.returncode, done.stdout, done.stderr) == (0, "some bytes\n", "")
    assert not left_in(bob.data)
    room = tmp_path / "room"
    room.mkdir()
    done = tnt(home, "bob", "get", offered(alice, bob, source), "-o", str(room / "mine"))
    assert done.returncode == 0 and "received source (11 B) from alice: " in done.stdout
    assert [path.name for path in room.iterdir()] == ["mine"]
    assert (room / "mine").read_text() == "some bytes\n"
    listed = tnt(home, "bob", "transfers").stdout
    assert listed.count("done") == 2 and "/" not in listed  # where it was for a moment is gone
    assert not bob.downloads.exists() or not list(bob.downloads.iterdir())


def test_a_folder_goes_to_a_place_but_not_to_standard_output(
    home: Path, pair: tuple[Daemon, Daemon], tmp_path: Path
):
    alice, bob = pair
    folder = tmp_path / "folder"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "x").write_text("x")
    id_ = offered(alice, bob, folder)
    failed(tnt(home, "bob", "get", id_, "-o", "-"), 1, "is a folder", f"tnt get {id_} -o FOLDER")
    assert state_of(bob, id_) == "offered"
    assert tnt(home, "bob", "get", id_, "-o", "here", cwd=tmp_path).returncode == 0
    assert (tmp_path / "here" / "in" / "x").read_text() == "x"
    assert not list(tmp_path.glob(".tnt-get-*"))


def test_nothing_is_replaced(home: Path, pair: tuple[Daemon, Daemon], tmp_path: Path):
    alice, bob = pair
    source = tmp_path / "source"
    source.write_text("new")
    id_ = offered(alice, bob, source)
    there = tmp_path / "there"
    there.write_text("old")
    failed(tnt(home, "bob", "get", id_, "-o", str(there)), 1, "is there already")
    failed(tnt(home, "bob", "get", id_, "-o", str(tmp_path)), 1, "is a folder")
    failed(
        tnt(home, "bob", "get", id_, "-o", str(tmp_path / "none" / "x")), 1, "there is no folder"
    )
    failed(tnt(home, "bob", "get", id_, "-o", f"{tmp_path}/"), 1, f"such as {tmp_path}/NAME")
    ours = ("source is sent from here", "give it up with: tnt cancel")
    failed(tnt(home, "alice", "get", id_, "-o", str(tmp_path / "x")), 1, *ours)
    failed(tnt(home, "bob", "get", id_, id_, "-o", "x"), 2, "one transfer")
    failed(tnt(home, "bob", "get", "--json", id_, "-o", "-"), 2, "--json")
    assert (there.read_text(), state_of(bob, id_)) == ("old", "offered")
    assert tnt(home, "bob", "get", id_).returncode == 0
    failed(tnt(home, "bob", "get", id_, "-o", "x", cwd=tmp_path), 1, "ask_always on")
    assert not list(tmp_path.glob(".tnt-get-*"))


def test_a_name_that_appears_meanwhile_is_left_alone(tmp_path: Path):
    for kind in ("file", "folder"):
        source, target = tmp_path / f"source {kind}", tmp_path / f"target {kind}"
        target.write_text("old")
        if kind == "folder":
            source.mkdir()
        else:
            source.write_text("new")
        with pytest.raises(FileExistsError):
            pipes._move(source, target)
        assert target.read_text() == "old" and source.exists()


def test_whoever_gives_up_gives_the_transfer_up(
    home: Path, pair: tuple[Daemon, Daemon], tmp_path: Path
):
    alice, bob = pair
    source = tmp_path / "source"
    source.write_text("some bytes")
    for end in ("interrupt", "time-out"):
        id_ = offered(alice, bob, source)
        alice.kill9()
        wait_for(lambda: not bob.contact("alice")["online"])
        limit = ["--timeout", "3"] if end == "time-out" else []
        with subprocess.Popen(
            [*TNT, "get", "--name", "bob", *limit, id_, "-o", "mine"],
            env=environment(home),
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        ) as getter:
            if end == "interrupt":
                wait_for(lambda id_=id_: state_of(bob, id_) == "queued")
                getter.send_signal(signal.SIGINT)
            _out, told = getter.communicate(timeout=30)
        assert getter.returncode == (130 if end == "interrupt" else 4), told
        *waits, last = told.splitlines()
        assert last.startswith("tnt: source ") and "cancelled" in last
        assert all(line.startswith("* source (10 B) waits: ") for line in waits)
        assert state_of(bob, id_) == "cancelled"
        assert [path.name for path in tmp_path.iterdir()] == ["source"]
        alice.start()
        wait_for(lambda: bob.contact("alice")["online"])


def accepting(error: BaseException) -> FakeDaemon:
    """A daemon with an offer; `error` is what comes in place of its answer where that is taken."""

    def accept(_params: dict[str, Any]) -> None:
        raise error

    item = transfer(direction="in", state="offered")
    answers = {"transfers.accept": accept, "transfers.cancel": TransferResult(transfer=item)}
    return FakeDaemon({**answers, "transfers.list": TransferList(transfers=[item])})


def test_an_interrupt_before_the_answer_gives_it_up_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It may be taken by then: nobody would take it out of the folder that is removed here."""
    monkeypatch.chdir(tmp_path)
    daemon = accepting(KeyboardInterrupt())
    with pytest.raises(Interrupted, match="was cancelled"):
        daemon.tnt("get", "t234", "-o", "mine")
    assert daemon.asked[-1] == ("transfers.cancel", {"transfer": "t234"})
    assert not list(tmp_path.iterdir())


def test_what_another_has_taken_is_not_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    daemon = accepting(CommandError(Code.WRONG_STATE, "it is queued"))
    with pytest.raises(CommandError, match="it is queued"):
        daemon.tnt("get", "t234", "-o", "mine")
    assert daemon.asked[-1][0] == "transfers.accept"
    assert not list(tmp_path.iterdir())


def test_what_has_to_wait_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    reasons = [None, "not enough free space", "not enough free space", None, "the disk fails"]
    waits = [transfer(direction="in", state="queued", error=reason) for reason in reasons]
    ends = transfer(direction="in", state="failed", error="enough of it")
    events = [{"type": "transfer.state", "transfer": to_builtins(e)} for e in (*waits, ends)]
    offers = TransferList(transfers=[])
    taken = TransferResult(transfer=waits[0])
    daemon = FakeDaemon({"transfers.list": offers, "transfers.accept": taken}, events)
    with pytest.raises(Refused, match="enough of it"):
        daemon.tnt("get", "t234", "-o", "mine")
    assert capsys.readouterr().err.splitlines() == [
        "* a.bin (64 MiB) waits: not enough free space",
        "* a.bin (64 MiB) waits: the disk fails",
    ]


def test_a_reader_that_has_enough_leaves_nothing(
    home: Path, pair: tuple[Daemon, Daemon], tmp_path: Path
):
    alice, bob = pair
    source = tmp_path / "source"
    source.write_bytes(b"line\n" * 1_000_000)
    command = " ".join([*TNT, "get", "--name", "bob", offered(alice, bob, source), "-o", "-"])
    done = run(["/bin/sh", "-c", f"{command} | head -n 1"], home)
    assert (done.stdout, done.stderr) == ("line\n", "")
    wait_for(lambda: not left_in(bob.data))


def test_a_name_is_checked():
    for name in ("", ".", "..", "a/b", "a\0b", "x" * 256, "ä" * 128):
        with pytest.raises(Refused, match="is no name for a file"):
            pipes.check_name(name)
    pipes.check_name("-" + "x" * 254)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers that signal")
def test_a_signal_ends_it_wherever_it_is() -> None:
    """As SIGTERM does in tnt: with its own exception, and none of a lock that was left open."""

    class Ended(BaseException):
        pass

    came: list[int] = []

    def end(number: int, _frame: object) -> None:
        came.append(number)
        raise Ended

    threads = _thread._count()
    before = signal.signal(signal.SIGALRM, end)
    try:
        for _ in range(10):
            reads, writes = os.pipe()
            for microseconds in [*range(1, 101)] * 3:
                came.clear()
                # Python ignores what is raised in a callback of its collector (Hypothesis has one).
                with contextlib.suppress(Ended):
                    signal.setitimer(signal.ITIMER_REAL, 1e-6 * microseconds)
                    pieces = feed._Pieces(reads)
                    for _ in range(1000):  # a signal right before a wait does not end that one
                        if not came:
                            pieces.next(0.005)
                assert came
            os.close(writes)
            wait_for(lambda: _thread._count() <= threads)
            os.close(reads)
    finally:
        signal.signal(signal.SIGALRM, before)
