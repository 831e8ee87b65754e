"""The small program of the two child processes, `disk` and `net`: does what would block.

    python -P -m tntd.shell.child disk|net FD

FD is its end of a socket pair; `-` means that a shared socket is described on stdin (Windows).

What holds always: it does one request after the other, answers each, and keeps nothing between
them that an answer hangs on (open folders, to be quicker, and those not for long), so it can be
killed at any moment and another one does the same requests again.  It ends
when the daemon's end of the socket is gone, however the daemon ended.  It never sees the
identity key: it is started by exec, and before that key is read.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import traceback
from collections.abc import Callable

from tntd.shell import child_wire
from tntd.shell.child_wire import Crashed, Inbox, Replied, Reply, Warm
from tntd.tasks import Answer, AnyTask

# Does a task with the open file that came along; gives its answer, and an open file to send up
# with whether that is in memory.
Performed = tuple[Answer, int | None, bool]
Perform = Callable[[AnyTask | Warm, int | None], Performed]
# Lets go of what is kept open between requests.
Forget = Callable[[], object]

# Without a descriptor of its own.
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)
_KEEP_S = 10.0  # after the last request: a folder that is kept open keeps a disk from being removed


def main(arguments: list[str]) -> int:
    """Serve until the daemon is gone; the exit code."""
    kind, where = arguments
    sock = _open_socket(where)
    try:
        serve(sock, *_performer(kind))
    except (BrokenPipeError, ConnectionResetError):
        return 0
    except Exception:
        _send(sock, child_wire.encode(Crashed(traceback.format_exc()[-4096:])), None)
        raise
    return 0


def serve(sock: socket.socket, perform: Perform, forget: Forget) -> None:
    """Answer requests until the end of the stream."""
    inbox = Inbox()
    waiting = _Selector()
    waiting.register(sock, selectors.EVENT_READ)
    while True:
        if not waiting.select(_KEEP_S):
            forget()  # then for as long as it takes: no more wake-ups
        if not inbox.receive(sock):
            return
        while (body := inbox.next()) is not None:
            request = child_wire.request_decoder.decode(body)
            given = inbox.take_descriptor() if child_wire.takes_file(request.task) else None
            try:
                answer, opened, in_memory = perform(request.task, given)
            finally:
                if given is not None:
                    os.close(given)
            try:
                _send(
                    sock, child_wire.encode(Replied(Reply(request.id, answer, in_memory))), opened
                )
            finally:
                if opened is not None:
                    os.close(opened)


def _send(sock: socket.socket, data: bytes, descriptor: int | None) -> None:
    sent = child_wire.send(sock, data, descriptor)
    sock.sendall(data[sent:])


def _performer(kind: str) -> tuple[Perform, Forget]:
    # Imported here: each child loads only what it needs.
    if kind == "disk":
        from tntd.shell import child_disk

        return child_disk.perform, child_disk.forget
    from tntd.shell import child_net

    return child_net.perform, lambda: None


def _open_socket(where: str) -> socket.socket:
    if where == "-" and sys.platform == "win32":
        return socket.fromshare(sys.stdin.buffer.read())
    return socket.socket(fileno=int(where))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
