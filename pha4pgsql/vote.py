"""Ballots, promises and terms: who may be promoted, who may follow whom, who may go alone. Pure.

The election is Raft's, spoken by PostgreSQL: a ballot is a term not won yet, a promise is a vote on disk, the
position of a member's WAL is (term of its last record, LSN). Timeline numbers are never compared, because two
nodes can both make a timeline 2 from the same point. docs/safety.md tells the rules with the accident behind each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pha4pgsql.words import NEVER, NOTHING, SILENCE, UNLISTED, Answer, Ballot, Circle, Era, Instance, Lsn, Mode, Roster, Rules, State, Statement, Vote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


# -- terms -------------------------------------------------------------------------------------------------------


def term_at(eras: Iterable[Era], end: Lsn) -> Ballot:
    """The term of the last record of a WAL that ends at `end`: of the last era that began before it.

    >>> eras = [Era(2, Lsn(100), Ballot(1, "a")), Era(3, Lsn(200), Ballot(2, "b"))]
    >>> str(term_at(eras, Lsn(150))), str(term_at(eras, Lsn(200))), str(term_at(eras, Lsn(201)))
    ('1.a', '1.a', '2.b')
    """
    term = NEVER
    for era in eras:
        if era.start < end:
            term = era.term
    return term


def cut(eras: Iterable[Era], end: Lsn) -> tuple[Era, ...]:
    """The eras of which a WAL that ends at `end` holds at least one byte."""
    return tuple(era for era in eras if era.start < end)


def resolve(state: State, instance: Instance) -> State:
    """Give the timeline that appeared since the last look its term: the one under which it was made, `pending`.

    A connection is bound to a term by its slot, and a term makes exactly one timeline; so the first timeline
    beyond the known ones, made by ourselves or received from the upstream of that term, has this term.
    One that appeared while none was awaited was made by no election, and has none (`unnamed`).
    """
    if state.pending == NEVER:
        return _without_term(state, instance)
    known = max((era.timeline for era in state.eras), default=1)
    known = max(known, state.beyond)
    new = sorted(history for history in instance.histories if history[0] > known)
    if not new:
        return state
    timeline, _, start = new[-1]
    return state._replace(eras=(*state.eras, Era(timeline, start, state.pending)), pending=NEVER, beyond=0)


def _without_term(state: State, instance: Instance) -> State:
    """The state with the timeline on which the local WAL is, if it began after the first term and no term is known of it.

    Somebody has promoted by hand, restored a backup, or WAL of another cluster came out of an archive.
    """
    start = next((start for timeline, _, start in instance.histories if timeline == instance.timeline), None)
    if not state.eras or instance.timeline < state.eras[0].timeline or start is None or instance.lsn is None or instance.lsn <= start:
        return state
    if any((era.timeline, era.start) == (instance.timeline, start) for era in state.eras):
        return state
    return state._replace(eras=(*(era for era in state.eras if era.start < start), Era(instance.timeline, start, NEVER)))


def unnamed(eras: Iterable[Era]) -> Era | None:
    """The timeline that no election made: what is on it was confirmed to nobody, and from its beginning on it counts for nothing."""
    return next((era for era in eras if era.term == NEVER), None)


def vouch(state: State, term: Ballot) -> State:
    """An operator's word that what the node holds is to be the cluster's: the timeline that no election made gets a term of its own.

    It is higher than all that anybody has promised, so nobody is further, and whoever has other WAL has left this history.
    """
    eras = tuple(era if era.term != NEVER else era._replace(term=term) for era in state.eras)
    return state._replace(promised=term, eras=eras, pending=NEVER, beyond=0)


class Diverged(NamedTuple):
    """The local WAL is no beginning of the primary's: it left it at `at`."""

    at: Lsn


def divergence(own: tuple[Era, ...], end: Lsn, primary: tuple[Era, ...]) -> Diverged | None:
    """Where a WAL with these eras that ends at `end` left the primary's; None when it is a beginning of it.

    The eras, cut at the end of the local WAL, must be a prefix of the primary's, and the local WAL must not reach
    beyond the point at which the primary's next era began.

    >>> a, b, c = Era(2, Lsn(100), Ballot(1, "a")), Era(3, Lsn(200), Ballot(2, "b")), Era(3, Lsn(200), Ballot(3, "c"))
    >>> divergence((a,), Lsn(200), (a, b))
    >>> divergence((a,), Lsn(201), (a, b))
    Diverged(at=200)
    >>> divergence((a, c), Lsn(300), (a, b))
    Diverged(at=200)
    """
    held = cut(own, end)
    common = 0
    while common < min(len(held), len(primary)) and held[common] == primary[common]:
        common += 1
    if common < len(held):
        forks = [held[common].start] + ([primary[common].start] if common < len(primary) else [])
        return Diverged(min(forks))
    if common < len(primary) and end > primary[common].start:
        return Diverged(primary[common].start)
    return None


def rewindable(own: tuple[Era, ...], end: Lsn, primary: tuple[Era, ...]) -> bool:
    """Whether equal timeline numbers mean equal timelines here and there: pg_rewind compares nothing else.

    >>> a, b, c = Era(2, Lsn(100), Ballot(1, "a")), Era(3, Lsn(200), Ballot(2, "b")), Era(3, Lsn(200), Ballot(3, "c"))
    >>> rewindable((a,), Lsn(300), (a, b)), rewindable((a, b), Lsn(300), (a, c)), rewindable((), Lsn(300), (a, c))
    (True, False, False)
    """
    there = {era.timeline: era for era in primary}
    return all(there.get(era.timeline, era) == era for era in own) and not forgets(cut(own, end), end, primary)


def forgets(own: tuple[Era, ...], end: Lsn, others: Iterable[Era]) -> bool:
    """Whether a WAL that ends at `end` goes beyond the beginning of the first term of all, and no term is known of it.

    Its state file is lost: what it holds is of some term, and what it promised and stored is not known any more.
    """
    return not own and any(end > era.start for era in others)


# -- answers -----------------------------------------------------------------------------------------------------


def further(one: Answer, other: Answer) -> bool:
    """Whether `one` holds WAL that `other` lacks, by (term of the last record, LSN)."""
    return (one.term, one.lsn) > (other.term, other.lsn)


class Elected(NamedTuple):
    """The candidate may go on, by this list. `inherits`: somebody may be alone, so the first word of the new term is 'alone: me'."""

    answers: tuple[tuple[str, Answer], ...]
    inherits: bool
    roster: Roster = UNLISTED


class Waiting(NamedTuple):
    """Answers are missing: from so many more members, or from one in particular. `row`: the answer of the lock's row would do, too."""

    missing: int
    reason: str
    row: bool = False


class Lost(NamedTuple):
    """The attempt cannot be won. `to` is the node that is further, or empty."""

    reason: str
    to: str = ""


def elect(
    ballot: Ballot, votes: Mapping[str, Vote], rules: Rules, *, override: str = "", row: Vote | None = None, gone: frozenset[str] = frozenset()
) -> Elected | Waiting | Lost:
    """Judge a ballot by the answers to it, whatever else the votes show.

    Any N-k members meet every commit that k others confirmed. So the candidate is elected by N-k answers, its own
    included, none of which is further; what others hold beyond that was confirmed to nobody. While no answer has a term
    nothing was ever confirmed under these rules: then all members have to answer, and (timeline, LSN) compares them.
    Beside that V-k voices have to answer, which meet all who know that somebody is alone; every member that answers is one.
    It is counted by the newest list that the answers show (`newest_list`).

    `gone` are the members that are offline. Their answers may come yet, but if somebody who has answered is further, the
    attempt ends without waiting for them: the other one does not need them.
    """
    me = ballot.node
    heard = {node: vote for node, vote in votes.items() if vote.answer and vote.answer.ballot == ballot}
    roster = newest_list(rules.roster, {node: vote for node, vote in heard.items() if node != me})
    if roster is None:
        return Lost("members disagree about the list of members")
    rules = rules.under(roster)
    higher = outvoted(ballot, votes, rules.members, row)
    if higher:
        return Lost(f"ballot {ballot} came too late, {higher} is promised already")
    heard = {node: vote for node, vote in heard.items() if node in rules.members}
    answers = {node: vote.answer for node, vote in heard.items() if vote.answer}
    if me not in rules.confirming.members:
        return Lost(f"{me} is no member of the set, which is {' '.join(rules.confirming.members)}")
    if me not in answers:
        return Waiting(rules.answers_needed, f"{me} has not answered its own ballot {ballot}")
    objection = _objection(answers, answers[me])
    if objection:
        return Lost(objection)
    if rules.mode is Mode.ASYNC:
        return _elect_furthest(ballot, votes, answers, rules)
    lost = forgetful({node: (vote.eras, answers[node].lsn) for node, vote in heard.items()})
    answers = {node: answer for node, answer in answers.items() if node not in lost}
    if me in lost:
        return Lost(f"{me} has no state file of the WAL that it holds: it may not be elected")
    if all(answer.term == NEVER for answer in answers.values()):
        first = _elect_first(ballot, answers, rules, override)
        unheard = isinstance(first, Elected) and _unheard(ballot, answers, rules, row)
        return unheard or first
    if answers[me].term == NEVER:  # what was there before the first term was confirmed to nobody here, and must not be lost all the same
        leader = max(answers, key=lambda node: (answers[node].term, answers[node].lsn))
        return Lost(f"{leader} has followed a primary of this cluster, {me} never has", leader)
    backing = {node: answer for node, answer in answers.items() if not further(answer, answers[me])}
    newest = newest_statement((*heard.values(), *_heard_row(rules, row)))
    if len(backing) >= rules.answers_needed and (not newest.owner or newest.owner in backing):
        return _unheard(ballot, answers, rules, row) or Elected(tuple(sorted(answers.items())), bool(newest.owner), roster)
    return _not_yet(ballot, answers, list(backing), newest, rules, gone=gone, lost=lost)


def _not_yet(
    ballot: Ballot,
    answers: Mapping[str, Answer],
    backing: Sequence[str],
    newest: Statement,
    rules: Rules,
    *,
    gone: frozenset[str],
    lost: Iterable[str],
) -> Waiting | Lost:
    """Why the answers that are here elect nobody; `newest` tells who may have gone on alone, `lost` are those without their state file."""
    me, owner, need = ballot.node, newest.owner, rules.answers_needed
    leader = max(answers, key=lambda node: (answers[node].term, answers[node].lsn))
    if owner in answers and owner not in backing:
        leader = owner
    silent = [node for node in rules.members if node not in answers]
    unheard = bool(owner) and owner not in answers
    in_vain = leader not in backing and gone.issuperset(silent) and not unheard
    if len(backing) + len(silent) < need or in_vain or owner == leader != me:
        return _behind(leader, answers, me)
    if unheard:
        return Waiting(1, f"{owner} may have gone on alone (term {newest.term}); its own answer is needed")
    ahead = f"{leader} is further, and " if leader not in backing else ""
    wanted = f"{need} of {len(rules.members)} members have to answer{_without_file(lost)}"
    return Waiting(need - len(backing), f"{ahead}no answer to ballot {ballot} from {' '.join(silent)}; {wanted}")


def forgetful(known: Mapping[str, tuple[tuple[Era, ...], Lsn]]) -> frozenset[str]:
    """Of nodes with their terms and ends of WAL: those that have lost their state file. Their answers say nothing."""
    told = [era for eras, _ in known.values() for era in eras]
    return frozenset(node for node, (eras, end) in known.items() if forgets(eras, end, told))


def _without_file(lost: Iterable[str]) -> str:
    return f"; not counted, because the state file is lost: {' '.join(sorted(lost))}" if lost else ""


def _objection(answers: Mapping[str, Answer], mine: Answer) -> str:
    """Why these answers cannot be compared, or empty."""
    strangers = sorted(node for node, answer in answers.items() if answer.lsn != NOTHING and answer.system_identifier != mine.system_identifier)
    return f"{' '.join(strangers)}: not a copy of this database (system identifiers differ)" if strangers else ""


def _heard_row(rules: Rules, row: Vote | None) -> tuple[Vote, ...]:
    """The row of the lock, if it is a voice of this set and was heard."""
    return (row,) if rules.row and row is not None else ()


def _unheard(ballot: Ballot, answers: Mapping[str, Answer], rules: Rules, row: Vote | None) -> Waiting | None:
    """Who else has to be heard before it is known that nobody is alone. The row answers by a promise of exactly this ballot."""
    heard = len(answers) + sum(voice.promised == ballot for voice in _heard_row(rules, row))
    if heard >= rules.voices_needed:
        return None
    silent = " ".join(node for node in rules.members if node not in answers)
    reason = f"{silent} may have gone on alone: neither it nor the row of the distributed lock has answered ballot {ballot}"
    return Waiting(rules.voices_needed - heard, reason, row=rules.row)


def _behind(leader: str, answers: Mapping[str, Answer], me: str) -> Lost:
    theirs, mine = answers[leader], answers[me]
    return Lost(f"{leader} is further: {theirs.lsn} of term {theirs.term}, {me} has {mine.lsn} of term {mine.term}", leader)


def _elect_furthest(ballot: Ballot, votes: Mapping[str, Vote], answers: Mapping[str, Answer], rules: Rules) -> Elected | Waiting | Lost:
    """Without synchronous replication nobody knows what was confirmed: the furthest of those who answer is the best there is."""
    me = ballot.node
    leader = max(answers, key=lambda node: (answers[node].term, answers[node].timeline, answers[node].lsn, node == me))
    if further(answers[leader], answers[me]):
        return _behind(leader, answers, me)
    silent = [node for node in rules.members if node in votes and node not in answers]
    if silent:
        return Waiting(len(silent), f"no answer to ballot {ballot} from {' '.join(silent)} yet")
    return Elected(tuple(sorted(answers.items())), False, rules.roster)


def _elect_first(ballot: Ballot, answers: Mapping[str, Answer], rules: Rules, override: str) -> Elected | Waiting | Lost:
    """The election before the first term: (timeline, LSN) compares, there being nothing better."""
    me = ballot.node
    if override and override != me:
        return Lost(f"the operator named {override} as first primary", override)
    leader = me if override else max(answers, key=lambda node: (answers[node].timeline, answers[node].lsn, node == me))
    if (answers[leader].timeline, answers[leader].lsn) > (answers[me].timeline, answers[me].lsn):
        return Lost(f"{leader} is further: {answers[leader].lsn} on timeline {answers[leader].timeline}, {me} has {answers[me].lsn}", leader)
    need = rules.answers_needed if override else len(rules.members)
    if len(answers) < need:
        silent = " ".join(node for node in rules.members if node not in answers)
        return Waiting(need - len(answers), f"no answer to ballot {ballot} from {silent}; the first election needs all members")
    return Elected(tuple(sorted(answers.items())), False, rules.roster)


def await_timeline(state: State, term: Ballot, end: Lsn, timelines: Iterable[int]) -> State:
    """The state of a node that is about to make, or to receive, the one new timeline of `term`; `timelines` are those it holds.

    Eras that the local WAL does not reach were adopted in vain: they are forgotten, or they would label what comes now.
    """
    return state._replace(pending=term, eras=cut(state.eras, end), beyond=max(timelines, default=0))


def promise(state: State, ballot: Ballot) -> State | str:
    """The state that promises this ballot, or why it is not promised."""
    if state.mark and not state.given_up:
        return f"the data directory is not whole: {state.mark}"
    if state.reign != NEVER:
        return f"this node acts as primary of term {state.reign}"
    if ballot <= state.promised:
        return f"ballot {ballot} is not above {state.promised}, which is promised already"
    return state._replace(promised=ballot)


# -- going alone -------------------------------------------------------------------------------------------------


def newest_statement(votes: Iterable[Vote]) -> Statement:
    """The newest statement about going alone that anybody shows."""
    return max((vote.said for vote in votes), key=lambda said: said.number, default=SILENCE)


def store(state: State, statement: Statement) -> State | None:
    """The state of a voice that has stored this statement, and so promised its term; None when it must not, or has it.

    It stores only what is newer, and nothing of a term below its promise; a primary listens to nobody until demoted.
    """
    own = state.reign == statement.term
    if statement.number <= state.said.number or statement.term < state.promised or (state.reign != NEVER and not own):
        return None
    return state._replace(said=statement, promised=max(state.promised, statement.term))


def stored_by(statement: Statement, votes: Mapping[str, Vote], rules: Rules, row: Vote | None = None) -> int:
    """How many voices show that exactly this statement is what they have stored: the row, and of members those who may confirm commits.

    While members change these are the ones whom elections by the old list count and elections by the new one, too.
    """
    voices = [*(votes[node] for node in rules.confirming.members if node in votes), *_heard_row(rules, row)]
    return sum(1 for voice in voices if voice.said == statement)


def _visible(votes: Mapping[str, Vote], rules: Rules) -> tuple[dict[str, Vote], frozenset[str]]:
    """The members whose positions are visible and say something, and those whose state file is lost."""
    shown = {node: vote for node, vote in votes.items() if node in rules.members and vote.lsn}
    told = [era for node in rules.members if node in votes for era in votes[node].eras]
    lost = frozenset(node for node, vote in shown.items() if rules.mode is not Mode.ASYNC and forgets(vote.eras, vote.lsn, told))
    return {node: vote for node, vote in shown.items() if node not in lost}, lost


def able(votes: Mapping[str, Vote], rules: Rules, *, override: str = "", row: Vote | None = None) -> list[str]:
    """The members that would win an election by the positions that are visible; empty when too little is visible."""
    rules = rules.under(newest_list(rules.roster, votes) or UNLISTED)
    visible, _ = _visible(votes, rules)
    place = {node: (term_at(vote.eras, vote.lsn), vote.lsn) for node, vote in visible.items()}
    first = _first(visible)
    if first and override:
        return [override] if override in visible else []
    if len(visible) + len(_heard_row(rules, row)) < rules.voices_needed:
        return []
    need = len(rules.members) if first and rules.mode is not Mode.ASYNC else rules.answers_needed
    owner = newest_statement((*visible.values(), *_heard_row(rules, row))).owner

    def wins(node: str) -> bool:
        backed = sum(place[other] <= place[node] for other in visible) >= need and (first or place[node][0] != NEVER)
        return backed and (not owner or (owner in visible and place[owner] <= place[node]))

    return [node for node, vote in visible.items() if node in rules.confirming.members and not unnamed(vote.eras) and wins(node)]


def _first(visible: Mapping[str, Vote]) -> bool:
    """Whether nobody who is visible and holds something was ever promoted or has followed a primary."""
    known = [term_at(vote.eras, vote.lsn) for vote in visible.values() if vote.lsn != NOTHING]
    return bool(known) and all(term == NEVER for term in known)


def obstacle(votes: Mapping[str, Vote], rules: Rules, *, override: str = "", row: Vote | None = None) -> str:
    """Why nobody can be elected by what is visible, or empty."""
    if able(votes, rules, override=override, row=row):
        return ""
    rules = rules.under(newest_list(rules.roster, votes) or UNLISTED)
    visible, lost = _visible(votes, rules)
    owner = newest_statement((*visible.values(), *_heard_row(rules, row))).owner
    silent = " ".join(node for node in rules.members if node not in visible)
    if owner and owner not in visible:
        return f"no primary: {owner} went on alone at the end, so nobody is promoted without it"
    if not silent:
        strays = " ".join(node for node, vote in visible.items() if unnamed(vote.eras))
        own = f"; {strays} may, and is on a timeline that no election made" if strays else ""
        return f"no primary: no member holds all that the others may have confirmed{own}"
    first = _first(visible)
    if rules.row and row is None and not first and len(visible) >= rules.answers_needed:
        return f"no primary: {silent} may have gone on alone, and the row of the distributed lock, which would know, cannot be asked"
    why = "; nobody was ever promoted, so every member has to answer, or cls_setup NODE names the first primary" if first else ""
    return f"no primary: the positions of {len(visible)} of {len(rules.members)} members are known, missing: {silent}{why}{_without_file(lost)}"


def outvoted(term: Ballot, votes: Mapping[str, Vote], members: Iterable[str], row: Vote | None = None) -> Ballot | None:
    """The highest promise above `term` that a member or the row shows, or None."""
    highest = max((votes[node].promised for node in members if node in votes), default=NEVER)
    highest = max(highest, row.promised) if row is not None else highest
    return highest if highest > term else None


# -- the list of members -----------------------------------------------------------------------------------------


def newest_list(own: Roster, votes: Mapping[str, Vote]) -> Roster | None:
    """The newest list that members show, beginning with those of our own; None when two of one number differ.

    A list is given up for a later one only after so many of its members have stored the next one that every election by it
    meets one of them. So whoever counts by the newest list in its answers never counts by one that was given up.
    """
    while True:
        shown = [own, *(votes[node].roster for node in own.elects.members if node in votes and votes[node].roster.listed)]
        newest = max(shown, key=lambda roster: roster.number)
        if any(roster.number == newest.number and not alike(roster, newest) for roster in shown):
            return None
        if newest.number == own.number:
            return own
        own = newest


def alike(one: Roster, other: Roster) -> bool:
    """Whether two lists are the same. The first ones are made of the parameters on each node: their order may have changed meanwhile.

    >>> first = Roster(NEVER, 0, Circle(("a", "b"), 1), Circle(("a", "b"), 1))
    >>> alike(first, Roster(NEVER, 0, Circle(("b", "a"), 1), Circle(("b", "a"), 1))), alike(first, first._replace(count=1))
    (True, False)
    """
    first, second = ((roster.number, roster.elects.unordered, roster.confirms.unordered) for roster in (one, other))
    return first == second


def newest_roster(votes: Iterable[Vote]) -> Roster:
    """The newest list that anybody shows."""
    return max((vote.roster for vote in votes), key=lambda roster: (roster.listed, roster.number), default=UNLISTED)


def enlist(state: State, roster: Roster) -> State | None:
    """The state of a node that has stored this list, and so promised its term; None when it must not, or has it.

    The condition is the one of `store`: who has promised above the list's term says nothing to its primary any more.
    """
    newer = roster.listed and (roster.number > state.roster.number or not state.roster.listed)
    if not newer or roster.term < state.promised or state.reign not in (NEVER, roster.term):
        return None
    return state._replace(roster=roster, promised=max(state.promised, roster.term))


def enrol(state: State, wish: Rules, votes: Iterable[Vote]) -> State:
    """The state with the newest list that may be stored: one that is shown, or, where there is none yet, what the parameters say.

    A node that has no list (its file is of an older version) takes any that is shown by, or to, one with a history before it believes the
    parameters, which may have changed meanwhile. While nobody has a history, the parameters are what counts, as often as they change.
    """
    shown = list(votes)
    newest = newest_roster(shown)
    state = enlist(state, newest) or state
    blank = not state.eras and state.promised == NEVER and state.roster.number == UNLISTED.number
    if state.roster.listed and not blank:
        return state
    history = state.eras or any(vote.eras for vote in shown)
    return state._replace(roster=newest if history and newest.listed and newest.number == UNLISTED.number else wish.roster)


def joined(one: Circle, other: Circle) -> tuple[Circle, Circle]:
    """The middle of a change from one list to another: elections by the harder of both, commits by the stricter of both.

    >>> joined(Circle(("a", "b"), 1), Circle(("a", "b", "c"), 1))
    (Circle(members=('a', 'b', 'c'), k=1, strict=False), Circle(members=('a', 'b'), k=1, strict=False))
    """
    both = tuple(dict.fromkeys((*one.members, *other.members)))
    common = tuple(node for node in both if node in one.members and node in other.members)
    elects = Circle(both, min(one.k, other.k), one.strict and other.strict)
    return elects, Circle(common, max(one.k, other.k), one.strict or other.strict)


def next_circle(now: Circle, wish: Circle, me: str, ready: Iterable[str]) -> Circle | str:
    """The list that is one change nearer to the wish, or why there is none (empty: nothing to change).

    One member, or k by one, or strictness; never the primary itself; k is lowered first where it would be more than half.

    >>> three, two = Circle(("a", "b", "c"), 1), Circle(("a", "b"), 1)
    >>> next_circle(three, two, "a", ()), next_circle(three, two, "c", ())
    (Circle(members=('a', 'b'), k=1, strict=False), 'c is the primary: another node has to take over before it can leave')
    """
    leavers = [node for node in now.members if node not in wish.members]
    joiners = [node for node in wish.members if node not in now.members]
    able_to_leave = [node for node in leavers if node != me]
    fewer = len(now.members) - 1
    if able_to_leave and fewer >= 2:
        if now.k > fewer // 2:
            return now._replace(k=now.k - 1)
        return now._replace(members=tuple(node for node in now.members if node != able_to_leave[0]))
    welcome = [node for node in joiners if node in ready]
    if welcome:
        order = [*wish.members, *now.members]
        return now._replace(members=tuple(sorted((*now.members, welcome[0]), key=order.index)))
    if not leavers and not joiners and wish.k and now.k != wish.k:
        return now._replace(k=now.k + (1 if wish.k > now.k else -1))
    if now.strict != wish.strict:
        return now._replace(strict=wish.strict)
    if able_to_leave:
        return f"{able_to_leave[0]} cannot leave: two members are the least"
    if leavers:
        return f"{me} is the primary: another node has to take over before it can leave"
    return f"{joiners[0]} does not stream yet" if joiners else ""


def waited_for(roster: Roster, votes: Mapping[str, Vote], wish: Circle) -> list[str]:
    """The members that have to store this list before the next one may be stored.

    All that stay, or come; and in any case more than k of those by whom commits are confirmed, so that no election by the list before
    misses all of them.
    """
    missing = [node for node in roster.elects.members if node not in votes or not alike(votes[node].roster, roster)]
    voices = [node for node in roster.confirms.members if node not in missing]
    return missing if len(voices) <= roster.confirms.k else [node for node in missing if node in wish.members]


def next_roster(state: State, wish: Circle, votes: Mapping[str, Vote], me: str, ready: Iterable[str]) -> Roster | str:
    """The list that the primary stores next on the way to the wish, or why none now (empty: nothing to change).

    Each change takes two: `joined`, then its end. In the middle it goes either way, as the wish is by then. Each list is stored by all
    that matter before the next one, so never more than two neighbours are about; and two neighbours never lose a commit to each other.
    """
    roster, count = state.roster, state.roster.count + 1
    change = joint_end(roster, wish, me) if roster.joint else next_circle(roster.elects, wish, me, ready)
    if isinstance(change, str):
        return change
    if state.said.owner and state.said.term == state.reign:
        return f"{state.said.owner} says that it is alone"
    waiting = waited_for(roster, votes, wish)
    if waiting:
        return f"{' '.join(waiting)}: the list of before is not stored there yet"
    return Roster(state.reign, count, *((change, change) if roster.joint else joined(roster.elects, change)))


def joint_end(roster: Roster, wish: Circle, me: str) -> Circle:
    """Which end of a change that is in its middle is nearer to the wish."""
    elects, confirms = roster.elects, roster.confirms
    moving = set(elects.members) - set(confirms.members)
    if moving:
        return elects if moving <= set(wish.members) else confirms
    if elects.k != confirms.k:
        return elects if next_circle(confirms, wish, me, ()) == elects else confirms
    return confirms if wish.strict else elects


# -- text ---------------------------------------------------------------------------------------------------------


def state_text(state: State) -> str:
    """The state file: a line per word."""
    return "".join(f"{key}={value}\n" for key, value in _state_words(state))


def parse_state(text: str) -> State:
    """Read a state file back; ValueError when it is damaged (a damaged file is never taken for an empty one).

    >>> state = State(Ballot(3, "node1"), (Era(2, Lsn(9), Ballot(1, "node2")),), said=Statement(Ballot(3, "node1"), 1, "node1"), mark="a=b")
    >>> parse_state(state_text(state)) == state
    True
    """
    words = dict(line.partition("=")[::2] for line in text.splitlines())
    try:
        return State(
            Ballot.parse(words["promised"]),
            _parse_eras(words["eras"]),
            Ballot.parse(words["pending"]),
            Ballot.parse(words["reign"]),
            _parse_statement(words["said"]),
            words["mark"],
            int(words["beyond"]),
            parse_roster(words.get("roster", "")),  # a file of a version before there were lists has none
        )
    except KeyError as missing:
        raise ValueError(f"no line {missing} in the state file") from None


def _state_words(state: State) -> list[tuple[str, str]]:
    return [
        ("promised", str(state.promised)),
        ("eras", eras_text(state.eras)),
        ("pending", str(state.pending)),
        ("reign", str(state.reign)),
        ("said", statement_text(state.said)),
        ("mark", state.mark),
        ("beyond", str(state.beyond)),
        ("roster", roster_text(state.roster)),
    ]


def vote_text(vote: Vote) -> str:
    """The vote as the value of a node attribute.

    >>> vote = Vote(Ballot(3, "n.x"), (Era(2, Lsn(9), Ballot(1, "b")),), answer=Answer(Ballot(3, "n.x"), NEVER, Lsn(8), 2, "77"))
    >>> parse_vote(vote_text(vote)) == vote
    True
    """
    answer = vote.answer
    return ";".join(
        (
            f"promised={vote.promised}",
            f"eras={eras_text(vote.eras)}",
            f"reign={vote.reign}",
            f"said={statement_text(vote.said)}",
            "answer=" + (f"{answer.ballot}/{answer.term}/{answer.lsn:X}/{answer.timeline}/{answer.system_identifier}" if answer else ""),
            f"lsn={vote.lsn:X}",
            f"sysid={vote.system_identifier}",
            f"members={','.join(vote.roster.elects.members)}",  # what a node of an older version compares
            f"roster={roster_text(vote.roster)}",
        )
    )


def parse_vote(text: str) -> Vote:
    """Read a vote; ValueError for anything else."""
    words = dict(part.partition("=")[::2] for part in text.split(";"))
    try:
        answer = None
        if words["answer"]:
            ballot, term, lsn, timeline, system_identifier = words["answer"].split("/")
            answer = Answer(Ballot.parse(ballot), Ballot.parse(term), Lsn(int(lsn, 16)), int(timeline), system_identifier)
        return Vote(
            Ballot.parse(words["promised"]),
            _parse_eras(words["eras"]),
            Ballot.parse(words["reign"]),
            _parse_statement(words["said"]),
            answer,
            Lsn(int(words["lsn"], 16)),
            words["sysid"],
            parse_roster(words.get("roster", "")),
        )
    except KeyError as missing:
        raise ValueError(f"no {missing} in the vote {text!r}") from None


def eras_text(eras: Iterable[Era]) -> str:
    return ",".join(f"{era.timeline}:{era.start:X}:{era.term}" for era in eras)


def _parse_eras(text: str) -> tuple[Era, ...]:
    parts = (item.split(":") for item in filter(None, text.split(",")))
    return tuple(Era(int(timeline), Lsn(int(start, 16)), Ballot.parse(term)) for timeline, start, term in parts)


def statement_text(statement: Statement) -> str:
    """`term:count:owner`."""
    return f"{statement.term}:{statement.count}:{statement.owner}"


def roster_text(roster: Roster) -> str:
    """`term:count:members/k/strict:members/k/strict`, elections first; nothing where no list is stored.

    >>> roster_text(Roster(Ballot(7, "b"), 2, Circle(("a", "b", "c"), 1), Circle(("a", "b"), 1)))
    '7.b:2:a,b,c/1/0:a,b/1/0'
    >>> parse_roster('7.b:2:a,b,c/1/0:a,b/1/1').confirms
    Circle(members=('a', 'b'), k=1, strict=True)
    """
    if not roster.listed:
        return ""
    halves = (f"{','.join(half.members)}/{half.k}/{int(half.strict)}" for half in (roster.elects, roster.confirms))
    return ":".join((str(roster.term), str(roster.count), *halves))


def parse_roster(text: str) -> Roster:
    """Read a list back; ValueError when it is damaged."""
    if not text:
        return UNLISTED
    term, count, *halves = text.split(":")
    circles = []
    for half in halves:
        members, k, strict = half.split("/")
        circles.append(Circle(tuple(members.split(",")), int(k), bool(int(strict))))
    elects, confirms = circles
    return Roster(Ballot.parse(term), int(count), elects, confirms)


def _parse_statement(text: str) -> Statement:
    term, count, owner = text.split(":")
    return Statement(Ballot.parse(term), int(count), owner)
