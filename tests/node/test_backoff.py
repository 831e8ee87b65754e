"""How long a transfer whose tries fail waits from one to the next."""

from __future__ import annotations

from fuzz.test_findings_transfers import Sending
from tntd import limits
from tntd.events import LaneFailed
from tntd.tasks import Inspect
from tntd.wire.frames import Ping

STEP_S = 0.25


def fails(sending: Sending) -> None:
    """A lane is opened, and breaks."""
    lane = sending.open()
    sending.end_lane(LaneFailed(lane, "cut", "the lane broke"))
    assert sending.row.state == "queued"


def waited(sending: Sending) -> float:
    """The seconds until it is tried once more, in steps."""
    for step in range(1, int(2 * limits.BACKOFF_MAX_S / STEP_S)):
        sending.link.say(Ping(nonce=0))  # the link is alive all the time
        sending.bench.wait(STEP_S)
        if any(isinstance(task, Inspect) for task in sending.bench.tasks.values()):
            return step * STEP_S
    raise AssertionError("it is not tried any more")


def test_the_waits_between_tries_grow_up_to_a_limit() -> None:
    """Each is twice as long as the one before, less a random half at most."""
    sending = Sending(tree=False)
    full, waits = limits.BACKOFF_FIRST_S, []
    for _ in range(10):
        fails(sending)
        waits.append(waited(sending))
        assert full / 2 <= waits[-1] <= full + STEP_S, waits
        full = min(limits.BACKOFF_MAX_S, 2 * full)
    assert full == limits.BACKOFF_MAX_S
    assert waits[-1] > 20 * waits[0]


def test_a_contact_that_comes_back_is_not_waited_for() -> None:
    """What kept them away is over: the next wait is a short one, too."""
    sending = Sending(tree=False)
    for _ in range(6):
        fails(sending)
        waited(sending)
    fails(sending)
    (link,) = sending.bench.links
    sending.bench.closed_links.append(link)
    sending.hostile.links.clear()
    sending.bench.turn()
    sending.link  # noqa: B018 - they are back
    fails(sending)  # tried at once
    assert waited(sending) <= limits.BACKOFF_FIRST_S + STEP_S
