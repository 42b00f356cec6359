"""The preconditions of a healthy cluster: what is wanted, and how facts are judged. Pure.

`ROWS` is the table, one row for each check: its name, what is wanted, who is asked, and a function from the facts to what is wrong. docs/cls_check.md
shows the same table. A judge that finds nothing has found all well; what could not be asked is UNKNOWN, with the reason.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Union

from pha4pgsql import text, trouble, wal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pha4pgsql.text import Cluster, Named, View

Answer = Union["Mapping[str, Any]", str]
"""What a node or a server said, or (text) why it said nothing."""


class Level(Enum):
    """The value is the exit code, as monitoring systems know it (Monitoring Plugins Development Guidelines)."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


ORDER = (Level.OK, Level.UNKNOWN, Level.WARNING, Level.CRITICAL)
"""From good to bad: what is known to be wrong counts more than what is not known."""


class Finding(NamedTuple):
    """One thing that is not as it should be: how bad, what was seen, what to type."""

    level: Level
    seen: str
    hint: str = ""


class Line(NamedTuple):
    """One line of the report: a check and what came of it."""

    name: str
    level: Level
    seen: str
    hint: str = ""


class Facts(NamedTuple):
    """Everything that was asked, once.

    `nodes`: what each member said over ssh (this node: by itself); `servers`: what PostgreSQL of each said over the network. `utc`: now, as Pacemaker
    writes times. `wanted`: the agent's parameters by config.ini, or why there are none. `trouble`: what cls_status says, and how much is wrong.
    """

    here: str
    quorate: bool
    cluster: Cluster
    named: Named
    view: View
    nodes: Mapping[str, Answer]
    servers: Mapping[str, Answer]
    wanted: Answer = "config.ini was not read"
    utc: str = ""
    trouble: tuple[str, Level, int] = ("HEALTHY", Level.OK, 0)

    @property
    def members(self) -> tuple[str, ...]:
        return self.named.nodes or tuple(self.cluster.members)

    @property
    def primary(self) -> str:
        return self.cluster.primary(self.named.primitive)


class Row(NamedTuple):
    """One check."""

    name: str
    wanted: str
    asked: str
    judge: Callable[[Facts], Iterable[Finding]]


CLUSTER, NODES, SERVERS, PRIMARY = "the cluster", "each node, by ssh", "each PostgreSQL", "the primary"


def check(facts: Facts) -> tuple[Line, ...]:
    """All lines, in the order of the table."""
    return tuple(line for row in ROWS for line in _lines(row, facts))


def _lines(row: Row, facts: Facts) -> Iterator[Line]:
    found = list(row.judge(facts))
    yield from (Line(row.name, *one) for one in found)
    if not found:
        yield Line(row.name, Level.OK, row.wanted)


def worst(lines: Iterable[Line]) -> Level:
    """The level of the whole."""
    return max((line.level for line in lines), key=ORDER.index, default=Level.OK)


def _each(answers: Mapping[str, Answer], judge: Callable[[str, Mapping[str, Any]], Iterable[Finding]], hint: str = "") -> Iterator[Finding]:
    """Judge what each said; those that said nothing are told together, by reason."""
    silent: dict[str, list[str]] = {}
    for name, said in answers.items():
        if isinstance(said, str):
            silent.setdefault(said, []).append(name)
        else:
            yield from judge(name, said)
    for why, names in silent.items():
        yield Finding(Level.UNKNOWN, f"{' '.join(names)}: {why}", hint)


def _heard(answers: Mapping[str, Answer]) -> dict[str, Mapping[str, Any]]:
    return {name: said for name, said in answers.items() if not isinstance(said, str)}


def _alike(facts: Facts, name: str, what: str, hint: str, level: Level = Level.WARNING) -> Iterator[Finding]:
    """Whether all nodes say the same."""
    yield from _each(facts.nodes, lambda _node, _said: ())
    values = {node: str(said.get(name)) for node, said in _heard(facts.nodes).items()}
    if len(set(values.values())) > 1:
        usual, _ = Counter(values.values()).most_common(1)[0]
        odd = [node for node, value in values.items() if value != usual]
        yield Finding(level, f"{what} of {' '.join(odd)} differs from the others'", hint)


# ---------------------------------------------------------------- the cluster


def _service(facts: Facts) -> Iterator[Finding]:
    word, level, count = facts.trouble
    if level is not Level.OK:
        yield Finding(level, f"the service is {word}, {count} thing{'s' if count > 1 else ''} wrong", "cls_status")


def _quorum(facts: Facts) -> Iterator[Finding]:
    if not facts.quorate:
        yield Finding(Level.CRITICAL, f"{facts.here} is in a partition without quorum", "cls_status on another node; corosync-quorumtool -s here")


def _members(facts: Facts) -> Iterator[Finding]:
    for name in facts.members:
        member = facts.cluster.members.get(name)
        if member is None:
            yield Finding(Level.CRITICAL, f"{name} is in node_list, and the cluster has no such node", "compare node_list with crm_node -l")
        elif not member.online:
            yield Finding(Level.WARNING, f"{name} is offline", f"pcs cluster start {name}")
        elif member.standby or member.maintenance:
            word = "standby" if member.standby else "maintenance"
            yield Finding(Level.WARNING, f"{name} is in {word}", f"cls_un{word}_node {name}")


def _fencing(facts: Facts) -> Iterator[Finding]:
    enabled = text.truth(facts.cluster.properties.get("stonith-enabled", facts.cluster.properties.get("fencing-enabled")), default=True)
    devices = [one for one in facts.view.resources if any(part.agent.startswith("stonith:") for part in one.instances)]
    idle = [one.id for one in devices if not one.where()]
    if not enabled:
        seen = "fencing is off: an old primary that is cut off may serve stale reads until it notices"
        yield Finding(Level.WARNING, seen, "pcs stonith create ..., then cls_setup")
    elif not devices:
        yield Finding(Level.CRITICAL, "fencing is on, and there is no device: Pacemaker starts nothing", "pcs stonith create ...")
    elif idle:
        yield Finding(Level.WARNING, f"fencing device {' '.join(idle)} does not run", f"cls_cleanup {idle[0]}")


def _quorum_device(facts: Facts) -> Iterator[Finding]:
    said = facts.nodes.get(facts.here)
    if len(facts.cluster.members) % 2:
        return
    if said is None or isinstance(said, str):
        yield Finding(Level.UNKNOWN, said or "this node is no member, and was not asked")
    elif not said["qdevice"]:
        seen = f"{len(facts.cluster.members)} nodes and no quorum device: a cut in the middle stops both halves"
        yield Finding(Level.WARNING, seen, "pcs quorum device add model net host=THIRD_MACHINE algorithm=ffsplit")


def _no_quorum_policy(facts: Facts) -> Iterator[Finding]:
    policy = facts.cluster.properties.get("no-quorum-policy", "stop")
    if policy == "ignore" and len(facts.cluster.members) > 2:
        seen = "no-quorum-policy=ignore: a node that is cut off goes on as if nothing was the matter"
        yield Finding(Level.WARNING, seen, "no_quorum_policy=stop in config.ini, then cls_setup")


def _managed(facts: Facts) -> Iterator[Finding]:
    if facts.cluster.property_is("maintenance-mode", default=False):
        yield Finding(Level.WARNING, "maintenance mode: Pacemaker starts, stops and promotes nothing", "cls_unmaintenance")
    if facts.named.disabled:
        yield Finding(Level.WARNING, f"{facts.named.promotable} is disabled", "cls_start")
    if facts.named.held:
        yield Finding(Level.WARNING, trouble.BEING_CHANGED, "if no cls_setup or cls_member is at work: cls_setup")
    ours = {facts.named.promotable, *facts.named.companions}
    for one in facts.view.resources:
        flags = {*one.flags, *(flag for part in one.instances for flag in part.flags)}
        if "unmanaged" in flags and not facts.named.held and not facts.cluster.property_is("maintenance-mode", default=False):
            yield Finding(Level.WARNING, f"{one.id} is unmanaged", f"pcs resource manage {one.id}")
        if "disabled" in flags and one.id in ours - {facts.named.promotable}:
            yield Finding(Level.WARNING, f"{one.id} is disabled", f"pcs resource enable {one.id}")


def _bans(facts: Facts) -> Iterator[Finding]:
    for ban in facts.cluster.bans:
        counts = ban.node in {*facts.named.nodes, *facts.named.read_nodes}  # cls_member keeps PostgreSQL off who is no member
        if not counts or ban.resource not in {facts.named.promotable, facts.named.primitive, *facts.named.companions}:
            continue
        over = ban.ends.endswith("Z") and ban.ends < facts.utc
        what = f"{ban.resource} is banned from {ban.node}{f' as {ban.role.lower()}' if ban.role else ''}"
        state = f"it ended {ban.ends} and is still there" if over else f"until {ban.ends}" if ban.ends else "for good"
        yield Finding(Level.WARNING, f"{what} ({state})", f"pcs resource clear {ban.resource} {ban.node}")


def _failures(facts: Facts) -> Iterator[Finding]:
    for name, member in facts.cluster.members.items():
        for resource, count in member.failures.items():
            number = "the limit" if count >= text.INFINITY else str(count)
            yield Finding(Level.WARNING, f"{resource} has failed on {name}, fail count {number}", f"cls_status tells why; cls_cleanup {resource}")


def _parameters(facts: Facts) -> Iterator[Finding]:
    """Only what config.ini says: a command may have set more."""
    if isinstance(facts.wanted, str):
        yield Finding(Level.UNKNOWN, facts.wanted)
        return
    live = facts.named.parameters
    differ = [f"{name} is {live.get(name) or 'not set'}, config.ini has {value}" for name, value in facts.wanted.items() if live.get(name) != value]
    if differ:
        yield Finding(Level.WARNING, "; ".join(differ), "cls_setup --dry-run shows the difference, cls_setup applies config.ini")


# ---------------------------------------------------------------- each node

CLOCK = 1.0
"""Seconds by which clocks may differ: no decision rests on them, but logs and the history do."""
FULL, NEARLY_FULL = 5.0, 15.0
"""Percent of a file system that is free."""


def _ssh(facts: Facts) -> Iterator[Finding]:
    for name, said in facts.nodes.items():
        if isinstance(said, str):
            yield Finding(Level.WARNING, f"{name}: {said}", f"ssh root@{name} true  has to work without a password from {facts.here}")


def _clock(facts: Facts) -> Iterator[Finding]:
    def judge(node: str, said: Mapping[str, Any]) -> Iterator[Finding]:
        if abs(said["offset"]) >= CLOCK:
            yield Finding(
                Level.WARNING, f"the clock of {node} differs from {facts.here}'s by {said['offset']:+.1f} s", f"on {node}: chronyc tracking"
            )

    return _each(facts.nodes, judge)


def _names(facts: Facts) -> Iterator[Finding]:
    def judge(node: str, said: Mapping[str, Any]) -> Iterator[Finding]:
        for name, address in said["names"].items():
            if not address:
                yield Finding(Level.CRITICAL, f"{name} does not resolve on {node}", f"put it into /etc/hosts of {node}")
            elif ipaddress.ip_address(address).is_loopback:
                yield Finding(Level.CRITICAL, f"{name} is {address} on {node}, a loopback address", f"correct /etc/hosts of {node}")

    yield from _each(facts.nodes, judge)
    for name in facts.members:
        found = {node: said["names"].get(name) for node, said in _heard(facts.nodes).items()}
        if len({address for address in found.values() if address}) > 1:
            told = ", ".join(f"{address} on {node}" for node, address in found.items())
            yield Finding(Level.CRITICAL, f"{name} is not the same everywhere: {told}", "make /etc/hosts the same on all nodes")


def _reach(facts: Facts) -> Iterator[Finding]:
    running = {
        name for name, member in facts.cluster.members.items() if member.online and member.roles.get(facts.named.primitive) in {"started", "promoted"}
    }

    def judge(node: str, said: Mapping[str, Any]) -> Iterator[Finding]:
        lost = [f"{name} ({why})" for name, why in said["ports"].items() if why and name in running]
        if lost:
            yield Finding(
                Level.CRITICAL,
                f"from {node} PostgreSQL cannot be reached on {', '.join(lost)}",
                "open the port in the firewall; listen_addresses = '*'",
            )

    return _each(facts.nodes, judge)


def _programs(facts: Facts) -> Iterator[Finding]:
    return _alike(facts, "programs", "the installed version", "install.sh puts the same version on all nodes")


def _config_files(facts: Facts) -> Iterator[Finding]:
    yield from _alike(facts, "config", "config.ini", "install.sh copies this node's to all others", Level.WARNING)
    for node, said in _heard(facts.nodes).items():
        if said["config"] and said["config_mode"] & 0o077:
            yield Finding(
                Level.WARNING,
                f"config.ini on {node} can be read by others (mode {said['config_mode']:04o})",
                f"on {node}: chmod 600 {said['config_path']}",
            )


def _versions(facts: Facts) -> Iterator[Finding]:
    yield from _each(facts.servers, lambda _node, _said: ())
    found = {node: int(said["server_version_num"]) for node, said in _heard(facts.servers).items()}
    told = ", ".join(f"{number // 10000}.{number % 10000} on {node}" for node, number in found.items())
    if len({number // 10000 for number in found.values()}) > 1:
        yield Finding(Level.CRITICAL, f"different major versions of PostgreSQL: {told}", "a standby must have its primary's major version")
    elif len(set(found.values())) > 1:
        yield Finding(Level.WARNING, f"different versions of PostgreSQL: {told}", "update the others too, standbys first")


def _passfile(facts: Facts) -> Iterator[Finding]:
    def judge(node: str, said: Mapping[str, Any]) -> Iterator[Finding]:
        path, owner, mode = said["passfile"]
        if not path or (mode is None and not facts_need_it):
            return
        if mode is None:
            yield Finding(
                Level.CRITICAL, f"{path} is not there on {node}: standbys cannot connect", "install.sh lays it, from pgsql_reppassword in config.ini"
            )
        elif mode & 0o077 or owner != said["pgdba"]:
            seen = f"{path} on {node} belongs to {owner} and has mode {mode:04o}, expected {said['pgdba']} and 0600: libpq does not use it otherwise"
            yield Finding(Level.CRITICAL, seen, f"on {node}: chown {said['pgdba']} {path}; chmod 600 {path}")

    facts_need_it = not isinstance(facts.wanted, str) or "passfile" in facts.named.parameters
    return _each(facts.nodes, judge)


def _state_file(facts: Facts) -> Iterator[Finding]:
    def judge(node: str, said: Mapping[str, Any]) -> Iterator[Finding]:
        if said["state"]:
            first = "cls_stop; cls_reset_master --yes; " if "damaged" in said["state"] else ""
            yield Finding(Level.CRITICAL, f"{node}: {said['state']}", f"on {node}: {first}cls_rebuild_slave")
        if said["volatile"]:
            yield Finding(
                Level.CRITICAL,
                f"{said['tmpdir']} on {node} is in memory: a reboot would forget what the node has promised",
                "move pgsql_tmpdir to a disk",
            )

    return _each(facts.nodes, judge)


def _disk(facts: Facts) -> Iterator[Finding]:
    def judge(node: str, said: Mapping[str, Any]) -> Iterator[Finding]:
        for path, (free, size) in said["disk"].items():
            percent = 100.0 * free / size if size else 100.0
            if percent < NEARLY_FULL:
                level = Level.CRITICAL if percent < FULL else Level.WARNING
                yield Finding(
                    level, f"{path} on {node} has {percent:.0f} % free ({free >> 20} MB)", "make room; cls_check shows what slots hold back"
                )

    return _each(facts.nodes, judge)


def _autostart(facts: Facts) -> Iterator[Finding]:
    def judge(node: str, said: Mapping[str, Any]) -> Iterator[Finding]:
        if said["autostart"]:
            yield Finding(
                Level.WARNING,
                f"systemd starts {' '.join(said['autostart'])} on {node}; Pacemaker alone should",
                f"on {node}: systemctl disable {said['autostart'][0]}",
            )

    return _each(facts.nodes, judge)


# ---------------------------------------------------------------- each PostgreSQL


class Setting(NamedTuple):
    """A setting of PostgreSQL: whether a value is good (the number of members is given, too), how bad it is if not, what is wanted and why."""

    name: str
    good: Callable[[str, int], bool]
    level: Level
    wanted: str
    why: str


def _at_most(limit: int) -> Callable[[str, int], bool]:
    return lambda value, _members: 0 < int(value) <= limit


def _is(*values: str) -> Callable[[str, int], bool]:
    return lambda value, _members: value in values


SETTINGS = (
    Setting("wal_level", _is("replica", "logical"), Level.CRITICAL, "replica", "streaming"),
    Setting("hot_standby", _is("on"), Level.CRITICAL, "on", "a standby has to answer the agent"),
    Setting("fsync", _is("on"), Level.CRITICAL, "on", "an acknowledged commit must be on disk"),
    Setting("full_page_writes", _is("on"), Level.CRITICAL, "on", "a crash in the middle of a page write"),
    Setting("synchronous_commit", _is("on", "remote_apply"), Level.CRITICAL, "on", "anything less acknowledges commits that no standby has flushed"),
    Setting(
        "max_wal_senders", lambda value, members: int(value) >= members + 2, Level.WARNING, "members + 2", "standbys, and copies that are being made"
    ),
    Setting("max_replication_slots", lambda value, members: int(value) >= members + 1, Level.WARNING, "members + 1", "a slot for each standby"),
    Setting("restart_after_crash", _is("off"), Level.WARNING, "off", "after a crash Pacemaker decides, not the postmaster"),
    Setting("wal_sender_timeout", _at_most(10_000), Level.WARNING, "5000", "a standby that is lost is noticed"),
    Setting("wal_receiver_status_interval", _at_most(5), Level.WARNING, "2", "a standby tells how far it is"),
    Setting("wal_retrieve_retry_interval", _at_most(1000), Level.WARNING, "100ms", "a standby knocks again soon after a failover"),
    Setting(
        "max_slot_wal_keep_size",
        lambda value, _members: value != "-1",
        Level.WARNING,
        "what the disk bears",
        "a standby that is away keeps WAL on the primary",
    ),
)
"""README, 'On real machines'. Values are in the setting's own unit, as pg_settings has them."""

NOT_BELOW = ("max_connections", "max_worker_processes", "max_wal_senders", "max_prepared_transactions", "max_locks_per_transaction")
"""A standby's must not be lower than its primary's (PostgreSQL manual, 26.4.3 Administrator's Overview of Hot Standby)."""


def _settings(facts: Facts) -> Iterator[Finding]:
    members = len(facts.members)

    def judge(node: str, said: Mapping[str, Any]) -> Iterator[Finding]:
        for one in SETTINGS:
            value = said.get(one.name)
            if value is not None and not one.good(value, members):
                yield Finding(one.level, f"{one.name} is {value} on {node}: {one.why}", f"{one.name} = {one.wanted} in postgresql.conf of {node}")
        command = said.get("restore_command", "")
        if command and not command.startswith(wal.NO_HISTORY):
            what = f"restore_command on {node} is not the agent's: an archive may lead a standby to a timeline of somebody else"
            yield Finding(Level.WARNING, what, f"pgsql_restore_command in config.ini, instead of the line in postgresql.conf of {node}")
        for file, line, error in said.get("mistakes", ()):
            what = f"{file} of {node} has an error in line {line}: {error}. PostgreSQL refuses every reload"
            yield Finding(Level.CRITICAL, f"{what}, also the agent's: when a standby is lost, commits wait", f"on {node}: correct {file}")

    return _each(facts.servers, judge)


def _hints(facts: Facts) -> Iterator[Finding]:
    def judge(node: str, said: Mapping[str, Any]) -> Iterator[Finding]:
        if "on" not in {said.get("wal_log_hints"), said.get("data_checksums")}:
            yield Finding(
                Level.WARNING,
                f"neither wal_log_hints nor data checksums on {node}: pg_rewind cannot be used",
                f"wal_log_hints = on in postgresql.conf of {node}",
            )

    return _each(facts.servers, judge)


def _not_below(facts: Facts) -> Iterator[Finding]:
    primary = facts.servers.get(facts.primary)
    if primary is None or isinstance(primary, str):
        yield Finding(Level.UNKNOWN, "there is no primary to compare with" if primary is None else f"{facts.primary}: {primary}")
        return
    for node, said in _heard(facts.servers).items():
        low = [name for name in NOT_BELOW if int(said[name]) < int(primary[name])]
        if low:
            told = ", ".join(f"{name} {said[name]} (the primary has {primary[name]})" for name in low)
            yield Finding(Level.CRITICAL, f"{node} has {told}: it stops replaying, or does not start", f"raise it in postgresql.conf of {node}")


HELD = 1 << 30
"""Bytes of WAL that a slot which nobody uses may hold back without a word."""


def _slots(facts: Facts) -> Iterator[Finding]:
    primary = facts.servers.get(facts.primary)
    if primary is None or isinstance(primary, str):
        yield Finding(Level.UNKNOWN, "there is no primary to ask" if primary is None else f"{facts.primary}: {primary}")
        return
    for name, active, status, held in primary.get("slots", ()):
        if status in {"lost", "unreserved"}:
            yield Finding(
                Level.WARNING,
                f"slot {name} on {facts.primary} is {status}: the WAL it wants is gone, or about to go",
                "cls_rebuild_slave on its standby",
            )
        elif not active and (held or 0) > HELD:
            yield Finding(
                Level.WARNING,
                f"slot {name} on {facts.primary} is not used and holds back {held >> 20} MB of WAL",
                "bring its standby back, or drop the slot",
            )


ROWS = (
    Row("service", "the service is healthy", CLUSTER, _service),
    Row("quorum", "this node is in a partition with quorum", CLUSTER, _quorum),
    Row("members", "every node of node_list is online, none in standby or maintenance", CLUSTER, _members),
    Row("fencing", "fencing is on, and its devices run", CLUSTER, _fencing),
    Row("quorum device", "an odd number of nodes, or a quorum device", CLUSTER, _quorum_device),
    Row("no-quorum-policy", "a part without quorum stops", CLUSTER, _no_quorum_policy),
    Row("managed", "nothing is disabled, unmanaged or in maintenance", CLUSTER, _managed),
    Row("bans", "nothing is banned from a node", CLUSTER, _bans),
    Row("failures", "no failure is remembered", CLUSTER, _failures),
    Row("parameters", "the cluster's configuration is config.ini's", CLUSTER, _parameters),
    Row("ssh", "every member is reached as root without a password", NODES, _ssh),
    Row("clock", "clocks differ by less than a second", NODES, _clock),
    Row("names", "every member resolves to the same address everywhere", NODES, _names),
    Row("ports", "every member reaches PostgreSQL of every other", NODES, _reach),
    Row("programs", "the same version is installed on all members", NODES, _programs),
    Row("config.ini", "the same on all members, readable by root alone", NODES, _config_files),
    Row("passfile", "there, the database user's, mode 0600", NODES, _passfile),
    Row("state file", "whole, on a disk, and no copy unfinished", NODES, _state_file),
    Row("disk", f"more than {NEARLY_FULL:.0f} % free for data, WAL and the agent's directory", NODES, _disk),
    Row("autostart", "systemd does not start PostgreSQL", NODES, _autostart),
    Row("versions", "PostgreSQL has the same version everywhere", SERVERS, _versions),
    Row("settings", "PostgreSQL's settings suit a set, and its files can be read", SERVERS, _settings),
    Row("hints", "wal_log_hints or data checksums, for pg_rewind", SERVERS, _hints),
    Row("not below", "no standby allows less than its primary (max_connections ...)", SERVERS, _not_below),
    Row("slots", "no unused slot holds back much WAL, none is lost", PRIMARY, _slots),
)


def table() -> str:
    """The table of docs/cls_check.md."""
    rows = "\n".join(f"| {row.name} | {row.wanted} | {row.asked} |" for row in ROWS)
    settings = "\n".join(f"| `{one.name}` | {one.wanted} | {one.level.name} | {one.why} |" for one in SETTINGS)
    return (
        f"| check | wanted | asked |\n|---|---|---|\n{rows}\n\nThe settings:\n\n"
        f"| setting | wanted | otherwise | why |\n|---|---|---|---|\n{settings}\n"
    )
