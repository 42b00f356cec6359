"""cls_repair_by_pg_rewind and cls_rebuild_slave on a node whose data left the primary's history, however often they are interrupted."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from drill import STATE, diverge

from pha4pgsql.lab_words import PGDATA, Plan
from pha4pgsql.system import Completed

if TYPE_CHECKING:
    import subprocess

    from drill import Drill

ARCHIVE, FAST = "/pgsql/archive", "/pgsql/fast"

PLAN = Plan("live-repair", fencing=False, settings=(("pgsql_auto_rejoin", "no"), ("pgsql_restore_command", f"cp {ARCHIVE}/%f %p")))
"""Without fencing: the link of a node that copies is cut, and it should live."""

pytestmark = pytest.mark.timeout(240)

REWIND, REBUILD, RESET = "cls_repair_by_pg_rewind", "cls_rebuild_slave", "cls_reset_master"
QUICK, SUM = "select n, repeat('x', 100) from generate_series(1, 50000) n", "1250025000"
SLOWLY = ("--yes", "--max-rate", "2M")
"""A copy of the practice cluster's database takes about ten seconds at this rate."""


def refused(drill: Drill, *, last: str = "select 1") -> tuple[str, str]:
    """A node that has what the primary lacks, and whose start is refused with the seed's words; the node, the primary."""
    old, new = diverge(drill, last=last)
    drill.until(lambda: old in drill.diverged() and not drill.runs(old), f"the start of {old} is refused")
    return old, new


def follows(drill: Drill, node: str, primary: str) -> None:
    """It streams from that primary, without a mark, and without what only it had."""
    assert (drill.standing(node)[0] or "").startswith("STREAMING|"), drill.standing(node)
    assert re.search(r"^mark=$", drill.state(node), re.MULTILINE)
    assert drill.primary() == primary
    assert drill.sql(node, "select to_regclass('lost') is null and pg_is_in_recovery()") == "t"
    row = drill.sql(primary, "create table if not exists seen (at timestamptz default now()); insert into seen values (default) returning at")
    drill.until(lambda: drill.sql(node, f"select 1 from seen where at = '{row.splitlines()[-1]}'") == "1", "a new row arrives")  # noqa: S608


def do(drill: Drill, node: str, *statements: str) -> None:
    """Statements on a node, each by itself, that have to succeed."""
    for statement in statements:
        drill.must(node, "psql", "-XAtq", "-h", "127.0.0.1", "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-c", statement, "postgres")


def attribute(drill: Drill, node: str, name: str) -> str:
    done = drill.lab.run(drill.up[0], ["attrd_updater", "-Q", "-n", name, "-N", node])
    return done.out.partition('value="')[2].partition('"')[0]


def test_rewind(drill: Drill) -> None:
    """The least privileges are enough, and are told; the node keeps its own settings, what is thrown away is kept where it was asked for."""
    with drill.writing() as writing:
        old, new = refused(drill)
        drill.must(old, "sh", "-c", f"echo '# of this node' >> {PGDATA}/postgresql.conf")
        do(drill, new, "alter role replication nosuperuser")
        done = drill.lab.run(old, [REWIND, "--yes"])
        assert done.code == 1, done
        lines = re.findall(r"GRANT [^;]*;", done.err)
        assert len(lines) == 5, done
        do(drill, new, *lines)
        shown = drill.must(old, REWIND, "--dry-run")
        print(shown.out)
        assert "no      " not in shown.out
        assert "would   rewind" in shown.out, shown.out
        assert re.search(r"^mark=$", drill.state(old), re.MULTILINE)
        done = drill.must(old, REWIND, "--yes", "--keep", "/root/kept", timeout=120)
        print(done.err)
        assert done.out == f"slave recovery of {old} successed\n"
        follows(drill, old, new)
        writing.wait(20)
    assert "# of this node" in drill.must(old, "cat", f"{PGDATA}/postgresql.conf").out
    kept = drill.must(old, "ls", "/root/kept").out.split()
    assert "records.txt" in kept, kept
    assert len(kept) > 1, kept
    assert "COMMIT" in drill.must(old, "cat", "/root/kept/records.txt").out
    assert attribute(drill, old, "pgsql-repair") == ""
    do(drill, new, "alter role replication superuser")
    assert drill.lost(writing) == []


def test_wal_that_is_gone_comes_from_the_archive(drill: Drill) -> None:
    """A primary recycles what it wrote before its last checkpoint but one, and pg_rewind wants the WAL back to the last common checkpoint."""
    primary = drill.primary()
    do(
        drill,
        primary,
        "checkpoint",
        "create table gap as select 1",
        "select pg_switch_wal()",
        "create table gap_2 as select 1",
        "select pg_switch_wal()",
    )
    old, new = refused(drill, last="checkpoint; select 1")
    control = drill.must(old, "pg_controldata", PGDATA).out
    needed = control.partition("REDO WAL file:")[2].split()[0]
    gone = [name for name in drill.must(old, "ls", f"{PGDATA}/pg_wal").out.split() if len(name) == 24 and name < needed]
    assert len(gone) > 1, (gone, needed)
    drill.must(old, "install", "-d", "-o", "postgres", f"{ARCHIVE}.away")
    drill.must(old, "mv", *(f"{PGDATA}/pg_wal/{name}" for name in gone), f"{ARCHIVE}.away")
    done = drill.lab.run(old, [REWIND, "--yes"], timeout=60)
    print(done.err)
    assert (done.code, "could not" in done.err, "nothing was changed" in done.err) == (1, True, True), done
    drill.must(old, "mv", f"{ARCHIVE}.away", ARCHIVE)
    done = drill.must(old, REWIND, "--yes", timeout=120)
    assert done.out == f"slave recovery of {old} successed\n"
    follows(drill, old, new)


def test_tablespaces(drill: Drill) -> None:
    """pg_rewind takes them back, too. A new copy wants their places empty, as pg_basebackup does: it says so, and clears what is its own."""
    for name in drill.lab.members:
        drill.must(name, "install", "-d", "-o", "postgres", "-g", "postgres", FAST)
    primary = drill.primary()
    do(drill, primary, f"create tablespace fast location '{FAST}'", f"create table quick tablespace fast as {QUICK}")
    old, new = refused(drill, last="set synchronous_commit = local; update quick set n = -n; select 1")
    drill.must(old, REWIND, "--yes", timeout=120)
    follows(drill, old, new)
    assert drill.sql(old, "select sum(n) from quick") == SUM
    drill.healthy()
    old, new = refused(drill)
    done = drill.lab.run(old, [REBUILD, "--yes"], timeout=60)
    print(done.err)
    assert (done.code, f"mv {FAST} aside" in done.err) == (1, True), done
    drill.must(old, "mv", FAST, f"{FAST}.before")
    drill.must(old, "install", "-d", "-o", "postgres", "-g", "postgres", FAST)
    running = drill.lab.popen(old, [REBUILD, *SLOWLY])
    drill.until(lambda: drill.must(old, "find", FAST, "-size", "+1M").out or running.poll() is not None, "the copy of the tablespace grows")
    assert drill.lab.run(old, ["pkill", "-KILL", "-f", REBUILD]).ok
    end(running)
    assert drill.must(old, "ls", FAST).out.startswith("PG_")
    drill.must(old, REBUILD, "--yes", timeout=120)
    follows(drill, old, new)
    drill.healthy()
    old, new = refused(drill)
    drill.must(old, REBUILD, "--yes", "--discard", timeout=120)
    follows(drill, old, new)
    assert drill.sql(old, "select sum(n) from quick") == SUM
    do(drill, new, "drop table quick", "drop tablespace fast")


def test_rebuild_from_a_standby(drill: Drill) -> None:
    """The primary is spared; the old data are moved aside, and deleted when that is asked for."""
    old, new = refused(drill)
    [other] = set(drill.lab.members) - {old, new}
    done = drill.must(old, REBUILD, "--yes", "--from", other, timeout=120)
    print(done.err)
    assert done.out == f"slave recovery of {old} successed\n"
    follows(drill, old, new)
    aside = [name for name in drill.must(old, "ls", PGDATA.rpartition("/")[0]).out.split() if ".before-" in name]
    assert len(aside) == 1, aside
    drill.lab.kill_postgres(old)
    drill.healthy()
    old, _ = refused(drill)
    drill.must(old, REBUILD, "--yes", "--discard", timeout=120)
    aside = [name for name in drill.must(old, "ls", PGDATA.rpartition("/")[0]).out.split() if ".before-" in name or ".copy" in name]
    assert aside == []


def test_a_copy_that_is_interrupted(drill: Drill) -> None:
    """SIGINT, a cut and SIGKILL in the middle, a second one beside it: the old data stay until the copy is whole, the same command ends it."""
    old, new = refused(drill)
    running = begun(drill, old)
    second = drill.lab.run(old, [REBUILD, "--yes"])
    print(second.err)
    assert (second.code, "another repair" in second.err) == (1, True), second
    assert attribute(drill, old, "pgsql-repair").startswith("rebuild ")
    assert drill.lab.run(old, ["pkill", "-INT", "-f", REBUILD]).ok
    ended = end(running)
    print(ended.err)
    assert ended.code == 130, ended
    assert re.search(r"^mark=$", drill.state(old), re.MULTILINE), "nothing was copied, the old terms are back"
    running = begun(drill, old)
    drill.lab.cut(old)
    ended = end(running)
    assert ended.code == 1, ended
    drill.lab.heal(old)
    drill.until(lambda: drill.primary() == new and old in [row["name"] for row in drill.status(new)["nodes"]], f"{old} is back")
    drill.until(lambda: drill.lab.run(old, ["corosync-quorumtool", "-s"]).ok, f"{old} has quorum")
    running = begun(drill, old)
    assert drill.lab.run(old, ["pkill", "-KILL", "-f", REBUILD]).ok
    end(running)
    assert re.search(r"^mark=a copy of", drill.state(old), re.MULTILINE), "half a copy is known as such"
    drill.until(lambda: attribute(drill, old, "pgsql-repair").startswith("failed"), "nobody says that it is being repaired")
    drill.must(old, "crm_resource", "--cleanup", "--resource", "msPostgresql", "--node", old)
    drill.until(lambda: any(old in str(one) and "not whole" in str(one) for one in drill.status(new)["failed_actions"]), "its start is refused")
    assert drill.lab.run(old, [REWIND, "--yes"]).code == 1
    done = drill.must(old, REBUILD, "--yes", timeout=120)
    assert done.out == f"slave recovery of {old} successed\n"
    follows(drill, old, new)


def begun(drill: Drill, node: str) -> subprocess.Popen[str]:
    """A slow copy, in its middle."""
    drill.until(drill.primary, "there is a primary")
    running = drill.lab.popen(node, [REBUILD, *SLOWLY])
    side = ["test", "-d", f"{PGDATA}.copy/base"]
    drill.until(lambda: drill.lab.run(node, side).ok or running.poll() is not None, "the copy grows")
    assert running.poll() is None, running.communicate()
    return running


def end(running: subprocess.Popen[str]) -> Completed:
    out, err = running.communicate(timeout=60)
    return Completed(running.returncode, out, err)


def test_the_data_of_two_of_three_are_lost(drill: Drill) -> None:
    """Nobody is elected until an operator says on one of the two that it holds nothing; one of them has lost its state file, too."""
    with drill.writing() as writing:
        writing.wait(20)
    left = drill.primary()
    new_disk, other = (name for name in drill.lab.members if name != left)
    drill.must(left, "cls_stop", timeout=120)
    drill.must(new_disk, "rm", "-r", PGDATA, STATE)
    drill.must(other, "rm", "-r", PGDATA)
    assert drill.lab.run(left, ["cls_start", "--timeout", "10"]).code == 1
    told = [one["what"] + one["hint"] for one in json.loads(drill.lab.run(left, ["cls_status", "--json"]).out)["problems"]]
    assert any(f"missing: {new_disk} {other}" in text and "--no-data" in text for text in told), told
    for node, code in ((left, 10), (new_disk, 1)):  # a database is there; a program has to say --yes
        done = drill.lab.run(node, [RESET, "--no-data", *(["--yes"] if node == left else [])])
        print(done.err)
        assert (done.code, done.out) == (code, ""), done
    shown = drill.must(new_disk, RESET, "--no-data", "--dry-run")
    print(shown.out)
    assert f"what only {new_disk} and {other} had" in shown.out or f"what only {other} and {new_disk} had" in shown.out
    done = drill.must(new_disk, RESET, "--no-data", "--yes", timeout=90)
    print(done.out, done.err)
    assert f"the master is {left}" in done.out
    assert drill.lab.run(other, [RESET, "--no-data", "--yes"]).code == 10, "there is a primary"
    for node in (new_disk, other):
        done = drill.must(node, REBUILD, "--yes", timeout=120)
        assert done.out == f"slave recovery of {node} successed\n"
        follows(drill, node, left)
    drill.healthy()
    assert drill.lost(writing) == []


def test_refusals(drill: Drill) -> None:
    """The seed's exit codes: 100 for a node that needs nothing, 10 where there is no primary."""
    primary = drill.primary()
    standby = next(name for name in drill.lab.members if name != primary)
    for command in (REWIND, REBUILD):
        assert drill.lab.run(primary, [command, "--yes"]).code == 100
        assert drill.lab.run(standby, [command, "--yes"]).code == 100
        assert drill.lab.run(standby, [command, "--no-such"]).code == 100
    assert drill.lab.run(standby, [REBUILD, "--max-rate", "much"]).code == 100
    drill.must(primary, "cls_stop", timeout=120)
    for command in (REWIND, REBUILD):
        done = drill.lab.run(standby, [command, "--yes"])
        assert done.code == 10, done
    drill.must(primary, "cls_start", timeout=120)
