"""The two ends of a lane: each with another side that has gone bad, and both with each other.

What holds always: a file is finished only with the bytes whose digest was told, whatever was
said, and in which order; no end keeps more than it has a limit for.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import count

from tntd import limits
from tntd.effects import Inbound
from tntd.errors import RemoteError
from tntd.machines import pack_record, records
from tntd.machines.lane_steps import (
    Close,
    Do,
    Entries,
    Finished,
    LaneTrouble,
    Put,
    Written,
)
from tntd.machines.receiving import Receiver
from tntd.machines.records import CHUNK, ChunkKind, Opener, Record, RecordReader, RecordType, Sealer
from tntd.tasks import OpenEntry

from .source import Source
from .target import Target, scenarios
from .tree_disk import BLOCK, Disk, LaneTask, content, digest, small_blocks

KEY = b"k" * 32
CODES = {"malformed", "authentication"}
TROUBLES = {"hash", "cut", "stall", "storage", "away", "source", "size"}
SIZES = (0, 5, BLOCK, 20, 37, 37, 40, 2**63 - 1)
PATHS = (b"a", b"b/c", b"\xff", b"..", b"x" * 300)
WHATS = ("file", "folder", "folder_end", "link", "skipped", "failed")


class Taking:
    """A receiver, the child behind it, and what holds of both."""

    def __init__(self, source: Source, job: Inbound) -> None:
        self.source = source
        self.job = job
        self.disk = Disk(source)
        self.disk.check_finish = self._check
        numbers = count(1)
        self.receiver = Receiver(job, lambda: next(numbers))
        self.tasks: list[LaneTask] = []
        self.said: list[Put] = []
        self.done = False
        self._current = 0  # handle of the file that is open last
        self._closed: set[int] = set()  # handles of files that the child may still be at work on
        self._claimed: dict[int, bytes] = {}
        self._at = (job.number, job.bytes_done)

    def feed(self, record: Record) -> None:
        """A record, if it may be taken now; else it waits in the socket, and is lost here."""
        if not self.receiver.hungry:
            return
        ends = []
        if record.type is RecordType.CHUNKS:
            with suppress(RemoteError):
                chunks = records.split(record.plain)
                ends = [bytes(each.data) for each in chunks if each.kind is ChunkKind.FILE_END]
        for end in ends[:1]:
            self._claimed[self._current] = records.FILE_END.unpack(end)[1]
        for write in self.receiver.take(record):
            assert write.handle not in self._closed, "a write to a file that was closed"
            self.disk.write(write.handle, write.offset, bytes(write.data))
        self._follow()
        self._let_go()

    def answer(self) -> None:
        """The child answers: in the order of the tasks."""
        if self.tasks:
            task = self.tasks.pop(0)
            self.receiver.answered(task, self.disk.answer(task))
            self._follow()
            self._let_go()

    def _let_go(self) -> None:
        """What was closed goes with the last task for it, which has a descriptor of its own."""
        for handle in self._closed - {getattr(task, "handle", 0) for task in self.tasks}:
            self._closed.discard(handle)
            self.disk.open.pop(handle, None)

    def _follow(self) -> None:
        while (step := self.receiver.next()) is not None:
            match step:
                case Do(task):
                    self.tasks.append(task)
                    if isinstance(task, OpenEntry):
                        self._current = task.handle
                case Put(type, plain):
                    assert type in records.SENDER_TAKES
                    assert len(plain) <= records.PLAIN_BYTES_MAX[type]
                    self.said.append(step)
                case Close(handle):
                    self._closed.add(handle)
                case Entries():
                    assert step.number == 0 or step.number > 0
                    assert 0 <= step.bytes_done <= max(self.job.size_max, self.job.bytes_done)
                    self._at = (step.number, step.bytes_done)
                case Finished():
                    assert not self.tasks
                    self.done = True
                case Written():
                    assert step.size >= 0
        assert len(self.tasks) <= limits.LANE_UNPACKS_MAX + 2 * limits.LANE_COPIES_MAX
        assert self.receiver.position[0] == self._at[0]
        assert self.receiver.bytes_done <= max(self.job.size_max, self.job.bytes_done)

    def _check(self, handle: int, data: bytes) -> None:
        assert digest(data) == self._claimed[handle], "a file that is not what was told"


def job_of(source: Source) -> Inbound:
    """What may have been agreed."""
    tree = not source.one_in(4)
    number = source.pick((0, 0, 3)) if tree else 0
    return Inbound(
        folder=b"/d",
        stage=b"s",
        tree=tree,
        size_max=source.pick((600, 600, 40, 2**63 - 1)),
        number=number,
        after=b"a" if number else b"",
        bytes_done=5 if number else 0,
        asks=bool(source.below(2)),
        base=b"/old" if source.below(2) else b"",
    )


# -- a bad sender ----------------------------------------------------------------------------


class BadSender:
    """Records that mostly could be, in an order that mostly could be."""

    def __init__(self, taking: Taking) -> None:
        self.taking = taking
        self.source = taking.source
        self.number = taking.job.number
        self.path = b""
        self.size = -1  # of the file that is open; -1: none
        self.at = 0

    def record(self) -> Record:
        """The next one."""
        source = self.source
        if source.one_in(12):
            type = source.pick(list(RecordType))
            return Record(type, memoryview(source.take(source.below(80))))
        if self.size >= 0:
            return self._chunks(self._piece())
        match source.below(6):
            case 0 | 1:
                return self._chunks(self._begin())
            case 2 | 3:
                return self._pack()
            case 4:
                return Record(RecordType.ALIVE, memoryview(b""))
            case _:
                return Record(RecordType.END, memoryview(b""))

    def _chunks(self, plain: bytes) -> Record:
        if self.size < 0 and self.source.below(2):
            plain += self._begin()
        return Record(RecordType.CHUNKS, memoryview(plain))

    def _next(self) -> int:
        if self.source.one_in(12):
            self.number = self.source.pick((0, 0, 1, 2**32 - 2, 2**32 - 1))
        number, self.number = self.number, min(self.number + 1, 2**32 - 1)
        return number

    def _begin(self) -> bytes:
        self.path = self.source.pick(PATHS) if self.taking.job.tree else b""
        self.size, self.at = self.source.pick(SIZES), 0
        number = self._next()
        body = pack_record.encode_entry("file", self.path, self.size, 1, False, b"")
        return records.entry_chunk(number, body)

    def _piece(self) -> bytes:
        """Bytes of the file, a jump, its end, or that it failed."""
        source, number = self.source, max(0, self.number - 1)
        data = content(self.path, min(self.size, 80))
        if source.one_in(5) and self.at % BLOCK == 0:  # what is behind is there, it says
            self.at = min(len(data), (self.at // BLOCK + 1 + source.below(2)) * BLOCK)
        if self.at < len(data) and not source.one_in(8):
            left = len(data) - self.at
            length = min(left, source.pick((BLOCK, BLOCK, 2 * BLOCK, 1 + source.below(24))))
            piece, at = data[self.at : self.at + length], self.at
            self.at += length
            return CHUNK.pack(ChunkKind.DATA, number, at, len(piece)) + piece
        if source.one_in(6):
            body = pack_record.encode_entry("failed", self.path, 0, 0, False, b"gone")
            self.size = -1
            return records.entry_chunk(number, body)
        told = digest(data) if not source.one_in(8) else b"x" * 32
        end = bytearray(records.FILE_END_BYTES)
        records.put_file_end(memoryview(end), 0, number, self.size, told)
        self.size = -1
        return bytes(end)

    def _pack(self) -> Record:
        plain = b""
        for _ in range(1 + self.source.below(4)):
            number = self._next()
            plain += packed_entry(self.source, number)
        return Record(RecordType.PACK, memoryview(plain))


def packed_entry(source: Source, number: int) -> bytes:
    """An entry of a PACK record, mostly a good one."""
    what, path = source.pick(WHATS), source.pick(PATHS)
    size = source.pick(SIZES[:7]) if what == "file" else source.pick(SIZES)
    body = pack_record.encode_entry(what, path, size, 1, False, b"x")  # type: ignore[arg-type]
    plain = records.entry_chunk(number, body)
    if what == "file":
        data = content(path, size)
        if data:
            plain += CHUNK.pack(ChunkKind.DATA, number, 0, size) + data
        end = bytearray(records.FILE_END_BYTES)
        records.put_file_end(memoryview(end), 0, number, size, digest(data))
        plain += end
    return plain


def receiving(data: bytes) -> None:
    """A receiver and a bad sender."""
    source = Source(data)
    with small_blocks():
        taking = Taking(source, job_of(source))
        sender = BadSender(taking)
        try:
            while source.left and not taking.done:
                if source.below(2):
                    taking.answer()
                elif taking.receiver.hungry:
                    taking.feed(sender.record())
        except RemoteError as error:
            assert error.code in CODES, error
        except LaneTrouble as trouble:
            assert trouble.code in TROUBLES, trouble


# -- any bytes -----------------------------------------------------------------------------


def lane(data: bytes) -> None:
    """A lane's stream: first what a stranger sends, then (sealed) what a bad contact does."""
    source = Source(data)
    takes = source.pick((records.RECEIVER_TAKES, records.SENDER_TAKES))
    opener = Opener(KEY, takes)
    reader, plain = RecordReader(opener), memoryview(bytearray(opener.plain_bytes_max))
    sealer, out = Sealer(KEY), memoryview(bytearray(records.RECORD_BYTES_MAX))
    taking = Taking(source, job_of(source))
    try:
        while source.left:
            kind = source.pick([*RecordType, None])
            content = source.take(source.below(200))
            if kind is None:
                stream = content  # not sealed
            elif len(content) <= records.PLAIN_BYTES_MAX[kind]:
                stream = bytes(out[: sealer.seal(kind, memoryview(content), out)])
            else:
                continue
            _read_records(reader, taking, stream, plain)
    except RemoteError as error:
        assert error.code in CODES, error
    except LaneTrouble as trouble:
        assert trouble.code in TROUBLES, trouble


def _read_records(reader: RecordReader, taking: Taking, stream: bytes, plain: memoryview) -> None:
    while stream:
        room = reader.room()
        piece = stream[: len(room)]
        room[: len(piece)] = piece
        reader.filled(len(piece))
        stream = stream[len(piece) :]
        while (record := reader.next(plain)) is not None:
            _use(record, taking)


def _use(record: Record, taking: Taking) -> None:
    if record.type is RecordType.HAVE:
        have = records.read_have(record.plain)
        assert have.first + len(have.hashes) // records.HASH_BYTES <= have.blocks
    elif record.type is RecordType.PROGRESS:
        done, _ = records.read_progress(record.plain)
        assert 0 <= done <= limits.TREE_BYTES_MAX
    else:
        taking.feed(record)
        while taking.tasks:
            taking.answer()


def _lane_seeds() -> list[bytes]:
    types = list(RecordType)

    def sealed(type: RecordType, plain: bytes) -> bytes:
        return bytes([types.index(type), len(plain)]) + plain

    head = b"\0" + bytes(5)  # what the lane takes, and what was agreed
    body = pack_record.encode_entry("file", b"a", 3, 1, False, b"")
    begin = records.entry_chunk(0, body)
    end = bytearray(records.FILE_END_BYTES)
    records.put_file_end(memoryview(end), 0, 0, 3, digest(b"abc"))
    rest = CHUNK.pack(ChunkKind.DATA, 0, 0, 3) + b"abc" + bytes(end)
    whole = [(RecordType.CHUNKS, begin), (RecordType.CHUNKS, rest), (RecordType.END, b"")]
    have = records.have(0, 2, 0, bytes(64))
    return [
        head + b"".join(sealed(*each) for each in whole),
        head + sealed(RecordType.PACK, packed_entry(Source(b"\0\0\1"), 0)),
        b"\1" + bytes(5) + sealed(RecordType.HAVE, have),
        b"\1" + bytes(5) + sealed(RecordType.PROGRESS, records.PROGRESS.pack(5, 1)),
    ]


def pack(data: bytes) -> None:
    """A PACK record, as the child reads it."""
    number = int.from_bytes(data[:4], "big")
    try:
        found = pack_record.parse(data[4:], number)
    except RemoteError as error:
        assert error.code == "malformed", error
        return
    assert 0 < len(found) <= limits.LANE_CHUNKS_MAX
    assert number + len(found) <= limits.TREE_ENTRIES_MAX
    for each in found:
        size = sum(len(piece) for piece in each.pieces)
        assert size == (each.entry.size if each.entry.what == "file" else 0)
        fields = (getattr(each.entry, name) for name in each.entry.__struct_fields__)
        encoded = pack_record.encode_entry(*fields)
        assert pack_record.decode_entry(memoryview(encoded)) == each.entry


def _pack_seeds() -> list[bytes]:
    sources = [Source(seed) for seed in scenarios()[:6]]
    return [
        b"\0\0\0\7" + b"".join(packed_entry(source, 7 + at) for at in range(3))
        for source in sources
    ]


RECEIVER_TARGETS = (
    Target("lane", lane, _lane_seeds),
    Target("pack", pack, _pack_seeds),
    Target("receiving", receiving, scenarios, 1000),
)
