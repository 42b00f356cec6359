"""Who receives WAL from the primary, and how far each has replayed it: one statement, asked with psycopg2 or through a psql command.

What cannot be found out is a `Failure`, never an empty answer: a hot standby, a silent server and a role that may not see
pg_stat_replication are all different from a primary without standbys.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pha4pgsql import system
from pha4pgsql.lvs_words import Replica
from pha4pgsql.words import EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

STATEMENT = """
with here as (select pg_is_in_recovery() as standby, case when pg_is_in_recovery() then null else pg_current_wal_lsn() end as position)
select case when here.standby then 'standby' else 'primary' end, r.pid::text, r.application_name, host(r.client_addr), r.state, r.sync_state,
       case when r.replay_lsn <= r.sent_lsn then pg_wal_lsn_diff(here.position, r.replay_lsn)::bigint::text end,
       extract(epoch from r.replay_lag)::text
  from here left join (pg_stat_replication r left join pg_replication_slots s on s.active_pid = r.pid)
    on coalesce(s.slot_type, 'physical') = 'physical'
"""
"""Logical replication uses walsenders too; it always has a logical slot. PostgreSQL 13 to 18.

Who has replayed more than it was sent has left the primary's history. It comes again and again, from the beginning of its last segment, and is
shown as streaming for a moment each time.
"""

RECEIVERS = frozenset({
    "pg_receivewal", "pg_receivexlog", "pg_basebackup", "pg_recvlogical", "pg_rewind", "barman_receive_wal", "barman_streaming_backup",
    "pgbackrest", "wal-g",
})  # fmt: skip
"""What programs that only store WAL call themselves. They are known by what they report, too: they never replay anything."""

FIELDS = 8
CONFIRMING = frozenset({"sync", "quorum", "potential", "async"})
STREAMING = "streaming"
NOTHING = -1
"""`lag_bytes` of one that has not replayed what it was sent: pg_receivewal never does (replay_lsn is null), nor does a server that has diverged."""


class Unanswered(EnvironmentFailure):
    """The question got no answer: nothing is known of the replicas."""


class NotPrimary(EnvironmentFailure):
    """A hot standby answered: it knows nothing of the primary's replicas."""


def streaming(conninfo: str, *, passfile: str = "", timeout: float = 5.0) -> tuple[Replica, ...]:
    """Everybody who receives WAL from the primary that `conninfo` leads to, servers (`is_server`) and others. At most `timeout` seconds."""
    return of_rows(ask(conninfo, STATEMENT, passfile=passfile, timeout=timeout))


def is_server(replica: Replica) -> bool:
    """Whether it is a standby that streams: something that may be read from.

    Left out are programs that store WAL (they replay nothing), base backups, and standbys that still catch up. Its name
    need not be one of a host: `walreceiver`, or a cluster_name, is what PostgreSQL says where nobody set application_name.
    """
    return replica.state == STREAMING and replica.sync in CONFIRMING and replica.lag_bytes != NOTHING and replica.name not in RECEIVERS


def of_rows(rows: Iterable[Sequence[str | None]]) -> tuple[Replica, ...]:
    """Rows of STATEMENT as values. A primary always answers with one row at least."""
    found = []
    for role, pid, name, address, state, sync, behind, seconds in _checked(rows):
        if role != "primary":
            raise NotPrimary("a standby answered, expected the primary", "the address in conninfo must be the one that goes with the primary")
        if pid and not state:
            raise Unanswered("the role may not see pg_stat_replication", "grant pg_monitor to it, or use the replication role's superuser")
        if pid:
            lag = max(0, int(behind)) if behind else NOTHING
            found.append(Replica(name, address, state, sync, lag, float(seconds) if seconds and lag else 0.0))
    return tuple(found)


def _checked(rows: Iterable[Sequence[str | None]]) -> list[tuple[str, ...]]:
    """Every row with its eight fields, nulls as empty texts; no row at all is no answer."""
    found = [tuple(field or "" for field in row) for row in rows]
    if not found or any(len(row) != FIELDS for row in found):
        raise Unanswered(f"the answer is not of the expected form: {found[:1]}")
    return found


# ---------------------------------------------------------------- with psycopg2


def ask(
    conninfo: str, statement: str, *, passfile: str = "", timeout: float = 5.0, host: str = "", values: Mapping[str, Any] | None = None
) -> list[tuple[Any, ...]]:
    """The rows of one statement, or `Unanswered` after `timeout` seconds at the latest, whatever the server or the network does.

    `host` replaces the host of `conninfo`. A statement with `values` may change something; else it must not. When it is
    unanswered it may have been done, or be done yet.
    """
    deadline = time.monotonic() + timeout
    line = Line(conninfo, passfile=passfile, timeout=timeout, host=host, changing=values is not None)
    try:
        return line.ask(statement, values, timeout=deadline - time.monotonic())
    finally:
        line.close()


class Line:
    """A session that is asked more than once; `Unanswered` ends its use. Asynchronous, because libpq knows no deadline for a statement."""

    def __init__(self, conninfo: str, *, passfile: str = "", timeout: float = 5.0, host: str = "", changing: bool = False) -> None:
        import psycopg2
        from psycopg2.extensions import make_dsn, parse_dsn

        deadline = time.monotonic() + timeout
        with _unanswered():
            given = {"application_name": "pha4pgsql", **parse_dsn(conninfo)}
            if host:
                given.pop("hostaddr", None)
                given["host"] = host
            if "hostaddr" not in given:
                given["hostaddr"] = addresses(given.get("host", ""), deadline)
            extra = {"passfile": passfile, "options": _options(given.pop("options", ""), timeout, changing=changing)}
            self._connection = psycopg2.connect(make_dsn(**{name: value for name, value in {**given, **extra}.items() if value}), async_=True)
            try:
                _finish(self._connection, deadline, timeout)
            except BaseException:
                self.close()
                raise

    def ask(self, statement: str, values: Mapping[str, Any] | None = None, *, timeout: float) -> list[tuple[Any, ...]]:
        """The rows of one statement."""
        with _unanswered(), self._connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            _finish(self._connection, time.monotonic() + timeout, timeout)
            return list(cursor.fetchall()) if cursor.description else []

    def close(self) -> None:
        self._connection.close()


@contextmanager
def _unanswered() -> Iterator[None]:
    """What psycopg2 complains of is no answer."""
    import psycopg2

    try:
        yield
    except psycopg2.Error as failed:
        said = " ".join(str(failed).split()) or type(failed).__name__
        raise Unanswered(f"PostgreSQL gave no answer: {said}", "check the connection string, pg_hba.conf and the passfile with psql") from failed


def addresses(hosts: str, deadline: float) -> str:
    """The addresses of host names, all separated by commas, before the deadline: libpq would wait for a silent resolver, and hold everything up.

    Empty where nothing has to be resolved: addresses, socket directories.
    """
    names = hosts.split(",")
    if not hosts or any(name.startswith(("/", "@")) for name in names) or all(_is_address(name) for name in names):
        return ""
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(",".join(map(_resolved, names))), daemon=True)
    thread.start()
    thread.join(max(0.0, deadline - time.monotonic()))
    if not found or "" in found[0].split(","):
        raise Unanswered(f"{hosts} does not resolve", "put it into /etc/hosts, or give an address")
    return found[0]


def _is_address(name: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):
            return bool(socket.inet_pton(family, name))
    return False


def _resolved(name: str) -> str:
    try:
        return str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError:
        return ""


def _options(given: str, timeout: float, *, changing: bool = False) -> str:
    """The server gives up, too, and changes nothing; or what it has changed is on its disk before it says so."""
    how = r"synchronous_commit=on -c default_transaction_isolation=read\ committed" if changing else "default_transaction_read_only=on"
    return f"{given} -c statement_timeout={max(1, int(timeout * 1000))} -c {how}".strip()


def _finish(connection: Any, deadline: float, timeout: float) -> None:  # noqa: ANN401  a class of psycopg2, which is imported late
    """Wait until an asynchronous connection has nothing to do any more."""
    from psycopg2.extensions import POLL_OK, POLL_READ

    while (state := connection.poll()) != POLL_OK:
        left = deadline - time.monotonic()
        reading, writing = ([connection], []) if state == POLL_READ else ([], [connection])
        if left <= 0 or not any(select.select(reading, writing, [], left)):
            raise Unanswered(f"PostgreSQL did not answer within {timeout:g} s", "is the server there, and does the network let the connection pass?")


# ---------------------------------------------------------------- through psql


def by_psql(words: Sequence[str], statement: str, *, timeout: float, changing: bool = False) -> list[tuple[str, ...]]:
    """The rows of one statement that a psql command gives, whatever its .psqlrc or the language say; fields are texts, nulls empty ones.

    It never asks for a password, and gives up by itself (connection) and by the server's hand (statement) before it is killed.
    """
    patience = max(2, int(timeout))  # libpq takes less than two seconds for two
    argv = [*words, "-X", "-A", "-t", "-q", "-w", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-c", statement]
    options = _options(os.environ.get("PGOPTIONS", ""), timeout, changing=changing)
    done = system.run(argv, timeout=timeout, environment={"PGCONNECT_TIMEOUT": str(patience), "PGOPTIONS": options, "PGAPPNAME": "pha4pgsql"})
    if done.code == 124:
        raise Unanswered(f"{words[0]} did not end within {timeout:g} s", "is the server there, and does the network let the connection pass?")
    if not done.ok:
        said = done.err.strip() or done.out.strip() or f"exit code {done.code}"
        raise Unanswered(f"{words[0]} failed: {said}", "run the same psql command by hand")
    return [tuple(line.split("\t")) for line in done.out.splitlines() if line]
