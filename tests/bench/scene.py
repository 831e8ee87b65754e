"""Real daemons below one folder, and what a scenario does with them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.measure import GIB, MIB, Cost, Meter
from tests.bench.report import Report, say
from tests.bench.rivals import Rivals
from tests.harness import Client, Daemon, connect_pair, wait_for

ENDED = ("done", "failed", "cancelled", "declined")
_LONGEST_S = 3600.0


class TransferFailed(Exception):
    """A transfer of ours did not end well."""


@dataclass(slots=True)
class Bench:
    """What all scenarios are given: a folder for all files, and how much to do."""

    folder: Path
    report: Report
    runs: int = 3
    size: int = GIB
    files: int | None = None
    disk: bool = False
    _rivals: Rivals | None = None
    _started: list[Daemon] = field(default_factory=list)

    @property
    def rivals(self) -> Rivals:
        """The tools to compare with, started when they are needed."""
        if self._rivals is None:
            say("starting the other tools' servers")
            self._rivals = Rivals(self.folder)
        return self._rivals

    def daemon(self, name: str, *options: str) -> Daemon:
        """A new daemon with a home of its own."""
        made = Daemon(name, self.folder / "homes" / name, *options)
        self._started.append(made)
        return made.start()

    @contextlib.contextmanager
    def pair(self) -> Iterator[Pair]:
        """alice and bob, new and linked; they and their files are gone afterwards."""
        with self.scene():
            yield Pair(self.daemon("alice"), self.daemon("bob"))

    @contextlib.contextmanager
    def scene(self) -> Iterator[None]:
        """Daemons that were started in here are ended, and their files removed."""
        try:
            yield
        finally:
            for each in self._started:
                each.clean_up()
            self._started.clear()
            shutil.rmtree(self.folder / "homes", ignore_errors=True)

    def calm(self) -> None:
        """Nothing of an earlier run is left to be written."""
        if self.disk:
            os.sync()

    def file(self, name: str, size: int | None = None) -> Path:
        """A file of random bytes."""
        path = self.folder / "sources" / name
        path.parent.mkdir(exist_ok=True)
        left = self.size if size is None else size
        with path.open("wb") as file:
            while left > 0:
                left -= file.write(os.urandom(min(left, MIB)))
        return path

    def tree(self, name: str, files: int, size: int, in_each: int = 100) -> Path:
        """A folder of `files` files of `size` random bytes, `in_each` in one folder below it."""
        root = self.folder / "sources" / name
        for number in range(files):
            folder = root / f"{number // in_each:04}"
            if number % in_each == 0:
                folder.mkdir(parents=True)
            (folder / f"{number:07}").write_bytes(os.urandom(size))
        return root

    def tidy(self) -> None:
        """Nothing of a scenario is left, however it ended; the tools' servers stay."""
        for each in self.folder.iterdir():
            if each.name != "rivals":
                shutil.rmtree(each)

    def close(self) -> None:
        """End what was started."""
        if self._rivals is not None:
            self._rivals.close()


class Pair:
    """Two linked daemons; `one` sends."""

    def __init__(self, one: Daemon, two: Daemon) -> None:
        self.one, self.two = one, two
        connect_pair(one, two)
        self.watch = one.client(subscribe=True)

    @property
    def pids(self) -> list[int]:
        """Their processes."""
        return [self.one.pid, self.two.pid]

    def timed(self, source: Path, meanwhile: Callable[[], None] = lambda: None) -> Cost:
        """Send it, from the request until the sender is told that it is delivered."""
        meter = Meter(self.pids)
        with meter.measured():
            sent = self.send(source)
            self.ended(sent, meanwhile)
        self.remove_arrived()
        return meter.cost

    def send(self, source: Path) -> str:
        """Queue it; its id.  Raises RpcError."""
        answer = self.one.rpc("transfers.send", to=self.two.name, paths=[str(source)])
        return str(answer["transfers"][0]["id"])

    def ended(self, id: str, meanwhile: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Wait for its end, looking at `meanwhile` twenty times a second.  Raises
        TransferFailed."""
        deadline = time.monotonic() + _LONGEST_S
        while time.monotonic() < deadline:
            meanwhile()
            for event in events(self.watch, 0.05):
                if event["type"] == "transfer.state" and event["transfer"]["id"] == id:
                    transfer: dict[str, Any] = event["transfer"]
                    if transfer["state"] in ENDED:
                        return good(transfer)
        raise TransferFailed("it does not end")

    def waited_for(self, id: str) -> dict[str, Any]:
        """The same by asking again and again, for daemons that were started anew."""

        def over() -> dict[str, Any] | None:
            found = transfer_of(self.one, id)
            return found if found["state"] in ENDED else None

        found = wait_for(over, _LONGEST_S)
        assert found is not None
        return good(found)

    def reattach(self) -> None:
        """Follow events of the sender anew."""
        self.watch.close()
        self.watch = self.one.client(subscribe=True)

    def remove_arrived(self) -> None:
        """Remove what has arrived, so that it takes no room."""
        for each in self.two.downloads.iterdir():
            if each.name != ".tnt-part":
                shutil.rmtree(each) if each.is_dir() else each.unlink()


def good(transfer: dict[str, Any]) -> dict[str, Any]:
    """The transfer, if it is done and nothing was left out.  Raises TransferFailed."""
    if transfer["state"] != "done" or transfer["failed"]:
        failed = transfer["failed"]
        raise TransferFailed(f"{transfer['state']}: {transfer['error']} ({failed} files failed)")
    return transfer


def transfer_of(daemon: Daemon, id: str) -> dict[str, Any]:
    """A transfer as that daemon sees it now, among its newest."""
    found = daemon.rpc("transfers.list", limit=100)["transfers"]
    return next(each for each in found if each["id"] == id)


def events(client: Client, seconds: float) -> list[dict[str, Any]]:
    """The events that are there, or else the first that comes within `seconds`."""
    if not client.events:
        with contextlib.suppress(TimeoutError):
            client._take(time.monotonic() + seconds)
    found, client.events = client.events, []
    return found


def delivered(client: Client, to: str, text: str) -> float:
    """Send a message and wait until its sender is told that it is delivered; the seconds.  Other
    events stay in `client.events`."""
    began = time.perf_counter()
    client.send("messages.send", to=to, text=text)
    client.wait_event(
        "message.state",
        lambda event: event["message"]["state"] == "delivered" and event["message"]["text"] == text,
    )
    return time.perf_counter() - began


@contextlib.contextmanager
def base_folder(disk: str | None) -> Iterator[Path]:
    """A folder in memory (or below `disk`) with a short path, removed in the end."""
    base = disk or ("/dev/shm" if Path("/dev/shm").is_dir() else None)
    folder = Path(tempfile.mkdtemp(prefix="tntbench-", dir=base))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def interleaved(runs: int, names: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Each name once a run, each run beginning with another one."""
    order = list(names)
    for number in range(runs):
        first = number % max(1, len(order))
        for name in order[first:] + order[:first]:
            yield number, name
