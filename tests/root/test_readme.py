"""The README's first minute, typed as it stands there into two real terminals."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from harness import environment, wait_for

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
# In whose terminal each block of the chapter is typed; the first one only sets the path.
TERMINALS = [None, "alice", "bob", "alice", "bob", "alice", "bob"]
TYPED = re.compile(r"^(\$|\w+>) (.+)$")

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")


class Terminals:
    """Terminals of one private tmux server, by name."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._socket = str(home / "tmux")

    def open(self, name: str) -> None:
        """A shell of 100 by 40 in the home folder."""
        bin = Path(sys.executable).parent
        shell = ["env", f"PATH={bin}:{os.environ['PATH']}", "PS1=$ ", "bash", "--norc"]
        size = ["-x", "100", "-y", "40"]
        self._tmux("new-session", "-d", "-s", name, *size, "-c", str(self._home), *shell)

    def type(self, name: str, line: str) -> None:
        """Type a line and press Enter."""
        self._tmux("send-keys", "-t", name, "-l", line)
        self._tmux("send-keys", "-t", name, "Enter")

    def screen(self, name: str) -> str:
        """What stands there, lines that were wrapped made whole."""
        return self._tmux("capture-pane", "-p", "-J", "-t", name)

    def close(self) -> None:
        """End them all."""
        self._tmux("kill-server")

    def _tmux(self, *words: str) -> str:
        command = ["tmux", "-S", self._socket, "-f", "/dev/null", *words]
        done = subprocess.run(
            command, env=environment(self._home), capture_output=True, text=True, check=True
        )
        return done.stdout


@pytest.fixture
def terminals(home: Path) -> Iterator[Terminals]:
    made = Terminals(home)
    for name in ("alice", "bob"):
        made.open(name)
    yield made
    made.close()
    for file in (home / "run").glob("*.json"):
        os.kill(json.loads(file.read_text())["pid"], signal.SIGKILL)


def blocks() -> list[list[str]]:
    """The console blocks of the chapter, as lines."""
    chapter = README.split("## The first minute")[1].split("\n## ")[0]
    found = re.findall(r"^```console\n(.*?)^```$", chapter, flags=re.MULTILINE | re.DOTALL)
    return [block.splitlines() for block in found]


def port_of(home: Path, name: str) -> str:
    log = (home / "data" / name / "tntd.log").read_text()
    return re.findall(r"peer port (\d+)", log)[-1]


def at_prompt(terminals: Terminals, name: str, expected: str) -> bool:
    """Whether the last line, but for the toolbar, is that prompt."""
    screen = terminals.screen(name)
    lines = [line for line in screen.splitlines() if line.strip() and "│" not in line]
    return bool(lines) and lines[-1].strip() == expected


def stands(terminals: Terminals, name: str, text: str) -> bool:
    """Whether that text stands in a terminal."""
    return text in terminals.screen(name)


def type_block(terminals: Terminals, home: Path, name: str, lines: list[str]) -> None:
    """Type what is typed in a block, each line at the prompt that stands before it; the port
    is that of today."""
    other = {"alice": "bob", "bob": "alice"}[name]
    for expected, line in (found.groups() for found in map(TYPED.match, lines) if found):
        wait_for(partial(at_prompt, terminals, name, expected), what=f"{expected} of {name}")
        connect = re.fullmatch(r"connect \d+", line)
        terminals.type(name, f"connect {port_of(home, other)}" if connect else line)


def shown(lines: list[str]) -> list[str]:
    """The lines of a block that the programs print, as far as they are the same every day."""
    steady = [re.split(r"[(/]|since|Peer", line)[0] for line in lines if not TYPED.match(line)]
    return [re.sub(r"^\[[0-9:]+\]|^id .*", "", line).strip() for line in steady]


def test_the_first_minute_goes_as_it_is_written(terminals: Terminals, home: Path):
    shutil.copy(Path(__file__).parents[2] / "LICENSE", home)
    chapter = blocks()
    assert len(chapter) == len(TERMINALS)
    for lines, name in zip(chapter[1:], TERMINALS[1:], strict=True):
        assert name is not None
        type_block(terminals, home, name, lines)
        for text in shown(lines):
            wait_for(partial(stands, terminals, name, text), what=f"{text!r} of {name}")
    came = home / "downloads" / "new_LICENSE"
    assert came.read_bytes() == (home / "LICENSE").read_bytes()


def test_both_commands_stand_in_shell_blocks():
    commands = re.findall(r"^```sh\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    assert len(commands) == 2
    assert commands[0].rstrip().endswith("tnt demo")
    assert commands[1].rstrip().endswith("pytest")


def test_links_lead_to_files():
    root = Path(__file__).parents[2]
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert [link for link in links if not (root / link).exists()] == []
