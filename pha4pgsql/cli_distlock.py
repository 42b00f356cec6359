"""The scripts' tool distlock: the original's command line, output and exit codes. A lock that ends by the lock server's clock.

The database does not use it: a lock that ends by time cannot keep two nodes apart (docs/distlock.md). It uses another part of the
same row, which lock_row.py asks.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, NamedTuple

from pha4pgsql import cli_tools, replicas
from pha4pgsql.words import ConfigurationError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

VERBS = ("trylock", "lock", "unlock")
EXPIRE, PATIENCE, PAUSE = 10.0, 10.0, 1.0
"""Seconds: how long a lock is held unless it is taken again, how long `lock` tries, and how long it waits between two tries."""
MOMENT = 0.1
EXAMPLE = "distlock psql 'host=192.168.0.234 dbname=postgres' trylock distlock:mylock node1 9"

TAKE = """
with taken as (update {table} set owner = {owner}, ts = clock_timestamp(), expired_time = interval '{expire} seconds'
                where lockname = {lockname} and (owner in ('', {owner}) or clock_timestamp() > ts + expired_time) returning 1)
select (select count(*) from taken)::text, exists (select from {table} where lockname = {lockname})::text
"""
"""Taken if it is free, mine, or has expired by the server's clock: one statement, so of two at once one gets it."""
FREE = """
with freed as (update {table} set owner = '', ts = clock_timestamp(), expired_time = interval '0'
                where lockname = {lockname} and owner = {owner} returning 1)
select (select count(*) from freed)::text, exists (select from {table} where lockname = {lockname})::text
"""


class Order(NamedTuple):
    """What the command line says. `psql` is the command, empty with --conninfo."""

    psql: tuple[str, ...]
    verb: str
    table: str
    lockname: str
    owner: str
    expire: float = EXPIRE
    patience: float = PATIENCE


def distlock(argv: Sequence[str]) -> int:
    """Take, wait for or free a lock; prints 1 or 0."""
    parser = cli_tools.parser(
        "distlock",
        "Print 1 if the lock was taken (trylock, lock) or freed (unlock), 0 if not.",
        "distlock [OPTIONS] PSQL [ARGUMENTS]... trylock|lock|unlock TABLE:LOCKNAME OWNER [EXPIRE [TIMEOUT]]\n"
        "       distlock --conninfo CONNINFO [OPTIONS] trylock|lock|unlock TABLE:LOCKNAME OWNER [EXPIRE [TIMEOUT]]",
        of_replicas=False,
    )
    return cli_tools.main(parser, _distlock, argv)


def _distlock(options: argparse.Namespace) -> str:
    order = read(options.words, with_psql=not options.conninfo)
    deadline = time.monotonic() + order.patience
    while not _done(options, order):
        if order.verb != "lock" or time.monotonic() >= deadline:
            return "0\n"
        again = min(deadline, time.monotonic() + PAUSE)
        while (left := again - time.monotonic()) > 0:
            time.sleep(min(left, MOMENT))
    return "1\n"


def read(words: Sequence[str], *, with_psql: bool) -> Order:
    """Tell the lock's words, which come last, from those of the psql command.

    >>> read(["psql", "dbname=a", "lock", "distlock:x", "node1", "9", "12"], with_psql=True)[1:]
    ('lock', 'distlock', 'x', 'node1', 9.0, 12.0)
    """
    place = next((number for number in reversed(range(len(words))) if words[number] in VERBS), -1)
    told = list(words[place + 1 :])
    if place < 0 or not 2 <= len(told) <= 4:
        raise ConfigurationError(f"expected trylock, lock or unlock, TABLE:LOCKNAME and OWNER at the end, got {' '.join(words)!r}", EXAMPLE)
    table, colon, lockname = told[0].partition(":")
    if not colon or not lockname or not re.fullmatch(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?", table):
        raise ConfigurationError(f"expected TABLE:LOCKNAME, got {told[0]!r}", EXAMPLE)
    psql = tuple(cli_tools.psql_words(words[:place])) if with_psql else ()
    if not with_psql and place:
        raise ConfigurationError(f"{' '.join(words[:place])!r} is too much: with --conninfo no psql command is needed", EXAMPLE)
    times = [_seconds(word) for word in told[2:]]
    return Order(psql, words[place], table, lockname, told[1], *times)


def _seconds(word: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?s?", word):
        raise ConfigurationError(f"{word!r} is not a number of seconds", EXAMPLE)
    return float(word.removesuffix("s"))


def _done(options: argparse.Namespace, order: Order) -> bool:
    """One try."""
    form = FREE if order.verb == "unlock" else TAKE
    statement = form.format(table=order.table, owner=literal(order.owner), lockname=literal(order.lockname), expire=f"{order.expire:f}")
    if order.psql:
        rows = replicas.by_psql(order.psql, statement, timeout=options.timeout, changing=True)
    else:
        rows = replicas.ask(options.conninfo, statement, passfile=options.passfile, timeout=options.timeout, values={})
    if len(rows) != 1 or rows[0][1] != "true":
        raise ConfigurationError(
            f"there is no row {order.lockname} in {order.table}", f"psql -v lockname={order.lockname} -f distlock_init.sql makes one"
        )
    return str(rows[0][0]) == "1"


def literal(text: str) -> str:
    r"""Text in a statement, whatever stands in it (PostgreSQL manual, 4.1.2.2: in this form a backslash has a meaning everywhere).

    >>> literal("it's \\")
    "E'it''s \\\\'"
    """
    if "\0" in text or not text:
        raise ConfigurationError(f"{text!r} is no name", EXAMPLE)
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
