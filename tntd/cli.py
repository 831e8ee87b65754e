"""`tntd`'s command line: options, the way into the background, the ready line, exit codes.

What holds always: exit code 0 means that the daemon is (or, in the foreground, was) ready; 1
that it could not start, with the reason on standard error; 2 a wrong command line; 3 that this
profile has a daemon already.  In the background the same program runs again, in the foreground
of a process of its own (see launch.py), so there is one way to start and not two.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tntd import __version__, config, launch
from tntd.control import names, places, streams
from tntd.control.visible import visible
from tntd.errors import CommandError, StartError
from tntd.launch import Ready

_DESCRIPTION = """\
Start the TalknTransfer daemon of a profile.  It holds your identity, contacts, messages and
transfers, and goes on when you close the window.  Attach with: tnt-repl"""
_EPILOG = """\
Exit codes: 0 ready, 1 failed (the reason is on standard error), 2 wrong options, 3 already
running under that name.  TNT_HOME=FOLDER keeps all files of the program below one folder."""


def main(arguments: list[str] | None = None) -> int:
    """Run `tntd` with `arguments` (default: the command line's); the exit code."""
    streams.settle()
    _settle_home()
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.print_config:
        sys.stdout.write(config.print_config())
        return 0
    _check(parser, options)
    try:
        return _in_foreground(options) if options.foreground else _in_background(options)
    except StartError as error:
        print(f"tntd: {error.message}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # what no part has put into better words
        print(f"tntd: not started: {visible(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _settle_home() -> None:
    """Make TNT_HOME absolute, for the daemon changes its current folder."""
    home = os.environ.get("TNT_HOME")
    if home:
        os.environ["TNT_HOME"] = str(Path(home).absolute())


# -- options ------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tntd",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--name", help="the profile, and what others see (default: your login name)")
    add("--listen", metavar="HOST:PORT", action="append", help="listen there for peers; repeatable")
    add("--control", metavar="PLACE", help="for clients: unix:PATH or tcp:HOST:PORT (loopback)")
    add("--data-dir", metavar="FOLDER", type=_absolute, help="the identity and the database")
    add("--downloads", metavar="FOLDER", type=_absolute, help="where files arrive")
    add("--config", metavar="FILE", type=_absolute, help="settings; see --print-config")
    add("--foreground", action="store_true", help="stay in the foreground")
    add("--json", action="store_true", help="print the ready line as a JSON object")
    add("--log-level", choices=config.LOG_LEVELS, help="default: info")
    add("--print-config", action="store_true", help="print every setting and its default")
    add("--version", action="version", version=f"tntd {__version__}")
    add("--detached", action="store_true", help=argparse.SUPPRESS)
    return parser


def _absolute(text: str) -> Path:
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError("not a path")
    return Path(text).absolute()


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exit with 2 where an option is wrong; complete the others."""
    try:
        options.name = names.check_name(_login_name() if options.name is None else options.name)
    except CommandError as error:
        parser.error(f"{error.message}; {error.hint}")
    if options.control is not None and options.control.startswith("unix:"):
        options.control = f"unix:{Path(options.control.removeprefix('unix:')).absolute()}"
    for key, value in _settings(options).items():
        try:
            config.check_option(key, value)
        except ValueError as error:
            parser.error(str(error))


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, ImportError, OSError):  # a user id without a name
        return ""


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that the command line gives."""
    given = {
        "listen": options.listen,
        "control": options.control,
        "downloads": None if options.downloads is None else str(options.downloads),
        "log_level": options.log_level,
    }
    return {key: value for key, value in given.items() if value is not None}


# -- two ways to run ----------------------------------------------------------------------


def _in_background(options: argparse.Namespace) -> int:
    outcome = launch.start(_repeat(options))
    sys.stderr.write(outcome.errors)
    if outcome.ready is not None:
        try:
            _print_ready(outcome.ready, options.json)
        except OSError as error:  # it is ready none the less, and the exit code says so
            streams.silence_output()
            text = f"{outcome.ready.name} is running, but that cannot be printed: {error.strerror}"
            print(f"tntd: {text}", file=sys.stderr)
    return outcome.exit_code


def _repeat(options: argparse.Namespace) -> list[str]:
    """The options for the process in the background."""
    arguments = ["--json", "--name", options.name]
    for address in options.listen or []:
        arguments += ["--listen", address]
    for flag in ("control", "data_dir", "downloads", "config", "log_level"):
        value = getattr(options, flag)
        if value is not None:
            arguments += [f"--{flag.replace('_', '-')}", str(value)]
    return arguments


def _in_foreground(options: argparse.Namespace) -> int:
    from tntd import daemon

    settings = config.load(options.config, _settings(options))
    folder = options.data_dir or places.data_dir(options.name)
    daemon.run(options.name, folder, settings, _announcer(options))
    return 0


def _announcer(options: argparse.Namespace) -> Callable[[Ready, list[str]], None]:
    """What the daemon calls once it is ready, with notes for its user."""

    def announce(ready: Ready, notes: list[str]) -> None:
        for note in notes:
            print(f"tntd: {note}", file=sys.stderr, flush=True)
        _print_ready(ready, options.json)
        if options.detached:
            launch.detach()

    return announce


def _print_ready(ready: Ready, as_json: bool) -> None:
    if as_json:
        text = msgspec.json.encode(ready).decode()
    else:
        place = ready.control.removeprefix("unix:")
        text = (
            f"{ready.name} is running.  Peer port {ready.peer_port}, control {visible(place)}\n"
            f"id  {ready.id[:5]}-...          attach with: tnt-repl"
        )
    print(text, flush=True)
