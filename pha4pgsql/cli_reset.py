"""cls_reset_master: an operator gives up a lost member's last commits, so that the others may elect a primary again.

Nothing is forgotten that keeps two histories apart: promises and terms stay. What changes is on this node alone, in its state file: the operator
says in place of the lost member that it is not alone any more, by a statement newer than its own, which the other members take over as they do
from any primary. A damaged state file is replaced by one that has promised more than anybody shows. The file as it was is kept beside it.
The election afterwards is the ordinary one: the furthest of those who are left.
With --no-data the operator says the other thing of which nobody else can be sure: that this node's data are lost, so that it answers with nothing.
With --restored he says that what is on this node is to be the cluster's: its timeline, which no election made, gets a term above all others.
Exit codes: 0 done, 1 not reached, 10 refused, 11 another one or nobody became primary, 100 wrong usage,
101 the cluster cannot be asked on this node, 102 no quorum, 130 interrupted.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from pha4pgsql import arguments, cli, cli_start, cli_status, copies, copying, pacemaker, paths, postgres, procedure, repair, vote
from pha4pgsql.checks import Check, must
from pha4pgsql.procedure import NotReached, Plan, Step
from pha4pgsql.settings import Context, of_parameters
from pha4pgsql.shown import show
from pha4pgsql.site import Scope, Site, rules_of
from pha4pgsql.words import (
    GIVEN_UP,
    NEVER,
    NOTHING,
    Ballot,
    ClusterRefusal,
    EnvironmentFailure,
    Era,
    Instance,
    Lsn,
    Rules,
    Run,
    State,
    Statement,
    Store,
    StoreRow,
    Vote,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

    from pha4pgsql.procedure import Say
    from pha4pgsql.settings import Settings

WAIT = 60.0
REFUSED = 10


class Ground(NamedTuple):
    """What one look showed: the cluster, who votes what, this node with its state file (None: damaged), and the round of the next attempt."""

    site: cli.Site
    votes: Mapping[str, Vote]
    rules: Rules
    here: str
    state: State | None
    round: int
    silence: str = ""
    """Why the row of the distributed lock does not answer, or empty."""
    row: Vote | None = None
    """What it answers."""

    @property
    def settings(self) -> Settings:
        given = of_parameters(self.site.named.parameters, self.site.named.primitive)
        return given._replace(bindir=paths.find_programs(given.bindir, given.pgctl, given.datadir))

    @property
    def left(self) -> dict[str, Vote]:
        """The members that are here and show where their WAL ends."""
        return {node: one for node, one in self.votes.items() if node in self.rules.members and node in self.site.cluster.online and one.lsn}

    @property
    def newest(self) -> Statement:
        return vote.newest_statement(self.votes.values())

    @property
    def lost(self) -> str:
        """The member that went on alone and is not here, or empty."""
        owner = self.newest.owner
        return owner if owner and owner not in self.left else ""

    def place(self, node: str) -> tuple[Ballot, Lsn]:
        """What elections compare."""
        one = self.left[node]
        return vote.term_at(one.eras, one.lsn), one.lsn

    @property
    def furthest(self) -> list[str]:
        """Those who are left and have most, in the order of the list; who has forgotten its terms comes only if nobody has any."""
        known = [node for node in self.rules.confirming.members if node in self.left and (self.state is not None or node != self.here or self.first)]
        most = max((self.place(node) for node in known), default=None)
        return [node for node in known if self.place(node) == most]

    @property
    def first(self) -> bool:
        """Whether nobody who is left was ever promoted or has followed a primary."""
        return all(self.place(node)[0] == NEVER for node in self.left)


def _look() -> Ground:
    found = cli.look()
    settings = of_parameters(found.named.parameters, found.named.primitive)
    site = Site(settings, _context(settings), lambda *_: None)
    votes = cli_status.votes(found.named.primitive, timeout=3.0)
    try:
        state: State | None = site.state()
    except EnvironmentFailure:
        state = None
    number = int(found.cluster.properties.get(f"{found.named.primitive}_round", "1"))
    shown = [*votes.values(), *([Vote(roster=state.roster)] if state else [])]
    stored = rules_of(settings).under(vote.newest_roster(shown))
    row = cli_status.the_row(found.named)
    return Ground(found, votes, stored, site.context.node, state, number, row.reason, row.vote)


def _context(settings: Settings) -> Context:
    return Context("reset", settings.resource, pacemaker.local_node(), WAIT, time.monotonic())


# ---------------------------------------------------------------- whether, and at what price: pure


def checks(ground: Ground, target: str) -> list[Check]:
    """What must be so: no primary, enough members left, and the target among those who have most."""
    return [
        *cli_start.managed(ground.site),
        _no_primary(ground, "cls_online_switch makes another one primary"),
        _is_member(ground),
        *(_holdings(ground, target) if not _acting(ground) else []),
    ]


def _acting(ground: Ground) -> list[str]:
    """The nodes that Pacemaker or their own votes show as primary."""
    primaries = ground.site.cluster.where(ground.site.named.primitive, "promoted")
    acting = [node for node, one in ground.votes.items() if one.reign != NEVER and node in ground.site.cluster.online]
    return list(dict.fromkeys([*primaries, *acting]))


def _no_primary(ground: Ground, hint: str) -> Check:
    found = _acting(ground)
    return must("there is no primary", not found, f"{' and '.join(found)} is primary: nothing has to be reset", hint, REFUSED)


def _is_member(ground: Ground) -> Check:
    seen = f"{ground.here} is no member, the members are {' '.join(ground.rules.members)}"
    return must(f"this node ({ground.here}) is a member", ground.here in ground.rules.members, seen, "run it on a member", REFUSED)


def _about_here(ground: Ground, option: str, named: str) -> Check:
    hint = f"on {named}: cls_reset_master {option}"
    return must(f"{option} is about this node", named in ("", ground.here), f"{named} was named", hint, arguments.USAGE)


def _holdings(ground: Ground, target: str) -> list[Check]:
    """Whether those who are left can elect the target."""
    left, need = ground.left, ground.rules.answers_needed
    owner = ground.newest.owner
    voices = len(left) + bool(ground.rules.row and not ground.silence)
    counted = ", the row of the distributed lock counted" if ground.rules.row else ""
    return [
        must(
            f"{need} of {len(ground.rules.members)} members are here and show what they hold", len(left) >= need,
            f"only {' '.join(left) or 'nobody'} shows what it holds",
            "start Pacemaker on another member; an election needs so many answers. Where data are lost for good: cls_reset_master --no-data", REFUSED,
        ),
        must(
            f"{ground.rules.voices_needed} voices are here{counted}", voices >= ground.rules.voices_needed,
            ground.silence or f"only {voices}", "start what is missing; the row's PostgreSQL server is one: nobody is elected without", REFUSED,
        ),
        must(
            f"{target or 'somebody'} has most of what is left", target in ground.furthest,
            f"{target or 'nobody'} has not: {holdings(ground)}", f"cls_reset_master {next(iter(ground.furthest), '')}".strip(), REFUSED,
        ),
        must(
            "no member that went on alone is here", not owner or owner not in left,
            f"{owner} went on alone and is here: it is elected by itself", "cls_start", REFUSED,
        ),
    ]  # fmt: skip


def holdings(ground: Ground) -> str:
    """What each member holds: the term of its last record and where its WAL ends."""
    return ", ".join(f"{node} {_holding(ground, node)}" for node in ground.rules.members)


def _holding(ground: Ground, node: str) -> str:
    if node in ground.left:
        term, end = ground.place(node)
        return "has no data" if end == NOTHING else f"{end} of term {term}"
    if node == ground.here and ground.state is None:
        return "is here, but its state file is damaged"
    return "is here, and shows nothing" if node in ground.site.cluster.online else "is not here"


def risk(ground: Ground, target: str) -> str:
    """What is lost, in words that nobody can misunderstand."""
    gone = [node for node in ground.rules.members if node not in ground.left and (node != ground.here or ground.state is not None)]
    lines = [f"what each member holds: {holdings(ground)}"]
    if ground.lost:
        lines.append(_last_commits(ground))
    if ground.state is None:
        lines.append(f"the state file of {ground.here} is damaged: its promises and terms are given up, and it has to be rebuilt as a standby")
    if gone:
        lines.append(f"{' '.join(gone)} must be off, and stay off until {target} is primary; what only {' or '.join(gone)} has is not counted")
    return "\n".join([*lines, f"{target} becomes primary with what it holds"])


def _last_commits(ground: Ground) -> str:
    """What is gone with the member that went on alone."""
    return f"LOST FOR EVER: what {ground.newest.owner} confirmed alone (its last word: {vote.statement_text(ground.newest)}); nobody else has it"


def replacement(ground: Ground) -> State:
    """The state file of this node as it has to be: the newest word is not of somebody who is lost.

    The statement's term is the highest promise of all, so that everybody may store it; a promise is never lowered.
    """
    shown = max([one.promised for one in ground.votes.values()], default=NEVER)
    state = ground.state or State(Ballot(max(ground.round, shown.round) + 1, ground.here), said=ground.newest, roster=ground.rules.stored)
    if not ground.lost:
        return state
    term = max(shown, state.promised, ground.newest.term)
    count = ground.newest.count + 1 if ground.newest.term == term else 1
    return state._replace(promised=term, said=Statement(term, count, ""))


# ---------------------------------------------------------------- the procedure


def reset(argv: Sequence[str]) -> int:
    """cls_reset_master: the command line."""
    parser = arguments.Parser("cls_reset_master", description="Give up what a lost member alone has, and let the others have a primary again.")
    parser.add_argument("master", nargs="?", default="", help="the new primary (default: who has most)")
    word = parser.add_mutually_exclusive_group()
    word.add_argument("--no-data", action="store_true", help="say that the data of this node are lost, so that elections count it with nothing")
    word.add_argument("--restored", action="store_true", help="say that the data of this node, restored from a backup, are to be the cluster's")
    procedure.options(parser, timeout=WAIT)
    return cli.main(parser, _reset, argv)


def _reset(options: argparse.Namespace) -> int:
    cli.need_root()
    say, ground = procedure.stopwatch(), _look()
    if options.no_data:
        return _give_up(ground, options, say)
    if options.restored:
        target, instance = ground.here, postgres.observe(ground.settings)
        wanted = [*steps(ground, target, options.timeout, say, restored=True), _last(target, options.timeout, say, chosen=True)]
        plan = Plan(restored_checks(ground, instance, options.master), wanted, restored_risk(ground, instance), insists=True)
    else:
        target = options.master or next(iter(ground.furthest), "")
        wanted = [*steps(ground, target, options.timeout, say), _last(target, options.timeout, say, chosen=bool(options.master))]
        plan = Plan(checks(ground, target), wanted, risk(ground, target) if ground.left else "", insists=True)
    if procedure.perform(plan, options, say):
        print(f"master reset and startup successed, the master is {next(iter(_primaries()), target)}")
    return 0


# ---------------------------------------------------------------- a node without data


def _give_up(ground: Ground, options: argparse.Namespace, say: Say) -> int:
    """Here nothing is left: with that said the others may be enough."""
    missing = missing_answers(ground)
    wanted = [
        Step(f"write into the state file of {ground.here} that it holds nothing", lambda: _say_nothing(ground), _says_nothing(ground)),
        *([Step("wait until somebody is primary", lambda: _await("", options.timeout, say))] if not missing else []),
    ]
    plan = Plan(no_data_checks(ground, options.master), wanted, no_data_risk(ground), insists=True)
    if not procedure.perform(plan, options, say):
        return 0
    if missing:
        print(f"{ground.here} holds nothing, and says so in elections; {missing} more members have to answer")
        print("HINT: bring back another member, or run cls_reset_master --no-data there, too", file=sys.stderr)
        return 0
    print(f"{ground.here} holds nothing, and says so in elections; the master is {next(iter(_primaries()), 'nobody')}")
    print(f"HINT: on {ground.here}: cls_rebuild_slave", file=sys.stderr)
    return 0


def _says_nothing(ground: Ground) -> bool:
    return ground.state is not None and ground.state.given_up


def missing_answers(ground: Ground) -> int:
    """How many members an election lacks, this node counted as one that holds nothing."""
    return max(0, ground.rules.answers_needed - len({*ground.left, ground.here}))


def no_data_checks(ground: Ground, named: str) -> list[Check]:
    """There is no primary to copy from, no database here, and somebody else who has one."""
    settings = ground.settings
    others = [node for node in ground.left if node != ground.here and ground.left[node].lsn != NOTHING]
    half = ground.state is not None and bool(ground.state.mark)
    found = [item for item in copies.entries(settings.datadir) if item.name != "lost+found"]
    data = f"something is in {settings.datadir}, and it may be the only copy of what was confirmed last"
    aside = (
        f"move all that is in {settings.datadir} elsewhere"
        if os.path.ismount(settings.datadir)
        else f"mv {settings.datadir} {settings.datadir}.useless"
    )
    return [
        _about_here(ground, "--no-data", named),
        *cli_start.managed(ground.site),
        _no_primary(ground, f"on {ground.here}: cls_rebuild_slave makes it a copy"),
        _is_member(ground),
        must("PostgreSQL does not run here", postgres.postmaster(settings) is None, "it runs", "cls_status shows what this node does", REFUSED),
        must(
            f"{settings.datadir} is empty", half or not found, data,
            f"bring it up: cls_cleanup; cls_status shows why it does not start. If it is useless: {aside}", REFUSED,
        ),
        must(
            f"the state file of {ground.here} can be read", ground.state is not None, "it is damaged",
            f"mv {settings.tmpdir}/{settings.resource}.state aside; what it has promised is lost with it", REFUSED,
        ),
        must("another member shows what it holds", bool(others), "nobody does", "start Pacemaker where the data are", REFUSED),
    ]  # fmt: skip


def no_data_risk(ground: Ground) -> str:
    """What is lost, by name."""
    gone = [node for node in ground.rules.members if node not in ground.left and node != ground.here]
    lines = [f"what each member holds: {holdings(ground)}"]
    if gone:
        lines.append(f"{' '.join(gone)} must be off, or without data, too: what only {' or '.join(gone)} has is not waited for any more")
    if ground.newest.owner == ground.here:
        lines.append(_last_commits(ground))
    only = " and ".join([*gone, ground.here])
    lines.append(f"LOST FOR EVER: what only {only} had; bring back the disk that has it instead, if there is one (is it only not mounted?)")
    return "\n".join(lines)


def _say_nothing(ground: Ground) -> None:
    """Under the node's lock, by a new look at who reigns and what is here."""
    mark = f"{GIVEN_UP} by cls_reset_master at {time.strftime('%Y-%m-%d %H:%M:%S')}"
    outcome = repair.fresh(ground.settings, ground.here).drive(lambda scene: copying.give_up(scene, mark), scope=Scope.VOTES)
    if not outcome.ok:
        raise ClusterRefusal(outcome.reason)


# ---------------------------------------------------------------- a node with restored data


def stray(ground: Ground, instance: Instance) -> Era | None:
    """The timeline of this node that no election made, and from which on its data differ from the others'."""
    return vote.unnamed(vote.resolve(ground.state, instance).eras) if ground.state is not None else None


def said_before(ground: Ground) -> bool:
    """Whether the state file has the operator's word already: the command was interrupted after that."""
    state = ground.state
    return state is not None and bool(state.eras) and state.said == Statement(state.eras[-1].term, 1, ground.here)


def restored_checks(ground: Ground, instance: Instance, named: str) -> list[Check]:
    """There is no primary; PostgreSQL is down here, whole, and on a timeline of its own; and so many others are here that it can be elected."""
    left, need, mark = {*ground.left, ground.here}, ground.rules.answers_needed, ground.state.mark if ground.state else ""
    down, enough = instance.run is Run.DOWN, len(left) >= need if not _acting(ground) else None
    known = down and instance.lsn is not None
    theirs = {one.system_identifier for node, one in ground.left.items() if node != ground.here} - {""}
    own = "restore again, with recovery.signal and recovery_target_action = 'promote' in its settings: then PostgreSQL begins a timeline of its own"
    return [
        _about_here(ground, "--restored", named),
        *cli_start.managed(ground.site),
        _no_primary(ground, "cls_stop, then restore the backup on this node"),
        _is_member(ground),
        must(
            f"the state file of {ground.here} can be read, and knows terms", ground.state is not None and bool(ground.state.eras),
            "it is damaged" if ground.state is None else "this node has never followed a primary of this cluster",
            "restore the backup on a member that has", REFUSED,
        ),
        must("the data here are whole", not mark, mark, "restore again", REFUSED),
        must("PostgreSQL does not run here", down, f"it is {instance.run.value}", "cls_stop; pg_ctl stop", REFUSED),
        must(
            "the end of the WAL here can be read", known if down else None, instance.unread or "it cannot be read",
            "start PostgreSQL once by hand, wait until it takes connections, and stop it", REFUSED,
        ),
        must(
            "the data here are on a timeline of their own", stray(ground, instance) is not None or said_before(ground) if known else None,
            f"they are on timeline {instance.timeline} of this cluster, so nothing tells them from the others'", own, REFUSED,
        ),
        must(
            "the other members have copies of the same database", not theirs - {instance.system_identifier} if known else None,
            f"system identifier {instance.system_identifier} here, {' '.join(sorted(theirs))} there",
            "on each other member: move the data directory aside, then cls_reset_master --no-data", REFUSED,
        ),
        must(
            f"{need} of {len(ground.rules.members)} members are here", enough, f"only {' '.join(sorted(left))}",
            "start Pacemaker on another member; an election needs so many answers", REFUSED,
        ),
    ]  # fmt: skip


def restored_risk(ground: Ground, instance: Instance) -> str:
    """What is lost, by name."""
    begun = stray(ground, instance)
    if begun is None:
        return ""
    others = [node for node in ground.rules.members if node != ground.here]
    return "\n".join([
        f"what the others hold: {', '.join(f'{node} {_holding(ground, node)}' for node in others)}",
        *([_last_commits(ground)] if ground.newest.owner not in ("", ground.here) else []),
        f"here: timeline {begun.timeline}, which began at {begun.start}, to {instance.lsn}",
        f"LOST FOR EVER: what {' and '.join(others)} hold beyond {begun.start}, which is not in the backup; they become copies of {ground.here}",
    ])  # fmt: skip


def vouched(ground: Ground, instance: Instance) -> State:
    """The state file of this node with the operator's word: a term above all that was promised, under which this node alone knows what is committed.

    Further WAL alone would not do: the others could elect one of them without asking this node (docs/safety.md, rule 2).
    """
    if ground.state is None:
        raise ClusterRefusal(f"the state file of {ground.here} is damaged")
    state = vote.resolve(ground.state, instance)
    if vote.unnamed(state.eras) is None:
        return ground.state  # said before
    heard = [*ground.votes.values(), *([ground.row] if ground.row else [])]
    highest = max([ground.round, state.promised.round, *(one.promised.round for one in heard)])
    term = Ballot(highest + 1, ground.here)
    return vote.vouch(state, term)._replace(reign=NEVER, said=Statement(term, 1, ground.here))


def _spread(limit: float, say: Say) -> None:
    """Until nobody can be elected without this node: so many voices have stored the operator's word."""

    def missing() -> str:
        ground = _look()
        stored = vote.stored_by(ground.state.said, ground.votes, ground.rules, ground.row) if ground.state else 0
        need = ground.rules.confirming.k + 1
        return f"{stored} of {need} voices know that {ground.here} alone has the data" if stored < need else ""

    left = procedure.wait(missing, limit, say)
    if left:
        raise NotReached(left, "their watchers (pgwatch) store it: start Pacemaker on another member, then run the command again")


# ---------------------------------------------------------------- steps


def steps(ground: Ground, target: str, limit: float, say: Say, *, restored: bool = False) -> list[Step]:
    """Stop, say it, start: between any two the same command goes on."""

    def new(ground: Ground) -> State:
        return vouched(ground, postgres.observe(ground.settings)) if restored else replacement(ground)

    heard = Step("wait until the other voices have stored it", lambda: _spread(limit, say))
    aside = "the file as it was lies beside it"
    return [
        *cli_start.stopping(ground.site, limit, say).steps,
        Step(
            f"put the state file of {ground.here} aside, and write the new one",
            lambda: _replace(say, new),
            ground.state is not None and ground.state == new(ground),
            None,
            aside,
        ),
        *([heard] if restored else []),
        Step(f"name {target} in {ground.rules.resource}_REPL_INFO, and forget who streamed", lambda: _name(target)),
        Step(f"start {ground.site.named.promotable}", lambda: _start(say)),
    ]


def _last(target: str, limit: float, say: Say, *, chosen: bool) -> Step:
    """The end that is waited for: one who has as much may win instead, and only an operator who named the target minds."""
    what = f"wait until {target} is primary{'' if chosen else ', or another one who has as much'}"
    return Step(what, lambda: _await(target if chosen else "", limit, say))


def _replace(say: Say, new: Callable[[Ground], State]) -> None:
    """Under the node's lock, with PostgreSQL down: what is written is worked out from a new look."""
    ground = _look()
    settings = ground.settings
    site = Site(settings, _context(settings), lambda *_: None)
    path = f"{settings.tmpdir}/{settings.resource}.state"
    with site.lock():
        if postgres.postmaster(settings) is not None or postgres.remains(settings):
            raise ClusterRefusal(f"PostgreSQL runs on {ground.here}, expected it stopped", "cls_stop")
        if os.path.exists(path):
            kept = next(name for number in range(1, 1000) if not os.path.exists(name := f"{path}.before-reset-{number}"))
            shutil.copy2(path, kept)
            say(f"kept: {kept}")
        site.perform([Store(new(ground))])
        scene = site.look(scope=Scope.VOTES)
        site.perform(show(scene))
    if scene.rules.row and scene.state.said.owner == ground.here:
        site.perform([StoreRow(scene.state.said)])


def _name(target: str) -> None:
    """Who is preferred among equals; before anybody was ever promoted this is the operator's choice of the first primary."""
    ground = _look()
    prefix = ground.rules.resource
    promised = max([one.promised.round for one in ground.votes.values()] + [(ground.state or State()).promised.round])
    gone = {(node, f"{prefix}-data-status"): None for node in ground.site.cluster.members}
    pacemaker.set_permanent(gone, {f"{prefix}_REPL_INFO": target, f"{prefix}_round": str(max(ground.round, promised + 1))})


def _start(say: Say) -> None:
    ground = _look()
    cli_start.forgive(ground.site)
    cli_start.enable(ground.site.named)
    say("enabled")


def _await(target: str, limit: float, say: Say) -> None:
    """Until a primary serves; it has to be the target, if there is one."""
    cli_start.reach(cli.missing_for_primary, limit, say, NotReached.code)
    primary = next(iter(_primaries()), "")
    if target and primary != target:
        raise NotReached(f"{primary or 'nobody'} is primary, not {target}: it has as much", f"cls_online_switch {target} makes it primary")


def _primaries() -> tuple[str, ...]:
    site = cli.look()
    return site.cluster.where(site.named.primitive, "promoted")
