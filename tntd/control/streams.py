"""Standard streams that were closed by whoever started the program.

What holds always: after `settle`, the descriptors 0 to 2 are open and `sys.stdin`, `sys.stdout` and
`sys.stderr` are there.  Otherwise the first socket or file of the program would get such a number,
and what is printed would go into it.  What is to come from there, or must not be lost, is
refused by who asks `was_closed`.
"""

from __future__ import annotations

import os
import sys

_closed: set[str] = set()


def was_closed(name: str) -> bool:
    """Whether "stdin", "stdout" or "stderr" was closed from the start."""
    return name in _closed


def settle() -> None:
    """Put the null device where a standard stream is missing."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            _closed.add(name)
            # The lowest free number: that of the stream itself, for those before it are open.
            descriptor = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8"))


def silence_output() -> None:
    """Nobody takes what is printed: keep the interpreter from complaining at its end."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)
