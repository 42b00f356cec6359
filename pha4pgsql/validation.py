"""What keeps an agent from working: settings that are wrong in themselves, a cluster or a machine that does not fit them.

Layer 4. Cheap enough for every call: looks at files, runs a program only before a start and in a validation.
"""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

from pha4pgsql.parameters import PGSQL, Agent
from pha4pgsql.paths import data_version, find_programs, has_package
from pha4pgsql.settings import Code, Context, Problem, Settings, read_settings
from pha4pgsql.words import Mode, slot_word

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OLDEST = 13
"""The oldest major version of PostgreSQL: primary_conninfo can be changed by a reload since then."""

NAME_LIMIT = 63
"""Longest name of a replication slot in bytes (NAMEDATALEN - 1)."""

ROUND_DIGITS = 7
"""Room for the round of a ballot in the name of a slot, which is prefix, round, primary and standby."""

PROGRAMS = ("postgres", "pg_ctl", "pg_controldata", "pg_waldump")

RESERVED_KEYWORDS = ("host", "hostaddr", "application_name", "replication")
"""Keywords of primary_conninfo that only the agent sets. (user and password stood in the old templates.)"""

VOLATILE = ("/run", "/var/run", "/dev/shm", "/tmp", "/var/tmp")  # noqa: S108  named to be refused
"""Directories that a restart of the machine, or systemd-tmpfiles, empties."""


def read(agent: Agent, environment: Mapping[str, str]) -> tuple[Settings, tuple[Problem, ...]]:
    """The settings with the programs found on this machine, and what is wrong with their text."""
    settings, problems = read_settings(agent, environment)
    return settings._replace(bindir=find_programs(settings.bindir, settings.pgctl, settings.datadir)), problems


def arrive(settings: Settings) -> str:  # noqa: ARG001  the agents of load balancing leave a sign of every call
    """Nothing."""
    return ""


def check(agent: Agent, settings: Settings, context: Context) -> tuple[Problem, ...]:
    """Everything that is wrong, all at once. For pgwatch PostgreSQL's own programs and files do not matter: it works without them."""
    found = [*check_values(settings), *check_cluster(agent, settings, context)]
    if agent is PGSQL:
        found += [*check_programs(settings), *check_owner(settings), *check_directories(settings), *check_data(settings)]
        if not found and context.action in ("start", "validate-all"):
            found += check_version(settings)
    return tuple(found)


def advice(agent: Agent, environment: Mapping[str, str]) -> Iterator[str]:
    """What is allowed and yet worth a word when somebody asks for a validation."""
    yield from unknown_parameters(agent, environment)
    given = {name[11:]: value for name, value in environment.items() if name.startswith("OCF_RESKEY_")}
    if given.get("monitor_password"):
        yield "monitor_password can be read in the CIB: a .pgpass file of pgdba does the same"
    if "password" in conninfo_keywords(given.get("primary_conninfo_opt", "")):
        yield "the password in primary_conninfo_opt can be read in the CIB: use passfile"


def unknown_parameters(agent: Agent, environment: Mapping[str, str]) -> Iterator[str]:
    """What no row of the table knows."""
    known = {row.name for row in agent.parameters} | {"crm_feature_set", "trace_ra", "trace_file"}
    for name in sorted(name[11:] for name in environment if name.startswith("OCF_RESKEY_")):
        if name not in known and not name.startswith("CRM_meta_"):
            yield f"{name} is not a parameter of {agent.name}, it has no effect"


def check_values(settings: Settings) -> Iterator[Problem]:
    """What is wrong wherever the resource runs. Pure."""
    yield from _check_connection(settings)
    yield from _check_tmpdir(settings)
    if settings.replicated:
        yield from _check_members(settings)
        yield from _check_names(settings)


def _check_connection(settings: Settings) -> Iterator[Problem]:
    """Addresses, ports, passwords."""
    address = settings.master_ip
    if settings.rep_mode is not Mode.NONE and not address:
        hint = "Set it to the address that moves with the primary."
        yield Problem(Code.CONFIGURED, f"master_ip is empty, needed with rep_mode={settings.rep_mode.value}", hint)
    if not all(char.isalnum() or char in ".:-_%" for char in address):
        yield Problem(Code.CONFIGURED, f"master_ip is {address!r}, expected one address or host name")
    if not 1 <= settings.pgport <= 65535:
        yield Problem(Code.CONFIGURED, f"pgport is {settings.pgport}, expected 1 to 65535")
    yield from _check_distlock(settings)
    for keyword in conninfo_keywords(settings.primary_conninfo_opt):
        if keyword in RESERVED_KEYWORDS:
            yield Problem(Code.CONFIGURED, f"primary_conninfo_opt sets {keyword}, which the agent sets itself", f"Remove {keyword} from it.")


def _check_distlock(settings: Settings) -> Iterator[Problem]:
    """A voice that cannot be asked is none: it is told before it is missed."""
    if not settings.enable_distlock:
        return
    for name in ("distlock_conninfo", "distlock_lockname", "distlock_row"):
        if not getattr(settings, name):
            hint = "Run cls_setup, which makes the row and sets it." if name == "distlock_row" else "Set it, or enable_distlock=false."
            yield Problem(Code.CONFIGURED, f"{name} is empty, needed with enable_distlock=true", hint)
    if {"password", "passfile"} & set(conninfo_keywords(settings.distlock_conninfo)):
        yield Problem(Code.CONFIGURED, "distlock_conninfo has a password or passfile, expected none", "Use distlock_passfile.")


def _check_tmpdir(settings: Settings) -> Iterator[Problem]:
    """The promises of this node lie there: no clone, rewind or restart may touch them (else a node could vote twice)."""
    tmpdir = f"{settings.tmpdir}/"
    if tmpdir.startswith((f"{settings.pgdata}/", f"{settings.datadir}/")):
        hint = "A clone or rewind would replace what this node has promised: choose a directory elsewhere."
        yield Problem(Code.CONFIGURED, f"tmpdir {settings.tmpdir} is inside the data directory", hint)
    if settings.replicated and tmpdir.startswith(tuple(f"{path}/" for path in VOLATILE)):
        hint = "Choose a directory that keeps its files, such as /var/lib/pgsql/tmp."
        yield Problem(Code.CONFIGURED, f"tmpdir {settings.tmpdir} may be emptied by a restart, and it holds what this node has promised", hint)


def _check_members(settings: Settings) -> Iterator[Problem]:
    """node_list and the number of standbys that confirm."""
    if not settings.members:
        hint = "List the nodes that hold the data as crm_node -l names them."
        yield Problem(Code.CONFIGURED, f"node_list is empty, needed with rep_mode={settings.rep_mode.value}", hint)
    most = len(settings.members) // 2
    if settings.sync_count > most:
        hint = "With more than half, losing half of the nodes or fewer would stop all commits."
        yield Problem(Code.CONFIGURED, f"sync_count is {settings.sync_count}, expected at most {most} with {len(settings.members)} nodes", hint)


def _check_names(settings: Settings) -> Iterator[Problem]:
    """Node names become application names and parts of the names of replication slots."""
    prefix = settings.replication_slot_name
    if prefix != slot_word(prefix):
        yield Problem(Code.CONFIGURED, f"replication_slot_name is {prefix!r}, expected only a-z, 0-9 and _")
    seen: dict[str, str] = {}
    for list_name, node in (*(("node_list", node) for node in settings.members), *(("read_node_list", node) for node in settings.read_node_list)):
        word = slot_word(node)
        if not all(char.isascii() and (char.isalnum() or char in "._-") for char in node):
            yield Problem(Code.CONFIGURED, f"{list_name} names {node!r}, expected letters, digits, dots, dashes and underscores")
        if word in seen:
            hint = "Rename a node, or name each node once: their replication slots would have one name."
            yield Problem(Code.CONFIGURED, f"{list_name} names {seen[word]} and {node}, which are the same in a slot's name", hint)
        seen[word] = node
    for name in settings.external_standby_node_list:
        if name in settings.members or not all(char.isascii() and (char.isalnum() or char in "._-") for char in name):
            expected = "letters, digits, dots, dashes and underscores, and no name of node_list"
            yield Problem(Code.CONFIGURED, f"external_standby_node_list names {name!r}, expected {expected}")
        if len(f"{prefix}_outside_{name}") > NAME_LIMIT:
            yield Problem(Code.CONFIGURED, f"{prefix} and {name} are too long for the name of a replication slot", "Shorten one of them.")
    longest = sorted(seen, key=len)[-2:]
    if len("_".join([prefix, "9" * ROUND_DIGITS, *longest])) > NAME_LIMIT:
        hint = f"Shorten replication_slot_name or the names: together they may have {NAME_LIMIT - ROUND_DIGITS - 3} characters."
        yield Problem(Code.CONFIGURED, f"{prefix}, {' and '.join(longest)} are too long for the name of a replication slot", hint)


def conninfo_keywords(text: str) -> list[str]:
    """The keywords of a connection string (PostgreSQL manual, 34.1.1.1), values and quotes skipped.

    >>> conninfo_keywords("sslmode=verify-full options = '-c a=b' password=x")
    ['sslmode', 'options', 'password']
    """
    found: list[str] = []
    rest = text
    while "=" in rest:
        keyword, _, rest = rest.partition("=")
        found.append(keyword.strip())
        rest = _after_value(rest.lstrip())
    return found


def _after_value(text: str) -> str:
    """What follows a value, which may be quoted and may hold escaped characters."""
    quoted = text.startswith("'")
    position = int(quoted)
    while position < len(text) and not (text[position] == "'" if quoted else text[position].isspace()):
        position += 2 if text[position] == "\\" else 1
    return text[position + int(quoted) :]


def check_cluster(agent: Agent, settings: Settings, context: Context) -> Iterator[Problem]:
    """How the cluster has configured the resource, and this node's place in it. Pure."""
    if not settings.replicated:
        return
    readers = settings.read_node_list if agent is PGSQL else ()
    leaving = context.action not in {"start", "validate-all"}  # what runs goes on running until it was taken out of the set
    if settings.members and context.node not in (*settings.members, *readers) and not leaving:
        hint = "Add it to node_list, or keep the resource off this node; names are spelled as crm_node -n prints them."
        yield Problem(Code.ARGS, f"this node is {context.node}, and node_list is {' '.join(settings.members)}", hint)
    if agent is not PGSQL:
        return
    if context.notifications is False and context.action != "notify":
        hint = f"Type: pcs resource meta <the clone of {context.resource}> notify=true"
        yield Problem(Code.CONFIGURED, "the clone has notify=false, expected notify=true", hint)
    if context.promoted_max not in (None, 1):
        hint = f"Type: pcs resource meta <the clone of {context.resource}> promoted-max=1"
        yield Problem(Code.CONFIGURED, f"the clone has promoted-max={context.promoted_max}, expected 1", hint)


def check_programs(settings: Settings) -> Iterator[Problem]:
    """PostgreSQL's programs, and the Python package that speaks to it."""
    if not has_package("psycopg2"):
        yield Problem(Code.INSTALLED, "the Python package psycopg2 is not there", "Install the distribution's package python3-psycopg2.")
    hint = "Install the server package of PostgreSQL, or set bindir to the directory of its programs."
    if not settings.bindir:
        yield Problem(Code.INSTALLED, f"no PostgreSQL programs found: looked for {settings.pgctl}", hint)
        return
    for name in PROGRAMS:
        if not os.access(settings.program(name), os.X_OK):
            yield Problem(Code.INSTALLED, f"{settings.program(name)} is not there or not executable", hint)


def check_owner(settings: Settings) -> Iterator[Problem]:
    """The operating system's user that runs PostgreSQL, and ours."""
    owner = _user_number(settings.pgdba)
    if owner is None:
        yield Problem(Code.INSTALLED, f"the operating system has no user {settings.pgdba}", "Set pgdba to the user that owns the data directory.")
    elif owner == 0:
        yield Problem(Code.CONFIGURED, f"pgdba is {settings.pgdba}, which is root; PostgreSQL refuses to run as root")
    elif os.geteuid() not in (0, owner):
        yield Problem(Code.PERM, f"the agent runs as user number {os.geteuid()}, expected root", "Run it as root.")


def _user_number(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def check_directories(settings: Settings) -> Iterator[Problem]:
    """The directories beside the data. Those which are missing are made by the start."""
    for name, path in (("tmpdir", settings.tmpdir), ("socketdir", settings.socketdir)):
        if path and os.path.lexists(path) and not os.path.isdir(path):
            yield Problem(Code.PERM, f"{name} {path} is not a directory", f"Remove it, or set {name} to another path.")
    folder = os.path.dirname(settings.logfile)
    if not os.path.isdir(folder):
        yield Problem(Code.PERM, f"the directory of logfile {settings.logfile} is not there", f"Make it: mkdir -p {folder}")


def check_data(settings: Settings) -> Iterator[Problem]:
    """The data directory and its configuration."""
    datadir = settings.datadir
    try:
        about = os.stat(datadir)
    except OSError as error:
        hint = "Type cls_rebuild_slave on this node to copy the primary, or make it with initdb for a new set."
        yield Problem(Code.ARGS, f"data directory {datadir}: {os.strerror(error.errno or 0).lower()}", hint)
        return
    yield from _check_data_version(datadir)
    owner = _user_number(settings.pgdba)
    if owner is not None and about.st_uid != owner:
        hint = f"Type: chown -R {settings.pgdba}: {datadir}"
        yield Problem(Code.PERM, f"{datadir} belongs to user number {about.st_uid}, expected {settings.pgdba}", hint)
    elif about.st_mode & 0o027:
        yield Problem(Code.PERM, f"{datadir} has mode {about.st_mode & 0o777:04o}, expected 0700 or 0750", f"Type: chmod 0700 {datadir}")
    if not os.path.isfile(settings.config):
        yield Problem(Code.INSTALLED, f"configuration file {settings.config} is not there", "Set config to the path of postgresql.conf.")


def _check_data_version(datadir: str) -> Iterator[Problem]:
    version = data_version(datadir)
    if version is None:
        hint = "Set pgdata to the data directory; where the configuration lies elsewhere, set datadir too."
        yield Problem(Code.ARGS, f"{datadir} is not a data directory: PG_VERSION is not there or cannot be read", hint)
    elif version < OLDEST:
        yield Problem(Code.INSTALLED, f"{datadir} is of PostgreSQL {version}, expected {OLDEST} or newer", "Upgrade it with pg_upgrade.")
    if os.path.lexists(f"{datadir}/recovery.conf"):
        hint = "Remove it: the agent writes the recovery settings into tmpdir."
        yield Problem(Code.ARGS, f"{datadir}/recovery.conf is there, and PostgreSQL 12 or newer does not start with it", hint)


def check_version(settings: Settings) -> Iterator[Problem]:
    """Whether the programs are of the data directory's version. Runs one of them."""
    from pha4pgsql.system import run  # not needed by most calls, and slow to import

    program = settings.program("postgres")
    done = run([program, "--version"], timeout=5)
    version = program_version(done.out)
    if version is None:
        yield Problem(Code.INSTALLED, f"{program} --version failed: {done.err.strip() or done.out.strip()}", "Install PostgreSQL again.")
    elif version != data_version(settings.datadir):
        hint = "Set bindir to the programs of the data directory's version, or upgrade the data with pg_upgrade."
        yield Problem(Code.INSTALLED, f"{program} is of PostgreSQL {version}, {settings.datadir} of {data_version(settings.datadir)}", hint)


def program_version(text: str) -> int | None:
    """The major version in the output of `postgres --version`.

    >>> [program_version(f"postgres (PostgreSQL) {text}") for text in ("15.18 (Debian 15.18-0+deb12u1)", "19devel", "")]
    [15, 19, None]
    """
    word = f"{text.partition(') ')[2]} ".split(" ", 1)[0]
    digits = word[: len(word) - len(word.lstrip("0123456789"))]
    return int(digits) if digits else None


def postmaster_lives(datadir: str) -> bool:
    """Whether the process named in postmaster.pid is there and works in this directory; True when that cannot be seen."""
    try:
        with open(f"{datadir}/postmaster.pid", encoding="utf-8") as stream:
            number = int(stream.readline())
    except (OSError, ValueError):
        return False
    try:
        return os.path.samefile(f"/proc/{number}/cwd", datadir)
    except FileNotFoundError:
        return False
    except OSError:
        return True
