"""How messages, contacts and transfers look.  Pure: structs in, styled lines out.

What holds always: every text that came from elsewhere goes through `visible`, so that nobody can
drive the reader's terminal, and every further line of a message is indented, so that nobody
can fake a line of somebody else inside a message.  A line is a list of (style, text) pairs, as
prompt_toolkit takes them; terminal.py turns the same lines into escape sequences for scripts,
which saves them loading prompt_toolkit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tntd.control.schema import Contact, Message, Status, Transfer
from tntd.control.visible import visible
from tntd.limits import NAME_BYTES_MAX, TREE_DEPTH_MAX, TREE_PATH_BYTES_MAX

from . import figures

Line = list[tuple[str, str]]

PLAIN: Final = ""
DIM: Final = "class:dim"
NAME: Final = "class:name"
OWN: Final = "class:own"
GOOD: Final = "class:good"
BAD: Final = "class:bad"
NOTE: Final = "class:note"
ELSEWHERE: Final = "class:elsewhere"

ENDED: Final = frozenset({"done", "failed", "cancelled", "declined"})  # states of transfers
WAITING: Final = frozenset({"offered", "queued", "paused"})

FOR_EVER: Final = (  # ends of reasons: the same comes of it each time
    f"more than {TREE_DEPTH_MAX} folders deep",
    f"the path is longer than {TREE_PATH_BYTES_MAX} bytes",
    f"a name is longer than {NAME_BYTES_MAX} bytes",
    "Windows cannot hold that name",
)

_ERROR_CHARS_MAX: Final = 240
_INDENT: Final = "        "  # as wide as "[12:03] "
_FAINT_LINES_MAX: Final = 3  # after the first: context must not push what is new off the screen
_ID_CHARS: Final = 11  # two groups of the id, for lines that people read
_TRANSFER_CHARS: Final = 8
LANDING: Final = ".tnt-get-"  # how folders begin where something arrives to be taken away,
SPOOLED: Final = "pipe-"  # and those in the spool


def plain(line: Line) -> str:
    """A line without its styles."""
    return "".join(text for _, text in line)


def note(text: str) -> Line:
    """A line of ours about what happened."""
    return [(NOTE, "* "), (PLAIN, visible(text))]


def trouble(text: str, hint: str = "") -> Line:
    """A line about what went wrong, and what to do."""
    line: Line = [(BAD, "! "), (PLAIN, visible(text))]
    return [*line, (DIM, f"; {visible(hint)}")] if hint else line


def separator(text: str) -> Line:
    """A dim line between others."""
    return [(DIM, f"-- {visible(text)} --")]


def short(id: str) -> str:
    """The first groups of a contact's id."""
    return visible(id[:_ID_CHARS])


def transfer_id(transfer: Transfer) -> str:
    """Enough of a transfer's id to type."""
    return visible(transfer.id[:_TRANSFER_CHARS])


# -- messages -----------------------------------------------------------------------------


def is_own(message: Message, own_name: str) -> bool:
    """Whether we sent it.  A contact may have our very name, then it is the conversation's."""
    return message.from_ == own_name and message.conversation != own_name


def message(
    message: Message, own_name: str, *, elsewhere: bool = False, faint: bool = False, mark: str = ""
) -> list[Line]:
    """A message as lines.

    `elsewhere`: it belongs to another conversation than the one being written to, and says so.
    `faint`: shown before, as context.  `mark`: what else to say, dim, at the end.
    """
    if message.kind == "notice":
        return [[(DIM, f"[{figures.clock(message.sent_at)}] * {visible(message.text)}")]]
    first, *rest = visible(message.text, lines=True).replace("\t", "    ").split("\n")
    who = _who(message, own_name, elsewhere)
    lines: list[Line] = [[(DIM, f"[{figures.clock(message.sent_at)}] "), *who, (PLAIN, first)]]
    if faint and len(rest) > _FAINT_LINES_MAX:
        more = figures.count(len(rest) - _FAINT_LINES_MAX, "more line")
        rest = [*rest[:_FAINT_LINES_MAX], f"… {more}"]
    lines += [[(PLAIN, _INDENT + text)] for text in rest]
    if elsewhere:
        lines[-1].append((DIM, f"   (/to {visible(message.conversation)})"))
    if mark:
        lines[-1].append((DIM, f"   ({mark})"))
    if faint:
        return [[(DIM, plain(line))] for line in lines]
    return lines


def _who(message: Message, own_name: str, elsewhere: bool) -> Line:
    name = visible(message.from_)
    if not is_own(message, own_name):
        return [(ELSEWHERE if elsewhere else NAME, name), (PLAIN, ": ")]
    if elsewhere:
        return [(OWN, name), (PLAIN, f" -> {visible(message.conversation)}: ")]
    return [(OWN, name), (PLAIN, ": ")]


def conversation(messages: Iterable[Message], own_name: str, today: str = "") -> list[Line]:
    """Messages with the date between them where the day changes from `today` on."""
    lines: list[Line] = []
    day = today
    for item in messages:
        if figures.day(item.sent_at) != day:
            day = figures.day(item.sent_at)
            lines.append(separator(day))
        mark = "queued" if is_own(item, own_name) and item.state == "queued" else ""
        lines += message(item, own_name, mark=mark)
    return lines


# -- contacts -----------------------------------------------------------------------------


def contact_state(contact: Contact) -> str:
    """Where things stand with a contact, in a few words."""
    if contact.trust == "blocked":
        return "blocked"
    if contact.trust == "pending":
        return "asks to talk to you"
    if not contact.mutual:
        return "has not accepted you yet"
    return "online" if contact.online else "offline"


def contact_line(contact: Contact, width: int = 0) -> Line:
    """One line of the list of contacts; `width` is that of the longest name."""
    state = contact_state(contact)
    style = GOOD if state == "online" else PLAIN
    details = []
    if contact.trust == "accepted":
        details.append("not verified")
    if contact.trust == "verified":
        details.append("verified")
    if contact.unread:
        details.append(f"{contact.unread} unread")
    if contact.queued:
        details.append(f"{contact.queued} queued")
    return [
        (NAME, visible(contact.name).ljust(width)),
        (DIM, f"  {short(contact.id)}  "),
        (style, state),
        (PLAIN, "".join(f", {detail}" for detail in details)),
    ]


def contacts(items: list[Contact]) -> list[Line]:
    """The list of contacts."""
    width = max((len(visible(contact.name)) for contact in items), default=0)
    return [contact_line(contact, width) for contact in items]


def request(contact: Contact) -> Line:
    """A contact request, with what to type."""
    name = visible(contact.name)
    return [
        (NOTE, "* "),
        (NAME, name),
        (PLAIN, f" ({short(contact.id)}) asks to talk to you: /accept {name} or /block {name}"),
    ]


def connected(contact: Contact, slash: str = "") -> Line:
    """What a connect led to.  `slash` goes before the verbs named, "/" in the REPL."""
    name = visible(contact.name)
    line: Line = [
        (NOTE, "* "),
        (PLAIN, "connected to "),
        (NAME, name),
        (PLAIN, f" ({short(contact.id)})"),
    ]
    if not contact.mutual:
        # They may have, and their word of it be on its way.
        return [*line, (PLAIN, "; what you send goes once they have accepted you")]
    if contact.trust != "verified":
        return [*line, (DIM, f"   verify with {slash}verify {name}")]
    return line


# -- transfers ----------------------------------------------------------------------------


def transfer_what(transfer: Transfer) -> str:
    """Name and size: "photo.jpg (1.2 MiB)", "photos (212 files, 1.2 GiB)"."""
    name, size = visible(transfer.name), figures.size(bytes_known(transfer))
    if transfer.counting and is_one_file(transfer):
        return f"{name} (at least {size})"
    if transfer.counting:
        found = f"at least {figures.count(transfer.files, 'file')}, {size}"
        return f"{name} ({found if transfer.files else 'being counted'})"
    many = "" if is_one_file(transfer) else f"{figures.count(transfer.files, 'file')}, "
    return f"{name} ({many}{size})"


def bytes_known(transfer: Transfer) -> int:
    """Its size; or at least so much, where it is still counted: of a pipe, and of a large folder,
    more may be here than was told."""
    if not transfer.counting:
        return transfer.bytes_total
    return max(transfer.bytes_total, transfer.bytes_done)


def transfer_percent(transfer: Transfer) -> int:
    """How much of it there is; 100 only where all of it is over and done."""
    if transfer.state == "done":
        return figures.percent(transfer.bytes_done, transfer.bytes_total)
    return min(99, figures.percent(transfer.bytes_done, max(1, transfer.bytes_total)))


def is_one_file(transfer: Transfer) -> bool:
    """Whether it is a file, not a folder with one in it."""
    return transfer.files == 1 and transfer.kind == "file"


def transfer_peer(transfer: Transfer) -> str:
    """Direction and contact: "to bob", "from bob"."""
    return f"{'to' if transfer.direction == 'out' else 'from'} {visible(transfer.contact)}"


def queued(transfer: Transfer) -> Line:
    """What a send led to."""
    return note(f"{transfer_what(transfer)} is queued for {visible(transfer.contact)}")


def transfer_news(transfer: Transfer, slash: str = "") -> Line | None:
    """The line that a new state of a transfer deserves, None for one that needs none."""
    what, peer = transfer_what(transfer), transfer_peer(transfer)
    if transfer.state == "done":
        return _transfer_done(transfer, what, slash)
    if transfer.state == "failed":
        return trouble(f"{what} {peer} failed: {transfer_failure(transfer, slash)}")
    if transfer.state == "paused":
        reason = f": {transfer.error}" if transfer.error else ""
        return note(f"{what} {peer} is paused{reason}; {slash}resume {transfer_id(transfer)}")
    if transfer.state in ("cancelled", "declined"):
        reason = f": {transfer.error}" if transfer.error else ""
        return note(f"{what} {peer} was {transfer.state}{reason}")
    if transfer.state == "offered" and transfer.direction == "in":
        id = transfer_id(transfer)
        return note(
            f"{visible(transfer.contact)} offers {what}: {slash}get {id} or {slash}decline {id}"
        )
    return None


def waiting_words(transfer: Transfer) -> str:
    """State and reason of a transfer that waits: "queued", "offered: bob is asked"."""
    reason = waiting_reason(transfer)
    return f"{transfer.state}: {reason}" if reason else transfer.state


def waiting_reason(transfer: Transfer) -> str:
    """What a transfer that waits waits for, "" where that is not known, or just its turn."""
    if transfer.error:
        return visible(transfer.error)
    asked = transfer.state == "offered" and transfer.direction == "out"
    return f"{visible(transfer.contact)} is asked" if asked else ""


def away(contact: Contact) -> str:
    """What waits for a contact who is offline, or has not accepted us, waits for."""
    if not contact.mutual:
        return f"{visible(contact.name)} has not accepted you yet; it goes when they have"
    return f"{visible(contact.name)} is offline; it goes on when they are back"


def nobody(asking: Contact | None) -> str:
    """What to type where there is nobody to talk to; `asking` is somebody who wants to."""
    return "/connect ADDRESS" if asking is None else f"/accept {visible(asking.name)}"


def transfer_failure(transfer: Transfer, slash: str = "") -> str:
    """Why a transfer failed, in words; where files of it failed, with what to do about them."""
    error = shortened(transfer.error or "")
    if not transfer.failed or transfer.files < 1 or is_one_file(transfer):
        return error or "no reason was given"
    id = transfer_id(transfer)
    which = f"{transfer.failed:,} of {figures.count(transfer.files, 'file')} failed"
    told = f"; {error}" if error else ""
    helps = transfer.direction == "out" and not error.endswith(FOR_EVER)
    more = f", {slash}again {id} sends them once more" if helps else ""
    return f"{which}{told}; {slash}files {id} tells why{more}"


def shortened(error: str) -> str:
    """A reason that begins with a path without its middle, where that is long."""
    if len(error) <= _ERROR_CHARS_MAX:
        return error
    return f"{error[: _ERROR_CHARS_MAX // 3]}…{error[-_ERROR_CHARS_MAX // 2 :]}"


def _transfer_done(transfer: Transfer, what: str, slash: str) -> Line:
    left_out = ""
    if transfer.skipped:
        why = f"{slash}files {transfer_id(transfer)} tells why"
        left_out = f"; {figures.count(transfer.skipped, 'file')} left out, {why}"
    if transfer.direction == "out":
        return note(f"{visible(transfer.contact)} has {what}{left_out}")
    place = f": {visible(lasting_path(transfer))}" if lasting_path(transfer) else ""
    return note(f"received {what} from {visible(transfer.contact)}{place}{left_out}")


def lasting_path(transfer: Transfer) -> str:
    """Where what has arrived is to be found; "" where somebody takes it away from there at once
    (get -o)."""
    path = transfer.path or ""
    folder = path.rpartition("/")[0].rpartition("/")[2]
    return "" if folder.startswith((LANDING, SPOOLED)) else path


def transfer_line(transfer: Transfer, slash: str = "", still_there: bool = False) -> Line:
    """One line of the list of transfers.  `still_there`: what was to be taken away from where it
    arrived has not been."""
    state = transfer.state
    line: Line = [
        (DIM, f"{transfer_id(transfer)}  "),
        (PLAIN, f"{transfer_peer(transfer)}  {transfer_what(transfer)}  "),
        (BAD if state == "failed" else GOOD if state == "done" else PLAIN, state),
    ]
    if state in ("active", "paused"):
        line.append((PLAIN, f" {transfer_progress(transfer)}"))
    if state == "active" and transfer.eta_s:
        line.append((PLAIN, f", {figures.duration(transfer.eta_s)} left"))
    failed = 0 if is_one_file(transfer) else transfer.failed  # of one file, the state says it
    counts = (("failed", failed, BAD), ("skipped", transfer.skipped, NOTE))
    line += [(style, f", {count:,} {what}") for what, count, style in counts if count]
    if failed or transfer.skipped:
        line.append((DIM, f" ({slash}files {transfer_id(transfer)})"))
    place = (transfer.path or "") if still_there else lasting_path(transfer)
    if transfer.error:
        line.append((DIM, f"  {visible(shortened(transfer.error))}"))
    elif state == "offered" and waiting_reason(transfer):
        line.append((DIM, f"  {waiting_reason(transfer)}"))
    elif place and state == "done" and transfer.direction == "in":
        line.append((DIM, f"  {visible(place)}"))
    return line


def transfer_progress(transfer: Transfer) -> str:
    """How far a running transfer is: "43% 12.3 MiB/s"; while it is counted there is no percent."""
    if transfer.counting:
        done = f"{figures.size(transfer.bytes_done)} so far"
    else:
        done = f"{transfer_percent(transfer)}%"
    rate = figures.rate(transfer.rate) if transfer.state == "active" else ""
    return f"{done} {rate}".rstrip()


# -- the daemon ---------------------------------------------------------------------------


def status(status: Status) -> list[Line]:
    """The daemon in a few lines."""
    transfers = status.transfers
    rows = (
        ("name", visible(status.name)),
        ("id", visible(status.id)),
        ("version", visible(status.version)),
        ("running for", figures.duration(status.uptime_s)),
        ("peer port", str(status.peer_port)),
        ("contacts", f"{status.contacts}, {figures.count(status.links, 'link')} to them"),
        ("clients", str(status.clients)),
        ("transfers", f"{transfers.active} active, {transfers.queued} queued"),
        ("memory", figures.size(status.rss_bytes)),
    )
    return [[(DIM, f"{name:12}"), (PLAIN, value)] for name, value in rows]
