"""The tool distlock: its command line, answers and exit codes; and what cls_status says of a row that cannot be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pha4pgsql import cli_distlock, cli_status, lock_row, psql_line
from pha4pgsql.words import NEVER, Ballot, Era, Lsn, Mode, Rules, Statement, Vote

if TYPE_CHECKING:
    from pathlib import Path

ANSWERS = {"1\ttrue": ("1\n", 0), "0\ttrue": ("0\n", 0), "0\tfalse": ("", 1), "": ("", 1)}
RULES = Rules("pgsql", ("a", "b"), Mode.SYNC, 1, row=True)
FOLLOWED = Vote(Ballot(1, "a"), (Era(2, Lsn(5), Ballot(1, "a")),), lsn=Lsn(9))


def psql(folder: Path, line: str) -> str:
    """A psql that answers so."""
    path = folder / "psql"
    path.write_text(f"#!/bin/sh\n[ -z '{line}' ] && exit 2\nprintf '{line}\\n'\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("verb", cli_distlock.VERBS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, answer: str) -> None:
    """1 or 0 with exit code 0; with nothing on standard output 1."""
    out, code = ANSWERS[answer]
    line = [psql(tmp_path, answer), "dbname=postgres user=me", verb, "distlock:it's \\", "node1", "9", "0"]
    assert cli_distlock.distlock(line) == code
    said = capsys.readouterr()
    assert said.out == out
    assert bool(said.err) == bool(code)


@pytest.mark.parametrize(
    "line",
    ["", "psql", "psql lock", "psql lock a", "psql lock a:b", "psql take a:b c", "psql lock A:b c", "psql lock a; c", "psql lock a:b c x",
     "psql lock a:b c 1 2 3", "lock a:b c", "--conninfo host=h psql lock a:b c"],
)  # fmt: skip
def test_wrong_usage(capsys: pytest.CaptureFixture[str], line: str) -> None:
    """1, and not a word on standard output."""
    assert cli_distlock.distlock(line.split()) == 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "line", ["", "psql", "psql -c 'select 1' -h x", "psql -h", "host=a,b", "mysql -h x", "psql 'host=x", "psql host=x port", "PGHOST=x"]
)
def test_no_psql_command(line: str) -> None:
    """What is no psql command with one host is refused."""
    with pytest.raises(ValueError, match="psql command"):
        psql_line.target(line)


def test_passwords_stand_apart() -> None:
    """However they are given, they never get into the connection string."""
    for line in ("PGPASSWORD=hush psql -h x", "psql 'host=x password=hush'", "psql host=x password='hush'", "host=x password = hush"):
        found = psql_line.target(line)
        assert (found.password, "hush" in found.conninfo) == ("hush", False), line


def test_status_says_why_nobody_takes_over() -> None:
    """The row cannot be asked: it is told while all is well, and when nobody can be promoted because of it."""
    silent, alone = lock_row.Heard(None, "silence"), lock_row.Heard(Vote(Ballot(1, "a"), said=Statement(Ballot(1, "a"), 1, "a")))
    assert "silence" in " ".join(cli_status.notes({"a": FOLLOWED, "b": FOLLOWED}, RULES, ["a"], "a|1|0", silent))
    assert cli_status.notes({"a": FOLLOWED, "b": FOLLOWED}, RULES, ["a"], "a|1|0", lock_row.Heard(Vote())) == ()
    assert "a may have gone on alone" in cli_status.notes({"b": FOLLOWED}, RULES, [], "a|1|0", silent)[0]
    assert "a went on alone" in cli_status.notes({"b": FOLLOWED}, RULES, [], "a|1|0", alone)[0]
    assert cli_status.notes({"b": FOLLOWED}, RULES, [], "a|1|0", lock_row.Heard(Vote(NEVER))) == ()
