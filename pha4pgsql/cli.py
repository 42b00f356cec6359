"""What the operators' commands have in common: arguments, one look, what is missing, words, exit codes; and cls_master.

All of them read names and parameters from the cluster's own configuration, so they work from any directory and for any resource names.
Exit codes: 0 done, 1 not reached, 100 wrong usage, 101 the cluster cannot be asked on this node, 102 no quorum.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from pha4pgsql import VERSION, cli_status, pacemaker, paths, text
from pha4pgsql.arguments import Parser
from pha4pgsql.checks import Answer, must
from pha4pgsql.words import ClusterRefusal, ConfigurationError, EnvironmentFailure, Failure

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Sequence

    from pha4pgsql.checks import Check
    from pha4pgsql.text import Cluster, Named

NO_QUORUM = 102

CHOSEN = "PHA4PGSQL_SET"
"""Environment variable with the set that is meant; the option --set wins."""

REPLICATING = ("LATEST", "STREAMING|SYNC", "STREAMING|QUORUM", "STREAMING|POTENTIAL", "STREAMING|ASYNC")
"""The values of data-status that a healthy node has."""

FOLLOWING = ("HS:sync", "HS:quorum", "HS:potential", "HS:async")
"""What the status attribute says of a standby that replicates."""

SERVING = ("PRI", *FOLLOWING)
"""The values of status that go with them: data-status outlives a reboot, so it alone may be a memory."""


class WithoutQuorum(ClusterRefusal):
    """The node is in a partition that may decide nothing."""

    code = NO_QUORUM


def main(parser: Parser, body: Callable[[argparse.Namespace], int], argv: Sequence[str]) -> int:
    """Run a command; here alone a failure becomes text and an exit code."""
    parser.add_argument("--version", action="version", version=f"pha4pgsql {VERSION}")
    parser.add_argument(
        "--set", metavar="NAME", help="which set, where the cluster has several (default: the one of the config.ini that belongs here)"
    )
    options = parser.parse_args(argv)
    if options.set:
        os.environ[CHOSEN] = options.set
    paths.use_packages()
    try:
        return body(options)
    except Failure as failure:
        print(f"{parser.prog}: {failure}", file=sys.stderr)
        return failure.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


class Site(NamedTuple):
    """What one look at the configuration and state showed, the replicated set that it is about, and its read pool if readers are balanced."""

    cluster: Cluster
    named: Named
    pool: cli_status.Pool | None = None


def look() -> Site:
    """Read the CIB once, and what the director has published."""
    tree = cli_status.parse(pacemaker.cib())
    cluster, named = text.cluster(tree), the_set(text.replicated_sets(tree))
    return Site(cluster, named, cli_status.pool(cluster, named, here="", timeout=3.0))


def the_set(sets: Sequence[Named]) -> Named:
    """The set that `--set` names, by its promotable clone or by its PostgreSQL resource; else the only one; else that of config.ini."""
    if not sets:
        raise ClusterRefusal(
            "no replicated set is configured: the cluster has no promotable clone of ocf:pha4pgsql:pgsql",
            "cls_setup applies the configuration that install.sh made from config.ini",
        )
    chosen = os.environ.get(CHOSEN, "")
    if len(sets) == 1 and not chosen:
        return sets[0]
    wanted = chosen or _configured_name()
    found = next((one for one in sets if wanted in (one.promotable, one.primitive)), None)
    if found is None:
        names = " ".join(one.promotable for one in sets)
        source = "--set" if chosen else "config.ini"
        raise ConfigurationError(
            f"the cluster has the sets {names}, {source} means {wanted}", "name one of them with --set, or first in RESOURCE_LIST"
        )
    return found


def _configured_name() -> str:
    from pha4pgsql import config

    return str(config.load(config.beside(sys.argv[0])).resource_list[0])


def need_root() -> None:
    """Refuse what only root may do, before half of it is done."""
    if os.geteuid() != 0:
        raise EnvironmentFailure("this command changes the cluster and must be run as root", "use sudo")


def need_quorum() -> None:
    """Refuse where Pacemaker would not act: what is typed there might be lost when the partitions merge."""
    found = quorum()
    if found.answer is not Answer.YES:
        raise WithoutQuorum(found.seen, found.hint)


def quorum() -> Check:
    """The same as a precondition of a procedure."""
    return must(
        "this node is in a partition with quorum",
        pacemaker.quorate(),
        "this node is in a partition without quorum, where Pacemaker starts nothing and remembers nothing for certain",
        "run the command on a node of the majority; cls_status shows what this node knows",
        NO_QUORUM,
    )


# ---------------------------------------------------------------- what is still missing: pure


def missing_for_primary(site: Site) -> list[str]:
    """What the writing side lacks: one promoted instance and its address."""
    cluster, named, _ = site
    primaries = cluster.where(named.primitive, "promoted")
    if len(primaries) != 1:
        return [f"{named.promotable} is promoted on {' and '.join(primaries)}" if primaries else f"{named.promotable} is promoted on no node"]
    return _missing_addresses(cluster, named.writers)


def missing_for_standbys(site: Site) -> list[str]:
    """What the reading side lacks: an instance that replicates on every node of the set, the reader's address, real servers behind it."""
    cluster, named, pool = site
    behind = [reason for node in members(site) if (reason := not_replicating(site, node))]
    director = [f"{named.director} is not running"] if named.director and not cluster.where(named.director, "started") else []
    empty = [f"{named.director} has no real server that takes connections"] if pool and not director and not pool.serves else []
    return behind + director + _missing_addresses(cluster, named.readers) + empty


def _missing_addresses(cluster: Cluster, addresses: Iterable[str]) -> list[str]:
    return [f"{name} is not running" for name in addresses if not cluster.where(name, "started")]


def members(site: Site) -> tuple[str, ...]:
    """The nodes of the set: its node_list and those which only read, or all nodes."""
    return (*site.named.nodes, *site.named.read_nodes) or tuple(site.cluster.members)


def not_replicating(site: Site, node: str) -> str:
    """Why a node does not replicate, empty when it does."""
    cluster, named, _ = site
    member = cluster.members.get(node)
    if member is None:
        return f"{node} is in node_list, but the cluster has no such node"
    if not member.online:
        return f"{node} is offline"
    if member.standby:
        return f"{node} is in standby"
    role = member.roles.get(named.primitive, "stopped")
    if role not in {"started", "promoted"}:
        return f"{named.primitive} is {role} on {node}"
    data = member.attributes.get(f"{named.primitive}-data-status", "unknown")
    status = member.attributes.get(f"{named.primitive}-status", "unknown")
    primary = role == "promoted"  # what a node shows may be of its former role, until the new primary has told
    known = data in REPLICATING and (data == "LATEST") is primary and status in SERVING and (status == "PRI") is primary
    return "" if known else f"{node} does not replicate yet: data-status {data}, status {status}"


def still_running(site: Site) -> list[str]:
    """What of the set runs somewhere: one text for each resource, `pgsql is promoted on node1, started on node2 node3`."""
    cluster, named, _ = site
    found = []
    for name in (named.primitive, *named.companions):
        roles: dict[str, list[str]] = {}
        for node in cluster.online:
            roles.setdefault(cluster.members[node].roles.get(name, "stopped"), []).append(node)
        places = ", ".join(f"{role} on {' '.join(nodes)}" for role, nodes in sorted(roles.items()) if role != "stopped")
        found += [f"{name} is {places}"] if places else []
    return found


# ---------------------------------------------------------------- what did not come


def explain(missing: Sequence[str], limit: float) -> Failure:
    """Say what did not come, how each node stands, and the agents' own reasons, which are what a person has to act on."""
    site = look()
    failed = text.view(cli_status.parse(pacemaker.status())).failed
    reasons = [f"failed: {one.told}" for one in failed]
    shown = cli_status.votes(site.named.primitive, timeout=3.0)
    primaries = site.cluster.where(site.named.primitive, "promoted")
    info = site.cluster.properties.get(f"{site.named.primitive}_REPL_INFO", "")
    waiting = cli_status.notes(shown, cli_status.rules(site.named), primaries, info)
    lines = "".join(f"\n  {line}" for line in [*missing, *conditions(site), *waiting, *reasons])
    hint = "cls_status shows the whole state; correct the cause, then run the command again"
    return ClusterRefusal(f"not reached within {limit:g} s:{lines}", hint)


def conditions(site: Site) -> list[str]:
    """How each member stands, in one line."""
    cluster, named, _ = site
    online = [(node, cluster.members[node]) for node in members(site) if node in cluster.online]
    return [
        f"{node}: {member.roles.get(named.primitive, 'stopped')}"
        f", status {member.attributes.get(f'{named.primitive}-status', 'unknown')}"
        f", data-status {member.attributes.get(f'{named.primitive}-data-status', 'unknown')}"
        f", score {member.attributes.get(f'master-{named.primitive}', 'none')}"
        for node, member in online
    ]


# ---------------------------------------------------------------- the commands


def master(argv: Sequence[str]) -> int:
    """cls_master: the primary's node name."""
    return main(Parser("cls_master", description="Print the name of the node where PostgreSQL is promoted."), _master, argv)


def _master(_: argparse.Namespace) -> int:
    site = look()
    need_quorum()
    primaries = site.cluster.where(site.named.primitive, "promoted")
    if len(primaries) != 1:
        raise ClusterRefusal(missing_for_primary(site)[0], "cls_status shows why")
    print(primaries[0])
    return 0
