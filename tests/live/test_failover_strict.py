"""sync_strict: without k standbys commits wait, and no word of alone is ever said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pha4pgsql.lab_words import Plan

if TYPE_CHECKING:
    from drill import Drill

PLAN = Plan("live-strict", settings=(("pgsql_sync_strict", "true"),))


def test_loss_of_both_standbys(drill: Drill) -> None:
    """Commits wait until a standby is back; the primary stays primary, and the set of names never becomes empty."""
    primary = drill.primary()
    others = [name for name in drill.lab.members if name != primary]
    with drill.writing() as writing:
        drill.lab.kill_postgres(*others)
        drill.ban(*others)
        drill.until(lambda: not any(drill.runs(name) for name in others), "no standby runs")
        last = writing.acks[-1].at
        drill.stays(lambda: writing.acks[-1].at == last and drill.primary() == primary and not drill.voices(primary), "commits wait", 12)
        drill.admit(others[0])
        writing.wait(50)
    assert "" not in drill.names_given(primary)
    assert drill.lost(writing) == []


def test_nobody_is_promoted_without_answers(drill: Drill) -> None:
    """Primary and one standby are off: the third has no quorum, and with its first companion back nothing is lost."""
    old = drill.primary()
    [sync] = drill.standbys("HS:sync")
    [third] = drill.standbys("HS:async")
    with drill.writing() as writing:
        writing.wait(50)
        drill.lab.crash(old, sync)
        drill.stays(lambda: drill.sql(third, "select pg_is_in_recovery()") != "f", f"{third} is no primary", 8)
        drill.lab.boot(sync)
        new = drill.new_primary(old)
        writing.wait(50)
        print(f"{new} takes over")
    assert drill.lost(writing) == []
