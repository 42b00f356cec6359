"""The safety rules, in a world that is as bad as the real one.

`SIM_SEED=17 pytest tests/pure/test_simulator.py -k random` repeats one run and tells its story; `SIM_RUNS=100000` runs long
(from `SIM_SEED`, if given); `SIM_MUTANTS=3000` lets mutations live for so many random runs before they count as not caught.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import pytest
from member_stories import MEMBER_STORIES
from mutations import MUTATIONS, Mutation
from row_stories import ROW_STORIES
from simulator import CHANGING, SETTINGS, explain, hunt
from stories import STORIES as OTHER_STORIES
from world import FLAWS, REAL, ROW_FLAWS, Core, Violation, mutated

if TYPE_CHECKING:
    from collections.abc import Iterable

STORIES = {**OTHER_STORIES, **MEMBER_STORIES}
RUNS = int(os.environ.get("SIM_RUNS", "2400"))
FIRST = int(os.environ.get("SIM_SEED", "0"))
MUTANTS = int(os.environ.get("SIM_MUTANTS", "1500"))
SHARES = 8


def _seeds(share: int) -> Iterable[int]:
    if "SIM_SEED" in os.environ and "SIM_RUNS" not in os.environ:
        return range(FIRST, FIRST + (1 if share == 0 else 0))
    return range(FIRST + share, FIRST + RUNS, SHARES)


@pytest.mark.parametrize("share", range(SHARES))
def test_random_runs(share: int) -> None:
    """Whatever happens, no acknowledged commit is lost; and when all faults have healed, commits are acknowledged again."""
    found = hunt(_seeds(share))
    if found is not None:
        pytest.fail(f"SIM_SEED={found[0]} repeats this\n{explain(found[0])}", pytrace=False)


@pytest.mark.parametrize("share", range(SHARES))
def test_random_runs_while_members_change(share: int) -> None:
    """The same while an operator adds and removes members and changes k; and in the end the members are what was wished last."""
    found = hunt(_seeds(share), settings=CHANGING)
    if found is not None:
        pytest.fail(f"SIM_SEED={found[0]} repeats this\n{explain(found[0], settings=CHANGING)}", pytrace=False)


@pytest.mark.parametrize("name", STORIES)
def test_story(name: str) -> None:
    """Each known accident ends well."""
    STORIES[name](REAL)


@pytest.mark.parametrize("name", ROW_STORIES)
def test_story_of_the_row(name: str) -> None:
    """Two nodes and the row: nothing is lost, and who can know enough goes on."""
    ROW_STORIES[name](REAL)


@pytest.mark.parametrize("flaw", ROW_FLAWS)
def test_flaw_of_the_row(flaw: str) -> None:
    """What the core relies on at the lock's server is needed."""
    assert _told(REAL, flaw)


@pytest.mark.parametrize("flaw", FLAWS)
def test_flaw_of_an_adapter(flaw: str) -> None:
    """What the core relies on is needed: a world that does not give it loses commits."""
    assert hunt(range(MUTANTS), live=False, flaw=flaw)


def _told(core: Core, flaw: str = "") -> str | None:
    """The story in which this core, or a row with this flaw, breaks a promise."""
    stories = {} if flaw else {name: partial(story, core) for name, story in STORIES.items()}
    stories.update({name: partial(story, core, flaw) for name, story in ROW_STORIES.items()})
    for name, story in stories.items():
        try:
            story()
        except Violation:
            return name
        except AssertionError:
            continue  # this core does not get as far as the story begins
    return None


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name.replace(" ", "-"))
def test_mutation(mutation: Mutation) -> None:
    """A core without one of its guards, or with two steps turned round, is caught; unless another guard covers it, and the table says which."""
    core = mutated(*mutation.edits)
    if mutation.covered:
        return
    settings = SETTINGS if not mutation.where else tuple(one for one in (*SETTINGS, *CHANGING) if one.name.startswith(mutation.where))
    caught = None if mutation.live else _told(core)
    assert caught or hunt(range(MUTANTS), core, settings=settings, live=mutation.live), "nothing catches this mutation"
