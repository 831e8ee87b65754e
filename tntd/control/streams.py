"""Standard streams that were closed by whoever started the program.

What holds always: after `settle`, the descriptors 0 to 2 are open and `sys.stdin`, `sys.stdout` and
`sys.stderr` are there.  Otherwise the first socket or file of the program would get such a number,
and what is printed would go into it.
"""

from __future__ import annotations

import os
import sys


def settle() -> None:
    """Put the null device where a standard stream is missing."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest free number: that of the stream itself, for those before it are open.
            descriptor = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8"))


def silence_output() -> None:
    """Nobody takes what is printed: keep the interpreter from complaining at its end."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)
