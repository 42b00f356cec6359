"""pacemaker.py and the operators' commands on a real three-node Pacemaker, with its own Stateful agent standing in for ours."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pha4pgsql.lab_up import bring_up
from pha4pgsql.lab_words import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pha4pgsql.lab import Lab
    from pha4pgsql.system import Completed

ROOT = Path(__file__).parents[2]
AGENTS = "/usr/lib/ocf/resource.d"
ODD = "promised=3.node1;eras=1:0:0.,|<>&\"' %s \\"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
    pytest.mark.skipif(not shutil.which("pacemakerd", path="/usr/sbin:/sbin"), reason="Pacemaker is not installed"),
]


def address(name: str, ip: str) -> str:
    """An IPaddr2 primitive."""
    return (
        f'<primitive id="{name}" class="ocf" provider="heartbeat" type="IPaddr2"><instance_attributes id="{name}-i">'
        f'<nvpair id="{name}-ip" name="ip" value="{ip}"/><nvpair id="{name}-nic" name="nic" value="eth0"/></instance_attributes></primitive>'
    )


CONFIGURATION = f"""<configuration>
<crm_config><cluster_property_set id="cib-bootstrap-options">
<nvpair id="off" name="stonith-enabled" value="false"/></cluster_property_set></crm_config>
<resources>
{address("vip-master", "192.168.0.236")}
{address("vip-slave", "192.168.0.237")}
<clone id="msPostgresql"><meta_attributes id="ms"><nvpair id="ms-p" name="promotable" value="true"/>
<nvpair id="ms-t" name="target-role" value="Stopped"/>
</meta_attributes><primitive id="pgsql" class="ocf" provider="pha4pgsql" type="pgsql"/></clone></resources>
<constraints>
<rsc_location id="l1" rsc="msPostgresql" role="Promoted" node="node1" score="100"/>
<rsc_colocation id="c1" rsc="vip-master" with-rsc="msPostgresql" with-rsc-role="Promoted" score="INFINITY"/>
<rsc_colocation id="c2" rsc="vip-slave" with-rsc="msPostgresql" with-rsc-role="Unpromoted" score="INFINITY"/>
</constraints></configuration>"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Three nodes with quorum and a stand-in set."""
    nodes = bring_up(Plan(name="pacemaker", size=3), say=print, bare=True)
    try:
        for node in nodes.members:
            done(nodes, node, "install", "-d", f"{AGENTS}/pha4pgsql")
            done(nodes, node, "cp", f"{AGENTS}/pacemaker/Stateful", f"{AGENTS}/pha4pgsql/pgsql")
        until(lambda: all_online(nodes))
        done(nodes, "node1", "cibadmin", "--modify", "--allow-create", "--xml-text", CONFIGURATION)
        for node in nodes.members:
            status, data = ("PRI", "LATEST") if node == "node1" else ("HS:async", "STREAMING|ASYNC")  # as the agent would show where each is
            done(nodes, node, "attrd_updater", "-n", "pgsql-status", "-U", status)
            done(nodes, node, "attrd_updater", "-n", "pgsql-data-status", "-U", data)
        yield nodes
    finally:
        nodes.down()


def all_online(lab: Lab) -> bool:
    """Whether every node has joined; until Pacemaker has started, it cannot be asked."""
    completed = cls(lab, "node1", "cls_status", "--json")
    return completed.out.startswith("{") and [one["online"] for one in json.loads(completed.out)["nodes"]] == [True] * len(lab.members)


def done(lab: Lab, node: str, *argv: str) -> Completed:
    """Run a command that has to succeed."""
    completed = lab.run(node, list(argv), timeout=60)
    assert completed.ok, f"{' '.join(argv)}: {completed.code}\n{completed.out}\n{completed.err}"
    return completed


def cls(lab: Lab, node: str, command: str, *words: str) -> Completed:
    """Run one of our commands."""
    return lab.run(node, [str(ROOT / "bin" / command), *words], timeout=60)


def status(lab: Lab, node: str) -> dict[str, Any]:
    """What cls_status --json says."""
    completed = cls(lab, node, "cls_status", "--json")
    assert completed.code in {0, 1, 2}, completed.err
    found: dict[str, Any] = json.loads(completed.out)
    return found


def ask(lab: Lab, node: str, expression: str) -> str:
    """Evaluate an expression with pacemaker.py on a node."""
    code = f"import sys; sys.path[:0] = [{str(ROOT)!r}]; from pha4pgsql import pacemaker as p; print(repr({expression}))"
    return done(lab, node, "/usr/bin/python3", "-IS", "-c", code).out.strip()


def until(check: Callable[[], bool], limit: float = 30.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + limit
    while not check():
        assert time.monotonic() < end, f"not within {limit} s"
        time.sleep(0.1)


def test_a_private_attribute_reaches_the_other_nodes_exactly(lab: Lab) -> None:
    """Whatever printable text a vote holds; it never enters the CIB; deleted, it is absent."""
    ask(lab, "node1", f"p.publish('pgsql-vote', {ODD!r}, private=True)")
    until(lambda: ask(lab, "node2", "p.attributes('pgsql-vote')") == repr({"node1": ODD}))
    assert "pgsql-vote" not in done(lab, "node2", "cibadmin", "--query").out
    ask(lab, "node1", "p.publish('pgsql-vote', None, private=True)")
    until(lambda: ask(lab, "node2", "p.attributes('pgsql-vote')") == "{}")
    assert ask(lab, "node2", "p.attributes('never-set')") == "{}"


def test_scores_and_statuses_of_other_nodes(lab: Lab) -> None:
    """-INFINITY is a value like any other."""
    ask(lab, "node1", "p.set_transient({('node3', 'master-other'): '-INFINITY', ('node2', 'master-other'): '100'})")
    until(lambda: ask(lab, "node3", "p.read_cluster().attribute('master-other')") == repr({"node2": "100", "node3": "-INFINITY"}))


def test_permanent_attributes_and_properties_in_one_write(lab: Lab) -> None:
    """Seen on another node; the same again is no change of the CIB; deletion leaves nothing."""
    write = "p.set_permanent({('node1', 'x'): 'A|B', ('node2', 'x'): '<2>'}, {'pgsql_round': '7'})"
    ask(lab, "node1", write)
    until(lambda: ask(lab, "node3", "p.property('pgsql_round')") == "'7'")
    assert ask(lab, "node3", "p.read_cluster().attribute('x')") == repr({"node1": "A|B", "node2": "<2>"})
    before = ask(lab, "node1", "p.read_cluster().version[:2]")
    ask(lab, "node1", write)
    assert ask(lab, "node1", "p.read_cluster().version[:2]") == before
    ask(lab, "node1", "p.set_permanent({('node1', 'x'): None, ('node2', 'x'): None}, {'pgsql_round': None})")
    until(lambda: ask(lab, "node3", "(p.property('pgsql_round'), p.read_cluster().attribute('x'))") == "(None, {})")


def test_start_and_stop(lab: Lab) -> None:
    """The seed's closing lines; after a start everything serves, after a stop nothing runs, whatever ran before."""
    for _ in range(2):
        started = cls(lab, "node2", "cls_start")
        assert (started.code, started.out) == (0, "start resource successful\n"), started.err
        seen = status(lab, "node3")
        assert seen["primary"] == seen["vips"]["vip-master"] == cls(lab, "node1", "cls_master").out.strip()
        assert seen["vips"]["vip-slave"] not in {None, seen["primary"]}
    stopped = cls(lab, "node3", "cls_stop")
    assert (stopped.code, stopped.out) == (0, "stop resource successful\n"), stopped.err
    assert status(lab, "node1")["vips"] == {"vip-master": None, "vip-slave": None}
    assert cls(lab, "node1", "cls_master").code == 1


def test_start_says_what_is_missing(lab: Lab) -> None:
    """The primary serves, a standby does not replicate: code 2, the node and the reason."""
    done(lab, "node1", "attrd_updater", "-n", "pgsql-data-status", "-N", "node2", "-U", "DISCONNECT")
    started = cls(lab, "node1", "cls_start", "--timeout", "4")
    assert started.code == 2
    assert "node2" in started.err
    assert "DISCONNECT" in started.err
    done(lab, "node1", "attrd_updater", "-n", "pgsql-data-status", "-N", "node2", "-U", "STREAMING|ASYNC")
    assert cls(lab, "node1", "cls_start").code == 0


def test_maintenance_mode_is_told(lab: Lab) -> None:
    """Pacemaker would start nothing: no waiting for it."""
    done(lab, "node1", "crm_attribute", "-n", "maintenance-mode", "-v", "true")
    refused = cls(lab, "node1", "cls_stop")
    done(lab, "node1", "crm_attribute", "-n", "maintenance-mode", "-D")
    assert refused.code == 1
    assert "maintenance" in refused.err


def test_without_quorum(lab: Lab) -> None:
    """cls_status answers in time and says so; the commands that need the cluster's word refuse."""
    lab.cut("node1")
    try:
        until(lambda: not status(lab, "node1")["quorate"])
        begin = time.monotonic()
        shown = cls(lab, "node1", "cls_status", "--crm")
        assert time.monotonic() - begin < 5
        assert shown.code == 2
        assert "partition WITHOUT quorum" in shown.out
        assert shown.out.rstrip("\n").splitlines()[-1].startswith("pgsql_REPL_INFO:")
        assert [cls(lab, "node1", name).code for name in ("cls_master", "cls_start", "cls_stop", "cls_cleanup")] == [102] * 4
        until(lambda: status(lab, "node2")["primary"] in {"node2", "node3"})
    finally:
        lab.heal("node1")
    until(lambda: status(lab, "node1")["quorate"])


def test_where_no_cluster_runs(lab: Lab) -> None:
    """On any other machine: 101 and a hint."""
    for name in ("cls_status", "cls_master", "cls_start"):
        refused = cls(lab, "client", name)
        assert refused.code == 101
        assert "HINT:" in refused.err
