"""Procedures of the pgsql agent by hand, scene by scene: what the simulator's dice rarely show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

import pytest

from pha4pgsql import duties, pgsql
from pha4pgsql.words import Ballot, Follow, Instance, Launch, Lsn, Name, Outcome, Promote, Rules, Run, Scene, Shutdown, State

if TYPE_CHECKING:
    from pha4pgsql.words import Action, Procedure

SCENE = Scene("a", Rules("pgsql", ("a", "b", "c")))
PRIMARY = SCENE._replace(state=State(promised=Ballot(1, "a"), reign=Ballot(1, "a")), instance=Instance(Run.PRIMARY))


def play(procedure: Callable[[Scene], Procedure], scene: Scene, answers: dict[type, Run], later: list[Run]) -> tuple[Outcome, list[Action]]:
    """Run a procedure: an action of such a type makes PostgreSQL be that; looks without action show what comes `later`."""
    steps, performed = procedure(scene), []
    try:
        actions = next(steps)
        while True:
            run = scene.instance.run
            for action in actions:
                performed.append(action)
                run = answers.get(type(action), run)
            if not actions:
                run = later.pop(0)
            scene = scene._replace(instance=scene.instance._replace(run=run))
            actions = steps.send(scene)
    except StopIteration as end:
        return end.value, performed


@pytest.mark.parametrize("procedure", [pgsql.demote, pgsql.start])
def test_a_start_that_is_silent_at_first_is_waited_for(procedure: Callable[[Scene], Procedure]) -> None:
    """A busy machine does not answer at once; an action that failed because of it would end in fencing."""
    scene = PRIMARY if procedure is pgsql.demote else SCENE._replace(instance=Instance(Run.DOWN))
    outcome, performed = play(procedure, scene, {Shutdown: Run.DOWN, Launch: Run.SILENT}, [Run.SILENT, Run.SILENT, Run.STANDBY])
    assert outcome.ok, outcome
    assert any(isinstance(action, Launch) for action in performed)


BY_HAND = Instance(Run.STANDBY, unruled="/pgsql/data/postgresql.conf")


@pytest.mark.parametrize(
    ("procedure", "scene"),
    [
        (duties.reign, PRIMARY._replace(instance=BY_HAND._replace(run=Run.PRIMARY))),
        (duties.tend, PRIMARY._replace(instance=BY_HAND._replace(run=Run.PRIMARY))),
        (pgsql.follow, SCENE._replace(instance=BY_HAND)),
        (pgsql.promote, SCENE._replace(instance=BY_HAND)),
    ],
)
def test_what_somebody_started_by_hand_does_not_serve(procedure: Callable[[Scene], Procedure], scene: Scene) -> None:
    """Its commits would wait for nobody, and it would receive from nobody: the agent restarts it, and promotes no such server."""
    outcome, performed = play(procedure, scene, {}, [])
    assert not outcome.ok
    assert "started with /pgsql/data/postgresql.conf, not by the agent" in outcome.reason
    assert not any(isinstance(action, (Name, Follow, Promote)) for action in performed)


def test_a_standby_that_somebody_started_by_hand_is_started_anew() -> None:
    """It was not running as far as Pacemaker knew."""
    steps = pgsql.start(SCENE._replace(instance=BY_HAND))
    assert next(steps) == [Shutdown()]
    assert any(isinstance(action, Launch) for action in [*steps.send(SCENE), *steps.send(SCENE)])


@pytest.mark.parametrize(("receiving", "arrives"), [(True, True), (True, False), (False, False)])
def test_a_history_file_that_came_first_is_no_reason_to_restart(*, receiving: bool, arrives: bool) -> None:
    """A new primary's history file arrives before the first WAL of its timeline. Without a receiver none will come, nor from one that died then."""
    scene = SCENE._replace(instance=Instance(Run.STANDBY, timeline=2, receiving=receiving, unheld=((3, 2, Lsn(9)),)), left=60.0)
    steps, outcome = pgsql.follow(scene), Outcome(False)
    try:
        next(steps)
        while True:
            scene = scene._replace(elapsed=scene.elapsed + 1.0, left=scene.left - 1.0)
            later = scene.instance._replace(unheld=()) if arrives and scene.elapsed >= 2.0 else scene.instance
            steps.send(scene._replace(instance=later))
    except StopIteration as end:
        outcome = end.value
    assert outcome.ok is arrives
    assert ("history file of timeline 3" in outcome.reason) is not arrives
    assert scene.elapsed < 10
