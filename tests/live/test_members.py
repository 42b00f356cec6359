"""cls_member under load: five members become three and five again, however it is interrupted; a standby outside confirms meanwhile."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from drill import change_of_role

from pha4pgsql.lab_words import PGDATA, Plan

if TYPE_CHECKING:
    import subprocess

    from drill import Drill

    from pha4pgsql.system import Completed

PLAN = Plan("live-members", size=5, settings=(("pgsql_rep_mode", "quorum"), ("pgsql_external_standby_node_list", "dr1")))

pytestmark = pytest.mark.timeout(400)


def member(drill: Drill, node: str, *words: str, timeout: float = 200.0) -> Completed:
    return drill.lab.run(node, ["cls_member", *words], timeout=timeout)


def listed(drill: Drill) -> dict[str, Any]:
    """What cls_member list shows."""
    for name in drill.up:
        done = member(drill, name, "list", "--json", timeout=20)
        if done.ok:
            found: dict[str, Any] = json.loads(done.out)
            return found
    return {}


def is_list(drill: Drill, members: list[str], k: int) -> bool:
    """Whether that is the list, stored by all of its members."""
    seen = listed(drill)
    if not seen or seen["joint"] or sorted(seen["elects"]) != sorted(members) or seen["k"] != k:
        return False
    return all(seen["stored"].get(name) == seen["number"] for name in members)


def killed_in_the_middle(drill: Drill, node: str, verb: str, target: str) -> str:
    """Begin a change, kill the primary's PostgreSQL while the first list is about, run the command again; the primary of then."""
    old = drill.primary()
    number = listed(drill)["number"]
    process = drill.lab.popen(node, ["cls_member", verb, target, "--yes"])
    drill.until(lambda: listed(drill).get("number") not in (None, number), "the first list of the change is stored")
    drill.lab.act("kill-postgres", old)
    print(f"{old} killed with the list {listed(drill)}")
    process.communicate()
    new = drill.new_primary()
    if verb == "remove" and new == target:  # it had not heard of the change, and the others could not win
        refused = member(drill, node, verb, target, "--yes")
        assert refused.code == 1, refused
        assert "HINT: cls_online_switch" in refused.err
        drill.must(node, "cls_online_switch", timeout=100)
    done = member(drill, node, verb, target, "--yes")
    assert done.ok, done
    print(done.err)
    return drill.primary()


def test_five_become_three_and_five_again(drill: Drill) -> None:
    """k follows the list, no row is lost, every list elects; whoever leaves ends with PostgreSQL stopped and no slot."""
    names = list(drill.lab.members)
    primary = drill.primary()
    first, second = [name for name in names if name != primary][-2:]
    worker = next(name for name in names if name not in (primary, first, second))
    with drill.writing() as writing:
        began = time.monotonic()
        done = member(drill, worker, "remove", first, "--yes")
        assert done.ok, done
        assert done.out == f"{first} is no member of msPostgresql any more\n"
        four = [name for name in names if name != first]
        drill.until(lambda: is_list(drill, four, 2), "four members, two confirm")
        assert not drill.runs(first)
        assert first not in drill.names(primary)
        print(f"{first} removed in {time.monotonic() - began:.1f} s, outage {writing.outage(began):.2f} s")
        killed_in_the_middle(drill, worker, "remove", second)
        three = [name for name in four if name != second]
        drill.until(lambda: is_list(drill, three, 1), "three members, one confirms")
        slots = drill.sql(drill.primary(), "select string_agg(slot_name, ' ') from pg_replication_slots")
        assert first not in slots
        assert second not in slots
        print(f"list {listed(drill)}, slots {slots}")
    assert drill.lost(writing) == []


def test_three_fail_over(cluster: Drill) -> None:
    """The shorter list elects."""
    change_of_role(cluster, "kill-postgres")


OUTSIDE = "/pgsql/dr1"
"""Where a server that Pacemaker knows nothing of has its data, on a node that is no member."""


def outside(drill: Drill, node: str) -> None:
    """A standby as an operator of a disaster site makes it: a copy, its name, the slot that every primary has for it."""
    conninfo = f"host={drill.lab.writer_vip} user=replication passfile=/var/lib/pgsql/tmp/pgpass application_name=dr1"
    copy = ["pg_basebackup", "-w", "-D", OUTSIDE, "-d", conninfo, "-X", "stream", "-c", "fast", "-S", "pgsql_outside_dr1"]
    drill.must(node, *copy, user="postgres", timeout=100)
    lines = f"primary_conninfo = '{conninfo}'\nprimary_slot_name = 'pgsql_outside_dr1'\nsynchronous_standby_names = ''\n"
    drill.must(node, "sh", "-c", f'printf "{lines}" >> {OUTSIDE}/postgresql.auto.conf; touch {OUTSIDE}/standby.signal', user="postgres")
    drill.must(node, "pg_ctl", "-D", OUTSIDE, "-l", "/tmp/dr1.log", "-w", "start", user="postgres")


def test_a_standby_outside_confirms(cluster: Drill) -> None:
    """While it streams each commit is on it and on a member; its loss stalls none for long, and a new primary takes it up again."""
    drill = cluster
    node = next(name for name in drill.lab.members if name not in listed(drill)["elects"])
    outside(drill, node)
    drill.until(lambda: drill.names(drill.primary()).startswith("ANY 2 (") and '"dr1"' in drill.names(drill.primary()), "dr1 is named")
    with drill.writing() as writing:
        row = drill.sql(drill.primary(), "create table seen_outside as select 1; select pg_current_wal_lsn()")
        assert drill.sql(node, "select to_regclass('seen_outside') is not null or pg_last_wal_receive_lsn() >= '" + row + "'") == "t"
        change_of_role(drill, "kill-postgres")
        drill.until(lambda: '"dr1"' in drill.names(drill.primary()), "the new primary names dr1")
        writing.wait(50)
        began = time.monotonic()
        drill.must(node, "pg_ctl", "-D", OUTSIDE, "-m", "immediate", "stop", user="postgres")
        writing.wait(50, after=began)
        print(f"dr1 killed: outage {writing.outage(began):.2f} s, the set is {drill.names(drill.primary())}")
        assert writing.outage(began) < 10
        drill.until(
            lambda: drill.names(drill.primary()).startswith("ANY 1 (") and '"dr1"' not in drill.names(drill.primary()), "dr1 is named no more"
        )
    assert drill.lost(writing) == []
    drill.must(node, "rm", "-rf", OUTSIDE)


def copying(drill: Drill, node: str) -> subprocess.Popen[str]:
    """cls_member add, in the middle of its copy."""
    running = drill.lab.popen(node, ["cls_member", "add", node, "--yes", "--max-rate", "2M"])
    drill.until(lambda: drill.lab.run(node, ["test", "-d", f"{PGDATA}.copy/base"]).ok or running.poll() is not None, "the copy grows")
    assert running.poll() is None, running.communicate()
    return running


def test_adding_is_interrupted(cluster: Drill) -> None:
    """SIGINT and SIGKILL in the middle of the copy, for a node without data: the same command, run again, ends it."""
    drill = cluster
    node = next(name for name in drill.lab.members if name not in listed(drill)["elects"])
    drill.must(node, "sh", "-c", f"rm -rf {PGDATA}/* /var/lib/pgsql/tmp/pgsql.state")
    with drill.writing() as writing:
        for signal, code in (("INT", 130), ("KILL", -9)):
            running = copying(drill, node)
            assert drill.lab.run(node, ["pkill", f"-{signal}", "-f", "cls_member"]).ok
            running.communicate(timeout=60)
            print(f"SIG{signal}: exit {running.returncode}, {drill.status().get('change')}")
            assert running.returncode in {code, 128 + abs(code)}, running.returncode
            assert node not in listed(drill)["confirms"]
        done = member(drill, node, "add", node, "--yes")
        assert done.ok, done
        print(done.err)
        drill.until(lambda: node in listed(drill)["confirms"], f"{node} is a member")
        writing.wait(50)
    assert drill.lost(writing) == []


def test_a_member_is_added_under_load(cluster: Drill) -> None:
    """One comes back with what it has; the primary is killed in the middle."""
    drill = cluster
    node = next(name for name in drill.lab.members if name not in listed(drill)["elects"])
    with drill.writing() as writing:
        drill.until(lambda: not listed(drill)["joint"], "no change is under way")
        began = time.monotonic()
        killed_in_the_middle(drill, node, "add", node)
        drill.until(lambda: is_list(drill, list(drill.lab.members), 2), "five members, two confirm")
        print(f"{node} added in {time.monotonic() - began:.1f} s, outage {writing.outage(began):.2f} s")
        writing.wait(50)
    assert drill.lost(writing) == []


def test_a_dead_member_is_removed(drill: Drill) -> None:
    """Its node is off: nobody waits for it; switched on again it stays out, and comes back as any other, killed in its maintenance or not."""
    node = next(name for name in drill.lab.members if name != drill.primary())
    worker = next(name for name in drill.lab.members if name != node)
    with drill.writing() as writing:
        drill.lab.crash(node)
        drill.until(lambda: any(row["name"] == node and not row["online"] for row in drill.status(worker)["nodes"]), f"{node} is offline")
        done = member(drill, worker, "remove", node, "--yes")
        assert done.ok, done
        print(done.err)
        four = [name for name in drill.lab.members if name != node]
        drill.until(lambda: is_list(drill, four, 2), "four members, two confirm")
        drill.lab.boot(node)
        drill.until(lambda: any(row["name"] == node and row["online"] for row in drill.status(worker)["nodes"]), f"{node} is online")
        assert not drill.runs(node)
        running = drill.lab.popen(node, ["cls_member", "add", node, "--yes"])
        drill.until(lambda: held(drill) or running.poll() is not None, "the moment of maintenance")
        assert drill.lab.run(node, ["pkill", "-KILL", "-f", "cls_member"]).ok
        running.communicate(timeout=60)
        assert held(drill)
        done = member(drill, node, "add", node, "--yes")
        assert done.ok, done
        print(done.err)
        assert not held(drill)
        drill.until(lambda: is_list(drill, list(drill.lab.members), 2), "five members, two confirm")
        writing.wait(50)
    assert drill.lost(writing) == []


def held(drill: Drill) -> bool:
    """Whether a command of ours has, or has left, resources in maintenance."""
    return "pha4pgsql-hold-" in drill.must(drill.up[0], "cibadmin", "--query", "--scope=resources").out


def test_five_fail_over(cluster: Drill) -> None:
    """The longer list elects, and two of it may be lost."""
    drill = cluster
    old = drill.primary()
    other = next(name for name in drill.lab.members if name != old)
    with drill.writing() as writing:
        writing.wait(50)
        drill.lab.crash(old, other)
        new = drill.new_primary(old, other)
        began = time.monotonic()
        writing.wait(50, after=began)
        assert drill.names(new).startswith("ANY 2 ")
    assert drill.lost(writing) == []


def test_refused(drill: Drill) -> None:
    """What cannot be done is refused with its reason, and nothing is changed."""
    primary = drill.primary()
    other = next(name for name in drill.lab.members if name != primary)
    before = drill.must(other, "cibadmin", "--query", "--scope=configuration").out
    assert member(drill, other, "remove", primary, "--yes").code == 1
    assert member(drill, other, "add", "nowhere", "--yes").code == 1
    assert member(drill, other, "remove", "nowhere", "--yes").code == 1
    assert member(drill, other, "remove").code == 100
    assert member(drill, other, "remove", other, "--dry-run").code == 0
    assert drill.must(other, "cibadmin", "--query", "--scope=configuration").out == before
