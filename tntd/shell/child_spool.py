"""The spool: what clients have put down only to be sent, removed when it is not needed any more.

What holds always: it is `SPOOL/FOLDER/NAME`, and what is removed is a whole FOLDER, looked up
below SPOOL without following links; so however odd the names are that somebody sends from, nothing
else is ever touched.  What a client left behind that was killed is told by its age: a client that
is at work touches its folder from time to time.
"""

from __future__ import annotations

import errno
import os
import time

from tntd.shell import child_folder, child_stage
from tntd.shell.child_folder import Folder
from tntd.shell.child_tree_remove import Step, is_asked_for, remove
from tntd.tasks import CleanSpool, Counted, Done, Unspool


def unspool(task: Unspool) -> Done:
    """Remove one folder for good.  Raises OSError, EAGAIN where more is left."""
    child_folder.check_name(task.name)
    try:
        with child_stage.open_folder(task.folder) as spool:
            remove(spool, task.name, Step())
            spool.sync()
    except FileNotFoundError:
        return Done()
    return Done()


def clean_spool(task: CleanSpool) -> Counted:
    """Remove old folders for a moment; what this request removed."""
    step = Step()
    try:
        with child_stage.open_folder(task.folder) as spool:
            end = _clean(spool, task, step)
    except FileNotFoundError:
        return Counted(0, 0, True)
    return Counted(step.files, step.bytes, end)


def _clean(spool: Folder, task: CleanSpool, step: Step) -> bool:
    """Whether that was all.  What cannot be removed stays, and does not keep the others."""
    keep, before = set(task.keep), time.time() - task.age_s
    listing = spool.scan()
    try:
        for entry in listing:
            name = os.fsencode(entry.name)
            if name in keep or not is_asked_for(name, task):
                continue
            found = spool.find(name)
            if found is None or found.st_mtime >= before:
                continue
            try:
                step.go_on()
                remove(spool, name, step)
            except OSError as error:
                if error.errno == errno.EAGAIN:
                    return False
    finally:
        listing.close()
    return True
