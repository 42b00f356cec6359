"""The scripts' tools get_active_slaves and check_active_slave: the original's command line, output and exit codes, and a form without psql.

Exit codes: 0 answered, 1 wrong usage or could not find out; then standard output is empty, and a message stands on standard error.
They run every few seconds on behalf of the director: little is imported, and every run is bounded in time.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from typing import TYPE_CHECKING, Callable, NamedTuple

from pha4pgsql import VERSION, arguments, paths, replicas
from pha4pgsql.words import ConfigurationError, Failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pha4pgsql.lvs_words import Replica

FAILED = 1
TIMEOUT = 4.0
"""Seconds: a little less than what the director gives a script by default."""

IS_STANDBY = "select pg_is_in_recovery()"
BEHIND = """
select case when not pg_is_in_recovery() then null
            when pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()
             and exists (select from pg_stat_wal_receiver where coalesce(status, 'streaming') = 'streaming') then 0
            else extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp()) end::text
"""
"""Seconds behind, seen by the standby itself: 0 while it has replayed all that it receives, else the age of the last commit replayed."""

HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?|[0-9A-Fa-f]*:[0-9A-Fa-f:.]+")
NO_NAMES = frozenset({"walreceiver"})
"""PostgreSQL's own word where nobody set application_name."""


class Parser(arguments.Parser):
    """Wrong usage ends with 1."""

    wrong = FAILED


class Limits(NamedTuple):
    """How far behind a server may be; None: no limit."""

    lag_bytes: int | None = None
    lag_seconds: float | None = None


NO_LIMITS = Limits()


def get_active_slaves(argv: Sequence[str]) -> int:
    """Print the names of the standbys that stream from the primary."""
    tool = parser(
        "get_active_slaves",
        "Print the application names of the standbys that stream from the primary, a blank behind each.",
        "get_active_slaves [OPTIONS] PSQL [ARGUMENTS]...\n       get_active_slaves --conninfo CONNINFO [OPTIONS]",
    )
    tool.add_argument("--max-lag-bytes", type=_natural, metavar="N", help="leave out who has more bytes of WAL to replay")
    return main(tool, _active, argv)


def check_active_slave(argv: Sequence[str]) -> int:
    """Print whether a server can be asked and is a standby."""
    tool = parser(
        "check_active_slave",
        "Print t if the server can be asked and is a standby, f if it is none.",
        "check_active_slave [OPTIONS] PSQL [ARGUMENTS]... [-h] HOST\n       check_active_slave --conninfo CONNINFO [OPTIONS] HOST",
    )
    return main(tool, _check, argv)


def parser(name: str, description: str, usage: str, *, of_replicas: bool = True) -> Parser:
    """What all of these tools take: a psql command, or --conninfo."""
    tool = Parser(name, description=description, usage=usage, allow_abbrev=False, add_help=False)
    tool.add_argument("--help", action="help", help="show this message")
    tool.add_argument("--version", action="version", version=f"pha4pgsql {VERSION}")
    tool.add_argument("--conninfo", metavar="CONNINFO", help="connect without psql; libpq keyword=value pairs or a URI")
    tool.add_argument("--passfile", default="", metavar="FILE", help="libpq password file")
    if of_replicas:
        tool.add_argument("--max-lag-seconds", type=arguments.seconds, metavar="S", help="leave out who is further behind")
    tool.add_argument("--timeout", type=arguments.seconds, default=TIMEOUT, metavar="S", help="seconds for one question (default: %(default)g)")
    tool.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return tool


def _natural(word: str) -> int:
    if not word.isascii() or not word.isdigit():
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number")
    return int(word)


def main(tool: Parser, body: Callable[[argparse.Namespace], str], argv: Sequence[str]) -> int:
    """Run a tool; its answer is printed whole or not at all."""
    options = tool.parse_args(argv)
    paths.use_packages()
    try:
        print(body(options), end="", flush=True)
    except Failure as failure:
        print(f"{tool.prog}: {failure}", file=sys.stderr)
        return FAILED
    return 0


# ---------------------------------------------------------------- get_active_slaves


def _active(options: argparse.Namespace) -> str:
    if options.conninfo:
        _no_more(options.words)
        found = replicas.streaming(options.conninfo, passfile=options.passfile, timeout=options.timeout)
    else:
        found = replicas.of_rows(replicas.by_psql(psql_words(options.words), replicas.STATEMENT, timeout=options.timeout))
    for one in unnamed(found):
        print(
            f"get_active_slaves: a standby at {one.address or 'a unix socket'} is left out: {one.name!r} is no name of a host\n"
            "HINT: set application_name in its primary_conninfo",
            file=sys.stderr,
        )
    return "".join(f"{name} " for name in names(found, Limits(options.max_lag_bytes, options.max_lag_seconds)))


def _no_more(words: Sequence[str]) -> None:
    if words:
        raise ConfigurationError(f"{shlex.join(words)!r} is too much: with --conninfo no psql command is needed")


def names(found: Iterable[Replica], limits: Limits = NO_LIMITS) -> list[str]:
    """The names of the servers that are within the limits, each once, in the order of their first rows."""
    return list(dict.fromkeys(one.name for one in found if replicas.is_server(one) and is_name(one.name) and _within(one, limits)))


def unnamed(found: Iterable[Replica]) -> list[Replica]:
    """Servers that cannot be told by their name."""
    return [one for one in found if replicas.is_server(one) and not is_name(one.name)]


def is_name(word: str) -> bool:
    """Whether it can be the name or the address of a host.

    >>> [is_name(word) for word in ("node2", "192.168.0.234", "fd00::4", "my standby", "15/main", "walreceiver", "")]
    [True, True, True, False, False, False, False]
    """
    return word not in NO_NAMES and HOST_NAME.fullmatch(word) is not None


def _within(one: Replica, limits: Limits) -> bool:
    return (limits.lag_bytes is None or one.lag_bytes <= limits.lag_bytes) and (limits.lag_seconds is None or one.lag_seconds <= limits.lag_seconds)


# ---------------------------------------------------------------- check_active_slave


def _check(options: argparse.Namespace) -> str:
    limit, statement = options.max_lag_seconds, IS_STANDBY if options.max_lag_seconds is None else BEHIND
    if options.conninfo:
        if len(options.words) != 1:
            raise ConfigurationError("expected one HOST behind the options", "check_active_slave --conninfo 'dbname=postgres' node2")
        rows = replicas.ask(options.conninfo, statement, passfile=options.passfile, timeout=options.timeout, host=options.words[0])
    else:
        rows = replicas.by_psql(with_host(options.words), statement, timeout=options.timeout)
    answer = rows[0][0] if rows else None
    if limit is None:
        return f"{_truth(answer)}\n"
    return "t\n" if answer not in {None, ""} and float(str(answer)) <= limit else "f\n"


def _truth(answer: object) -> str:
    if answer in (True, "t"):
        return "t"
    if answer in (False, "f"):
        return "f"
    raise replicas.Unanswered(f"the answer is {answer!r}, expected t or f")


def with_host(words: Sequence[str]) -> list[str]:
    """A psql command whose last word is the host, with or without `-h` before it.

    >>> with_host(["psql", "port=5432 dbname=postgres", "-h", "node2"])
    ['psql', 'port=5432 dbname=postgres', '-h', 'node2']
    >>> with_host(['psql "port=5432 dbname=postgres"', "node2"])
    ['psql', 'port=5432 dbname=postgres', '-h', 'node2']
    """
    *command, host = words or [""]
    command = psql_words(command)
    return [*command, host] if command[-1] in {"-h", "--host"} else [*command, "-h", host]


# ---------------------------------------------------------------- the psql command


def psql_words(words: Sequence[str]) -> list[str]:
    """A psql command as an argument list, however its quotes fared on the way through configuration and shells.

    >>> psql_words(["psql", "host=a dbname=b"])
    ['psql', 'host=a dbname=b']
    >>> psql_words(['psql "host=a dbname=b"']) == psql_words(["psql", '"host=a', 'dbname=b"']) == psql_words(["psql", "host=a", "dbname=b"])
    True
    """
    if not words or not words[0].strip():
        raise ConfigurationError("a psql command is expected, or --conninfo", "get_active_slaves psql 'host=192.168.0.236 dbname=postgres'")
    if any(not _balanced(word) for word in words):
        words = _split(" ".join(words))
    elif not os.path.exists(words[0]) and len(words[0].split()) > 1:
        words = [*_split(words[0]), *words[1:]]
    return _joined([_bare(word) for word in words])


def _balanced(word: str) -> bool:
    try:
        shlex.split(word)
    except ValueError:
        return False
    return True


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as wrong:
        raise ConfigurationError(f"the psql command {line!r} cannot be read: {wrong}", "put the connection string into one pair of quotes") from None


def _bare(word: str) -> str:
    """A word without quotes around the whole of it, which some shell should have taken away."""
    inner = shlex.split(word) if word[:1] in {'"', "'"} else []
    return inner[0] if len(inner) == 1 else word


def _joined(words: Sequence[str]) -> list[str]:
    """Put keyword=value words that follow each other back into one connection string; a psql command never has two otherwise."""
    result: list[str] = []
    for word in words:
        pair = _PAIR.match(word) is not None
        if pair and len(result) > 1 and _PAIR.match(result[-1]) and result[-2] not in _TAKES_PAIR:
            result[-1] += f" {word}"
        else:
            result.append(word)
    return result


_PAIR = re.compile(r"[a-z_]+\s*=")
_TAKES_PAIR = ("-v", "--set", "--variable", "-P", "--pset", "-c", "--command")
