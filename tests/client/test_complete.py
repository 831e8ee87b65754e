"""Completion: commands, contacts, options, transfers, paths."""

from __future__ import annotations

from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from client_samples import contact, transfer
from tnt_client.repl_complete import ReplCompleter
from tnt_client.repl_model import Model


@pytest.fixture
def completer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReplCompleter:
    for name in ("photo one.jpg", "photo2.jpg", ".hidden"):
        (tmp_path / name).write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    model = Model("alice")
    model.set_contacts(
        [
            contact(),
            contact(id="ccccc-1", name="Carol", trust="pending"),
            contact(id="d", name="bea"),
        ]
    )
    model.set_transfer(transfer())
    return ReplCompleter(model)


def complete(completer: ReplCompleter, line: str) -> list[str]:
    """The whole lines that completion leads to."""
    found = completer.get_completions(Document(line), CompleteEvent())
    return [line[: len(line) + item.start_position] + item.text for item in found]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/hi", ["/history "]),
        ("/acc", ["/accept "]),
        ("/sta", ["/status"]),
        ("/demo", []),
        ("/to b", ["/to bea", "/to bob"]),
        ("/to car", ["/to Carol"]),
        ("/msg bo", ["/msg bob "]),
        ("/msg bob ", []),
        ("/accept ", ["/accept Carol", "/accept bea", "/accept bob"]),
        ("/history bob --s", ["/history bob --search"]),
        ("/send bob ph", ["/send bob photo\\ one.jpg", "/send bob photo2.jpg"]),
        ("/send bob 'photo o", ["/send bob photo\\ one.jpg"]),
        ("/send bob photo2.jpg fo", ["/send bob photo2.jpg folder/"]),
        ("/send bob folder/", ["/send bob folder/inner.txt"]),
        ("transfer ph", ["transfer photo\\ one.jpg", "transfer photo2.jpg"]),
        ("transfer .h", ["transfer .hidden"]),
        ("transfer nowhere/x", []),
        ("/transfers g", ["/transfers get"]),
        ("/transfers cancel ", ["/transfers cancel t2345678"]),
        ("/help hi", ["/help history"]),
        ("hello b", []),
        ("//to b", []),
        ("/nonsense b", []),
    ],
)
def test_completions(completer: ReplCompleter, line: str, expected: list[str]):
    assert complete(completer, line) == expected
