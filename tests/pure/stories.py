"""Accidents that the model checker or the simulator found, played step by step.

Each story is one that a core without the rule in question loses; `docs/safety.md` tells them in words. A story returns
its player, so that a test can ask how it ended; the world raises `Violation` by itself when a promise is broken.
Three nodes, k=1, a is primary of term 1.a, b and c stream, unless a story says otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from simulator import Player, Setting, prepare, rules
from world import REAL, Core, Node, Task

from pha4pgsql import words
from pha4pgsql.words import Mode, Run

if TYPE_CHECKING:
    from collections.abc import Mapping

STRICT = Setting("strict", rules(Mode.QUORUM, 3, 1, strict=True))
LOOSE = Setting("not strict", rules(Mode.QUORUM, 3, 1, strict=False))
SYNC = Setting("sync", rules(Mode.SYNC, 3, 1, strict=False))
PAIR = Setting("pair", rules(Mode.QUORUM, 2, 1, strict=False))
FIRST = Setting("first election", rules(Mode.QUORUM, 3, 1, strict=True), first=True, timeline=4)
READ = Setting("not strict, 1 reads", rules(Mode.QUORUM, 3, 1, strict=False, readers=1))
FIVE = Setting("five", rules(Mode.QUORUM, 5, 2, strict=True))
NAMED = Setting("five, two named", rules(Mode.SYNC, 5, 2, strict=True))


class Stage:
    """A player with short words for what a story needs."""

    def __init__(self, setting: Setting, core: Core) -> None:
        self.player: Player = prepare(setting, 0, core, trace=True, start=False)
        self.world = self.player.world
        self.world.fair = True  # every look succeeds; only the story decides what goes wrong
        self.do = self.player.complete
        self.until = self.player.until
        self.finish = self.player.finish

    def node(self, name: str) -> Node:
        return self.world.nodes[name]

    def round(self, number: int, *names: str) -> None:
        for name in names or self.world.nodes:
            self.node(name).round = number

    def hear(self, name: str, *owners: str) -> None:
        for owner in owners:
            self.world.hear(self.node(name), owner)

    def hear_dead(self, name: str, owner: str) -> None:
        """The last vote of a node that has died since arrives."""
        self.node(name).view[owner] = self.world.published[owner][-1]

    def deaf(self, name: str, *owners: str) -> None:
        """A node sees no vote of those (they are lost)."""
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

    def quietly(self, name: str, kind: str, candidate: str = "") -> None:
        """Run a procedure while its PostgreSQL does nothing of itself."""
        task = self.world.task(name, kind, candidate)
        while task.outcome is None:
            self.world.advance(task)

    def act_once(self, task: Task) -> None:
        """A look of a task and all that follows from it."""
        self.world.advance(task)
        while task.actions:
            self.world.advance(task)

    def settle(self, *names: str) -> None:
        for _ in range(3):
            for name in names or self.world.nodes:
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


# -- a wish orders, no more --------------------------------------------------------------------------------------


def wished_and_cut_off(core: Core = REAL) -> Stage:
    """a is asked to hand over to e, then both are cut off from the others and die: e alone is not enough to confirm anything."""
    stage = Stage(NAMED, core)
    stage.world.attributes["a", "pgsql-switch"] = str(words.Wish("e", stage.node("a").state.reign, words.Lsn(0), 9))
    stage.do("a", "monitor")
    stage.settle()
    stage.cut("a", "e")
    stage.world.write(stage.node("a"))
    stage.settle("a", "e", "a")
    for name in ("a", "e"):
        stage.world.crash(stage.node(name))
    stage.round(2)
    stage.elect("b", "c", "d", settle=True)
    return stage


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
    stage.world.attributes.clear()
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
    """c's receiver still writes and confirms after its agent has begun to answer: that counts in its position."""
    stage = Stage(STRICT, core)
    stage.do("b", "answer", "b")
    task = stage.until("c", "answer", None, "b", settle=False)  # the upstream is taken away, the receiver lives
    stage.world.write(stage.node("a"))
    stage.world.stream(stage.node("c"), 9)
    stage.world.flush(stage.node("c"))
    stage.settle("a")
    stage.finish(task)
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


def answer_of_a_server_that_starts(core: Core = REAL) -> Stage:
    """c is starting and receives already, which cannot be seen before it accepts connections; b asks it."""
    stage = Stage(STRICT, core)
    stage.do("b", "answer", "b")
    stage.do("c", "stop")
    stage.settle()
    stage.hear("c", "a")
    task = stage.until("c", "start", words.Launch, settle=False)
    stage.world.advance(task)
    stage.world.kill(task)
    stage.world.connect(stage.node("c"))
    stage.quietly("c", "answer", "b")
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
    """b has asked PostgreSQL for the promotion, which takes its time; now c asks b. b answers nothing until it was demoted."""
    stage = _promotion_hangs(core)
    stage.quietly("b", "answer", "c")
    _goes_on_behind_the_back(stage)
    return stage


def demoted_while_the_promotion_hangs(core: Core = REAL) -> Stage:
    """The same, and Pacemaker demotes b before c asks: the promotion must not come true after that."""
    stage = _promotion_hangs(core)
    stage.quietly("b", "demote")
    stage.world.ready(stage.node("b"))
    stage.quietly("b", "answer", "c")
    _goes_on_behind_the_back(stage)
    return stage


def followed_while_the_promotion_hangs(core: Core = REAL) -> Stage:
    """The same, and b's monitor sees another primary: it must not take over its terms, the promotion may still come true."""
    stage = _promotion_hangs(core)
    stage.do("a", "stop")
    stage.elect("c", "a")
    stage.hear("b", "c")
    stage.quietly("b", "monitor")
    stage.settle()
    return stage


def _promotion_hangs(core: Core) -> Stage:
    stage = Stage(STRICT, core)
    stage.do("a", "demote")
    stage.settle()
    stage.answers("b", "a")
    task = stage.until("b", "promote", words.Promote)
    stage.world.advance(task)
    stage.world.kill(task)
    stage.round(3)
    return stage


def _goes_on_behind_the_back(stage: Stage) -> None:
    """b's promotion comes true, a confirms a commit of it; c, with the answer that b gave or did not give, is promoted."""
    stage.settle("b", "a")
    stage.world.write(stage.node("b"))
    stage.settle("a", "b")
    stage.do("c", "answer", "c")
    stage.hear("c", "b")
    stage.do("c", "promote", limit=12.0)
    stage.settle("c")


def candidate_not_bound(core: Core = REAL) -> Stage:
    """b has a's answer, then answers c, whose ballot is higher, and reboots; its own old answer comes back from a peer."""
    stage = Stage(STRICT, core)
    stage.do("a", "demote")
    stage.settle()
    stage.answers("b", "a")
    mine = stage.world.published["b"][-1]
    stage.round(3)
    stage.elect("c", "b")
    stage.world.crash(stage.node("b"))
    stage.node("b").up = True
    stage.node("b").view = {"b": mine}
    stage.round(2, "b")
    stage.do("b", "start")
    stage.node("b").view["b"] = mine
    stage.hear("b", "a")
    stage.do("b", "promote", limit=12.0)
    stage.settle("a", "b")
    stage.world.write(stage.node("b"))
    stage.settle("a", "b")
    return stage


def answer_not_stored_in_time(core: Core = REAL) -> Stage:
    """c loses power while it answers b: what b has heard, c has to remember."""
    stage = Stage(STRICT, core)
    stage.do("b", "answer", "b")
    task = stage.world.task("c", "answer", "b")
    while task.outcome is None and not (stage.world.published["c"][-1].answer):
        stage.world.advance(task)
        stage.settle("c")
    stage.world.crash(stage.node("c"))
    stage.hear_dead("b", "c")
    stage.world.boot(stage.node("c"))
    stage.hear("c", "a")
    stage.do("c", "start")
    stage.do("b", "promote", limit=12.0)
    stage.settle("b")
    stage.world.write(stage.node("a"))
    stage.settle("c", "a")
    return stage


def state_file_is_lost(core: Core = REAL) -> Stage:
    """Only b has confirmed a commit of a. Its state file is deleted while it is down, and a is lost: c must not count b's answer."""
    stage = Stage(STRICT, core)
    stage.settle()
    stage.cut("c")
    stage.world.write(stage.node("a"))
    stage.settle("b", "a")
    for name in "ab":
        stage.world.crash(stage.node(name))
    stage.world.forget(stage.node("b"))
    stage.world.boot(stage.node("b"))
    stage.do("b", "start")
    stage.heal()
    stage.hear("b", "c")
    stage.hear("c", "b")
    stage.round(9)
    if stage.elect("c", "b"):
        stage.settle("b", "c")
        stage.world.fail("I1", "c was elected by an answer that says nothing")
    stage.world.boot(stage.node("a"))
    stage.do("a", "start")
    stage.round(12)
    stage.hear("a", "c", "b")
    stage.hear("c", "a")
    if not stage.elect("a", "c", "b"):
        stage.world.fail("liveness", "a and c are enough")
    return stage


def state_file_is_lost_while_it_streams(core: Core = REAL) -> Stage:
    """b's state file is deleted under a running standby. Its slot proves what its WAL is; and it must learn again that a is alone."""
    stage = Stage(LOOSE, core)
    stage.settle()
    stage.world.forget(stage.node("b"))
    stage.hear("b", "a")
    stage.do("b", "monitor")
    if stage.node("b").state.eras != stage.node("a").state.eras:
        stage.world.fail("liveness", "b streams through its slot and does not know its terms")
    return stage


def _c_by_hand(core: Core, confirms: str, lags: str) -> Stage:
    """One of b and c has confirmed a's last commit, the other one lags. Then c is promoted by hand, writes, and is stopped; and a dies."""
    stage = Stage(STRICT, core)
    stage.settle()
    stage.cut(lags)
    stage.world.write(stage.node("a"))
    stage.settle(confirms, "a")
    stage.world.promote_by_hand(stage.node("c"))
    for _ in range(5):
        stage.world.write(stage.node("c"))
    stage.do("c", "stop")
    stage.world.crash(stage.node("a"))
    return stage


def promoted_by_hand(core: Core = REAL) -> Stage:
    """c lags behind and is promoted by hand; what it writes then is further than what b has confirmed. It backs b, and is never elected."""
    stage = _c_by_hand(core, confirms="b", lags="c")
    stage.do("c", "start")
    stage.heal()
    stage.hear("b", "c")
    stage.hear("c", "b")
    stage.round(9)
    stage.elect("c", "b")
    stage.round(12)
    stage.hear("b", "c")
    if not stage.elect("b", "c"):
        stage.world.fail("liveness", "c knows how far it is what it was")
    stage.hear("c", "b")
    if stage.do("c", "start").ok:
        stage.world.fail("I4", "c follows with WAL that b never had")
    return stage


def promoted_by_hand_with_all(core: Core = REAL) -> Stage:
    """c alone has confirmed, and is promoted by hand: b is not elected by its answer. An operator vouches for c."""
    stage = _c_by_hand(core, confirms="c", lags="b")
    stage.world.attributes.clear()
    stage.deaf("c", "a")
    stage.do("c", "start")
    stage.heal()
    stage.hear("b", "c")
    stage.hear("c", "b")
    stage.round(9)
    stage.elect("b", "c")
    stage.do("b", "demote")
    stage.world.vouch(stage.node("c"))
    stage.hear("b", "c")
    stage.round(20)
    if not stage.elect("c", "b"):
        stage.world.fail("liveness", "an operator has vouched for c")
    return stage


def old_upstream_goes_on(core: Core = REAL) -> Stage:
    """Five nodes: b is promoted by d and e; c, which still receives from a, looks at b. What a sends meanwhile must not come after the look."""
    stage = Stage(FIVE, core)
    stage.elect("b", "d", "e")
    stage.hear("c", "b")
    stage.quietly("c", "watch")  # it has stored b's list
    task = stage.until("c", "monitor", words.Store, settle=False)
    if task.outcome is None:
        stage.world.write(stage.node("a"))
        stage.world.stream(stage.node("c"), 9)
        stage.finish(task)
    stage.settle("c", "b")
    return stage


def slot_of_a_failed_candidate(core: Core = REAL) -> Stage:
    """b made its slots and died before it had stored its reign: it may follow another, and a would receive that through b."""
    stage = Stage(STRICT, core)
    stage.do("a", "demote")
    stage.settle()
    stage.answers("b", "a")
    task = stage.until("b", "promote", words.MakeSlots)
    stage.world.advance(task)
    stage.world.kill(task)
    stage.round(3)
    stage.elect("c", "b")
    stage.hear("b", "c")
    stage.do("b", "monitor")
    stage.settle()
    return stage


def one_node_confirms_twice(core: Core = REAL) -> Stage:
    """Five nodes: c has confirmed a commit of b, restarts and comes back while its old walsender still lives: that is one node, not two."""
    stage = Stage(FIVE, core)
    stage.elect("b", "c", "d")
    stage.settle("c", "b")
    stage.cut("d")
    stage.world.write(stage.node("b"))
    stage.settle("c", "b")
    stage.world.crash(stage.node("c"))
    stage.world.boot(stage.node("c"))
    stage.hear("c", "b")
    stage.quietly("c", "start")
    stage.world.ready(stage.node("c"))
    stage.quietly("c", "monitor")
    stage.hear("b", "c")
    stage.quietly("b", "monitor")
    stage.world.connect(stage.node("c"))
    stage.world.flush(stage.node("c"))
    for sender in list(stage.node("b").senders.values()):
        stage.world.reply(sender)
    stage.world.crash(stage.node("b"))
    stage.world.crash(stage.node("c"))
    stage.do("a", "demote")
    stage.heal()
    stage.round(5)
    stage.elect("a", "d", "e")
    return stage


def started_in_the_middle(core: Core = REAL) -> Stage:
    """c answered b from its disk, so its slot is there; its agent dies as soon as PostgreSQL is launched towards b."""
    stage = _answered_from_disk(core)
    stage.hear("c", "b")
    _dies_after(stage, stage.world.task("c", "start"), words.Launch)
    return stage


def followed_in_the_middle(core: Core = REAL) -> Stage:
    """The same, but c was started before it saw b; its agent dies as soon as it has pointed PostgreSQL at b."""
    stage = _answered_from_disk(core)
    stage.deaf("c", "a", "b")
    stage.do("c", "start")
    stage.hear("c", "b")
    _dies_after(stage, stage.world.task("c", "monitor"), words.Follow)
    return stage


def _answered_from_disk(core: Core) -> Stage:
    stage = Stage(STRICT, core)
    stage.do("c", "stop")
    stage.settle()
    stage.do("b", "answer", "b")
    stage.hear("c", "b")
    stage.do("c", "watch")
    stage.hear("b", "c")
    stage.elect("b")
    return stage


def _dies_after(stage: Stage, task: Task, action: type) -> None:
    """The agent is killed when it has performed this action; then PostgreSQL goes on."""
    while task.outcome is None:
        last = task.actions and isinstance(task.actions[0], action)
        stage.world.advance(task)
        if last:
            stage.world.kill(task)
    stage.settle("c", "b")


def remains_of_a_timeline(core: Core = REAL) -> Stage:
    """c had one record of b's timeline 3 and lost it with the power: the segment is left. a, which never saw it, makes a timeline 3 of its own."""
    stage = Stage(STRICT, core)
    stage.do("a", "demote")
    stage.cut("a")
    stage.settle()
    stage.elect("b", "c")
    stage.world.connect(stage.node("c"))
    stage.world.stream(stage.node("c"), 1)
    stage.world.crash(stage.node("c"))
    stage.world.crash(stage.node("b"))
    stage.world.boot(stage.node("c"))
    stage.heal()
    stage.do("c", "start")
    stage.settle("c")
    stage.world.announces = True
    stage.round(5)
    stage.elect("a", "c")
    stage.settle("c", "a")
    return stage


def history_of_another_timeline(core: Core = REAL) -> Stage:
    """c, which is behind, fetched the history of b's timeline 3 and nothing of its WAL; b is lost. a makes another 3: c gets there by a restart."""
    stage = Stage(STRICT, core)
    stage.cut("c")
    stage.world.write(stage.node("a"))
    stage.settle("b", "a")
    stage.do("a", "demote")
    stage.settle("a", "b")
    stage.elect("b", "c")
    stage.heal()
    stage.hear("c", "b")
    stage.quietly("c", "monitor")
    stage.hear("b", "c")
    stage.quietly("b", "monitor")
    stage.world.connect(stage.node("c"))
    stage.world.crash(stage.node("b"))
    stage.settle("c")
    stage.node("a").wal.pop()
    stage.node("a").flushed = stage.node("a").end
    stage.world.acknowledged.clear()  # the commit is not the subject: a is meant to make its timeline from an earlier point
    stage.round(5)
    stage.elect("a", "c")
    for _ in range(3):
        stage.hear("c", "a")
        if not stage.do("c", "monitor").ok:
            stage.do("c", "stop")
            stage.do("c", "start")
        stage.hear("a", "c")
        stage.do("a", "monitor")
        stage.settle("a", "c")
    if stage.node("c").end != stage.node("a").end:
        stage.world.fail("liveness", "c receives nothing for ever")
    return stage


def first_primary_dies_unseen(core: Core = REAL) -> Stage:
    """The first primary has what the others never got, from before the cluster, and dies at once: back as a voter it cannot be passed over."""
    stage = Stage(FIRST, core)
    for name in ("b", "c"):
        stage.node(name).wal.pop()
        stage.node(name).flushed = stage.node(name).end
    for name in stage.world.nodes:
        stage.do(name, "start")
    stage.settle()
    stage.cut("a")
    stage.elect("a", "b", "c")
    stage.world.crash(stage.node("a"))
    stage.world.boot(stage.node("a"))
    stage.round(5)
    stage.do("b", "answer", "c")
    stage.do("c", "answer", "c")
    stage.hear("c", "b")
    stage.do("c", "promote", limit=12.0)
    stage.hear("a", "c")
    stage.do("a", "watch")
    stage.hear("c", "a")
    stage.round(5, "c")
    stage.do("c", "promote", limit=12.0)
    stage.settle("c")
    return stage


# -- a copy that is not whole ------------------------------------------------------------------------------------


def half_a_copy(core: Core = REAL) -> Stage:
    """c confirmed a commit, is being cloned anew and dies in the middle: what is left of it says nothing about commits."""
    stage = Stage(STRICT, core)
    stage.cut("b")
    stage.world.write(stage.node("a"))
    stage.settle("a", "c")
    stage.do("c", "stop")
    stage.world.copy(stage.node("c"), stage.node("a"), until=1)
    stage.node("c").wal, stage.node("c").flushed = stage.node("c").wal[:2], 2
    stage.world.crash(stage.node("a"))
    stage.hear("c", "b")
    stage.do("c", "start")
    stage.round(3)
    stage.elect("b", "c")
    return stage


def a_copy_of_what_was_before(core: Core = REAL) -> Stage:
    """c confirmed a commit of b; down, it sees only the old primary a, which it must not become a copy of."""
    stage = Stage(STRICT, core)
    stage.cut("a")
    stage.round(2)
    stage.elect("b", "c", settle=True)
    stage.hear("c", "b")
    stage.do("c", "monitor")
    stage.hear("b", "c")
    stage.do("b", "monitor")
    stage.world.write(stage.node("b"))
    stage.settle("b", "c", "b")
    stage.heal()
    stage.do("c", "stop")
    stage.deaf("c", "b")
    stage.hear("c", "a")
    stage.world.copy(stage.node("c"), stage.node("a"))
    stage.world.crash(stage.node("b"))
    stage.do("a", "demote")
    stage.do("c", "start")
    stage.settle("a", "c")
    stage.round(9)
    stage.elect("a", "c")
    return stage


# -- synchronous_standby_names -----------------------------------------------------------------------------------


def set_not_in_force_at_promotion(core: Core = REAL) -> Stage:
    """b is promoted while its checkpointer is stopped: what it was started with decides whether commits wait."""
    stage = Stage(STRICT, core)
    stage.do("b", "stop")
    stage.do("b", "start")
    stage.do("a", "demote")
    stage.settle()
    stage.cut("b")
    stage.node("b").stuck.add("checkpointer")
    stage.elect("b", "a")
    stage.world.write(stage.node("b"))
    stage.world.crash(stage.node("b"))
    stage.round(4)
    stage.elect("c", "a")
    return stage


# -- alone -------------------------------------------------------------------------------------------------------


def _alone(core: Core, setting: Setting = LOOSE) -> Stage:
    """a has lost its standbys and went on alone by the voice of c, whose PostgreSQL is down; b knows nothing."""
    stage = Stage(setting, core)
    stage.cut("a")
    stage.do("c", "stop")
    stage.settle()
    stage.do("a", "monitor")
    stage.hear("c", "a")
    stage.do("c", "watch")
    stage.hear("a", "c")
    stage.do("a", "monitor")
    stage.settle("a")
    return stage


def alone_unknown_to_the_candidate(core: Core = REAL) -> Stage:
    """a acknowledges alone; b and c, who stored it, have an election without a."""
    stage = _alone(core)
    stage.world.write(stage.node("a"))
    stage.do("c", "start")
    stage.settle("c")
    stage.elect("b", "c")
    return stage


def alone_against_a_promise(core: Core = REAL) -> Stage:
    """c has answered b; then a says that it goes on alone."""
    stage = Stage(LOOSE, core)
    stage.cut("a")
    stage.settle()
    stage.answers("b", "c")
    stage.do("a", "monitor")
    stage.hear("c", "a")
    stage.do("c", "watch")
    stage.hear("a", "c")
    stage.deaf("a", "b")
    stage.node("a").view["c"] = stage.node("a").view["c"]._replace(promised=stage.node("a").state.promised)  # the promise itself is not heard
    stage.do("a", "monitor")
    stage.settle("a")
    stage.elect("b")
    stage.world.write(stage.node("a"))
    return stage


def alone_by_a_voice_that_forgets(core: Core = REAL) -> Stage:
    """c loses power while it stores a's statement: what a has heard of it, c has to remember."""
    stage = Stage(LOOSE, core)
    stage.cut("a")
    stage.do("c", "stop")
    stage.settle()
    stage.do("a", "monitor")
    stage.hear("c", "a")
    task = stage.world.task("c", "watch")
    while task.outcome is None and stage.world.published["c"][-1].said != stage.node("a").state.said:
        stage.world.advance(task)
    stage.world.crash(stage.node("c"))
    stage.hear_dead("a", "c")
    stage.do("a", "monitor")
    stage.settle("a")
    stage.world.write(stage.node("a"))
    stage.world.boot(stage.node("c"))
    stage.do("c", "start")
    stage.settle("c")
    stage.elect("b", "c")
    return stage


def back_before_the_others_have_it(core: Core = REAL) -> Stage:
    """a says 'not alone' when k members stream; they must have what it acknowledged alone."""
    stage = _alone(core)
    stage.world.write(stage.node("a"))
    _c_streams_nothing(stage)
    _monitor_without_streaming(stage)
    stage.hear("c", "a")
    stage.quietly("c", "watch")
    stage.cut("a")
    stage.elect("b", "c")
    return stage


def _monitor_without_streaming(stage: Stage, *others: str) -> None:
    """a's monitor, its reloads and replies, but no WAL for c."""
    for _ in range(3):
        task = stage.world.task("a", "monitor")
        while task.outcome is None:
            stage.world.advance(task)
            for name in (*others, "a"):
                stage.player.settle(stage.node(name))


def back_while_the_checkpointer_is_stopped(core: Core = REAL) -> Stage:
    """a was alone and c is back, but a's checkpointer does not read the new set: commits do not wait, whatever SHOW says."""
    stage = _alone(core)
    stage.node("a").stuck.add("checkpointer")
    stage.heal()
    stage.hear("c", "a")
    stage.do("c", "start")
    stage.settle("c", "a")
    for _ in range(3):
        stage.do("a", "monitor")
        stage.settle("c", "a")
    stage.hear("c", "a")
    stage.do("c", "watch")
    stage.cut("a")
    stage.world.write(stage.node("a"))
    stage.settle("a")
    stage.elect("c", "b")
    return stage


def back_and_alone_again(core: Core = REAL) -> Stage:
    """pgwatch waits for c to have what a acknowledged alone; meanwhile the agent goes on alone once more, and comes back."""
    stage = _alone(core)
    stage.world.tick = 0.1
    stage.world.write(stage.node("a"))
    _c_streams_nothing(stage)
    watcher = stage.world.task("a", "reign", watcher=True)
    for _ in range(30):
        stage.act_once(watcher)
        stage.player.settle(stage.node("a"))
    stage.cut("a")
    stage.settle("a")
    stage.world.tick = 1.0
    stage.do("a", "monitor")
    stage.hear("c", "a")
    stage.do("c", "watch")
    stage.hear("a", "c")
    stage.do("a", "monitor")
    stage.settle("a")
    stage.world.write(stage.node("a"))
    position = stage.node("a").end
    stage.world.write(stage.node("a"))
    _c_streams_nothing(stage)
    task = stage.until("a", "monitor", words.Name)  # it leaves '' and dies before it can do more
    stage.world.advance(task)
    stage.world.kill(task)
    for _ in range(2):
        stage.do("a", "monitor")
    stage.world.stream(stage.node("c"), position - stage.node("c").end - 1)
    stage.world.flush(stage.node("c"))
    stage.player.settle(stage.node("a"))
    stage.world.tick = 0.1
    for _ in range(12):
        stage.act_once(watcher)
    stage.world.tick = 1.0
    stage.hear("c", "a")
    stage.quietly("c", "watch")
    stage.cut("a")
    stage.elect("c", "b")
    return stage


def _c_streams_nothing(stage: Stage) -> None:
    """c is connected to a again, but receives nothing yet."""
    stage.heal()
    node = stage.node("c")
    stage.hear("c", "a")
    if node.run is Run.DOWN:
        stage.quietly("c", "start")
        stage.world.ready(node)
    stage.world.connect(node)
    stage.world.flush(node)
    stage.player.settle(stage.node("a"))


def not_alone_half_said(core: Core = REAL) -> Stage:
    """a dies as an agent while it says 'not alone': what c has heard of it, a has to remember, or it goes on alone by b's old voice."""
    stage = _alone(core)
    stage.heal()
    stage.hear("c", "a")
    stage.do("c", "start")
    stage.settle()
    stage.do("a", "monitor")
    for name in ("b", "c"):
        stage.hear(name, "a")
        stage.do(name, "watch")
    stage.settle()
    task = stage.world.task("a", "monitor")
    while task.outcome is None and stage.world.published["a"][-1].said.owner:
        stage.world.advance(task)
        if not task.actions:
            stage.player.settle(stage.node("a"))
    stage.world.kill(task)
    stage.hear("c", "a")
    stage.do("c", "watch")
    stage.cut("a")
    stage.settle()
    stage.hear("a", "b")
    for _ in range(2):
        stage.do("a", "monitor")
    stage.settle("a")
    stage.world.write(stage.node("a"))
    stage.elect("c", "b")
    return stage


def two_say_alone(core: Core = REAL) -> Stage:
    """b, elected with c's answer, says that it goes on alone; a, still primary of the older term, hears it and says the same of itself."""
    stage = Stage(LOOSE, core)
    stage.cut("a", "b")
    stage.cut("a")
    stage.settle()
    stage.elect("b", "c")
    stage.hear("a", "b")
    stage.do("a", "watch")
    stage.deaf("a", "b")
    heard = stage.world.published["a"][-1]
    stage.do("a", "monitor")
    stage.do("a", "demote")
    stage.settle("a")
    stage.round(5)
    stage.answers("c", "a")
    stage.do("c", "promote", limit=12.0)
    stage.settle("c")
    stage.node("b").view["a"] = heard
    stage.deaf("b", "c")
    stage.do("b", "monitor")
    stage.settle("b")
    stage.world.write(stage.node("b"))
    return stage


def alone_handed_on(core: Core = REAL) -> Stage:
    """a was alone; b, which has all of it, is elected with a's answer. When a and then b are lost for good, c must be electable by b's word."""
    stage = _alone(core)
    stage.heal()
    stage.hear("c", "a")
    stage.do("c", "start")
    stage.settle("c", "a")
    stage.hear("b", "a")
    stage.do("b", "watch")
    stage.settle()
    stage.do("a", "demote")
    stage.settle()
    stage.round(5)
    stage.answers("b", "a", "c")
    task = stage.until("b", "promote", words.Promote)
    stage.act_once(task)
    stage.settle("b", "c")
    stage.act_once(task)
    stage.settle("b", "c")
    stage.finish(task)
    for _ in range(3):
        stage.settle("b", "c")
        for name in ("c", "b"):
            stage.hear(name, "b", "c")
            stage.do(name, "monitor")
    stage.hear("c", "b")
    stage.do("c", "watch")
    stage.world.crash(stage.node("a"))
    stage.do("b", "demote")
    stage.settle("b", "c")
    stage.round(9)
    if not stage.elect("c", "b"):
        stage.world.fail("liveness", "c cannot be elected with all that was ever acknowledged")
    return stage


def alone_erased_by_an_older_word(core: Core = REAL) -> Stage:
    """a was alone, was not, and is again; c stored it, rebooted, and sees a's older word."""
    stage = _alone(core)
    stage.heal()
    stage.hear("c", "a")
    stage.do("c", "start")
    stage.settle()
    for _ in range(3):
        stage.do("a", "monitor")
        stage.settle("a", "c")
    older = stage.world.published["a"][-1]
    stage.cut("a")
    stage.do("c", "stop")
    stage.settle()
    stage.do("a", "monitor")
    stage.hear("c", "a")
    stage.do("c", "watch")
    stage.hear("a", "c")
    stage.do("a", "monitor")
    stage.settle("a")
    stage.world.write(stage.node("a"))
    stage.world.crash(stage.node("c"))
    stage.node("c").up = True
    stage.node("c").view = {"a": older}
    stage.do("c", "watch")
    stage.do("c", "start")
    stage.settle("c")
    stage.elect("c", "b")
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


def copy_of_a_later_term(core: Core = REAL) -> Stage:
    """a, which was the primary, is made a copy of b: what it holds then was written under b's term, too."""
    stage = Stage(STRICT, core)
    stage.elect("b", "c", settle=True)
    stage.world.write(stage.node("b"))
    stage.settle()
    stage.do("a", "stop")
    stage.hear("a", "b")
    stage.world.copy(stage.node("a"), stage.node("b"))
    return stage


def rewind_by_numbers(core: Core = REAL) -> Stage:
    """The same, but c is rewound: by numbers its record on timeline 3 is one of b's, and is kept."""
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
    stage.do("c", "stop")
    stage.hear("c", "b")
    stage.world.copy(stage.node("c"), stage.node("b"), rewind=True)
    return stage


# -- nodes that only read ----------------------------------------------------------------------------------------


def alone_by_the_voice_of_a_reader(core: Core = REAL) -> Stage:
    """a and x, which only reads, are cut off from b and c; a must not go on alone because x has heard of it."""
    stage = Stage(READ, core)
    stage.cut("a", "x")
    stage.settle()
    stage.do("a", "monitor")
    stage.hear("x", "a")
    stage.do("x", "watch")
    stage.hear("a", "x")
    stage.do("a", "monitor")
    stage.settle("a")
    stage.world.write(stage.node("a"))
    stage.settle("x", "a")
    stage.elect("b", "c")
    return stage


def back_by_the_copy_of_a_reader(core: Core = REAL) -> Stage:
    """a was alone; x, which only reads, has all of it, and c, which is back, has not: a must not say 'not alone'."""
    stage = _alone(core, READ)
    stage.world.links |= {("a", "x"), ("x", "a")}
    stage.world.write(stage.node("a"))
    stage.settle("x", "a")
    _c_streams_nothing(stage)
    _monitor_without_streaming(stage, "x")
    stage.hear("c", "a")
    stage.quietly("c", "watch")
    stage.cut("a", "x")
    stage.elect("b", "c")
    return stage


def elected_by_a_reader(core: Core = REAL) -> Stage:
    """b has what a acknowledged, c and x have not; x answers like everybody who hears of the attempt, and c must not win by it."""
    stage = Stage(READ, core)
    stage.cut("c", "x")
    stage.settle()
    stage.world.write(stage.node("a"))
    stage.settle("b", "a")
    stage.elect("c", "x")
    return stage


def data_are_given_up(core: Core = REAL) -> Stage:
    """Of three members two have lost their data. The third has every commit, and is elected when an operator says that one of them has nothing."""
    stage = Stage(LOOSE, core)
    stage.settle()
    stage.world.write(stage.node("a"))
    stage.settle()
    for name in "abc":
        stage.world.crash(stage.node(name))
    for name in "bc":
        stage.world.lose_data(stage.node(name))
    for name in "abc":
        stage.world.boot(stage.node(name))
    stage.do("a", "start")
    stage.round(9)
    if stage.elect("a"):
        stage.world.fail("I1", "a was elected by itself")
    lost = words.Instance()
    stage.world.run(stage.node("b"), lambda scene: core.copying.give_up(scene._replace(instance=lost), words.GIVEN_UP))
    stage.hear("a", "b")
    stage.do("a", "monitor")
    if stage.world.attributes.get(("a", "master-pgsql")) != "100":
        stage.world.fail("liveness", "a does not stand")
    stage.round(12)
    if not stage.elect("a", "b"):
        stage.world.fail("liveness", "a and b are enough, as b has said that it holds nothing")
    stage.hear("b", "a")
    stage.do("a", "monitor")
    if not stage.world.copy(stage.node("b"), stage.node("a")):
        stage.world.fail("liveness", "b cannot become a copy")
    return stage


STORIES: Mapping[str, Callable[[Core], Stage]] = {
    story.__name__: story
    for story in (
        wished_and_cut_off,
        data_are_given_up,
        answer_without_end,
        answer_forgotten_at_reboot,
        answer_forgotten_at_start,
        state_file_is_lost,
        state_file_is_lost_while_it_streams,
        answer_not_stored_in_time,
        old_answer,
        late_wal_after_the_answer,
        confirmed_by_a_receiver_that_lives_on,
        answer_of_a_server_that_starts,
        a_primary_answers,
        candidate_answers_another,
        demoted_while_the_promotion_hangs,
        followed_while_the_promotion_hangs,
        candidate_not_bound,
        old_upstream_goes_on,
        slot_of_a_failed_candidate,
        started_in_the_middle,
        followed_in_the_middle,
        remains_of_a_timeline,
        history_of_another_timeline,
        first_primary_dies_unseen,
        one_node_confirms_twice,
        half_a_copy,
        a_copy_of_what_was_before,
        same_timeline_twice,
        longer_but_older,
        rejoin_by_numbers,
        rewind_by_numbers,
        copy_of_a_later_term,
        set_not_in_force_at_promotion,
        alone_unknown_to_the_candidate,
        alone_against_a_promise,
        promoted_by_hand,
        promoted_by_hand_with_all,
        alone_by_a_voice_that_forgets,
        back_before_the_others_have_it,
        back_while_the_checkpointer_is_stopped,
        back_and_alone_again,
        not_alone_half_said,
        two_say_alone,
        alone_handed_on,
        alone_erased_by_an_older_word,
        alone_by_the_voice_of_a_reader,
        back_by_the_copy_of_a_reader,
        elected_by_a_reader,
    )
}
