"""What the two child processes do for the loop, as values: a request and its answer.

What holds always: a request is idempotent (a child that dies is started again and its
requests repeated), bounded by a deadline, and carries no descriptor.  Open files are named
by a `handle`, a number that the node chooses; the shell keeps the descriptors behind them.
"""

from __future__ import annotations

import msgspec


class Task(msgspec.Struct, frozen=True, tag_field="op"):
    """A request to a child; the tag `op` names the concrete task."""


class Inspect(Task, tag="inspect", frozen=True):
    """disk: what is at `path` (absolute)?  -> Inspected"""

    path: bytes


class OpenSource(Task, tag="open_source", frozen=True):
    """disk: open the regular file `path` for reading as `handle`.  -> Inspected"""

    handle: int
    path: bytes


class OpenPart(Task, tag="open_part", frozen=True):
    """disk: make `folder` and `folder/.tnt-part`, and open the part `name` there, emptied, for
    reading and writing as `handle`.  Fails with ENOSPC where less than `size` bytes plus
    `reserve` are free.  -> Inspected (of the part)"""

    handle: int
    folder: bytes
    name: bytes
    size: int
    reserve: int


class SyncPart(Task, tag="sync_part", frozen=True):
    """disk: bring all written data of `handle` to the disk.  -> Done"""

    handle: int


class Publish(Task, tag="publish", frozen=True):
    """disk: set times and mode of the synced part, rename it to `folder/name` without ever
    replacing anything, sync the folder.  Repeated after a crash it is done once: where the
    part is gone and `folder/name` has the part's `inode`, it is Done.  EEXIST where the name
    is taken by anything else.  -> Done"""

    folder: bytes
    part: bytes
    name: bytes
    inode: int
    mtime_ns: int
    executable: bool


class DiscardPart(Task, tag="discard_part", frozen=True):
    """disk: remove the part `name` below `folder`; Done also where there is none."""

    folder: bytes
    name: bytes


class Resolve(Task, tag="resolve", frozen=True):
    """net: the numeric addresses of `host`.  -> Resolved"""

    host: str
    port: int


class Inspected(msgspec.Struct, frozen=True, tag="inspected", tag_field="is"):
    """`kind` is "file", "folder" or "other"; `free` the free bytes of its file system."""

    kind: str
    size: int
    mtime_ns: int
    ctime_ns: int
    device: int
    inode: int
    executable: bool
    free: int


class Done(msgspec.Struct, frozen=True, tag="done", tag_field="is"):
    """The task is done, durably where it says so."""


class Resolved(msgspec.Struct, frozen=True, tag="resolved", tag_field="is"):
    """Numeric addresses in the order in which to try them (RFC 6724), without repeats."""

    addresses: list[str]


class Failed(msgspec.Struct, frozen=True, tag="failed", tag_field="is"):
    """The task failed: `code` is the name of an errno ("ENOENT"), "UNRESOLVED" or "TIMEOUT";
    `text` says it in words without the path."""

    code: str
    text: str


# Failures that say nothing of the file: the same may go well a little later.
PASSING = frozenset({"EMFILE", "ENFILE"})

AnyTask = Inspect | OpenSource | OpenPart | SyncPart | Publish | DiscardPart | Resolve
Answer = Inspected | Done | Resolved | Failed
