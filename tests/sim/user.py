"""Somebody who uses a machine: makes friends, writes, sends files, changes their mind.

What holds always: what a user wants is asked for again, with the same `client_ref`, until it is
answered; an answer is believed, and the watcher holds the daemon to it.  Some requests are sent
twice on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from tntd.errors import Code
from tntd.machines.identity import key_to_id
from tntd.node.present import parse_item_id

from .client import Client
from .machine import SOURCES

if TYPE_CHECKING:
    from .machine import Machine
    from .watcher import Watcher

POLL_S = 8.0
AGAIN_S = 2.0
FILE_BYTES_MAX = 40_000
_LATER = {Code.STORAGE, Code.INTERNAL, Code.NOT_ACCEPTED, Code.NO_SUCH_CONTACT}
_PATH_TRIES = 3  # a disk that fails now may do later


@dataclass(slots=True)
class Friend:
    """A contact to have.  `address` is where to dial them, "" where they dial us."""

    machine: Machine
    address: str = ""
    fine: bool = False

    @property
    def id(self) -> str:
        """As commands take it."""
        return key_to_id(self.machine.identity.public)


class User:
    """The user of one machine, with one client that stays and one that comes and goes."""

    def __init__(self, machine: Machine, watcher: Watcher) -> None:
        self.machine = machine
        self.watcher = watcher
        self.friends: list[Friend] = []
        self.rng = machine.heap.stream(f"user {machine.name}")
        self.client = Client(machine, f"{machine.name}'s client", self._ready)
        self.guest = Client(machine, f"{machine.name}'s guest", lambda: None)
        self.wants: dict[str, tuple[str, dict[str, Any]]] = {}
        self.calm = False  # decides for everything that waits
        self.quiet = False  # does nothing any more
        self.tries: dict[str, int] = {}
        self.replies = 0
        self._asked: set[str] = set()
        self._count = 0
        machine.on_start.append(lambda: machine.heap.after(0.05, self._attach))
        machine.heap.after(0.1 + self.rng.random(), self._poll)

    # -- being there ---------------------------------------------------------------------

    def _attach(self) -> None:
        if not self.client.attached:
            self.client.attach()

    def _ready(self) -> None:
        self._asked.clear()
        for ref in list(self.wants):
            self._ask(ref)

    def _poll(self) -> None:
        self.machine.heap.after(POLL_S * (0.5 + self.rng.random()), self._poll)
        if self.quiet:
            return
        self._attach()
        if self.client.ready:
            self.client.request("contacts.list", {}, self._befriend)
            self.client.request("transfers.list", {"state": "offered"}, self._decide)
        if self.rng.random() < 0.3 and self.guest.attached and not self.calm:
            self.guest.leave()
        elif not self.guest.attached:
            self.guest.attach()

    def _befriend(self, result: Any, error: Any) -> None:
        if result is None or not self.client.ready:
            return
        known = {contact["id"]: contact for contact in result["contacts"]}
        for friend in self.friends:
            contact = known.get(friend.id)
            accepted = contact is not None and contact["trust"] == "accepted"
            friend.fine = accepted and contact["mutual"] and contact["online"]
            if friend.address and not (accepted and contact["mutual"]):
                params = {"address": friend.address, "new": True}
                self.client.request("peers.connect", params, _ignore)
            elif contact is not None and not accepted:
                self.client.request("contacts.accept", {"contact": friend.id}, _ignore)

    def _decide(self, result: Any, error: Any) -> None:
        if result is None or not self.client.ready:
            return
        for transfer in result["transfers"]:
            if transfer["direction"] != "in":
                continue
            roll = self.rng.random()
            if self.calm or roll < 0.5:
                method = "transfers.accept" if roll < 0.4 else "transfers.decline"
                self.client.request(method, {"transfer": transfer["id"]}, _ignore)

    # -- what a user does ----------------------------------------------------------------

    def act(self) -> None:
        """Do something."""
        roll = self.rng.random()
        friend = self.rng.choice(self.friends)
        if roll < 0.6:
            for _ in range(self.rng.choice((1, 1, 1, 3, 12))):
                self.write(friend)
        elif roll < 0.8:
            self.send_files(friend, self.rng.choice((1, 1, 2)))
        elif self.client.ready and roll < 0.9:
            self.client.request("transfers.list", {}, self.cancel_one)
        elif self.client.ready:
            self.client.request("messages.list", {"conversation": friend.id}, self._read_upto)

    def write(self, friend: Friend) -> None:
        """Send a message."""
        ref = self._ref()
        size = self.rng.choice((0, 0, 10, 200, 5000))
        text = f"{ref} {'x' * size}"
        self._want(ref, "messages.send", {"to": friend.id, "text": text, "client_ref": ref})

    def send_files(self, friend: Friend, count: int, size: int | None = None) -> None:
        """Send new files."""
        ref = self._ref()
        paths = []
        for number in range(count):
            name = f"{ref}-{number}.bin".encode()
            self.make_source(name, size)
            paths.append((SOURCES + b"/" + name).decode())
        self._want(ref, "transfers.send", {"to": friend.id, "paths": paths, "client_ref": ref})

    def make_source(self, name: bytes, size: int | None = None) -> None:
        """A file to send, or another content for it."""
        room = self.rng.choice((0, 1, 3000, 4096, FILE_BYTES_MAX)) if size is None else size
        data = name + b":" + self.rng.randbytes(room)
        self.watcher.contents.add(blake3(data).digest())
        self.machine.disk.put_durable(SOURCES + b"/" + name, data, self.machine.now_ns())

    def change_source(self) -> None:
        """Replace or remove a file that may be on its way."""
        files = self.machine.disk.folders[SOURCES].files
        if not files:
            return
        name = self.rng.choice(sorted(files))
        if self.rng.random() < 0.3:
            self.machine.disk.change((SOURCES, name, None))
        else:
            self.make_source(name)

    def _ref(self) -> str:
        self._count += 1
        return f"{self.machine.name}-{self._count}"

    def _want(self, ref: str, method: str, params: dict[str, Any]) -> None:
        self.wants[ref] = (method, params)
        self._ask(ref)

    def _ask(self, ref: str) -> None:
        if ref not in self.wants or not self.client.ready or ref in self._asked:
            return
        self._asked.add(ref)
        method, params = self.wants[ref]
        for _ in range(2 if self.rng.random() < 0.15 else 1):
            self.client.request(method, params, lambda r, e: self._answered(ref, r, e))

    def _answered(self, ref: str, result: Any, error: Any) -> None:
        if result is None and error is None:
            return  # asked again when the client is back
        self._asked.discard(ref)
        if error is not None:
            if error["code"] in _LATER or self._path_again(ref, error["code"]):
                self.machine.heap.after(AGAIN_S, lambda: self._ask(ref))
                return
        elif "message" in result:
            id = parse_item_id(result["message"]["id"])
            self.watcher.promised(self.machine, id or b"")
        self.replies += 1
        self.wants.pop(ref, None)

    def _path_again(self, ref: str, code: int) -> bool:
        self.tries[ref] = self.tries.get(ref, 0) + 1
        return code == Code.PATH and self.tries[ref] < _PATH_TRIES

    def cancel_one(self, result: Any, error: Any) -> None:
        """Cancel one of the transfers in the answer to a `transfers.list`."""
        if result is None or not self.client.ready:
            return
        live = ("queued", "offered", "active")
        ids = [each["id"] for each in result["transfers"] if each["state"] in live]
        if ids:
            self.client.request("transfers.cancel", {"transfer": self.rng.choice(ids)}, _ignore)

    def _read_upto(self, result: Any, error: Any) -> None:
        if result is None or not result["messages"] or not self.client.ready:
            return
        last = result["messages"][-1]
        params = {"conversation": last["conversation"], "upto": last["id"]}
        self.client.request("messages.read", params, _ignore)


def _ignore(result: Any, error: Any) -> None:
    return None
