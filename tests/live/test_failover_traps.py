"""Without fencing: partitions in which the old primary lives on, and what a heal brings back. Nothing acknowledged anywhere is ever lost."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from pha4pgsql.lab_words import PGDATA, Plan

if TYPE_CHECKING:
    from drill import Drill

PLAN = Plan("live-traps", fencing=False)
DAEMONS = "pacemaker"


def one_primary(drill: Drill) -> None:
    """Everything healed: whoever refuses is cloned anew, and then there is one primary and everybody follows it."""
    drill.restore()
    primaries = [name for name in drill.lab.members if drill.sql(name, "select pg_is_in_recovery()") == "f"]
    assert primaries == [drill.primary()]


@pytest.mark.parametrize("asleep", [False, True], ids=["cluster awake", "cluster asleep"])
def test_a_client_on_the_cut_primary(drill: Drill, *, asleep: bool) -> None:
    """It keeps writing where nobody hears it, also while the node's cluster daemons hang: it is told nothing that the others lack."""
    old = drill.primary()
    timeline = drill.timeline(old)
    with drill.writing() as outside, drill.writing(old, "127.0.0.1") as inside:
        inside.wait(50)
        if asleep:
            drill.must(old, "pkill", "-STOP", DAEMONS)
        began = time.monotonic()
        drill.lab.cut(old)
        drill.new_primary(old)
        drill.until(lambda: sum(ack.timeline > timeline for ack in outside.acks) >= 100, "the others go on")
        print(f"cut of {old}: outage {outside.outage(began):.2f} s; the client on it heard {sum(ack.at > began + 1 for ack in inside.acks)} acknowledgements")
        drill.lab.heal(old)
        if asleep:
            drill.must(old, "pkill", "-CONT", DAEMONS)
        outside.wait(200)
    assert drill.lost(outside, inside) == []
    one_primary(drill)
    assert drill.lost(outside, inside) == []


def test_an_isolated_cib_that_wins(drill: Drill) -> None:
    """The cut primary's CIB is written to again and again, and after the heal it replaces everybody's: only messages are lost by that."""
    old = drill.primary()
    timeline = drill.timeline(old)
    info = drill.status()["repl_info"]
    with drill.writing() as writing:
        drill.lab.cut(old)
        new = drill.new_primary(old)
        drill.until(lambda: sum(ack.timeline > timeline for ack in writing.acks) >= 50, "the others go on")
        for number in range(20):
            xml = (
                f'<cib admin_epoch="admin_epoch++"><configuration><crm_config><cluster_property_set id="pgsql_replication">'
                f'<nvpair id="pgsql_replication-pgsql_REPL_INFO" name="pgsql_REPL_INFO" value="{info}"/>'
                f'<nvpair id="pgsql_replication-pgsql_round" name="pgsql_round" value="{number % 2 + 1}"/>'
                "</cluster_property_set></crm_config></configuration></cib>"
            )
            drill.must(old, "cibadmin", "--modify", "--allow-create", "--xml-text", xml)
        drill.lab.heal(old)
        writing.wait(300)
        assert drill.timeline(new) >= timeline or drill.new_primary()
    assert drill.lost(writing) == []
    one_primary(drill)
    primary = drill.primary()
    drill.until(lambda: (drill.status()["repl_info"] or "").startswith(f"{primary}|"), "REPL_INFO names the primary again")
    assert drill.lost(writing) == []


@pytest.mark.parametrize("moment", ["promised", "reign"])
def test_a_cut_healed_in_the_middle_of_an_election(drill: Drill, moment: str) -> None:
    """The old primary is back just when another is being elected, or was: one of them reigns in the end, with every row."""
    old = drill.primary()
    states = {name: drill.state(name) for name in drill.lab.members if name != old}
    with drill.writing() as outside, drill.writing(old, "127.0.0.1") as inside:
        outside.wait(50)
        drill.lab.cut(old)
        drill.until(lambda: any(word(drill.state(name), moment) != word(states[name], moment) for name in states), f"{moment} changes", 30)
        drill.lab.heal(old)
        outside.wait(200)
    assert drill.lost(outside, inside) == []
    one_primary(drill)
    assert drill.lost(outside, inside) == []


def word(state: str, name: str) -> str:
    """One word of a state file."""
    return next((line.partition("=")[2] for line in state.splitlines() if line.startswith(f"{name}=")), "")


def test_one_timeline_number_made_twice(drill: Drill) -> None:
    """A new primary is cut off before anybody follows it, and the rest elects another one from the same point: two nodes made one timeline."""
    with drill.writing() as writing:
        writing.wait(50)
    first = drill.primary()
    [second] = drill.standbys("HS:sync")
    [third] = drill.standbys("HS:async")
    timeline = drill.timeline(first)
    drill.until(lambda: len({drill.sql(name, END) for name in drill.lab.members}) == 1, "all have the same WAL")
    reject(drill, second)
    drill.lab.cut(first)
    assert drill.new_primary(first) == second
    drill.lab.cut(second)
    made = drill.timeline(second)
    local = psql(drill, second)
    drill.lab.heal(first)
    new = drill.until(lambda: next((name for name in (first, third) if drill.sql(name, "select pg_is_in_recovery()") == "f"), ""), "another is elected")
    with drill.writing() as more:
        more.wait(50)
        assert (made, drill.timeline(new)) == (timeline + 1, timeline + 1), "two nodes made the same timeline"
        drill.lab.heal(second)
        more.wait(200)
    local.kill()
    local.communicate()
    allow(drill, second)
    assert drill.lost(writing, more) == []
    one_primary(drill)
    assert drill.lost(writing, more) == []
    assert {drill.sql(name, "select to_regclass('twice')") for name in drill.lab.members} == {""}


END = "select case when pg_is_in_recovery() then pg_last_wal_receive_lsn() else pg_current_wal_flush_lsn() end"


def psql(drill: Drill, node: str) -> subprocess.Popen[str]:
    """A commit on a node that nobody hears: it gives the node WAL which nobody else has."""
    statement = "create table twice as select 1"
    return drill.lab.popen(node, ["psql", "-X", "-h", "127.0.0.1", "-U", "postgres", "-d", "postgres", "-c", statement])


def reject(drill: Drill, node: str) -> None:
    """Let nobody replicate from a node."""
    drill.must(node, "sed", "-i", "1i host replication all 192.168.0.0/24 reject", f"{PGDATA}/pg_hba.conf")
    drill.sql(node, "select pg_reload_conf()")


def allow(drill: Drill, node: str) -> None:
    drill.lab.run(node, ["sed", "-i", "/reject$/d", f"{PGDATA}/pg_hba.conf"])
    drill.sql(node, "select pg_reload_conf()")
