"""How a node's database becomes a copy of the primary's: what is given up, in which order, and when the copy counts. Pure."""

from __future__ import annotations

from pha4pgsql.pgsql import LOG_TELLS, deposed, under, unwhole
from pha4pgsql.shown import my_vote
from pha4pgsql.sight import MARGIN, reigning, unread
from pha4pgsql.standby_names import quorum_names
from pha4pgsql.vote import divergence, resolve, rewindable, store, unnamed
from pha4pgsql.words import NEVER, Action, Launch, Lsn, Outcome, Procedure, Publish, Run, Scene, Shutdown, State, Store


def begin_copy(scene: Scene, mark: str, *, rewind: bool) -> Procedure:
    """Give up what is here for a copy of the visible primary: PostgreSQL down, then one replacement of the state file, before the first byte.

    From then on this node answers no ballot, is not started and does not stand; its voice stays. The primary sees that its terms are
    adopted and makes the slot of its term for this node, by which the adapter proves whose copy it was.
    """
    if scene.instance.run is Run.PRIMARY or deposed(scene).reign != NEVER:
        acts = scene.instance.run in (Run.PRIMARY, Run.STANDBY)
        seen = (
            "this node acts as"
            if acts
            else f"PostgreSQL has not ended here (it is {scene.instance.run.value}; without data it ends within a minute),"
        )
        return Outcome(False, f"{seen} primary of term {scene.state.reign}")
    begun = copied(scene._replace(instance=scene.instance._replace(run=Run.DOWN)), mark, rewind=rewind)
    if isinstance(begun, State) and scene.instance.run is not Run.DOWN:
        scene = yield [Shutdown()]
        begun = copied(scene, mark, rewind=rewind)
    if isinstance(begun, str):
        return Outcome(False, begun)
    yield [Store(begun), Publish(my_vote(scene._replace(state=begun)))]
    return Outcome(True, reigning(scene))


def copied(scene: Scene, mark: str, *, rewind: bool) -> State | str:
    """The state of a node that becomes a copy of the visible primary by a rewind or a clone, or why it may not.

    Never of a primary below the promise, never without one: what is here may be the only copy. A rewind compares timeline numbers, so they
    must mean the same on both sides; and the remains of an unfinished copy cannot be rewound (manual, pg_rewind, Warning).
    """
    primary, instance = reigning(scene), scene.instance
    vote, state = scene.vote(primary), resolve(deposed(scene), instance)
    if not primary:
        return "no primary is visible, and what is here may be the only copy"
    if vote.reign < state.promised:
        return f"{primary} reigns by term {vote.reign}, {state.promised} is promised: not copied"
    if instance.run is not Run.DOWN:
        return f"PostgreSQL is {instance.run.value}, it has to be down"
    if instance.system_identifier not in ("", vote.system_identifier):
        return f"the database here (system identifier {instance.system_identifier}) is no copy of the one on {primary} ({vote.system_identifier})"
    if rewind and state.mark:
        return f"what an unfinished copy left cannot be rewound ({state.mark})"
    if rewind and instance.lsn is None:
        return unread(instance)
    if rewind and divergence(state.eras, instance.lsn or Lsn(0), vote.eras) is None:
        return f"the WAL here is a beginning of {primary}'s: there is nothing to rewind"
    if rewind and not rewindable(state.eras, instance.lsn or Lsn(0), vote.eras):
        return f"here and on {primary} one timeline number means two timelines, which pg_rewind cannot tell apart"
    new = under(state, vote)._replace(mark=mark)
    return store(new, vote.said) or new


def give_up(scene: Scene, mark: str) -> Procedure:
    """Say for an operator that the data of this node are lost: it holds nothing, and answers ballots so. What it has promised it keeps.

    Elections count such an answer as they count that of a member which is behind everybody. What only the lost data had is lost with them.
    """
    if reigning(scene):
        return Outcome(False, f"{reigning(scene)} is primary: nothing has to be given up, this node can be made a copy")
    if scene.instance.run is not Run.DOWN or (scene.instance.system_identifier and not scene.state.mark):
        here = f"PostgreSQL is {scene.instance.run.value}, system identifier {scene.instance.system_identifier or 'unknown'}"
        return Outcome(False, f"a database is here ({here}): its data are not lost")
    state = scene.state._replace(eras=(), pending=NEVER, beyond=0, reign=NEVER, mark=mark)
    yield [Store(state), Publish(my_vote(scene._replace(state=state)))]
    return Outcome(True)


def recover(scene: Scene) -> Procedure:
    """Bring a database that crashed to a clean end before it is rewound: as a standby of nobody, so that no WAL is written. No mark yet.

    One that an interrupted repair has left running is only ended.
    """
    state = resolve(deposed(scene), scene.instance)
    if scene.instance.run not in (Run.DOWN, Run.STANDBY, Run.STARTING) or state.mark or state.reign != NEVER:
        return Outcome(False, unwhole(scene) or f"PostgreSQL is {scene.instance.run.value}, it has to be down")
    if scene.instance.run is Run.DOWN:
        stored: list[Action] = [Store(state)] if state != scene.state else []
        scene = yield [*stored, Launch(None, quorum_names(scene.rules, scene.me))]
    while scene.instance.run in (Run.STARTING, Run.SILENT) and scene.left > MARGIN:
        scene = yield []
    found = scene.instance.run
    if found is not Run.DOWN:
        scene = yield [Shutdown()]
    if found is not Run.STANDBY or scene.instance.run is not Run.DOWN:
        return Outcome(False, f"PostgreSQL did not come through its crash recovery (it is {found.value}){LOG_TELLS}")
    return Outcome(True)


def end_copy(scene: Scene, mark: str, system_identifier: str) -> Procedure:
    """The copy is complete and proven: take the mark away, if the copy holds nothing that the terms stored with it do not name."""
    wrong = misfit(scene, mark, system_identifier)
    if wrong:
        return Outcome(False, wrong)
    whole = scene.state._replace(mark="")
    yield [Store(whole), Publish(my_vote(scene._replace(state=whole)))]
    return Outcome(True)


def misfit(scene: Scene, mark: str, system_identifier: str) -> str:
    """Why a copy is not what the state file says of it, or empty."""
    state, instance = scene.state, scene.instance
    if state.mark != mark:
        return f"the mark is now {state.mark!r}: somebody else has begun anew"
    if instance.run is not Run.DOWN or instance.system_identifier != system_identifier:
        return f"PostgreSQL is {instance.run.value} with system identifier {instance.system_identifier}, expected down with {system_identifier}"
    starts = {era.timeline: era.start for era in state.eras}
    for timeline, _, start in instance.histories:
        if timeline > max(starts, default=0) or starts.get(timeline, start) != start:
            return f"the copy holds timeline {timeline} from {start}, which the primary's terms do not name: there was another primary meanwhile"
    return ""


def undo_copy(scene: Scene, mark: str, before: State) -> Procedure:
    """Nothing was copied: what is here is what it was. Promises made meanwhile stay."""
    if scene.state.mark == mark:
        back = scene.state._replace(eras=before.eras, pending=before.pending, beyond=before.beyond, mark=before.mark)
        yield [Store(back), Publish(my_vote(scene._replace(state=back)))]
    return Outcome(True)


def diverged(scene: Scene) -> bool:
    """Whether by what the votes show this node's WAL, which nothing moves, is no beginning of the primary's; its own vote included."""
    mine, theirs = scene.vote(scene.me), scene.vote(reigning(scene))
    comparable = bool(mine.lsn) and theirs.reign != NEVER and theirs.reign >= scene.state.promised
    own = resolve(scene.state, scene.instance).eras
    return comparable and (bool(unnamed(own)) or divergence(own, mine.lsn, theirs.eras) is not None)
