"""cls_online_switch: another member becomes primary on purpose, with the shortest pause of writes.

The primary is asked by an attribute of its node, `<resource>-switch`, to prefer the target: it moves its synchronous set to it and writes a
checkpoint. When the target is ready, its promotion score is raised once, and Pacemaker does the rest; the election is the same as ever.
Nothing is left behind by whatever kills the command: the primary forgets the wish after some looks, and sets scores right at the next one.
No constraint is ever made.
Exit codes: 0 done, 1 switched, but a standby does not stream yet; 10 refused; 11 not reached, 100 wrong usage,
101 the cluster cannot be asked on this node, 102 no quorum, 130 interrupted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pha4pgsql import arguments, cli, cli_status, pacemaker, procedure, replicas, sight, text, vote
from pha4pgsql.checks import Check, must
from pha4pgsql.outage import Meter
from pha4pgsql.procedure import NotReached, Plan, Step
from pha4pgsql.words import NEVER, Ballot, ClusterRefusal, Failure, Lsn, Mode, Rules, Wish

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from pha4pgsql.procedure import Say
    from pha4pgsql.text import Cluster, Member, Named
    from pha4pgsql.words import Vote

WAIT = 60.0
REFUSED = 10
SELDOM = 0.3
"""Seconds between two looks at the cluster while the role moves: each takes time from those who move it."""
LOOKS = 10
"""So many looks (3 s by default) of its primary a wish lives without its command."""
CLOSE = 1 << 20
"""Bytes that the target may still have to replay: milliseconds."""
READY = """
select (select pg_wal_lsn_diff(checkpoint_lsn, '0/0') from pg_control_checkpoint())::text, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::text,
       (select pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::text from pg_stat_replication
         where application_name = '{}' and state = 'streaming' limit 1)
"""


class Ground(NamedTuple):
    """What one look showed: the configuration and state, the members' votes, whether this node has quorum."""

    cluster: Cluster
    named: Named
    votes: Mapping[str, Vote]
    rules: Rules

    @property
    def primary(self) -> str:
        """The one primary, or empty."""
        return self.cluster.primary(self.named.primitive)

    @property
    def members(self) -> tuple[str, ...]:
        return cli.members(cli.Site(self.cluster, self.named))

    def attribute(self, node: str, name: str) -> str:
        """One of the set's attributes of a node; `score` is the promotion score."""
        member = self.cluster.members.get(node)
        return member.attributes.get(sight.attribute_name(self.rules, name), "") if member else ""

    def streams(self, node: str) -> bool:
        """Whether a standby receives what the primary writes."""
        return self.attribute(node, "data-status").startswith("STREAMING|") and self.attribute(node, "status") in cli.SERVING


def look() -> Ground:
    site = cli.look()
    votes = cli_status.votes(site.named.primitive, timeout=3.0)
    return Ground(site.cluster, site.named, votes, cli_status.rules(site.named).under(vote.newest_roster(votes.values())))


# ---------------------------------------------------------------- who, and whether: pure


def unfit(ground: Ground, node: str) -> list[tuple[str, str]]:
    """Why a member cannot be the target, each with what to type."""
    member, primitive = ground.cluster.members.get(node), ground.named.primitive
    if node not in ground.members or member is None:
        return [(f"{node} is no member of {ground.named.promotable}, its members are {' '.join(ground.members)}", "name one of them, or none")]
    if node == ground.primary:
        return [(f"{node} is the primary already", "cls_status shows who else there is")]
    if not member.online:
        return [(f"{node} is offline", f"start the cluster there: pcs cluster start {node}")]
    found = _withdrawn(member)
    if node not in ground.rules.confirming.members:
        found.append((f"{node} is not in the list of members", "cls_member list shows the list, and what a change waits for"))
    if not ground.streams(node):
        states = f"data-status {ground.attribute(node, 'data-status') or 'unknown'}, status {ground.attribute(node, 'status') or 'unknown'}"
        found.append((f"{node} does not stream from the primary: {states}", "cls_status shows why"))
    if text.truth(ground.attribute(node, "nofailover"), default=False):
        found.append((f"{node} is tagged nofailover", f"crm_attribute --node {node} --name {primitive}-nofailover --delete"))
    return found


def _withdrawn(member: Member) -> list[tuple[str, str]]:
    """How people have taken a node out of Pacemaker's hands."""
    found = [(f"{member.name} is in standby", f"cls_unstandby_node {member.name}")] if member.standby else []
    return found + ([(f"{member.name} is in maintenance", f"cls_unmaintenance_node {member.name}")] if member.maintenance else [])


def choose(ground: Ground) -> str:
    """The best target: one that commits wait for, by preference not the DC (a primary there costs a second when it is lost); empty: none."""
    able = [node for node in ground.members if not unfit(ground, node)]
    waited = ("STREAMING|SYNC", "STREAMING|QUORUM")
    best = sorted(able, key=lambda node: (node == ground.cluster.dc, ground.attribute(node, "data-status") not in waited, ground.members.index(node)))
    return best[0] if best else ""


def checks(ground: Ground, target: str, asked: str) -> list[Check]:
    """What must be so. Without a primary nothing else can be told."""
    quorum = cli.quorum()
    primaries = ground.cluster.where(ground.named.primitive, "promoted")
    one = must(
        f"{ground.named.promotable} has one primary", len(primaries) == 1,
        f"{ground.named.promotable} is promoted on {' and '.join(primaries) or 'no node'}", "cls_status shows why", REFUSED,
    )  # fmt: skip
    if len(primaries) != 1:
        return [quorum, one]
    managed = not ground.cluster.property_is("maintenance-mode", default=False)
    return [
        quorum,
        one,
        must("Pacemaker looks after the cluster", managed, "the cluster is in maintenance mode", "cls_unmaintenance", REFUSED),
        *([_managed_primary(ground)] if managed else []),
        *_target(ground, target, asked),
        *_safe(ground),
    ]


def _managed_primary(ground: Ground) -> Check:
    withdrawn = _withdrawn(ground.cluster.members[ground.primary])
    return must(f"Pacemaker looks after {ground.primary}", not withdrawn, *(withdrawn or [("", "")])[0], REFUSED)


def _target(ground: Ground, target: str, asked: str) -> list[Check]:
    """Whether there is somebody to switch to."""
    if not target and not asked:
        reasons = "; ".join(reason for node in ground.members if node != ground.primary for reason, _ in unfit(ground, node))
        return [
            must("a standby is fit to be primary", is_so=False, seen=f"no standby is fit to be primary: {reasons}", hint="cls_status", code=REFUSED)
        ]
    wrong = unfit(ground, target)
    if not wrong:
        return [must(f"{target} streams from {ground.primary} and may be primary", is_so=True)]
    return [must(f"{target} can be the primary", is_so=False, seen=reason, hint=hint, code=REFUSED) for reason, hint in wrong]


def _safe(ground: Ground) -> list[Check]:
    """Whether an election can be won, and no commit is on the old primary only."""
    said = ground.votes[ground.primary].said if ground.primary in ground.votes else None
    alone = said is not None and said.owner == ground.primary
    answering = [node for node in ground.rules.members if node in ground.votes and node in ground.cluster.online]
    need = ground.rules.answers_needed
    return [
        must(
            f"{ground.primary} does not go on alone", not alone, f"{ground.primary} goes on alone: only it has what it commits",
            "bring the standbys back; cls_status shows when commits wait for one again", REFUSED,
        ),
        must(
            f"{need} of {len(ground.rules.members)} members can answer an election", len(answering) >= need,
            f"only {' '.join(answering) or 'nobody'} can answer an election, {need} of {len(ground.rules.members)} members have to",
            "start Pacemaker on another member", REFUSED,
        ),
    ]  # fmt: skip


# ---------------------------------------------------------------- the procedure


def switch(argv: Sequence[str]) -> int:
    """cls_online_switch: the command line."""
    parser = arguments.Parser("cls_online_switch", description="Make a standby the primary on purpose; the old primary becomes a standby.")
    parser.add_argument("node", nargs="?", default="", metavar="NODE", help="the new primary (default: the best standby)")
    procedure.options(parser, timeout=WAIT, waits_for="the target's readiness, for the change, and for the standbys afterwards")
    return cli.main(parser, _switch, argv)


def _switch(options: argparse.Namespace) -> int:
    cli.need_root()
    ground = look()
    target = options.node or (choose(ground) if ground.primary else "")
    job = Job(ground, target, options.timeout, procedure.stopwatch())
    plan = Plan(checks(ground, target, options.node), steps(job) if ground.primary and target else (), risk(ground, target))
    if procedure.perform(plan, options, job.say):
        print(f"online switch successed,the new master is {target}")
    return 0


def risk(ground: Ground, target: str) -> str:
    """What a person should know."""
    return f"{target} becomes primary instead of {ground.primary}: writes pause, and sessions with {ground.primary} end" if target else ""


def steps(job: Job) -> list[Step]:
    """From the wish to standbys that follow."""
    ground, old, new = job.ground, job.old, job.new
    member = ground.cluster.members.get(new)
    failed = member is not None and ground.named.primitive in member.failures
    waits = "" if ground.rules.mode is Mode.ASYNC else f"to let {new} confirm every commit, and "
    return [
        Step(f"forget failures on {new}", lambda: pacemaker.cleanup(ground.named.promotable), not failed, None, "they are in the log"),
        Step(f"ask {old} {waits}to write a checkpoint", job.ask, undo=job.unask, undo_what=f"{old} prefers nobody"),
        Step(f"wait until {new} is ready", job.await_ready),
        Step(f"promote {new} instead of {old}", job.move, undo=job.stay, undo_what=f"where {old} is still primary, it stays so"),
        Step("wait until the standbys follow", job.await_standbys),
    ]


class Job:
    """One switchover: from whom, to whom, how long to wait for each thing."""

    def __init__(self, ground: Ground, new: str, limit: float, say: Say) -> None:
        self.ground, self.new, self.limit, self.say = ground, new, limit, say
        self.old = ground.primary
        self.term: Ballot = ground.votes[self.old].reign if self.old in ground.votes else NEVER
        self.since = Lsn(0)
        self.where = cli_status.writer(ground.named, "cls_online_switch")
        self.score = ground.attribute(new, "score")
        self._told: set[str] = set()

    # -- what is asked of the old primary

    def ask(self) -> None:
        """Tell the old primary what is wished; what it has to write out is counted from here."""
        facts = self._facts()
        self.since = facts.position if facts else Lsn(0)
        self._wish()

    def _wish(self) -> None:
        wish = Wish(self.new, self.term, self.since, LOOKS)
        pacemaker.publish(self._name("switch"), str(wish), node=self.old)

    def unask(self) -> None:
        pacemaker.publish(self._name("switch"), None, node=self.old)

    def _name(self, name: str) -> str:
        return sight.attribute_name(self.ground.rules, name)

    # -- readiness

    def await_ready(self) -> None:
        """Until the target may be promoted, has nearly everything replayed, and the old primary has little to write out."""
        left = procedure.wait(self._unready, self.limit, self.say)
        if left:
            raise NotReached(
                f"{self.new} was not ready within {self.limit:g} s: {left}", "cls_status shows more; a longer --timeout helps a slow disk"
            )

    def _unready(self) -> str:
        now = self._now()
        if now.primary != self.old:
            raise NotReached(
                f"{self.old} is not primary any more, {now.primary or 'nobody'} is; nothing was switched", "cls_status shows what happened"
            )
        wish = Wish.parse(now.attribute(self.old, "switch"))
        if wish is None or wish.looks <= LOOKS // 2:
            self._wish()
        return unready(now, self.new, self._facts(), self.since)

    def _now(self) -> Ground:
        return self.ground._replace(cluster=pacemaker.read_cluster())

    def _facts(self) -> Facts | None:
        """What the primary says of itself; None when it cannot be asked."""
        conninfo, passfile = self.where
        try:
            [row] = replicas.ask(conninfo, READY.format(self.new.replace("'", "''")), passfile=passfile, timeout=2.0)
        except Failure as silent:
            self._tell_once(f"the primary cannot be asked through the writer address: {silent.message}")
            return None
        return Facts(*(None if value is None else int(value) for value in row))

    def _tell_once(self, words: str) -> None:
        if words not in self._told:
            self._told.add(words)
            self.say(words)

    # -- the change

    def move(self) -> None:
        """Let Pacemaker move the promoted role, and measure how long writes are out."""
        meter = Meter(*self.where)
        measured = meter.start()
        seen = [self.old]
        try:
            left = procedure.wait(lambda: self._unmoved(seen), self.limit, self.say, lambda: meter.rest(SELDOM))
        finally:
            told = meter.stop(2.0 if seen[-1] == self.new else 0.0)
        if left:
            raise NotReached(f"{self.new} did not become primary within {self.limit:g} s: {left}{self._why()}", "cls_status shows the whole state")
        if told.seconds is None:
            self._tell_once(f"the outage could not be measured: {meter.trouble if not measured else 'the new primary did not answer in time'}")
        else:
            self.say(f"writes were out for {told.seconds:.2f} s: {self.old} on timeline {told.old}, then {self.new} on timeline {told.new}")

    def _unmoved(self, seen: list[str]) -> str:
        """What is missing until the target is primary with the writer address; `seen` are the primaries so far, empty for none."""
        now = self._now()
        if now.primary != seen[-1]:
            seen.append(now.primary)
        if now.primary == self.new:
            missing = [name for name in now.named.writers if now.cluster.where(name, "started") != (self.new,)]
            return f"{' '.join(missing)} is on its way" if missing else ""
        if now.primary and (now.primary != self.old or len(seen) > 1):
            raise NotReached(f"{now.primary} is primary, not {self.new}{self._why()}", "the reason is in the cluster's log on " + self.new)
        if now.primary == self.old and sight.positive(now.attribute(self.old, "score")) and now.attribute(self.new, "score") != sight.RAISED:
            self.score = now.attribute(self.new, "score")
            pacemaker.set_transient({(self.new, self._name("score")): sight.RAISED})
        return f"{self.old} is primary" if now.primary == self.old else "nobody is primary"

    def _why(self) -> str:
        """The agents' own reasons."""
        failed = text.view(cli_status.parse(pacemaker.status())).failed
        return "".join(f"\n  {one.told}" for one in failed)

    def stay(self) -> None:
        """Take the raised score back, unless the old primary has gone already: then the change comes to its end by itself."""
        now = self._now()
        if now.primary == self.old and now.attribute(self.new, "score") == sight.RAISED:
            pacemaker.set_transient({(self.new, self._name("score")): self.score})

    # -- afterwards

    def await_standbys(self) -> None:
        """Until the old primary and all that streamed before stream from the new one."""
        self.unask()
        members = [node for node in self.ground.members if node in (self.old, self.new) or self.ground.streams(node)]

        def missing() -> str:
            site = cli.Site(pacemaker.read_cluster(), self.ground.named)
            return "; ".join(reason for node in members if (reason := cli.not_replicating(site, node)))

        left = procedure.wait(missing, self.limit, self.say)
        if left:
            raise ClusterRefusal(f"{self.new} is the primary now, but after {self.limit:g} s {left}{self._why()}", "cls_status shows what to do")


class Facts(NamedTuple):
    """What the primary says: its last checkpoint, its position, how many bytes the target has not replayed (None: it does not stream)."""

    checkpoint: Lsn | int | None
    written: Lsn | int | None
    behind: int | None

    @property
    def position(self) -> Lsn:
        return Lsn(self.written or 0)


def unready(now: Ground, target: str, facts: Facts | None, since: Lsn) -> str:
    """What is missing until the target may be promoted at once, as the primary shows and says it."""
    missing = []
    if now.rules.mode is not Mode.ASYNC and now.attribute(target, "data-status") not in ("STREAMING|SYNC", "STREAMING|QUORUM"):
        missing.append(f"no commit waits for {target} yet ({now.attribute(target, 'data-status')})")
    if not sight.positive(now.attribute(target, "score")):
        missing.append(f"{target} may not be promoted yet (score {now.attribute(target, 'score') or 'none'})")
    if facts and (facts.checkpoint or 0) < since:
        missing.append(f"{now.primary} writes a checkpoint")
    if facts and (facts.behind is None or facts.behind > CLOSE):
        missing.append(f"{target} does not stream" if facts.behind is None else f"{target} has {facts.behind >> 20} MB to replay")
    return ", ".join(missing)
