"""Accidents while members change, played step by step: what the order of rule 9 prevents. See stories.py for how a story is told.

a is primary of term 1.a and stays it until the story says otherwise; `d` (of five: `f`) is a node that is no member yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from simulator import Setting, rules
from stories import Stage
from world import REAL, Core

from pha4pgsql import words
from pha4pgsql.words import Mode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pha4pgsql.words import Vote

THREE = Setting("three and one", rules(Mode.QUORUM, 3, 1, strict=True), spare="d")
LOOSE = Setting("three and one, not strict", rules(Mode.QUORUM, 3, 1, strict=False), spare="d")
FOUR = Setting("four", rules(Mode.QUORUM, 4, 1, strict=True), spare="e")
FIVE = Setting("five, one confirms", rules(Mode.QUORUM, 5, 1, strict=True), spare="f")
FIVE_LOOSE = Setting("five, one confirms, not strict", rules(Mode.QUORUM, 5, 1, strict=False), spare="f")
FIVE_TWO = Setting("five, two confirm", rules(Mode.QUORUM, 5, 2, strict=True), spare="f")


class Change(Stage):
    """A stage with words for a change of members; every standby has confirmed something, so its walsender shows what it has read."""

    def __init__(self, setting: Setting, core: Core) -> None:
        super().__init__(setting, core)
        self.settle()

    def wish(self, members: str, k: int = 1) -> None:
        """What the operator wishes; all nodes hear of it."""
        for node in self.world.nodes.values():
            node.wish = node.wish._replace(members=tuple(members), sync_count=k)
        self.world.goal = self.node("a").wish

    def newcomer(self, name: str) -> None:
        """A node is cloned, started and streams."""
        self.hear(name, "a")
        assert self.world.copy(self.node(name), self.node("a"))
        self.do(name, "start")
        self.hear("a", name)
        self.do("a", "monitor")
        self.settle(name, "a")
        self.hear("a", name)

    def store(self, *names: str) -> None:
        """They store the list that a shows, and a hears of it; nothing else moves."""
        for name in names:
            self.hear(name, "a")
            self.quietly(name, "watch")
            self.hear("a", name)

    def confirmed_by(self, *names: str) -> None:
        """A commit on a that only these can receive and confirm, whatever the others do; they stay cut off from a."""
        self.cut("a", *names)
        self.world.write(self.node("a"))
        self.settle(*names)
        self.settle("a")

    def slot(self, name: str) -> str:
        """The walsender of a standby."""
        follows = self.node(name).follows
        assert follows is not None
        return follows.slot

    def elected(self, candidate: str, *names: str) -> bool:
        """A whole campaign in a new round, by links that are whole."""
        self.round(1 + max(node.round for node in self.world.nodes.values()))
        return self.elect(candidate, *names)


def _adding(core: Core, setting: Setting = THREE, members: str = "abcd") -> Change:
    """d streams, and a has begun to take it in: the first list is stored on a."""
    stage = Change(setting, core)
    stage.wish(members)
    stage.newcomer("d")
    stage.settle()
    stage.do("a", "monitor")
    assert stage.node("a").state.roster.elects.members == tuple(members)
    return stage


def _removing(core: Core, setting: Setting = FOUR, members: str = "abc", k: int = 1) -> Change:
    """a has begun to let the last one go, or to count otherwise: the list of the middle is stored everywhere, its set is not looked at yet."""
    stage = Change(setting, core)
    stage.wish(members, k)
    stage.quietly("a", "monitor")
    stage.store(*(name for name in setting.rules.members if name != "a"))
    return stage


# -- a member is added -------------------------------------------------------------------------------------------


def named_before_the_lists_are_stored(core: Core = REAL) -> Change:
    """d confirms a commit of a; b and c, who were not told of d, have an election."""
    stage = _adding(core)
    stage.store("d")
    for _ in range(3):
        stage.settle()
        stage.do("a", "monitor")
    stage.settle("a")
    stage.confirmed_by("d")
    stage.elected("b", "c")
    return stage


def newcomer_stands_too_early(core: Core = REAL) -> Change:
    """d, which is in a's list but not in all, is elected, and a confirms a commit of it; b and c have an election by the old list."""
    stage = _adding(core)
    stage.store("d")
    stage.settle()
    stage.do("a", "demote")
    stage.settle()
    stage.cut("b")
    stage.round(3)
    if stage.elect("d", "a", "c"):
        stage.hear("a", "d")
        stage.do("a", "monitor")
        stage.settle("a", "d")
        stage.hear("d", "a")
        stage.do("d", "monitor")
        stage.settle("a", "d")
        stage.world.write(stage.node("d"))
        stage.settle("a", "d")
    stage.heal()
    stage.elected("b", "c")
    return stage


def answer_of_a_newcomer(core: Core = REAL) -> Change:
    """c confirms a commit of a; b, by the old list, has d's answer and its own."""
    stage = _adding(core)
    stage.store("d")
    stage.confirmed_by("c")
    stage.do("d", "answer", "b")
    stage.elected("b", "d")
    return stage


def alone_by_a_newcomer(core: Core = REAL) -> Change:
    """a has lost b and c in the middle of the change, and d stores that it goes on alone; b and c know neither of d nor of that."""
    stage = _adding(core, LOOSE)
    stage.store("d")
    stage.cut("a", "d")
    stage.settle()
    stage.do("a", "monitor")
    stage.store("d")
    stage.do("a", "monitor")
    stage.settle("a")
    stage.world.write(stage.node("a"))
    stage.elected("b", "c")
    return stage


def older_list_comes_back(core: Core = REAL) -> Change:
    """d was added, removed and added, and confirms a commit of a; b and c are shown votes of the time when it was none."""
    stage = _adding(core)
    old: dict[str, Vote] = {}
    for members in ("abcd", "abc", "abcd"):
        stage.wish(members)
        for _ in range(4):
            stage.settle()
            stage.do("a", "monitor")
            stage.store("b", "c", "d")
        assert stage.node("b").state.roster.confirms.members == tuple(members)
        old = old if members != "abc" else {name: stage.world.published[name][-1] for name in "bc"}
    stage.settle("a")
    stage.confirmed_by("d")
    for name, other in (("b", "c"), ("c", "b")):
        stage.node(name).view = {other: old[other]}
        stage.quietly(name, "watch")
    stage.elected("b", "c")
    return stage


# -- a member is removed -----------------------------------------------------------------------------------------


def lists_before_the_set(core: Core = REAL) -> Change:
    """The walsender of d has not read the new set yet, and d confirms; b and c have stored the list without d."""
    stage = Change(FOUR, core)
    stage.node("a").stuck.add(stage.slot("d"))
    stage.wish("abc")
    stage.do("a", "monitor")
    stage.store("b", "c", "d")
    stage.settle("b", "c", "a")
    stage.do("a", "monitor")
    stage.store("b", "c")
    stage.confirmed_by("d")
    stage.elected("b", "c")
    return stage


def session_with_the_old_set(core: Core = REAL) -> Change:
    """The postmaster of a has not read the new set yet: d, which was away, comes back to a walsender that knows the old one."""
    stage = Change(FOUR, core)
    stage.node("a").stuck |= {"session", stage.slot("d")}
    stage.cut("d")
    stage.settle()
    stage.wish("abc")
    stage.do("a", "monitor")
    stage.store("b", "c")
    stage.player.complete_with_all("a", "monitor")
    stage.store("b", "c")
    stage.heal()
    stage.settle("d", "a")
    stage.confirmed_by("d")
    stage.elected("b", "c")
    return stage


def leaver_without_a_position(core: Core = REAL) -> Change:
    """d comes back before the postmaster has read the new set, and has confirmed nothing since: its walsender shows 0, and knows the old one."""
    stage = Change(FOUR, core)
    stage.cut("d")
    stage.settle("a", "b", "c")
    stage.node("a").stuck.add("session")
    stage.wish("abc")
    stage.do("a", "monitor")
    stage.store("b", "c")
    stage.heal()
    stage.world.connect(stage.node("d"))
    stage.node("a").stuck = {stage.slot("d")}
    for _ in range(4):
        stage.do("a", "monitor")
        stage.store("b", "c")
        stage.settle("b", "c")
    stage.confirmed_by("d")
    stage.elected("b", "c")
    return stage


def commit_of_the_leaver(core: Core = REAL) -> Change:
    """Only d has a commit of before the change; it must be on one of the others before they count without d."""
    stage = Change(FOUR, core)
    stage.world.write(stage.node("a"))
    stage.settle("d", "a")
    stage.wish("abc")
    stage.do("a", "monitor")
    stage.store("b", "c", "d")
    stage.settle("d", "a")
    stage.do("a", "monitor")
    stage.store("b", "c")
    stage.cut("a")
    stage.elected("b", "c")
    return stage


def commit_before_the_set_is_in_force(core: Core = REAL) -> Change:
    """d confirms a commit while a waits for the set: later than the position that a read first."""
    stage = _removing(core)
    stage.node("a").stuck.add(stage.slot("d"))
    stage.settle("b", "c", "a")
    task = stage.world.task("a", "monitor")
    stage.world.tick = 0.1
    for _ in range(6):
        stage.world.advance(task)
        stage.player.settle(stage.node("a"))
    stage.world.write(stage.node("a"))
    stage.settle("d")
    stage.player.settle(stage.node("a"))
    stage.node("a").stuck.clear()
    stage.finish(task)
    stage.store("b", "c")
    stage.cut("a")
    stage.elected("b", "c")
    return stage


def removed_while_away(core: Core = REAL) -> Change:
    """d has heard nothing of its removal, and stands by its old list; b and c answer it, a confirms a commit of it; then b and c elect."""
    stage = Change(FOUR, core)
    stage.wish("abc")
    for _ in range(4):
        stage.do("a", "monitor")
        stage.store("b", "c")
        stage.settle()
    assert stage.node("b").state.roster.confirms.members == tuple("abc")
    stage.do("a", "demote")
    stage.settle()
    stage.deaf("d", "a", "b", "c")
    if stage.elected("d", "b", "c"):
        stage.hear("a", "d")
        stage.do("a", "monitor")
        stage.settle("a", "d")
        stage.hear("d", "a")
        stage.do("d", "monitor")
        stage.settle("a", "d")
        stage.world.write(stage.node("d"))
        stage.settle("a", "d")
    stage.heal()
    stage.elected("b", "c")
    return stage


def primary_leaves(core: Core = REAL) -> Change:
    """a is to leave and stays primary: its commits are on one of the three that remain, and two of these have an election."""
    stage = Change(FOUR, core)
    stage.wish("bcd")
    for _ in range(3):
        stage.do("a", "monitor")
        stage.store("b", "c", "d")
        stage.settle("b", "c", "d", "a")
    stage.confirmed_by("b")
    stage.elected("c", "d")
    return stage


def two_shrink_the_list(core: Core = REAL) -> Change:
    """c, d and e are to leave, confirm commits and hear nothing of a change; a and b alone must not make themselves the whole set."""
    stage = Change(FIVE_TWO, core)
    stage.wish("ab")
    for _ in range(12):
        stage.do("a", "monitor")
        stage.store("b")
        stage.settle()
    stage.confirmed_by("b")
    stage.elected("c", "d", "e")
    return stage


# -- k -----------------------------------------------------------------------------------------------------------


def k_raised_before_it_is_in_force(core: Core = REAL) -> Change:
    """The walsender of b still knows that one confirmation is enough; the lists say that three answers of five are."""
    stage = _removing(core, FIVE, "abcde", 2)
    stage.node("a").stuck.add(stage.slot("b"))
    stage.settle("b", "c", "d", "e", "a")
    stage.do("a", "monitor")
    stage.store("b", "c", "d", "e")
    stage.settle("b", "c", "d", "e", "a")
    stage.do("a", "monitor")
    stage.store("b", "c", "d", "e")
    stage.confirmed_by("b")
    stage.elected("c", "d", "e")
    return stage


def k_raised_while_alone(core: Core = REAL) -> Change:
    """a goes on alone by b's voice, and k is to be 2; c, d and e take over lists, which say nothing of that, and have an election."""
    stage = Change(FIVE_LOOSE, core)
    stage.cut("a")
    stage.settle()
    stage.do("a", "monitor")
    stage.store("b")
    stage.do("a", "monitor")
    stage.settle("a")
    assert stage.node("a").names == ""
    stage.world.write(stage.node("a"))
    stage.wish("abcde", 2)
    for _ in range(3):
        stage.do("a", "monitor")
        for name in "bcde":
            stage.hear(name, "a")
            stage.do(name, "monitor")
            stage.hear("a", name)
    stage.elected("c", "d", "e")
    return stage


def k_raised_after_a_member_came(core: Core = REAL) -> Change:
    """d joins, then k is raised. The walsender of b reads nothing after the set of the first change; its place there is its place in the next."""
    stage = Change(THREE, core)
    stage.wish("abcd", 2)
    stage.newcomer("d")
    while not stage.node("a").state.roster.joint:
        stage.settle()
        stage.quietly("a", "monitor")
    stage.store("b", "c", "d")
    stage.settle("b", "c", "d", "a")
    stage.node("a").stuck.add(stage.slot("b"))
    for _ in range(4):
        stage.do("a", "monitor")
        stage.store("b", "c", "d")
        stage.settle("b", "c", "d", "a")
    stage.confirmed_by("b")
    stage.elected("c", "d")
    return stage


def promoted_after_k_was_raised(core: Core = REAL) -> Change:
    """c runs since its start with a set of one confirmation; k is two by now. d's receiver comes between c's slots and c's reload."""
    stage = Change(FOUR, core)
    stage.wish("abcd", 2)
    for _ in range(5):
        stage.settle()
        stage.do("a", "monitor")
        stage.store("b", "c", "d")
        stage.settle()
    assert stage.node("c").state.roster.confirms.k == 2
    stage.do("a", "demote")
    stage.settle()
    stage.node("c").stuck |= {"session", "pha_9_c_d"}
    stage.cut("c", "d", "b")
    stage.round(9)
    for name in "bd":
        stage.hear(name, "c")
    if stage.elect("c", "b", "d"):
        stage.settle("d", "c")
        stage.cut("c", "d")
        stage.world.write(stage.node("c"))
        for name in "dcdc":
            stage.settle(name)
    stage.heal()
    stage.cut("a", "b")
    for name in "ab":
        stage.hear(name, "a", "b")
    stage.elected("b", "a")
    return stage


# -- what has to work --------------------------------------------------------------------------------------------


def primary_lost_in_the_middle(core: Core = REAL) -> Change:
    """a is lost for good when b and d have its list, and c, which has more, has not: c is elected, by the list that b shows."""
    stage = _adding(core)
    stage.store("b", "d")
    stage.confirmed_by("c")
    stage.world.crash(stage.node("a"))
    stage.settle()
    stage.heal()
    if not stage.elected("c", "b", "d"):
        stage.world.fail("liveness", "nobody can be elected although one node only is lost")
    return stage


def agent_dies_at_the_list(core: Core = REAL) -> Change:
    """a's agent dies at its first step of a change; the operator wishes something else. Nobody may hold another list of the same number."""
    stage = Change(THREE, core)
    stage.wish("abcd")
    stage.newcomer("d")
    task = stage.world.task("a", "monitor")
    while task.outcome is None and not (task.actions and isinstance(task.actions[0], (words.Store, words.Publish))):
        stage.world.advance(task)
    stage.world.advance(task)
    stage.world.kill(task)
    stage.store("b", "c", "d")
    stage.wish("ab")
    for _ in range(5):
        stage.do("a", "monitor")
        stage.store("b", "c", "d")
        stage.settle()
    if stage.node("b").state.roster.confirms.members != ("a", "b"):
        stage.world.fail("liveness", "the change does not come about")
    return stage


def leaver_is_dead(core: Core = REAL) -> Change:
    """d is lost for good and is removed: it is not waited for."""
    stage = Change(FOUR, core)
    stage.world.crash(stage.node("d"))
    stage.settle()
    stage.wish("abc")
    for _ in range(4):
        stage.do("a", "monitor")
        stage.store("b", "c")
        stage.settle("b", "c", "a")
    assert stage.node("c").state.roster.confirms.members == tuple("abc")
    assert stage.node("a").names == 'ANY 1 ("b", "c")'
    stage.world.crash(stage.node("a"))
    if not stage.elected("b", "c"):
        stage.world.fail("liveness", "two of three are not enough")
    return stage


MEMBER_STORIES: Mapping[str, Callable[[Core], Stage]] = {
    story.__name__: story
    for story in (
        named_before_the_lists_are_stored,
        newcomer_stands_too_early,
        answer_of_a_newcomer,
        alone_by_a_newcomer,
        older_list_comes_back,
        lists_before_the_set,
        session_with_the_old_set,
        leaver_without_a_position,
        commit_of_the_leaver,
        commit_before_the_set_is_in_force,
        removed_while_away,
        primary_leaves,
        two_shrink_the_list,
        k_raised_before_it_is_in_force,
        k_raised_while_alone,
        k_raised_after_a_member_came,
        promoted_after_k_was_raised,
        primary_lost_in_the_middle,
        agent_dies_at_the_list,
        leaver_is_dead,
    )
}
