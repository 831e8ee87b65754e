"""Every setting with its default and meaning, as one value.

The TOML file has these names; `tntd --print-config` prints this table; command-line options win.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from tntd.limits import GIB, LANES_MAX, TOLD_ADDRESS_CHARS_MAX

Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
# Longer ones would be malformed for whom they are told, and end every link.
ToldAddress = Annotated[str, msgspec.Meta(min_length=1, max_length=TOLD_ADDRESS_CHARS_MAX)]
ListenAddress = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one profile.  A field's meaning stands in `HELP`."""

    listen: list[ListenAddress] = []
    control: str = ""
    downloads: str = ""
    prefix: Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[^/\\\x00-\x1f]*$")] = "new_"
    auto_accept_bytes_max: Bytes = 10 * GIB
    reserve_bytes: Bytes = 1 * GIB
    ask_always: bool = False
    transfers_max: Annotated[int, msgspec.Meta(ge=1, le=LANES_MAX)] = 8
    transfers_per_contact_max: Annotated[int, msgspec.Meta(ge=1, le=LANES_MAX)] = 3
    upload_bytes_per_s: Bytes = 0
    download_bytes_per_s: Bytes = 0
    strangers: bool = True
    advertise: Annotated[list[ToldAddress], msgspec.Meta(max_length=8)] | None = None
    learn_addresses: bool = True
    read_receipts: bool = True
    log_level: str = "info"


HELP: dict[str, str] = {
    "listen": "HOST:PORT to listen on for peers; empty: all interfaces, a port chosen and kept",
    "control": 'where clients attach: "unix:PATH" or "tcp:HOST:PORT"; empty: a Unix socket',
    "downloads": "the folder where files arrive; empty: your downloads folder",
    "prefix": "put before the name of what arrives",
    "auto_accept_bytes_max": "files up to this size are taken without a question",
    "reserve_bytes": "disk space that arriving files leave free",
    "ask_always": "true: every offer waits for you, whatever its size",
    "transfers_max": "how many move at once in each direction",
    "transfers_per_contact_max": "how many move at once to, or from, one contact",
    "upload_bytes_per_s": "the most that all files together may take; 0: no limit",
    "download_bytes_per_s": "the same for what arrives",
    "strangers": "false: only contacts get an answer, so nobody new can ask",
    "advertise": 'addresses told to contacts, "HOST:PORT"; unset: our port only; []: nothing',
    "learn_addresses": "remember the addresses at which contacts were met",
    "read_receipts": "tell contacts which of their messages you have seen",
    "log_level": "debug, info, warning or error",
}
