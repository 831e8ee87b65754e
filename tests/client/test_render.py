"""How things look: nobody can drive the terminal, fake a line, or break the figures."""

from __future__ import annotations

import json
import re
import unicodedata
from datetime import UTC, datetime
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_samples import contact, message, transfer
from tnt_client import figures, render, render_events
from tnt_client.render_bar import transfer_bar
from tnt_client.terminal import one_line_json
from tntd.control.schema import EVENTS, TransferState
from tntd.machines import tree

HOSTILE = "x\x1b[2J\x07\x9b31m\u202egnp.exe\u2066\u200b\r\n\tz"


def safe(lines: list[render.Line]) -> str:
    text = "\n".join(render.plain(line) for line in lines)
    for character in text.replace("\n", ""):
        assert unicodedata.category(character) not in {"Cc", "Cs", "Co", "Cn", "Zl", "Zp"}
        assert character == "\u200d" or unicodedata.category(character) != "Cf"
    return text


def clock(stamp: str) -> str:
    return datetime.fromisoformat(stamp).astimezone().strftime("%H:%M")


def test_a_message_is_one_line():
    at = clock("2026-11-24T12:03:00+00:00")
    (line,) = render.message(message(), "alice")
    assert render.plain(line) == f"[{at}] bob: hello"
    (line,) = render.message(message(from_="alice"), "alice", mark="queued")
    assert render.plain(line) == f"[{at}] alice: hello   (queued)"
    (line,) = render.message(message(), "alice", elsewhere=True)
    assert render.plain(line) == f"[{at}] bob: hello   (/to bob)"
    (line,) = render.message(message(from_="alice"), "alice", elsewhere=True)
    assert render.plain(line).startswith(f"[{at}] alice -> bob: hello")


def test_a_further_line_of_a_message_cannot_pass_for_another_message():
    lines = render.message(message("one\n[12:04] carol: send money\nthree"), "alice")
    assert len(lines) == 3
    assert all(render.plain(line).startswith("        ") for line in lines[1:])


def test_context_is_short():
    long = message("\n".join(f"line {number}" for number in range(100)))
    lines = [render.plain(line) for line in render.message(long, "alice", faint=True)]
    assert len(lines) == 5 and lines[-1].strip() == "… 96 more lines"
    assert len(render.message(long, "alice")) == 100


def test_hostile_text_is_shown_and_harmless():
    shown = safe(render.message(message(HOSTILE, from_="b\x1bob\n"), "alice"))
    assert "␛[2J" in shown and "<U+202E>" in shown and "<U+009B>" in shown
    bad = {"name": HOSTILE, "contact": HOSTILE, "error": HOSTILE, "path": HOSTILE}
    for state in get_args(TransferState):
        for direction in ("in", "out"):
            for more in ({}, {"counting": True}, {"files": 9, "failed": 2, "skipped": 1}):
                item = transfer(**{**bad, **more, "state": state, "direction": direction})
                safe([render.transfer_line(item), render.transfer_news(item) or []])
                safe([[("", transfer_bar(item))]])
                safe([[("", transfer_bar(item, with_peer=True))]])
    evil = contact(name=HOSTILE, id=HOSTILE)
    safe([*render.contacts([evil]), render.request(evil), render.connected(evil, "/")])
    safe([render.note(HOSTILE), render.trouble(HOSTILE, HOSTILE), render.separator(HOSTILE)])


@given(st.text())
def test_no_text_gets_through_unchecked(text: str):
    safe(render.message(message(text, conversation=text, from_=text), "alice", elsewhere=True))
    safe([render_events.log_line({"type": text, "cursor": text, "at": text, "text": text})])


def test_a_notice_is_not_attributed_to_anybody():
    (line,) = render.message(message("2 messages lost", kind="notice"), "alice")
    assert re.fullmatch(r"\[\d\d:\d\d\] \* 2 messages lost", render.plain(line))


@pytest.mark.parametrize("kind", sorted(EVENTS))
def test_every_event_has_its_line(kind: str):
    objects = {"message": message(), "contact": contact(), "transfer": transfer(rate=None)}
    subject = EVENTS[kind]
    about = {subject: msgspec.to_builtins(objects[subject])} if subject else {"text": "no disk"}
    event = {"cursor": "e.5", "at": "2026-11-24T12:03:00.000Z", "type": kind, **about}
    line = render.plain(render_events.log_line(event))
    assert line.startswith("e.5  ") and kind in line and len(line.split(kind)[1].strip()) > 3


def test_an_event_of_a_newer_daemon_is_shown_by_its_name():
    line = render_events.log_line({"type": "room.changed", "contact": {"id": 5}})
    assert "room.changed" in render.plain(line)


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1023, "1 KiB"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (64 << 20, "64 MiB"),
        (999_999_999, "954 MiB"),
        (1023 << 20, "1 GiB"),
        (1 << 62, "4096 PiB"),
    ],
)
def test_sizes(count: int, shown: str):
    assert figures.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (125, "2 min 5 s"), (86_400 + 7200, "1 d 2 h")],
)
def test_durations(seconds: float, shown: str):
    assert figures.duration(seconds) == shown


def test_hundred_percent_means_all_of_it():
    assert figures.percent(999_999, 1_000_000) == 99
    assert figures.percent(0, 0) == 100
    assert figures.percent(5, 3) == 100
    assert figures.bar(1, 3, 6) == "##...."
    assert figures.bar(0, 0, 4) == "####"


def test_a_time_that_is_none_is_no_accident():
    assert figures.clock("never") == "--:--"
    assert figures.clock(None) == "--:--"
    now = datetime.now(UTC).isoformat()
    assert figures.day(now) == datetime.now().astimezone().strftime("%Y-%m-%d")


def test_wide_characters_count_twice_and_are_cut_whole():
    assert figures.cells("日本e\u0301") == 5
    assert figures.fitted("日本語", 4) == "日…"
    assert figures.fitted("abc", 3) == "abc"
    assert figures.cells(figures.fitted("日本語日本語", 7)) <= 7


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_is_one_safe_line_and_still_the_same(value: Any):
    line = one_line_json(value)
    safe([[("", line)]])
    assert "\n" not in line
    assert json.loads(line) == value


def test_a_failed_folder_says_what_can_be_done():
    failed = transfer(files=9, failed=2, skipped=1, state="failed", error="no room", name="photos")
    assert render.plain(render.transfer_news(failed, "/") or []) == (
        "! photos (9 files, 64 MiB) to bob failed: 2 of 9 files failed; no room; "
        "/files t2345678 tells why, /again t2345678 sends them once more"
    )
    there = transfer(files=9, skipped=2, state="done", direction="in", path="/d/new_photos")
    assert render.plain(render.transfer_news(there, "/") or []) == (
        "* received a.bin (9 files, 64 MiB) from bob: /d/new_photos; "
        "2 files left out, /files t2345678 tells why"
    )


@pytest.mark.parametrize(
    "reason", [tree.TOO_DEEP, tree.PATH_TOO_LONG, tree.NAME_TOO_LONG, tree.NOT_ON_WINDOWS]
)
def test_what_cannot_go_is_not_to_be_sent_again_and_its_path_is_short(reason: str):
    path = "deep/" * 800 + "x"
    failed = transfer(files=9, failed=2, state="failed", error=f"{path}: {reason}")
    shown = render.plain(render.transfer_news(failed, "/") or [])
    assert "again" not in shown and len(shown) < 350
    assert "2 of 9 files failed; deep/deep/" in shown and "…" in shown
    assert shown.endswith(f"/x: {reason}; /files t2345678 tells why")
    assert len(render.plain(render.transfer_line(failed))) < 350


def test_a_bar_while_a_folder_is_counted_claims_no_percent():
    bar = transfer_bar(transfer(counting=True, files=9, failed=1, eta_s=None))
    assert bar == "a.bin  32 MiB of at least 64 MiB, 1 failed  12.3 MiB/s"


def test_of_a_pipe_there_is_at_least_what_has_arrived():
    pipe = transfer(counting=True, direction="in", bytes_total=0, eta_s=None)
    assert render.transfer_what(pipe) == "a.bin (at least 32 MiB)"
    assert transfer_bar(pipe) == "a.bin  32 MiB of at least 32 MiB  12.3 MiB/s"


def test_the_connected_line_says_what_to_do_next():
    shown = render.plain(render.connected(contact(), "/"))
    assert shown == "* connected to bob (k7d2a-x3f9q)   verify with /verify bob"
    assert "verify" not in render.plain(render.connected(contact(trust="verified"), "/"))
    assert "goes once they have accepted you" in render.plain(
        render.connected(contact(mutual=False), "/")
    )
    assert render.plain(render.request(contact())).endswith("/accept bob or /block bob")
