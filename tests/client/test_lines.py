"""What typed lines mean, and how they are cut into words."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tnt_client.repl_lines import Explain, Nothing, Run, Say, as_text, parse
from tnt_client.words import ends_inside, quoted, split

SHELL = "is only for tnt in a shell"
HERE = f"{SHELL}; here, what changes is shown anyway"
THERE = {"--as", "a.txt", "my photo.jpg", "b c", "~/x"}


def act(line: str) -> tuple[str, object]:
    """The action, short: (kind, what)."""
    action = parse(line, THERE.__contains__)
    if isinstance(action, Run):
        return ("run " + action.verb.name, [word for word in action.words if word != "--"])
    if isinstance(action, Say):
        return ("say", action.text)
    return ("explain", action.text) if isinstance(action, Explain) else ("nothing", None)


@pytest.mark.parametrize(
    ("line", "kind", "what"),
    [
        ("", "nothing", None),
        ("  \t ", "nothing", None),
        ("hello", "say", "hello"),
        (" hello", "say", " hello"),
        ("//etc/hosts is a file", "say", "/etc/hosts is a file"),
        ("///x", "say", "//x"),
        # the habits of the first TalknTransfer
        ("exit", "run detach", []),
        ("exit  ", "run detach", []),
        (" exit", "say", "exit"),
        ("exit now", "say", "exit now"),
        ("Exit", "say", "Exit"),
        ("transfer a.txt", "run transfer", ["a.txt"]),
        ("transfer my photo.jpg", "run transfer", ["my photo.jpg"]),
        ('transfer "my photo.jpg" a.txt', "run transfer", ["my photo.jpg", "a.txt"]),
        (r"transfer my\ photo.jpg", "run transfer", ["my photo.jpg"]),
        ("transfer none.txt", "explain", "nothing was sent: there is no none.txt"),
        ("transfer a.txt none", "explain", "nothing was sent: there is no none"),
        (" transfer none.txt", "say", "transfer none.txt"),
        ("transfer", "say", "transfer"),
        ("transfers are fun", "say", "transfers are fun"),
        ("connect 6000", "run connect", ["6000"]),
        ("connect host:6000", "run connect", ["host:6000"]),
        ("connect [::1]:6000", "run connect", ["[::1]:6000"]),
        (" connect 6000", "say", "connect 6000"),
        ("connect the dots", "say", "connect the dots"),
        ("connect 600000", "say", "connect 600000"),
        # commands
        ("/connect 6000", "run connect", ["6000"]),
        ("/connect --new 6000", "run connect", ["--new", "6000"]),
        ("/contacts", "run contacts", []),
        ("/to  bob ", "run to", ["bob"]),
        ("/msg bob it's  fine", "run msg", ["bob", "it's  fine"]),
        ("/msg bob --wait is text", "run msg", ["bob", "--wait is text"]),
        ("/msg bob two\nlines", "run msg", ["bob", "two\nlines"]),
        ("/send bob my photo.jpg", "run send", ["bob", "my photo.jpg"]),
        ("/send bob a.txt 'b c'", "run send", ["bob", "a.txt", "b c"]),
        ("/transfer missing", "run transfer", ["missing"]),
        ("/transfers get 5k", "run transfers", ["get", "5k"]),
        # options that only tnt has
        ("/transfers --watch", "explain", f"/transfers: --watch {HERE}"),
        ("/get 5k -o x", "explain", f"/get: -o {SHELL}"),
        ("/get 5k --output=x", "explain", f"/get: --output=x {SHELL}"),
        ("/send bob a.txt --wait", "explain", f"/send: --wait {HERE}"),
        ("/send --wait bob a.txt", "explain", f"/send: --wait {HERE}"),
        ("/transfer a.txt --json", "explain", f"/transfer: --json {SHELL}"),
        ("/send bob --as", "run send", ["bob", "--as"]),  # there is such a file
        ("/msg --wait bob hi", "explain", f"/msg: --wait {HERE}"),
        ("/status --json", "explain", f"/status: --json {SHELL}"),
        ("/exit", "run detach", []),
        ("/quit", "run detach", []),
        ("/?", "run help", []),
        ("/nonsense x", "explain", "no command /nonsense"),
        ("/", "explain", "no command /"),
        ("/demo", "explain", "no command /demo"),
        ("/etc/passwd", "explain", "no command /etc/passwd"),
    ],
)
def test_a_line(line: str, kind: str, what: object):
    assert act(line) == (kind, what)


def test_a_bare_word_that_cannot_be_done_says_how_to_send_it_as_text():
    action = parse("transfer none.txt", lambda _path: False)
    assert isinstance(action, Explain) and "blank before it" in action.hint
    action = parse("connect 1", lambda _path: False)
    assert isinstance(action, Run) and action.bare


@given(st.text(alphabet=st.sampled_from(" /\n\tabexit5:~transfconnect"), min_size=1) | st.text())
@example("transfer a.txt")
@example(" transfer a.txt")
@example("/stop")
@example("//stop")
@example("exit")
@example("  exit ")
@example("connect 6000")
def test_whatever_is_pasted_is_text(text: str):
    if text.strip():
        assert parse(as_text(text), lambda _path: True) == Say(text)
    else:
        assert parse(as_text(text), lambda _path: True) == Nothing()


@given(st.text())
def test_no_line_breaks_the_parser(line: str):
    parse(line, lambda _path: False)
    parse("/" + line, lambda _path: True)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("a  b", [("a", 0), ("b", 3)]),
        (r"a\ b c", [("a b", 0), ("c", 5)]),
        ("'a b'c \"d 'e\"", [("a bc", 0), ("d 'e", 7)]),
        ('"open and on', [("open and on", 0)]),
        ("end\\", [("end\\", 0)]),
        ("'' x", [("", 0), ("x", 3)]),
    ],
)
def test_words(line: str, words: list[tuple[str, int]]):
    assert [(word.text, word.start) for word in split(line, backslash=True)] == words


def test_on_windows_a_backslash_is_part_of_the_path():
    assert [w.text for w in split(r"C:\my\file.txt", backslash=False)] == [r"C:\my\file.txt"]
    assert quoted(r"C:\my file.txt", windows=True) == r'"C:\my file.txt"'


@given(st.text(alphabet=st.characters(exclude_characters="\n"), min_size=1))
def test_a_quoted_word_is_read_back_as_one(word: str):
    assert [found.text for found in split(quoted(word, windows=False), backslash=True)] == [word]


@pytest.mark.parametrize(
    ("line", "inside"), [("a b", True), ("a ", False), ("", False), ("'a ", True)]
)
def test_whether_a_completion_goes_on_with_the_last_word(line: str, inside: bool):
    assert ends_inside(line) is inside
