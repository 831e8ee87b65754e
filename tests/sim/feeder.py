"""`tnt send WHO - --as NAME` in a simulated machine: a client that feeds a growing file.

What holds always, as in client/feed.py: no more is told than is written, and the end only when all
is synced.  It comes back to a daemon that was started again; it is lost with the machine, and
sometimes killed.  What breaks off is noted nowhere as something that may arrive, so the watcher
sees it if it does.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from tntd.errors import Code

from .client import Client
from .machine import SPOOL
from .sources import what_of

if TYPE_CHECKING:
    from .machine import Machine
    from .watcher import Watcher

RETURN_S = 60.0  # how long a daemon is waited for
RETRY_S = 1.0
_LATER = {Code.STORAGE, Code.INTERNAL, Code.NOT_ACCEPTED, Code.NO_SUCH_CONTACT, Code.PATH}


class Feeder:
    """One of them; `calm` asks it to come to its end."""

    def __init__(
        self, machine: Machine, watcher: Watcher, ref: str, to: list[str], rng: Random
    ) -> None:
        self.machine = machine
        self.done = False
        self.calm = False
        self._watcher = watcher
        self._ref = ref
        self._to = to
        self._rng = rng
        self._folder = SPOOL + b"/" + ref.encode()
        self._path = self._folder + b"/" + ref.encode() + b".bin"
        self._pieces = rng.randrange(8)
        self._boot = machine.boot
        self._file = machine.disk.put_durable(self._path, b"")
        self._client = Client(machine, f"{machine.name}'s feeder {ref}", self._ready)
        self._ids: list[str] = []
        self._asking = False
        self._seen_at = machine.heap.now
        self._step()

    def forget(self) -> None:
        """The daemon's history is another one now."""
        self._client.forget()

    # -- its life ------------------------------------------------------------------------

    def _step(self) -> None:
        if self.done:
            return
        heap, client = self.machine.heap, self._client
        if not self.machine.powered or self.machine.boot != self._boot:
            self._leave()  # it was lost with the machine, and what it spooled is left behind
            return
        heap.after(0.1 if self.calm else self._rng.expovariate(1.0), self._step)
        if client.ready:
            self._seen_at = heap.now
            self._go_on()
        elif not client.attached:
            client.attach()
        if heap.now - self._seen_at > RETURN_S:
            self._leave()

    def _ready(self) -> None:
        self._asking = False

    def _go_on(self) -> None:
        if self._asking:
            return
        if not self._ids:
            params = {
                "to": self._to,
                "paths": [self._path.decode()],
                "growing": True,
                "client_ref": self._ref,
            }
            self._ask("transfers.send", params, self._queued)
        elif not self.calm and self._rng.random() < 0.05:
            self._leave()  # killed
        else:
            self._feed()

    def _feed(self) -> None:
        if self._pieces and self._rng.random() < 0.8:
            self._pieces -= 1
            size = self._rng.choice((0, 10, 3000, 20_000))
            piece = b"%s:%d:" % (self._path, self._pieces) + self._rng.randbytes(size)
            self._file.write(len(self._file.data), piece, self.machine.disk.now_ns)
        if not self._pieces:
            self._file.sync()
            what = what_of(bytes(self._file.data))
            self._watcher.sources.put(self.machine.name, self._path, what, self.machine.heap.now)
        end = not self._pieces
        size = len(self._file.data)
        params = {"transfers": self._ids, "bytes": size, "end": end}
        self._ask("transfers.grown", params, lambda: self._leave() if end else None)

    def _leave(self) -> None:
        self.done = True
        if self._client.attached:
            self._client.leave()

    # -- asking --------------------------------------------------------------------------

    def _ask(self, method: str, params: dict[str, Any], then: Any) -> None:
        self._asking = True
        self._client.request(method, params, lambda r, e: self._answered(r, e, then))

    def _answered(self, result: Any, error: Any, then: Any) -> None:
        if result is None and error is None:
            self._asking = False  # the daemon is gone; it is asked again
        elif error is None:
            self._asking = False
            self._ids = [each["id"] for each in result["transfers"]]
            then()
        elif error["code"] in _LATER and (self._ids or not self.calm):
            self.machine.heap.after(RETRY_S, self._ready)
        else:
            self._leave()
            if not self._ids:
                self.machine.disk.remove_durable(self._folder)

    def _queued(self) -> None:
        """It is the daemon's to remove from now on."""
