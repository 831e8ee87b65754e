"""From the last byte to its place: synced, named, renamed, told.

    whole -> swept -> synced -> (name committed) -> published: done

What holds always: the final name is committed before the stage is renamed to it, and the sender is
told "done" in the turn that commits it, after the folder was synced; so a start after a crash
finishes what was begun.  What may have its name is not given up by itself, or it would come a
second time: while the disk fails, it is tried again, with growing waits, until a user cancels it.
Nothing is ever replaced: a name that is taken gets the next number.  Files that failed before and
come again go into the folder that is there already.  What is in the stage of a folder that goes to
its place is what the sender had when it sent the last of it: what an earlier try has left beside is
swept out before.
"""

from __future__ import annotations

from tntd import limits
from tntd.events import LaneFinished
from tntd.machines.naming import final_name, show_path
from tntd.machines.tree import mark
from tntd.node.core import Core
from tntd.node.mail import Mail
from tntd.node.parts import Parts
from tntd.node.transfers import Moving, Transfers
from tntd.store.transfers import TransferRow
from tntd.tasks import (
    AWAY,
    LOCKED,
    NOT_BEGUN,
    OPEN,
    PASSING,
    Answer,
    Done,
    Failed,
    Inspect,
    Inspected,
    MergeStage,
    Publish,
    SweepStage,
    SyncStage,
    Unpacked,
)
from tntd.wire.frames import Fates, FileState, LaneAnswer, Result

SWEPT_AT_ONCE = 8192  # files of which a child is told at once
NO_BOOT = b"none"  # only what was synced is to be relied on, as after a start of the machine
FATES_TOLD_MAX = 10_000  # files that did not arrive, told one by one; the counts tell of the rest


class Arriving:
    """Transfers all of whose bytes are here."""

    def __init__(self, core: Core, mail: Mail, transfers: Transfers, parts: Parts) -> None:
        self._core = core
        self._mail = mail
        self._transfers = transfers
        self._parts = parts
        self._rows = core.store.transfers
        self._under_way: set[int] = set()
        self._waits_s: dict[int, float] = {}  # the next wait of those for which a disk failed

    def reset(self) -> None:
        """Forget all that is not in the store."""
        self._under_way.clear()
        self._waits_s.clear()

    def has(self, row: int) -> bool:
        """Whether this one is being put in place."""
        return row in self._under_way

    def rests(self, row: int) -> bool:
        """Whether its folder was not to be had, and the next try is not due: it may be given up."""
        return self.has(row) and self._core.timers.has(("place", row))

    def forget(self, row: int) -> None:
        """It ends, or begins anew."""
        self._under_way.discard(row)
        self._waits_s.pop(row, None)
        self._core.timers.cancel(("place", row))

    def resume(self, row: TransferRow) -> bool:
        """Finish what a crash has interrupted; whether there was something."""
        if row.chosen is None or (row.again and not row.merging):
            return False
        self._under_way.add(row.row)
        self.place(row.row)
        return True

    def place(self, number: int) -> None:
        """Put in place, once more, what may be there already."""
        row = self._rows.get(number)
        if row is None or row.ended or number not in self._under_way:
            return
        if row.merging:
            self._merge(row)
        else:
            self._publish(row)

    def _wait(self, row: TransferRow, failed: Failed) -> None:
        wait_s = self._waits_s.get(row.row, limits.PLACE_WAIT_FIRST_S)
        self._waits_s[row.row] = min(2 * wait_s, limits.PLACE_WAIT_MAX_S)
        self._core.timers.set(("place", row.row), self._core.now.boot + wait_s)
        text = f"the receiver's downloads folder: {failed.text}"
        self._core.log("warning", f"{show_path(row.name)[0]} cannot be put in place yet: {text}")
        self._transfers.explain(row.row, f"{text}; it will be tried again")

    def begin(self, moving: Moving, event: LaneFinished) -> None:
        """All of it is written and checked: to the disk with it."""
        changes: dict[str, object] = {"digest": event.digest or None}
        row = self._rows.get(moving.row)
        assert row is not None
        moving.bytes_sent = event.bytes_sent
        changes |= self._transfers.sent(moving, row)
        changes |= {"bytes_done": event.size, "bytes_reused": event.bytes_reused}
        self._rows.update(moving.row, **changes)
        self._under_way.add(moving.row)
        if moving.swept or row.kept >= limits.TREE_FILES_KEPT_MAX:  # not all are known then
            self._sync(moving, row)
        else:
            self._sweep(moving, row, self._core.number(), 0, None)

    def _sweep(
        self, moving: Moving, row: TransferRow, sweep: int, at: int, after: bytes | None
    ) -> None:
        """Tell the child what is to stay, behind the path `after`."""
        trees = self._core.store.trees
        paths = [] if at and after is None else trees.verified(row.row, after, SWEPT_AT_ONCE)
        request = SweepStage(
            sweep=sweep,
            folder=row.folder or self._core.profile.downloads,
            name=self._parts.name(row),
            at=at,
            known=b"".join(map(mark, paths)),
            end=len(paths) < SWEPT_AT_ONCE,
        )
        then = paths[-1] if not request.end else None
        count = at + len(paths)
        self._core.ask(request, lambda answer: self._swept(moving, request, count, then, answer))

    def _swept(
        self,
        moving: Moving,
        request: SweepStage,
        count: int,
        after: bytes | None,
        answer: Answer,
    ) -> None:
        row = self._still(moving, answer)
        if row is None:
            return
        more = isinstance(answer, Failed)  # EAGAIN
        if more or not request.end:
            self._sweep(moving, row, request.sweep, count, after)
        else:
            self._sync(moving, row)

    def _still(self, moving: Moving, answer: Answer) -> TransferRow | None:
        """The transfer, if it goes on after this answer."""
        row = self._rows.get(moving.row)
        if row is None or row.ended:
            self._transfers.drop(moving)
            return None
        if isinstance(answer, Done) or (isinstance(answer, Failed) and answer.code == "EAGAIN"):
            return row
        text = answer.text if isinstance(answer, Failed) else "sync failed"
        if isinstance(answer, Failed) and answer.code in NOT_BEGUN | AWAY:
            self._rows.update(row.row, boot=NO_BOOT)  # it may be another stage than before
            self.forget(row.row)
            self._transfers.fall_back(moving)
            self._tell_broken(moving, row, text)
        else:
            self._transfers.drop(moving)
            self._fail(row, f"the receiver's disk: {text}")
        return None

    def _sync(self, moving: Moving, row: TransferRow) -> None:
        request = SyncStage(row.folder or self._core.profile.downloads, self._parts.name(row))
        self._core.ask(request, lambda answer: self._synced(moving, answer))

    def _synced(self, moving: Moving, answer: Answer) -> None:
        row = self._still(moving, answer)
        if row is not None:
            self._transfers.drop(moving)
            self._place(row)

    def _tell_broken(self, moving: Moving, row: TransferRow, why: str) -> None:
        text = f"the receiver's downloads folder: {why}"
        self._core.log("warning", f"{show_path(row.name)[0]} has to wait: {text}")
        self._transfers.explain(row.row, f"{text}; it will be tried again")
        route = self._core.routes.get(row.contact)
        if route is not None and route.open:
            answer = LaneAnswer(ticket=moving.ticket, transfer=row.id, code="broken", text=text)
            self._core.send(route.link, answer)

    def _place(self, row: TransferRow) -> None:
        if not row.again or row.chosen is None:
            self._choose(row, 0)
        else:
            self._merge(self._transfers.move(row, "active", merging=1))

    def _merge(self, row: TransferRow, told: int = 0) -> None:
        assert row.folder is not None and row.chosen is not None
        request = MergeStage(row.folder, self._parts.name(row), row.chosen, row.inode, told)
        self._core.ask(request, lambda answer: self._merged(row.row, told, answer))

    # -- under a new name ----------------------------------------------------------------

    def _choose(self, row: TransferRow, number: int) -> None:
        """Commit to a name, then ask for the rename: a crash between the two is finished later."""
        chosen = final_name(self._core.settings.prefix, row.name, number)
        self._publish(self._transfers.move(row, "active", chosen=chosen), number)

    def _look_for_name(self, row: TransferRow, number: int) -> None:
        """Look at one name after another and commit to the first free one: a look is a hundred
        times cheaper than a commit and a rename that fails."""
        if number > limits.NAME_TRIES_MAX:
            self._fail(row, "no free name was found in the receiver's folder")
            return
        assert row.folder is not None
        name = final_name(self._core.settings.prefix, row.name, number)
        request = Inspect(row.folder.rstrip(b"/") + b"/" + name)
        self._core.ask(request, lambda answer: self._looked(row.row, number, answer))

    def _looked(self, transfer: int, number: int, answer: Answer) -> None:
        row = self._rows.get(transfer)
        if row is None or row.ended:
            return
        if isinstance(answer, Inspected):
            self._look_for_name(row, number + 1)
        else:
            self._choose(row, number)

    def _publish(self, row: TransferRow, number: int = -1) -> None:
        assert row.folder is not None and row.chosen is not None
        request = Publish(
            folder=row.folder,
            part=self._parts.name(row),
            name=row.chosen,
            inode=row.part_inode,
            mtime_ns=row.mtime_ns,
            executable=bool(row.executable),
            tree=row.tree,
        )
        self._core.ask(request, lambda answer: self._published(row.row, number, answer))

    def _published(self, transfer: int, number: int, answer: Answer) -> None:
        row = self._rows.get(transfer)
        if row is None or row.ended:
            return
        if isinstance(answer, Inspected):
            self._done(row, inode=answer.inode, final_ctime_ns=answer.ctime_ns, part=0)
        elif isinstance(answer, Failed) and answer.code == "EEXIST":
            self._look_for_name(row, number + 1)
        elif isinstance(answer, Failed) and answer.code in OPEN | PASSING | LOCKED:
            self._wait(row, answer)
        elif isinstance(answer, Failed) and answer.code in AWAY:
            assert row.folder is not None
            ask = Inspect(row.folder)
            self._core.ask(ask, lambda found: self._looked_for_folder(transfer, found))
        else:
            text = answer.text if isinstance(answer, Failed) else "rename failed"
            self._fail(row, f"the receiver's downloads folder: {text}")

    def _looked_for_folder(self, transfer: int, answer: Answer) -> None:
        row = self._rows.get(transfer)
        if row is None or row.ended:
            return
        if isinstance(answer, Inspected) and answer.kind == "folder":
            self._fail(row, "the part file vanished from the receiver's downloads folder")
        else:
            problem = answer.text if isinstance(answer, Failed) else "it is not a folder"
            self._wait(row, Failed("ENOENT", problem))

    # -- into what is there --------------------------------------------------------------

    def _merged(self, transfer: int, told: int, answer: Answer) -> None:
        row = self._rows.get(transfer)
        if row is None or row.ended:
            return
        if isinstance(answer, Unpacked):
            self._core.store.trees.put(row.row, answer.entries)
            told += len(answer.entries)
            if answer.entries and told < answer.number:
                self._merge(row, told)
                return
            self._done(row, again=0, merging=0)
            self._parts.discard(row)  # what could not be moved is still in it
        elif isinstance(answer, Failed) and answer.code in OPEN | PASSING:
            self._wait(row, answer)
        elif isinstance(answer, Failed) and answer.code in AWAY:
            # Our user has moved what came before, or removed it: a folder of their own.
            self._rows.update(row.row, again=0, merging=0)
            self._choose(self._rows.get(row.row) or row, 0)
        else:
            text = answer.text if isinstance(answer, Failed) else "cannot be written"
            self._fail(row, f"the folder that came before: {text}")

    # -- the end -------------------------------------------------------------------------

    def _done(self, row: TransferRow, **changes: object) -> None:
        self.forget(row.row)
        changes |= {"bytes_done": row.size, "error": None, "counting": 0}
        if row.tree:
            self._core.store.trees.miss(row.row)
            changes |= self._transfers.settle(row)
            self._tell_fates(row)
        self._transfers.move(row, "failed" if changes.get("failed") else "done", **changes)
        self._mail.put(row.contact, result_of(row))

    def _tell_fates(self, row: TransferRow) -> None:
        trees = self._core.store.trees
        for state in ("failed", "skipped"):
            bad = trees.bad(row.row, state, FATES_TOLD_MAX)
            for at in range(0, len(bad), limits.FATES_MAX):
                some = bad[at : at + limits.FATES_MAX]
                files = [FileState(each.path, state, each.reason[:500]) for each in some]
                self._mail.put(row.contact, Fates(transfer=row.id, files=files))

    def _fail(self, row: TransferRow, reason: str) -> None:
        self.forget(row.row)
        self._mail.put(row.contact, Result(transfer=row.id, error=reason[:500]))
        self._transfers.end(row, "failed", reason, self._parts)


def result_of(row: TransferRow) -> Result:
    """What the sender is told of a transfer that is done."""
    return Result(
        transfer=row.id, digest=row.digest, reused=row.bytes_reused, received=row.bytes_sent
    )
