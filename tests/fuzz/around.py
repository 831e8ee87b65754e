"""Everybody else around a node: its user, its children, its lanes and the time; none of them bad.

They go on whatever a bad contact does, because it is what they do in the meantime (a file that is
being opened, a lane that is about to end) that makes a rare frame a dangerous one.
"""

from __future__ import annotations

import msgspec

from tntd.control.tunables import TUNABLES
from tntd.events import Answered, LineArrived
from tntd.node.present import item_id

from .answers import answer
from .bench import Bench
from .lanes import Lanes
from .source import Source

TRUST = ("accept",) * 5 + ("verified", "unblock", "unblock", "block", "remove")
WAITS_S = (0.01, 0.06, 0.6, 3.1, 16.0, 31.0, 61.0, 1000.0)
SENT = ("/home/file", "/home/tree", "/home/x")
DECISIONS = (
    "accept", "accept", "decline", "cancel", "pause", "pause", "resume", "resume", "first", "again",
    "again", "files",
)  # fmt: skip
VALUES = (0, 1, 64, 2**63 - 1, True, False, "/else", {"path_bytes": "/%FF"}, None)


class Around:
    """What happens to the node but for the bad contact."""

    def __init__(self, bench: Bench, source: Source) -> None:
        self.bench = bench
        self.source = source
        self._ids = 0
        self.lanes = Lanes(bench, source)
        self.attach()

    def attach(self) -> None:
        """Our user's client comes."""
        self.user = self.bench.open_client(local_user=True)
        self.command("hello", protocol=1, client="fuzz")
        self.command("events.subscribe")

    def command(self, method: str, **params: object) -> None:
        """A request of our own user."""
        self._ids += 1
        body = {"jsonrpc": "2.0", "id": self._ids, "method": method, "params": params}
        self.bench.turn(LineArrived(self.user, msgspec.json.encode(body)))

    def user_does(self) -> None:
        """Our user goes on as if nothing were wrong."""
        source = self.source
        who = source.pick(["mallory", *(row.name for row in self.bench.store.contacts.all())])
        match source.below(18):
            case 0 | 1 | 2 | 3 | 4 | 5:
                to = who if source.below(2) else [who, "mallory"]
                self.command("transfers.send", to=to, paths=[source.pick(SENT)])
            case 6:
                self.command("messages.send", to=who, text="hello")
            case 7:
                self._read(who)
            case 8 | 9 | 10 | 11:
                self._decide(source.pick(DECISIONS))
            case 12:
                self.command(f"contacts.{source.pick(TRUST)}", contact=who)
            case 13:
                self.command("peers.connect", address=source.pick(("9", "h:9", "[::1]:9")))
            case 14:
                self._set(who)
            case 15:
                self.command(source.pick(("transfers.clean", "settings.list")))
            case _:
                listed = {"messages": {"conversation": who}, "transfers": {}, "contacts": {}}
                kind = source.pick(list(listed))
                self.command(f"{kind}.list", **listed[kind])

    def _set(self, who: str) -> None:
        contact = {} if self.source.below(2) else {"contact": who}
        name, value = self.source.pick(list(TUNABLES)), self.source.pick(VALUES)
        self.command("settings.set", name=name, value=value, **contact)

    def _read(self, who: str) -> None:
        found = [line["result"] for line in self.bench.lines[self.user] if "result" in line]
        shown = [each["messages"][-1] for each in found if each.get("messages")]
        if shown:
            self.command("messages.read", conversation=who, upto=shown[-1]["id"])
        else:
            self.command("messages.list", conversation=who)

    def _decide(self, word: str) -> None:
        rows = self.bench.store.transfers.page(None, 20, None, None)
        if rows:
            row = self.source.pick(rows)
            self.command(f"transfers.{word}", transfer=item_id(row.id))

    def drain(self) -> None:
        """Our user's client has read everything, and looks."""
        self.bench.drain(self.user)

    def answer(self) -> None:
        """A child answers."""
        tasks = self.bench.tasks
        if tasks:
            task = self.source.pick(sorted(tasks)[:8])
            self.bench.turn(Answered(task, answer(self.source, tasks.pop(task))))

    def lane(self) -> None:
        """A lane goes on, or ends."""
        self.lanes.step()

    def time(self) -> None:
        """Time goes by."""
        self.bench.wait(self.source.pick(WAITS_S), jump=self.source.one_in(6))
