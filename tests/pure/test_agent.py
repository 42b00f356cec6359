"""What the agent makes of a PostgreSQL that does not answer; nothing runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from pha4pgsql import agent, postgres, vote
from pha4pgsql.ocf import Code
from pha4pgsql.settings import Context, Settings
from pha4pgsql.site import Site
from pha4pgsql.words import Ballot, Mode, State

if TYPE_CHECKING:
    from pathlib import Path

RAISED = State(Ballot(1, "node1"), reign=Ballot(1, "node1"))


@pytest.mark.parametrize(
    ("seconds", "state", "code"),
    [
        (0, State(), Code.SUCCESS),
        (25, State(), Code.SUCCESS),
        (35, State(), Code.ERROR),
        (5, RAISED, Code.RUNNING_PROMOTED),
        (15, RAISED, Code.ERROR),
    ],
)
def test_slow_is_not_dead(tmp_path: Path, seconds: float, state: State, code: Code) -> None:
    """A primary fails after ten seconds without an answer, a standby, for which nothing waits, after thirty."""
    settings = Settings(resource="pgsql", tmpdir=str(tmp_path), rep_mode=Mode.SYNC, node_list=("node1", "node2"))
    (tmp_path / "pgsql.state").write_text(vote.state_text(state))
    if seconds:
        (tmp_path / "pgsql.silent").write_text(f"{time.time() - seconds}\n")
    said: list[str] = []
    site = Site(settings, Context("monitor", "pgsql", "node1"), lambda _, text: said.append(text))
    assert agent.silent(site) == code
    assert (tmp_path / "pgsql.silent").exists()
    postgres.forget_silence(settings)
    assert not (tmp_path / "pgsql.silent").exists()
