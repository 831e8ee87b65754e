"""Starting and ending `tntd`, as its user and as a script see it."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import (
    LONG_S,
    TNTD,
    Client,
    Closed,
    Daemon,
    free_port,
    run,
    thread_count,
    wait_for,
)

Start = Callable[..., Daemon]
READY_FIELDS = ["name", "id", "pid", "peer_port", "control", "token_file", "downloads", "log"]


@pytest.fixture
def background(home: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Run `tntd` with options, as a user does; what it leaves running is ended."""

    def start(*options: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return run([*TNTD, *options], home, **more)

    yield start
    for file in (home / "run").glob("*.json"):
        os.kill(json.loads(file.read_text())["pid"], signal.SIGKILL)


# -- the foreground -----------------------------------------------------------------------


def test_the_ready_line_is_true(daemon: Start, home: Path):
    alice = daemon("alice")
    assert list(alice.ready) == READY_FIELDS
    assert alice.ready["name"] == "alice"
    assert alice.ready["pid"] == alice.pid
    assert alice.ready["control"] == f"unix:{home}/run/alice.sock"
    assert alice.ready["token_file"] is None
    assert alice.ready["downloads"] == str(home / "downloads")
    assert alice.ready["log"] == str(home / "data" / "alice" / "tntd.log")
    assert re.fullmatch(r"([a-z2-7]{5}-){10}[a-z2-7]{2}", alice.ready["id"])
    with alice.client() as client, socket.create_connection(("127.0.0.1", alice.port)):
        assert client.welcome["name"] == "alice"
        assert client.welcome["id"] == alice.ready["id"]
        assert client.welcome["peer_port"] == alice.port


def test_it_has_one_thread_and_two_children(daemon: Start):
    alice = daemon("alice")
    assert thread_count(alice.pid) == 1
    wait_for(lambda: len(psutil.Process(alice.pid).children()) == 2)


def test_its_files_are_private(daemon: Start, home: Path):
    alice = daemon("alice")
    for folder in (home / "run", alice.data):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in folder.iterdir()}
        assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077} == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(daemon: Start, home: Path, number: signal.Signals):
    alice = daemon("alice")
    children = psutil.Process(alice.pid).children()
    client = alice.client()
    assert alice.process is not None
    alice.process.send_signal(number)
    assert alice.process.wait(LONG_S) == 0
    with pytest.raises(Closed):
        client.read_line()
    assert [entry.name for entry in (home / "run").iterdir()] == ["alice.lock"]
    assert alice.log().splitlines()[-1].endswith("ended")
    assert psutil.wait_procs(children, LONG_S)[1] == []


def test_a_client_can_end_it(daemon: Start):
    alice = daemon("alice")
    assert alice.rpc("daemon.shutdown") == {}
    assert alice.process is not None
    assert alice.process.wait(LONG_S) == 0


def test_an_idle_daemon_sleeps(daemon: Start):
    alice = daemon("alice")
    client = alice.client(subscribe=True)  # an attached client costs nothing either
    process = psutil.Process(alice.pid)

    def slept_for_two_seconds() -> bool:
        before = process.num_ctx_switches().voluntary
        with contextlib.suppress(AssertionError):
            wait_for(lambda: process.num_ctx_switches().voluntary > before, timeout=2)
            return False
        return True

    wait_for(slept_for_two_seconds)
    client.close()


# -- the background -----------------------------------------------------------------------


def test_it_goes_to_the_background_once_ready(background: Any, home: Path):
    done = background("--name", "alice", "--listen", "127.0.0.1:0")
    assert (done.returncode, done.stderr) == (0, "")
    found = re.fullmatch(
        r"alice is running\.  Peer port (\d+), control (\S+)\n"
        r"id  ([a-z2-7]{5})-\.\.\.          attach with: tnt-repl\n",
        done.stdout,
    )
    assert found is not None
    assert found[2] == f"{home}/run/alice.sock"
    with Client.attach(f"unix:{found[2]}") as client:
        assert client.welcome["peer_port"] == int(found[1])
        assert client.welcome["id"].startswith(found[3])


def test_in_the_background_it_holds_nothing_of_its_caller(background: Any, home: Path):
    done = background("--name", "alice", "--json", "--listen", "127.0.0.1:0")
    ready = json.loads(done.stdout)
    assert list(ready) == READY_FIELDS
    process = psutil.Process(ready["pid"])
    assert os.getsid(ready["pid"]) == ready["pid"], "its own session: closing a window ends nothing"

    def targets() -> list[str]:
        return [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in (0, 1, 2)]

    # It lets go of them right after it has said that it is ready.
    wait_for(lambda: targets() == ["/dev/null"] * 3)
    process.terminate()
    wait_for(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def test_in_the_background_a_failure_is_told(background: Any, home: Path):
    (home / "config").mkdir()
    (home / "config" / "config.toml").write_text("prefxi = 'x'\n")
    done = background("--name", "alice")
    assert (done.returncode, done.stdout) == (1, "")
    assert "did you mean 'prefix'?" in done.stderr
    assert done.stderr.startswith("tntd: ") and "Traceback" not in done.stderr


def test_a_second_start_says_who_is_there(background: Any, home: Path):
    first = json.loads(background("--name", "alice", "--json", "--listen", "127.0.0.1:0").stdout)
    for options in (["--name", "alice"], ["--name", "alice", "--foreground"]):
        again = background(*options)
        assert again.returncode == 3
        assert again.stdout == ""
        assert str(first["pid"]) in again.stderr
    other = background("--name", "bob", "--data-dir", str(home / "data" / "alice"))
    assert other.returncode == 1
    assert "in use by alice" in other.stderr


def test_a_relative_home_and_relative_options_mean_where_we_stand(home: Path):
    done = subprocess.run(
        [*TNTD, "--name", "alice", "--json", "--downloads", "in", "--listen", "127.0.0.1:0"],
        cwd=home,
        env={**os.environ, "TNT_HOME": "x"},
        capture_output=True,
        timeout=LONG_S,
        check=True,
    )
    ready = json.loads(done.stdout)
    os.kill(ready["pid"], signal.SIGKILL)
    assert ready["downloads"] == str(home / "in")
    assert ready["control"] == f"unix:{home}/x/run/alice.sock"


# -- wrong ways to start ------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ["--name", "a/b"],
        ["--name", ""],
        ["--name", "a\nb"],
        ["--name", "a\x1b[2Jb"],
        ["--name", "-x"],
        ["--name", "x" * 65],
        ["--name", ".."],
        ["--listen", "6000"],
        ["--listen", "host:99999"],
        ["--control", "tcp:192.0.2.1:5000"],
        ["--control", "pipe:x"],
        ["--log-level", "loud"],
        ["--data-dir", ""],
        ["--no-such-option"],
        ["word"],
    ],
)
def test_a_wrong_command_line_is_2(background: Any, options: list[str]):
    done = background(*options)
    assert (done.returncode, done.stdout) == (2, "")
    assert "tntd: error: " in done.stderr
    assert done.stderr.replace("\n", "").isprintable()


def test_the_default_name_is_the_login_name(home: Path):
    ready = json.loads(run([*TNTD, "--json"], home).stdout)
    os.kill(ready["pid"], signal.SIGKILL)
    assert ready["name"] == getpass.getuser()


def test_a_port_that_was_asked_for_and_is_taken_is_1(background: Any):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = background("--name", "alice", "--listen", f"127.0.0.1:{port}")
    assert done.returncode == 1
    assert str(port) in done.stderr and "--listen" in done.stderr


def test_a_failed_start_leaves_nothing_behind(background: Any, home: Path):
    key = home / "data" / "alice" / "identity.key"
    key.parent.mkdir(parents=True)
    key.write_text("garbage")
    key.chmod(0o600)
    done = background("--name", "alice")
    assert done.returncode == 1
    assert str(key) in done.stderr
    assert key.read_text() == "garbage"
    assert [entry.name for entry in (home / "run").iterdir()] == ["alice.lock"]
    key.unlink()
    assert background("--name", "alice", "--listen", "127.0.0.1:0").returncode == 0


@pytest.mark.parametrize("part", ["config", "data", "run", "downloads", ""])
def test_a_file_where_a_folder_should_be_is_told(background: Any, home: Path, part: str):
    place = home / part
    if not part:
        place.rmdir()
    place.write_text("in the way")
    done = background("--name", "alice", "--listen", "127.0.0.1:0")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("tntd: ") and str(place) in done.stderr
    assert len(done.stderr.splitlines()) == 1
    place.unlink()


def test_a_key_that_others_can_read_is_refused(daemon: Start):
    alice = daemon("alice")
    alice.sigterm()
    (alice.data / "identity.key").chmod(0o644)
    with pytest.raises(AssertionError, match=r"exit code 1.*chmod 600"):
        alice.start()


def test_a_database_of_a_newer_program_is_refused(daemon: Start):
    import sqlite3

    alice = daemon("alice")
    alice.sigterm()
    database = sqlite3.connect(alice.data / "tnt.db")
    (version,) = database.execute("PRAGMA user_version").fetchone()
    database.execute("PRAGMA user_version = 9999")
    database.close()
    with pytest.raises(AssertionError, match=r"exit code 1.*newer"):
        alice.start()
    assert version < 9999


@pytest.mark.parametrize("content", [b"not a database at all, but long enough" * 200, b"SQLite"])
def test_a_database_that_is_none_is_refused(daemon: Start, content: bytes):
    alice = daemon("alice")
    alice.sigterm()
    (alice.data / "tnt.db").write_bytes(content)
    with pytest.raises(AssertionError, match=r"exit code 1.*tnt\.db"):
        alice.start()
    assert "Traceback" not in alice.stderr()
    assert (alice.data / "tnt.db").read_bytes() == content


# -- starting again -----------------------------------------------------------------------


def test_identity_and_port_are_kept(daemon: Start):
    alice = daemon("alice", listen="127.0.0.1:0")
    first = alice.ready
    alice.sigterm()
    alice.start()
    assert (alice.id, alice.port) == (first["id"], first["peer_port"])


def test_kill_9_leaves_nothing_stuck(daemon: Start, home: Path):
    alice = daemon("alice")
    for _ in range(3):
        alice.kill9()
        assert (home / "run" / "alice.sock").exists(), "a stale socket is what this is about"
        alice.start()
        assert alice.rpc("status")["name"] == "alice"


def test_a_file_in_place_of_the_socket_is_not_removed(daemon: Start, home: Path):
    alice = daemon("alice")
    alice.sigterm()
    (home / "run" / "alice.sock").write_text("precious")
    with pytest.raises(AssertionError, match=r"alice\.sock"):
        alice.start()
    assert (home / "run" / "alice.sock").read_text() == "precious"


def test_a_port_that_is_taken_meanwhile_is_replaced_and_told(daemon: Start):
    alice = daemon("alice", listen="127.0.0.1:0")
    port = alice.port
    alice.sigterm()
    with socket.create_server(("127.0.0.1", port)):
        alice.start()
    assert alice.port != port
    for text in (alice.stderr(), alice.log()):
        assert f"port {port} is taken, so {alice.port} is used" in text
    second = alice.port
    alice.sigterm()
    assert alice.start().port == second, "the new one is kept"


def test_by_default_it_listens_on_both_families(daemon: Start):
    alice = daemon("alice", listen=None)
    for host in ("127.0.0.1", "::1"):
        socket.create_connection((host, alice.port), LONG_S).close()


def test_several_addresses(daemon: Start):
    second = free_port()
    alice = daemon("alice", "--listen", f"127.0.0.1:{second}")
    for port in (alice.port, second):
        socket.create_connection(("127.0.0.1", port), LONG_S).close()


def test_a_lost_key_is_told(daemon: Start):
    alice = daemon("alice")
    first = alice.id
    alice.sigterm()
    (alice.data / "identity.key").unlink()
    alice.start()
    assert alice.id != first
    assert "a new identity was made" in alice.stderr()


def test_hup_reopens_the_log(daemon: Start):
    alice = daemon("alice")
    path = Path(alice.ready["log"])
    path.rename(path.with_name("rotated"))
    assert alice.process is not None
    alice.process.send_signal(signal.SIGHUP)
    wait_for(path.exists)
    alice.sigterm()
    assert alice.log().splitlines()[-1].endswith("ended")
    assert "ended" not in path.with_name("rotated").read_text()


def test_the_data_can_be_moved(daemon: Start, home: Path):
    alice = daemon("alice")
    first = alice.id
    alice.sigterm()
    shutil.move(alice.data, home / "elsewhere")
    moved = daemon("alice", "--data-dir", str(home / "elsewhere"))
    assert moved.id == first


def test_a_home_with_a_long_path_has_a_short_socket(
    daemon: Start, home: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "xdg"))
    deep = home / ("d" * 60) / ("e" * 60)
    alice = daemon("alice", home=deep)
    path = alice.ready["control"].removeprefix("unix:")
    assert len(path) < 104
    assert alice.rpc("status")["name"] == "alice"
    endpoint = json.loads((deep / "run" / "alice.json").read_text())
    assert endpoint["control"] == alice.ready["control"]


# -- control over TCP ---------------------------------------------------------------------


def test_tcp_control_proves_a_token(daemon: Start, home: Path):
    alice = daemon("alice", "--control", "tcp:127.0.0.1:0")
    file = Path(alice.ready["token_file"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    token = json.loads(file.read_text())
    assert alice.ready["control"] == f"tcp:127.0.0.1:{token['port']}"
    assert token["pid"] == alice.pid
    assert alice.rpc("status")["name"] == "alice"
    alice.sigterm()
    assert not file.exists()
    alice.start()
    assert json.loads(file.read_text())["token"] != token["token"], "a fresh one at each start"


def test_tcp_control_without_the_token_gets_nothing(daemon: Start, home: Path):
    alice = daemon("alice", "--control", "tcp:127.0.0.1:0")
    wrong = home / "wrong"
    wrong.write_text(json.dumps({"token": "00" * 32}))
    with pytest.raises(AssertionError, match="does not know the token"):
        Client.attach(alice.ready["control"], str(wrong))
    with Client.open(alice.ready["control"]) as browser:
        browser.send_raw(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        with pytest.raises(Closed):
            browser.read_line()
    with Client.open(alice.ready["control"]) as client:
        client.call("hello", protocol=1, client="x", nonce="00" * 32)
        number = client.send("authorise", proof="0" * 64)
        with pytest.raises((Closed, Exception), match=r"^$|^11: "):
            client.reply(number)
        with pytest.raises(Closed):
            client.call("status")


# -- what needs no daemon -----------------------------------------------------------------


def test_version_and_help(background: Any):
    from tntd import __version__

    assert background("--version").stdout == f"tntd {__version__}\n"
    text = background("--help").stdout
    assert "TNT_HOME" in text and "--detached" not in text


def test_python_m_and_the_script_are_the_same(home: Path):
    script = Path(sys.executable).with_name("tntd")
    if not script.exists():
        pytest.skip("the package is not installed beside this Python")
    one, two = run([str(script), "--print-config"], home), run([*TNTD, "--print-config"], home)
    assert one.stdout == two.stdout != ""


# -- where it prints ----------------------------------------------------------------------


@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", ">/dev/full"])
def test_ready_where_nothing_can_be_printed(home: Path, background: Any, streams: str):
    done = run(["sh", "-c", f'"$@" {streams}', "sh", *TNTD, "--name", "alice"], home)
    assert done.returncode == 0
    assert background("--name", "alice").returncode == 3  # it runs
    if "full" in streams:
        assert "alice is running" in done.stderr and "No space" in done.stderr
