"""Broken variants of the daemon: a simulator is believed only for bugs that it catches.

What holds always: a mutant replaces something of tntd (or what stands for it here: the child
processes and lanes are the simulator's own) for the time of a run; the seeds are those of
everybody, from 1 on, and the first that fails has caught it.  What needs more luck than they have
is caught by a story (stories.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

from msgspec import structs

from tntd.effects import SendFrame
from tntd.machines.outbox import Standing, Verdict, Window
from tntd.machines.timers import Timers
from tntd.node import mail as mail_module
from tntd.node.arriving import Arriving
from tntd.node.clients import Clients
from tntd.node.dialling import Dialling
from tntd.node.growing import Growing
from tntd.node.incoming import Incoming
from tntd.node.journal import Journal
from tntd.node.mail import Mail
from tntd.node.outgoing import Outgoing
from tntd.node.pairs import Pairs
from tntd.node.parts import Parts
from tntd.node.steering import Steering
from tntd.node.transfers import Transfers
from tntd.node.waits import Waits
from tntd.shell import driver
from tntd.shell.driver import Driver
from tntd.store import Store
from tntd.store.database import Database
from tntd.store.messages import Messages
from tntd.store.outbox import Outbox
from tntd.store.trees import Trees
from tntd.tasks import Done, Failed
from tntd.wire.frames import NUMBERS, Ack

from . import lanes, stories
from .child_stage import Stage
from .disk import Disk, File, Folder
from .machine import Machine
from .world import simulate

SEEDS_MAX = 150
Mutant = Callable[[], Any]
Story = Callable[[], None]
MUTANTS: dict[str, Mutant] = {}
STORIES: dict[str, Story] = {}  # by mutant, where seeds have to be too lucky


def mutant(make: Mutant) -> Mutant:
    """Put a mutant into the table, under its function's name in words."""
    MUTANTS[make.__name__.replace("_", " ")] = make
    return make


def told_by(story: Story) -> Callable[[Mutant], Mutant]:
    """The same for a mutant that is caught by a story."""

    def put(make: Mutant) -> Mutant:
        mutant(make)
        STORIES[make.__name__.replace("_", " ")] = story
        return make

    return put


def catch(name: str, first: int = 1) -> tuple[int, str] | None:
    """The first seed from `first` on that catches a mutant, or 0 for its story, and how; None where
    it survives."""
    if name in STORIES:
        return _catch_by(name, STORIES[name])
    for seed in (*range(first, SEEDS_MAX + 1), *range(1, first)):
        with MUTANTS[name]():
            outcome = simulate(seed)
        if outcome.problem:
            return seed, outcome.problem
    return None


def _catch_by(name: str, story: Story) -> tuple[int, str] | None:
    try:
        with MUTANTS[name]():
            story()
    except AssertionError as problem:
        return 0, str(problem)
    return None


# -- messages -----------------------------------------------------------------------------


@mutant
def no_de_duplication() -> Any:
    """Whatever comes is new, under whatever number and id it came before."""
    take_envelope = Mail.take_envelope

    def take(self: Mail, row: Any, link: int, envelope: Any) -> None:
        if envelope.number <= row.in_upto and envelope.epoch == row.in_epoch:
            self._open(row, structs.replace(envelope, id=self._core.random(16)))
        take_envelope(self, row, link, envelope)

    return mock.patch.object(Mail, "take_envelope", take)


@mutant
def ids_are_forgotten() -> Any:
    """What was received is known by its number alone."""
    return mock.patch.multiple(Outbox, was_seen=lambda *_: False, mark_seen=lambda *_: None)


@contextmanager
def _early(which: Callable[[Any], bool]) -> Iterator[None]:
    """Some effects are performed before the commit."""
    handle_all = Driver._handle_all

    def handled(self: Any, events: Any, now: Any) -> Any:
        node, released = self._node, []
        calls = {name: getattr(node, name) for name in ("handle", "finish_turn")}

        def wrap(call: Any) -> Any:
            def called(*arguments: Any) -> Any:
                effects = call(*arguments)
                early = [effect for effect in effects if which(effect)]
                for effect in early:
                    self._world.perform(effect)
                    released.append(effect)
                return [effect for effect in effects if effect not in early]

            return called

        for name, call in calls.items():
            setattr(node, name, wrap(call))
        try:
            return handle_all(self, events, now)
        finally:
            for name in calls:
                delattr(node, name)

    with mock.patch.object(Driver, "_handle_all", handled):
        yield


@mutant
def send_before_commit() -> Any:
    """Frames leave while the turn is not committed."""
    return _early(lambda effect: isinstance(effect, SendFrame))


@mutant
def acknowledge_before_commit() -> Any:
    """Acknowledgements leave while the turn is not committed."""
    number = NUMBERS[Ack].to_bytes(2, "big")
    return _early(lambda effect: isinstance(effect, SendFrame) and effect.data[4:6] == number)


@mutant
def no_rewind_on_reconnect() -> Any:
    """A new link goes on where the old one was, whatever arrived."""

    def bind(self: Mail, contact: int, route: Any) -> None:
        row = self._contacts.get(contact)
        route.window = Window(row.out_highest)
        self._dirty.add(contact)

    return mock.patch.object(Mail, "bind", bind)


@mutant
def dropped_when_sent() -> Any:
    """What was sent counts as delivered."""
    pump = Mail._pump

    def pumped(self: Mail, contact: int, route: Any) -> None:
        pump(self, contact, route)
        self._outbox.drop(contact, route.window.sent)

    return mock.patch.object(Mail, "_pump", pumped)


@mutant
def an_older_copy_is_not_noticed() -> Any:
    """After a restore numbers go on as if nothing had happened."""
    return mock.patch.multiple(
        mail_module, stand=lambda *_: Standing.GO_ON, judge=lambda *_: Verdict.NEW
    )


@mutant
def client_refs_are_forgotten() -> Any:
    """A repeated call is a second message."""
    return mock.patch.object(Store, "get_client_ref", lambda *_: None)


@mutant
def commits_are_not_synced() -> Any:
    """The database does not wait for the disk."""
    configure = Database._configure

    def configured(self: Database) -> None:
        configure(self)
        self.sql.execute("PRAGMA synchronous=NORMAL")

    return mock.patch.object(Database, "_configure", configured)


@mutant
def receipts_for_nobody() -> Any:
    """A delivered message stays queued in the sender's history."""
    return mock.patch.object(Messages, "advance", lambda *_: [])


# -- links --------------------------------------------------------------------------------


@mutant
def lost_timer_on_reconnect() -> Any:
    """A link that is lost is not dialled again."""
    want = Dialling.want

    def wanted(self: Dialling, contact: int, *, fresh: bool = False) -> None:
        if fresh:
            want(self, contact, fresh=True)

    return mock.patch.object(Dialling, "want", wanted)


@mutant
def both_links_kept() -> Any:
    """Two links of one pair are both fine."""
    return mock.patch.object(Pairs, "answered", lambda *_: None)


@mutant
def a_timer_that_stays_due() -> Any:
    """A deadline that has come is not taken off."""

    def pop_due(self: Timers[Any], now: float) -> list[Any]:
        return [name for _, _, name in self._heap if self._due.get(name, (now + 1,))[0] <= now]

    return mock.patch.object(Timers, "pop_due", pop_due)


@mutant
def an_undone_turn_lets_go_of_nothing() -> Any:
    """A link that was given up in a turn whose commit failed stays open for ever."""
    return mock.patch.object(driver, "_releases", lambda _: [])


# -- clients ------------------------------------------------------------------------------


@mutant
def cursor_off_by_one() -> Any:
    """A client that comes back begins one event too late."""
    parse = Journal.parse
    return mock.patch.object(
        Journal, "parse", lambda self, text: min(parse(self, text) + 1, self.newest())
    )


@mutant
def cursors_outlive_a_restore() -> Any:
    """After a restore the cursors of before mean other events, and nobody is told."""
    return mock.patch.object(Mail, "_tell_renewed", lambda *_: None)


@mutant
def events_of_a_failed_turn_are_not_told_again() -> Any:
    """A client's cursor moves on although nothing was sent."""
    restart = Clients.restart

    def restarted(self: Clients, error: Any) -> None:
        for client in self.all.values():
            client.released = client.upto
        restart(self, error)

    return mock.patch.object(Clients, "restart", restarted)


# -- files --------------------------------------------------------------------------------


@contextmanager
def _no_sync(*, trees: bool) -> Iterator[None]:
    begin, sync_file = Arriving.begin, Stage.sync_file

    def begun(self: Arriving, moving: Any, event: Any) -> None:
        row = self._rows.get(moving.row)
        if row is None or row.tree != trees:
            begin(self, moving, event)
            return
        changes = {"bytes_done": event.size, "bytes_reused": event.bytes_reused}
        self._rows.update(moving.row, digest=event.digest or None, **changes)
        self._under_way.add(moving.row)
        self._synced(moving, Done())

    def synced(self: Stage, file: File) -> None:
        if trees:
            sync_file(self, file)

    with (
        mock.patch.object(Arriving, "begin", begun),
        mock.patch.object(Stage, "sync_file", synced),
    ):
        yield


@mutant
def no_file_sync() -> Any:
    """A file gets its name before its data is on the disk."""
    return _no_sync(trees=False)


@mutant
def rename_before_sync_of_a_folder() -> Any:
    """A folder gets its name before what is in it is on the disk."""
    return _no_sync(trees=True)


@mutant
def no_folder_sync() -> Any:
    """A file's name is not on the disk when its sender is told."""
    return mock.patch.object(Disk, "sync_folder", lambda *_: None)


@mutant
def rename_before_verify() -> Any:
    """A stage gets its name as soon as its lane is open."""
    opened = Transfers.lane_opened
    start = Incoming.start
    arriving: dict[int, Arriving] = {}

    def lane_opened(self: Transfers, moving: Any) -> None:
        opened(self, moving)
        row = self._rows.get(moving.row)
        if not moving.outgoing and row is not None and not row.ended and not row.again:
            arriving[id(self)]._choose(row, 0)

    def started(self: Incoming) -> None:
        arriving[id(self._transfers)] = self._arriving
        start(self)

    @contextmanager
    def both() -> Iterator[None]:
        with (
            mock.patch.object(Transfers, "lane_opened", lane_opened),
            mock.patch.object(Incoming, "start", started),
        ):
            yield

    return both()


@mutant
def nothing_is_finished_after_a_start() -> Any:
    """What was being put in place when the daemon ended is forgotten."""
    return mock.patch.object(Incoming, "start", lambda *_: None)


@mutant
def a_part_is_forgotten() -> Any:
    """The removal of a part is asked for once, whatever comes of it."""
    return mock.patch.object(Parts, "sweep", lambda *_: None)


@mutant
def a_part_is_removed_in_part() -> Any:
    """The first step of a removal counts as all of it."""
    discarded = Parts._discarded

    def told(self: Parts, row: int, answer: Any) -> None:
        again = isinstance(answer, Failed) and answer.code == "EAGAIN"
        discarded(self, row, Done() if again else answer)

    return mock.patch.object(Parts, "_discarded", told)


@mutant
def a_removed_part_may_come_back() -> Any:
    """The removal of a part is not on the disk when it is told."""
    return mock.patch.object(Stage, "sync_removal", lambda *_: None)


@mutant
def a_broken_lane_is_not_told() -> Any:
    """The sender waits for ever for the result of what did not arrive."""
    return mock.patch.object(Outgoing, "_sent_in_vain", lambda *_: None)


@mutant
def what_may_have_its_name_is_given_up() -> Any:
    """A disk that fails right after the rename ends the transfer, which is sent again."""

    def give_up(self: Arriving, row: Any, failed: Failed) -> None:
        self._fail(row, failed.text)

    return mock.patch.object(Arriving, "_wait", give_up)


@mutant
def a_name_that_is_taken_fails() -> Any:
    """A failed rename is told as done."""
    published = Arriving._published

    def told(self: Arriving, transfer: int, number: int, answer: Any) -> None:
        if isinstance(answer, Failed):
            self._done(self._rows.get(transfer), final_ctime_ns=1, part=0)
        else:
            published(self, transfer, number, answer)

    return mock.patch.object(Arriving, "_published", told)


# -- trees, the queue, resume ---------------------------------------------------------------


@mutant
def blocks_are_told_without_being_read() -> Any:
    """What was written once is told as there, though a power cut has taken it."""
    lose_power, hashes = File.lose_power, Stage._hashes
    written: dict[File, bytes] = {}

    def lost(self: File, rng: Any) -> None:
        written[self] = bytes(self.data)
        lose_power(self, rng)

    def told(self: Stage, file: File, task: Any) -> bytes:
        if file not in written:
            return hashes(self, file, task)
        return hashes(self, File(0, bytearray(written[file])), task)

    return _both(
        mock.patch.object(File, "lose_power", lost), mock.patch.object(Stage, "_hashes", told)
    )


@contextmanager
def _both(*patches: Any) -> Iterator[None]:
    with patches[0], patches[1]:
        yield


@mutant
def a_position_outlives_a_power_cut() -> Any:
    """What was unpacked and not synced is believed to be there."""
    profile = Machine.profile

    def told(self: Machine) -> Any:
        return replace(profile(self), boot=b"always the same")

    return mock.patch.object(Machine, "profile", told)


@mutant
def a_changed_source_is_not_noticed() -> Any:
    """Of a file that changes while it is sent, some of each goes out."""
    return mock.patch.object(lanes, "same", lambda *_: True)


@mutant
def a_pipe_that_broke_off_has_ended() -> Any:
    """What came before is taken for the whole."""

    def expire(self: Growing, number: int) -> None:
        row = self._rows.get(number)
        if row is not None and row.growing and not row.ended:
            self._rows.update(number, growing=0, counting=0)
            self._outgoing.grew(self._transfers.fresh(row))

    return mock.patch.object(Growing, "expire", expire)


@mutant
def a_feeder_that_is_lost_is_waited_for() -> Any:
    """After a start of the daemon, pipes may wait for their clients for ever."""
    return mock.patch.object(Growing, "_wait", lambda *_: None)


@mutant
def again_replaces() -> Any:
    """What failed and is sent again takes the place of what stands there."""
    merge = Stage._merge

    def merged(self: Stage, stage: Folder, target: Folder | None, *rest: Any) -> Any:
        for name, node in stage.names.items():
            if target is not None and isinstance(node, File) and name in target.names:
                self._disk.change((target, name, None))
        return merge(self, stage, target, *rest)

    return mock.patch.object(Stage, "_merge", merged)


@mutant
def a_pause_that_lets_go_of_nothing() -> Any:
    """What is paused goes on moving."""
    return _both(
        mock.patch.object(Outgoing, "let_go", lambda _, row: row),
        mock.patch.object(Incoming, "let_go", lambda _, row: row),
    )


@mutant
def fates_are_not_told() -> Any:
    """A sender believes that each file arrived."""
    return mock.patch.object(Arriving, "_tell_fates", lambda *_: None)


@mutant
def what_is_sent_twice_is_not_counted() -> Any:
    """Only the last lane counts."""
    sent = Transfers.sent

    def told(self: Transfers, moving: Any, row: Any) -> Any:
        return sent(self, moving, replace(row, bytes_sent=0))

    return mock.patch.object(Transfers, "sent", told)


@mutant
def steering_is_not_told() -> Any:
    """What the sender's user does with the queue stays with the sender."""
    return mock.patch.object(Steering, "_steer", lambda self, row, act: self._acts[act](row))


@told_by(stories.a_sync_loses_something_and_the_daemon_ends)
def what_was_lost_is_kept() -> Any:
    """A stage of which a sync has lost something stays where it was."""
    return mock.patch.object(Stage, "_lose", lambda *_: None)


@told_by(stories.fewer_are_sent_again_than_are_waited_for)
def what_was_not_sent_again_is_not_missed() -> Any:
    """What was to be sent again, and is not told of, is called done."""
    return mock.patch.object(Trees, "miss", lambda *_: None)


@told_by(stories.what_changes_is_sent_once_more)
def a_sender_believes_itself() -> Any:
    """What changed while it was sent again counts as told, whatever the receiver has heard."""

    def entries(self: Outgoing, moving: Any, event: Any) -> None:
        self._core.store.trees.put(moving.row, event.entries, event.number)
        self._rows.update(moving.row, number=event.number)

    return mock.patch.object(Outgoing, "lane_entries", entries)


@told_by(stories.what_is_not_there_any_more_is_swept_out)
def what_a_broken_lane_has_left_comes_with_the_rest() -> Any:
    """A stage goes to its place with all that an earlier try has left in it."""
    begin = Arriving.begin

    def begun(self: Arriving, moving: Any, event: Any) -> None:
        moving.swept = True
        begin(self, moving, event)

    return mock.patch.object(Arriving, "begin", begun)


@told_by(stories.a_contact_has_room_again_without_a_word)
def a_contact_without_room_is_never_asked_again() -> Any:
    """The wait for room has no end."""
    return mock.patch.object(Waits, "full", lambda self, contact: self._full.add(contact))


@mutant
def a_kept_epoch_is_forgotten() -> Any:
    """What was received under an epoch that comes back is not known any more."""
    return mock.patch.object(Outbox, "kept_epoch", lambda *_: None)


@mutant
def an_offer_is_made_once() -> Any:
    """Who has lost their history is not told again what is offered to them."""
    finish_turn = Mail.finish_turn

    def finished(self: Mail) -> None:
        self._doubts.clear()
        finish_turn(self)

    return mock.patch.object(Mail, "finish_turn", finished)


@mutant
def there_is_always_room() -> Any:
    """As many transfers move at once as there are."""
    return mock.patch.object(Transfers, "has_room", lambda *_, **__: True)


@mutant
def events_are_sent_to_who_does_not_read() -> Any:
    """What a client has not read does not hold up what comes next."""
    finish_turn = Clients.finish_turn

    def finished(self: Clients) -> None:
        for client in self.all.values():
            client.busy = False
        finish_turn(self)

    return mock.patch.object(Clients, "finish_turn", finished)


@told_by(stories.both_sides_end_one_after_the_other)
def bytes_that_the_other_side_knows_of_are_forgotten() -> Any:
    """Each side counts for itself what goes over lanes."""
    return mock.patch.object(Transfers, "hear_count", lambda *_: None)


@told_by(stories.more_is_written_than_fits_a_window)
def a_window_without_an_end() -> Any:
    """Whatever is written is under way at once."""
    return mock.patch.object(Window, "room", lambda *_: 1 << 20)
