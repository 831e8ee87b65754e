"""Timers, pulse, back-off, addresses, names, rates and states: the small pure parts."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tntd import limits
from tntd.control.names import check_name
from tntd.errors import CommandError, RemoteError
from tntd.machines.addresses import parse_address, plain_host, show_address, told_addresses
from tntd.machines.identity import Identity, id_to_key, key_to_id, verify_accept, verify_dial
from tntd.machines.naming import check_file_name, final_name, fold, local_name, show_path
from tntd.machines.pulse import Act, Pulse, backoff
from tntd.machines.timers import Timers
from tntd.machines.transfer import NEXT, Rate, State, may_follow


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20), st.booleans())))
def test_timers_are_like_a_plain_table(steps: list[tuple[int, int, bool]]) -> None:
    timers: Timers[int] = Timers()
    table: dict[int, float] = {}
    for name, at, keep in steps:
        if keep:
            timers.set(name, at)
            table[name] = at
        else:
            timers.cancel(name)
            table.pop(name, None)
        assert timers.nearest() == min(table.values(), default=None)
    due = timers.pop_due(10)
    assert sorted(due) == sorted(name for name, at in table.items() if at <= 10)
    assert [table[name] for name in due] == sorted(table[name] for name in due)
    assert timers.nearest() == min((at for at in table.values() if at > 10), default=None)


def test_pulse_pings_after_silence_and_gives_up_without_an_answer() -> None:
    pulse = Pulse(100.0)
    assert pulse.deadline() == 100.0 + limits.KEEPALIVE_S
    assert pulse.act(101.0) is Act.WAIT
    assert pulse.act(pulse.deadline()) is Act.PING
    pulse.probe(130.0, 15.0)
    assert pulse.act(144.0) is Act.WAIT
    assert pulse.act(145.0) is Act.GIVE_UP
    pulse.heard(144.5)
    assert pulse.act(145.0) is Act.WAIT


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_pings_of_many_links_are_due_together(one: float, other: float) -> None:
    first, second = Pulse(one).deadline(), Pulse(other).deadline()
    assert -1e-6 < first - one - limits.KEEPALIVE_S < limits.KEEPALIVE_STEP_S
    assert first == second or abs(first - second) >= limits.KEEPALIVE_STEP_S


def test_a_nearer_probe_is_not_put_off_by_a_later_one() -> None:
    pulse = Pulse(0.0)
    pulse.probe(1.0, 3.0)
    pulse.probe(2.0, 15.0)
    assert pulse.deadline() == 4.0


def test_a_ping_from_before_a_suspend_does_not_end_the_link() -> None:
    pulse = Pulse(0.0)
    pulse.probe(1.0, 15.0)
    pulse.probe(5000.0, 3.0)
    assert pulse.deadline() == 5003.0


@given(st.integers(0, 1000), st.floats(0, 1))
def test_backoff_stays_in_bounds(tries: int, jitter: float) -> None:
    delay = backoff(tries, jitter)
    assert limits.BACKOFF_FIRST_S / 2 <= delay <= limits.BACKOFF_MAX_S


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("6000", "", 6000),
        (" localhost:1 ", "localhost", 1),
        ("[::1]:65535", "::1", 65535),
        ("[fe80::1%eth0]:7", "fe80::1%eth0", 7),
        ("example.org:80", "example.org", 80),
    ],
)
def test_addresses_that_people_type(text: str, host: str, port: int) -> None:
    assert parse_address(text) == (host, port)


@pytest.mark.parametrize(
    "text", ["", "0", "65536", "host", "host:", ":80", "::1:80", "a b:80", "[::1]", "h:99999", "٣"]
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(CommandError):
        parse_address(text)


@given(st.ip_addresses(), st.integers(1, 65535))
def test_shown_addresses_can_be_typed_again(ip: object, port: int) -> None:
    assert parse_address(show_address(str(ip), port)) == (str(ip), port)


def test_what_a_peer_tells_of_itself_is_believed_only_so_far() -> None:
    told = ["127.0.0.1:5", "10.0.0.7:5", "evil.example:5", "0.0.0.0:5", "nonsense", "[fe80::1]:5"]
    assert told_addresses(told, 9, "192.0.2.1") == [("192.0.2.1", 9), ("10.0.0.7", 5)]
    near = told_addresses(told, 0, "127.0.0.1")
    assert near == [("127.0.0.1", 5), ("10.0.0.7", 5), ("fe80::1", 5)]
    assert plain_host("::ffff:10.0.0.1") == "10.0.0.1"


@given(st.binary(min_size=32, max_size=32))
def test_ids_are_the_key(key: bytes) -> None:
    text = key_to_id(key)
    assert id_to_key(text) == id_to_key(text.replace("-", "").upper()) == key
    assert id_to_key(text[:-1]) is None


def test_signatures_are_bound_to_connection_role_and_keys() -> None:
    alice, bob = Identity(b"a" * 32), Identity(b"b" * 32)
    here, elsewhere = b"x" * 32, b"y" * 32
    dial, accept = alice.sign_dial(here), bob.sign_accept(here, alice.public)
    verify_dial(alice.public, dial, here)
    verify_accept(bob.public, accept, here, alice.public)
    for key, signature, exporter in [
        (alice.public, dial, elsewhere),
        (bob.public, dial, here),
        (bob.public, accept, here),
    ]:
        with pytest.raises(RemoteError):
            verify_dial(key, signature, exporter)
    with pytest.raises(RemoteError):
        verify_accept(bob.public, accept, here, bob.public)


@pytest.mark.parametrize(
    "name",
    ["", ".", "-x", "a b", "a/b", "a\nb", "a\x1b[2J", "#room", "x" * 65, "x,y", "a+b", "a$", "🙂"],
)
def test_names_that_cannot_be_used(name: str) -> None:
    with pytest.raises(CommandError):
        check_name(name)


@pytest.mark.parametrize("name", ["bob", "b.o-b_2", "Zoë", "हिन्दी", "日本", "e\u0301", "٣"])
def test_names_that_can(name: str) -> None:
    assert check_name(name) == unicodedata.normalize("NFC", name)


@given(st.text(min_size=1, max_size=64), st.sets(st.text(max_size=3)))
def test_local_names_are_usable_and_unique(hint: str, taken: set[str]) -> None:
    folded = {fold(name) for name in taken}
    name = local_name(hint, folded)
    assert check_name(name) == name
    assert fold(name) not in folded
    assert fold(local_name(name, {fold(name)})) != fold(name)


def test_names_that_look_alike_are_the_same() -> None:
    assert fold("Straße") == fold("STRASSE")
    assert fold("ﬁ") == fold("fi")
    assert local_name("ALICE", {fold("alice")}) == "ALICE-2"


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/etc/passwd", b"a\0b", b"x" * 256])
def test_file_names_that_are_refused(name: bytes) -> None:
    with pytest.raises(RemoteError):
        check_file_name(name)


@given(st.binary(min_size=1, max_size=255), st.integers(0, 9999))
def test_final_names_are_single_and_harmless(name: bytes, number: int) -> None:
    final = final_name("new_", name, number)
    check_file_name(final)
    assert final.startswith(b"new_")
    for character in final.decode("utf-8", "surrogateescape"):
        assert unicodedata.category(character) not in ("Cc", "Zl", "Zp")


def test_final_names_of_the_first_demo() -> None:
    assert final_name("new_", b"sample.txt", 0) == b"new_sample.txt"
    assert final_name("new_", b"sample.txt", 1) == b"new_sample (1).txt"
    assert final_name("new_", b".profile", 1) == b"new_.profile (1)"
    assert final_name("new_", b"a\x1b[2J.txt", 0) == b"new_a%1B[2J.txt"
    long = final_name("new_", "ü".encode() * 125 + b".jpeg", 12)
    assert len(long) <= 255
    assert long.endswith(b" (12).jpeg")
    long.decode()


@pytest.mark.parametrize(
    ("prefix", "name", "final"),
    [
        ("", b"CON", b"%43ON"),
        ("", b"nul.tar.gz", b"%6Eul.tar.gz"),
        ("", b"Com1 .txt", b"%43om1 .txt"),
        ("", b"lpt\xc2\xb9", b"%6Cpt\xc2\xb9"),
        ("C", b"ON.txt", b"C%4FN.txt"),
        ("", b"console", b"console"),
        ("", b"COM10", b"COM10"),
        ("new_", b"CON", b"new_CON"),
    ],
)
def test_no_final_name_is_a_device_of_windows(prefix: str, name: bytes, final: bytes) -> None:
    assert final_name(prefix, name, 0) == final
    check_file_name(final_name(prefix, name, 1))


def test_paths_that_are_no_utf8_are_shown_and_found_again() -> None:
    assert show_path("/ü".encode()) == ("/ü", None)
    assert show_path(b"/a\xff b") == ("/a%FF b", "/a%FF%20b")


def test_the_table_of_states_is_closed() -> None:
    assert set(NEXT) == set(State)
    assert may_follow("queued", "active")
    assert not may_follow("done", "active")
    assert all(new in set(State) for states in NEXT.values() for new in states)


def test_the_rate_is_of_the_last_seconds() -> None:
    rate = Rate(0.0, 0)
    assert rate.per_second(0.0) == 0
    rate.note(1.0, 100)
    assert rate.per_second(1.0) == 100
    for second in range(2, 20):
        rate.note(float(second), 100 + (second - 1) * 1000)
    assert rate.per_second(19.0) == 1000


@given(
    st.lists(st.tuples(st.integers(1, 80), st.integers(0, 10**9)), max_size=40),
    st.integers(1, 200),
)
def test_the_rate_is_what_came_within_its_window(steps: list[tuple[int, int]], wait: int) -> None:
    """Times are in sixteenths of a second, which floats hold exactly."""
    now, done, came = 0.0, 0, [(0.0, 0)]
    rate = Rate(now, done)
    for passed, count in steps:
        now, done = now + passed / 16, done + count
        rate.note(now, done)
        came.append((now, count))
    now += wait / 16
    since = max(0.0, now - Rate.WINDOW_S)
    within = sum(count for at, count in came if at > since)
    assert rate.per_second(now) == int(within / (now - since))
    assert rate.per_second(now + Rate.WINDOW_S) == 0
