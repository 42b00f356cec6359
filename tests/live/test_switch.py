"""Planned changes on three nodes with rep_mode=sync: switchover ten times in a row, refusals, interruptions, standby and maintenance."""

from __future__ import annotations

import re
import statistics
from functools import partial
from typing import TYPE_CHECKING

import pytest
from drill import alone
from switching import PATIENT, RECONNECT, follows, leftovers, new_plans, run, started, switch, troubles

from pha4pgsql.lab_words import Plan

if TYPE_CHECKING:
    from drill import Drill

PLAN = Plan("live-switch")
TIMES = 10
REFUSED, USAGE, INTERRUPTED = 10, 100, 130


def test_ten_times_in_a_row(drill: Drill) -> None:
    """Chosen and unchosen, from any node: nothing lost, the other standby not restarted, nothing left behind."""
    before = leftovers(drill)
    outages = []
    with drill.writing() as writing:
        for number in range(TIMES):
            drill.healthy()
            others = [name for name in drill.lab.members if name != drill.primary()]
            target = others[number // 2 % 2] if number % 2 else ""
            outages.append(switch(drill, writing, drill.lab.members[number % 3], target)[1])
    print(f"outage of {TIMES} switchovers: {statistics.median(outages):.2f} ({min(outages):.2f}-{max(outages):.2f}) s")
    assert drill.lost(writing) == []
    assert not [text for text in troubles(writing) if not re.search(RECONNECT, text)]
    drill.until(lambda: leftovers(drill) == before, "nothing is left in the CIB")
    changes = new_plans(drill)
    print("\n".join(changes))
    assert len(changes) < TIMES // 2, "Pacemaker plans anew while the role moves"


def test_while_a_third_node_is_off(drill: Drill) -> None:
    """N-k members are left, the old primary among them: enough."""
    primary, [sync], [absent] = drill.primary(), drill.standbys("HS:sync"), drill.standbys("HS:async")
    drill.lab.crash(absent)
    drill.until(lambda: absent not in str([row for row in drill.status()["nodes"] if row["online"]]), "its loss is known")
    with drill.writing() as writing:
        assert run(drill, primary, "cls_online_switch", absent).code == REFUSED
        assert switch(drill, writing, sync)[0] == sync
    assert drill.lost(writing) == []


@pytest.mark.parametrize(("signal", "code"), [("INT", INTERRUPTED), ("KILL", -9)])
def test_interrupted_while_it_waits(drill: Drill, signal: str, code: int) -> None:
    """The primary's checkpoint does not end: the command waits, is ended, and leaves nothing; later it succeeds."""
    primary, [target] = drill.primary(), drill.standbys("HS:sync")
    before = leftovers(drill)
    with drill.writing() as writing:
        drill.signal(primary, "checkpointer", "STOP")
        command = drill.lab.popen(target, ["cls_online_switch", target])
        drill.until(lambda: target in leftovers(drill), "the wish is there")
        drill.must(target, "pkill", f"-{signal}", "-f", "cls_online_switch")
        command.communicate(timeout=PATIENT)
        assert command.returncode in (code, 128 + 9), command.returncode
        drill.until(lambda: leftovers(drill) == before, "nothing is left in the CIB", 90)
        drill.signal(primary, "checkpointer", "CONT")
        assert drill.primary() == primary
        assert switch(drill, writing, target, target)[0] == target
    assert drill.lost(writing) == []


@pytest.mark.drill
@pytest.mark.parametrize("signal", ["INT", "KILL"])
def test_interrupted_while_the_role_moves(drill: Drill, signal: str) -> None:
    """Either the old primary stays, or the target is promoted; nothing is left in both cases, and the next switchover succeeds."""
    primary, [target] = drill.primary(), drill.standbys("HS:sync")
    before = leftovers(drill)
    with drill.writing() as writing:
        command = drill.lab.popen(target, ["cls_online_switch", target])
        drill.until(lambda: drill.standing(target)[2] == "INFINITY" or drill.primary() != primary, "the score is raised")
        drill.lab.run(target, ["pkill", f"-{signal}", "-f", "cls_online_switch"])
        command.communicate(timeout=PATIENT)
        drill.healthy()
        drill.until(lambda: leftovers(drill) == before, "nothing is left in the CIB")
        print(f"SIG{signal} while the role moved: {drill.primary()} is primary, it was {primary}")
        assert drill.primary() in (primary, target)
        switch(drill, writing, target)
    assert drill.lost(writing) == []


def started_by_the_agent(drill: Drill, node: str) -> bool:
    """Whether PostgreSQL runs there with the agent's configuration file."""
    return drill.sql(node, "show config_file").endswith("/pgsql.conf")


def refused(drill: Drill, node: str, code: int, *words: str) -> None:
    """A command that changes nothing, and says why and what to do."""
    done = run(drill, node, *words)
    assert (done.code, done.out) == (code, ""), done
    assert "HINT:" in done.err, done


def test_refused_switchovers(drill: Drill) -> None:
    """Each with its exit code, and nothing has changed."""
    primary, [target] = drill.primary(), drill.standbys("HS:sync")
    refused(drill, primary, REFUSED, "cls_online_switch", primary)
    refused(drill, primary, REFUSED, "cls_online_switch", "node9")
    refused(drill, primary, USAGE, "cls_online_switch", "a", "b")
    drill.must(primary, "crm_attribute", "--node", target, "--name", "pgsql-nofailover", "--update", "true")
    refused(drill, primary, REFUSED, "cls_online_switch", target)
    drill.must(primary, "crm_attribute", "--node", target, "--name", "pgsql-nofailover", "--delete")
    drill.must(primary, "cls_maintenance", timeout=PATIENT)
    refused(drill, primary, REFUSED, "cls_online_switch")
    refused(drill, primary, 1, "cls_standby_node", target)
    drill.must(primary, "cls_unmaintenance", timeout=PATIENT)
    shown = run(drill, primary, "cls_online_switch", "--dry-run", target)
    assert shown.ok
    assert "would   promote" in shown.out
    drill.must(primary, "cls_stop", timeout=PATIENT)
    refused(drill, primary, REFUSED, "cls_online_switch")
    drill.must(primary, "cls_start", timeout=PATIENT)


def test_standby_and_back(drill: Drill) -> None:
    """A node is emptied and serves again; twice is as good as once; a node that there is not is refused."""
    primary, [other] = drill.primary(), drill.standbys("HS:async")
    with drill.writing() as writing:
        for _ in range(2):
            assert run(drill, primary, "cls_standby_node", other).out == f"{other} is in standby\n"
        assert not drill.runs(other)
        refused(drill, primary, REFUSED, "cls_online_switch", other)
        for _ in range(2):
            assert run(drill, primary, "cls_unstandby_node", other).out == f"{other} is in service\n"
        assert follows(drill, other)
        writing.wait(20)
    for command in ("cls_standby_node", "cls_unstandby_node", "cls_maintenance_node", "cls_unmaintenance_node"):
        refused(drill, primary, 1, command, "node9")
        refused(drill, primary, USAGE, command)
    assert drill.lost(writing) == []
    assert drill.primary() == primary


def test_no_standby_is_left(drill: Drill) -> None:
    """The last one's voice stays until the primary has said that it goes on alone: writes pause, they do not end (sync_strict=false)."""
    primary = drill.primary()
    others = [name for name in drill.lab.members if name != primary]
    with drill.writing() as writing:
        for other in others:
            assert run(drill, primary, "cls_standby_node", "--yes", other).out == f"{other} is in standby\n"
        writing.wait(20)
        assert drill.names(primary) == ""
        for other in others:
            assert run(drill, primary, "cls_unstandby_node", other).out == f"{other} is in service\n"
        drill.healthy()
        writing.wait(20)
    assert drill.lost(writing) == []
    assert drill.primary() == primary


@pytest.mark.drill
def test_pacemaker_lets_a_node_or_all_alone(drill: Drill) -> None:
    """PostgreSQL may end meanwhile, and Pacemaker starts it only afterwards."""
    primary, [other] = drill.primary(), drill.standbys("HS:async")
    for on, off, words in (("cls_maintenance_node", "cls_unmaintenance_node", [other]), ("cls_maintenance", "cls_unmaintenance", [])):
        for _ in range(2):
            assert run(drill, primary, on, *words).ok
        drill.lab.kill_postgres(other)
        drill.stays(lambda: not drill.runs(other), "nobody starts it", 6)
        for _ in range(2):
            assert run(drill, primary, off, *words).ok
        drill.healthy()
    assert drill.primary() == primary


def test_what_was_started_by_hand_in_maintenance_is_restarted(drill: Drill) -> None:
    """With PostgreSQL's own file a primary waits for nobody, and a standby receives from nobody: no monitor leaves that so."""
    primary, [other], [third] = drill.primary(), drill.standbys("HS:async"), drill.standbys("HS:sync")
    with drill.writing() as writing:
        drill.must(primary, "cls_maintenance", timeout=PATIENT)
        drill.must(third, "pg_ctl", "-w", "-D", "/pgsql/data", "restart", "-l", "/dev/null", user="postgres")
        assert started_by_the_agent(drill, third), "pg_ctl restart keeps the options"
        since = started(drill, third)
        for node in (primary, other):
            for words in (("stop", "-m", "fast"), ("start", "-l", "/dev/null")):
                drill.must(node, "pg_ctl", "-w", "-D", "/pgsql/data", *words, user="postgres")
            assert drill.sql(node, "show config_file") == "/pgsql/data/postgresql.conf"
        drill.must(primary, "cls_unmaintenance", timeout=PATIENT)
        for node in (primary, other):
            drill.until(partial(started_by_the_agent, drill, node), f"the agent has restarted {node}")
        drill.healthy()
        writing.wait(20)
    assert drill.lost(writing) == []
    assert drill.names(drill.primary())
    assert started(drill, third) == since


@pytest.mark.drill
def test_the_one_that_went_on_alone_is_lost(drill: Drill) -> None:
    """Nobody is elected without it, until an operator gives up what only it has; when it is back it has left the history."""
    refused(drill, drill.primary(), REFUSED, "cls_reset_master", "--yes")
    with drill.writing() as writing:
        writing.wait(20)
        confirmed = writing.acks
        primary, others = alone(drill)
        writing.wait(20)
        drill.lab.crash(primary)
    drill.admit(*others)
    drill.until(lambda: all(drill.runs(name) for name in others), "the standbys run")
    node = others[0]
    shown = run(drill, node, "cls_reset_master", "--dry-run")
    assert shown.ok
    assert f"LOST FOR EVER: what {primary} confirmed alone" in shown.out
    refused(drill, node, 1, "cls_reset_master")
    refused(drill, node, REFUSED, "cls_reset_master", "--yes", primary)
    done = run(drill, node, "cls_reset_master", "--yes")
    assert done.ok
    assert done.out.startswith("master reset and startup successed, the master is ")
    new = drill.primary()
    assert new in others
    assert drill.must(node, "sh", "-c", "ls /var/lib/pgsql/tmp/pgsql.state.before-reset-1").ok
    missing = {row for _, row in drill.lost(writing)}
    assert not missing & {ack.row for ack in confirmed}, "a row is lost that two had confirmed"
    drill.lab.boot(primary)
    drill.until(lambda: primary in drill.diverged(), f"the start of {primary} is refused")
    assert drill.primary() == new
