"""The scripts' tools and cls_reader in a living cluster: the walkthrough's lines as they stand there, and a read server that comes, follows and goes.

The nodes are namespaces, whose kernel may have no IPVS: the director is a stand-in that publishes the pool as lvsdr does. tests/live/test_lvs_*
have the real one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest
from drill import Drill

from pha4pgsql.lab import Lab
from pha4pgsql.lab_up import bring_up
from pha4pgsql.lab_words import PGDATA, Plan
from pha4pgsql.words import ClusterRefusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pha4pgsql.system import Completed

PLAN = Plan("live-tools", readers=1, template="muti", ipvs="none", fencing=False, settings=(("pgsql_rep_mode", "quorum"),))
"""quorum: the original tool knew no such standbys. Without fencing: a reader is to be ahead of the next primary, which takes a power loss."""

READER, ADDRESS = "node4", "192.168.0.234"
VIP = "192.168.0.237"
AS = "user=replication password=replication"
GET = f'/opt/pha4pgsql/tools/get_active_slaves /usr/pgsql/bin/psql "host=192.168.0.236 port=5432 dbname=postgres {AS} connect_timeout=5"'
CHECK = f'/opt/pha4pgsql/tools/check_active_slave /usr/pgsql/bin/psql "port=5432 dbname=postgres {AS} connect_timeout=5" -h'
"""As they stand in the seed's `pcs resource update lvsdr` lines."""

pytestmark = pytest.mark.timeout(300)

DIRECTOR = """#!/usr/bin/python3
import json, os, socket, subprocess, sys, time
FLAG = "/run/stand-in"
def publish():
    words = [word.split(",") for word in os.environ.get("OCF_RESKEY_readers", "").split()]
    rows = [[word[0], socket.gethostbyname(word[0]), int((word + ["1"])[1]), 0, 0] for word in words]
    subprocess.run(["attrd_updater", "-p", "-n", "lvsdr-pool", "-U", json.dumps({"at": int(time.time()), "servers": rows})], check=True)
action = sys.argv[1]
if action == "meta-data":
    print('<?xml version="1.0"?><resource-agent name="lvsdr"><version>1.0</version><longdesc lang="en">x</longdesc><shortdesc lang="en">x</shortdesc>'
          '<parameters><parameter name="readers"><longdesc lang="en">x</longdesc><shortdesc lang="en">x</shortdesc>'
          '<content type="string"/></parameter></parameters><actions><action name="start" timeout="20"/><action name="stop" timeout="20"/>'
          '<action name="monitor" timeout="20"/><action name="reload" timeout="20"/></actions></resource-agent>')
elif action in ("start", "reload"):
    open(FLAG, "w").close()
    publish()
elif action == "stop":
    subprocess.run(["attrd_updater", "-p", "-n", "lvsdr-pool", "-D"], check=True)
    if os.path.exists(FLAG):
        os.unlink(FLAG)
elif not os.path.exists(FLAG):
    sys.exit(7)
"""

BALANCED = """<configuration><resources><primitive id="lvsdr" class="ocf" provider="pha4pgsql" type="lvsdr"><instance_attributes id="lvsdr-params">
<nvpair id="lvsdr-conninfo" name="conninfo" value="host=192.168.0.236"/></instance_attributes>
<operations><op id="lvsdr-monitor" name="monitor" interval="10s" timeout="20s"/></operations></primitive></resources>
<constraints><rsc_colocation id="lvsdr-with-standby" rsc="lvsdr" with-rsc="msPostgresql" with-rsc-role="Unpromoted" score="INFINITY"/></constraints>
</configuration>"""

SYSTEMCTL = """#!/usr/bin/python3
import os, shlex, subprocess, sys
UNIT, ENABLED = "/etc/systemd/system/pha4pgsql-reader.service", "/etc/enabled-units"
verb = sys.argv[1]
if verb == "enable":
    open(ENABLED, "w").close()
elif verb == "disable":
    os.unlink(ENABLED)
elif verb in ("start", "stop"):
    lines = [line.strip().split("=", 1) for line in open(UNIT) if "=" in line and not line.startswith("#")]
    command = shlex.split([value for key, value in lines if key == "ExecStart"][0])
    data = command[command.index("-D") + 1]
    if verb == "start":
        for key, value in lines:
            if key == "ExecStartPre":
                subprocess.run(shlex.split(value.lstrip("+")), check=True)
        quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.Popen(["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command], start_new_session=True, cwd="/", **quiet)
    elif os.path.exists(data + "/postmaster.pid"):
        os.kill(int(open(data + "/postmaster.pid").readline()), 2)
"""
"""What the seed's machine has and a namespace has not: enough of systemd to obey the unit."""


def sh(drill: Drill, node: str, line: str, *, timeout: float = 60.0) -> Completed:
    """A line typed on a node."""
    return drill.lab.run(node, ["bash", "-c", line], timeout=timeout)


def standbys(drill: Drill) -> set[str]:
    return set(drill.lab.members) - {drill.primary()}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Drill]:
    """The module's cluster with a machine beside it that is no read server yet: without a director `cls_lab up` cannot make it one."""
    if os.geteuid() != 0 or not shutil.which("pacemakerd", path="/usr/sbin:/sbin") or not shutil.which("sshd", path="/usr/sbin"):
        pytest.skip("the lab needs root, Pacemaker and sshd installed")
    if os.environ.get("LAB"):
        yield Drill(Lab(os.environ["LAB"]))
        return
    plan = PLAN._replace(name=f"{PLAN.name}-{os.getpid()}")
    lab = Lab(plan.name)
    try:
        with contextlib.suppress(ClusterRefusal):
            bring_up(plan, say=print)
        yield Drill(lab)
    finally:
        lab.down()


@pytest.fixture(scope="module", autouse=True)
def furnished(cluster: Drill) -> None:
    """The stand-in for the director."""
    lab, first = cluster.lab, cluster.lab.members[0]
    if lab.run(first, ["test", "-e", "/root/furnished"]).ok:
        return
    agent = "/usr/lib/ocf/resource.d/pha4pgsql/lvsdr"
    for node in lab.members:
        cluster.must(node, "install", "-m", "755", "/dev/stdin", f"{agent}.new", text=DIRECTOR)
        cluster.must(node, "mv", f"{agent}.new", agent)
    cluster.must(first, "cibadmin", "--modify", "--allow-create", "--xml-text", BALANCED)
    cluster.must(first, "touch", "/root/furnished")


# ---------------------------------------------------------------- get_active_slaves, check_active_slave


def test_the_walkthroughs_lines(drill: Drill) -> None:
    """They work verbatim, whatever psql's own settings and the language say, and the form without psql says the same; quorum counts."""
    node = drill.primary()
    drill.must(node, "sh", "-c", r"printf '\\x\n\\timing\n\\pset null nil\n' > /root/.psqlrc")
    drill.must(node, "install", "-m", "600", "/dev/stdin", "/root/pass", text="*:*:*:replication:replication\n")
    native = "/opt/pha4pgsql/tools/get_active_slaves --passfile /root/pass --conninfo 'host=192.168.0.236 dbname=postgres user=replication'"
    for line in (GET, f"LANG=de_DE.UTF-8 {GET}", native):
        done = sh(drill, node, line)
        assert (done.code, done.err, done.out[-1]) == (0, "", " ")
        assert set(done.out.split()) == standbys(drill)
    for name in drill.lab.members:
        expected = "f\n" if name == node else "t\n"
        alone = f"check_active_slave --passfile /root/pass --conninfo 'dbname=postgres user=replication' {name}"
        assert [sh(drill, node, line).out for line in (f"{CHECK} {name}", alone)] == [expected, expected]


def test_who_only_stores_wal_is_left_out(drill: Drill) -> None:
    """pg_receivewal under its own name, under that of a host and under one with a blank; a base backup with its stream."""
    node = drill.primary()
    receive = "env PGPASSWORD=replication {} pg_receivewal -w -h 192.168.0.236 -U replication -D"
    lines = [f"mkdir -p /tmp/{name}; {receive.format('' if name == 'own' else f'PGAPPNAME={name}')} /tmp/{name}" for name in ("own", "node9")]
    lines += [f"mkdir -p /tmp/blank; {receive.format(chr(39).join(['PGAPPNAME=', 'my standby', '']))} /tmp/blank"]
    lines += ["PGPASSWORD=replication pg_basebackup -w -h 192.168.0.236 -U replication -D /tmp/b -r 32k -c fast -X stream"]
    clean = "pkill -9 pg_receivewal; pkill -9 pg_basebackup; rm -rf /tmp/*"
    sh(drill, "client", clean)
    for line in lines:
        assert sh(drill, "client", f"({line}) >/dev/null 2>&1 </dev/null &").ok
    try:
        drill.until(lambda: int(drill.sql(node, "select count(*) from pg_stat_replication") or 0) >= 2 + 3 + 2, "all of them receive")
        done = sh(drill, node, GET)
        assert (done.code, done.err, set(done.out.split())) == (0, "", standbys(drill)), drill.sql(node, "select * from pg_stat_replication")
    finally:
        sh(drill, "client", clean)


def test_what_cannot_be_found_out_is_an_error(drill: Drill) -> None:
    """Code 1, nothing on standard output, a hint: nobody there, a standby asked, a role that may not see; and never the wrong answer "nobody"."""
    node = drill.primary()
    drill.sql(node, "create role blind login password 'blind'")
    other = min(standbys(drill))
    for line in (
        GET.replace("192.168.0.236", "127.0.0.1").replace("5432", "5999"),
        GET.replace("192.168.0.236", other),
        GET.replace(AS, "user=blind password=blind"),
        GET.replace(AS, "user=replication"),
        "get_active_slaves --conninfo 'host=127.0.0.1 port=5999'",
        f"get_active_slaves --conninfo 'host={other} dbname=postgres {AS}'",
        "get_active_slaves /nowhere/psql 'host=x'",
        "get_active_slaves",
        f"{CHECK} 127.0.0.2 --no-such-option",
        CHECK.replace("5432", "5999") + " 127.0.0.1",
    ):
        done = sh(drill, node, line)
        assert (done.code, done.out) == (1, ""), line
        assert done.err, line
    drill.sql(node, "drop role blind")


def test_every_run_is_bounded(drill: Drill) -> None:
    """A server that takes the connection and says nothing, an address where nobody is, a resolver that is silent."""
    node, silent = drill.primary(), min(standbys(drill))
    drill.must(node, "sh", "-c", "echo nameserver 192.168.0.250 > /etc/resolv.conf")
    drill.lab.freeze_postgres(silent)
    try:
        for line in (
            f"{CHECK} {silent}",
            f"check_active_slave --timeout 1 --conninfo 'dbname=postgres {AS}' {silent}",
            f"check_active_slave --timeout 1 --conninfo 'dbname=postgres {AS}' 192.168.0.251",
            f"get_active_slaves --timeout 1 --conninfo 'host=no.such.name.example dbname=postgres {AS}'",
        ):
            began = time.monotonic()
            done = sh(drill, node, line)
            assert (done.code, done.out, bool(done.err)) == (1, "", True), line
            assert time.monotonic() - began < 6, line
    finally:
        drill.lab.thaw_postgres(silent)


def test_lag_limits(drill: Drill) -> None:
    """A standby whose replay stands still is left out beyond the limit, in bytes and in seconds, by the primary's and by its own account."""
    node, late = drill.primary(), min(standbys(drill))
    conninfo = f"--conninfo 'host=192.168.0.236 dbname=postgres {AS}'"
    drill.sql(late, "select pg_wal_replay_pause()")
    try:
        drill.sql(node, "create table if not exists lagging as select generate_series(1, 20000) as n")
        drill.sql(node, "drop table lagging")
        assert late in sh(drill, node, GET).out.split()
        for limit in ("--max-lag-bytes 100000", "--max-lag-seconds 1"):
            drill.until(lambda limit=limit: late not in sh(drill, node, f"get_active_slaves {limit} {conninfo}").out.split(), f"{limit} is exceeded")  # type: ignore[misc]
        check = f"check_active_slave --max-lag-seconds 1 {conninfo}"
        assert sh(drill, node, f"{check} {late}").out == "f\n"
        others = standbys(drill) - {late}
        assert {sh(drill, node, f"{check} {name}").out for name in others} == {"t\n"}
    finally:
        drill.sql(late, "select pg_wal_replay_resume()")


# ---------------------------------------------------------------- cls_reader


def cls_reader(drill: Drill, *words: str, node: str = "", code: int | None = 0, timeout: float = 120.0) -> Completed:
    done = drill.lab.run(node or drill.up[0], ["cls_reader", *words], timeout=timeout)
    assert code is None or done.code == code, f"cls_reader {shlex.join(words)}: {done.code}\n{done.out}\n{done.err}"
    return done


def shown(drill: Drill) -> dict[str, Any]:
    """What `list` says of the read server; empty when it is in no list."""
    rows = json.loads(cls_reader(drill, "list", "--json").out)
    found: dict[str, Any] = next((row for row in rows if row["name"] == READER), {})
    return found


def add(drill: Drill, *words: str, node: str = "", code: int = 0) -> Completed:
    """`cls_reader add`, once the director runs."""
    drill.until(lambda: drill.lab.run(drill.up[0], ["attrd_updater", "-QA", "-n", "lvsdr-pool"]).ok, "the director publishes a pool")
    return cls_reader(drill, "add", READER, "--yes", *words, node=node, code=code)


def boot(drill: Drill) -> None:
    """Switch the machine on. It comes with another network card, which the nodes would believe only after half a minute."""
    drill.lab.boot(READER)
    for node in drill.up:
        drill.must(node, "ip", "neigh", "flush", "all")


def carries(drill: Drill) -> tuple[bool, str]:
    """Whether the machine has the reader address on lo, and its arp_ignore."""
    return (
        f"inet {VIP}/32" in drill.lab.run(READER, ["ip", "-o", "address", "show", "dev", "lo"]).out,
        drill.lab.run(READER, ["cat", "/proc/sys/net/ipv4/conf/all/arp_ignore"]).out.strip(),
    )


def test_preconditions_are_told_and_nothing_is_done(drill: Drill) -> None:
    """Without --yes and a person, and with --dry-run; a member is refused."""
    drill.must(READER, "sh", "-c", f"mkdir -p {PGDATA}; echo x > {PGDATA}/precious")
    done = cls_reader(drill, "add", READER, "--dry-run", code=1)
    assert [line.split()[0] for line in done.out.splitlines() if "data directory" in line] == ["no"]
    assert "precious" in drill.must(READER, "ls", PGDATA).out
    drill.must(READER, "rm", "-r", PGDATA)
    done = cls_reader(drill, "add", READER, "--dry-run")
    assert "no" not in {line.split()[0] for line in done.out.splitlines() if line}
    assert "--yes" in cls_reader(drill, "add", READER, code=1).err
    assert not drill.lab.run(READER, ["test", "-e", PGDATA]).ok
    assert not drill.lab.run(READER, ["test", "-e", "/var/lib/pgsql/tmp/reader.json"]).ok
    cls_reader(drill, "add", drill.primary(), "--yes", code=1)
    cls_reader(drill, "remove", drill.primary(), "--yes", code=1)


def test_an_interrupted_copy_is_finished_by_the_same_command(drill: Drill) -> None:
    """What an interruption leaves is there: a mark, half a copy, the slot. Afterwards it streams and is in the pool; once more changes nothing."""
    drill.must(READER, "sh", "-c", f"mkdir -p {PGDATA}/base /var/lib/pgsql/tmp; touch /var/lib/pgsql/tmp/reader.clone")
    drill.sql(drill.primary(), "select pg_create_physical_replication_slot('pgsql_0_reader_node4', true)")
    done = add(drill, "--weight", "3")
    assert "replication" not in (done.out + done.err).replace("replication role", "")
    row = shown(drill)
    assert (row["state"], row["weight"], row["slot"], row["address"]) == ("streaming", 3, None, ADDRESS)
    assert carries(drill) == (True, "1")
    assert drill.sql(READER, "show cluster_name") == READER
    assert not drill.sql(drill.primary(), "select slot_name from pg_replication_slots where slot_name ~ 'reader'")
    assert READER in sh(drill, drill.primary(), GET).out.split()
    assert READER not in drill.names(drill.primary())
    before = drill.must(READER, "head", "-1", f"{PGDATA}/postmaster.pid").out
    assert "would" not in cls_reader(drill, "add", READER, "--dry-run").out
    assert cls_reader(drill, "add", READER, "--yes").out.splitlines() == [f"{READER} is a read server"]
    assert drill.must(READER, "head", "-1", f"{PGDATA}/postmaster.pid").out == before
    processes = drill.must(READER, "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").out
    assert "password=" not in processes


def test_it_follows_a_failover_and_tells_when_it_cannot(drill: Drill) -> None:
    """First by itself. Then it receives what the next primary never had: it leaves, says why, and `--again` makes it one that serves."""
    add(drill)
    old = drill.primary()
    drill.lab.kill_postgres(old)
    new = drill.new_primary(old)
    drill.until(lambda: shown(drill).get("state") == "streaming", "the read server follows the new primary")
    drill.restore()
    new = drill.primary()
    drill.must(new, "pkill", "-STOP", "-f", "^postgres: .*walsender replication 192.168.0.23[123]")
    drill.sql(new, "set synchronous_commit = local; create table never_confirmed as select generate_series(1, 1000) as n")
    drill.until(lambda: drill.sql(READER, "select count(*) from never_confirmed") == "1000", "the read server has more than the members")
    drill.lab.crash(new)
    drill.new_primary(new)
    drill.until(lambda: shown(drill).get("state") == "diverged", "it is told that the read server has left the history")
    listed = cls_reader(drill, "list").out
    assert f"cls_reader add --again {READER}" in listed
    cls_reader(drill, "add", READER, "--yes", "--timeout", "2", code=1)
    add(drill, "--again")
    assert shown(drill)["state"] == "streaming"
    assert drill.sql(READER, "select to_regclass('never_confirmed') is null") == "t"


def test_removed_from_the_machine_itself(drill: Drill) -> None:
    """The other way round: run on the read server, the cluster is reached by ssh. Nothing of ours is left, and what was set comes back."""
    add(drill)
    cls_reader(drill, "remove", READER, "--yes", "--delete-data", node=READER)
    assert carries(drill) == (False, "0")
    assert not drill.runs(READER)
    assert drill.must(READER, "ls", PGDATA).out == ""
    assert "pgpass" not in drill.must(READER, "ls", "/var/lib/pgsql/tmp").out
    assert shown(drill) == {}
    cls_reader(drill, "remove", READER, "--yes", node=READER)
    assert not drill.must(READER, "sh", "-c", "ls -d /tmp/pha4pgsql.* 2>/dev/null || true").out
    for node in drill.up:
        assert not drill.must(node, "sh", "-c", "ls -d /tmp/pha4pgsql.* 2>/dev/null || true").out


def test_with_systemd_it_outlives_a_boot(drill: Drill) -> None:
    """A unit is written, good in the eyes of systemd, and it alone brings all back after a power loss. `remove` takes it away."""
    drill.must(READER, "mkdir", "-p", "/run/systemd/system")
    drill.must(READER, "install", "-m", "755", "/dev/stdin", "/usr/local/bin/systemctl", text=SYSTEMCTL)
    add(drill)
    if drill.lab.run(READER, ["which", "systemd-analyze"]).ok:
        seen = drill.lab.run(READER, ["systemd-analyze", "verify", "--man=no", "/etc/systemd/system/pha4pgsql-reader.service"])
        assert "pha4pgsql-reader" not in seen.out + seen.err, seen
    drill.lab.crash(READER)
    drill.until(lambda: shown(drill).get("state") == "down", "the loss is told")
    boot(drill)
    drill.must(READER, "sh", "-c", "mkdir -p /run/systemd/system; test -e /etc/enabled-units && systemctl start unit")
    drill.until(lambda: shown(drill).get("state") == "streaming", "it streams again")
    assert carries(drill) == (True, "1")
    cls_reader(drill, "remove", READER, "--yes")
    assert not drill.lab.run(READER, ["test", "-e", "/etc/systemd/system/pha4pgsql-reader.service"]).ok
    assert not drill.lab.run(READER, ["test", "-e", "/etc/enabled-units"]).ok
    assert PGDATA in drill.must(READER, "sh", "-c", f"ls -d {PGDATA}/base").out, "the data stay"
    drill.must(READER, "rm", "-r", "/run/systemd", "/usr/local/bin/systemctl")
    assert os.path.basename(PGDATA)


def test_a_dead_machine_leaves_the_pool_all_the_same(drill: Drill) -> None:
    """It cannot be reached: it is taken out of the pool, and what is left to do is said."""
    add(drill)
    drill.lab.crash(READER)
    try:
        done = cls_reader(drill, "remove", READER, "--yes", code=1)
        assert "again" in done.err
        assert shown(drill) == {}
    finally:
        boot(drill)
    drill.until(lambda: cls_reader(drill, "remove", READER, "--yes", code=None).code == 0, "the machine that is back is cleared")
    assert carries(drill) == (False, "0")
