"""What is to be done, told by the node to the world: frozen values, named by verbs.

What holds always: an effect is performed only after the commit of the turn that made it, in
the order in which the effects were made.  An effect on a link, lane, client or handle that is gone
does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from tntd.tasks import AnyTask


@dataclass(frozen=True, slots=True)
class Dial:
    """Connect to a numeric address and bring TLS up: LinkOpened or DialFailed follows."""

    dial: int
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class CancelDial:
    """Give up a dial that has not led to a link; nothing follows."""

    dial: int


@dataclass(frozen=True, slots=True)
class SendFrame:
    """Send bytes of whole frames (already encoded) on a link."""

    link: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The other end of a link is known and has greeted: the time-out for strangers is off.
    `contact` says whether it is a contact of ours, so that its place counts as one of theirs."""

    link: int
    contact: bool


@dataclass(frozen=True, slots=True)
class RaiseFrameLimit:
    """From now on frames of up to `frame_bytes_max` are taken on this link."""

    link: int
    frame_bytes_max: int


@dataclass(frozen=True, slots=True)
class CloseLink:
    """Send what is still to be sent (within a grace), then close.  LinkClosed follows."""

    link: int
    reason: str


@dataclass(frozen=True, slots=True)
class Vouch:
    """Addresses (numeric hosts) of contacts: their connections have a reserve of places."""

    hosts: frozenset[str]


@dataclass(frozen=True, slots=True)
class Outbound:
    """What a lane sends: the file or folder at `root` (absolute); where `only` is given, these
    paths below it.  A single file is sent only if its size, mtime_ns and inode are `then`;
    one that is `growing` if it has that inode and at least that size, and GrowLane tells of more.
    Nothing is sent before StartLane says what the receiver has."""

    root: bytes
    only: tuple[bytes, ...] | None = None
    then: tuple[int, int, int] | None = None
    growing: bool = False


@dataclass(frozen=True, slots=True)
class Inbound:
    """What a lane takes: a tree whose stage is `folder/.tnt-part/stage` (prepared before), from
    entry `number` on, with `bytes_done` before that.  `size_max` bounds all of it, in bytes.
    `asks`: the sender waits before each large file for the hashes of what is here of it (told
    in the LaneAnswer too).  `base` is an older copy, b"" for none (see tasks.OpenEntry).  `again`:
    it comes once more, and folders and links that went well are told, too."""

    folder: bytes
    stage: bytes
    tree: bool
    size_max: int
    number: int
    after: bytes
    bytes_done: int
    asks: bool
    base: bytes = b""
    base_ctime_ns: int = 0
    again: bool = False


@dataclass(frozen=True, slots=True)
class OpenLane:
    """Agree a lane: dial `host:port` where `dials`, else wait for the dialler with `ticket`.

    `link` gives the exporter; `dialler` and `acceptor` are the public keys of the two ends
    of the link.  `job` says what goes over it; `contact` is a number whose limits count for it
    (see LimitLanes), 0 for none.
    """

    lane: int
    link: int
    ticket: bytes
    dials: bool
    host: str
    port: int
    dialler: bytes
    acceptor: bytes
    job: Outbound | Inbound
    contact: int = 0


@dataclass(frozen=True, slots=True)
class StartLane:
    """The receiver of an outgoing lane has what is before entry `number` (`after` is the path of
    the last of that); `asks`: it tells before each large file what it has of it."""

    lane: int
    number: int
    after: bytes
    asks: bool


@dataclass(frozen=True, slots=True)
class GrowLane:
    """The growing file of an outgoing lane has `size` bytes by now; `whole`: that is all."""

    lane: int
    size: int
    whole: bool


@dataclass(frozen=True, slots=True)
class LimitLanes:
    """From now on all lanes together send at most `up` bytes a second and take at most `down`; and
    those of one contact what stands in `contacts` (number, up, down).  0: no limit, as it is
    for contacts that do not stand there."""

    up: int
    down: int
    contacts: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class CloseLane:
    """Drop a lane at once; only its last LaneProgressed may follow."""

    lane: int


@dataclass(frozen=True, slots=True)
class CloseHandle:
    """Close an open file."""

    handle: int


@dataclass(frozen=True, slots=True)
class Ask:
    """Give a task to the child that does such: Answered follows, always."""

    task: int
    request: AnyTask


@dataclass(frozen=True, slots=True)
class SendLine:
    """Send whole lines (each with its newline) to a client; ClientDrained follows."""

    client: int
    data: bytes


@dataclass(frozen=True, slots=True)
class SendLatest:
    """Send a line to a client when its socket has room, in place of any earlier line with the
    same `key` that has not gone out yet.  May be lost."""

    client: int
    key: str
    data: bytes


@dataclass(frozen=True, slots=True)
class ClientAuthorised:
    """A client is one of our user's: its limits rise and its time-out is off."""

    client: int


@dataclass(frozen=True, slots=True)
class CloseClient:
    """Send what is still to be sent (within a grace), then close."""

    client: int


@dataclass(frozen=True, slots=True)
class Log:
    """A line for the log.  `level` is a name of the logging module."""

    level: str
    text: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End the daemon, after all other effects have gone out (within a grace)."""


# What lets go of something.  It promises nothing, and whoever has decided it may have forgotten
# what it is about: so it is performed although its turn is undone.
Release = CancelDial | CloseLink | CloseLane | CloseHandle | CloseClient

Effect = (
    Dial
    | CancelDial
    | SendFrame
    | Authenticated
    | RaiseFrameLimit
    | CloseLink
    | Vouch
    | OpenLane
    | StartLane
    | GrowLane
    | LimitLanes
    | CloseLane
    | CloseHandle
    | Ask
    | SendLine
    | SendLatest
    | ClientAuthorised
    | CloseClient
    | Log
    | Stop
)
