"""What the simulated child `disk` does with what is sent: looks, counts, walks, packs.

What holds always, as in tntd/shell/child_tree.py and child_pack.py: the order is that of the
listing, depth first; a folder is listed when the walk comes to it; walks are kept between two
requests, and lost with the child; what changes while it is read is told as failed.
"""

from __future__ import annotations

import errno
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from blake3 import blake3

from tntd import limits
from tntd.machines import pack_record, tree
from tntd.machines.blocks import block_hash, digest_of
from tntd.machines.pack_record import CHUNK, FILE_END
from tntd.tasks import Answer, Counted, CountTree, Entry, Failed, Inspect, Large, Pack, Packed

from .disk import Disk, File, Folder, Link, Node, failed

Steps = Generator[None, None, Answer]
PARTS = b".tnt-part"
COUNT_FILES = 5  # for one request
PAUSE_CHANCE = 0.1  # of a record that ends early, because its time is over


class Found(NamedTuple):
    """An entry of a walk."""

    what: str
    path: bytes
    node: Node | None = None
    folder: Folder | None = None
    name: bytes = b""
    reason: str = ""


def walk(folder: Folder, path: bytes = b"") -> Iterator[Found]:
    """A folder and what is in it."""
    yield Found("folder", path, folder)
    for name, node in list(folder.names.items()):
        at = tree.join(path, name)
        if name == PARTS:
            yield Found("skipped", at, reason="parts of other transfers")
        elif isinstance(node, Folder):
            if folder.names.get(name) is node:
                yield from walk(node, at)
            else:
                yield Found("failed", at, reason="it is gone")
        else:
            what = "file" if isinstance(node, File) else "link"
            yield Found(what, at, node, folder, name)
    yield Found("folder_end", path, folder)


def walk_only(root: Folder, only: list[bytes]) -> Iterator[Found]:
    """The things at these paths."""
    above: dict[bytes, Folder] = {b"": root}
    yield Found("folder", b"", root)
    for path in only:
        folder, at = root, b""
        way: list[tuple[bytes, Folder]] = []
        *names, last = path.split(b"/")
        for name in names:
            inner = folder.names.get(name)
            if not isinstance(inner, Folder):
                break
            folder, at = inner, tree.join(at, name)
            way.append((at, inner))
        node = folder.names.get(last) if len(way) == len(names) else None
        if node is None:
            yield Found("failed", path, reason="no such file or folder")
            continue
        for at, inner in way:
            if at not in above:
                above[at] = inner
                yield Found("folder", at, inner)
        if isinstance(node, Folder):
            yield from walk(node, path)
        else:
            yield Found("file" if isinstance(node, File) else "link", path, node, folder, last)
    for path in reversed(list(above)):
        yield Found("folder_end", path, above[path])


@dataclass(slots=True)
class Walk:
    """A walk and where it stands."""

    entries: Iterator[Found]
    current: Found | None = None
    number: int = 0
    after: bytes = b""

    def advance(self) -> None:
        """Go to the next entry."""
        assert self.current is not None
        self.number, self.after = self.number + 1, self.current.path
        self.current = next(self.entries, None)


class Record:
    """A record that is being filled."""

    def __init__(self) -> None:
        self.plain = bytearray()
        self.entries: list[Entry] = []
        self.bytes = 0

    def put(self, number: int, body: bytes, data: bytes | None = None) -> bool:
        """Add an entry, a file with its data; whether there is room."""
        added = CHUNK.pack(pack_record.ENTRY_KIND, number, 0, len(body)) + body
        if data is not None:
            if data:
                added += CHUNK.pack(pack_record.DATA_KIND, number, 0, len(data)) + data
            end = FILE_END.pack(len(data), digest_of([block_hash(data)] if data else []))
            added += CHUNK.pack(pack_record.FILE_END_KIND, number, 0, len(end)) + end
        if len(self.plain) + len(added) > limits.PACK_PLAIN_BYTES_MAX:
            return False
        self.plain += added
        return True


class Source:
    """Tasks about what is sent.  `files` is the table of open files, by handle."""

    def __init__(self, disk: Disk, opened: dict[int, File], rng: Random) -> None:
        self._disk = disk
        self._files = opened
        self._rng = rng
        self._walks: dict[int, Walk] = {}
        self._counts: dict[int, tuple[Iterator[Found], int, int]] = {}

    def forget(self) -> None:
        """The child is another one."""
        self._walks.clear()
        self._counts.clear()

    def inspect(self, task: Inspect) -> Steps:
        """What is at a path."""
        self._disk.check()
        yield
        return self._disk.inspected(self._look(task.path))

    def _look(self, path: bytes) -> Node:
        node = self._disk.find(path)
        if node is None:
            raise failed(errno.ENOENT)
        return node

    def count(self, task: CountTree) -> Steps:
        """Count a few files."""
        self._disk.check()
        yield
        entries, files, size = self._counts.pop(task.walk, (None, 0, 0))
        if entries is None:
            node = self._look(task.root)
            if isinstance(node, File):
                return Counted(1, len(node.data), True)
            entries = walk(self._disk.folder(task.root))
        for _ in range(COUNT_FILES):
            found = next(entries, None)
            if found is None:
                return Counted(files, size, True)
            if isinstance(found.node, File):
                files, size = files + 1, size + len(found.node.data)
        self._counts[task.walk] = entries, files, size
        return Counted(files, size, False)

    # -- records -------------------------------------------------------------------------

    def pack(self, task: Pack) -> Steps:
        """The next record, and the next large file, opened."""
        kept = self._walks.pop(task.walk, None)
        if kept is not None and not (
            kept.number < task.number or (kept.number, kept.after) == (task.number, task.after)
        ):
            kept = None
        if kept is None:
            self._disk.check()
            yield
            root = self._look(task.root)
            if isinstance(root, File):
                return self._pack_root(task, root)
            folder = self._disk.folder(task.root)
            entries = walk(folder) if task.only is None else walk_only(folder, task.only)
            kept = Walk(entries, next(entries, None))
        while kept.number < task.number:
            if kept.current is None:
                return Failed("CHANGED", "")
            kept.advance()
        if kept.number and kept.after != task.after:
            return Failed("CHANGED", "")
        return (yield from self._fill(kept, task))

    def _pack_root(self, task: Pack, root: File) -> Answer:
        if task.number:
            if task.number > 1 or task.after:
                return Failed("CHANGED", "")
            return Packed(b"", [], 1, b"", 0, None, True)
        self._files[task.handle] = root
        return Packed(b"", [], 0, b"", 0, large(b"", root), True)

    def _fill(self, kept: Walk, task: Pack) -> Steps:
        record = Record()
        big: Large | None = None
        while kept.current is not None:
            found = kept.current
            node = found.node
            if isinstance(node, File):
                assert found.folder is not None
                if found.folder.names.get(found.name) is not node:
                    node = found.folder.names.get(found.name)
                if isinstance(node, File) and len(node.data) > limits.PACK_FILE_BYTES_MAX:
                    big = large(found.path, node)
                    self._files[task.handle] = node
                    break
            if not (yield from self._put(record, kept.number, found, node)):
                break
            kept.advance()
            if self._rng.random() < PAUSE_CHANCE:
                break
        end = kept.current is None
        if not end:
            self._walks[task.walk] = kept
        plain = bytes(record.plain)
        number, after = kept.number, kept.after
        return Packed(plain, record.entries, number, after, record.bytes, big, end)

    def _put(
        self, record: Record, number: int, found: Found, node: Node | None
    ) -> Generator[None, None, bool]:
        """Add an entry; whether there was room."""
        if found.what == "file":
            return (yield from self._put_file(record, number, found, node))
        if found.what == "link":
            assert isinstance(node, Link)
            problem = tree.link_problem(found.path, node.target, windows=False)
            if problem:
                return self._leave_out(record, number, "skipped", found.path, problem)
            body = pack_record.encode_entry("link", found.path, 0, 0, False, node.target)
            return record.put(number, body)
        if found.what in {"skipped", "failed"}:
            return self._leave_out(record, number, found.what, found.path, found.reason)
        assert isinstance(node, Folder)
        what = "folder" if found.what == "folder" else "folder_end"
        body = pack_record.encode_entry(what, found.path, 0, node.mtime_ns, False, b"")
        return record.put(number, body)

    def _put_file(
        self, record: Record, number: int, found: Found, node: Node | None
    ) -> Generator[None, None, bool]:
        try:
            self._disk.check()
        except OSError as error:
            text = (error.strerror or "").lower()
            return self._leave_out(record, number, "failed", found.path, text)
        if not isinstance(node, File):
            return self._leave_out(record, number, "failed", found.path, "no such file or folder")
        before = state_of(node)
        yield
        data = bytes(node.data)
        yield
        if state_of(node) != before:
            return self._leave_out(record, number, "failed", found.path, tree.CHANGED)
        body = pack_record.encode_entry(
            "file", found.path, len(data), node.mtime_ns, node.executable, b""
        )
        if not record.put(number, body, data):
            return False
        record.entries.append(Entry(found.path, len(data), "waiting"))
        record.bytes += len(data)
        return True

    def _leave_out(self, record: Record, number: int, what: str, path: bytes, why: str) -> bool:
        told = "skipped" if what == "skipped" else "failed"
        body = pack_record.encode_entry(told, path, 0, 0, False, why.encode())
        if not record.put(number, body):
            return False
        record.entries.append(Entry(path, 0, told, why))
        return True


def state_of(file: File) -> tuple[int, int, int, int]:
    """What would be another if it changed."""
    return len(file.data), file.mtime_ns, file.ctime_ns, file.inode


def large(path: bytes, file: File) -> Large:
    """A file that is open now."""
    size, mtime_ns, ctime_ns, inode = state_of(file)
    return Large(path, size, mtime_ns, ctime_ns, inode, file.executable)


def same(file: File, then: Large) -> bool:
    """Whether an open file is what it was."""
    return state_of(file) == (then.size, then.mtime_ns, then.ctime_ns, then.inode)


def block_hashes(data: bytes, block_bytes: int) -> bytes:
    """The hashes of the blocks of some bytes."""
    return b"".join(
        blake3(data[at : at + block_bytes]).digest() for at in range(0, len(data), block_bytes)
    )
