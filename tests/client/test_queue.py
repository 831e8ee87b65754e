"""The queue's verbs: decisions, the files of a transfer, and tidying up."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from client_fake import FakeDaemon
from client_samples import transfer
from tnt_client.failures import UsageFailure
from tnt_client.verbs_queue import FILES_SHOWN_MAX
from tntd.control.schema import Cleaned, FileList, TransferFile, TransferList, TransferResult
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


def test_the_list_tells_of_folders_and_what_failed():
    items = [
        transfer(files=212, state="failed", failed=2, skipped=3, error=None, bytes_done=1),
        transfer(files=3000, counting=True),
        transfer(files=0, counting=True, state="queued"),
        transfer(files=0, bytes_total=0, state="done"),
    ]
    daemon = FakeDaemon({"transfers.list": TransferList(transfers=items)})
    assert daemon.tnt("transfers").splitlines() == [
        "t2345678  to bob  a.bin (212 files, 64 MiB)  failed, 2 failed, 3 skipped "
        "(tnt files t2345678)",
        "t2345678  to bob  a.bin (at least 3,000 files, 64 MiB)  active 32 MiB so far 12.3 MiB/s",
        "t2345678  to bob  a.bin (being counted)  queued",
        "t2345678  to bob  a.bin (0 files, 0 B)  done",
    ]
    assert "(/files t2345678)" in daemon.repl("transfers")


def test_watching_shows_a_pause():
    events = [
        {"type": "transfer.state", "transfer": msgspec.to_builtins(transfer(state=state))}
        for state in ("active", "paused", "queued")
    ]
    daemon = FakeDaemon({"transfers.list": TransferList(transfers=[])}, events)
    shown = daemon.tnt("transfers", "--watch")
    assert "a.bin (64 MiB)  paused 50%\n" in shown and shown.endswith("queued\n")


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
    assert daemon.tnt("clean") == "* removed 2 unfinished transfers (3 MiB)\n"
    assert daemon.repl("transfers", "clean") == "* removed 2 unfinished transfers (3 MiB)\n"
    assert json.loads(daemon.tnt("clean", json=True)) == {"removed": 2, "bytes": 3 << 20}
    nothing = FakeDaemon({"transfers.clean": Cleaned(removed=0, bytes=0)})
    assert nothing.tnt("clean") == "* nothing unfinished was left behind\n"
