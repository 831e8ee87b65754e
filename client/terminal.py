"""What `tnt` prints: styled lines, JSON, and progress bars where there is a terminal.

What holds always: with `--json` standard output holds nothing but JSON, one object a line; bars
are drawn only on a terminal, elsewhere progress is plain lines; NO_COLOR is respected.  JSON is
UTF-8, but characters that could drive a terminal are written as escapes.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, TextIO

from tntd.control.schema import Transfer
from tntd.control.streams import silence_output
from tntd.control.visible import visible

from . import figures, render
from .failures import OutputLost
from .render import ENDED, Line
from .render_bar import transfer_bar

# Select Graphic Rendition parameters of each style; bold and dim are no colours.
_CODES: Final = {
    render.DIM: "2",
    render.NAME: "1;36",
    render.OWN: "1",
    render.GOOD: "32",
    render.BAD: "1;31",
    render.NOTE: "36",
    render.ELSEWHERE: "1;33",
}
_PLAIN_STEP_PERCENT: Final = 10
COUNT_S: Final = 0.2


def one_line_json(value: Any) -> str:
    """`value` as JSON on one line that is safe to show."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if visible(character) == character else _escaped(character) for character in text
    )


def _escaped(character: str) -> str:
    return json.dumps(character, ensure_ascii=True)[1:-1] if ord(character) > 0x7E else "\\u007f"


def drives_well(stream: TextIO) -> bool:
    """Whether escape sequences make sense on `stream`."""
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return False
    # The classic Windows console shows escape sequences as text.
    return os.name != "nt" or "WT_SESSION" in os.environ


def styled(line: Line, colour: bool) -> str:
    """A line for a terminal."""
    if not colour:
        return render.plain(line)
    return "".join(
        f"\x1b[{_CODES[style]}m{text}\x1b[0m" if style in _CODES and text else text
        for style, text in line
    )


class Output:
    """Standard output of a command."""

    def __init__(self, stream: TextIO, as_json: bool) -> None:
        self._stream = stream
        self._json = as_json
        self._terminal = drives_well(stream)
        self._colour = self._terminal and not os.environ.get("NO_COLOR")
        self._live: list[str] = []  # bars that move, the last lines on the terminal
        self._ended: set[str] = set()  # ids of transfers whose last bar stands above them
        self._told: dict[str, tuple[str, int]] = {}

    def show(self, objects: Sequence[Any], lines: Sequence[Line]) -> None:
        """Print `objects` with --json, else `lines`; bars that move stay below."""
        texts = (
            [one_line_json(value) for value in objects]
            if self._json
            else [styled(line, self._colour) for line in lines]
        )
        self._write(self._redrawn(texts, self._live))

    def bars(self, transfers: Sequence[Transfer]) -> None:
        """Show how far the transfers are; the bar of one that has ended stays."""
        if self._json:
            return
        if not self._terminal:
            self._tell(transfers)
            return
        columns, rows = shutil.get_terminal_size()
        several = _to_several(transfers)

        def bar(item: Transfer) -> str:
            return transfer_bar(item, several, columns - 1)

        ended = [t for t in transfers if t.state in ENDED and t.id not in self._ended]
        self._ended.update(item.id for item in ended)
        live = [item for item in transfers if item.state not in ENDED]
        room = max(1, rows - 1)
        if len(live) > room:  # those that move come first, the rest is a number
            live.sort(key=lambda item: item.state != "active")
        shown = live if len(live) <= room else live[: room - 1]
        bars = [bar(item) for item in shown]
        if len(shown) < len(live):
            bars.append(f"and {len(live) - len(shown):,} more")
        self._write(self._redrawn([bar(item) for item in ended], bars))

    def waits(self, transfers: Sequence[Transfer]) -> None:
        """Say what transfers wait for, where that is known, and once."""
        for item in transfers:
            reason = render.waiting_reason(item) if item.state in render.WAITING else ""
            if reason and self._told.get(item.id) != (reason, 0):
                self._told[item.id] = (reason, 0)
                line = render.note(f"{render.transfer_what(item)} waits: {reason}")
                self._write(f"{styled(line, self._colour)}\n")

    def _redrawn(self, texts: list[str], live: list[str]) -> str:
        """What to write so that `texts` stand above the bars, which are `live` from now on."""
        up = f"\x1b[{len(self._live)}F\x1b[J" if self._live else ""
        self._live = live
        return up + "".join(f"{text}\n" for text in (*texts, *live))

    def _tell(self, transfers: Sequence[Transfer]) -> None:
        several = _to_several(transfers)
        for item in transfers:
            step = render.transfer_percent(item) // _PLAIN_STEP_PERCENT
            if item.counting:  # what is done is no part of what is not known yet
                step = -1
            state = render.waiting_words(item) if item.state in render.WAITING else item.state
            if self._told.get(item.id) != (state, step):
                self._told[item.id] = (state, step)
                self._write(f"{transfer_bar(item, several)}\n")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:
            raise  # whoever read has had enough
        except OSError as error:
            silence_output()
            raise OutputLost(f"standard output cannot be written: {error.strerror}") from error


class Count:
    """How much has been read so far, on one line of a terminal."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._name = figures.fitted(visible(name), 40)
        self._next = 0.0

    def show(self, size: int) -> None:
        """So many bytes by now; shown a few times a second."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + COUNT_S
            self._write(f"\r\x1b[K{self._name}  {figures.size(size)} read")

    def end(self) -> None:
        """Clear the line."""
        self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)
            self._stream.flush()


def _to_several(transfers: Sequence[Transfer]) -> bool:
    return len({(item.direction, item.contact) for item in transfers}) > 1


def complain(program: str, message: str, hint: str = "") -> None:
    """The one line on standard error that says why, and what to do."""
    text = f"{message}; {hint}" if hint else message
    sys.stderr.write(f"{program}: {visible(text)}\n")
