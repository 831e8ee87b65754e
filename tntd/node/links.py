"""Links: from an opened connection to a contact that is online, and to its end.

What holds always: a link's contact is decided by the key that was proved on it, never by its
address; there is one route for each contact, and the outbox is bound to it alone; whatever
ends a link, the record of it is dropped in the same turn and later events on it are passed over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tntd import limits
from tntd.control.visible import visible
from tntd.effects import Authenticated, CloseLink, RaiseFrameLimit, Vouch
from tntd.errors import Code, CommandError, RemoteError
from tntd.events import FrameArrived, LinkOpened
from tntd.machines.addresses import is_numeric, plain_host, show_address, told_addresses
from tntd.machines.identity import short_id
from tntd.machines.pulse import Act, Pulse
from tntd.machines.session import Session
from tntd.node.contacts import Contacts
from tntd.node.core import Core, Route
from tntd.node.dialling import Attempt, Dialling
from tntd.node.mail import Mail
from tntd.node.pairs import Pairs
from tntd.node.reception import Reception
from tntd.store.contacts import ContactRow
from tntd.wire.frames import (
    Ack,
    Auth,
    Envelope,
    Frame,
    Hello,
    LinkError,
    Ping,
    Pong,
    Trusted,
)

# What a peer may tell us when it ends a link, in words for our user.
_WORDS = {
    "not_contact": "they do not have you as a contact (any more): connect to them again",
    "limit": "they have too many requests waiting; try again later",
    "storage": "their disk is full or failing",
    "version": "their TalknTransfer speaks another protocol version",
}


@dataclass(slots=True)
class Link:
    """A link as the node knows it; `contact` is 0 until their hello is accepted."""

    number: int
    session: Session
    host: str
    port: int
    key_exchange: str
    pulse: Pulse
    attempt: Attempt | None
    contact: int = 0
    nonce: int = 0
    renewals: int = 0  # of our outbox, for what was said on it


class Links:
    """All links.  `handlers` has what to do with the frames that other parts understand, and
    `went_up`, `went_down` are called with a contact's row as its route opens and ends."""

    def __init__(self, core: Core, contacts: Contacts, mail: Mail, dialling: Dialling) -> None:
        self._core = core
        self._contacts = contacts
        self._mail = mail
        self._dialling = dialling
        self._rows = core.store.contacts
        self.all: dict[int, Link] = {}
        self._pairs = Pairs(core, self._ping, self._take_over)
        self.handlers: dict[type[Frame], Callable[[ContactRow, Frame], None]] = {}
        self.went_up: list[Callable[[int], None]] = []
        self.went_down: list[Callable[[int], None]] = []
        self._reception = Reception(core, dialling)
        self._vouch_due = False

    def reset(self) -> None:
        """Close every link: the node starts over from the store."""
        for number in self.all:
            self._core.emit(CloseLink(number, "starting over"))
        self.all.clear()
        self._pairs.reset()

    # -- events -----------------------------------------------------------------------

    def start(self) -> None:
        """Begin to reach for all accepted contacts."""
        self._vouch_due = True
        for row in self._rows.all():
            if row.accepted:
                self._dialling.want(row.row, fresh=True)

    def opened(self, event: LinkOpened) -> None:
        """TLS is up with somebody."""
        attempt = self._dialling.opened(event.dial) if event.dial is not None else None
        if (event.dial is not None and attempt is None) or len(self.all) >= limits.LINKS_MAX:
            self._core.emit(CloseLink(event.link, "not needed any more"))
            if attempt is not None:
                self._dialling.fail_target(attempt, "too many links here")
            return
        session = Session(
            self._core.profile.identity, event.exporter, dialled=event.dial is not None
        )
        link = Link(
            event.link,
            session,
            plain_host(event.host),
            event.port,
            event.key_exchange,
            Pulse(self._core.now.boot),
            attempt,
        )
        self.all[event.link] = link
        self._watch(link)
        if session.dialled:
            self._core.send(link.number, session.auth())

    def frame(self, event: FrameArrived) -> None:
        """One frame; a RemoteError ends the link and is told to the peer."""
        link = self.all.get(event.link)
        if link is None:
            return
        link.pulse.heard(self._core.now.boot)
        try:
            frame = link.session.receive(event.type, event.body)
            if frame is not None:
                self._dispatch(link, frame)
        except RemoteError as error:
            self._fail(link, error)

    def broken(self, number: int, error: RemoteError) -> None:
        """A link's frames cannot be told apart any more."""
        if number in self.all:
            self._fail(self.all[number], error)

    def closed(self, number: int, reason: str) -> None:
        """The connection of a link is gone."""
        link = self.all.get(number)
        if link is not None:
            # Of strangers there can be crowds; the shell sums up those that it cuts.
            level = "info" if link.contact else "debug"
            self._core.log(level, f"{self._title(link)}: {reason}")
            self._drop(link, reason)

    def pulse(self, number: int) -> None:
        """A link was silent up to its deadline."""
        link = self.all.get(number)
        if link is None:
            return
        act = link.pulse.act(self._core.now.boot)
        if act is Act.GIVE_UP:
            self._core.log("info", f"{self._title(link)}: no answer, closed")
            if self._is_route(link):
                self._core.silent.add(link.contact)
            self._close(link, "no answer")
            return
        if act is Act.PING:
            self._ping(number, limits.KEEPALIVE_ANSWER_S)
        self._watch(link)

    def clock_jumped(self) -> None:
        """The machine slept: look at every link at once, and begin all back-offs anew."""
        for number in list(self.all):
            self._ping(number, limits.PROBE_ANSWER_S)
        self.reach()

    def reach(self) -> None:
        """Try at once to reach every contact that is not linked."""
        for row in self._rows.all():
            if row.accepted and row.row not in self._core.routes:
                self._dialling.want(row.row, fresh=True)

    # -- frames -----------------------------------------------------------------------

    def _dispatch(self, link: Link, frame: Frame) -> None:
        match frame:
            case Auth():
                self._authenticated(link)
            case Hello():
                self._greeted(link, frame)
            case Trusted():
                self._trusted(link, frame)
            case Ping():
                self._core.send(link.number, Pong(nonce=frame.nonce))
            case Pong():
                self._pairs.answered(self._row(link), self.all, link.number)
            case LinkError():
                self._told(link, frame)
            case Envelope():
                self._envelope(link, frame)
            case Ack():
                self._mail.take_ack(self._row(link), frame)
            case _:
                self.handlers[type(frame)](self._row(link), frame)

    def _envelope(self, link: Link, envelope: Envelope) -> None:
        row, told = self._row(link), link.session.trusted
        if told is not None and envelope.epoch == told.epoch != row.in_epoch:
            # Two links were up: what they said on the other one before came in after this.
            self._mail.take_epoch(row, told)
            row = self._row(link)
        self._mail.take_envelope(row, link.number, envelope)

    def _row(self, link: Link) -> ContactRow:
        row = self._rows.get(link.contact)
        if row is None:
            raise RemoteError("not_contact", "removed here meanwhile")
        return row

    def _authenticated(self, link: Link) -> None:
        key = link.session.peer_key
        assert key is not None
        row = self._rows.by_key(key)
        accepted = row is not None and row.accepted
        if link.attempt is not None:
            self._reception.check_expected(link.attempt, key)
        elif self._reception.is_unwanted(row):
            self._core.log("info", f"{self._title(link)}: {short_id(key)} gets no answer")
            self._close(link, "no answer for strangers")
            return
        if not accepted and link.attempt is None and self._is_crowded():
            raise RemoteError("limit", "too many strangers are linked here")
        if not link.session.dialled:
            self._core.send(link.number, link.session.auth())
        self._core.send(link.number, self._reception.hello(link.attempt, row))

    def _is_crowded(self) -> bool:
        waiting = sum(1 for other in self.all.values() if not other.session.said_trusted)
        return waiting > limits.PENDING_LINKS_MAX

    def _greeted(self, link: Link, hello: Hello) -> None:
        key, attempt = link.session.peer_key, link.attempt
        assert key is not None
        row = self._rows.by_key(key)
        if attempt is not None and attempt.explicit:
            row = self._choose(link, attempt, key, hello.name)
        elif row is None:
            if not hello.explicit:
                raise RemoteError("not_contact", "you are no contact here")
            row = self._contacts.request(key, hello.name)
        elif row.trust == "blocked":  # since they proved their key
            self._close(link, "blocked")
            return
        # Not before: a key proves nothing but itself, and may be followed by silence.
        self._core.emit(Authenticated(link.number, row.accepted))
        link.contact = row.row
        link.attempt = None
        if attempt is not None:
            self._meet(row, attempt.target.typed, attempt.target.port)
            self._dialling.answer(attempt, row)
        self._pairs.settle(row.row, self.all, link.number)
        if link.number in self.all:
            self._say_trusted(link)

    def _choose(self, link: Link, attempt: Attempt, key: bytes, hint: str) -> ContactRow:
        try:
            row = self._contacts.choose(key, hint)
        except CommandError as error:
            self._dialling.answer(attempt, error)
            # Not that they are blocked: that is between our user and us.
            raise RemoteError("not_contact", "you are no contact here") from error
        for other in list(self.all.values()):
            if other.contact == row.row:
                self._say_trusted(other)
        return row

    def _say_trusted(self, link: Link, *, again: bool = False) -> None:
        row = self._row(link)
        if not row.accepted or (link.session.said_trusted and not again):
            return
        link.session.said_trusted = True
        self._core.emit(RaiseFrameLimit(link.number, limits.FRAME_BYTES_MAX))
        self._core.send(link.number, self._mail.trusted_frame(row))
        if link.session.trusted is not None and not again:
            self._trusted(link, link.session.trusted)

    def _trusted(self, link: Link, frame: Trusted) -> None:
        row = self._row(link)
        if not row.mutual:
            self._rows.update(row.row, mutual=1)
            self._core.publish("contact.changed", row.row)
        if not link.session.said_trusted:
            return  # our user has not accepted them: nothing else of it is kept
        if self._core.settings.learn_addresses and is_numeric(link.host):
            for host, port in told_addresses(frame.addresses, frame.port, link.host):
                self._meet(row, host, port)
        if self._mail.take_trusted(row, frame):
            link.renewals += 1
            if link.renewals > limits.RENEWALS_MAX:  # each numbers all that waits anew
                self._dialling.hold_back(row.row)
                self._close(link, "they deny again and again what they have taken")
                return
            for other in list(self.all.values()):
                if other.contact == row.row and other.session.said_trusted:
                    self._say_trusted(other, again=True)
            route = self._core.routes.get(row.row)
            if route is not None and route.open:
                self._mail.bind(row.row, route)
        self._open_route(link)

    def _told(self, link: Link, error: LinkError) -> None:
        row = self._rows.get(link.contact) if link.contact else None
        self._core.log("info", f"{self._title(link)} ended it: {error.code} {error.text}")
        key = link.session.peer_key
        owner = row or (self._rows.by_key(key) if key is not None else None)
        if error.code in ("twin", "replaced") and row is not None and row.accepted:
            if error.code == "twin":
                self._mail.renew(row)
            self._complain_of_twin(row, "your own identity")
            self._dialling.hold_back(row.row)
        elif error.code == "not_contact" and owner is not None and owner.accepted:
            self._dialling.hold_back(owner.row)  # each dial would end like this one
            self._rows.update(owner.row, mutual=0)
            if owner.mutual:
                self._core.publish("contact.changed", owner.row)
                self._core.complain(
                    f"{owner.name} does not have you as a contact any more",
                    "what you send waits; to ask again, connect to their address",
                    owner.row,
                )
        elif error.code == "storage" and row is not None:
            self._dialling.hold_back(row.row)  # they dial us as soon as they can write again
        elif error.code == "self":
            self._met_ourselves(link)
        self._close(link, _WORDS.get(error.code, visible(error.code)))

    def _met_ourselves(self, link: Link) -> None:
        if link.attempt is not None:
            text = f"{show_address(link.host, link.port)} is this very daemon"
            hint = "give the address of somebody else's"
            self._dialling.answer(link.attempt, CommandError(Code.WRONG_STATE, text, hint))

    # -- routes -----------------------------------------------------------------------

    def _take_over(self, contact: int, number: int) -> None:
        """A link becomes the contact's route."""
        link = self.all[number]
        was_open = contact in self._core.routes and self._core.routes[contact].open
        self._core.routes[contact] = Route(
            number, link.host, link.port, link.session.dialled, link.key_exchange
        )
        self._dialling.unwant(contact)
        if was_open:
            for call in self.went_down:
                call(contact)
        self._open_route(link, quietly=was_open)
        if was_open and not self._core.routes[contact].open:
            self._core.publish("peer.offline", contact)

    def _is_route(self, link: Link) -> bool:
        route = self._core.routes.get(link.contact)
        return route is not None and route.link == link.number

    def _open_route(self, link: Link, *, quietly: bool = False) -> None:
        route = self._core.routes.get(link.contact)
        if not link.session.open or route is None or route.link != link.number or route.open:
            return
        route.open = True
        self._core.silent.discard(link.contact)
        self._mail.bind(link.contact, route)
        if not quietly:
            self._core.publish("peer.online", link.contact)
            self._core.log("info", f"{self._title(link)} is online")
        for call in self.went_up:
            call(link.contact)

    def look_at(self, contact: int) -> None:
        """Something of this contact stands still: ask whether they are there."""
        route = self._core.routes.get(contact)
        if route is not None:
            self._ping(route.link, limits.KEEPALIVE_ANSWER_S)

    def _ping(self, number: int, within: float) -> None:
        link = self.all[number]
        if link.contact:
            link.nonce += 1
            self._core.send(number, Ping(nonce=link.nonce))
        link.pulse.probe(self._core.now.boot, within)
        self._watch(link)

    def _watch(self, link: Link) -> None:
        self._core.timers.set(("pulse", link.number), link.pulse.deadline())

    # -- the end of a link -------------------------------------------------------------

    def trust_changed(self, row: ContactRow) -> None:
        """Our user accepted, blocked or removed somebody."""
        for link in [each for each in self.all.values() if each.contact == row.row]:
            if row.accepted:
                self._core.emit(Authenticated(link.number, True))
                self._say_trusted(link)
            elif row.trust == "blocked":
                self._close(link, "blocked")
        if row.accepted and row.row not in self._core.routes:
            self._dialling.want(row.row, fresh=True)
        self._vouch_due = True

    def close_contact(self, row: ContactRow) -> None:
        """The contact is being removed."""
        for link in [each for each in self.all.values() if each.contact == row.row]:
            self._close(link, "removed")
        self._vouch_due = True
        self._dialling.unwant(row.row)

    def close_all(self, code: str) -> None:
        """The daemon ends, or cannot go on: say so on every link."""
        for link in list(self.all.values()):
            self._core.send(link.number, LinkError(code=code, text=""))
            self._core.emit(CloseLink(link.number, code))
        self.all.clear()

    def end(self, number: int, code: str) -> None:
        """End one link for a reason of our own."""
        if number in self.all:
            link = self.all[number]
            self._core.send(number, LinkError(code=code, text=""))
            self._close(link, code)

    def _fail(self, link: Link, error: RemoteError) -> None:
        self._core.log("warning", f"{self._title(link)} ended by us: {error}")
        if error.code == "self":
            self._met_ourselves(link)
        if error.code == "twin" and link.contact:
            self._complain_of_twin(self._row(link), "their identity")
        if error.code == "storage" and link.contact:
            self._dialling.hold_back(link.contact)  # they would only bring it again
        if error.code != "wrong_key":
            text = error.detail[: limits.ERROR_TEXT_CHARS_MAX]
            self._core.send(link.number, LinkError(code=error.code, text=text))
        self._close(link, _WORDS.get(error.code, str(error)))

    def _complain_of_twin(self, row: ContactRow, whose: str) -> None:
        self._core.complain(
            f"{whose} seems to be in use twice (link with {row.name})",
            "stop the copy; two running copies of one profile disturb each other",
            row.row,
        )

    def _close(self, link: Link, reason: str) -> None:
        self._core.emit(CloseLink(link.number, reason))
        self._drop(link, reason)

    def _drop(self, link: Link, reason: str) -> None:
        del self.all[link.number]
        self._core.timers.cancel(("pulse", link.number))
        if link.attempt is not None:
            self._dialling.fail_target(link.attempt, reason)
        contact = link.contact
        heir = self._pairs.lost(contact, link.number) if contact else None
        if not contact or not self._is_route(link):
            return
        if heir is not None:
            self._take_over(contact, heir)
            return
        route = self._core.routes.pop(contact)
        if route.open:
            for call in self.went_down:
                call(contact)
            self._core.publish("peer.offline", contact)
        row = self._rows.get(contact)
        if row is not None and row.accepted:
            self._dialling.want(contact)

    def _meet(self, row: ContactRow, host: str, port: int) -> None:
        self._rows.meet(row.row, host, port, self._core.now.wall_ms)
        self._vouch_due = self._vouch_due or row.accepted

    def finish_turn(self) -> None:
        """Say which addresses are those of contacts, where that may have changed in this turn; once
        in it, for all of them are looked at, and one frame tells several."""
        if self._vouch_due:
            self._vouch_due = False
            hosts = frozenset(host for host in self._rows.all_hosts() if is_numeric(host))
            self._core.emit(Vouch(hosts))

    def _title(self, link: Link) -> str:
        row = self._rows.get(link.contact) if link.contact else None
        who = "a peer" if row is None else row.name
        return f"{who} at {show_address(link.host, link.port)}"
