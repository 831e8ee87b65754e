"""The screen above the prompt: lines in order, many at once, never in the way of typing.

What holds always: lines appear in the order in which they were shown to `show`, and what is to
happen after they are on the screen (remembering the cursor) happens after.

Why not prompt_toolkit's own run_in_terminal: it is made for programs that read, too, so it gives
the terminal its echo back meanwhile, and keys that are hit while a message is printed leave marks
on the screen.  Nothing here reads, so the terminal stays as it is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from prompt_toolkit.application import get_app_or_none, get_app_session
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.renderer import print_formatted_text
from prompt_toolkit.styles import Style

from .render import Line

BATCH_LINES: Final = 400  # printed in one go; then keys have their turn
BACKLOG_LINES_MAX: Final = 4_000  # beyond it no more events are read

STYLE: Final = Style.from_dict(
    {
        "dim": "ansibrightblack",
        "name": "bold ansicyan",
        "own": "bold",
        "good": "ansigreen",
        "bad": "bold ansired",
        "note": "ansicyan",
        "elsewhere": "bold ansiyellow",
        "question": "bold ansiyellow",
        "prompt.name": "bold ansicyan",
        "prompt.own": "bold",
        "bottom-toolbar": "noreverse bg:ansibrightblack ansiwhite",
        "toolbar.own": "bold",
        "toolbar.rule": "ansiblack",
        "toolbar.good": "ansibrightgreen",
        "toolbar.bad": "bold ansibrightred",
        "toolbar.note": "ansibrightyellow",
        "toolbar.faint": "ansiwhite",
    }
)


class Screen:
    """Prints above the prompt."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Line, Callable[[], None] | None]] = deque()
        self._wake = asyncio.Event()
        self._printed = asyncio.Event()
        self._printed.set()
        self.room: asyncio.Event | None = None  # cleared while there is too much to print

    def show(self, lines: Sequence[Line], then: Callable[[], None] | None = None) -> None:
        """Print lines when it is their turn; call `then` once they are on the screen."""
        self._waiting.extend((line, None) for line in lines)
        if then is not None:
            self._waiting.append(([], then))
        if self._waiting:
            self._printed.clear()
            self._wake.set()
        if self.room is not None and len(self._waiting) > BACKLOG_LINES_MAX:
            self.room.clear()

    async def run(self) -> None:
        """Print for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                self._print_some()
                await asyncio.sleep(0)
            self._printed.set()

    def _print_some(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(BATCH_LINES, len(self._waiting)))]
        lines = [line for line, _ in batch if line]
        if lines:
            print_above(lines)
        for _, then in batch:
            if then is not None:
                then()
        if self.room is not None:
            self.room.set()

    async def flush(self) -> None:
        """Wait until all is printed."""
        await self._printed.wait()


def print_above(lines: list[Line]) -> None:
    """Print lines above the prompt, or where the cursor is while there is none."""
    app = get_app_or_none()
    app = app if app is not None and app.is_running else None
    if app is not None:
        app.renderer.erase()
    fragments = [fragment for line in lines for fragment in (*line, ("", "\n"))]
    # Not the function of this name in prompt_toolkit.shortcuts, which would wait for a turn.
    print_formatted_text(get_app_session().output, FormattedText(fragments), STYLE)
    if app is not None and not app.is_done:
        if not app.key_processor.input_queue:
            app.renderer.request_absolute_cursor_position()
        app.renderer.render(app, app.layout)
