"""Both machines of a lane together: what arrives is what was sent, and all that is bad refused."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lane_model import (
    Item,
    Joined,
    Source,
    Stage,
    chunk,
    digest,
    entry,
    file_end,
    inbound,
    numbers,
    packed_item,
    small_limits,
)
from tntd import limits
from tntd.effects import Inbound
from tntd.errors import RemoteError
from tntd.machines import records
from tntd.machines.lane_steps import Do, Entries, Finished, LaneTrouble, Put
from tntd.machines.receiving import Receiver
from tntd.machines.records import ChunkKind, Record, RecordType
from tntd.tasks import Entry, EntryOpened, Failed, Hashed, OpenEntry

patient = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """Small blocks."""
    with small_limits():
        yield


# A content of few different blocks, so that blocks of different contents are often the same.
contents = st.one_of(
    st.just(b""),
    st.binary(max_size=20),
    st.lists(st.sampled_from([b"a" * 16, b"b" * 16, b"c" * 7, b"d" * 40]), max_size=12).map(
        b"".join
    ),
    st.binary(min_size=21, max_size=600),
)


@st.composite
def trees(draw: st.DrawFn) -> list[Item]:
    """The entries of a tree, as a walk finds them."""
    items = [Item("folder", b"")]
    for number in range(draw(st.integers(0, 12))):
        path = b"f%d" % number
        what = draw(st.sampled_from(["file", "file", "file", "folder", "link", "skipped"]))
        if what == "file":
            items.append(Item("file", path, draw(contents), number, number % 2 == 0))
        elif what == "folder":
            items += [Item("folder", path), Item("folder_end", path)]
        elif what == "link":
            items.append(Item("link", path, b"f0"))
        else:
            items.append(Item("skipped", path, b"it is a pipe, not a file"))
    return [*items, Item("folder_end", b"")]


def same(items: list[Item], stage: Stage, left_out: set[bytes] = frozenset()) -> None:  # type: ignore[assignment]
    """The stage is the tree."""
    files = {each.path: each for each in items if each.what == "file"}
    assert {path: bytes(data) for path, data in stage.files.items()} == {
        path: each.content for path, each in files.items() if path not in left_out
    }
    for path, each in files.items():
        if path not in left_out:
            assert stage.finished[path] == (each.mtime_ns, each.executable)
    for each in items:
        if each.what in ("folder", "link"):
            assert each.path in stage.others


def large_of(items: list[Item]) -> set[bytes]:
    """The paths of large files."""
    files = [each for each in items if each.what == "file"]
    return {each.path for each in files if len(each.content) > limits.PACK_FILE_BYTES_MAX}


@patient
@given(trees(), st.integers(0, 2**32))
def test_a_tree_arrives(items: list[Item], seed: int) -> None:
    rnd, stage = random.Random(seed), Stage()
    joined = Joined(Source(items, rnd), stage, rnd, inbound(items), asks=False)
    joined.run()
    same(items, stage)
    size = sum(len(each.content) for each in items if each.what == "file")
    assert joined.receiver.bytes_done == size == joined.sender.bytes_done == joined.sender.size
    assert joined.sender.bytes_sent == size == joined.receiver.bytes_received
    assert joined.position == (len(items), items[-1].path, size)
    paths = [each.path for each in items if each.what == "file"]
    assert [each.path for each in joined.arrived if each.state == "verified"] == paths
    assert [each.path for each in joined.sent if each.state == "waiting"] == paths
    assert not stage.open and not joined.source.open and not joined.back
    assert joined.receiver.digest == b"" == joined.sender.digest


@patient
@given(contents, st.integers(0, 2**32), st.booleans())
def test_a_single_file_arrives(content: bytes, seed: int, asks: bool) -> None:
    items, rnd, stage = [Item("file", b"", content)], random.Random(seed), Stage()
    joined = Joined(Source(items, rnd), stage, rnd, inbound(items, asks=asks), asks=asks)
    joined.run()
    same(items, stage)
    assert joined.receiver.digest == digest(content) == joined.sender.digest
    assert joined.position == (1, b"", len(content))


@patient
@given(trees(), st.integers(0, 2**32), st.data())
def test_cuts_anywhere_and_what_was_there_is_anything(
    items: list[Item], seed: int, data: st.DataObject
) -> None:
    """A lane is cut; what is at the receiver is damaged, lost or right; the next goes on from
    the position that was told, or an earlier one."""
    rnd, stage = random.Random(seed), Stage()
    job, known = inbound(items), [(0, b"", 0)]
    for _ in range(data.draw(st.integers(1, 3))):
        joined = Joined(Source(items, rnd), stage, rnd, job, asks=job.asks)
        for _ in range(data.draw(st.integers(0, 80))):
            if joined.finished and joined.ended and not joined.back:
                break
            assert joined.step()
            if joined.position != known[-1]:
                known.append(joined.position)
        stage.open.clear()
        number, after, done = known[data.draw(st.integers(0, len(known) - 1))]
        known = [each for each in known if each[0] <= number]
        behind = {each.path for each in items[number:]}
        for path in sorted(set(stage.files) & behind):
            file = stage.files[path]
            act = rnd.randrange(4)
            if act == 0 and file:
                file[rnd.randrange(len(file))] ^= 1
            elif act == 1:
                del file[rnd.randrange(len(file) + 1) :]
            elif act == 2:
                file.extend(rnd.randbytes(rnd.randrange(40)))
        job = replace(job, number=number, after=after, bytes_done=done, asks=True)
    joined = Joined(Source(items, rnd), stage, rnd, job, asks=True)
    joined.run()
    same(items, stage)
    assert joined.receiver.bytes_done == job.size_max


@patient
@given(contents, contents, st.integers(0, 2**32), st.data())
def test_an_older_copy_saves_its_blocks(
    content: bytes, older: bytes, seed: int, data: st.DataObject
) -> None:
    part = content[: data.draw(st.integers(0, len(content)))]
    items, rnd = [Item("file", b"", content)], random.Random(seed)
    stage = Stage({b"": bytearray(part)}, base={b"": older})
    job = inbound(items, asks=True, base=b"/there/older", base_ctime_ns=5)
    joined = Joined(Source(items, rnd), stage, rnd, job, asks=True)
    joined.run()
    same(items, stage)
    sent, reused = joined.sender.bytes_sent, joined.receiver.bytes_reused
    assert joined.receiver.bytes_received == sent and joined.written == reused
    length, fresh = 16 * (1 + (len(content) > 256)), 0
    length *= 1 + (len(content) > 512)
    kept = len(part) // length * length if len(part) < len(content) else len(part)
    for at in range(0, len(content), length):
        block = content[at : at + length]
        in_base = at >= kept and older[at : at + len(block)] == block
        fresh += 0 if at < kept or in_base else len(block)
    assert sent == fresh
    if older == content:
        assert sent == 0 and reused == len(content) - kept


@patient
@given(trees(), st.integers(0, 2**32), st.booleans())
def test_large_files_that_change_fail_alone(items: list[Item], seed: int, asks: bool) -> None:
    rnd, stage = random.Random(seed), Stage()
    source = Source(items, rnd)
    large = large_of(items)
    source.broken = {path for path in large if rnd.random() < 0.5}
    joined = Joined(source, stage, rnd, inbound(items, asks=asks), asks=asks)
    joined.run()
    same(items, stage, source.broken)
    for told in (joined.sent, joined.arrived):
        assert {each.path for each in told if each.state == "failed"} == source.broken
    assert not stage.open and not source.open


@patient
@given(trees(), st.integers(0, 2**32), st.booleans())
def test_names_that_are_taken_fail_alone(items: list[Item], seed: int, asks: bool) -> None:
    rnd, stage = random.Random(seed), Stage()
    large = large_of(items)
    stage.refuses = {path for path in large if rnd.random() < 0.5}
    source = Source(items, rnd)
    source.broken = {path for path in large if rnd.random() < 0.2}
    joined = Joined(source, stage, rnd, inbound(items, asks=asks), asks=asks)
    joined.run()
    same(items, stage, source.broken | stage.refuses)
    failed = {each.path for each in joined.arrived if each.state == "failed"}
    assert failed == source.broken | stage.refuses


@patient
@given(trees(), trees(), st.integers(0, 2**32), st.integers(0, 60))
def test_a_folder_that_changes_is_walked_anew(
    items: list[Item], other: list[Item], seed: int, steps: int
) -> None:
    rnd, stage = random.Random(seed), Stage()
    source = Source(items, rnd)
    more = sum(len(each.content) for each in items + other)
    joined = Joined(source, stage, rnd, inbound(items, size_max=more), asks=False)
    for _ in range(steps):
        if joined.finished or joined.ended:
            break
        joined.step()
    source.items = other
    try:
        joined.run()
    except LaneTrouble as trouble:
        assert trouble.code == "source"
        return
    # What was sent before may stand beside it; all of the other tree that came anew is there.
    assert joined.position[0] in (len(items), len(other)) or joined.position[0] > 0


# -- one end by hand ----------------------------------------------------------------------

BIG = Item("file", b"big", bytes(range(100)))
SMALL = Item("file", b"small", b"tiny")


class Hand:
    """A receiver, with records and answers by hand."""

    def __init__(self, job: Inbound) -> None:
        self.receiver = Receiver(job, numbers())
        self.stage = Stage()
        self.steps: list[object] = []

    def say(self, type: RecordType, plain: bytes = b"") -> None:
        """A record comes, and the child does what follows."""
        assert self.receiver.hungry
        for write in self.receiver.take(Record(type, memoryview(plain))):
            self.stage.write(self.stage.open[write.handle], write.offset, bytes(write.data))
        self.go_on()

    def go_on(self) -> None:
        """Do what is wanted."""
        while (step := self.receiver.next()) is not None:
            self.steps.append(step)
            if isinstance(step, Do):
                self.receiver.answered(step.task, self.stage.do(step.task))

    def chunks(self, *chunks: bytes) -> None:
        """A CHUNKS record comes."""
        self.say(RecordType.CHUNKS, b"".join(chunks))

    def of(self, type: type[object]) -> list[object]:
        """The steps of a type."""
        return [each for each in self.steps if isinstance(each, type)]


def data(number: int, start: int, end: int, item: Item = BIG) -> bytes:
    """A DATA chunk of an item."""
    return chunk(ChunkKind.DATA, number, start, item.content[start:end])


def tree_job(**changes: object) -> Inbound:
    return inbound([SMALL, BIG], **changes)


def test_a_transcript() -> None:
    hand = Hand(tree_job())
    hand.say(RecordType.PACK, packed_item(0, SMALL))
    assert hand.of(Entries) == [Entries((Entry(b"small", 4, "verified"),), 1, b"small", 4)]
    hand.chunks(entry(1, BIG))
    hand.say(RecordType.ALIVE)
    hand.chunks(data(1, 0, 60), data(1, 60, 61))
    assert hand.receiver.bytes_done == 65 and hand.receiver.position == (1, b"small", 4)
    hand.chunks(data(1, 61, 100), file_end(1, BIG.content))
    hand.say(RecordType.END)
    assert hand.steps[-2:] == [
        Put(RecordType.PROGRESS, records.PROGRESS.pack(104, 2)),
        Finished(),
    ]
    assert hand.stage.files == {b"small": b"tiny", b"big": BIG.content}
    assert not hand.receiver.hungry


def test_nothing_is_taken_while_a_file_is_opened() -> None:
    receiver = Receiver(tree_job(number=1, after=b"small", asks=True), numbers())
    receiver.take(Record(RecordType.CHUNKS, memoryview(entry(1, BIG))))
    assert not receiver.hungry and receiver.working
    step = receiver.next()
    assert isinstance(step, Do) and isinstance(step.task, OpenEntry)
    receiver.answered(step.task, EntryOpened(1, 100, -1))
    tasks = []
    for _ in range(3):
        assert not receiver.hungry
        step = receiver.next()
        assert isinstance(step, Do)
        tasks.append(step.task)
        assert receiver.next() is None
        receiver.answered(step.task, Hashed(bytes(32) * -(-step.task.length // 16)))  # type: ignore[union-attr]
        told = receiver.next()
        assert isinstance(told, Put) and told.type is RecordType.HAVE
    assert [(each.offset, each.length) for each in tasks] == [(0, 48), (48, 48), (96, 4)]  # type: ignore[union-attr]
    assert receiver.hungry and not receiver.working


def test_no_more_records_than_the_child_may_have() -> None:
    items = [Item("folder", b"f%d" % number) for number in range(20)]
    receiver = Receiver(inbound(items), numbers())
    count = 0
    while receiver.hungry:
        receiver.take(Record(RecordType.PACK, memoryview(packed_item(count, items[count]))))
        count += 1
    assert count == limits.LANE_UNPACKS_MAX


def big_open(**changes: object) -> Hand:
    """A receiver in the middle of a large file."""
    hand = Hand(tree_job(number=1, after=b"small", bytes_done=4, **changes))
    hand.chunks(entry(1, BIG))
    return hand


def part_open() -> Hand:
    """The same, which has told the first 48 bytes."""
    hand = Hand(tree_job(number=1, after=b"small", bytes_done=4, asks=True))
    hand.stage.files[b"big"] = bytearray(BIG.content[:50])
    hand.chunks(entry(1, BIG))
    return hand


def single() -> Hand:
    return Hand(inbound([Item("file", b"", b"abc")]))


ROOT = Item("file", b"", b"abc")
MISDEEDS: list[tuple[Callable[[], Hand], RecordType, bytes]]
with small_limits():
    MISDEEDS = [
        # out of place
        (lambda: Hand(tree_job()), RecordType.HELLO, b""),
        (big_open, RecordType.END, b""),
        (big_open, RecordType.PACK, packed_item(2, SMALL)),
        (single, RecordType.PACK, packed_item(0, ROOT)),
        (single, RecordType.END, b""),
        (single, RecordType.CHUNKS, entry(1, ROOT)),
        (single, RecordType.CHUNKS, entry(0, SMALL)),
        (lambda: Hand(tree_job()), RecordType.CHUNKS, entry(0, ROOT)),
        (lambda: Hand(tree_job()), RecordType.CHUNKS, entry(0, Item("folder", b"f"))),
        (lambda: Hand(tree_job()), RecordType.CHUNKS, entry(0, Item("failed", b"f"))),
        (lambda: Hand(tree_job()), RecordType.CHUNKS, data(0, 0, 3)),
        (lambda: Hand(tree_job()), RecordType.CHUNKS, file_end(0, b"")),
        # numbers
        (lambda: Hand(tree_job()), RecordType.PACK, packed_item(1, SMALL)),
        (lambda: Hand(tree_job()), RecordType.CHUNKS, entry(1, BIG)),
        (lambda: Hand(tree_job(number=5)), RecordType.PACK, packed_item(4, SMALL)),
        (big_open, RecordType.CHUNKS, data(2, 0, 8)),
        (big_open, RecordType.CHUNKS, data(1, 0, 100) + file_end(2, BIG.content)),
        (big_open, RecordType.CHUNKS, data(1, 0, 100) + file_end(1, BIG.content) + entry(3, BIG)),
        # sizes
        (lambda: Hand(tree_job(size_max=99)), RecordType.CHUNKS, entry(0, BIG)),
        (lambda: Hand(tree_job(size_max=3)), RecordType.PACK, packed_item(0, SMALL)),
        (big_open, RecordType.CHUNKS, data(1, 0, 100) + file_end(1, BIG.content) + entry(2, BIG)),
        (big_open, RecordType.CHUNKS, data(1, 0, 100) + chunk(1, 1, 100, b"x")),
        (big_open, RecordType.CHUNKS, data(1, 0, 100) + file_end(1, BIG.content + b"x")),
        # holes and ways back
        (big_open, RecordType.CHUNKS, data(1, 1, 9)),
        (big_open, RecordType.CHUNKS, data(1, 0, 9) + data(1, 8, 10)),
        (big_open, RecordType.CHUNKS, data(1, 16, 32)),
        (big_open, RecordType.CHUNKS, file_end(1, BIG.content)),
        (big_open, RecordType.CHUNKS, data(1, 0, 99) + file_end(1, BIG.content)),
        (part_open, RecordType.CHUNKS, data(1, 64, 100)),  # more than was told
        (part_open, RecordType.CHUNKS, data(1, 17, 100)),  # into a block
        (part_open, RecordType.CHUNKS, data(1, 0, 8) + data(1, 16, 20)),  # out of a block
        (part_open, RecordType.CHUNKS, data(1, 0, 16) + file_end(1, BIG.content)),
        (part_open, RecordType.CHUNKS, data(1, 32, 48) + data(1, 16, 32)),
        # entries in a record
        (big_open, RecordType.CHUNKS, entry(1, BIG)),
        (big_open, RecordType.CHUNKS, entry(1, Item("failed", b"other", b"why"))),
        (big_open, RecordType.CHUNKS, entry(2, Item("failed", b"big", b"why"))),
        (big_open, RecordType.CHUNKS, entry(1, Item("skipped", b"big", b"why"))),
        (lambda: Hand(tree_job()), RecordType.CHUNKS, entry(0, BIG) + data(0, 0, 8)),
        (lambda: Hand(tree_job()), RecordType.CHUNKS, entry(0, BIG) + entry(1, BIG)),
        (lambda: Hand(tree_job()), RecordType.CHUNKS, chunk(3, 0, 0, b"\xc1")),
        (lambda: Hand(tree_job()), RecordType.CHUNKS, chunk(3, 0, 8, entry(0, BIG)[17:])),
        (lambda: Hand(tree_job()), RecordType.CHUNKS, b"\3"),
        # packs
        (lambda: Hand(tree_job()), RecordType.PACK, b""),
        (lambda: Hand(tree_job()), RecordType.PACK, b"\3" * 17),
        (lambda: Hand(tree_job()), RecordType.PACK, data(0, 0, 4)),
    ]


@pytest.mark.parametrize("number", range(len(MISDEEDS)))
def test_misdeeds(number: int) -> None:
    made, type, plain = MISDEEDS[number]
    hand = made()
    before = {path: bytes(file) for path, file in hand.stage.files.items()}
    with pytest.raises((RemoteError, LaneTrouble), match=r"malformed|size: more than"):
        hand.say(type, plain)
    if type is RecordType.CHUNKS:
        assert hand.stage.files == before


def test_nothing_comes_behind_the_end() -> None:
    hand = single()
    hand.chunks(entry(0, ROOT))
    hand.chunks(data(0, 0, 3, ROOT), file_end(0, b"abc"))
    with pytest.raises(RemoteError, match="a second file"):
        hand.chunks(entry(1, ROOT))
    hand.say(RecordType.END)
    for type in (RecordType.END, RecordType.PACK, RecordType.CHUNKS):
        with pytest.raises(RemoteError):
            hand.receiver.take(Record(type, memoryview(entry(1, ROOT))))


def test_what_arrives_is_not_what_was_sent() -> None:
    hand = big_open()
    with pytest.raises(LaneTrouble, match="hash"):
        hand.chunks(data(1, 0, 100), file_end(1, bytes(100)))


def test_a_part_is_believed_only_for_what_it_holds() -> None:
    hand = part_open()
    hand.chunks(data(1, 48, 100), file_end(1, BIG.content))
    assert hand.stage.files[b"big"] == BIG.content
    assert hand.receiver.bytes_received == 52
    other = part_open()
    lie = bytes(48) + BIG.content[48:]
    with pytest.raises(LaneTrouble, match="hash"):
        other.chunks(data(1, 48, 100), file_end(1, lie))


def test_an_older_copy_that_changes_while_it_is_copied() -> None:
    for base, code in ((b"x" * 100, "hash"), (None, "cut")):
        hand = Hand(tree_job(number=1, after=b"small", asks=True, base=b"/b"))
        hand.stage.base[b"big"] = BIG.content
        hand.chunks(entry(1, BIG))
        if base is None:
            del hand.stage.base[b"big"]
        else:
            hand.stage.base[b"big"] = base
        with pytest.raises(LaneTrouble, match=code):
            hand.chunks(file_end(1, BIG.content))


def test_an_older_copy_that_cannot_be_read_is_sent_anew() -> None:
    hand = Hand(tree_job(number=1, after=b"small", asks=True, base=b"/b"))
    hand.stage.base[b"big"] = BIG.content
    real = hand.stage._hashes
    hand.stage._hashes = lambda data, task: real(data[:20], task)  # type: ignore[method-assign]
    hand.chunks(entry(1, BIG))
    told = [each.plain for each in hand.of(Put)]  # type: ignore[attr-defined]
    assert told[0][12 + 64 :] == bytes(32) and told[1][12:] == bytes(96)


@pytest.mark.parametrize(
    ("answer", "tree", "code"),
    [
        (Failed("EIO", "the disk reported an error"), True, "storage"),
        (Failed("ENOSPC", "the disk is full"), True, "cut"),
        (Failed("EEXIST", "the name is taken"), False, "storage"),
        (Failed("EMFILE", "too many files are open"), True, "cut"),
        (Failed("TIMEOUT", "it took too long"), True, "cut"),
    ],
)
def test_a_disk_that_fails(answer: Failed, tree: bool, code: str) -> None:
    item = BIG if tree else ROOT
    receiver = Receiver(inbound([item]), numbers())
    receiver.take(Record(RecordType.CHUNKS, memoryview(entry(0, item))))
    step = receiver.next()
    assert isinstance(step, Do)
    with pytest.raises(LaneTrouble, match=f"{code}: {answer.text}"):
        receiver.answered(step.task, answer)


def test_a_pack_of_which_the_next_record_is_not_the_next() -> None:
    receiver = Receiver(tree_job(), numbers())
    receiver.take(Record(RecordType.PACK, memoryview(packed_item(0, SMALL))))
    step = receiver.next()
    receiver.take(Record(RecordType.PACK, memoryview(packed_item(2, SMALL))))
    assert isinstance(step, Do)
    with pytest.raises(RemoteError, match="entry 2 instead of 1"):
        receiver.answered(step.task, Stage().do(step.task))


def test_a_pack_that_the_child_cannot_read() -> None:
    receiver = Receiver(tree_job(), numbers())
    receiver.take(Record(RecordType.PACK, memoryview(packed_item(0, SMALL))))
    step = receiver.next()
    assert isinstance(step, Do)
    with pytest.raises(RemoteError, match="malformed"):
        receiver.answered(step.task, Failed("EBADMSG", "not a record"))


def test_a_tree_does_not_begin_anew_for_ever() -> None:
    hand = Hand(tree_job())
    for _ in range(1 + limits.LANE_RESTARTS_MAX):
        hand.say(RecordType.PACK, packed_item(0, SMALL))
        assert hand.receiver.position == (1, b"small", 4)
    with pytest.raises(RemoteError, match="again and again"):
        hand.say(RecordType.PACK, packed_item(0, SMALL))


@patient
@given(st.data())
def test_any_bytes_are_used_or_refused(data: st.DataObject) -> None:
    made = data.draw(st.sampled_from([big_open, part_open, single, lambda: Hand(tree_job())]))
    hand = made()
    good = [entry(0, BIG), entry(1, BIG), entry(2, BIG), packed_item(0, SMALL), file_end(1, b"")]
    for _ in range(data.draw(st.integers(1, 4))):
        if not hand.receiver.hungry:
            return
        type = data.draw(st.sampled_from(sorted(records.RECEIVER_TAKES)))
        plain = bytearray(b"".join(data.draw(st.lists(st.sampled_from(good), max_size=3))))
        for _ in range(data.draw(st.integers(0, 3))):
            if plain:
                plain[data.draw(st.integers(0, len(plain) - 1))] = data.draw(st.integers(0, 255))
        try:
            hand.say(type, bytes(plain))
        except (RemoteError, LaneTrouble):
            return
