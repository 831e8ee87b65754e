"""Keys of the REPL that differ from prompt_toolkit's own, and what a pasted line becomes.

What holds always: a pasted line is text, whatever it looks like; before it is accepted it is turned
into the line that means exactly that text (repl_lines.as_text), and so it stands in the history
too.  A line counts as pasted while it still begins with the word that was pasted at its start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prompt_toolkit.buffer import Buffer
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys

from .repl_lines import as_text

_CONTROLS: Final = {code: None for code in range(32) if chr(code) not in "\n\t"}


class Pasting:
    """Whether the line being edited was pasted."""

    def __init__(self) -> None:
        self._word = ""

    def pasted(self, before: str, data: str) -> None:
        """`data` was pasted behind `before`."""
        if not before.strip():
            words = data.split(None, 1)
            self._word = words[0] if words else ""

    def accept(self, line: str) -> str:
        """The line to take instead of `line`; the next one is a new one."""
        word, self._word = self._word, ""
        return as_text(line) if word and line.lstrip().startswith(word) else line


def key_bindings(
    pasting: Pasting,
    accept: Callable[[str], None],
    remember: Callable[[], bool],
    clear: Callable[[], None],
    taken: Callable[[], None],
) -> KeyBindings:
    """The bindings.

    `accept` is called with each line, which goes into the history if `remember`; `clear` on
    Ctrl-C; `taken` before a pasted line is accepted that would have been a command.
    """
    bindings = KeyBindings()

    @bindings.add(Keys.BracketedPaste)
    def _paste(event: KeyPressEvent) -> None:
        data = event.data.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")
        buffer = event.current_buffer
        pasting.pasted(buffer.document.text_before_cursor, data)
        buffer.insert_text(data.translate(_CONTROLS))

    @bindings.add("enter")
    def _enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        line = pasting.accept(buffer.text)
        if line != buffer.text:
            _replace(buffer, line)
            taken()
        # The prompt goes on: between two prompts the terminal would echo what is typed.
        buffer.reset(append_to_history=remember())
        accept(line)

    @bindings.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @bindings.add("c-c")
    @bindings.add("<sigint>")
    def _interrupt(event: KeyPressEvent) -> None:
        pasting.accept("")
        event.app.current_buffer.reset()
        clear()

    return bindings


def _replace(buffer: Buffer, line: str) -> None:
    buffer.text = line
    buffer.cursor_position = len(line)
