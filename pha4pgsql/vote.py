"""Ballots, promises and terms: who may be promoted, who may follow whom, who may go alone. Pure.

The election is Raft's, spoken by PostgreSQL: a ballot is a term not won yet, a promise is a vote on disk, the
position of a member's WAL is (term of its last record, LSN). Timeline numbers are never compared, because two
nodes can both make a timeline 2 from the same point. docs/safety.md tells the rules with the accident behind each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pha4pgsql.words import NEVER, SILENCE, Answer, Ballot, Era, Lsn, Mode, Rules, State, Statement, Vote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


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


def resolve(state: State, histories: Iterable[tuple[int, int, Lsn]]) -> State:
    """Give the timeline that appeared since the last look its term: the one under which it was made, `pending`.

    A connection is bound to a term by its slot, and a term makes exactly one timeline; so the first timeline
    beyond the known ones, made by ourselves or received from the upstream of that term, has this term.
    """
    if state.pending == NEVER:
        return state
    known = max((era.timeline for era in state.eras), default=1)
    known = max(known, state.beyond)
    new = sorted(history for history in histories if history[0] > known)
    if not new:
        return state
    timeline, _, start = new[-1]
    return state._replace(eras=(*state.eras, Era(timeline, start, state.pending)), pending=NEVER, beyond=0)


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
    """The candidate may go on. `inherits`: somebody may be alone, so the first word of the new term is 'alone: me'."""

    answers: tuple[tuple[str, Answer], ...]
    inherits: bool


class Waiting(NamedTuple):
    """Answers are missing: from so many more members, or from one in particular. `row`: the answer of the lock's row would do, too."""

    missing: int
    reason: str
    row: bool = False


class Lost(NamedTuple):
    """The attempt cannot be won. `to` is the node that is further, or empty."""

    reason: str
    to: str = ""


def elect(ballot: Ballot, votes: Mapping[str, Vote], rules: Rules, *, override: str = "", row: Vote | None = None) -> Elected | Waiting | Lost:
    """Judge a ballot by the answers to it, whatever else the votes show.

    Any N-k members meet every commit that k others confirmed. So the candidate is elected by N-k answers, its own
    included, none of which is further; what others hold beyond that was confirmed to nobody. While no answer has a term
    nothing was ever confirmed under these rules: then all members have to answer, and (timeline, LSN) compares them.
    Beside that V-k voices have to answer, which meet all who know that somebody is alone; every member that answers is one.
    """
    me = ballot.node
    higher = outvoted(ballot, votes, rules.members, row)
    if higher:
        return Lost(f"ballot {ballot} came too late, {higher} is promised already")
    heard = {node: vote for node, vote in votes.items() if node in rules.members and vote.answer and vote.answer.ballot == ballot}
    answers = {node: vote.answer for node, vote in heard.items() if vote.answer}
    if me not in answers:
        return Waiting(rules.answers_needed, f"{me} has not answered its own ballot {ballot}")
    objection = _objection(heard, answers, answers[me], rules)
    if objection:
        return Lost(objection)
    if rules.mode is Mode.ASYNC:
        return _elect_furthest(ballot, votes, answers, rules.members)
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
        return _unheard(ballot, answers, rules, row) or Elected(tuple(sorted(answers.items())), bool(newest.owner))
    leader = max(answers, key=lambda node: (answers[node].term, answers[node].lsn))
    if newest.owner in answers and newest.owner not in backing:
        leader = newest.owner
    silent = [node for node in rules.members if node not in answers]
    if len(backing) + len(silent) < rules.answers_needed or (leader not in backing and not silent) or newest.owner == leader != me:
        there, here = answers[leader], answers[me]
        return Lost(f"{leader} is further: {there.lsn} of term {there.term}, {me} has {here.lsn} of term {here.term}", leader)
    if newest.owner and newest.owner not in answers:
        return Waiting(1, f"{newest.owner} may have gone on alone (term {newest.term}); its own answer is needed")
    need = rules.answers_needed
    reason = f"no answer to ballot {ballot} from {' '.join(silent)}; {need} of {len(rules.members)} members have to answer{_without_file(lost)}"
    return Waiting(need - len(backing), reason)


def forgetful(known: Mapping[str, tuple[tuple[Era, ...], Lsn]]) -> frozenset[str]:
    """Of nodes with their terms and ends of WAL: those that have lost their state file. Their answers say nothing."""
    told = [era for eras, _ in known.values() for era in eras]
    return frozenset(node for node, (eras, end) in known.items() if forgets(eras, end, told))


def _without_file(lost: Iterable[str]) -> str:
    return f"; not counted, because the state file is lost: {' '.join(sorted(lost))}" if lost else ""


def _objection(heard: Mapping[str, Vote], answers: Mapping[str, Answer], mine: Answer, rules: Rules) -> str:
    """Why these answers cannot be compared, or empty."""
    if any(vote.members != rules.members for vote in heard.values() if vote.members):
        return "members disagree about node_list"
    strangers = sorted(node for node, answer in answers.items() if answer.system_identifier != mine.system_identifier)
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


def _elect_furthest(ballot: Ballot, votes: Mapping[str, Vote], answers: Mapping[str, Answer], members: Iterable[str]) -> Elected | Waiting | Lost:
    """Without synchronous replication nobody knows what was confirmed: the furthest of those who answer is the best there is."""
    me = ballot.node
    leader = max(answers, key=lambda node: (answers[node].term, answers[node].timeline, answers[node].lsn, node == me))
    if further(answers[leader], answers[me]):
        return _behind(leader, answers, me)
    silent = [node for node in members if node in votes and node not in answers]
    if silent:
        return Waiting(len(silent), f"no answer to ballot {ballot} from {' '.join(silent)} yet")
    return Elected(tuple(sorted(answers.items())), False)


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
    return Elected(tuple(sorted(answers.items())), False)


def await_timeline(state: State, term: Ballot, end: Lsn, timelines: Iterable[int]) -> State:
    """The state of a node that is about to make, or to receive, the one new timeline of `term`; `timelines` are those it holds.

    Eras that the local WAL does not reach were adopted in vain: they are forgotten, or they would label what comes now.
    """
    return state._replace(pending=term, eras=cut(state.eras, end), beyond=max(timelines, default=0))


def promise(state: State, ballot: Ballot) -> State | str:
    """The state that promises this ballot, or why it is not promised."""
    if state.mark:
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
    """How many voices, members and the row, show that exactly this statement is what they have stored."""
    voices = [*(votes[node] for node in rules.members if node in votes), *_heard_row(rules, row)]
    return sum(1 for voice in voices if voice.said == statement)


def _visible(votes: Mapping[str, Vote], rules: Rules) -> tuple[dict[str, Vote], frozenset[str]]:
    """The members whose positions are visible and say something, and those whose state file is lost."""
    shown = {node: vote for node, vote in votes.items() if node in rules.members and vote.lsn}
    told = [era for node in rules.members if node in votes for era in votes[node].eras]
    lost = frozenset(node for node, vote in shown.items() if rules.mode is not Mode.ASYNC and forgets(vote.eras, vote.lsn, told))
    return {node: vote for node, vote in shown.items() if node not in lost}, lost


def able(votes: Mapping[str, Vote], rules: Rules, *, override: str = "", row: Vote | None = None) -> list[str]:
    """The members that would win an election by the positions that are visible; empty when too little is visible."""
    visible, _ = _visible(votes, rules)
    place = {node: (term_at(vote.eras, vote.lsn), vote.lsn) for node, vote in visible.items()}
    first = all(term == NEVER for term, _ in place.values())
    if first and override:
        return [override] if override in visible else []
    if len(visible) + len(_heard_row(rules, row)) < rules.voices_needed:
        return []
    need = len(rules.members) if first and rules.mode is not Mode.ASYNC else rules.answers_needed
    owner = newest_statement((*visible.values(), *_heard_row(rules, row))).owner

    def wins(node: str) -> bool:
        backed = sum(place[other] <= place[node] for other in visible) >= need and (first or place[node][0] != NEVER)
        return backed and (not owner or (owner in visible and place[owner] <= place[node]))

    return [node for node in visible if wins(node)]


def obstacle(votes: Mapping[str, Vote], rules: Rules, *, override: str = "", row: Vote | None = None) -> str:
    """Why nobody can be elected by what is visible, or empty."""
    if able(votes, rules, override=override, row=row):
        return ""
    visible, lost = _visible(votes, rules)
    owner = newest_statement((*visible.values(), *_heard_row(rules, row))).owner
    silent = " ".join(node for node in rules.members if node not in visible)
    if owner and owner not in visible:
        return f"no primary: {owner} went on alone at the end, so nobody is promoted without it"
    if not silent:
        return "no primary: no member holds all that the others may have confirmed"
    first = bool(visible) and all(term_at(vote.eras, vote.lsn) == NEVER for vote in visible.values())
    if rules.row and row is None and not first and len(visible) >= rules.answers_needed:
        return f"no primary: {silent} may have gone on alone, and the row of the distributed lock, which would know, cannot be asked"
    why = "; nobody was ever promoted, so every member has to answer, or cls_setup NODE names the first primary" if first else ""
    return f"no primary: the positions of {len(visible)} of {len(rules.members)} members are known, missing: {silent}{why}{_without_file(lost)}"


def outvoted(term: Ballot, votes: Mapping[str, Vote], members: Iterable[str], row: Vote | None = None) -> Ballot | None:
    """The highest promise above `term` that a member or the row shows, or None."""
    highest = max((votes[node].promised for node in members if node in votes), default=NEVER)
    highest = max(highest, row.promised) if row is not None else highest
    return highest if highest > term else None


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
    ]


def vote_text(vote: Vote) -> str:
    """The vote as the value of a node attribute.

    >>> vote = Vote(Ballot(3, "n.x"), (Era(2, Lsn(9), Ballot(1, "b")),), answer=Answer(Ballot(3, "n.x"), NEVER, Lsn(8), 2, "77"), members=("a", "b"))
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
            f"members={','.join(vote.members)}",
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
            tuple(filter(None, words["members"].split(","))),
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


def _parse_statement(text: str) -> Statement:
    term, count, owner = text.split(":")
    return Statement(Ballot.parse(term), int(count), owner)
