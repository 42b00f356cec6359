"""The scripts' tools: who counts as a server, what a psql command was meant to be, limits, and what is an error rather than an answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pha4pgsql import cli_tools, replicas
from pha4pgsql.lvs_words import Replica
from pha4pgsql.words import ConfigurationError

ROOT = Path(__file__).parents[2]
CONNINFO = "host=192.168.0.236 port=5432 dbname=postgres user=replication password=replication connect_timeout=5"
MEANT = ["/usr/pgsql/bin/psql", CONNINFO]


def row(
    name: str | None = "node2",
    *,
    role: str = "primary",
    state: str | None = "streaming",
    sync: str | None = "async",
    behind: str | None = "0",
    seconds: str | None = None,
) -> tuple[str | None, ...]:
    """A row of the statement, as psycopg2 gives it."""
    return (role, "7", name, "192.168.0.232", state, sync, behind, seconds)


def served(*rows: tuple[str | None, ...], limits: cli_tools.Limits = cli_tools.NO_LIMITS) -> list[str]:
    return cli_tools.names(replicas.of_rows(rows), limits)


@pytest.mark.parametrize(
    ("given", "is_served"),
    [
        (row(sync="sync"), True),
        (row(sync="potential"), True),
        (row(sync="async"), True),
        (row(sync="quorum"), True),
        (row("192.168.0.234"), True),
        (row("fd00::4"), True),
        (row(state="catchup"), False),
        (row(state="startup"), False),
        (row(state="backup"), False),
        (row(behind=None), False),
        (row("pg_receivewal", behind="0"), False),
        (row("pg_basebackup"), False),
        (row("my standby"), False),
        (row("walreceiver"), False),
        (row("15/main"), False),
        (row(""), False),
    ],
)
def test_who_is_served_from(given: tuple[str | None, ...], *, is_served: bool) -> None:
    """Standbys of every synchronous state that stream and replay, under a name that a host can have; a null replay position is a program's."""
    assert bool(served(given)) is is_served


def test_a_name_is_told_once_and_in_order() -> None:
    """Two walsenders of one standby, as while it reconnects, are one server."""
    assert served(row("b"), row("a"), row("b")) == ["b", "a"]


def test_a_standby_without_a_usable_name_is_a_server_all_the_same() -> None:
    """Whoever knows it by its address may use it; the tool tells that it is left out."""
    found = replicas.of_rows([row("walreceiver"), row("pg_receivewal", behind=None)])
    assert [replicas.is_server(one) for one in found] == [True, False]
    assert cli_tools.unnamed(found) == [found[0]]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (cli_tools.NO_LIMITS, ["a", "b", "c"]),
        (cli_tools.Limits(lag_bytes=100), ["a", "b"]),
        (cli_tools.Limits(lag_bytes=99), ["a"]),
        (cli_tools.Limits(lag_seconds=2.0), ["a", "b"]),
        (cli_tools.Limits(lag_bytes=1000, lag_seconds=1.5), ["a"]),
    ],
)
def test_limits(limits: cli_tools.Limits, expected: list[str]) -> None:
    """At the limit is within it."""
    rows = [row("a"), row("b", behind="100", seconds="2.0"), row("c", behind="500", seconds="9.5")]
    assert served(*rows, limits=limits) == expected


def test_seconds_of_who_has_replayed_everything_are_zero() -> None:
    """replay_lag keeps its last value for a while after the standby has caught up."""
    (one,) = replicas.of_rows([row(behind="0", seconds="7.6")])
    assert one.lag_seconds == 0.0


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ([], replicas.Unanswered),
        ([("primary", "", "")], replicas.Unanswered),
        ([row(role="standby")], replicas.NotPrimary),
        ([row(None, state=None, sync=None, behind=None)], replicas.Unanswered),
    ],
)
def test_no_answer_is_not_the_answer_nobody(rows: list[tuple[str | None, ...]], kind: type[Exception]) -> None:
    """A hot standby, a role without rights, an answer of another form: the pool must not be emptied by any of them."""
    with pytest.raises(kind):
        replicas.of_rows(rows)


def test_a_primary_without_standbys_has_none() -> None:
    """One row comes all the same."""
    assert replicas.of_rows([("primary", None, None, None, None, None, None, None)]) == ()
    assert Replica("a", "", "streaming", "async", 0, 0.0) in replicas.of_rows([("primary", "1", "a", None, "streaming", "async", "0", None)])


@pytest.mark.parametrize(
    "words",
    [
        MEANT,
        [f'/usr/pgsql/bin/psql "{CONNINFO}"'],
        [f"/usr/pgsql/bin/psql '{CONNINFO}'"],
        ["/usr/pgsql/bin/psql", *CONNINFO.split()],
        f'/usr/pgsql/bin/psql "{CONNINFO}"'.split(),
        ["/usr/pgsql/bin/psql", f'"{CONNINFO}"'],
    ],
)
def test_a_psql_command_however_it_was_quoted(words: list[str]) -> None:
    """As typed; in one word, as the original wanted it; split at blanks with quotes lost or kept; with quotes that a shell should have eaten."""
    assert cli_tools.psql_words(words) == MEANT


@pytest.mark.parametrize(
    "words",
    [
        ["sudo", "-u", "postgres", "psql", "-h", "/run", "postgres"],
        ["psql", "-v", "a=b", "-v", "c=d", "host=x dbname=y"],
        ["psql", "postgresql://u@h/db?sslmode=require"],
        ["psql", "host=a password='it is' dbname=b"],
    ],
)
def test_other_psql_commands_stay_as_they_are(words: list[str]) -> None:
    """Wrappers, variables, URIs, quotes inside of a connection string."""
    assert cli_tools.psql_words(words) == words


@pytest.mark.parametrize("words", [[], [""], ["psql", 'host="a']])
def test_no_psql_command(words: list[str]) -> None:
    """Nothing, or a quote that nothing closes."""
    with pytest.raises(ConfigurationError):
        cli_tools.psql_words(words)


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("get_active_slaves", []),
        ("get_active_slaves", ["--timeout", "soon", "psql"]),
        ("get_active_slaves", ["--conninfo", "host=x", "psql"]),
        ("get_active_slaves", ["--no-such-option"]),
        ("get_active_slaves", ["/nowhere/psql", "host=x"]),
        ("check_active_slave", []),
        ("check_active_slave", ["--conninfo", "host=x"]),
        ("check_active_slave", ["/nowhere/psql", "host=x", "-h", "node2"]),
        ("check_active_slave", ["/bin/echo", "-h", "node2"]),
        ("get_active_slaves", ["/bin/echo", "x"]),
        ("get_active_slaves", ["/bin/true"]),
    ],
)
def test_failures_have_code_1_and_an_empty_answer(tool: str, words: list[str]) -> None:
    """Wrong usage, a program that is not there, one that says something else."""
    done = subprocess.run([sys.executable, "-IS", ROOT / "tools" / tool, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr


@pytest.mark.parametrize(("said", "code", "out"), [("t", 0, "t\n"), ("f", 0, "f\n"), ("", 1, "")])
def test_check_prints_what_the_server_says(said: str, code: int, out: str) -> None:
    """The contract's two letters, or a failure."""
    script = ["/bin/sh", "-c", f"echo {said} #", "-h", "node2"]
    done = subprocess.run([sys.executable, "-IS", ROOT / "tools" / "check_active_slave", *script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, out)


def test_get_active_slaves_prints_a_blank_behind_each() -> None:
    """And no line end: what the original prints."""
    lines = "\\n".join("\\t".join(field or "" for field in row(name)) for name in ("node2", "node3"))
    command = ["/bin/sh", "-c", f"printf '{lines}\\n' #"]
    done = subprocess.run([sys.executable, "-IS", ROOT / "tools" / "get_active_slaves", *command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "node2 node3 ", "")


def test_a_command_that_does_not_end_is_ended() -> None:
    """By our own limit."""
    tool = str(ROOT / "tools" / "get_active_slaves")
    command = [sys.executable, "-IS", tool, "--timeout", "0.2", "/bin/sh", "-c", "exec sleep 60 #"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    assert (done.returncode, done.stdout) == (1, "")


def test_only_names_are_resolved() -> None:
    """Addresses and socket directories go to libpq as they are."""
    assert [replicas.addresses(hosts, 0.0) for hosts in ("", "192.168.0.236", "192.168.0.236,fd00::1", "/run/postgresql")] == [""] * 4
    with pytest.raises(replicas.Unanswered):
        replicas.addresses("localhost.invalid", 0.0)
