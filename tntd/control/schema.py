"""The control protocol as values: one row a method, one struct an object.

Dispatch, validation, documentation and the clients read the same table, `METHODS`.  Times are
RFC 3339 UTC with milliseconds, sizes bytes, rates bytes a second.  See README.md beside this file.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from tntd import limits

PROTOCOL: Final = 1

Who = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Ref = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.CLIENT_REF_CHARS_MAX)]
Cursor = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
ItemId = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
PathText = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.TREE_PATH_BYTES_MAX)]
Limit = Annotated[int, msgspec.Meta(ge=1, le=limits.LIST_LIMIT_MAX)]
Trust = Literal["pending", "accepted", "verified", "blocked"]
MessageState = Literal["queued", "sent", "delivered", "read"]
TransferState = Literal[
    "queued", "offered", "active", "paused", "done", "failed", "cancelled", "declined"
]
FileState = Literal["waiting", "active", "verified", "skipped", "failed"]

# -- objects ------------------------------------------------------------------------------


class Contact(msgspec.Struct, kw_only=True):
    """Somebody with a key.  `id` is the public key in base32 groups; `trust` is ours, `mutual`
    says that the other side has accepted us too; `unread` counts their messages that no client
    has marked as read, `queued` our messages and offers that wait for their acknowledgement."""

    id: str
    name: str
    trust: Trust
    mutual: bool
    online: bool
    addresses: list[str]
    unread: int
    queued: int
    key_exchange: str | None = None
    path: str | None = None


class Message(msgspec.Struct, kw_only=True):
    """`conversation` and `from` are local names, as they are now.  `kind` is "text", or "notice"
    for a line that our own daemon put there.  `received_at` is when it was committed on the
    receiving side, as far as this side knows; null before."""

    id: str
    conversation: str
    from_: str = msgspec.field(name="from")
    text: str
    sent_at: str
    received_at: str | None
    state: MessageState
    kind: Literal["text", "notice"]


class Transfer(msgspec.Struct, kw_only=True):
    """One id on both sides.  `contact` is a local name; `path` is absolute: the source for "out",
    the final place for "in" (null until done); `rate` and `eta_s` are null unless active.  While
    `counting`, `files` and `bytes_total` are what is known so far.  `kind`: a transfer of
    a folder may have one file, too."""

    id: str
    direction: Literal["in", "out"]
    contact: str
    name: str
    files: int
    bytes_total: int
    bytes_done: int
    bytes_resent: int
    skipped: int
    failed: int
    rate: int | None
    eta_s: int | None
    state: TransferState
    error: str | None
    path: str | None
    path_bytes: str | None = None
    counting: bool = False
    kind: Literal["file", "folder"] = "file"


class TransferFile(msgspec.Struct, kw_only=True):
    """A file of a transfer.  `path` is below the folder that is sent, with "/" between names; a
    transfer of a single file has one, its name.  A file that is skipped or failed has a reason."""

    path: str
    path_bytes: str | None = None
    size: int
    state: FileState
    reason: str | None = None


class Setting(msgspec.Struct, kw_only=True):
    """A setting that can change while the daemon runs.  `value` is what holds now; `changed` where
    it was set here, not in the file (or for the contact, not in general)."""

    name: str
    value: bool | int | str
    path_bytes: str | None = None
    changed: bool
    meaning: str
    contact: str | None = None


class TransferCounts(msgspec.Struct, kw_only=True):
    """How many transfers move, and how many wait."""

    active: int
    queued: int


class Status(msgspec.Struct, kw_only=True):
    """The daemon; `contacts`, `links` and `clients` are counts."""

    name: str
    id: str
    version: str
    uptime_s: int
    peer_port: int
    contacts: int
    links: int
    clients: int
    transfers: TransferCounts
    rss_bytes: int


class Welcome(msgspec.Struct, kw_only=True):
    """The answer to `hello` (or, over TCP, to `authorise`); `cursor` is the newest event's."""

    protocol: int
    version: str
    name: str
    id: str
    peer_port: int
    cursor: str


class Challenge(msgspec.Struct, kw_only=True):
    """The answer to `hello` over TCP: our nonce, and the proof that we know the token (hex)."""

    nonce: str
    proof: str


class ContactResult(msgspec.Struct, kw_only=True):
    """One contact."""

    contact: Contact


class ContactList(msgspec.Struct, kw_only=True):
    """All contacts, oldest first."""

    contacts: list[Contact]


class WordsResult(msgspec.Struct, kw_only=True):
    """The words to read aloud, the same on both sides."""

    contact: Contact
    words: list[str]


class MessageResult(msgspec.Struct, kw_only=True):
    """One message."""

    message: Message


class MessageList(msgspec.Struct, kw_only=True):
    """A page of messages, oldest first."""

    messages: list[Message]


class TransferResult(msgspec.Struct, kw_only=True):
    """One transfer."""

    transfer: Transfer


class TransferList(msgspec.Struct, kw_only=True):
    """A page of transfers, oldest first."""

    transfers: list[Transfer]


class FileList(msgspec.Struct, kw_only=True):
    """A page of the files of a transfer, by path."""

    files: list[TransferFile]


class Cleaned(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What was removed: so many files, those in unfinished folders among them, of so many bytes;
    and the folders that could not be looked at, each with the reason."""

    removed: int
    bytes: int
    problems: list[str] = []


class SettingList(msgspec.Struct, kw_only=True):
    """All settings that can change while the daemon runs."""

    settings: list[Setting]


class Subscribed(msgspec.Struct, kw_only=True):
    """Events after this cursor follow as notifications."""

    cursor: str


class Empty(msgspec.Struct, kw_only=True):
    """Nothing to tell."""


# -- parameters ---------------------------------------------------------------------------


class Params(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The parameters of a method; the concrete class stands for one shape."""


class NoParams(Params, kw_only=True, frozen=True):
    """No parameters."""


class HelloParams(Params, kw_only=True, frozen=True):
    """`client` is a name and version for the log; `nonce` (TCP only) is 16 to 64 bytes in hex."""

    protocol: int
    client: Annotated[str, msgspec.Meta(max_length=128)]
    nonce: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{2}){16,64}$")] | None = None


class AuthoriseParams(Params, kw_only=True, frozen=True):
    """`proof` is the client's HMAC-SHA256 in hex."""

    proof: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class ContactParams(Params, kw_only=True, frozen=True):
    """`contact` is a local name, an id or an unambiguous prefix of an id."""

    contact: Who


class RenameParams(Params, kw_only=True, frozen=True):
    """`name` is the new local name."""

    contact: Who
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=limits.NAME_HINT_CHARS_MAX)]


class ConnectParams(Params, kw_only=True, frozen=True):
    """`address` is PORT, HOST:PORT or [v6]:PORT; `new` takes another key at a known address."""

    address: Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
    new: bool = False


class SendMessageParams(Params, kw_only=True, frozen=True):
    """`client_ref` makes a repeated call the same message."""

    to: Who
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=limits.TEXT_BYTES_MAX)]
    client_ref: Ref | None = None


class ListMessagesParams(Params, kw_only=True, frozen=True):
    """`before` and `after` are message ids, exclusive; `search` is words that all must occur."""

    conversation: Who
    limit: Limit = limits.LIST_LIMIT_DEFAULT
    before: ItemId | None = None
    after: ItemId | None = None
    search: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None


class ReadParams(Params, kw_only=True, frozen=True):
    """All messages of the conversation up to the id `upto` have been seen."""

    conversation: Who
    upto: ItemId


class PathBytes(Params, kw_only=True, frozen=True):
    """An exact path, percent-encoded."""

    path_bytes: Annotated[str, msgspec.Meta(min_length=1, max_length=12_288)]


class SendTransferParams(Params, kw_only=True, frozen=True):
    """`paths` are absolute, of files or folders.  `to` may be several contacts: each gets all.
    `growing`: the one path is a file of the spool, to which more is written; transfers.grown tells
    how much."""

    to: (
        Who
        | Annotated[list[Who], msgspec.Meta(min_length=1, max_length=limits.TRANSFER_CONTACTS_MAX)]
    )
    paths: Annotated[
        list[PathText | PathBytes], msgspec.Meta(min_length=1, max_length=limits.PATHS_MAX)
    ]
    growing: bool = False
    client_ref: Ref | None = None


class GrownParams(Params, kw_only=True, frozen=True):
    """`transfers` are ids of all that are sent of one growing file; `bytes` of it are written;
    `end`: that is all, and it is synced."""

    transfers: Annotated[
        list[ItemId], msgspec.Meta(min_length=1, max_length=limits.TRANSFER_CONTACTS_MAX)
    ]
    bytes: Annotated[int, msgspec.Meta(ge=0, le=limits.TREE_BYTES_MAX)]
    end: bool = False


class ListTransfersParams(Params, kw_only=True, frozen=True):
    """`before` and `after` are transfer ids, exclusive."""

    state: TransferState | None = None
    limit: Limit = limits.LIST_LIMIT_DEFAULT
    before: ItemId | None = None
    after: ItemId | None = None


class TransferParams(Params, kw_only=True, frozen=True):
    """`transfer` is an id or an unambiguous prefix of one."""

    transfer: ItemId


class AcceptTransferParams(Params, kw_only=True, frozen=True):
    """`folder` is where it is to arrive, absolute, made where it is missing; without it the
    downloads folder."""

    transfer: ItemId
    folder: PathText | PathBytes | None = None


class ListFilesParams(Params, kw_only=True, frozen=True):
    """`after` is the path of a file, exclusive."""

    transfer: ItemId
    limit: Limit = limits.LIST_LIMIT_DEFAULT
    after: PathText | PathBytes | None = None


class ListSettingsParams(Params, kw_only=True, frozen=True):
    """`contact`: what holds for them; without it what holds in general."""

    contact: Who | None = None


class SetSettingParams(Params, kw_only=True, frozen=True):
    """`name` is one of TUNABLES (tunables.py).  `value` null: as it is in the file again, or, for
    a contact, as it is in general."""

    name: Annotated[str, msgspec.Meta(max_length=64)]
    value: bool | int | Annotated[str, msgspec.Meta(max_length=4096)] | PathBytes | None
    contact: Who | None = None


class SubscribeParams(Params, kw_only=True, frozen=True):
    """`since` is a cursor; without it only what comes from now on."""

    since: Cursor | None = None


class Method(msgspec.Struct, frozen=True):
    """A row of the table: name, shape of parameters and of result, one line of help."""

    name: str
    params: type[Params]
    result: type[Any]
    help: str


METHODS: Final[dict[str, Method]] = {
    row.name: row
    for row in (
        Method("hello", HelloParams, Welcome, "the first request of every client"),
        Method("authorise", AuthoriseParams, Welcome, "over TCP: prove that the token is known"),
        Method("status", NoParams, Status, "the daemon in numbers"),
        Method("contacts.list", NoParams, ContactList, "all contacts and contact requests"),
        Method("contacts.accept", ContactParams, ContactResult, "accept a contact request"),
        Method("contacts.block", ContactParams, ContactResult, "never hear of them again"),
        Method("contacts.unblock", ContactParams, ContactResult, "take a block back"),
        Method("contacts.remove", ContactParams, ContactResult, "forget them and their history"),
        Method("contacts.rename", RenameParams, ContactResult, "change the local name"),
        Method("contacts.words", ContactParams, WordsResult, "words to compare by voice"),
        Method("contacts.verified", ContactParams, ContactResult, "the words were the same"),
        Method(
            "peers.connect", ConnectParams, ContactResult, "dial an address; answers once linked"
        ),
        Method("messages.send", SendMessageParams, MessageResult, "queue a message, durably"),
        Method("messages.list", ListMessagesParams, MessageList, "a page of a conversation"),
        Method("messages.read", ReadParams, Empty, "mark as read"),
        Method("transfers.send", SendTransferParams, TransferList, "queue files and folders"),
        Method("transfers.grown", GrownParams, TransferList, "tell of more of a growing file"),
        Method("transfers.list", ListTransfersParams, TransferList, "a page of the queue"),
        Method("transfers.files", ListFilesParams, FileList, "a page of the files of a transfer"),
        Method("transfers.accept", AcceptTransferParams, TransferResult, "take what is offered"),
        Method("transfers.decline", TransferParams, TransferResult, "refuse what is offered"),
        Method("transfers.pause", TransferParams, TransferResult, "let a transfer rest"),
        Method("transfers.resume", TransferParams, TransferResult, "go on after a pause"),
        Method("transfers.cancel", TransferParams, TransferResult, "give a transfer up"),
        Method("transfers.first", TransferParams, TransferResult, "to the front of the queue"),
        Method("transfers.again", TransferParams, TransferResult, "send what failed once more"),
        Method("transfers.clean", NoParams, Cleaned, "remove unfinished leftovers"),
        Method("settings.list", ListSettingsParams, SettingList, "what can change while running"),
        Method("settings.set", SetSettingParams, Setting, "change it"),
        Method("events.subscribe", SubscribeParams, Subscribed, "follow the event log"),
        Method("daemon.shutdown", NoParams, Empty, "end the daemon"),
    )
}

# Each event type, and the name of the object that its notification carries (None: `contact`
# is absent or the fields are described beside it in README.md).
EVENTS: Final[dict[str, str | None]] = {
    "message.received": "message",
    "message.state": "message",
    "contact.request": "contact",
    "contact.changed": "contact",
    "peer.online": "contact",
    "peer.offline": "contact",
    "transfer.offered": "transfer",
    "transfer.progress": "transfer",
    "transfer.state": "transfer",
    "error": None,
}
