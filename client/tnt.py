"""`tnt`: one command to the daemon, for scripts and for the impatient.

What holds always: the exit code says how it went (failures.py), standard error holds one line that
says why it did not, and no user ever sees a traceback for something that can happen.  A command
is a generator (steps.py); here each of its steps blocks.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from tntd.control import streams
from tntd.control.schema import Transfer
from tntd.control.visible import visible
from tntd.errors import Code, CommandError

from . import feed, pipes, steps
from .arguments import tnt_parser
from .connection import CALL_TIMEOUT_S, Connection, unanswered
from .discover import PROBE_LEAST_S, find_daemon, wanted_name
from .failures import (
    DONE,
    INTERRUPTED,
    REFUSED,
    ClientFailure,
    NoDaemon,
    NotAnswering,
    Refused,
    TimedOut,
)
from .terminal import Count, Output, complain, drives_well
from .verbs import VERBS, refusal

PROGRAM: Final = "tnt"
STOP_TIMEOUT_S: Final = 30.0
RETURN_TIMEOUT_S: Final = 60.0  # for a daemon that is started again; it waits for us as long
RETRY_S: Final = 0.25
_PIPE_CLOSED: Final = 141  # 128 + SIGPIPE, as shells say it
# What a command may have to tidy up after.
_TOLD: Final = (ClientFailure, CommandError, KeyboardInterrupt, SystemExit, BrokenPipeError)


Attach = Callable[[float | None], Connection]


class Runner:
    """Runs a command's steps against a connection, until `timeout` seconds are over; a pipe that is
    sent takes its time, and they begin anew at its end.  `attach`, which takes the time when they
    are over, makes a connection, also in place of one that is lost."""

    def __init__(self, attach: Attach, output: Output, timeout: float | None) -> None:
        self._attach = attach
        self._timeout = timeout
        self._start_clock()
        self._connection = attach(self._deadline)
        self._cursor = self._connection.welcome.cursor
        self._lost = False
        self._output = output
        self._aside: Output | None = None

    def run(self, script: steps.Script[None]) -> None:
        """Run it to its end.  Raises ClientFailure and CommandError."""
        try:
            step = next(script)
            while True:
                try:
                    answer = self._perform(step)
                except _TOLD as error:
                    step = script.throw(error)
                else:
                    step = script.send(answer)
        except StopIteration:
            return

    def _start_clock(self) -> None:
        self._deadline = None if self._timeout is None else time.monotonic() + self._timeout

    def _left(self, most: float) -> float:
        if self._deadline is None:
            return most
        return max(0.0, min(most, self._deadline - time.monotonic()))

    def _perform(self, step: steps.Step) -> Any:
        match step:
            case steps.Call(method, params):
                return self._call(method, params)
            case steps.NextEvent():
                left = None if self._deadline is None else self._left(1e9)
                return self._connection.next_event(left)
            case steps.Show(objects, lines):
                self._output.show(objects, lines)
            case steps.Complain(error):
                complain(PROGRAM, *refusal(error, "tnt "))
            case steps.Bars(transfers, aside):
                self._bars(transfers, aside)
            case steps.Ask(question):
                return ask(question)
            case steps.ReadInput():
                return read_input()
            case steps.Attached():
                return self._cursor
            case steps.AwaitEnd():
                return self._connection.wait_closed(self._left(STOP_TIMEOUT_S))
            case _:
                return self._pipe(step)
        return None

    def _pipe(self, step: steps.Step) -> Any:
        match step:
            case steps.SpoolFile(name):
                feed.input_descriptor()  # before anybody hears of it
                return pipes.spool_file(self._connection.endpoint.spool, name)
            case steps.FeedInput(path, transfers):
                return self._feed(Path(path), transfers)
            case steps.MakeLanding(output):
                return pipes.make_landing(self._connection.endpoint.spool, output)
            case steps.Deliver(transfer, output):
                pipes.deliver(transfer, output)
            case steps.DropFolder(folder):
                pipes.drop_folder(folder)
            case _:
                pass  # what changes a REPL changes nothing here
        return None

    def _bars(self, transfers: Sequence[Transfer], aside: bool) -> None:
        if not aside:
            self._output.bars(transfers)
            return
        self._aside = self._aside or Output(sys.stderr, as_json=False)
        if drives_well(sys.stderr):
            self._aside.bars(transfers)
        else:
            self._aside.waits(transfers)

    def _feed(self, path: Path, transfers: tuple[str, ...]) -> Any:
        try:
            return self._feed_shown(path, transfers)
        finally:
            self._start_clock()

    def _feed_shown(self, path: Path, transfers: tuple[str, ...]) -> Any:
        def tell(size: int, end: bool) -> Any:
            params = {"transfers": transfers, "bytes": size, "end": end}
            return self._call_for_sure("transfers.grown", params)

        if not drives_well(sys.stderr) or (sys.stdin and sys.stdin.isatty()):
            return feed.feed(path, tell, lambda _size: None)
        count = Count(sys.stderr, path.name)
        try:
            return feed.feed(path, tell, count.show)
        finally:
            count.end()

    def _call_for_sure(self, method: str, params: dict[str, Any]) -> Any:
        """A call that may be repeated, and is, while the daemon is started again or has no room."""
        give_up_at = time.monotonic() + RETURN_TIMEOUT_S
        while True:
            try:
                if self._lost:
                    self._connection = self._attach(None)
                    self._lost = False
                return self._connection.call(method, params)
            except TimedOut as error:
                raise unanswered(self._connection.endpoint) from error
            except (NoDaemon, NotAnswering, CommandError) as error:
                self._lost = self._lost or isinstance(error, NoDaemon)
                fatal = isinstance(error, CommandError) and error.code != Code.STORAGE
                if fatal or time.monotonic() >= give_up_at:
                    raise
            time.sleep(RETRY_S)

    def close(self) -> None:
        """Leave the daemon."""
        self._connection.close()

    def _call(self, method: str, params: dict[str, Any]) -> Any:
        left = self._left(CALL_TIMEOUT_S)
        try:
            return self._connection.call(method, params, left)
        except TimedOut as error:
            endpoint = self._connection.endpoint
            if left < CALL_TIMEOUT_S:
                raise TimedOut(
                    f"{endpoint.name}'s daemon has not answered within the time given; what was "
                    "asked of it may be done all the same"
                ) from error
            raise unanswered(endpoint) from error


def read_input() -> bytes:
    """Standard input to its end.  Raises Refused."""
    if streams.was_closed("stdin"):
        raise Refused("standard input is closed; nothing was sent")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise Refused(f"standard input cannot be read: {error.strerror}") from error


def ask(question: str) -> bool | None:
    """A yes-or-no question on the terminal; None where there is none."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None
    try:
        return input(f"{visible(question)} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return None


def run(arguments: argparse.Namespace) -> None:
    """Find the daemon and run the command.  Raises ClientFailure and CommandError."""
    verb = VERBS[arguments.verb]
    assert verb.run is not None
    arguments.current, arguments.prefix = "", "tnt "

    def attach(deadline: float | None) -> Connection:
        endpoint = find_daemon(wanted_name(arguments.name), PROGRAM, deadline)
        if deadline is None:
            return Connection.open(endpoint, PROGRAM)
        try:
            left = max(PROBE_LEAST_S, deadline - time.monotonic())
            return Connection.open(endpoint, PROGRAM, min(left, CALL_TIMEOUT_S))
        except NotAnswering as error:
            if time.monotonic() < deadline:
                raise
            raise TimedOut(error.message) from error

    runner = Runner(attach, Output(sys.stdout, arguments.json), arguments.timeout)
    try:
        runner.run(verb.run(arguments))
    finally:
        runner.close()


def end_by_signal(number: int, _frame: object) -> None:
    """SIGTERM and the like end a command as Ctrl-C does: what is half done is tidied up."""
    sys.exit(128 + number)


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    streams.settle()
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end_by_signal)
    arguments = tnt_parser().parse_args(argv)
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        if arguments.verb == "demo":
            from .demo import main as demo

            return demo(arguments)
        run(arguments)
    except CommandError as error:
        complain(PROGRAM, *refusal(error, "tnt "))
        return REFUSED
    except ClientFailure as failure:
        if failure.message:
            complain(PROGRAM, failure.message)
        return failure.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        streams.silence_output()
        return _PIPE_CLOSED
    return DONE


if __name__ == "__main__":
    sys.exit(main())
