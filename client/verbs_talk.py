"""The verbs about messages: send one, look back."""

from __future__ import annotations

import re
import secrets
from argparse import Namespace
from typing import Any

from tntd.control.schema import MessageList, MessageResult
from tntd.limits import LIST_LIMIT_DEFAULT, TEXT_BYTES_MAX

from . import render
from .failures import Refused, TimedOut
from .steps import Call, NextEvent, ReadInput, Script, Show, ask_daemon

_RANK = {"queued": 0, "sent": 1, "delivered": 2, "read": 3}
_SURROGATES = re.compile("[\ud800-\udfff]")


def new_ref() -> str:
    """A reference that makes a repeated send the same message."""
    return secrets.token_hex(16)


def checked_text(text: str, who: str, prefix: str) -> str:
    """`text` as it can be sent.  Raises Refused for what is empty or too long."""
    text = _SURROGATES.sub("\ufffd", text)
    length = len(text.encode())
    if not text:
        raise Refused("an empty message is not sent; give it some text")
    if length > TEXT_BYTES_MAX:
        raise Refused(
            f"the message has {length:,} bytes, and {TEXT_BYTES_MAX:,} is the most; "
            f"send it as a file: {prefix}send {who} FILE"
        )
    return text


def _text(arguments: Namespace) -> Script[str]:
    if arguments.text != ["-"]:
        return " ".join(arguments.text)
    data: bytes = yield ReadInput()
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Refused(
            "standard input is not UTF-8 text; send it as a file: "
            f"{arguments.prefix}send {arguments.who} FILE"
        ) from error
    return text.removesuffix("\n").removesuffix("\r")


def msg(arguments: Namespace) -> Script[None]:
    """Queue a message; with --wait, follow it until it is there."""
    text = checked_text((yield from _text(arguments)), arguments.who, arguments.prefix)
    if arguments.wait:
        yield Call("events.subscribe", {})
    params = {"to": arguments.who, "text": text, "client_ref": new_ref()}
    raw, result = yield from ask_daemon("messages.send", params, MessageResult)
    shown = raw["message"]
    if arguments.wait:
        shown = yield from _follow(shown, arguments.wait)
    yield Show([shown], [_sent_line(result.message.conversation, shown["state"])])


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
