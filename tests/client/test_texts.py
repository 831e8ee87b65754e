"""Texts that are too long for a message: the question, the private file, and when it goes."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from client_samples import transfer
from tnt_client.failures import NoDaemon
from tnt_client.repl_texts import STRAY_AGE_S, Texts
from tnt_client.steps import Ask, Call, DropText, KeepText, Show
from tnt_client.verbs_talk import is_too_long, send_as_file
from tntd.errors import Code, CommandError

LONG = "ü" * 33_000


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TNT_HOME", str(tmp_path))
    return tmp_path


def daemon_with(*items: Any) -> Any:
    """A daemon's answer to transfers.list, one transfer a page, newest first."""

    async def ask(method: str, params: dict[str, Any]) -> Any:
        assert method == "transfers.list"
        ids = [item["id"] for item in items]
        end = ids.index(params["before"]) if "before" in params else len(items)
        return {"transfers": list(items[max(0, end - 1) : end])}

    return ask


def test_what_is_too_long():
    assert not is_too_long("x" * 65_536)
    assert is_too_long("x" * 65_537) and is_too_long(LONG)


def test_a_text_is_sent_as_a_file_after_a_question():
    script = send_as_file("k", LONG)
    question = next(script)
    assert question == Ask("This is 65 KiB, more than a message holds. Send it as a file?")
    assert script.send(True) == KeepText(LONG)
    call = script.send("/data/texts/text-1.txt")
    assert isinstance(call, Call) and call.method == "transfers.send"
    assert call.params["paths"] == ["/data/texts/text-1.txt"] and call.params["to"] == "k"


@pytest.mark.parametrize("answer", [False, None])
def test_no_is_no(answer: bool | None):
    script = send_as_file("k", LONG)
    next(script)
    shown = script.send(answer)
    assert isinstance(shown, Show) and "nothing was sent" in str(shown.lines)
    with pytest.raises(StopIteration):
        next(script)


def test_a_refusal_drops_the_file_and_silence_keeps_it():
    def asked() -> Any:
        script = send_as_file("k", LONG)
        next(script), script.send(True), script.send("/data/t.txt")
        return script

    script = asked()
    refusal = CommandError(Code.NOT_ACCEPTED, "not accepted")
    assert script.throw(refusal) == DropText("/data/t.txt")
    with pytest.raises(CommandError):
        next(script)
    with pytest.raises(NoDaemon):
        asked().throw(NoDaemon("gone"))


def test_a_file_is_private_and_whole():
    path = Path(Texts("alice").keep(LONG))
    assert path.read_text("utf-8") == LONG
    assert Path(Texts("alice").keep(LONG)) != path
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("state", ["done", "failed", "cancelled", "declined"])
def test_it_goes_when_its_transfer_has_ended(state: str):
    texts = Texts("alice")
    path = Path(texts.keep(LONG))
    texts.ended(transfer(name=path.name, direction="out", state="active"))
    texts.ended(transfer(name=path.name, direction="in", state=state))
    texts.ended(transfer(name="other.txt", direction="out", state=state))
    assert path.exists()
    texts.ended(transfer(name=path.name, direction="out", state=state))
    assert not path.exists()


def test_what_ended_meanwhile_goes_on_attach():
    texts = Texts("alice")
    done, waits, fresh, stray = (Path(texts.keep(LONG)) for _ in range(4))
    old = stray.stat().st_mtime - STRAY_AGE_S - 1
    os.utime(stray, (old, old))
    os.utime(waits, (old, old))
    items = [
        {**raw(done.name, "done"), "id": "a"},
        {**raw(waits.name, "queued"), "id": "b"},
        {**raw("other.txt", "done"), "id": "c"},
    ]
    asyncio.run(texts.tidy(daemon_with(*items)))
    assert [path.exists() for path in (done, waits, fresh, stray)] == [False, True, True, False]


def raw(name: str, state: str) -> dict[str, Any]:
    import msgspec

    value: dict[str, Any] = msgspec.to_builtins(transfer(name=name, direction="out", state=state))
    return value
