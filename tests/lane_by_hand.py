"""The other end of a lane, driven by hand: says anything, at any time."""

from __future__ import annotations

import socket
from collections.abc import Callable

from lane_world import ACCEPTOR, DIALLER, TICKET, World, export
from tntd import limits
from tntd.machines import lane_keys, pack_record, records
from tntd.machines.blocks import block_hash, digest_of
from tntd.machines.records import ChunkKind, Opener, RecordReader, RecordType, Sealer


def data(offset: int, content: bytes, file: int = 0) -> bytes:
    """A DATA chunk."""
    return records.CHUNK.pack(ChunkKind.DATA, file, offset, len(content)) + content


def entry(size: int, path: bytes = b"", file: int = 0, what: pack_record.What = "file") -> bytes:
    """The ENTRY chunk of a large file."""
    body = pack_record.encode_entry(what, path, size, 0, False, b"")
    return records.entry_chunk(file, body)


def file_end(content: bytes, size: int | None = None, file: int = 0) -> bytes:
    """The FILE_END chunk of a content of one block."""
    buffer = bytearray(records.FILE_END_BYTES)
    size = len(content) if size is None else size
    digest = digest_of([block_hash(content)] if content else [])
    records.put_file_end(memoryview(buffer), 0, file, size, digest)
    return bytes(buffer)


class RawLane:
    """One connection; `dials` says which of the two directions' keys are its own, `sends` which
    records it may hear."""

    def __init__(
        self, world: World, sock: socket.socket, *, dials: bool, sends: bool = True
    ) -> None:
        self.world, self.socket = world, sock
        forth, back = (
            export(lane_keys.LABEL, context, 32) or b""
            for context in lane_keys.contexts(TICKET, DIALLER, ACCEPTOR)
        )
        self.sealer = Sealer(forth if dials else back)
        takes = records.SENDER_TAKES if sends else records.RECEIVER_TAKES
        self.reader = RecordReader(Opener(back if dials else forth, takes))
        self.plain = memoryview(bytearray(limits.RECORD_PLAIN_BYTES_MAX))
        self.heard: list[tuple[RecordType, bytes]] = []
        self.heard_bytes = 0
        self.closed = False
        sock.setblocking(False)

    @classmethod
    def dialled(cls, world: World, port: int) -> RawLane:
        """Connect to an acceptor."""
        sock = socket.create_connection(("127.0.0.1", port), timeout=60)
        return cls(world, sock, dials=True)

    @classmethod
    def accepted(cls, world: World, open: Callable[[int], None]) -> RawLane:
        """Listen, let `open(port)` have somebody dial who sends, and accept."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(60)
            open(server.getsockname()[1])
            sock, _ = server.accept()
        return cls(world, sock, dials=False, sends=False)

    # -- talking -------------------------------------------------------------------------

    def seal(self, type: RecordType, plain: bytes = b"") -> bytes:
        """The next record."""
        out = memoryview(bytearray(records.RECORD_BYTES_MAX))
        return bytes(out[: self.sealer.seal(type, memoryview(plain), out)])

    def say(self, *pieces: bytes, step: int = 1 << 20) -> None:
        """Send bytes, at most `step` of them a turn."""
        stream = b"".join(pieces)
        while stream and not self.closed:
            try:
                sent = self.socket.send(stream[:step])
            except BlockingIOError:
                sent = 0
            except (BrokenPipeError, ConnectionResetError):
                self.closed = True
                return
            stream = stream[sent:]
            self.world.turn()

    def hello(self, ticket: bytes = TICKET) -> bytes:
        """The dialler's first bytes."""
        return lane_keys.MAGIC + ticket + self.seal(RecordType.HELLO)

    def chunks(self, *chunks: bytes) -> bytes:
        """A record of chunks."""
        return self.seal(RecordType.CHUNKS, b"".join(chunks))

    # -- listening -----------------------------------------------------------------------

    def listen(self) -> None:
        """Take what is there."""
        try:
            piece = self.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except ConnectionResetError:
            piece = b""
        self.closed = self.closed or not piece
        self.heard_bytes += len(piece)
        while piece:
            room = self.reader.room()[: len(piece)]
            room[:] = piece[: len(room)]
            self.reader.filled(len(room))
            piece = piece[len(room) :]
            while (record := self.reader.next(self.plain)) is not None:
                self.heard.append((record.type, bytes(record.plain)))

    def skip(self, count: int) -> None:
        """Read over bytes that are no records."""
        got = b""
        while len(got) < count:
            self.world.turn()
            try:
                got += self.socket.recv(count - len(got))
            except BlockingIOError:
                continue

    def hears(self, happened: Callable[[], object]) -> None:
        """Listen until `happened`."""

        def listened() -> object:
            self.listen()
            return happened()

        self.world.until(listened)

    def hears_end(self) -> None:
        """Listen until the other side closes."""
        self.hears(lambda: self.closed)
        self.socket.close()
