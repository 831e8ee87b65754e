"""The table of verbs: what is in it works, is explained, and is the same everywhere."""

from __future__ import annotations

import inspect
import re

import pytest

from tnt_client import repl_help
from tnt_client.arguments import repl_arguments, tnt_parser
from tnt_client.failures import UsageFailure
from tnt_client.render import plain
from tnt_client.verbs import VERBS, Kind, Verb, Where, hint_as_typed, usage, verbs_of

ALL = list(VERBS.values())


@pytest.mark.parametrize("verb", ALL, ids=lambda verb: verb.name)
def test_every_verb_is_explained(verb: Verb):
    assert verb.help
    assert all(argument.help for argument in verb.arguments)
    assert all(option.help for option in verb.options)
    assert (verb.run is None) == (verb.name == "demo")
    if verb.run is not None:
        assert inspect.isgeneratorfunction(verb.run) and verb.run.__doc__


def help_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        tnt_parser().parse_args(arguments)
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_tnt_lists_every_verb(capsys: pytest.CaptureFixture[str]):
    shown = help_of(["--help"], capsys)
    for verb in ALL:
        assert bool(verb.where & Where.TNT) == bool(
            re.search(rf"^    {verb.name}\b", shown, re.MULTILINE)
        )


@pytest.mark.parametrize("verb", verbs_of(Where.TNT), ids=lambda verb: verb.name)
def test_tnt_explains_every_verb(verb: Verb, capsys: pytest.CaptureFixture[str]):
    shown = help_of([verb.name, "--help"], capsys)
    for word in ("--json", "--timeout", "--name", *(f"--{o.name}" for o in verb.options)):
        assert word in shown
    for argument in verb.arguments:
        assert argument.help.split()[0] in shown


def test_the_repl_lists_and_explains_every_verb():
    shown = "\n".join(plain(line) for line in repl_help.lines(None))
    for verb in ALL:
        assert bool(verb.where & Where.REPL) == (f"/{verb.name} " in shown)
        detail = "\n".join(plain(line) for line in repl_help.lines(verb.name))
        if verb.where & Where.REPL:
            assert detail.startswith(f"/{usage(verb, Where.REPL)}\n")
        else:
            assert "no command" in detail


def sample(verb: Verb) -> list[str]:
    values = {Kind.CHOICE: "get", Kind.PATH: "a.txt"}
    return [values.get(argument.kind, "x") for argument in verb.arguments]


@pytest.mark.parametrize("verb", verbs_of(Where.TNT), ids=lambda verb: verb.name)
def test_a_typed_verb_is_understood_by_tnt(verb: Verb):
    typed = [verb.name, "--json", "--timeout", "5", "--name", "alice", *sample(verb)]
    parsed = tnt_parser().parse_args(typed)
    assert (parsed.verb, parsed.json, parsed.timeout, parsed.name) == (verb.name, True, 5, "alice")
    parsed = tnt_parser().parse_args(["--name", "bob", verb.name, *sample(verb)])
    assert (parsed.name, parsed.json, parsed.timeout) == ("bob", False, None)


@pytest.mark.parametrize("verb", verbs_of(Where.REPL), ids=lambda verb: verb.name)
def test_a_typed_verb_is_understood_by_the_repl(verb: Verb):
    parsed = repl_arguments(verb, sample(verb), "me")
    assert (parsed.prefix, parsed.json, parsed.current) == ("/", False, "me")
    for option in verb.options:
        assert hasattr(parsed, option.name)


def test_the_current_conversation_stands_in_where_it_may():
    assert repl_arguments(VERBS["history"], [], "bob").who == "bob"
    assert repl_arguments(VERBS["history"], ["carol"], "bob").who == "carol"
    with pytest.raises(UsageFailure, match="no conversation"):
        repl_arguments(VERBS["verify"], [], "")
    with pytest.raises(UsageFailure, match="/accept WHO"):
        repl_arguments(VERBS["accept"], [], "bob")


@pytest.mark.parametrize(
    "typed",
    [
        [],
        ["nonsense"],
        ["msg", "bob"],
        ["history", "bob", "--limit", "0"],
        ["history", "bob", "--limit", "1001"],
        ["msg", "--wait", "someday", "bob", "x"],
        ["transfers", "explode", "1"],
        ["status", "--timeout", "0"],
        ["status", "--timeout", "nan"],
        ["to", "bob"],
        ["history", "bob", "--lim", "3"],
    ],
)
def test_a_wrong_command_line_is_exit_code_2(typed: list[str]):
    with pytest.raises(SystemExit) as ended:
        tnt_parser().parse_args(typed)
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("hint", "typed"),
    [
        ("accept them first with: accept bob", "accept them first with: /accept bob"),
        ("first: unblock bob", "first: /unblock bob"),
        (
            "see who there is with: contacts; meet somebody with: connect ADDRESS",
            "see who there is with: /contacts; meet somebody with: /connect ADDRESS",
        ),
        ("start one with: tntd --name NAME", "start one with: tntd --name NAME"),
        ("with: sender", "with: sender"),
        ("", ""),
    ],
)
def test_hints_of_the_daemon_name_verbs_as_they_are_typed(hint: str, typed: str):
    assert hint_as_typed(hint, "/") == typed
    assert hint_as_typed(hint, "tnt ") == typed.replace("/", "tnt ")
