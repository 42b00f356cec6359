"""Accidents that the model checker or the simulator found, played step by step.

Each story is one that a core without the rule in question loses; `docs/safety.md` tells them in words. A story returns
its player, so that a test can ask how it ended; the world raises `Violation` by itself when a promise is broken.
Three nodes, k=1, a is primary of term 1.a, b and c stream, unless a story says otherwise.
"""

from __future__ import annotations

from typing import Callable, Mapping

from pha4pgsql import words
from pha4pgsql.words import Mode, Run
from simulator import REAL, Core, Node, Player, Setting, prepare, rules

STRICT = Setting("strict", rules(Mode.QUORUM, 3, 1, strict=True))
LOOSE = Setting("not strict", rules(Mode.QUORUM, 3, 1, strict=False))
SYNC = Setting("sync", rules(Mode.SYNC, 3, 1, strict=False))
PAIR = Setting("pair", rules(Mode.QUORUM, 2, 1, strict=False))
FIVE = Setting("five", rules(Mode.QUORUM, 5, 2, strict=True))


class Stage:
    """A player with short words for what a story needs."""

    def __init__(self, setting: Setting, core: Core) -> None:
        self.player: Player = prepare(setting, 0, core, trace=True)
        self.world = self.player.world
        self.world.fair = True  # every look succeeds; only the story decides what goes wrong
        self.do = self.player.complete
        self.until = self.player.until
        self.finish = self.player.finish

    def node(self, name: str) -> Node:
        return self.world.nodes[name]

    def round(self, number: int, *names: str) -> None:
        for name in names or self.world.rules.members:
            self.node(name).round = number

    def hear(self, name: str, *owners: str) -> None:
        for owner in owners:
            self.world.hear(self.node(name), owner)

    def deaf(self, name: str, *owners: str) -> None:
        """This node sees no vote of those (a vote is lost)."""
        for owner in owners:
            self.node(name).view.pop(owner, None)

    def answers(self, candidate: str, *names: str) -> None:
        """They answer the candidate, who hears them."""
        for name in (candidate, *names):
            self.do(name, "answer", candidate)
            self.hear(candidate, name)

    def elect(self, candidate: str, *names: str, settle: bool = False) -> bool:
        """A whole campaign; whether PostgreSQL was promoted."""
        self.answers(candidate, *names)
        task = self.until(candidate, "promote", words.Promote)
        if task.outcome is not None:
            return False
        self.world.advance(task)
        self.player.settle(self.node(candidate))
        self.finish(task)
        if settle:
            self.settle()
        return self.node(candidate).run is Run.PRIMARY

    def settle(self, *names: str) -> None:
        for _ in range(3):
            for name in names or self.world.rules.members:
                self.player.settle(self.node(name))

    def cut(self, *names: str) -> None:
        """No replication between these and the others; what was connected ends."""
        for one, other in sorted(self.world.links):
            if (one in names) != (other in names):
                self.world.links.discard((one, other))
        for node in self.world.nodes.values():
            if node.receiver and not self.world.linked(node.receiver.upstream, node):
                self.world.end_receiver(node)

    def heal(self) -> None:
        self.world.links = {(one, other) for one in self.world.nodes for other in self.world.nodes if one != other}


# -- an answer has no end ----------------------------------------------------------------------------------------


def answer_without_end(core: Core = REAL) -> Stage:
    """b has c's answer; before b is promoted c sees its old primary a again."""
    stage = Stage(STRICT, core)
    stage.answers("b", "c")
    task = stage.until("b", "promote", words.Promote)
    stage.hear("c", "a")
    stage.do("c", "monitor")
    stage.world.advance(task)
    stage.settle("b")
    stage.world.write(stage.node("a"))
    stage.settle("c", "a")
    return stage


def answer_forgotten_at_reboot(core: Core = REAL) -> Stage:
    """b has c's answer; c reboots and starts while only a is to be seen."""
    stage = Stage(STRICT, core)
    stage.answers("b", "c")
    task = stage.until("b", "promote", words.Promote)
    stage.world.crash(stage.node("c"))
    stage.world.boot(stage.node("c"))
    stage.hear("c", "a")
    stage.do("c", "start")
    stage.world.advance(task)
    stage.settle("b")
    stage.world.write(stage.node("a"))
    stage.settle("c", "a")
    return stage


def answer_forgotten_at_start(core: Core = REAL) -> Stage:
    """c answers b from its disk while its agent is in the middle of `start`; the start must not bring an old state file back."""
    stage = Stage(STRICT, core)
    stage.do("c", "stop")
    stage.deaf("c", "a")
    task = stage.until("c", "start", words.Attributes)
    stage.world.advance(task)  # the first look is done, the lock is free
    stage.do("b", "answer", "b")
    stage.hear("c", "b")
    stage.do("c", "watch")
    stage.hear("b", "c")
    stage.finish(task)
    stage.hear("c", "a")
    stage.do("c", "monitor")
    promotion = stage.until("b", "promote", words.Promote)
    stage.world.advance(promotion)
    stage.settle("b")
    stage.world.write(stage.node("a"))
    stage.settle("c", "a")
    return stage


# -- what an answer is worth -------------------------------------------------------------------------------------


def old_answer(core: Core = REAL) -> Stage:
    """a answered b, then c; c is promoted and a confirms its commits. b still sees a's old answer."""
    stage = Stage(STRICT, core)
    stage.do("a", "demote")
    stage.settle()
    stage.answers("b", "a")
    stage.round(3)
    stage.elect("c", "a")
    stage.settle("a", "c")
    stage.hear("a", "c")
    stage.do("a", "monitor")
    stage.world.write(stage.node("c"))
    stage.settle("a", "c")
    stage.round(4, "b")
    stage.deaf("b", "c")
    stage.do("b", "promote", limit=12.0)
    stage.settle("b")
    return stage


def late_wal_after_the_answer(core: Core = REAL) -> Stage:
    """c says how far it is while its old receiver still writes and confirms."""
    stage = Stage(STRICT, core)
    task = stage.until("c", "answer", None, "b", settle=False)
    while task.outcome is None and len(stage.world.published["c"]) < 2 and task.elapsed < 50:
        stage.world.advance(task)
        if not task.actions and stage.node("c").state.promised.node == "b":
            stage.world.write(stage.node("a"))
            stage.world.stream(stage.node("c"), 9)
            stage.world.flush(stage.node("c"))
            stage.settle("a")
    stage.do("b", "answer", "b")
    stage.hear("b", "c")
    stage.do("b", "promote", limit=12.0)
    stage.settle("b")
    return stage


def confirmed_by_a_receiver_that_lives_on(core: Core = REAL) -> Stage:
    """The receiver of c ends late: until then what it confirms was confirmed before the answer."""
    stage = Stage(STRICT, core)
    stage.do("b", "answer", "b")
    task = stage.world.task("c", "answer", "b")
    for _ in range(12):
        stage.world.advance(task)
    stage.hear("b", "c")
    stage.do("b", "promote", limit=12.0)
    stage.settle("b")
    stage.world.write(stage.node("a"))
    stage.world.stream(stage.node("c"), 9)
    stage.world.flush(stage.node("c"))
    stage.settle("a")
    return stage


def a_primary_answers(core: Core = REAL) -> Stage:
    """b asks a, which is primary, and c's answer does not arrive; a goes on and c confirms."""
    stage = Stage(STRICT, core)
    stage.do("a", "answer", "b")
    stage.hear("b", "a")
    stage.do("b", "answer", "b")
    stage.do("b", "promote", limit=12.0)
    stage.settle("b")
    stage.world.write(stage.node("a"))
    stage.settle("c", "a")
    return stage


def candidate_answers_another(core: Core = REAL) -> Stage:
    """b has won and is about to be promoted; it answers the higher ballot of c, which does not see b's promotion."""
    stage = Stage(STRICT, core)
    stage.do("a", "demote")
    stage.settle()
    stage.answers("b", "a")
    task = stage.until("b", "promote", words.Promote)
    stage.world.advance(task)  # pg_promote is asked for, PostgreSQL takes its time
    stage.world.kill(task)
    stage.round(3)
    stage.do("b", "answer", "c", limit=8.0)
    stage.do("c", "answer", "c")
    stage.hear("c", "b")
    stage.settle("a", "b")
    stage.world.write(stage.node("b"))
    stage.settle("a", "b")
    stage.do("c", "promote", limit=12.0)
    stage.settle("c")
    return stage


def candidate_not_bound(core: Core = REAL) -> Stage:
    """b has the answers it needs, then answers c, whose ballot is higher; c is promoted. b must not go on."""
    stage = Stage(STRICT, core)
    stage.do("a", "demote")
    stage.settle()
    stage.answers("b", "a")
    stage.round(3)
    stage.elect("c", "b")
    stage.deaf("b", "c")
    stage.node("b").round = 2
    stage.do("b", "promote", limit=12.0)
    stage.settle()
    stage.world.write(stage.node("b"))
    stage.settle("a", "b")
    return stage


# -- positions ---------------------------------------------------------------------------------------------------


def same_timeline_twice(core: Core = REAL) -> Stage:
    """c and b both make timeline 3 from the same point; a confirms a commit of b's; c, as long, stands again."""
    stage = Stage(STRICT, core)
    stage.do("a", "demote")
    stage.cut("a")
    stage.settle()
    stage.elect("c", "a")
    stage.world.write(stage.node("c"))
    stage.round(3)
    stage.elect("b", "a")
    stage.heal()
    stage.hear("a", "b")
    stage.do("a", "monitor")
    stage.settle("a")
    stage.world.write(stage.node("b"))
    stage.settle("a", "b")
    stage.do("c", "demote")
    stage.settle("c")
    stage.round(4)
    stage.deaf("c", "b")
    stage.elect("c", "a")
    return stage


def longer_but_older(core: Core = REAL) -> Stage:
    """As before, but c, alone on its timeline, wrote more."""
    stage = Stage(STRICT, core)
    stage.do("a", "demote")
    stage.cut("a")
    stage.settle()
    stage.elect("c", "a")
    for _ in range(3):
        stage.world.write(stage.node("c"))
    stage.round(3)
    stage.elect("b", "a")
    stage.heal()
    stage.hear("a", "b")
    stage.do("a", "monitor")
    stage.settle("a")
    stage.world.write(stage.node("b"))
    stage.settle("a", "b")
    stage.do("c", "demote")
    stage.settle("c")
    stage.round(4)
    stage.deaf("c", "b")
    stage.elect("c", "a")
    return stage


def rejoin_by_numbers(core: Core = REAL) -> Stage:
    """c's timeline 3 has the number and the switch point of b's; c would be taken as a standby of b."""
    stage = Stage(STRICT, core)
    stage.do("a", "demote")
    stage.cut("a")
    stage.settle()
    stage.elect("c", "a")
    stage.round(3)
    stage.elect("b", "a")
    stage.heal()
    stage.world.write(stage.node("b"))
    stage.do("c", "demote")
    stage.settle("c")
    stage.hear("c", "b")
    stage.do("c", "monitor")
    stage.settle("c", "b")
    return stage


STORIES: Mapping[str, Callable[[Core], Stage]] = {
    story.__name__: story for story in (
        answer_without_end, answer_forgotten_at_reboot, answer_forgotten_at_start, old_answer, late_wal_after_the_answer,
        confirmed_by_a_receiver_that_lives_on, a_primary_answers, candidate_answers_another, candidate_not_bound, same_timeline_twice,
        longer_but_older, rejoin_by_numbers,
    )
}
