"""What must be true when faults are over: converged, equal on both sides, and still."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tntd.node import present
from tntd.node.present import item_id

from .bounds import check_stored
from .client import View
from .disk import File
from .heap import Violation
from .machine import DOWNLOADS, SPOOL, Machine
from .sources import what_is
from .watcher import Epochs, parts_of

if TYPE_CHECKING:
    from .world import World

Shown = dict[str, Any]
ENDED = ("done", "failed", "cancelled", "declined")
TURNS_PER_S_MAX = 1.0  # while nobody does anything: a ping and a pong a minute for each link


def unsettled(world: World) -> str:
    """What has not converged yet, or nothing."""
    problems = [_unsettled_store(world, machine) for machine in world.machines]
    problems += [_unsettled_user(world, machine) for machine in world.machines]
    return next(filter(None, problems), "")


def _unsettled_store(world: World, machine: Machine) -> str:
    sql = machine.database.sql
    if machine.process is None:
        return f"{machine.name} does not run"
    if not all(friend.fine for friend in world.users[machine.name].friends):
        return f"{machine.name} is not linked with all friends"
    (waiting,) = sql.execute("SELECT count(*) FROM outbox").fetchone()
    if waiting:
        return f"{machine.name} has {waiting} envelopes in its outbox"
    query = f"SELECT id, state, outgoing FROM transfers WHERE state NOT IN {ENDED}"
    for id, state, outgoing in sql.execute(query):
        way = "out" if outgoing else "in"
        return f"{machine.name}'s transfer {item_id(id)} ({way}) is {state}"
    return _part_left(world, machine)


def _part_left(world: World, machine: Machine) -> str:
    """A part of no transfer that goes on.  (Of what a database has forgotten nobody knows.)"""
    forgotten = world.watcher.forgotten.get(machine.name, ())
    query = f"SELECT contact, id FROM transfers WHERE outgoing = 0 AND state NOT IN {ENDED}"
    found = machine.database.sql.execute(query)
    prefix = machine.process.node._queue.parts.prefix if machine.process else b""
    owned = {prefix + f"{contact}-{item_id(id)}.part".encode() for contact, id in found}
    for name in parts_of(machine):
        if name not in owned and name not in forgotten:
            return f"{machine.name} has the part {name!r} of nothing that goes on"
    return _spool_left(world, machine)


def _spool_left(world: World, machine: Machine) -> str:
    """What came from a pipe is kept until it is told how its transfer ended, and not longer."""
    user = world.users[machine.name]
    if not all(feeder.done for feeder in user.feeders):
        return f"{machine.name} has a pipe that did not end"
    spool = machine.disk.folder(SPOOL).names
    query = "SELECT source FROM transfers WHERE outgoing = 1"
    for (source,) in machine.database.sql.execute(query):
        if source.startswith(SPOOL) and source.split(b"/")[-2] in spool:
            return f"{machine.name} has {source!r} left in its spool"
    return ""


def _unsettled_user(world: World, machine: Machine) -> str:
    user = world.users[machine.name]
    if user.wants:
        return f"{machine.name} has no answer to {next(iter(user.wants))}"
    newest = "SELECT coalesce(max(number), 0) FROM events"
    (last,) = machine.database.sql.execute(newest).fetchone()
    for client in (user.client, user.guest):
        if client.unread or not client.ready or client.view.last < last:
            return f"{client.name} is not up to date"
    return ""


def check_final(world: World) -> None:
    """Raises Violation where something was lost, doubled, or differs between the two sides."""
    for machine in world.machines:
        _check_messages(world, machine)
        _check_transfers(world, machine)
        _check_trees(world, machine)
        _check_resent(world, machine)
        _check_views(world, machine)
        _check_epochs(world, machine)
        check_stored(machine)
        world.watcher.check_files(machine)
        _check_files(world, machine)


def _check_files(world: World, machine: Machine) -> None:
    """Nothing is there more often than it was sent.  (Each content is made once.)"""
    if machine.name in world.watcher.changed:
        return  # it does not know how often it was sent
    often: dict[bytes, int] = {}
    query = "SELECT count(*) FROM transfers WHERE outgoing = 0 AND name IN (?, ?)"
    for name, node in sorted(machine.disk.folder(DOWNLOADS).names.items()):
        known = world.watcher.bystanders.get((machine.name, DOWNLOADS + b"/" + name)) is node
        if known or not isinstance(node, File) or not node.data:
            continue
        what = what_is(node)
        often[what] = often.get(what, 0) + 1
        source = name.removeprefix(b"new_").partition(b" (")[0]
        (sent,) = machine.database.sql.execute(query, (source, source + b".bin")).fetchone()
        if often[what] > sent:
            raise Violation(f"{machine.name} has {name!r} more often than it was sent")


def _check_messages(world: World, machine: Machine) -> None:
    watcher = world.watcher
    mirror, key = watcher.mirrors[machine.name], machine.identity.public
    for other in world.machines:
        sent = mirror.sent.get(other.identity.public, [])
        got = watcher.mirrors[other.name].received.get(key, [])
        if not watcher.touched(machine, other.identity.public) and sent != got:
            raise Violation(f"{machine.name} sent {len(sent)}, {other.name} has {len(got)}")
        if len(set(got)) != len(got):
            raise Violation(f"{other.name} has a message of {machine.name} twice")
    sql = machine.database.sql
    query = (
        "SELECT m.id, m.text, m.state, c.key FROM messages m JOIN contacts c ON m.contact = c.row "
        "WHERE m.outgoing = 1"
    )
    texts: set[str] = set()
    for id, text, state, to in sql.execute(query):
        if text in texts:
            raise Violation(f"{machine.name} has two messages for one: {text[:40]}")
        texts.add(text)
        if state not in {"delivered", "read"}:
            raise Violation(f"{machine.name} has a message that is {state}")
        # Also where a history went back: whoever may have lost it since has had it once.
        if not any(id in watcher.mirrors[each.name].ever for each in watcher.machines[to]):
            raise Violation(f"{machine.name} tells as {state} what never arrived: {text[:40]}")


def _check_transfers(world: World, machine: Machine) -> None:
    sql, watcher = machine.database.sql, world.watcher
    query = (
        "SELECT t.id, t.state, c.key FROM transfers t JOIN contacts c ON t.contact = c.row "
        "WHERE t.outgoing = 1"
    )
    for id, state, key in sql.execute(query).fetchall():
        there = _state_there(world, id)
        # Whose history went back may have forgotten that it was done, or that what failed was
        # sent again; of what has ended nobody speaks any more until it is asked for.
        excused = state == "done" and watcher.went_back(key)
        excused |= state == "failed" and watcher.went_back(machine.identity.public)
        if (state == "done") != (there == "done") and not excused:
            raise Violation(f"transfer {item_id(id)} is {state} here and {there} there")
    query = "SELECT count(*) FROM transfers WHERE state = 'failed' AND error IS NULL"
    if sql.execute(query).fetchone()[0]:
        raise Violation(f"{machine.name} has a transfer that failed without a reason")


def _state_there(world: World, id: bytes) -> str:
    query = "SELECT state FROM transfers WHERE id = ? AND outgoing = 0"
    found = [row for each in world.machines for row in each.database.sql.execute(query, (id,))]
    return found[0][0] if found else "none"


def _check_trees(world: World, machine: Machine) -> None:
    """What became of each file is told the same on both sides."""
    # Where it failed as a whole here (its history is an older copy, say) all files are shown so.
    ended = (
        "SELECT row, id FROM transfers WHERE outgoing = 1 AND kind = 'folder' AND state = ? "
        "AND (state != 'failed' OR failed > 0)"
    )
    for state in ("done", "failed"):
        for row, id in machine.database.sql.execute(ended, (state,)).fetchall():
            for other in world.machines:
                if other.name not in world.watcher.changed:
                    forgotten = _has_forgotten(world, machine)
                    _compare_trees(machine, row, other, id, state, forgotten=forgotten)


def _compare_trees(
    machine: Machine, row: int, other: Machine, id: bytes, state: str, *, forgotten: bool
) -> None:
    query = "SELECT row, chosen, failed FROM transfers WHERE outgoing = 0 AND id = ? AND state = ?"
    found = other.database.sql.execute(query, (id, state)).fetchone()
    if found is None or found[1] is None or (state == "failed" and not found[2]):
        return  # where it failed as a whole, nothing is told of its files
    here, there = _tree_files(machine, row), _tree_files(other, found[0])
    # Of a transfer that has ended, what was sent and not told as failed has arrived.
    shown = {"waiting": "verified"}
    if state == "failed":  # as users see what was to be sent again when it ended
        shown["again"] = "failed"
    here = {path: shown.get(told, told) for path, told in here.items()}
    there = {path: shown.get(told, told) for path, told in there.items()}
    for path in sorted(here.keys() | there.keys()):
        if here.get(path) != there.get(path) and (path in here or not forgotten):
            raise Violation(
                f"{path!r} of {item_id(id)} is {here.get(path)} at {machine.name} and "
                f"{there.get(path)} at {other.name}"
            )


def _tree_files(machine: Machine, row: int) -> dict[bytes, str]:
    query = "SELECT path, state FROM tree_files WHERE transfer = ?"
    return dict(machine.database.sql.execute(query, (row,)).fetchall())


def _has_forgotten(world: World, machine: Machine) -> bool:
    """Whether something may have gone out that was not committed in the end."""
    return machine.runs > 1 or machine.name in world.watcher.undone


def _check_resent(world: World, machine: Machine) -> None:
    """What is told as sent twice is not less than what was, but for what both sides forgot."""
    query = (
        "SELECT t.id, t.bytes_sent, t.bytes_resent, t.bytes_done, t.bytes_reused, c.key "
        "FROM transfers t JOIN contacts c ON t.contact = c.row "
        "WHERE t.outgoing = 1 AND t.state = 'done'"
    )
    for id, sent, resent, done, reused, key in machine.database.sql.execute(query):
        traffic = world.watcher.traffic.get(id)
        if traffic is None or world.watcher.touched(machine, key):
            continue
        ended, forgotten = world.watcher.forgotten_of(machine, id, traffic)
        known = traffic.total - forgotten
        # Who ended after the last lane hears of the rest in the result only.
        if (sent < known and not ended) or resent < known - done + reused:
            raise Violation(
                f"{machine.name} has sent {traffic.total} bytes of {item_id(id)} ({done} bytes, "
                f"{reused} reused, {forgotten} forgotten), and tells {sent}, {resent} of them twice"
            )


def _check_views(world: World, machine: Machine) -> None:
    user, sql = world.users[machine.name], machine.database.sql
    numbers = [number for (number,) in sql.execute("SELECT number FROM events ORDER BY number")]
    messages, transfers = shown(machine)
    for client in (user.client, user.guest):
        view: View = client.view
        expected = [number for number in numbers if number > view.base]
        if view.numbers != expected:
            missing = sorted(set(expected) ^ set(view.numbers))[:5]
            raise Violation(f"{client.name} has seen other events than there are: {missing}")
        _compare_views(client.name, view.messages, messages)
        _compare_views(client.name, view.transfers, transfers)


def _compare_views(name: str, seen: dict[str, Shown], there: dict[str, Shown]) -> None:
    for id in sorted(seen.keys() | there.keys()):
        one, other = seen.get(id), there.get(id)
        if one is None or other is None:
            raise Violation(f"{name} has seen {one}, and the store has {other}")
        for key in other:
            if one.get(key) != other[key]:
                raise Violation(
                    f"{name} has seen {key} {one.get(key)!r}, and the store has {other[key]!r}: "
                    f"{other}"
                )


def shown(machine: Machine) -> tuple[dict[str, Shown], dict[str, Shown]]:
    """All messages and transfers as a client would be shown them now, by id."""
    assert machine.process is not None
    core, store = machine.process.node._core, machine.database.store
    names = dict(machine.database.sql.execute("SELECT row, name FROM contacts"))
    messages, transfers = {}, {}
    for (row,) in machine.database.sql.execute("SELECT row FROM messages").fetchall():
        message = store.messages.get(row)
        assert message is not None
        body = msgspec.to_builtins(present.message(core, message, names[message.contact]))
        messages[body["id"]] = body
    for (row,) in machine.database.sql.execute("SELECT row FROM transfers").fetchall():
        transfer = store.transfers.get(row)
        assert transfer is not None
        body = msgspec.to_builtins(present.transfer(transfer, names[transfer.contact]))
        transfers[body["id"]] = body
    return messages, transfers


def _check_epochs(world: World, machine: Machine) -> None:
    """A copy that knows that it is one does not honour the cursors of what it replaced."""
    now, before = Epochs.of(machine), world.watcher.copies.get(machine.name)
    assert machine.process is not None
    told = machine.process.node._journal.cursor(0).partition(".")[0]
    if now.events is None or told != now.events.hex():
        raise Violation(f"{machine.name} tells cursors of an epoch that is not committed")
    if before is None or before.events != now.events:
        return
    if any(now.envelopes.get(key) != epoch for key, epoch in before.envelopes.items()):
        raise Violation(f"{machine.name} has noticed that it is a copy, and its cursors go on")


def check_idle(world: World, before: dict[str, int], seconds: float) -> None:
    """Raises Violation where something still turns, or more links are kept than one a pair."""
    for machine in world.machines:
        rate = (machine.turns - before[machine.name]) / seconds
        if rate > TURNS_PER_S_MAX:
            raise Violation(f"{machine.name} makes {rate:.1f} turns a second of idleness")
        ends = machine.process.ends if machine.process is not None else {}
        if len(ends) != len(world.users[machine.name].friends):
            raise Violation(f"{machine.name} has {len(ends)} links when all is quiet")
        if machine.process is not None and (machine.process.files or machine.process.lanes):
            raise Violation(f"{machine.name} has open files or lanes when all is quiet")
    problem = unsettled(world)
    if problem:
        raise Violation(f"after being idle: {problem}")
