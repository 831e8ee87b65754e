"""Whether an offer is taken by itself, or our user is asked first, and why.

What holds always: who is asked is told why, and so is the sender, once for each offer.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from tntd.machines.naming import show_path, show_size
from tntd.node.core import Core
from tntd.node.mail import Mail
from tntd.node.preferences import Preferences
from tntd.store.transfers import TransferRow
from tntd.tasks import Answer, Failed, Inspect, Inspected
from tntd.wire.frames import Asking


class Considering:
    """Decides on offers; `take` is called with those that are taken."""

    def __init__(
        self,
        core: Core,
        mail: Mail,
        preferences: Preferences,
        take: Callable[[TransferRow], TransferRow],
    ) -> None:
        self._core = core
        self._mail = mail
        self._preferences = preferences
        self._take = take
        self._rows = core.store.transfers

    def consider(self, row: TransferRow, *, anew: bool) -> None:
        """Take it by ourselves where the settings say so and the disk has room, else ask."""
        if not self._asked(row, anew=anew):
            self._measure(row.row, self._preferences.downloads(row.contact), anew=anew)

    def _asked(self, row: TransferRow, *, anew: bool) -> bool:
        """Ask our user where the settings say so, whatever room there is; whether that was done."""
        settings = self._preferences.of(row.contact)
        if settings.ask_always:
            whole = "take nothing without a question"
            self._ask(row, f"you {whole}", f"they {whole}", anew=anew)
        elif row.size > settings.auto_accept_bytes_max:
            self.ask_for_size(row, anew=anew)
        else:
            return False
        return True

    def _measure(self, number: int, folder: bytes, *, anew: bool) -> None:
        """Find out how much is free where `folder` is, or is to be made."""

        def measured(answer: Answer) -> None:
            missing = isinstance(answer, Failed) and answer.code == "ENOENT"
            outer = posixpath.dirname(folder.rstrip(b"/"))
            if missing and outer:
                self._measure(number, outer, anew=anew)
            else:
                self._measured(number, answer, anew=anew)

        self._core.ask(Inspect(folder), measured)

    def _measured(self, number: int, answer: Answer, *, anew: bool) -> None:
        row = self._rows.get(number)
        if row is None or row.state != "offered":
            return
        if self._asked(row, anew=anew):
            return  # more was counted there, or our user wants something else, meanwhile
        problem = "it is not a folder"
        if isinstance(answer, Failed):
            problem = answer.text
        elif isinstance(answer, Inspected) and answer.kind == "folder":
            problem = ""
            if answer.free - row.size >= self._core.settings.reserve_bytes:
                self._take(row)
                return
        if not problem:
            self._ask(row, "not enough free space here", "not enough free space there", anew=anew)
            return
        shown = show_path(self._preferences.downloads(row.contact))[0]
        ours, theirs = f"your downloads folder {shown}: {problem}", "their downloads folder"
        if anew:
            self._core.complain(ours, "mend it, or set another: set downloads PATH", row.contact)
        self._ask(row, ours, f"{theirs}: {problem}", anew=anew)

    def ask_for_size(self, row: TransferRow, *, anew: bool) -> None:
        """It is larger than what is taken without a question."""
        size = show_size(self._preferences.of(row.contact).auto_accept_bytes_max)
        larger = f"larger than the {size} that"
        ours, theirs = "you take without a question", "they take without a question"
        self._ask(row, f"{larger} {ours}", f"{larger} {theirs}", anew=anew)

    def _ask(self, row: TransferRow, ours: str, theirs: str, *, anew: bool) -> None:
        """Our user is to decide: both sides are told why, once."""
        self._rows.update(row.row, error=ours)
        if anew:
            self._core.publish("transfer.offered", row.row)
            self._mail.put(row.contact, Asking(transfer=row.id, reason=theirs[:500]))
