"""Bulk lanes that are none: unknown tickets, used ones, somebody else's, broken records."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from bystanders import SOON_S, Scene, read_to_end
from harness import wait_for
from raw_lane import RawLane, agree, offer
from tntd import limits
from tntd.machines import lane_keys
from tntd.machines.records import HEADER, RecordType
from tntd.wire.frames import LaneAnswer, LaneOffer, Result

DATA = b"all of it" * 1000


def arrived(scene: Scene, name: str) -> bytes:
    path = scene.alice.downloads / f"new_{name}"
    wait_for(path.exists, SOON_S, f"{path} is there")
    data = path.read_bytes()
    path.unlink()
    assert not list(scene.alice.downloads.glob("**/*.part"))
    return data


def test_a_lane_by_hand_brings_a_file(scene: Scene) -> None:
    """What the other tests here stand on."""
    with scene.contact() as mallory:
        transfer = offer(mallory, b"good", len(DATA))
        with RawLane(scene, mallory, agree(mallory, transfer)) as lane:
            lane.send_file(DATA)
            result = mallory.take(Result)
            assert (result.transfer, result.error) == (transfer, "")
    assert arrived(scene, "good") == DATA
    scene.undisturbed()


def test_an_unknown_ticket_is_cut_without_a_word(scene: Scene) -> None:
    for more in (b"", bytes(100), os.urandom(300_000)):
        with scene.connect() as sock:
            sock.sendall(lane_keys.MAGIC + os.urandom(lane_keys.TICKET_BYTES))
            try:
                sock.sendall(more)
            except ConnectionError:
                continue
            assert read_to_end(sock, SOON_S) == b""
    # The first is told at once; had there been others before, in a line about all of them.
    wait_for(
        lambda: "a lane with an unknown ticket" in scene.alice.log(),
        limits.CUT_SUMMARY_S + SOON_S,
        "a line in the log",
    )
    scene.undisturbed()


def test_what_only_begins_like_a_lane_is_cut(scene: Scene) -> None:
    for data in (b"T", b"TNTLANE2" + bytes(16), b"TRACE / HTTP/1.1\r\n\r\n", b"TNTLANE1"):
        with scene.connect() as sock:
            sock.sendall(data)
            sock.shutdown(1)
            assert read_to_end(sock, SOON_S) == b"", data
    scene.undisturbed()


def test_a_ticket_is_good_for_one_lane(scene: Scene) -> None:
    with scene.contact() as mallory:
        ticket = agree(mallory, offer(mallory, b"once", len(DATA)))
        with RawLane(scene, mallory, ticket) as lane, RawLane(scene, mallory, ticket) as copy:
            lane.send(RecordType.HELLO)
            assert lane.sock.recv(1)
            copy.send(RecordType.HELLO)  # found while it was good, opened when it was not
            assert copy.read_to_end() == b""
            with RawLane(scene, mallory, ticket) as third:
                assert third.read_to_end() == b""
    scene.undisturbed()


def test_somebody_else_s_ticket_does_not_open_and_is_not_used_up(scene: Scene) -> None:
    with scene.contact("mallory") as mallory, scene.contact("carol") as carol:
        transfer = offer(carol, b"hers", len(DATA))
        ticket = agree(carol, transfer)
        with RawLane(scene, mallory, ticket) as stolen:
            stolen.send_file(b"x" * len(DATA))
            assert stolen.read_to_end() == b""
        with RawLane(scene, carol, ticket) as lane:
            lane.send_file(DATA)
            assert carol.take(Result).error == ""
    assert arrived(scene, "hers") == DATA
    scene.undisturbed()


def test_a_transfer_of_somebody_else_is_unknown(scene: Scene) -> None:
    with scene.contact("mallory") as mallory, scene.contact("carol") as carol:
        transfer = offer(carol, b"hers", len(DATA))
        agree(carol, transfer)
        mallory.peer.send_frame(LaneOffer(ticket=bytes(16), transfer=transfer))
        assert mallory.expect(LaneAnswer).code == "unknown"
    scene.undisturbed()


BROKEN: dict[str, Callable[[RawLane], bytes]] = {
    "a record that does not open": lambda lane: flipped(lane.seal(RecordType.HELLO)),
    "no hello": lambda lane: lane.seal(RecordType.END),
    "chunks first": lambda lane: lane.seal(RecordType.CHUNKS, bytes(100)),
    "a record twice": lambda lane: lane.seal(RecordType.HELLO) * 2,
    "an endless record": lambda lane: HEADER.pack(1, 2, 0, 0, 2**32 - 1),
    "a huge hello": lambda lane: HEADER.pack(1, 1, 0, 0, limits.LANE_HELLO_BYTES_MAX + 1),
    "another version": lambda lane: HEADER.pack(9, 1, 0, 0, 0) + bytes(16),
    "an unknown type": lambda lane: (
        lane.seal(RecordType.HELLO) + HEADER.pack(1, 9, 0, 1, 0) + bytes(16)
    ),
    "broken chunks": lambda lane: (
        lane.seal(RecordType.HELLO) + lane.seal(RecordType.CHUNKS, b"\x63" * 400)
    ),
    "an early end": lambda lane: lane.seal(RecordType.HELLO) + lane.seal(RecordType.END),
}


def flipped(record: bytes) -> bytes:
    return record[:-1] + bytes([record[-1] ^ 1])


@pytest.mark.parametrize("what", list(BROKEN))
def test_a_broken_lane_ends_alone(scene: Scene, what: str) -> None:
    with scene.contact() as mallory:
        with RawLane(scene, mallory, agree(mallory, offer(mallory, b"broken", 10))) as lane:
            lane.send_raw(BROKEN[what](lane))
            lane.read_to_end()
        # The link has held, and another lane can be had.
        assert agree(mallory, offer(mallory, b"broken", 10))
    assert not list(scene.alice.downloads.glob("new_broken*"))
    scene.undisturbed()


def test_more_than_was_agreed_is_not_written(scene: Scene) -> None:
    with scene.contact() as mallory:
        with RawLane(scene, mallory, agree(mallory, offer(mallory, b"more", 10))) as lane:
            lane.send_file(b"x" * 11)
            lane.read_to_end()
        with RawLane(scene, mallory, agree(mallory, offer(mallory, b"less", 10))) as lane:
            lane.send_file(b"x" * 9)
            result = mallory.take(Result)
            assert "10 were offered" in result.error
    assert not list(scene.alice.downloads.glob("new_more*"))
    assert not list(scene.alice.downloads.glob("new_less*"))
    scene.undisturbed()
