"""cls_standby_node, cls_maintenance and their opposites: a node, or the whole cluster, is taken out of Pacemaker's hands and given back.

Standby: nothing may run on the node, it goes on voting. Maintenance: what runs goes on running, Pacemaker starts, stops and promotes nothing.
Exit codes: 0 done, 1 refused or not reached, 100 wrong usage, 101 the cluster cannot be asked on this node, 102 no quorum, 130 interrupted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, NamedTuple

from pha4pgsql import arguments, cli, cli_status, pacemaker, procedure, sight, text
from pha4pgsql.checks import must
from pha4pgsql.procedure import Plan, Step
from pha4pgsql.words import ClusterRefusal

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from pha4pgsql.checks import Check
    from pha4pgsql.procedure import Say
    from pha4pgsql.text import Cluster, Member, Named

WAIT = 60.0
CLUSTER_OPTIONS = "cib-bootstrap-options"
"""Pacemaker's own set of properties, where pcs and crm_attribute put them."""
AT_REST = ("stopped", "failed")
"""Roles in which a resource of others does not run; of ours a failed one may still do."""


class Ground(NamedTuple):
    """What one look showed, the node that is meant (empty: the whole cluster), and how long to wait for each thing."""

    cluster: Cluster
    sets: Sequence[Named]
    node: str
    limit: float
    say: Say

    @property
    def member(self) -> Member | None:
        return self.cluster.members.get(self.node)


def _look(node: str, limit: float, say: Say) -> Ground:
    tree = cli_status.parse(pacemaker.cib())
    return Ground(text.cluster(tree), text.replicated_sets(tree), node, limit, say)


def _command(name: str, description: str, make: Callable[[Ground], Plan], closing: str, argv: Sequence[str]) -> int:
    """A command of this module; with `{node}` in its closing line it takes a node."""
    parser = arguments.Parser(name, description=description)
    if "{node}" in closing:
        parser.add_argument("node", metavar="NODE", help="the node, by its name in the cluster")
    procedure.options(parser, timeout=WAIT)

    def body(options: argparse.Namespace) -> int:
        cli.need_root()
        node, say = getattr(options, "node", ""), procedure.stopwatch()
        if procedure.perform(make(_look(node, options.timeout, say)), options, say):
            print(closing.format(node=node))
        return 0

    return cli.main(parser, body, argv)


# ---------------------------------------------------------------- the commands


def standby_node(argv: Sequence[str]) -> int:
    """cls_standby_node: nothing may run on the node."""
    return _command("cls_standby_node", "Let nothing run on a node; it goes on voting.", standby, "{node} is in standby", argv)


def unstandby_node(argv: Sequence[str]) -> int:
    """cls_unstandby_node: the node may run resources again."""
    return _command("cls_unstandby_node", "Let a node run resources again.", unstandby, "{node} is in service", argv)


def maintenance_on(argv: Sequence[str]) -> int:
    """cls_maintenance: Pacemaker does nothing any more."""
    closing = "maintenance mode is on: Pacemaker starts, stops and promotes nothing until cls_unmaintenance"
    return _command("cls_maintenance", "Let Pacemaker do nothing, on no node; what runs goes on running.", maintenance, closing, argv)


def maintenance_off(argv: Sequence[str]) -> int:
    """cls_unmaintenance: Pacemaker looks after the cluster again."""
    return _command("cls_unmaintenance", "Let Pacemaker look after the cluster again.", unmaintenance, "maintenance mode is off", argv)


def maintenance_node(argv: Sequence[str]) -> int:
    """cls_maintenance_node: Pacemaker does nothing on the node."""
    closing = "{node} is in maintenance: Pacemaker starts, stops and promotes nothing there until cls_unmaintenance_node {node}"
    return _command("cls_maintenance_node", "Let Pacemaker do nothing on a node; what runs there goes on running.", maintenance, closing, argv)


def unmaintenance_node(argv: Sequence[str]) -> int:
    """cls_unmaintenance_node: Pacemaker looks after the node again."""
    return _command("cls_unmaintenance_node", "Let Pacemaker look after a node again.", unmaintenance, "{node} is not in maintenance", argv)


# ---------------------------------------------------------------- preconditions


def _known(ground: Ground) -> list[Check]:
    """Quorum, and a node that there is."""
    nodes = " ".join(ground.cluster.members)
    absent = f"the cluster has no node {ground.node}, it has: {nodes}"
    named = [must(f"the cluster has a node {ground.node}", ground.member is not None, absent, "crm_node --list shows them, too")]
    return [cli.quorum(), *(named if ground.node else [])]


def _managed(ground: Ground) -> Check:
    """Whether Pacemaker would act on the node."""
    whole = ground.cluster.property_is("maintenance-mode", default=False)
    here = ground.member is not None and ground.member.maintenance
    seen = "the cluster is in maintenance mode" if whole else f"{ground.node} is in maintenance"
    hint = "cls_unmaintenance" if whole else f"cls_unmaintenance_node {ground.node}"
    return must(f"Pacemaker looks after {ground.node}", not whole and not here, f"{seen}: Pacemaker would stop nothing there", hint)


def successors(ground: Ground, named: Named) -> list[str]:
    """The other nodes that Pacemaker would promote if the primary went."""
    usable = [one for one in ground.cluster.members.values() if one.online and not one.standby and one.name != ground.node]
    return [one.name for one in usable if sight.positive(one.attributes.get(f"master-{named.primitive}"))]


def _replaceable(ground: Ground, named: Named) -> Check:
    """Whether somebody takes over from the primary on this node."""
    return must(
        f"another node can be promoted instead of {ground.node}",
        bool(successors(ground, named)),
        f"{ground.node} is the primary of {named.promotable}, and no other node is ready to be promoted",
        "cls_status shows what the others lack; cls_stop stops the set on all nodes",
    )


def _risk(ground: Ground) -> str:
    """What a person should know before the node stops serving."""
    lines = []
    for named in ground.sets:
        primaries = ground.cluster.where(named.primitive, "promoted")
        if ground.node in primaries:
            lines.append(
                f"{ground.node} is the primary of {named.promotable}: writes pause until another node is promoted (cls_online_switch chooses it)"
            )
        serving = [name for name in ground.cluster.online if ground.cluster.members[name].attributes.get(f"{named.primitive}-status") in cli.SERVING]
        standbys = max(0, len(set(serving) - {*primaries, ground.node}) - (ground.node in primaries))
        if ground.node in serving and standbys < cli_status.rules(named).sync_count:
            lines.append(f"afterwards {standbys} standbys are left to confirm commits of {named.promotable}: writes may wait, or be on one node only")
    return "\n".join(lines)


# ---------------------------------------------------------------- plans


def standby(ground: Ground) -> Plan:
    """Let the resources leave the node."""
    node, member = ground.node, ground.member
    reigns = [named for named in ground.sets if node in ground.cluster.where(named.primitive, "promoted")]
    checks = [*_known(ground), _managed(ground), *(_replaceable(ground, named) for named in reigns)]
    steps = [
        Step(
            f"put {node} in standby",
            lambda: pacemaker.set_permanent({(node, "standby"): "on"}),
            member is not None and member.standby,
            lambda: pacemaker.set_permanent({(node, "standby"): None}),
            f"{node} may run resources again",
        ),
        Step(f"wait until nothing runs on {node}", lambda: _empty(ground), member is not None and not running(ground.cluster, ground.sets, node)),
    ]
    return Plan(checks, steps, "" if member is None or member.standby else _risk(ground))


def running(cluster: Cluster, sets: Sequence[Named], node: str) -> str:
    """What runs on a node, in words; a resource of ours that failed to stop counts."""
    member = cluster.members[node]
    ours = {name for named in sets for name in (named.primitive, *named.companions)}
    found = [f"{name} is {role}" for name, role in member.roles.items() if role not in AT_REST or (role == "failed" and name in ours)]
    return ", ".join(found) if member.online else ""


def _empty(ground: Ground) -> None:
    """Wait until nothing runs there."""

    def missing() -> str:
        now = _look(ground.node, ground.limit, ground.say)
        return running(now.cluster, now.sets, now.node)

    left = procedure.wait(missing, ground.limit, ground.say)
    if left:
        raise ClusterRefusal(
            f"{left} on {ground.node} after {ground.limit:g} s", "cls_status shows what failed; a longer --timeout helps a slow stop"
        )


def unstandby(ground: Ground) -> Plan:
    """Let the node run resources again, and wait until the set's instance there replicates."""
    node, member = ground.node, ground.member

    def admit() -> None:
        pacemaker.set_permanent({(node, "standby"): None})
        if member is not None and "standby" in member.transient:
            pacemaker.publish("standby", None, node=node)

    steps = [Step(f"end the standby of {node}", admit, member is not None and not member.standby, None, "it is the node's normal state")]
    steps += [Step(f"wait until {named.primitive} replicates on {node}", lambda named=named: _replicates(ground, named)) for named in _due(ground)]  # type: ignore[misc]
    return Plan(_known(ground), steps)


def _due(ground: Ground) -> list[Named]:
    """The sets that have a member here and are to run."""
    managed = not ground.cluster.property_is("maintenance-mode", default=False) and ground.member is not None and not ground.member.maintenance
    return [named for named in ground.sets if managed and not named.disabled and ground.node in cli.members(cli.Site(ground.cluster, named))]


def _replicates(ground: Ground, named: Named) -> None:
    """Wait until the instance here replicates."""

    def missing() -> str:
        return cli.not_replicating(cli.Site(pacemaker.read_cluster(), named), ground.node)

    left = procedure.wait(missing, ground.limit, ground.say)
    if left:
        raise ClusterRefusal(
            f"{left} after {ground.limit:g} s; {ground.node} is out of standby", "cls_status shows why; cls_cleanup forgets failures"
        )


def maintenance(ground: Ground) -> Plan:
    """Let Pacemaker do nothing, here or anywhere."""
    who = ground.node or "the cluster"
    steps = [
        Step(
            f"put {who} in maintenance",
            lambda: _set(ground, on=True),
            _is_on(ground),
            lambda: _set(ground, on=False),
            f"end the maintenance of {who}",
        ),
        Step("wait until Pacemaker has ended what it had begun", lambda: _settled(ground)),
    ]
    return Plan(_known(ground), steps)


def unmaintenance(ground: Ground) -> Plan:
    """Let Pacemaker look after it again: it begins with looking."""
    who = ground.node or "the cluster"
    steps = [Step(f"end the maintenance of {who}", lambda: _set(ground, on=False), not _is_on(ground), None, "it is the normal state")]
    return Plan(_known(ground), [*steps, Step("wait until Pacemaker has put right what it finds", lambda: _settled(ground))])


def _is_on(ground: Ground) -> bool:
    if ground.node:
        return ground.member is not None and ground.member.maintenance
    return ground.cluster.property_is("maintenance-mode", default=False)


def _set(ground: Ground, *, on: bool) -> None:
    """Set or remove what Pacemaker knows maintenance by."""
    if ground.node:
        pacemaker.set_permanent({(ground.node, "maintenance"): "on" if on else None})
    else:
        pacemaker.set_permanent({}, {"maintenance-mode": "true" if on else None}, set_id=CLUSTER_OPTIONS)
    if _is_on(_look(ground.node, ground.limit, ground.say)) is not on:
        raise ClusterRefusal(
            f"maintenance is {'not on' if on else 'still on'}: another set of properties or attributes wins", "see `pcs property config`"
        )


def _settled(ground: Ground) -> None:
    """Wait for the end of the transition that runs, if one does."""
    if not pacemaker.wait_settled(ground.limit):
        raise ClusterRefusal(
            f"Pacemaker was still at work after {ground.limit:g} s", "cls_status shows what it waits for; then run the command again"
        )
