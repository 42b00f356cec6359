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
    REJOIN = ("string", "rejoin")

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
    E pha4pgsql's expgsql, S ocf:heartbeat:pgsql, P PAF, D and R the shell agents lvsdr and lvsdr-realsvr.
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


_DISTLOCK = "a command cannot tell what the row has stored; the row is asked directly: see distlock_conninfo"

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
    Parameter("pgdb", Kind.STRING, "postgres", "Database used for checks",
        "The database to which the agent connects. Where the server refuses that one, postgres and template1 are tried. In template1 the agent "
        "would stand in the way of CREATE DATABASE, and wait while it runs."),
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
        "Shortened when it does not fit into the timeout of the action, and to 3 s while no other member is in the membership."),
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
    Parameter("read_node_list", Kind.WORDS, "", "Nodes that only read",
        "Further nodes on which the resource runs: standbys that follow whoever is primary and serve readers. They have no say in elections, "
        "no commit waits for them, and they are never promoted. The same on all nodes; no node may be in node_list too.", Status.NEW, ""),
    Parameter("sync_count", Kind.INTEGER, "0", "How many standbys confirm a commit",
        "How many members beside the primary have to confirm a commit; an election needs answers of all members but that many. "
        "0 means half of the members, rounded down: 1 for two and three members, 2 for four and five. May not be higher than that.",
        Status.NEW, ""),
    Parameter("sync_strict", Kind.BOOLEAN, "false", "Never commit without standbys",
        "false: when too few standbys are left, the primary goes on alone after enough members have stored that it does. "
        "true: commits wait until standbys are back.", Status.NEW, ""),
    Parameter("external_standby_node_list", Kind.WORDS, "", "Synchronous standbys outside of the cluster",
        "The application names of standbys outside of the cluster, such as a disaster site's, that confirm commits while they stream: "
        "in addition to sync_count members, never in place of one. Each name must belong to one standby only, which uses the slot that every primary "
        "makes for it: replication_slot_name, _outside_ and its name, such as pgsql_outside_dr1.", since="S"),
    Parameter("restore_command", Kind.STRING, "", "restore_command of PostgreSQL",
        "Written into the recovery settings when it is set, with a condition: it fetches WAL and no history file, since an archive may hold "
        "timelines of somebody else."),
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
    Parameter("auto_rejoin", Kind.REJOIN, "no", "What a node does whose data left the primary's history",
        "no: the start fails and says so; a person repairs it. rewind: pgwatch repairs it in the background with pg_rewind, and Pacemaker starts "
        "it again. rewind,rebuild: where a rewind is not possible, pgwatch copies the primary anew. The node attribute <resource>-repair "
        "shows how far it is, or why it failed.", Status.NEW, ""),
    Parameter("restart_on_promote", Kind.BOOLEAN, "false", "Accepted without effect", "Accepted so that an old configuration works.",
        Status.IGNORED, why="a promotion always makes a new timeline: two nodes must never write different WAL under one timeline number"),
    Parameter("xlog_check_count", Kind.INTEGER, "3", "Accepted without effect", "Accepted so that an old configuration works.",
        Status.IGNORED, "E S", why="an election counts the stored answers of members to one ballot, not rounds of equal positions"),
    Parameter("synchronous_standby_names", Kind.STRING, "", "Fixed set of synchronous standbys", "Fixed set of synchronous standbys.",
        Status.REFUSED, "E", why="the set follows from rep_mode, node_list and sync_count; elections depend on it"),
    Parameter("recovery_template", Kind.STRING, "", "Template of recovery.conf", "Template of recovery.conf.",
        Status.REFUSED, "P", why="PostgreSQL 12 and newer refuse to start with a recovery.conf; the agent writes the recovery settings itself"),
    Parameter("enable_distlock", Kind.BOOLEAN, "false", "Count the row of the distributed lock as a voice",
        "true: a row in a PostgreSQL outside of the set, the distributed lock, is one more voice beside the members: it stores what it has "
        "promised and who goes on alone, so that two nodes can go on when one is lost. Nothing in it ends by time. The same on all nodes.",
        since="E"),
    Parameter("distlock_conninfo", Kind.STRING, "", "Server of the distributed lock",
        "Connection string (libpq keyword=value pairs) of the server with the row; a password does not belong here. Needed with enable_distlock.",
        Status.NEW, ""),
    Parameter("distlock_passfile", Kind.PATH, "", "Password file for it",
        "The password file (libpq's passfile) for distlock_conninfo. Default: passfile.", Status.NEW, ""),
    Parameter("distlock_lockname", Kind.STRING, "", "Name of the row",
        "The name of the row in the table distlock, one of its own for each set. Needed with enable_distlock.", Status.NEW, ""),
    Parameter("distlock_row", Kind.STRING, "", "Identity of the row",
        "Which row of that name: one that was made anew has forgotten what it promised, and is no voice. Set by cls_setup.", Status.NEW, ""),
    Parameter("distlock_lock_cmd", Kind.STRING, "", "Distributed lock", "Distributed lock.", Status.REFUSED, "E", why=_DISTLOCK),
    Parameter("distlock_unlock_cmd", Kind.STRING, "", "Distributed lock", "Distributed lock.", Status.REFUSED, "E", why=_DISTLOCK),
    Parameter("distlock_lockservice_deadcheck_nodelist", Kind.WORDS, "", "Accepted without effect", "Accepted so that an old configuration works.",
        Status.IGNORED, "E", why="a lock server that cannot be asked is never taken for a yes, whatever other nodes say of it"),
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

_SYNC_PARAMETERS = (
    Parameter("sync_daemon", Kind.BOOLEAN, "false", "Synchronise connections between directors",
        "true: the director tells the standbys of its connections (multicast, not encrypted), which they remember, "
        "so that connections of readers outlive the loss of the director. Set it on lvsdr and lvsdr-realsvr alike.", Status.NEW, ""),
    Parameter("sync_interface", Kind.STRING, "", "Network interface for that",
        "The network interface on which connections are told. Needed with sync_daemon.", Status.NEW, ""),
    Parameter("sync_id", Kind.INTEGER, "0", "Number of the group of directors",
        "A number from 0 to 255 that tells several groups of directors on one network apart; the same on lvsdr and lvsdr-realsvr.",
        Status.NEW, ""),
)  # fmt: skip

LVSDR = Agent(
    "lvsdr",
    "Director of read load balancing in the kernel (IPVS, direct routing)",
    "Makes this node the director: connections to one address and port are spread over the real servers by the kernel (IPVS, direct routing). "
    "A small resident process keeps the table right: servers that the cluster and their own ports show to be healthy are in it, those which "
    "are dead or have become the primary leave at once, those which leave in good health are drained. A question that gets no answer empties "
    "nothing: the last good list is kept. Start it before the virtual address, stop it after it. The parameters can be changed while it runs.",
    (
        Parameter("vip", Kind.STRING, "", "Virtual address",
            "The address of the virtual service, IPv4 or IPv6; its form decides about the real servers' addresses. "
            "It is brought up by another resource (IPaddr2, without lvs_support).", since="D", required=True, unique=True),
        Parameter("port", Kind.INTEGER, "", "Port",
            "The port of the virtual service. With direct routing every real server listens on the same one.", since="D", required=True),
        Parameter("virtual_service_options", Kind.STRING, "-s rr", "Options of the virtual service",
            "Scheduler, persistence and flags in the words of ipvsadm -A: -s rr, -p 300, -M 255.255.255.0, -b sh-port. "
            "The scheduler rr does not look at weights (but for 0); wrr does, wlc counts connections too.", since="D"),
        Parameter("default_weight", Kind.INTEGER, "1", "Weight of a server without one of its own",
            "The weight of a real server that weight_of_realservers gives none; 0: it stays in the table and gets no new connections.", since="D"),
        Parameter("weight_of_realservers", Kind.WORDS, "", "Weights",
            "Real servers with their weights: host,weight with blanks between them; one without weight has default_weight. "
            "Without dependent resource and list script it is also the list of servers.", since="D"),
        Parameter("heartbeat_file", Kind.PATH, "", "File with the time of the last call",
            "A file into which every call of the agent writes the time, in seconds since 1970.", since="D"),
        _alias("heatbeat_file", "heartbeat_file", "D"),
        Parameter("realserver_dependent_resource", Kind.STRING, "", "Resource that makes a node a real server",
            "Only nodes on which this resource runs are real servers. Default: those of weight_of_realservers, or all nodes.", since="D"),
        Parameter("realserver_dependent_attribute_name", Kind.STRING, "readable", "Node attribute that makes a node a real server",
            "The node attribute which a node must have to be a real server; - means that none is asked.", since="D"),
        Parameter("realserver_dependent_attribute_value", Kind.STRING, "1", "Its value",
            "An extended regular expression that the whole value of the attribute has to match, for instance HS:sync|HS:potential|HS:async.",
            since="D"),
        Parameter("realserver_get_real_servers_script", Kind.STRING, "", "Command that prints the real servers",
            "A command that prints the real servers, with blanks between them, instead of all other rules. When it fails, prints something else "
            "or does not end within script_timeout, the last good list is kept. A list that is empty is believed.", since="D"),
        Parameter("realserver_check_active_real_server_script", Kind.STRING, "", "Command that tells whether a server is usable",
            "A command that gets a server's name as its last word and prints t if the server may be used, f if it may not; asked instead of the "
            "node attribute. When it says nothing of the kind, the server stays what it was.", since="D"),
        Parameter("readers", Kind.WORDS, "", "Real servers outside of the cluster",
            "Servers outside of the cluster, host or host,weight with blanks between them: real servers as long as they stream from the primary "
            "under that application_name or from that address. Needs conninfo.", Status.NEW, ""),
        Parameter("conninfo", Kind.STRING, "", "How the primary is asked",
            "Connection string (libpq) by which the primary is asked who streams from it and how far behind they are; a password does not belong "
            "here, see passfile. Needed for readers, max_lag_bytes and max_lag_seconds.", Status.NEW, ""),
        Parameter("passfile", Kind.PATH, "", "Password file for conninfo", "The password file (libpq's passfile) for conninfo.", Status.NEW, ""),
        Parameter("max_lag_bytes", Kind.INTEGER, "0", "Limit of lag in bytes",
            "Bytes of WAL which a server has not replayed yet; beyond that it gets lag_weight until it is below three quarters of the limit. "
            "0: no limit.", Status.NEW, ""),
        Parameter("max_lag_seconds", Kind.SECONDS, "0", "Limit of lag in seconds", "The same in seconds (replay_lag). 0: no limit.",
            Status.NEW, ""),
        Parameter("lag_weight", Kind.INTEGER, "0", "Weight beyond a limit of lag",
            "The highest weight of a server beyond a limit of lag; 0: no new connections.", Status.NEW, ""),
        Parameter("drain_time", Kind.SECONDS, "30s", "Time for a healthy server that leaves",
            "How long a healthy server that leaves keeps the connections it has. It gets no new ones meanwhile, unless no other server is left. "
            "0: it is removed at once.", Status.NEW, ""),
        Parameter("fallback_to_primary", Kind.BOOLEAN, "false", "Let the primary serve when nobody else can",
            "true: when no other server is left, the primary serves readers; it needs the virtual address on lo (lvsdr-realsvr) too.",
            Status.NEW, ""),
        Parameter("check_interval", Kind.SECONDS, "500ms", "Time between two looks",
            "How often the cluster's state is read and the servers' ports are tried.", Status.NEW, ""),
        Parameter("check_timeout", Kind.SECONDS, "1s", "Silence that means death",
            "A server to which no connection is possible for that long is dead. One that takes the connection and then says nothing gets no new "
            "ones, and is dead after five times that long.", Status.NEW, ""),
        Parameter("script_timeout", Kind.SECONDS, "5s", "Limit for a script",
            "How long a script may take before it is killed with everything it has started.", Status.NEW, ""),
        *_SYNC_PARAMETERS,
        Parameter("sync_threshold", Kind.WORDS, "0 1", "When a connection is told",
            "After how many packets a connection is told, and how many later again (net.ipv4.vs.sync_threshold). "
            "The kernel's own 3 50 does not tell of quiet connections.", Status.NEW, ""),
        Parameter("fwmark", Kind.INTEGER, "0", "Firewall mark",
            "Balance all packets with this mark as one service, over several ports (fwmark_ports); the packets to vip get the mark by rules that the "
            "agent sets (iptables, table mangle). 0: none.", Status.NEW, ""),
        Parameter("fwmark_ports", Kind.WORDS, "", "Ports that get the mark", "The ports that get the firewall mark. Default: port.", Status.NEW, ""),
    ),
    (
        Action("start", "20s"),
        Action("stop", "20s"),
        Action("status", "20s"),
        Action("monitor", "20s", "10s"),
        Action("reload", "20s"),
        Action("meta-data", "5s"),
        Action("validate-all", "20s"),
        Action("methods", "5s"),
    ),
)  # fmt: skip

LVSDR_REALSVR = Agent(
    "lvsdr-realsvr",
    "Real server of read load balancing (IPVS, direct routing)",
    "Makes this node a real server: the virtual address on the loopback interface, and a kernel that does not answer ARP requests for it. "
    "The address is added after the ARP settings and removed before they are set back; other addresses and running connections are left alone. "
    "It may run beside the IPaddr2 resource that has the same address on the director.",
    (
        Parameter("vip", Kind.STRING, "", "Virtual address", "The address that goes onto the loopback interface, IPv4 or IPv6.",
            since="R", required=True, unique=True),
        Parameter("nic_lo", Kind.STRING, "lo:0", "Label of the address",
            "The loopback interface, or its name with a label for the address (IPv4 only).", since="R"),
        *_SYNC_PARAMETERS,
    ),
    (
        Action("start", "20s"),
        Action("stop", "20s"),
        Action("status", "20s"),
        Action("monitor", "20s", "10s"),
        Action("reload", "20s"),
        Action("meta-data", "5s"),
        Action("validate-all", "20s"),
        Action("methods", "5s"),
    ),
)  # fmt: skip

AGENTS = {agent.name: agent for agent in (PGSQL, PGWATCH, LVSDR, LVSDR_REALSVR)}
