"""The raw form of cls_status, section by section as the walkthrough has it: `cls_status --crm`. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pha4pgsql.trouble import readers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pha4pgsql.cli_status import Reading, Report, Row
    from pha4pgsql.text import Collection, FailedAction, History, Host, Placed, View


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


def _condition(host: Host) -> list[str]:
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
    found = readers(reading)
    return [f"WARNING: {found.what}", f"HINT: {found.hint}"] if found else []


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
