"""Which synchronous_standby_names a primary has to have: by whom PostgreSQL lets commits wait. Pure.

The text itself (manual, 20.6.1), the set a standby is promoted with, and the way of a primary from one set to the next,
each seen in force before the one after it: see docs/safety.md, rules 5 and 9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pha4pgsql.sight import candidates, followers_of, nameable, outside_slot, priority, rank, synchronous, tagged, wished
from pha4pgsql.vote import alike, next_roster
from pha4pgsql.words import Mode, Roster, Rules, Scene

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence


OURS = "pha4pgsql-"
"""No standby's name begins so."""
NOBODY = f'"{OURS}nobody"'
"""A synchronous_standby_names that nobody can meet: commits wait, whoever is connected."""


STEP = f"{OURS}step"
"""A name that no standby has: the first one of a set between two others, see `step_names`."""


# -- the text -----------------------------------------------------------------------------------------------------


def quoted(names: Iterable[str]) -> str:
    """Names as a synchronous_standby_names lists them.

    >>> quoted(("b", "c"))
    '"b", "c"'
    """
    return ", ".join(f'"{name}"' for name in names)


def fixed_names(nodes: Sequence[str]) -> str:
    """All of these.

    >>> fixed_names(("c", "b"))
    '2 ("b", "c")'
    """
    listed = quoted(sorted(nodes))
    return listed if len(nodes) == 1 else f"{len(nodes)} ({listed})"


def quorum_names(rules: Rules, me: str, nodes: Sequence[str] = ()) -> str:
    """`ANY k` of these, or of all other members: safe for whoever is promoted with it, and what every standby runs with."""
    others = ", ".join(f'"{node}"' for node in nodes or rules.confirming.members if node != me)
    return f"ANY {rules.confirming.k} ({others})" if synchronous(rules) and others else ""


def step_names(number: int, nodes: Sequence[str]) -> str:
    """A set between two others: so many of these nodes, and walsenders show to have read it.

    Under ANY every walsender has priority 1, in a list of n names its place, 1 to n. With as many names before all others that nobody
    has as there are confirmations, no place is one of the set before or after: so each walsender shows by its priority which of them
    it releases commits by, and one that is named no more shows 0.

    >>> step_names(2, ("b", "c"))
    'FIRST 2 ("pha4pgsql-step", "pha4pgsql-step-2", "b", "c")'
    """
    steps = (STEP, *(f"{STEP}-{place}" for place in range(2, number + 1)))
    return f"FIRST {number} ({quoted((*steps, *nodes))})"


def with_outsiders(names: str, k: int, outside: Sequence[str]) -> str:
    """A set of k members with as many more confirmations as there are standbys outside: whoever gives them, k are of members.

    >>> with_outsiders('ANY 1 ("b", "c")', 1, ("dr",)), with_outsiders('"b"', 1, ("dr",))
    ('ANY 2 ("b", "c", "dr")', '2 ("b", "dr")')
    """
    if not outside or not names:
        return names
    listed = quoted((*listed_in(names), *outside))
    return f"{'ANY ' if names.startswith('ANY') else ''}{k + len(outside)} ({listed})"


def is_step(names: str) -> bool:
    """Whether this is a set between two others."""
    return names.startswith("FIRST ") and STEP in named_in(names)


def number_in(names: str) -> int:
    """How many confirmations a set that we wrote asks for.

    >>> number_in(""), number_in('"b"'), number_in('2 ("b", "c")'), number_in('ANY 3 ("b", "c", "d")')
    (0, 1, 2, 3)
    """
    head = names.partition("(")[0].split()
    return int(head[-1]) if head and head[-1].isdigit() else int(bool(names))


def listed_in(names: str) -> list[str]:
    """The same in their order."""
    return names.split('"')[1::2]


def named_in(names: str) -> set[str]:
    """The names of a synchronous_standby_names that we wrote.

    >>> sorted(named_in('ANY 1 ("a", "b")'))
    ['a', 'b']
    """
    return set(listed_in(names))


# -- what is in force ---------------------------------------------------------------------------------------------


def outside_in(scene: Scene) -> tuple[str, ...]:
    """The standbys outside of the cluster that the present set names."""
    inside = {scene.me, *scene.others}
    return tuple(name for name in listed_in(scene.instance.names) if name not in inside and not name.startswith(OURS))


def outsiders(scene: Scene) -> tuple[str, ...]:
    """The standbys outside of the cluster that stream through their slots, and whose names no other connection has.

    PostgreSQL counts connections. Without a slot, which is active for one walsender only, a standby that comes back while its lost
    connection is still there would count twice, and a commit could be on it and on no member.
    """
    rows, prefix = scene.instance.followers, scene.rules.slot_prefix
    bound = {row.name for row in rows if row.state == "streaming" and row.slot == outside_slot(prefix, row.name)}
    names = [row.name.lower() for row in rows]  # as PostgreSQL compares them
    return tuple(name for name in scene.rules.externals if name in bound and names.count(name.lower()) == 1)


def in_force(scene: Scene) -> bool:
    """Whether no walsender releases a commit by the set before any more: new ones begin with this one, all that are there show its priorities.

    A walsender without a flush position shows 0, whatever it has read; a copy that is being made (`backup`) releases nothing.
    """
    instance = scene.instance
    places = {node: place for place, node in enumerate(listed_in(instance.names), 1)}
    if instance.names.startswith("ANY"):
        places = dict.fromkeys(places, 1)
    prefix, known = outside_slot(scene.rules.slot_prefix, ""), {*scene.others, *scene.rules.externals}
    rows = [row for row in instance.followers if row.state != "backup"]
    unknown = any(row.flush is None and (row.name in known or row.slot.startswith(prefix)) for row in rows)
    return instance.names_shown == instance.names and not unknown and all(row.priority == places.get(row.name, 0) for row in rows)


def settled(scene: Scene) -> bool:
    """Whether the set is the one of the stored list, of members only, and in force: what a change of the list begins with.

    Else a walsender might still know the set of the change before, whose places this one could share.
    """
    if not synchronous(scene.rules):
        return True
    names = scene.instance.names
    return not is_step(names) and not outside_in(scene) and names == choose_names(scene) and in_force(scene)


# -- the choice ---------------------------------------------------------------------------------------------------


def first_names(scene: Scene, followers: tuple[str, ...]) -> str:
    """The synchronous_standby_names with which a standby is promoted: its final set, written before the promotion."""
    able = [node for node in followers if node in candidates(scene)]
    if scene.rules.mode is Mode.SYNC and synchronous(scene.rules) and len(able) >= scene.rules.confirming.k:
        return fixed_names(sorted(able, key=lambda node: _preference(scene, node))[: scene.rules.confirming.k])
    return quorum_names(scene.rules, scene.me, candidates(scene))


def choose_names(scene: Scene) -> str:
    """The synchronous_standby_names that a primary has to have next.

    Standbys outside of the cluster come and go by a set between two others, each seen in force before the next: see docs/safety.md, rule 9.
    """
    names, k, inside = scene.instance.names, scene.rules.confirming.k, candidates(scene)
    if scene.state.roster.joint:
        return step_names(k, inside)
    named, wanted = outside_in(scene), outsiders(scene) if isinstance(next_list(scene), str) else ()
    if names in ("", NOBODY):
        return plain_names(scene, ())
    if is_step(names):
        if not in_force(scene):
            return names
        new = [name for name in wanted if name not in named][: max(0, number_in(names) - k - len(named))]
        return plain_names(scene, (*named, *new))
    kept, number = tuple(name for name in named if name in wanted), k + len(named)
    if set(named) == set(wanted) or not in_force(scene):
        return plain_names(scene, named)
    if kept != named:
        return step_names(number, (*inside, *kept))
    there = len(nameable(scene)) + len(named)
    return step_names(number + 1, (*inside, *named)) if there >= min(number + 1, len(inside) + len(named)) else plain_names(scene, named)


def plain_names(scene: Scene, outside: Sequence[str]) -> str:
    """The set with these standbys outside of the cluster: all candidates in quorum mode, k of them that stream in sync mode.

    The one that an operator wants as next primary comes first, then a higher priority, and one who may be promoted before one
    tagged nofailover; among equals a member that is named stays named, else one that is not the DC comes first (its loss would
    cost the cluster a second, see docs/decisions.md). With fewer than k streaming the set stays as it is: commits wait.
    """
    rules, names = scene.rules, scene.instance.names
    if rules.mode is Mode.QUORUM:
        return with_outsiders(quorum_names(rules, scene.me, candidates(scene)), rules.confirming.k, outside)
    streaming = nameable(scene)
    if len(streaming) < rules.confirming.k:
        anybody = with_outsiders(quorum_names(rules, scene.me, candidates(scene)), rules.confirming.k, outside)
        return names if names not in ("", NOBODY) and not is_step(names) else anybody
    named = set() if names.startswith("ANY") or is_step(names) else named_in(names)
    wish = wished(scene)
    order = sorted(streaming, key=lambda node: (not wish or node != wish.target, *_preference(scene, node, named)))
    return with_outsiders(fixed_names(order[: rules.confirming.k]), rules.confirming.k, outside)


def _preference(scene: Scene, node: str, named: Container[str] = ()) -> tuple[bool, int, bool, bool, int]:
    return (tagged(scene, node, "nofailover"), -priority(scene, node), node not in named, node == scene.dc, rank(scene, node))


def next_list(scene: Scene) -> Roster | str:
    """The next list of members, or why none is stored now. Who joins has to stream, and to know the list of before."""
    ready = [follower.name for follower in followers_of(scene) if alike(scene.vote(follower.name).roster, scene.state.roster)]
    return next_roster(scene.state, scene.wish.circle, dict(scene.votes), scene.me, ready)
