"""Without fencing: partitions in which the old primary lives on, and what a heal brings back. Nothing acknowledged anywhere is ever lost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from drill import one_primary

from pha4pgsql.lab_words import Plan

if TYPE_CHECKING:
    from drill import Drill

PLAN = Plan("live-traps", fencing=False)
DAEMONS = "pacemaker"


@pytest.mark.parametrize("asleep", [False, True], ids=["cluster awake", "cluster asleep"])
def test_a_client_on_the_cut_primary(drill: Drill, *, asleep: bool) -> None:
    """It keeps writing where nobody hears it, also while the node's cluster daemons hang: it is told nothing that the others lack."""
    old = drill.primary()
    timeline = drill.timeline(old)
    with drill.writing() as outside, drill.writing(old, "127.0.0.1") as inside:
        inside.wait(50)
        if asleep:
            drill.must(old, "pkill", "-STOP", DAEMONS)
        began = time.monotonic()
        drill.lab.cut(old)
        drill.new_primary(old)
        drill.until(lambda: sum(ack.timeline > timeline for ack in outside.acks) >= 100, "the others go on")
        heard = sum(ack.at > began + 1 for ack in inside.acks)
        print(f"cut of {old}: outage {outside.outage(began):.2f} s; the client on it heard {heard} acknowledgements")
        drill.lab.heal(old)
        if asleep:
            drill.must(old, "pkill", "-CONT", DAEMONS)
        outside.wait(200)
    assert drill.lost(outside, inside) == []
    one_primary(drill)
    assert drill.lost(outside, inside) == []


def test_an_isolated_cib_that_wins(drill: Drill) -> None:
    """The cut primary's CIB is written to again and again, and after the heal it replaces everybody's: only messages are lost by that."""
    old = drill.primary()
    timeline = drill.timeline(old)
    info = drill.status()["repl_info"]
    with drill.writing() as writing:
        drill.lab.cut(old)
        new = drill.new_primary(old)
        drill.until(lambda: sum(ack.timeline > timeline for ack in writing.acks) >= 50, "the others go on")
        for number in range(20):
            xml = (
                f'<cib admin_epoch="admin_epoch++"><configuration><crm_config><cluster_property_set id="pgsql_replication">'
                f'<nvpair id="pgsql_replication-pgsql_REPL_INFO" name="pgsql_REPL_INFO" value="{info}"/>'
                f'<nvpair id="pgsql_replication-pgsql_round" name="pgsql_round" value="{number % 2 + 1}"/>'
                "</cluster_property_set></crm_config></configuration></cib>"
            )
            drill.must(old, "cibadmin", "--modify", "--allow-create", "--xml-text", xml)
        drill.lab.heal(old)
        writing.wait(300)
        assert drill.timeline(new) >= timeline or drill.new_primary()
    assert drill.lost(writing) == []
    one_primary(drill)
    primary = drill.primary()
    drill.until(lambda: (drill.status()["repl_info"] or "").startswith(f"{primary}|"), "REPL_INFO names the primary again")
    assert drill.lost(writing) == []


@pytest.mark.parametrize("moment", ["promised", "reign"])
def test_a_cut_healed_in_the_middle_of_an_election(drill: Drill, moment: str) -> None:
    """The old primary is back just when another is being elected, or was: one of them reigns in the end, with every row."""
    old = drill.primary()
    states = {name: drill.state(name) for name in drill.lab.members if name != old}
    with drill.writing() as outside, drill.writing(old, "127.0.0.1") as inside:
        outside.wait(50)
        drill.lab.cut(old)
        drill.until(lambda: any(word(drill.state(name), moment) != word(states[name], moment) for name in states), f"{moment} changes", 30)
        drill.lab.heal(old)
        outside.wait(200)
    assert drill.lost(outside, inside) == []
    one_primary(drill)
    assert drill.lost(outside, inside) == []


def word(state: str, name: str) -> str:
    """One word of a state file."""
    return next((line.partition("=")[2] for line in state.splitlines() if line.startswith(f"{name}=")), "")
