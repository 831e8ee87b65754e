"""Who may come in: places and rates for connections that have not said who they are.

What holds always: strangers hold at most STRANGERS_MAX places, and one network (an IPv4 address
or an IPv6 /64) at most STRANGERS_PER_ADDRESS_MAX of them; handshakes, which cost time, are paid
for from a bucket for all and one for each network; a lane that has proved to be one costs none.
Addresses of contacts have places and a bucket of their own, so that no flood of strangers keeps a
contact out; where these are used up, or an address has had its share of them, it is treated like a
stranger's.  What is remembered is bounded.

Not by address alone: whoever has one IPv6 address has 2^64 of them.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum

from tntd import limits


class Refusal(Enum):
    """Why a connection is not taken."""

    FULL = "too many strangers at once"
    NETWORK_FULL = "too many strangers from one network"
    RATE = "too many handshakes"
    NETWORK_RATE = "too many handshakes from one network"


@dataclass(slots=True)
class Bucket:
    """A token bucket: `rate` tokens a second, at most `burst` of them saved."""

    rate: float
    burst: float
    level: float
    at: float

    @classmethod
    def full(cls, rate: float, burst: float, now: float) -> Bucket:
        """One that was not used for long."""
        return cls(rate, burst, burst, now)

    def has(self, now: float) -> bool:
        """Whether there is a token at `now` (boot seconds)."""
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        return self.level >= 1


@dataclass(slots=True)
class _Source:
    """A network, or the address of a contact."""

    bucket: Bucket
    places: int = 0


@dataclass(slots=True)
class _Hall:
    """The places and buckets of either strangers or contacts."""

    places_max: int
    source_places_max: int
    bucket: Bucket
    places: int = 0
    sources: OrderedDict[str, _Source] = field(default_factory=OrderedDict)


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A place that somebody holds until `Gate.leave`."""

    hall: _Hall
    source: _Source


class Gate:
    """Admits connections; `now` is boot seconds."""

    def __init__(self, now: float) -> None:
        self._contacts: frozenset[str] = frozenset()
        self._strangers = _Hall(
            limits.STRANGERS_MAX,
            limits.STRANGERS_PER_ADDRESS_MAX,
            Bucket.full(limits.HANDSHAKE_RATE_PER_S, limits.HANDSHAKE_BURST, now),
        )
        self._reserve = _Hall(
            limits.CONTACT_RESERVE_MAX,
            limits.CONTACT_RESERVE_PER_ADDRESS_MAX,
            Bucket.full(limits.CONTACT_RATE_PER_S, limits.HANDSHAKE_BURST, now),
        )

    def vouch(self, hosts: frozenset[str]) -> None:
        """These numeric hosts are addresses of contacts, and no others are."""
        self._contacts = hosts

    def admit(self, host: str, now: float) -> Place | Refusal:
        """A place for a connection from the numeric `host`, or why there is none."""
        if host in self._contacts:
            found = _enter(self._reserve, host, now)
            if isinstance(found, Place):
                return found
        return _enter(self._strangers, network_of(host), now)

    def leave(self, place: Place, *, free: bool = False) -> None:
        """Give a place back; to be called once.  `free`: it has cost no handshake, so that it does
        not count for the rates."""
        place.hall.places -= 1
        place.source.places -= 1
        if free:
            place.hall.bucket.level += 1
            place.source.bucket.level += 1


def network_of(host: str) -> str:
    """What counts as one source: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{ipaddress.IPv6Address(int(address) >> 64 << 64)}/64"


def _enter(hall: _Hall, name: str, now: float) -> Place | Refusal:
    source = hall.sources.pop(name, None)
    if source is None:
        bucket = Bucket.full(limits.ADDRESS_RATE_PER_S, limits.ADDRESS_BURST, now)
        source = _Source(bucket)
    hall.sources[name] = source  # last, as the one seen last
    _forget(hall)
    refusal = _reason_against(hall, source, now)
    if refusal is not None:
        return refusal
    hall.bucket.level -= 1
    source.bucket.level -= 1
    hall.places += 1
    source.places += 1
    return Place(hall, source)


def _reason_against(hall: _Hall, source: _Source, now: float) -> Refusal | None:
    if source.places >= hall.source_places_max:
        return Refusal.NETWORK_FULL
    if hall.places >= hall.places_max:
        return Refusal.FULL
    if not source.bucket.has(now):
        return Refusal.NETWORK_RATE
    if not hall.bucket.has(now):
        return Refusal.RATE
    return None


def _forget(hall: _Hall) -> None:
    """Keep NETWORKS_TRACKED_MAX sources: the one not seen for longest goes, unless it holds a
    place.  Whoever uses many networks to be forgotten still meets the bucket for all."""
    if len(hall.sources) <= limits.NETWORKS_TRACKED_MAX:
        return
    for name, source in hall.sources.items():
        if not source.places:
            del hall.sources[name]
            return
