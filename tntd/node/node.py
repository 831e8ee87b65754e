"""The router: which part of the node an event is for, and what happens at the turn's end.

What holds always: an event changes the store inside the savepoint around `handle`, and its
effects are returned, not performed; so whoever drives the node commits first and releases
then.  There is no decision in this file that is not "whose is it".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tntd import limits
from tntd.effects import Effect, Stop
from tntd.errors import Code, CommandError, RemoteError
from tntd.events import (
    Answered,
    ClientClosed,
    ClientDrained,
    ClientLeft,
    ClientOpened,
    ClockJumped,
    DialFailed,
    Event,
    FrameArrived,
    LaneEntries,
    LaneFailed,
    LaneFinished,
    LaneOpened,
    LaneProgressed,
    LineArrived,
    LineTooLong,
    LinkBroken,
    LinkClosed,
    LinkOpened,
    Now,
    Started,
    StopRequested,
    TimeCame,
)
from tntd.node.chat import Chat
from tntd.node.clients import Clients
from tntd.node.commands import DaemonCommands, PeopleCommands, TalkCommands
from tntd.node.contacts import Contacts
from tntd.node.core import NO_ROOM, Core, Profile
from tntd.node.dialling import Dialling
from tntd.node.file_commands import FileCommands, SettingCommands
from tntd.node.journal import Journal
from tntd.node.links import Links
from tntd.node.mail import Mail
from tntd.node.preferences import Preferences
from tntd.node.queue import Queue
from tntd.store import Store
from tntd.wire.frames import NUMBERS, Envelope, LaneAnswer, LaneOffer, decode

ENVELOPE_TYPE = NUMBERS[Envelope]
RESUME_DELAY_S = 1.0  # after starting over, so that a lasting cause does not spin


class Node:
    """The whole of a daemon but its I/O.  Built inside a transaction of the store."""

    def __init__(self, store: Store, profile: Profile) -> None:
        core = self._core = Core(store, profile)
        self._journal = Journal(core)
        self._mail = Mail(core)
        self._contacts = Contacts(core)
        chat = Chat(core, self._mail)
        self._preferences = Preferences(core)
        self._queue = Queue(core, self._mail, self._preferences)
        self._dialling = Dialling(core)
        self._links = Links(core, self._contacts, self._mail, self._dialling)
        self._clients = Clients(core, self._journal, self._queue.transfers)
        self._join(chat)
        self._turn_over = True
        self._handlers = self._table()
        self._timers: dict[str, Callable[[int], None]] = {
            "pulse": self._links.pulse,
            "redial": self._dialling.redial,
            "connect": self._dialling.expire,
            "sent": self._mail.mark_sent,
            "offer": self._queue.outgoing.offer_expired,
            "again": self._queue.outgoing.again,
            "full": self._queue.outgoing.waits.room,
            "unfed": self._queue.growing.expire,
            "still": self._queue.transfers.stands_still,
            "room": self._look_for_room,
            "discard": self._queue.parts.sweep,
            "place": self._queue.incoming.place,
            "events": lambda _number: None,  # the turn itself sends them
        }

    def _join(self, chat: Chat) -> None:
        """Fill the tables by which lower parts reach higher ones."""
        core, links = self._core, self._links
        queue = self._queue
        links.handlers[LaneOffer] = queue.incoming.lane_offered
        links.handlers[LaneAnswer] = queue.outgoing.lane_answered
        links.went_up = [queue.outgoing.went_up]
        queue.on_stall = links.look_at
        links.went_down = [queue.outgoing.went_down, queue.incoming.went_down]
        self._mail.renewed.append(self._journal.renew)
        for commands in (
            PeopleCommands(
                core,
                self._contacts,
                links,
                self._dialling,
                queue.end_all,
                self._preferences.forget,
            ),
            TalkCommands(core, self._contacts, chat),
            FileCommands(core, self._contacts, queue, self._preferences),
            SettingCommands(
                core, self._contacts, queue.parts, self._preferences, self._settings_changed
            ),
            DaemonCommands(core, links, self._clients.count, self._stop),
        ):
            self._clients.handlers.update(commands.table())

    # -- the turn ---------------------------------------------------------------------

    def handle(self, event: Event, now: Now) -> list[Effect]:
        """What follows from an event; called inside a savepoint."""
        self._core.now = now
        self._core.effects = []
        if self._turn_over:
            self._turn_over = False
            self._clients.begin_turn()
        self._handlers[type(event)](event)
        return self._core.effects

    def finish_turn(self, now: Now) -> list[Effect]:
        """What follows from the turn as a whole; called once, inside its transaction."""
        self._core.now = now
        self._core.effects = []
        self._turn_over = True
        self._links.finish_turn()
        self._queue.outgoing.finish_turn()
        self._mail.finish_turn()
        self._clients.finish_turn()
        return self._core.effects

    def fault(self, event: Event, error: Exception, now: Now) -> list[Effect]:
        """Our own code failed on an event, which was rolled back: end what it came from, or,
        where that is nobody's, start over from the store."""
        self._core.now = now
        self._core.keep_releases()
        self._journal.reset()
        match event:
            case FrameArrived():
                self._note_envelope(event)
                self._links.end(event.link, "internal")
            case LineArrived():
                self._clients.failed(event.client, event.line)
            case _:
                return self.restart(f"failed on {type(event).__name__}: {error!r}", now)
        return self._core.effects

    def restart(self, reason: str, now: Now) -> list[Effect]:
        """Start over from the store, keeping the clients: a commit failed, or our code did."""
        core = self._core
        core.now = now
        core.keep_releases()
        self._links.close_all("storage")
        self._links.reset()
        self._queue.transfers.reset()
        self._dialling.reset()
        for part in (self._mail, self._queue, self._journal):
            part.reset()
        effects = core.effects
        core.reset()
        core.effects = effects
        text = f"the daemon could not do this: {reason}"
        self._clients.restart(CommandError(Code.STORAGE, text, "free disk space, then try again"))
        core.log("error", f"starting over: {reason}")
        core.timers.set(("resume", 0), now.boot + RESUME_DELAY_S)
        return core.effects

    def deadline(self) -> float | None:
        """When TimeCame is to be handled next, in seconds of the boot clock."""
        return self._core.timers.nearest()

    # -- whose is it ------------------------------------------------------------------

    def _table(self) -> dict[type[Event], Callable[[Any], None]]:
        links, clients = self._links, self._clients
        return {
            FrameArrived: links.frame,
            LineArrived: lambda event: clients.line(event.client, event.line),
            LaneProgressed: self._queue.transfers.progressed,
            LaneEntries: self._queue.lane_changed,
            LaneOpened: self._queue.lane_changed,
            LaneFinished: self._queue.lane_changed,
            LaneFailed: self._queue.lane_changed,
            Answered: lambda event: self._core.answered(event.task, event.answer),
            TimeCame: self._time_came,
            LinkOpened: links.opened,
            LinkClosed: lambda event: links.closed(event.link, event.reason),
            LinkBroken: lambda event: links.broken(
                event.link, RemoteError(event.code, event.detail)
            ),
            DialFailed: lambda event: self._dialling.failed(event.dial, event.reason),
            ClientOpened: lambda event: clients.opened(event.client, event.local_user),
            ClientDrained: lambda event: clients.drained(event.client),
            LineTooLong: lambda event: clients.too_long(event.client),
            ClientLeft: lambda event: clients.left(event.client),
            ClientClosed: self._client_closed,
            Started: self._start,
            ClockJumped: lambda _event: links.clock_jumped(),
            StopRequested: lambda _event: self._stop(),
        }

    def _start(self, event: Started) -> None:
        self._core.peer_port = event.peer_port
        self._core.started_at = self._core.now.boot
        self._begin()

    def _begin(self) -> None:
        self._preferences.reload()  # after a commit that failed: what is stored holds
        if not self._core.store.make_room():
            self._core.complain(*NO_ROOM)
            self._core.timers.set(("room", 0), self._core.now.boot + limits.ROOM_LOOK_S)
        self._preferences.tell_rates()
        self._queue.start()
        self._links.start()

    def _client_closed(self, event: ClientClosed) -> None:
        self._clients.closed(event.client)
        self._queue.growing.client_gone(event.client)

    def _settings_changed(self) -> None:
        self._preferences.tell_rates()
        self._queue.run_all()

    def _look_for_room(self, _number: int) -> None:
        if self._core.store.make_room():
            self._core.log("info", "the disk has room again")
            self._links.reach()
        else:
            self._core.timers.set(("room", 0), self._core.now.boot + limits.ROOM_LOOK_S)

    def _time_came(self, _event: TimeCame) -> None:
        for kind, number in self._core.timers.pop_due(self._core.now.boot):
            if kind == "resume":
                # A small write first: links are opened only if its commit succeeds.
                self._core.store.set_setting("resumed_at", str(self._core.now.wall_ms).encode())
                self._core.timers.set(("begin", 0), self._core.now.boot)
            elif kind == "begin":
                self._begin()
            else:
                self._timers[kind](number)

    def _note_envelope(self, event: FrameArrived) -> None:
        if event.type == ENVELOPE_TYPE:
            frame = decode(event.type, event.body)
            assert isinstance(frame, Envelope)
            self._mail.note_failure(frame)

    def _stop(self) -> None:
        self._links.close_all("shutdown")
        self._core.log("info", "stopping")
        self._core.emit(Stop())
