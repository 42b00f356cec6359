"""Five nodes, two of which may be lost with whatever they have: k is 2."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pha4pgsql.lab_words import Plan

if TYPE_CHECKING:
    from drill import Drill

PLAN = Plan("live-five", size=5, settings=(("pgsql_rep_mode", "quorum"),))


def test_two_of_five_lost(drill: Drill) -> None:
    """The primary and a standby lose their power at the same moment: a third goes on, with two that confirm."""
    old = drill.primary()
    other = next(name for name in drill.lab.members if name != old)
    timeline = drill.timeline(old)
    assert drill.names(old).startswith("ANY 2 ")
    with drill.writing() as writing:
        writing.wait(50)
        began = time.monotonic()
        drill.lab.crash(old, other)
        new = drill.new_primary(old, other)
        drill.until(lambda: sum(ack.timeline > timeline for ack in writing.acks) >= 50, "the new primary acknowledges")
        print(f"crash of {old} and {other}: {new} takes over, outage {writing.outage(began):.2f} s")
        assert drill.names(new).startswith("ANY 2 ")
    assert drill.lost(writing) == []
    assert drill.timeline(new) == timeline + 1


def test_two_standbys_of_five_lost(drill: Drill) -> None:
    """Nothing changes for a client; with a third one gone a primary that is not strict goes on alone, if voices enough remain."""
    primary = drill.primary()
    first, second, third, _ = (name for name in drill.lab.members if name != primary)
    with drill.writing() as writing:
        writing.wait(50)
        drill.lab.crash(first, second)
        drill.until(lambda: drill.standing(second)[0] == "DISCONNECT", f"{second} is shown as lost")
        writing.wait(50)
        assert drill.names_given(primary)[-1:] != [""]
        drill.lab.kill_postgres(third)
        drill.ban(third)
        writing.wait(50)
        assert drill.names(primary) == ""
        assert len(drill.voices(primary)) >= 3, "alone, and not enough voices have stored it"
    assert drill.lost(writing) == []
