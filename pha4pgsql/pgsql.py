"""What the pgsql agent decides: start, follow, answer, promote, reign, demote, stop. Pure.

Every procedure looks at a `Scene`, yields the actions to perform *in order*, and gets a fresh scene. One look and its
actions are one critical section of the node (the driver holds the node's lock over both); between two looks anything
may happen, a crash too. So every step leaves a state that is safe for ever: rights are given away before others take them.
"""

from __future__ import annotations

import binascii
from collections.abc import Generator
from typing import TYPE_CHECKING

from pha4pgsql.vote import (
    Diverged,
    Elected,
    Lost,
    Waiting,
    able,
    alike,
    await_timeline,
    cut,
    divergence,
    elect,
    enrol,
    newest_statement,
    next_roster,
    obstacle,
    outvoted,
    promise,
    resolve,
    rewindable,
    store,
    stored_by,
    term_at,
)
from pha4pgsql.words import (
    NEVER,
    Action,
    Answer,
    AskRow,
    Attributes,
    Ballot,
    Checkpoint,
    Follow,
    Follower,
    Launch,
    Lsn,
    MakeSlots,
    Mode,
    Name,
    Nudge,
    Outcome,
    Procedure,
    Promote,
    Properties,
    Prove,
    Publish,
    Roster,
    Rules,
    Run,
    Scene,
    Shutdown,
    State,
    Statement,
    Store,
    StoreRow,
    Upstream,
    Vote,
    Wish,
    slot_word,
)

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

OURS = "pha4pgsql-"
"""No standby's name begins so."""
NOBODY = f'"{OURS}nobody"'
"""A synchronous_standby_names that nobody can meet: commits wait, whoever is connected."""

STEP = f"{OURS}step"
"""A name that no standby has: the first one of a set between two others, see `step_names`."""

GRACE = 1.0
"""Seconds for which standbys may be missing before a primary says that it goes on alone."""
FOLLOWERS_GRACE = 5.0
"""Seconds a promotion waits for followers that answered and can follow, before it thinks of going on alone."""
PATIENCE = 5.0
"""Seconds one monitor spends on going alone or on coming back; the next one goes on."""
ANSWER_PATIENCE = 4.0
"""Seconds a candidate waits for answers that are missing."""
ASYNC_PATIENCE = 0.5
"""The same in async mode, where nobody's answer is needed."""
ROW_PAUSE = 0.5
"""Seconds between two questions to the row of the distributed lock."""
NOT_YET = -ROW_PAUSE
"""The time of the last question when there was none."""
RAISED = "INFINITY"
"""The promotion score by which a switchover begins: above a primary's with any stickiness of a person's choice."""
HANDOVER = 1.0
"""Seconds a candidate of a switchover waits for the old primary's last word."""
MARGIN = 5.0
"""Seconds before the end of an operation at which it has to say how far it came."""

Look = Generator["Sequence[Action]", Scene, Scene]


# -- words of one node -------------------------------------------------------------------------------------------


def slot_name(prefix: str, term: Ballot, node: str) -> str:
    """The slot which the primary of `term` keeps for `node`: no receiver can use it under another term, and none twice.

    One slot per term and node, because a slot is active for one walsender only: with two a node could confirm a commit
    twice (PostgreSQL counts walsenders, not names). Names that would not fit have the primary's name as a checksum.

    >>> slot_name("pgsql", Ballot(7, "node1"), "db-2.example")
    'pgsql_7_node1_db_2_example'
    >>> slot_name("pgsql", Ballot(7, "n" * 50), "db-2.example")
    'pgsql_7_877da756_db_2_example'
    """
    name = f"{prefix}_{term.round}_{slot_word(term.node)}_{slot_word(node)}"
    return name if len(name) <= 63 else f"{prefix}_{term.round}_{binascii.crc32(term.node.encode()):08x}_{slot_word(node)}"


def outside_slot(prefix: str, name: str) -> str:
    """The slot of a standby outside of the cluster, which knows no term: the primary of the day has it, and drops it when it is none.

    >>> outside_slot("pgsql", "dr-1")
    'pgsql_outside_dr_1'
    """
    return f"{prefix}_outside_{slot_word(name)}"


def quorum_names(rules: Rules, me: str, nodes: Sequence[str] = ()) -> str:
    """`ANY k` of these, or of all other members: safe for whoever is promoted with it, and what every standby runs with."""
    others = ", ".join(f'"{node}"' for node in nodes or rules.confirming.members if node != me)
    return f"ANY {rules.confirming.k} ({others})" if synchronous(rules) and others else ""


def step_names(number: int, nodes: Sequence[str]) -> str:
    """A set between two others: so many of these nodes, and walsenders show to have read it.

    Under ANY every walsender has priority 1, in a list of n names its place, 1 to n. With as many names before all others that nobody
    has as there are confirmations, no place is one of the set before or after: so each walsender shows by its priority which of them
    it releases commits by, and one that is named no more shows 0.

    >>> step_names(2, ("b", "c"))
    'FIRST 2 ("pha4pgsql-step", "pha4pgsql-step-2", "b", "c")'
    """
    steps = (STEP, *(f"{STEP}-{place}" for place in range(2, number + 1)))
    return f"FIRST {number} ({quoted((*steps, *nodes))})"


def is_step(names: str) -> bool:
    """Whether this is a set between two others."""
    return names.startswith("FIRST ") and STEP in named_in(names)


def number_in(names: str) -> int:
    """How many confirmations a set that we wrote asks for.

    >>> number_in(""), number_in('"b"'), number_in('2 ("b", "c")'), number_in('ANY 3 ("b", "c", "d")')
    (0, 1, 2, 3)
    """
    head = names.partition("(")[0].split()
    return int(head[-1]) if head and head[-1].isdigit() else int(bool(names))


def quoted(names: Iterable[str]) -> str:
    """Names as a synchronous_standby_names lists them.

    >>> quoted(("b", "c"))
    '"b", "c"'
    """
    return ", ".join(f'"{name}"' for name in names)


def synchronous(rules: Rules) -> bool:
    """Whether commits wait for other members in this mode."""
    return rules.mode in (Mode.SYNC, Mode.QUORUM) and rules.confirming.k > 0


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
        (instance.lsn or Lsn(0)) if frozen and not state.mark else Lsn(0),
        instance.system_identifier,
        state.roster,
    )


def show(scene: Scene) -> list[Action]:
    """Publish the vote if it changed."""
    vote = my_vote(scene)
    return [Publish(vote)] if vote != scene.vote(scene.me) else []


def _tell(scene: Scene) -> Look:
    """Publish the vote if it changed."""
    steps = show(scene)
    return (yield steps) if steps else scene


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


def _set(scene: Scene, transient: dict[tuple[str, str], str | None]) -> Look:
    """Publish transient node attributes that differ from what is seen."""
    steps = attributes(scene, transient)
    return (yield steps) if steps else scene


def attribute_name(rules: Rules, name: str) -> str:
    """`status` -> `pgsql-status`, `score` -> `master-pgsql`: the names on the wire."""
    return f"master-{rules.resource}" if name == "score" else f"{rules.resource}-{name}"


def reigning(scene: Scene) -> str:
    """The other node that shows the highest term as primary, or empty. It may have become a member unknown to this one."""
    terms = [(vote.reign, node) for node, vote in scene.votes if vote.reign != NEVER and node != scene.me]
    return max(terms)[1] if terms else ""


# -- answering ---------------------------------------------------------------------------------------------------


def answer(scene: Scene, ballot: Ballot) -> Procedure:
    """Promise a ballot and say how far the local WAL reaches; from then on nobody but the candidate moves it.

    The old receiver is gone before the promise, the promise is on disk before the position is read, and both before
    the answer is published. A member whose PostgreSQL is down answers from its disk.
    """
    if scene.only_reads:
        return Outcome(True)
    if stranger(scene):
        return Outcome(False, f"{scene.me} is in no list of members: it answers no ballot")
    refusal = promise(_deposed(scene), ballot)
    if isinstance(refusal, str):
        yield from _tell(scene)
        return Outcome(False, refusal)
    if scene.instance.run in (Run.PRIMARY, Run.SILENT, Run.STOPPING):
        return Outcome(False, f"PostgreSQL is {scene.instance.run.value}: only a standby, or one that is down, answers")
    if scene.instance.run is Run.STARTING and scene.rules.mode is Mode.ASYNC:
        return Outcome(False, "PostgreSQL recovers, and async does not wait for it")
    if scene.instance.run is Run.STARTING and scene.instance.upstream is not None:
        return Outcome(False, "PostgreSQL recovers and may receive WAL meanwhile, which cannot be seen yet")
    if scene.instance.upstream is not None or scene.instance.receiving:
        scene = yield [Follow(None)]
    while scene.instance.receiving and scene.left > MARGIN:
        scene = yield []
    promised = promise(resolve(_deposed(scene), scene.instance.histories), ballot)
    if isinstance(promised, str) or scene.instance.receiving or scene.instance.run is Run.PRIMARY:
        return Outcome(False, promised if isinstance(promised, str) else f"the WAL receiver did not end, ballot {ballot} is not answered")
    scene = yield [Store(_enrolled(scene, promised))]
    while scene.instance.lsn is None and scene.left > MARGIN and scene.instance.run is not Run.DOWN:
        scene = yield []
    if scene.instance.lsn is None or scene.state.promised != ballot or scene.instance.upstream is not None:
        return Outcome(False, "the end of the local WAL could not be found out")
    end = scene.instance.lsn
    said = Answer(ballot, term_at(scene.state.eras, end), end, scene.instance.timeline, scene.instance.system_identifier)
    steps: list[Action] = [Publish(my_vote(scene, answer=said))]
    if ballot.node != scene.me and scene.instance.run is not Run.DOWN and not strays(scene):
        upstream = Upstream(ballot.node, slot_name(scene.rules.slot_prefix, ballot, scene.me))
        steps += [Store(await_timeline(scene.state, ballot, said.lsn, timelines(scene))), Follow(upstream)]
    yield steps
    return Outcome(True, f"answered {ballot}: {said.lsn} of term {said.term}")


def stranger(scene: Scene) -> bool:
    """Whether nobody counts this node: what it promised would keep it from following, and a primary heeds only its members' promises."""
    lists = [scene.state.roster, *(vote.roster for _, vote in scene.votes)]
    return scene.state.roster.listed and not any(scene.me in roster.elects.members for roster in lists)


def timelines(scene: Scene) -> tuple[int, ...]:
    """The timelines of which the local WAL holds something."""
    return (scene.instance.timeline, *(timeline for timeline, _, _ in scene.instance.histories))


def strays(scene: Scene) -> bool:
    """Whether the local WAL holds remains of a timeline beyond the one it is on: a new one could not be told from them."""
    held = cut(scene.state.eras, scene.instance.lsn or Lsn(0))
    known = held[-1].timeline if held else scene.instance.timeline
    return max(timelines(scene)) > known


def _enrolled(scene: Scene, state: State) -> State:
    """The state with a list of members: the newest that this node may store. Who only reads needs none."""
    return state if scene.only_reads else enrol(state, scene.wish, (vote for _, vote in scene.votes))


def _deposed(scene: Scene) -> State:
    """The state as far as the reign counts: a primary whose PostgreSQL is down reigns no more."""
    return scene.state._replace(reign=NEVER) if scene.instance.run is Run.DOWN else scene.state


def watch(scene: Scene) -> Procedure:
    """The voice of a node, whatever PostgreSQL does there: store statements and lists; while PostgreSQL is down, answer ballots from disk."""
    if scene.only_reads:
        return Outcome(True)
    before = _deposed(scene)
    stored = _enrolled(scene, store(before, newest_statement(vote for _, vote in scene.votes)) or before)
    if stored != before:
        scene = yield [Store(stored), Publish(my_vote(scene._replace(state=stored)))]
    if scene.instance.run is Run.DOWN:
        asked = max((vote.answer.ballot for node, vote in scene.votes if vote.answer and vote.answer.ballot.node == node), default=NEVER)
        if asked > scene.state.promised and asked.node in scene.others:
            return (yield from answer(scene, asked))
    yield from _tell(scene)
    return Outcome(True)


# -- standby -----------------------------------------------------------------------------------------------------


def follow(scene: Scene) -> Procedure:
    """The standby's monitor: follow the primary if the local WAL is a beginning of its, or see whether to stand for election."""
    if scene.state.mark:
        return Outcome(False, unwhole(scene))
    scene = yield from _settle(scene)
    if scene.instance.run is not Run.STANDBY:
        return Outcome(True)
    if scene.state.reign != NEVER:
        return Outcome(False, f"a promotion under {scene.state.reign} was begun and not finished; this node has to be demoted")
    primary = reigning(scene)
    if not primary:
        return (yield from stand(scene))
    term = scene.vote(primary).reign
    wanted = Upstream(primary, slot_name(scene.rules.slot_prefix, term, scene.me))
    stale = scene.instance.upstream not in (None, wanted) and term >= scene.state.promised
    if stale or (scene.instance.upstream is None and scene.instance.receiving):
        scene = yield [Follow(None)]  # else WAL of the old term could arrive after the check
        while scene.instance.receiving and scene.left > MARGIN:
            scene = yield []
        scene = yield []  # the end of WAL, read after the receiver was seen gone
        if scene.instance.receiving or scene.instance.run is not Run.STANDBY:
            return Outcome(True, "the old WAL receiver has not ended yet")
    adopted = adopt(scene)
    if isinstance(adopted, Outcome):
        yield from _tell(scene)
        return adopted
    blocked = misled(scene)
    if blocked:
        return Outcome(False, blocked)
    state, upstream = adopted
    steps: list[Action] = [Store(state)] if state != scene.state else []
    steps += [Follow(upstream)] if scene.instance.upstream != upstream else []
    if steps:
        scene = yield steps
    yield from _tell(scene)
    return Outcome(True)


def misled(scene: Scene) -> str:
    """Why PostgreSQL cannot follow before it was restarted: it has fetched the history of another timeline of the same number.

    PostgreSQL never fetches a history file that exists, and would ask for WAL that nobody has. A start puts it away.
    """
    for timeline, _, start in (*scene.instance.histories, *scene.instance.unheld):
        for era in scene.vote(reigning(scene)).eras:
            if era.timeline == timeline and era.start != start:
                return f"the history file of timeline {timeline} is of another one that began at {start}, the primary's at {era.start}; restart"
    return ""


def follow_visible(scene: Scene) -> Procedure:
    """Follow a primary that the votes show; without one this fails, because standing for election needs to see more."""
    if not reigning(scene):
        return Outcome(False, "no primary is visible")
    return (yield from follow(scene))


def adopt(scene: Scene) -> tuple[State, Upstream] | Outcome:
    """The state and the upstream with which this node follows the visible primary, or the outcome that says why it does not."""
    primary = reigning(scene)
    if not primary:
        return Outcome(True, "no primary is visible")
    vote, state, instance = scene.vote(primary), resolve(scene.state, scene.instance.histories), scene.instance
    if vote.reign < state.promised:
        return Outcome(True, f"{primary} reigns by term {vote.reign}, {state.promised} is promised: not followed")
    if vote.system_identifier != instance.system_identifier:
        here, there = instance.system_identifier, vote.system_identifier
        return Outcome(False, f"the database here (system identifier {here}) is no copy of the one on {primary} ({there})")
    if instance.lsn is None:
        return Outcome(True, "the end of the local WAL could not be found out yet")
    upstream = Upstream(primary, slot_name(scene.rules.slot_prefix, vote.reign, scene.me))
    bound = not state.eras and instance.streaming and instance.upstream == upstream  # its state file was lost, its slot is the proof
    fork = None if bound else divergence(state.eras, instance.lsn, vote.eras)
    if fork is not None:
        return Outcome(False, forked(scene, fork))
    new = under(state, vote)
    return store(new, vote.said) or new, upstream


def under(state: State, vote: Vote) -> State:
    """The state of a node whose WAL is, or becomes, a beginning of this primary's: its terms and its list are taken over, its term is promised."""
    roster = vote.roster if vote.roster.listed and vote.roster.number >= state.roster.number else state.roster
    return state._replace(promised=max(state.promised, vote.reign), eras=vote.eras, pending=NEVER, beyond=0, roster=roster)


def forked(scene: Scene, fork: Diverged) -> str:
    """The seed's words for a database that left the primary's history. Pacemaker keeps 128 characters of them."""
    instance = scene.instance
    where = ("latest checkpoint location", instance.checkpoint) if instance.checkpoint > fork.at else ("end of WAL location", instance.lsn or Lsn(0))
    return (
        f"The master's timeline forked off current database system timeline {instance.timeline} before {where[0]} {where[1].hex16}, "
        f"REPL_INFO:{scene.repl_info} (forked at {fork.at.hex16})"
    )


def stand(scene: Scene) -> Procedure:
    """No primary is visible: show the local position, and ask for a promotion if nobody visible is further."""
    if scene.instance.streaming:
        yield from _tell(scene)
        return Outcome(True, "no primary is visible, but WAL arrives")
    if scene.only_reads:
        scene = yield from _tell(scene)
        yield from _set(scene, {(scene.me, "status"): "HS:alone", (scene.me, "score"): "-INFINITY"})
        return Outcome(True, "no primary is visible")
    if unreached(scene):  # between the fetch of a new history file and the first WAL of its timeline a receiver is there
        return Outcome(scene.instance.receiving, unreached(scene))
    scene = yield from _tell(scene)
    if _needs_row(scene):
        scene = yield [AskRow()]
        if scene.row is not None and scene.row.promised.round >= scene.round:
            scene = yield [_next_round(scene)]
    if handing_over(scene):
        return Outcome(True, "no primary is visible, a switchover is under way")
    score = standing(scene)
    place = scene.instance.lsn.hex16 if scene.instance.lsn else None
    yield from _set(scene, {(scene.me, "status"): "HS:alone", (scene.me, "xlog-loc"): place, **({(scene.me, "score"): score} if score else {})})
    return Outcome(True, obstacle(dict(scene.votes), scene.rules, override=scene.override, row=scene.row))


def _needs_row(scene: Scene) -> bool:
    """Whether the members that are visible are too few to know that nobody is alone, so that the row has to be asked."""
    visible = [node for node in scene.rules.members if scene.vote(node).lsn]
    return scene.rules.row and len(visible) < scene.rules.voices_needed


def unreached(scene: Scene) -> str:
    """Why PostgreSQL must not be promoted before it was restarted: it aims at a timeline that it has not reached.

    It would write that one as the parent of the new timeline, with a switch point that its WAL never had. A start puts
    the file away.
    """
    newer = [timeline for timeline, _, _ in scene.instance.unheld if timeline > scene.instance.timeline]
    return f"the history file of timeline {max(newer)} is here, and none of its WAL; PostgreSQL has to be restarted" if newer else ""


def unexplained(scene: Scene) -> str:
    """Why PostgreSQL must not be promoted now: it shows a timeline of whose history nothing is here, so it may choose that number once more."""
    known = {1, *(timeline for timeline, _, _ in (*scene.instance.histories, *scene.instance.unheld))}
    return "" if scene.instance.timeline in known else f"PostgreSQL shows timeline {scene.instance.timeline}, of whose history nothing is here"


def standing(scene: Scene) -> str | None:
    """The promotion score of a standby that sees no primary; None: leave it as it is.

    Whoever can win by what is visible stands, unless somebody stands already: two with equal scores would make
    Pacemaker change its mind in the middle of an election. Who stands and cannot win gives its score up when it fails.
    """
    score = attribute_name(scene.rules, "score")
    able = winners(scene)
    if scene.me not in able:
        return "-INFINITY" if len(able) > 0 else None
    if tagged(scene, scene.me, "nofailover") and not all(tagged(scene, node, "nofailover") for node in able):
        return "-INFINITY"
    if any(positive(scene.attribute(node, score)) and runs(scene, node) for node in scene.rules.members if node in scene.online):
        return None
    return "100" if max(able, key=lambda node: _fitness(scene, node)) == scene.me else None


def positive(score: str | None) -> bool:
    """Whether a promotion score lets Pacemaker promote."""
    return score is not None and score not in ("", "0") and not score.startswith("-")


def runs(scene: Scene, node: str) -> bool:
    """Whether a member's PostgreSQL is not known to be stopped."""
    return scene.attribute(node, attribute_name(scene.rules, "status")) not in ("STOP", "UNKNOWN")


def winners(scene: Scene) -> list[str]:
    """The members that run and would win an election by the positions that are visible."""
    return [node for node in able(dict(scene.votes), scene.rules, override=scene.override, row=scene.row) if runs(scene, node)]


def stays(scene: Scene, node: str) -> bool:
    """Whether a member is wished to stay one: a primary could not leave."""
    return node in scene.wish.members


def _fitness(scene: Scene, node: str) -> tuple[bool, bool, int, tuple[Ballot, Lsn], bool, int, bool, int]:
    """Whom to try first: not tagged nofailover, failed least, furthest, named by the operator, of the highest priority, not the DC; then the list.

    Next to the tag comes that it is to stay a member. A tagged node comes when nobody else would win: what only it holds must not be lost. The loss
    of a DC costs a second. The first primary of all is by the order of node_list, as the walkthrough has it.
    """
    vote = scene.vote(node)
    place = (term_at(vote.eras, vote.lsn), vote.lsn)
    willing = not tagged(scene, node, "nofailover")
    off_dc = place[0] == NEVER or node != scene.dc
    named = node == scene.override
    return (willing, stays(scene, node), -dict(scene.failures).get(node, 0), place, named, priority(scene, node), off_dc, -_index(scene, node))


def tagged(scene: Scene, node: str, tag: str) -> bool:
    """Whether people have set this tag of a node: the node attribute `pgsql-nofailover` (or another tag) is `true`.

    Tags are wishes. They choose among what is safe, so it does no harm that a node may see them late or not at all.
    """
    return scene.attribute(node, attribute_name(scene.rules, tag)) == "true"


def priority(scene: Scene, node: str) -> int:
    """How much a node is preferred among equals, 0 to 100; what is no number counts as 0."""
    text = scene.attribute(node, attribute_name(scene.rules, "priority")) or ""
    return min(int(text), 100) if text.isascii() and text.isdigit() else 0


def candidates(scene: Scene) -> tuple[str, ...]:
    """The members that may be named to confirm commits: the others without the tag nosync; all of them where too few would be left."""
    others = tuple(node for node in scene.rules.confirming.members if node != scene.me)
    wanted = tuple(node for node in others if not tagged(scene, node, "nosync"))
    return wanted if len(wanted) >= scene.rules.confirming.k else others


def _index(scene: Scene, node: str) -> int:
    """A node's place in the list of members; one that is in a newer list only comes last."""
    members = scene.rules.members
    return members.index(node) if node in members else len(members)


def _settle(scene: Scene) -> Look:
    """Give a timeline that appeared its term, in the state file, and the file the newest list of members that it may hold."""
    state = _enrolled(scene, resolve(scene.state, scene.instance.histories))
    if state != scene.state:
        scene = yield [Store(state)]
    return scene


# -- promotion ---------------------------------------------------------------------------------------------------


def promote(scene: Scene) -> Procedure:
    """Become primary: by the answers of N-k members to one ballot, and only if nobody who answered is further.

    Ends well when the first record of the new term is confirmed by k others, or alone is in force, or nobody is
    left to ask; never when a higher promise is visible.
    """
    if scene.instance.run is Run.PRIMARY and scene.state.reign != NEVER:
        return (yield from _confirm(scene, expected=scene.rules.confirming.k))
    if scene.instance.run is not Run.STANDBY or scene.state.mark:
        return Outcome(False, unwhole(scene) or f"promote wants a running standby, PostgreSQL is {scene.instance.run.value}")
    if scene.only_reads:
        yield attributes(scene, {(scene.me, "score"): "-INFINITY"})
        return Outcome(False, f"{scene.me} is not in node_list: it only reads, and is never promoted")
    ballot = Ballot(scene.round, scene.me)
    if scene.state.promised.node == scene.me and scene.state.promised.round >= scene.round:
        ballot = scene.state.promised
    if ballot in (era.term for era in scene.state.eras):
        yield [_next_round(scene)]
        return Outcome(False, f"ballot {ballot} was won before, and a term makes one timeline only; the next attempt has a new one")
    given = scene.vote(scene.me).answer
    if given is None or given.ballot != ballot:
        outcome = yield from answer(scene, ballot)
        if not outcome.ok:
            yield [_next_round(scene)]
            return outcome
        scene = yield []
    scene = yield from _last_word(scene)
    scene, verdict = yield from _campaign(scene, ballot)
    if isinstance(verdict, Elected):
        verdict = _handed_over(scene, verdict)
    if not isinstance(verdict, Elected):
        to = verdict.to if isinstance(verdict, Lost) and not tagged(scene, verdict.to, "nofailover") else ""
        scores: dict[tuple[str, str], str | None] = {(scene.me, "score"): "-INFINITY", **({(to, "score"): "1000"} if to else {})}
        yield [*attributes(scene, {**scores, **_wishes(scene)}), _next_round(scene)]
        return Outcome(False, verdict.reason)
    mine = dict(verdict.answers)[scene.me].lsn
    followers = can_follow(scene, verdict)
    said = Statement(ballot, 1, scene.me) if verdict.inherits else scene.state.said
    roster = verdict.roster._replace(term=ballot, count=0)  # newer than what an older primary may still hand out
    state = await_timeline(scene.state, ballot, mine, timelines(scene))._replace(reign=ballot, said=said, roster=roster)
    scene = scene._replace(state=state)
    first = first_names(scene, followers)
    if number_in(scene.instance.names_shown or "") < number_in(first):  # k was raised since PostgreSQL started
        scene = yield [Store(state), Name(first)]
        while scene.instance.names_shown != first:  # a walsender that begins before releases commits by fewer confirmations
            if scene.left < MARGIN:
                return Outcome(False, "PostgreSQL has not read its new synchronous_standby_names")
            scene = yield []
    scene = yield [Store(state), Name(first), MakeSlots(_slots(scene, ballot, followers)), Promote()]
    while scene.instance.run is not Run.PRIMARY:
        if scene.left < MARGIN or scene.instance.run is Run.DOWN:
            return Outcome(False, f"PostgreSQL did not become primary (it is {scene.instance.run.value})")
        scene = yield []
    return (yield from _confirm(scene, expected=len(followers)))


def _campaign(scene: Scene, ballot: Ballot) -> Generator[Sequence[Action], Scene, tuple[Scene, Elected | Waiting | Lost]]:
    """Wait for the answers that are needed, and see that nothing has changed here since our own."""
    verdict = _judge(scene, ballot)
    patience = ANSWER_PATIENCE if scene.rules.mode is not Mode.ASYNC else scene.elapsed + ASYNC_PATIENCE
    asked = NOT_YET
    while isinstance(verdict, Waiting) and (scene.elapsed < patience or (verdict.row and asked == NOT_YET)) and scene.left > MARGIN:
        if verdict.row and scene.elapsed >= asked + ROW_PAUSE:  # only when nothing else is missing: its promise ends a reign
            asked = scene.elapsed
            scene = yield [AskRow(ballot)]
        else:
            scene = yield []
        verdict = _judge(scene, ballot)
    if isinstance(verdict, Waiting) and scene.rules.mode is Mode.ASYNC:  # whoever is silent by now is not waited for
        verdict = elect(ballot, {node: vote for node, vote in scene.votes if vote.answer and vote.answer.ballot == ballot}, scene.rules)
    if isinstance(verdict, Elected) and scene.state.promised != ballot:
        verdict = Lost(f"ballot {ballot} came too late, {scene.state.promised} is promised already")
    if isinstance(verdict, Elected) and (unreached(scene) or unexplained(scene)):
        verdict = Lost(unreached(scene) or unexplained(scene))
    if isinstance(verdict, Elected) and (scene.instance.upstream is not None or scene.instance.receiving):
        verdict = Lost("WAL of another node may still arrive here")
    if isinstance(verdict, Elected) and scene.instance.lsn != dict(verdict.answers)[scene.me].lsn:
        verdict = Lost(f"the end of the local WAL is now {scene.instance.lsn}, not {dict(verdict.answers)[scene.me].lsn} as answered")
    return scene, verdict


def _judge(scene: Scene, ballot: Ballot) -> Elected | Waiting | Lost:
    return elect(ballot, dict(scene.votes), scene.rules, override=scene.override, row=scene.row)


def _predecessors(scene: Scene) -> tuple[str, ...]:
    """In a switchover to this node the old primary, else nobody: a wish alone is none, the primary may have died under it."""
    if not scene.state.eras or scene.attribute(scene.me, attribute_name(scene.rules, "score")) != RAISED:
        return ()
    asked = (scene.me, scene.state.eras[-1].term)
    return tuple(node for node in scene.others if (wish := _wish_at(scene, node)) and (wish.target, wish.term) == asked)


def _last_word(scene: Scene) -> Look:
    """Wait a moment for what the old primary shows after its demotion."""
    began = scene.elapsed
    while scene.elapsed - began < HANDOVER and scene.left > MARGIN:
        if not any(scene.vote(node).reign == scene.state.eras[-1].term for node in _predecessors(scene)):
            break
        scene = yield []
    return scene


def _handed_over(scene: Scene, verdict: Elected) -> Elected | Lost:
    """In a switchover the old primary's last record, its shutdown checkpoint, has to be here; else it would have left the history.

    Not a matter of safety: what is missing was confirmed to nobody. If it is missing the wish is dropped, and the old primary is preferred.
    """
    mine = dict(verdict.answers)[scene.me].lsn
    for node in _predecessors(scene):
        end = scene.vote(node).lsn
        if end > mine and term_at(scene.vote(node).eras, end) == scene.state.eras[-1].term:
            return Lost(f"{node} ended at {end}, {scene.me} has {mine}: the rest has not arrived, so {node} had better stay primary", node)
    return verdict


def _wish_at(scene: Scene, node: str) -> Wish | None:
    """What the primary of this node is, or was, asked."""
    return Wish.parse(scene.attribute(node, attribute_name(scene.rules, "switch")) or "")


def wished(scene: Scene) -> Wish | None:
    """What this primary is asked: only by its present term, and only for another member."""
    wish = _wish_at(scene, scene.me)
    return wish if wish and wish.term == scene.state.reign != NEVER and wish.target in scene.others else None


def handing_over(scene: Scene) -> bool:
    """Whether Pacemaker moves the promoted role to a member that was asked for: any change of the CIB would make it plan anew in the middle."""
    score = attribute_name(scene.rules, "score")
    return any(scene.attribute(node, score) == RAISED and node in scene.online and runs(scene, node) for node in scene.others)


def _wishes(scene: Scene, kept: Wish | None = None) -> dict[tuple[str, str], str | None]:
    """Wishes come to an end: at this node after so many looks of its primary, at all others now."""
    left = str(kept._replace(looks=kept.looks - 1)) if kept and kept.looks > 1 else None
    return {(node, "switch"): left if node == scene.me else None for node in scene.rules.members}


def can_follow(scene: Scene, elected: Elected) -> tuple[str, ...]:
    """The members that answered with a WAL of the same terms, not beyond ours: only they get a slot before the promotion.

    They follow before they know our terms, so these must be theirs; whoever is behind by a term joins later.
    """
    mine = dict(elected.answers)[scene.me].lsn
    eras = cut(scene.state.eras, mine)
    return tuple(node for node, given in elected.answers if node != scene.me and given.lsn <= mine and cut(scene.vote(node).eras, given.lsn) == eras)


def first_names(scene: Scene, followers: tuple[str, ...]) -> str:
    """The synchronous_standby_names with which a standby is promoted: its final set, written before the promotion."""
    able = [node for node in followers if node in candidates(scene)]
    if scene.rules.mode is Mode.SYNC and synchronous(scene.rules) and len(able) >= scene.rules.confirming.k:
        return _named(sorted(able, key=lambda node: _preference(scene, node))[: scene.rules.confirming.k])
    return quorum_names(scene.rules, scene.me, candidates(scene))


def _confirm(scene: Scene, *, expected: int) -> Procedure:
    """Show the new term, let the others in, and wait until its first record is safe."""
    while scene.instance.lsn is None or resolve(scene.state, scene.instance.histories).pending != NEVER:
        if scene.left < MARGIN or scene.instance.run is not Run.PRIMARY:
            return Outcome(False, "the new timeline and the position of its first record could not be found out")
        scene = yield []
    term, first = scene.state.reign, scene.instance.lsn
    state = resolve(scene.state, scene.instance.histories)
    steps: list[Action] = [Store(state)] if state != scene.state else []
    scene = yield [*steps, *show(scene._replace(state=state))]
    grace = FOLLOWERS_GRACE if expected >= scene.rules.confirming.k else 0.0
    began = scene.elapsed
    note = ""
    while synchronous(scene.rules) and _confirmed(scene, first) < scene.rules.confirming.k:
        higher = outvoted(term, dict(scene.votes), scene.rules.members, scene.row)
        if higher or scene.instance.run is not Run.PRIMARY:
            return Outcome(False, f"term {term} is outvoted: {higher} is promised" if higher else "PostgreSQL ended")
        if scene.instance.names == "" and scene.instance.names_shown == "":
            note = "goes on alone"
            break
        if scene.left < MARGIN:
            note = f"promoted, but commits wait: {scene.rules.confirming.k} other members have to confirm them and do not"
            break
        if missing_slots(scene):
            scene = yield [MakeSlots(missing_slots(scene))]
        elif scene.elapsed - began < grace:
            scene = yield []
        else:
            scene = yield from _steer(scene, until=scene.elapsed + PATIENCE)
            scene = yield []
    return Outcome(True, note)  # attributes are the first monitor's: here they would make Pacemaker plan anew before it moves the address


def _confirmed(scene: Scene, position: Lsn) -> int:
    """How many members have flushed WAL up to `position`, by connections that are bound to this term."""
    members = scene.rules.confirming.members
    return sum(1 for follower in followers_of(scene) if follower.name in members and follower.flush is not None and follower.flush >= position)


def followers_of(scene: Scene) -> list[Follower]:
    """The members that stream from this primary through the slot of its present term."""
    return [follower for follower in scene.instance.followers if follower.name in scene.others and _bound(scene, follower)]


def _bound(scene: Scene, follower: Follower) -> bool:
    """Whether it streams through its slot of the present term."""
    return follower.state == "streaming" and follower.slot == slot_name(scene.rules.slot_prefix, scene.state.reign, follower.name)


def reachable(scene: Scene) -> list[Follower]:
    """The followers that may confirm and whose nodes are there: a lost one seems to stream until wal_sender_timeout has passed."""
    return [follower for follower in followers_of(scene) if follower.name in scene.online and follower.name in scene.rules.confirming.members]


def _nameable(scene: Scene) -> set[str]:
    """The members that stream and may be named."""
    return {follower.name for follower in reachable(scene)} & set(candidates(scene))


def _slots(scene: Scene, term: Ballot, nodes: Sequence[str]) -> tuple[str, ...]:
    return tuple(slot_name(scene.rules.slot_prefix, term, node) for node in nodes)


def missing_slots(scene: Scene) -> tuple[str, ...]:
    """The slots of nodes that show to have adopted this term, and so have found their WAL to be a beginning of ours.

    Others get none: a node that only answered may still point here, and PostgreSQL itself compares numbers only.
    Standbys outside of the cluster have theirs on any primary.
    """
    term = scene.state.reign
    adopted = [node for node in scene.peers if any(era.term == term for era in scene.vote(node).eras)]
    outside = [outside_slot(scene.rules.slot_prefix, name) for name in scene.rules.externals] if term != NEVER else []
    return tuple(slot for slot in (*_slots(scene, term, adopted), *outside) if slot not in scene.instance.slots)


def _next_round(scene: Scene) -> Properties:
    """Raise the round above everything visible, so that the next attempt is not refused."""
    seen = [*(vote for _, vote in scene.votes), *([scene.row] if scene.row is not None else [])]
    highest = max([scene.round, scene.state.promised.round, *(vote.promised.round for vote in seen)])
    return Properties(((f"{scene.rules.resource}_round", str(highest + 1)),))


# -- primary -----------------------------------------------------------------------------------------------------


def tend(scene: Scene) -> Procedure:
    """What a watcher does for a primary: all but changes of members, for it knows the operator's wish only as it was when it started."""
    return (yield from reign(scene, change=False))


def reign(scene: Scene, *, change: bool = True) -> Procedure:
    """The primary's monitor: demote on a higher promise, keep the right number of confirmations, tell people the state."""
    term = scene.state.reign
    if term == NEVER:
        return Outcome(False, "PostgreSQL became primary without an election (promoted by hand?)")
    if _outvoted(scene):
        return (yield from _abdicate(scene))
    scene = yield from _settle(scene)
    steps = show(scene)
    missing = missing_slots(scene)
    if steps or missing:
        scene = yield [*steps, *([MakeSlots(missing)] if missing else [])]
    scene = yield from _steer(scene, until=scene.elapsed + PATIENCE)
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


def _outvoted(scene: Scene) -> Ballot | None:
    """The highest promise above the term of this primary that a member or the row shows."""
    return outvoted(scene.state.reign, dict(scene.votes), scene.rules.members, scene.row)


def _abdicate(scene: Scene) -> Procedure:
    """An outvoted primary fails, so that it is demoted; of two promoted nodes Pacemaker keeps the one with the higher score."""
    yield [*attributes(scene, {(scene.me, "score"): "-INFINITY"}), _next_round(scene)]
    return Outcome(False, f"term {scene.state.reign} is outvoted: {_outvoted(scene)} is promised")


def _steer(scene: Scene, *, until: float) -> Look:
    """Bring synchronous_standby_names to what it has to be, by way of alone and back; see docs/safety.md, rules 1, 5 and 7."""
    missed = scene.elapsed
    asked = NOT_YET
    renamed = False
    while scene.instance.run is Run.PRIMARY and scene.elapsed <= until and not (scene.row and scene.row.promised > scene.state.reign):
        rules, names, said, me = scene.rules, scene.instance.names, scene.state.said, scene.me
        enough = len(_nameable(scene)) >= rules.confirming.k
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


def prepare(scene: Scene) -> list[Action]:
    """What makes a switchover short: no checkpoint of minutes when the server ends."""
    wish = wished(scene)
    return [Checkpoint()] if wish and scene.instance.checkpoint < wish.since else []


def _change(scene: Scene, *, until: float) -> Look:
    """The next steps from the stored list of members to the one that the operator wishes, as far as they can be taken now."""
    term, begun = scene.state.reign, False
    while scene.instance.run is Run.PRIMARY and scene.state.reign == term and scene.elapsed <= until:
        if isinstance(_next_list(scene), str):
            if not begun or not _next_list(scene):
                return scene
            scene = yield []  # the others store it within a second or two
            continue
        if not scene.state.roster.joint and not settled(scene):
            if not begun:
                return scene
            scene = yield from _steer(scene, until=until)
            scene = yield []
            continue
        caught_up = not scene.state.roster.joint or not synchronous(scene.rules)
        if not caught_up:
            scene, caught_up = yield from _catch_up(scene, until=until)
        step = _next_list(scene)
        if not caught_up or isinstance(step, str) or scene.state.reign != term:
            return scene
        state = scene.state._replace(roster=step)
        scene = yield [Store(state), Publish(my_vote(scene._replace(state=state)))]
        scene, begun = (yield from _steer(scene, until=until)), True
    return scene


def _next_list(scene: Scene) -> Roster | str:
    """The next list of members, or why none is stored now. Who joins has to stream, and to know the list of before."""
    ready = [follower.name for follower in followers_of(scene) if alike(scene.vote(follower.name).roster, scene.state.roster)]
    return next_roster(scene.state, scene.wish.circle, dict(scene.votes), scene.me, ready)


def _catch_up(scene: Scene, *, until: float) -> Generator[Sequence[Action], Scene, tuple[Scene, bool]]:
    """The set of the change is in force, and k of those who confirm by it have all that was written until then.

    The position is read after the set was seen in force, and counts only as long as nothing else has changed.
    """
    ground, position = _ground(scene), None
    while scene.elapsed <= until and _ground(scene) == ground and scene.instance.names == choose_names(scene) and in_force(scene):
        if position is not None and _confirmed(scene, position) >= scene.rules.confirming.k:
            return scene, True
        scene = yield [Nudge()] if position is not None else []
        position = position if position is not None else scene.instance.lsn
    return scene, False


def in_force(scene: Scene) -> bool:
    """Whether no walsender releases a commit by the set before any more: new ones begin with this one, all that are there show its priorities.

    A walsender without a flush position shows 0, whatever it has read; a copy that is being made (`backup`) releases nothing.
    """
    instance = scene.instance
    places = {node: place for place, node in enumerate(listed_in(instance.names), 1)}
    if instance.names.startswith("ANY"):
        places = dict.fromkeys(places, 1)
    prefix, known = outside_slot(scene.rules.slot_prefix, ""), {*scene.others, *scene.rules.externals}
    rows = [row for row in instance.followers if row.state != "backup"]
    unknown = any(row.flush is None and (row.name in known or row.slot.startswith(prefix)) for row in rows)
    return instance.names_shown == instance.names and not unknown and all(row.priority == places.get(row.name, 0) for row in rows)


def settled(scene: Scene) -> bool:
    """Whether the set is the one of the stored list, of members only, and in force: what a change of the list begins with.

    Else a walsender might still know the set of the change before, whose places this one could share.
    """
    if not synchronous(scene.rules):
        return True
    names = scene.instance.names
    return not is_step(names) and not outside_in(scene) and names == choose_names(scene) and in_force(scene)


def lacking(scene: Scene) -> bool:
    """Whether a primary should look after its set now: its commits wait for somebody who does not stream, or it is outvoted."""
    if scene.state.reign != NEVER and outvoted(scene.state.reign, dict(scene.votes), scene.rules.members):
        return True
    streaming = {follower.name for follower in followers_of(scene)}
    named = named_in(scene.instance.names)
    if set(outside_in(scene)) - set(outsiders(scene)) or (is_step(scene.instance.names) and not scene.state.roster.joint):
        return True
    return synchronous(scene.rules) and scene.instance.run is Run.PRIMARY and len(named & streaming) < scene.rules.confirming.k and bool(named)


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
        if position is not None and _confirmed(scene, position) >= scene.rules.confirming.k:
            spoken = store(scene.state, _statement(scene, ""))
            scene = (yield [Store(spoken), Publish(my_vote(scene._replace(state=spoken)))]) if spoken else scene
            return (yield [StoreRow(spoken.said)]) if spoken and scene.rules.row else scene
        scene = yield [Nudge()]
        scene = yield []
    return scene


def _ground(scene: Scene) -> tuple[Run, Ballot, Statement, str, Roster]:
    return scene.instance.run, scene.state.reign, scene.state.said, scene.instance.names, scene.state.roster


def choose_names(scene: Scene) -> str:
    """The synchronous_standby_names that a primary has to have next.

    Standbys outside of the cluster come and go by a set between two others, each seen in force before the next: see docs/safety.md, rule 9.
    """
    names, k, inside = scene.instance.names, scene.rules.confirming.k, candidates(scene)
    if scene.state.roster.joint:
        return step_names(k, inside)
    named, wanted = outside_in(scene), outsiders(scene) if isinstance(_next_list(scene), str) else ()
    if names in ("", NOBODY):
        return plain_names(scene, ())
    if is_step(names):
        if not in_force(scene):
            return names
        new = [name for name in wanted if name not in named][: max(0, number_in(names) - k - len(named))]
        return plain_names(scene, (*named, *new))
    kept, number = tuple(name for name in named if name in wanted), k + len(named)
    if set(named) == set(wanted) or not in_force(scene):
        return plain_names(scene, named)
    if kept != named:
        return step_names(number, (*inside, *kept))
    there = len(_nameable(scene)) + len(named)
    return step_names(number + 1, (*inside, *named)) if there >= min(number + 1, len(inside) + len(named)) else plain_names(scene, named)


def plain_names(scene: Scene, outside: Sequence[str]) -> str:
    """The set with these standbys outside of the cluster: all candidates in quorum mode, k of them that stream in sync mode.

    The one that an operator wants as next primary comes first, then a higher priority, and one who may be promoted before one
    tagged nofailover; among equals a member that is named stays named, else one that is not the DC comes first (its loss would
    cost the cluster a second, see docs/decisions.md). With fewer than k streaming the set stays as it is: commits wait.
    """
    rules, names = scene.rules, scene.instance.names
    if rules.mode is Mode.QUORUM:
        return with_outsiders(quorum_names(rules, scene.me, candidates(scene)), rules.confirming.k, outside)
    streaming = _nameable(scene)
    if len(streaming) < rules.confirming.k:
        anybody = with_outsiders(quorum_names(rules, scene.me, candidates(scene)), rules.confirming.k, outside)
        return names if names not in ("", NOBODY) and not is_step(names) else anybody
    named = set() if names.startswith("ANY") or is_step(names) else named_in(names)
    wish = wished(scene)
    order = sorted(streaming, key=lambda node: (not wish or node != wish.target, *_preference(scene, node, named)))
    return with_outsiders(_named(order[: rules.confirming.k]), rules.confirming.k, outside)


def outside_in(scene: Scene) -> tuple[str, ...]:
    """The standbys outside of the cluster that the present set names."""
    inside = {scene.me, *scene.others}
    return tuple(name for name in listed_in(scene.instance.names) if name not in inside and not name.startswith(OURS))


def outsiders(scene: Scene) -> tuple[str, ...]:
    """The standbys outside of the cluster that stream through their slots, and whose names no other connection has.

    PostgreSQL counts connections. Without a slot, which is active for one walsender only, a standby that comes back while its lost
    connection is still there would count twice, and a commit could be on it and on no member.
    """
    rows, prefix = scene.instance.followers, scene.rules.slot_prefix
    bound = {row.name for row in rows if row.state == "streaming" and row.slot == outside_slot(prefix, row.name)}
    names = [row.name.lower() for row in rows]  # as PostgreSQL compares them
    return tuple(name for name in scene.rules.externals if name in bound and names.count(name.lower()) == 1)


def with_outsiders(names: str, k: int, outside: Sequence[str]) -> str:
    """A set of k members with as many more confirmations as there are standbys outside: whoever gives them, k are of members.

    >>> with_outsiders('ANY 1 ("b", "c")', 1, ("dr",)), with_outsiders('"b"', 1, ("dr",))
    ('ANY 2 ("b", "c", "dr")', '2 ("b", "dr")')
    """
    if not outside or not names:
        return names
    listed = quoted((*listed_in(names), *outside))
    return f"{'ANY ' if names.startswith('ANY') else ''}{k + len(outside)} ({listed})"


def _preference(scene: Scene, node: str, named: Container[str] = ()) -> tuple[bool, int, bool, bool, int]:
    return (tagged(scene, node, "nofailover"), -priority(scene, node), node not in named, node == scene.dc, _index(scene, node))


def _named(nodes: Sequence[str]) -> str:
    listed = quoted(sorted(nodes))
    return listed if len(nodes) == 1 else f"{len(nodes)} ({listed})"


def named_in(names: str) -> set[str]:
    """The names of a synchronous_standby_names that we wrote.

    >>> sorted(named_in('ANY 1 ("a", "b")'))
    ['a', 'b']
    """
    return set(listed_in(names))


def listed_in(names: str) -> list[str]:
    """The same in their order."""
    return names.split('"')[1::2]


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
    steps = attributes(scene, {**status, **_wishes(scene, wished(scene))}, data)
    info = repl_info(scene)
    properties: list[tuple[str, str | None]] = [(f"{rules.resource}_REPL_INFO", info)] if info != scene.repl_info else []
    if scene.round <= scene.state.reign.round:
        properties += _next_round(scene).values
    return [*steps, *([Properties(tuple(properties))] if properties else [])]


def standing_of(scene: Scene, node: str) -> tuple[str, str, str]:
    """A peer's data-status, status and promotion score, as the primary sees them."""
    rows = [follower for follower in scene.instance.followers if follower.name == node]
    if not rows:
        return "DISCONNECT", "HS:alone", "-INFINITY"
    row = rows[0]
    if not _bound(scene, row):
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


# -- a copy of the primary ----------------------------------------------------------------------------------------


def unwhole(scene: Scene) -> str:
    """Why nothing may run on the data directory, or empty."""
    return f"the data directory is not whole: {scene.state.mark}" if scene.state.mark else ""


def diverged(scene: Scene) -> bool:
    """Whether by what the votes show this node's WAL, which nothing moves, is no beginning of the primary's; its own vote included."""
    mine, theirs = scene.vote(scene.me), scene.vote(reigning(scene))
    comparable = bool(mine.lsn) and theirs.reign != NEVER and theirs.reign >= scene.state.promised
    return comparable and divergence(resolve(scene.state, scene.instance.histories).eras, mine.lsn, theirs.eras) is not None


def begin_copy(scene: Scene, mark: str, *, rewind: bool) -> Procedure:
    """Give up what is here for a copy of the visible primary: PostgreSQL down, then one replacement of the state file, before the first byte.

    From then on this node answers no ballot, is not started and does not stand; its voice stays. The primary sees that its terms are
    adopted and makes the slot of its term for this node, by which the adapter proves whose copy it was.
    """
    if scene.instance.run is Run.PRIMARY or _deposed(scene).reign != NEVER:
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
    vote, state = scene.vote(primary), resolve(_deposed(scene), instance.histories)
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
        return "the end of the local WAL could not be found out"
    if rewind and divergence(state.eras, instance.lsn or Lsn(0), vote.eras) is None:
        return f"the WAL here is a beginning of {primary}'s: there is nothing to rewind"
    if rewind and not rewindable(state.eras, instance.lsn or Lsn(0), vote.eras):
        return f"here and on {primary} one timeline number means two timelines, which pg_rewind cannot tell apart"
    new = under(state, vote)._replace(mark=mark)
    return store(new, vote.said) or new


def recover(scene: Scene) -> Procedure:
    """Bring a database that crashed to a clean end before it is rewound: as a standby of nobody, so that no WAL is written. No mark yet.

    One that an interrupted repair has left running is only ended.
    """
    state = resolve(_deposed(scene), scene.instance.histories)
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
        return Outcome(False, f"PostgreSQL did not come through its crash recovery (it is {found.value}); its log tells why")
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


# -- start, demote, stop -----------------------------------------------------------------------------------------


def start(scene: Scene) -> Procedure:
    """Start as a standby: of the visible primary if the local WAL is a beginning of its, else of nobody."""
    if scene.instance.run in (Run.STANDBY, Run.STARTING):
        return Outcome(True, "PostgreSQL runs already")
    if scene.instance.run is not Run.DOWN:
        return Outcome(False, f"PostgreSQL is {scene.instance.run.value}; start wants it down")
    if scene.state.mark:
        return Outcome(False, unwhole(scene))
    gone: dict[tuple[str, str], str | None] = {(scene.me, "score"): "-INFINITY", (scene.me, "master-baseline"): None, (scene.me, "xlog-loc"): None}
    scene = yield from _set(scene, gone)
    if scene.instance.run is not Run.DOWN or scene.state.mark:
        return Outcome(False, unwhole(scene) or f"PostgreSQL is {scene.instance.run.value}; somebody else started it")
    adopted = adopt(scene)
    if isinstance(adopted, Outcome) and not adopted.ok:
        scene = yield from _tell(scene)
        yield from _set(scene, {(scene.me, "status"): "STOP"})
        return adopted
    state, upstream = (resolve(scene.state, scene.instance.histories), None) if isinstance(adopted, Outcome) else adopted
    state = _enrolled(scene, state._replace(reign=NEVER))
    scene = yield [*([Store(state)] if state != scene.state else []), Launch(upstream, quorum_names(scene.rules, scene.me))]
    while scene.instance.run in (Run.STARTING, Run.SILENT) and scene.left > MARGIN:  # on a busy machine it may not answer at once
        scene = yield []
    if scene.instance.run not in (Run.STANDBY, Run.STARTING):
        return Outcome(False, f"PostgreSQL did not start (it is {scene.instance.run.value}); its log tells why")
    scene = yield from _set(scene, {(scene.me, "status"): "HS:alone"})
    return (yield from follow(scene)) if scene.instance.run is Run.STANDBY else Outcome(True, "PostgreSQL is still recovering")


def demote(scene: Scene) -> Procedure:
    """Stop being primary, and leave a running standby that follows nobody yet.

    In a switchover the score stays what it is: the target's is higher, and if that gives up, this node is the one to be promoted again.
    """
    if not handing_over(scene):
        scene = yield from _set(scene, {(scene.me, "score"): "-INFINITY"})
    if scene.instance.run in (Run.PRIMARY, Run.SILENT, Run.STOPPING) or (scene.instance.run is Run.STARTING and scene.state.reign != NEVER):
        scene = yield [Shutdown()]
    if scene.instance.run is Run.DOWN and (scene.state.reign == NEVER or scene.state.mark):
        return Outcome(True, "PostgreSQL is down and was no primary: nothing to demote")
    if scene.instance.run is Run.DOWN:
        state = resolve(scene.state._replace(reign=NEVER), scene.instance.histories)
        scene = yield [Store(state), Publish(my_vote(scene._replace(state=state))), Launch(None, quorum_names(scene.rules, scene.me))]
    elif scene.instance.run is Run.STANDBY and scene.state.reign != NEVER:  # the promotion never happened: make sure that it cannot any more
        scene = yield [Shutdown()]
        return (yield from demote(scene))
    while scene.instance.run is Run.SILENT and scene.left > MARGIN:  # on a busy machine it may not answer at once
        scene = yield []
    if scene.instance.run not in (Run.STANDBY, Run.STARTING):
        return Outcome(False, f"PostgreSQL did not start as standby (it is {scene.instance.run.value})")
    if scene.round <= scene.state.promised.round:  # no monitor has seen this reign: the next attempt needs a round of its own
        yield [_next_round(scene)]
    return Outcome(True)


def stop(scene: Scene) -> Procedure:
    """End PostgreSQL; what is missing is no error."""
    gone: dict[tuple[str, str], str | None] = {(scene.me, "score"): "-INFINITY", (scene.me, "master-baseline"): None, (scene.me, "xlog-loc"): None}
    scene = yield from _set(scene, gone)
    if scene.instance.run is not Run.DOWN:
        scene = yield [Shutdown()]
    if scene.instance.run is not Run.DOWN:
        return Outcome(False, f"PostgreSQL did not end (it is {scene.instance.run.value})")
    state = resolve(scene.state._replace(reign=NEVER), scene.instance.histories)
    scene = yield [*([Store(state)] if state != scene.state else []), *attributes(scene, {(scene.me, "status"): "STOP"})]
    yield from _tell(scene)
    return Outcome(True)
