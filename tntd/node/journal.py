"""The event log read for clients: stored references made into notifications.

What holds always: a cursor is opaque to clients (`epoch.number`, the epoch random for each
database, and another one once it turns out to be an older copy, whose numbers have meant other
events before); the event is built from the rows as they are now, with the state that it was
about; and one event that cannot be shown (of another version, or damaged) never holds up those
behind it.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from tntd import limits
from tntd.control.jsonrpc import encode_event
from tntd.control.schema import EVENTS, MessageState, TransferState
from tntd.errors import Code, CommandError
from tntd.node import present
from tntd.node.core import Core
from tntd.store.eventlog import EventRow


class _Kept(msgspec.Struct):
    """What was kept of the state at that time; what is not there is shown as it is now."""

    state: str | None = None
    error: str | msgspec.UnsetType | None = msgspec.UNSET
    text: str = ""
    hint: str = ""


_json = msgspec.json.Decoder(_Kept)
_EPOCH_SETTING = "event_epoch"
_PAGE = 500


class Journal:
    """Cursors and notifications."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._log = core.store.events
        self._known = ""
        if core.store.get_setting(_EPOCH_SETTING) is None:
            self.renew()

    @property
    def _epoch(self) -> str:
        if not self._known:
            self._known = (self._core.store.get_setting(_EPOCH_SETTING) or b"").hex()
        return self._known

    def renew(self) -> None:
        """Begin a new epoch: the cursors that were given are gone, the events stay."""
        self._core.store.set_setting(_EPOCH_SETTING, self._core.random(6))
        self._known = ""

    def reset(self) -> None:
        """Forget all that is not in the store."""
        self._known = ""

    def newest(self) -> int:
        """The number of the newest event."""
        return self._log.span()[1]

    def cursor(self, number: int) -> str:
        """The cursor right after this event."""
        return f"{self._epoch}.{number}"

    def parse(self, cursor: str) -> int:
        """The event number of a cursor.

        Raises CommandError(CURSOR_GONE) for one that is foreign, or older than what is kept.
        """
        epoch, _, digits = cursor.partition(".")
        oldest, newest = self._log.span()
        number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else -1
        if epoch != self._epoch or not oldest <= number <= newest:
            raise CommandError(
                Code.CURSOR_GONE,
                f"the cursor {cursor[:64]!r} is too old or of another history",
                "list what you need, then follow from the fresh cursor",
                cursor=self.cursor(newest),
            )
        return number

    def read(self, after: int, size: int = limits.EVENT_BATCH_BYTES) -> tuple[bytes, int]:
        """The notifications after an event as whole lines, about `size` bytes of them at most,
        and the number of the last event in them (or passed over)."""
        lines: list[bytes] = []
        number, total = after, 0
        for row in self._log.after(after, _PAGE):
            line = self._line(row)
            number = row.number
            if line is not None:
                lines.append(line)
                total += len(line)
            if total >= size:
                break
        return b"".join(lines), number

    def _line(self, row: EventRow) -> bytes | None:
        try:
            kept = _json.decode(row.detail)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None  # damaged
        fields = self._fields(row, kept)
        if fields is None:
            return None  # what it was about has been removed since, or is not known here
        head = {
            "cursor": self.cursor(row.number),
            "at": present.timestamp(row.at),
            "type": row.type,
        }
        return encode_event({**head, **fields})

    def _fields(self, row: EventRow, kept: _Kept) -> dict[str, Any] | None:
        if row.type not in EVENTS:
            return None
        subject = EVENTS[row.type]
        if subject == "message":
            return self._message(row.ref, kept)
        if subject == "transfer":
            return self._transfer(row.ref, kept)
        contact = self._core.store.contacts.get(row.ref)
        shown = None if contact is None else {"contact": present.contact(self._core, contact)}
        if subject == "contact":
            return shown
        return {"text": kept.text, "hint": kept.hint, **(shown or {})}

    def _message(self, ref: int, kept: _Kept) -> dict[str, Any] | None:
        row = self._core.store.messages.get(ref)
        contact = None if row is None else self._core.store.contacts.get(row.contact)
        if row is None or contact is None:
            return None
        shown = present.message(self._core, row, contact.name)
        if kept.state is not None:
            shown.state = cast(MessageState, kept.state)
        return {"message": shown}

    def _transfer(self, ref: int, kept: _Kept) -> dict[str, Any] | None:
        row = self._core.store.transfers.get(ref)
        contact = None if row is None else self._core.store.contacts.get(row.contact)
        if row is None or contact is None:
            return None
        shown = present.transfer(row, contact.name)
        if kept.state is not None:
            shown.state = cast(TransferState, kept.state)
        if kept.error is not msgspec.UNSET:
            shown.error = kept.error
        return {"transfer": shown}
