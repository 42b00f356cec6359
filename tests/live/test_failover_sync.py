"""rep_mode=sync on three nodes with fencing: every way to lose a node, and no acknowledged row lost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from drill import alone, change_of_role, diverge

from pha4pgsql.lab_words import Plan

if TYPE_CHECKING:
    from drill import Drill

PLAN = Plan("live-sync", settings=(("pgsql_auto_rejoin", "no"),))
HEX16 = 16
MUTE = """
import socket, sys, time
held = []
while True:
    try:
        held = held[-150:] + [socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=0.2)]
    except OSError:
        time.sleep(0.02)
"""
"""A client that connects again and again, keeps its last connections open, and says nothing: not even who it is."""
MINUTE = 60.0
"""authentication_timeout: how long such a client may stay."""
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
    text = drill.must(drill.lab.members[0], "cls_status", "--crm").out
    assert f"pgsql_REPL_INFO:{status['repl_info']}" in text


@pytest.mark.parametrize("fault", ["kill-postgres", "crash", "cut"])
def test_change_of_role(drill: Drill, fault: str) -> None:
    """The primary is lost under load: another takes over on the next timeline, with every acknowledged row."""
    change_of_role(drill, fault)


def test_a_diverged_old_primary_refuses_to_start(drill: Drill) -> None:
    """It says so in the seed's words, the new primary is left in peace, and a clone brings the node back."""
    old, new = diverge(drill)
    drill.until(lambda: old in drill.diverged(), f"the start of {old} is refused")
    said = next(str(action) for action in drill.status()["failed_actions"] if "forked off" in str(action))
    assert "forked off current database system timeline" in said
    with drill.writing() as writing:
        drill.stays(lambda: drill.primary() == new and not drill.runs(old), f"{new} reigns, {old} stays down", 15)
        writing.wait(10)
        assert writing.outage(writing.acks[0].at) < CALM
    assert drill.lost(writing) == []
    assert drill.rebuild(old).ok
    drill.healthy()
    assert drill.sql(old, "select to_regclass('lost')") == ""


@pytest.mark.parametrize("fault", ["kill-postgres", "crash"])
def test_loss_of_the_sync_standby(drill: Drill, fault: str) -> None:
    """The set moves straight to the other standby: never to nobody, never to alone."""
    primary = drill.primary()
    [sync] = drill.standbys("HS:sync")
    [other] = drill.standbys("HS:async")
    before = len(drill.names_given(primary))
    with drill.writing() as writing:
        drill.ban(sync)
        began = time.monotonic()
        drill.lab.act(fault, sync)
        drill.until(lambda: drill.names(primary) == f'"{other}"', f"commits wait for {other}")
        writing.wait(50)
        print(f"{fault} of the sync standby {sync}: outage {writing.outage(began):.2f} s")
        drill.until(lambda: drill.standing(other) == ("STREAMING|SYNC", "HS:sync", "100"), f"{other} is shown as sync")
    assert drill.names_given(primary)[before:] == [f'"{other}"']
    assert drill.primary() == primary
    assert drill.lost(writing) == []


def test_loss_of_both_standbys(drill: Drill) -> None:
    """Commits go on, with k+1 voices that know it; when the standbys are back, SYNC is said again only after commits wait."""
    with drill.writing() as writing:
        began = time.monotonic()
        primary, others = alone(drill)
        before = len(drill.names_given(primary))
        assert len(drill.voices(primary)) >= 2, "alone, and not enough voices have stored it"
        writing.wait(100)
        print(f"PostgreSQL of both standbys killed: outage {writing.outage(began):.2f} s")
        assert drill.primary() == primary
        drill.until(lambda: {drill.standing(name)[2] for name in others} == {"-INFINITY"}, "neither standby may be promoted")
        drill.admit(*others)
        drill.healthy()
        writing.wait(50)
    given = drill.names_given(primary)[before:]
    assert given[0] == '"pha4pgsql-nobody"', given
    assert "" not in given, given
    assert drill.primary() == primary
    drill.until(lambda: drill.voices(primary) == [], "nobody says any more that the primary is alone")
    assert drill.lost(writing) == []


def test_who_lacks_a_commit_is_not_promoted(drill: Drill) -> None:
    """The primary went on alone and is lost: the others wait for it, however healthy they are; nothing is lost when it is back."""
    with drill.writing() as writing:
        primary, others = alone(drill)
        writing.wait(100)
        drill.lab.crash(primary)
        drill.admit(*others)
        drill.until(lambda: all(drill.runs(name) for name in others), "the standbys run")
        drill.stays(
            lambda: drill.primary() in ("", primary) and all(drill.sql(name, "select pg_is_in_recovery()") != "f" for name in others),
            "no standby is promoted",
            15,
        )
        drill.lab.boot(primary)
        assert drill.new_primary() == primary
        writing.wait(50)
    assert drill.lost(writing) == []


@pytest.mark.parametrize("which", ["HS:sync", "HS:async"])
def test_killed_primary_while_a_standby_is_down(drill: Drill, which: str) -> None:
    """Somebody is primary again without a hand, and has every acknowledged row."""
    [absent] = drill.standbys(which)
    primary = drill.primary()
    drill.lab.crash(absent)
    drill.until(lambda: absent not in drill.names(primary), "commits wait for another")
    with drill.writing() as writing:
        writing.wait(50)
        began = time.monotonic()
        drill.lab.kill_postgres(primary)
        new = drill.until(drill.primary, "somebody is promoted")
        writing.wait(50)
        print(f"kill-postgres of {primary} while {absent} is off: outage {writing.outage(began):.2f} s, then {new} is primary")
    assert drill.lost(writing) == []


def test_killed_twice(drill: Drill) -> None:
    """One new primary after the other is killed as soon as it writes."""
    with drill.writing() as writing:
        for _ in range(3):
            old = drill.primary()
            timeline = drill.timeline(old)
            drill.lab.kill_postgres(old)
            drill.until(lambda before=timeline: any(ack.timeline > before for ack in writing.acks), "the next timeline acknowledges")  # type: ignore[misc]
            drill.until(drill.primary, "a primary is shown")
            drill._repair()
    assert drill.lost(writing) == []


def test_stop_and_start_of_the_set(drill: Drill) -> None:
    """cls_stop ends all of it, cls_start brings it back with every row."""
    node = drill.up[0]
    with drill.writing() as writing:
        writing.wait(50)
        drill.must(node, "cls_stop", timeout=120)
        assert not any(drill.runs(name) for name in drill.lab.members)
        drill.must(node, "cls_start", timeout=120)
        writing.wait(50)
    drill.healthy()
    assert drill.lost(writing) == []


def test_stop_of_pacemaker_everywhere(drill: Drill) -> None:
    """A clean stop of all cluster nodes, then a boot: it comes back by itself."""
    members = drill.lab.members
    with drill.writing() as writing:
        writing.wait(50)
        for name in members:
            drill.must(name, "pkill", "-TERM", "-x", "pacemakerd")
        drill.until(lambda: not any(drill.lab.run(name, ["pgrep", "-x", "pacemakerd|postgres"]).ok for name in members), "all daemons have ended", 90)
        drill.lab.crash(*members)
        drill.lab.boot(*members)
        writing.wait(50, timeout=120)
    drill.healthy()
    assert drill.lost(writing) == []


def test_power_loss_of_all(drill: Drill) -> None:
    """Every row is there when the power is back, without a hand."""
    with drill.writing() as writing:
        writing.wait(50)
        drill.lab.crash(*drill.lab.members)
        drill.lab.boot(*drill.lab.members)
        writing.wait(50, timeout=120)
    assert drill.lost(writing) == []


def test_a_frozen_postgres_is_replaced(drill: Drill) -> None:
    """It lives and does not answer: after a while it counts as failed, and another takes over."""
    old = drill.primary()
    with drill.writing() as writing:
        writing.wait(50)
        began = time.monotonic()
        drill.lab.freeze_postgres(old)
        drill.new_primary(old)
        writing.wait(50)
        print(f"freeze-postgres of {old}: outage {writing.outage(began):.2f} s")
    assert drill.lost(writing) == []


def test_clients_that_say_nothing_do_not_delay_a_change_of_role(drill: Drill) -> None:
    """A server that shuts down waits for clients which have not logged in, for a minute each by default: ours is helped."""
    old = drill.primary()
    with drill.writing() as writing:
        mute = drill.lab.popen("client", ["/usr/bin/python3", "-Ic", MUTE, drill.lab.address(old), drill.lab.port])
        try:
            connected = f"state established ( dport = :{drill.lab.port} )"
            drill.until(lambda: len(drill.must("client", "ss", "-Htn", *connected.split()).out.splitlines()) > 50, "mute clients are connected")
            began = time.monotonic()
            drill.ban(old)
            new = drill.new_primary(old)
            writing.wait(50)
            assert mute.poll() is None, mute.communicate()
        finally:
            mute.kill()
            mute.communicate()
        print(f"ban of {old} beside mute clients, {new} takes over: outage {writing.outage(began):.2f} s")
        assert writing.outage(began) < MINUTE / 2
    assert drill.lost(writing) == []


def test_a_slow_postgres_is_not_restarted(drill: Drill) -> None:
    """Three seconds without an answer are no death."""
    primary = drill.primary()
    began = drill.sql(primary, "select pg_postmaster_start_time()")
    timeline = drill.timeline(primary)
    with drill.writing() as writing:
        writing.wait(50)
        drill.lab.freeze_postgres(primary)
        time.sleep(3)  # what is tested is this time
        drill.lab.thaw_postgres(primary)
        writing.wait(300)
    assert (drill.primary(), drill.sql(primary, "select pg_postmaster_start_time()"), drill.timeline(primary)) == (primary, began, timeline)
    assert drill.lost(writing) == []


def test_no_word_of_sync_while_the_checkpointer_sleeps(drill: Drill) -> None:
    """The primary's backends have not heard that commits must wait: it is not said, and a kill at that moment loses nothing."""
    with drill.writing() as writing:
        primary, others = alone(drill)
        drill.signal(primary, "checkpointer", "STOP")
        drill.admit(*others)
        drill.until(lambda: drill.sql(primary, "select count(*) from pg_stat_replication where state = 'streaming'") == "2", "both standbys stream")
        drill.stays(lambda: not drill.standbys("HS:sync") and drill.voices(primary), "not a word of SYNC, alone is still said", 10)
        writing.wait(50)
        drill.lab.kill_postgres(primary)
        drill.until(drill.primary, "somebody is promoted")
        writing.wait(50)
    assert drill.lost(writing) == []
