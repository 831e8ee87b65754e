"""One line an event, for people who follow the log with `tnt events`.

What holds always: each type of the control schema has its words here (a test walks the table), an
unknown type of a newer daemon is shown by its name, and nothing is shown unfiltered.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tntd.control.schema import Contact, Message, Transfer
from tntd.control.visible import visible

from . import figures, render
from .render import DIM, NAME, PLAIN, Line


def log_line(event: dict[str, Any]) -> Line:
    """An event as a line: cursor, time, type, what it is about."""
    cursor = visible(str(event.get("cursor") or "-"))
    at = event.get("at")
    when = figures.date_and_clock(at if isinstance(at, str) else None)
    kind = visible(str(event.get("type")))
    return [(DIM, f"{cursor}  {when}  "), (NAME, kind), (PLAIN, f"  {_about(event)}")]


def _about(event: dict[str, Any]) -> str:
    try:
        if "message" in event:
            return _message(msgspec.convert(event["message"], Message))
        if "transfer" in event:
            return _transfer(msgspec.convert(event["transfer"], Transfer))
        if "text" in event:
            return visible(f"{event['text']}; {event.get('hint') or ''}".rstrip("; "))
        if "contact" in event:
            contact = msgspec.convert(event["contact"], Contact)
            return f"{visible(contact.name)}: {render.contact_state(contact)}"
    except msgspec.ValidationError:
        pass  # of a newer daemon: its type has been shown, and --json shows all
    return ""


def _message(message: Message) -> str:
    text = visible(message.text)
    return f"{visible(message.from_)} in {visible(message.conversation)}, {message.state}: {text}"


def _transfer(transfer: Transfer) -> str:
    progress = f" {render.transfer_progress(transfer)}" if transfer.state == "active" else ""
    error = f": {visible(transfer.error)}" if transfer.error else ""
    return (
        f"{render.transfer_id(transfer)} {render.transfer_what(transfer)} "
        f"{render.transfer_peer(transfer)}, {transfer.state}{progress}{error}"
    )
