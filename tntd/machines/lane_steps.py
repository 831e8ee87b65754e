"""What the two ends of a lane (sending.py, receiving.py) ask of whoever runs them, as values."""

from __future__ import annotations

from typing import NamedTuple

from tntd.machines.records import RecordType
from tntd.tasks import CopyRange, Entry, FinishEntry, HashRange, Large, OpenEntry, Pack, Unpack

LaneTask = Pack | Unpack | OpenEntry | HashRange | CopyRange | FinishEntry


class LaneTrouble(Exception):
    """A lane ends early: `code` and `text` of LaneFailed."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


# -- both ends ----------------------------------------------------------------------------


class Do(NamedTuple):
    """A task for the child."""

    task: LaneTask


class Put(NamedTuple):
    """A record to send."""

    type: RecordType
    plain: bytes


class Close(NamedTuple):
    """An open file that is not needed any more."""

    handle: int


class Entries(NamedTuple):
    """Entries that went out, or are done here: what became of files, the next entry's number, the
    path of the last, and the bytes of the transfer that are done with them; `anew` where they are
    the first of a walk that began anew."""

    entries: tuple[Entry, ...]
    number: int
    after: bytes
    bytes_done: int
    anew: bool = False


# -- the sender ---------------------------------------------------------------------------


class Read(NamedTuple):
    """A range (in bytes) of the open file `handle`, which was `large` when it was opened: to be
    looked at for changes before the `first` range is read, and after the `last`.  `growing`: it is
    the same file as long as it has at least the size of `large`."""

    handle: int
    large: Large
    offset: int
    length: int
    first: bool
    last: bool
    growing: bool = False


class Wait(NamedTuple):
    """Nothing can be done now; `receiver` says whether its word is waited for, else the child, or
    more of a file that grows."""

    receiver: bool


class End(NamedTuple):
    """All of it was put: END is to follow."""


Want = Do | Put | Read | Close | Wait | End

# -- the receiver -------------------------------------------------------------------------


class Written(NamedTuple):
    """Bytes that the child wrote, for whoever counts what is not synced."""

    size: int


class Finished(NamedTuple):
    """All is here, and was told to the sender."""


class Write(NamedTuple):
    """Bytes for the open file `handle`, to be written before the next record is taken."""

    handle: int
    offset: int
    data: memoryview


Step = Do | Put | Close | Entries | Written | Finished
