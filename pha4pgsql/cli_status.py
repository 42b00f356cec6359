"""What cls_status shows: one look at CIB, crm_mon, votes, primary and read pool, as one report, and that as JSON."""

from __future__ import annotations

import ipaddress
import re
import time
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pha4pgsql import ipvs, lock_row, pacemaker, replicas, text, vote
from pha4pgsql.settings import of_parameters
from pha4pgsql.site import rules_of
from pha4pgsql.words import NEVER, NOTHING, EnvironmentFailure, Failure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pha4pgsql.lvs_words import Service
    from pha4pgsql.settings import Settings
    from pha4pgsql.text import Ban, Cluster, Named, Tree, View
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
    """A standby as its primary sees it: what of WAL it has not replayed, in bytes and seconds; None where the role may not know."""

    name: str
    lag_bytes: int | None
    lag_seconds: float | None = None
    lsn: str | None = None
    state: str | None = ""
    sync_state: str | None = ""


class Refusal(Enum):
    """Why a primary said nothing of itself."""

    NOT_ASKED = "not asked"
    NOT_ALLOWED = "this node or its user may not ask"
    BLIND = "the role may not see who follows"
    SILENT = "no answer"


class Primary(NamedTuple):
    """What the server at the writer address said of itself, or why it said nothing.

    `standby`: it is none that takes writes. `names`: its synchronous_standby_names; `confirming`: how many standbys confirm by it. `waiting`: for how
    many seconds the oldest commit has been waiting for a standby, 0 when none is. `took`: seconds from question to answer.
    """

    refusal: Refusal | None = Refusal.NOT_ASKED
    why: str = ""
    standby: bool = False
    lsn: str | None = None
    timeline: int | None = None
    names: str = ""
    waiting: float = 0.0
    took: float = 0.0
    confirming: int = 0

    @property
    def answered(self) -> bool:
        return self.refusal is None


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

    `notes` is what a person has to know: who goes on alone, why nobody can be promoted. `positions` are ends of WAL that nothing moves;
    `repairs` what is being done to a node's copy (`KIND PERCENT DETAIL`), or why it was given up (`failed - REASON`). `change`: how the stored list
    of members differs from the wished one.
    """

    timelines: Mapping[str, int]
    followers: tuple[Follower, ...]
    notes: tuple[str, ...] = ()
    pool: Pool | None = None
    asked: Primary = Primary()
    positions: Mapping[str, str] = text.EMPTY
    repairs: Mapping[str, str] = text.EMPTY
    change: str = ""


UNTOLD = Told({}, ())

PRIMARY_LIMIT = 1.0
"""Seconds for the question to the primary: a status that hangs with it would be of no use."""

ABOUT_ITSELF = """
with here as (select pg_is_in_recovery() as standby),
     position as (select case when standby then null else pg_current_wal_lsn() end as lsn from here)
select h.standby, p.lsn::text, ('x' || substr(case when h.standby then null else pg_walfile_name(p.lsn) end, 1, 8))::bit(32)::int,
       current_setting('synchronous_standby_names'),
       coalesce((select extract(epoch from clock_timestamp() - min(query_start)) from pg_stat_activity where wait_event = 'SyncRep'), 0)::float8,
       r.application_name, case when r.replay_lsn > p.lsn then 0 else pg_wal_lsn_diff(p.lsn, r.replay_lsn) end::bigint,
       case when r.replay_lsn >= p.lsn then 0.0 else extract(epoch from greatest(r.replay_lag, clock_timestamp() - r.reply_time)) end::float8,
       r.replay_lsn::text, r.state, r.sync_state
  from here h, position p left join pg_stat_replication r on not pg_is_in_recovery()
"""
"""One row at least. A standby that does not answer at all lags for as long as it has said nothing: its `replay_lag` stays what it was."""


def ask(sight: Sight, named: Named | None, timeout: float) -> Told:
    """Ask the nodes' votes, and the primary through the writer address while this node has quorum."""
    if named is None:
        return UNTOLD
    shown = votes(named.primitive, timeout)
    timelines = {node: one.eras[-1].timeline for node, one in shown.items() if one.eras}
    primaries = sight.cluster.where(named.primitive, "promoted")
    heard, asking = the_row(named), sight.quorate and (len(primaries) == 1 or named.held)
    asked, followers = ask_primary(named, min(timeout, PRIMARY_LIMIT)) if asking else (Primary(), ())
    info = sight.cluster.properties.get(f"{named.primitive}_REPL_INFO", "")
    told = Told(
        timelines, (), notes(shown, rules(named), primaries, info, heard, asked.names), pool(sight.cluster, named, sight.here, timeout), asked,
        {node: str(one.lsn) if one.lsn != NOTHING else "no data" for node, one in shown.items() if one.lsn},
        _attribute(f"{named.primitive}-repair", timeout),
        change=change(shown, rules(named), primaries),
    )  # fmt: skip
    if not asked.answered or asked.standby or asked.timeline is None:
        return told
    current = dict.fromkeys((*primaries, *(one.name for one in followers)), asked.timeline)
    return told._replace(timelines={**timelines, **current}, followers=followers)


def rules(named: Named) -> Rules:
    """The set's rules, by its parameters in the CIB."""
    return rules_of(_settings(named))


def _settings(named: Named) -> Settings:
    return of_parameters(named.parameters, named.primitive)


def the_row(named: Named) -> lock_row.Heard:
    """What the row of the distributed lock says, when it is a voice of the set."""
    settings = _settings(named)
    return lock_row.ask(lock_row.place(settings), NEVER) if rules_of(settings).row else lock_row.UNASKED


def notes(
    shown: Mapping[str, Vote], wanted: Rules, primaries: Sequence[str], repl_info: str, row: lock_row.Heard = lock_row.UNASKED, names: str = ""
) -> tuple[str, ...]:
    """What a person has to know of elections; nothing while all is well. `names`: the synchronous_standby_names in force, as far as it is known."""
    silent = re.sub(r"PostgreSQL gave no answer: |\s*Is the server running on that host.*", "", row.reason) if wanted.row and row.reason else ""
    lost = (f"{silent}: nobody takes over if the primary's node is lost now",) if silent else ()
    for primary in primaries:
        said = shown[primary].said if primary in shown else None
        if said and said.owner == primary and said.term == shown[primary].reign:
            if names:
                return (f"{primary} would go on alone, and too few have stored that yet: commits wait", *lost)
            return (f"{primary} goes on alone since no standby confirms (term {said.term}): what is committed now is on {primary} only",)
    if primaries or not shown:
        return lost
    why = vote.obstacle(shown, wanted, override=repl_info if "|" not in repl_info else "", row=row.vote)
    return (*((why,) if why else ()), *((silent,) if silent else ()))


def change(shown: Mapping[str, Vote], wanted: Rules, primaries: Sequence[str]) -> str:
    """How the primary's list of members differs from what is wished; empty when it does not, or nothing is known of it."""
    found = [shown[primary].roster for primary in primaries if primary in shown and shown[primary].roster.listed]
    if len(found) != 1 or not wanted.members or (not found[0].joint and found[0].elects.unordered == wanted.circle.unordered):
        return ""
    now, wish = found[0].confirms, wanted.circle
    return f"members change: {' '.join(now.members)} with k={now.k} now, {' '.join(wish.members)} with k={wish.k} wished"


def votes(primitive: str, timeout: float) -> dict[str, Vote]:
    """What each node shows for elections; a vote that cannot be read, or no answer, tells nothing."""
    return {node: found for node, value in _attribute(f"{primitive}-vote", timeout).items() if (found := _vote(value))}


def _attribute(name: str, timeout: float) -> dict[str, str]:
    """A node attribute by node; no answer tells nothing."""
    try:
        return pacemaker.attributes(name, timeout)
    except pacemaker.Unreachable:
        return {}


def _vote(value: str) -> Vote | None:
    try:
        return vote.parse_vote(value)
    except ValueError:
        return None


def ask_primary(named: Named, timeout: float) -> tuple[Primary, tuple[Follower, ...]]:
    """The primary's own figures, through the writer address; why there are none, when it cannot be asked: the status is shown all the same."""
    begun = time.monotonic()
    conninfo, passfile = writer(named)
    try:
        rows = replicas.ask(conninfo, ABOUT_ITSELF, passfile=passfile, timeout=timeout)
    except ImportError:
        return Primary(Refusal.NOT_ALLOWED, "the Python package psycopg2 is not there"), ()
    except replicas.Unanswered as failed:
        return Primary(refusal_of(failed.message), failed.message), ()
    standby, lsn, timeline, names, waiting = rows[0][:5]
    followers = tuple(Follower(*row[5:]) for row in rows if row[5])
    if any(one.state is None for one in followers):
        return Primary(Refusal.BLIND, "its role is no member of pg_monitor"), ()
    confirming = sum(one.state == "streaming" and one.sync_state in {"sync", "quorum"} for one in followers)
    return Primary(None, "", standby, lsn, timeline, names or "", waiting, time.monotonic() - begun, confirming), followers


def refusal_of(message: str) -> Refusal:
    """Whether a server that said no is there and well: it minds who asks, or it is on its way up or down.

    >>> refusal_of('PostgreSQL gave no answer: FATAL: password authentication failed for user "replication"')
    <Refusal.NOT_ALLOWED: 'this node or its user may not ask'>
    >>> refusal_of("PostgreSQL gave no answer: FATAL: the database system is shutting down").name
    'SILENT'
    """
    moving = re.search(r"starting up|shutting down|in recovery mode|not yet accepting|not accepting|too many (clients|connections)", message)
    return Refusal.NOT_ALLOWED if not moving and re.search(r"FATAL|password", message) else Refusal.SILENT


def writer(named: Named, program: str = "cls_status") -> tuple[str, str]:
    """How the primary is asked: the agent's own parameters as a connection string, and the password file."""
    given = named.parameters
    host = given.get("master_ip") or next(iter(named.writers.values()), "")
    conninfo = f"host={host} port={given.get('pgport', '5432')} user={given.get('repuser', 'postgres')} dbname=postgres application_name={program}"
    return (
        f"{conninfo} {given.get('primary_conninfo_opt', '')}".strip(),
        given.get("passfile") or f"{given.get('tmpdir', '/var/lib/pgsql/tmp')}/pgpass",
    )


def pool(cluster: Cluster, named: Named, here: str, timeout: float) -> Pool | None:
    """The read pool: the kernel's own table on the director's node, elsewhere what the director published last. None: nothing is balanced."""
    if not named.director:
        return None
    director = next(iter(cluster.where(named.director, "started")), "")
    published = read_pool(_attribute(f"{named.director}-pool", timeout).get(director, ""))
    found = _table(named) if director == here else None
    if found is None:
        return published
    names = {server.address: server.name for server in published.servers}
    return Pool(tuple(server._replace(name=names.get(server.address, server.address)) for server in found), int(time.time()))


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
    """One node; texts exactly as the attributes have them, None where there is none.

    role: what the resource is there by its operations (`promoted`, `started`, `stopped`, `failed` ...). lag: WAL not replayed yet. lsn: replayed
    so far (the primary: written); of a node that receives nothing the end of its WAL. state, sync_state: as in pg_stat_replication.
    unwatched: it works, and its agent cannot look after it.
    """

    name: str
    online: bool
    status: str | None
    data_status: str | None
    score: str | None
    xlog_loc: str | None
    baseline: str | None
    timeline: int | None
    lag_bytes: int | None
    role: str = "stopped"
    lsn: str | None = None
    lag_seconds: float | None = None
    state: str | None = None
    sync_state: str | None = None
    repair: str | None = None
    standby: bool = False
    maintenance: bool = False
    unwatched: bool = False


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
    change: str = ""
    reading: Reading | None = None
    named: Named | None = None
    name: str = ""
    asked: Primary = Primary()
    bans: tuple[Ban, ...] = ()
    maintenance: bool = False
    now: int = 0
    several: bool = False
    """Whether the cluster has other sets, too: then a command has to be told which one is meant."""

    @property
    def promoted(self) -> tuple[str, ...]:
        return tuple(row.name for row in self.rows if row.role == "promoted" and row.online)


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
        primary=cluster.primary(primitive) or None,
        repl_name=name,
        repl_info=cluster.properties.get(name) or None,
        vips={vip: next(iter(cluster.where(vip, "started")), None) for vip in (named.addresses if named else ())},
        rows=tuple(_row(cluster, primitive, node, told, primaries) for node in sorted({*cluster.members, *(named.nodes if named else ())})),
        view=sight.view,
        notes=told.notes,
        change=told.change,
        reading=_reading(sight, named, told) if named and told.pool else None,
        named=named,
        name=cluster.properties.get("cluster-name", ""),
        asked=told.asked,
        bans=cluster.bans,
        maintenance=cluster.property_is("maintenance-mode", default=False),
        now=sight.now,
        several=len(sight.sets) > 1,
    )


def _reading(sight: Sight, named: Named, told: Told) -> Reading:
    pool = told.pool or Pool()
    director = next(iter(sight.cluster.where(named.director, "started")), None)
    return Reading(named.director, director, pool, max(0, sight.now - pool.at) if pool.at else None, not named.disabled)


def _row(cluster: Cluster, primitive: str, node: str, told: Told, primaries: tuple[str, ...]) -> Row:
    member = cluster.members.get(node)
    found = member.attributes if member else {}
    seen = next((one for one in told.followers if one.name == node), Follower("", None))
    is_primary, asked = primaries == (node,), told.asked
    return Row(
        name=node,
        online=member is not None and member.online,
        status=found.get(f"{primitive}-status"),
        data_status=found.get(f"{primitive}-data-status"),
        score=found.get(f"master-{primitive}"),
        xlog_loc=found.get(f"{primitive}-xlog-loc"),
        baseline=found.get(f"{primitive}-master-baseline"),
        timeline=told.timelines.get(node),
        lag_bytes=0 if is_primary else seen.lag_bytes,
        role=member.roles.get(primitive, "stopped") if member else "stopped",
        lsn=(asked.lsn if is_primary else seen.lsn) or told.positions.get(node),
        lag_seconds=0.0 if is_primary else seen.lag_seconds,
        state=seen.state or None,
        sync_state=seen.sync_state or None,
        repair=told.repairs.get(node),
        standby=member is not None and member.standby,
        maintenance=member is not None and member.maintenance,
        unwatched=member is not None and primitive in member.unwatched,
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
        "change": report.change,
        "dc": report.view.dc or None,
        "node": report.here,
        "cluster": report.name or None,
        "at": report.now,
        "asked": {**report.asked._asdict(), "refusal": report.asked.refusal.value if report.asked.refusal else None},
        "bans": [ban._asdict() for ban in report.bans],
        "maintenance": report.maintenance,
    }


def _balancing(reading: Reading) -> dict[str, Any]:
    return {"director": reading.director, "real_servers": [server._asdict() for server in reading.pool.servers], "at": reading.pool.at}
