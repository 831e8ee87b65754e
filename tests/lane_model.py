"""The two machines of a lane joined in memory: models of a tree, of a stage, and of both children.

No file, no socket: what the machines ask for is done on dictionaries, in any order that real
children and a real connection could do it, chosen by a random generator.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from blake3 import blake3

from tntd import limits
from tntd.effects import Inbound, Outbound
from tntd.machines import pack_record, records, tree
from tntd.machines.blocks import block_bytes, digest_of
from tntd.machines.lane_steps import (
    Close,
    Do,
    End,
    Entries,
    Finished,
    LaneTask,
    Put,
    Read,
    Wait,
    Written,
)
from tntd.machines.receiving import Receiver
from tntd.machines.records import CHUNK, ChunkKind, Record, RecordType
from tntd.machines.sending import CHANGED, Sender
from tntd.tasks import (
    Answer,
    CopyRange,
    Done,
    Entry,
    EntryOpened,
    Failed,
    FinishEntry,
    Hashed,
    HashRange,
    Large,
    OpenEntry,
    Pack,
    Packed,
    Unpack,
    Unpacked,
)

FOLDER, STAGE = b"/there", b"stage"


@contextmanager
def small_limits() -> Iterator[None]:
    """Blocks, ranges and steps so small that a file of some bytes has many of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "BLOCK_BYTES", 8)
        patch.setattr(limits, "TREE_BLOCK_BYTES_MIN", 16)
        patch.setattr(limits, "TREE_BLOCKS_MAX", 16)
        patch.setattr(limits, "GROWING_BLOCK_BYTES", 32)
        patch.setattr(limits, "HASH_STEP_BYTES", 48)
        patch.setattr(limits, "UNSYNCED_STEP_BYTES", 32)
        patch.setattr(limits, "PACK_FILE_BYTES_MAX", 20)
        yield


def digest(data: bytes, *, grew: bool = False) -> bytes:
    """The digest of a file, plainly; `grew`: it was sent while it grew."""
    return digest_of(hashes(data, block_bytes(None if grew else len(data))))


def hashes(data: bytes, length: int) -> list[bytes]:
    """The hashes of its blocks."""
    return [blake3(data[at : at + length]).digest() for at in range(0, len(data), length)]


@dataclass(frozen=True)
class Item:
    """An entry of the model tree."""

    what: pack_record.What
    path: bytes
    content: bytes = b""  # of a file, the target of a link, or a reason
    mtime_ns: int = 7
    executable: bool = False


def chunk(kind: int, file: int, offset: int, content: bytes) -> bytes:
    """A chunk."""
    return CHUNK.pack(kind, file, offset, len(content)) + content


def entry(number: int, item: Item, size: int | None = None) -> bytes:
    """The ENTRY chunk of an item."""
    is_file = item.what == "file"
    body = pack_record.encode_entry(
        item.what,
        item.path,
        size if size is not None else len(item.content) if is_file else 0,
        item.mtime_ns,
        item.executable,
        b"" if is_file else item.content,
    )
    return chunk(ChunkKind.ENTRY, number, 0, body)


def file_end(number: int, content: bytes) -> bytes:
    """The FILE_END chunk of a content."""
    body = records.FILE_END.pack(len(content), digest(content))
    return chunk(ChunkKind.FILE_END, number, 0, body)


def packed_item(number: int, item: Item) -> bytes:
    """All chunks of a small entry."""
    plain = entry(number, item)
    if item.what == "file":
        if item.content:
            plain += chunk(ChunkKind.DATA, number, 0, item.content)
        plain += file_end(number, item.content)
    return plain


class Source:
    """The sender's folder, or file, and its child."""

    def __init__(self, items: list[Item], rnd: random.Random) -> None:
        self.items = items
        self.rnd = rnd
        self.open: dict[int, Item] = {}
        self.broken: set[bytes] = set()  # paths of files that change while they are read

    def pack(self, task: Pack) -> Packed | Failed:
        """What the child answers."""
        if task.number > len(self.items):
            return Failed("CHANGED", "changed")
        if task.number and self.items[task.number - 1].path != task.after:
            return Failed("CHANGED", "changed")
        plain, told, number = b"", [], task.number
        for _ in range(self.rnd.randrange(5)):
            if number == len(self.items) or self._is_large(self.items[number]):
                break
            item = self.items[number]
            plain += packed_item(number, item)
            if item.what == "file":
                told.append(Entry(item.path, len(item.content), "waiting"))
            number += 1
        size = sum(each.size for each in told)
        after = self.items[number - 1].path if number else b""
        large = None
        if number < len(self.items) and self._is_large(self.items[number]):
            item = self.items[number]
            large = Large(item.path, len(item.content), item.mtime_ns, 1, 1, item.executable)
            self.open[task.handle] = item
        end = number + (large is not None) == len(self.items)
        return Packed(plain, told, number, after, size, large, end)

    def _is_large(self, item: Item) -> bool:
        whole = item.path == b"" or len(item.content) > limits.PACK_FILE_BYTES_MAX
        return item.what == "file" and whole


@dataclass
class Stage:
    """What is at the receiver, and its child."""

    files: dict[bytes, bytearray] = field(default_factory=dict)
    finished: dict[bytes, tuple[int, bool]] = field(default_factory=dict)
    others: dict[bytes, tuple[str, bytes]] = field(default_factory=dict)
    base: dict[bytes, bytes] = field(default_factory=dict)
    open: dict[int, bytes] = field(default_factory=dict)
    refuses: set[bytes] = field(default_factory=set)

    def do(self, task: LaneTask) -> Answer:
        """What the child answers."""
        match task:
            case Unpack():
                return self._unpack(task)
            case OpenEntry():
                return self._open(task)
            case HashRange():
                path = self.open[task.handle]
                data = self.base.get(path, b"") if task.base else bytes(self.files[path])
                return self._hashes(data, task)
            case CopyRange():
                return self._copy(task)
            case FinishEntry():
                path = self.open[task.handle]
                if task.size >= 0:
                    del self.files[path][task.size :]
                self.finished[path] = (task.mtime_ns, task.executable)
                return Done()
        raise AssertionError(task)

    def _unpack(self, task: Unpack) -> Answer:
        fates = []
        size = 0
        found = pack_record.parse(task.plain, task.number)
        for each in found:
            this = each.entry
            if this.what == "file":
                content = b"".join(bytes(piece) for piece in each.pieces)
                size += this.size
                if digest(content) != each.digest:
                    fates.append(Entry(this.path, this.size, "failed", tree.DAMAGED))
                    continue
                self.files[this.path] = bytearray(content)
                self.finished[this.path] = (this.mtime_ns, this.executable)
                fates.append(Entry(this.path, this.size, "verified"))
            elif this.what in ("skipped", "failed"):
                self.files.pop(this.path, None)
                fates.append(Entry(this.path, 0, this.what, this.text.decode()))
            else:
                self.others[this.path] = (this.what, this.text)
        return Unpacked(fates, task.number + len(found), found[-1].entry.path, size)

    def _open(self, task: OpenEntry) -> Answer:
        if task.path in self.refuses:
            return Failed("EEXIST", "the name is taken")
        data = self.files.setdefault(task.path, bytearray())
        if task.size >= 0:
            del data[task.size :]
        self.open[task.handle] = task.path
        base = len(self.base.get(task.path, b"")) if task.base and task.path in self.base else -1
        return EntryOpened(1, len(data), base)

    def _hashes(self, data: bytes, task: HashRange | CopyRange) -> Hashed:
        piece = data[task.offset : task.offset + task.length]
        return Hashed(b"".join(hashes(piece, task.block_bytes)))

    def _copy(self, task: CopyRange) -> Answer:
        path = self.open[task.handle]
        if path not in self.base:
            return Failed("ESTALE", "it is not the same file any more")
        piece = self.base[path][task.offset : task.offset + task.length]
        self.write(path, task.offset, piece)
        return self._hashes(bytes(self.files[path]), task)

    def write(self, path: bytes, offset: int, data: bytes) -> None:
        """Bytes are written, with a hole before them where there was nothing."""
        file = self.files[path]
        file.extend(bytes(max(0, offset - len(file))))
        file[offset : offset + len(data)] = data


def numbers() -> Callable[[], int]:
    """Numbers that nobody else has."""
    counter = iter(range(-1, -(10**9), -1))
    return lambda: next(counter)


class Joined:
    """A sender and a receiver, and all that is between them."""

    def __init__(
        self,
        source: Source,
        stage: Stage,
        rnd: random.Random,
        job: Inbound,
        *,
        asks: bool,
        grown: int | None = None,
    ) -> None:
        """`grown`: it is a single file that has so many bytes by now, and grows."""
        self.source, self.stage, self.rnd = source, stage, rnd
        self.grown = grown
        sends = Outbound(b"/here")
        if grown is not None:
            sends = Outbound(b"/here", then=(grown, 7, 1), growing=True)
        self.sender = Sender(sends, numbers())
        self.sender.start(job.number, job.after, asks)
        self.receiver = Receiver(job, numbers())
        self.plain = memoryview(bytearray(limits.RECORD_PLAIN_BYTES_MAX))
        self.forth: deque[tuple[RecordType, bytes]] = deque()
        self.back: deque[tuple[RecordType, bytes]] = deque()
        self.asked: deque[Pack] = deque()
        self.tasks: deque[LaneTask] = deque()
        self.position = (job.number, job.after, job.bytes_done)
        self.sent: list[Entry] = []
        self.arrived: list[Entry] = []
        self.written = 0
        self.puts: list[tuple[RecordType, bytes]] = []
        self.ended = self.finished = False

    def step(self) -> bool:
        """Do something that can be done; False where nothing can."""
        acts = [self._send, self._pack, self._hear, self._take, self._work, self._grow]
        self.rnd.shuffle(acts)
        return any(act() for act in acts)

    def run(self, steps: int = 1_000_000) -> None:
        """Go on to the end, or for so many steps."""
        while steps and not (self.finished and self.ended and not self.back):
            assert self.step(), "nothing can be done, and it is not the end"
            steps -= 1

    # -- the sender ----------------------------------------------------------------------

    def _send(self) -> bool:
        if len(self.forth) > 3 or self.ended:
            return False
        want = self.sender.next()
        match want:
            case Do(task):
                assert isinstance(task, Pack)
                self.asked.append(task)
            case Put(type, plain):
                self._put(type, plain)
                self.sender.put()
            case Read():
                self._read(want)
            case Close(handle):
                del self.source.open[handle]
            case Wait():
                return False
            case End():
                self._put(RecordType.END, b"")
                self.ended = True
        report = self.sender.take_report()
        if report is not None:
            self.sent += report.entries
        return True

    def _put(self, type: RecordType, plain: bytes) -> None:
        self.forth.append((type, plain))
        self.puts.append((type, plain))

    def _read(self, want: Read) -> None:
        item = self.source.open[want.handle]
        if item.path in self.source.broken and (want.last or self.rnd.random() < 0.2):
            self.sender.lost(CHANGED)
            return
        assert self.grown is None or want.offset + want.length <= self.grown
        data = item.content[want.offset : want.offset + want.length]
        assert len(data) == want.length
        self.plain[CHUNK.size : CHUNK.size + len(data)] = data
        length = self.sender.took(self.plain)
        if length:
            self._put(RecordType.CHUNKS, bytes(self.plain[:length]))

    def _grow(self) -> bool:
        if self.grown is None:
            return False
        size = len(self.source.items[0].content)
        whole = self.grown == size
        self.grown = min(size, self.grown + self.rnd.choice((1, 5, 32, 100)))
        self.sender.grew(self.grown, whole=whole)
        if whole:
            self.grown = None
        return True

    def _pack(self) -> bool:
        if not self.asked:
            return False
        task = self.asked.popleft()
        self.sender.packed(self.source.pack(task), task.handle)
        return True

    def _hear(self) -> bool:
        if not self.back:
            return False
        type, plain = self.back.popleft()
        self.sender.told(type, memoryview(plain))
        return True

    # -- the receiver --------------------------------------------------------------------

    def _take(self) -> bool:
        if not self.forth or not self.receiver.hungry:
            return False
        type, plain = self.forth.popleft()
        for write in self.receiver.take(Record(type, memoryview(plain))):
            self.stage.write(self.stage.open[write.handle], write.offset, bytes(write.data))
        self._go_on()
        return True

    def _work(self) -> bool:
        if not self.tasks:
            return False
        task = self.tasks.popleft()
        self.receiver.answered(task, self.stage.do(task))
        self._go_on()
        return True

    def _go_on(self) -> None:
        while (step := self.receiver.next()) is not None:
            assert not self.finished
            match step:
                case Do(task):
                    self.tasks.append(task)
                case Put(type, plain):
                    self.back.append((type, plain))
                case Close(handle):
                    del self.stage.open[handle]
                case Entries(entries, number, after, bytes_done):
                    self.arrived += entries
                    self.position = (number, after, bytes_done)
                case Written(size):
                    self.written += size
                case Finished():
                    self.finished = True
        assert self.receiver.working == bool(self.tasks) or self.finished
        if self.rnd.random() < 0.1 and not self.finished:
            self.back.append((RecordType.PROGRESS, self.receiver.progress()))


def inbound(items: list[Item], **changes: object) -> Inbound:
    """What takes a tree of these, from the beginning."""
    fields: dict[str, object] = {
        "folder": FOLDER,
        "stage": STAGE,
        "tree": [each.path for each in items] != [b""],
        "size_max": sum(len(each.content) for each in items if each.what == "file"),
        "number": 0,
        "after": b"",
        "bytes_done": 0,
        "asks": False,
    }
    return Inbound(**{**fields, **changes})  # type: ignore[arg-type]
