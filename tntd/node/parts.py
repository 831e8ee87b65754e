"""Parts that nobody needs any more: removed, and tried again until they are gone.

What holds always: a row says `part` from before its part may exist until the child has said that
the part is gone for good; so what a crash, a rolled-back turn or a disk that fails has
interrupted is done at the next start or after a while.  The waits grow, because a folder that
refuses now may refuse for days.

Of what goes out, the part is a file that a client has spooled only to send it (see tnt send -):
it is removed when the last transfer that it is the source of has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from tntd import limits
from tntd.machines.identity import key_to_id
from tntd.node import present
from tntd.node.core import Core
from tntd.store.transfers import TransferRow
from tntd.tasks import (
    Answer,
    AnyTask,
    CleanSpool,
    CleanStages,
    Counted,
    DiscardPart,
    Done,
    Failed,
    Unspool,
)

SPOOL_AGE_S = 24 * 3600  # of what a client that was killed has left


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

    # -- what nobody knows any more -------------------------------------------------------

    def clean(self, folders: list[bytes], done: Callable[[Counted | Failed, bytes], None]) -> None:
        """Remove from these folders all stages of ours that no transfer needs.  `done` is called
        with what was removed, or with a failure and the folder."""
        self._clean(folders, b"", Counted(0, 0, True), done)

    def _clean(
        self,
        folders: list[bytes],
        after: bytes,
        removed: Counted,
        done: Callable[[Counted | Failed, bytes], None],
    ) -> None:
        if not folders:
            done(removed, b"")
            return
        folder = folders[0]
        # Looked up for each request: others may have begun to arrive since the last.
        live = [self._name(*each) for each in self._rows.incoming_to(folder)]
        keep, upto = _some(live, after)

        def cleaned(answer: Answer) -> None:
            if isinstance(answer, Failed) and answer.code != "ENOENT":
                done(answer, folder)
                return
            counted = answer if isinstance(answer, Counted) else Counted(0, 0, True)
            files, size = removed.files + counted.files, removed.bytes + counted.bytes
            total = Counted(files, size, True)
            if counted.end and not upto:
                self._clean(folders[1:], b"", total, done)
            else:
                self._clean(folders, upto if counted.end else after, total, done)

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
