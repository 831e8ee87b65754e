"""Stored rows as the objects of the control protocol."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from functools import lru_cache
from typing import cast

from tntd.control import schema
from tntd.machines.addresses import show_address
from tntd.machines.identity import key_to_id
from tntd.machines.naming import show_path
from tntd.node.core import Core
from tntd.store.contacts import ContactRow
from tntd.store.messages import MessageRow
from tntd.store.transfers import TransferRow
from tntd.wire.frames import KIND_NUMBERS, Offer, Text

# What our user has put there; receipts and the like come and go unseen.
QUEUED_KINDS = (KIND_NUMBERS[Text], KIND_NUMBERS[Offer])


def timestamp(ms: int) -> str:
    """Milliseconds since 1970 as RFC 3339 UTC; a time no calendar holds becomes 1970."""
    try:
        moment = datetime.fromtimestamp(ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        moment = datetime.fromtimestamp(0, UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


@lru_cache(4096)  # Python's base32 is slow, and an id is shown several times
def item_id(id: bytes) -> str:
    """A message's or transfer's id: 26 characters of lower-case base32."""
    return base64.b32encode(id).decode().rstrip("=").lower()


def parse_item_id(text: str) -> bytes | None:
    """The 16 bytes behind a whole id, or None."""
    try:
        id = base64.b32decode(text.upper() + "======")
    except (binascii.Error, ValueError):
        return None
    return id if len(id) == 16 else None


def contact(core: Core, row: ContactRow) -> schema.Contact:
    """A contact as it stands now."""
    route = core.routes.get(row.row)
    return schema.Contact(
        id=key_to_id(row.key),
        name=row.name,
        trust=cast(schema.Trust, row.trust),
        mutual=bool(row.mutual),
        online=route is not None and route.open,
        addresses=[show_address(*a) for a in core.store.contacts.addresses(row.row)],
        unread=core.store.messages.unread(row.row, row.read_upto),
        queued=core.store.outbox.count(row.row, QUEUED_KINDS),
        key_exchange=route.key_exchange if route is not None else None,
        path=show_address(route.host, route.port) if route is not None else None,
    )


def message(core: Core, row: MessageRow, name: str) -> schema.Message:
    """A message of the conversation with the contact called `name`."""
    return schema.Message(
        id=item_id(row.id),
        conversation=name,
        from_=core.profile.name if row.outgoing else name,
        text=row.text,
        sent_at=timestamp(row.sent_at),
        received_at=None if row.received_at is None else timestamp(row.received_at),
        state=cast(schema.MessageState, row.state),
        kind="notice" if row.kind == "notice" else "text",
    )


def transfer(
    row: TransferRow, name: str, *, bytes_done: int | None = None, rate: int | None = None
) -> schema.Transfer:
    """A transfer with the contact called `name`; `bytes_done` and `rate` while it moves."""
    done = row.bytes_done if bytes_done is None else bytes_done
    path = row.source if row.outgoing else _final_path(row)
    shown, exact = (None, None) if path is None else show_path(path)
    left = max(0, row.size - done)
    return schema.Transfer(
        id=item_id(row.id),
        direction="out" if row.outgoing else "in",
        contact=name,
        name=show_path(row.name)[0],
        files=row.files,
        bytes_total=row.size,
        bytes_done=done,
        bytes_resent=row.bytes_resent,
        skipped=row.skipped,
        failed=row.failed if row.tree else int(row.state == "failed"),
        rate=rate,
        eta_s=-(-left // rate) if rate else None,
        state=cast(schema.TransferState, row.state),
        error=row.error,
        path=shown,
        path_bytes=exact,
        counting=bool(row.counting),
        kind="folder" if row.tree else "file",
    )


def _final_path(row: TransferRow) -> bytes | None:
    if not row.final_ctime_ns or row.folder is None or row.chosen is None:
        return None
    return row.folder.rstrip(b"/") + b"/" + row.chosen
