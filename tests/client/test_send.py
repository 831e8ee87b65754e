"""Sending to one or several, and waiting: what is asked of the daemon, and what people see."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from client_fake import FakeDaemon, Screen
from client_samples import contact, transfer
from tnt_client.failures import Interrupted, Refused, TimedOut, UsageFailure
from tnt_client.terminal import Output
from tntd.control.schema import ContactList, TransferList

BOB, CAROL = contact(), contact(id="ccccc-1", name="carol")
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def event(**more: Any) -> dict[str, Any]:
    kind = "transfer.progress" if more.get("state") == "active" else "transfer.state"
    return {"type": kind, "cursor": "e.2", "transfer": msgspec.to_builtins(transfer(**more))}


def sends(params: dict[str, Any]) -> TransferList:
    """A daemon that queues all."""
    to = [params["to"]] if isinstance(params["to"], str) else params["to"]
    return TransferList(
        transfers=[
            transfer(
                id=f"{who}-{number}-abcdef",
                contact=who,
                name=os.path.basename(path),
                state="queued",
                files=0,
                counting=True,
                bytes_done=0,
            )
            for who in to
            for number, path in enumerate(params["paths"])
        ]
    )


def fake(events: list[dict[str, Any]] | None = None, *others: Any) -> FakeDaemon:
    known = ContactList(contacts=[BOB, CAROL, *others])
    return FakeDaemon({"transfers.send": sends, "contacts.list": known}, events)


def to_of(daemon: FakeDaemon) -> Any:
    return next(params["to"] for method, params in daemon.asked if method == "transfers.send")


# -- to whom ------------------------------------------------------------------------------


def test_a_folder_goes_as_a_path_without_its_slash(folder: Path):
    daemon = fake()
    shown = daemon.tnt("send", "bob", "photos/")
    assert [method for method, _ in daemon.asked] == ["transfers.send"]
    assert daemon.asked[0][1]["paths"] == [str(folder / "photos")] and to_of(daemon) == "bob"
    assert shown == "* photos (being counted) is queued for bob\n"
    assert "photos" in daemon.repl("transfer", "photos/", current="bob")


def test_a_tilde_is_home_only_where_no_name_begins_with_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", "/home/alice")
    for name in ("~", "~draft"):
        (folder / name).mkdir()
    daemon = fake()
    typed = ["./~", "~", "~draft", "~/x", "./~/x", "~no such user/x"]
    daemon.tnt("send", "bob", *typed)
    here = os.path.realpath(folder)
    assert daemon.asked[0][1]["paths"] == [
        f"{here}/~",
        f"{here}/~",
        f"{here}/~draft",
        "/home/alice/x",
        f"{here}/~/x",
        f"{here}/~no such user/x",
    ]


def test_several_contacts_with_commas():
    daemon = fake()
    shown = daemon.tnt("send", "bob,carol,bob", "photos", "x")
    assert to_of(daemon) == ["bob", "carol"]
    assert re.findall(r"\* (\w+) .* for (\w+)", shown) == [
        ("photos", "bob"),
        ("x", "bob"),
        ("photos", "carol"),
        ("x", "carol"),
    ]


def test_a_contact_of_old_whose_name_has_a_comma_is_that_contact():
    daemon = fake([], contact(id="d", name="bob,carol"))
    daemon.tnt("send", "Bob,Carol", "photos")
    assert to_of(daemon) == "Bob,Carol"


@pytest.mark.parametrize(
    ("who", "paths", "words"),
    [
        ("bob,", 1, "a name is missing"),
        (",".join(f"c{n}" for n in range(65)), 1, "65 contacts are too many"),
        ("bob", 1001, "1,001 files are too many"),
        ("bob,carol", 501, "1,002 files are too many (501 for each contact)"),
    ],
)
def test_too_much_is_wrong_usage(who: str, paths: int, words: str):
    daemon = fake()
    with pytest.raises(UsageFailure) as failed:
        daemon.tnt("send", who, *["x"] * paths)
    assert words in failed.value.message
    assert "transfers.send" not in [method for method, _ in daemon.asked]


# -- waiting ------------------------------------------------------------------------------


def both(**more: Any) -> list[dict[str, Any]]:
    return [
        event(id=f"{who}-0-abcdef", contact=who, name="photos", files=212, **more)
        for who in ("bob", "carol")
    ]


def test_plain_lines_name_the_contact_where_there_are_several():
    moving = [*both(state="active", counting=True), *both(state="active"), *both(state="active")]
    daemon = fake([*moving, *both(state="done", bytes_done=64 * MIB, eta_s=None)])
    lines = daemon.tnt("send", "--wait", "bob,carol", "photos").splitlines()
    # From before the send on: nothing is missed.
    assert daemon.asked[2] == ("events.subscribe", {"since": daemon.welcome.cursor})
    assert "photos to bob  32 MiB of at least 64 MiB  12.3 MiB/s  3 s left" in lines
    assert "photos to carol  [######......]  50%  32 MiB of 64 MiB  12.3 MiB/s  3 s left" in lines
    assert len([line for line in lines if " 50%" in line]) == 2  # the same is not told twice
    assert lines[-2:] == [
        "* bob has photos (212 files, 64 MiB)",
        "* carol has photos (212 files, 64 MiB)",
    ]


def test_on_a_terminal_there_is_a_bar_for_each():
    daemon = fake([*both(state="active"), *both(state="done", bytes_done=64 * MIB)])
    shown = daemon.tnt("send", "--wait", "bob,carol", "photos", terminal=True)
    assert "\x1b[2F\x1b[J" in shown  # two bars are drawn anew
    assert shown.count("done\n") == 2  # the last bar of each stays


def test_what_failed_is_named_with_what_to_do():
    failed = event(
        id="carol-0-abcdef", contact="carol", name="photos", files=212, failed=2, state="failed"
    )
    daemon = fake([both(state="done", skipped=1)[0], failed])
    with pytest.raises(Refused) as error:
        daemon.tnt("send", "--wait", "bob,carol", "photos")
    assert error.value.exit_code == 1
    assert error.value.message == (
        "not delivered: photos to carol: 2 of 212 files failed; tnt files carol-0- tells why, "
        "tnt again carol-0- sends them once more"
    )
    assert daemon.screen.getvalue().endswith(
        "* bob has photos (212 files, 64 MiB); 1 file left out, tnt files bob-0-ab tells why\n"
    )


def test_time_that_is_over_names_what_has_not_come():
    daemon = fake([both(state="done")[0], both(state="paused")[1]])
    with pytest.raises(TimedOut, match="photos has not arrived at carol's in time, it is paused"):
        daemon.tnt("send", "--wait", "bob,carol", "photos")
    with pytest.raises(TimedOut, match="photos and 1 more have not arrived at bob's in time; they"):
        fake().tnt("send", "--wait", "bob,carol", "photos")


def test_plain_lines_tell_what_is_waited_for():
    states = [("queued", None), ("offered", None), ("offered", "bob is asked first: no room")]
    states += [("queued", "no free space there")]
    events = [event(id="bob-0-abcdef", state=s, error=e, bytes_done=0) for s, e in states]
    daemon = fake([*events, event(id="bob-0-abcdef", state="done", bytes_done=64 * MIB)])
    lines = daemon.tnt("send", "--wait", "bob", "photos").splitlines()
    assert [line.partition("64 MiB  ")[2] for line in lines[1:-2]] == [
        "queued",
        "offered: bob is asked",
        "offered: bob is asked first: no room",
        "queued: no free space there",
    ]


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("bob", "photos stays in the queue; to give it up: tnt cancel bob-0-ab"),
        (
            "bob,carol",
            "photos and 1 more stay in the queue; to give them up: tnt cancel bob-0-ab carol-0-",
        ),
    ],
)
def test_an_interrupt_says_that_it_stays_and_how_to_cancel_it(
    who: str, words: str, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(_daemon: FakeDaemon, _timeout: float | None) -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeDaemon, "next_event", interrupted)
    with pytest.raises(Interrupted) as failed:
        fake().tnt("send", "--wait", who, "photos")
    assert failed.value.message == words and failed.value.exit_code == 130


def test_more_bars_than_lines_show_those_that_move(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((80, 4)))
    screen = Screen(terminal=True)
    waiting = [transfer(id=f"w{n}", name=f"waits{n}", state="queued") for n in range(9)]
    Output(screen, False).bars([*waiting, transfer(id="a", name="moves")])
    lines = screen.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("moves") and lines[2] == "and 8 more"
