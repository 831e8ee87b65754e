"""The gate: places, rates, the reserve for contacts, and bounded memory."""

from __future__ import annotations

import pytest

from tntd import limits
from tntd.machines.gate import Gate, Place, Refusal, network_of


def admitted(gate: Gate, hosts: list[str], now: float) -> list[Place]:
    found = [gate.admit(host, now) for host in hosts]
    return [each for each in found if isinstance(each, Place)]


def many(count: int, first: int = 10) -> list[str]:
    """Addresses in networks of their own."""
    return [f"{first}.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}" for n in range(count)]


def test_one_network_gets_its_share_of_places():
    gate = Gate(0.0)
    places = admitted(gate, ["192.0.2.1"] * 40, 0.0)
    assert len(places) == limits.STRANGERS_PER_ADDRESS_MAX
    assert gate.admit("192.0.2.1", 0.0) is Refusal.NETWORK_FULL
    assert isinstance(gate.admit("192.0.2.2", 0.0), Place)
    gate.leave(places[0])
    assert isinstance(gate.admit("192.0.2.1", 0.0), Place)


def test_an_ipv6_network_is_one_source():
    gate = Gate(0.0)
    hosts = [f"2001:db8::{n:x}" for n in range(100)]
    assert len(admitted(gate, hosts, 0.0)) == limits.STRANGERS_PER_ADDRESS_MAX
    assert isinstance(gate.admit("2001:db8:0:1::1", 0.0), Place)


def test_all_strangers_together_are_bounded():
    gate = Gate(0.0)
    places = admitted(gate, many(1000), 0.0)
    assert len(places) == limits.STRANGERS_MAX
    assert gate.admit("192.0.2.1", 0.0) is Refusal.FULL


def test_handshakes_of_one_network_come_at_a_rate():
    gate = Gate(0.0)
    for _ in range(limits.ADDRESS_BURST):
        place = gate.admit("192.0.2.1", 0.0)
        assert isinstance(place, Place)
        gate.leave(place)
    assert gate.admit("192.0.2.1", 0.0) is Refusal.NETWORK_RATE
    assert isinstance(gate.admit("192.0.2.1", 1.0 / limits.ADDRESS_RATE_PER_S), Place)
    assert gate.admit("192.0.2.1", 1.0 / limits.ADDRESS_RATE_PER_S) is Refusal.NETWORK_RATE


def test_all_handshakes_come_at_a_rate():
    gate = Gate(0.0)
    for host in many(limits.HANDSHAKE_BURST):
        place = gate.admit(host, 0.0)
        assert isinstance(place, Place)
        gate.leave(place)
    assert gate.admit("192.0.2.1", 0.0) is Refusal.RATE
    assert isinstance(gate.admit("192.0.2.1", 0.1), Place)


def test_a_refusal_costs_no_token():
    gate = Gate(0.0)
    places = admitted(gate, many(1000), 0.0)
    gate.leave(places[0])
    assert isinstance(gate.admit("192.0.2.1", 0.0), Place)


def test_a_lane_that_proved_to_be_one_costs_no_handshake():
    """However many small files somebody sends, none is kept out for how many there were."""
    gate = Gate(0.0)
    gate.vouch(frozenset({"192.0.2.1"}))
    for _ in range(10 * limits.HANDSHAKE_BURST):
        place = gate.admit("192.0.2.1", 0.0)
        assert isinstance(place, Place)
        gate.leave(place, free=True)
    for _ in range(2 * limits.ADDRESS_BURST):
        place = gate.admit("192.0.2.1", 0.0)
        assert isinstance(place, Place)
        gate.leave(place)
    assert gate.admit("192.0.2.1", 0.0) is Refusal.NETWORK_RATE


def test_contacts_come_in_while_strangers_flood():
    gate = Gate(0.0)
    gate.vouch(frozenset({"192.0.2.1", "2001:db8::1"}))
    admitted(gate, many(1000), 0.0)
    assert isinstance(gate.admit("192.0.2.1", 0.0), Place)
    assert isinstance(gate.admit("2001:db8::1", 0.0), Place)
    assert gate.admit("2001:db8::2", 0.0) is Refusal.FULL


def test_one_contact_address_cannot_take_the_whole_reserve():
    gate = Gate(0.0)
    hosts = many(5, first=192)
    gate.vouch(frozenset(hosts))
    admitted(gate, many(1000), 0.0)
    places = admitted(gate, [hosts[0]] * 30, 0.0)
    assert len(places) == limits.CONTACT_RESERVE_PER_ADDRESS_MAX
    rest = admitted(gate, hosts[1:] * 30, 0.0)
    assert len(places) + len(rest) == limits.CONTACT_RESERVE_MAX


def test_a_contact_may_use_a_strangers_place_too():
    gate = Gate(0.0)
    gate.vouch(frozenset({"192.0.2.1"}))
    places = admitted(gate, ["192.0.2.1"] * 100, 0.0)
    expected = limits.CONTACT_RESERVE_PER_ADDRESS_MAX + limits.STRANGERS_PER_ADDRESS_MAX
    assert len(places) == expected


def test_what_is_remembered_is_bounded_and_who_holds_a_place_is_not_forgotten():
    gate = Gate(0.0)
    held = admitted(gate, ["192.0.2.1"] * 32, 0.0)
    now = 0.0
    for host in many(3 * limits.NETWORKS_TRACKED_MAX):
        now += 0.1
        place = gate.admit(host, now)
        if isinstance(place, Place):
            gate.leave(place)
    assert len(gate._strangers.sources) <= limits.NETWORKS_TRACKED_MAX
    assert len(held) == 32
    assert gate.admit("192.0.2.1", now) is Refusal.NETWORK_FULL


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("not an address", "not an address"),
    ],
)
def test_networks(host: str, network: str):
    assert network_of(host) == network
