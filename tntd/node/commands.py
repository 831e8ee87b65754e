"""What users and scripts ask for: one handler for each control method.

What holds always: a handler either gives the result, or raises CommandError, or returns PENDING
and calls `reply` exactly once later.  What it changes is committed before the reply leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from tntd import __version__, limits
from tntd.control import schema
from tntd.control.schema import Params
from tntd.errors import Code, CommandError
from tntd.machines.addresses import parse_address
from tntd.machines.identity import key_to_id
from tntd.node import present
from tntd.node.chat import Chat
from tntd.node.contacts import Contacts
from tntd.node.core import Core
from tntd.node.dialling import Dialling
from tntd.node.links import Links
from tntd.store.contacts import ContactRow
from tntd.store.messages import MessageRow


class Pending(Enum):
    """The reply comes later."""

    PENDING = "pending"


PENDING = Pending.PENDING
Reply = Callable[[object], None]
Handler = Callable[[Params, Reply], object]


class PeopleCommands:
    """`contacts.*` and `peers.*`."""

    def __init__(  # noqa: PLR0917
        self,
        core: Core,
        contacts: Contacts,
        links: Links,
        dialling: Dialling,
        end_transfers: Callable[[int], None],
        forget: Callable[[int], None],
    ) -> None:
        self._core = core
        self._contacts = contacts
        self._links = links
        self._dialling = dialling
        self._end_transfers = end_transfers
        self._forget = forget

    def table(self) -> dict[str, Handler]:
        """Method names and their handlers."""
        return {
            "contacts.list": self._list,
            "contacts.accept": self._accept,
            "contacts.block": self._block,
            "contacts.unblock": self._unblock,
            "contacts.remove": self._remove,
            "contacts.rename": self._rename,
            "contacts.words": self._words,
            "contacts.verified": self._verified,
            "peers.connect": self._connect,
        }

    def _result(self, row: ContactRow) -> schema.ContactResult:
        return schema.ContactResult(contact=present.contact(self._core, row))

    def _list(self, _params: Params, _reply: Reply) -> object:
        rows = self._core.store.contacts.all()
        return schema.ContactList(contacts=[present.contact(self._core, row) for row in rows])

    def _find(self, params: Params) -> ContactRow:
        assert isinstance(params, schema.ContactParams)
        return self._contacts.find(params.contact)

    def _trust(self, row: ContactRow, trust: str) -> object:
        row = self._contacts.set_trust(row, trust)
        self._links.trust_changed(row)
        return self._result(self._contacts.reread(row))

    def _accept(self, params: Params, _reply: Reply) -> object:
        row = self._find(params)
        if row.trust == "blocked":
            raise CommandError(
                Code.WRONG_STATE, f"{row.name} is blocked", f"first: unblock {row.name}"
            )
        return self._trust(row, row.trust if row.accepted else "accepted")

    def _block(self, params: Params, _reply: Reply) -> object:
        row = self._find(params)
        self._end_transfers(row.row)
        result = self._trust(row, "blocked")
        self._dialling.unwant(row.row)
        return result

    def _unblock(self, params: Params, _reply: Reply) -> object:
        row = self._find(params)
        if row.trust != "blocked":
            raise CommandError(Code.WRONG_STATE, f"{row.name} is not blocked", "nothing to do")
        return self._trust(row, "pending")

    def _remove(self, params: Params, _reply: Reply) -> object:
        row = self._find(params)
        result = self._result(row)
        self._end_transfers(row.row)
        self._links.close_contact(row)
        self._core.store.contacts.remove(row.row)
        self._forget(row.row)
        return result

    def _rename(self, params: Params, _reply: Reply) -> object:
        assert isinstance(params, schema.RenameParams)
        return self._result(self._contacts.rename(self._contacts.find(params.contact), params.name))

    def _words(self, params: Params, _reply: Reply) -> object:
        row = self._find(params)
        contact = present.contact(self._core, row)
        return schema.WordsResult(contact=contact, words=self._contacts.words(row))

    def _verified(self, params: Params, _reply: Reply) -> object:
        row = self._find(params)
        if not row.accepted:
            raise CommandError(
                Code.NOT_ACCEPTED, f"{row.name} is not accepted", f"first: accept {row.name}"
            )
        return self._trust(row, "verified")

    def _connect(self, params: Params, reply: Reply) -> object:
        assert isinstance(params, schema.ConnectParams)
        host, port = parse_address(params.address)

        def done(outcome: ContactRow | CommandError) -> None:
            reply(self._result(outcome) if isinstance(outcome, ContactRow) else outcome)

        self._dialling.connect(host, port, new=params.new, reply=done)
        return PENDING


class TalkCommands:
    """`messages.*`."""

    def __init__(self, core: Core, contacts: Contacts, chat: Chat) -> None:
        self._core = core
        self._contacts = contacts
        self._chat = chat

    def table(self) -> dict[str, Handler]:
        """Method names and their handlers."""
        return {
            "messages.send": self._send,
            "messages.list": self._list,
            "messages.read": self._read,
        }

    def _send(self, params: Params, _reply: Reply) -> object:
        assert isinstance(params, schema.SendMessageParams)
        contact = self._contacts.find(params.to)
        row = self._again(params.client_ref) or self._chat.send(contact, params.text)
        if params.client_ref is not None:
            now = self._core.now.wall_ms
            self._core.store.set_client_ref("messages", params.client_ref, [row.row], now)
        name = contact.name
        if row.contact != contact.row:
            earlier = self._core.store.contacts.get(row.contact)
            name = name if earlier is None else earlier.name
        return schema.MessageResult(message=present.message(self._core, row, name))

    def _again(self, ref: str | None) -> MessageRow | None:
        """The message that an earlier call with this reference made."""
        rows = None if ref is None else self._core.store.get_client_ref("messages", ref)
        return self._core.store.messages.get(rows[0]) if rows else None

    def _list(self, params: Params, _reply: Reply) -> object:
        assert isinstance(params, schema.ListMessagesParams)
        contact = self._contacts.find(params.conversation)
        before = None if params.before is None else self._message(contact, params.before).row
        after = None if params.after is None else self._message(contact, params.after).row
        words = (params.search or "").split()
        rows = self._core.store.messages.page(contact.row, params.limit, before, after, words)
        rows = _fitting(rows, from_start=params.after is not None)
        return schema.MessageList(
            messages=[present.message(self._core, row, contact.name) for row in rows]
        )

    def _read(self, params: Params, _reply: Reply) -> object:
        assert isinstance(params, schema.ReadParams)
        contact = self._contacts.find(params.conversation)
        self._chat.mark_read(contact, self._message(contact, params.upto))
        return schema.Empty()

    def _message(self, contact: ContactRow, text: str) -> MessageRow:
        id = present.parse_item_id(text)
        row = None if id is None else self._core.store.messages.by_id(contact.row, id)
        if row is None:
            raise CommandError(
                Code.INVALID_PARAMS,
                f"no message {text!r} with {contact.name}",
                f"list them with: history {contact.name}",
            )
        return row


def _fitting(rows: list[MessageRow], *, from_start: bool) -> list[MessageRow]:
    """As many of a page as fit into one reply: the first ones, or the last ones."""
    kept: list[MessageRow] = []
    size = 0
    for row in rows if from_start else reversed(rows):
        # JSON writes at worst six characters for one control character.
        size += 512 + (len(row.text.encode()) if row.text.isprintable() else 6 * len(row.text))
        if kept and size > limits.REPLY_BYTES_MAX:
            break
        kept.append(row)
    return kept if from_start else kept[::-1]


class DaemonCommands:
    """`status` and `daemon.*`."""

    def __init__(
        self, core: Core, links: Links, clients: Callable[[], int], stop: Callable[[], None]
    ) -> None:
        self._core = core
        self._links = links
        self._clients = clients
        self._stop = stop

    def table(self) -> dict[str, Handler]:
        """Method names and their handlers."""
        return {"status": self._status, "daemon.shutdown": self._shutdown}

    def _status(self, _params: Params, _reply: Reply) -> object:
        core, store = self._core, self._core.store
        return schema.Status(
            name=core.profile.name,
            id=key_to_id(core.profile.identity.public),
            version=__version__,
            uptime_s=int(core.now.boot - core.started_at),
            peer_port=core.peer_port,
            contacts=store.contacts.count(),
            links=sum(1 for route in core.routes.values() if route.open),
            clients=self._clients(),
            transfers=schema.TransferCounts(
                active=store.transfers.count("active"),
                queued=store.transfers.count("queued", "offered"),
            ),
            rss_bytes=core.profile.rss_bytes(),
        )

    def _shutdown(self, _params: Params, reply: Reply) -> object:
        reply(schema.Empty())
        self._stop()
        return PENDING
