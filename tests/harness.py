"""Real daemons for tests: start, kill, restart, and talk to them over their control socket.

What holds always: each test has its own TNT_HOME and its own ports; whatever was started is
ended by the fixtures of conftest.py, and the logs of its daemons stand in the report of a test
that fails.  The JSON-RPC client here is written anew from tntd/control/README.md and shares no
code with the program's own clients, so that a mistake in theirs cannot hide one in the daemon.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import itertools
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil

T = TypeVar("T")

TNTD = [sys.executable, "-P", "-m", "tntd"]
LONG_S = 30.0  # the bound of what should take well under a second; the machine may be busy

# Below the ports that the system gives out by itself, so that a daemon which is down for a
# moment finds its port free again; and of those, each worker of a run has its own.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS = range(14_000 + _WORKER, 30_000, _WORKERS)
_next_port = itertools.count(random.Random(os.urandom(8)).randrange(len(_PORTS)))


def wait_for(look: Callable[[], T], timeout: float = LONG_S, what: str = "") -> T:
    """Look again and again until there is something true; return it.  Fails after `timeout`, with
    a last look after that, however long one of them was held up."""
    deadline = time.monotonic() + timeout
    pause = 0.005
    while True:
        late = time.monotonic() > deadline
        found = look()
        if found:
            return found
        if late:
            raise AssertionError(f"not within {timeout} s: {what or look}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def free_port() -> int:
    """A port that nobody listens on now."""
    for number in itertools.islice(_next_port, 200):
        port = _PORTS[number % len(_PORTS)]
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise AssertionError("no free port")


def environment(home: Path) -> dict[str, str]:
    """The environment of a program of ours with its files below `home`."""
    return {**os.environ, "TNT_HOME": str(home)}


def run(
    command: list[str], home: Path, timeout: float = 60, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command of ours to its end; its output is text."""
    more.setdefault("stdin", subprocess.DEVNULL)
    more.setdefault("check", False)
    return subprocess.run(  # noqa: PLW1510  (`check` is in there)
        command, env=environment(home), capture_output=True, text=True, timeout=timeout, **more
    )


# -- processes ----------------------------------------------------------------------------


def thread_count(pid: int) -> int:
    """The threads of a process."""
    return psutil.Process(pid).num_threads()


def open_files(pid: int) -> int:
    """The open descriptors of a process."""
    return psutil.Process(pid).num_fds()


def rss(pid: int) -> int:
    """The resident memory of a process in bytes."""
    return psutil.Process(pid).memory_info().rss


class Daemon:
    """One profile's daemon, as a real process in the foreground."""

    def __init__(self, name: str, home: Path, *options: str, listen: str | None = "") -> None:
        """`listen` is the address for peers; "": 127.0.0.1 with a free port that stays the
        same over restarts; None: as the program itself chooses."""
        self.name = name
        self.home = home
        self.options = list(options)
        if listen == "":
            listen = f"127.0.0.1:{free_port()}"
        if listen is not None:
            self.options += ["--listen", listen]
        self.process: subprocess.Popen[bytes] | None = None
        self.ready: dict[str, Any] = {}
        self._client: Client | None = None

    # -- life -------------------------------------------------------------------------

    def start(self, timeout: float = LONG_S) -> Daemon:
        """Start it and wait for its ready line."""
        assert self.process is None, "it is running"
        self.home.mkdir(parents=True, exist_ok=True)
        with self._stderr_file.open("ab") as errors:
            self.process = subprocess.Popen(
                [*TNTD, "--foreground", "--json", "--name", self.name, *self.options],
                env=environment(self.home),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        assert self.process.stdout is not None
        line = _read_line(self.process.stdout.fileno(), timeout)
        if not line:
            code = self.process.wait(timeout)
            self.process = None
            raise AssertionError(f"{self.name} did not start (exit code {code}): {self.stderr()}")
        self.ready = json.loads(line)
        return self

    def kill9(self) -> None:
        """End it as a power cut of the process would."""
        self._end(signal.SIGKILL)

    def sigterm(self, timeout: float = LONG_S) -> int:
        """Ask it to end; its exit code."""
        return self._end(signal.SIGTERM, timeout)

    def restart(self) -> Daemon:
        """Start it again, after a kill -9 if it is still running."""
        if self.process is not None:
            self.kill9()
        return self.start()

    def _end(self, number: int, timeout: float = LONG_S) -> int:
        assert self.process is not None, "it is not running"
        self._forget_client()
        self.process.send_signal(number)
        code = self.process.wait(timeout)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code

    def clean_up(self) -> None:
        """End it however it stands; for fixtures."""
        self._forget_client()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    # -- looking at it ----------------------------------------------------------------

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None, "it is not running"
        return self.process.pid

    @property
    def port(self) -> int:
        """Its port for peers."""
        return int(self.ready["peer_port"])

    @property
    def address(self) -> str:
        """Its address for peers on this machine."""
        return f"127.0.0.1:{self.port}"

    @property
    def id(self) -> str:
        """Its public key as shown to people."""
        return str(self.ready["id"])

    @property
    def downloads(self) -> Path:
        """Where its files arrive."""
        return Path(self.ready["downloads"])

    @property
    def data(self) -> Path:
        """Its data folder."""
        return self.home / "data" / self.name

    @property
    def _stderr_file(self) -> Path:
        return self.home / f"{self.name}.stderr"

    def stderr(self) -> str:
        """All that it has said on standard error."""
        return self._stderr_file.read_text(errors="replace") if self._stderr_file.exists() else ""

    def log(self) -> str:
        """Its log so far."""
        path = Path(self.ready["log"]) if self.ready else self.data / "tntd.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # -- talking to it ----------------------------------------------------------------

    def client(self, subscribe: bool = False, since: str | None = None) -> Client:
        """A new control client that has said hello; with `subscribe` it follows events."""
        client = Client.attach(self.ready["control"], self.ready["token_file"])
        if subscribe or since is not None:
            client.subscribe(since)
        return client

    def rpc(self, method: str, **params: Any) -> Any:
        """One call over a client that is kept."""
        if self._client is None:
            self._client = self.client()
        return self._client.call(method, **params)

    def contact(self, who: str) -> dict[str, Any]:
        """The contact with that local name; fails where there is none."""
        return next(c for c in self.rpc("contacts.list")["contacts"] if c["name"] == who)

    def texts(self, conversation: str, **params: Any) -> list[str]:
        """The texts of a page of messages, oldest first."""
        page = self.rpc("messages.list", conversation=conversation, **params)
        return [message["text"] for message in page["messages"]]

    def all_messages(self, conversation: str) -> list[dict[str, Any]]:
        """All messages of a conversation, oldest first."""
        found: list[dict[str, Any]] = []
        while True:
            more = {"before": found[0]["id"]} if found else {}
            page = self.rpc("messages.list", conversation=conversation, limit=1000, **more)
            if not page["messages"]:
                return found
            found = page["messages"] + found

    def _forget_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def connect_pair(one: Daemon, two: Daemon) -> None:
    """One user connects and the other accepts; returns once both are linked.  Not both connect: of
    two links one is closed, some time later, and what moves over it begins anew."""
    one.rpc("peers.connect", address=two.address)
    accept(two, one)
    wait_linked(one, two)


def accept(daemon: Daemon, asker: Daemon, timeout: float = LONG_S) -> None:
    """The user of `daemon` accepts who asks.  The asker may hear of it that its `peers.connect` is
    done before its request is here."""
    wait_for(
        lambda: any(c["id"] == asker.id for c in daemon.rpc("contacts.list")["contacts"]),
        timeout,
        f"{asker.name} asks {daemon.name}",
    )
    daemon.rpc("contacts.accept", contact=asker.id)


def wait_linked(one: Daemon, two: Daemon, timeout: float = LONG_S) -> None:
    """Wait until each is online and mutual at the other."""

    def linked(here: Daemon, there: Daemon) -> bool:
        contacts = here.rpc("contacts.list")["contacts"]
        return any(c["id"] == there.id and c["online"] and c["mutual"] for c in contacts)

    wait_for(
        lambda: linked(one, two) and linked(two, one),
        timeout,
        f"{one.name} and {two.name} linked",
    )


def _read_line(descriptor: int, timeout: float) -> bytes:
    """A line of a pipe; empty at its end."""
    import select

    deadline = time.monotonic() + timeout
    line = b""
    while not line.endswith(b"\n"):
        left = max(0.0, deadline - time.monotonic())
        if not select.select([descriptor], [], [], left)[0]:
            raise AssertionError(f"no ready line within {timeout} s")
        data = os.read(descriptor, 65_536)
        if not data:
            return b""
        line += data
    return line


# -- the control protocol -----------------------------------------------------------------


class RpcError(Exception):
    """An error reply."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['code']}: {error['message']} ({error.get('data')})")
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.data: dict[str, Any] = error.get("data") or {}


class Closed(Exception):
    """The daemon has closed the connection."""


class Client:
    """A control client over one blocking socket; events that arrive meanwhile are kept in order
    in `events`."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.events: list[dict[str, Any]] = []
        self.welcome: dict[str, Any] = {}
        self.cursor: str = ""  # of the last event with one, as read
        self._buffer = b""
        self._ids = itertools.count(1)
        self._replies: dict[int | None, dict[str, Any]] = {}

    @classmethod
    def open(cls, control: str) -> Client:
        """Connect, and say nothing yet."""
        kind, _, place = control.partition(":")
        if kind == "unix":
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(LONG_S)
            sock.connect(place)
        else:
            host, _, port = place.rpartition(":")
            sock = socket.create_connection((host.strip("[]"), int(port)), LONG_S)
        return cls(sock)

    @classmethod
    def attach(cls, control: str, token_file: str | None = None) -> Client:
        """Connect and say hello, with the proof of the token where there is one."""
        client = cls.open(control)
        if token_file is None:
            client.welcome = client.call("hello", protocol=1, client="harness 1")
        else:
            token = bytes.fromhex(json.loads(Path(token_file).read_text())["token"])
            client._prove(token)
        client.cursor = client.welcome["cursor"]
        return client

    def _prove(self, token: bytes) -> None:
        ours = secrets.token_bytes(32)
        answer = self.call("hello", protocol=1, client="harness 1", nonce=ours.hex())
        nonces = ours + bytes.fromhex(answer["nonce"])
        theirs = hmac.new(token, b"daemon\0" + nonces, hashlib.sha256).hexdigest()
        assert hmac.compare_digest(theirs, answer["proof"]), "the daemon does not know the token"
        proof = hmac.new(token, b"client\0" + nonces, hashlib.sha256).hexdigest()
        self.welcome = self.call("authorise", proof=proof)

    # -- calls ------------------------------------------------------------------------

    def send(self, method: str, **params: Any) -> int:
        """Send a request without waiting; its id, for `reply`."""
        number = next(self._ids)
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        self.send_raw(json.dumps(request).encode() + b"\n")
        return number

    def reply(self, number: int, timeout: float = LONG_S) -> Any:
        """The result of the request with that id.  Raises RpcError, also for an error without
        an id, which answers what could not be read."""
        deadline = time.monotonic() + timeout
        while number not in self._replies and None not in self._replies:
            self._take(deadline)
        answer = self._replies.pop(number if number in self._replies else None)
        if "error" in answer:
            raise RpcError(answer["error"])
        return answer["result"]

    def call(self, method: str, timeout: float = LONG_S, **params: Any) -> Any:
        """Send a request and wait for its result.  Raises RpcError."""
        return self.reply(self.send(method, **params), timeout)

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed from error

    def read_line(self, timeout: float = LONG_S) -> bytes:
        """The next line without its newline, whatever it is.  Raises Closed, TimeoutError."""
        return self._line(time.monotonic() + timeout)

    # -- events -----------------------------------------------------------------------

    def subscribe(self, since: str | None = None) -> str:
        """Follow the events after `since`; the cursor in the answer."""
        params = {} if since is None else {"since": since}
        cursor: str = self.call("events.subscribe", **params)["cursor"]
        return cursor

    def wait_event(
        self,
        type: str,
        accept: Callable[[dict[str, Any]], bool] = lambda event: True,
        timeout: float = LONG_S,
    ) -> dict[str, Any]:
        """The first event of that type that `accept` takes; it is removed from `events`, those
        before it stay."""
        deadline = time.monotonic() + timeout
        seen = 0
        while True:
            for index in range(seen, len(self.events)):
                event = self.events[index]
                if event["type"] == type and accept(event):
                    return self.events.pop(index)
            seen = len(self.events)
            self._take(deadline)

    def collect(self, type: str, count: int, timeout: float = LONG_S) -> list[dict[str, Any]]:
        """The next `count` events of that type, in order; removed from `events`."""
        deadline = time.monotonic() + timeout
        found: list[dict[str, Any]] = []
        while len(found) < count:
            found.append(self.wait_event(type, timeout=max(0.0, deadline - time.monotonic())))
        return found

    def drain(self, quiet: float = 0.3) -> list[dict[str, Any]]:
        """All events until none has come for `quiet` seconds; removed from `events`."""
        with contextlib.suppress(TimeoutError):
            while True:
                self._take(time.monotonic() + quiet)
        events, self.events = self.events, []
        return events

    # -- reading ----------------------------------------------------------------------

    def _take(self, deadline: float) -> None:
        message = json.loads(self._line(deadline))
        if message.get("method") == "event":
            event = message["params"]
            self.cursor = event.get("cursor") or self.cursor
            self.events.append(event)
        else:
            self._replies[message["id"]] = message

    def _line(self, deadline: float) -> bytes:
        while b"\n" not in self._buffer:
            self.sock.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self.sock.recv(1 << 16)
            except ConnectionResetError as error:
                raise Closed from error
            if not data:
                raise Closed
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def close(self) -> None:
        """Leave."""
        self.sock.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def attached(daemon: Daemon, since: str | None = None) -> Iterator[Client]:
    """A client that follows events, for the time of a `with`."""
    with daemon.client(subscribe=True, since=since) as client:
        yield client
