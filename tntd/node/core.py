"""What all parts of the node share: the store, the time, the effects of this event, timers,
tasks under way, and which link each contact is reached by.

What holds always: whatever is in here and not in the store can be lost at any moment without
losing anything that was promised; `restart` empties it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from tntd.control.visible import visible
from tntd.effects import Ask, Effect, Log, Release, SendFrame
from tntd.events import Now
from tntd.machines.identity import Identity
from tntd.machines.outbox import Window
from tntd.machines.timers import Timers
from tntd.settings import Settings
from tntd.store import Store
from tntd.tasks import Answer, AnyTask
from tntd.wire.frames import Frame, encode

TimerName = tuple[str, int]
_json = msgspec.json.Encoder()
# For users, of a disk on which only the reserve is left: what happened, and what to do.
NO_ROOM = (
    "the disk with the data folder is full or cannot be written",
    "free some disk space; until then nothing new is sent or taken, and nothing is lost",
)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a daemon is told about itself at start.

    `name` is its own name, `downloads` the absolute folder where files arrive, `token` the
    secret that TCP clients must know (None: no TCP), `entropy` gives n random bytes,
    `rss_bytes` the memory of this process, `boot` names this run of the machine: what was written
    to files in it is there as long as it is the same.  In `spool` (absolute; b"" for none) clients
    put files that are made only to be sent.
    """

    identity: Identity
    name: str
    settings: Settings
    downloads: bytes
    entropy: Callable[[int], bytes]
    rss_bytes: Callable[[], int]
    boot: bytes = b""
    spool: bytes = b""
    token: bytes | None = None


@dataclass(slots=True)
class Route:
    """How a contact is reached now: the link, where it leads, and what is under way on it."""

    link: int
    host: str
    port: int
    dialled: bool
    key_exchange: str
    window: Window = field(default_factory=lambda: Window(0))
    open: bool = False  # both sides have said Trusted, the outbox stands


class Core:
    """The shared middle of the node."""

    def __init__(self, store: Store, profile: Profile) -> None:
        self.store = store
        self.profile = profile
        self.settings = profile.settings
        self.random = profile.entropy
        self.now = Now(0.0, 0)
        self.started_at = 0.0
        self.peer_port = 0
        self.instance = profile.entropy(16)
        self.effects: list[Effect] = []
        self.timers: Timers[TimerName] = Timers()
        self.routes: dict[int, Route] = {}
        self.silent: set[int] = set()  # contacts whose last link ended without an answer
        self.tasks: dict[int, Callable[[Answer], None]] = {}
        self.published = False
        self.clients: set[int] = set()  # that are attached
        self.client = 0  # whose request is being answered
        self._numbers = 0

    def reset(self) -> None:
        """Forget all that is not in the store."""
        self.effects = []
        self.timers = Timers()
        self.routes = {}
        self.tasks = {}

    def emit(self, effect: Effect) -> None:
        """Have an effect performed after the commit of this turn."""
        self.effects.append(effect)

    def keep_releases(self) -> None:
        """What was emitted is undone, but for letting go of what is forgotten by now."""
        self.effects = [effect for effect in self.effects if isinstance(effect, Release)]

    def log(self, level: str, text: str) -> None:
        """A line for the log, made safe to show."""
        self.effects.append(Log(level, visible(text)))

    def number(self) -> int:
        """A number for a dial, lane, task or handle, never used twice in a run."""
        self._numbers += 1
        return self._numbers

    def ask(self, request: AnyTask, then: Callable[[Answer], None]) -> None:
        """Give a task to a child; `then` is called with its answer, in a later turn."""
        task = self.number()
        self.tasks[task] = then
        self.emit(Ask(task, request))

    def answered(self, task: int, answer: Answer) -> None:
        """A child has answered."""
        then = self.tasks.pop(task, None)
        if then is not None:
            then(answer)

    def send(self, link: int, frame: Frame) -> None:
        """Send a frame on a link."""
        self.emit(SendFrame(link, encode(frame)))

    def publish(self, type: str, ref: int, **detail: object) -> None:
        """Put an event into the log; clients are told after the commit."""
        self.publish_all(type, [ref], **detail)

    def publish_all(self, type: str, refs: list[int], **detail: object) -> None:
        """The same of several things."""
        if refs:
            text = _json.encode(detail).decode() if detail else "{}"
            self.store.events.add_all(self.now.wall_ms, type, refs, text)
            self.published = True

    def complain(self, text: str, hint: str, contact: int = 0) -> None:
        """An `error` event that users see, and a line in the log."""
        self.publish("error", contact, text=text, hint=hint)
        self.log("warning", f"{text} ({hint})")

    def jitter(self) -> float:
        """A random fraction from 0 to 1."""
        return int.from_bytes(self.random(4), "big") / 2**32
