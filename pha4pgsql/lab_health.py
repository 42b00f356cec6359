"""Is a practice cluster healthy? Asked of Pacemaker (crm_mon) and of the servers (SQL from the client), never of our own agents.

Healthy: every member that is on and connected is online in a quorate cluster, one of them is the primary, all others stream its
timeline, the writer address leads to the primary, and the reader address, as soon as there is a standby, to a standby.
"""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any, NamedTuple

from pha4pgsql import lab_probe
from pha4pgsql.lab_postgres import has_lvs
from pha4pgsql.lab_words import CLIENT
from pha4pgsql.system import Completed
from pha4pgsql.text import View, view
from pha4pgsql.words import ClusterRefusal, EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pha4pgsql.lab import Lab, Seen

POLL = 0.1
DEADLINE = 8.0
"""Seconds that one question may take: a node that does not answer must not hold up the others."""


class Server(NamedTuple):
    """What PostgreSQL says at an address. `timeline`: the one written by a primary, or received by a standby, 0 while nothing is received."""

    recovery: bool = False
    timeline: int = 0
    error: str = ""

    def __str__(self) -> str:
        if self.error:
            return self.error
        if not self.recovery:
            return f"primary on timeline {self.timeline}"
        return f"standby, receives timeline {self.timeline}" if self.timeline else "standby, receives nothing"


class Health(NamedTuple):
    """What was seen, and what is missing for a healthy cluster: nothing, if it is one."""

    rows: tuple[tuple[str, ...], ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(*self.rows)]
        lines = ["  ".join(f"{word:<{width}}" for word, width in zip(row, widths)).rstrip() for row in self.rows]
        return "\n".join([*(f"- {text}" for text in self.missing), *lines])


def examine(lab: Lab, *, thorough: bool = True) -> Health:
    """Look once. Without `thorough` the servers are only asked when Pacemaker is content."""
    seen = lab.list()
    members = [row for row in seen if row.name in lab.members]
    readers = {node.name for node in lab.plan.nodes if node.reader}
    expected = [row for row in members if row.state == "running" and row.link == "up"]
    shown = _view(lab, expected)
    missing = cluster_lacks(shown, [row.name for row in expected])
    if missing and not thorough:
        return Health((), missing)
    servers = _servers(lab, expected)
    addresses = {row.name: row.address for row in expected}
    missing += servers_lack(servers, addresses, lab.writer_vip, lab.reader_vip)
    if not missing and has_lvs(lab.plan):
        standbys = [row.name for row in expected if servers[row.address].recovery]
        missing += pool_lacks(_pool(lab, expected), [*standbys, *(row.name for row in seen if row.name in readers and row.state == "running")])
    return Health(_rows(members, shown, servers, lab), missing)


def wait(lab: Lab, *, timeout: float) -> Health:
    """Look until the cluster is healthy; after `timeout` seconds refuse, with all that is seen."""
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() > deadline
        health = examine(lab, thorough=late)
        if not health.missing:
            return health
        if late:
            raise ClusterRefusal(
                f"lab {lab.name} is not healthy after {timeout:g} s:\n{health}",
                f"cls_lab run --name {lab.name} {lab.members[0]} -- cls_status; cls_lab logs --name {lab.name} NODE",
            )
        time.sleep(POLL)


def wait_for_members(lab: Lab, *, timeout: float) -> None:
    """Wait until all members that are on are online in one quorate cluster, whatever runs on it."""
    deadline = time.monotonic() + timeout
    while True:
        expected = [row for row in lab.list() if row.name in lab.members and row.state == "running" and row.link == "up"]
        missing = members_lack(_view(lab, expected), [row.name for row in expected])
        if not missing:
            return
        if time.monotonic() > deadline:
            raise ClusterRefusal(f"lab {lab.name} has no complete cluster after {timeout:g} s: {'; '.join(missing)}",
                                 f"cls_lab logs --name {lab.name} {lab.members[0]}")  # fmt: skip
        time.sleep(POLL)


def members_lack(shown: View | None, expected: Sequence[str]) -> tuple[str, ...]:
    """What the membership lacks."""
    if not expected:
        return ("no member of the cluster is on and connected",)
    if shown is None:
        return ("Pacemaker answers on no node",)
    online = {host.name for host in shown.hosts if host.online and not host.pending and not host.unclean}
    absent = tuple(f"{name} is not online in the cluster" for name in expected if name not in online)
    return absent if shown.quorate else (*absent, "the cluster has no quorum")


def cluster_lacks(shown: View | None, expected: Sequence[str]) -> tuple[str, ...]:
    """What Pacemaker lacks: members, then exactly one promoted instance."""
    missing = members_lack(shown, expected)
    if shown is None:
        return missing
    promoted = sorted({node for one in shown.resources if one.promotable for node in one.where("Promoted")})
    return missing if len(promoted) == 1 else (*missing, f"promoted is {' and '.join(promoted) or 'no node'}, expected one")


def servers_lack(servers: Mapping[str, Server], addresses: Mapping[str, str], writer: str, reader: str) -> tuple[str, ...]:
    """What PostgreSQL lacks, by the answers at the members' addresses and at the virtual ones."""
    primaries = [name for name, address in addresses.items() if not servers[address].error and not servers[address].recovery]
    if len(primaries) != 1:
        return (f"primary by SQL is {' and '.join(primaries) or 'no node'}, expected one",)
    timeline = servers[addresses[primaries[0]]].timeline
    good = Server(recovery=True, timeline=timeline)
    standbys = {name: servers[address] for name, address in addresses.items() if name not in primaries}
    missing = [f"{name}: {server}, expected a standby that receives timeline {timeline}" for name, server in standbys.items() if server != good]
    if servers[writer] != Server(timeline=timeline):
        missing.append(f"writer address {writer}: {servers[writer]}, expected the primary")
    if standbys and not (servers[reader].recovery and not servers[reader].error):
        missing.append(f"reader address {reader}: {servers[reader]}, expected a standby")
    return tuple(missing)


def pool_lacks(pool: Mapping[str, int] | None, standbys: Sequence[str]) -> tuple[str, ...]:
    """What the reader address' pool lacks, by name and weight: each standby, and nobody else."""
    if pool is None:
        return ("no node is director of the reader address",)
    absent = tuple(f"{name} is not in the pool of the reader address" for name in standbys if not pool.get(name))
    return absent + tuple(f"{name} is in the pool of the reader address" for name in pool if pool[name] and name not in standbys)


def _pool(lab: Lab, expected: Sequence[Seen]) -> dict[str, int] | None:
    """The director's table, as the first node that knows it shows it."""
    for row in expected:
        done = _run(lab, row.name, ["cls_status", "--json"])
        shown = (json.loads(done.out) if done.out.startswith("{") else {}).get("lvs")
        if shown and shown["director"]:
            return {str(server["name"]): int(server["weight"]) for server in shown["real_servers"]}
    return None


def _view(lab: Lab, expected: Sequence[Seen]) -> View | None:
    """The cluster as the first node that answers sees it."""
    for row in expected:
        done = _run(lab, row.name, ["crm_mon", "--one-shot", "--inactive", "--output-as=xml"])
        if done.ok:
            return view(ET.fromstring(done.out))  # noqa: S314
    return None


def _run(lab: Lab, node: str, argv: Sequence[str]) -> Completed:
    """A node may be switched off, by fencing for instance, just before it is asked: that is an answer too."""
    try:
        return lab.run(node, argv, timeout=DEADLINE)
    except EnvironmentFailure as failure:
        return Completed(1, "", failure.message)


def _servers(lab: Lab, expected: Sequence[Seen]) -> dict[str, Server]:
    addresses = [*(row.address for row in expected), lab.writer_vip, lab.reader_vip]
    done = _run(lab, CLIENT, ["/usr/bin/python3", "-I", lab_probe.__file__, lab.port, *addresses])
    if not done.ok:
        return dict.fromkeys(addresses, Server(error=f"the client cannot ask: {done.err.strip() or done.code}"))
    return {address: _server(answer) for address, answer in json.loads(done.out).items()}


def _server(answer: Mapping[str, Any]) -> Server:
    if "error" in answer:
        return Server(error=str(answer["error"]))
    return Server(bool(answer["recovery"]), int(answer["timeline"] or 0))


def _rows(members: Sequence[Seen], shown: View | None, servers: Mapping[str, Server], lab: Lab) -> tuple[tuple[str, ...], ...]:
    rows = [(row.name, row.state, f"link {row.link}", *_in_cluster(shown, row.name), str(servers.get(row.address, ""))) for row in members]
    vips = (("writer", lab.writer_vip), ("reader", lab.reader_vip))
    return (*rows, *((name, address, "", "", "", str(servers.get(address, ""))) for name, address in vips))


def _in_cluster(shown: View | None, name: str) -> tuple[str, str]:
    """Membership and role of the database, as Pacemaker shows them."""
    if shown is None:
        return ("unknown", "")
    online = any(host.name == name and host.online for host in shown.hosts)
    roles = [one.role for found in shown.resources if found.promotable for one in found.instances if name in one.nodes]
    return ("online" if online else "offline", roles[0] if roles else "Stopped")
