"""Whom a name, an id or its beginning means, whatever others call themselves."""

from __future__ import annotations

import pytest

from fuzz.bench import Bench
from tntd.errors import Code, CommandError
from tntd.machines.identity import key_to_id, short_id
from tntd.node.contacts import Contacts
from tntd.node.core import Core

BOB, MALLORY = bytes(range(32)), b"m" * 32


@pytest.fixture
def contacts() -> Contacts:
    bench = Bench()
    return Contacts(Core(bench.store, bench.profile))


def meant(contacts: Contacts, who: str) -> bytes | Code:
    try:
        return contacts.find(who).key
    except CommandError as error:
        return error.code


def test_a_stranger_cannot_be_called_like_the_id_of_a_contact(contacts: Contacts) -> None:
    contacts.request(BOB, "bob")
    id = key_to_id(BOB)
    for size in (4, 5, 11, 17, len(id)):
        stranger = contacts.request(bytes([size]) * 32, id[:size].upper())
        assert stranger.name.startswith("someone")
        assert meant(contacts, id[:size]) == BOB
    assert meant(contacts, "bob") == BOB


def test_who_was_called_so_before_does_not_stand_in_for_who_comes(contacts: Contacts) -> None:
    contacts.request(MALLORY, short_id(BOB))
    assert meant(contacts, short_id(BOB)) == MALLORY
    contacts.request(BOB, "bob")
    assert meant(contacts, short_id(BOB)) is Code.AMBIGUOUS
    assert meant(contacts, key_to_id(BOB)) == BOB
    assert meant(contacts, key_to_id(MALLORY)) == MALLORY


def test_a_name_wins_over_a_few_letters_of_an_id(contacts: Contacts) -> None:
    anna = contacts.request(MALLORY, key_to_id(BOB)[:4])
    contacts.request(BOB, "bob")
    assert meant(contacts, anna.name) == MALLORY


def test_beginnings_of_ids(contacts: Contacts) -> None:
    keys = [BOB, BOB[:8] + bytes(24), b"\xff" * 32]
    for key in keys:
        contacts.request(key, "x")
    for key in keys:
        id = key_to_id(key)
        assert meant(contacts, id) == meant(contacts, id[:20]) == meant(contacts, id[:-1]) == key
    assert meant(contacts, key_to_id(BOB)[:6]) is Code.AMBIGUOUS
    assert meant(contacts, "777") is Code.NO_SUCH_CONTACT
    assert meant(contacts, "7777") == keys[2]
    for who in ("----", "0000", "äöüß", "x" * 53, "a" * 200, "9999-9999-99", "\u0130" * 5):
        assert meant(contacts, who) is Code.NO_SUCH_CONTACT
