# Paths are bytes here, as the system has them; pathlib takes none.
# ruff: noqa: PTH116, PTH117
"""The child `disk`: does everything that may wait for a disk.

Here are the requests about single files, and the list of all others (see child_pack.py,
child_unpack.py, child_stage*.py, child_tree*.py).

What holds always:
- A stage lives in `FOLDER/.tnt-part`, a folder of ours alone, until it is renamed to its name in
  FOLDER; nothing under that name is ever replaced.
- A task done twice is as one done once.
- An error is an answer.  What is kept open between requests makes the next one quicker, and
  nothing more: where it takes the last descriptors, it is let go and the request done again.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Final

import msgspec

from tntd import limits
from tntd.errors import RemoteError
from tntd.shell import (
    child_file,
    child_pack,
    child_spool,
    child_stage,
    child_stage_end,
    child_stage_files,
    child_sweep,
    child_tree,
    child_tree_remove,
    child_unpack,
)
from tntd.shell.child_wire import Warm
from tntd.shell.files import OpenFile, failure, read_at, words
from tntd.tasks import (
    Answer,
    AnyTask,
    CleanSpool,
    CleanStages,
    CopyRange,
    CountTree,
    DiscardPart,
    Done,
    Failed,
    FinishEntry,
    HashRange,
    Inspect,
    Inspected,
    MergeStage,
    OpenEntry,
    Pack,
    PrepareStage,
    Publish,
    SweepStage,
    SyncPart,
    SyncStage,
    Unpack,
    Unspool,
)

_READ_BYTES: Final = 1 * limits.MIB
_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})


def perform(task: AnyTask | Warm, given: int | None) -> tuple[Answer, int | None, bool]:
    """Do a task of this child; see child.py."""
    try:
        answer, opened = _perform_with_room(task, given)
    except child_stage_end.Unsure as error:
        return Failed("UNSURE", words(error)), None, False
    except OSError as error:
        return failure(error), None, False
    except ValueError:  # a zero byte in a path
        return failure(OSError(errno.EINVAL, "")), None, False
    except RemoteError as error:
        return Failed("EBADMSG", str(error)), None, False
    except child_pack.Changed:
        return Failed("CHANGED", "the folder changed while it was sent"), None, False
    in_memory = opened is not None and child_file.is_in_memory(opened)
    return answer, opened, in_memory


def forget() -> bool:
    """Let go of all that is kept open between requests; whether there was any."""
    return any(
        [child_pack.forget(), child_tree.forget(), child_stage.forget(), child_sweep.forget()]
    )


def _perform_with_room(task: AnyTask | Warm, given: int | None) -> tuple[Answer, int | None]:
    try:
        return _perform(task, given)
    except OSError as error:
        if error.errno not in _NO_DESCRIPTORS or not forget():
            raise
    return _perform(task, given)


def _perform(task: AnyTask | Warm, given: int | None) -> tuple[Answer, int | None]:
    match task:
        case Pack():
            return child_pack.pack(task)
        case OpenEntry():
            return child_stage_files.open_entry(task)
    return _answer(task, given), None


def _answer(task: AnyTask | Warm, given: int | None) -> Answer:  # noqa: C901, PLR0912
    """The answer to a task that opens nothing for the daemon."""
    match task:
        case Unpack():
            return child_unpack.unpack(task)
        case SyncPart() | Warm():
            if given is None:
                raise OSError(errno.EMFILE, "")  # it came along, and there was no room for it
            if isinstance(task, Warm):
                return warm(given, task)
            return child_stage_end.sync_part(task, given)
        case HashRange():
            return child_stage_files.hash_range(task, given)
        case CopyRange():
            return child_stage_files.copy_range(task, given)
        case FinishEntry():
            return child_stage_files.finish_entry(task, given)
        case SweepStage():
            return child_sweep.sweep_stage(task)
        case SyncStage():
            return child_stage_end.sync_stage(task)
        case PrepareStage():
            return child_stage.prepare_stage(task)
        case Publish():
            return child_stage_end.publish(task)
        case MergeStage():
            return child_stage_end.merge_stage(task)
        case DiscardPart():
            return child_tree_remove.discard_part(task)
        case CleanStages():
            return child_tree_remove.clean_stages(task)
        case Unspool():
            return child_spool.unspool(task)
        case CleanSpool():
            return child_spool.clean_spool(task)
        case CountTree():
            return child_tree.count_tree(task)
        case Inspect():
            return inspect(task)
    raise TypeError(f"not a task of this child: {task!r}")


def inspect(task: Inspect) -> Inspected:
    """What is at a path, through symbolic links; a file of the system is not told as a file."""
    found, free = os.stat(_absolute(task.path)), child_file.free_bytes(task.path)
    readable = os.access(task.path, os.R_OK)
    seen = child_file.inspected(found, free, readable=readable)
    if seen.kind == "file" and sys.platform == "linux":
        descriptor = os.open(task.path, os.O_PATH | os.O_CLOEXEC)  # nothing happens to it
        try:
            if child_file.is_of_the_system(descriptor):
                return msgspec.structs.replace(seen, kind="other")
        finally:
            os.close(descriptor)
    return seen


def warm(descriptor: int, task: Warm) -> Done:
    """Read a range so that it is in memory."""
    buffer = memoryview(bytearray(min(_READ_BYTES, task.length)))
    at, end = task.offset, task.offset + task.length
    while at < end:
        view = buffer[: end - at]
        got = read_at(OpenFile(descriptor), view, at, warm=True) or 0
        if got < len(view):
            break
        at += got
    return Done()


# -- small --------------------------------------------------------------------------------


def _absolute(path: bytes) -> bytes:
    if not os.path.isabs(path):
        raise OSError(errno.EINVAL, "not an absolute path")
    return path
