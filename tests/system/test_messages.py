"""Messages between real daemons: exactly once, in order, through kill -9 and absence."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness import Daemon, RpcError, connect_pair, wait_for

Start = Callable[..., Daemon]
EACH_WAY = 1_000
KILLS = 12


def drain(daemon: Daemon, other: str) -> bool:
    """Whether nothing waits for the other any more."""
    return int(daemon.contact(other)["queued"]) == 0


def test_a_message_is_delivered_and_its_states_are_told(daemon: Start) -> None:
    alice, bob = daemon("alice"), daemon("bob")
    connect_pair(alice, bob)
    watching = alice.client(subscribe=True)
    listening = bob.client(subscribe=True)
    sent = alice.rpc("messages.send", to="bob", text="hello ü 🎉 \x1b[2J")["message"]
    assert sent["state"] == "queued"
    assert sent["from"] == "alice"
    got = listening.wait_event("message.received")["message"]
    assert got["text"] == "hello ü 🎉 \x1b[2J", "the text is kept whole"
    assert got["from"] == "alice"
    assert got["id"] == sent["id"]
    delivered = watching.wait_event(
        "message.state", lambda event: event["message"]["state"] == "delivered"
    )
    assert delivered["message"]["id"] == sent["id"]
    bob.rpc("messages.read", conversation="alice", upto=got["id"])
    watching.wait_event("message.state", lambda event: event["message"]["state"] == "read")
    assert bob.contact("alice")["unread"] == 0


def test_messages_wait_for_a_peer_that_is_away(daemon: Start) -> None:
    alice, bob = daemon("alice"), daemon("bob")
    connect_pair(alice, bob)
    bob.kill9()
    for number in range(20):
        alice.rpc("messages.send", to="bob", text=str(number))
    assert alice.contact("bob")["queued"] == 20
    alice.restart()
    bob.start()
    wait_for(lambda: drain(alice, "bob"))
    assert bob.texts("alice") == [str(number) for number in range(20)]
    assert [m["state"] for m in alice.all_messages("bob")] == ["delivered"] * 20


def test_a_retried_send_is_one_message(daemon: Start) -> None:
    alice, bob = daemon("alice"), daemon("bob")
    connect_pair(alice, bob)
    first = alice.rpc("messages.send", to="bob", text="once", client_ref="r1")["message"]
    alice.restart()
    again = alice.rpc("messages.send", to="bob", text="once", client_ref="r1")["message"]
    assert again["id"] == first["id"]
    wait_for(lambda: drain(alice, "bob"))
    assert bob.texts("alice") == ["once"]


def test_a_thousand_each_way_while_both_are_killed(daemon: Start) -> None:
    """The promise of the project, at random moments; the seed is printed on failure."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    alice, bob = daemon("alice"), daemon("bob")
    connect_pair(alice, bob)
    kills = sorted(chance.sample(range(2 * EACH_WAY), KILLS))
    order = ["alice"] * EACH_WAY + ["bob"] * EACH_WAY
    chance.shuffle(order)
    numbers = {"alice": 0, "bob": 0}
    for step, name in enumerate(order):
        sender, other = (alice, "bob") if name == "alice" else (bob, "alice")
        ref = f"{name}-{numbers[name]}"
        sender.rpc("messages.send", to=other, text=str(numbers[name]), client_ref=ref)
        numbers[name] += 1
        while kills and kills[0] == step:
            kills.pop(0)
            chance.choice((alice, bob)).restart()
    wait_for(lambda: drain(alice, "bob") and drain(bob, "alice"), 60)
    expected = [str(number) for number in range(EACH_WAY)]
    for daemon_, other in ((alice, "bob"), (bob, "alice")):
        messages = daemon_.all_messages(other)
        got = [m["text"] for m in messages if m["from"] == other]
        assert got == expected
        assert {m["state"] for m in messages if m["from"] != other} == {"delivered"}


def test_killed_in_the_middle_of_a_burst(daemon: Start) -> None:
    """The replies that came are all of messages that arrive; none arrives twice."""
    alice, bob = daemon("alice"), daemon("bob")
    connect_pair(alice, bob)
    confirmed: list[str] = []
    for burst in range(6):
        client = alice.client()
        ids = [client.send("messages.send", to="bob", text=f"{burst}-{n}") for n in range(200)]
        for id in ids[: 20 * burst]:
            confirmed.append(client.reply(id)["message"]["text"])
        (bob if burst % 2 else alice).restart()
        if burst % 2:  # the sender lives on: all of the burst is confirmed
            confirmed += [client.reply(id)["message"]["text"] for id in ids[20 * burst :]]
    wait_for(lambda: drain(alice, "bob"), 60)
    got = [m["text"] for m in bob.all_messages("alice")]
    assert len(got) == len(set(got)), "nothing twice"
    assert got == [m["text"] for m in alice.all_messages("bob")], "the same on both sides"
    assert set(confirmed) <= set(got), "what was confirmed is there"
    assert [text for text in got if text in set(confirmed)] == confirmed


@pytest.mark.parametrize("size", [65_536, 65_537])
def test_the_longest_message(daemon: Start, size: int) -> None:
    alice, bob = daemon("alice"), daemon("bob")
    connect_pair(alice, bob)
    text = "x" * size
    if size > 65_536:
        with pytest.raises(RpcError) as caught:
            alice.rpc("messages.send", to="bob", text=text)
        assert caught.value.code in (9, -32602)
        return
    alice.rpc("messages.send", to="bob", text=text)
    wait_for(lambda: bob.texts("alice") == [text])


def test_history_pages_and_search(daemon: Start) -> None:
    alice, bob = daemon("alice"), daemon("bob")
    connect_pair(alice, bob)
    texts = [f"Nachricht {n} mit {'Überraschung' if n % 10 == 0 else 'Text'}" for n in range(250)]
    for text in texts:
        alice.rpc("messages.send", to="bob", text=text)
    wait_for(lambda: len(bob.all_messages("alice")) == 250)
    page = bob.rpc("messages.list", conversation="alice", limit=100)["messages"]
    assert [m["text"] for m in page] == texts[150:]
    before = bob.texts("alice", limit=100, before=page[0]["id"])
    assert before == texts[50:150]
    after = bob.texts("alice", limit=3, after=page[0]["id"])
    assert after == texts[151:154]
    found = bob.texts("alice", search="uberraschung nachricht", limit=1000)
    assert found == texts[::10]
    assert bob.texts("alice", search='"quo"te* OR', limit=10) == []
