"""What cls_status shows: one look at CIB, crm_mon, votes, primary and read pool, as one report, rendered as the walkthrough's text or as JSON."""

from __future__ import annotations

import ipaddress
import time
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pha4pgsql import ipvs, lock_row, pacemaker, text, vote
from pha4pgsql.parameters import PGSQL
from pha4pgsql.settings import read_settings
from pha4pgsql.site import rules_of
from pha4pgsql.words import NEVER, EnvironmentFailure, Failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pha4pgsql.lvs_words import Service
    from pha4pgsql.settings import Settings
    from pha4pgsql.text import Cluster, Collection, FailedAction, History, Named, Placed, Tree, View
    from pha4pgsql.words import Rules, Vote


def parse(xml: str) -> Tree:
    """Parse Pacemaker's XML with lxml, without entities or network."""
    try:
        from lxml import etree
    except ImportError as missing:
        raise EnvironmentFailure("the Python module lxml is missing", "apt-get install python3-lxml, or dnf install python3-lxml") from missing
    return cast("Tree", etree.fromstring(xml.encode(), etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True)))


class Sight(NamedTuple):
    """What Pacemaker and Corosync said, once. `here` is the name of the node that was asked, `now` its clock in seconds since 1970."""

    cluster: Cluster
    sets: tuple[Named, ...]
    view: View
    quorate: bool
    here: str
    now: int = 0


def observe(timeout: float) -> Sight:
    """Ask this node's own cluster daemons; none of these questions needs quorum."""
    tree = parse(pacemaker.cib(timeout))
    view = text.view(parse(pacemaker.status(timeout)))
    return Sight(text.cluster(tree), tuple(text.replicated_sets(tree)), view, pacemaker.quorate(timeout), here(timeout), int(time.time()))


def here(timeout: float) -> str:
    """The controller may be busy for a while: the name is only a courtesy then."""
    try:
        return pacemaker.local_node(timeout)
    except pacemaker.Unreachable:
        return "this node"


class Follower(NamedTuple):
    """A standby as its primary sees it: how many bytes of WAL it has not replayed, None when the role may not know."""

    name: str
    lag_bytes: int | None


class Server(NamedTuple):
    """A real server in the director's table."""

    name: str
    address: str
    weight: int
    active: int
    inactive: int


class Pool(NamedTuple):
    """The real servers behind the reader address, and when they were these (seconds since 1970, None: the director has not told)."""

    servers: tuple[Server, ...] = ()
    at: int | None = None

    @property
    def serves(self) -> bool:
        """Whether somebody takes new connections."""
        return any(server.weight for server in self.servers)


class Told(NamedTuple):
    """What the nodes told beside Pacemaker: timelines by the votes and by the primary, its standbys, the read pool. Empty where unknown.

    `notes` is what a person has to know: who goes on alone, why nobody can be promoted.
    """

    timelines: Mapping[str, int]
    followers: tuple[Follower, ...]
    notes: tuple[str, ...] = ()
    pool: Pool | None = None


UNTOLD = Told({}, ())

FOLLOWERS = """
SELECT application_name, pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint,
       ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
  FROM (SELECT 1) AS always LEFT JOIN pg_stat_replication ON state = 'streaming'
 WHERE NOT pg_is_in_recovery()
"""


def ask(sight: Sight, named: Named | None, timeout: float) -> Told:
    """Ask the nodes' votes, and the primary through the writer address while this node has quorum."""
    if named is None:
        return UNTOLD
    shown = votes(named.primitive, timeout)
    timelines = {node: one.eras[-1].timeline for node, one in shown.items() if one.eras}
    primaries = sight.cluster.where(named.primitive, "promoted")
    heard = _heard(named)
    known = notes(shown, rules(named), primaries, sight.cluster.properties.get(f"{named.primitive}_REPL_INFO", ""), heard)
    told = Told(timelines, (), known, pool(sight.cluster, named, sight.here, timeout))
    if len(primaries) != 1 or not sight.quorate:
        return told
    rows = _rows(named, timeout)
    current = {name: row[2] for row in rows for name in (primaries[0], row[0]) if name}
    return told._replace(timelines={**timelines, **current}, followers=tuple(Follower(row[0], row[1]) for row in rows if row[0]))


def rules(named: Named) -> Rules:
    """The set's rules, by its parameters in the CIB."""
    return rules_of(_settings(named))


def _settings(named: Named) -> Settings:
    return read_settings(PGSQL, {f"OCF_RESKEY_{name}": value for name, value in named.parameters.items()})[0]


def _heard(named: Named) -> lock_row.Heard:
    """What the row of the distributed lock says, when it is a voice of the set."""
    return lock_row.ask(lock_row.place(_settings(named)), NEVER) if rules(named).row else lock_row.UNASKED


def notes(
    shown: Mapping[str, Vote], wanted: Rules, primaries: Sequence[str], repl_info: str, row: lock_row.Heard = lock_row.UNASKED
) -> tuple[str, ...]:
    """What a person has to know of elections; nothing while all is well."""
    for primary in primaries:
        said = shown[primary].said if primary in shown else None
        if said and said.owner == primary and said.term == shown[primary].reign:
            return (f"{primary} goes on alone since no standby confirms (term {said.term}): what is committed now is on {primary} only",)
    lost = (f"{row.reason}: while this is so, nobody takes over when the primary's node is lost",) if wanted.row and row.reason else ()
    if primaries or not shown:
        return lost
    why = vote.obstacle(shown, wanted, override=repl_info if "|" not in repl_info else "", row=row.vote)
    return (*((why,) if why else ()), *lost)


def votes(primitive: str, timeout: float) -> dict[str, Vote]:
    """What each node shows for elections; a vote that cannot be read, or no answer, tells nothing."""
    try:
        values = pacemaker.attributes(f"{primitive}-vote", timeout)
    except pacemaker.Unreachable:
        return {}
    return {node: found for node, value in values.items() if (found := _vote(value))}


def _vote(value: str) -> Vote | None:
    try:
        return vote.parse_vote(value)
    except ValueError:
        return None


def _rows(named: Named, timeout: float) -> list[tuple[str | None, int | None, int]]:
    """The primary's own figures; none when it cannot be asked, for whatever reason: the status is shown all the same."""
    try:
        import psycopg2
    except ImportError:
        return []
    try:
        connection = psycopg2.connect(**_conninfo(named, timeout))
    except psycopg2.Error:
        return []
    try:
        with connection.cursor() as cursor:
            cursor.execute(FOLLOWERS)
            return list(cursor.fetchall())
    except psycopg2.Error:
        return []
    finally:
        connection.close()


def _conninfo(named: Named, timeout: float) -> dict[str, Any]:
    """Where and as whom: the agent's own parameters; the password comes from its password file."""
    given = named.parameters
    return {
        "host": given.get("master_ip") or next(iter(named.writers.values()), ""),
        "port": given.get("pgport", "5432"),
        "user": given.get("repuser", "postgres"),
        "dbname": "postgres",
        "passfile": given.get("passfile") or f"{given.get('tmpdir', '/var/lib/pgsql/tmp')}/pgpass",
        "connect_timeout": max(2, min(3, int(timeout))),
        "application_name": "cls_status",
        "options": f"-c statement_timeout={int(timeout * 1000)} -c default_transaction_read_only=on",
    }


def pool(cluster: Cluster, named: Named, here: str, timeout: float) -> Pool | None:
    """The read pool: the kernel's own table on the director's node, elsewhere what the director published last. None: nothing is balanced."""
    if not named.director:
        return None
    director = next(iter(cluster.where(named.director, "started")), "")
    published = read_pool(_published(named.director, timeout).get(director, ""))
    found = _table(named) if director == here else None
    if found is None:
        return published
    names = {server.address: server.name for server in published.servers}
    return Pool(tuple(server._replace(name=names.get(server.address, server.address)) for server in found), int(time.time()))


def _published(director: str, timeout: float) -> dict[str, str]:
    """The pools as the directors have published them; no answer tells nothing."""
    try:
        return pacemaker.attributes(f"{director}-pool", timeout)
    except pacemaker.Unreachable:
        return {}


def _table(named: Named) -> tuple[Server, ...] | None:
    """The kernel's table of the reader service; None when there is none, or it may not be read."""
    given = named.balancing
    try:
        wanted = (str(ipaddress.ip_address(given.get("vip", ""))), int(given.get("port", "0")), int(given.get("fwmark", "0")))
        with ipvs.Ipvs() as kernel:
            service = next((one for one in kernel.services() if _is_meant(one, *wanted)), None)
            found = kernel.servers(service) if service else None
    except (Failure, OSError, ValueError):
        return None
    if found is None:
        return None
    return tuple(Server("", one.server.address, one.server.weight, one.load.active, one.load.inactive) for one in found)


def _is_meant(service: Service, address: str, port: int, fwmark: int) -> bool:
    return service.fwmark == fwmark if fwmark else (service.address, service.port) == (address, port)


# ---------------------------------------------------------------- the report: pure from here on


def read_pool(value: str) -> Pool:
    """Read a published pool; what cannot be read is as if nothing had been told.

    >>> read_pool('{"at": 1700000000, "servers": [["node2", "192.168.0.232", 1, 3, 0]]}').servers
    (Server(name='node2', address='192.168.0.232', weight=1, active=3, inactive=0),)
    >>> read_pool("")
    Pool(servers=(), at=None)
    """
    import json

    try:
        found = json.loads(value)
        return Pool(tuple(Server(str(row[0]), str(row[1]), *map(int, row[2:5])) for row in found["servers"]), int(found["at"]))
    except (ValueError, TypeError, KeyError, IndexError):
        return Pool()


class Row(NamedTuple):
    """One node; texts exactly as the attributes have them, None where there is none."""

    name: str
    online: bool
    status: str | None
    data_status: str | None
    score: str | None
    xlog_loc: str | None
    baseline: str | None
    timeline: int | None
    lag_bytes: int | None


class Report(NamedTuple):
    """All that is shown. `repl_name` is the property's name, `primary` None unless exactly one node is promoted."""

    here: str
    quorate: bool
    primary: str | None
    repl_name: str
    repl_info: str | None
    vips: Mapping[str, str | None]
    rows: tuple[Row, ...]
    view: View
    notes: tuple[str, ...] = ()
    reading: Reading | None = None


class Reading(NamedTuple):
    """Read load balancing: the director's resource, its node or None, and what it has in its table. `expected`: the set is to run."""

    resource: str
    director: str | None
    pool: Pool
    age: int | None
    expected: bool


def report(sight: Sight, named: Named | None, told: Told) -> Report:
    """Put together what one look showed."""
    primitive = named.primitive if named else "pgsql"
    cluster = sight.cluster
    primaries = cluster.where(primitive, "promoted")
    name = f"{primitive}_REPL_INFO"
    return Report(
        here=sight.here,
        quorate=sight.quorate,
        primary=primaries[0] if len(primaries) == 1 else None,
        repl_name=name,
        repl_info=cluster.properties.get(name) or None,
        vips={vip: next(iter(cluster.where(vip, "started")), None) for vip in (named.addresses if named else ())},
        rows=tuple(_row(cluster, primitive, node, told, primaries) for node in sorted({*cluster.members, *(named.nodes if named else ())})),
        view=sight.view,
        notes=told.notes,
        reading=_reading(sight, named, told) if named and told.pool else None,
    )


def _reading(sight: Sight, named: Named, told: Told) -> Reading:
    pool = told.pool or Pool()
    director = next(iter(sight.cluster.where(named.director, "started")), None)
    return Reading(named.director, director, pool, max(0, sight.now - pool.at) if pool.at else None, not named.disabled)


def _row(cluster: Cluster, primitive: str, node: str, told: Told, primaries: tuple[str, ...]) -> Row:
    member = cluster.members.get(node)
    found = member.attributes if member else {}
    lags = {one.name: one.lag_bytes for one in told.followers}
    return Row(
        name=node,
        online=member is not None and member.online,
        status=found.get(f"{primitive}-status"),
        data_status=found.get(f"{primitive}-data-status"),
        score=found.get(f"master-{primitive}"),
        xlog_loc=found.get(f"{primitive}-xlog-loc"),
        baseline=found.get(f"{primitive}-master-baseline"),
        timeline=told.timelines.get(node),
        lag_bytes=0 if primaries == (node,) else lags.get(node),
    )


def as_json(report: Report) -> dict[str, Any]:
    """The report for programs."""
    return {
        "primary": report.primary,
        "quorate": report.quorate,
        "repl_info": report.repl_info,
        "vips": dict(report.vips),
        "nodes": [row._asdict() for row in report.rows],
        "failed_actions": [one._asdict() for one in report.view.failed],
        "lvs": _balancing(report.reading) if report.reading else None,
        "notes": list(report.notes),
        "dc": report.view.dc or None,
        "node": report.here,
    }


def _balancing(reading: Reading) -> dict[str, Any]:
    return {"director": reading.director, "real_servers": [server._asdict() for server in reading.pool.servers], "at": reading.pool.at}


def as_text(report: Report) -> str:
    """The report for people, in the order of the walkthrough."""
    view = report.view
    lines = [
        *_heading(report),
        "",
        *_hosts(view),
        "",
        "Full list of resources:",
        "",
        *(line for one in view.resources for line in _resource(one, view)),
        "",
        *(_pool_lines(report.reading) if report.reading else ()),
        "Node Attributes:",
        *_attributes(view),
        "",
        *_replication(report),
        *_attention(report),
        "Migration Summary:",
        *_migrations(view),
        "",
        *_failures(view),
        f"{report.repl_name}:{report.repl_info or ''}",
    ]
    return "\n".join(lines)


def _heading(report: Report) -> list[str]:
    view = report.view
    dc = f"{view.dc} (version {view.version})" if view.dc else "NONE"
    warning = (
        []
        if report.quorate
        else [f"WARNING: {report.here} is in a partition WITHOUT quorum: this is only what it knew last, the rest of the cluster may have gone on"]
    )
    return [
        *warning,
        f"Stack: {view.stack or 'unknown'}",
        f"Current DC: {dc} - partition {'with' if report.quorate else 'WITHOUT'} quorum",
        f"Last updated: {view.updated}      Last change: {view.changed} by {view.changed_by}",
        "",
        f"{view.nodes_configured} nodes and {view.resources_configured} resources configured",
    ]


def _hosts(view: View) -> list[str]:
    """Nodes in an ordinary state by list, the others with what is the matter."""
    odd = [host for host in view.hosts if host.standby or host.maintenance or host.pending or host.unclean]
    plain = [host for host in view.hosts if host not in odd]
    lines = [f"Node {host.name}: {', '.join(_condition(host))}" for host in odd]
    groups = (("Online", [host.name for host in plain if host.online]), ("OFFLINE", [host.name for host in plain if not host.online]))
    return lines + [f"{word}: {_listed(names)}" for word, names in groups if names]


def _condition(host: text.Host) -> list[str]:
    words = ((host.unclean, "UNCLEAN"), (host.pending, "pending"), (host.standby, "standby"), (host.maintenance, "maintenance"))
    return [word for is_so, word in words if is_so] + ["online" if host.online else "offline"]


def _listed(names: Iterable[str]) -> str:
    """Write a list of nodes as crm_mon does.

    >>> _listed(["node2", "node1"])
    '[ node1 node2 ]'
    """
    return f"[ {' '.join(sorted(names))} ]"


def _resource(one: Collection, view: View) -> list[str]:
    if one.kind == "resource":
        return [f" {_instance(one.instances[0])}"]
    kind = "Promotable Set" if one.promotable else f"{one.kind.capitalize()} Set"
    parts = dict.fromkeys(part.id for part in one.instances)
    flags = f" ({', '.join(one.flags)})" if one.flags else ""
    lines = [f" {kind}: {one.id} [{' '.join(parts)}]{flags}"]
    if one.kind != "clone":
        return lines + [f"     {_instance(part)}" for part in one.instances]
    plain, odd = _sorted_out(one)
    lines += [f"     {_instance(part)}" for part in odd]
    lines += [f"     {word}: {_listed(nodes)}" for word, nodes in plain.items()]
    stopped = {host.name for host in view.hosts} - set(one.where())
    return lines + ([f"     Stopped: {_listed(stopped)}"] if stopped else [])


def _sorted_out(one: Collection) -> tuple[dict[str, list[str]], list[Placed]]:
    """Instances in an ordinary state by role, and the others."""
    plain: dict[str, list[str]] = {}
    odd: list[Placed] = []
    for part in one.instances:
        if part.flags or part.role not in {"Promoted", "Unpromoted", "Started", "Stopped"}:
            odd.append(part)
        elif part.nodes:
            plain.setdefault(part.role, []).extend(part.nodes)
    return {role: plain[role] for role in ("Promoted", "Unpromoted", "Started") if role in plain}, odd


def _instance(part: Placed) -> str:
    """One line for one instance: `vip-master (ocf::heartbeat:IPaddr2):   Started node1`."""
    words = [part.role, *part.nodes, *([f"({', '.join(part.flags)})"] if part.flags else [])]
    return f"{part.id} ({part.agent.replace(':', '::', 1)}):   {' '.join(words)}"


def _pool_lines(reading: Reading) -> list[str]:
    """The director's table, one line for each real server, and what is the matter with it."""
    age = f" ({reading.age} s ago)" if reading.age is not None else ""
    servers = reading.pool.servers
    widths = [max((len(word) for word in column), default=0) for column in zip(*((one.name, one.address) for one in servers))]
    lines = [
        f"* {one.name:<{widths[0]}}  {one.address:<{widths[1]}}  weight {one.weight}, {one.active} active, {one.inactive} inactive" for one in servers
    ]
    return [f"Read Pool of {reading.resource} at {reading.director or 'no node'}{age}:", *lines, *_pool_warning(reading), ""]


def _pool_warning(reading: Reading) -> list[str]:
    if not reading.expected or (reading.director and reading.pool.serves):
        return []
    if reading.director is None:
        return [
            f"WARNING: {reading.resource} runs on no node: there is no reader address",
            f"HINT: it runs where a standby and IPVS are; correct what Failed Actions say, then `cls_cleanup {reading.resource}`",
        ]
    seen = "no real server takes connections" if reading.pool.at else "the director has not told its real servers"
    return [
        f"WARNING: {seen}: readers are refused",
        "HINT: a standby is one when it replicates, its port answers and its weight is above 0; see Node Attributes, and the director's log",
    ]


def _attributes(view: View) -> list[str]:
    lines = []
    for node in sorted(view.attributes):
        lines.append(f"* Node {node}:")
        lines += [f"    + {name:<34}: {value:<10}".rstrip() for name, value in sorted(view.attributes[node].items())]
    return lines


def _attention(report: Report) -> list[str]:
    return ["Attention:", *(f"* {note}" for note in report.notes), ""] if report.notes else []


def _replication(report: Report) -> list[str]:
    """Timeline and lag, which the walkthrough did not have; no section when nothing is known."""
    known = [row for row in report.rows if row.timeline is not None or row.lag_bytes is not None]
    lines = [f"* Node {row.name}: {', '.join(_progress(row, report.primary))}" for row in known]
    return ["Replication:", *lines, ""] if lines else []


def _progress(row: Row, primary: str | None) -> list[str]:
    timeline = [] if row.timeline is None else [f"timeline {row.timeline}"]
    if row.name == primary:
        return [*timeline, "primary"]
    return timeline + ([] if row.lag_bytes is None else [f"{row.lag_bytes} bytes behind"])


def _migrations(view: View) -> list[str]:
    lines = []
    for node in sorted(host.name for host in view.hosts if host.online):
        lines.append(f"* Node {node}:")
        lines += [_migration(one) for one in view.histories.get(node, ())]
    return lines


def _migration(one: History) -> str:
    last = f" last-failure='{one.last_failure}'" if one.last_failure else ""
    return f"   {one.resource}: migration-threshold={one.threshold} fail-count={one.fail_count}{last}"


def _failures(view: View) -> list[str]:
    return ["Failed Actions:", *(_failure(one) for one in view.failed), ""] if view.failed else []


def _failure(one: FailedAction) -> str:
    return (
        f"* {one.operation} on {one.node} '{one.said}' ({one.code}): call={one.call}, status={one.status}, exitreason='{one.reason}',\n"
        f"    last-rc-change='{one.when}', queued={_with_unit(one.queued)}, exec={_with_unit(one.took)}"
    )


def _with_unit(number: str) -> str:
    return number if number.endswith("ms") else f"{number or 0}ms"
