"""A control client: attaches, reads as slowly as the seed says, and comes back by its cursor.

What holds always: events come with growing cursors and none is left out; a request gets exactly
one reply as long as the client stays.  What it has seen is kept in a `View`, which at the end of
a run must be what the store says.  Where its cursor is gone (only a history that went back does
that) it follows from the fresh one, and reads the lists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from tntd import limits
from tntd.errors import Code
from tntd.events import ClientClosed, ClientDrained, ClientOpened, LineArrived

from .heap import Violation

if TYPE_CHECKING:
    from .machine import Machine

EVENT = b'{"jsonrpc":"2.0","method":'
Then = Callable[[Any, Any], None]


@dataclass(slots=True)
class View:
    """What events have told: numbers of all events after `base`, and the last word on each thing.
    `listed` says that the lists have told what was before."""

    epoch: str = ""
    base: int = 0
    listed: bool = True
    numbers: list[int] = field(default_factory=list)
    messages: dict[str, dict[str, Any]] = field(default_factory=dict)  # by id, as shown
    transfers: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def cursor(self) -> str:
        """After the last event that was read."""
        return f"{self.epoch}.{self.last}"

    @property
    def last(self) -> int:
        """The number of the last event that was read."""
        return self.numbers[-1] if self.numbers else self.base


class Listing:
    """The state read from the lists, page by page, into a view; `done` is called with whether
    all was told."""

    def __init__(
        self,
        ask: Callable[[str, dict[str, Any], Then], None],
        view: View,
        done: Callable[[bool], None],
    ) -> None:
        self._ask = ask
        self._view = view
        self._done = done
        self._contacts: list[str] = []

    def begin(self) -> None:
        """Ask for the first page."""
        self._transfers({})

    def _transfers(self, place: dict[str, str]) -> None:
        def told(result: Any) -> None:
            page = result["transfers"]
            self._view.transfers.update((each["id"], each) for each in page)
            if page:
                self._transfers({"before": page[0]["id"]})
            else:
                self._page("contacts.list", {}, contacts)

        def contacts(result: Any) -> None:
            self._contacts = [each["id"] for each in result["contacts"]]
            self._next()

        self._page("transfers.list", place, told)

    def _next(self) -> None:
        if self._contacts:
            self._messages(self._contacts.pop(), {})
        else:
            self._done(True)

    def _messages(self, contact: str, place: dict[str, str]) -> None:
        def told(result: Any) -> None:
            page = result["messages"]
            self._view.messages.update((each["id"], each) for each in page)
            if page:
                self._messages(contact, {"before": page[0]["id"]})
            else:
                self._next()

        self._page("messages.list", {"conversation": contact, **place}, told)

    def _page(self, method: str, params: dict[str, Any], told: Callable[[Any], None]) -> None:
        def answered(result: Any, error: Any) -> None:
            if result is not None:
                told(result)
            elif error is not None:
                self._done(False)

        self._ask(method, params, answered)


class Client:
    """A client of one machine.  `on_ready` is called when it is attached."""

    def __init__(self, machine: Machine, name: str, on_ready: Callable[[], None]) -> None:
        self.machine = machine
        self.name = name
        self.view = View()
        self.ready = False
        self.unread = 0
        self.gone = 0  # how often its cursor was
        self._on_ready = on_ready
        self._process: Any = None
        self._number = 0
        self._ids = 0
        self._pending: dict[int, Then] = {}
        self._lines: list[bytes] = []
        self._reading = False
        self._batches = 0  # of events that it has not read
        self._restarts = 0  # of its daemon's node, when it read last

    @property
    def attached(self) -> bool:
        """Whether it has a connection."""
        return self._process is not None

    def attach(self) -> None:
        """Connect, say hello, follow the events."""
        process = self.machine.process
        if process is None or self.attached:
            return
        self._process, self._number = process, process.loop.next_number()
        process.clients[self._number] = self
        process.loop.post(ClientOpened(self._number, True))
        self._ask("hello", {"protocol": 1, "client": "sim"}, self._greeted)

    def leave(self) -> None:
        """Vanish."""
        process = self._process
        if process is not None:
            process.clients.pop(self._number, None)
            process.loop.post(ClientClosed(self._number))
            self.closed()

    def closed(self) -> None:
        """The connection is gone, and with it what was not read yet."""
        self._process, self.ready, self.unread = None, False, 0
        self._lines.clear()
        self._batches = 0
        pending, self._pending = self._pending, {}
        for then in pending.values():
            then(None, None)

    def request(self, method: str, params: dict[str, Any], then: Then) -> None:
        """Ask; `then` is called with (result, error), both None where the connection ended."""
        self._ask(method, params, then)

    def forget(self) -> None:
        """The daemon's history is another one now: begin anew."""
        self.view = View()

    # -- inside --------------------------------------------------------------------------

    def _ask(self, method: str, params: dict[str, Any], then: Then) -> None:
        self._ids += 1
        self._pending[self._ids] = then
        body = {"jsonrpc": "2.0", "id": self._ids, "method": method, "params": params}
        self._process.loop.post(LineArrived(self._number, msgspec.json.encode(body)))

    def _greeted(self, result: Any, error: Any) -> None:
        if result is None:
            self.leave()
            return
        if not self.view.epoch:
            self.view.epoch = result["cursor"].partition(".")[0]
        self._ask("events.subscribe", {"since": self.view.cursor}, self._subscribed)

    def _subscribed(self, result: Any, error: Any) -> None:
        if error is not None and error["code"] == Code.CURSOR_GONE:
            self._begin_at(error["data"]["cursor"])
            return
        if result is None:
            self.leave()
            return
        if not self.view.listed:
            Listing(self._ask, self.view, self._listed).begin()
            return
        self._listed(True)

    @property
    def _may_go_back(self) -> bool:
        """Whether its daemon's history may turn out to be an older one."""
        return self.machine.watcher.went_back(self.machine.identity.public)

    def _begin_at(self, fresh: str) -> None:
        """The cursor is gone: another history is there."""
        epoch, _, number = fresh.partition(".")
        if not self._may_go_back or epoch == self.view.epoch:
            raise Violation(f"{self.name}: its cursor {self.view.cursor} is gone")
        self.gone += 1
        self.view = View(epoch, int(number), listed=False)
        self._ask("events.subscribe", {"since": fresh}, self._subscribed)

    def _listed(self, whole: bool) -> None:
        if not whole:
            self.leave()
            return
        self.view.listed = self.ready = True
        self._on_ready()

    def receive(self, data: bytes) -> None:
        """Lines came into the socket; they are read when the client gets to it."""
        self._lines.append(data)
        self.unread += len(data)
        self._check_unread(data)
        if not self._reading:
            self._reading = True
            lag = self.machine.faults.client_lag_s * self.machine.rng.random()
            self.machine.heap.after(lag, self._read)

    def _check_unread(self, data: bytes) -> None:
        """One batch of events at a time, and the replies that it has asked for.  (A node that
        starts over does not know what it has sent.)"""
        restarts = self.machine.watcher.restarts.get(self.machine.name, 0)
        self._batches += data.startswith(EVENT)
        if self._batches > 1 + restarts - self._restarts:
            raise Violation(f"{self.name}: {self._batches} batches of events were queued for it")
        if self.unread > limits.CLIENT_BUFFER_BYTES_MAX:
            raise Violation(f"{self.name}: {self.unread} bytes were queued for it")

    def receive_latest(self, data: bytes) -> None:
        """A line that may be lost."""
        self._take(data)

    def _read(self) -> None:
        self._reading, self._batches = False, 0
        self._restarts = self.machine.watcher.restarts.get(self.machine.name, 0)
        lines, self._lines = self._lines, []
        self.unread = 0
        for line in b"".join(lines).splitlines():
            self._take(line)
        if self._process is not None and lines:
            self._process.loop.post(ClientDrained(self._number))

    def _take(self, line: bytes) -> None:
        body = msgspec.json.decode(line)
        if "method" in body:
            self._event(body["params"])
            return
        then = self._pending.pop(body["id"], None)
        if then is not None:
            then(body.get("result"), body.get("error"))
        elif self._process is not None:
            raise Violation(f"{self.name}: a second reply: {line[:200]!r}")

    def _event(self, event: dict[str, Any]) -> None:
        if "cursor" not in event:
            return
        epoch, _, number = event["cursor"].partition(".")
        last = self.view.last
        same = epoch == self.view.epoch or self._may_go_back
        if not same or int(number) <= last:
            raise Violation(f"{self.name}: event {event['cursor']} after {self.view.cursor}")
        self.view.epoch = epoch
        self.view.numbers.append(int(number))
        if "message" in event:
            self.view.messages[event["message"]["id"]] = event["message"]
        if "transfer" in event:
            self.view.transfers[event["transfer"]["id"]] = event["transfer"]
