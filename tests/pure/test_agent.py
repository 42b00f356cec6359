"""What the agent makes of a PostgreSQL that does not answer; nothing runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from pha4pgsql import agent, pgsql, postgres, vote
from pha4pgsql.ocf import Code
from pha4pgsql.settings import Context, Settings
from pha4pgsql.site import Site
from pha4pgsql.words import Ballot, Instance, Lsn, Mode, Rules, Run, Scene, State, Statement, Vote

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
    assert agent.silent(site, "PostgreSQL did not answer within 2 s") == code
    assert (tmp_path / "pgsql.silent").exists()
    postgres.forget_silence(settings)
    assert not (tmp_path / "pgsql.silent").exists()


@pytest.mark.parametrize(
    "why",
    [
        'password authentication failed for user "postgres"', 'Peer authentication failed for user "postgres"',
        'no pg_hba.conf entry for host "[local]", user "postgres", database "postgres", no encryption', 'role "postgres" is not permitted to log in',
        "sorry, too many clients already",
    ],
)  # fmt: skip
def test_a_server_that_does_not_let_the_agent_in_is_not_restarted(tmp_path: Path, why: str) -> None:
    """It works for its clients, and would not be better on another node. A server that is out of connections is as good as down."""
    settings = Settings(resource="pgsql", tmpdir=str(tmp_path), rep_mode=Mode.SYNC, node_list=("node1", "node2"))
    site = Site(settings, Context("monitor", "pgsql", "node1"), lambda *_: None)
    refused = f"PostgreSQL refused the session: connection to server on socket failed: FATAL:  {why}"
    works = "too many" not in why
    for state, well in ((RAISED, Code.DEGRADED_PROMOTED), (State(), Code.DEGRADED)):
        (tmp_path / "pgsql.state").write_text(vote.state_text(state))
        (tmp_path / "pgsql.silent").write_text(f"{time.time() - 99}\n")
        assert agent.silent(site, refused) == (well if works else Code.ERROR)
    site.context = site.context._replace(is_probe=True)
    assert agent.silent(site, refused) == (Code.SUCCESS if works else Code.ERROR)


TERM = Ballot(2, "node1")
PARTING = Scene(
    "node2",
    Rules("pgsql", ("node1", "node2", "node3"), Mode.SYNC, 1),
    State(TERM),
    Instance(Run.DOWN, Lsn(500)),
    votes=(("node1", Vote(TERM, reign=TERM)),),
    online=frozenset(("node1", "node2", "node3")),
    attributes=((("node3", "pgsql-status"), "STOP"),),
)
ALONE = Statement(TERM, 1, "node1")


@pytest.mark.parametrize(
    ("scene", "expected"),
    [
        (PARTING, True),
        (PARTING._replace(votes=(("node1", Vote(TERM, reign=TERM, said=ALONE)),)), True),
        (PARTING._replace(votes=(("node1", Vote(TERM, reign=TERM, said=ALONE)),), state=State(TERM, said=ALONE)), False),
        (PARTING._replace(attributes=((("node3", "pgsql-status"), "HS:async"),)), False),
        (PARTING._replace(attributes=((("node3", "pgsql-status"), "HS:async"),), online=frozenset(("node1", "node2"))), True),
        (PARTING._replace(votes=(("node1", Vote(TERM)),)), False),
        (PARTING._replace(online=frozenset(("node2", "node3"))), False),
        (PARTING._replace(wish=Rules("pgsql", ("node1", "node2", "node3"), Mode.SYNC, 1, strict=True)), False),
        (PARTING._replace(wish=Rules("pgsql", ("node1", "node2", "node3"), Mode.ASYNC)), False),
        (PARTING._replace(me="node4", wish=Rules("pgsql", ("node1", "node2", "node3"), Mode.SYNC, 1, readers=("node4",))), False),
    ],
    ids=[
        "the last standby", "not stored yet", "stored", "another standby serves", "its node is gone", "no primary", "the primary is gone",
        "strict", "async", "who only reads",
    ],
)  # fmt: skip
def test_the_last_voice_is_waited_for(scene: Scene, expected: bool) -> None:  # noqa: FBT001
    """A primary needs k voices beside its own to go on alone, so the last one stays until its word is stored."""
    assert pgsql.waited_for(scene) is expected
