"""How the files of a transfer and the settings look.  Pure: structs in, styled lines out.

What holds always: as in render.py, nothing that came from elsewhere is shown unfiltered.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from tntd.control.schema import Cleaned, Setting, TransferFile
from tntd.control.tunables import TUNABLES
from tntd.control.visible import visible

from . import figures, units
from .render import BAD, DIM, GOOD, NAME, NOTE, PLAIN, Line, note, separator, trouble

_STYLES: Final = {"verified": GOOD, "failed": BAD, "skipped": NOTE, "active": PLAIN}
_STATE_CHARS: Final = 8


def file_line(file: TransferFile) -> Line:
    """One line of the list of files: "failed    12 KiB  2024/c.jpg  it cannot be read"."""
    line: Line = [
        (_STYLES.get(file.state, DIM), file.state.ljust(_STATE_CHARS)),
        (DIM, f"  {figures.size(file.size):>8}  "),
        (PLAIN, visible(file.path)),
    ]
    if file.reason:
        line.append((DIM, f"  {visible(file.reason)}"))
    return line


def files_summary(counts: Counter[str]) -> Line:
    """How many files are in which state: "212 files: 209 verified, 1 skipped, 2 failed"."""
    total = figures.count(counts.total(), "file")
    order = ("verified", "active", "waiting", "skipped", "failed")
    parts = [f"{counts[state]:,} {state}" for state in order if counts[state]]
    return note(f"{total}: {', '.join(parts)}" if len(parts) != 1 else f"{total}, {parts[0]}")


def cleaned(result: Cleaned) -> list[Line]:
    """What a clean-up led to."""
    what = "nothing unfinished was left behind"
    if result.removed:
        what = figures.count(result.removed, "unfinished file")
        what = f"removed {what} ({figures.size(result.bytes)})"
    return [note(what), *(trouble(f"not looked at: {each}") for each in result.problems)]


def setting_value(setting: Setting) -> str:
    """The value as people read it, and as it could be typed."""
    row, value = TUNABLES.get(setting.name), setting.value
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str):
        return visible(value)
    if row is not None and row.kind == "rate":
        of_its_own = " of its own" if setting.contact else ""
        return f"{units.exact_size(value)}/s" if value else f"no limit{of_its_own}"
    return units.exact_size(value) if row is not None and row.kind == "bytes" else str(value)


def settings(items: list[Setting]) -> list[Line]:
    """The settings, for a contact under the contact's name."""
    names = max((len(visible(item.name)) for item in items), default=0)
    values = max((len(setting_value(item)) for item in items), default=0)
    lines = [
        [
            (NAME if item.changed else PLAIN, visible(item.name).ljust(names)),
            (PLAIN, f"  {setting_value(item).ljust(values)}  "),
            (DIM, visible(item.meaning) + ("  (set)" if item.changed else "")),
        ]
        for item in items
    ]
    contact = items[0].contact if items else None
    return [separator(f"for {contact}"), *lines] if contact else lines


def set_to(setting: Setting) -> Line:
    """What a change led to."""
    whom = f" for {visible(setting.contact)}" if setting.contact else ""
    how = "" if setting.changed else ", as by default"
    return note(f"{visible(setting.name)}{whom} is {setting_value(setting)}{how}")
