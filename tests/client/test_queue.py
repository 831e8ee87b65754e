"""The queue's verbs: decisions, the files of a transfer, and tidying up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from client_fake import FakeDaemon
from client_samples import transfer
from tnt_client.failures import SomeRefused, UsageFailure
from tnt_client.verbs_queue import COUNTED_MAX, ENDED_SHOWN, FILES_SHOWN_MAX
from tntd.control.schema import (
    Cleaned,
    FileList,
    Transfer,
    TransferFile,
    TransferList,
    TransferResult,
)
from tntd.errors import Code, CommandError

FILES = [
    TransferFile(path="a.jpg", size=2048, state="verified"),
    TransferFile(path="b%FF.jpg", path_bytes="b%FF.jpg", size=10, state="active"),
    TransferFile(path="c\x1b[2J", size=0, state="failed", reason="cannot be read: \x1b[31mno"),
    TransferFile(path="pipe", size=0, state="skipped", reason="a pipe"),
    TransferFile(path="z.jpg", size=5, state="waiting"),
]


def pages(files: list[TransferFile], size: int) -> Any:
    """The files, `size` at a time, the last page empty."""

    def answer(params: dict[str, Any]) -> FileList:
        after = params.get("after")
        after = after["path_bytes"] if isinstance(after, dict) else after
        exact = [file.path_bytes or file.path for file in files]
        start = 0 if after is None else exact.index(after) + 1
        return FileList(files=files[start : start + size])

    return answer


# -- decisions ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "method"),
    [
        ("get", "accept"),
        ("decline", "decline"),
        ("pause", "pause"),
        ("resume", "resume"),
        ("cancel", "cancel"),
        ("again", "again"),
    ],
)
def test_each_verb_is_a_method_also_below_transfers(verb: str, method: str):
    daemon = FakeDaemon({f"transfers.{method}": TransferResult(transfer=transfer(state="paused"))})
    shown = daemon.tnt(verb, "t234", "t235")
    assert daemon.tnt("transfers", verb, "t234", "t235") == shown
    assert shown.splitlines()[0] == "t2345678  to bob  a.bin (64 MiB)  paused 50%"
    assert daemon.repl(verb, "t234")
    asked = [params["transfer"] for _, params in daemon.asked]
    assert asked == ["t234", "t235", "t234", "t235", "t234"]


def test_of_several_that_go_first_the_first_is_the_very_first():
    daemon = FakeDaemon({"transfers.first": TransferResult(transfer=transfer(state="queued"))})
    daemon.tnt("first", "a", "b")
    assert [params["transfer"] for _, params in daemon.asked] == ["b", "a"]


def test_an_action_wants_an_id_and_a_refusal_is_passed_on():
    with pytest.raises(UsageFailure, match="transfers pause takes the id"):
        FakeDaemon({}).tnt("transfers", "pause")

    def refuse(_params: dict[str, Any]) -> Any:
        raise CommandError(Code.WRONG_STATE, "a.bin is done already", "nothing is left to pause")

    with pytest.raises(CommandError, match="done already"):
        FakeDaemon({"transfers.pause": refuse}).tnt("pause", "t234")


@pytest.mark.parametrize("words", [["pause"], ["transfers", "pause"]])
def test_of_several_those_that_are_refused_are_named_and_the_rest_is_done(
    words: list[str], capsys: pytest.CaptureFixture[str]
):
    def answer(params: dict[str, Any]) -> Any:
        if params["transfer"] == "zzz":
            raise CommandError(
                Code.NO_SUCH_TRANSFER, "no transfer 'zzz'", "see them with: transfers"
            )
        if params["transfer"] == "t2":
            raise CommandError(Code.WRONG_STATE, "a.bin is done", "only what is queued can rest")
        return TransferResult(transfer=transfer(id=params["transfer"] + "abcdefgh", state="paused"))

    daemon = FakeDaemon({"transfers.pause": answer})
    with pytest.raises(SomeRefused) as failed:
        daemon.tnt(*words, "t1", "t1", "zzz", "t2", "t3")
    assert failed.value.exit_code == 1 and failed.value.message == ""
    assert [params["transfer"] for _, params in daemon.asked] == ["t1", "zzz", "t2", "t3"]
    assert [line[:10] for line in daemon.screen.getvalue().splitlines()] == [
        "t1abcdef  ",
        "t3abcdef  ",
    ]
    assert capsys.readouterr().err.splitlines() == [
        "tnt: no transfer 'zzz'; see them with: tnt transfers",
        "tnt: t2: a.bin is done; only what is queued can rest",
    ]


# -- the list -----------------------------------------------------------------------------


def queue(items: list[Transfer]) -> FakeDaemon:
    """A daemon with these transfers, oldest first."""

    def answer(params: dict[str, Any]) -> TransferList:
        found = items
        if "before" in params:
            found = found[: [item.id for item in items].index(params["before"])]
        found = [item for item in found if params.get("state") in (None, item.state)]
        return TransferList(transfers=found[-params["limit"] :])

    return FakeDaemon({"transfers.list": answer})


def several(count: int, start: int = 0, **more: Any) -> list[Transfer]:
    return [transfer(id=f"{start + n:08}aaaa", **more) for n in range(count)]


def test_the_list_tells_of_folders_and_what_failed():
    items = [
        transfer(files=212, state="failed", failed=2, skipped=3, error=None, bytes_done=1),
        transfer(id="t2", files=3000, counting=True, eta_s=None),
        transfer(id="t3", files=0, counting=True, state="queued"),
        transfer(id="t4", files=0, bytes_total=0, state="done"),
        transfer(id="t5", state="failed", failed=1, error="no room"),
        transfer(id="t6", eta_s=125),
        transfer(id="t7", state="offered"),
    ]
    assert queue(items).tnt("transfers").splitlines() == [
        "t2345678  to bob  a.bin (212 files, 64 MiB)  failed, 2 failed, 3 skipped "
        "(tnt files t2345678)",
        "t4  to bob  a.bin (0 files, 0 B)  done",
        "t5  to bob  a.bin (64 MiB)  failed  no room",
        "t7  to bob  a.bin (64 MiB)  offered  bob is asked",
        "t3  to bob  a.bin (being counted)  queued",
        "t2  to bob  a.bin (at least 3,000 files, 64 MiB)  active 32 MiB so far 12.3 MiB/s",
        "t6  to bob  a.bin (64 MiB)  active 50% 12.3 MiB/s, 2 min 5 s left",
    ]
    assert "(/files t2345678)" in queue(items).repl("transfers")
    assert queue([]).tnt("transfers") == "* no transfers yet\n"


def test_all_that_has_not_ended_is_there_and_of_the_rest_the_newest():
    old, moves = several(ENDED_SHOWN + 7, state="done"), several(1, 1000)
    waits, offered = several(1200, 2000, state="queued"), several(3, 5000, state="offered")
    lines = queue(old + moves + waits + offered).tnt("transfers").splitlines()
    expected = [item.id[:8] for item in (*old[7:], *offered, *waits, *moves)]
    assert [line.partition(" ")[0] for line in lines[:-1]] == expected
    assert lines[-1] == "* 7 more that ended before are not shown; all: tnt transfers --all"
    assert "all: /transfers --all" in queue(old + moves).repl("transfers")


@pytest.mark.parametrize(
    ("words", "shown"),
    [((), ENDED_SHOWN), (("--limit", "3"), 3), (("--limit", "0"), 0), (("--all",), 300)],
)
def test_how_many_that_have_ended_is_ours_to_say(words: tuple[str, ...], shown: int):
    items = [*several(300, state="declined"), *several(1, 900)]
    lines = queue(items).tnt("transfers", *words).splitlines()
    assert sum("declined" in line for line in lines) == shown
    told = [line for line in lines if "not shown" in line]
    assert bool(told) == (shown < 300) and all(f"* {300 - shown} more" in line for line in told)
    found = queue(items).tnt("transfers", *words, json=True).splitlines()
    expected = [item.id for item in items[300 - shown :]]
    assert [json.loads(line)["id"] for line in found] == expected


def test_of_very_many_that_have_ended_it_is_not_counted_how_many():
    daemon = queue(several(COUNTED_MAX + 5000, state="done"))
    told = daemon.tnt("transfers").splitlines()[-1]
    assert told.startswith(f"* at least {COUNTED_MAX - ENDED_SHOWN:,} more that ended before")
    assert len(daemon.asked) < 20


def test_a_daemon_that_repeats_its_list_does_not_hold_us_for_ever():
    daemon = FakeDaemon({"transfers.list": TransferList(transfers=several(2))})
    assert daemon.tnt("transfers").count("a.bin") == 2


def test_what_nobody_took_away_is_told_where_it_lies(tmp_path: Path):
    """`get -o` was killed, and the daemon has finished what it had begun."""
    folder = tmp_path / ".tnt-get-x"
    folder.mkdir()
    there = {"direction": "in", "state": "done", "path": str(folder / "new_a.bin")}
    assert "new_a.bin" not in queue([transfer(**there)]).tnt("transfers")
    (folder / "new_a.bin").write_text("all of it")
    assert f"  done  {folder}/new_a.bin\n" in queue([transfer(**there)]).tnt("transfers")


def test_watching_shows_a_pause():
    events = [
        {"type": "transfer.state", "transfer": msgspec.to_builtins(transfer(state=state))}
        for state in ("active", "paused", "queued")
    ]
    daemon = FakeDaemon({"transfers.list": TransferList(transfers=[])}, events)
    shown = daemon.tnt("transfers", "--watch")
    assert "a.bin (64 MiB)  paused 50%\n" in shown and shown.endswith("queued\n")


def test_watching_tells_what_is_waited_for_once():
    states = [("queued", None), ("offered", None), ("offered", "no room"), ("queued", None)]
    events = [
        {"type": "transfer.state", "transfer": msgspec.to_builtins(transfer(state=s, error=e))}
        for s, e in states
        for _ in range(2)
    ]
    shown = FakeDaemon({"transfers.list": TransferList(transfers=[])}, events)
    assert [line.partition(")  ")[2] for line in shown.tnt("transfers", "--watch").split("\n")] == [
        "",
        "queued",
        "offered  bob is asked",
        "offered  no room",
        "",
    ]


# -- files --------------------------------------------------------------------------------


def test_files_come_in_pages_with_reasons_and_a_sum():
    daemon = FakeDaemon({"transfers.files": pages(FILES, 2)})
    assert daemon.tnt("files", "t234").splitlines() == [
        "verified     2 KiB  a.jpg",
        "active        10 B  b%FF.jpg",
        "failed         0 B  c␛[2J  cannot be read: ␛[31mno",
        "skipped        0 B  pipe  a pipe",
        "waiting        5 B  z.jpg",
        "* 5 files: 1 verified, 1 active, 1 waiting, 1 skipped, 1 failed",
    ]
    assert [params.get("after") for _, params in daemon.asked] == [
        None,
        {"path_bytes": "b%FF.jpg"},
        "pipe",
        "z.jpg",
    ]
    assert daemon.tnt("transfers", "files", "t234") == daemon.screen.getvalue()


def test_files_as_json_are_one_object_a_line():
    daemon = FakeDaemon({"transfers.files": pages(FILES, 2)})
    shown = daemon.tnt("files", "t234", json=True).splitlines()
    assert [json.loads(line)["path"] for line in shown] == [file.path for file in FILES]


def test_only_the_files_in_one_state():
    daemon = FakeDaemon({"transfers.files": pages(FILES, 2)})
    assert daemon.tnt("files", "--state", "failed", "t234").splitlines() == [
        "failed         0 B  c␛[2J  cannot be read: ␛[31mno",
        "* 1 file, 1 failed",
    ]
    none = FakeDaemon({"transfers.files": FileList(files=[])})
    assert none.tnt("files", "--state", "failed", "t234") == "* no files are failed\n"
    assert none.tnt("files", "t234") == "* no files yet\n"


def test_the_repl_shows_some_and_says_where_all_are():
    many = [TransferFile(path=f"{n:05}", size=1, state="verified") for n in range(1500)]
    daemon = FakeDaemon({"transfers.files": pages(many, 150)})
    shown = daemon.repl("files", "t234").splitlines()
    assert len(shown) == FILES_SHOWN_MAX + 1 and len(daemon.asked) == 2
    assert shown[-1] == "* there are more; all are listed by: tnt files t234"
    exactly = FakeDaemon({"transfers.files": pages(many[:FILES_SHOWN_MAX], 150)})
    assert exactly.repl("files", "t234").endswith(f"* {FILES_SHOWN_MAX} files, 200 verified\n")


def test_a_daemon_that_repeats_its_page_does_not_hold_us_for_ever():
    daemon = FakeDaemon({"transfers.files": FileList(files=FILES[:1])})
    assert daemon.tnt("files", "t234").count("a.jpg") == 1


# -- tidying up ---------------------------------------------------------------------------


def test_clean_says_what_went():
    daemon = FakeDaemon({"transfers.clean": Cleaned(removed=2, bytes=3 << 20)})
    assert daemon.tnt("clean") == "* removed 2 unfinished files (3 MiB)\n"
    assert daemon.repl("transfers", "clean") == "* removed 2 unfinished files (3 MiB)\n"
    assert json.loads(daemon.tnt("clean", json=True)) == {"removed": 2, "bytes": 3 << 20}
    with pytest.raises(UsageFailure, match="transfers clean takes no id"):
        daemon.tnt("transfers", "clean", "abc")
    odd = Cleaned(removed=1, bytes=5, problems=["/mnt/\x1bold: not a directory"])
    shown = FakeDaemon({"transfers.clean": odd}).tnt("clean").splitlines()
    assert shown == [
        "* removed 1 unfinished file (5 B)",
        "! not looked at: /mnt/\u241bold: not a directory",
    ]
    nothing = FakeDaemon({"transfers.clean": Cleaned(removed=0, bytes=0)})
    assert nothing.tnt("clean") == "* nothing unfinished was left behind\n"
