"""Lists in pages: none is longer than a reply may be."""

from __future__ import annotations

from typing import Any

import msgspec

from fuzz.test_findings_transfers import Play
from tntd import limits
from tntd.node.present import item_id


def add(play: Play, count: int) -> list[str]:
    """Transfers with long paths; their ids, oldest first."""
    bench, ids = play.bench, [number.to_bytes(16, "big") for number in range(1, count + 1)]
    with bench.store.transaction():
        contact = bench.store.contacts.all()[0]
        for id in ids:
            bench.store.transfers.add(
                id,
                contact.row,
                outgoing=1,
                kind="file",
                name=b"f",
                source=b"/" + "ä\xff".encode() * 700 + b"\xff\n" * 50 + b"/f",
                size=1,
                mtime_ns=0,
                executable=0,
                state="done",
                created_at=1,
            )
    return [item_id(id) for id in ids]


def page(play: Play, **params: Any) -> list[str]:
    lines = play.bench.lines[play.hostile.around.user]
    play.command("transfers.list", limit=1000, **params)
    assert len(msgspec.json.encode(lines[-1])) <= limits.REPLY_BYTES_MAX + 256
    return [each["id"] for each in lines[-1]["result"]["transfers"]]


def test_a_page_of_transfers_with_long_paths_is_cut() -> None:
    play = Play()
    ids = add(play, 600)
    forward, backward = page(play, after=ids[0]), page(play)
    assert 1 < len(forward) < 600 and 1 < len(backward) < 600
    while more := page(play, after=forward[-1]):
        forward += more
    while more := page(play, before=backward[0]):
        backward = more + backward
    assert [ids[0], *forward] == backward == ids
