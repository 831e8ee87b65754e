"""A bulk lane driven by hand, from the side that dials and sends: for what no daemon would do.

It knows the records (tntd.machines.records) and how the keys are made, and none of the rules.
"""

from __future__ import annotations

import contextlib
import os
import socket

from bystanders import RawContact, Scene, read_to_end
from tntd.machines import lane_keys, pack_record
from tntd.machines.blocks import block_hash, digest_of
from tntd.machines.identity import id_to_key
from tntd.machines.records import (
    RECORD_BYTES_MAX,
    ChunkKind,
    RecordType,
    Sealer,
    entry_chunk,
    put_chunk,
    put_file_end,
)
from tntd.wire.frames import Decision, LaneAnswer, LaneOffer, Offer


class RawLane:
    """A connection that shows a ticket; `contact` is whose link the keys are taken from."""

    def __init__(self, scene: Scene, contact: RawContact, ticket: bytes) -> None:
        acceptor = id_to_key(scene.alice.id)
        assert acceptor is not None
        forth, _ = lane_keys.contexts(ticket, contact.peer.identity.public, acceptor)
        self._sealer = Sealer(
            contact.peer.tls.export_keying_material(lane_keys.LABEL, lane_keys.KEY_BYTES, forth)
        )
        self.sock = scene.connect()
        self.send_raw(lane_keys.MAGIC + ticket)

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are; alice may have closed, which `read_to_end` shows."""
        with contextlib.suppress(ConnectionError):
            self.sock.sendall(data)

    def send(self, type: RecordType, plain: bytes = b"") -> None:
        """Send a record."""
        self.send_raw(self.seal(type, plain))

    def seal(self, type: RecordType, plain: bytes = b"") -> bytes:
        """The next record."""
        out = memoryview(bytearray(RECORD_BYTES_MAX))
        return bytes(out[: self._sealer.seal(type, memoryview(plain), out)])

    def send_file(self, data: bytes) -> None:
        """Send a small file, whole."""
        body = pack_record.encode_entry("file", b"", len(data), 0, False, b"")
        self.send(RecordType.HELLO)
        self.send(RecordType.CHUNKS, entry_chunk(0, body))
        self.send(RecordType.CHUNKS, _content(0, data))
        self.send(RecordType.END)

    def send_large(self, number: int, path: bytes, data: bytes) -> None:
        """Send a file of a folder as large ones go, by itself."""
        body = pack_record.encode_entry("file", path, len(data), 0, False, b"")
        self.send(RecordType.CHUNKS, entry_chunk(number, body))
        self.send(RecordType.CHUNKS, _content(number, data))

    def read_to_end(self) -> bytes:
        """All that comes until alice closes."""
        data = read_to_end(self.sock)
        self.sock.close()
        return data

    def __enter__(self) -> RawLane:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


def pack(number: int, *items: tuple[pack_record.What, bytes, bytes]) -> bytes:
    """The plaintext of a PACK record: what each entry is, its path, and its content or target."""
    out = []
    for at, (what, path, text) in enumerate(items, number):
        is_file = what == "file"
        size, told = (len(text), b"") if is_file else (0, text)
        body = pack_record.encode_entry(what, path, size, 0, False, told)
        out.append(entry_chunk(at, body))
        if is_file:
            out.append(_content(at, text))
    return b"".join(out)


def _content(number: int, data: bytes) -> bytes:
    """The chunks of a file that has one block: its bytes, and its end."""
    plain = memoryview(bytearray(len(data) + 200))
    at = put_chunk(plain, 0, ChunkKind.DATA, number, 0, len(data))
    plain[at : at + len(data)] = data
    at = put_file_end(plain, at + len(data), number, len(data), digest_of([block_hash(data)]))
    return bytes(plain[:at])


def offer(contact: RawContact, name: bytes, size: int, **changes: object) -> bytes:
    """Offer a file; its id."""
    transfer = os.urandom(16)
    fields: dict[str, object] = {
        "transfer": transfer,
        "kind": "file",
        "name": name,
        "size": size,
        "files": 1,
        "mtime_ns": 0,
        "executable": False,
    }
    contact.put(Offer(**{**fields, **changes}))  # type: ignore[arg-type]
    return transfer


def agree(contact: RawContact, transfer: bytes) -> bytes:
    """Have an offer that was taken sent over a lane: its ticket."""
    decision = contact.take(Decision)
    assert decision.transfer == transfer
    assert decision.accepted, decision.reason
    ticket = os.urandom(lane_keys.TICKET_BYTES)
    contact.peer.send_frame(LaneOffer(ticket=ticket, transfer=transfer))
    answer = contact.expect(LaneAnswer)
    if answer.code == "broken":  # an earlier lane, of which we are told
        answer = contact.expect(LaneAnswer)
    assert (answer.ticket, answer.code) == (ticket, "")
    return ticket


def is_cut(sock: socket.socket) -> bool:
    """alice has closed this without a word."""
    return read_to_end(sock) == b""
