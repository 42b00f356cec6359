"""Two nodes, template dual, with fencing: whoever is lost is switched off, and the other goes on by the row's voice."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from two_nodes import lock_down, lock_up, other_than, row

from pha4pgsql.lab_words import Plan

if TYPE_CHECKING:
    from drill import Drill

PLAN = Plan("live-dual-fenced", size=2, template="dual")

pytestmark = pytest.mark.drill


def test_loss_of_the_primary(drill: Drill) -> None:
    """The standby is promoted and acknowledges."""
    old = drill.primary()
    with drill.writing() as writing:
        writing.wait(50)
        began = time.monotonic()
        drill.lab.crash(old)
        assert drill.new_primary(old) == other_than(drill, old)
        writing.wait(50)
        print(f"crash of {old}: outage {writing.outage(began):.2f} s")
        drill.restore()
    assert drill.lost(writing) == []


def test_cut(drill: Drill) -> None:
    """Both reach the power switch, and one of them is the first; whoever is left acknowledges only what it may, and nothing is lost."""
    old = drill.primary()
    with drill.writing() as writing:
        writing.wait(50)
        began = time.monotonic()
        drill.lab.cut(old)
        off = drill.until(lambda: [row.name for row in drill.lab.list() if row.state == "off"], "one has switched the other off")
        print(f"cut of the primary {old}: {off[0]} was switched off")
        if off == [old]:
            writing.wait(50)
            print(f"outage {writing.outage(began):.2f} s")
        drill.restore()
        writing.wait(50)
    assert drill.lost(writing) == []


def test_power_loss_of_both(drill: Drill) -> None:
    """Also while the lock's server is down: both answer, so nobody else has to be asked."""
    lock_down(drill)
    try:
        with drill.writing() as writing:
            writing.wait(50)
            drill.lab.crash(*drill.lab.members)
            drill.lab.boot(*drill.lab.members)
            writing.wait(50, timeout=120)
        drill.healthy()
    finally:
        lock_up(drill)
    drill.until(lambda: row(drill)[0] == "", "nobody is alone")
    assert drill.lost(writing) == []
