"""What stood at each path that is sent, and since when until when: what has to arrive.

What holds always: each content but the empty one is made once, so that its hash says where it comes
from; a link is known by its target, a folder by nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from blake3 import blake3

from .disk import Folder, Link, Node

FOLDER = b"/"


@dataclass(slots=True)
class Version:
    """What was there, from `since` (included) until `until`, in simulated seconds."""

    what: bytes
    since: float
    until: float = inf


def what_is(node: Node, *, durable: bool = False) -> bytes:
    """A node in short."""
    if isinstance(node, Folder):
        return FOLDER
    if isinstance(node, Link):
        return b"->" + node.target
    return what_of(node.durable if durable else bytes(node.data))


def what_of(data: bytes) -> bytes:
    """The content of a file in short."""
    return blake3(data).digest()


def tree(node: Node, path: bytes = b"", *, durable: bool = False) -> Iterator[tuple[bytes, Node]]:
    """All that is in a node, itself included, with paths relative to it."""
    yield path, node
    if isinstance(node, Folder):
        for name, inner in (node.durable if durable else node.names).items():
            yield from tree(inner, path + b"/" + name if path else name, durable=durable)


class Sources:
    """All of it, by machine and absolute path.  `contents` has the hashes of all files."""

    def __init__(self) -> None:
        self.contents: set[bytes] = {what_of(b"")}
        self._versions: dict[tuple[str, bytes], list[Version]] = {}

    def put(self, machine: str, path: bytes, what: bytes, now: float) -> None:
        """Something else is there from now on."""
        self.gone(machine, path, now)
        self._versions.setdefault((machine, path), []).append(Version(what, now))
        self.contents.add(what)

    def gone(self, machine: str, path: bytes, now: float) -> None:
        """Nothing is there any more, nor below."""
        for version in self._versions.get((machine, path), ())[-1:]:
            version.until = min(version.until, now)

    def was(self, machine: str, path: bytes, what: bytes, since: float, *, at: bool) -> bool:
        """Whether that was there at some time from `since` on, or (`at`) just then."""
        found = self._versions.get((machine, path), ())
        return any(
            each.what == what and each.until >= since and (not at or each.since <= since)
            for each in found
        )

    def stayed(self, machine: str, root: bytes, since: float) -> Iterator[tuple[bytes, bytes]]:
        """What was below `root` all the time from `since` on: relative paths, and what it is."""
        below = root + b"/"
        for (name, path), versions in self._versions.items():
            last = versions[-1]
            stays = last.until == inf and last.since <= since
            if stays and name == machine and path.startswith(below):
                yield path[len(below) :], last.what
