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
    model.set_transfer(transfer(id="p2345678", state="paused"))
    model.set_transfer(transfer(id="o2345678", state="offered", direction="in"))
    model.set_transfer(transfer(id="f2345678", state="failed"))
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
        ("transfer fo", ["transfer folder/"]),
        ("/send bob,bea,c", ["/send bob,bea,Carol "]),
        ("/send bob,", ["/send bob,bea ", "/send bob,bob ", "/send bob,Carol "]),
        ("/transfers g", ["/transfers get"]),
        ("/transfers cancel t", ["/transfers cancel t2345678"]),
        ("/transfers resume ", ["/transfers resume p2345678"]),
        ("/transfers x", []),
        ("/pause ", ["/pause t2345678", "/pause o2345678"]),
        ("/pause t2345678 o", ["/pause t2345678 o2345678"]),
        ("/resume ", ["/resume p2345678"]),
        ("/get ", ["/get o2345678"]),
        ("/again ", ["/again f2345678"]),
        ("/first p", ["/first p2345678"]),
        ("/files f", ["/files f2345678"]),
        ("/set up", ["/set upload_bytes_per_s "]),
        ("/set ask_always o", ["/set ask_always on", "/set ask_always off"]),
        ("/set downloads f", ["/set downloads folder/"]),
        ("/set downloads ph", []),
        ("/set transfers_max ", ["/set transfers_max default"]),
        ("/set ask_always on bo", ["/set ask_always on bob "]),
        ("/settings bo", ["/settings bob"]),
        ("/help hi", ["/help history"]),
        ("hello b", []),
        ("//to b", []),
        ("/nonsense b", []),
    ],
)
def test_completions(completer: ReplCompleter, line: str, expected: list[str]):
    assert sorted(complete(completer, line)) == sorted(expected)


def test_a_folder_whose_name_begins_with_a_tilde_is_no_home(completer: ReplCompleter):
    Path("~draft").mkdir()
    Path("~draft/one.txt").touch()
    assert complete(completer, "/send bob ~") == ["/send bob ~draft/"]
    assert complete(completer, "/send bob ~draft/") == ["/send bob ~draft/one.txt"]
    assert complete(completer, "/send bob ./~draft/") == ["/send bob ./~draft/one.txt"]
