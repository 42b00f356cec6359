"""What Pacemaker tells an agent through its environment, read once into frozen, typed values.

Layer 2: pure. Reading never fails: what cannot be read takes its default and is reported as a Problem.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from pha4pgsql.parameters import PGSQL, Agent, Kind, Parameter, Status
from pha4pgsql.words import Mode, slot_word

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Value = str | bool | int | float | tuple[str, ...] | Mode


class Code(IntEnum):
    """Exit codes of an agent (OCF resource agent API 1.1, Return Codes)."""

    SUCCESS = 0
    ERROR = 1
    ARGS = 2
    """A parameter does not fit this machine: a path that is not there."""
    UNIMPLEMENTED = 3
    PERM = 4
    INSTALLED = 5
    CONFIGURED = 6
    """A parameter is wrong in itself: Pacemaker tries no other node."""
    NOT_RUNNING = 7
    RUNNING_PROMOTED = 8
    FAILED_PROMOTED = 9
    DEGRADED = 190
    """It works, and an operator should look at it: Pacemaker counts this as success, and shows it among the failures."""
    DEGRADED_PROMOTED = 191


class Problem(NamedTuple):
    """Something in the settings or on the machine that keeps the agent from working, with the exit code that it means."""

    code: Code
    message: str
    hint: str = ""


class Settings(NamedTuple):
    """The parameters of the pgsql resource on this node; every path absolute, every default filled in.

    resource: the name of the pgsql resource, without clone suffix (of pgwatch: the one it speaks for).
    bindir: directory of the PostgreSQL programs; after `ocf.main` it is the one found, or empty when there is none.
    datadir, config: filled in from pgdata when they are not set.
    Times are seconds; maxlag is bytes, 0 without limit.
    """

    resource: str = "pgsql"
    pgctl: str = "/usr/bin/pg_ctl"
    bindir: str = ""
    pgdata: str = "/var/lib/pgsql/data"
    datadir: str = "/var/lib/pgsql/data"
    pgdba: str = "postgres"
    pghost: str = ""
    pgport: int = 5432
    pglibs: str = "/usr/lib"
    config: str = "/var/lib/pgsql/data/postgresql.conf"
    start_opt: str = ""
    ctl_opt: str = ""
    pgdb: str = "postgres"
    logfile: str = "/dev/null"
    socketdir: str = ""
    tmpdir: str = "/var/lib/pgsql/tmp"
    monitor_user: str = "postgres"
    monitor_password: str = ""
    monitor_sql: str = "select now();"
    check_wal_receiver: bool = False
    stop_escalate: float = 90.0
    stop_escalate_in_slave: float = 90.0
    crm_attr_timeout: float = 5.0
    rep_mode: Mode = Mode.NONE
    node_list: tuple[str, ...] = ()
    read_node_list: tuple[str, ...] = ()
    sync_count: int = 0
    sync_strict: bool = False
    external_standby_node_list: tuple[str, ...] = ()
    restore_command: str = ""
    archive_cleanup_command: str = ""
    recovery_end_command: str = ""
    master_ip: str = ""
    repuser: str = "postgres"
    passfile: str = "/var/lib/pgsql/tmp/pgpass"
    primary_conninfo_opt: str = ""
    replication_slot_name: str = "pgsql"
    maxlag: int = 0
    enable_distlock: bool = False
    distlock_conninfo: str = ""
    distlock_passfile: str = "/var/lib/pgsql/tmp/pgpass"
    distlock_lockname: str = ""
    distlock_row: str = ""
    auto_rejoin: tuple[str, ...] = ()

    @property
    def members(self) -> tuple[str, ...]:
        """The nodes that hold the data and take part in elections."""
        return self.node_list

    @property
    def k(self) -> int:
        """How many members beside the primary confirm a commit: `sync_count`, or half of the members, rounded down.

        >>> [Settings(node_list=tuple("abcde"[:n])).k for n in (1, 2, 3, 4, 5)]
        [0, 1, 1, 2, 2]
        >>> Settings(node_list=tuple("abcde"), sync_count=1).k
        1
        """
        most = len(self.node_list) // 2
        return min(self.sync_count, most) if self.sync_count > 0 else most

    @property
    def replicated(self) -> bool:
        """Whether the resource is a promotable set: rep_mode is async, sync or quorum."""
        return self.rep_mode in (Mode.ASYNC, Mode.SYNC, Mode.QUORUM)

    @property
    def waits(self) -> bool:
        """Whether commits wait for standbys: rep_mode is sync or quorum."""
        return self.rep_mode in (Mode.SYNC, Mode.QUORUM)

    def program(self, name: str) -> str:
        """The path of a PostgreSQL program."""
        return f"{self.bindir}/{name}"


class Notify(NamedTuple):
    """What a notification is about: `type` pre or post, `operation` start, stop, promote or demote, and lists of node names.

    `active`, `promoted` and `unpromoted` are as before the transition's actions; the others are what the transition does.
    """

    type: str = ""
    operation: str = ""
    start: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    promote: tuple[str, ...] = ()
    demote: tuple[str, ...] = ()
    active: tuple[str, ...] = ()
    promoted: tuple[str, ...] = ()
    unpromoted: tuple[str, ...] = ()
    available: tuple[str, ...] = ()

    @property
    def event(self) -> str:
        """For instance `pre-promote`; empty when this is no notification."""
        return f"{self.type}-{self.operation}" if self.type else ""


class Context(NamedTuple):
    """One call of the agent.

    resource: the instance's name without clone suffix. node: this node's name in the cluster.
    timeout: seconds that Pacemaker allows for the action. started: the monotonic clock when the call began.
    interval: seconds between recurring calls, 0 for others. role: promoted or unpromoted where the operation is for one role, else empty.
    check_level: OCF_CHECK_LEVEL. in_cluster: whether Pacemaker made the call (and not a person or a test).
    clone, promoted_max, notifications: how the clone is configured, None where Pacemaker did not say.
    """

    action: str
    resource: str
    node: str
    timeout: float = 20.0
    started: float = 0.0
    interval: float = 0.0
    is_probe: bool = False
    role: str = ""
    check_level: int = 0
    notify: Notify = Notify()
    in_cluster: bool = False
    promoted_max: int | None = None
    notifications: bool | None = None

    @property
    def deadline(self) -> float:
        """The monotonic time at which the action should have ended by itself: a tenth, at most 5 s, before Pacemaker kills it."""
        return self.started + self.timeout - min(5.0, self.timeout / 10)


def read_values(agent: Agent, environment: Mapping[str, str]) -> tuple[dict[str, Value], list[Problem]]:
    """The value of every parameter that has an effect, in an environment of OCF_RESKEY_* names, and what is wrong with their text."""
    given = {name[11:]: value for name, value in environment.items() if name.startswith("OCF_RESKEY_") and value.strip()}
    problems: list[Problem] = []
    for row in agent.parameters:
        if row.name in given and row.status is Status.ALIASED:
            problems += _resolve_alias(row, given)
        elif row.name in given and row.status is Status.REFUSED:
            problems += _refusal(row, given[row.name])
    values: dict[str, Value] = {}
    for row in agent.parameters:
        if row.status in (Status.KEPT, Status.NEW):
            values[row.name], found = read_value(row, given.get(row.name, row.default))
            problems += found
    return values, problems


def read_settings(agent: Agent, environment: Mapping[str, str]) -> tuple[Settings, tuple[Problem, ...]]:
    """The settings of `agent`, one of those for PostgreSQL, and what is wrong with their text."""
    values, problems = read_values(agent, environment)
    if environment.get("OCF_RESKEY_monitor_password", "").strip() and not environment.get("OCF_RESKEY_monitor_user", "").strip():
        hint = "Set monitor_user to the role that has this password."
        problems.append(Problem(Code.CONFIGURED, "monitor_password is set without monitor_user", hint))
    return _completed(values, environment), tuple(problems)


def of_parameters(parameters: Mapping[str, str], resource: str = PGSQL.name) -> Settings:
    """The settings of the pgsql agent by its parameters as the cluster's configuration has them, whatever is wrong with their text."""
    environment = {f"OCF_RESKEY_{name}": value for name, value in parameters.items()}
    return read_settings(PGSQL, {**environment, "OCF_RESOURCE_INSTANCE": resource})[0]


def _resolve_alias(row: Parameter, given: dict[str, str]) -> list[Problem]:
    """Move the value of an alias to the parameter it means."""
    if given.setdefault(row.of, given[row.name]) == given[row.name]:
        return []
    message = f"{row.name}={given[row.name]!r} and {row.of}={given[row.of]!r} differ, and they are names of the same parameter"
    return [Problem(Code.CONFIGURED, message, f"Remove {row.name}.")]


def _refusal(row: Parameter, text: str) -> list[Problem]:
    """A problem if a refused parameter is set to more than its default."""
    value, problems = read_value(row, text)
    if not problems and value == read_value(row, row.default)[0]:
        return []
    return [Problem(Code.CONFIGURED, f"{row.name} is set, and it is not supported: {row.why}", f"Remove {row.name} from the resource.")]


def read_value(row: Parameter, text: str) -> tuple[Value, list[Problem]]:
    """The value of a parameter's text; the default and a problem when the text cannot be read."""
    reader, expected = READERS[row.kind]
    try:
        return reader(text), []
    except ValueError:
        return reader(row.default), [Problem(Code.CONFIGURED, f"{row.name} is {text!r}, expected {expected}")]


def _completed(values: dict[str, Value], environment: Mapping[str, str]) -> Settings:
    """Fill in the defaults that depend on other parameters."""
    values.setdefault("resource", resource_name(environment))
    settings = Settings(**values)  # type: ignore[arg-type]
    return settings._replace(
        datadir=settings.datadir or settings.pgdata,
        config=(settings.config if "config" in values else "") or f"{settings.pgdata}/postgresql.conf",
        monitor_user=settings.monitor_user or settings.pgdba,
        passfile=(passfile := (settings.passfile if "passfile" in values else "") or f"{settings.tmpdir}/pgpass"),
        distlock_passfile=settings.distlock_passfile or passfile,
        replication_slot_name=settings.replication_slot_name or slot_word(settings.resource),
    )


def read_boolean(text: str) -> bool:
    """The words of the shell function ocf_is_true, in any case; unlike there, a word that is neither yes nor no is an error."""
    word = text.strip().lower()
    if word in ("yes", "true", "1", "ja", "on", "y"):
        return True
    if word in ("no", "false", "0", "nein", "off", "n", ""):
        return False
    raise ValueError(text)


_UNITS = {"us": 1e-6, "usec": 1e-6, "ms": 1e-3, "msec": 1e-3, "": 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hr": 3600}


def read_seconds(text: str) -> float:
    """A time as Pacemaker writes it: a number and perhaps a unit, without a unit seconds.

    >>> [read_seconds(text) for text in ("90", "5s", "500ms", "2 min")]
    [90.0, 5.0, 0.5, 120.0]
    """
    word = text.strip().lower()
    number = word.rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = word[len(number) :].strip()
    if unit not in _UNITS or not number.isascii() or not number.replace(".", "", 1).isdigit():
        raise ValueError(text)
    return float(number) * _UNITS[unit]


def read_integer(text: str) -> int:
    """A number that is not negative, in decimal digits; nothing is 0."""
    word = text.strip() or "0"
    if not (word.isascii() and word.isdigit()):
        raise ValueError(text)
    return int(word)


def read_path(text: str) -> str:
    """An absolute path without control characters, or nothing."""
    path = read_string(text)
    if path and not path.startswith("/"):
        raise ValueError(text)
    return path.rstrip("/") or path[:1]


def read_string(text: str) -> str:
    """One line of text."""
    if not text.isprintable():
        raise ValueError(text)
    return text.strip()


def read_words(text: str) -> tuple[str, ...]:
    """Words separated by blanks. Node names keep their case: Pacemaker's names have one."""
    return tuple(text.split())


def read_rejoin(text: str) -> tuple[str, ...]:
    """What a diverged node tries, in order.

    >>> read_rejoin("no"), read_rejoin("rewind, rebuild")
    ((), ('rewind', 'rebuild'))
    """
    words = tuple(word.strip() for word in text.split(","))
    if words not in {("no",), ("rewind",), ("rewind", "rebuild")}:
        raise ValueError(text)
    return words if words != ("no",) else ()


READERS: Mapping[Kind, tuple[Callable[[str], Value], str]] = {
    Kind.STRING: (read_string, "one line of printable text"),
    Kind.BOOLEAN: (read_boolean, "true or false"),
    Kind.INTEGER: (read_integer, "a whole number, 0 or more"),
    Kind.SECONDS: (read_seconds, "a time such as 90, 90s, 500ms or 2min"),
    Kind.PATH: (read_path, "an absolute path"),
    Kind.WORDS: (read_words, "names separated by blanks"),
    Kind.REJOIN: (read_rejoin, "no, rewind, or rewind,rebuild"),
    Kind.MODE: (Mode, f"one of {', '.join(mode.value for mode in Mode)}"),
}


def resource_name(environment: Mapping[str, str], default: str = "pgsql") -> str:
    """The instance's name without the number of a clone instance.

    >>> resource_name({"OCF_RESOURCE_INSTANCE": "pgsql:1"})
    'pgsql'
    """
    full = environment.get("OCF_RESOURCE_INSTANCE", default)
    name, colon, number = full.rpartition(":")
    return name if colon and number.isdigit() else full


def read_context(action: str, environment: Mapping[str, str], started: float, ask_node: Callable[[], str], default: str = "pgsql") -> Context:
    """One call of the agent `default`. `ask_node` finds this node's name; it is called only when Pacemaker did not tell it."""
    meta = {name[20:]: value for name, value in environment.items() if name.startswith("OCF_RESKEY_CRM_meta_")}
    interval = meta.get("interval", "")
    return Context(
        action=action,
        resource=resource_name(environment, default),
        node=meta.get("on_node") or ask_node(),
        timeout=_milliseconds(meta.get("timeout", ""), 20.0),
        started=started,
        interval=_milliseconds(interval, 0.0),
        is_probe=action == "monitor" and interval.strip() in ("", "0"),  # Pacemaker 2.1 gives a probe no interval at all
        role={"master": "promoted", "slave": "unpromoted", "started": ""}.get(meta.get("role", "").lower(), meta.get("role", "").lower()),
        check_level=_count(environment.get("OCF_CHECK_LEVEL", "")) or 0,
        notify=_notify(meta) if action == "notify" else Notify(),
        in_cluster="on_node" in meta,
        promoted_max=_count(meta.get("promoted_max", meta.get("master_max", ""))),
        notifications=read_boolean(meta["notify"]) if meta.get("notify", "") in ("true", "false") else None,
    )


def _notify(meta: Mapping[str, str]) -> Notify:
    """Pacemaker's notification variables; a list without names is a single blank there."""

    def nodes(name: str, former: str = "") -> tuple[str, ...]:
        return tuple(meta.get(f"notify_{name}_uname", meta.get(f"notify_{former}_uname", "")).split())

    return Notify(
        meta.get("notify_type", ""), meta.get("notify_operation", ""),
        nodes("start"), nodes("stop"), nodes("promote"), nodes("demote"),
        nodes("active"), nodes("promoted", "master"), nodes("unpromoted", "slave"), nodes("available"),
    )  # fmt: skip


def _milliseconds(text: str, default: float) -> float:
    """Seconds from a number of milliseconds, which is how Pacemaker passes times to agents."""
    return int(text) / 1000 if text.strip().isdigit() else default


def _count(text: str) -> int | None:
    return int(text) if text.strip().isdigit() else None
