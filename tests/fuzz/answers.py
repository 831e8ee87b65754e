"""What the children answer: mostly that it went well, the values of a disk that knows no rest."""

from __future__ import annotations

from tntd.tasks import (
    Answer,
    AnyTask,
    CleanStages,
    Counted,
    CountTree,
    DiscardPart,
    Done,
    Entry,
    Failed,
    Inspect,
    Inspected,
    MergeStage,
    PrepareStage,
    Publish,
    Resolve,
    Resolved,
    SweepStage,
    SyncStage,
    Unpacked,
)

from .source import Source
from .values import EDGES, WORDS

CODES = ("ENOENT", "EACCES", "ENOSPC", "EEXIST", "EMFILE", "TIMEOUT", "UNRESOLVED", "EAGAIN")
PATHS = (b"a", b"a/b", b"f", b"\xff", b"x" * 300, b"..", b"a\0\n", b"/", "\u202e".encode())
TREE = "tree"  # what ends so is a folder
SIZE_MAX = 2**63 - 1


def answer(source: Source, request: AnyTask) -> Answer:
    """What a child might say to a request of the node."""
    if source.one_in(5):
        return Failed(source.pick(CODES), "it did not work")
    match request:
        case Inspect():
            return _looked(source, request)
        case PrepareStage():
            kind = "folder" if request.tree else "file"
            return _inspected(kind, source.pick((0, 0, 1, 5)), source.pick((1, 1, 2)))
        case Publish():
            return _inspected("folder" if request.tree else "file", 5, request.inode)
        case CountTree() | CleanStages():
            files, size = source.pick((1, 0, 3, 2**40)), source.pick((5, 0, 6, 2**62))
            return Counted(files, size, not source.one_in(3))
        case MergeStage():
            return Unpacked(entries(source, ("failed",)), 0, b"", 0)
        case SweepStage() | SyncStage() | DiscardPart():
            return Done()
        case Resolve():
            return Resolved(["127.0.0.9", "::1"][: source.below(3)])
    raise AssertionError(f"the node has no business with {request!r}")


def _looked(source: Source, request: Inspect) -> Inspected:
    kind = "folder" if request.path.endswith(TREE.encode()) else "file"
    if source.one_in(8):
        kind = source.pick(("file", "folder", "other"))
    size = source.pick((5, 5, 5, 6))
    return _inspected(kind, size, 1, source.pick((1 << 40, 1 << 40, 1 << 40, 0)))


def _inspected(kind: str, size: int, inode: int, free: int = 1 << 40) -> Inspected:
    return Inspected(kind, size, 1, 1, 1, inode, False, free)


def entries(source: Source, states: tuple[str, ...]) -> list[Entry]:
    """What is told of some files; what is no file here is as large as the other side says."""
    found = []
    for _ in range(source.below(4)):
        state = source.pick(states)
        bad = state in ("skipped", "failed")
        size = source.pick(EDGES) if bad else source.below(9)
        found.append(Entry(source.pick(PATHS), size, state, source.pick(WORDS) if bad else ""))
    return found
