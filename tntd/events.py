"""What happened, told to the node: frozen values, named by past participles.

`link`, `lane`, `client`, `dial` and `task` are numbers that are never used twice in one run.
Links and clients are numbered by the shell; dials, lanes and tasks by the node.  Everything that a
peer or a client sent in here (`body`, `line`) is unchecked.
"""

from __future__ import annotations

from dataclasses import dataclass

from tntd.tasks import Answer, Entry


@dataclass(frozen=True, slots=True)
class Now:
    """The time of a turn: `boot` in seconds of a clock that runs through suspend and never
    goes back, `wall_ms` in milliseconds since 1970 UTC."""

    boot: float
    wall_ms: int


@dataclass(frozen=True, slots=True)
class Started:
    """The first event of a run: listening, and on which peer port (0: not listening)."""

    peer_port: int


@dataclass(frozen=True, slots=True)
class LinkOpened:
    """TLS is up with somebody.  `dial` is the dial that led to it, None where they dialled us.
    `exporter` is the 32 bytes of the TLS exporter with the label EXPORTER-tnt-auth."""

    link: int
    dial: int | None
    host: str
    port: int
    exporter: bytes
    key_exchange: str


@dataclass(frozen=True, slots=True)
class FrameArrived:
    """One whole frame, its body not yet decoded."""

    link: int
    type: int
    body: bytes


@dataclass(frozen=True, slots=True)
class LinkBroken:
    """The frames of a link cannot be told apart any more (over the limit): the shell reads no
    further, the node closes it."""

    link: int
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class LinkClosed:
    """The connection of an opened link is gone (from either side)."""

    link: int
    reason: str


@dataclass(frozen=True, slots=True)
class DialFailed:
    """A dial ended without a link."""

    dial: int
    reason: str


@dataclass(frozen=True, slots=True)
class ClientOpened:
    """A client connected.  `local_user` is True where the socket itself proves that it is our
    own user (Unix socket, uid checked); over TCP the token has to be proved."""

    client: int
    local_user: bool


@dataclass(frozen=True, slots=True)
class LineArrived:
    """One line of a client, without its newline, within the limit."""

    client: int
    line: bytes


@dataclass(frozen=True, slots=True)
class LineTooLong:
    """A client sent more than its limit without a newline; nothing more is read from it."""

    client: int


@dataclass(frozen=True, slots=True)
class ClientDrained:
    """All that was sent to a client has gone into its socket."""

    client: int


@dataclass(frozen=True, slots=True)
class ClientLeft:
    """A client says no more, and may still wait for answers to what it has said."""

    client: int


@dataclass(frozen=True, slots=True)
class ClientClosed:
    """A client is gone."""

    client: int


@dataclass(frozen=True, slots=True)
class Answered:
    """A child answered the task."""

    task: int
    answer: Answer


@dataclass(frozen=True, slots=True)
class LaneOpened:
    """Both ends of a lane have proved that they know its ticket."""

    lane: int


@dataclass(frozen=True, slots=True)
class LaneProgressed:
    """`bytes_done` of the transfer are written at the receiver (both ends are told the same);
    `bytes_sent` of file data were put on this lane (sender), or came over it (receiver).  At most
    ten times a second."""

    lane: int
    bytes_done: int
    bytes_sent: int = 0


@dataclass(frozen=True, slots=True)
class LaneEntries:
    """Entries of a tree went out (sender) or are written and checked here (receiver); what
    became of each file; the number of the next entry and the path of the last.  `bytes_done`
    is what is done of the transfer with them.  `anew`: the sender's walk began anew with them.
    `synced`: the receiver's disk has them for sure."""

    lane: int
    entries: tuple[Entry, ...]
    number: int
    after: bytes
    bytes_done: int
    anew: bool = False
    synced: bool = False


@dataclass(frozen=True, slots=True)
class LaneFinished:
    """All went through the lane and its end was authenticated.  `size` is the bytes of all files,
    `digest` the hash of a single file (see machines/blocks.py), empty for a folder; `bytes_sent`
    the file data that went over this lane; `bytes_reused` what the receiver took from an older
    copy instead."""

    lane: int
    size: int
    digest: bytes
    bytes_sent: int = 0
    bytes_reused: int = 0


@dataclass(frozen=True, slots=True)
class LaneFailed:
    """A lane ended early.  `code` is "cut" (try again), "stall" (the same, and the way may be gone:
    nothing moved for LANE_IDLE_TIMEOUT_S while bytes were due), "source" (the file here changed or
    cannot be read), "storage" (the part here cannot be written), "away" (its folder is not there,
    which may pass), "hash" (what arrived differs), "size" (a folder or a pipe grew past what was
    agreed; the receiver says so) or "protocol"."""

    lane: int
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class TimeCame:
    """The deadline that the node asked for has come."""


@dataclass(frozen=True, slots=True)
class ClockJumped:
    """Time ran further than expected: the machine slept, or the wall clock was set."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """SIGTERM or SIGINT."""


Event = (
    Started
    | LinkOpened
    | FrameArrived
    | LinkBroken
    | LinkClosed
    | DialFailed
    | ClientOpened
    | LineArrived
    | LineTooLong
    | ClientDrained
    | ClientLeft
    | ClientClosed
    | Answered
    | LaneOpened
    | LaneProgressed
    | LaneEntries
    | LaneFinished
    | LaneFailed
    | TimeCame
    | ClockJumped
    | StopRequested
)
