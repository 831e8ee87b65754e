"""Conversations: texts sent and received, their states, and what has been read.

What holds always: a text is one row in the history and one envelope in the outbox, made in one
transaction; its state only moves forward: queued, sent, delivered, read.
"""

from __future__ import annotations

from typing import Final

from tntd import limits
from tntd.control.visible import visible
from tntd.errors import Code, CommandError, RemoteError
from tntd.node.core import Core
from tntd.node.mail import Mail
from tntd.store.contacts import ContactRow
from tntd.store.messages import MessageRow
from tntd.wire.frames import KIND_NUMBERS, Body, Read, Refused, Text

TEXT_KIND: Final = KIND_NUMBERS[Text]


class Chat:
    """All conversations."""

    def __init__(self, core: Core, mail: Mail) -> None:
        self._core = core
        self._mail = mail
        self._messages = core.store.messages
        mail.arrived[Text] = self._text_arrived
        mail.arrived[Read] = self._read_arrived
        mail.arrived[Refused] = self._refused_arrived
        mail.delivered[TEXT_KIND] = self._delivered
        mail.under_way[TEXT_KIND] = self._under_way

    def send(self, contact: ContactRow, text: str) -> MessageRow:
        """Queue a text.  Raises CommandError: NOT_ACCEPTED, LIMIT, INVALID_PARAMS."""
        require_accepted(contact)
        check_text(text)
        now = self._core.now.wall_ms
        id = self._mail.put(contact.row, Text(text=text, sent_at=now))
        message = self._messages.add(
            id,
            contact.row,
            outgoing=True,
            kind="text",
            text=text,
            sent_at=now,
            received_at=None,
            state="queued",
        )
        self._core.publish("message.state", message.row, state="queued")
        return message

    def mark_read(self, contact: ContactRow, upto: MessageRow) -> None:
        """Our user has seen the messages up to this one; they are told, unless set otherwise."""
        if upto.row <= contact.read_upto:
            return
        self._core.store.contacts.update(contact.row, read_upto=upto.row)
        self._core.publish("contact.changed", contact.row)
        id = self._messages.last_incoming_text(contact.row, upto.row)
        if id is not None and contact.accepted and self._core.settings.read_receipts:
            message = self._messages.by_id(contact.row, id)
            if message is not None and message.row > contact.read_upto:
                self._mail.put(contact.row, Read(upto=id))

    # -- from the peer ----------------------------------------------------------------

    def _text_arrived(self, contact: ContactRow, id: bytes, body: Body) -> None:
        assert isinstance(body, Text)
        if len(body.text.encode("utf-8", "surrogatepass")) > limits.TEXT_BYTES_MAX or not body.text:
            raise RemoteError("limit", f"a text of {len(body.text)} characters")
        if self._messages.by_id(contact.row, id) is not None:
            return  # older than the remembered ids, but still in the history
        message = self._messages.add(
            id,
            contact.row,
            outgoing=False,
            kind="text",
            text=body.text,
            sent_at=body.sent_at,
            received_at=self._core.now.wall_ms,
            state="delivered",
        )
        self._core.publish("message.received", message.row)

    def _read_arrived(self, contact: ContactRow, _id: bytes, body: Body) -> None:
        assert isinstance(body, Read)
        upto = self._messages.by_id(contact.row, body.upto)
        if upto is None or not upto.outgoing:
            return
        rows = self._messages.mark_read(contact.row, upto.row)
        self._core.publish_all("message.state", rows, state="read")

    def _refused_arrived(self, contact: ContactRow, _id: bytes, body: Body) -> None:
        assert isinstance(body, Refused)
        message = self._messages.by_id(contact.row, body.id)
        what = "a message" if message is not None else "something sent"
        quoted = f" ({message.text[:40]!r})" if message is not None else ""
        self._core.complain(
            f"{contact.name}'s side refused {what}{quoted}: {visible(body.code)}",
            "the two versions may differ: update both; then send it again",
            contact.row,
        )

    # -- states -----------------------------------------------------------------------

    def _under_way(self, contact: ContactRow, ids: list[bytes]) -> None:
        rows = self._messages.advance(contact.row, ids, ("queued",), "sent")
        self._core.publish_all("message.state", rows, state="sent")

    def _delivered(self, contact: ContactRow, ids: list[bytes]) -> None:
        now = self._core.now.wall_ms
        rows = self._messages.advance(contact.row, ids, ("queued", "sent"), "delivered", now)
        self._core.publish_all("message.state", rows, state="delivered")


def require_accepted(contact: ContactRow) -> None:
    """Raises CommandError(NOT_ACCEPTED) for whom our user has not accepted."""
    if contact.accepted:
        return
    name = contact.name
    if contact.trust == "blocked":
        raise CommandError(
            Code.NOT_ACCEPTED, f"{name} is blocked", f"take it back with: unblock {name}"
        )
    raise CommandError(
        Code.NOT_ACCEPTED, f"{name} is not accepted here", f"accept them first with: accept {name}"
    )


def check_text(text: str) -> None:
    """Raises CommandError for a text that cannot be a message."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise CommandError(
            Code.INVALID_PARAMS, "the text is not valid Unicode", "send it as a file instead"
        ) from error
    if size > limits.TEXT_BYTES_MAX:
        raise CommandError(
            Code.LIMIT,
            f"the message has {size} bytes, more than {limits.TEXT_BYTES_MAX}",
            "send it as a file instead",
        )
