"""Two real daemons through a storm: messages both ways and files, while everything that can break
between them or under them breaks.

    python -m tests.faults.soak --messages 10000 --files 20 --faults 220 --patient

What is checked while it goes on: each side's client, which is thrown off again and again and
comes back by its cursor, sees every message once, in order and unchanged.  At the end: both
histories are whole and equal, every file is in its place under one name and hash-equal, nothing
waits, nobody logged a traceback, memory never grew beyond GROWTH_BYTES_MAX, and both daemons have
as many descriptors open as when they began.

Everything is drawn from one seed, but the daemons run in real time: a seed says which faults
come, not when exactly they hit.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1])]

from faults.proxy import Proxy
from harness import Client, Closed, Daemon, open_files, rss, wait_for

MIB = 1024 * 1024
GROWTH_BYTES_MAX = 64 * MIB
STORM_RATE = 16e6  # bytes a second of each connection: so that faults find files on their way
LINKED_S = 90.0  # the longest back-off, and time for a busy machine
KEEP_ALIVE_S = 45.0  # a ping after 30 s of silence, 15 s for the answer
KIB = 1024
SIZES = [3 * MIB + 7, 0, 256 * KIB + 1, 20 * MIB, 1, 64 * KIB, MIB, 1000, 8 * MIB, 256 * KIB]
LARGE_SIZES = [50 * MIB + 1, 100 * MIB, 200 * MIB]
GONE = (Closed, OSError, TimeoutError, KeyError, ValueError, AssertionError)


@dataclass(frozen=True)
class Plan:
    """How much of everything; `patient` adds faults that last longer than the keep-alive."""

    messages: int  # each way
    files: int  # in all
    faults: int
    patient: bool = False
    seed: int = 1

    def sizes(self) -> list[int]:
        """The sizes of the files, in the order in which they are sent."""
        sizes = [SIZES[number % len(SIZES)] + number // len(SIZES) for number in range(self.files)]
        random.Random(self.seed).shuffle(sizes)
        if self.patient:
            for number, size in enumerate(LARGE_SIZES):
                sizes[number * self.files // len(LARGE_SIZES)] = size
        return sizes


def text_of(name: str, number: int) -> str:
    """What `name` says as their `number`-th message."""
    chance = random.Random(f"{name} {number}")
    length = chance.choice((0, 10, 100, 100, 1000, 4000))
    return f"{name} {number} " + "".join(chance.choices("abcdefgh äß漢字\n", k=length))


class Side:
    """One daemon, the proxy that leads to it, and its two clients: a writer and a watcher."""

    def __init__(self, name: str, other: str, home: Path, seed: int) -> None:
        config = home / f"{name}.toml"
        config.write_text("advertise = []\nlearn_addresses = false\nreserve_bytes = 0\n")
        downloads = home / f"{name}-in"
        self.name = name
        self.other = other
        self.daemon = Daemon(
            name, home, "--config", str(config), "--downloads", str(downloads)
        ).start()
        self.proxy = Proxy(self.daemon.port, seed)
        self.allowed = 0  # messages that the writer may have sent by now
        self.sent = 0
        self.heard: list[str] = []
        self.done: Counter[str] = Counter()  # transfers, as the events told
        self.attached = 0
        self.wrong: list[str] = []
        self.highest_rss = 0
        self._seed = seed
        self._over = False
        self._throw_off = threading.Event()
        self._threads: list[threading.Thread] = []

    # -- calls ---------------------------------------------------------------------------

    def call(self, method: str, **params: Any) -> Any:
        """A call that is repeated until the daemon answers it."""
        end = time.monotonic() + 120
        while True:
            try:
                with self.daemon.client() as client:
                    return client.call(method, **params)
            except GONE:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def linked(self) -> bool:
        """Whether it is online, as it says itself."""
        try:
            with self.daemon.client() as client:
                contacts = client.call("contacts.list")["contacts"]
        except GONE:
            return False
        return any(each["name"] == self.other and each["online"] for each in contacts)

    # -- the two clients -----------------------------------------------------------------

    def start(self, cursor: str) -> None:
        """Begin to write, and to follow events from `cursor` on."""
        for run in (self._write, lambda: self._watch(cursor), self._measure):
            thread = threading.Thread(target=self._guarded, args=(run,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End the clients."""
        self._over = True
        self._throw_off.set()
        for thread in self._threads:
            thread.join(60)

    def throw_off(self) -> None:
        """The watching client loses its connection, and comes back by its cursor."""
        self._throw_off.set()

    def _guarded(self, run: Callable[[], None]) -> None:
        try:
            run()
        except Exception as error:
            self.wrong.append(f"{self.name}: a client failed: {error!r}")
            raise

    def _write(self) -> None:
        client: Client | None = None
        while not self._over:
            if self.sent >= self.allowed:
                time.sleep(0.01)
                continue
            try:
                client = client or self.daemon.client()
                text, ref = text_of(self.name, self.sent), f"{self.name}-{self.sent}"
                client.call("messages.send", timeout=20, to=self.other, text=text, client_ref=ref)
                self.sent += 1
            except GONE:  # it may have been done: the same `client_ref` is the same message
                if client is not None:
                    client.close()
                client = None
                time.sleep(0.02)
        if client is not None:
            client.close()

    def _watch(self, cursor: str) -> None:
        while not self._over:
            with contextlib.suppress(*GONE), self.daemon.client() as client:
                self.attached += 1
                client.subscribe(cursor)
                while not self._throw_off.is_set():
                    cursor = self._take(client, cursor)
            self._throw_off.clear()
            time.sleep(0.02)

    def _take(self, client: Client, cursor: str) -> str:
        """Deal with what has come; the cursor of the last event dealt with."""
        with contextlib.suppress(TimeoutError):
            client._take(time.monotonic() + 0.1)
        events, client.events = client.events, []
        for event in events:
            cursor = event.get("cursor") or cursor
            if event["type"] == "message.received":
                self._hear(event["message"])
            elif event["type"] == "transfer.state" and event["transfer"]["state"] == "done":
                self.done[event["transfer"]["id"]] += 1
        return cursor

    def _hear(self, message: dict[str, Any]) -> None:
        expected = text_of(self.other, len(self.heard))
        if message["text"] != expected and len(self.wrong) < 10:
            self.wrong.append(
                f"{self.name} heard {message['text'][:40]!r} instead of {expected[:40]!r}"
            )
        self.heard.append(message["text"])

    def _measure(self) -> None:
        while not self._over:
            with contextlib.suppress(psutil.Error, AssertionError):
                self.highest_rss = max(self.highest_rss, rss(self.daemon.pid))
            time.sleep(0.2)


@dataclass
class Result:
    """What was survived."""

    plan: Plan
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    messages: int = 0
    files: int = 0
    file_bytes: int = 0
    sent_again: int = 0  # files that failed after three damaged tries, as documented
    attached: int = 0
    links: int = 0  # that came up, as both sides count them
    on_the_way: int = 0  # faults that found a file under way
    memory: dict[str, str] = field(default_factory=dict)
    descriptors: dict[str, str] = field(default_factory=dict)

    def table(self) -> str:
        """For people."""
        plan = self.plan
        lines = [
            f"seed {plan.seed}: {self.messages} messages, {self.files} files "
            f"({self.file_bytes // MIB} MiB) through {sum(self.faults.values())} faults "
            f"in {self.seconds:.0f} s; {self.links // 2} links, a file on its way at "
            f"{self.on_the_way} faults, clients attached {self.attached} times; "
            f"{self.sent_again} files sent again after three damaged tries",
            *(f"  {count:4d}  {name}" for name, count in sorted(self.faults.items())),
            *(f"  memory of {name}: {text}" for name, text in self.memory.items()),
            *(f"  descriptors of {name}: {text}" for name, text in self.descriptors.items()),
        ]
        return "\n".join(lines)


class Soak:
    """One run of a plan in `home`."""

    def __init__(self, home: Path, plan: Plan, say: Callable[[str], None] = print) -> None:
        self.plan = plan
        self.say = say
        self._home = home
        self._chance = random.Random(plan.seed)
        self._files: dict[str, tuple[Side, Path]] = {}
        self._queued = 0
        self.result = Result(plan)
        self.alice = Side("alice", "bob", home, plan.seed)
        self.bob = Side("bob", "alice", home, plan.seed + 1)
        self.sides = (self.alice, self.bob)

    def run(self) -> Result:
        """Begin, break things, wait until all is well, check."""
        began = time.monotonic()
        self._connect()
        files = {side: open_files(side.daemon.pid) for side in self.sides}
        memory = {side: rss(side.daemon.pid) for side in self.sides}
        for side in self.sides:
            with side.daemon.client() as client:
                cursor = client.welcome["cursor"]
            side.start(cursor)
        self._storm()
        self._settle()
        self._check_messages()
        self._check_files()
        self._check_daemons(files, memory)
        self.result.seconds = time.monotonic() - began
        return self.result

    def close(self) -> None:
        """End everything that is left."""
        for side in self.sides:
            side.stop()
            with contextlib.suppress(psutil.Error, AssertionError):
                psutil.Process(side.daemon.pid).resume()
            side.daemon.clean_up()
            side.proxy.close()

    def logs(self) -> str:
        """All that both daemons have logged."""
        texts = [
            path.read_text(errors="replace")
            for side in self.sides
            for path in sorted(side.daemon.data.glob("tntd.log*"))
        ]
        return "".join([*texts, *(side.daemon.stderr() for side in self.sides)])

    def _connect(self) -> None:
        self.alice.daemon.rpc("peers.connect", address=self.bob.proxy.address)
        self.bob.daemon.rpc("peers.connect", address=self.alice.proxy.address)
        self._wait_linked()

    def _wait_linked(self) -> None:
        wait_for(lambda: all(side.linked() for side in self.sides), LINKED_S, "linked again")

    # -- faults --------------------------------------------------------------------------

    def _storm(self) -> None:
        self._set_rate(STORM_RATE)
        kinds = self._draw()
        for number, kind in enumerate(kinds, 1):
            if self._chance.random() < 0.75:
                self._wait_linked()
            due = self.plan.messages * number // len(kinds)
            for side in self.sides:
                side.allowed = due
            self._queue_files(self.plan.files * number // len(kinds))
            time.sleep(self._chance.random() * 0.3)
            self.say(f"{number}/{len(kinds)} {kind}")
            self.result.on_the_way += self._files_move()
            self._faults()[kind]()
            self.result.faults[kind] += 1
            if self._chance.random() < 0.3:
                self._one().throw_off()
            assert not self._wrong(), self._wrong()

    def _files_move(self) -> bool:
        """Whether a file is on its way just now."""
        answers = [side.call("transfers.list", state="active") for side in self.sides]
        return any(each["transfers"] for each in answers)

    def _draw(self) -> list[str]:
        common = [name for name in self._faults() if not name.endswith("keep-alive")]
        kinds = [common[number % len(common)] for number in range(self.plan.faults)]
        if self.plan.patient:
            patient = [name for name in self._faults() if name.endswith("keep-alive")]
            kinds[: 4 * len(patient)] = 4 * patient
        self._chance.shuffle(kinds)
        return kinds

    def _faults(self) -> dict[str, Callable[[], None]]:
        longer = KEEP_ALIVE_S + 5
        return {
            "kill -9 of one daemon": lambda: self._kill([self._one()]),
            "kill -9 of both daemons": lambda: self._kill([*self.sides]),
            "kill -9 of a helper process": self._kill_child,
            "SIGTERM and start": self._terminate,
            "SIGSTOP for a moment": lambda: self._stop(0.2 + 2 * self._chance.random()),
            "SIGSTOP longer than the keep-alive": lambda: self._stop(longer),
            "all connections reset": lambda: self._cut(reset=True),
            "all connections ended": lambda: self._cut(reset=False),
            "a cut in the middle of a record": self._cut_after,
            "a flipped bit": lambda: self._corrupt(1),
            "several flipped bits": lambda: self._corrupt(5),
            "one half of each connection closed": self._half_close,
            "one way silent for a moment": lambda: self._silence(0.5 + 2 * self._chance.random()),
            "one way silent longer than the keep-alive": lambda: self._silence(longer),
            "slow: a delay on each piece": self._delay,
            "slow: little throughput": self._throttle,
            "nobody can connect": self._refuse,
        }

    def _one(self) -> Side:
        return self._chance.choice(self.sides)

    def _ways(self) -> list[Any]:
        """One direction between the two daemons, whoever has dialled."""
        forth = [self.alice.proxy.forth, self.bob.proxy.back]
        return self._chance.choice((forth, [self.alice.proxy.back, self.bob.proxy.forth]))

    def _kill(self, sides: list[Side]) -> None:
        for side in sides:
            side.daemon.kill9()
        time.sleep(self._chance.choice((0, 0, 0.5, 1.5)))
        for side in sides:
            side.daemon.start()

    def _terminate(self) -> None:
        side = self._one()
        assert side.daemon.sigterm() == 0
        side.daemon.start()

    def _kill_child(self) -> None:
        parent = psutil.Process(self._one().daemon.pid)
        children = wait_for(parent.children, what="a helper process")
        with contextlib.suppress(psutil.NoSuchProcess):
            self._chance.choice(children).kill()

    def _stop(self, seconds: float) -> None:
        side = self._one()
        assert side.daemon.process is not None
        side.daemon.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        side.daemon.process.send_signal(signal.SIGCONT)

    def _cut(self, *, reset: bool) -> None:
        for side in self.sides:
            side.proxy.cut(reset=reset)

    def _cut_after(self) -> None:
        for way in self._ways():
            way.cut_after = self._chance.randrange(100_000)
        time.sleep(0.5)
        self._clear()

    def _corrupt(self, pieces: int) -> None:
        for way in self._ways():
            way.corrupt = pieces
        time.sleep(0.7)
        self._clear()

    def _half_close(self) -> None:
        name = self._chance.choice(("forth", "back"))
        for side in self.sides:
            side.proxy.half_close(name)

    def _silence(self, seconds: float) -> None:
        for way in self._ways():
            way.silent = True
        time.sleep(seconds)
        self._clear()

    def _delay(self) -> None:
        for side in self.sides:
            side.proxy.forth.delay_s = side.proxy.back.delay_s = 0.15
        time.sleep(1.5)
        self._clear()

    def _throttle(self) -> None:
        for side in self.sides:
            side.proxy.forth.rate = side.proxy.back.rate = 100_000.0
        time.sleep(1.5)
        self._clear()

    def _refuse(self) -> None:
        for side in self.sides:
            side.proxy.refuse = True
        self._cut(reset=True)
        time.sleep(0.5 + 1.5 * self._chance.random())
        self._clear()

    def _set_rate(self, rate: float) -> None:
        for side in self.sides:
            for way in (side.proxy.forth, side.proxy.back):
                way.usual_rate = rate
        self._clear()

    def _clear(self) -> None:
        for side in self.sides:
            side.proxy.clear()

    # -- files ---------------------------------------------------------------------------

    def _queue_files(self, due: int) -> None:
        sizes = self.plan.sizes()
        while self._queued < due:
            number = self._queued
            side = self.sides[number % 2]
            path = self._home / "out" / f"file {number}.bin"
            path.parent.mkdir(exist_ok=True)
            chance = random.Random(f"{self.plan.seed} {number}")
            with path.open("wb") as file:
                for at in range(0, sizes[number], MIB):
                    file.write(chance.randbytes(min(MIB, sizes[number] - at)))
            self._send(side, path, str(number))
            self._queued += 1

    def _send(self, side: Side, path: Path, ref: str) -> None:
        answer = side.call("transfers.send", to=side.other, paths=[str(path)], client_ref=ref)
        (transfer,) = answer["transfers"]
        self._files[transfer["id"]] = (side, path)

    def _files_settled(self) -> bool:
        """Whether every file is done; one that failed because it was damaged three times is sent
        again, as its user would do."""
        settled = True
        for side in self.sides:
            for transfer in side.call("transfers.list", limit=1000)["transfers"]:
                if transfer["direction"] == "in" or transfer["state"] == "done":
                    continue
                if transfer["state"] != "failed":
                    settled = False
                elif transfer["id"] in self._files:
                    self.say(f"{transfer['name']} failed: {transfer['error']}")
                    path = self._files.pop(transfer["id"])[1]
                    self.result.sent_again += 1
                    self._send(side, path, f"again {self.result.sent_again}")
                    settled = False
        return settled

    # -- the end -------------------------------------------------------------------------

    def _settle(self) -> None:
        self.say("no more faults; waiting until everything has arrived")
        self._set_rate(0.0)
        self._wait_linked()
        wait_for(self._talked_out, 180, "all messages are there")
        wait_for(self._files_settled, 400, "all files are there")
        wait_for(lambda: all(self._told(side) for side in self.sides), 60, "all is told")
        assert not self._wrong(), self._wrong()
        for side in self.sides:
            side.stop()

    def _wrong(self) -> list[str]:
        return [text for side in self.sides for text in side.wrong]

    def _talked_out(self) -> bool:
        """Everything was sent, heard and acknowledged."""
        assert not self._wrong(), self._wrong()
        count = self.plan.messages
        if any(side.sent < count or len(side.heard) < count for side in self.sides):
            return False
        contacts = [side.call("contacts.list")["contacts"][0] for side in self.sides]
        return not any(each["queued"] for each in contacts)

    def _told(self, side: Side) -> bool:
        return set(side.done) >= set(self._files)

    def _check_messages(self) -> None:
        count = self.plan.messages
        pages = {side: side.daemon.all_messages(side.other) for side in self.sides}
        for side in self.sides:
            said = [each for each in pages[side] if each["from"] == side.name]
            other = self.bob if side is self.alice else self.alice
            heard = [each for each in pages[other] if each["from"] == side.name]
            assert [each["text"] for each in said] == [text_of(side.name, n) for n in range(count)]
            assert [each["text"] for each in heard] == [each["text"] for each in said]
            assert [each["id"] for each in heard] == [each["id"] for each in said]
            assert {each["state"] for each in said} <= {"delivered", "read"}
            assert len(side.heard) == count, "events: exactly once"
            assert len(pages[side]) == 2 * count, "nothing else, no notice of loss"
            self.result.messages += count
            self.result.attached += side.attached

    def _check_files(self) -> None:
        for id, (side, path) in self._files.items():
            other = self.bob if side is self.alice else self.alice
            arrived = other.daemon.downloads / f"new_{path.name}"
            assert _digest(arrived) == _digest(path), path
            for each in self.sides:
                assert each.done[id] == 1, f"{each.name} was told once that {path} is done"
            self.result.files += 1
            self.result.file_bytes += path.stat().st_size
        for side in self.sides:
            if side.daemon.downloads.exists():
                names = {each.name for each in side.daemon.downloads.iterdir()}
                paths = [path for sender, path in self._files.values() if sender is not side]
                assert names == {f"new_{path.name}" for path in paths}

    def _check_daemons(self, files: dict[Side, int], memory: dict[Side, int]) -> None:
        for side in self.sides:
            name, pid = side.name, side.daemon.pid
            side.daemon.rpc("status")
            wait_for(
                lambda pid=pid, side=side: open_files(pid) <= files[side],
                30,
                f"{name} has {files[side]} descriptors again",
            )
            self.result.descriptors[name] = f"{files[side]} before, {open_files(pid)} after"
            self.result.memory[name] = (
                f"{memory[side] / MIB:.0f} MiB before, {side.highest_rss / MIB:.0f} MiB at most, "
                f"{rss(pid) / MIB:.0f} MiB after"
            )
            assert side.highest_rss - memory[side] < GROWTH_BYTES_MAX
            assert side.daemon.sigterm() == 0
        logs = self.logs()
        assert "Traceback" not in logs
        self.result.links = logs.count(" is online")
        if self.plan.patient:
            assert "no answer, closed" in logs, "the keep-alive was seen at work"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Run one plan and print what was survived."""
    parser = argparse.ArgumentParser(description="Two daemons through a storm of faults.")
    for option, count in (("messages", 10_000), ("files", 20), ("faults", 220), ("seed", 1)):
        parser.add_argument(f"--{option}", type=int, default=count)
    parser.add_argument("--patient", action="store_true", help="also faults of 50 s")
    plan = Plan(**vars(parser.parse_args()))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # what was started is ended
    home = Path(tempfile.mkdtemp(prefix="tnt-soak-"))
    soak = Soak(home, plan, lambda text: print(text, flush=True))
    try:
        print(soak.run().table())
    except BaseException:
        print(f"failed; what is there stays in {home}")
        raise
    finally:
        soak.close()
    shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
