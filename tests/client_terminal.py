"""`tnt-repl` in a real terminal: a private tmux, keys in, screen out.

What holds always: nothing sleeps and hopes; `see` waits for what must appear, within a bound, and
shows the screen where it does not.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from harness import environment, wait_for

REPL = [sys.executable, "-P", "-m", "tnt_client.repl"]


class Terminal:
    """One terminal with a program in it; what the program prints at its end stays readable."""

    def __init__(self, home: Path, name: str, columns: int = 80, rows: int = 24) -> None:
        self._home = home
        self._name = name
        self._socket = str(home / f"tmux-{name}")
        size = ["-x", str(columns), "-y", str(rows)]
        shell = ["env", "PS1=shell$ ", "bash", "--norc", "--noprofile"]
        # Before the session: the limit is that of the time when a window is made.
        limit = ["start-server", ";", "set-option", "-g", "history-limit", "50000", ";"]
        self._tmux(*limit, "new-session", "-d", "-s", "main", *size, "-c", str(home), *shell)
        self.see(r"shell\$")

    def repl(self, *arguments: str, prompt: str | None = None) -> Terminal:
        """Start tnt-repl and wait for its prompt."""
        self.line(" ".join([*REPL, *arguments]))
        return self.see(rf"^{prompt or ''}.*> ?$", r"│")

    # -- keys -------------------------------------------------------------------------

    def line(self, text: str) -> Terminal:
        """Type a line and Enter."""
        return self.type(text).key("Enter")

    def type(self, text: str) -> Terminal:
        """Type text as keys."""
        self._tmux("send-keys", "-t", "main", "-l", text)
        return self

    def key(self, *names: str) -> Terminal:
        """Press keys by their tmux names."""
        self._tmux("send-keys", "-t", "main", *names)
        return self

    def paste(self, text: str) -> Terminal:
        """Paste, bracketed where the program asks for that."""
        subprocess.run(
            ["tmux", "-S", self._socket, "load-buffer", "-"], input=text.encode(), check=True
        )
        self._tmux("paste-buffer", "-p", "-r", "-t", "main")
        return self

    def resize(self, columns: int, rows: int) -> Terminal:
        """Change the size of the terminal."""
        self._tmux("resize-window", "-t", "main", "-x", str(columns), "-y", str(rows))
        return self

    # -- screen -----------------------------------------------------------------------

    def screen(self) -> str:
        """What stands on the screen, lines that were wrapped made whole."""
        return self._tmux("capture-pane", "-p", "-J", "-t", "main").rstrip("\n")

    def everything(self) -> list[str]:
        """All lines since the last `forget`, with those that have scrolled away."""
        text = self._tmux("capture-pane", "-p", "-J", "-S", "-", "-t", "main")
        return [line.rstrip() for line in text.rstrip("\n").split("\n")]

    def see(self, *patterns: str, timeout: float = 30.0) -> Terminal:
        """Wait until all patterns stand on the screen (`^` and `$` are of a line)."""
        found = [re.compile(pattern, re.MULTILINE) for pattern in patterns]
        last = ""

        def there() -> bool:
            nonlocal last
            last = "\n".join(line.rstrip() for line in self.screen().split("\n"))
            return all(pattern.search(last) for pattern in found)

        try:
            wait_for(there, timeout)
        except AssertionError:
            missing = [p.pattern for p in found if not p.search(last)]
            raise AssertionError(f"{self._name} does not show {missing}:\n{last}") from None
        return self

    def see_not(self, pattern: str) -> Terminal:
        """It does not stand there now."""
        assert not re.search(pattern, self.screen(), re.MULTILINE), self.screen()
        return self

    def count(self, text: str) -> int:
        """How often the text stands anywhere since the last `forget`."""
        return "\n".join(self.everything()).count(text)

    def forget(self) -> Terminal:
        """Clear the shell's screen and what has scrolled away."""
        self.line("clear").see(r"\A\s*shell\$\s*\Z")
        self._tmux("clear-history", "-t", "main")
        return self

    def close(self) -> None:
        """End it and what runs in it."""
        subprocess.run(
            ["tmux", "-S", self._socket, "kill-server"], capture_output=True, check=False
        )

    def _tmux(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._socket, "-f", "/dev/null", *words],
            env=environment(self._home),
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout
