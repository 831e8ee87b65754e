"""The frames and envelopes that two daemons exchange, and their coding.

A frame is a 32-bit big-endian length of what follows, a 16-bit type, and a MessagePack map.
What holds always: every string, list and map has a maximum that is checked before it is
allocated (a test walks the structs); a field that is not known is ignored; a type that is
not known is ignored where odd and ends the link where even.  See README.md beside this file.
"""

from __future__ import annotations

import struct
from typing import Annotated, Final, TypeVar

import msgspec

from tntd import limits
from tntd.errors import RemoteError

Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
Id = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Version = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
Kind = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
Word = Annotated[str, msgspec.Meta(max_length=limits.FEATURE_CHARS_MAX)]
Words = Annotated[str, msgspec.Meta(max_length=limits.ERROR_TEXT_CHARS_MAX)]
NameHint = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.NAME_HINT_CHARS_MAX)]
FileName = Annotated[bytes, msgspec.Meta(min_length=1, max_length=limits.NAME_BYTES_MAX)]
TreePath = Annotated[bytes, msgspec.Meta(max_length=limits.TREE_PATH_BYTES_MAX)]
Address = Annotated[str, msgspec.Meta(max_length=limits.TOLD_ADDRESS_CHARS_MAX)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]

HEADER: Final = struct.Struct(">IH")


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """A frame's body; the concrete class stands for one type."""


class Auth(Frame, frozen=True, kw_only=True):
    """Who we are: the public key, and its signature over the exporter (see machines/identity)."""

    key: Key
    signature: Signature


class Hello(Frame, frozen=True, kw_only=True):
    """What we speak.  `instance` is random for each start; `explicit` says that our user asked
    for this connection by hand, within the last 15 minutes; `name` is a hint, never an identity."""

    protocol_min: Version
    protocol_max: Version
    features: Annotated[list[Word], msgspec.Meta(max_length=limits.FEATURES_MAX)]
    instance: Id
    name: NameHint
    explicit: bool
    frame_bytes_max: Annotated[int, msgspec.Meta(ge=1024, le=2**31 - 1)]


class Trusted(Frame, frozen=True, kw_only=True):
    """We have accepted you.  Where our outbox for you stands (`epoch`, the `lowest` number that
    we still keep, the `highest` assigned), how far yours arrived (`received` of `peer_epoch`,
    and the id of that envelope), and where we can be reached.  Sent again when the epoch
    changes."""

    epoch: Id
    lowest: Number
    highest: Number
    peer_epoch: Id | None
    received: Number
    received_id: Id | None
    port: Port
    addresses: Annotated[list[Address], msgspec.Meta(max_length=limits.ADDRESSES_MAX)]


class Envelope(Frame, frozen=True, kw_only=True):
    """One item of the durable outbox; `body` is the MessagePack of the kind's struct.  `epoch` is
    the one that the number belongs to: an envelope of another epoch is stale and passed over."""

    epoch: Id
    number: Number
    id: Id
    kind: Kind
    body: Annotated[bytes, msgspec.Meta(max_length=limits.ENVELOPE_BODY_BYTES_MAX)]


class Ack(Frame, frozen=True, kw_only=True):
    """All envelopes of `epoch` up to `number` are committed here."""

    epoch: Id
    number: Number


class Ping(Frame, frozen=True, kw_only=True):
    """Answer with a Pong of the same nonce."""

    nonce: Number


class Pong(Frame, frozen=True, kw_only=True):
    """The answer to a Ping."""

    nonce: Number


class LinkError(Frame, frozen=True, kw_only=True):
    """The last frame of a link: why it ends."""

    code: Word
    text: Words


class LaneOffer(Frame, frozen=True, kw_only=True):
    """The sender of a transfer is ready to send it over a lane with this ticket.  `size` and
    `files` are what it has counted by now, `sent` the bytes of it that went over all its lanes as
    far as it knows: whoever was killed has forgotten a lane, the other one has not.  `again`: only
    what failed comes, for what is there already."""

    ticket: Id
    transfer: Id
    size: Number = 0
    files: Number = 0
    sent: Number = 0
    again: bool = False


class LaneAnswer(Frame, frozen=True, kw_only=True):
    """The receiver is ready for that lane (`code` empty), or why it is not (`text` in words).  It
    has the entries before `number`, the last of which is `after`; `asks`: see LANE.md; `received`
    is the counterpart of `sent` in LaneOffer."""

    ticket: Id
    transfer: Id
    code: Word
    text: Words = ""
    number: Annotated[int, msgspec.Meta(ge=0, le=limits.TREE_ENTRIES_MAX)] = 0
    after: TreePath = b""
    asks: bool = False
    received: Number = 0


TYPES: Final[dict[int, type[Frame]]] = {
    0x0002: Auth,
    0x0004: Hello,
    0x0006: Trusted,
    0x0008: Envelope,
    0x000A: Ack,
    0x000C: Ping,
    0x000E: Pong,
    0x0010: LinkError,
    0x0020: LaneOffer,
    0x0022: LaneAnswer,
}
NUMBERS: Final[dict[type[Frame], int]] = {cls: number for number, cls in TYPES.items()}

# -- envelope bodies ----------------------------------------------------------------------


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an envelope; the concrete class stands for one kind."""


class Text(Body, frozen=True, kw_only=True):
    """A chat message; its id is the envelope's.  `sent_at` is milliseconds since 1970 UTC."""

    text: Annotated[str, msgspec.Meta(max_length=limits.TEXT_BYTES_MAX)]
    sent_at: Number


class Read(Body, frozen=True, kw_only=True):
    """Your messages up to and including `upto` were seen by our user."""

    upto: Id


class Refused(Body, frozen=True, kw_only=True):
    """Your envelope `id` is committed here as refused, for `code` ("unknown", "malformed",
    "limit", "unprocessable"); it will not be looked at again."""

    id: Id
    code: Word


class Offer(Body, frozen=True, kw_only=True):
    """A transfer that we want to send.  `kind` is "file" or "folder"; `name` is one path component
    as the sender's file system has it.  `counting`: a large folder, of which `size` and `files`
    are what was counted so far."""

    transfer: Id
    kind: Word
    name: FileName
    size: Number
    files: Number
    mtime_ns: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    executable: bool
    counting: bool = False


class Decision(Body, frozen=True, kw_only=True):
    """The receiver's word on an offer: accepted, or declined for `reason`."""

    transfer: Id
    accepted: bool
    reason: Words = ""


class Asking(Body, frozen=True, kw_only=True):
    """The receiver does not take an offer by itself, for `reason`: its user is asked first."""

    transfer: Id
    reason: Words = ""


class Result(Body, frozen=True, kw_only=True):
    """How a transfer ended at its receiver: `error` is empty when it is whole, checked, synced
    and under its final name.  `reused` bytes came from an older copy there; `received` bytes of
    files came over all lanes, as far as the receiver knows."""

    transfer: Id
    error: Words = ""
    digest: Digest | None = None
    reused: Number = 0
    received: Number = 0


class Cancel(Body, frozen=True, kw_only=True):
    """The other side has cancelled (or, as sender, failed) a transfer: `reason` in words."""

    transfer: Id
    reason: Words = ""
    failed: bool = False


class FileState(msgspec.Struct, frozen=True, array_like=True):
    """A file of a transfer that did not arrive, and why; `state` is "skipped" or "failed"."""

    path: TreePath
    state: Word
    reason: Words


class Fates(Body, frozen=True, kw_only=True):
    """Files that the receiver could not put in place; goes before the Result."""

    transfer: Id
    files: Annotated[list[FileState], msgspec.Meta(max_length=limits.FATES_MAX)]


class Steer(Body, frozen=True, kw_only=True):
    """What the other side's user wants of a transfer in the queue: "pause", "resume", "first" or
    "again".  From the sender it is how things stand, from the receiver a wish."""

    transfer: Id
    act: Word
    from_sender: bool = False


KINDS: Final[dict[int, type[Body]]] = {
    1: Text,
    2: Read,
    3: Refused,
    16: Offer,
    17: Decision,
    18: Result,
    19: Cancel,
    20: Fates,
    21: Steer,
    22: Asking,
}
KIND_NUMBERS: Final[dict[type[Body], int]] = {cls: number for number, cls in KINDS.items()}

_FRAME_DECODERS = {number: msgspec.msgpack.Decoder(cls) for number, cls in TYPES.items()}
_BODY_DECODERS = {number: msgspec.msgpack.Decoder(cls) for number, cls in KINDS.items()}
_ENCODER = msgspec.msgpack.Encoder()

B = TypeVar("B", bound=Body)


def encode(frame: Frame) -> bytes:
    """The bytes of a whole frame."""
    body = _ENCODER.encode(frame)
    return HEADER.pack(len(body) + 2, NUMBERS[type(frame)]) + body


def decode(number: int, body: bytes) -> Frame | None:
    """The frame of this type, or None for a type that may be ignored.

    Raises RemoteError: "unsupported" for an unknown even type, "malformed" for a bad body.
    """
    decoder = _FRAME_DECODERS.get(number)
    if decoder is None:
        if number % 2:
            return None
        raise RemoteError("unsupported", f"frame type {number:#06x}")
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteError("malformed", f"frame type {number:#06x}: {error}") from error


def encode_body(body: Body) -> tuple[int, bytes]:
    """The kind and bytes of an envelope body."""
    return KIND_NUMBERS[type(body)], _ENCODER.encode(body)


def decode_body(kind: int, data: bytes) -> Body:
    """The body of an envelope.

    Raises RemoteError, which refuses the envelope and not the link: "unknown" for a kind that
    we do not know, "malformed" for a bad body.
    """
    decoder = _BODY_DECODERS.get(kind)
    if decoder is None:
        raise RemoteError("unknown", f"envelope kind {kind}")
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteError("malformed", f"envelope kind {kind}: {error}") from error


class FrameReader:
    """Cuts a stream of bytes into frames, however it is chopped.

    `frame_bytes_max` bounds what one frame may take; it may be raised while reading.
    """

    def __init__(self, frame_bytes_max: int) -> None:
        self.frame_bytes_max = frame_bytes_max
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add bytes that arrived."""
        self._buffer += data

    def next_frame(self) -> tuple[int, bytes] | None:
        """The next whole frame as (type, body), or None until more bytes are fed.

        Raises RemoteError("malformed") as soon as a header announces an impossible length.
        """
        if len(self._buffer) < HEADER.size:
            return None
        length, number = HEADER.unpack_from(self._buffer)
        if not 2 <= length <= self.frame_bytes_max:
            raise RemoteError("malformed", f"a frame of {length} bytes")
        end = 4 + length
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[HEADER.size : end])
        del self._buffer[:end]
        return number, body
