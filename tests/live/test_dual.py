"""Two nodes, template dual, without fencing: the lock's row is up, down, or cut off from one node, and no acknowledged row is lost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from drill import Writing
from two_nodes import find, lock_down, lock_up, lose, other_than, part, row

from pha4pgsql.lab_node import checkout
from pha4pgsql.lab_words import Plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drill import Drill

PLAN = Plan("live-dual", size=2, template="dual", fencing=False)
SURELY = 8.0
"""Seconds after which what has not happened is not going to: monitors come every 3 and 4 s, and a campaign takes at most 4."""
IN_RECOVERY = "select pg_is_in_recovery()"

RACE = """
for i in $(seq 1 40); do
  if [ "$(distlock --conninfo "host=lock dbname=distlock user=distlock password=distlock" trylock distlock:race $1 60)" = 1 ]; then
    echo "in $1"; echo "out $1"
    distlock --conninfo "host=lock dbname=distlock user=distlock password=distlock" unlock distlock:race $1 > /dev/null
  fi
done
"""

SAME = """
import random, sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests/pure"]
from pha4pgsql import lock_row, words
from world import Row
where = lock_row.Place("host=lock dbname=distlock user=distlock password=distlock", "", "twin", "")
with open(sys.argv[1] + "/tools/distlock_ddl.sql") as stream:
    ddl = stream.read()
where = where._replace(identity=lock_row.prepare(where, ("node1", "node2"), ddl))
assert lock_row.prepare(where, ("node1", "node2"), ddl) == where.identity
twin, dice, names = Row(), random.Random(7), ["node-1", "node1", "Node1", "a", "node10", "node2"]
for number in range(200):
    ballot = words.Ballot(dice.randint(0, 6) + number // 20, dice.choice(names))
    if dice.random() < 0.5:
        seen, expected = lock_row.ask(where, ballot).vote, twin.ask(words.AskRow(ballot))
    else:
        said = words.Statement(ballot, dice.randint(1, 3), dice.choice(["", ballot.node]))
        seen, expected = lock_row.store(where, said).vote, twin.store(words.StoreRow(said))
    assert seen == expected, (number, seen, expected)
assert lock_row.ask(where._replace(identity="another"), words.NEVER).vote is None
print("the same")
"""


@pytest.fixture(autouse=True)
def whole(cluster: Drill) -> Iterator[None]:
    """The lock's server runs and everybody reaches it, before `restore` and after each test."""
    find(cluster)
    lock_up(cluster)
    yield
    find(cluster)
    lock_up(cluster)


def is_primary(drill: Drill, node: str) -> bool:
    return drill.sql(node, IN_RECOVERY) == "f"


def takes_over(drill: Drill, old: str) -> str:
    """The other node is promoted, by its own word."""
    new = other_than(drill, old)
    drill.until(lambda: is_primary(drill, new), f"{new} takes over")
    return new


def told(drill: Drill, node: str) -> str:
    return " ".join(drill.status(node).get("notes", []))


def waits(writing: Writing) -> float:
    """The time of the last acknowledgement, when there is none any more."""
    return writing.acks[-1].at


def test_the_row_is_made_once_and_hides_nothing(drill: Drill) -> None:
    """cls_setup made it and does not make it anew; the agents are told its identity; no password is in the CIB."""
    before = row(drill)
    given = drill.must(drill.up[0], "crm_resource", "--resource", "pgsql", "--get-parameter", "distlock_row").out.strip()
    assert (before[0], before[2]) == ("", given)
    drill.must(drill.up[0], "cls_setup", timeout=60)
    assert row(drill) == before
    assert "password" not in drill.must(drill.up[0], "cibadmin", "--query").out
    assert "lock:5432:distlock:distlock:distlock" in drill.must(drill.up[0], "cat", "/var/lib/pgsql/tmp/pgpass").out


def test_the_row_does_what_its_twin_does(drill: Drill) -> None:
    """The statements of lock_row on a real server, and the row of the simulator: the same answers to 200 questions."""
    assert drill.must("client", "/usr/bin/python3", "-c", SAME, checkout()).out.strip() == "the same"


def test_distlock_of_two_racing_clients(drill: Drill) -> None:
    """Whoever has the lock has it alone."""
    psql = ["psql", "-Xq", "-h", "/var/run/postgresql", "-U", "distlock", "-d", "distlock", "-v", "lockname=race"]
    drill.must("client", *psql, "-f", f"{checkout()}/tools/distlock_init.sql")
    log = "/var/tmp/race"
    drill.must("client", "rm", "-f", log)
    racers = [drill.lab.popen(name, ["bash", "-c", RACE, "race", name]) for name in drill.lab.members]
    lines = [racer.communicate()[0].splitlines() for racer in racers]
    owners = drill.must("client", *psql, "-Atc", "select owner from distlock_history where lockname = 'race' order by id").out.split("\n")[:-1]
    got = [sum(line.startswith("in") for line in one) for one in lines]
    assert min(got) > 0, f"nobody raced: {got}"
    assert sum(owner != "" for owner in owners) == sum(got)
    assert all(bool(one) != bool(two) for one, two in zip(owners, owners[1:])), "an owner followed an owner: the lock was not free"


@pytest.mark.parametrize("fault", [pytest.param("kill-postgres", marks=pytest.mark.drill), "crash"])
def test_loss_of_the_primary(drill: Drill, fault: str) -> None:
    """The standby, with the row's answer where the other has none, is promoted and acknowledges; the old primary comes back as its standby."""
    old = drill.primary()
    with drill.writing() as writing:
        writing.wait(50)
        began = time.monotonic()
        drill.lab.act(fault, old)
        new = takes_over(drill, old)
        writing.wait(50)
        print(f"{fault} of {old}: outage {writing.outage(began):.2f} s, the row says {row(drill)[:2]}")
        if fault == "crash":
            assert row(drill)[0] == new
        drill.restore()
    assert drill.lost(writing) == []
    drill.until(lambda: row(drill)[0] == "", "the row says that nobody is alone")


def test_loss_of_the_standby(drill: Drill) -> None:
    """The primary goes on alone by the row's voice, and the row says so until the standby has caught up."""
    primary = drill.primary()
    with drill.writing() as writing:
        writing.wait(50)
        began = time.monotonic()
        drill.lab.crash(other_than(drill, primary))
        drill.until(lambda: row(drill)[0] == primary, "the row knows that it is alone")
        writing.wait(50)
        print(f"crash of the standby: outage {writing.outage(began):.2f} s")
        drill.restore()
        drill.until(lambda: row(drill)[0] == "", "the row says that nobody is alone")
    assert drill.primary() == primary
    assert drill.lost(writing) == []


@pytest.mark.drill
def test_who_is_alone_and_lost_is_waited_for(drill: Drill) -> None:
    """The primary acknowledged alone and loses its power; the standby, back without its commits, is kept from promotion by the row."""
    primary = drill.primary()
    standby = other_than(drill, primary)
    with drill.writing() as writing:
        drill.lab.crash(standby)
        drill.until(lambda: row(drill)[0] == primary, "the row knows that it is alone")
        writing.wait(50)
        drill.lab.crash(primary)
        drill.lab.boot(standby)
        drill.until(lambda: drill.runs(standby), f"PostgreSQL of {standby} runs")
        drill.until(lambda: f"{primary} went on alone" in told(drill, standby), f"cls_status says that {primary} went on alone")
        drill.stays(lambda: not is_primary(drill, standby), f"{standby} is not promoted", SURELY)
        drill.lab.boot(primary)
        writing.wait(50)
    assert drill.lost(writing) == []


def test_lock_server_down(drill: Drill) -> None:
    """With both nodes up everything works, also a change of role; cls_status says what is missing."""
    lock_down(drill)
    old = drill.primary()
    with drill.writing() as writing:
        writing.wait(50)
        assert "cannot be asked" in told(drill, old)
        drill.lab.kill_postgres(old)
        new = takes_over(drill, old)
        writing.wait(50)
        drill.until(lambda: drill.standing(old)[1] == "HS:sync", f"{old} is the standby of {new}")
        writing.wait(50)
    assert drill.lost(writing) == []


@pytest.mark.drill
def test_lock_server_down_and_primary_lost(drill: Drill) -> None:
    """Nobody can know whether the primary went on alone: the standby is not promoted, and cls_status says why, until the row can be asked."""
    lock_down(drill)
    old = drill.primary()
    standby = other_than(drill, old)
    with drill.writing() as writing:
        writing.wait(50)
        drill.lab.crash(old)
        drill.until(lambda: f"{old} may have gone on alone" in told(drill, standby), "cls_status says why")
        drill.stays(lambda: not is_primary(drill, standby), f"{standby} is not promoted", SURELY)
        lock_up(drill)
        takes_over(drill, old)
        writing.wait(50)
    assert drill.lost(writing) == []


@pytest.mark.drill
def test_lock_server_down_and_standby_lost(drill: Drill) -> None:
    """With its PostgreSQL only, the standby's watcher is the second voice; with its node, commits wait until the row can be asked."""
    lock_down(drill)
    primary = drill.primary()
    standby = other_than(drill, primary)
    with drill.writing() as writing:
        drill.ban(standby)
        drill.lab.kill_postgres(standby)
        drill.until(lambda: drill.names(primary) == "", f"{primary} goes on by the voice of the watcher")
        writing.wait(50)
        drill.admit(standby)
        drill.restore()
        drill.lab.crash(standby)
        drill.until(lambda: time.monotonic() - waits(writing) > SURELY, "commits wait")
        assert drill.names(primary) != ""
        lock_up(drill)
        writing.wait(50)
    assert drill.primary() == primary
    assert drill.lost(writing) == []


@pytest.mark.drill
def test_the_primary_is_cut_off_from_everything(drill: Drill) -> None:
    """It acknowledges nothing any more; the standby takes over by the row's answer; the old one finds out when it can ask."""
    old = drill.primary()
    with drill.writing() as writing, drill.writing(old, "127.0.0.1") as inside:
        writing.wait(50)
        began = time.monotonic()
        drill.lab.cut(old)
        new = takes_over(drill, old)
        writing.wait(50)
        print(f"cut of {old}: outage {writing.outage(began):.2f} s")
        last = waits(inside)
        drill.stays(lambda: waits(inside) == last, f"{old} acknowledges nothing", SURELY)
        drill.lab.heal(old)
        drill.until(lambda: not is_primary(drill, old), f"{old} is no primary any more")
        drill.restore()
    assert drill.primary() == new
    assert drill.lost(writing, inside) == []


@pytest.mark.parametrize("deaf", ["primary", *(pytest.param(name, marks=pytest.mark.drill) for name in ("nobody", "standby", "both"))])
def test_the_nodes_lose_each_other(drill: Drill, deaf: str) -> None:
    """Each thinks the other gone, and may or may not reach the row: one of them acknowledges at most, and one does when one reaches the row."""
    old = drill.primary()
    standby = other_than(drill, old)
    with drill.writing(old, "127.0.0.1") as one:
        two = Writing(drill, standby, "127.0.0.1")
        try:
            for name in {"nobody": [], "primary": [old], "standby": [standby], "both": [old, standby]}[deaf]:
                lose(drill, name)
            part(drill)
            began = time.monotonic()
            expected = {"nobody": 1, "primary": 1, "standby": 1, "both": 0}[deaf]
            drill.stays(lambda: len(_acknowledging(one, two)) <= 1, "one of them acknowledges at most", SURELY)
            drill.until(lambda: len(_acknowledging(one, two)) == expected, f"{expected} of them acknowledges")
            going = _acknowledging(one, two)
            drill.stays(lambda: _acknowledging(one, two) == going, "so it stays", SURELY)
            who = {one: old, two: standby}[going[0]] if going else "nobody"
            outage = (going or [one])[0].outage(began)
            print(f"deaf: {deaf}; of primary {old} and standby {standby} {who} goes on; outage {outage:.2f} s")
            assert who == {"nobody": who, "primary": standby, "standby": old, "both": "nobody"}[deaf]
            find(drill)
            drill.restore()
        finally:
            two.end()
    assert drill.lost(*(writing for writing in (one, two) if writing.acks)) == []


def _acknowledging(*writings: Writing) -> list[Writing]:
    """Who has had an acknowledgement within the last two seconds."""
    now = time.monotonic()
    return [writing for writing in writings if writing.acks and now - writing.acks[-1].at < 2.0]


@pytest.mark.drill
def test_a_row_made_anew_is_no_voice(drill: Drill) -> None:
    """Its server was lost and an empty row has its name: nobody is promoted by it; with the set stopped and nobody alone, cls_setup takes it."""
    old = drill.primary()
    standby = other_than(drill, old)
    with drill.writing() as writing:
        writing.wait(50)
        drill.must("client", "psql", "-XAtq", "-h", "/var/run/postgresql", "-U", "postgres", "-d", "distlock", "-c", "delete from distlock")
        refused = drill.lab.run(standby, ["cls_setup"], timeout=60)
        assert (refused.code, "distlock_row" in refused.err) == (1, True), refused
        drill.until(lambda: "not the one that this set counts on" in told(drill, standby), "cls_status says so")
        drill.lab.crash(old)
        drill.stays(lambda: not is_primary(drill, standby), f"{standby} is not promoted", SURELY)
        alone = drill.lab.run(standby, ["cls_setup"], timeout=60)
        assert alone.code == 1, alone
        drill.lab.boot(old)
        writing.wait(50)
        drill.restore()
        for command in ("cls_stop", "cls_setup", "cls_start"):
            drill.must(old, command, timeout=120)
        writing.wait(50)
    drill.until(lambda: told(drill, old) == "", "all is well")
    assert drill.lost(writing) == []
