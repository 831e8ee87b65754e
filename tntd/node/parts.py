"""Parts that nobody needs any more: removed, and tried again until they are gone.

What holds always: a row says `part` from before its part may exist until the child has said that
the part is gone for good; so what a crash, a rolled-back turn or a disk that fails has
interrupted is done at the next start or after a while.  The waits grow, because a folder that
refuses now may refuse for days.

Of what goes out, the part is a file that a client has spooled only to send it (see tnt send -):
it is removed when the last transfer that it is the source of has ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from tntd import limits
from tntd.machines.identity import key_to_id
from tntd.node import present
from tntd.node.core import Core
from tntd.store.transfers import TransferRow
from tntd.tasks import (
    PASSING,
    Answer,
    AnyTask,
    CleanSpool,
    CleanStages,
    Counted,
    DiscardPart,
    Done,
    Failed,
    Inspected,
    PrepareStage,
    Unspool,
)

Octets = bytes  # beside a field named `bytes`
SPOOL_AGE_S = 24 * 3600  # of what a client that was killed has left


@dataclass(slots=True)
class Cleaning:
    """Folders that are still to be looked at, what was removed from the others, and those that
    could not be looked at, with the reason."""

    folders: deque[Octets]
    files: int = 0
    bytes: int = 0
    problems: list[tuple[Octets, str]] = field(default_factory=list)


class Parts:
    """The removal of parts of transfers that have ended."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._rows = core.store.transfers
        self._asked: set[int] = set()  # rows whose removal is under way
        self._wait_s = limits.DISCARD_WAIT_FIRST_S

    @property
    def prefix(self) -> bytes:
        """What the names of all our stages begin with: profiles may share a downloads folder."""
        return key_to_id(self._core.profile.identity.public)[:11].encode() + b"-"

    def name(self, row: TransferRow) -> bytes:
        """The name of a transfer's stage, whoever it comes from."""
        return self._name(row.contact, row.id)

    def _name(self, contact: int, id: bytes) -> bytes:
        return self.prefix + f"{contact}-{present.item_id(id)}.part".encode()

    def reset(self) -> None:
        """Forget all that is not in the store."""
        self._asked.clear()
        self._wait_s = limits.DISCARD_WAIT_FIRST_S

    def sweep(self, _number: int = 0) -> None:
        """Remove the parts of all transfers that have ended."""
        for row in self._rows.with_part():
            if row.ended and row.row not in self._asked:
                self.discard(row)

    def discard(self, row: TransferRow) -> None:
        """Remove the part of a transfer that has ended or is about to."""
        spooled = self.spooled(row.source) if row.outgoing and row.source is not None else b""
        if spooled and self._rows.needs_spooled(row.source or b""):
            self._rows.update(row.row, part=0)
            return
        self._asked.add(row.row)
        request: AnyTask = Unspool(self._core.profile.spool, spooled)
        if not spooled:
            request = DiscardPart(row.folder or self._core.profile.downloads, self.name(row))
        self._core.ask(request, lambda answer: self._discarded(row, answer))

    def _discarded(self, row: TransferRow, answer: Answer) -> None:
        self._asked.discard(row.row)
        fresh = self._rows.get(row.row)  # None: the contact was removed, its part is not yet
        if fresh is not None and not fresh.ended:
            return  # it is sent again, and its part made anew
        if isinstance(answer, Done):
            self._rows.update(row.row, part=0)
            self._wait_s = limits.DISCARD_WAIT_FIRST_S
        elif isinstance(answer, Failed) and answer.code == "EAGAIN":
            self.discard(row)  # there is more of it
        elif not self._core.timers.has(("discard", 0)):
            self._core.timers.set(("discard", 0), self._core.now.boot + self._wait_s)
            self._wait_s = min(2 * self._wait_s, limits.DISCARD_WAIT_MAX_S)

    # -- whether parts can be made ---------------------------------------------------------

    def try_folder(self, folder: bytes, done: Callable[[str], None]) -> None:
        """Make a stage in `folder` and remove it; `done` is called with what is wrong with that
        folder, or nothing."""
        name = self.prefix + b"0-try.part"

        def prepared(answer: Answer) -> None:
            if isinstance(answer, Inspected) or (
                isinstance(answer, Failed) and answer.code in PASSING
            ):
                self._core.ask(DiscardPart(folder, name), lambda _answer: done(""))
            elif isinstance(answer, Failed) and answer.code in ("EEXIST", "ENOTDIR"):
                done("it is not a folder")
            else:
                done(answer.text if isinstance(answer, Failed) else "it cannot be written to")

        self._core.ask(PrepareStage(folder, name, True, 0, 0), prepared)

    # -- what nobody knows any more -------------------------------------------------------

    def clean(self, folders: list[bytes], done: Callable[[Cleaning], None]) -> None:
        """Remove from these folders all stages of ours that no transfer needs.  `done` is called
        with what came of it; a folder that cannot be looked at does not keep the others."""
        self._clean(Cleaning(deque(folders)), b"", done)

    def _clean(self, cleaning: Cleaning, after: bytes, done: Callable[[Cleaning], None]) -> None:
        if not cleaning.folders:
            done(cleaning)
            return
        folder = cleaning.folders[0]
        # Looked up for each request: others may have begun to arrive since the last.  Those of all
        # folders, since the same one may go by several paths.
        live = [self._name(*each) for each in self._rows.incoming()]
        keep, upto = _some(live, after)

        def cleaned(answer: Answer) -> None:
            over, then = True, b""
            if isinstance(answer, Counted):
                cleaning.files += answer.files
                cleaning.bytes += answer.bytes
                over, then = answer.end and not upto, upto if answer.end else after
            elif isinstance(answer, Failed) and answer.code != "ENOENT":
                cleaning.problems.append((folder, answer.text))
            if over:
                cleaning.folders.popleft()
            self._clean(cleaning, then, done)

        self._core.ask(CleanStages(folder, self.prefix, keep, after, upto), cleaned)

    # -- what was spooled ------------------------------------------------------------------

    def spooled(self, path: bytes) -> bytes:
        """The folder of the spool that holds `path` and nothing else; b"" where it is elsewhere."""
        spool = self._core.profile.spool
        if not spool or not path.startswith(spool + b"/"):
            return b""
        folder, _, name = path[len(spool) + 1 :].partition(b"/")
        plain = b"/" not in name and b".." not in (folder, name) and b"." not in (folder, name)
        return folder if name and plain else b""

    def clean_spool(self, after: bytes = b"") -> None:
        """Remove what clients have left there that were killed, behind the name `after`."""
        if not self._core.profile.spool:
            return
        inside = self._core.profile.spool + b"/"
        used = [(row.source if row.outgoing else row.folder) or b"" for row in self._rows.live()]
        live = {path[len(inside) :].partition(b"/")[0] for path in used if path.startswith(inside)}
        keep, upto = _some(live, after)

        def cleaned(answer: Answer) -> None:
            if isinstance(answer, Counted) and (upto or not answer.end):
                self.clean_spool(upto if answer.end else after)

        request = CleanSpool(self._core.profile.spool, keep, SPOOL_AGE_S, after, upto)
        self._core.ask(request, cleaned)


def _some(names: Collection[bytes], after: bytes) -> tuple[list[bytes], bytes]:
    """As many names behind `after` as fit a request, sorted, and the last of them; b"" in place of
    that where there are no more."""
    behind = sorted(name for name in names if name > after)
    some = behind[: limits.CLEAN_KEEP_MAX]
    return some, some[-1] if len(behind) > len(some) else b""
