"""The progress line of a transfer, for a terminal of any width.  Pure.

What holds always: how far, how fast and how long (or what it waits for) is there whole in 40
columns and more; where room is short, the bar and the name are the first to get shorter, then
the bar goes, then the sizes.  A bar keeps its length while its transfer moves: room is left for
the widest rate and time.
"""

from __future__ import annotations

from typing import Final

from tntd.control.schema import Transfer
from tntd.control.visible import visible

from . import figures
from .render import WAITING, bytes_known, is_one_file, transfer_percent, waiting_words

_BAR_CELLS: Final = 24
_BAR_CELLS_MIN: Final = 6
_NAME_CELLS: Final = 24
_PEER_CELLS: Final = 16
_LABEL_CELLS_MIN: Final = 8
_PART_CELLS_MIN: Final = 3  # of a name, with the mark of the cut
_AROUND_BAR: Final = 5  # two blanks, two brackets, a blank
_SIZE_CELLS: Final = 8  # "99.9 KiB"
_MOVING_CELLS: Final = 30  # "  99.9 KiB/s  23 h 59 min left"


def transfer_bar(transfer: Transfer, with_peer: bool = False, columns: int | None = None) -> str:
    """A progress line of at most `columns` cells; without, as long as it gets."""
    if columns is None:
        bar = _bar(transfer, _BAR_CELLS // 2 if with_peer else _BAR_CELLS)
        label = _label(transfer, with_peer, _NAME_CELLS + _PEER_CELLS + len(" from "))
        return f"{label}  {bar}{_numbers(transfer)}{_ending(transfer)}"
    ending = _ending(transfer)
    room = columns - max(figures.cells(ending), _MOVING_CELLS)
    line = _with_bar(transfer, with_peer, room) or _without_bar(transfer, with_peer, room)
    return figures.fitted(line + ending, columns)


def _with_bar(transfer: Transfer, with_peer: bool, room: int) -> str:
    """All before the ending, "" where `room` cells are too few for it."""
    if transfer.counting:
        return ""
    label = _label(transfer, with_peer, _NAME_CELLS + _PEER_CELLS)
    free = room - _AROUND_BAR - _number_cells(transfer)
    least = min(figures.cells(label), _LABEL_CELLS_MIN)
    if free < least + _BAR_CELLS_MIN:
        return ""
    label = _label(transfer, with_peer, min(figures.cells(label), free - _BAR_CELLS_MIN))
    bar = _bar(transfer, min(_BAR_CELLS, free - figures.cells(label)))
    return f"{label}  {bar}{_numbers(transfer)}"


def _without_bar(transfer: Transfer, with_peer: bool, room: int) -> str:
    """The same without a bar; where that is too much still, without the sizes."""
    numbers = _numbers(transfer)
    free = room - 2 - max(figures.cells(numbers), _number_cells(transfer))
    if free < _LABEL_CELLS_MIN:
        numbers = "" if transfer.counting else _percent(transfer)
        free = room - 2 - figures.cells(numbers)
    # Of a reason, the end may be cut; of a rate, nothing.
    least = _PART_CELLS_MIN if transfer.state == "active" else _LABEL_CELLS_MIN
    return f"{_label(transfer, with_peer, max(least, free))}  {numbers}".rstrip()


def _label(transfer: Transfer, with_peer: bool, cells: int) -> str:
    """The name, and to or from whom, in at most so many cells."""
    name, joint = visible(transfer.name), " to " if transfer.direction == "out" else " from "
    free = cells - len(joint)
    if not with_peer or free < 2 * _PART_CELLS_MIN:
        return figures.fitted(name, min(_NAME_CELLS, cells))
    name = figures.fitted(name, _NAME_CELLS)
    most = max(free // 2, free - figures.cells(name))
    peer = figures.fitted(visible(transfer.contact), min(_PEER_CELLS, most))
    return figures.fitted(name, free - figures.cells(peer)) + joint + peer


def _percent(transfer: Transfer) -> str:
    return f"{transfer_percent(transfer):3}%"


def _bar(transfer: Transfer, cells: int) -> str:
    if transfer.counting:
        return ""
    total = transfer.bytes_total if transfer.state == "done" else max(1, transfer.bytes_total)
    return f"[{figures.bar(transfer.bytes_done, total, cells)}] "


def _numbers(transfer: Transfer) -> str:
    """How far, in numbers: " 43%  1.2 GiB of 3 GiB, 2 failed"."""
    done, total = figures.size(transfer.bytes_done), figures.size(bytes_known(transfer))
    failed = ""
    if transfer.failed and transfer.state not in WAITING and not is_one_file(transfer):
        failed = f", {transfer.failed:,} failed"
    if transfer.counting:
        return f"{done} of at least {total}{failed}"
    return f"{_percent(transfer)}  {done} of {total}{failed}"


def _number_cells(transfer: Transfer) -> int:
    """The most that its numbers take as long as nothing fails."""
    done = figures.size(transfer.bytes_done)
    return figures.cells(_numbers(transfer)) - figures.cells(done) + _SIZE_CELLS


def _ending(transfer: Transfer) -> str:
    """How fast and how long, or the state."""
    if transfer.state in WAITING:
        return f"  {waiting_words(transfer)}"
    if transfer.state != "active":
        return f"  {transfer.state}"
    rate, left = figures.rate(transfer.rate), figures.duration(transfer.eta_s or None)
    return (f"  {rate}" if rate else "") + (f"  {left} left" if left else "")
