"""A client that says anything: every line gives a reply or a close, and every reply is JSON."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec

from tntd.control.jsonrpc import BadRequest, parse_request
from tntd.control.schema import METHODS
from tntd.control.tunables import TUNABLES
from tntd.events import Answered, ClientLeft, LineArrived, LineTooLong
from tntd.node.present import item_id
from tntd.tasks import Entry

from .answers import answer
from .bench import Bench
from .source import Source
from .target import Target, scenarios
from .values import struct

STEPS_MAX = 80
LATER = {
    "peers.connect",
    "transfers.send",
    "transfers.again",
    "transfers.clean",
}  # the reply may come in a later turn
WHO = ("bob", "BOB", "b", "bobb", "aeaq", "#room", "\u0130", "nobody", "\U0001f600", "a\0b")
ADDRESSES = ("9", "h:9", "[::1]:9", "0", "a b:1", "[fe80::1%x]:5", "\0:1", "99999", "\u0661")
PATHS = ("/a", "/tree", "/a/", "/", "x", "/\0", "/" + "n" * 300, "/\u202e", "//x/../y")
CURSORS = ("x", "x.1", ".", "é.5", "0" * 128, "-1", "nothing.99999999999999999999")


class Caller:
    """Some clients of one daemon that has a contact, messages and transfers."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.bench = Bench()
        self._furnish()
        self.clients = [self.bench.open_client(local_user=True)]
        self.line(self.clients[0], b'{"jsonrpc":"2.0","id":0,"method":"hello","params":'
                  b'{"protocol":1,"client":"fuzz"}}')  # fmt: skip
        self.steps = [
            self.call, self.call, self.call, self.call, self.bent_call, self.raw, self.connect,
            self.answer, self.event,
        ]  # fmt: skip

    def _furnish(self) -> None:
        store, now = self.bench.store, self.bench.now.wall_ms
        with store.transaction():
            bob = store.contacts.add(
                b"b" * 32, "bob", "bob", trust="accepted", epoch=b"e" * 16, at=now
            )
            store.contacts.meet(bob.row, "192.0.2.9", 9, now)
            for at in range(3):
                id = bytes([at]) * 16
                store.messages.add(
                    id,
                    bob.row,
                    outgoing=bool(at % 2),
                    kind="text",
                    text=f"text {at} \0\n\u202e",
                    sent_at=now,
                    received_at=None,
                    state="delivered",
                )
                store.transfers.add(
                    id,
                    bob.row,
                    outgoing=at % 2,
                    kind=("file", "folder", "folder")[at],
                    name=b"\xff.txt",
                    source=b"/a",
                    size=5,
                    mtime_ns=1,
                    executable=0,
                    state=("offered", "queued", "done")[at],
                    created_at=now,
                )
                store.trees.put(at + 1, [Entry(b"a/\xff", 5, "failed", "\0\u202e")])
                store.events.add(now, "message.received", at + 1, "{}")
            self.bob = bob.row
        self.ids = [item_id(bytes([at]) * 16) for at in range(3)]

    def play(self) -> None:
        """Step by step."""
        for _ in range(STEPS_MAX):
            if not self.source.left or self.bench.stopped:
                break
            self.source.pick(self.steps)()
        self.bench.wait(30.0)

    # -- lines -------------------------------------------------------------------------

    def line(self, client: int, line: bytes) -> None:
        """One line, and what has to follow from it."""
        bench = self.bench
        if client not in bench.clients:
            return
        heard = bench.lines[client]
        before = len(heard)
        bench.turn(LineArrived(client, line))
        replies = [each for each in heard[before:] if "id" in each]
        _check_shape(line, replies)
        for reply in replies:
            assert ("result" in reply) != ("error" in reply), reply
        if client in bench.clients and line.strip() and not _may_be_silent(line):
            assert replies, line

    def raw(self) -> None:
        """Any bytes but a newline."""
        data = self.source.take(self.source.below(80)).replace(b"\n", b" ")
        self.line(self.source.pick(self.clients), data)

    def call(self) -> None:
        """A method with parameters of its shape."""
        self.line(self.source.pick(self.clients), self._call())

    def bent_call(self) -> None:
        """The same with some bytes turned."""
        data = bytearray(self._call())
        for _ in range(1 + self.source.below(3)):
            data[self.source.below(len(data))] ^= 1 << self.source.below(8)
        self.line(self.source.pick(self.clients), bytes(data).replace(b"\n", b" "))

    def _call(self) -> bytes:
        source = self.source
        method = METHODS[source.pick([name for name in METHODS if name != "daemon.shutdown"])]
        params: Any = msgspec.to_builtins(struct(source, method.params, self.bench.pool))
        known: dict[str, Any] = {
            "contact": WHO, "to": WHO, "conversation": WHO, "address": ADDRESSES,
            "upto": self.ids, "before": self.ids, "after": self.ids, "protocol": (1,),
            "transfer": (*self.ids, *(id[:5] for id in self.ids), "aaaa", "7" * 26, "\u0130" * 4),
            "since": (*CURSORS, f"{self.bench.node._journal.cursor(0)}"), "client_ref": ("r", "s"),
        }  # fmt: skip
        for name in list(params):
            if params[name] is not None and name in known and not source.one_in(5):
                several = isinstance(params[name], list)
                picked = [source.pick(known[name]) for _ in range(1 + 2 * several)]
                params[name] = picked if several else picked[0]
        if method.name == "settings.set" and not source.one_in(5):
            params["name"] = source.pick(list(TUNABLES))
        if "paths" in params:
            params["paths"] = [source.pick(PATHS) for _ in range(1 + source.below(3))]
        body: dict[str, Any] = {"jsonrpc": "2.0", "method": method.name, "params": params}
        if not source.one_in(8):
            body["id"] = source.pick((1, "x", None, -1, 2**70, "\0", 2))
        return msgspec.json.encode(body)

    # -- what else happens ----------------------------------------------------------------

    def connect(self) -> None:
        """Another client, on either kind of socket; or one that goes, or says no more."""
        doing = self.source.below(4)
        if doing == 3:
            client = self.source.pick(self.clients)
            if self.source.below(2):
                self.bench.close_client(client)
            elif client in self.bench.clients and self.source.below(2):
                self.bench.turn(ClientLeft(client))
                waits = any(client == number for number, _ in self.bench.node._clients._pending)
                assert waits == (client in self.bench.clients)
            elif client in self.bench.clients:
                self.bench.turn(LineTooLong(client))
                assert client not in self.bench.clients
        elif len(self.clients) < 6:
            self.clients.append(self.bench.open_client(local_user=doing == 0))

    def answer(self) -> None:
        """A child answers."""
        tasks = self.bench.tasks
        if not tasks:
            return
        task = self.source.pick(sorted(tasks)[:8])
        self.bench.turn(Answered(task, answer(self.source, tasks.pop(task))))

    def event(self) -> None:
        """A client has read everything; something happens that it is told of; a commit fails."""
        doing = self.source.below(3)
        if doing == 0:
            self.bench.drain(self.source.pick(self.clients))
        elif doing == 1:
            self.bench.wait(self.source.pick((0.1, 25.0)))
        else:
            self.bench.turn(commit_fails=True)


def _check_shape(line: bytes, replies: list[dict[str, Any]]) -> None:
    """A result is as the table of methods has it; there is but one for a line."""
    with suppress(BadRequest):
        method = parse_request(line).method
        for each in replies:
            if "result" in each and method.name != "hello":
                msgspec.convert(each["result"], method.result)


def _may_be_silent(line: bytes) -> bool:
    """Whether it is a notification, or a request that is answered later."""
    try:
        request = parse_request(line)
    except BadRequest:
        return False
    return request.notification or request.method.name in LATER


def hostile_client(data: bytes) -> None:
    """A scenario."""
    caller = Caller(Source(data))
    try:
        caller.play()
    finally:
        caller.bench.store.close()


LINE_TARGETS = (Target("hostile_client", hostile_client, scenarios, 1500),)
