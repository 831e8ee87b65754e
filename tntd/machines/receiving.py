"""The receiving end of a lane: what comes is checked, and becomes writes and tasks for the child.

Give it each record (`take`), which answers with what is to be written at once, and each answer of
the child (`answered`); after each, ask `next` until there is nothing:

    Do(task)     give it to the child
    Put          send this record
    Close        an open file is not needed any more
    Entries      tell the node what became of entries, and how far all is
    Written      so many bytes were written by the child, for whoever counts them
    Finished     all is here, and was told to the sender

What holds always:
- A record is checked as a whole before any of it is used.  Nothing from the other side is believed:
  RemoteError("malformed") for what breaks the rules, LaneTrouble("hash") for bytes that are not
  what the sender says, and no more bytes than were agreed.
- `hungry` tells whether the next record may be taken: not while a large file is being opened, and
  what is here of it hashed; not while the child has LANE_UNPACKS_MAX records.
- Entries are counted in order: the position stands before the first that is not done.

A file that cannot be opened for a reason of its own (its name is taken, say) fails, its bytes are
thrown away, and the rest goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tntd import limits
from tntd.effects import Inbound
from tntd.errors import RemoteError
from tntd.machines import pack_record, records
from tntd.machines.arriving import Arriving, storage_trouble
from tntd.machines.lane_steps import (
    Close,
    Do,
    Entries,
    Finished,
    LaneTask,
    LaneTrouble,
    Put,
    Step,
    Write,
    Written,
)
from tntd.machines.pack_record import TreeEntry
from tntd.machines.records import FILE_END, Chunk, ChunkKind, Record, RecordType
from tntd.tasks import (
    Answer,
    CopyRange,
    Entry,
    Failed,
    FinishEntry,
    HashRange,
    OpenEntry,
    Unpack,
    Unpacked,
)


@dataclass(slots=True, eq=False)
class _Item:
    """Entries that came, a record of small ones or a large file, until they are done."""

    number: int
    anew: bool  # the walk began anew with it
    size: int = 0  # bytes of files, as far as they are known
    at: int = 0  # of these, what is done
    entries: tuple[Entry, ...] = ()
    behind: int = 0  # number of the entry behind; 0: not known yet
    after: bytes = b""
    done: bool = False
    handle: int = 0  # of a large file


@dataclass(slots=True, eq=False)
class _Large:
    """A large file, and its item."""

    item: _Item
    file: Arriving


class Receiver:
    """What one lane takes.  `new_number` gives numbers for open files that nobody else has."""

    def __init__(self, job: Inbound, new_number: Callable[[], int]) -> None:
        self._job = job
        self._new_number = new_number
        self._number = job.number
        self._after = job.after
        self._settled = job.bytes_done  # of what is before `number`
        self._items: deque[_Item] = deque()
        self._packs: deque[_Item] = deque()  # those that the child unpacks
        self._open: _Large | None = None  # its end has not come yet
        self._large: dict[int, _Large] = {}  # all that the child may answer for, by handle
        self._steps: deque[Step] = deque()
        self._restarts = 0
        self._ended = False
        self.bytes_received = 0  # file data that came over this lane
        self.bytes_reused = 0  # taken from an older copy
        self.digest = b""  # of a single file, once it is whole

    @property
    def hungry(self) -> bool:
        """Whether the next record may be taken."""
        if self._open is not None:
            return self._open.file.hungry
        return not self._ended and len(self._items) < limits.LANE_UNPACKS_MAX

    @property
    def working(self) -> bool:
        """Whether the child has something to do for us."""
        count = sum(not item.done for item in self._items)
        if self._open is None or not self._open.file.ready:
            return count > 0
        return count > 1 or self._open.file.copying

    @property
    def position(self) -> tuple[int, bytes, int]:
        """The next entry's number, the path of the last, and the bytes that are done with it."""
        return self._number, self._after, self._settled

    @property
    def bytes_done(self) -> int:
        """Bytes of the transfer that are here, also of what is not whole."""
        total = self._settled
        for item in self._items:
            total = item.at if item.anew else total + item.at
        return total

    def progress(self) -> bytes:
        """The plaintext of a PROGRESS record."""
        return records.PROGRESS.pack(self.bytes_done, self._number)

    def next(self) -> Step | None:
        """What is to be done next, each thing once."""
        return self._steps.popleft() if self._steps else None

    # -- records -------------------------------------------------------------------------

    def take(self, record: Record) -> list[Write]:
        """A record came, while `hungry`; what is to be written of it.

        Raises RemoteError("malformed"), LaneTrouble("hash", "size").
        """
        if record.type is RecordType.CHUNKS and not self._ended:
            chunks = records.split(record.plain)
            return self._use(chunks, self._check(chunks))
        if record.type is RecordType.ALIVE:
            return []
        if self._ended or self._open is not None:
            raise RemoteError("malformed", f"a record {record.type.name} out of place")
        if record.type is RecordType.PACK:
            self._take_pack(record.plain)
        elif record.type is RecordType.END:
            self._take_end()
        else:
            raise RemoteError("malformed", f"a record {record.type.name} out of place")
        return []

    def _take_pack(self, plain: memoryview) -> None:
        number = records.first_entry(plain)
        if not self._job.tree:
            raise RemoteError("malformed", "small files in the place of one file")
        self._unpack(self._add(number), bytes(plain))

    def _unpack(self, item: _Item, plain: bytes) -> None:
        self._packs.append(item)
        job = self._job
        self._steps.append(Do(Unpack(job.folder, job.stage, item.number, plain, job.again)))

    def _take_end(self) -> None:
        if not self._job.tree and not self._items and not self._number:
            raise RemoteError("malformed", "the end of a file that did not come")
        self._ended = True
        self._settle()

    def _add(self, number: int) -> _Item:
        """Entries from `number` on came.  Raises RemoteError where they cannot be the next."""
        due = self._items[-1].behind if self._items else self._number
        known = bool(due or not self._items)
        if known and number not in (due, 0):
            raise RemoteError("malformed", f"entry {number} instead of {due}")
        anew = number == 0 and bool(self._items or self._number)
        if anew:
            self._restarts += 1
            if self._restarts > limits.LANE_RESTARTS_MAX:
                raise RemoteError("malformed", "a tree that begins anew again and again")
        item = _Item(number, anew)
        self._items.append(item)
        return item

    # -- chunks of large files -----------------------------------------------------------

    def _check(self, chunks: list[Chunk]) -> TreeEntry | None:
        """Whether each chunk may come where it stands; the entry at the end, if there is one."""
        file = self._open.file if self._open is not None else None
        at = file.at if file is not None else 0
        for index, (kind, number, offset, data) in enumerate(chunks):
            if kind is ChunkKind.ENTRY:
                if index != len(chunks) - 1 or offset:
                    raise RemoteError("malformed", "an entry that does not end its record")
                return self._check_entry(number, pack_record.decode_entry(data), file)
            if file is None or number != file.number:
                raise RemoteError("malformed", f"a chunk {kind.name} of entry {number}")
            if kind is ChunkKind.DATA:
                file.check_jump(at, offset)
                at = offset + len(data)
                self._check_end(file, at)
            else:
                size = FILE_END.unpack(data)[0]
                end = size if file.size is None else file.size
                file.check_jump(at, end)
                if offset or size != end:
                    raise RemoteError("malformed", f"the end of a file at {offset}")
                self._check_end(file, end)
                file = None
        return None

    def _check_end(self, file: Arriving, end: int) -> None:
        """A file that grows is the only one, so it may have all that was agreed."""
        if file.size is None and end > self._job.size_max:
            raise LaneTrouble("size", f"more than the {self._job.size_max} bytes agreed")
        if file.size is not None and end > file.size:
            raise RemoteError("malformed", f"more than the {file.size} bytes of it")

    def _check_entry(self, number: int, entry: TreeEntry, file: Arriving | None) -> TreeEntry:
        tree = self._job.tree
        if file is None:
            kinds = ("file",) if tree else ("file", "growing")
            if entry.what not in kinds or bool(entry.path) != tree:
                raise RemoteError("malformed", f"a {entry.what} that is no large file")
            if not tree and (number or self._number or self._items):
                raise RemoteError("malformed", "a second file in the place of one")
            if number >= limits.TREE_ENTRIES_MAX:
                raise RemoteError("malformed", "more entries than can be counted")
        elif not tree or (entry.what, entry.path, number) != (
            "failed",
            file.entry.path,
            file.number,
        ):
            raise RemoteError("malformed", f"a {entry.what} in the middle of a file")
        return entry

    def _use(self, chunks: list[Chunk], entry: TreeEntry | None) -> list[Write]:
        """Use chunks that were checked."""
        writes: list[Write] = []
        for kind, number, offset, data in chunks:
            large = self._open
            if large is None:
                assert entry is not None
                self._begin(number, entry)
            elif kind is ChunkKind.DATA:
                large.file.data(offset, data)
                large.item.at = large.file.at
                large.item.size = max(large.item.size, large.item.at)
                self.bytes_received += len(data)
                if not large.file.refused:
                    writes.append(Write(large.file.handle, offset, data))
            elif kind is ChunkKind.FILE_END:
                self._end_file(large, *FILE_END.unpack(data))
            else:
                self._drop(large, bytes(data))
        return writes

    def _begin(self, number: int, entry: TreeEntry) -> None:
        item = self._add(number)
        item.size, item.behind, item.after = entry.size, number + 1, entry.path
        self._check_sizes()
        file = Arriving(self._job, number, entry, self._new_number(), self._steps)
        item.handle = file.handle
        self._open = self._large[file.handle] = _Large(item, file)

    def _end_file(self, large: _Large, size: int, digest: bytes) -> None:
        large.file.end(size, digest)
        large.item.size = large.item.at = size
        self._open = None
        if not self._job.tree:
            self.digest = digest
        if large.file.refused:
            self._file_done(large, "failed", large.file.refused)

    def _drop(self, large: _Large, body: bytes) -> None:
        """The sender has given it up: the child takes it away, as it does with each entry that
        failed.  But what stands there where we could not open it is not ours to take away."""
        self._open = None
        large.item.size = large.item.at
        if large.file.refused:
            self._file_done(large, "failed", large.file.refused)
            return
        large.file.drop()
        self._unpack(large.item, records.entry_chunk(large.item.number, body))

    def _file_done(self, large: _Large, state: str, reason: str) -> None:
        del self._large[large.file.handle]
        entry = large.file.entry
        large.item.entries = (Entry(entry.path, large.file.size or 0, state, reason),)
        large.item.done = True
        self._settle()

    # -- answers -------------------------------------------------------------------------

    def answered(self, task: LaneTask, answer: Answer) -> None:
        """The child answered; a file that was opened is open under its handle.

        Raises RemoteError("malformed"), LaneTrouble.
        """
        match task:
            case Unpack():
                self._unpacked(task, answer)
            case FinishEntry():
                self._finished(self._large[task.handle], answer)
            case OpenEntry() | HashRange() | CopyRange():
                file = self._large[task.handle].file
                before = file.reused
                file.answered(task, answer)
                self.bytes_reused += file.reused - before
            case _:
                raise AssertionError(f"an answer to {task!r}")

    def _finished(self, large: _Large, answer: Answer) -> None:
        if isinstance(answer, Failed):
            raise storage_trouble(answer)
        self._steps.append(Close(large.file.handle))
        self._file_done(large, "verified", "")

    def _unpacked(self, task: Unpack, answer: Answer) -> None:
        if isinstance(answer, Failed):
            if answer.code == "EBADMSG":
                raise RemoteError("malformed", f"a record of small files: {answer.text}")
            raise storage_trouble(answer)
        assert isinstance(answer, Unpacked)
        item = self._packs.popleft()
        assert item.number == task.number, "answers come in the order of the tasks"
        self._large.pop(item.handle, None)
        self.bytes_received += answer.bytes
        item.size += answer.bytes
        item.at += answer.bytes
        item.entries, item.behind, item.after = tuple(answer.entries), answer.number, answer.after
        item.done = True
        self._check_behind(item)
        self._steps.append(Written(len(task.plain)))
        self._check_sizes()
        self._settle()

    # -- the position --------------------------------------------------------------------

    def _check_behind(self, item: _Item) -> None:
        """Whether what came behind `item`, before its end was known, may stand there."""
        index = self._items.index(item) + 1
        if index < len(self._items) and self._items[index].number not in (item.behind, 0):
            number = self._items[index].number
            raise RemoteError("malformed", f"entry {number} instead of {item.behind}")

    def _check_sizes(self) -> None:
        total = self._settled
        for item in self._items:
            total = item.size if item.anew else total + item.size
        if total > self._job.size_max:
            text = f"more than the {self._job.size_max} bytes agreed"
            if self._job.tree:
                raise LaneTrouble("size", text)  # a folder may grow
            raise RemoteError("malformed", text)

    def _settle(self) -> None:
        """Pass over what is done.  A single file is told with its end only, so that nobody believes
        that it is done who does not know its digest."""
        while self._items and self._items[0].done and (self._job.tree or self._ended):
            item = self._items.popleft()
            self._settled = item.size if item.anew else self._settled + item.size
            self._number, self._after = item.behind, item.after
            self._steps.append(
                Entries(item.entries, item.behind, item.after, self._settled, item.anew)
            )
        if self._ended and not self._items:
            self._steps.append(Put(RecordType.PROGRESS, self.progress()))
            self._steps.append(Finished())
