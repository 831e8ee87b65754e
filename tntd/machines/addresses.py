"""Addresses as people type them and as peers tell them: parsing, showing, and what to believe.

What holds always: what a peer tells is only ever a numeric address and a port, and one that
means "this machine" or "this cable" is believed only from a peer that was met there.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

from tntd.errors import Code, CommandError

_HINT = "give PORT for this machine, HOST:PORT, or [IPv6]:PORT"
_BRACKETED = re.compile(r"^\[([0-9A-Fa-f:.%\w]+)\]:(\d{1,5})$")
_PLAIN = re.compile(r"^([^\s:\[\]/]{1,253}):(\d{1,5})$")
THIS_MACHINE = ("127.0.0.1", "::1")


def parse_address(text: str) -> tuple[str, int]:
    """(host, port) of an address that a user typed; host is "" for this machine.

    Raises CommandError(INVALID_PARAMS).
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        return "", _port(text, text)
    found = _BRACKETED.match(text) or _PLAIN.match(text)
    if found is None:
        raise CommandError(Code.INVALID_PARAMS, f"not an address: {text[:80]!r}", _HINT)
    return found[1].lower(), _port(found[2], text)


def _port(digits: str, text: str) -> int:
    port = int(digits) if len(digits) <= 5 else 0
    if not 1 <= port <= 65_535:
        raise CommandError(
            Code.INVALID_PARAMS, f"not a port: {text[:80]!r}", "a port is a number from 1 to 65535"
        )
    return port


def show_address(host: str, port: int) -> str:
    """An address as it can be typed again."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@lru_cache(16_384)  # ipaddress is slow, and the addresses of all contacts are looked at together
def is_numeric(host: str) -> bool:
    """Whether the host is an IP address and needs no look-up."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def plain_host(host: str) -> str:
    """An IPv4 address that came mapped into IPv6, without the mapping."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def told_addresses(texts: list[str], port: int, met_at: str) -> list[tuple[str, int]]:
    """The addresses to believe of a peer that was met at the numeric host `met_at` and tells
    its listening `port` (0: none) and the addresses `texts`."""
    found = [(met_at, port)] if port else []
    for text in texts:
        try:
            host, told_port = parse_address(text)
            # A mapped one is the IPv4 address behind it, which may be this machine.
            address = ipaddress.ip_address(plain_host(host))
        except (CommandError, ValueError):
            continue
        if address.is_unspecified or address.is_multicast:
            continue
        if (address.is_loopback or address.is_link_local) and not _is_near(met_at):
            continue
        found.append((str(address), told_port))
    return list(dict.fromkeys(found))


def _is_near(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_link_local
