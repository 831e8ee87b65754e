"""The progress line in terminals of any width: what matters is always there whole."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_samples import transfer
from tnt_client import figures
from tnt_client.render import bytes_known, transfer_percent
from tnt_client.render_bar import transfer_bar

WIDEST = int(99.9 * 2**30)  # "99.9 GiB": no size is longer
MOVING = st.fixed_dictionaries(
    {
        "name": st.text(min_size=1, max_size=60),
        "contact": st.text(min_size=1, max_size=40),
        "direction": st.sampled_from(["in", "out"]),
        "files": st.integers(1, 10**6),
        "failed": st.integers(0, 10**6),
        "bytes_total": st.just(WIDEST) | st.integers(0, 2**63 - 1),
        "bytes_done": st.just(WIDEST) | st.integers(0, 2**63 - 1),
        "rate": st.sampled_from([None, 0, WIDEST]) | st.integers(0, 10**13),
        "eta_s": st.sampled_from([None, 86_399]) | st.integers(0, 10**9),
        "counting": st.booleans(),
    }
)
WIDTHS = st.integers(39, 200)


@given(MOVING, WIDTHS, st.booleans())
def test_how_far_how_fast_and_how_long_are_whole(more: dict[str, Any], width: int, peer: bool):
    item = transfer(**more)
    line = transfer_bar(item, peer, width)
    assert figures.cells(line) <= width
    rate, left = figures.rate(item.rate), figures.duration(item.eta_s or None)
    assert line.endswith((f"  {rate}" if rate else "") + (f"  {left} left" if left else ""))
    if not item.counting:
        assert f"{transfer_percent(item):3}%" in line


@given(MOVING, WIDTHS, st.booleans(), st.sampled_from(["queued", "offered", "paused", "failed"]))
def test_the_state_is_whole(more: dict[str, Any], width: int, peer: bool, state: str):
    line = transfer_bar(transfer(**more, state=state), peer, width)
    assert figures.cells(line) <= width and f"  {state}" in line


@given(MOVING, st.booleans())
def test_in_80_columns_there_are_name_and_sizes_too(more: dict[str, Any], peer: bool):
    item = transfer(**{**more, "name": "abcdefgh" * 9, "contact": "bobby" * 9, "failed": 0})
    line = transfer_bar(item, peer, 79)
    assert line.startswith("ab") and f"of {figures.size(bytes_known(item))}" in line.replace(
        "at least ", ""
    )
    assert item.counting or "[" in line
    assert not peer or " bo" in line


@pytest.mark.parametrize(("width", "bar"), [(79, [16]), (99, [24]), (59, []), (39, [])])
def test_a_bar_keeps_its_length_while_all_else_changes(width: int, bar: list[int]):
    rates, times, parts = [0, 999 << 10, None], [None, 5, 86_399], [0, 1 << 20, 999 << 20]
    for rate, eta, done in itertools.product(rates, times, parts):
        item = transfer(rate=rate, eta_s=eta, bytes_done=done, bytes_total=1 << 30)
        line = transfer_bar(item, columns=width)
        assert [len(found) for found in re.findall(r"\[([#.]+)\]", line)] == bar, line


def test_lines_of_some_widths():
    item = transfer(name="holiday photographs.jpg", eta_s=45_296)
    told = "50%  32 MiB of 64 MiB  12.3 MiB/s  12 h 34 min left"
    assert transfer_bar(item, columns=99) == f"holiday photographs.jpg  [########.........]  {told}"
    assert transfer_bar(item, columns=79) == f"holiday photo…  [###...]  {told}"
    assert transfer_bar(item, True, 79) == f"holida… to bob  [###...]  {told}"
    assert transfer_bar(item, columns=39) == "ho…   50%  12.3 MiB/s  12 h 34 min left"


def test_what_it_waits_for_has_room():
    item = transfer(state="queued", error="not enough free space there", bytes_done=0)
    assert transfer_bar(item, columns=79) == (
        "a.bin  [........]   0%  0 B of 64 MiB  queued: not enough free space there"
    )
    assert transfer_bar(item, columns=49) == "a.bin    0%  queued: not enough free space there"
    asked = transfer(state="offered", bytes_done=0)
    assert transfer_bar(asked, columns=79).endswith("   0%  0 B of 64 MiB  offered: bob is asked")
    assert transfer_bar(transfer(state="offered", direction="in")).endswith("  offered")


def test_what_failed_is_counted_only_where_there_are_several():
    assert transfer_bar(transfer(state="failed", failed=1, bytes_done=0)) == (
        f"a.bin  [{'.' * 24}]   0%  0 B of 64 MiB  failed"
    )
    assert "64 MiB  queued" in transfer_bar(transfer(state="queued", failed=1, files=3))
    assert "64 MiB, 1 failed  12" in transfer_bar(transfer(failed=1, files=3))


@pytest.mark.parametrize("state", ["queued", "offered", "active", "paused", "failed", "cancelled"])
def test_only_what_is_done_is_100_percent(state: str):
    empty, all_there = transfer(bytes_done=0, bytes_total=0, state=state), transfer(state=state)
    all_there.bytes_done = all_there.bytes_total
    assert transfer_bar(empty, columns=99).startswith(f"a.bin  [{'.' * 24}]   0%  0 B of 0 B  ")
    for columns in (39, 99):
        assert " 99%  " in transfer_bar(all_there, columns=columns)
        done = transfer(bytes_done=0, bytes_total=0, state="done")
        assert "100%  " in transfer_bar(done, columns=columns)
