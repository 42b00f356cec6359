"""config.ini: every key, what it may hold, what it means; a file becomes one frozen `Config` or one list of all its problems.

The file keeps the original's keys: `KEY=VALUE` lines as a shell would read them (quotes, comments), but nothing in it is ever executed.
The table `KEYS` is the single place where a key is defined: parser, default, help, and the agent parameter that it sets.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from pha4pgsql import psql_line
from pha4pgsql.parameters import AGENTS, PGWATCH
from pha4pgsql.words import ConfigurationError, Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

READABLE = ("HS:sync", "HS:quorum", "HS:potential", "HS:async")
"""What `<resource>-status` says of a standby that replicates, and so may serve readers."""

MOST_PREFERRED = 100
"""The highest priority: promotion scores of standbys are 100 to 200."""

ONLY_READ = "three_plus_x"
"""In templates whose name begins so, the nodes of othernodes only read."""

NAMEDATALEN = 64
"""PostgreSQL's limit for names, the zero at the end included (manual, 4.1.1): a slot's name has one character less."""


# ---------------------------------------------------------------- kinds of values: text -> value, or ValueError saying what was expected


def _text(text: str) -> str:
    return text


def _word(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.][A-Za-z0-9_.@%:-]*", text):
        raise ValueError("one word of letters, digits and _ . - @ % :")
    return text


def _identifier(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", text):
        raise ValueError("a name of letters, digits and _ . - that begins with a letter")
    return text


def _node(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,38}[A-Za-z0-9])?", text):
        raise ValueError("a cluster node name of letters, digits and . _ -, at most 40 characters")
    return text


def _node_names(text: str) -> tuple[str, ...]:
    return tuple(_node(name) for name in text.split())


def _priorities(text: str) -> tuple[tuple[str, int], ...]:
    pairs = [item.partition(",") for item in text.split()]
    if not all(number.isascii() and number.isdigit() and int(number) <= MOST_PREFERRED for _, _, number in pairs):
        raise ValueError(f"NODE,NUMBER with blanks between them, numbers from 0 to {MOST_PREFERRED}")
    return tuple((_node(name), int(number)) for name, _, number in pairs)


def _names(text: str) -> tuple[str, ...]:
    return tuple(_identifier(name) for name in text.split())


def _resources(text: str) -> tuple[str, ...]:
    names = _names(text)
    if len(names) < 3 or len(set(names)) != len(names):
        raise ValueError("three different names: the promotable set, the writer VIP, the reader VIP")
    return names


def _absolute(text: str) -> str:
    if not text.startswith("/") or re.search(r"[\x00-\x1f\"']", text):
        raise ValueError("an absolute path without quotes")
    return os.path.normpath(text)


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError("an IPv4 or IPv6 address") from None


def _prefix(text: str) -> int:
    return _number(0, 128, "a prefix length, 0 to 32 for IPv4, 0 to 128 for IPv6")(text)


def _number(low: int, high: int, expected: str) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]+", text) or not low <= int(text) <= high:
            raise ValueError(expected)
        return int(text)

    return parse


_port = _number(1, 65535, "a port number, 1 to 65535")
_count = _number(0, 2**63 - 1, "a whole number, 0 or more")
_weight = _number(0, 65535, "a weight, 0 to 65535")
_sync_id = _number(0, 255, "a number, 0 to 255")
_mark = _number(1, 2**32 - 1, "a firewall mark, 1 to 4294967295")


def _rejoin(text: str) -> str:
    word = text.replace(" ", "")
    if word not in {"no", "rewind", "rewind,rebuild"}:
        raise ValueError("no, rewind, or rewind,rebuild")
    return word


def _boolean(text: str) -> bool:
    if text.lower() in {"true", "on", "yes", "y", "1"}:
        return True
    if text.lower() in {"false", "off", "no", "n", "0"}:
        return False
    raise ValueError("true or false")


def _duration(text: str) -> str:
    if not re.fullmatch(r"[0-9]+(ms|s|sec|m|min|h|hr)?", text):
        raise ValueError("a time such as 60s, 5min or 500ms")
    return text


def _score(text: str) -> str:
    if not re.fullmatch(r"-?[0-9]+|[+-]?INFINITY", text):
        raise ValueError("a score: a whole number or INFINITY")
    return text


def _mode(text: str) -> Mode:
    if text not in {"async", "sync", "quorum"}:
        raise ValueError("async, sync or quorum")
    return Mode(text)


def _slot_prefix(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]{0,20}", text):
        raise ValueError("at most 20 lower-case letters, digits and _")
    return text


def _quorum_policy(text: str) -> str:
    if text not in {"stop", "demote", "freeze", "suicide", "ignore"}:
        raise ValueError("stop, demote, freeze, suicide or ignore")
    return text


def _fencing(text: str) -> str:
    return "auto" if text == "auto" else str(_boolean_or_auto(text)).lower()


def _boolean_or_auto(text: str) -> bool:
    try:
        return _boolean(text)
    except ValueError:
        raise ValueError("true, false or auto") from None


def _settings(text: str) -> tuple[tuple[str, str], ...]:
    pairs = tuple(item.partition("=")[::2] for item in text.split())
    if not all(re.fullmatch(r"[a-z][a-z0-9_-]*", name) and value for name, value in pairs):
        raise ValueError("name=value pairs with blanks between them")
    return pairs


def _template(text: str) -> str:
    name = re.sub(r"\.pcs\.template$", ".pcs.j2", text)  # the names of the original keep working
    if not re.fullmatch(r"[A-Za-z0-9_.-]+\.pcs\.j2", name):
        raise ValueError("the name of a file in templates/, such as muti.pcs.j2")
    return name


def _conninfo(text: str) -> str:
    if re.search(r"\bpassword\s*=", text):
        raise ValueError("no password here (it would be readable in the cluster's configuration); use pgsql_reppassword")
    if not re.fullmatch(r"(\s*[a-z_]+\s*=\s*('([^'\\]|\\.)*'|[^\s']+))*\s*", text):
        raise ValueError("libpq keyword=value pairs")
    return text


def _host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*", text):
        raise ValueError("host names or addresses with blanks between them, each with ,WEIGHT behind it or not")
    return text


def _servers(text: str) -> str:
    """Read `host[,weight] ...`; the answer has single blanks."""
    for item in text.split():
        host, comma, weight = item.partition(",")
        _host(host)
        if comma:
            _weight(weight)
    return " ".join(text.split())


def _threshold(text: str) -> str:
    if not re.fullmatch(r"[0-9]+ [0-9]+", text):
        raise ValueError("two numbers, as in net.ipv4.vs.sync_threshold, such as 0 1")
    return text


def _script(text: str) -> str:
    if re.search(r"\bpassword\s*=", text):
        raise ValueError("no password here (it would be readable in the cluster's configuration); passfile=... names a password file")
    return text


def _ports(text: str) -> str:
    for port in text.split():
        _port(port)
    return " ".join(text.split())


# ---------------------------------------------------------------- the keys


class Key(NamedTuple):
    """One key of config.ini. `default` is text as it would be written; None: the file must give it.

    `parameter` is the parameter of `agent` which takes the value, `example` what the sample file shows where it is not the default.
    """

    name: str
    parse: Callable[[str], Any]
    default: str | None
    help: str
    parameter: str = ""
    example: str = ""
    agent: str = "pgsql"

    @property
    def field(self) -> str:
        return self.name.lower()


class Chapter(NamedTuple):
    """A heading of the sample file and its keys."""

    title: str
    keys: tuple[Key, ...]


def _lvs(name: str, parse: Callable[[str], Any], default: str, meaning: str, example: str = "", parameter: str = "") -> Key:
    """Return a key of the director, which is named for its parameter. Empty: the agent's own default, which `meaning` tells."""
    return Key(f"lvs_{name}", parse, default, meaning, parameter or name, example, "lvsdr")


CHAPTERS = (
    Chapter(
        "What is installed where",
        (
            Key("pcs_template", _template, "muti.pcs.j2", "the file in templates/ from which config.pcs is made"),
            Key("pha4pgsql_dir", _absolute, "/opt/pha4pgsql", "where the programs are installed, on every node"),
            Key("OCF_ROOT", _absolute, "/usr/lib/ocf", "the agents are linked into OCF_ROOT/resource.d/pha4pgsql"),
        ),
    ),
    Chapter(
        "The cluster",
        (
            Key("writer_vip", _address, None, "the address that clients write to; it is where the primary is", "master_ip", "192.168.0.236"),
            Key("reader_vip", _address, None, "the address that clients read from; it is where a standby is", example="192.168.0.237"),
            Key("vip_nic", _word, "", "network interface of both addresses; empty: the one that has an address of the same network", example="ens37"),
            Key("vip_cidr_netmask", _prefix, "24", "prefix length of both addresses"),
            Key(
                "reader_vip_on_primary",
                _boolean,
                "false",
                "true: when no standby is left, the reader address moves to the primary; false: it stops, as there is no standby to read from",
            ),
            Key(
                "RESOURCE_LIST",
                _resources,
                "msPostgresql vip-master vip-slave",
                "names of the promotable set, the writer address and the reader address in the cluster",
            ),
            Key("pgsql_resource", _identifier, "pgsql", "name of the PostgreSQL resource inside the set; node attributes begin with it"),
            Key("pgwatch_resource", _identifier, "pgwatch", "name of the watcher that votes for a node whose PostgreSQL is down"),
            Key(
                "no_quorum_policy",
                _quorum_policy,
                "",
                "what a part of the cluster without quorum does; empty: stop, with the template dual ignore: promises tell who may go on",
                example="stop",
            ),
            Key(
                "stonith_enabled",
                _fencing,
                "auto",
                "fencing: true, false, or auto: true when the cluster has a fencing device at cls_setup, otherwise false and a warning",
            ),
            Key("resource_stickiness", _score, "1", "default of all resources: how much they prefer to stay where they are"),
            Key("migration_threshold", _count, "10", "default of all resources: failures on a node after which they leave it"),
            Key(
                "cluster_properties",
                _settings,
                "load-threshold=1000%",
                "further cluster properties, name=value with blanks between them; load-threshold: Pacemaker "
                "runs one action at a time on a node whose load is above it, and a busy database must not make a failover slow",
            ),
        ),
    ),
    Chapter(
        "PostgreSQL",
        (
            Key(
                "pgsql_bindir",
                _absolute,
                "",
                "directory of pg_ctl, psql, postgres, pg_rewind ...; empty: that of pgsql_pgctl",
                "bindir",
                "/usr/lib/postgresql/15/bin",
            ),
            Key("pgsql_pgctl", _absolute, "", "path of pg_ctl; empty: the one in pgsql_bindir", "pgctl", "/usr/pgsql/bin/pg_ctl"),
            Key("pgsql_psql", _absolute, "", "path of psql, for the commands; empty: the one in pgsql_bindir", example="/usr/pgsql/bin/psql"),
            Key("pgsql_pgdata", _absolute, None, "data directory", "pgdata", "/pgsql/data"),
            Key("pgsql_datadir", _absolute, "", "data_directory, where it is not pgsql_pgdata", "datadir", "/var/lib/postgresql/15/main"),
            Key(
                "pgsql_config", _absolute, "", "postgresql.conf, where it is not in pgsql_pgdata", "config", "/etc/postgresql/15/main/postgresql.conf"
            ),
            Key("pgsql_pgdba", _word, "postgres", "operating system user who owns the instance", "pgdba"),
            Key("pgsql_pgport", _port, "5432", "port", "pgport"),
            Key(
                "pgsql_pghost", _word, "", "address or socket directory that the agent connects to; empty: the default socket", "pghost", "127.0.0.1"
            ),
            Key("pgsql_pgdb", _text, "", "database that the agent connects to; empty: postgres", "pgdb", "monitoring"),
            Key("pgsql_socketdir", _absolute, "", "directory of the unix sockets", "socketdir", "/var/run/postgresql"),
            Key("pgsql_pglibs", _absolute, "", "directory added to the library path", "pglibs", "/usr/pgsql/lib"),
            Key("pgsql_tmpdir", _absolute, "/var/lib/pgsql/tmp", "the agent's own directory: state file, settings it writes, passfile", "tmpdir"),
            Key("pgsql_logfile", _absolute, "", "what pg_ctl -l writes to; empty: nothing", "logfile", "/var/log/postgresql/start.log"),
            Key("pgsql_start_opt", _text, "", "options for the postgres program", "start_opt", "-c work_mem=64MB"),
            Key("pgsql_ctl_opt", _text, "", "options for pg_ctl", "ctl_opt", "-s"),
            Key(
                "pgsql_monitor_user",
                _word,
                "",
                "database role of the checks; its password stands in .pgpass of pgsql_pgdba; empty: pgsql_pgdba",
                "monitor_user",
                "monitor",
            ),
            Key("pgsql_monitor_sql", _text, "", "statement that must succeed on the primary", "monitor_sql", "select now();"),
            Key("pgsql_check_wal_receiver", _boolean, "", "true: publish the node attribute pgsql-receiver-status", "check_wal_receiver", "true"),
        ),
    ),
    Chapter(
        "Replication",
        (
            Key(
                "pgsql_rep_mode", _mode, "sync", "who must confirm a commit: sync (named standbys), quorum (any of them), async (nobody)", "rep_mode"
            ),
            Key("pgsql_sync_count", _count, "0", "how many standbys must confirm a commit; 0: half of the nodes, rounded down", "sync_count"),
            Key(
                "pgsql_sync_strict",
                _boolean,
                "false",
                "true: commits wait when too few standbys are there; false: the primary goes on alone after the others have stored that it does",
                "sync_strict",
            ),
            Key(
                "pgsql_external_standby_node_list",
                _node_names,
                "",
                "application names of standbys outside of the cluster that confirm commits too while they stream, one standby each",
                "external_standby_node_list",
                "dr1",
            ),
            Key(
                "pgsql_repuser",
                _word,
                "postgres",
                "replication role; for pg_rewind a superuser, or with the rights that docs/cls_repair_by_pg_rewind.md lists",
                "repuser",
                "replication",
            ),
            Key(
                "pgsql_reppassword",
                _text,
                "",
                "its password (pgsql_reppassord, the old spelling, works too); it goes into the passfile only",
                example="replication",
            ),
            Key(
                "pgsql_passfile",
                _absolute,
                "",
                "libpq password file, written by install.sh; empty: pgpass in pgsql_tmpdir",
                "passfile",
                "/var/lib/pgsql/tmp/pgpass",
            ),
            Key(
                "pgsql_primary_conninfo_opt",
                _conninfo,
                "",
                "further connection settings of the standbys; keepalives of 5, 2 and 3 are set without it",
                "primary_conninfo_opt",
                "sslmode=verify-full",
            ),
            Key("pgsql_replication_slot_name", _slot_prefix, "", "first part of the names of the replication slots", "replication_slot_name", "slot"),
            Key("pgsql_maxlag", _count, "0", "async: bytes behind the primary from which a standby is not promoted; 0: no limit", "maxlag"),
            Key(
                "pgsql_auto_rejoin",
                _rejoin,
                "rewind",
                "what a node does whose data left the primary's history: no (it waits for a person), rewind (pg_rewind, in the background), "
                "or rewind,rebuild (and a new copy where that is not possible)",
                "auto_rejoin",
            ),
            Key("pgsql_restore_command", _text, "", "restore_command of the standbys", "restore_command", "cp /archive/%f %p"),
            Key(
                "pgsql_archive_cleanup_command",
                _text,
                "",
                "archive_cleanup_command of the standbys",
                "archive_cleanup_command",
                "pg_archivecleanup /archive %r",
            ),
            Key("pgsql_recovery_end_command", _text, "", "recovery_end_command of the standbys", "recovery_end_command", "/usr/local/bin/promoted"),
            Key(
                "pgsql_restart_on_promote",
                _boolean,
                "",
                "accepted, without effect: a promotion always begins a new timeline",
                "restart_on_promote",
                "false",
            ),
            Key(
                "pgsql_xlog_check_count",
                _count,
                "",
                "accepted, without effect: elections are decided by answers, not by repeated looks",
                "xlog_check_count",
                "3",
            ),
        ),
    ),
    Chapter(
        "Tags: wishes about single nodes; empty: as operators have set them",
        (
            Key("nofailover", _node_names, "", "nodes that become primary only if no other node has every acknowledged commit", example="node3"),
            Key("nosync", _node_names, "", "nodes that no commit waits for", example="node3"),
            Key("noloadbalance", _node_names, "", "nodes that serve no readers", example="node3"),
            Key(
                "priority",
                _priorities,
                "",
                "NODE,NUMBER with blanks between them, 0 to 100: of equal nodes the higher is made synchronous, and promoted, first",
                example="node2,20 node1,10",
            ),
        ),
    ),
    Chapter(
        "Two nodes: the distributed lock, a row in a PostgreSQL outside of the set",
        (
            Key(
                "pgsql_enable_distlock",
                _boolean,
                "",
                "true: the row is one more voice beside the nodes, so that two nodes can go on when either is lost (docs/dual.md)",
                "enable_distlock",
                "true",
            ),
            Key(
                "pgsql_distlock_psql_cmd",
                _text,
                "",
                "psql command (or connection string) for its server, which is no node of this cluster; a password goes into the passfile only",
                example='/usr/pgsql/bin/psql "host=192.168.0.234 port=5432 dbname=postgres user=distlock"',
            ),
            Key("pgsql_distlock_lockname", _text, "", "name of the row, one of its own for each cluster", "distlock_lockname", "pgcluster1"),
            Key(
                "pgsql_distlock_passfile",
                _absolute,
                "",
                "libpq password file for it, on every node; empty: pgsql_passfile",
                "distlock_passfile",
                "/var/lib/pgsql/tmp/lockpass",
            ),
        ),
    ),
    Chapter(
        "Times and failures",
        (
            Key("pgsql_stop_escalate", _count, "", "seconds of fast shutdown before immediate shutdown", "stop_escalate", "90"),
            Key("pgsql_stop_escalate_in_slave", _count, "", "the same on a standby", "stop_escalate_in_slave", "90"),
            Key("pgsql_crm_attr_timeout", _count, "", "seconds after which an update of a node attribute is given up", "crm_attr_timeout", "5"),
            Key("pgsql_monitor_interval", _duration, "4s", "between two checks of a standby"),
            Key("pgsql_monitor_interval_promoted", _duration, "3s", "between two checks of the primary; must differ from the one above"),
            Key("pgsql_timeout", _duration, "60s", "for each action of the PostgreSQL agent"),
            Key("pgsql_migration_threshold", _count, "3", "failures on a node after which PostgreSQL is not started there for pgsql_failure_timeout"),
            Key("pgsql_failure_timeout", _duration, "60s", "after this time without a new failure the failures are forgotten; 0: never"),
        ),
    ),
    Chapter(
        "Read load balancing, with the template muti_with_lvs",
        (
            Key("enable_lvs", _boolean, "true", "with the template three_plus_x: false: no read load balancing, only an address for readers"),
            Key("lvsdr_resource", _identifier, "lvsdr", "name of the director, which spreads readers over the real servers"),
            Key("lvsdr_realsvr_resource", _identifier, "lvsdr-realsvr", "name of what makes a standby a real server; its clone has -clone behind it"),
            _lvs(
                "virtual_service_options",
                _text,
                "-s wrr",
                "scheduler and persistence, in ipvsadm's words; rr does not look at weights, wrr does, wlc counts connections; "
                "-p 300: a client stays at its server for 300 seconds",
            ),
            _lvs("default_weight", _weight, "", "weight of servers without one of their own; 0: they get no new connections; empty: 1", "1"),
            _lvs("weight_of_realservers", _servers, "", "weights, host,weight with blanks between them", "node2,3 node3,1"),
            _lvs(
                "readers",
                _servers,
                "",
                "read servers outside of the cluster, host or host,weight with blanks between them: in the pool while they stream from the primary; "
                "empty: those that cls_reader has added to the running cluster, which cls_setup leaves as they are",
                "192.168.0.234,1",
            ),
            _lvs(
                "max_lag_bytes",
                _count,
                "",
                "bytes not replayed yet beyond which a server gets lvs_lag_weight, all of them if need be; empty: no limit",
                "67108864",
            ),
            _lvs("max_lag_seconds", _count, "", "the same in seconds", "30"),
            _lvs("lag_weight", _weight, "", "weight of a server beyond a limit; empty: 0, no new connections", "1"),
            _lvs("drain_time", _duration, "", "how long a healthy server that leaves keeps the connections it has; empty: 30s", "5min"),
            _lvs(
                "fallback_to_primary",
                _boolean,
                "",
                "true: the primary serves readers when no other server is left; empty: as reader_vip_on_primary says",
                "false",
            ),
            _lvs("check_interval", _duration, "", "how often the director looks at the cluster and at the servers' ports; empty: 500ms", "500ms"),
            _lvs("check_timeout", _duration, "", "how long a server's port may be silent; empty: 1s", "1s"),
            _lvs("script_timeout", _duration, "", "how long a script may take; empty: 5s", "5s"),
            _lvs(
                "get_real_servers_script",
                _script,
                "",
                "command that prints the real servers, instead of all other rules",
                '/opt/pha4pgsql/tools/get_active_slaves /usr/pgsql/bin/psql "host=192.168.0.236 dbname=postgres user=replication"',
                "realserver_get_real_servers_script",
            ),
            _lvs(
                "check_active_real_server_script",
                _script,
                "",
                "command that gets a server's name as last word and prints t if it may serve, instead of the node attribute",
                '/opt/pha4pgsql/tools/check_active_slave /usr/pgsql/bin/psql "dbname=postgres user=replication" -h',
                "realserver_check_active_real_server_script",
            ),
            _lvs("heartbeat_file", _absolute, "", "file in which the director writes the time whenever it is called", "/run/lvsdr.heartbeat"),
            _lvs(
                "sync_daemon",
                _boolean,
                "",
                "true: the director tells the standbys of its connections (multicast, not encrypted), so that those of readers outlive the director",
                "true",
            ),
            _lvs("sync_interface", _word, "", "network interface for that; empty: vip_nic", "ens37"),
            _lvs("sync_id", _sync_id, "", "number that tells directors of one network apart; empty: 0", "37"),
            _lvs("sync_threshold", _threshold, "", "packets of a connection before it is told, and how many until again; empty: 0 1", "0 1"),
            _lvs("fwmark", _mark, "", "firewall mark, to balance several ports as one service", "1"),
            _lvs("fwmark_ports", _ports, "", "the ports that get this mark; empty: pgsql_pgport", "5432 6432"),
        ),
    ),
    Chapter("Keys of older files, without effect today", (Key("use_ssh", _text, "", "was: ask another node over ssh for its view"),)),
)
KEYS = {key.name: key for chapter in CHAPTERS for key in chapter.keys}
TAGS = ("nofailover", "nosync", "noloadbalance")
ALIASES = {"pgsql_reppassord": "pgsql_reppassword"}
NODE_KEY = re.compile(r"node([0-9]+)")
NODE_HELP = (
    "the cluster's nodes by their names in corosync.conf, counted up without a gap; further ones may stand in othernodes, "
    "with the template three_plus_x those which only read"
)


class Config(NamedTuple):
    """A config.ini without a fault. Field names are the keys' in lower case; `nodes` is node1..nodeN, then othernodes.

    `read_nodes` are those of them that only read.
    """

    nodes: tuple[str, ...]
    read_nodes: tuple[str, ...]
    pcs_template: str
    pha4pgsql_dir: str
    ocf_root: str
    writer_vip: str
    reader_vip: str
    vip_nic: str
    vip_cidr_netmask: int
    reader_vip_on_primary: bool
    resource_list: tuple[str, ...]
    pgsql_resource: str
    pgwatch_resource: str
    no_quorum_policy: str
    stonith_enabled: str
    resource_stickiness: str
    migration_threshold: int
    cluster_properties: tuple[tuple[str, str], ...]
    pgsql_bindir: str
    pgsql_pgctl: str
    pgsql_psql: str
    pgsql_pgdata: str
    pgsql_datadir: str
    pgsql_config: str
    pgsql_pgdba: str
    pgsql_pgport: int
    pgsql_pghost: str
    pgsql_pgdb: str
    pgsql_socketdir: str
    pgsql_pglibs: str
    pgsql_tmpdir: str
    pgsql_logfile: str
    pgsql_start_opt: str
    pgsql_ctl_opt: str
    pgsql_monitor_user: str
    pgsql_monitor_sql: str
    pgsql_check_wal_receiver: bool | None
    pgsql_rep_mode: Mode
    pgsql_sync_count: int
    pgsql_sync_strict: bool
    pgsql_external_standby_node_list: tuple[str, ...]
    pgsql_repuser: str
    pgsql_reppassword: str
    pgsql_passfile: str
    pgsql_primary_conninfo_opt: str
    pgsql_replication_slot_name: str
    pgsql_maxlag: int
    pgsql_auto_rejoin: str
    pgsql_restore_command: str
    pgsql_archive_cleanup_command: str
    pgsql_recovery_end_command: str
    pgsql_enable_distlock: bool | None
    pgsql_distlock_psql_cmd: str
    pgsql_distlock_lockname: str
    pgsql_distlock_passfile: str
    pgsql_restart_on_promote: bool | None
    pgsql_xlog_check_count: int | None
    nofailover: tuple[str, ...]
    nosync: tuple[str, ...]
    noloadbalance: tuple[str, ...]
    priority: tuple[tuple[str, int], ...]
    pgsql_stop_escalate: int | None
    pgsql_stop_escalate_in_slave: int | None
    pgsql_crm_attr_timeout: int | None
    pgsql_monitor_interval: str
    pgsql_monitor_interval_promoted: str
    pgsql_timeout: str
    pgsql_migration_threshold: int
    pgsql_failure_timeout: str
    enable_lvs: bool
    lvsdr_resource: str
    lvsdr_realsvr_resource: str
    lvs_virtual_service_options: str
    lvs_default_weight: int | None
    lvs_weight_of_realservers: str
    lvs_readers: str
    lvs_max_lag_bytes: int | None
    lvs_max_lag_seconds: int | None
    lvs_lag_weight: int | None
    lvs_drain_time: str
    lvs_fallback_to_primary: bool
    lvs_check_interval: str
    lvs_check_timeout: str
    lvs_script_timeout: str
    lvs_get_real_servers_script: str
    lvs_check_active_real_server_script: str
    lvs_heartbeat_file: str
    lvs_sync_daemon: bool | None
    lvs_sync_interface: str
    lvs_sync_id: int | None
    lvs_sync_threshold: str
    lvs_fwmark: int | None
    lvs_fwmark_ports: str

    @property
    def members(self) -> tuple[str, ...]:
        """The nodes that take part in elections."""
        return tuple(node for node in self.nodes if node not in self.read_nodes)

    @property
    def node_attributes(self) -> dict[str, list[tuple[str, str]]]:
        """The wishes about single nodes, as node attributes."""
        wishes = [(node, tag, "true") for tag in TAGS for node in getattr(self, tag)]
        wishes += [(node, "priority", str(number)) for node, number in self.priority]
        found: dict[str, list[tuple[str, str]]] = {}
        for node, tag, value in wishes:
            found.setdefault(node, []).append((f"{self.pgsql_resource}-{tag}", value))
        return found

    @property
    def resource_set(self) -> str:
        """The promotable clone."""
        return self.resource_list[0]

    @property
    def writer(self) -> str:
        return self.resource_list[1]

    @property
    def reader(self) -> str:
        return self.resource_list[2]

    @property
    def repl_info(self) -> str:
        """The cluster property that names the primary."""
        return f"{self.pgsql_resource}_REPL_INFO"

    @property
    def property_set(self) -> str:
        """The id of the property set that holds `repl_info`."""
        return f"{self.pgsql_resource}_replication"

    @property
    def best_status(self) -> str:
        """What `<resource>-status` says of the standbys that readers should prefer."""
        return {Mode.SYNC: "HS:sync", Mode.QUORUM: "HS:quorum"}.get(self.pgsql_rep_mode, "HS:async")

    @property
    def lock(self) -> psql_line.Target | None:
        """Where the row of the distributed lock is; None: there is none."""
        return psql_line.target(self.pgsql_distlock_psql_cmd) if self.pgsql_enable_distlock else None

    @property
    def agent_parameters(self) -> dict[str, str]:
        """What the pgsql agent is given in the cluster's configuration: never a secret, never an empty value."""
        values = self._of("pgsql")
        values["node_list"] = " ".join(self.members)
        values["read_node_list"] = " ".join(self.read_nodes)
        for name in [name for name in values if name.startswith("distlock_")] if self.lock is None else []:
            del values[name]
        if self.lock is not None:
            values["distlock_conninfo"] = self.lock.conninfo
        if self.pgsql_bindir == os.path.dirname(self.pgsql_pgctl):
            del values["bindir"]
        return {name: value for name, value in values.items() if value}

    @property
    def watch_parameters(self) -> dict[str, str]:
        """What the pgwatch agent is given: the same, as far as it knows the parameter, and whom it speaks for."""
        known = {parameter.name for parameter in PGWATCH.parameters}
        return {"resource": self.pgsql_resource} | {name: value for name, value in self.agent_parameters.items() if name in known}

    @property
    def director_parameters(self) -> dict[str, str]:
        """What the lvsdr agent is given: where the service is, whom it takes, how it asks the primary, and what differs from its own defaults."""
        values = {
            "vip": self.reader_vip,
            "port": str(self.pgsql_pgport),
            "realserver_dependent_resource": f"{self.lvsdr_realsvr_resource}-clone",
            "realserver_dependent_attribute_name": f"{self.pgsql_resource}-status",
            "realserver_dependent_attribute_value": "|".join(READABLE),
            "conninfo": " ".join(
                part
                for part in (
                    f"host={self.writer_vip} port={self.pgsql_pgport} user={self.pgsql_repuser} dbname=postgres",
                    self.pgsql_primary_conninfo_opt,
                )
                if part
            ),
            "passfile": self.pgsql_passfile,
        }
        return {name: value for name, value in {**values, **self._of("lvsdr")}.items() if value and value != _default("lvsdr", name)}

    @property
    def real_server_parameters(self) -> dict[str, str]:
        """What the lvsdr-realsvr agent is given: the address, and how connections are told when they are."""
        known = {parameter.name for parameter in AGENTS["lvsdr-realsvr"].parameters}
        return {name: value for name, value in self.director_parameters.items() if name in known}

    def _of(self, agent: str) -> dict[str, str]:
        """Return the values of the keys that set a parameter of an agent."""
        return {key.parameter: _wire(getattr(self, key.field)) for key in KEYS.values() if key.parameter and key.agent == agent}


def _default(agent: str, name: str) -> str:
    return next((parameter.default for parameter in AGENTS[agent].parameters if parameter.name == name), "")


def _wire(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mode):
        return value.value
    if isinstance(value, tuple):
        return " ".join(value)
    return "" if value is None else str(value)


# ---------------------------------------------------------------- reading


class Problem(NamedTuple):
    """What is wrong with one key."""

    key: str
    what: str

    def __str__(self) -> str:
        return f"{self.key}: {self.what}"


_PIECE = re.compile(r"""'(?P<single>[^']*)'|"(?P<double>(?:[^"\\]|\\.)*)"|\\(?P<escaped>.)|(?P<plain>[^\s'"\\]+)""")


def read_value(text: str) -> str:
    r"""Read what stands behind `=` as a shell would: quotes, backslashes, a comment behind a blank. ValueError says what is wrong.

    >>> read_value('"a b"\' c\'d  # comment')
    'a b cd'
    >>> read_value("a#b ")
    'a#b'
    """
    value, position = "", 0
    while position < len(text) and not text[position].isspace():
        piece = _PIECE.match(text, position)
        if piece is None:
            raise ValueError("a quote that does not end on this line")
        value += _unquoted(piece)
        position = piece.end()
    rest = text[position:].strip()
    if rest and not rest.startswith("#"):
        raise ValueError("more than one word; put quotes around the value")
    return value


def _unquoted(piece: re.Match[str]) -> str:
    """Return the text that one quoted or plain piece stands for. A shell would expand `$` and backquotes outside single quotes: nothing is here."""
    if piece["single"] is not None:
        return piece["single"]
    if piece["escaped"] is not None:
        return piece["escaped"]
    body = piece["plain"] if piece["plain"] is not None else piece["double"]
    if re.search(r"(?<!\\)[$`]", body):
        raise ValueError("$ and ` are not expanded here; write the value itself, or put single quotes around it")
    return body if piece["plain"] is not None else re.sub(r'\\([$`"\\])', r"\1", body)


def _assignments(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield line number, key and raw value; a line that is none has an empty key."""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            match = re.fullmatch(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)", stripped)
            yield (number, match[1], match[2].strip()) if match else (number, "", stripped)


def read_text(text: str) -> tuple[dict[str, str], list[Problem]]:
    """Read the lines: the values by key (aliases resolved), and what is wrong with the lines themselves."""
    values: dict[str, str] = {}
    seen: dict[str, int] = {}
    problems = []
    for number, name, raw in _assignments(text):
        if not name:
            problems.append(Problem(f"line {number}", f"{raw!r} is not KEY=VALUE"))
            continue
        key = ALIASES.get(name, name)
        if key in seen:
            problems.append(Problem(name, f"given twice, in lines {seen[key]} and {number}"))
        seen[key] = number
        try:
            values[key] = read_value(raw)
        except ValueError as wrong:
            values[key] = ""
            problems.append(Problem(name, f"line {number}: {wrong}"))
    return values, problems


def _unknown(values: Mapping[str, str]) -> list[Problem]:
    known = [*KEYS, "othernodes"]
    return [
        Problem(name, "unknown key" + "".join(f", did you mean {near}?" for near in difflib.get_close_matches(name, [*known, "node1"], 1)))
        for name in values
        if name not in known and not NODE_KEY.fullmatch(name)
    ]


def _nodes(values: Mapping[str, str]) -> tuple[tuple[str, ...], list[Problem]]:
    """Collect node1..nodeN and othernodes, which must be at least two, counted without a gap, and different as names of slots."""
    problems = []
    numbers = sorted(int(NODE_KEY.fullmatch(name)[1]) for name in values if NODE_KEY.fullmatch(name) and values[name])  # type: ignore[index]
    names: list[str] = []
    for source in [*(f"node{number}" for number in numbers), "othernodes"]:
        try:
            names += _node_names(values.get(source, ""))
        except ValueError as expected:
            problems.append(Problem(source, f"{values[source]!r}, expected {expected}"))
    if numbers != list(range(1, len(numbers) + 1)):
        missing = min(set(range(1, max(numbers) + 1)) - set(numbers), default=0)
        problems.append(Problem(f"node{missing}", "missing, expected the nodes counted up from node1 without a gap"))
    elif len(names) < 2 and not problems:
        problems.append(Problem(f"node{len(numbers) + 1}", "missing, expected at least two nodes"))
    return tuple(names), problems + _clashes(names)


def slot_part(node: str) -> str:
    """Return the node's part of a slot's name: PostgreSQL allows a-z, 0-9 and _ only (manual, 26.2.6.1).

    >>> slot_part("Node-1.example")
    'node_1_example'
    """
    return re.sub(r"[^a-z0-9_]", "_", node.lower())


def _clashes(names: list[str]) -> list[Problem]:
    owners: dict[str, str] = {}
    problems = []
    for name in names:
        other = owners.setdefault(slot_part(name), name)
        if other is not name:
            same = "twice" if other == name else f"and {other}: the same name where only a-z, 0-9 and _ are possible (replication slots)"
            problems.append(Problem("nodes", f"{name} {same}"))
    return problems


def _parsed(values: Mapping[str, str]) -> tuple[dict[str, Any], list[Problem]]:
    """Parse every key of the table; what is missing or wrong becomes a problem, and its field stays away."""
    fields: dict[str, Any] = {}
    problems = []
    for key in KEYS.values():
        text = values.get(key.name, "") or key.default
        if text is None:
            problems.append(Problem(key.name, f"missing, expected {_expected(key)}"))
            continue
        try:
            fields[key.field] = key.parse(text) if text else None if _typed(key) else ""
        except ValueError as expected:
            problems.append(Problem(key.name, f"{text!r}, expected {expected}"))
    return fields, problems


def _typed(key: Key) -> bool:
    return key.parse in {_boolean, _count, _weight, _sync_id, _mark}


def _expected(key: Key) -> str:
    try:
        key.parse("\0")
    except ValueError as expected:
        return str(expected)
    return key.help


def _password_is_missing(fields: Mapping[str, Any]) -> bool:
    return not (fields["pgsql_reppassword"] or re.search(r"\b(passfile|sslcert|service)\s*=", fields.get("pgsql_primary_conninfo_opt", "")))


def _only_read(fields: Mapping[str, Any], values: Mapping[str, str], nodes: tuple[str, ...]) -> tuple[str, ...]:
    others = values.get("othernodes", "").split() if fields.get("pcs_template", "").startswith(ONLY_READ) else []
    return tuple(node for node in nodes if node in others)


def _wishes(fields: Mapping[str, Any], nodes: tuple[str, ...], members: tuple[str, ...]) -> list[Problem]:
    """Wishes that no node, or not enough nodes, could fulfil."""
    named = {**{tag: tuple(fields.get(tag, ())) for tag in TAGS}, "priority": tuple(node for node, _ in fields.get("priority", ()))}
    problems = []
    for tag, names in named.items():
        known = nodes if tag == "noloadbalance" else members
        problems += [Problem(tag, f"{name!r}, expected one of: {' '.join(known)}") for name in names if name not in known]
    if members and set(members) <= set(named["nofailover"]):
        problems.append(Problem("nofailover", "all nodes, expected at least one that may become primary at any time"))
    if fields.get("pgsql_rep_mode") in (Mode.SYNC, Mode.QUORUM):
        count = fields.get("pgsql_sync_count") or max(len(members) // 2, 1)
        primaries = [node for node in members if node not in named["nofailover"]]
        short = [node for node in primaries if len([other for other in members if other not in (node, *named["nosync"])]) < count]
        problems += [
            Problem("nosync", f"'{' '.join(named['nosync'])}', expected {count} other nodes that commits wait for while {node} is primary")
            for node in short[:1]
            if named["nosync"]
        ]
    return problems


def _crosswise(fields: dict[str, Any], nodes: tuple[str, ...], members: tuple[str, ...]) -> list[Problem]:
    """Check what concerns more than one key."""
    problems = _wishes(fields, nodes, members)
    if not fields.get("pgsql_bindir", "-") and not fields.get("pgsql_pgctl", "-"):
        problems.append(Problem("pgsql_bindir", "missing, expected the directory of pg_ctl (or pgsql_pgctl, its path)"))
    if _password_is_missing(fields):
        problems.append(
            Problem("pgsql_reppassword", "missing, expected the password of pgsql_repuser, or sslcert= or passfile= in pgsql_primary_conninfo_opt")
        )
    if fields.get("pcs_template", "").startswith("dual") and len(nodes) not in {0, 2}:
        problems.append(Problem("pcs_template", f"{fields['pcs_template']} with {len(nodes)} nodes, expected two (muti.pcs.j2 is for more)"))
    if fields.get("writer_vip") and fields.get("writer_vip") == fields.get("reader_vip"):
        problems.append(Problem("reader_vip", f"{fields['reader_vip']!r} is the writer_vip too, expected another address"))
    problems += [
        Problem("vip_cidr_netmask", f"'{fields['vip_cidr_netmask']}', expected at most 32 for the IPv4 address {fields[vip]}")
        for vip in ("writer_vip", "reader_vip")
        if "." in fields.get(vip, "") and fields.get("vip_cidr_netmask", 0) > 32
    ]
    most = max(len(members) // 2, 1)
    if fields.get("pgsql_sync_count", 0) > most:
        problems.append(Problem("pgsql_sync_count", f"'{fields['pgsql_sync_count']}', expected at most {most}, half of the {len(members)} nodes"))
    both = set(fields.get("pgsql_external_standby_node_list", ())) & set(nodes)
    if both:
        problems.append(Problem("pgsql_external_standby_node_list", f"'{' '.join(sorted(both))}' are nodes of the cluster, expected others"))
    problems += _slot_names(fields, nodes) + _inside(fields) + _balancing(fields) + _locking(fields, nodes)
    if fields.get("pgsql_monitor_interval", "-") == fields.get("pgsql_monitor_interval_promoted"):
        problems.append(Problem("pgsql_monitor_interval_promoted", "the same as pgsql_monitor_interval, expected another value (Pacemaker's rule)"))
    return problems


def _locking(fields: Mapping[str, Any], nodes: tuple[str, ...]) -> list[Problem]:
    """What the row of the distributed lock needs; while it is off nothing is asked of its keys."""
    if not fields.get("pgsql_enable_distlock"):
        return []
    problems = []
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", fields["pgsql_distlock_lockname"]):
        problems.append(Problem("pgsql_distlock_lockname", f"{fields['pgsql_distlock_lockname']!r}, expected a name of letters, digits and _ . -"))
    if fields.get("pgsql_rep_mode") is Mode.ASYNC:
        problems.append(Problem("pgsql_enable_distlock", "true with pgsql_rep_mode=async, expected sync or quorum: in async no voice is asked"))
    try:
        target = psql_line.target(fields["pgsql_distlock_psql_cmd"])
    except ValueError as expected:
        return [*problems, Problem("pgsql_distlock_psql_cmd", f"{_hidden(fields['pgsql_distlock_psql_cmd'])!r}, expected {expected}")]
    if target.host in {*nodes, "localhost", "127.0.0.1", "::1", fields.get("writer_vip"), fields.get("reader_vip")} or target.host.startswith("/"):
        problems.append(Problem("pgsql_distlock_psql_cmd", f"the host is {target.host}, expected a machine that is not of this cluster"))
    return problems


def _hidden(text: str) -> str:
    """Without what may be a password."""
    return re.sub(r"(?i)(password\s*=\s*)('[^']*'|[^\s'\"]+)", r"\1***", text)


def _inside(fields: Mapping[str, Any]) -> list[Problem]:
    """The state file must outlive every clone and rewind of the data directory."""
    tmpdir = fields.get("pgsql_tmpdir", "/")
    return [
        Problem("pgsql_tmpdir", f"{tmpdir!r} is inside of {key}, expected a directory outside: a copy of the data must never carry it")
        for key in ("pgsql_pgdata", "pgsql_datadir")
        if fields.get(key) and os.path.commonpath([tmpdir, fields[key]]) == fields[key]
    ]


def _balancing(fields: Mapping[str, Any]) -> list[Problem]:
    """What the director's settings need of each other."""
    names = [*fields.get("resource_list", ()), *(fields.get(key) for key in ("pgsql_resource", "pgwatch_resource"))]
    problems = [
        Problem(key, f"{fields[key]!r} is the name of another resource, expected a name of its own")
        for key, others in (("lvsdr_resource", names), ("lvsdr_realsvr_resource", [*names, fields.get("lvsdr_resource")]))
        if fields.get(key) in others
    ]
    if fields.get("lvs_sync_daemon") and not (fields.get("lvs_sync_interface", "-") or fields.get("vip_nic", "-")):
        problems.append(Problem("lvs_sync_interface", "missing, expected the network interface on which connections are told (or vip_nic)"))
    if fields.get("lvs_fwmark_ports") and fields.get("lvs_fwmark", 0) is None:
        problems.append(Problem("lvs_fwmark", "missing, expected the firewall mark of lvs_fwmark_ports"))
    return problems


def _slot_names(fields: Mapping[str, Any], nodes: tuple[str, ...]) -> list[Problem]:
    """Slots are named prefix_node_round, the round with up to ten digits."""
    prefix = fields.get("pgsql_replication_slot_name") or slot_part(fields.get("pgsql_resource", ""))
    room = NAMEDATALEN - 1 - len(prefix) - len("__") - 10
    return [Problem("nodes", f"{node} is too long for the name of a replication slot, expected at most {room} characters")
            for node in nodes if len(node) > room]  # fmt: skip


def _completed(fields: dict[str, Any]) -> dict[str, Any]:
    """Fill in what follows from other keys: the programs' directory and paths, the passfile."""
    bindir = fields["pgsql_bindir"] or os.path.dirname(fields["pgsql_pgctl"])
    dual = fields["pcs_template"].startswith("dual")
    return dict(
        fields,
        no_quorum_policy=fields["no_quorum_policy"] or ("ignore" if dual else "stop"),
        pgsql_bindir=bindir,
        pgsql_pgctl=fields["pgsql_pgctl"] or f"{bindir}/pg_ctl",
        pgsql_psql=fields["pgsql_psql"] or f"{bindir}/psql",
        pgsql_passfile=fields["pgsql_passfile"] or (f"{fields['pgsql_tmpdir']}/pgpass" if _has_secret(fields) else ""),
        lvs_fallback_to_primary=fields["reader_vip_on_primary"] if fields["lvs_fallback_to_primary"] is None else fields["lvs_fallback_to_primary"],
        lvs_sync_interface=(fields["lvs_sync_interface"] or fields["vip_nic"]) if fields["lvs_sync_daemon"] else "",
    )


def _has_secret(fields: Mapping[str, Any]) -> bool:
    locked = fields["pgsql_enable_distlock"] and psql_line.target(fields["pgsql_distlock_psql_cmd"]).password
    return bool(fields["pgsql_reppassword"] or locked)


def parse(text: str, source: str = "config.ini") -> Config:
    """Turn the text of a config.ini into a `Config`; all its problems come in one ConfigurationError."""
    values, problems = read_text(text)
    unreadable = {problem.key for problem in problems}
    nodes, wrong_nodes = _nodes(values)
    fields, wrong_values = _parsed(values)
    readers = _only_read(fields, values, nodes)
    members = tuple(node for node in nodes if node not in readers)
    later = [*_unknown(values), *wrong_nodes, *wrong_values, *_crosswise(fields, nodes, members)]
    problems += [problem for problem in later if problem.key not in unreadable]
    if problems:
        raise failure(source, problems)
    return Config(nodes=nodes, read_nodes=readers, **{name: value for name, value in _completed(fields).items() if name in Config._fields})


def failure(source: str, problems: list[Problem]) -> ConfigurationError:
    """Return one error that names every problem."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = "".join(f"\n  {problem}" for problem in problems)
    return ConfigurationError(f"{source}: {count}{lines}", f"correct {source}; config.ini.sample describes every key")


def load(path: str) -> Config:
    """Read a config.ini file."""
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
    except FileNotFoundError:
        sample = os.path.join(os.path.dirname(path), "config.ini.sample")
        raise ConfigurationError(f"{path}: no such file, expected the cluster's configuration", f"cp {sample} {path}, then edit it") from None
    except (OSError, UnicodeDecodeError) as wrong:
        raise ConfigurationError(f"{path}: cannot be read: {wrong}", "check that it is a text file and that you are root") from None
    return parse(text, path)


def beside(executable: str) -> str:
    """Return the config.ini that belongs to a command: it lies in the directory above the command's own, symbolic links followed."""
    return os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(executable))), "config.ini")


def passfile(config: Config) -> str:
    """Return the libpq password file, for any host: the primary's address changes. Empty where no password is known."""
    if not config.pgsql_reppassword:
        return ""
    return psql_line.passfile_line(("*", str(config.pgsql_pgport), "*", config.pgsql_repuser, config.pgsql_reppassword))


def lock_passfile(config: Config) -> str:
    """Return the line for the server of the distributed lock, which only members know; empty where no password is known."""
    lock = config.lock
    return psql_line.passfile_line((lock.host, lock.port, lock.dbname, lock.user, lock.password)) if lock and lock.password else ""
