"""Somebody who uses a machine: makes friends, writes, sends files and folders, changes their mind.

What holds always: what a user wants is asked for again, with the same `client_ref`, until it is
answered; an answer is believed, and the watcher holds the daemon to it.  Some requests are sent
twice on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tntd.errors import Code
from tntd.machines.identity import key_to_id
from tntd.node.present import parse_item_id

from .client import Client
from .disk import File, Folder
from .feeder import Feeder
from .machine import DOWNLOADS, SOURCES, SPOOL
from .sources import FOLDER, tree, what_of
from .watcher import BYSTANDER

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
        self.persistent = False  # sends again what failed, without being told
        self.tries: dict[str, int] = {}
        self.feeders: list[Feeder] = []
        self.pipe_rng = machine.heap.stream(f"pipes {machine.name}")
        self.replies = 0
        self._asked: set[str] = set()
        self._count = 0
        machine.edit_source = self.edit_source
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
            if self.calm:
                self.client.request("transfers.list", {"state": "paused"}, self._resume_all)
            elif self.persistent and self.rng.random() < 0.3:
                self._help_oneself()
                self.client.request("transfers.list", {}, self._again_one)
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
        if roll < 0.45:
            for _ in range(self.rng.choice((1, 1, 1, 3, 12))):
                self.write(friend)
        elif roll < 0.57:
            self.send_files(friend, self.rng.choice((1, 1, 2)))
        elif roll < 0.67:
            self.send_tree(friend)
        elif roll < 0.72:
            self.send_again(friend)
        elif not self.client.ready:
            return
        elif roll < 0.93:
            self.client.request("transfers.list", {}, self._steer_one)
        elif roll < 0.98:
            self.client.request("messages.list", {"conversation": friend.id}, self._read_upto)
        else:
            self.client.request("transfers.clean", {}, _ignore)

    def send_pipe(self) -> None:
        """Send what comes out of a pipe, from now on."""
        to = [each.id for each in self.friends]
        if self.pipe_rng.random() < 0.7:
            to = [self.pipe_rng.choice(to)]
        ref = f"{self.machine.name}-pipe-{len(self.feeders)}"
        if self.machine.powered:
            self.feeders.append(Feeder(self.machine, self.watcher, ref, to, self.pipe_rng))

    def calm_down(self) -> None:
        """Come to an end with everything."""
        self.calm = True
        for feeder in self.feeders:
            feeder.calm = True

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
            path = b"%s/%s-%d.bin" % (SOURCES, ref.encode(), number)
            self.make_source(path, size)
            paths.append(path)
        self._send(ref, friend, paths)

    def send_tree(self, friend: Friend, *, files: int | None = None) -> bytes:
        """Send a new folder."""
        ref = self._ref()
        root = SOURCES + b"/" + ref.encode()
        self.make_tree(root, self.rng.choice((0, 1, 4, 12)) if files is None else files)
        self._send(ref, friend, [root])
        if self.rng.random() < 0.4:  # and goes on working in it
            self.machine.source_trap = self.rng.randrange(8)
        return root

    def send_again(self, friend: Friend) -> None:
        """Send what may have been sent before, changed in places, or not at all."""
        names = sorted(self.machine.disk.folder(SOURCES).names)
        if not names:
            return
        path = SOURCES + b"/" + self.rng.choice(names)
        for _ in range(self.rng.randrange(3)):
            self._edit_one(path)
        self._send(self._ref(), friend, [path])

    def send_paths(self, friend: Friend, paths: list[bytes]) -> None:
        """Send what is there, to one friend."""
        shown = [path.decode() for path in paths]
        ref = self._ref()
        self._want(ref, "transfers.send", {"to": friend.id, "paths": shown, "client_ref": ref})

    def _send(self, ref: str, friend: Friend, paths: list[bytes]) -> None:
        to = [friend.id]
        if self.rng.random() < 0.4:  # to all friends at once
            to = [each.id for each in self.friends]
        params = {"to": to, "paths": [path.decode() for path in paths], "client_ref": ref}
        self._want(ref, "transfers.send", params)

    # -- what there is to send ---------------------------------------------------------------

    def make_source(self, path: bytes, size: int | None = None) -> None:
        """A file to send, or another content for it."""
        room = self.rng.choice((0, 1, 3000, 4096, FILE_BYTES_MAX)) if size is None else size
        self._count += 1
        data = b"%s:%d:" % (path, self._count) + self.rng.randbytes(room)
        self.put_source(path, data)

    def put_source(self, path: bytes, data: bytes) -> None:
        """That is there from now on, and the folders above it."""
        self._make_folder(path.rpartition(b"/")[0])
        self.machine.disk.put_durable(path, data)
        self._note(path, what_of(data))

    def _note(self, path: bytes, what: bytes) -> None:
        self.watcher.sources.put(self.machine.name, path, what, self.machine.heap.now)

    def make_tree(self, root: bytes, files: int) -> None:
        """A folder with files of all sizes, in folders and folders of these, and links."""
        folders = [root]
        self._make_folder(root)
        for number in range(self.rng.randrange(3)):
            folders.append(b"%s/folder %d" % (self.rng.choice(folders), number))
            self._make_folder(folders[-1])
        for number in range(files):
            path = b"%s/file %d" % (self.rng.choice(folders), number)
            size = self.rng.choice((-1, -1, 0, 100, 300, 600, 2500, 9000))
            if size < 0:
                self.put_source(path, b"")
            else:
                self.make_source(path, size)
        for number in range(self.rng.choice((0, 0, 2))):
            path = b"%s/link %d" % (self.rng.choice(folders), number)
            target = self.rng.choice((b"file 1", b"/etc/passwd", b"../../..", b"folder 0/file 2"))
            self.machine.disk.put_link(path, target)
            self._note(path, b"->" + target)

    def _make_folder(self, path: bytes) -> None:
        above = path.rpartition(b"/")[0]
        if self.machine.disk.find(above) is None:
            self._make_folder(above)
        if self.machine.disk.find(path) is None:
            self.machine.disk.make_folder(path)
            self._note(path, FOLDER)

    def change_source(self) -> None:
        """Change, replace or remove a file that may be on its way, or add one to a folder."""
        disk = self.machine.disk
        names = sorted(disk.folder(SOURCES).names)
        if not names:
            return
        path = SOURCES + b"/" + self.rng.choice(names)
        node = disk.find(path)
        roll = self.rng.random()
        if isinstance(node, Folder) and roll < 0.3:
            folders = [at for at, each in tree(node) if isinstance(each, Folder)]
            above = self.rng.choice(folders)
            self._count += 1
            name = b"file +%d" % self._count
            self.make_source(b"/".join(filter(None, (path, above, name))), 300)
            return
        if roll < 0.5:
            self._edit_one(path)
            return
        path = self._pick_file(path)
        if path and self.rng.random() < 0.5:
            disk.remove_durable(path)
            self.watcher.sources.gone(self.machine.name, path, self.machine.heap.now)
        elif path:
            self.make_source(path)

    def _pick_file(self, path: bytes) -> bytes:
        node = self.machine.disk.find(path)
        if node is None:
            return b""
        found = [at for at, each in tree(node) if isinstance(each, File)]
        return b"/".join(filter(None, (path, self.rng.choice(found)))) if found else b""

    def _edit_one(self, path: bytes) -> None:
        """Write into a file, in its place, at the end, or cut it; it stays the same file."""
        path = self._pick_file(path)
        if path:
            self.edit_source(path)

    def edit_source(self, path: bytes) -> None:
        """The same for this file."""
        file = self.machine.disk.find(path)
        if not isinstance(file, File) or path.startswith(SPOOL):
            return
        self._count += 1
        mark = b"<%s %d>" % (self.machine.name.encode(), self._count)
        at = self.rng.randrange(len(file.data) + 1)
        if self.rng.random() < 0.2:
            del file.data[at:]
        file.write(at, mark, self.machine.disk.now_ns)
        file.write(self.rng.randrange(at + 1), mark, self.machine.disk.now_ns)
        file.sync()
        self._note(path, what_of(bytes(file.data)))

    def edit_download(self) -> None:
        """Write into something that has arrived."""
        names = sorted(self.machine.disk.folder(DOWNLOADS).names)
        path = self._pick_file(DOWNLOADS + b"/" + self.rng.choice(names)) if names else b""
        file = self.machine.disk.find(path) if path else None
        if b"/.tnt-part" in path or not isinstance(file, File):
            return
        self._count += 1
        mark = b"[%s %d]" % (self.machine.name.encode(), self._count)
        file.write(self.rng.randrange(len(file.data) + 1), mark, self.machine.disk.now_ns)
        file.sync()
        self.watcher.edited(file)

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
        self._act_on(result, "transfers.cancel", ("queued", "offered", "active", "paused"))

    def _steer_one(self, result: Any, error: Any) -> None:
        roll = self.rng.random()
        if roll < 0.2:
            self.cancel_one(result, error)
        elif roll < 0.45:
            self._act_on(result, "transfers.pause", ("queued", "offered", "active"))
        elif roll < 0.6:
            self._act_on(result, "transfers.resume", ("paused",))
        elif roll < 0.7:
            self._act_on(result, "transfers.first", ("queued", "active", "paused"))
        elif roll < 0.9:
            self._act_on(result, "transfers.again", ("failed",))
        else:
            self._act_on(result, "transfers.files", ("active", "done", "failed", "paused"))

    def _help_oneself(self) -> None:
        """Put a file of one's own in the place of one that failed."""
        query = (
            "SELECT t.chosen, f.path FROM tree_files f JOIN transfers t ON f.transfer = t.row "
            "WHERE f.state = 'failed' AND t.outgoing = 0 AND t.final_ctime_ns > 0"
        )
        found = self.machine.database.sql.execute(query).fetchall()
        if found and self.rng.random() < 0.3:
            path = DOWNLOADS + b"/" + b"/".join(self.rng.choice(found))
            if self.machine.disk.find(path) is None:
                file = self.machine.disk.put_durable(path, BYSTANDER)
                self.watcher.bystanders[self.machine.name, path] = file

    def _again_one(self, result: Any, error: Any) -> None:
        self._act_on(result, "transfers.again", ("failed",))

    def _act_on(self, result: Any, method: str, states: tuple[str, ...]) -> None:
        if result is None or not self.client.ready:
            return
        ids = [each["id"] for each in result["transfers"] if each["state"] in states]
        if ids:
            self.client.request(method, {"transfer": self.rng.choice(ids)}, _ignore)

    def _resume_all(self, result: Any, error: Any) -> None:
        if result is None or not self.client.ready:
            return
        for each in result["transfers"]:
            self.client.request("transfers.resume", {"transfer": each["id"]}, _ignore)

    def _read_upto(self, result: Any, error: Any) -> None:
        if result is None or not result["messages"] or not self.client.ready:
            return
        last = result["messages"][-1]
        params = {"conversation": last["conversation"], "upto": last["id"]}
        self.client.request("messages.read", params, _ignore)


def _ignore(result: Any, error: Any) -> None:
    return None
