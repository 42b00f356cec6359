"""What is wrong with the cluster by one look at it, each with the command that mends it; and whether it is healthy, degraded or down. Pure.

`FINDERS` is the table: one function for each kind of trouble, from a report to what it finds. Nothing here is a decision: people and exit codes only.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from pha4pgsql.cli import FOLLOWING
from pha4pgsql.cli_status import Refusal
from pha4pgsql.standby_names import named_in
from pha4pgsql.text import DEGRADED_CODES
from pha4pgsql.words import NO_MEMBER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pha4pgsql.cli_status import Reading, Report, Row
    from pha4pgsql.text import FailedAction

MOVING = ("starting", "stopping")
"""Roles that end by themselves."""

NO_DATA = "data directory .*: no such file|is not a data directory"
"""How a start fails where there is no database."""
NO_ELECTION = "a timeline that no election made"
"""What `vote.obstacle` says where an operator's word is needed."""
OF_A_SET = re.compile(r"\bcls_(?:start|stop|status|check|reset_master|repair_by_pg_rewind|rebuild_slave)\b")
"""Commands that act on one set."""

BEING_CHANGED = "the configuration is being changed, or a command that changed it was killed: Pacemaker looks after nothing meanwhile"
"""What a maintenance of our own means, see `words.HOLD`."""
HELD = "cls_setup, which ends it and makes the configuration that of config.ini"
"""What ends a maintenance that a killed command has left."""
LOCK_SERVER = "start the PostgreSQL server of the distributed lock, or let this node reach it"

PATIENCE = 3.0
"""Seconds for which a commit may wait for a standby before it is called an outage."""


class State(Enum):
    """The whole cluster in one word; the value is the exit code of cls_status."""

    HEALTHY = 0
    DEGRADED = 1
    """Writes are taken, and something is missing that the next fault may need."""
    DOWN = 2
    """No primary that takes writes, as far as this node can see."""


class Trouble(NamedTuple):
    """One thing that is wrong: how bad (healthy: worth knowing only), what was seen, and what to type."""

    worst: State
    what: str
    hint: str = ""


def find(report: Report) -> tuple[Trouble, ...]:
    """All that is wrong, the worst first; without quorum only what this node knows by itself, as what it says of others is old."""
    found = [trouble for finder in (FINDERS if report.quorate else ALONE) for trouble in finder(report)]
    if report.several and report.named:
        found = [one._replace(hint=OF_A_SET.sub(rf"\g<0> --set {report.named.promotable}", one.hint)) for one in found]
    return tuple(sorted(found, key=lambda one: -one.worst.value))


def state(troubles: tuple[Trouble, ...]) -> State:
    """The worst of it."""
    return max((one.worst for one in troubles), key=lambda one: one.value, default=State.HEALTHY)


def needed(names: str) -> int:
    """How many standbys a synchronous_standby_names waits for.

    >>> [needed(names) for names in ("", '"node2"', '2 ("a", "b")', 'ANY 1 ("a", "b")', "FIRST 3 (a)")]
    [0, 1, 2, 1, 3]
    """
    found = re.match(r"\s*(?:ANY|FIRST)?\s*(\d+)\s*\(", names, re.IGNORECASE)
    return int(found[1]) if found else int(bool(names.strip()))


# ---------------------------------------------------------------- one kind of trouble each


def _quorum(report: Report) -> Iterator[Trouble]:
    if not report.quorate:
        online, absent = [row.name for row in report.rows if row.online], " or ".join(row.name for row in report.rows if not row.online)
        seen = f"it sees {' '.join(online) or 'nobody'}; all this is only what it knew last, the others may have gone on"
        hint = f"cls_status on {absent or 'another node'}; switch on what is off; here: corosync-quorumtool -s"
        yield Trouble(State.DOWN, f"{report.here} has no quorum: {seen}", hint)


def _set(report: Report) -> Iterator[Trouble]:
    if report.named is None:
        yield Trouble(State.DOWN, "no replicated set is configured", "cls_setup")
    elif report.named.disabled:
        yield Trouble(State.DOWN, f"{report.named.promotable} was stopped by an operator", "cls_start")
    elif report.named.held:
        yield Trouble(State.DEGRADED, BEING_CHANGED, f"if no cls_setup or cls_member is at work: {HELD}")
    if report.maintenance:
        yield Trouble(State.DEGRADED, "maintenance mode: Pacemaker starts, stops and promotes nothing", "cls_unmaintenance")


def _primary(report: Report) -> Iterator[Trouble]:
    named, promoted = report.named, report.promoted
    if named is None or named.disabled:
        return
    if not promoted and _looked_at_anew(report):
        return
    if not promoted:
        why = "; ".join(report.notes) or "nobody is primary"
        absent = " ".join(row.name for row in report.rows if row.name in named.nodes and not row.online)
        hint = f"bring back {absent}: pcs cluster start {absent}" if absent else "cls_start waits for one, and says what is missing"
        hint = HELD if named.held else f"{LOCK_SERVER}; or {hint}" if "distributed lock cannot be asked" in why else hint
        lost = "; if it is lost for good: cls_reset_master --dry-run" if absent and " went on alone" in why else ""
        lost += "; if its data are right: cls_stop, then there: cls_reset_master --restored --dry-run" if NO_ELECTION in why else ""
        empty = " ".join(sorted({one.node for one in report.view.failed if re.search(NO_DATA, one.reason)}))
        lost += f"; if the data are lost for good, on {empty}: cls_reset_master --no-data --dry-run" if empty else ""
        yield Trouble(State.DOWN, why, hint + lost)
        return
    if len(promoted) > 1:
        hint = "cls_status on each of them; the one without quorum steps down by itself, or switch it off"
        yield Trouble(State.DOWN, f"{' and '.join(promoted)} are promoted, expected one", hint)
        return
    for note in report.notes:
        lock = "distributed lock" in note
        yield Trouble(State.DEGRADED, note, LOCK_SERVER if lock else "bring the standbys back, soon: what is wrong with them stands below")
    for vip in named.writers:
        if report.vips.get(vip) is None:
            yield Trouble(State.DOWN, f"{vip} runs on no node: clients do not reach the primary", f"cls_cleanup {vip}")
            return
    yield from _answers(report, promoted[0])


def _waits(report: Report) -> bool:
    """Whether commits are to wait for standbys."""
    return report.named is not None and report.named.parameters.get("rep_mode") in {"sync", "quorum"} and len(report.named.nodes) > 1


def _looked_at_anew(report: Report) -> bool:
    """Whether Pacemaker, for a moment of a change, does not know what runs: it has forgotten, on our word, and a primary answers all the same."""
    return report.named is not None and report.named.held and report.asked.answered and not report.asked.standby


def _answers(report: Report, primary: str) -> Iterator[Trouble]:
    """What the server at the writer address said."""
    asked = report.asked
    short = re.sub(r"^PostgreSQL (gave no answer: )?|\s*Is the server running on that host.*", "", asked.why)
    if asked.refusal is Refusal.NOT_ALLOWED and "password authentication failed" in short:
        hint = "pgsql_reppassword in config.ini, then install.sh on every node; or give the role that password again"
        yield Trouble(State.DEGRADED, f"the replication role is not let in, and standbys cannot connect: {short}", hint)
    elif asked.refusal is Refusal.NOT_ALLOWED:
        yield Trouble(
            State.HEALTHY, f"the primary was not asked: {short}; lag and positions are unknown", "run cls_status as root on a node of the cluster"
        )
    elif asked.refusal is Refusal.BLIND:
        role = report.named.parameters.get("repuser", "postgres") if report.named else ""
        hint = f"""on {primary}: psql -U postgres -c 'GRANT pg_monitor TO "{role}"'"""
        yield Trouble(State.HEALTHY, f"the primary does not show who follows: {short}; lag and positions are unknown", hint)
    elif asked.refusal is Refusal.SILENT:
        hint = f"look at the log of PostgreSQL on {primary}; Pacemaker replaces a server that stays silent"
        yield Trouble(State.DOWN, f"the primary {primary} does not answer at the writer address: {short}", hint)
    elif asked.standby:
        yield Trouble(
            State.DOWN, "a standby answers at the writer address: the primary is just changing", "cls_status again; cls_start waits for the end"
        )
    elif asked.answered and not asked.names and _waits(report) and not any("alone" in note for note in report.notes):
        what = f"the primary {primary} does not go on alone, and waits for no standby: what is committed now may be lost with it"
        yield Trouble(State.DEGRADED, what, "cls_status again: its monitor mends that; if it stays: cls_check")
    elif asked.answered and asked.confirming < needed(asked.names):
        seen = f"{asked.confirming} of {needed(asked.names)} standbys confirm ({' '.join(sorted(named_in(asked.names)))} may)"
        streaming = " ".join(row.name for row in report.rows if row.state == "streaming")
        still = f"cls_status again; if it stays, though {streaming} streams: cls_check"
        yield Trouble(
            State.DOWN, f"commits wait on {primary}: {seen}", still if streaming else "bring a standby back; what is wrong with them stands below"
        )
    elif asked.waiting > PATIENCE:
        yield Trouble(
            State.DOWN,
            f"a commit on {primary} has been waiting for a standby for {asked.waiting:.0f} s",
            "cls_status again: a silent standby is replaced",
        )


def _nodes(report: Report) -> Iterator[Trouble]:
    if report.named is None:
        return
    for row in report.rows:
        if row.name in ((*report.named.nodes, *report.named.read_nodes) or [one.name for one in report.rows]):
            found = _node(report, row)
            if found is not None:
                yield found


def _node(report: Report, row: Row) -> Trouble | None:
    """The first thing that keeps a member from doing its part."""
    host = next((host for host in report.view.hosts if host.name == row.name), None)
    if host is not None and host.unclean:
        hint = f"make sure that {row.name} is off, then: pcs stonith confirm {row.name}"
        return Trouble(State.DEGRADED, f"{row.name} is UNCLEAN: the cluster does not know whether it is off", hint)
    if not row.online:
        return Trouble(
            State.DEGRADED, f"{row.name} is offline", f"switch it on; then, if the cluster does not start with it: pcs cluster start {row.name}"
        )
    if row.standby:
        return Trouble(State.DEGRADED, f"{row.name} is in standby and runs nothing", f"cls_unstandby_node {row.name}")
    if row.maintenance and not report.maintenance:
        return Trouble(State.DEGRADED, f"{row.name} is in maintenance: nothing is started or stopped there", f"cls_unmaintenance_node {row.name}")
    if row.repair:
        return _repair(row)
    return _server(report, row)


def _repair(row: Row) -> Trouble:
    what, _, rest = (row.repair or "").partition(" ")
    if what == "failed":
        again = "wait, or " if rest.lstrip("- ").startswith("try ") else ""
        return Trouble(State.DEGRADED, f"the repair of {row.name} failed: {rest.lstrip('- ')}", f"{again}on {row.name}: cls_rebuild_slave")
    return Trouble(State.DEGRADED, f"{row.name} is being repaired: {row.repair}", "wait; cls_status --watch shows how far it is")


def _server(report: Report, row: Row) -> Trouble | None:
    """PostgreSQL of a member that is online."""
    named = report.named
    if named is None or named.disabled:
        return None
    ban = next((ban for ban in report.bans if ban.node == row.name and ban.resource in {named.promotable, named.primitive} and not ban.role), None)
    if ban is not None and ban.id.startswith(NO_MEMBER):
        what = f"{named.promotable} is kept off {row.name} until it is a copy of the primary"
        return Trouble(State.DEGRADED, what, f"wait for cls_member; if it was interrupted: cls_member add {row.name}")
    if ban is not None:
        return Trouble(
            State.DEGRADED, f"{named.promotable} is banned from {row.name} ({_until(ban.ends)})", f"pcs resource clear {ban.resource} {row.name}"
        )
    if row.unwatched:
        reason = next(
            (one.reason.replace("not watched any more", "") for one in report.view.failed if one.node == row.name and one.code in DEGRADED_CODES), ""
        )
        hint = f"on {row.name}: the agent's way in is its pgdba on the unix socket (pg_hba.conf, local); it looks again with every monitor"
        return Trouble(State.DEGRADED, f"PostgreSQL on {row.name} works, and does not let the agent in, which cannot look after it{reason}", hint)
    told = any(_is_current(report, one) and one.node == row.name for one in report.view.failed)
    if row.role == "stopped" and _looked_at_anew(report):
        return None
    if row.role in {"stopped", "failed"} and not told:
        return Trouble(State.DEGRADED, f"{named.primitive} is {row.role} on {row.name}", "cls_start")
    if row.role in MOVING and not told:
        return Trouble(State.DEGRADED, f"{named.primitive} is {row.role} on {row.name}", "wait: cls_start tells what is still missing")
    primary = report.primary
    if row.role == "started" and primary and not _streams(report, row):
        unseen = "its primary has no connection of it" if report.asked.answered else f"status {row.status or 'unknown'}"
        seen = f"state {row.state}" if row.state else unseen
        return Trouble(
            State.DEGRADED,
            f"{row.name} does not stream from {primary} ({seen})",
            f"the log of PostgreSQL on {row.name} tells why; cls_check finds the usual causes",
        )
    return None


def _until(ends: str) -> str:
    return f"until {ends}" if ends else "for good"


def _streams(report: Report, row: Row) -> bool:
    return row.state == "streaming" if report.asked.answered and not report.asked.standby else row.status in FOLLOWING


def _bans(report: Report) -> Iterator[Trouble]:
    """Bans from the promoted role, and of the addresses: the next failover may miss that node."""
    named = report.named
    for ban in report.bans if named else ():
        assert named is not None  # noqa: S101  for the type checker
        whole = ban.resource in {named.promotable, named.primitive} and not ban.role
        if not whole and ban.resource in {named.promotable, named.primitive, *named.companions}:
            role = f" as {ban.role.lower()}" if ban.role else ""
            what = f"{ban.resource} is banned from {ban.node}{role} ({_until(ban.ends)})"
            yield Trouble(State.DEGRADED, what, f"pcs resource clear {ban.resource} {ban.node}")


def _failures(report: Report) -> Iterator[Trouble]:
    for one in report.view.failed:
        resource, operation, _ = operation_of(one)
        if one.code in DEGRADED_CODES and any(row.unwatched and row.name == one.node for row in report.rows):
            continue
        if _is_current(report, one):
            if resource == (report.named.primitive if report.named else "") and any(row.repair for row in report.rows if row.name == one.node):
                continue  # the repair is told already, and what to do if it failed
            by_itself = report.named is not None and report.named.parameters.get("auto_rejoin", "no") != "no"
            hint = mending(one, by_itself=by_itself)
            if hint.startswith(f"on {one.node}: ") and not report.promoted:
                hint = f"when there is a primary to copy from, {hint}"
            yield Trouble(State.DEGRADED, f"{resource} failed to {operation} on {one.node} (reason above)", hint)
        else:
            yield Trouble(
                State.HEALTHY, f"{resource} has failed to {operation} on {one.node}, and works again", f"cls_cleanup {resource}  forgets it"
            )


def operation_of(failed: FailedAction) -> tuple[str, str, str]:
    """Resource, operation and interval of an operation's key.

    >>> from pha4pgsql.text import FailedAction
    >>> operation_of(FailedAction("vip_a_monitor_10000", *[""] * 9))
    ('vip_a', 'monitor', '10000')
    """
    resource, operation, interval = [*failed.operation.rsplit("_", 2), "", ""][:3]
    return resource.partition(":")[0], operation, interval


def _is_current(report: Report, failed: FailedAction) -> bool:
    """Whether the resource still does not work there; one that runs elsewhere does not have to."""
    resource, operation, _ = operation_of(failed)
    parts = [part for one in report.view.resources for part in one.instances if part.id.partition(":")[0] == resource]
    single = any(one.kind == "resource" and one.id == resource for one in report.view.resources)
    running = [
        part for part in parts if (single or failed.node in part.nodes) and part.nodes and part.role not in {"Stopped", "Starting", "Stopping"}
    ]
    healthy = [part for part in running if not {"FAILED", "blocked"} & set(part.flags)]
    offline = any(row.name == failed.node and not row.online for row in report.rows)
    stopped = report.named is not None and report.named.disabled and operation != "stop"
    return not healthy and not offline and not stopped


def mending(failed: FailedAction, *, by_itself: bool) -> str:
    """What to type for a failure, by the agent's own words; `by_itself`: a node that diverged repairs itself (auto_rejoin)."""
    resource, _, _ = operation_of(failed)
    if "forked off" in failed.reason and by_itself:
        return f"wait: it repairs itself (auto_rejoin); if that does not begin, on {failed.node}: cls_repair_by_pg_rewind"
    if "forked off" in failed.reason:
        return f"on {failed.node}: cls_repair_by_pg_rewind, or cls_rebuild_slave where that is not possible"
    if "state file" in failed.reason and "damaged" in failed.reason:
        return f"cls_stop; on {failed.node}: cls_reset_master --yes, then cls_rebuild_slave"
    if re.search(f"no copy of|not whole|{NO_DATA}|configuration file .* is not there", failed.reason):
        return f"on {failed.node}: cls_rebuild_slave"
    return f"correct the cause, then: cls_cleanup {resource}"


def _resources(report: Report) -> Iterator[Trouble]:
    """What Pacemaker does not manage, and what should run and does not."""
    told = report.maintenance or (report.named is not None and report.named.held) or any(row.maintenance for row in report.rows)
    for one in report.view.resources:
        flags = {*one.flags, *(flag for part in one.instances for flag in part.flags)}
        if "unmanaged" in flags and not told:
            yield Trouble(State.DEGRADED, f"{one.id} is unmanaged: Pacemaker does not look after it", f"pcs resource manage {one.id}")
        if "blocked" in flags:
            yield Trouble(
                State.DEGRADED,
                f"{one.id} is blocked: Pacemaker cannot stop it, and does nothing with it",
                f"correct the cause, then: cls_cleanup {one.id}",
            )
    named = report.named
    if named is None or named.disabled or not report.primary:
        return
    standbys = [row for row in report.rows if row.online and row.role == "started"]
    for vip in named.readers:
        if report.vips.get(vip) is None and standbys:
            yield Trouble(State.DEGRADED, f"{vip} runs on no node: there is no reader address", f"cls_cleanup {vip}")


def _reading(report: Report) -> Iterator[Trouble]:
    if report.reading is not None and report.primary:
        found = readers(report.reading)
        if found is not None:
            yield found


def readers(reading: Reading) -> Trouble | None:
    """Why readers get nowhere, when they do."""
    if not reading.expected or (reading.director and reading.pool.serves):
        return None
    if reading.director is None:
        hint = f"it runs where a standby and IPVS are; correct what failed, then: cls_cleanup {reading.resource}"
        return Trouble(State.DEGRADED, f"{reading.resource} runs on no node: there is no reader address", hint)
    seen = "no real server takes connections" if reading.pool.at else "the director has not told its real servers"
    hint = "a standby is one when it replicates, its port answers and its weight is above 0; the director's log tells which is missing"
    return Trouble(State.DEGRADED, f"{seen}: readers are refused", hint)


def _change(report: Report) -> Iterator[Trouble]:
    if report.change:
        yield Trouble(State.DEGRADED, report.change, "cls_member list shows what it waits for")


FINDERS: tuple[Callable[[Report], Iterator[Trouble]], ...] = (_quorum, _set, _primary, _change, _nodes, _bans, _failures, _resources, _reading)
ALONE: tuple[Callable[[Report], Iterator[Trouble]], ...] = (_quorum, _failures)
