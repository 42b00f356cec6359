"""The chapters of operations of the shell pha4pgsql's walkthrough, in its order and with its command lines, on three nodes without fencing as there.

Interfaces go down by `ip link` where it types `ifconfig`. Its chapters on readers are test_read_balancing.py. What is printed is docs/walkthrough.md.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from drill import diverge
from switching import run

from pha4pgsql.lab_words import NIC, PGDATA, Plan

if TYPE_CHECKING:
    from drill import Drill

    from pha4pgsql.system import Completed

PLAN = Plan("live-walk", fencing=False, settings=(("pgsql_auto_rejoin", "no"),))
"""Nothing repairs itself until the last chapter, which turns that on: the walkthrough repairs by hand."""

pytestmark = pytest.mark.timeout(200)
REFUSED, USAGE = 10, 100
WRITE = "insert into orders values (1)"


def typed(drill: Drill, node: str, line: str) -> Completed:
    """What somebody types on a node."""
    return run(drill, node, *line.split(" "))


def shown(drill: Drill, node: str, *patterns: str) -> None:
    """`cls_status --crm`, the walkthrough's form of it, until it has these lines."""

    def fits() -> str:
        text = drill.lab.run(node, ["cls_status", "--crm"]).out
        return text if all(re.search(pattern, text, re.MULTILINE) for pattern in patterns) else ""

    print(f"[{node}]# cls_status --crm\n{drill.until(fits, f'cls_status --crm on {node} has {patterns}')}")


def standing(node: str, data_status: str, status: str, score: str) -> str:
    """A node's attributes as the walkthrough shows them."""
    others = r"(?: +\+ .*\n)*?"
    wanted = (("master-pgsql", score), ("pgsql-data-status", data_status), ("pgsql-status", status))
    return rf"^\* Node {node}:\n" + r"\n".join(rf"{others} +\+ {name} +: {value} *" for name, value in wanted) + "$"


PRIMARY, SYNC, ASYNC = ("LATEST", "PRI", "1000"), (r"STREAMING\|SYNC", "HS:sync", "100"), (r"STREAMING\|ASYNC", "HS:async", "-INFINITY")


def link(drill: Drill, node: str, state: str) -> None:
    """`ifconfig ens37 down` and up."""
    assert typed(drill, node, f"ip link set {NIC} {state}").ok


def outcast(drill: Drill, old: str) -> str:
    """The primary's interface goes down while a client on its node writes; another node takes over; the new primary.

    What the client wrote was never acknowledged, and only the old primary has it.
    """
    drill.sql(old, "create table if not exists orders (id int)")
    link(drill, old, "down")
    client = drill.lab.popen(old, ["psql", "-X", "-U", "postgres", "-c", WRITE])
    new = drill.new_primary(old)
    out, err = client.communicate(timeout=60)
    print(f"[{old}]# psql -U postgres -c '{WRITE}'\n{err}{out}-> {client.returncode}")
    assert "INSERT" not in out, "it was acknowledged on the node that was cut off"
    drill.until(lambda: not drill.runs(old), f"PostgreSQL of {old} is stopped: it has no quorum")
    return new


def test_the_cluster_is_started(drill: Drill) -> None:
    """cls_start ends with its line, cls_status shows the walkthrough's picture, and the addresses are where they are there."""
    assert typed(drill, "node1", "cls_start").out == "start resource successful\n"
    [sync], [other] = drill.standbys("HS:sync"), drill.standbys("HS:async")
    shown(
        drill, "node1", standing("node1", *PRIMARY), standing(sync, *SYNC), standing(other, *ASYNC), r"^pgsql_REPL_INFO:node1\|1\|[0-9A-F]{16}$",
        r"^ vip-master .*Started node1$", r"^ vip-slave .*Started node[23]$", r"^     Promoted: \[ node1 \]$",
        r"^     Unpromoted: \[ node2 node3 \]$",
    )  # fmt: skip
    assert typed(drill, "node2", "cls_status").ok
    assert typed(drill, "node3", "cls_master").out == "node1\n"


def test_the_primary_fails_and_is_repaired(drill: Drill) -> None:
    """The interface of the primary goes down and up; it refuses to start with the walkthrough's words, and cls_repair_by_pg_rewind brings it back."""
    old = drill.primary()
    with drill.writing() as writing:
        new = outcast(drill, old)
        [other] = set(drill.lab.members) - {old, new}
        writing.wait(20)
        number = drill.timeline(new) - 1
        shown(
            drill, new, standing(new, *PRIMARY), standing(other, *SYNC), rf"^OFFLINE: \[ {old} \]$",
            rf"^pgsql_REPL_INFO:{new}\|{number}\|[0-9A-F]{{16}}$", rf"^ vip-master .*Started {new}$", rf"^ vip-slave .*Started {other}$",
        )  # fmt: skip
        typed(drill, new, "cls_status")
        typed(drill, old, "cls_status")
        assert not typed(drill, old, "pgrep -a postgres").ok
        link(drill, old, "up")
        shown(drill, new, standing(old, "DISCONNECT", "STOP", "-INFINITY"), r"exitreason='The master's timeline forked off current database")
        typed(drill, new, "cls_status")
        done = typed(drill, old, "cls_repair_by_pg_rewind")
        assert (done.code, done.out) == (0, f"slave recovery of {old} successed\n"), done
        for line in (
            "servers diverged at WAL",
            "rewinding from last common checkpoint",
            "pg_rewind: Done!",
            "pg_rewind complete!",
            "recovery complete",
        ):
            assert line in done.err, done
        shown(drill, old, standing(new, *PRIMARY), standing(other, *SYNC), standing(old, *ASYNC), rf"^pgsql_REPL_INFO:{new}\|{number}\|")
        assert typed(drill, old, "cls_status").ok
        writing.wait(20)
    assert drill.lost(writing) == []
    assert drill.sql(new, "select count(*) from orders") == "0"
    typed(drill, new, "cls_history")


def test_a_standby_fails(drill: Drill) -> None:
    """Its interface goes down: writes go on; up: it is back without a command."""
    primary, [node] = drill.primary(), drill.standbys("HS:sync")
    with drill.writing() as writing:
        link(drill, node, "down")
        shown(drill, primary, rf"^OFFLINE: \[ {node} \]$", r"STREAMING\|SYNC")
        typed(drill, primary, "cls_status")
        writing.wait(50)
        link(drill, node, "up")
        drill.healthy()
    assert drill.primary() == primary
    assert drill.lost(writing) == []


def test_the_old_primary_is_copied_anew(drill: Drill) -> None:
    """cls_rebuild_slave ends with its line; it needs no empty directory."""
    with drill.writing() as writing:
        old, new = diverge(drill)
        drill.until(lambda: old in drill.diverged(), f"the start of {old} is refused")
        done = typed(drill, old, "cls_rebuild_slave")
        assert (done.code, done.out) == (0, f"slave recovery of {old} successed\n"), done
        writing.wait(20)
    assert [name for name in drill.must(old, "ls", PGDATA.rpartition("/")[0]).out.split() if ".before-" in name]
    assert typed(drill, new, "cls_status").ok
    assert drill.lost(writing) == []


def test_the_primary_is_moved_and_everything_else_that_is_typed(drill: Drill) -> None:
    """Each command of the shell pha4pgsql with its ends: the line that scripts wait for, and the code of its refusal."""
    old, [target] = drill.primary(), drill.standbys("HS:sync")
    done = typed(drill, old, "cls_online_switch")
    assert (done.code, done.out) == (0, f"online switch successed,the new master is {drill.primary()}\n"), done
    done = typed(drill, old, f"cls_online_switch {old}")
    assert (done.code, done.out) == (0, f"online switch successed,the new master is {old}\n"), done
    for line, code in (
        ("cls_online_switch node9", REFUSED), (f"cls_online_switch {old}", REFUSED), ("cls_reset_master --yes", REFUSED),
        ("cls_repair_by_pg_rewind", USAGE), ("cls_rebuild_slave", USAGE), ("cls_standby_node", USAGE), ("cls_standby_node node9", 1),
    ):  # fmt: skip
        assert typed(drill, old, line).code == code
    for line in (f"cls_standby_node {target}", f"cls_unstandby_node {target}", f"cls_maintenance_node {target}", f"cls_unmaintenance_node {target}",
                 "cls_maintenance", "cls_unmaintenance", "cls_cleanup"):  # fmt: skip
        assert typed(drill, old, line).ok
    assert typed(drill, old, "cls_stop").out == "stop resource successful\n"
    assert not drill.primary()
    assert typed(drill, target, "cls_repair_by_pg_rewind").code == REFUSED
    assert typed(drill, old, "cls_start --timeout 60").out == "start resource successful\n"


def test_the_primary_fails_and_repairs_itself(drill: Drill) -> None:
    """With auto_rejoin=rewind, the template's default, the same fault needs the interface and nothing else."""
    assert typed(drill, "node1", "pcs resource update pgwatch auto_rejoin=rewind").ok
    drill.healthy()
    old = drill.primary()
    with drill.writing() as writing:
        new = outcast(drill, old)
        link(drill, old, "up")
        drill.until(lambda: (drill.standing(old)[0] or "").startswith("STREAMING|"), f"{old} streams again by itself", 90)
        writing.wait(20)
    assert "rewind begins" in typed(drill, old, "cat /var/lib/pgsql/tmp/pgsql.rejoin.log").out
    drill.healthy()
    assert typed(drill, new, "cls_status").ok
    typed(drill, new, "cls_history")
    assert drill.lost(writing) == []


@pytest.fixture(autouse=True)
def connected(cluster: Drill) -> None:
    """Every interface is up, before the cluster is looked at."""
    for node in cluster.lab.members:
        cluster.must(node, "ip", "link", "set", NIC, "up")
