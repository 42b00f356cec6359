"""Pacemaker through its commands: attributes, properties, one snapshot of the CIB; what operators ask of resources.

House rules. One exec per function where Pacemaker allows it. A question that gets no answer raises `Unreachable`; an empty answer means that
there is nothing. Answers are those of this node's own copy, which a partition without quorum also writes: they carry messages, no decision
rests on them alone. Only XML is parsed. Nothing expensive is imported at the top: one-shot agents start often.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pha4pgsql import system, text
from pha4pgsql.words import EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pha4pgsql.text import Cluster

PROPERTY_SET = "pgsql_replication"
"""Where the properties of a resource `pgsql` live: users' scripts read `pgsql_REPL_INFO` there. Each set has its own."""

NO_SUCH_OBJECT = 105
"""CRM_EX_NOSUCH."""
INVALID_CONFIGURATION = 78
"""CRM_EX_CONFIG: what attrd_updater 2.1 also says of an attribute that nobody has set."""
OLD = 103
"""CRM_EX_OLD: the CIB has moved on."""


class Unreachable(EnvironmentFailure):
    """Pacemaker did not answer, so nothing is known: not the same as 'no' or 'none'."""

    code = 101


def attributes(name: str, timeout: float = 3.0) -> dict[str, str]:
    """The value of one node attribute (private ones too) on every node that has it, as this node's attrd knows it."""
    done = system.run(["attrd_updater", "--query", "--all", "--name", name, "--output-as=xml"], timeout=timeout)
    if done.code == NO_SUCH_OBJECT or (done.code == INVALID_CONFIGURATION and "does not exist" in done.out):
        return {}
    _accept(done, "attrd_updater")
    found = {one["host"]: one["value"] for one in text.elements(done.out, "attribute") if one.get("host")}
    return {node: value for node, value in found.items() if value}


def publish(name: str, value: str | None, *, private: bool = False, node: str | None = None, timeout: float = 5.0) -> None:
    """Set a transient attribute of this node (or `node`), or delete it (None). A private one never enters the CIB."""
    change = ["--delete"] if value is None or not value else [f"--update={value}"]
    place = [f"--node={node}"] if node else []
    kind = ["--private"] if private else []
    _accept(system.run(["attrd_updater", f"--name={name}", *place, *kind, *change], timeout=timeout), "attrd_updater")


def set_transient(changes: Mapping[tuple[str, str], str | None], timeout: float = 5.0) -> None:
    """Set transient attributes, (node, name) -> value or None, in the order given; promotion scores are `master-RESOURCE`.

    One exec each, about 8 ms: attrd_updater obeys only its last `--name`. The node must be one that Pacemaker knows.
    """
    for (node, name), value in changes.items():
        publish(name, value, node=node, timeout=timeout)


def set_permanent(
    changes: Mapping[tuple[str, str], str | None],
    properties: Mapping[str, str | None] | None = None,
    *,
    set_id: str = PROPERTY_SET,
    ids: Mapping[str, str] | None = None,
    timeout: float = 5.0,
) -> None:
    """Set permanent node attributes, (node, name) -> value, and cluster properties in one exec; those with None are deleted in one more.

    `ids` are the nodes' ids (`Cluster.members[...].id`); without them they are asked for, one exec more. In a partition without quorum this succeeds
    all the same, alone; at the moment of a cut it hangs until the membership changes.
    """
    properties = properties or {}
    given = {key: value for key, value in changes.items() if value}
    if given and ids is None:
        ids = node_ids(timeout)
    kept = {name: value for name, value in properties.items() if value}
    if given or kept:
        _cibadmin(["--modify", "--allow-create", "--xml-text", _fragment(given, kept, set_id, ids or {})], timeout)
    gone = [f"//nodes/node[@uname='{node}']/instance_attributes/nvpair[@name='{name}']" for (node, name), value in changes.items() if not value]
    gone += [f"//cluster_property_set[@id='{set_id}']/nvpair[@name='{name}']" for name, value in properties.items() if not value]
    if gone:
        _cibadmin(["--delete-all", "--force", "--xpath", "|".join(gone)], timeout, absent_is_fine=True)


def _fragment(given: Mapping[tuple[str, str], str], properties: Mapping[str, str], set_id: str, ids: Mapping[str, str]) -> str:
    """The piece of CIB that holds the new values, by the ids which crm_attribute uses too."""
    nodes = "".join(_node_fragment(node, name, value, ids) for (node, name), value in given.items())
    pairs = "".join(_pair(set_id, name, value) for name, value in properties.items())
    config = f'<crm_config><cluster_property_set id="{set_id}">{pairs}</cluster_property_set></crm_config>' if pairs else ""
    return f"<cib><configuration>{config}{f'<nodes>{nodes}</nodes>' if nodes else ''}</configuration></cib>"


def _node_fragment(node: str, name: str, value: str, ids: Mapping[str, str]) -> str:
    if node not in ids:
        raise EnvironmentFailure(f"Pacemaker knows no node {node}, it knows: {' '.join(sorted(ids))}", "compare node_list with `crm_node -l`")
    set_id = f"nodes-{ids[node]}"
    pair = _pair(set_id, name, value)
    return f'<node id="{ids[node]}" uname="{text.escape(node)}"><instance_attributes id="{set_id}">{pair}</instance_attributes></node>'


def _pair(set_id: str, name: str, value: str) -> str:
    return f'<nvpair id="{set_id}-{text.escape(name)}" name="{text.escape(name)}" value="{text.escape(value)}"/>'


def node_ids(timeout: float = 5.0) -> dict[str, str]:
    """Node name -> id of every node in the CIB."""
    answer = _cibadmin(["--query", "--xpath", "//nodes/node[@uname]", "--no-children"], timeout)
    return {one["uname"]: one["id"] for one in text.elements(answer, "node") if "uname" in one}


def read_cluster(timeout: float = 5.0) -> Cluster:
    """One snapshot of this node's copy of the CIB; needs no quorum."""
    from xml.etree import ElementTree

    return text.cluster(ElementTree.fromstring(cib(timeout)))  # noqa: S314


def cib(timeout: float = 5.0) -> str:
    """The CIB as this node has it, as XML."""
    return _cibadmin(["--query"], timeout)


def property(name: str, set_id: str = PROPERTY_SET, timeout: float = 3.0) -> str | None:  # noqa: A001
    """The value of one cluster property in the given set, or None when there is none; about 8 ms."""
    answer = _cibadmin(["--query", "--xpath", f"//cluster_property_set[@id='{set_id}']/nvpair[@name='{name}']"], timeout, absent_is_fine=True)
    return next((one.get("value", "") for one in text.elements(answer, "nvpair")), None)


def quorate(timeout: float = 3.0) -> bool:
    """Whether this node is in a partition with quorum: Corosync's own word, by exit code.

    Not asked of Pacemaker's controller, which sleeps a second at a time when it is the DC and busy.
    """
    done = system.run(["corosync-quorumtool", "-s"], timeout=timeout)
    if done.code == 2:
        return False
    _accept(done, "corosync-quorumtool")
    return True


def local_node(timeout: float = 3.0) -> str:
    """The name of this node in the cluster, which need not be its host name."""
    return _accept(system.run(["crm_node", "--name"], timeout=timeout), "crm_node").out.strip()


def status(timeout: float = 10.0) -> str:
    """`crm_mon` as XML: what the scheduler makes of the CIB, inactive resources, attributes and fail counts included."""
    return _accept(system.run(["crm_mon", "--one-shot", "--inactive", "--output-as=xml"], timeout=timeout), "crm_mon").out


def fail(resource: str, node: str, timeout: float = 5.0) -> None:
    """Report the resource as failed on the node, so that Pacemaker acts at once. Its exit code says nothing (facts: always 1)."""
    done = system.run(["crm_resource", "--fail", f"--resource={resource}", f"--node={node}"], timeout=timeout)
    if done.code in (124, 127):
        _accept(done, "crm_resource")


def cleanup(resource: str | None = None, timeout: float = 60.0, *, node: str = "") -> None:
    """Forget failures, of one resource or all, on one node or all, so that Pacemaker tries again."""
    which = [*([f"--resource={resource}"] if resource else []), *([f"--node={node}"] if node else [])]
    _accept(system.run(["crm_resource", "--cleanup", *which], timeout=timeout), "crm_resource")


def set_meta(resource: str, name: str, value: str | None, timeout: float = 10.0) -> None:
    """Set or remove (None) a meta attribute, e.g. target-role, on the resource itself."""
    change = [f"--delete-parameter={name}"] if value is None else [f"--set-parameter={name}", f"--parameter-value={value}"]
    _accept(system.run(["crm_resource", f"--resource={resource}", "--meta", *change], timeout=timeout), "crm_resource")


def set_parameter(resource: str, name: str, value: str, timeout: float = 10.0) -> None:
    """Set a parameter of a resource, or remove it (empty: the agent takes its default)."""
    change = [f"--set-parameter={name}", f"--parameter-value={value}"] if value else [f"--delete-parameter={name}"]
    _accept(system.run(["crm_resource", f"--resource={resource}", *change], timeout=timeout), "crm_resource")


def wait_settled(timeout: float) -> bool:
    """Wait until Pacemaker has nothing left to do; False when the time was not enough."""
    done = system.run(["crm_resource", "--wait", f"--timeout={max(1, int(timeout))}s"], timeout=timeout + 2)
    if done.code in (124, 62):
        return False
    _accept(done, "crm_resource")
    return True


def _cibadmin(arguments: Sequence[str], timeout: float, *, absent_is_fine: bool = False) -> str:
    deadline = time.monotonic() + timeout
    while True:
        done = system.run(["cibadmin", *arguments], timeout=max(0.05, deadline - time.monotonic()))
        if done.code == NO_SUCH_OBJECT and absent_is_fine:
            return ""
        if done.code != OLD or time.monotonic() >= deadline:
            return _accept(done, "cibadmin").out


def _accept(done: system.Completed, program: str) -> system.Completed:
    """Pass on a success; anything else means that the cluster could not be asked."""
    if done.ok:
        return done
    said = (done.err or done.out).strip().splitlines()
    seen = said[-1].strip() if said else f"exit code {done.code}"
    if done.code == 127:
        raise Unreachable(f"{program} cannot be run ({seen})", "install Pacemaker's command line tools (pacemaker-cli-utils, pacemaker-cli)")
    if done.code == 124:
        raise Unreachable(f"{program} got no answer from Pacemaker ({seen})", "see `pcs status` or the Pacemaker log on this node")
    raise Unreachable(f"{program} failed with exit code {done.code}: {seen}", "is the cluster running on this node? `pcs cluster start` starts it")
