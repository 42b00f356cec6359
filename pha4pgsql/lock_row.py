"""The row of the distributed lock as a voice: asked, and told, each by one statement that is true of one moment. Layer 3.

The row does what a member does with its state file (docs/safety.md, rule 7): it promises only higher ballots, stores only newer
statements, and none below its promise. It is no lease: nothing in it ends by time. What could not be found out is `Heard(None)`, never a yes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pha4pgsql import replicas
from pha4pgsql.words import NEVER, Ballot, ConfigurationError, EnvironmentFailure, Statement, Vote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pha4pgsql.settings import Settings

TIMEOUT = 1.5
"""Seconds for one question, the connection included: a small part of any action's time, and less than what a candidate waits for answers."""

_COLUMNS = "promised_round, promised_node, at_round, at_node, at_count, alone"
_MINE = "lockname = %(lockname)s and identity = %(identity)s"
_OR_AS_IT_IS = f"""
select {_COLUMNS} from changed
union all select {_COLUMNS} from distlock where {_MINE} and not exists (select from changed)
"""  # noqa: S608  made of constants; values are passed apart

ASK = f"""
with changed as (
  update distlock set promised_round = %(round)s, promised_node = %(node)s
   where {_MINE} and (promised_round, promised_node collate "C") < (%(round)s, %(node)s collate "C")
  returning {_COLUMNS}) {_OR_AS_IT_IS}
"""  # noqa: S608
"""Promise a ballot if it is above the promise. Names compare by their bytes (collate "C"), as they do everywhere else."""

STORE = f"""
with changed as (
  update distlock set promised_round = %(round)s, promised_node = %(node)s, at_round = %(round)s, at_node = %(node)s, at_count = %(count)s,
                      alone = %(owner)s
   where {_MINE} and (promised_round, promised_node collate "C") <= (%(round)s, %(node)s collate "C")
     and (at_round, at_node collate "C", at_count) < (%(round)s, %(node)s collate "C", %(count)s)
  returning {_COLUMNS}) {_OR_AS_IT_IS}
"""  # noqa: S608
"""Store a statement of a term, and promise the term by that, if it is newer and the term is not below the promise."""

LOOK = f"select {_COLUMNS} from distlock where {_MINE}"  # noqa: S608


class Place(NamedTuple):
    """Where the row is. `identity` tells it from one of the same name that was made anew, and has forgotten everything."""

    conninfo: str
    passfile: str
    lockname: str
    identity: str


class Heard(NamedTuple):
    """What the row said, as the vote of a member without WAL; or None, and why nothing is known."""

    vote: Vote | None
    reason: str = ""


UNASKED = Heard(None)


def place(settings: Settings) -> Place:
    """Where the agent's parameters say that it is."""
    return Place(settings.distlock_conninfo, settings.distlock_passfile, settings.distlock_lockname, settings.distlock_row)


def ask(where: Place, ballot: Ballot, *, timeout: float = TIMEOUT) -> Heard:
    """Have the row promise a ballot, and hear what it has stored; with NEVER only hear."""
    return _said(where, LOOK if ballot == NEVER else ASK, {"round": ballot.round, "node": ballot.node}, timeout)


def store(where: Place, statement: Statement, *, timeout: float = TIMEOUT) -> Heard:
    """Have the row store a statement, and hear what it has then."""
    term, count, owner = statement
    return _said(where, STORE, {"round": term.round, "node": term.node, "count": count, "owner": owner}, timeout)


def _said(where: Place, statement: str, values: dict[str, Any], timeout: float) -> Heard:
    given = {"lockname": where.lockname, "identity": where.identity, **values}
    try:
        rows = replicas.ask(where.conninfo, statement, passfile=where.passfile, timeout=timeout, values=given)
    except EnvironmentFailure as silence:
        return Heard(None, f"the row of the distributed lock cannot be asked: {silence.message}")
    if len(rows) != 1:
        return Heard(None, f"there is no row {where.lockname} with the identity {where.identity}: it is not the one that this set counts on")
    return Heard(_vote(rows[0]))


def _vote(row: Sequence[Any]) -> Vote:
    promised_round, promised_node, at_round, at_node, count, owner = row
    return Vote(Ballot(int(promised_round), promised_node), said=Statement(Ballot(int(at_round), at_node), int(count), owner))


# ---------------------------------------------------------------- made once

EXISTS = "select exists (select from information_schema.columns where table_name = 'distlock' and column_name = 'identity')"
DURABLE = "select current_setting('fsync') = 'on', current_setting('full_page_writes') = 'on', pg_is_in_recovery()"
MAKE = """
insert into distlock (lockname, owner, ts, expired_time, identity, members) values (%(lockname)s, '', now(), interval '0', %(identity)s, %(members)s)
on conflict (lockname) do update set identity = excluded.identity, members = excluded.members where distlock.identity = ''
"""
"""A row that the tool distlock made for locks is taken as a voice from now on; one that is a voice already stays as it is."""
FIND = "select identity, members from distlock where lockname = %(lockname)s"


def find(where: Place, *, timeout: float = 10.0) -> str:
    """The identity of the row, or empty when there is none yet."""
    if not replicas.ask(where.conninfo, EXISTS, passfile=where.passfile, timeout=timeout)[0][0]:
        return ""
    rows = replicas.ask(where.conninfo, FIND, passfile=where.passfile, timeout=timeout, values={"lockname": where.lockname})
    return str(rows[0][0]) if rows else ""


def prepare(where: Place, members: Sequence[str], ddl: str, *, timeout: float = 10.0) -> str:
    """Make the table and the row if they are not there, and return the row's identity. Never changes a row that is in use."""
    import secrets

    def run(statement: str, **values: str) -> list[tuple[Any, ...]]:
        return replicas.ask(where.conninfo, statement, passfile=where.passfile, timeout=timeout, values={"lockname": where.lockname, **values})

    fsync, full_pages, standby = run(DURABLE)[0]
    if standby or not fsync or not full_pages:
        what = "is a standby" if standby else "may lose data: fsync or full_page_writes is off"
        raise ConfigurationError(
            f"the server of the distributed lock ({where.conninfo}) {what}", "choose a server that keeps what it has promised, and no copy of one"
        )
    if not run(EXISTS)[0][0]:
        run(ddl)
    run(MAKE, identity=secrets.token_hex(8), members=" ".join(members))
    identity, users = run(FIND)[0]
    if users and not set(users.split()) & set(members):
        raise ConfigurationError(
            f"the row {where.lockname} of the distributed lock is the voice of another set ({users})", "choose another pgsql_distlock_lockname"
        )
    return str(identity)
