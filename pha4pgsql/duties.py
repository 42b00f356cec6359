"""What a primary looks after: to resign, to change its synchronous set, to go on alone and to come back, to change the members. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pha4pgsql.shown import Look, attributes, my_vote, next_round, report, settle, show
from pha4pgsql.sight import followers_of, nameable, outside_slot, slots_of, synchronous, unruled, wished
from pha4pgsql.standby_names import NOBODY, choose_names, in_force, is_step, named_in, next_list, outside_in, outsiders, settled
from pha4pgsql.vote import outvoted, store, stored_by
from pha4pgsql.words import (
    NEVER,
    Action,
    Ballot,
    Checkpoint,
    Lsn,
    MakeSlots,
    Name,
    Nudge,
    Outcome,
    Procedure,
    Prove,
    Publish,
    Roster,
    Run,
    Scene,
    Statement,
    Store,
    StoreRow,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence


GRACE = 1.0
"""Seconds for which standbys may be missing before a primary says that it goes on alone."""
PATIENCE = 5.0
"""Seconds one monitor spends on going alone or on coming back; the next one goes on."""


ROW_PAUSE = 0.5
"""Seconds between two questions to the row of the distributed lock."""
NOT_YET = -ROW_PAUSE
"""The time of the last question when there was none."""


# -- the monitor --------------------------------------------------------------------------------------------------


def reign(scene: Scene, *, change: bool = True) -> Procedure:
    """The primary's monitor: demote on a higher promise, keep the right number of confirmations, tell people the state."""
    term = scene.state.reign
    if term == NEVER:
        return Outcome(False, "PostgreSQL became primary without an election (promoted by hand?)")
    if _outvoted(scene):
        return (yield from _abdicate(scene))
    if unruled(scene):
        return Outcome(False, unruled(scene))
    scene = yield from settle(scene)
    steps = show(scene)
    missing = missing_slots(scene)
    if steps or missing:
        scene = yield [*steps, *([MakeSlots(missing)] if missing else [])]
    scene = yield from steer(scene, until=scene.elapsed + PATIENCE)
    if change:
        scene = yield from _change(scene, until=scene.elapsed + PATIENCE)
    if scene.instance.run is not Run.PRIMARY or scene.state.reign != term:
        return Outcome(True)
    if _outvoted(scene):  # the row may have told it meanwhile
        return (yield from _abdicate(scene))
    steps = [*prepare(scene), *report(scene)]
    if steps:
        yield steps
    return Outcome(True)


def tend(scene: Scene) -> Procedure:
    """What a watcher does for a primary: all but changes of members, for it knows the operator's wish only as it was when it started."""
    return (yield from reign(scene, change=False))


def _outvoted(scene: Scene) -> Ballot | None:
    """The highest promise above the term of this primary that a member or the row shows."""
    return outvoted(scene.state.reign, dict(scene.votes), scene.rules.members, scene.row)


def _abdicate(scene: Scene) -> Procedure:
    """An outvoted primary fails, so that it is demoted; of two promoted nodes Pacemaker keeps the one with the higher score."""
    yield [*attributes(scene, {(scene.me, "score"): "-INFINITY"}), next_round(scene)]
    return Outcome(False, f"term {scene.state.reign} is outvoted: {_outvoted(scene)} is promised")


def missing_slots(scene: Scene) -> tuple[str, ...]:
    """The slots of nodes that show to have adopted this term, and so have found their WAL to be a beginning of ours.

    Others get none: a node that only answered may still point here, and PostgreSQL itself compares numbers only.
    Standbys outside of the cluster have theirs on any primary.
    """
    term = scene.state.reign
    adopted = [node for node in scene.peers if any(era.term == term for era in scene.vote(node).eras)]
    outside = [outside_slot(scene.rules.slot_prefix, name) for name in scene.rules.externals] if term != NEVER else []
    return tuple(slot for slot in (*slots_of(scene, term, adopted), *outside) if slot not in scene.instance.slots)


def lacking(scene: Scene) -> bool:
    """Whether a primary should look after its set now: its commits wait for somebody who does not stream, or it is outvoted."""
    if scene.state.reign != NEVER and outvoted(scene.state.reign, dict(scene.votes), scene.rules.members):
        return True
    streaming = {follower.name for follower in followers_of(scene)}
    named = named_in(scene.instance.names)
    if set(outside_in(scene)) - set(outsiders(scene)) or (is_step(scene.instance.names) and not scene.state.roster.joint):
        return True
    return synchronous(scene.rules) and scene.instance.run is Run.PRIMARY and len(named & streaming) < scene.rules.confirming.k and bool(named)


def prepare(scene: Scene) -> list[Action]:
    """What makes a switchover short: no checkpoint of minutes when the server ends."""
    wish = wished(scene)
    return [Checkpoint()] if wish and scene.instance.checkpoint < wish.since else []


# -- the set ------------------------------------------------------------------------------------------------------


def steer(scene: Scene, *, until: float) -> Look:
    """Bring synchronous_standby_names to what it has to be, by way of alone and back; see docs/safety.md, rules 1, 5 and 7."""
    missed = scene.elapsed
    asked = NOT_YET
    renamed = False
    while scene.instance.run is Run.PRIMARY and scene.elapsed <= until and not (scene.row and scene.row.promised > scene.state.reign):
        rules, names, said, me = scene.rules, scene.instance.names, scene.state.said, scene.me
        enough = len(nameable(scene)) >= rules.confirming.k
        alone = said.owner == me and said.term == scene.state.reign
        if not synchronous(rules):
            return (yield [Name("")]) if names else scene
        if names == "" and alone and not enough:
            return scene
        if names == "":  # said anew, so that going alone once more needs new voices
            spoken = store(scene.state, _statement(scene, me)) if alone else None
            told: list[Action] = [Store(spoken), Publish(my_vote(scene._replace(state=spoken)))] if spoken else []
            scene = yield [*told, Name(NOBODY)]
        elif names == NOBODY:
            if scene.instance.proven:
                scene = yield [Name(choose_names(scene))]
                scene = yield []
                scene = yield [Nudge()]
            else:
                scene = yield [Prove()]
        elif names != choose_names(scene) or (scene.instance.names_shown not in (None, names) and not renamed):
            renamed = True
            scene = yield [Name(choose_names(scene))]
            scene = yield []
            scene = yield [Nudge()]
        elif is_step(names) and not scene.state.roster.joint:
            scene = yield []  # until it is in force
        elif alone and enough:
            return (yield from _rejoin(scene, until=until))
        elif alone and not rules.confirming.strict:
            steps = _gather(scene, ask=scene.elapsed >= asked + ROW_PAUSE)
            asked = scene.elapsed if StoreRow(said) in steps else asked
            scene = yield steps
        elif not enough and not rules.confirming.strict:
            somebody = any(node in scene.online for node in scene.others)  # who has left the membership is not waited for
            if scene.elapsed - missed >= (GRACE if somebody else 0.0):
                spoken = store(scene.state, _statement(scene, me))
                if spoken is None:
                    return scene
                scene = yield [Store(spoken), Publish(my_vote(scene._replace(state=spoken)))]
            else:
                scene = yield []
        else:
            return scene
    return scene


def _gather(scene: Scene, *, ask: bool) -> list[Action]:
    """Go alone when k+1 voices show what was said; until then have the row store it."""
    if stored_by(scene.state.said, dict(scene.votes), scene.rules, scene.row) > scene.rules.confirming.k:
        return [Name("")]
    return [StoreRow(scene.state.said)] if ask and scene.rules.row else []


def _statement(scene: Scene, owner: str) -> Statement:
    """The next statement of this primary's term."""
    said = scene.state.said
    count = said.count + 1 if said.term == scene.state.reign else 1
    return Statement(scene.state.reign, count, owner)


def _rejoin(scene: Scene, *, until: float) -> Look:
    """The full set is in force: say 'not alone' when k members have all that was written until now.

    Only while nothing else happens meanwhile: with another statement, set or term the position is not the right one.
    """
    ground, position = _ground(scene), None
    while _ground(scene) == ground and scene.elapsed <= until:
        if position is None and in_force(scene):
            position = scene.instance.lsn
        if position is not None and confirmed(scene, position) >= scene.rules.confirming.k:
            spoken = store(scene.state, _statement(scene, ""))
            scene = (yield [Store(spoken), Publish(my_vote(scene._replace(state=spoken)))]) if spoken else scene
            return (yield [StoreRow(spoken.said)]) if spoken and scene.rules.row else scene
        scene = yield [Nudge()]
        scene = yield []
    return scene


def confirmed(scene: Scene, position: Lsn) -> int:
    """How many members have flushed WAL up to `position`, by connections that are bound to this term."""
    members = scene.rules.confirming.members
    return sum(1 for follower in followers_of(scene) if follower.name in members and follower.flush is not None and follower.flush >= position)


def _ground(scene: Scene) -> tuple[Run, Ballot, Statement, str, Roster]:
    return scene.instance.run, scene.state.reign, scene.state.said, scene.instance.names, scene.state.roster


# -- the members --------------------------------------------------------------------------------------------------


def _change(scene: Scene, *, until: float) -> Look:
    """The next steps from the stored list of members to the one that the operator wishes, as far as they can be taken now."""
    term, begun = scene.state.reign, False
    while scene.instance.run is Run.PRIMARY and scene.state.reign == term and scene.elapsed <= until:
        if isinstance(next_list(scene), str):
            if not begun or not next_list(scene):
                return scene
            scene = yield []  # the others store it within a second or two
            continue
        if not scene.state.roster.joint and not settled(scene):
            if not begun:
                return scene
            scene = yield from steer(scene, until=until)
            scene = yield []
            continue
        caught_up = not scene.state.roster.joint or not synchronous(scene.rules)
        if not caught_up:
            scene, caught_up = yield from _catch_up(scene, until=until)
        step = next_list(scene)
        if not caught_up or isinstance(step, str) or scene.state.reign != term:
            return scene
        state = scene.state._replace(roster=step)
        scene = yield [Store(state), Publish(my_vote(scene._replace(state=state)))]
        scene, begun = (yield from steer(scene, until=until)), True
    return scene


def _catch_up(scene: Scene, *, until: float) -> Generator[Sequence[Action], Scene, tuple[Scene, bool]]:
    """The set of the change is in force, and k of those who confirm by it have all that was written until then.

    The position is read after the set was seen in force, and counts only as long as nothing else has changed.
    """
    ground, position = _ground(scene), None
    while scene.elapsed <= until and _ground(scene) == ground and scene.instance.names == choose_names(scene) and in_force(scene):
        if position is not None and confirmed(scene, position) >= scene.rules.confirming.k:
            return scene, True
        scene = yield [Nudge()] if position is not None else []
        position = position if position is not None else scene.instance.lsn
    return scene, False
