"""three_plus_x: node4 only reads. It follows whoever is primary, and nothing of the set's safety ever counts it. And tags, set by an operator."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pha4pgsql.lab_words import Plan

if TYPE_CHECKING:
    from drill import Drill

PLAN = Plan("live-plus-x", size=4, template="three_plus_x", settings=(("enable_lvs", "false"),))
READER = "node4"
VOTERS = ("node1", "node2", "node3")


def follows(drill: Drill, node: str, primary: str) -> bool:
    """Whether a standby streams from this primary, through its slot."""
    statement = f"select count(*) from pg_stat_replication join pg_replication_slots on active_pid = pid where application_name = '{node}'"  # noqa: S608
    return drill.sql(primary, statement) == "1"


def located(drill: Drill, resource: str) -> str:
    """Where Pacemaker runs a resource, in its own words."""
    return drill.must(drill.up[0], "crm_resource", "--locate", "--resource", resource).out


def tag(drill: Drill, node: str, name: str, value: str = "") -> None:
    """What an operator types."""
    change = ("--update", value) if value else ("--delete",)
    drill.must(drill.up[0], "crm_attribute", "--node", node, "--name", f"pgsql-{name}", *change)


def test_a_reader_after_bring_up(drill: Drill) -> None:
    """It streams, it is shown, it has no score, no vote, no watcher, and no commit waits for it."""
    primary = drill.primary()
    assert primary in VOTERS
    assert drill.standing(READER) == ("STREAMING|ASYNC", "HS:async", "-INFINITY")
    assert follows(drill, READER, primary)
    assert READER not in drill.names(primary)
    assert "said=0.:0:\n" in drill.state(READER)
    watched = drill.until(
        lambda: where if all(node in (where := located(drill, "pgwatch")) for node in VOTERS) else "", "every member has its watcher"
    )
    assert READER not in watched


def test_a_failover_to_the_one_that_may(drill: Drill) -> None:
    """The synchronous standby is tagged nofailover: the set moves to the other one at once, which is promoted when the primary dies."""
    primary = drill.primary()
    (tagged,) = drill.standbys("HS:sync")
    other = next(node for node in VOTERS if node not in (primary, tagged))
    tag(drill, tagged, "nofailover", "true")
    try:
        drill.until(lambda: drill.names(primary) == f'"{other}"', f"{other} is named instead of {tagged}")
        assert drill.until(lambda: drill.standing(other) == ("STREAMING|SYNC", "HS:sync", "100"), f"{other} may be promoted")
        with drill.writing() as writing:
            drill.signal(primary, f"walsender .*{drill.lab.address(tagged)}", "STOP")  # if it alone got the last record, it alone could win
            began = time.monotonic()
            drill.lab.crash(primary)
            assert drill.new_primary(primary) == other
            writing.wait(100)
            print(f"crash of {primary}, {other} takes over: outage {writing.outage(began):.2f} s")
            drill.until(lambda: follows(drill, READER, other), f"{READER} follows {other}")
        assert drill.lost(writing) == []
        assert drill.names(other) == f'"{tagged}"', "it confirms commits all the same"
    finally:
        tag(drill, tagged, "nofailover")


def test_a_reader_is_no_second_copy(drill: Drill) -> None:
    """Both other members are down, the reader streams: the primary goes on alone by the voices of their watchers, not because of it."""
    primary = drill.primary()
    others = [node for node in VOTERS if node != primary]
    with drill.writing() as writing:
        for node in others:
            drill.must(node, "sh", "-c", "kill -9 $(head -1 /pgsql/data/postmaster.pid)")
        drill.ban(*others)
        drill.until(lambda: drill.names(primary) == "" and drill.sql(primary, "select 1") == "1", f"{primary} goes on alone")
        assert follows(drill, READER, primary)
        voices = drill.voices(primary)
        assert len(voices) >= 2
        assert READER not in voices
        writing.wait(50)
        drill.admit(*others)
        drill.healthy()
    assert drill.lost(writing) == []


def test_without_the_three_nobody_is_promoted(drill: Drill) -> None:
    """PostgreSQL of all members is stopped: the reader stays a standby, and follows again when they are back."""
    with drill.writing() as writing:
        drill.ban(*VOTERS)
        drill.until(lambda: not any(drill.runs(node) for node in VOTERS), "PostgreSQL of the three has stopped")
        drill.stays(lambda: drill.sql(READER, "select pg_is_in_recovery()") == "t" and not drill.primary(), f"{READER} is no primary", 3)
        drill.admit(*VOTERS)
        drill.healthy()
        writing.wait(50)
    assert drill.lost(writing) == []
    drill.until(lambda: follows(drill, READER, drill.primary()), f"{READER} follows again")
