"""cls_member: the members of the replicated set, added, removed and listed under load, one change at a time.

Layer 4. The command only says what is wished (the parameter node_list) and where PostgreSQL may run; the primary brings the wish about in the list
that every member stores, in the order of docs/safety.md, rule 9. So the command may be interrupted anywhere: run again, it finishes the job.
Exit codes: 0 done, 1 not reached or refused, 10 no primary, 100 wrong usage, 101 the cluster cannot be asked, 102 no quorum, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from pha4pgsql import (
    VERSION,
    arguments,
    cib,
    cli,
    cli_repair,
    cli_start,
    cli_status,
    errand,
    member_node,
    pacemaker,
    paths,
    procedure,
    remote,
    replicas,
    setup,
    sight,
    system,
    vote,
)
from pha4pgsql.checks import Check, must
from pha4pgsql.procedure import Plan, Step
from pha4pgsql.words import NEVER, Ballot, ClusterRefusal, EnvironmentFailure, Roster, State

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from lxml.etree import _Element as Element

    from pha4pgsql.cli import Site
    from pha4pgsql.errand import Errand
    from pha4pgsql.procedure import Say
    from pha4pgsql.words import Rules, Vote

NO_PRIMARY = 10
WAIT = 120.0
AWAY = "cls_online_switch makes another node the primary; then run this command again"


class Ground(NamedTuple):
    """What one look showed: the set, what its nodes show of themselves, and what the operator's wish is by now."""

    site: Site
    tree: Element
    votes: Mapping[str, Vote]
    rules: Rules

    @property
    def name(self) -> str:
        return self.site.named.primitive

    @property
    def primary(self) -> str:
        return self.site.cluster.primary(self.name)

    @property
    def wished(self) -> tuple[str, ...]:
        return self.site.named.nodes

    @property
    def roster(self) -> Roster:
        """The primary's list, else the newest that anybody shows."""
        return self.votes[self.primary].roster if self.primary in self.votes else vote.newest_roster(self.votes.values())

    @property
    def clones(self) -> tuple[str, ...]:
        """The sets of ours that run on every member: PostgreSQL and its watcher."""
        return tuple(top for kind in ("pgsql", "pgwatch") for top, _ in self._ours(kind))

    @property
    def primitives(self) -> tuple[str, ...]:
        return tuple(primitive for kind in ("pgsql", "pgwatch") for _, primitive in self._ours(kind))

    def _ours(self, kind: str) -> list[tuple[str, str]]:
        return cib.clones_of(self.tree, kind, self.name)

    @property
    def sizes(self) -> dict[str, int]:
        """How many instances each clone has to have at most: PostgreSQL, and what makes it a real server, run where it only reads, too."""
        everywhere, real = len({*self.wished, *self.site.named.read_nodes}), self.site.named.real_servers
        return {
            **{top: everywhere for top, _ in self._ours("pgsql")},
            **{top: len(self.wished) for top, _ in self._ours("pgwatch")},
            **{top: everywhere for top, one in cib.primitives(self.tree, "pha4pgsql", "lvsdr-realsvr") if one == real},
        }

    @property
    def sized(self) -> bool:
        return all(cib.meta(self.tree, top, "clone-max") in {"", str(size)} for top, size in self.sizes.items())

    @property
    def held(self) -> list[str]:
        """What is left alone while parameters change: without that Pacemaker would restart it."""
        named = {*self.clones, *self.site.named.companions, *(f"{name}-clone" for name in self.site.named.companions)}
        return cib.unheld(self.tree, [top for top in cib.resources(self.tree) if top in named])


def main(argv: Sequence[str]) -> int:
    """cls_member: the command line."""
    if len(argv) == 2 and argv[0] == "errand":
        paths.use_packages()
        return errand.serve(member_node.VERBS, argv[1])
    parser = arguments.Parser("cls_member", description="Add, remove and list the members of the replicated set, while it serves.")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, body, text in (
        ("add", _add, "make a node of the cluster a member: copy the primary, let it stream, let it count"),
        ("remove", _remove, "let a member count no more, stop PostgreSQL there"),
    ):
        one = verbs.add_parser(verb, help=text)
        one.add_argument("node", metavar="NODE", help="the node, as crm_node -l names it")
        procedure.options(one, timeout=WAIT)
        if verb == "add":
            one.add_argument("--max-rate", type=cli_repair.rate, metavar="RATE", help="copy at most so many kB a second, or with M so many MB")
        one.set_defaults(body=body)
    listing = verbs.add_parser("list", help="show who is a member, and how far a change is")
    listing.add_argument("--json", action="store_true", help="the same for programs, as one JSON object")
    listing.set_defaults(body=_list)
    return cli.main(parser, lambda options: int(options.body(options)), argv)


def look() -> Ground:
    """Look at the configuration and at what each node shows."""
    tree = cib.read(pacemaker.cib(20))
    site = cli.look()
    return Ground(site, tree, cli_status.votes(site.named.primitive, timeout=3.0), cli_status.rules(site.named))


def look_after(say: Say) -> Ground:
    """Look; after a command that was killed in its maintenance when Pacemaker, which looks anew then, shows the primary again."""

    def hidden() -> str:
        ground = look()
        return "" if ground.primary or not cib.holds(ground.tree) else "Pacemaker looks anew at what runs, since a command was interrupted"

    procedure.wait(hidden, setup.SETTLE, say)
    return look()


# ---------------------------------------------------------------- what must be so, and how far it is: pure


def base_checks(ground: Ground, node: str) -> list[Check]:
    """What both ways need of the set without this node."""
    said = ground.votes[ground.primary].said if ground.primary in ground.votes else None
    alone = said is not None and said.owner == ground.primary and said.term == ground.votes[ground.primary].reign
    unlisted = [name for name in ground.wished if name != node and not setup.shows_list(ground.site.cluster, ground.votes, name)]
    return [
        *cli_start.managed(ground.site),
        must("the set has a primary", bool(ground.primary), "there is no primary", primaryless(ground), NO_PRIMARY),
        must("the primary is not alone", not alone, f"{ground.primary} goes on alone", "bring a standby back first"),
        must(
            "every other member is there and has a list", not unlisted, f"{' '.join(unlisted)}: no stored list is shown",
            "bring it up, with the same version of pha4pgsql; several that are lost are taken out together (config.ini, install.sh, cls_setup)",
        ),
    ]  # fmt: skip


def primaryless(ground: Ground) -> str:
    """What to type where there is no primary: while an interrupted command's maintenance lasts none can be promoted."""
    left = cib.holds(ground.tree)
    return f"cls_setup ends the maintenance of {' '.join(left)}, which an interrupted command has left" if left else "cls_status shows why"


def add_checks(ground: Ground, node: str, seen: Mapping[str, Any]) -> list[Check]:
    """What adding needs of the cluster and of the node. `primary` in `seen` is what the primary's own node showed of itself."""
    cluster, there = ground.site.cluster, seen.get("primary", {})
    reign = ground.votes[ground.primary].reign if ground.primary in ground.votes else NEVER
    foreign = seen["system_identifier"] not in {"", there.get("system_identifier", seen["system_identifier"])}
    other = seen["data"] and not seen["mark"] and not seen["system_identifier"]
    size = there.get("size", 0)
    return [
        must(
            f"{node} is a node of the cluster", node in cluster.members, f"Pacemaker knows {' '.join(cluster.members)}",
            f"pcs cluster node add {node}",
        ),
        must(f"{node} is online", node in cluster.online, f"{node} is offline", f"pcs cluster start {node}"),
        *base_checks(ground, node),
        must(
            f"the programs are on {node}", not seen["missing"], f"missing: {', '.join(seen['missing'])}",
            "run install.sh with the new config.ini; install the same packages as on the others",
        ),
        must(
            f"{node} does not only read", node not in ground.rules.readers, f"{node} is in read_node_list",
            "take it out of read_node_list first (config.ini, install.sh, cls_setup)",
        ),
        must(f"{node} has the same version", seen["version"] == VERSION, f"{seen['version']} there, {VERSION} here", "install the same version"),
        must("PostgreSQL is of the same version", there.get("major") in {None, seen["major"]}, f"{seen['major']}, the primary: {there.get('major')}"),
        must("its data directory is empty, or a copy of this database", not foreign and not other, "another database is in it", "move it away"),
        must("a copy has room", seen["data"] or seen["free"] > size, f"{seen['free'] >> 20} MB are free, {size >> 20} MB needed"),
        must(
            "it has promised nothing above the primary's term", Ballot.parse(seen["promised"]) <= reign,
            f"{seen['promised']} is promised, the term is {reign}", "a switch of roles ends that: let another node become primary",
        ),
    ]  # fmt: skip


def remove_checks(ground: Ground, node: str) -> list[Check]:
    """What removing needs: somebody else as primary, and two members who stay and stream."""
    cluster, staying = ground.site.cluster, [name for name in ground.wished if name != node]
    k = min(ground.roster.confirms.k, max(1, len(staying) // 2)) if ground.rules.mode.value != "async" else 0
    streaming = [
        name for name in staying
        if name != ground.primary and cluster.members[name].attributes.get(f"{ground.name}-data-status", "").startswith("STREAMING")
    ]  # fmt: skip
    asked = int(ground.site.named.parameters.get("sync_count") or 0)
    counts = node in {*ground.wished, *ground.roster.elects.members} or bool(cluster.where(ground.name, "started") and node in cluster.members)
    return [
        must(f"{node} is or was a member", counts, f"the members are {' '.join(ground.wished)}"),
        *base_checks(ground, node),
        must(f"{node} is not the primary", node != ground.primary, f"{node} is the primary", AWAY),
        must("two members stay", len(staying) >= 2, f"only {' '.join(staying)} would stay"),
        must(
            "sync_count fits those who stay", asked <= max(1, len(staying) // 2), f"sync_count is {asked}, half of {len(staying)} is the most",
            "lower pgsql_sync_count in config.ini first (install.sh, cls_setup)",
        ),
        must(
            f"{k} of those who stay confirm commits", len(streaming) >= k, f"streaming: {' '.join(streaming) or 'none'}",
            "bring another standby back first",
        ),
    ]  # fmt: skip


def not_yet(ground: Ground, node: str, *, member: bool) -> str:
    """Why the list is not yet what is wished, as far as `node` is concerned; empty when all show it."""
    roster, staying = ground.roster, [name for name in ground.wished if name in ground.site.cluster.online]
    if not ground.primary:
        return "there is no primary"
    inside = (node in roster.elects.members, node in roster.confirms.members)
    if inside != (member, member):
        return f"{'in the middle of the change: ' if inside[0] != inside[1] else ''}{waits_for(ground) or 'node_list wishes otherwise by now'}"
    behind = [name for name in staying if name not in ground.votes or not vote.alike(ground.votes[name].roster, roster)]
    return f"the list is not stored yet on {' '.join(behind)}" if behind else ""


def unremoved(ground: Ground, node: str) -> str:
    """Why the list still has this node; a refusal where that cannot come true, because it was elected meanwhile."""
    if ground.primary == node:
        raise ClusterRefusal(f"{node} has become the primary, and a primary is not removed", AWAY)
    return not_yet(ground, node, member=False)


def waits_for(ground: Ground) -> str:
    """What the primary waits for, in its own words."""
    if ground.primary not in ground.votes:
        return f"{ground.primary} shows nothing"
    shown = ground.votes[ground.primary]
    state = State(promised=shown.promised, reign=shown.reign, said=shown.said, roster=shown.roster)
    step = vote.next_roster(state, ground.rules.circle, ground.votes, ground.primary, _streaming(ground))
    return step if isinstance(step, str) else "the primary takes the next step"


def _streaming(ground: Ground) -> list[str]:
    """The nodes that the primary shows as streaming, and that know its list."""
    shown = ground.site.cluster.attribute(f"{ground.name}-data-status")
    return [
        node for node, value in shown.items()
        if value.startswith("STREAMING|") and node in ground.votes and vote.alike(ground.votes[node].roster, ground.roster)
    ]  # fmt: skip


# ---------------------------------------------------------------- add


def _add(options: argparse.Namespace) -> int:
    cli.need_root()
    cli.need_quorum()
    say = procedure.stopwatch()
    ground, node = look_after(say), options.node
    with _way(node, ground, say) as there:
        seen = dict(there("look", **_request(ground, node)))
        seen["primary"] = _primary(ground)
        if not procedure.perform(Plan(add_checks(ground, node, seen), add_steps(ground, node, seen, there, options, say)), options, say):
            return 0
    print(f"{node} is a member of {ground.site.named.promotable}")
    template = ", pcs_template=muti.pcs.j2 where it is dual.pcs.j2" if len({*ground.wished} - {node}) == 2 else ""
    _tell(f"name {node} in othernodes (or node3=){template}, on every node, and run install.sh there", f"cls_setup would remove {node} again")
    return 0


@contextlib.contextmanager
def _way(node: str, ground: Ground, say: Say) -> Iterator[Errand]:
    """Errands on the node: here, or by ssh, where our programs are installed at the same place."""
    if node == _here(ground):
        yield errand.here(member_node.VERBS, say)
        return
    shell = remote.Ssh("ConnectTimeout=5")
    try:
        yield errand.there(shell, node, [os.path.abspath(sys.argv[0]), "errand"], say)
    finally:
        shell.close()


def _here(ground: Ground) -> str:
    local = pacemaker.local_node()
    return local if local in ground.site.cluster.members else ""


def _request(ground: Ground, node: str) -> dict[str, Any]:
    return {"node": node, "resource": ground.name, "parameters": dict(ground.site.named.parameters)}


SIZE = "select current_setting('server_version_num')::int / 10000, (select system_identifier from pg_control_system())::text, \
(select sum(pg_database_size(oid)) from pg_database)::bigint"


def _primary(ground: Ground) -> dict[str, Any]:
    """What the primary says of itself; nothing where it cannot be asked from here."""
    conninfo, passfile = cli_status.writer(ground.site.named, "cls_member")
    with contextlib.suppress(EnvironmentFailure):
        ((major, identifier, size),) = replicas.ask(conninfo, SIZE, passfile=passfile, timeout=4.0)
        return {"major": int(major), "system_identifier": str(identifier), "size": int(size or 0)}
    return {}


def add_steps(ground: Ground, node: str, seen: Mapping[str, Any], there: Errand, options: argparse.Namespace, say: Say) -> list[Step]:
    """A standby first, then a name in the list, then one of those who confirm."""
    copied, wished = bool(seen["data"]) and not seen["mark"], node in ground.wished
    runs = wished and not any(cib.banned(ground.tree, clone, node) for clone in ground.clones)
    streams = ground.site.cluster.members[node].attributes.get(f"{ground.name}-data-status", "") if node in ground.site.cluster.members else ""
    return [
        *_ending(ground, say),
        Step(
            f"wish {node} in node_list, and keep PostgreSQL off it until it has a copy", lambda: _wish(node, say, there=copied), wished,
            undo_what=f"cls_member remove {node} takes it back",
        ),
        Step(
            f"copy {ground.primary} to {node} ({seen['primary'].get('size', 0) >> 20} MB)", lambda: _clone(node, there, options.max_rate), copied,
            undo_what="nothing is left of half a copy",
        ),
        Step(f"let PostgreSQL run on {node}", lambda: _admit(node), runs, undo_what=f"cls_member remove {node} takes it back"),
        Step(f"wait until {node} streams", lambda: _wait(lambda: _streams(node), options, say), runs and "STREAMING" in streams),
        Step(
            "wait until every member has stored the list with it",
            lambda: _wait(lambda: not_yet(look(), node, member=True), options, say),
            runs and not not_yet(ground, node, member=True),
        ),
    ]  # fmt: skip


def _ending(ground: Ground, say: Say) -> list[Step]:
    """What a command that was killed in its moment of maintenance has left."""

    def end() -> None:
        setup.release_left(look().tree, say)

    left = cib.holds(ground.tree)
    return [Step(f"end the maintenance of {' '.join(left)}", end)] if left else []


def _clone(node: str, there: Errand, rate: str | None) -> None:
    there("clone", **_request(look(), node), rate=rate or "")


def _wish(node: str, say: Say, *, there: bool | None = None) -> None:
    """Wish a node as a member (`there`: it has a copy already, else PostgreSQL is kept off it), or not any more (None)."""
    _configure(node, say, member=there is not None, off=there is False)


def _admit(node: str) -> None:
    """PostgreSQL and its watcher may run there from now on."""
    _change(lambda ground: with_sizes(cib.without_ban(ground.tree, ground.clones, node), ground))
    pacemaker.cleanup(look().site.named.promotable)


def _configure(node: str, say: Say, *, member: bool, off: bool) -> None:
    """Change the wish, under maintenance where it is a parameter of what runs."""

    def edit(ground: Ground) -> Element:
        wished = [name for name in ground.wished if name != node] + ([node] if member else [])
        setup.refuse_list(ground.site.cluster, ground.name, ground.wished, wished)
        new = cib.with_value(ground.tree, ground.primitives, "node_list", " ".join(wished))
        return cib.with_ban(new, ground.clones, node) if off else new

    _change(edit, lambda ground, new: setup.push_under(list(ground.clones), ground.held, ground.tree, new, say))


def _streams(node: str) -> str:
    ground = look()
    status = ground.site.cluster.members[node].attributes.get(f"{ground.name}-data-status", "")
    role = ground.site.cluster.members[node].roles.get(ground.name, "stopped")
    return "" if status.startswith("STREAMING") or node == ground.primary else f"PostgreSQL is {role} on {node}, data-status {status or 'unknown'}"


def _wait(missing: Callable[[], str], options: argparse.Namespace, say: Say) -> None:
    left = procedure.wait(missing, options.timeout, say)
    if left:
        raise ClusterRefusal(f"not reached within {options.timeout:g} s: {left}", "correct the cause, then run the same command again")


def _tell(line: str, why: str) -> None:
    print(f"HINT: config.ini: {line}; until then {why}", file=sys.stderr)


# ---------------------------------------------------------------- remove


def _remove(options: argparse.Namespace) -> int:
    cli.need_root()
    cli.need_quorum()
    say = procedure.stopwatch()
    ground, node = look_after(say), options.node
    plan = Plan(remove_checks(ground, node), remove_steps(ground, node, options, say), f"{node} will be no member any more, PostgreSQL stops there.")
    if not procedure.perform(plan, options, say):
        return 0
    print(f"{node} is no member of {ground.site.named.promotable} any more")
    _tell(f"take {node} out, on every node, and run install.sh there", f"cls_setup would add {node} again")
    return 0


def remove_steps(ground: Ground, node: str, options: argparse.Namespace, say: Say) -> list[Step]:
    """Readers go first; then it confirms no commit any more, then it counts no more, then it stops; its slot last."""
    off = [cib.banned(ground.tree, clone, node) for clone in ground.clones]
    gone = node not in ground.wished
    out = gone and not not_yet(ground, node, member=False)
    runs = node in {*ground.site.cluster.where(ground.name, "started")}
    drained = not ground.site.named.director or node not in ground.site.cluster.online or all(off)
    return [
        *_ending(ground, say),
        Step(f"let readers leave {node}", lambda: _drain(node, options, say), drained, undo_what="its weight stays 0 until the command has ended"),
        Step(f"wish the set without {node}", lambda: _wish(node, say), gone, undo_what=f"cls_member add {node} takes it back"),
        Step("wait until every member has stored the list without it", lambda: _wait(lambda: unremoved(look(), node), options, say), out),
        Step(f"keep PostgreSQL and its watcher off {node}", lambda: _keep_off(node), all(off), undo_what=f"cls_member add {node} takes it back"),
        Step(f"wait until PostgreSQL has stopped on {node}", lambda: _wait(lambda: _runs(node), options, say), all(off) and not runs),
        Step("let there be no room for more instances", _shrink, all(off) and gone and ground.sized),
        Step(f"forget {node}: its slot on the primary, its attributes", lambda: _forget(node)),
    ]


def weights(text: str, node: str, weight: str) -> str:
    """The director's weight_of_realservers with a node's own weight, or without one (empty).

    >>> weights("node1,5 node2", "node2", "0"), weights("node1,5 node2,0", "node2", "")
    ('node1,5 node2,0', 'node1,5')
    """
    kept = [item for item in text.split() if item.partition(",")[0] != node]
    return " ".join([*kept, *([f"{node},{weight}"] if weight else [])])


def _drain(node: str, options: argparse.Namespace, say: Say) -> None:
    """Weight 0 in the pool, until its connections have ended or half of the time is over: then they are cut when PostgreSQL stops."""
    named = look().site.named
    before = named.balancing.get("weight_of_realservers", "")
    pacemaker.set_parameter(named.director, "weight_of_realservers", weights(before, node, "0"))

    def busy() -> str:
        pool = look().site.pool
        rows = [row for row in pool.servers if row.name == node] if pool else []
        return f"{node} has {rows[0].active} connections" if rows and rows[0].active else ""

    left = procedure.wait(busy, options.timeout / 2, say)
    if left:
        say(f"{left}, which end when PostgreSQL stops there")


def _keep_off(node: str) -> None:
    _change(lambda ground: cib.with_ban(ground.tree, ground.clones, node))


def _shrink() -> None:
    """Fewer instances than run would be orphans, of which Pacemaker warns: so this comes after the stop."""
    _change(lambda ground: with_sizes(ground.tree, ground))


def with_sizes(tree: Element, ground: Ground) -> Element:
    """The configuration with as many instances as there are nodes for them, where their number is limited."""
    for top, size in ground.sizes.items():
        if cib.meta(tree, top, "clone-max"):
            tree = cib.with_meta(tree, [top], "clone-max", str(size))
    return tree


def _push(ground: Ground, new: Element) -> bool:
    return setup.push(ground.tree, new)


def _change(edit: Callable[[Ground], Element], push: Callable[[Ground, Element], bool] = _push) -> None:
    """Change the configuration in one step; again when somebody else changed it meanwhile."""
    for _ in range(setup.ATTEMPTS):
        ground = look()
        new = edit(ground)
        setup.verify(ground.tree, new)
        if push(ground, new):
            return
    raise ClusterRefusal("the cluster's configuration is being changed by somebody else", "run the command again")


def _runs(node: str) -> str:
    ground = look()
    member = ground.site.cluster.members.get(node)
    role = member.roles.get(ground.name, "stopped") if member and member.online else "stopped"
    return "" if role == "stopped" else f"PostgreSQL is {role} on {node}"


def _forget(node: str) -> None:
    """What would be left of it: WAL that a slot keeps for ever, attributes that tell of the past, and its weight 0."""
    ground = look()
    term = ground.votes[ground.primary].reign if ground.primary in ground.votes else None
    if term:
        conninfo, passfile = cli_status.writer(ground.site.named, "cls_member")
        slot = sight.slot_name(ground.rules.slot_prefix, term, node)
        drop = f"select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = '{slot}'"  # noqa: S608  of slot characters
        with contextlib.suppress(EnvironmentFailure):  # it may be gone, or the role may not; the next change of role removes it
            replicas.ask(conninfo, drop, passfile=passfile)
    for name in ground.clones if node in ground.site.cluster.online else ():
        system.run(["crm_resource", "--refresh", f"--resource={name}", f"--node={node}"], timeout=20)  # else it is shown as an orphan
    if node in ground.site.cluster.members:
        pacemaker.set_permanent({(node, f"{ground.name}-data-status"): None})
        names = (f"master-{ground.name}", *(f"{ground.name}-{name}" for name in ("status", "xlog-loc", "master-baseline")))
        pacemaker.set_transient({(node, name): None for name in names})
    named = ground.site.named
    if named.director and weights(named.balancing.get("weight_of_realservers", ""), node, "") != named.balancing.get("weight_of_realservers", ""):
        pacemaker.set_parameter(named.director, "weight_of_realservers", weights(named.balancing["weight_of_realservers"], node, ""))


# ---------------------------------------------------------------- list


def _list(options: argparse.Namespace) -> int:
    ground = look()
    found = standing(ground)
    if options.json:
        import json

        print(json.dumps(found, indent=2))
        return 0
    print(f"members: {' '.join(found['elects'])}, of whom {found['k']} beside the primary confirm a commit (list {found['number']})")
    if found["wished"] != sorted(found["elects"]) or found["joint"]:
        print(f"wished:  {' '.join(ground.wished)}; {found['waits_for']}")
    for node, number in found["stored"].items():
        if number != found["number"]:
            print(f"{node} has stored list {number or 'none'}")
    return 0


def standing(ground: Ground) -> dict[str, Any]:
    """Who is a member by the primary's list, who is wished to be one, and which list each node has stored."""
    roster = ground.roster
    return {
        "elects": list(roster.elects.members), "confirms": list(roster.confirms.members), "k": roster.confirms.k, "joint": roster.joint,
        "strict": roster.confirms.strict, "number": f"{roster.term}:{roster.count}", "wished": sorted(ground.wished), "waits_for": waits_for(ground),
        "stored": {
            node: f"{shown.roster.term}:{shown.roster.count}" if shown.roster.listed else "" for node, shown in sorted(ground.votes.items())
        },
    }  # fmt: skip
