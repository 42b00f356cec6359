"""Two sets on one Pacemaker: a second PostgreSQL on every node, with names, port, directories and addresses of its own.

What happens to one does not touch the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pha4pgsql import lab_postgres
from pha4pgsql.lab_node import checkout
from pha4pgsql.lab_up import CLONE
from pha4pgsql.lab_words import Plan

if TYPE_CHECKING:
    from drill import Drill

PLAN = Plan("live-sets", fencing=False)
PROGRAMS = "/opt/pha4pgsql-shop"
DATA = {"pgsql": "/pgsql/data", "shop": "/pgsql/shop"}
SET = {"pgsql": "msPostgresql", "shop": "msShop"}
SHOP = PLAN._replace(
    settings=(
        ("pha4pgsql_dir", PROGRAMS),
        ("RESOURCE_LIST", "msShop vip-shop vip-shop-read"),
        ("pgsql_resource", "shop"),
        ("pgwatch_resource", "shopwatch"),
        ("writer_vip", "192.168.0.238"),
        ("reader_vip", "192.168.0.239"),
        ("pgsql_pgdata", DATA["shop"]),
        ("pgsql_pgport", "5433"),
        ("pgsql_tmpdir", "/var/lib/pgsql/shop"),
        ("pgsql_logfile", "/var/log/postgresql/shop-start.log"),
        ("pgsql_rep_mode", "quorum"),
    )
)


@pytest.fixture(scope="module")
def sets(cluster: Drill) -> Drill:
    """The module's cluster with a second set, by the same commands as the first."""
    cluster.healthy()
    first, *others = cluster.lab.members
    _database(cluster, first, others)
    for node in cluster.lab.members:
        cluster.must(node, "tee", "/root/shop.ini", text=lab_postgres.config_ini(SHOP))
        cluster.must(node, f"{checkout()}/install.sh", "--local", "--config", "/root/shop.ini", timeout=120)
    cluster.must(first, f"{PROGRAMS}/bin/cls_setup", timeout=120)
    cluster.must(first, f"{PROGRAMS}/bin/cls_start", timeout=120)
    return cluster


def _database(drill: Drill, first: str, others: list[str]) -> None:
    """initdb on one node, copies on the others."""
    data = DATA["shop"]
    drill.must(first, f"{SHOP.bindir}/initdb", "-D", data, "-U", "postgres", "-E", "UTF8", "--locale=C", "-A", "trust", "--no-sync", user="postgres")
    conf = lab_postgres.postgresql_conf(SHOP).replace("postgresql.log", "shop.log")
    drill.must(first, "tee", "-a", f"{data}/postgresql.conf", user="postgres", text=conf)
    drill.must(first, "tee", f"{data}/pg_hba.conf", user="postgres", text=lab_postgres.pg_hba_conf())
    single = (f"{SHOP.bindir}/postgres", "--single", "-j", "-D", data, "-c", "logging_collector=off", "postgres")
    drill.must(first, *single, user="postgres", text=lab_postgres.first_statements(SHOP).replace("\n", "\n\n"))
    drill.must(first, "tar", "-C", "/pgsql", "-cf", CLONE, "shop")
    for node in others:
        drill.must(node, "tar", "-C", "/pgsql", "-xpf", CLONE)


def primary(drill: Drill, name: str) -> str:
    """The primary of a set, or empty."""
    done = drill.lab.run(drill.lab.members[0], ["cls_master", "--set", SET[name]], timeout=20)
    return done.out.strip() if done.ok else ""


def traces(drill: Drill, name: str) -> dict[str, tuple[str, str]]:
    """What a restart or an election of a set would change: the postmaster, and the state file, of every node."""
    tmpdir = "/var/lib/pgsql/shop" if name == "shop" else "/var/lib/pgsql/tmp"
    paths = (f"{DATA[name]}/postmaster.pid", f"{tmpdir}/{name}.state")
    return {node: (drill.must(node, "head", "-1", paths[0]).out, drill.must(node, "cat", paths[1]).out) for node in drill.lab.members}


def at_rest(drill: Drill, name: str) -> dict[str, tuple[str, str]]:
    """The traces of a set once every node has heard how its last election ended."""
    drill.until(lambda: all("pending=0.\n" in state for _, state in traces(drill, name).values()), f"{name} has come to rest")
    return traces(drill, name)


def test_each_command_means_its_set(sets: Drill) -> None:
    """By the config.ini that belongs to it, by --set, by the environment; what does not exist is refused."""
    node = sets.lab.members[0]
    ports = {"cls_status": ("pgsql", "192.168.0.236"), f"{PROGRAMS}/bin/cls_status": ("shop", "192.168.0.238")}
    for program, (name, _) in ports.items():
        assert f"{name}_REPL_INFO" in sets.must(node, program, "--crm").out
    assert "shop_REPL_INFO" in sets.must(node, "cls_status", "--crm", "--set", "shop").out
    assert "shop_REPL_INFO" in sets.must(node, "env", "PHA4PGSQL_SET=msShop", "cls_status", "--crm").out
    assert sets.lab.run(node, ["cls_master", "--set", "web"]).code == 1
    assert "the sets msPostgresql msShop" in sets.lab.run(node, ["cls_master", "--set", "web"]).err
    for address, port in (("192.168.0.236", "5432"), ("192.168.0.238", "5433")):
        said = sets.must(
            "client", "psql", "-XAtq", f"host={address} port={port} user=postgres dbname=postgres", "-c", "show data_directory"
        ).out.strip()
        assert said == DATA["pgsql" if port == "5432" else "shop"]


def test_a_second_setup_changes_nothing_of_either(sets: Drill) -> None:
    """Each set keeps to its own."""
    node = sets.lab.members[0]
    for program in ("cls_setup", f"{PROGRAMS}/bin/cls_setup"):
        assert sets.must(node, program, timeout=60).out == "nothing to change\n"


@pytest.mark.parametrize(("one", "other"), [("pgsql", "shop"), pytest.param("shop", "pgsql", marks=pytest.mark.drill)])
def test_a_failover_of_one_does_not_touch_the_other(sets: Drill, one: str, other: str) -> None:
    """The postmaster of one primary is killed: that set has another one, the other has the same processes and the same state files."""
    before = at_rest(sets, other)
    old, kept = primary(sets, one), primary(sets, other)
    sets.must(old, "sh", "-c", f"kill -9 $(head -1 {DATA[one]}/postmaster.pid)")
    new = sets.until(lambda: primary(sets, one).replace(old, ""), f"another node is primary of {one}")
    port = "5433" if one == "shop" else "5432"
    query = ("psql", "-XAtq", "-h", "127.0.0.1", "-p", port, "-U", "postgres", "-d", "postgres", "-c", "select count(*) from pg_stat_replication")
    sets.until(lambda: sets.lab.run(new, query).out.strip() == "2", f"both others follow {new}")
    assert primary(sets, other) == kept
    assert traces(sets, other) == before


def test_one_is_stopped_and_started_alone(sets: Drill) -> None:
    """cls_stop and cls_start of one set."""
    node = sets.lab.members[0]
    before = at_rest(sets, "pgsql")
    sets.must(node, "cls_stop", "--set", "msShop", timeout=60)
    assert not primary(sets, "shop")
    assert traces(sets, "pgsql") == before
    sets.must(node, "cls_start", "--set", "msShop", "--timeout", "60", timeout=150)
    assert primary(sets, "shop")
    assert traces(sets, "pgsql") == before
