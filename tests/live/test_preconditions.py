"""cls_check on a real cluster: all well, then one thing after the other that is not, each named with its hint."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pha4pgsql.lab_words import INSTALLED, OWN_POSTGRESQL_CONF, Plan

if TYPE_CHECKING:
    from drill import Drill

PLAN = Plan("live-check")
OK, WARNING, CRITICAL, UNKNOWN = 0, 1, 2, 3
ASKER = "node1"
CONFIG = f"{INSTALLED}/config.ini"
PASSFILE = "/var/lib/pgsql/tmp/pgpass"
RELOAD = "psql -XAtqh 127.0.0.1 -U postgres -d postgres -c 'select pg_reload_conf()' >/dev/null"
TRUST = (
    "mkdir -p -m 700 /root/.ssh; ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519; echo 'StrictHostKeyChecking accept-new' > /root/.ssh/config"
)
SERVE = "mkdir -p -m 700 /root/.ssh /run/sshd; cat > /root/.ssh/authorized_keys; ssh-keygen -A >/dev/null; /usr/sbin/sshd -o PidFile=/run/sshd.pid"


@pytest.fixture
def trusted(drill: Drill) -> Drill:
    """A healthy cluster where root of one node may enter the others."""
    if not drill.lab.run(ASKER, ["test", "-e", "/root/.ssh/id_ed25519"]).ok:
        drill.must(ASKER, "sh", "-c", TRUST)
        for node in drill.lab.members:
            if node != ASKER:
                drill.must(node, "sh", "-c", SERVE, text=drill.must(ASKER, "cat", "/root/.ssh/id_ed25519.pub").out)
    drill.must(ASKER, "cls_cleanup")
    drill.healthy()
    return drill


def checked(drill: Drill, *options: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and lines of cls_check."""
    done = drill.lab.run(ASKER, ["cls_check", "--json", *options], timeout=60)
    assert done.out.startswith("{"), done
    return done.code, json.loads(done.out)["checks"]


def bad(lines: list[dict[str, Any]]) -> list[str]:
    return [f"{one['level']} {one['check']}: {one['seen']} -> {one['hint']}" for one in lines if one["level"] != "OK"]


def test_a_healthy_cluster(trusted: Drill) -> None:
    """Every line is OK, once PostgreSQL is not started by systemd any more (as Debian's package would); a monitoring system reads the same."""
    wants = "/etc/systemd/system/multi-user.target.wants/postgresql.service"
    enabled = [node for node in trusted.lab.members if trusted.lab.run(node, ["test", "-L", wants]).ok]
    told = trusted.until(
        lambda: [line for line in bad(checked(trusted)[1]) if "autostart" in line or not enabled] or not enabled, "autostart is told"
    )
    print(told)
    for node in enabled:
        trusted.must(node, "rm", wants)
    trusted.until(lambda: checked(trusted)[0] == OK, "all is well")
    print(trusted.must(ASKER, "cls_check").out)
    line = trusted.must(ASKER, "cls_check", "--nagios").out
    print(line)
    assert line.startswith("PHA4PGSQL OK - ")
    assert "critical=0" in line
    assert line.count("lag_node") == len(trusted.lab.members) - 1


BROKEN = (
    ("node2", f"echo '# mine' >> {CONFIG}", f"sed -i '/# mine/d' {CONFIG}", "config.ini", WARNING, ("config.ini of node2 differs", "install.sh")),
    ("node3", f"chmod 644 {PASSFILE}", f"chmod 600 {PASSFILE}", "passfile", CRITICAL, ("on node3", "0644", "chmod 600")),
    ("node2", "cp /etc/hosts /root/hosts; sed -i 's/.*[[:space:]]node3.*/127.0.0.1 node3/' /etc/hosts", "cat /root/hosts > /etc/hosts", "names",
     CRITICAL, ("node3 is 127.0.0.1 on node2",)),
    ("node2", f"echo >> {INSTALLED}/bin/cls_master", f"sed -i '$d' {INSTALLED}/bin/cls_master", "programs", WARNING, ("installed version of node2",)),
    ("node3", f"echo 'wal_sender_timeout = 0' >> {OWN_POSTGRESQL_CONF}; {RELOAD}", f"sed -i '/wal_sender_timeout/d' {OWN_POSTGRESQL_CONF}; {RELOAD}",
     "settings", WARNING, ("wal_sender_timeout is 0 on node3",)),
    ("node1", "crm_attribute -n stonith-enabled -v false", "crm_attribute -n stonith-enabled -v true", "fencing", WARNING, ("fencing is off",)),
    ("node1", "crm_resource -r vip-slave --meta -p is-managed -v false", "crm_resource -r vip-slave --meta -d is-managed", "managed", WARNING,
     ("vip-slave is unmanaged", "pcs resource manage vip-slave")),
    ("node1", "crm_resource --ban -r vip-slave --node node1", "crm_resource --clear -r vip-slave --node node1", "bans", WARNING,
     ("vip-slave is banned from node1", "pcs resource clear")),
    ("node1", "crm_resource -r pgsql -p maxlag -v 9", "crm_resource -r pgsql -p maxlag -v 0", "parameters", WARNING, ("maxlag is 9",)),
)  # fmt: skip


def test_what_is_broken_is_named(trusted: Drill) -> None:
    """One thing after the other: the line, its level, what was seen and what to type."""
    for node, breaking, mending, name, code, words in BROKEN:
        trusted.must(node, "sh", "-c", breaking)
        try:

            def found(name: str = name, code: int = code, words: tuple[str, ...] = words) -> str:
                now, lines = checked(trusted)
                said = "; ".join(line for line in bad(lines) if f" {name}: " in line)
                return said if now >= code and all(word in said for word in words) else ""

            print(trusted.until(found, f"{name} is said to be wrong: {' / '.join(words)}", timeout=20))
        finally:
            trusted.must(node, "sh", "-c", mending)
    trusted.healthy()


def test_a_node_without_ssh_and_one_that_is_off(trusted: Drill) -> None:
    """What needs it is UNKNOWN, with the reason, in time; the rest stands, settings included."""
    trusted.must("node3", "sh", "-c", "kill $(cat /run/sshd.pid)")
    _, lines = checked(trusted)
    unknown = {one["check"]: one["seen"] for one in lines if one["level"] == "UNKNOWN"}
    print("; ".join(bad(lines)))
    assert {"clock", "names", "passfile", "disk"} <= set(unknown)
    assert all("node3: not reached by ssh" in seen for seen in unknown.values())
    assert [one["level"] for one in lines if one["check"] == "ssh"] == ["WARNING"]
    assert [one["level"] for one in lines if one["check"] in {"settings", "slots"}] == ["OK", "OK"]
    trusted.must("node3", "sh", "-c", SERVE, text=trusted.must(ASKER, "cat", "/root/.ssh/id_ed25519.pub").out)
    standby = next(node for node in trusted.lab.members if node not in {trusted.primary(), ASKER})
    trusted.lab.crash(standby)
    trusted.until(lambda: standby not in {row["name"] for row in trusted.status(ASKER)["nodes"] if row["online"]}, f"{standby} is lost")
    code, lines = checked(trusted, "--timeout", "5")
    assert code in {WARNING, CRITICAL}
    assert any(f"{standby} is offline" in line for line in bad(lines))
