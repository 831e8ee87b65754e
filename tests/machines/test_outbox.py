"""The outbox: two sides of it, over a network that cuts, with databases that go back in time."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from tntd import limits
from tntd.machines.outbox import Ours, Standing, Theirs, Verdict, Window, forgot, judge, stand

E1, E2 = b"1" * 16, b"2" * 16


def test_the_same_memory_goes_on() -> None:
    assert stand(Ours(E1, 5, 3, b"c"), Theirs(E1, 3, b"c"), None) is Standing.GO_ON


def test_lost_acknowledgements_are_caught_up() -> None:
    assert stand(Ours(E1, 5, 3, b"c"), Theirs(E1, 4, b"d"), b"d") is Standing.CATCH_UP


def test_a_peer_without_memory_goes_on() -> None:
    assert stand(Ours(E1, 5, 3, b"c"), Theirs(None, 0, None), None) is Standing.GO_ON


def test_more_received_than_assigned_renews() -> None:
    assert stand(Ours(E1, 5, 3, b"c"), Theirs(E1, 9, b"i"), None) is Standing.RENEW


def test_the_same_number_with_another_id_renews() -> None:
    # A backup was restored, and new messages took the numbers of lost ones.
    assert stand(Ours(E1, 9, 3, b"c"), Theirs(E1, 7, b"g"), b"G") is Standing.RENEW
    assert stand(Ours(E1, 9, 3, b"c"), Theirs(E1, 3, b"C"), None) is Standing.RENEW


def test_a_loss_is_seen_also_once_it_was_skipped() -> None:
    ours = Ours(E1, 5, 3, b"c")
    assert forgot(ours, Theirs(None, 0, None)) and forgot(ours, Theirs(E1, 2, b"b"))
    assert forgot(ours, Theirs(E1, 3, None))
    assert not forgot(ours, Theirs(E1, 3, b"c")) and not forgot(ours, Theirs(E1, 4, b"d"))
    assert not forgot(Ours(E1, 0, 0, None), Theirs(E1, 0, None))


def test_a_twin_is_told_from_a_repetition() -> None:
    assert judge(3, 5, True) is Verdict.REPEATED
    assert judge(3, 5, False) is Verdict.TWIN
    assert judge(6, 5, False) is Verdict.NEW
    assert judge(6, 5, True) is Verdict.REPEATED


def test_the_window_bounds_count_and_bytes() -> None:
    window = Window(10)
    for number in range(11, 11 + limits.WINDOW_ENVELOPES_MAX):
        assert window.room() > 0
        window.note_sent(number, 10)
    assert window.room() == 0
    assert window.note_acked(12)
    assert window.room() == 2
    assert not window.note_acked(12), "no progress"
    assert window.note_acked(500), "over an earlier link"
    assert window.sent == 500
    assert window.room() == limits.WINDOW_ENVELOPES_MAX
    window = Window(0)
    window.note_sent(1, limits.WINDOW_BYTES_MAX)
    assert window.room() == 0


@dataclass
class Sender:
    """The rules of node/mail.py for the sending side, on plain lists."""

    epoch: bytes = E1
    waiting: list[tuple[int, bytes]] = field(default_factory=list)
    highest: int = 0
    acked: int = 0
    acked_id: bytes | None = None

    def copy(self) -> Sender:
        return Sender(self.epoch, list(self.waiting), self.highest, self.acked, self.acked_id)

    def put(self, id: bytes) -> None:
        self.highest += 1
        self.waiting.append((self.highest, id))

    def drop(self, upto: int) -> None:
        gone = [(number, id) for number, id in self.waiting if number <= upto]
        self.waiting = self.waiting[len(gone) :]
        self.acked = upto
        self.acked_id = gone[-1][1] if gone else None


@dataclass
class Receiver:
    """The rules of node/mail.py for the receiving side."""

    epoch: bytes | None = None
    upto: int = 0
    upto_id: bytes | None = None
    seen: set[bytes] = field(default_factory=set)
    history: list[bytes] = field(default_factory=list)
    gaps: int = 0

    def take_epoch(self, epoch: bytes, lowest: int, highest: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.upto, self.upto_id = epoch, 0, None
        if lowest > self.upto + 1 and highest >= self.upto:
            self.gaps += 1
            self.upto, self.upto_id = lowest - 1, None

    def take(self, number: int, id: bytes) -> None:
        verdict = judge(number, self.upto, id in self.seen)
        assert verdict is not Verdict.TWIN, "the ids behind the numbers were compared before"
        if number <= self.upto:
            return
        assert number == self.upto + 1, "in order, nothing left out"
        if verdict is Verdict.NEW:
            self.seen.add(id)
            self.history.append(id)
        self.upto, self.upto_id = number, id


def link(sender: Sender, receiver: Receiver, epochs: list[bytes], cut: int, acks: int) -> None:
    """One link: memories compared, up to `cut` envelopes through, up to `acks` acknowledged."""
    theirs = Theirs(receiver.epoch, receiver.upto, receiver.upto_id)
    ours = Ours(sender.epoch, sender.highest, sender.acked, sender.acked_id)
    at_received = next((i for n, i in sender.waiting if n == receiver.upto), None)
    standing = stand(ours, theirs, at_received)
    if standing is Standing.CATCH_UP:
        sender.drop(receiver.upto)
    if standing is Standing.RENEW:
        sender.epoch = epochs.pop()
        sender.waiting = [(n, i) for n, (_, i) in enumerate(sender.waiting, 1)]
        sender.highest, sender.acked, sender.acked_id = len(sender.waiting), 0, None
    receiver.take_epoch(sender.epoch, sender.acked + 1, sender.highest)
    through = sender.waiting[:cut]
    for number, id in through:
        receiver.take(number, id)
    if through[:acks]:
        sender.drop(through[:acks][-1][0])


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.just(0), st.just(0)),
        st.tuples(st.just("link"), st.integers(0, 6), st.integers(0, 6)),
        st.tuples(st.just("backup"), st.just(0), st.just(0)),
        st.tuples(st.just("restore sender"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(steps)
@settings(max_examples=300)
def test_exactly_once_in_order_whatever_is_cut_or_restored(
    steps: list[tuple[str, int, int]],
) -> None:
    sender, receiver, backup = Sender(), Receiver(), Sender()
    epochs = [bytes([n]) * 16 for n in range(200)]
    made = 0
    for step, cut, acks in steps:
        if step == "put":
            made += 1
            sender.put(made.to_bytes(16, "big"))
        elif step == "link":
            link(sender, receiver, epochs, cut, acks)
        elif step == "backup":
            backup = sender.copy()
        else:
            sender = backup.copy()
    left = [id for _, id in sender.waiting]
    link(sender, receiver, epochs, 1000, 1000)
    assert len(receiver.history) == len(set(receiver.history)), "nothing twice"
    assert set(left) <= set(receiver.history), "nothing that was kept is missing"
    assert not sender.waiting
    if not any(step == "restore sender" for step, _, _ in steps):
        assert receiver.history == sorted(receiver.history), "in order"
        assert len(receiver.history) == made
        assert receiver.gaps == 0
