"""What a node sees of its cluster: names on the wire, tags and wishes of people, who reigns, who follows. Pure, and none of it decides."""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING

from pha4pgsql.words import NEVER, Ballot, Follower, Instance, Mode, Rules, Scene, Wish, slot_word

if TYPE_CHECKING:
    from collections.abc import Sequence


RAISED = "INFINITY"
"""The promotion score by which a switchover begins: above a primary's with any stickiness of a person's choice."""
MARGIN = 5.0
"""Seconds before the end of an operation at which it has to say how far it came."""


def unread(instance: Instance) -> str:
    """What is said where the end of WAL would have to be known."""
    return "the end of the local WAL could not be found out" + (f": {instance.unread}" if instance.unread else "")


def unruled(scene: Scene) -> str:
    """Why PostgreSQL has to be restarted by the agent before it may serve here, or empty."""
    file = scene.instance.unruled
    return f"PostgreSQL was started with {file}, not by the agent: what the agent sets does not reach it, a restart is due" if file else ""


# -- names --------------------------------------------------------------------------------------------------------


def slot_name(prefix: str, term: Ballot, node: str) -> str:
    """The slot which the primary of `term` keeps for `node`: no receiver can use it under another term, and none twice.

    One slot per term and node, because a slot is active for one walsender only: with two a node could confirm a commit
    twice (PostgreSQL counts walsenders, not names). Names that would not fit have the primary's name as a checksum.

    >>> slot_name("pgsql", Ballot(7, "node1"), "db-2.example")
    'pgsql_7_node1_db_2_example'
    >>> slot_name("pgsql", Ballot(7, "n" * 50), "db-2.example")
    'pgsql_7_877da756_db_2_example'
    """
    name = f"{prefix}_{term.round}_{slot_word(term.node)}_{slot_word(node)}"
    return name if len(name) <= 63 else f"{prefix}_{term.round}_{binascii.crc32(term.node.encode()):08x}_{slot_word(node)}"


def outside_slot(prefix: str, name: str) -> str:
    """The slot of a standby outside of the cluster, which knows no term: the primary of the day has it, and drops it when it is none.

    >>> outside_slot("pgsql", "dr-1")
    'pgsql_outside_dr_1'
    """
    return f"{prefix}_outside_{slot_word(name)}"


def slots_of(scene: Scene, term: Ballot, nodes: Sequence[str]) -> tuple[str, ...]:
    """The slots which the primary of `term` keeps for these nodes."""
    return tuple(slot_name(scene.rules.slot_prefix, term, node) for node in nodes)


def attribute_name(rules: Rules, name: str) -> str:
    """`status` -> `pgsql-status`, `score` -> `master-pgsql`: the names on the wire."""
    return f"master-{rules.resource}" if name == "score" else f"{rules.resource}-{name}"


def synchronous(rules: Rules) -> bool:
    """Whether commits wait for other members in this mode."""
    return rules.mode in (Mode.SYNC, Mode.QUORUM) and rules.confirming.k > 0


# -- people -------------------------------------------------------------------------------------------------------


def tagged(scene: Scene, node: str, tag: str) -> bool:
    """Whether people have set this tag of a node: the node attribute `pgsql-nofailover` (or another tag) is `true`.

    Tags are wishes. They choose among what is safe, so it does no harm that a node may see them late or not at all.
    """
    return scene.attribute(node, attribute_name(scene.rules, tag)) == "true"


def priority(scene: Scene, node: str) -> int:
    """How much a node is preferred among equals, 0 to 100; what is no number counts as 0."""
    text = scene.attribute(node, attribute_name(scene.rules, "priority")) or ""
    return min(int(text), 100) if text.isascii() and text.isdigit() else 0


def wish_at(scene: Scene, node: str) -> Wish | None:
    """What the primary of this node is, or was, asked."""
    return Wish.parse(scene.attribute(node, attribute_name(scene.rules, "switch")) or "")


def wished(scene: Scene) -> Wish | None:
    """What this primary is asked: only by its present term, and only for another member."""
    wish = wish_at(scene, scene.me)
    return wish if wish and wish.term == scene.state.reign != NEVER and wish.target in scene.others else None


def handing_over(scene: Scene) -> bool:
    """Whether Pacemaker moves the promoted role to a member that was asked for: any change of the CIB would make it plan anew in the middle."""
    score = attribute_name(scene.rules, "score")
    return any(scene.attribute(node, score) == RAISED and node in scene.online and runs(scene, node) for node in scene.others)


# -- others -------------------------------------------------------------------------------------------------------


def reigning(scene: Scene) -> str:
    """The other node that shows the highest term as primary, or empty. It may have become a member unknown to this one."""
    terms = [(vote.reign, node) for node, vote in scene.votes if vote.reign != NEVER and node != scene.me]
    return max(terms)[1] if terms else ""


def positive(score: str | None) -> bool:
    """Whether a promotion score lets Pacemaker promote."""
    return score is not None and score not in ("", "0") and not score.startswith("-")


def runs(scene: Scene, node: str) -> bool:
    """Whether a member's PostgreSQL is not known to be stopped."""
    return scene.attribute(node, attribute_name(scene.rules, "status")) not in ("STOP", "UNKNOWN")


def stays(scene: Scene, node: str) -> bool:
    """Whether a member is wished to stay one: a primary could not leave."""
    return node in scene.wish.members


def rank(scene: Scene, node: str) -> int:
    """A node's place in the list of members; one that is in a newer list only comes last."""
    members = scene.rules.members
    return members.index(node) if node in members else len(members)


def candidates(scene: Scene) -> tuple[str, ...]:
    """The members that may be named to confirm commits: the others without the tag nosync; all of them where too few would be left."""
    others = tuple(node for node in scene.rules.confirming.members if node != scene.me)
    wanted = tuple(node for node in others if not tagged(scene, node, "nosync"))
    return wanted if len(wanted) >= scene.rules.confirming.k else others


def followers_of(scene: Scene) -> list[Follower]:
    """The members that stream from this primary through the slot of its present term."""
    return [follower for follower in scene.instance.followers if follower.name in scene.others and is_bound(scene, follower)]


def is_bound(scene: Scene, follower: Follower) -> bool:
    """Whether it streams through its slot of the present term."""
    return follower.state == "streaming" and follower.slot == slot_name(scene.rules.slot_prefix, scene.state.reign, follower.name)


def reachable(scene: Scene) -> list[Follower]:
    """The followers that may confirm and whose nodes are there: a lost one seems to stream until wal_sender_timeout has passed."""
    return [follower for follower in followers_of(scene) if follower.name in scene.online and follower.name in scene.rules.confirming.members]


def nameable(scene: Scene) -> set[str]:
    """The members that stream and may be named."""
    return {follower.name for follower in reachable(scene)} & set(candidates(scene))
