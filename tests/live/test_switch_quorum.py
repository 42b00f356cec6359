"""Planned switchover with rep_mode=quorum: the set stays as it is, and the target has everything all the same."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from switching import RECONNECT, leftovers, switch, troubles

from pha4pgsql.lab_words import Plan

if TYPE_CHECKING:
    from drill import Drill

PLAN = Plan("live-switch-quorum", settings=(("pgsql_rep_mode", "quorum"),))


def test_to_each_in_turn(drill: Drill) -> None:
    """Chosen and unchosen: nothing lost, nothing left behind."""
    before = leftovers(drill)
    with drill.writing() as writing:
        for number in range(4):
            drill.healthy()
            primary = drill.primary()
            names = drill.names(primary)
            assert names.startswith("ANY 1 ("), names
            others = [name for name in drill.lab.members if name != primary]
            switch(drill, writing, primary, others[-1] if number % 2 else "")
    assert drill.lost(writing) == []
    assert not [text for text in troubles(writing) if not re.search(RECONNECT, text)]
    drill.until(lambda: leftovers(drill) == before, "nothing is left in the CIB")
