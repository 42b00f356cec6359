"""What the pgsql agent decides: start, follow, answer, promote, reign, demote, stop. Pure.

Every procedure looks at a `Scene`, yields the actions to perform *in order*, and gets a fresh scene. One look and its
actions are one critical section of the node (the driver holds the node's lock over both); between two looks anything
may happen, a crash too. So every step leaves a state that is safe for ever: rights are given away before others take them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pha4pgsql.duties import NOT_YET, PATIENCE, ROW_PAUSE, confirmed, missing_slots, steer
from pha4pgsql.shown import Look, attributes, enrolled, held, my_vote, next_round, set_attributes, settle, show, tell, wishes_left
from pha4pgsql.sight import (
    MARGIN,
    RAISED,
    attribute_name,
    handing_over,
    positive,
    priority,
    rank,
    reigning,
    runs,
    slot_name,
    slots_of,
    stays,
    synchronous,
    tagged,
    unread,
    unruled,
    wish_at,
)
from pha4pgsql.standby_names import first_names, number_in, quorum_names
from pha4pgsql.vote import (
    Diverged,
    Elected,
    Lost,
    Waiting,
    able,
    await_timeline,
    cut,
    divergence,
    elect,
    newest_statement,
    obstacle,
    outvoted,
    promise,
    resolve,
    store,
    term_at,
    unnamed,
)
from pha4pgsql.words import (
    NEVER,
    Action,
    Answer,
    AskRow,
    Ballot,
    Follow,
    Launch,
    Lsn,
    MakeSlots,
    Mode,
    Name,
    Outcome,
    Procedure,
    Promote,
    Publish,
    Run,
    Scene,
    Shutdown,
    State,
    Statement,
    Store,
    Upstream,
    Vote,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence


FOLLOWERS_GRACE = 5.0
"""Seconds a promotion waits for followers that answered and can follow, before it thinks of going on alone."""
ANSWER_PATIENCE = 4.0
"""Seconds a candidate waits for answers that are missing."""
ASYNC_PATIENCE = 0.5
"""The same in async mode, where nobody's answer is needed."""
FIRST_WAL = 4.0
"""Seconds between a history file and the first WAL of its timeline, beyond which the primary that made it is taken for dead."""
LOG_TELLS = "; its log tells why"
"""How a reason ends that only PostgreSQL itself knows; the agent puts the log's last words in its place."""
HANDOVER = 1.0
"""Seconds a candidate of a switchover waits for the old primary's last word."""


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
    refusal = promise(deposed(scene), ballot)
    if isinstance(refusal, str):
        yield from tell(scene)
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
    promised = promise(resolve(deposed(scene), scene.instance), ballot)
    if isinstance(promised, str) or scene.instance.receiving or scene.instance.run is Run.PRIMARY:
        return Outcome(False, promised if isinstance(promised, str) else f"the WAL receiver did not end, ballot {ballot} is not answered")
    scene = yield [Store(enrolled(scene, promised))]
    while held(scene) is None and scene.left > MARGIN and scene.instance.run is not Run.DOWN:
        scene = yield []
    named = resolve(scene.state, scene.instance)
    if named != scene.state:  # its timeline is known only now that its end is
        scene = yield [Store(named)]
    end = held(scene)
    if end is None or scene.state.promised != ballot or scene.instance.upstream is not None:
        return Outcome(False, unread(scene.instance))
    stray, counted = unnamed(scene.state.eras), cut(scene.state.eras, end)
    timeline = counted[-1].timeline if stray and counted else scene.instance.timeline
    said = Answer(ballot, term_at(scene.state.eras, end), end, timeline, scene.instance.system_identifier)
    steps: list[Action] = [Publish(my_vote(scene, answer=said))]
    if ballot.node != scene.me and scene.instance.run is not Run.DOWN and not stray and not strays(scene):
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


def unwhole(scene: Scene) -> str:
    """Why nothing may run on the data directory, or empty."""
    return f"the data directory is not whole: {scene.state.mark}" if scene.state.mark else ""


def deposed(scene: Scene) -> State:
    """The state as far as the reign counts: a primary whose PostgreSQL is down reigns no more."""
    return scene.state._replace(reign=NEVER) if scene.instance.run is Run.DOWN else scene.state


def watch(scene: Scene) -> Procedure:
    """The voice of a node, whatever PostgreSQL does there: store statements and lists; while PostgreSQL is down, answer ballots from disk."""
    if scene.only_reads:
        return Outcome(True)
    before = deposed(scene)
    known = resolve(before, scene.instance) if scene.instance.run is Run.DOWN else before
    stored = enrolled(scene, store(known, newest_statement(vote for _, vote in scene.votes)) or known)
    if stored != before:
        scene = yield [Store(stored), Publish(my_vote(scene._replace(state=stored)))]
    if scene.instance.run is Run.DOWN:
        asked = max((vote.answer.ballot for node, vote in scene.votes if vote.answer and vote.answer.ballot.node == node), default=NEVER)
        if asked > scene.state.promised and asked.node in scene.others:
            return (yield from answer(scene, asked))
    yield from tell(scene)
    return Outcome(True)


def waited_for(scene: Scene) -> bool:
    """Whether the primary loses its last standby with this node, and needs its voice to go on alone: until the word is stored here.

    A node that is put into standby has no voice afterwards, but what it has stored goes on to count.
    """
    primary, rules = reigning(scene), scene.rules
    if not primary or primary not in scene.online or scene.only_reads or not synchronous(rules) or rules.confirming.strict:
        return False
    vote = scene.vote(primary)
    if vote.said.owner == primary and vote.said.term == vote.reign:
        return scene.state.said != vote.said
    others = [node for node in rules.confirming.members if node not in (scene.me, primary) and node in scene.online]
    serving = [node for node in others if (scene.attribute(node, attribute_name(rules, "status")) or "").startswith("HS:")]
    return len(serving) < rules.confirming.k


# -- standby -----------------------------------------------------------------------------------------------------


def follow(scene: Scene) -> Procedure:
    """The standby's monitor: follow the primary if the local WAL is a beginning of its, or see whether to stand for election."""
    if scene.state.mark:
        return Outcome(False, unwhole(scene))
    scene = yield from settle(scene)
    if scene.instance.run is not Run.STANDBY:
        return Outcome(True)
    if scene.state.reign != NEVER:
        return Outcome(False, f"a promotion under {scene.state.reign} was begun and not finished; this node has to be demoted")
    if unruled(scene):
        return Outcome(False, unruled(scene))
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
        yield from tell(scene)
        return adopted
    blocked = misled(scene)
    if blocked:
        return Outcome(False, blocked)
    state, upstream = adopted
    steps: list[Action] = [Store(state)] if state != scene.state else []
    steps += [Follow(upstream)] if scene.instance.upstream != upstream else []
    if steps:
        scene = yield steps
    yield from tell(scene)
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
    vote, state, instance = scene.vote(primary), resolve(scene.state, scene.instance), scene.instance
    if vote.reign < state.promised:
        return Outcome(True, f"{primary} reigns by term {vote.reign}, {state.promised} is promised: not followed")
    if vote.system_identifier != instance.system_identifier:
        here, there = instance.system_identifier, vote.system_identifier
        return Outcome(False, f"the database here (system identifier {here}) is no copy of the one on {primary} ({there})")
    if instance.lsn is None:
        return Outcome(True, unread(instance))
    upstream = Upstream(primary, slot_name(scene.rules.slot_prefix, vote.reign, scene.me))
    bound = not state.eras and instance.streaming and instance.upstream == upstream  # its state file was lost, its slot is the proof
    fork = None if bound else divergence(state.eras, instance.lsn, vote.eras)
    if fork is not None:
        return Outcome(False, forked(scene, fork))
    new = under(state, vote)
    return new if scene.only_reads else store(new, vote.said) or new, upstream  # who only reads is no voice


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
        yield from tell(scene)
        return Outcome(True, "no primary is visible, but WAL arrives")
    if scene.only_reads or unelectable(scene):
        scene = yield from tell(scene)
        yield from set_attributes(scene, {(scene.me, "status"): "HS:alone", (scene.me, "score"): "-INFINITY"})
        return Outcome(True, f"no primary is visible; {unelectable(scene)}" if unelectable(scene) else "no primary is visible")
    if unreached(scene):
        scene = yield from _first_wal(scene)
        return Outcome(bool(reigning(scene)) or not unreached(scene), unreached(scene))
    scene = yield from tell(scene)
    if _needs_row(scene):
        scene = yield [AskRow()]
        if scene.row is not None and scene.row.promised.round >= scene.round:
            scene = yield [next_round(scene)]
    if handing_over(scene):
        return Outcome(True, "no primary is visible, a switchover is under way")
    score = standing(scene)
    place = scene.instance.lsn.hex16 if scene.instance.lsn else None
    yield from set_attributes(
        scene, {(scene.me, "status"): "HS:alone", (scene.me, "xlog-loc"): place, **({(scene.me, "score"): score} if score else {})}
    )
    return Outcome(True, obstacle(dict(scene.votes), scene.rules, override=scene.override, row=scene.row))


def _first_wal(scene: Scene) -> Look:
    """Wait between the fetch of a new history file and the first WAL of its timeline. A receiver is there then; one of a dead primary's is, too."""
    until = scene.elapsed + FIRST_WAL
    while unreached(scene) and scene.instance.receiving and not reigning(scene) and scene.elapsed < until and scene.left > MARGIN:
        scene = yield []
    return scene


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


def unelectable(scene: Scene) -> str:
    """Why PostgreSQL must not be promoted with what it holds, or empty: no election made its timeline."""
    stray = unnamed(scene.state.eras)
    return f"timeline {stray.timeline}, on which the WAL here is, was made by no election (a promotion by hand, a backup?)" if stray else ""


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


def winners(scene: Scene) -> list[str]:
    """The members that run and would win an election by the positions that are visible."""
    return [node for node in able(dict(scene.votes), scene.rules, override=scene.override, row=scene.row) if runs(scene, node)]


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
    return (willing, stays(scene, node), -dict(scene.failures).get(node, 0), place, named, priority(scene, node), off_dc, -rank(scene, node))


# -- promotion ---------------------------------------------------------------------------------------------------


def promote(scene: Scene) -> Procedure:
    """Become primary: by the answers of N-k members to one ballot, and only if nobody who answered is further.

    Ends well when the first record of the new term is confirmed by k others, or alone is in force, or nobody is
    left to ask; never when a higher promise is visible.
    """
    if scene.instance.run is Run.PRIMARY and scene.state.reign != NEVER:
        return (yield from _confirm(scene, expected=scene.rules.confirming.k))
    unfit = unwhole(scene) or unruled(scene) or unelectable(scene)
    if scene.instance.run is not Run.STANDBY or unfit:
        return Outcome(False, unfit or f"promote wants a running standby, PostgreSQL is {scene.instance.run.value}")
    if scene.only_reads:
        yield attributes(scene, {(scene.me, "score"): "-INFINITY"})
        return Outcome(False, f"{scene.me} is not in node_list: it only reads, and is never promoted")
    ballot = Ballot(scene.round, scene.me)
    if scene.state.promised.node == scene.me and scene.state.promised.round >= scene.round:
        ballot = scene.state.promised
    if ballot in (era.term for era in scene.state.eras):
        yield [next_round(scene)]
        return Outcome(False, f"ballot {ballot} was won before, and a term makes one timeline only; the next attempt has a new one")
    given = scene.vote(scene.me).answer
    if given is None or given.ballot != ballot:
        outcome = yield from answer(scene, ballot)
        if not outcome.ok:
            yield [next_round(scene)]
            return outcome
        scene = yield []
    scene = yield from _last_word(scene)
    scene, verdict = yield from _campaign(scene, ballot)
    if isinstance(verdict, Elected):
        verdict = _handed_over(scene, verdict)
    if not isinstance(verdict, Elected):
        to = verdict.to if isinstance(verdict, Lost) and not tagged(scene, verdict.to, "nofailover") else ""
        scores: dict[tuple[str, str], str | None] = {(scene.me, "score"): "-INFINITY", **({(to, "score"): "1000"} if to else {})}
        yield [*attributes(scene, {**scores, **wishes_left(scene)}), next_round(scene)]
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
    scene = yield [Store(state), Name(first), MakeSlots(slots_of(scene, ballot, followers)), Promote()]
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
    gone = frozenset(scene.rules.members) - scene.online
    return elect(ballot, dict(scene.votes), scene.rules, override=scene.override, row=scene.row, gone=gone)


def _predecessors(scene: Scene) -> tuple[str, ...]:
    """In a switchover to this node the old primary, else nobody: a wish alone is none, the primary may have died under it."""
    if not scene.state.eras or scene.attribute(scene.me, attribute_name(scene.rules, "score")) != RAISED:
        return ()
    asked = (scene.me, scene.state.eras[-1].term)
    return tuple(node for node in scene.others if (wish := wish_at(scene, node)) and (wish.target, wish.term) == asked)


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


def can_follow(scene: Scene, elected: Elected) -> tuple[str, ...]:
    """The members that answered with a WAL of the same terms, not beyond ours: only they get a slot before the promotion.

    They follow before they know our terms, so these must be theirs; whoever is behind by a term joins later.
    """
    mine = dict(elected.answers)[scene.me].lsn
    eras = cut(scene.state.eras, mine)
    return tuple(
        node
        for node, given in elected.answers
        if node != scene.me and given.lsn <= mine and cut(scene.vote(node).eras, given.lsn) == eras and not unnamed(scene.vote(node).eras)
    )


def _confirm(scene: Scene, *, expected: int) -> Procedure:
    """Show the new term, let the others in, and wait until its first record is safe."""
    while scene.instance.lsn is None or resolve(scene.state, scene.instance).pending != NEVER:
        if scene.left < MARGIN or scene.instance.run is not Run.PRIMARY:
            return Outcome(False, "the new timeline and the position of its first record could not be found out")
        scene = yield []
    term, first = scene.state.reign, scene.instance.lsn
    state = resolve(scene.state, scene.instance)
    steps: list[Action] = [Store(state)] if state != scene.state else []
    scene = yield [*steps, *show(scene._replace(state=state))]
    grace = FOLLOWERS_GRACE if expected >= scene.rules.confirming.k else 0.0
    began = scene.elapsed
    note = ""
    while synchronous(scene.rules) and confirmed(scene, first) < scene.rules.confirming.k:
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
            scene = yield from steer(scene, until=scene.elapsed + PATIENCE)
            scene = yield []
    return Outcome(True, note)  # attributes are the first monitor's: here they would make Pacemaker plan anew before it moves the address


# -- start, demote, stop -----------------------------------------------------------------------------------------


def start(scene: Scene) -> Procedure:
    """Start as a standby: of the visible primary if the local WAL is a beginning of its, else of nobody."""
    if scene.instance.run is Run.STANDBY and unruled(scene):
        scene = yield [Shutdown()]
    if scene.instance.run in (Run.STANDBY, Run.STARTING):
        return Outcome(True, "PostgreSQL runs already")
    if scene.instance.run is not Run.DOWN:
        return Outcome(False, f"PostgreSQL is {scene.instance.run.value}; start wants it down")
    if scene.state.mark:
        return Outcome(False, unwhole(scene))
    gone: dict[tuple[str, str], str | None] = {(scene.me, "score"): "-INFINITY", (scene.me, "master-baseline"): None, (scene.me, "xlog-loc"): None}
    scene = yield from set_attributes(scene, gone)
    if scene.instance.run is not Run.DOWN or scene.state.mark:
        return Outcome(False, unwhole(scene) or f"PostgreSQL is {scene.instance.run.value}; somebody else started it")
    adopted = adopt(scene)
    if isinstance(adopted, Outcome) and not adopted.ok:
        scene = yield from tell(scene)
        yield from set_attributes(scene, {(scene.me, "status"): "STOP"})
        return adopted
    state, upstream = (resolve(scene.state, scene.instance), None) if isinstance(adopted, Outcome) else adopted
    state = enrolled(scene, state._replace(reign=NEVER))
    scene = yield [*([Store(state)] if state != scene.state else []), Launch(upstream, quorum_names(scene.rules, scene.me))]
    while scene.instance.run in (Run.STARTING, Run.SILENT) and scene.left > MARGIN:  # on a busy machine it may not answer at once
        scene = yield []
    if scene.instance.run not in (Run.STANDBY, Run.STARTING):
        if scene.instance.run is Run.SILENT and scene.instance.unread:
            return Outcome(False, f"PostgreSQL runs, and cannot be looked after: {scene.instance.unread}")
        return Outcome(False, f"PostgreSQL did not start (it is {scene.instance.run.value}){LOG_TELLS}")
    scene = yield from set_attributes(scene, {(scene.me, "status"): "HS:alone"})
    return (yield from follow(scene)) if scene.instance.run is Run.STANDBY else Outcome(True, "PostgreSQL is still recovering")


def demote(scene: Scene) -> Procedure:
    """Stop being primary, and leave a running standby that follows nobody yet.

    In a switchover the score stays what it is: the target's is higher, and if that gives up, this node is the one to be promoted again.
    """
    if not handing_over(scene):
        scene = yield from set_attributes(scene, {(scene.me, "score"): "-INFINITY"})
    if scene.instance.run in (Run.PRIMARY, Run.SILENT, Run.STOPPING) or (scene.instance.run is Run.STARTING and scene.state.reign != NEVER):
        scene = yield [Shutdown()]
    if scene.instance.run is Run.DOWN and (scene.state.reign == NEVER or scene.state.mark):
        return Outcome(True, "PostgreSQL is down and was no primary: nothing to demote")
    if scene.instance.run is Run.DOWN:
        state = resolve(scene.state._replace(reign=NEVER), scene.instance)
        scene = yield [Store(state), Publish(my_vote(scene._replace(state=state))), Launch(None, quorum_names(scene.rules, scene.me))]
    elif scene.instance.run is Run.STANDBY and scene.state.reign != NEVER:  # the promotion never happened: make sure that it cannot any more
        scene = yield [Shutdown()]
        return (yield from demote(scene))
    while scene.instance.run is Run.SILENT and scene.left > MARGIN:  # on a busy machine it may not answer at once
        scene = yield []
    if scene.instance.run not in (Run.STANDBY, Run.STARTING):
        return Outcome(False, f"PostgreSQL did not start as standby (it is {scene.instance.run.value})")
    if scene.round <= scene.state.promised.round:  # no monitor has seen this reign: the next attempt needs a round of its own
        yield [next_round(scene)]
    return Outcome(True)


def stop(scene: Scene) -> Procedure:
    """End PostgreSQL; what is missing is no error."""
    gone: dict[tuple[str, str], str | None] = {(scene.me, "score"): "-INFINITY", (scene.me, "master-baseline"): None, (scene.me, "xlog-loc"): None}
    scene = yield from set_attributes(scene, gone)
    if scene.instance.run is not Run.DOWN:
        scene = yield [Shutdown()]
    if scene.instance.run is not Run.DOWN:
        return Outcome(False, f"PostgreSQL did not end (it is {scene.instance.run.value})")
    state = resolve(scene.state._replace(reign=NEVER), scene.instance)
    scene = yield [*([Store(state)] if state != scene.state else []), *attributes(scene, {(scene.me, "status"): "STOP"})]
    yield from tell(scene)
    return Outcome(True)
