"""What a node keeps and shows: its state file, its vote, the attributes and properties by which others see it. Pure."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from pha4pgsql.sight import attribute_name, is_bound, priority, stays, tagged, wished
from pha4pgsql.standby_names import NOBODY, named_in
from pha4pgsql.vote import enrol, resolve, unnamed
from pha4pgsql.words import NEVER, NOTHING, Action, Answer, Attributes, Follower, Lsn, Mode, Properties, Publish, Run, Scene, State, Store, Vote, Wish

if TYPE_CHECKING:
    from collections.abc import Sequence


Look = Generator["Sequence[Action]", Scene, Scene]


# -- the vote -----------------------------------------------------------------------------------------------------


def my_vote(scene: Scene, *, answer: Answer | None = None) -> Vote:
    """What this node shows the others: its state file, the end of its WAL while nothing moves it, its last answer."""
    state, instance = scene.state, scene.instance
    acting = instance.run is Run.PRIMARY and state.pending == NEVER
    frozen = not instance.streaming and instance.run is not Run.PRIMARY
    given = scene.vote(scene.me).answer
    kept = given if given and given.ballot <= state.promised else None  # an answer without its promise is none
    return Vote(
        state.promised,
        state.eras,
        state.reign if acting else NEVER,
        state.said,
        answer or kept,
        (held(scene) or Lsn(0)) if frozen else Lsn(0),
        instance.system_identifier,
        state.roster,
    )


def held(scene: Scene) -> Lsn | None:
    """The end of the local WAL as elections count it; None: not known, or the data are not whole.

    On a timeline without a term nothing counts beyond its beginning: until there it is what it was before.
    """
    end = NOTHING if scene.state.given_up else None if scene.state.mark else scene.instance.lsn
    stray = unnamed(scene.state.eras)
    return min(end, stray.start) if stray and end is not None else end


def show(scene: Scene) -> list[Action]:
    """Publish the vote if it changed."""
    vote = my_vote(scene)
    return [Publish(vote)] if vote != scene.vote(scene.me) else []


def tell(scene: Scene) -> Look:
    """Publish the vote if it changed."""
    steps = show(scene)
    return (yield steps) if steps else scene


def enrolled(scene: Scene, state: State) -> State:
    """The state with a list of members: the newest that this node may store. Who only reads needs none."""
    return state if scene.only_reads else enrol(state, scene.wish, (vote for _, vote in scene.votes))


def settle(scene: Scene) -> Look:
    """Give a timeline that appeared its term, in the state file, and the file the newest list of members that it may hold."""
    state = enrolled(scene, resolve(scene.state, scene.instance))
    if state != scene.state:
        scene = yield [Store(state)]
    return scene


def next_round(scene: Scene) -> Properties:
    """Raise the round above everything visible, so that the next attempt is not refused."""
    seen = [*(vote for _, vote in scene.votes), *([scene.row] if scene.row is not None else [])]
    highest = max([scene.round, scene.state.promised.round, *(vote.promised.round for vote in seen)])
    return Properties(((f"{scene.rules.resource}_round", str(highest + 1)),))


# -- attributes ---------------------------------------------------------------------------------------------------


def attributes(
    scene: Scene, transient: dict[tuple[str, str], str | None], permanent: dict[tuple[str, str], str | None] | None = None
) -> list[Action]:
    """Set node attributes, named without the resource's name, where they differ from what is published."""
    full = {(node, attribute_name(scene.rules, name)): value for (node, name), value in transient.items()}
    lasting = {(node, attribute_name(scene.rules, name)): value for (node, name), value in (permanent or {}).items()}
    seen = dict(scene.attributes)
    new = tuple(sorted((key, value) for key, value in full.items() if seen.get(key) != value))
    old = tuple(sorted((key, value) for key, value in lasting.items() if seen.get(key) != value))
    return [Attributes(new, old)] if new or old else []


def set_attributes(scene: Scene, transient: dict[tuple[str, str], str | None]) -> Look:
    """Publish transient node attributes that differ from what is seen."""
    steps = attributes(scene, transient)
    return (yield steps) if steps else scene


def wishes_left(scene: Scene, kept: Wish | None = None) -> dict[tuple[str, str], str | None]:
    """Wishes come to an end: at this node after so many looks of its primary, at all others now."""
    left = str(kept._replace(looks=kept.looks - 1)) if kept and kept.looks > 1 else None
    return {(node, "switch"): left if node == scene.me else None for node in scene.rules.members}


# -- what a primary tells of the set ------------------------------------------------------------------------------


def report(scene: Scene) -> list[Action]:
    """The attributes and properties by which people and other agents see the set; nothing where nothing changed."""
    me, rules = scene.me, scene.rules
    status: dict[tuple[str, str], str | None] = {(me, "status"): "PRI", (me, "score"): "1000", (me, "xlog-loc"): None}
    if scene.attribute(me, attribute_name(rules, "master-baseline")) is None:
        status[me, "master-baseline"] = (scene.state.eras[-1].start if scene.state.eras else Lsn(0)).hex16
    data: dict[tuple[str, str], str | None] = {(me, "data-status"): "LATEST"}
    for node in scene.peers:
        words = standing_of(scene, node)
        data[node, "data-status"] = words[0]
        if node in scene.online and scene.attribute(node, attribute_name(rules, "status")) not in ("STOP", "UNKNOWN", None):
            status[node, "status"], status[node, "score"], status[node, "master-baseline"] = words[1], words[2], None
            status[node, "xlog-loc"] = None
    steps = attributes(scene, {**status, **wishes_left(scene, wished(scene))}, data)
    info = repl_info(scene)
    properties: list[tuple[str, str | None]] = [(f"{rules.resource}_REPL_INFO", info)] if info != scene.repl_info else []
    if scene.round <= scene.state.reign.round:
        properties += next_round(scene).values
    return [*steps, *([Properties(tuple(properties))] if properties else [])]


def standing_of(scene: Scene, node: str) -> tuple[str, str, str]:
    """A peer's data-status, status and promotion score, as the primary sees them."""
    rows = [follower for follower in scene.instance.followers if follower.name == node]
    if not rows:
        return "DISCONNECT", "HS:alone", "-INFINITY"
    row = rows[0]
    if not is_bound(scene, row):
        return f"{row.state}|{row.sync_state}".upper(), "HS:connected", "-INFINITY"
    names = scene.instance.names
    waits = names not in ("", NOBODY) and scene.state.said.owner != scene.me and node in named_in(names)
    score = (
        "-INFINITY"
        if node not in scene.others or tagged(scene, node, "nofailover")
        else str(100 + priority(scene, node) if stays(scene, node) else 1)
    )
    if scene.rules.mode is Mode.ASYNC:
        return "STREAMING|ASYNC", "HS:async", score if not lagging(scene, row) else "-INFINITY"
    if waits and scene.rules.mode is Mode.QUORUM:
        return "STREAMING|QUORUM", "HS:quorum", score
    return ("STREAMING|SYNC", "HS:sync", score) if waits else ("STREAMING|ASYNC", "HS:async", "-INFINITY")


def lagging(scene: Scene, follower: Follower) -> bool:
    """Whether a standby is too far behind to be promoted (`maxlag`, bytes; 0: no limit)."""
    return scene.rules.maxlag > 0 and (scene.instance.lsn or 0) - (follower.flush or 0) > scene.rules.maxlag


def repl_info(scene: Scene) -> str:
    """`node|timeline|LSN`: the primary, the timeline that its promotion left, and where (zeros before any promotion)."""
    if not scene.state.eras:
        return f"{scene.me}|0|{Lsn(0).hex16}"
    era = scene.state.eras[-1]
    parent = next((parent for timeline, parent, _ in scene.instance.histories if timeline == era.timeline), era.timeline - 1)
    return f"{scene.me}|{parent}|{era.start.hex16}"
