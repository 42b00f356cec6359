"""Read load balancing on real IPVS: node2 and node3 may be directors, node4 is a read server outside of Pacemaker, a client reads all the time.

The tests follow one another on one cluster; each leaves it whole. Where nodes have kernels of their own everything takes several times as
long as on machines: but for one figure, nothing here measures speed.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from readers import Balance

from pha4pgsql import lab_uml
from pha4pgsql.lab_up import ipvs_here
from pha4pgsql.lab_words import Plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drill import Drill


def kind() -> str:
    """Who has IPVS here."""
    here = ipvs_here()
    return here if here == "host" or os.path.exists(lab_uml.KERNEL) else "none"


KIND = kind()
SETTINGS = (("lvs_sync_daemon", "true"), ("lvs_sync_interface", "eth0"))
PATIENT = (("lvs_check_timeout", "3s"), ("lvs_script_timeout", "15s"))
"""Kernels in processes, on a busy machine, are silent for a second now and then, and start psql in several: that would be told as what it is."""
PLAN = Plan("live-lvs", ipvs=KIND, readers=1, template="muti_with_lvs", settings=(*SETTINGS, *(PATIENT if KIND == "uml" else ())))
ALL = {"node2": 1, "node3": 1, "node4": 1}
SLOW = 1.5 if KIND == "uml" else 0.0
"""Seconds that a kernel in a process, on cores which others use too, may add to what takes less than one on a machine."""
PSQL = '\\"host=192.168.0.236 port=5432 dbname=postgres user=replication password=replication connect_timeout=5\\"'
LIST = f'pcs resource update lvsdr realserver_get_real_servers_script="/opt/pha4pgsql/tools/get_active_slaves /usr/pgsql/bin/psql {PSQL}"'
CHECK = (
    'pcs resource update lvsdr realserver_check_active_real_server_script="/opt/pha4pgsql/tools/check_active_slave /usr/pgsql/bin/psql '
    '\\"port=5432 dbname=postgres user=replication password=replication connect_timeout=5\\" -h"'
)
SCRIPT = "pcs resource update lvsdr realserver_get_real_servers_script="

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        KIND == "none", reason="neither has this kernel IPVS (modprobe ip_vs) nor is there a kernel that has it (apt-get install user-mode-linux)"
    ),
    pytest.mark.skipif(not shutil.which("ipvsadm", path="/usr/sbin:/sbin"), reason="there is no witness: ipvsadm is not installed"),
]


@pytest.fixture
def balance(cluster: Drill) -> Iterator[Balance]:
    """The cluster, healthy, with every server in the pool."""
    found = Balance(cluster)
    found.whole()
    yield found
    print(found.scene())


def idle(balance: Balance) -> str:
    """The member that might be the director and is not."""
    return next(name for name in balance.lab.members[1:] if name not in (balance.director, balance.drill.primary()))


# ---------------------------------------------------------------- who gets how much


def test_round_robin_and_weights(balance: Balance) -> None:
    """The same for all, the director too; then 3:1:0; a server of weight 0, or tagged noloadbalance, keeps its sessions."""
    assert balance.director in ALL
    assert balance.landings(30) == dict.fromkeys(ALL, 10)
    assert balance.table() == {balance.lab.address(name): 1 for name in ALL}, "cls_status shows what ipvsadm shows"
    with balance.parameters():
        with balance.reading() as reading:
            before = reading.sessions()
            assert Counter(before.values()) == dict.fromkeys(ALL, 2)
            balance.pcs('pcs resource update lvsdr weight_of_realservers="node2,3 node3,1 node4,0"')
            balance.until_pool(node2=3, node3=1, node4=0)
            since = time.monotonic()
            reading.wait(20)
            assert "node4" not in {read.server for read in reading.good if read.began > since}
            balance.pcs("crm_attribute --node node3 --name pgsql-noloadbalance --update true")
            balance.until_pool(node2=3, node3=0, node4=0)
            balance.pcs("crm_attribute --node node3 --name pgsql-noloadbalance --delete")
            balance.until_pool(node2=3, node3=1, node4=0)
            reading.go_on(before)
        assert balance.landings(20) == {"node2": 15, "node3": 5}
    assert (reading.bad, reading.lost) == ([], [])


def test_whitelists_of_the_walkthrough(balance: Balance) -> None:
    """Its own lines: method 1 asks the primary who streams and gives node4 no weight; method 2 asks every server of a list."""
    method_1 = ('pcs resource update lvsdr default_weight="0"', 'pcs resource update lvsdr weight_of_realservers="node1,1 node2,1 node3,1"', LIST)
    method_2 = (
        'pcs resource update lvsdr default_weight="1"',
        'pcs resource update lvsdr weight_of_realservers="node1 node2 node3 192.168.0.234"',
        'pcs resource update lvsdr realserver_dependent_resource=""',
        'pcs resource update lvsdr realserver_get_real_servers_script=""',
        CHECK,
    )
    with balance.parameters(*method_1):
        balance.until_pool(node2=1, node3=1, node4=0)
        assert balance.landings(10) == {"node2": 5, "node3": 5}
        for line in method_2:
            balance.pcs(line)
        balance.drill.until(lambda: sorted(balance.table().items()) == [(balance.lab.address(name), 1) for name in ALL], "all three are in the table")
        assert balance.landings(9) == dict.fromkeys(ALL, 3)


def test_a_read_server_goes_and_comes_while_clients_run(balance: Balance) -> None:
    """No read fails; only sessions on it end, after they had their time."""
    with balance.parameters("pcs resource update lvsdr drain_time=5s"), balance.reading() as reading:
        there = {number for number, server in reading.sessions().items() if server == "node4"}
        balance.drill.must("node1", "cls_reader", "remove", "node4", "--yes", "--delete-data", timeout=120)
        assert set(balance.pool()) == {"node2", "node3"}
        reading.wait(20)
        balance.add_reader()
        balance.until_pool(**ALL)
        since = time.monotonic()
        balance.drill.until(lambda: any(read.server == "node4" and read.began > since for read in reading.good), "node4 is read from")
        reading.go_on(reading.sessions().keys() - there)
    assert reading.bad == []
    assert {read.session for read in reading.lost} <= there
    assert {read.server for read in reading.lost} <= {"node4"}


# ---------------------------------------------------------------- a server is lost


def test_killed_postgres_of_a_read_server(balance: Balance) -> None:
    """Out of the table within a second after its port was shut, by the director's clock; the others keep what they have; it comes back."""
    with balance.reading() as reading:
        others = {number for number, server in reading.sessions().items() if server != "node4"}
        with balance.witness("node4", 10) as seen:
            balance.lab.kill_postgres("node4")
            balance.drill.until(lambda: "node4" not in balance.pool(), "node4 has left the pool")
        shut = next(at for at, value in seen["port"] if value != "open")
        out = next(at for at, value in seen["weight"] if value in ("0", "absent"))
        print(f"node4's port shut at {shut:.2f}, out of the table {out - shut:+.2f} s later")
        assert out - shut < 1 + SLOW
        since = time.monotonic()
        reading.wait(20)
        assert "node4" not in {read.server for read in reading.good if read.began > since}
        reading.go_on(others)
        balance.add_reader()
        balance.until_pool(**ALL)
    assert {read.server for read in reading.lost} <= {"node4"}
    assert len(reading.lost) == 6 - len(others), "each session on it has learned of its end"
    assert all(read.at - read.began < 3 for read in reading.bad), reading.bad


def test_power_loss_of_a_read_server(balance: Balance) -> None:
    """Nobody says goodbye: no new connections after the time a port may be silent; it returns after a boot."""
    with balance.reading() as reading:
        others = {number for number, server in reading.sessions().items() if server != "node4"}
        balance.lab.crash("node4")
        balance.drill.until(lambda: not balance.pool().get("node4"), "node4 has no weight any more")
        since = time.monotonic()
        reading.wait(20)
        assert "node4" not in {read.server for read in reading.good if read.began > since}
        reading.go_on(others)
    assert {read.server for read in reading.lost} <= {"node4"}
    balance.whole()
    assert set(balance.landings(9)) == set(ALL)


def test_a_standby_is_cut_off(balance: Balance) -> None:
    """Its link, not its life: no new connections, the others keep theirs; it is back after its boot."""
    standby = next(name for name in balance.lab.members if name not in (balance.director, balance.drill.primary()))
    with balance.reading() as reading:
        others = {number for number, server in reading.sessions().items() if server != standby}
        balance.lab.cut(standby)
        balance.drill.until(lambda: not balance.pool().get(standby), f"{standby} has left the pool")
        since = time.monotonic()
        reading.wait(20)
        assert standby not in {read.server for read in reading.good if read.began > since}
        reading.go_on(others)
        balance.whole()
        balance.drill.until(lambda: any(read.server == standby for read in reading.good[-30:]), f"{standby} is read from")
    assert {read.server for read in reading.lost} <= {standby}
    assert reading.on_primary == []


def test_a_server_that_lags(balance: Balance) -> None:
    """Beyond the limit it gets no new connections, and keeps those it has; when it has caught up it is back."""
    limit = "pcs resource update lvsdr max_lag_bytes=300000"
    with balance.reading() as reading, balance.parameters(limit):
        before = reading.sessions()
        balance.drill.must("node4", "psql", "-XAtqh", "127.0.0.1", "-U", "postgres", "-c", "select pg_wal_replay_pause()")
        balance.drill.ask(balance.lab.writer_vip, "create table if not exists much as select generate_series(1, 20000)", timeout=60)
        balance.until_pool(node2=1, node3=1, node4=0)
        reading.go_on(before)
        balance.drill.must("node4", "psql", "-XAtqh", "127.0.0.1", "-U", "postgres", "-c", "select pg_wal_replay_resume()")
        balance.until_pool(**ALL)
    assert (reading.bad, reading.lost) == ([], [])


# ---------------------------------------------------------------- a question fails


def test_scripts_that_fail(balance: Balance) -> None:
    """Hangs, prints rubbish, exits 1, or the primary cannot be reached for 20 s: the log says which, the pool stays."""
    director = balance.director
    with balance.reading() as reading, balance.parameters(LIST):
        balance.until_pool(**ALL)
        since = time.monotonic()
        for script, said in (("/bin/false", "exit"), ("'/bin/echo ERROR! no route'", "ERROR!"), ("'/bin/sleep 600'", "no end within")):
            begin = len(balance.log())
            balance.pcs(f"{SCRIPT}{script}")
            line = balance.until_said("the list script gave no list", since=begin)
            assert said in line, line
            assert "the last good list is kept" in line
            assert balance.pool() == ALL
        balance.pcs(LIST)
        begin = len(balance.log())
        nowhere = ("lladdr", "02:00:00:00:00:99", "dev", "eth0", "nud", "permanent")
        balance.drill.must(director, "ip", "neigh", "replace", balance.lab.writer_vip, *nowhere)
        try:
            balance.until_said("the list script gave no list", since=begin)
            balance.drill.stays(lambda: balance.pool() == ALL, "the pool is the last good one", 20)
        finally:
            balance.drill.must(director, "ip", "neigh", "del", balance.lab.writer_vip, "dev", "eth0")
        balance.until_said("over: the list script", since=begin)
        assert reading.gap(since) < 5
    assert (reading.bad, reading.lost, balance.director) == ([], [], director)


# ---------------------------------------------------------------- the director moves


def test_the_director_is_moved(balance: Balance) -> None:
    """By an operator: held sessions go on, also those to the former director; it keeps no table, and one that is put there is cleared."""
    old, new = balance.director, idle(balance)
    with balance.reading() as reading:
        before = reading.sessions()
        began = time.monotonic()
        balance.drill.must("node1", "crm_resource", "--ban", "--resource", "lvsdr", "--node", old)
        balance.drill.until(lambda: balance.director == new, f"{new} is the director")
        balance.until_pool(**ALL)
        reading.wait(20)
        print(f"director moved from {old} to {new}: reads paused for {reading.gap(began):.2f} s")
        reading.go_on(before)
        balance.drill.must("node1", "crm_resource", "--clear", "--resource", "lvsdr", "--node", old)
    assert reading.lost == []
    assert reading.on_primary == []
    assert balance.table(old) == {}
    leftover = f"ipvsadm -A -t {balance.lab.reader_vip}:5432 -s rr; ipvsadm -a -t {balance.lab.reader_vip}:5432 -r {balance.lab.address(new)} -g"
    balance.drill.must(old, "sh", "-c", leftover)
    balance.drill.must("node1", "crm_resource", "--refresh", "--resource", "lvsdr", "--node", old)
    balance.drill.until(lambda: balance.table(old) == {}, f"the leftover table of {old} is gone")
    assert balance.director == new
    assert set(balance.landings(9)) == set(ALL)


def test_power_loss_of_the_director(balance: Balance) -> None:
    """Held sessions to other servers go on: their connections had been told to the others. Reads go on at the other director."""
    old, new = balance.director, idle(balance)
    with balance.reading() as reading:
        others = {number for number, server in reading.sessions().items() if server != old}
        began = time.monotonic()
        balance.lab.crash(old)
        balance.drill.until(lambda: balance.director == new, f"{new} is the director", 90)
        balance.until_pool(**{name: 1 for name in ALL if name != old})
        reading.wait(20)
        print(f"power loss of the director {old}, {new} takes over: reads paused for {reading.gap(began):.2f} s")
        reading.go_on(others)
        balance.whole()
        reading.wait(20)
    assert {read.server for read in reading.lost} <= {old}
    assert reading.on_primary == []
    assert balance.table(old if balance.director == new else new) == {}


# ---------------------------------------------------------------- the primary changes


def test_failover(balance: Balance) -> None:
    """A standby is promoted and leaves the pool, the old primary joins it; nobody reads from a primary, and readers are never refused."""
    old = balance.drill.primary()
    with balance.reading() as reading:
        before = reading.sessions()
        began = time.monotonic()
        balance.lab.kill_postgres(old)
        new = balance.drill.new_primary(old, timeout=150)
        balance.drill.until(lambda: balance.director not in ("", new), "the director is a standby", 120)
        balance.drill.until(lambda: new not in balance.pool(), f"{new} is not in the pool")
        balance.drill.until(lambda: balance.pool().get(old) == 1, f"{old} is in the pool", 120)
        reading.wait(20)
        print(f"failover from {old} to {new}: reads paused for {reading.gap(began):.2f} s")
        assert reading.on_primary == [], f"{new} became the primary"
        assert balance.table(new) == {}
        reading.go_on({number for number, server in before.items() if server != new})
    assert {read.server for read in reading.lost} <= {new}
    assert [read for read in reading.bad if "refused" in read.trouble] == [], "the pool was empty"
    assert reading.on_primary == []
