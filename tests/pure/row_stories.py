"""Accidents of a set that counts on the row of the distributed lock, played step by step; a flaw of the row (world.ROW_FLAWS) may be given.

Two nodes, k=1, and the row: a is primary of term 1.a, b streams, unless a story says otherwise. Who loses sight of the other knows no more than
what the row tells; partitions are without quorum device, as in the template dual.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from simulator import Setting, rules
from stories import Stage
from world import REAL, Core, Task

from pha4pgsql import words
from pha4pgsql.words import Mode, Run

if TYPE_CHECKING:
    from collections.abc import Mapping

ROWED = Setting("pair with a row", rules(Mode.QUORUM, 2, 1, strict=False, row=True))
FIVE = Setting("five with a row", rules(Mode.QUORUM, 5, 2, strict=False, row=True))
TURNS = 3


def _stage(core: Core, flaw: str, setting: Setting = ROWED) -> Stage:
    stage = Stage(setting, core)
    stage.world.flaws = stage.world.row.flaws = frozenset({flaw})
    return stage


def _part(stage: Stage) -> None:
    """The nodes lose each other: no replication, no votes, and each finds the other gone."""
    stage.cut("a")
    stage.world.messages.clear()
    stage.deaf("a", "b")
    stage.deaf("b", "a")
    stage.settle()


def _alone(stage: Stage) -> None:
    """a has lost b and goes on alone, by its own voice and the row's."""
    _part(stage)
    stage.do("a", "monitor")
    stage.settle("a")
    if stage.node("a").checkpointer:
        stage.world.fail("liveness", "a does not go on alone although the row can be asked")


def _stands(stage: Stage, name: str) -> bool:
    """One turn of a node that sees no primary: its monitor, and a promotion when it has given itself a score. Whether it is primary."""
    stage.do(name, "monitor")
    score = stage.world.attributes.get((name, "master-pgsql"), "")
    if not score.startswith("1"):
        return False
    task = stage.until(name, "promote", words.Promote)
    if task.outcome is None:
        stage.world.advance(task)
        stage.player.settle(stage.node(name))
        stage.finish(task)
    if stage.node(name).run is not Run.PRIMARY:
        stage.do(name, "demote")
        stage.settle(name)
    return stage.node(name).run is Run.PRIMARY


def _acknowledges(stage: Stage, name: str) -> bool:
    record = stage.world.write(stage.node(name))
    stage.settle()
    return record is not None and any(commit is record for commit in stage.world.acknowledged)


# -- what must never happen --------------------------------------------------------------------------------------


def owner_of_the_row_is_lost(core: Core = REAL, flaw: str = "") -> Stage:
    """a goes on alone, acknowledges, and loses its power; b comes up, and the row forbids it."""
    stage = _stage(core, flaw)
    _alone(stage)
    stage.world.write(stage.node("a"))
    stage.world.crash(stage.node("a"))
    stage.world.row.forget()
    for _ in range(TURNS):
        _stands(stage, "b")
    stage.round(9)
    stage.do("b", "promote", limit=12.0)
    stage.settle("b")
    return stage


def row_cut_off_from_the_candidate(core: Core = REAL, flaw: str = "") -> Stage:
    """The same, and b cannot reach the row: it knows nothing, and that is not a yes."""
    stage = _stage(core, flaw)
    _alone(stage)
    stage.world.write(stage.node("a"))
    stage.world.row_links.discard("b")
    stage.round(9)
    stage.do("b", "promote", limit=12.0)
    stage.settle("b")
    return stage


def row_cut_off_from_the_primary(core: Core = REAL, flaw: str = "") -> Stage:
    """a cannot reach the row: it must not go on alone, as b is elected by it."""
    stage = _stage(core, flaw)
    _part(stage)
    stage.world.row_links.discard("a")
    task = _about_to_be_promoted(stage)
    stage.do("a", "monitor")
    stage.settle("a")
    stage.world.write(stage.node("a"))
    _promoted(stage, task)
    return stage


def row_between_two(core: Core = REAL, flaw: str = "") -> Stage:
    """b has the row's answer and is about to be promoted; a asks the row to store that it goes on alone."""
    stage = _stage(core, flaw)
    _part(stage)
    task = _about_to_be_promoted(stage)
    stage.do("a", "monitor")
    stage.settle("a")
    stage.world.write(stage.node("a"))
    _promoted(stage, task)
    return stage


def _about_to_be_promoted(stage: Stage) -> Task:
    stage.do("b", "answer", "b")
    return stage.until("b", "promote", words.Promote)


def _promoted(stage: Stage, task: Task) -> None:
    if task.outcome is None:
        stage.world.advance(task)
        stage.settle("b")


def older_word_arrives_late(core: Core = REAL, flaw: str = "") -> Stage:
    """a was alone, was not, and is again; its word "not alone" gets to the row only now. b, which knows nothing of it, asks the row."""
    stage = _stage(core, flaw)
    _alone(stage)
    stage.heal()
    for _ in range(TURNS):
        stage.do("b", "monitor")
        stage.settle()
        stage.do("a", "monitor")
        stage.settle()
    older = stage.node("a").state.said
    if older.owner:
        stage.world.fail("liveness", "a stays alone although b is back")
    _alone(stage)
    stage.world.write(stage.node("a"))
    stage.world.row.store(words.StoreRow(older))
    stage.round(9)
    stage.do("b", "promote", limit=12.0)
    stage.settle("b")
    return stage


def row_and_one_more(core: Core = REAL, flaw: str = "") -> Stage:
    """Five nodes, k=2: a has its own voice and the row's, which are two of three; the four others elect b without either."""
    stage = _stage(core, flaw, FIVE)
    stage.cut("a")
    for name in "bcde":
        stage.deaf("a", name)
    stage.settle()
    for _ in range(TURNS):
        stage.do("a", "monitor")
        stage.settle("a")
    stage.world.write(stage.node("a"))
    stage.round(5)
    stage.elect("b", "c", "d", "e")
    return stage


def promised_to_another(core: Core = REAL, flaw: str = "") -> Stage:
    """The row's last word was to an older ballot: that tells nothing of what it stored since, and binds it to nothing."""
    stage = _stage(core, flaw)
    _part(stage)
    stage.do("b", "monitor")
    stage.do("b", "answer", "b")
    task = stage.until("b", "promote", words.AskRow)
    stage.world.act(stage.node("b"), words.Publish(stage.node("b").view["b"]))
    task.row = stage.world.row.vote  # what an earlier look showed
    _alone(stage)
    stage.world.write(stage.node("a"))
    if task.outcome is None:
        task.actions.clear()
        stage.finish(task)
    stage.settle("b")
    return stage


# -- what must happen --------------------------------------------------------------------------------------------


def primary_lost(core: Core = REAL, flaw: str = "") -> Stage:
    """a loses its power: b, with the row's answer, is promoted and acknowledges."""
    stage = _stage(core, flaw)
    stage.world.crash(stage.node("a"))
    _part(stage)
    if not any(_stands(stage, "b") for _ in range(TURNS)) or not _acknowledges(stage, "b"):
        stage.world.fail("liveness", "b is not promoted although a is lost and the row can be asked")
    return stage


def primary_lost_after_an_attempt(core: Core = REAL, flaw: str = "") -> Stage:
    """The same, after the row has promised a higher ballot of an attempt that came to nothing."""
    stage = _stage(core, flaw)
    stage.world.row.ask(words.AskRow(words.Ballot(17, "a")))
    stage.world.crash(stage.node("a"))
    _part(stage)
    if not any(_stands(stage, "b") for _ in range(TURNS)) or not _acknowledges(stage, "b"):
        stage.world.fail("liveness", "b is not promoted: the row is bound to a ballot that nobody goes beyond")
    return stage


def primary_lost_without_the_row(core: Core = REAL, flaw: str = "") -> Stage:
    """a loses its power and nobody can ask the row: b is not promoted, it cannot know that a has not gone on alone; it is when the row is back."""
    stage = _stage(core, flaw)
    stage.world.crash(stage.node("a"))
    _part(stage)
    stage.world.row_links.clear()
    for _ in range(TURNS):
        if _stands(stage, "b"):
            stage.world.fail("I1", "b was promoted, and could not know whether a had gone on alone")
    stage.world.row_links.add("b")
    if not any(_stands(stage, "b") for _ in range(TURNS)) or not _acknowledges(stage, "b"):
        stage.world.fail("liveness", "b is not promoted although the row is back")
    return stage


def standby_lost(core: Core = REAL, flaw: str = "") -> Stage:
    """b loses its power: a goes on."""
    stage = _stage(core, flaw)
    stage.world.crash(stage.node("b"))
    _alone(stage)
    if not _acknowledges(stage, "a"):
        stage.world.fail("liveness", "a does not acknowledge although it is alone")
    return stage


def standby_lost_without_the_row(core: Core = REAL, flaw: str = "") -> Stage:
    """PostgreSQL of b is down and nobody can ask the row: b's watcher is the second voice."""
    stage = _stage(core, flaw)
    stage.world.row_links.clear()
    stage.do("b", "stop")
    stage.settle()
    for _ in range(TURNS):
        stage.do("a", "monitor")
        stage.hear("b", "a")
        stage.do("b", "watch")
        stage.hear("a", "b")
        stage.settle("a")
    if not _acknowledges(stage, "a"):
        stage.world.fail("liveness", "a does not go on although b's watcher knows it")
    return stage


def cut_in_two(core: Core = REAL, flaw: str = "") -> Stage:
    """The nodes lose each other and both reach the row; a is the first: it goes on, and whatever b does, it is left in peace."""
    stage = _stage(core, flaw)
    _alone(stage)
    for number in range(TURNS):
        if _stands(stage, "b"):
            stage.world.fail("I1", "b was promoted beside a, which is alone")
        stage.round(5 + number, "b")
        stage.do("b", "promote", limit=12.0)
        if not stage.do("a", "monitor").ok or not _acknowledges(stage, "a"):
            stage.world.fail("liveness", "an attempt that could not be won has ended the reign of a")
    return stage


def cut_in_two_the_other_way(core: Core = REAL, flaw: str = "") -> Stage:
    """The same, and b is the first: it acknowledges; a finds out by the row, steps down, and stays down."""
    stage = _stage(core, flaw)
    _part(stage)
    if not any(_stands(stage, "b") for _ in range(TURNS)) or not _acknowledges(stage, "b"):
        stage.world.fail("liveness", "b is not promoted")
    if stage.do("a", "monitor").ok:
        stage.world.fail("liveness", "a goes on waiting although the row shows that it is outvoted")
    stage.do("a", "demote")
    stage.settle("a")
    for number in range(TURNS):
        _stands(stage, "a")
        stage.round(9 + number, "a")
        stage.do("a", "promote", limit=12.0)
        if not stage.do("b", "monitor").ok or not _acknowledges(stage, "b"):
            stage.world.fail("liveness", "an attempt of a has ended the reign of b")
    return stage


def back_and_the_other_is_lost(core: Core = REAL, flaw: str = "") -> Stage:
    """a was alone, b is back and has everything, then a is lost: what the row still says of a does not hold b up."""
    stage = _stage(core, flaw)
    _alone(stage)
    stage.world.write(stage.node("a"))
    stage.world.row_links.discard("a")
    stage.heal()
    stage.world.messages = set(stage.world.links)
    for _ in range(TURNS + 1):
        for name, other in (("a", "b"), ("b", "a")):
            stage.hear(name, other)
            stage.do(name, "monitor")
            stage.do(name, "watch")
            stage.settle()
    stage.world.crash(stage.node("a"))
    _part(stage)
    if not any(_stands(stage, "b") for _ in range(TURNS)) or not _acknowledges(stage, "b"):
        stage.world.fail("liveness", "b is not promoted although it knows that a was not alone any more")
    return stage


ROW_STORIES: Mapping[str, Callable[..., Stage]] = {
    story.__name__: story
    for story in (
        owner_of_the_row_is_lost,
        row_cut_off_from_the_candidate,
        row_cut_off_from_the_primary,
        row_between_two,
        older_word_arrives_late,
        row_and_one_more,
        promised_to_another,
        primary_lost,
        primary_lost_after_an_attempt,
        primary_lost_without_the_row,
        standby_lost,
        standby_lost_without_the_row,
        cut_in_two,
        cut_in_two_the_other_way,
        back_and_the_other_is_lost,
    )
}
