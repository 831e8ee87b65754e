"""Removing stages: for good, folder by folder, a step at a time.

What holds always:
- Nothing is followed: what is removed is below the part folder, reached through real folders.
- A step is short: where more is left it fails with EAGAIN, and the same is asked again, at once; so
  a folder that stays counts as more only where something went.  What is left is found by looking,
  so nothing is remembered between the steps.
- A large file's space is given back piece by piece: all at once would hold up the file system, and
  with it the commits of the database, for seconds.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import Final

from tntd import limits
from tntd.shell import child_folder, child_stage
from tntd.shell.child_folder import PART_FOLDER, Folder
from tntd.tasks import CleanSpool, CleanStages, Counted, DiscardPart, Done

LOST: Final = b".lost"  # behind the name of a stage that is not to be believed any more
_SHORTEN_BYTES: Final = 64 * limits.MIB
_STEP_S: Final = 0.25


class Step:
    """What one request may do, and what it did."""

    def __init__(self) -> None:
        self._end_at = time.monotonic() + _STEP_S
        self.files = 0
        self.bytes = 0
        self.gone = 0  # of files and folders

    def go_on(self) -> None:
        """Raises OSError(EAGAIN) where this was enough."""
        if self.files >= limits.DISCARD_STEP_FILES or time.monotonic() >= self._end_at:
            raise OSError(errno.EAGAIN, "more is left")


def discard_part(task: DiscardPart) -> Done:
    """Remove a stage for good, and the part folder when it is empty."""
    child_folder.check_name(task.name)
    child_stage.drop(task.folder, task.name)
    try:
        with child_stage.open_folder(task.folder) as folder:
            _discard(folder, task.name)
    except FileNotFoundError:
        return Done()
    return Done()


def _discard(folder: Folder, name: bytes) -> None:
    try:
        with child_stage.part_folder(folder) as parts:
            step = Step()
            remove(parts, name, step)
            remove(parts, name + LOST, step)
            # Also where it was gone already: a power cut may bring back what was removed.
            parts.sync()
    except FileNotFoundError:
        folder.sync()
        return
    folder.remove_child(PART_FOLDER)


def clean_stages(task: CleanStages) -> Counted:
    """Remove stages for a moment; what this request removed.  A stage that cannot be removed does
    not keep the others.  Raises OSError where that is all there is left."""
    child_stage.forget()
    step = Step()
    try:
        with child_stage.open_folder(task.folder) as folder:
            with child_stage.part_folder(folder) as parts:
                failed = _clean(parts, task, step)
                parts.sync()
            folder.remove_child(PART_FOLDER)
    except FileNotFoundError:
        return Counted(0, 0, True)
    if failed is not None and (failed.errno == errno.EAGAIN or step.files):
        return Counted(step.files, step.bytes, False)
    if failed is not None:
        raise failed
    return Counted(step.files, step.bytes, True)


def is_asked_for(name: bytes, task: CleanStages | CleanSpool) -> bool:
    """Whether a request to clean is about this name."""
    return name > task.after and (not task.upto or name <= task.upto)


def _clean(parts: Folder, task: CleanStages, step: Step) -> OSError | None:
    failed: OSError | None = None
    keep = set(task.keep)
    listing = parts.scan()
    try:
        for entry in listing:
            name = os.fsencode(entry.name)
            ours = name.startswith(task.prefix) and is_asked_for(name, task)
            if not ours or name in keep:
                continue
            try:
                step.go_on()
                remove(parts, name, step)
            except OSError as error:
                failed = error
                if error.errno == errno.EAGAIN:
                    break
    finally:
        listing.close()
    return failed


# -- one stage ----------------------------------------------------------------------------


def remove(parts: Folder, name: bytes, step: Step) -> None:
    """Remove what is at `name`, for a step.  Raises OSError, EAGAIN where more is left."""
    found = parts.find(name)
    if found is None:
        return
    if not stat.S_ISDIR(found.st_mode):
        _remove_file(parts, name, found, step)
        return
    with parts.child(name) as folder:
        _empty(folder, step)
    _remove_empty(parts, name, step)


def _empty(top: Folder, step: Step) -> None:
    """Remove what is in a folder, the deepest first."""
    way: list[tuple[Folder, child_folder.Listing, bytes]] = [(top, top.scan(), b"")]
    try:
        while way:
            folder, listing, name = way[-1]
            entry = next(listing, None)
            if entry is None:
                way.pop()
                _leave(way, folder, listing, name, step)
                continue
            step.go_on()
            inside = os.fsencode(entry.name)
            found = folder.find(inside)
            if found is None:
                continue
            if stat.S_ISDIR(found.st_mode):
                inner = folder.child(inside)
                way.append((inner, inner.scan(), inside))
            else:
                _remove_file(folder, inside, found, step)
    finally:
        for folder, listing, _ in reversed(way):
            listing.close()
            if folder is not top:
                folder.close()


def _leave(
    way: list[tuple[Folder, child_folder.Listing, bytes]],
    folder: Folder,
    listing: child_folder.Listing,
    name: bytes,
    step: Step,
) -> None:
    listing.close()
    if not way:
        return
    folder.close()
    _remove_empty(way[-1][0], name, step)


def _remove_empty(outer: Folder, name: bytes, step: Step) -> None:
    outer.remove_child(name)
    if outer.find(name) is None:
        step.gone += 1
        return
    # Its listing may have missed something, as others went: another step.  Else it is in use (a
    # file in it that is still open elsewhere, on some file systems, or a disk that hangs there).
    raise OSError(errno.EAGAIN if step.gone else errno.ENOTEMPTY, "more is left")


def _remove_file(folder: Folder, name: bytes, found: os.stat_result, step: Step) -> None:
    reserved = getattr(found, "st_blocks", 0) * 512
    if stat.S_ISREG(found.st_mode) and max(found.st_size, reserved) > _SHORTEN_BYTES:
        _shorten(folder, name, step)
    folder.remove(name)
    step.files += 1
    step.gone += 1
    step.bytes += found.st_size


def _shorten(folder: Folder, name: bytes, step: Step) -> None:
    """Cut a long file down.  One that cannot be cut is removed as it is."""
    try:
        descriptor = folder.open_file(name)
    except OSError:
        return
    try:
        found = os.fstat(descriptor)
        # With two names it is a finished file, of which only the name here is to go.
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            _cut_down(descriptor, found, step)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise
        return
    finally:
        os.close(descriptor)


def _cut_down(descriptor: int, found: os.stat_result, step: Step) -> None:
    size = found.st_size
    reserved = getattr(found, "st_blocks", 0) * 512
    if reserved > size + _SHORTEN_BYTES:
        os.ftruncate(descriptor, reserved)  # else the first step frees all that was set aside
        size = reserved
    while size > _SHORTEN_BYTES:
        size -= _SHORTEN_BYTES
        os.ftruncate(descriptor, size)
        step.go_on()
