"""Folders where things arrive: tried before they are set, and cleaned one by one."""

from __future__ import annotations

from typing import Any

import pytest

from fuzz.test_findings_transfers import FOLDER, Play, Taking
from tntd.store.transfers import TransferRow
from tntd.tasks import CleanStages, Counted, DiscardPart, Done, Failed, PrepareStage


def add(play: Play, number: int, folder: bytes) -> TransferRow:
    """A transfer that has arrived there."""
    store = play.bench.store
    with store.transaction():
        return store.transfers.add(
            number.to_bytes(16, "big"),
            store.contacts.all()[0].row,
            outgoing=0,
            kind="file",
            name=b"n",
            size=1,
            mtime_ns=1,
            executable=0,
            state="done",
            folder=folder,
            created_at=1,
        )


def last_reply(play: Play) -> dict[str, Any]:
    """What the client was told last."""
    lines = [line for lines in play.bench.lines.values() for line in lines if "id" in line]
    return lines[-1]


def test_a_folder_that_cannot_be_cleaned_does_not_keep_the_others() -> None:
    play = Play()
    play.link  # noqa: B018 - somebody is there
    for number, folder in enumerate((b"/a-null", b"/b-gone", b"/c-well")):
        add(play, number, folder)
    play.command("transfers.clean")
    for answer in (
        Counted(1, 10, True),  # the downloads folder
        Failed("ENOTDIR", "not a directory"),
        Failed("ENOENT", "no such file or folder"),
        Counted(2, 20, True),
    ):
        play.answer(CleanStages, answer)
    told = last_reply(play)["result"]
    assert told == {"removed": 3, "bytes": 30, "problems": ["/a-null: not a directory"]}


def test_what_still_comes_stays_though_its_folder_goes_by_two_paths() -> None:
    taking = Taking()
    taking.open()
    add(taking, 7, b"/downloads/")  # or through a symbolic link
    taking.command("transfers.clean")
    kept = [taking.answer(CleanStages, Counted(0, 0, True)) for _ in range(2)]
    assert [each.folder for each in kept] == [b"/downloads", b"/downloads/"]
    assert kept[0].keep and kept[1].keep == kept[0].keep


@pytest.mark.parametrize("contact", [{}, {"contact": "mallory"}])
def test_a_folder_is_tried_before_files_are_to_arrive_there(contact: dict[str, str]) -> None:
    play = Play()
    play.link  # noqa: B018
    before = play.bench.node._preferences.downloads(1)
    play.command("settings.set", name="downloads", value="/dev/null", **contact)
    play.answer(PrepareStage, Failed("ENOTDIR", "not a directory"))
    assert last_reply(play)["error"]["message"] == (
        "files cannot arrive in /dev/null: it is not a folder"
    )
    assert play.bench.node._preferences.downloads(1) == before
    play.command("settings.set", name="downloads", value="/good", **contact)
    play.answer(PrepareStage, FOLDER)
    play.answer(DiscardPart, Done())
    assert last_reply(play)["result"]["value"] == "/good"
    assert play.bench.node._preferences.downloads(1) == b"/good"
