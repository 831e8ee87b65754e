"""How fast a transfer is said to go."""

from __future__ import annotations

from typing import Any

from fuzz.test_findings_transfers import Play, Sending, Taking
from tntd.events import LaneEntries, LaneFailed, LaneProgressed

MIB = 1024 * 1024


def shown(play: Play) -> dict[str, Any]:
    """The transfer, as users see it."""
    row = play.bench.store.transfers.get(play.row.row)
    assert row is not None
    found = play.bench.node._queue.transfers.show(row)
    return {"rate": found.rate, "eta_s": found.eta_s}


def test_a_transfer_that_stands_still_says_so_by_itself() -> None:
    sending = Sending()
    lane = sending.open()
    sending.bench.wait(1.0)
    sending.bench.turn(LaneProgressed(lane, 3, 3))
    assert shown(sending)["rate"] == 3
    client = sending.bench.open_client(local_user=True)
    sending.bench.turn()
    sending.bench.node._clients.all[client].upto = sending.bench.node._journal.newest()
    sending.bench.lines[client].clear()
    sending.bench.wait(10.0)  # the node itself asked to be woken
    told = [each["params"]["transfer"] for each in sending.bench.lines[client]]
    assert [(each["rate"], each.get("eta_s")) for each in told] == [(0, None)]


def test_a_new_lane_does_not_go_back_to_nothing() -> None:
    sending = Sending(tree=False)
    lane = sending.open()
    sending.bench.turn(LaneProgressed(lane, 3, 3))
    sending.end_lane(LaneFailed(lane, "cut", "the connection was cut"))
    sending.bench.wait(60.0)
    lane = sending.open()
    sending.bench.turn(LaneProgressed(lane, 0, 1))
    found = sending.bench.node._queue.transfers.show(sending.row)
    assert (found.state, found.bytes_done) == ("active", 3)
    sending.bench.turn(LaneProgressed(lane, 1, 2))
    assert sending.bench.node._queue.transfers.show(sending.row).bytes_done == 1
    sending.end_lane(LaneFailed(lane, "cut", "the connection was cut"))
    assert sending.row.bytes_done == 1


def test_what_is_found_there_is_no_speed() -> None:
    sending = Sending()
    lane = sending.open()
    sending.bench.wait(1.0)
    sending.bench.turn(LaneProgressed(lane, 500 * MIB, 5 * MIB))
    assert shown(sending)["rate"] == 5 * MIB
    taking = Taking()
    lane = taking.open()
    taking.bench.wait(1.0)
    taking.bench.turn(LaneEntries(lane, (), 3, b"b", 500), LaneProgressed(lane, 500, 5))
    assert shown(taking)["rate"] == 5


def test_the_time_that_is_left_is_what_is_left_over_the_rate() -> None:
    sending = Sending()
    size = 1000 * MIB
    sending.bench.store.transfers.update(sending.row.row, size=size)
    lane = sending.open()
    assert shown(sending) == {"rate": 0, "eta_s": None}, "nothing is known yet"
    for second in range(1, 6):
        sending.bench.wait(1.0)
        done = second * 7 * MIB
        sending.bench.turn(LaneProgressed(lane, done, done))
        assert shown(sending) == {"rate": 7 * MIB, "eta_s": -(-(size - done) // (7 * MIB))}
    # What is there counts, however it came; and it slows down.
    done = 500 * MIB
    sending.bench.wait(1.0)
    sending.bench.turn(LaneProgressed(lane, done, 6 * 7 * MIB))
    assert shown(sending) == {"rate": 7 * MIB, "eta_s": -(-500 // 7)}
    for _ in range(4):
        sending.bench.wait(1.0)
        done += MIB
        sending.bench.turn(LaneProgressed(lane, done, 6 * 7 * MIB + done - 500 * MIB))
    assert shown(sending) == {"rate": MIB, "eta_s": 496}
