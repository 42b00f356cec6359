"""rep_mode=sync on three nodes with fencing: every way to lose a node, and no acknowledged row lost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from pha4pgsql.lab_words import Plan

if TYPE_CHECKING:
    from drill import Drill

PLAN = Plan("live-sync")
HEX16 = 16
CALM = 5.0
"""No outage of a cluster in which nothing happens is longer than this."""


def test_attributes_after_bring_up(drill: Drill) -> None:
    """What the seed's cls_status shows of a healthy set."""
    status = drill.status()
    primary = status["primary"]
    rows = {row["name"]: row for row in status["nodes"]}
    shown = sorted((row["data_status"], row["status"], row["score"]) for row in rows.values())
    assert shown == [("LATEST", "PRI", "1000"), ("STREAMING|ASYNC", "HS:async", "-INFINITY"), ("STREAMING|SYNC", "HS:sync", "100")]
    assert len(rows[primary]["baseline"]) == HEX16
    assert [name for name in rows if rows[name]["baseline"]] == [primary]
    node, timeline, position = status["repl_info"].split("|")
    assert (node, len(position)) == (primary, HEX16)
    assert int(timeline) == drill.timeline(primary) - 1
    assert status["quorate"] is True
    assert status["vips"]["vip-master"] == primary
    assert status["vips"]["vip-slave"] in set(rows) - {primary}
    text = drill.must(drill.lab.members[0], "cls_status").out
    assert f"pgsql_REPL_INFO:{status['repl_info']}" in text


@pytest.mark.parametrize("fault", ["kill-postgres", "crash", "cut"])
def test_change_of_role(drill: Drill, fault: str) -> None:
    """The primary is lost under load: another takes over on the next timeline, with every acknowledged row."""
    change_of_role(drill, fault)


def change_of_role(drill: Drill, fault: str) -> None:
    """One loss of the primary, and all that has to be true after it."""
    old = drill.primary()
    timeline = drill.timeline(old)
    with drill.writing() as writing:
        writing.wait(100)
        began = time.monotonic()
        drill.lab.act(fault, old)
        new = drill.new_primary(old)
        drill.until(lambda: sum(ack.timeline > timeline for ack in writing.acks) >= 100, "100 rows are acknowledged by the new primary")
        print(f"{fault} of {old}, {new} takes over: outage {writing.outage(began):.2f} s")
    assert drill.lost(writing) == []
    assert drill.timeline(new) == timeline + 1
    drill.until(lambda: (drill.status()["repl_info"] or "").startswith(f"{new}|{timeline}|"), "REPL_INFO names the new primary")
    drill.until(lambda: drill.ask(drill.lab.reader_vip, "select pg_is_in_recovery()") == "t", "the reader address leads to a standby")
    assert drill.status()["vips"]["vip-master"] == new


def diverge(drill: Drill) -> tuple[str, str]:
    """Kill the primary while it has WAL which no standby got; returns the old and the new primary."""
    old = drill.primary()
    drill.signal(old, "walsender", "STOP")
    stuck = drill.lab.popen(old, ["psql", "-X", "-h", "127.0.0.1", "-U", "postgres", "-d", "postgres", "-c", "create table lost as select 1"])
    drill.until(lambda: drill.sql(old, "select count(*) from pg_stat_activity where wait_event = 'SyncRep' and query like '%lost%'") != "0", "it waits")
    drill.lab.kill_postgres(old)
    stuck.kill()
    stuck.communicate()
    return old, drill.new_primary(old)


def test_a_diverged_old_primary_refuses_to_start(drill: Drill) -> None:
    """It says so in the seed's words, the new primary is left in peace, and a clone brings the node back."""
    old, new = diverge(drill)
    drill.until(lambda: old in drill.diverged(), f"the start of {old} is refused")
    said = next(str(action) for action in drill.status()["failed_actions"] if "forked off" in str(action))
    assert "forked off current database system timeline" in said
    with drill.writing() as writing:
        drill.stays(lambda: drill.primary() == new and not drill.lab.run(old, ["pgrep", "-x", "postgres"]).ok, f"{new} reigns, {old} stays down", 15)
        writing.wait(10)
        assert writing.outage(writing.acks[0].at) < CALM
    assert drill.lost(writing) == []
    drill.rebuild(old, new)
    drill.healthy()
    assert drill.sql(old, "select to_regclass('lost')") == ""
