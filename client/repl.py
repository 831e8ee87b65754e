"""`tnt-repl`: talk and pass files from a terminal, and come and go while the daemon goes on.

What holds always: typing is never in the way of what arrives, nor the other way round: messages
appear above the prompt, and a typed line is handed on at once (repl_outgoing.py) or run as a
command (repl_commands.py) while the next one is typed.  Nothing polls: prompt and toolbar are
redrawn when something has changed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from prompt_toolkit import PromptSession
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.key_binding import ConditionalKeyBindings
from prompt_toolkit.patch_stdout import patch_stdout

from tntd import __version__
from tntd.control import streams
from tntd.control.places import Endpoint
from tntd.control.visible import visible
from tntd.errors import CommandError

from . import render
from .discover import SeveralDaemons, find_daemon, wanted_name
from .failures import DONE, INTERRUPTED, REFUSED, USAGE, ClientFailure, Refused
from .repl_commands import Commands
from .repl_complete import ReplCompleter
from .repl_desk import Desk
from .repl_feed import Feed
from .repl_keys import Pasting, key_bindings
from .repl_lines import Explain, Run, Say, parse
from .repl_link import PROGRAM, Link
from .repl_memory import PlaceKeeper, open_history
from .repl_model import Model
from .repl_outgoing import Outgoing
from .repl_screen import STYLE, Screen
from .repl_texts import Texts
from .steps import typed_path
from .terminal import complain
from .verbs_talk import is_too_long, whole_text

MENU_LINES: Final = 6
REDRAW_INTERVAL_S: Final = 0.05  # a file tells of its progress ten times a second
FLUSH_TIMEOUT_S: Final = 3.0
PRINT_TIMEOUT_S: Final = 10.0


class Repl:
    """One run of the program, attached to one daemon."""

    def __init__(self, endpoint: Endpoint) -> None:
        model = Model(endpoint.name)
        screen = Screen()
        today = datetime.now().astimezone().strftime("%Y-%m-%d")
        keeper = PlaceKeeper(endpoint.name, lambda text: screen.show([render.trouble(text)]))
        texts = Texts(endpoint.name)
        self._desk = Desk(model, Feed(model, today), screen, keeper, texts, self._redraw)
        self._link = Link(self._desk, endpoint)
        self._outgoing = Outgoing(self._desk, self._link)
        self._commands = Commands(self._desk, self._link, self)
        self._answer: asyncio.Future[bool | None] | None = None
        self._leaving = False
        self._failure: BaseException | None = None
        self._session = self._make_session(endpoint.name)

    def _make_session(self, name: str) -> PromptSession[str]:
        desk = self._desk
        bindings = key_bindings(
            Pasting(), self._take, self._is_no_answer, self._wave_away, self._taken_as_text
        )
        session: PromptSession[str] = PromptSession(
            lambda: FormattedText(desk.model.prompt()),
            style=STYLE,
            history=open_history(name),
            completer=ReplCompleter(desk.model),
            complete_while_typing=Condition(self._is_command),
            reserve_space_for_menu=MENU_LINES,
            key_bindings=ConditionalKeyBindings(bindings, has_focus(DEFAULT_BUFFER)),
            bottom_toolbar=lambda: FormattedText(desk.model.toolbar()),
            prompt_continuation=lambda width, _number, _wraps: " " * width,
            erase_when_done=True,
            enable_suspend=True,
        )
        session.app.min_redraw_interval = REDRAW_INTERVAL_S
        if hasattr(signal, "SIGWINCH"):  # the system tells of a new size: no need to look for it
            session.app.terminal_size_polling_interval = None
        return session

    def _is_command(self) -> bool:
        text = self._session.default_buffer.text
        return text.startswith("/") and not text.startswith("//")

    # -- what others ask of the prompt ------------------------------------------------

    def _redraw(self) -> None:
        self._session.app.invalidate()

    def is_typing(self) -> bool:
        """Whether there is text in the input line."""
        return bool(self._session.default_buffer.text)

    def leave(self) -> None:
        """End the REPL."""
        self._leaving = True
        app = self._session.app
        if app.is_running and not app.is_done:
            app.exit(exception=EOFError)

    async def ask(self, question: str) -> bool | None:
        """The next line answers the question."""
        if self._answer is not None:
            raise Refused("another question waits for its answer")
        self._answer = asyncio.get_running_loop().create_future()
        self._desk.model.question = question
        self._redraw()
        try:
            return await self._answer
        finally:
            self._answer, self._desk.model.question = None, None
            self._redraw()

    def _is_no_answer(self) -> bool:
        return self._answer is None

    def _wave_away(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(False)

    def _taken_as_text(self) -> None:
        text = "taken as text, because it was pasted; typed, it is a command"
        self._desk.screen.show([render.note(text)])

    # -- running ----------------------------------------------------------------------

    async def run(self) -> int:
        """The program from attaching to detaching; its exit code.

        Raises ClientFailure or CommandError where there is nothing to attach to.
        """
        await self._link.open()
        work = (self._desk.screen.run(), self._link.run(), self._outgoing.run())
        tasks = [asyncio.create_task(each) for each in work]
        for task in tasks:
            task.add_done_callback(self._task_ended)
        self._catch_signals()
        with patch_stdout():
            await self._desk.screen.flush()
            await self._read_lines()
            await self._end()
        self._commands.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._link.close()
        if self._failure is not None:
            raise self._failure
        return DONE

    async def _read_lines(self) -> None:
        # One prompt for all lines: each is taken by the key that ends it (repl_keys.py).
        while not self._leaving:
            with suppress(KeyboardInterrupt):
                try:
                    await self._session.prompt_async()
                except EOFError:
                    return

    def _take(self, line: str) -> None:
        if self._answer is not None:
            self._desk.screen.show([self._echo(line)])
            if not self._answer.done():
                self._answer.set_result(line.strip().lower() in ("y", "yes"))
            return
        action = parse(line, exists)
        if isinstance(action, Say):
            self._say(action.text)
        elif isinstance(action, Run):
            self._commands.start(action, self._echo(line))
        elif isinstance(action, Explain):
            trouble = render.trouble(action.text, action.hint)
            self._desk.screen.show([self._echo(line), trouble])

    def _echo(self, line: str) -> render.Line:
        prompt = render.plain(self._desk.model.prompt())
        return [(render.DIM, prompt + visible(line))]

    def _say(self, text: str) -> None:
        contact = self._desk.model.contact()
        try:
            if contact is None:
                what = render.nobody(self._desk.model.first_asking())
                raise Refused(f"there is nobody to talk to yet; first: {what}")
            text = whole_text(text)
        except Refused as error:
            self._desk.screen.show([render.trouble(error.message)])
            return
        if is_too_long(text):
            self._commands.send_as_file(contact.id, text)
        else:
            self._outgoing.put(contact.id, contact.name, text)

    async def _end(self) -> None:
        self._desk.keeper.save()  # now, for printing may not work any more
        self._wave_away()
        if self._link.attached.is_set():
            await self._commands.finish(FLUSH_TIMEOUT_S)
        unsent = await self._outgoing.flush(FLUSH_TIMEOUT_S if self._link.attached.is_set() else 0)
        show = self._desk.screen.show
        show([render.trouble(f"not handed over, and lost: {text}") for text in unsent])
        if self._link.attached.is_set():
            text = f"{self._link.name}'s daemon stays; tnt-repl comes back to it, tnt stop stops it"
            show([render.note(text)])
        with suppress(TimeoutError):  # the terminal may be gone
            async with asyncio.timeout(PRINT_TIMEOUT_S):
                await self._desk.screen.flush()
        self._desk.keeper.save()

    def _task_ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._failure = task.exception()
            self.leave()

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None:
                with suppress(NotImplementedError):  # Windows
                    loop.add_signal_handler(number, self.leave)


def exists(path: str) -> bool:
    """Whether a typed path is there."""
    try:
        return os.path.lexists(typed_path(path))
    except (OSError, RuntimeError, ValueError):
        return False


def choose(several: SeveralDaemons) -> Endpoint:
    """Ask which of the running daemons.  Raises SeveralDaemons where there is no answer."""
    for number, endpoint in enumerate(several.endpoints, 1):
        print(f"  {number}  {visible(endpoint.name)}")
    while True:
        try:
            answer = input("attach to which? ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            raise several from None
        for number, endpoint in enumerate(several.endpoints, 1):
            if answer in (str(number), endpoint.name):
                return endpoint


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    streams.settle()
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Talk and pass files through a running daemon."
    )
    parser.add_argument("--name", help="which daemon, where several run (or TNT_NAME)")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    arguments = parser.parse_args(argv)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        complain(PROGRAM, "this is for a terminal; in a script use: tnt", "see tnt --help")
        return USAGE
    if os.environ.get("TERM") == "dumb":
        complain(PROGRAM, "this terminal cannot move its cursor (TERM is dumb)", "use: tnt")
        return USAGE
    try:
        try:
            endpoint = find_daemon(wanted_name(arguments.name), PROGRAM)
        except SeveralDaemons as several:
            endpoint = choose(several)
        return asyncio.run(_run(endpoint))
    except CommandError as error:
        complain(PROGRAM, error.message, error.hint)
        return REFUSED
    except ClientFailure as failure:
        complain(PROGRAM, failure.message)
        return failure.exit_code
    except OSError as error:
        complain(PROGRAM, f"the terminal cannot be used any more: {error.strerror}")
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED


async def _run(endpoint: Endpoint) -> int:
    return await Repl(endpoint).run()


if __name__ == "__main__":
    sys.exit(main())
