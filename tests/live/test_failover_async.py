"""rep_mode=async: nobody is waited for, and the furthest of the standbys becomes primary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pha4pgsql.lab_words import Plan

if TYPE_CHECKING:
    from drill import Drill

PLAN = Plan("live-async", settings=(("pgsql_rep_mode", "async"),))


def test_attributes_after_bring_up(drill: Drill) -> None:
    """Both standbys may win."""
    shown = sorted(drill.standing(name) for name in drill.lab.members)
    assert shown == [("LATEST", "PRI", "1000"), ("STREAMING|ASYNC", "HS:async", "100"), ("STREAMING|ASYNC", "HS:async", "100")]
    assert drill.names(drill.primary()) == ""


def test_the_furthest_is_promoted(drill: Drill) -> None:
    """One standby lags behind: it does not become primary, and nothing that the other one had received is lost."""
    old = drill.primary()
    behind, ahead = (name for name in drill.lab.members if name != old)
    with drill.writing() as writing:
        drill.signal(old, f"walsender .*{drill.lab.address(behind)}", "STOP")  # what it has not sent, nobody can read from a socket later
        writing.wait(100)
        far = [ack.row for ack in writing.acks]
        drill.until(lambda: drill.sql(ahead, f"select max(id) from acks where writer = '{writing.name}'") >= str(far[-1]), f"{ahead} has it")  # noqa: S608
        drill.lab.kill_postgres(old)
        writing.wait(50)
        assert drill.primary() in (ahead, old), "the old primary may be back in time: then it is the furthest"
    lost = {row for _, row in drill.lost(writing)}
    print(f"{len(lost)} of {len(writing.acks)} acknowledged rows are lost, as may be")
    assert not lost & set(far)
