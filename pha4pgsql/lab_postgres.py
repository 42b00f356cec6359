"""The practice cluster's PostgreSQL and configuration as text: config.ini, postgresql.conf, pg_hba.conf, the first roles."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pha4pgsql.config import ONLY_READ
from pha4pgsql.lab_words import CLIENT_ADDRESS, DUAL, INSTALLED, LOCK, NIC, OWN_POSTGRESQL_CONF, PGDATA, READER_VIP, SUBNET, WITH_LVS, WRITER_VIP

if TYPE_CHECKING:
    from pha4pgsql.lab_words import Plan

CONFIG_INI = "/root/config.ini"
LOCK_DATA = "/pgsql/lock"
LOG = "/var/log/postgresql/postgresql.log"
SOCKETS = "/var/run/postgresql"


def settings(plan: Plan) -> dict[str, str]:
    """The keys of the lab's config.ini: the seed's values, then what `--set` says."""
    given = {
        "pcs_template": plan.template if "." in plan.template else f"{plan.template}.pcs.j2",
        "pha4pgsql_dir": INSTALLED,
        "writer_vip": WRITER_VIP,
        "reader_vip": READER_VIP,
        **_nodes(plan),
        "vip_nic": NIC,
        "vip_cidr_netmask": "24",
        "pgsql_bindir": plan.bindir,
        "pgsql_pgctl": f"{plan.bindir}/pg_ctl",
        "pgsql_psql": f"{plan.bindir}/psql",
        "pgsql_pgdata": PGDATA,
        "pgsql_socketdir": SOCKETS,
        "pgsql_rep_mode": "sync",
        "pgsql_repuser": "replication",
        "pgsql_reppassword": "replication",
        "pgsql_logfile": "/var/log/postgresql/start.log",
    }
    seldom = {"pgsql_monitor_interval": "10s", "lvs_check_interval": "1s"} if any(node.uml for node in plan.members) else {}
    return {**given, **(LOCK_SETTINGS if given["pcs_template"].startswith(DUAL) else {}), **seldom, **dict(plan.settings)}


LOCK_SETTINGS = {
    "pgsql_enable_distlock": "true",
    "pgsql_distlock_psql_cmd": f'psql "host={LOCK} dbname=distlock user=distlock password=distlock"',
    "pgsql_distlock_lockname": "practice",
}
"""The lock's server is a PostgreSQL on the client; its password goes into the passfile."""


def has_lock(plan: Plan) -> bool:
    """Whether a row at that server is a voice of the set."""
    return settings(plan).get("pgsql_enable_distlock") == "true" and f"host={LOCK} " in settings(plan).get("pgsql_distlock_psql_cmd", "")


def lock_server(plan: Plan) -> str:
    """Shell lines that make the lock's server, an ordinary PostgreSQL which keeps what it has committed, and start it."""
    program = f"setpriv --reuid=postgres --regid=postgres --init-groups {plan.bindir}"
    return f"""set -e
install -d -o postgres -g postgres -m 700 /pgsql
{program}/initdb -D {LOCK_DATA} -U postgres -E UTF8 --locale=C -A trust --no-sync > /dev/null
echo "listen_addresses = '*'" >> {LOCK_DATA}/postgresql.conf
echo "host all distlock {SUBNET} scram-sha-256" >> {LOCK_DATA}/pg_hba.conf
{program}/pg_ctl -w -s -D {LOCK_DATA} -l {LOCK_DATA}/log start
psql -qX -h /var/run/postgresql -U postgres -c "create role distlock login password 'distlock'" -c "create database distlock owner distlock"
"""


def _nodes(plan: Plan) -> dict[str, str]:
    """node1 and so on; with three_plus_x the fourth and later ones only read."""
    names = [node.name for node in plan.members]
    most = 3 if plan.template.startswith(ONLY_READ) else len(names)
    return {**{f"node{number}": name for number, name in enumerate(names[:most], 1)}, "othernodes": " ".join(names[most:])}


def has_lvs(plan: Plan) -> bool:
    """Whether the template balances reads."""
    given = settings(plan)
    return given["pcs_template"].startswith(WITH_LVS) or (given["pcs_template"].startswith(ONLY_READ) and given.get("enable_lvs") != "false")


def config_ini(plan: Plan) -> str:
    return "".join(f"{key}={shlex.quote(value)}\n" for key, value in settings(plan).items())


def postgresql_conf(plan: Plan) -> str:
    """What is added to initdb's file: the prerequisites of the seed's walkthrough in today's names, and short times (a practice cluster)."""
    folder, _, name = LOG.rpartition("/")
    values = {
        "listen_addresses": "*",
        "port": settings(plan).get("pgsql_pgport", "5432"),
        "unix_socket_directories": f"{SOCKETS}, /tmp",
        "password_encryption": "scram-sha-256",
        "shared_buffers": "64MB",
        "wal_level": "replica",
        "wal_log_hints": "on",
        "hot_standby": "on",
        "hot_standby_feedback": "on",
        "fsync": "on",
        "max_wal_senders": "10",
        "max_replication_slots": "10",
        "wal_keep_size": "512MB",
        "max_slot_wal_keep_size": "1GB",
        "max_standby_streaming_delay": "-1",
        "max_standby_archive_delay": "-1",
        "restart_after_crash": "off",
        "wal_sender_timeout": "5000",
        "wal_receiver_status_interval": "2",
        "wal_retrieve_retry_interval": "100ms",
        "logging_collector": "on",
        "log_directory": folder,
        "log_filename": name,
        "log_rotation_age": "0",
        "log_rotation_size": "0",
        "log_line_prefix": "%m [%p] %q%a ",
        "log_replication_commands": "on",
    }
    lines = "".join(f"{key} = '{value}'\n" for key, value in values.items())
    return f"\n# practice cluster\n{lines}include_if_exists '{OWN_POSTGRESQL_CONF}'\n"


def pg_hba_conf() -> str:
    """People on a node and on the client need no password; between the nodes it takes one."""
    rows = (
        ("local", "all", "all", "", "trust"),
        ("local", "replication", "all", "", "trust"),
        ("host", "all", "all", "127.0.0.1/32", "trust"),
        ("host", "all", "all", "::1/128", "trust"),
        ("host", "all", "all", f"{CLIENT_ADDRESS}/32", "trust"),
        ("host", "all", "all", SUBNET, "scram-sha-256"),
        ("host", "replication", "all", SUBNET, "scram-sha-256"),
    )
    return "".join(f"{row[0]:<6}{row[1]:<13}{row[2]:<5}{row[3]:<19}{row[4]}\n" for row in rows)


def first_statements(plan: Plan) -> str:
    """For `postgres --single`: one statement a line. The role is a superuser so that pg_rewind works, as in the walkthrough."""
    given = settings(plan)
    name = given["pgsql_repuser"].replace('"', '""')
    password = given["pgsql_reppassword"].replace("'", "''")
    verb = "ALTER" if name == "postgres" else "CREATE"
    return f"SET password_encryption = 'scram-sha-256';\n{verb} ROLE \"{name}\" LOGIN REPLICATION SUPERUSER PASSWORD '{password}';\n"
