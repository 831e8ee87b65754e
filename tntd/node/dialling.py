"""Dials: what a user asked to connect to, and contacts that are to be reached again.

What holds always: an attempt tries its addresses one after another and ends exactly once; a
user's `connect` gets exactly one reply; a contact has at most one attempt, and while it cannot
be reached exactly one timer for the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tntd import limits
from tntd.effects import CancelDial, Dial
from tntd.errors import Code, CommandError
from tntd.machines.addresses import THIS_MACHINE, is_numeric, show_address
from tntd.machines.pulse import backoff
from tntd.node.core import Core
from tntd.store.contacts import ContactRow
from tntd.tasks import Answer, Failed, Resolve, Resolved

HELD_BACK_TRIES = 7  # failures after which the back-off has reached its longest
Reply = Callable[[ContactRow | CommandError], None]


@dataclass(slots=True)
class Target:
    """An address to try; `typed` is how it is remembered (a name stays a name)."""

    host: str
    port: int
    typed: str


@dataclass(slots=True)
class Attempt:
    """One try to reach somebody.  `contact` is who must answer (None: whoever does); `reply` is a
    user's `connect` that waits, `new` its --new."""

    number: int
    targets: deque[Target]
    contact: int | None = None
    reply: Reply | None = None
    new: bool = False
    dial: int | None = None
    target: Target = field(default_factory=lambda: Target("", 0, ""))
    reasons: list[str] = field(default_factory=list)

    @property
    def explicit(self) -> bool:
        """Whether our user asked for this by hand, just now."""
        return self.reply is not None


class Dialling:
    """All attempts under way, and the back-off of each contact."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._attempts: dict[int, Attempt] = {}
        self._by_dial: dict[int, Attempt] = {}
        self._by_contact: dict[int, Attempt] = {}
        self._tries: dict[int, int] = {}

    def reset(self) -> None:
        """Forget all attempts."""
        for attempt in self._attempts.values():
            if attempt.dial is not None:
                self._core.emit(CancelDial(attempt.dial))
        self._attempts, self._by_dial, self._by_contact, self._tries = {}, {}, {}, {}

    def connect(self, host: str, port: int, *, new: bool, reply: Reply) -> None:
        """Our user's `connect`; `host` is "" for this machine."""
        hosts = (host,) if host else THIS_MACHINE
        targets = deque(Target(each, port, each) for each in hosts)
        attempt = Attempt(self._core.number(), targets, reply=reply, new=new)
        self._attempts[attempt.number] = attempt
        self._core.timers.set(
            ("connect", attempt.number), self._core.now.boot + limits.CONNECT_TIMEOUT_S
        )
        self._next(attempt)

    def want(self, contact: int, *, fresh: bool = False) -> None:
        """This contact is to be reached: try after its back-off (`fresh`: from the beginning)."""
        if fresh:
            self._tries.pop(contact, None)
        if contact in self._by_contact or not self._core.store.contacts.addresses(contact):
            return
        delay = backoff(self._tries.get(contact, 0), self._core.jitter())
        self._core.timers.set(("redial", contact), self._core.now.boot + delay)

    def unwant(self, contact: int) -> None:
        """This contact is linked (or gone): no further dials."""
        self._core.timers.cancel(("redial", contact))
        self._tries.pop(contact, None)
        attempt = self._by_contact.get(contact)
        if attempt is not None:
            self.finish(attempt)

    def hold_back(self, contact: int) -> None:
        """Their side would only end the link again: the next dial waits as long as any may."""
        self._tries[contact] = HELD_BACK_TRIES

    def redial(self, contact: int) -> None:
        """The back-off is over."""
        addresses = self._core.store.contacts.addresses(contact)
        if contact in self._by_contact or not addresses:
            return
        targets = deque(Target(host, port, host) for host, port in addresses)
        attempt = Attempt(self._core.number(), targets, contact=contact)
        self._attempts[attempt.number] = self._by_contact[contact] = attempt
        self._next(attempt)

    def expire(self, number: int) -> None:
        """A user's `connect` has taken too long."""
        attempt = self._attempts.get(number)
        if attempt is not None:
            attempt.targets.clear()
            self.fail_target(attempt, "no answer in time")

    # -- one address after another -----------------------------------------------------

    def _next(self, attempt: Attempt) -> None:
        if not attempt.targets:
            self._give_up(attempt)
            return
        target = attempt.target = attempt.targets.popleft()
        if not is_numeric(target.host):
            request = Resolve(target.host, target.port)
            self._core.ask(request, lambda answer: self._resolved(attempt, answer))
            return
        attempt.dial = self._core.number()
        self._by_dial[attempt.dial] = attempt
        self._core.emit(Dial(attempt.dial, target.host, target.port))

    def _resolved(self, attempt: Attempt, answer: Answer) -> None:
        if attempt.number not in self._attempts:
            return
        target = attempt.target
        if isinstance(answer, Resolved):
            found = [Target(host, target.port, target.typed) for host in answer.addresses]
            attempt.targets.extendleft(reversed(found[: limits.ADDRESSES_MAX]))
        else:
            text = answer.text if isinstance(answer, Failed) else "no addresses"
            attempt.reasons.append(f"{target.host}: {text}")
        self._next(attempt)

    def failed(self, dial: int, reason: str) -> None:
        """A dial ended without a link."""
        attempt = self._by_dial.pop(dial, None)
        if attempt is not None:
            attempt.dial = None
            self.fail_target(attempt, reason)

    def fail_target(self, attempt: Attempt, reason: str) -> None:
        """This address is no use: on to the next, or to the end."""
        if attempt.number not in self._attempts:
            return
        where = show_address(attempt.target.host, attempt.target.port)
        attempt.reasons.append(f"{where}: {reason}")
        self._forget_dial(attempt)
        self._next(attempt)

    def opened(self, dial: int) -> Attempt | None:
        """A dial has led to a link: the attempt that it belongs to."""
        attempt = self._by_dial.pop(dial, None)
        if attempt is not None:
            attempt.dial = None
        return attempt

    # -- how an attempt ends -----------------------------------------------------------

    def finish(self, attempt: Attempt) -> None:
        """The attempt is over, whatever came of it; replying is the caller's."""
        self._attempts.pop(attempt.number, None)
        self._core.timers.cancel(("connect", attempt.number))
        self._forget_dial(attempt)
        if attempt.contact is not None:
            self._by_contact.pop(attempt.contact, None)

    def answer(self, attempt: Attempt, outcome: ContactRow | CommandError) -> None:
        """The attempt is over, and the user who waits is told."""
        if attempt.number not in self._attempts:
            return
        self.finish(attempt)
        if attempt.reply is not None:
            attempt.reply(outcome)

    def _give_up(self, attempt: Attempt) -> None:
        reasons = "; ".join(dict.fromkeys(attempt.reasons)) or "no address to try"
        hint = "check the address, and that their tntd runs and can be reached from here"
        self.answer(attempt, CommandError(Code.UNREACHABLE, f"not reached: {reasons}", hint))
        if attempt.contact is not None:
            self._core.log("debug", f"contact {attempt.contact} not reached: {reasons}")
            self._tries[attempt.contact] = self._tries.get(attempt.contact, 0) + 1
            self.want(attempt.contact)

    def _forget_dial(self, attempt: Attempt) -> None:
        if attempt.dial is not None:
            self._by_dial.pop(attempt.dial, None)
            self._core.emit(CancelDial(attempt.dial))
            attempt.dial = None
