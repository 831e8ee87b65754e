"""What may be in a tree: names, paths, depth, and where links may point.

A path in a tree is bytes, components joined by "/", b"" for the root.  Both sides ask here: the
sender tells its user what is left out, the receiver believes nothing that comes from the other
side.

What holds always: a path without a problem has only plain components, so it names something
below the root wherever it is looked up, folder by folder.  A link without a problem goes up at
most to the root before it goes down, and never up again; as it stands at the depth that its path
says (each folder above it was opened without following), it stays inside, and so does a way that
leads over several such links.

Reasons are words for the user, and hold no path.
"""

from __future__ import annotations

from typing import Final

from blake3 import blake3

from tntd import limits

MARK_BYTES: Final = 8
TAKEN: Final = "another file of this transfer has that name here"
CHANGED: Final = "the file changed while it was read"
DAMAGED: Final = "damaged on its way"
TOO_DEEP: Final = f"more than {limits.TREE_DEPTH_MAX} folders deep"
PATH_TOO_LONG: Final = f"the path is longer than {limits.TREE_PATH_BYTES_MAX} bytes"
NAME_TOO_LONG: Final = f"a name is longer than {limits.NAME_BYTES_MAX} bytes"
NO_NAME: Final = "a part of the path is no plain name"
NOT_ON_WINDOWS: Final = "Windows cannot hold that name"
LEADS_OUT: Final = "the link leads out of what is sent"
GOES_UP: Final = "the link goes up (..) behind a name; only links that go up first are kept"
ODD_LINK: Final = "the link does not lead to a name"
TAKEN_THERE: Final = "the name is taken there"

_PLAIN_DOTS: Final = frozenset({b"", b".", b".."})
_WINDOWS_BAD: Final = frozenset(b'\\:*?"<>|') | frozenset(range(32))
# Also with the superscripts one, two and three as digits.
_WINDOWS_DIGITS: Final = [
    *(b"%d" % digit for digit in range(10)),
    b"\xc2\xb9",
    b"\xc2\xb2",
    b"\xc2\xb3",
]
_WINDOWS_DEVICES: Final = frozenset(
    [b"con", b"prn", b"aux", b"nul", b"conin$", b"conout$"]
    + [word + digit for word in (b"com", b"lpt") for digit in _WINDOWS_DIGITS]
)


def mark(path: bytes) -> bytes:
    """A path in 8 bytes, to tell it from others of its tree."""
    return blake3(path).digest(MARK_BYTES)


def name_problem(name: bytes, *, windows: bool) -> str:
    """Why `name` cannot be one component of a path; "" where it can."""
    if name in _PLAIN_DOTS or b"/" in name or b"\0" in name:
        return NO_NAME
    if len(name) > limits.NAME_BYTES_MAX:
        return NAME_TOO_LONG
    if windows and _windows_refuses(name):
        return NOT_ON_WINDOWS
    return ""


def path_problem(path: bytes, *, windows: bool) -> str:
    """Why `path` cannot be in a tree; "" where it can.  The root, b"", can."""
    if not path:
        return ""
    if len(path) > limits.TREE_PATH_BYTES_MAX:
        return PATH_TOO_LONG
    names = path.split(b"/")
    if len(names) > limits.TREE_DEPTH_MAX:
        return TOO_DEEP
    for name in names:
        if problem := name_problem(name, windows=windows):
            return problem
    return ""


def link_problem(path: bytes, target: bytes, *, windows: bool) -> str:
    """Why the link at `path` may not point to `target`; "" where it may.

    It may where `target` is relative, goes up no further than to the root of the tree, and only
    at its beginning, and then names something.
    """
    if target.startswith(b"/") or b"\0" in target or len(target) > limits.TREE_PATH_BYTES_MAX:
        return LEADS_OUT
    names = [name for name in target.split(b"/") if name not in (b"", b".")]
    up = 0
    while up < len(names) and names[up] == b"..":
        up += 1
    if up > path.count(b"/"):
        return LEADS_OUT
    if b".." in names[up:]:
        return GOES_UP
    if up == len(names):
        return ODD_LINK
    if windows and any(_windows_refuses(name) for name in names[up:]):
        return NOT_ON_WINDOWS
    return ""


def join(folder: bytes, name: bytes) -> bytes:
    """The path of `name` in the folder with the path `folder`."""
    return folder + b"/" + name if folder else name


def parent(path: bytes) -> tuple[bytes, bytes]:
    """The path of the folder that holds `path`, and the name in it."""
    folder, _, name = path.rpartition(b"/")
    return folder, name


def told_path(path: bytes) -> bytes:
    """A path as it can be told to the other side: the beginning of one that is too long."""
    return path[: limits.TREE_PATH_BYTES_MAX]


def told_reason(text: bytes) -> str:
    """A reason that the other side gave, as text of a bounded length."""
    return text.decode("utf-8", "replace")[: limits.ERROR_TEXT_CHARS_MAX]


def is_windows_device(name: bytes) -> bool:
    """Whether Windows takes `name` for a device, with any extension, in every folder."""
    stem = name.partition(b".")[0].rstrip(b" ").lower()
    return stem in _WINDOWS_DEVICES


def _windows_refuses(name: bytes) -> bool:
    if name[-1:] in (b".", b" ") or not _WINDOWS_BAD.isdisjoint(name):
        return True
    return is_windows_device(name)
