"""What a daemon keeps is bounded (tntd/limits.py), whatever comes: looked at after every turn.

What holds always: this only looks.  What the store keeps is looked at once, in the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tntd import limits

from .heap import Violation

if TYPE_CHECKING:
    from .machine import Machine
    from .process import Process

LINKS_MAX = 40  # between few machines, with time-outs of seconds
# A few for each transfer that moves and each that has just ended, and those of a few requests.
TASKS_MAX = 40
MOVING = ("dialling", "waiting", "adopted", "greeting", "moving")
# Whose bound is one for each contact: a table and how many rows.
STORED = (("seen", limits.SEEN_IDS_MAX), ("epochs", limits.EPOCHS_KEPT_MAX))


def check_bounds(machine: Machine, process: Process) -> None:
    """Raises Violation where more is kept in memory than was promised."""
    kept = len(process.ends), process.disk_child.length + process.net_child.length
    if kept[0] > LINKS_MAX or kept[1] > TASKS_MAX:
        raise Violation(f"{machine.name} has {kept[0]} links and {kept[1]} tasks of children")
    for route in process.node._core.routes.values():
        window = route.window
        too_much = window._bytes > limits.WINDOW_BYTES_MAX + limits.FRAME_BYTES_MAX
        if too_much or len(window._under_way) > limits.WINDOW_ENVELOPES_MAX:
            raise Violation(
                f"{machine.name} has {len(window._under_way)} envelopes of {window._bytes} bytes "
                "under way to one contact"
            )
    _check_lanes(machine, process)


def _check_lanes(machine: Machine, process: Process) -> None:
    settings, transfers = machine.settings, process.node._queue.transfers
    often: dict[tuple[bool, int], int] = {}
    for moving in transfers.moving.values():
        for one in ((moving.outgoing, moving.contact), (moving.outgoing, 0)):
            often[one] = often.get(one, 0) + 1
    for (_, contact), count in often.items():
        most = settings.transfers_per_contact_max if contact else settings.transfers_max
        if count > most:
            raise Violation(f"{machine.name} moves {count} at once, and {most} may")
    lanes = sum(lane.phase in MOVING for lane in process.lanes.values())
    if lanes > len(transfers.moving) or len(transfers._closed) > limits.LANES_MAX:
        raise Violation(f"{machine.name} has {lanes} lanes for {len(transfers.moving)} transfers")
    # Who is in the middle of a record takes it whole, and what the child is to copy is copied.
    records = limits.RECORD_PLAIN_BYTES_MAX * (1 + limits.LANE_UNPACKS_MAX)
    each = records + limits.UNSYNCED_STEP_BYTES * limits.LANE_COPIES_MAX
    if process.budget.total > limits.UNSYNCED_BYTES_MAX + max(1, lanes) * each:
        raise Violation(f"{machine.name} has {process.budget.total} bytes that are not synced")


def check_stored(machine: Machine) -> None:
    """Raises Violation where the store keeps more than was promised."""
    sql = machine.database.sql
    for table, most in STORED:
        query = f"SELECT count(*) FROM {table} GROUP BY contact ORDER BY 1 DESC LIMIT 1"
        (count,) = sql.execute(query).fetchone() or (0,)
        if count > most:
            raise Violation(f"{machine.name} keeps {count} rows of {table} for one contact")
    (count,) = sql.execute("SELECT count(*) FROM events").fetchone()
    if count > limits.EVENTS_KEPT_MAX:
        raise Violation(f"{machine.name} keeps {count} events")
