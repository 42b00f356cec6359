"""auto_rejoin: a node that has what the primary lacks is a streaming standby again without a hand, and nothing acknowledged is lost."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest
from drill import diverge

from pha4pgsql.lab_words import Plan

if TYPE_CHECKING:
    from drill import Drill

PLAN = Plan("live-rejoin", fencing=False, settings=(("pgsql_auto_rejoin", "rewind,rebuild"),))
pytestmark = pytest.mark.timeout(200)


def tells(drill: Drill, node: str) -> str:
    """What the background repair of a node has said."""
    said = drill.must(node, "cat", "/var/lib/pgsql/tmp/pgsql.rejoin.log").out
    print(said)
    return said


@pytest.mark.parametrize("fault", ["kill-postgres", "crash", "cut"])
def test_the_old_primary_comes_back(drill: Drill, fault: str) -> None:
    """Killed, without power, or cut off: it is rewound in the background."""
    before = drill.timeline(drill.primary())
    with drill.writing() as writing:
        writing.wait(50)
        old, new = diverge(drill, fault)
        writing.wait(20)
        drill.until(lambda: fault == "crash" or drill.sql(old, "select pg_is_in_recovery()") != "f", f"{old} has stepped down", 90)
        if fault != "kill-postgres":
            drill.lab.act({"crash": "boot", "cut": "heal"}[fault], old)
        drill.until(lambda: (drill.standing(old)[0] or "").startswith("STREAMING|") and drill.runs(old), f"{old} streams again", 90)
        writing.wait(20)
    assert drill.sql(old, "select to_regclass('lost') is null and pg_is_in_recovery()") == "t"
    said = tells(drill, old)
    assert "rewind begins" in said
    assert "rebuild begins" not in said or drill.timeline(new) > before + 1, "one that won again first may be beyond a rewind"
    assert re.search(r"^mark=$", drill.state(old), re.MULTILINE)
    assert drill.primary() == new
    assert drill.lost(writing) == []


MUCH = "select count(pg_logical_emit_message(false, 'much', repeat('x', 1000000))) from generate_series(1, 300)"
MANY = "do $$ begin for i in 1..150 loop execute format('create table long_%s (n int)', i); end loop; end $$"


def test_much_wal_and_a_long_last_record(drill: Drill) -> None:
    """300 MB since the last checkpoint, and a commit record that takes 140 kB to print: the end of WAL is found all the same, and at once."""
    with drill.writing() as writing:
        drill.must(drill.primary(), "psql", "-XAtq", "-h", "127.0.0.1", "-U", "postgres", "-c", MUCH, "postgres")
        began = time.monotonic()
        old, new = diverge(drill, last=f"set synchronous_commit = local; {MANY}; select 1")
        writing.wait(20)
        print(f"outage {writing.outage(began):.2f} s")
        drill.until(lambda: (drill.standing(old)[0] or "").startswith("STREAMING|") and drill.runs(old), f"{old} streams again", 90)
    assert "rewind begins" in tells(drill, old)
    assert drill.sql(old, "select to_regclass('long_1') is null") == "t"
    assert drill.primary() == new
    assert drill.lost(writing) == []


def test_where_a_rewind_is_not_possible(drill: Drill) -> None:
    """The primary is copied anew; the role may no more read its files."""
    with drill.writing() as writing:
        before = drill.primary()
        drill.must(before, "psql", "-h", "127.0.0.1", "-U", "postgres", "-c", "alter role replication nosuperuser", "postgres")
        old, new = diverge(drill)
        drill.until(lambda: (drill.standing(old)[0] or "").startswith("STREAMING|") and drill.runs(old), f"{old} streams again", 90)
        drill.must(new, "psql", "-h", "127.0.0.1", "-U", "postgres", "-c", "alter role replication superuser", "postgres")
        writing.wait(20)
    assert "rebuild begins" in tells(drill, old)
    assert drill.sql(old, "select to_regclass('lost') is null") == "t"
    assert drill.lost(writing) == []
