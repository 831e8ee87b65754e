"""What is printed in the end: tables in Markdown, and where they come from."""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import OpenSSL
from OpenSSL import SSL

import tntd

ROOT = Path(__file__).parents[2]
_LOAD = os.getloadavg()[0]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@dataclass(slots=True)
class Report:
    """Collects tables, notes and what they say of the targets."""

    parts: list[str] = field(default_factory=list)
    targets: list[tuple[str, str, str, str]] = field(default_factory=list)

    def add(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table."""
        self._show(f"## {title}\n\n{table(head, rows)}")

    def note(self, text: str) -> None:
        """A line of text."""
        self._show(text)

    def target(self, what: str, target: str, measured: str, met: bool | None) -> None:
        """How a target stands; None: it cannot be said."""
        word = {True: "yes", False: "no", None: "-"}[met]
        self.targets.append((what, target, measured, word))

    def text(self, command: str, conditions: str) -> str:
        """The whole."""
        parts = [_heading(command, conditions), *self.parts]
        if self.targets:
            head = ("what", "target", "measured", "met")
            parts.append("## Targets\n\n" + table(head, self.targets))
        return "\n\n".join(parts) + "\n"

    def _show(self, part: str) -> None:
        self.parts.append(part)
        print(part, "\n", file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Tell the one who waits what is going on."""
    print(f"... {text}", file=sys.stderr, flush=True)


def _heading(command: str, conditions: str) -> str:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"# {now}\n\n    {command}\n\n{_machine()}; {_programs()}.\n{conditions}"


def _machine() -> str:
    model = platform.processor() or platform.machine()
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return (
        f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}"
        f" {platform.release()}, load {_LOAD:.1f} at the start, {os.getloadavg()[0]:.1f} at the end"
    )


def _programs() -> str:
    commit = _first_line(["git", "-C", str(ROOT), "describe", "--always", "--dirty"])
    found = [
        f"TalknTransfer {tntd.__version__} ({commit or 'no checkout'})",
        f"Python {platform.python_version()}",
        f"pyOpenSSL {OpenSSL.__version__} with {SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode()}",
        _first_line(["ssh", "-V"]).split(",")[0],
        " ".join(_first_line(["rsync", "--version"]).split()[:3]),
        " ".join(_first_line(["tar", "--version"]).split()),
        " ".join(_first_line(["socat", "-V"], 1).split()[:3]),
        _first_line(["wormhole", "--version"]),
    ]
    return ", ".join(each for each in found if each)


def _first_line(command: list[str], number: int = 0) -> str:
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    return lines[number].strip() if len(lines) > number else ""


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
