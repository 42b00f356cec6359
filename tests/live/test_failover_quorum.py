"""rep_mode=quorum on three nodes: the same changes of role, with a set of names that never changes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from drill import alone, change_of_role

from pha4pgsql.lab_words import Plan

if TYPE_CHECKING:
    from drill import Drill

PLAN = Plan("live-quorum", settings=(("pgsql_rep_mode", "quorum"),))


def everybody(drill: Drill, primary: str) -> str:
    """The only synchronous_standby_names of this mode besides alone and its way back."""
    return "ANY 1 ({})".format(", ".join(f'"{name}"' for name in drill.lab.members if name != primary))


def test_attributes_after_bring_up(drill: Drill) -> None:
    """Both standbys count, both may win."""
    primary = drill.primary()
    shown = sorted(drill.standing(name) for name in drill.lab.members)
    assert shown == [("LATEST", "PRI", "1000"), ("STREAMING|QUORUM", "HS:quorum", "100"), ("STREAMING|QUORUM", "HS:quorum", "100")]
    assert drill.names(primary) == everybody(drill, primary)


@pytest.mark.parametrize("fault", ["kill-postgres", "crash", "cut"])
def test_change_of_role(drill: Drill, fault: str) -> None:
    """The primary is lost under load: another takes over on the next timeline, with every acknowledged row."""
    change_of_role(drill, fault)


def test_loss_of_a_standby(drill: Drill) -> None:
    """Nothing waits, nothing changes."""
    primary = drill.primary()
    before = drill.names_given(primary)
    lost = next(name for name in drill.lab.members if name != primary)
    with drill.writing() as writing:
        began = time.monotonic()
        drill.lab.crash(lost)
        drill.until(lambda: drill.standing(lost)[0] == "DISCONNECT", f"{lost} is shown as lost")
        writing.wait(50)
        print(f"crash of the standby {lost}: outage {writing.outage(began):.2f} s")
    assert drill.names_given(primary) == before
    assert drill.lost(writing) == []


def test_loss_of_both_standbys(drill: Drill) -> None:
    """Commits go on alone, and the way back goes by a set that nobody meets."""
    with drill.writing() as writing:
        primary, others = alone(drill)
        before = len(drill.names_given(primary))
        assert len(drill.voices(primary)) >= 2, "alone, and not enough voices have stored it"
        writing.wait(100)
        drill.admit(*others)
        drill.healthy()
        writing.wait(50)
    assert drill.names_given(primary)[before:] == ['"pha4pgsql-nobody"', everybody(drill, primary)]
    assert drill.lost(writing) == []
