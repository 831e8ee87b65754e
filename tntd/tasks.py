"""What the two child processes do for the loop, as values: a request and its answer.

What holds always: a request is idempotent (a child that dies is started again and its
requests repeated), bounded by a deadline, and carries no descriptor.  Open files are named
by a `handle`, a number that the node chooses; the shell keeps the descriptors behind them.
"""

from __future__ import annotations

import msgspec

Octets = bytes  # for structs that have a field named `bytes`


class Task(msgspec.Struct, frozen=True, tag_field="op"):
    """A request to a child; the tag `op` names the concrete task."""


class Inspect(Task, tag="inspect", frozen=True):
    """disk: what is at `path` (absolute)?  -> Inspected"""

    path: bytes


class SyncPart(Task, tag="sync_part", frozen=True):
    """disk: bring all written data of `handle` to the disk, which is of the stage `name` in
    `folder`.  Where data is lost, so is the stage.  -> Done"""

    handle: int
    folder: bytes
    name: bytes


class Publish(Task, tag="publish", frozen=True):
    """disk: set times and mode of the synced part, rename it to `folder/name` without ever
    replacing anything, sync the folder.  Repeated after a crash it is done once: where the
    part is gone and `folder/name` has the part's `inode`, it is Done.  EEXIST where the name
    is taken by anything else.  UNSURE where it may have its name, but not for sure on the disk:
    to be asked again.  A stage that is a folder (`tree`) was synced before and keeps
    its times.  -> Inspected (of what stands there now)"""

    folder: bytes
    part: bytes
    name: bytes
    inode: int
    mtime_ns: int
    executable: bool
    tree: bool = False


class DiscardPart(Task, tag="discard_part", frozen=True):
    """disk: remove the part `name` below `folder`; Done also where there is none.  A large one
    is removed in steps: Failed("EAGAIN") until the last."""

    folder: bytes
    name: bytes


# -- trees: a file, or a folder with all that is in it --------------------------------------
#
# A path in a tree is relative, its components joined by "/", b"" for the root itself.  Entries
# are counted in the order of the sender's walk: each file, folder, end of a folder, link, and
# each thing that is skipped or failed, is one.


class Pack(Task, tag="pack", frozen=True):
    """disk: the next entries below `root` (absolute; a link there is followed) as the plaintext
    of one PACK record, from entry `number` on, whose predecessor was `after`.  `walk` names the
    walk, so that the child need not begin anew for each record.  Where `only` is given, these
    paths are the tree, each with all that is in it, in the order given.  The next large file is
    opened for reading as `handle`.  It takes a moment at most: where the way to entry `number` is
    long, the answer has nothing in it and the same `number`, and the same is to be asked again.
    Fails with "CHANGED" where entry `number` - 1 is not `after` any more.  -> Packed"""

    walk: int
    root: bytes
    number: int
    after: bytes
    handle: int
    only: list[bytes] | None = None


class CountTree(Task, tag="count_tree", frozen=True):
    """disk: count what is below `root`, for a moment at most; ask again for more.  -> Counted"""

    walk: int
    root: bytes


class PrepareStage(Task, tag="prepare_stage", frozen=True):
    """disk: make `folder`, `folder/.tnt-part` and in it the stage `name` (a folder where `tree`,
    else a file), or find what is there of it already.  Fails with ENOSPC where less than `size`
    bytes plus `reserve` are free beside what a file has there already (for a tree, `size` is what
    is still to come), with EEXIST or ENOTDIR where the stage is of the other kind.  -> Inspected
    (of the stage: its inode, and the bytes that a file has already; a folder has `size` 1 where
    anything is in it)"""

    folder: bytes
    name: bytes
    tree: bool
    size: int
    reserve: int


class Unpack(Task, tag="unpack", frozen=True):
    """disk: put the entries of a PACK record (`plain`) into the stage.  `number` is that of its
    first entry.  Raises nothing for one entry: it fails with a reason; a record that is no PACK
    record is Failed("EBADMSG"), and then nothing was done.  A disk that is full or broken fails
    the whole, which can be asked again.  `again`: folders and links that went well are told, too,
    as "there".  -> Unpacked"""

    folder: bytes
    name: bytes
    number: int
    plain: bytes
    again: bool = False


class OpenEntry(Task, tag="open_entry", frozen=True):
    """disk: open the file `path` of the stage for reading and writing as `handle`, made where it
    is not there, cut where it is longer than `size`, with space set aside (-1: that is not known,
    and neither is done).  `base` (b"" for
    none) is the root of an older copy (absolute); the file `path` in it counts only if it did not
    change since `base_ctime_ns`.  -> EntryOpened"""

    handle: int
    folder: bytes
    name: bytes
    path: bytes
    size: int
    base: bytes = b""
    base_ctime_ns: int = 0


class HashRange(Task, tag="hash_range", frozen=True):
    """disk: the hashes of the blocks of `block_bytes` in a range of the open file `handle`, or,
    where `base` is given, of the file `path` of that older copy (ESTALE where it changed).  Fewer
    hashes where the file ends before.  `offset` is a multiple of `block_bytes`.  -> Hashed"""

    handle: int
    offset: int
    length: int
    block_bytes: int
    base: bytes = b""
    path: bytes = b""
    base_ctime_ns: int = 0


class CopyRange(Task, tag="copy_range", frozen=True):
    """disk: copy a range of the older copy `base` to the same place of the open file `handle`,
    and hash what was copied.  -> Hashed"""

    handle: int
    offset: int
    length: int
    block_bytes: int
    base: bytes
    path: bytes
    base_ctime_ns: int


class FinishEntry(Task, tag="finish_entry", frozen=True):
    """disk: give the open file `handle` its time and mode, and cut what is longer than `size`
    (-1: nothing).  -> Done"""

    handle: int
    mtime_ns: int
    executable: bool
    size: int = -1


class SweepStage(Task, tag="sweep_stage", frozen=True):
    """disk: remove the files of a stage that is a folder but those that are known, by the first
    8 bytes of the BLAKE3 of their paths (machines/tree.py, `mark`).  These are told in any number
    of requests with the same `sweep`: `known` has some, `at` says how many were told before.
    ESTALE where that is not so here (another child may have got them): to be begun anew, as another
    sweep.  Nothing is removed before the `end`, which is asked for again, with nothing more that is
    known, while it is Failed("EAGAIN").  -> Done"""

    sweep: int
    folder: bytes
    name: bytes
    at: int
    known: bytes
    end: bool


class SyncStage(Task, tag="sync_stage", frozen=True):
    """disk: bring all of a stage to the disk.  -> Done"""

    folder: bytes
    name: bytes


class MergeStage(Task, tag="merge_stage", frozen=True):
    """disk: move the files of a stage into the folder `into` (of that inode) below `folder`,
    never in place of anything, and sync.  The stage is removed where nothing is left in it.
    UNSURE where some may have been moved: to be asked again.
    -> Unpacked (what could not be moved, as failed, behind the first `told` of that; `number` of
    it in all: where that is more than what was told by now, ask again)"""

    folder: bytes
    name: bytes
    into: bytes
    inode: int
    told: int = 0


class CleanStages(Task, tag="clean_stages", frozen=True):
    """disk: remove every stage in `folder/.tnt-part` whose name begins with `prefix`, but those in
    `keep`, for a moment at most; ask again until `end`.  Only names behind `after` and up to `upto`
    (b"" for no end): what is to be kept may be more than fits a request.
    -> Counted (of what this one removed)"""

    folder: bytes
    prefix: bytes
    keep: list[bytes]
    after: bytes = b""
    upto: bytes = b""


class Unspool(Task, tag="unspool", frozen=True):
    """disk: remove the folder `name` of `folder`, with all that is in it.  A large one is removed
    in steps: Failed("EAGAIN") until the last.  -> Done, also where there is none"""

    folder: bytes
    name: bytes


class CleanSpool(Task, tag="clean_spool", frozen=True):
    """disk: remove the folders in `folder` that are older than `age_s` seconds, but those in
    `keep`, for a moment at most; ask again until `end`.  Only names behind `after` and up to
    `upto`, as in CleanStages.  -> Counted (what was removed now)"""

    folder: bytes
    keep: list[bytes]
    age_s: int
    after: bytes = b""
    upto: bytes = b""


class Resolve(Task, tag="resolve", frozen=True):
    """net: the numeric addresses of `host`.  -> Resolved"""

    host: str
    port: int


class Inspected(msgspec.Struct, frozen=True, tag="inspected", tag_field="is"):
    """`kind` is "file", "folder" or "other"; `free` the free bytes of its file system; `readable`
    is told by Inspect alone."""

    kind: str
    size: int
    mtime_ns: int
    ctime_ns: int
    device: int
    inode: int
    executable: bool
    free: int
    readable: bool = True


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A file of a tree and what became of it: `state` is "waiting" (sent, not confirmed),
    "verified", "skipped" or "failed"; the latter two have a reason.  Folders and links that went
    well are not told; or as "there", where a file was sent again that may be one by now."""

    path: bytes
    size: int
    state: str
    reason: str = ""


class Large(msgspec.Struct, frozen=True):
    """A file that is sent block by block, not packed; it is open."""

    path: bytes
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    executable: bool


class Packed(msgspec.Struct, frozen=True, tag="packed", tag_field="is"):
    """`plain` (may be empty) holds entries up to, not with, `number`, the last of which is `after`;
    `bytes` is the size of the files in it.  `large`, if any, is entry `number`, and its file comes
    along.  `end`: there is nothing behind."""

    plain: Octets
    entries: list[Entry]
    number: int
    after: Octets
    bytes: int
    large: Large | None
    end: bool


class Counted(msgspec.Struct, frozen=True, tag="counted", tag_field="is"):
    """Files and bytes so far; `end` where that is all."""

    files: int
    bytes: int
    end: bool


class Unpacked(msgspec.Struct, frozen=True, tag="unpacked", tag_field="is"):
    """What became of the files of a record; `number` is that of the next entry, `after` the path
    of the last one, `bytes` the size of all files in it, whatever became of them."""

    entries: list[Entry]
    number: int
    after: Octets
    bytes: int


class EntryOpened(msgspec.Struct, frozen=True, tag="entry_opened", tag_field="is"):
    """`size` bytes are there already; `base_size` those of an older copy that counts, else -1."""

    inode: int
    size: int
    base_size: int


class Hashed(msgspec.Struct, frozen=True, tag="hashed", tag_field="is"):
    """The hashes of the blocks one behind the other, 32 bytes each."""

    hashes: bytes


class Done(msgspec.Struct, frozen=True, tag="done", tag_field="is"):
    """The task is done, durably where it says so."""


class Resolved(msgspec.Struct, frozen=True, tag="resolved", tag_field="is"):
    """Numeric addresses in the order in which to try them (RFC 6724), without repeats."""

    addresses: list[str]


class Failed(msgspec.Struct, frozen=True, tag="failed", tag_field="is"):
    """The task failed: `code` is the name of an errno ("ENOENT"), or a word of a task's own;
    "TIMEOUT" and "ECHILD" (the child keeps ending) leave open whether it was done;
    `text` says it in words without the path."""

    code: str
    text: str


# Failures that say nothing of the file: the same may go well a little later, when descriptors or
# space were given back.
PASSING = frozenset({"EMFILE", "ENFILE", "ENOSPC", "EDQUOT"})
# Of a folder: it is not there, or its disk does not answer; as while one is not mounted.
AWAY = frozenset({"ENOENT", "ENOTDIR", "ENODEV", "ENXIO", "ESTALE", "ENOTCONN"})
# Of a folder: it cannot be used, but maybe a little later.
SICK = frozenset({"EIO", "EROFS"})
# Of a folder: nobody may write there, until somebody sees to it.
LOCKED = frozenset({"EACCES", "EPERM", "EROFS"})
# Of a sync: it was not begun.  Whatever else it says is said once: what was written since the last
# one may be lost, although it is still read as it was written.
NOT_BEGUN = frozenset({"EMFILE", "ENFILE"})
# It may have been done, wholly or in part: to be asked again until it is known.
OPEN = frozenset({"UNSURE", "TIMEOUT", "ECHILD"})

AnyTask = (
    Inspect
    | SyncPart
    | Publish
    | DiscardPart
    | Pack
    | CountTree
    | PrepareStage
    | Unpack
    | OpenEntry
    | HashRange
    | CopyRange
    | FinishEntry
    | SweepStage
    | SyncStage
    | MergeStage
    | CleanStages
    | Unspool
    | CleanSpool
    | Resolve
)
Answer = Inspected | Done | Resolved | Packed | Counted | Unpacked | EntryOpened | Hashed | Failed
