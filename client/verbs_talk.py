"""The verbs about messages: send one, look back."""

from __future__ import annotations

import os
import re
from argparse import Namespace
from typing import Any

from tntd.control.schema import MessageList, MessageResult, TransferList
from tntd.errors import CommandError
from tntd.limits import KIB, LIST_LIMIT_DEFAULT, TEXT_BYTES_MAX

from . import render
from .failures import Refused, TimedOut
from .steps import (
    Ask,
    Call,
    DropText,
    KeepText,
    NextEvent,
    ReadInput,
    Script,
    Show,
    ask_daemon,
    given_path,
    new_ref,
)

_RANK = {"queued": 0, "sent": 1, "delivered": 2, "read": 3}
_SURROGATES = re.compile("[\ud800-\udfff]")


def whole_text(text: str) -> str:
    """`text` as Unicode has it.  Raises Refused for what is empty."""
    if not text:
        raise Refused("an empty message is not sent; give it some text")
    return _SURROGATES.sub("\ufffd", text)


def is_too_long(text: str) -> bool:
    """Whether a message does not hold the text."""
    return len(text.encode()) > TEXT_BYTES_MAX


def checked_text(text: str, who: str, prefix: str) -> str:
    """`text` as it can be sent.  Raises Refused for what is empty or too long."""
    text = whole_text(text)
    length = len(text.encode())
    if length > TEXT_BYTES_MAX:
        raise Refused(
            f"the message has {length:,} bytes, and {TEXT_BYTES_MAX:,} is the most; "
            f"send it as a file: {prefix}send {who} FILE"
        )
    return text


def _text(arguments: Namespace) -> Script[str]:
    if arguments.text != ["-"]:
        text = " ".join(arguments.text)
        return _as_typed(text, arguments) if arguments.prefix != "/" else text
    data: bytes = yield ReadInput()
    return _decoded(data, "standard input", arguments).removesuffix("\n").removesuffix("\r")


def _as_typed(text: str, arguments: Namespace) -> str:
    """Words of a command line, also where the system's encoding is not that of the terminal.
    Raises Refused for bytes that are no text."""
    if not _SURROGATES.search(text):
        return text
    return _decoded(os.fsencode(text), "the message", arguments)


def _decoded(data: bytes, what: str, arguments: Namespace) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Refused(
            f"{what} is not UTF-8 text; send it as a file: "
            f"{arguments.prefix}send {arguments.who} FILE"
        ) from error


def msg(arguments: Namespace) -> Script[None]:
    """Queue a message; with --wait, follow it until it is there."""
    text = yield from _text(arguments)
    if arguments.prefix == "/" and is_too_long(whole_text(text)):
        yield from send_as_file(arguments.who, whole_text(text))
        return
    text = checked_text(text, arguments.who, arguments.prefix)
    if arguments.wait:
        yield Call("events.subscribe", {})
    params = {"to": arguments.who, "text": text, "client_ref": new_ref()}
    raw, result = yield from ask_daemon("messages.send", params, MessageResult)
    shown = raw["message"]
    if arguments.wait:
        shown = yield from _follow(shown, arguments.wait)
    yield Show([shown], [_sent_line(result.message.conversation, shown["state"])])


def send_as_file(who: str, text: str) -> Script[None]:
    """Ask whether a long text shall go as a file, and queue it (REPL)."""
    size = -(-len(text.encode()) // KIB)
    if not (yield Ask(f"This is {size} KiB, more than a message holds. Send it as a file?")):
        yield Show([], [render.note("nothing was sent; the arrow up brings the text back")])
        return
    path: str = yield KeepText(text)
    params = {"to": who, "paths": [given_path(path)], "client_ref": new_ref()}
    try:
        raw, result = yield from ask_daemon("transfers.send", params, TransferList)
    except CommandError:
        # Only then: where there was no answer, it may have been queued.
        yield DropText(path)
        raise
    yield Show(raw["transfers"], [render.queued(item) for item in result.transfers])


def _sent_line(who: str, state: str) -> render.Line:
    if state == "queued":
        return render.note(f"queued for {who}")
    return render.note(f"{state} to {who}" if state == "sent" else f"{state} by {who}")


def _follow(message: dict[str, Any], wanted: str) -> Script[dict[str, Any]]:
    while _RANK.get(message["state"], 0) < _RANK[wanted]:
        try:
            event = yield NextEvent()
        except TimedOut as error:
            raise TimedOut(
                f"the message to {message['conversation']} is {message['state']}, not {wanted}, "
                "in this time; it is kept and goes on by itself"
            ) from error
        changed = event.get("message")
        if event.get("type") == "message.state" and changed and changed["id"] == message["id"]:
            message = changed
    return message


def history(arguments: Namespace) -> Script[None]:
    """A page of a conversation."""
    params: dict[str, Any] = {"conversation": arguments.who}
    for name in ("limit", "before", "search"):
        if getattr(arguments, name) is not None:
            params[name] = getattr(arguments, name)
    raw, result = yield from ask_daemon("messages.list", params, MessageList)
    daemon = yield Call("status", {})
    lines = render.conversation(result.messages, daemon["name"])
    if not lines:
        lines = [render.note("no such messages" if arguments.search else "no messages yet")]
    elif len(result.messages) == (arguments.limit or LIST_LIMIT_DEFAULT):
        oldest = result.messages[0]
        older = f"{arguments.prefix}history {oldest.conversation} --before {oldest.id}"
        lines.insert(0, render.separator(f"older ones: {older}"))
    yield Show(raw["messages"], lines)
