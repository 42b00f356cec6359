"""sync_strict, without fencing: without k standbys commits wait, and no word of alone is ever said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drill import one_primary

from pha4pgsql.lab_words import PGDATA, Plan

if TYPE_CHECKING:
    import subprocess

    from drill import Drill

PLAN = Plan("live-strict", fencing=False, settings=(("pgsql_sync_strict", "true"),))
END = "select case when pg_is_in_recovery() then pg_last_wal_receive_lsn() else pg_current_wal_flush_lsn() end"


def test_loss_of_both_standbys(drill: Drill) -> None:
    """Commits wait until a standby is back; the primary stays primary, and the set of names never becomes empty."""
    primary = drill.primary()
    others = [name for name in drill.lab.members if name != primary]
    with drill.writing() as writing:
        drill.lab.kill_postgres(*others)
        drill.ban(*others)
        drill.until(lambda: not any(drill.runs(name) for name in others), "no standby runs")
        last = writing.acks[-1].at
        drill.stays(lambda: writing.acks[-1].at == last and drill.primary() == primary and not drill.voices(primary), "commits wait", 12)
        drill.admit(others[0])
        writing.wait(50)
    assert "" not in drill.names_given(primary)
    assert drill.lost(writing) == []


def test_nobody_is_promoted_without_answers(drill: Drill) -> None:
    """Primary and one standby are off: the third has no quorum, and with its first companion back nothing is lost."""
    old = drill.primary()
    [sync] = drill.standbys("HS:sync")
    [third] = drill.standbys("HS:async")
    with drill.writing() as writing:
        writing.wait(50)
        drill.lab.crash(old, sync)
        drill.stays(lambda: drill.sql(third, "select pg_is_in_recovery()") != "f", f"{third} is no primary", 8)
        drill.lab.boot(sync)
        new = drill.new_primary(old)
        writing.wait(50)
        print(f"{new} takes over")
    assert drill.lost(writing) == []


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
    drill.until(lambda: drill.sql(second, "select pg_is_in_recovery()") == "f", f"{second} is promoted")
    drill.lab.cut(second)
    made = drill.timeline(second)
    local = psql(drill, second)
    drill.lab.heal(first)
    recovery = "select pg_is_in_recovery()"
    new = drill.until(lambda: next((name for name in (first, third) if drill.sql(name, recovery) == "f"), ""), "another is elected")
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
