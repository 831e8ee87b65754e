"""Running commands in the REPL: each step is awaited while the user types on.

What holds always: what a command changes in the client itself (`/to`) is done before the next line
is read, so a line never goes to the conversation before; and a failure is one line on the screen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, Final, Protocol

import msgspec

from tntd.control.schema import Contact, MessageList
from tntd.errors import CommandError

from . import render, repl_help, steps
from .arguments import repl_arguments
from .failures import ClientFailure, Refused
from .render import Line
from .repl_desk import Desk
from .repl_lines import AS_TEXT_HINT, Run
from .repl_link import Link
from .verbs import refusal
from .verbs_talk import send_as_file

LOOK_BACK_MIN: Final = 3  # messages shown on /to
LOOK_BACK_MAX: Final = 200
STOP_TIMEOUT_S: Final = 30.0
_LONG: Final = ("connect", "stop")  # nothing else waits for them
_LOCAL: Final = (steps.Show, steps.Bars, steps.Switch, steps.Help, steps.Leave)


class Prompt(Protocol):
    """What of the prompt is needed here."""

    def is_typing(self) -> bool:
        """Whether there is text in the input line."""

    def leave(self) -> None:
        """End the REPL."""

    async def ask(self, question: str) -> bool | None:
        """The answer to a yes-or-no question; None where it was waved away."""


class Commands:
    """Starts commands and keeps those under way."""

    def __init__(self, desk: Desk, link: Link, prompt: Prompt) -> None:
        self._desk = desk
        self._link = link
        self._prompt = prompt
        self._tasks: set[asyncio.Task[None]] = set()
        self._dialling: set[asyncio.Task[None]] = set()
        self._latest: asyncio.Task[None] | None = None

    def start(self, action: Run, echo: Line) -> None:
        """Run a command; what needs no waiting is done on return.  `echo` is the typed line."""
        hint = AS_TEXT_HINT if action.bare else ""
        try:
            current = self._desk.model.current or ""
            arguments = repl_arguments(action.verb, action.words, current)
            assert action.verb.run is not None
            script = action.verb.run(arguments)
            step = next(script)
        except (ClientFailure, CommandError) as error:
            self._desk.screen.show([echo])
            self._tell(error, hint)
            return
        if isinstance(step, _LOCAL):
            self._desk.screen.show([echo])
            try:
                while isinstance(step, _LOCAL):
                    self._do(step)
                    step = next(script)
            except StopIteration:
                return
            except (ClientFailure, CommandError) as error:
                self._tell(error, hint)
                return
            echo = []
        label = " ".join([action.verb.name, *(word[:40] for word in action.words)])
        work = self._await(script, step, label, hint)
        if action.verb.name in _LONG:
            self._desk.screen.show([echo])
            task = self._go(work)
            if action.verb.name == "connect":
                self._dialling.add(task)
                task.add_done_callback(self._dialling.discard)
        else:
            self._latest = self._go(self._in_turn(self._latest, echo, work))

    def send_as_file(self, who: str, text: str) -> None:
        """Ask whether a text that is too long shall go as a file."""
        script = send_as_file(who, text)
        work = self._await(script, next(script), "send", "")
        self._latest = self._go(self._in_turn(self._latest, [], work))

    async def finish(self, timeout: float) -> None:
        """Let what is under way come to its end, `timeout` seconds at most; but a connect may
        take long, and says itself when it is done."""
        tasks = self._tasks - self._dialling
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)

    async def _in_turn(
        self, before: asyncio.Task[None] | None, echo: Line, work: Awaitable[None]
    ) -> None:
        """Quick commands run one after the other, so that each answer stands below its line."""
        if before is not None:
            await asyncio.wait({before})
        self._desk.screen.show([echo])
        await work

    def _go(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _await(
        self, script: steps.Script[None], step: steps.Step, label: str, hint: str
    ) -> None:
        model = self._desk.model
        model.busy.append(label)
        try:
            while True:
                try:
                    answer = await self._wait_for(step)
                except (ClientFailure, CommandError) as error:
                    step = script.throw(error)
                else:
                    step = script.send(answer)
        except StopIteration:
            self._link.refresh()
        except (ClientFailure, CommandError) as error:
            self._tell(error, hint)
        finally:
            model.busy.remove(label)
            self._desk.redraw()

    def _tell(self, error: ClientFailure | CommandError, hint: str) -> None:
        if not error.message:
            return  # all of it was told before
        message, own = error.message, ""
        if isinstance(error, CommandError):
            message, own = refusal(error, "/")
        self._desk.screen.show([render.trouble(message, "; ".join(filter(None, (own, hint))))])

    # -- steps ------------------------------------------------------------------------

    def _do(self, step: steps.Step) -> None:
        """A step that needs no waiting.  Raises CommandError."""
        match step:
            case steps.Show(_, lines):
                self._desk.screen.show(lines)
            case steps.Complain(error):
                self._tell(error, "")
            case steps.DropText(path):
                self._desk.texts.drop(path)
            case steps.Help(verb):
                self._desk.screen.show(repl_help.lines(verb))
            case steps.Switch(contact, gentle):
                self._switch(contact, gentle)
            case steps.Leave():
                self._prompt.leave()
            case _:
                pass  # bars: the toolbar shows them

    async def _wait_for(self, step: steps.Step) -> Any:
        match step:
            case steps.Call(method, params):
                return await self._call(method, params)
            case steps.Ask(question):
                return await self._prompt.ask(question)
            case steps.KeepText(text):
                return self._desk.texts.keep(text)
            case steps.AwaitEnd():
                return await self._link.wait_end(STOP_TIMEOUT_S)
            case steps.ReadInput():
                raise Refused("- reads standard input only in tnt; type the text itself here")
            case steps.NextEvent():
                raise Refused("waiting is for tnt; here events come by themselves")
            case _:
                self._do(step)
                return None

    async def _call(self, method: str, params: dict[str, Any]) -> Any:
        if method != "daemon.shutdown":
            return await self._link.call(method, params)
        self._link.stopping = True
        try:
            return await self._link.call(method, params)
        except BaseException:
            self._link.stopping = False
            raise

    # -- conversations ----------------------------------------------------------------

    def _switch(self, wanted: Contact | str, gentle: bool) -> None:
        desk = self._desk
        contact = desk.model.find(wanted) if isinstance(wanted, str) else wanted
        desk.model.set_contact(contact)
        if not isinstance(wanted, str):
            desk.feed.know([contact], just_met=True)
        if contact.trust == "blocked":
            raise Refused(f"{contact.name} is blocked; first: /unblock {contact.name}")
        if contact.id == desk.model.current:
            return
        if gentle and desk.model.current is not None and self._prompt.is_typing():
            return  # a line that is being written must not change its addressee
        desk.talk_to(contact.id)
        desk.redraw()
        if not gentle:
            self._go(self._look_back(contact))

    async def _look_back(self, contact: Contact) -> None:
        limit = max(LOOK_BACK_MIN, min(contact.unread, LOOK_BACK_MAX))
        try:
            params = {"conversation": contact.id, "limit": limit}
            answer = await self._link.call("messages.list", params)
        except (ClientFailure, CommandError) as error:
            self._tell(error, "")
            return
        messages = msgspec.convert(answer, MessageList).messages
        title = render.separator(contact.name)
        self._desk.screen.show([title, *self._desk.feed.recall(messages)])
        self._link.mark_read()

    def stop(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()
