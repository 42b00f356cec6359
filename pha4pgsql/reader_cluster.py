"""What the cluster does for a read server: its place in the director's parameter `readers`, the pool, the primary's replicas and slots.

It runs on a node of the cluster, by `errand`, as root. All names are the configuration's own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pha4pgsql import cli, cli_status, pacemaker, reader, replicas
from pha4pgsql.lvs_words import Replica
from pha4pgsql.words import ClusterRefusal, EnvironmentFailure, Lsn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pha4pgsql.cli import Site
    from pha4pgsql.errand import Say, Verb

TIMEOUT = 4.0

SLOTS = "select slot_name::text, active, active_pid from pg_replication_slots where slot_type = 'physical'"
OLDEST = """
select min(substr(name, 9)), (select setting::bigint from pg_settings where name = 'wal_segment_size')
  from pg_ls_waldir() where name ~ '^[0-9A-F]{24}$'
"""
TELL = """
select pg_is_in_recovery(),
       greatest(c.timeline_id, r.min_recovery_end_timeline, w.received_tli),
       case when pg_is_in_recovery() then greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) else pg_current_wal_lsn() end::text
  from pg_control_checkpoint() c, pg_control_recovery() r left join pg_stat_wal_receiver w on true
"""


def look(_: Mapping[str, Any], __: Say) -> dict[str, Any]:
    """The cluster as far as a read server is concerned: primary, director with its parameters, published pool, the terms of the primary's WAL."""
    site = cli.look()
    cluster, named = site.cluster, site.named
    primary = cluster.primary(named.primitive)
    votes = cli_status.votes(named.primitive, timeout=3.0)
    eras = votes[primary].eras if primary in votes else ()
    return {
        "primary": primary,
        "members": list(cli.members(site)),
        "director": named.director,
        "asks": named.balancing.get("conninfo", ""),
        "readers": named.balancing.get("readers", ""),
        "runs": next(iter(cluster.where(named.director, "started")), "") if named.director else "",
        "pool": _pool(site),
        "eras": [[era.timeline, int(era.start)] for era in eras],
        "quorate": pacemaker.quorate(),
    }


def _pool(site: Site) -> dict[str, Any]:
    """What the director has published last; empty when nobody has."""
    name = f"{site.named.director}-pool"
    found = [json.loads(value) for value in pacemaker.attributes(name).values()] if site.named.director else []
    newest: dict[str, Any] = max(found, key=lambda one: one.get("at", 0), default={})
    return newest


def pool(_: Mapping[str, Any], __: Say) -> dict[str, Any]:
    """The published pool, and whether the director runs at all."""
    site = cli.look()
    runs = site.cluster.where(site.named.director, "started") if site.named.director else ()
    return {"runs": next(iter(runs), ""), "pool": _pool(site)}


def put(request: Mapping[str, Any], _: Say) -> dict[str, Any]:
    """Put a server into the director's parameter `readers`, or take it out (`out`)."""
    cli.need_quorum()
    site = cli.look()
    named = site.named
    if not named.director:
        return {"changed": False}
    before = named.balancing.get("readers", "")
    name = request["name"]
    after = reader.without_reader(before, name) if request.get("out") else reader.with_reader(before, name, request.get("weight", ""))
    if after != before:
        pacemaker.set_parameter(named.director, "readers", after)
    return {"changed": after != before, "readers": after}


def receivers(request: Mapping[str, Any], _: Say) -> dict[str, Any]:
    """Who receives WAL from the primary, its slots, and where its WAL begins (None: the role may not know)."""
    conninfo, passfile = request["conninfo"], request["passfile"]
    found = replicas.streaming(conninfo, passfile=passfile, timeout=TIMEOUT)
    slots = replicas.ask(conninfo, SLOTS, passfile=passfile, timeout=TIMEOUT)
    return {"replicas": [list(one) for one in found], "slots": {name: active for name, active, _ in slots}, "oldest": _oldest(conninfo, passfile)}


def _oldest(conninfo: str, passfile: str) -> int | None:
    """The position at which the oldest WAL begins that the primary has."""
    try:
        ((name, size),) = replicas.ask(conninfo, OLDEST, passfile=passfile, timeout=TIMEOUT)
    except (replicas.Unanswered, ValueError):
        return None
    return (int(name[:8], 16) << 32) + int(name[8:], 16) * int(size) if name else None


def replicas_of(answer: Mapping[str, Any]) -> list[Replica]:
    return [Replica(*row) for row in answer["replicas"]]


def tell(request: Mapping[str, Any], _: Say) -> dict[str, Any]:
    """What a read server says of itself; `down` when it cannot be asked."""
    try:
        ((standby, timeline, lsn),) = replicas.ask(request["conninfo"], TELL, passfile=request["passfile"], timeout=TIMEOUT, host=request["address"])
    except replicas.Unanswered:
        return {"told": None}
    return {"told": [standby, int(timeline), int(Lsn.parse(lsn or "0/0"))]}


def free_slot(request: Mapping[str, Any], _: Say) -> dict[str, Any]:
    """Drop the slot of a copy that has ended or was given up; one in use is left alone."""
    conninfo, passfile, slot = request["conninfo"], request["passfile"], request["slot"]
    for name, active, pid in replicas.ask(conninfo, SLOTS, passfile=passfile, timeout=TIMEOUT):
        if name == slot and active:
            raise ClusterRefusal(f"the slot {slot} is in use on the primary by process {pid}: a copy is being made", "wait until it has ended")
        if name == slot:
            replicas.ask(conninfo, f"select pg_drop_replication_slot('{slot}')", passfile=passfile, timeout=TIMEOUT)
            return {"dropped": True}
    return {"dropped": False}


def reach(request: Mapping[str, Any], _: Say) -> dict[str, Any]:
    """Whether the server's port can be reached from the cluster, as readers will."""
    import socket

    try:
        with socket.create_connection((request["address"], int(request["port"])), timeout=3.0):
            return {}
    except OSError as refused:
        raise EnvironmentFailure(
            f"{request['address']} port {request['port']} cannot be reached from the cluster: {refused}", "does its firewall let the port through?"
        ) from refused


VERBS: dict[str, Verb] = {function.__name__: function for function in (look, pool, put, receivers, tell, free_slot, reach)}
