"""`tnt demo`: two daemons, a chat, and a file and a folder between them, on this machine.

What holds always: everything happens below one temporary folder, on loopback, through the real
programs; each step is checked, not only shown; and whether it goes well or not, both daemons
are stopped and the folder is removed.  It is the shortest proof that an installation works.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from blake3 import blake3

from tntd.control.places import SOCKET_PATH_BYTES_MAX, Endpoint
from tntd.control.schema import Message, Transfer
from tntd.control.visible import visible
from tntd.errors import CommandError
from tntd.limits import MIB

from . import figures, render
from .connection import Connection, Event
from .failures import DONE, REFUSED, ClientFailure, OutputLost, Refused, TimedOut
from .terminal import Output

PROGRAM: Final = "tnt demo"
FILE_BYTES: Final = 64 * MIB
STEP_TIMEOUT_S: Final = 60.0
FOLDER_FILES: Final = 500
AWAY_MESSAGES: Final = 5
_LOG_LINES: Final = 5
_TERMINATED: Final = 143  # 128 + SIGTERM, as shells say it


class Side:
    """One of the two: a daemon that was started, and a client of it."""

    def __init__(self, name: str, ready: dict[str, Any]) -> None:
        self.name = name
        self.ready = ready
        self.endpoint = Endpoint(
            name=name,
            pid=ready["pid"],
            control=ready["control"],
            token_file=ready["token_file"],
        )
        self.client = Connection.open(self.endpoint, PROGRAM)
        self.cursor = self.client.welcome.cursor

    def call(self, method: str, **params: Any) -> Any:
        """Ask the daemon."""
        return self.client.call(method, params)

    def wait_event(self, look: Callable[[Event], bool], what: str, timeout: float) -> Event:
        """The first event that `look` takes.  Raises TimedOut."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                event = self.client.next_event(max(0.0, deadline - time.monotonic()))
            except TimedOut as error:
                raise TimedOut(f"{what}: nothing within {timeout:.0f} s") from error
            self.cursor = event.get("cursor") or self.cursor
            if look(event):
                return event


class Demo:
    """The play.  `home` is its folder, `timeout` the seconds that a step may take."""

    def __init__(self, home: Path, output: Output, timeout: float) -> None:
        self._home = home
        self._output = output
        self._timeout = timeout
        self._mark = "✓" if _can_print("✓") else "ok"
        self.sides: list[Side] = []

    def play(self) -> None:
        """All steps.  Raises ClientFailure or CommandError for the first that goes wrong."""
        alice, bob = self._start("alice"), self._start("bob")
        self.tell(
            "two daemons run in a folder of their own: "
            f"alice on port {alice.ready['peer_port']}, bob on port {bob.ready['peer_port']}"
        )
        self._connect(alice, bob)
        self._chat(alice, bob)
        self._chat(bob, alice)
        self._pass_a_file(alice, bob)
        self._pass_a_folder(alice, bob)
        self._come_and_go(alice, bob)
        self._stop()

    def tell(self, text: str) -> None:
        """A step is done."""
        self._output.show(
            [{"step": text, "ok": True}], [[(render.GOOD, self._mark), ("", f" {text}")]]
        )

    def _start(self, name: str) -> Side:
        command = [sys.executable, "-P", "-m", "tntd", "--name", name, "--json"]
        socket = os.fsencode(self._home / "run" / f"{name}.sock")
        if len(socket) > SOCKET_PATH_BYTES_MAX:  # a temporary folder deep down
            command += ["--control", "tcp:127.0.0.1:0"]
        try:
            # On loopback only: a demonstration has no business with the network.
            started = subprocess.run(
                [*command, "--listen", "127.0.0.1:0"],
                env={**os.environ, "TNT_HOME": str(self._home)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self._timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TimedOut(f"{name}'s daemon is not ready after {self._timeout:.0f} s") from error
        if started.returncode != 0:
            reason = started.stderr.decode(errors="replace").strip()
            raise Refused(f"{name}'s daemon did not start: {reason}")
        side = Side(name, json.loads(started.stdout))
        self.sides.append(side)
        side.call("events.subscribe")
        return side

    def _connect(self, alice: Side, bob: Side) -> None:
        for here, there in ((alice, bob), (bob, alice)):
            here.call("peers.connect", address=str(there.ready["peer_port"]))
        for here, there in ((alice, bob), (bob, alice)):
            self._await_mutual(here, there)
        self.tell("each dialled the other's port, so both are accepted; the link is encrypted")

    def _await_mutual(self, here: Side, there: Side) -> None:
        def linked() -> bool:
            contacts = here.call("contacts.list")["contacts"]
            return any(
                c["id"] == there.ready["id"] and c["mutual"] and c["online"] for c in contacts
            )

        what = f"{here.name} waits for {there.name}"
        while not linked():
            here.wait_event(lambda event: "contact" in event, what, self._timeout)

    def _chat(self, here: Side, there: Side) -> None:
        text = f"hello {there.name}, this is {here.name}"
        sent = here.call("messages.send", to=there.name, text=text)["message"]
        got = there.wait_event(
            lambda event: event["type"] == "message.received", "a message", self._timeout
        )["message"]
        here.wait_event(
            lambda event: (
                event["type"] == "message.state"
                and event["message"]["id"] == sent["id"]
                and event["message"]["state"] in ("delivered", "read")
            ),
            "the word that it is delivered",
            self._timeout,
        )
        _require(got["text"] == text and got["from"] == here.name, "another message arrived")
        self.tell(f"{here.name} wrote to {there.name}, who has: {visible(got['text'])}")

    # -- a file -----------------------------------------------------------------------

    def _pass_a_file(self, alice: Side, bob: Side) -> None:
        source = self._home / "random.bin"
        with source.open("wb") as file:
            for _ in range(FILE_BYTES // MIB):
                file.write(secrets.token_bytes(MIB))
        began = time.monotonic()
        raw = alice.call("transfers.send", to="bob", paths=[str(source)])["transfers"][0]
        self._follow(alice, raw)
        seconds = time.monotonic() - began
        target = self._place_of(bob, raw["id"])
        _require(target != source and target.name == "new_random.bin", f"it arrived as {target}")
        digest = _hash(source)
        _require(_hash(target) == digest, f"{target} differs from what was sent")
        self.tell(
            f"alice sent bob {figures.size(FILE_BYTES)} in {seconds:.1f} s "
            f"({figures.rate(int(FILE_BYTES / max(seconds, 0.001)))}), saved as {target.name}"
        )
        self.tell(f"the BLAKE3 hash is the same on both sides: {digest[:16]}…")

    def _pass_a_folder(self, alice: Side, bob: Side) -> None:
        source = self._home / "folder"
        for number in range(FOLDER_FILES):
            file = source / f"part {number % 10}" / f"{number}.bin"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(secrets.token_bytes(1 + number))
        (source / "empty").mkdir()
        began = time.monotonic()
        raw = alice.call("transfers.send", to="bob", paths=[str(source)])["transfers"][0]
        self._follow(alice, raw, bars=False)
        seconds = time.monotonic() - began
        target = self._place_of(bob, raw["id"])
        _require(target.name == "new_folder", f"the folder arrived as {target}")
        _require(_listing(target) == _listing(source), f"{target} differs from what was sent")
        count = figures.count(FOLDER_FILES, "small file")
        self.tell(f"alice sent bob a folder of {count} in {seconds:.1f} s, and all are the same")

    def _place_of(self, side: Side, id: str) -> Path:
        received = side.wait_event(
            lambda event: (
                event["type"] == "transfer.state"
                and event["transfer"]["id"] == id
                and event["transfer"]["state"] == "done"
            ),
            f"what {side.name} receives",
            self._timeout,
        )["transfer"]
        return Path(received["path"])

    def _follow(self, side: Side, raw: dict[str, Any], bars: bool = True) -> None:
        id = raw["id"]
        while True:
            if bars:
                self._output.bars([msgspec.convert(raw, Transfer)])
            if raw["state"] == "done":
                return
            if raw["state"] in ("failed", "cancelled", "declined"):
                raise Refused(f"{raw['name']} was not delivered: {raw['error'] or raw['state']}")
            raw = side.wait_event(
                lambda event: event.get("transfer", {}).get("id") == id, raw["name"], self._timeout
            )["transfer"]

    # -- coming and going ---------------------------------------------------------------

    def _come_and_go(self, alice: Side, bob: Side) -> None:
        left = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
        bob.client.close()
        texts = [f"message {number} while bob was away" for number in range(1, AWAY_MESSAGES + 1)]
        ids = {alice.call("messages.send", to="bob", text=text)["message"]["id"] for text in texts}
        while ids:
            event = alice.wait_event(
                lambda event: event["type"] == "message.state", "the deliveries", self._timeout
            )
            if event["message"]["state"] in ("delivered", "read"):
                ids.discard(event["message"]["id"])
        self.tell(f"bob's client detached, and {len(texts)} messages came to his daemon")
        bob.client = Connection.open(bob.endpoint, PROGRAM)
        bob.call("events.subscribe", since=bob.cursor)
        missed = self._replay(bob)
        lines = [render.separator(f"while you were away (since {left})")]
        for message in missed:
            lines += render.message(message, "bob")
        self._output.show([], [[("", "    "), *line] for line in lines])
        got = [message.text for message in missed]
        _require(got == texts, f"missed were {texts}, shown were {got}")
        self.tell("attached again, it showed exactly what was missed, in order, once")

    def _replay(self, side: Side) -> list[Message]:
        """The messages among the events up to the newest one at the time of attaching."""
        until = side.client.welcome.cursor
        missed = []
        while side.cursor != until:
            event = side.wait_event(lambda _event: True, "the missed events", self._timeout)
            if event["type"] == "message.received":
                missed.append(msgspec.convert(event["message"], Message))
        return missed

    # -- the end ------------------------------------------------------------------------

    def _stop(self) -> None:
        for side in self.sides:
            side.call("daemon.shutdown")
        for side in self.sides:
            gone = side.client.wait_closed(self._timeout)
            _require(gone, f"{side.name}'s daemon has not stopped")
        self.tell("both daemons are stopped")

    def clean_up(self) -> None:
        """Whatever is left is ended and removed."""
        for side in self.sides:
            with suppress(ClientFailure, CommandError):
                side.call("daemon.shutdown")
                if side.client.wait_closed(5.0):
                    continue
                os.kill(side.endpoint.pid, signal.SIGTERM)
            side.client.close()
        known = {side.name for side in self.sides}
        for file in (self._home / "run").glob("*.json"):  # of a start that was given up
            if file.stem not in known:
                with suppress(OSError, ValueError, KeyError):
                    os.kill(json.loads(file.read_bytes())["pid"], signal.SIGTERM)

    def last_words(self) -> list[render.Line]:
        """The ends of both logs, for a demo that failed."""
        lines: list[render.Line] = []
        for side in self.sides:
            with suppress(OSError):
                text = Path(side.ready["log"]).read_text("utf-8", "replace")
                for line in text.splitlines()[-_LOG_LINES:]:
                    lines.append([(render.DIM, f"    {side.name}: {visible(line)}")])
        return lines


def _require(fine: bool, trouble: str) -> None:
    if not fine:
        raise Refused(trouble)


def _listing(folder: Path) -> dict[str, str]:
    """What is in a folder: a path below it and the hash there, none of a folder."""
    return {
        str(path.relative_to(folder)): _hash(path) if path.is_file() else ""
        for path in folder.rglob("*")
    }


def _hash(path: Path) -> str:
    hasher = blake3()
    with path.open("rb") as file:
        while piece := file.read(MIB):
            hasher.update(piece)
    return hasher.hexdigest()


def _can_print(mark: str) -> bool:
    try:
        mark.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _make_home() -> Path:
    home = Path(tempfile.mkdtemp(prefix="tnt-demo-"))
    config = home / "config"
    config.mkdir()
    # The disk may be small; the file is, too.
    (config / "config.toml").write_text("reserve_bytes = 0\n", "utf-8")
    return home


def main(arguments: argparse.Namespace) -> int:
    """The verb `demo`; its exit code."""
    output = Output(sys.stdout, arguments.json)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))  # through the clean-up below
    home = _make_home()
    demo = Demo(home, output, arguments.timeout or STEP_TIMEOUT_S)
    try:
        demo.play()
    except OutputLost:
        raise
    except (ClientFailure, CommandError) as error:
        output.show(
            [{"step": error.message, "ok": False}],
            [[(render.BAD, "failed"), (render.PLAIN, f" {visible(error.message)}")]],
        )
        output.show([], demo.last_words())
        return error.exit_code if isinstance(error, ClientFailure) else REFUSED
    finally:
        demo.clean_up()
        shutil.rmtree(home, ignore_errors=True)
    if home.exists():
        output.show(
            [{"step": "cleaning up", "ok": False}], [render.trouble(f"{home} is still there")]
        )
        return REFUSED
    demo.tell("the folder is removed; nothing is left of this")
    return DONE
