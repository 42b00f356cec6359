"""The parameters and actions of the resource agents: one table, from which settings, metadata and docs/parameters.md are made.

Layer 1: data only. The order of the rows is the order in the metadata and in the page.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """How the text of a parameter is read. The value is the type name in the metadata (OCF 1.0, ra-api-1.dtd)."""

    STRING = ("string", "")
    BOOLEAN = ("boolean", "")
    INTEGER = ("integer", "")
    SECONDS = ("time", "")
    PATH = ("string", "path")
    WORDS = ("string", "words")
    MODE = ("string", "mode")

    @property
    def ocf(self) -> str:
        """The type's name in the metadata."""
        return self.value[0]


class Status(Enum):
    """What became of a parameter that a forerunner had."""

    KEPT = "kept"
    ALIASED = "aliased"
    """Another name of the parameter `Parameter.of`."""
    IGNORED = "ignored"
    """Accepted so that an old configuration works, without effect; `why` tells the reason."""
    REFUSED = "refused"
    """An error when it is set to anything but its default; `why` tells the reason. Not in the metadata."""
    NEW = "new"


class Parameter(NamedTuple):
    """One parameter of an agent. `default` is text, as it would stand in the CIB; an empty value means the default.

    For Status.ALIASED, `of` names the parameter meant. `since` names the forerunners that have it:
    E pha4pgsql's expgsql, S ocf:heartbeat:pgsql, P PAF.
    """

    name: str
    kind: Kind
    default: str
    short: str
    long: str
    status: Status = Status.KEPT
    since: str = "E S"
    of: str = ""
    why: str = ""
    required: bool = False
    unique: bool = False


class Action(NamedTuple):
    """An action that an agent advertises; times as in the CIB."""

    name: str
    timeout: str
    interval: str = ""
    role: str = ""


class Agent(NamedTuple):
    """A resource agent: its file's name, what it is, and what it takes and does."""

    name: str
    short: str
    long: str
    parameters: tuple[Parameter, ...]
    actions: tuple[Action, ...]


def _alias(name: str, of: str, since: str) -> Parameter:
    return Parameter(name, Kind.STRING, "", f"Other name of {of}", f"Another name of the parameter {of}.", Status.ALIASED, since, of=of)


_DISTLOCK = "the distributed lock is not part of this version; two nodes are kept from both acting as primary by stored promises instead"

_PGSQL_PARAMETERS = (
    # Paths, identity, connection
    Parameter("pgctl", Kind.PATH, "/usr/bin/pg_ctl", "Path of pg_ctl",
        "Path of pg_ctl. Its directory is taken as the directory of all PostgreSQL programs unless bindir is set. "
        "When it is left at its default, the programs are first looked for in /usr/lib/postgresql/<version>/bin "
        "and /usr/pgsql-<version>/bin, for the version of the data directory."),
    Parameter("psql", Kind.PATH, "/usr/bin/psql", "Path of psql",
        "Path of psql. The agent speaks to PostgreSQL without it.",
        Status.IGNORED, why="no psql is run: the agent uses the PostgreSQL protocol itself"),
    Parameter("bindir", Kind.PATH, "", "Directory of the PostgreSQL programs",
        "Directory of postgres, pg_ctl, pg_controldata, pg_rewind and the other PostgreSQL programs. Default: the directory of pgctl.",
        since="P"),
    Parameter("pgdata", Kind.PATH, "/var/lib/pgsql/data", "Data directory",
        "The data directory; the directory of the configuration when datadir is set.", since="E S P", unique=True),
    Parameter("datadir", Kind.PATH, "", "Data directory, when it differs from pgdata",
        "The value of PostgreSQL's data_directory, when pgdata names the directory of the configuration files only (Debian's layout). "
        "Default: the value of pgdata.", since="P"),
    Parameter("pgdba", Kind.STRING, "postgres", "Operating system's user that owns PostgreSQL",
        "The operating system's user that owns the data directory and runs PostgreSQL.", since="E S"),
    _alias("system_user", "pgdba", "P"),
    Parameter("pghost", Kind.STRING, "", "Host or socket directory to connect to",
        "Host name, address or (when it begins with a slash) socket directory by which the agent connects to its own PostgreSQL. "
        "Default: the unix socket that the running PostgreSQL names.", since="E S P"),
    Parameter("pgport", Kind.INTEGER, "5432", "Port", "The port on which PostgreSQL listens.", since="E S P"),
    Parameter("pglibs", Kind.PATH, "/usr/lib", "Directory of PostgreSQL's libraries",
        "Directory that is appended to LD_LIBRARY_PATH for PostgreSQL's programs."),
    Parameter("config", Kind.PATH, "", "Main configuration file",
        "The configuration file of PostgreSQL. It is never edited: the server is started with a file in tmpdir that includes it. "
        "Default: postgresql.conf in pgdata."),
    Parameter("start_opt", Kind.STRING, "", "Options for the server", "Options given to postgres when it is started (pg_ctl -o)."),
    _alias("start_opts", "start_opt", "P"),
    Parameter("ctl_opt", Kind.STRING, "", "Options for pg_ctl", "Further options of pg_ctl, such as -w or -l."),
    Parameter("pgdb", Kind.STRING, "template1", "Database used for checks", "The database to which the agent connects."),
    Parameter("logfile", Kind.PATH, "/dev/null", "File for the server's first messages",
        "The file that receives what the server writes before its own logging begins (pg_ctl -l). Created if it is missing."),
    Parameter("socketdir", Kind.PATH, "", "Directory of the unix socket",
        "The directory of the server's unix socket; created with mode 2775 when it is missing. Default: what the configuration says."),
    Parameter("tmpdir", Kind.PATH, "/var/lib/pgsql/tmp", "Directory of the agent's own files",
        "Directory of the agent's state and of the configuration that it writes: mode 0700, owner pgdba, outside the data directory, on a disk "
        "that outlives a restart of the node. It holds the promises of this node; it must never be cleared, copied or restored."),
    # Monitoring and stopping
    Parameter("monitor_user", Kind.STRING, "", "Role used for checks",
        "The database role used for checks: a superuser or a member of pg_monitor with the right to reload. Default: pgdba."),
    Parameter("monitor_password", Kind.STRING, "", "Password of monitor_user",
        "The password of monitor_user. It is readable in the CIB: prefer a .pgpass file in the home directory of pgdba, "
        "which is used when this is empty."),
    Parameter("monitor_sql", Kind.STRING, "select now();", "Query that checks the primary",
        "The query that has to succeed on a primary and on an instance without replication. "
        "On a primary it runs only when it is not the default."),
    Parameter("check_wal_receiver", Kind.BOOLEAN, "false", "Publish the state of the WAL receiver",
        "Publish the state of the WAL receiver as the node attribute <resource>-receiver-status: normal, normal (master) or ERROR."),
    Parameter("stop_escalate", Kind.SECONDS, "90s", "Time for a fast shutdown of a primary",
        "How long a fast shutdown may take before an immediate one is ordered; 0 means immediate at once. "
        "Shortened when it does not fit into the timeout of the stop action."),
    Parameter("stop_escalate_in_slave", Kind.SECONDS, "90s", "Time for a fast shutdown of a standby",
        "The same as stop_escalate for a standby."),
    Parameter("crm_attr_timeout", Kind.SECONDS, "5s", "Limit for a change of the CIB",
        "How long a change of a permanent attribute may take before it is given up."),
    # Replication
    Parameter("rep_mode", Kind.MODE, "none", "Replication mode",
        "none: one instance without replication. async: streaming, a commit waits for nobody. "
        "sync: a commit waits for sync_count named standbys, and lost ones are replaced by healthy ones. "
        "quorum: a commit waits for any sync_count standbys. "
        "slave: a standby of a cluster elsewhere, never promoted. async, sync and quorum need a promotable clone with notify=true.",
        since="E S"),
    Parameter("node_list", Kind.WORDS, "", "Nodes of the replicated set",
        "The names of the cluster nodes that hold the data and take part in elections, separated by blanks, "
        "spelled as crm_node -n prints them. Needed in the modes async, sync and quorum; the same on all nodes."),
    Parameter("sync_count", Kind.INTEGER, "0", "How many standbys confirm a commit",
        "How many members beside the primary have to confirm a commit; an election needs answers of all members but that many. "
        "0 means half of the members, rounded down: 1 for two and three members, 2 for four and five. May not be higher than that.",
        Status.NEW, ""),
    Parameter("sync_strict", Kind.BOOLEAN, "false", "Never commit without standbys",
        "false: when too few standbys are left, the primary goes on alone after enough members have stored that it does. "
        "true: commits wait until standbys are back.", Status.NEW, ""),
    Parameter("restore_command", Kind.STRING, "", "restore_command of PostgreSQL", "Written into the recovery settings when it is set."),
    Parameter("archive_cleanup_command", Kind.STRING, "", "archive_cleanup_command of PostgreSQL",
        "Written into the recovery settings when it is set."),
    Parameter("recovery_end_command", Kind.STRING, "", "recovery_end_command of PostgreSQL",
        "Written into the recovery settings when it is set."),
    Parameter("master_ip", Kind.STRING, "", "Floating address of the primary",
        "The address that moves with the primary. Standbys connect to the primary's own address first and to this one next. "
        "Needed in every mode but none."),
    Parameter("repuser", Kind.STRING, "postgres", "Replication role", "The database role with which standbys connect to the primary."),
    Parameter("passfile", Kind.PATH, "", "Password file for replication",
        "The password file (libpq's passfile) with the password of repuser: owner pgdba, mode 0600. Default: pgpass in tmpdir, when it exists.",
        Status.NEW, ""),
    Parameter("primary_conninfo_opt", Kind.STRING, "", "Further connection options for standbys",
        "Further keywords of primary_conninfo, for instance keepalives_idle=60 or sslmode=verify-full. "
        "They come after those that the agent writes and may override user, port and passfile, but not host, hostaddr and application_name. "
        "A password here is readable in the CIB: use passfile."),
    Parameter("replication_slot_name", Kind.STRING, "", "Prefix of the replication slots",
        "The beginning of the names of the replication slots, made of a-z, 0-9 and _. Default: the name of the resource."),
    Parameter("maxlag", Kind.INTEGER, "0", "Lag that forbids promotion",
        "The bytes of WAL a standby may be behind and still be promoted, in the mode async; 0 means no limit.", since="P"),
    Parameter("restart_on_promote", Kind.BOOLEAN, "false", "Accepted without effect", "Accepted so that an old configuration works.",
        Status.IGNORED, why="a promotion always makes a new timeline: two nodes must never write different WAL under one timeline number"),
    Parameter("xlog_check_count", Kind.INTEGER, "3", "Accepted without effect", "Accepted so that an old configuration works.",
        Status.IGNORED, "E S", why="an election counts the stored answers of members to one ballot, not rounds of equal positions"),
    Parameter("external_standby_node_list", Kind.STRING, "", "Standbys outside of the cluster", "Standbys outside of the cluster.",
        Status.REFUSED, "S",
        why="a standby outside of the cluster cannot answer in an election, so a commit that only it has confirmed could be lost"),
    Parameter("synchronous_standby_names", Kind.STRING, "", "Fixed set of synchronous standbys", "Fixed set of synchronous standbys.",
        Status.REFUSED, "E", why="the set follows from rep_mode, node_list and sync_count; elections depend on it"),
    Parameter("recovery_template", Kind.STRING, "", "Template of recovery.conf", "Template of recovery.conf.",
        Status.REFUSED, "P", why="PostgreSQL 12 and newer refuse to start with a recovery.conf; the agent writes the recovery settings itself"),
    Parameter("enable_distlock", Kind.BOOLEAN, "false", "Distributed lock", "Distributed lock.", Status.REFUSED, "E", why=_DISTLOCK),
    Parameter("distlock_lock_cmd", Kind.STRING, "", "Distributed lock", "Distributed lock.", Status.REFUSED, "E", why=_DISTLOCK),
    Parameter("distlock_unlock_cmd", Kind.STRING, "", "Distributed lock", "Distributed lock.", Status.REFUSED, "E", why=_DISTLOCK),
    Parameter("distlock_lockservice_deadcheck_nodelist", Kind.WORDS, "", "Distributed lock", "Distributed lock.",
        Status.REFUSED, "E", why=_DISTLOCK),
)  # fmt: skip

PGSQL = Agent(
    "pgsql",
    "PostgreSQL, replicated and highly available",
    "Manages PostgreSQL (13 or newer): one instance, or in the modes async, sync and quorum a replicated set as a promotable clone. "
    "In sync and quorum no acknowledged commit is lost by a failover: a standby is promoted only after enough members have promised, on disk, "
    "to follow nobody older, and only if none of them has more. See docs/parameters.md for what became of the parameters of older agents.",
    _PGSQL_PARAMETERS,
    (
        Action("start", "120s"),
        Action("stop", "120s"),
        Action("status", "60s"),
        Action("monitor", "30s", "30s"),
        Action("monitor", "30s", "29s", "Promoted"),
        Action("promote", "120s"),
        Action("demote", "120s"),
        Action("notify", "90s"),
        Action("meta-data", "5s"),
        Action("validate-all", "5s"),
        Action("methods", "5s"),
    ),
)

PGWATCH = Agent(
    "pgwatch",
    "The voice of a node whose PostgreSQL is down",
    "Speaks for this node in the elections of a pgsql resource while its PostgreSQL does not run: it stores what a primary says about going on "
    "alone, and answers ballots. Clone it on every node of node_list, without constraints towards the pgsql resource, "
    "and give it the same parameters: it takes all of them.",
    (
        Parameter("resource", Kind.STRING, "pgsql", "The pgsql resource it speaks for",
            "The name of the pgsql resource (the primitive, not the clone) for which it speaks.", Status.NEW, "", unique=True),
        *(row._replace(unique=False) for row in _PGSQL_PARAMETERS if row.status not in (Status.IGNORED, Status.REFUSED)),
    ),
    (
        Action("start", "20s"),
        Action("stop", "20s"),
        Action("status", "20s"),
        Action("monitor", "20s", "10s"),
        Action("meta-data", "5s"),
        Action("validate-all", "5s"),
        Action("methods", "5s"),
    ),
)  # fmt: skip

AGENTS = {agent.name: agent for agent in (PGSQL, PGWATCH)}
