"""A psql command as what it connects to: old configuration names the lock's server that way. Nothing is run.

Passwords stand apart, because what is made of the rest can be read by everybody.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_PAIR = re.compile(r"\s*([a-z_]+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))(?=\s|$)")
_OPTIONS = {"-h": "host", "-p": "port", "-U": "user", "-d": "dbname"}
_LONG = {"--host": "host", "--port": "port", "--username": "user", "--dbname": "dbname"}
_IDLE = re.compile(r"-[AXqtwn1]+|--(no-psqlrc|quiet|tuples-only|no-align|no-password)")
_ENVIRONMENT = {"PGPASSWORD": "password", "PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGDATABASE": "dbname", "PGPASSFILE": "passfile"}
EXPECTED = 'a psql command with a host, such as psql "host=192.168.0.250 dbname=postgres user=distlock"'


class Target(NamedTuple):
    """Where a psql command connects to. `conninfo` is libpq's keyword=value text, without password and passfile."""

    conninfo: str
    host: str
    port: str
    user: str
    dbname: str
    password: str
    passfile: str


def target(line: str) -> Target:
    r"""Read a psql command, or the keyword=value pairs alone; ValueError says what was expected.

    >>> target("/usr/bin/psql \\\"host=lock port=5439 dbname=postgres user=postgres connect_timeout=5\\\"").conninfo
    'connect_timeout=5 dbname=postgres host=lock port=5439 user=postgres'
    >>> target("psql -X -h lock -p5433 -U me db")[:5]
    ('dbname=db host=lock port=5433 user=me', 'lock', '5433', 'me', 'db')
    >>> target("host=lock password='a b'").password
    'a b'
    """
    try:
        words = shlex.split(re.sub(r"\\+(['\"])", r"\1", line) if "\\" in line else line)
    except ValueError:
        raise ValueError(EXPECTED) from None
    found: dict[str, str] = {}
    while words and words[0].partition("=")[0] in _ENVIRONMENT:
        name, _, value = words.pop(0).partition("=")
        found[_ENVIRONMENT[name]] = value
    if words and "=" in words[0]:
        found.update(pairs(line if not found else " ".join(words)))
    elif words and words[0].rpartition("/")[2].startswith("psql"):
        found.update(_arguments(words[1:]))
    else:
        raise ValueError(EXPECTED)
    if not found.get("host") or "," in found["host"] + found.get("port", ""):
        raise ValueError(EXPECTED)
    found = {"port": "5432", "user": "postgres", **found}
    found.setdefault("dbname", found["user"])
    secret, passfile = found.pop("password", ""), found.pop("passfile", "")
    return Target(conninfo(found), found["host"], found["port"], found["user"], found["dbname"], secret, passfile)


def _arguments(words: list[str]) -> dict[str, str]:
    """Psql's own options, then a database (or pairs) and a user."""
    found: dict[str, str] = {}
    rest: list[str] = []
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if name in _LONG:
            found[_LONG[name]] = value if equals else _next(words)
        elif word[:2] in _OPTIONS:
            found[_OPTIONS[word[:2]]] = word[2:] or _next(words)
        elif word.startswith("-") and not _IDLE.fullmatch(word):
            raise ValueError(EXPECTED)
        elif not word.startswith("-"):
            rest.append(word)
    if any("=" in word for word in rest):
        return {**found, **pairs(rest[0] if len(rest) == 1 else " ".join(rest))}
    return {**found, **dict(zip(("dbname", "user"), rest))}


def _next(words: list[str]) -> str:
    if not words:
        raise ValueError(EXPECTED)
    return words.pop(0)


def pairs(text: str) -> dict[str, str]:
    """libpq's keyword=value pairs (PostgreSQL manual, 34.1.1.1)."""
    found: dict[str, str] = {}
    position = 0
    while text[position:].strip():
        match = _PAIR.match(text, position)
        if match is None:
            raise ValueError(EXPECTED)
        found[match[1]] = re.sub(r"\\(.)", r"\1", match[2] if match[2] is not None else match[3])
        position = match.end()
    return found


def conninfo(values: Mapping[str, str]) -> str:
    """Pairs as text, quoted where they must be, in a fixed order."""
    return " ".join(f"{name}={_quoted(value)}" for name, value in sorted(values.items()))


def _quoted(value: str) -> str:
    if value and not re.search(r"[\s'\\]", value):
        return value
    return "'" + re.sub(r"(['\\])", r"\\\1", value) + "'"


def passfile_line(fields: Iterable[str]) -> str:
    r"""A line of a password file (manual, 34.16: `:` and `\` escaped)."""
    return ":".join(re.sub(r"([:\\])", r"\\\1", field) for field in fields) + "\n"
