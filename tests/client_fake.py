"""A daemon that is a table of answers, for whole commands of `tnt` without any process.

What holds always: what a command sends and what it is answered fit the control schema, so a test
cannot agree with a client on a protocol that there is none of.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec

from tnt_client.arguments import repl_arguments, tnt_parser
from tnt_client.failures import TimedOut
from tnt_client.terminal import Output
from tnt_client.tnt import Runner
from tnt_client.verbs import VERBS
from tntd.control.schema import METHODS, Welcome

Answer = Callable[[dict[str, Any]], Any]


class Screen(io.StringIO):
    """Standard output, a terminal or not."""

    def __init__(self, terminal: bool = False) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


class FakeDaemon:
    """`answers` has a function or a fixed result for each method; `events` come in order, and when
    there are no more of them the time is over."""

    def __init__(self, answers: dict[str, Any], events: list[dict[str, Any]] | None = None) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.welcome = Welcome(
            protocol=1, version="1", name="alice", id="x", peer_port=1, cursor="e.1"
        )
        self.endpoint = SimpleNamespace(spool=None)
        self._answers = answers
        self._events = list(events or [])

    def call(self, method: str, params: dict[str, Any], _timeout: float = 0) -> Any:
        msgspec.convert(params, METHODS[method].params)
        self.asked.append((method, params))
        if method == "events.subscribe":
            return {"cursor": "e.1"}
        answer = self._answers[method]
        result = answer(params) if callable(answer) else answer
        raw = msgspec.to_builtins(result)
        msgspec.convert(raw, METHODS[method].result)
        return raw

    def next_event(self, _timeout: float | None) -> dict[str, Any]:
        if not self._events:
            raise TimedOut("no event")
        return self._events.pop(0)

    def tnt(self, *words: str, terminal: bool = False, json: bool = False) -> str:
        """What `tnt WORDS` prints.  Raises ClientFailure and CommandError."""
        arguments = tnt_parser().parse_args([words[0], *(["--json"] if json else []), *words[1:]])
        arguments.current, arguments.prefix = "", "tnt "
        return self._run(arguments, words[0], Screen(terminal), json)

    def repl(self, *words: str, current: str = "") -> str:
        """What `/WORDS` shows in the REPL, where it needs no event and asks nothing."""
        arguments = repl_arguments(VERBS[words[0]], list(words[1:]), current)
        return self._run(arguments, words[0], Screen(), False)

    def _run(self, arguments: Any, verb: str, screen: Screen, json: bool) -> str:
        run = VERBS[verb].run
        assert run is not None
        self.screen = screen
        output = Output(screen, json)
        Runner(lambda _deadline: self, output, None).run(run(arguments))  # type: ignore[arg-type, return-value]
        return screen.getvalue()
