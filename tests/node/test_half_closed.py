"""A client that has closed its side: it gets the answers to what it asked, and then goes."""

from __future__ import annotations

import msgspec

from fuzz.test_findings_transfers import Play
from tntd.events import Answered, ClientLeft, LineArrived
from tntd.tasks import Inspected

FILE = Inspected("file", 5, 1, 1, 1, 1, False, 0)


def attach(play: Play) -> int:
    client = play.bench.open_client(local_user=True)
    ask(play, client, 1, "hello", protocol=1, client="script")
    return client


def ask(play: Play, number: int, id: int, method: str, **params: object) -> None:
    body = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
    play.bench.turn(LineArrived(number, msgspec.json.encode(body)))


def test_who_waits_for_nothing_goes_at_once() -> None:
    play = Play()
    client, other = attach(play), attach(play)
    ask(play, client, 2, "status")
    play.bench.turn(ClientLeft(client))
    assert client not in play.bench.clients and other in play.bench.clients
    play.bench.turn(ClientLeft(12345))


def test_an_answer_that_takes_its_time_is_waited_for() -> None:
    play = Play()
    client = attach(play)
    for id in (2, 3):
        ask(play, client, id, "transfers.send", to="mallory", paths=["/f"])
    play.bench.turn(ClientLeft(client))
    first, second = sorted(play.bench.tasks)
    for task, id in ((first, 2), (second, 3)):
        assert client in play.bench.clients, f"it waits for answer {id}"
        del play.bench.tasks[task]
        play.bench.turn(Answered(task, FILE))
        assert play.bench.lines[client][-1]["id"] == id
    assert client not in play.bench.clients


def test_scripts_may_give_all_they_ask_one_id() -> None:
    play = Play()
    client = attach(play)
    for _ in range(2):
        ask(play, client, 1, "transfers.send", to="mallory", paths=["/f"])
    play.bench.turn(ClientLeft(client))
    for task in sorted(play.bench.tasks):
        assert client in play.bench.clients, "it waits for another answer"
        del play.bench.tasks[task]
        play.bench.turn(Answered(task, FILE))
    assert client not in play.bench.clients


def test_who_waits_while_a_turn_fails_is_told_and_goes() -> None:
    play = Play()
    client = attach(play)
    ask(play, client, 2, "transfers.send", to="mallory", paths=["/f"])
    play.bench.turn(ClientLeft(client))
    other = attach(play)
    play.bench.fail_next = True
    ask(play, other, 2, "status")
    assert play.bench.lines[client][-1]["error"]["message"]
    assert client not in play.bench.clients
