"""cls_member under load: five members become three and five again, with the primary killed in the middle of each change."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from drill import change_of_role

from pha4pgsql.lab_words import PGDATA, Plan

if TYPE_CHECKING:
    from drill import Drill

    from pha4pgsql.system import Completed

PLAN = Plan("live-members", size=5, settings=(("pgsql_rep_mode", "quorum"),))

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
    drill.until(lambda: drill.primary() != "" and drill.sql(drill.primary(), "select pg_is_in_recovery()") == "f", "there is a primary")
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
        if drill.primary() == second:
            second = next(name for name in four if name not in (worker, second))
        killed_in_the_middle(drill, worker, "remove", second) if drill.primary() != worker else None
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


def test_members_are_added_under_load(cluster: Drill) -> None:
    """One whose data is gone is cloned, one comes back with what it has; the primary is killed in the middle of the first."""
    drill = cluster
    gone = [name for name in drill.lab.members if name not in listed(drill)["elects"]]
    first, second = gone
    drill.must(first, "sh", "-c", f"rm -rf {PGDATA}/* /var/lib/pgsql/tmp/pgsql.state")
    with drill.writing() as writing:
        drill.until(lambda: not listed(drill)["joint"], "no change is under way")
        killed_in_the_middle(drill, first, "add", first)
        drill.until(lambda: first in listed(drill)["elects"], f"{first} is a member")
        began = time.monotonic()
        done = member(drill, second, "add", second, "--yes")
        assert done.ok, done
        assert done.out.endswith(f"{second} is a member of msPostgresql\n")
        print(done.err)
        drill.until(lambda: is_list(drill, list(drill.lab.members), 2), "five members, two confirm")
        print(f"{second} added in {time.monotonic() - began:.1f} s, outage {writing.outage(began):.2f} s")
        writing.wait(50)
    assert drill.lost(writing) == []


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
