"""The shared middle of the node: tasks that outlive who asked for them."""

from __future__ import annotations

from tntd.effects import Ask
from tntd.machines.identity import Identity
from tntd.node.core import Core, Profile
from tntd.settings import Settings
from tntd.store import Store
from tntd.tasks import Answer, Done, Inspect, Inspected, Resolve

LOOKED = Inspected("file", 1, 0, 0, 0, 0, False, 0)


def make() -> Core:
    profile = Profile(
        identity=Identity(b"a" * 32),
        name="alice",
        settings=Settings(),
        downloads=b"/downloads",
        entropy=bytes,
        rss_bytes=lambda: 0,
    )
    return Core(Store(":memory:"), profile)


def asked(core: Core) -> int:
    """The number of the task that was asked for last."""
    effect = core.effects[-1]
    assert isinstance(effect, Ask)
    return effect.task


def test_an_answer_goes_to_who_asked() -> None:
    core, answers = make(), list[Answer]()
    core.ask(Inspect(b"/f"), answers.append)
    core.ask(Inspect(b"/g"), answers.append)
    core.answered(asked(core), LOOKED)
    assert answers == [LOOKED]
    core.answered(asked(core), LOOKED)
    assert answers == [LOOKED]  # once


def test_late_answers_are_passed_over() -> None:
    core = make()
    core.ask(Resolve("h", 1), lambda _answer: None)
    task = asked(core)
    core.reset()
    core.answered(task, Done())
    core.answered(task, Done())
    assert core.effects == []
