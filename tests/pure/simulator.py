"""Ways through the world: step by step for stories, at random for accidents nobody thought of, fairly for the way back.

The random scheduler prefers what makes accidents: campaigns, cuts and crashes near promotions. Pacemaker is an adversary
in it: it calls any procedure at any time, kills agents in the middle, asks anybody to stand. A seed says everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, NamedTuple

from world import OPERATION, REAL, Core, Node, Task, Violation, World

from pha4pgsql import text
from pha4pgsql.words import NEVER, Lsn, Mode, Outcome, Rules, Run, Wish

if TYPE_CHECKING:
    from collections.abc import Iterable


class Player:
    """Plays a world: by script (`complete`, `hand over`), at random (`chaos`), or fairly (`heal`)."""

    def __init__(self, world: World) -> None:
        self.world, self.random = world, world.random

    # -- everything that PostgreSQL and the network do of themselves ---------------------------------------------

    def settle(self, node: Node, keen: float = 1.0, *, receive: bool = True) -> None:
        """Whatever is about to happen in this PostgreSQL happens, each thing with this probability."""
        world = self.world
        if not node.up or node.run is Run.DOWN:
            return

        def luck() -> bool:
            return keen >= 1.0 or self.random.random() < keen

        if luck():
            world.ready(node)
        if luck():
            world.finish_promotion(node)
        for who in ("session", "checkpointer", *list(node.senders)):
            if luck():
                world.reload(node, who)
        self._receiver(node, luck, receive=receive)
        for sender in list(node.senders.values()):
            if (not sender.receiving or not world.linked(node, sender.follower)) and luck():
                world.end_sender(sender)
            while sender.replies and sender.sending and luck():
                before = len(sender.replies)
                world.reply(sender)
                if len(sender.replies) == before:
                    break

    def _receiver(self, node: Node, luck: Callable[[], bool], *, receive: bool) -> None:
        world = self.world
        connection = node.receiver
        if connection is not None:
            wanted = node.follows
            moved = wanted is None or (wanted.node, wanted.slot) != (connection.upstream.name, connection.slot)
            if (moved or not connection.sending or not world.linked(connection.upstream, node)) and luck():
                world.end_receiver(node)
        if node.receiver is None and luck():
            world.connect(node)
        if receive and node.receiver is not None:
            if luck():
                world.stream(node, 9 if world.fair else self.random.choice((1, 2, 9)))
            if luck():
                world.flush(node)

    def settle_all(self, keen: float = 1.0) -> None:
        for node in self.world.nodes.values():
            self.settle(node, keen)
        if keen >= 1.0:
            for node in self.world.nodes.values():
                self.settle(node, keen)

    # -- by script -----------------------------------------------------------------------------------------------

    def complete(self, name: str, kind: str, candidate: str = "", *, keen: float = 1.0, limit: float = OPERATION) -> Outcome:
        """Run a procedure to its end while its own PostgreSQL does what it is about to do."""
        task = self.world.task(name, kind, candidate)
        task.limit = limit
        for _ in range(400):
            self.world.advance(task)
            if task.outcome is not None:
                return task.outcome
            if not task.actions:
                self.settle(task.node, keen)
        raise AssertionError(f"{kind} on {name} does not end")

    def until(self, name: str, kind: str, action: type | None, candidate: str = "", *, settle: bool = True) -> Task:
        """Run a procedure until just before its first action of this type (None: its second look), and leave it there."""
        task = self.world.task(name, kind, candidate)
        for _ in range(200):
            if task.outcome is not None or (action is not None and task.actions and isinstance(task.actions[0], action)):
                return task
            self.world.advance(task)
            if action is None and task.procedure is not None and not task.actions:
                return task
            if settle and not task.actions:
                self.settle(task.node)
        raise AssertionError(f"{kind} on {name} does not come to {action}")

    def finish(self, task: Task) -> Outcome:
        for _ in range(400):
            self.world.advance(task)
            if task.outcome is not None:
                return task.outcome
            if not task.actions:
                self.settle(task.node)
        raise AssertionError(f"{task.kind} on {task.node.name} does not end")

    # -- fairly --------------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """All faults end; messages arrive; nobody is killed any more."""
        world = self.world
        world.fair = True
        world.links = {(one, other) for one in world.nodes for other in world.nodes if one != other}
        world.messages = set(world.links)
        for node in world.nodes.values():
            world.kill(node.agent)
            world.kill(node.watcher)
            node.silent = False
            node.stuck.clear()
            node.wish = world.goal
            world.boot(node)
        world.row_links = set(world.nodes) if world.rules.row else set()
        while world.late:
            world.deliver_late()

    def recover(self, cycles: int = 16) -> bool:
        """What Pacemaker would do, until a new commit is acknowledged."""
        return any(self._cycle() for _ in range(cycles))

    def fulfil(self, cycles: int = 40) -> bool:
        """What Pacemaker would do, until the list of members is the wished one everywhere; a primary that is to leave gives way first."""
        world = self.world
        for _ in range(cycles):
            self._cycle()
            primaries = [node for node in world.nodes.values() if node.run is Run.PRIMARY and node.promotion is world.highest]
            if not primaries:
                continue
            bound = any(world.nodes[name].state.promised > primaries[0].state.reign for name in world.goal.members)
            leaving = primaries[0].name not in world.goal.members
            shown = [world.nodes[name].state.roster for name in world.goal.members]
            members, k, strict = world.goal.circle
            if all(not one.joint and (set(one.elects.members), *one.elects[1:]) == (set(members), k, strict) for one in shown):
                return True
            caught_up = all(world.nodes[name].end + 2 >= primaries[0].end for name in members)
            caught_up = caught_up and primaries[0].state.said[::2] != (primaries[0].state.reign, primaries[0].name)
            leaving = leaving and not primaries[0].state.roster.joint
            if (bound and caught_up) or (leaving and caught_up and set(primaries[0].state.roster.elects.members) == {*members, primaries[0].name}):
                self.complete(primaries[0].name, "demote")
                world.attributes[primaries[0].name, "master-pgsql"] = "-INFINITY"
                for name in members:
                    world.attributes[name, "master-pgsql"] = "100"
        return False

    def _talk(self) -> None:
        world = self.world
        highest = max(node.round for node in world.nodes.values())
        for node in world.nodes.values():
            node.round = highest
            world.hear_all(node)

    def _cycle(self) -> bool:
        world = self.world
        for name, node in world.nodes.items():
            self._talk()
            self.settle_all()
            self.complete(name, "watch")
            self._talk()
            if node.run is Run.DOWN:
                if not self.complete(name, "start").ok:
                    self._rebuild(node)
            elif node.run is Run.PRIMARY:
                if not self.complete(name, "monitor").ok:
                    self.complete(name, "demote")
            elif node.state.reign != NEVER:
                self.complete(name, "demote")
            elif not self.complete(name, "monitor").ok:
                self.complete(name, "stop")
                if not self.complete(name, "start").ok:
                    self._rebuild(node)
        self._talk()
        if not any(node.run is Run.PRIMARY for node in world.nodes.values()):
            self._elect()
        return any(self._acknowledges(node) for node in world.nodes.values() if node.run is Run.PRIMARY)

    def _acknowledges(self, node: Node) -> bool:
        record = self.world.write(node)
        for _ in range(2):
            self.settle_all()
        return record is not None and any(commit is record for commit in self.world.acknowledged) and node.promotion is self.world.highest

    def _rebuild(self, node: Node) -> None:
        sources = [other for other in self.world.nodes.values() if other.run is Run.PRIMARY and other is not node]
        sources.sort(key=lambda other: other.state.reign, reverse=True)
        if sources and self.world.copy(node, sources[0]):
            self.complete(node.name, "start")

    def _elect(self) -> None:
        world = self.world
        scores = {name: world.attributes.get((name, "master-pgsql")) for name, node in world.nodes.items() if node.run is Run.STANDBY}
        able = sorted((-text.score(score), name) for name, score in scores.items() if score and text.score(score) > 0)
        if not able:
            self._vouch()
            return
        candidate = able[0][1]
        for name in world.nodes:
            if world.nodes[name].run is not Run.DOWN:
                self.complete(name, "answer", candidate)
            self._talk()
        if not self.complete_with_all(candidate, "promote").ok:
            self.complete(candidate, "demote")

    def _vouch(self) -> None:
        """What an operator does when only who was promoted by hand has all that was confirmed."""
        world, core = self.world, self.world.core
        shown = {name: core.shown.my_vote(world.scene(node)) for name, node in world.nodes.items() if not node.state.mark}
        place = {name: (core.vote.term_at(vote.eras, vote.lsn), vote.lsn) for name, vote in shown.items()}
        best = max(place, key=lambda name: place[name])
        strays = [name for name in place if place[name] == place[best] and core.vote.unnamed(shown[name].eras)]
        if strays and all(node.run is not Run.PRIMARY for node in world.nodes.values()):
            world.vouch(world.nodes[strays[0]])

    def complete_with_all(self, name: str, kind: str) -> Outcome:
        """As `complete`, while all nodes go on and talk."""
        task = self.world.task(name, kind)
        for _ in range(400):
            self.world.advance(task)
            if task.outcome is not None:
                return task.outcome
            if not task.actions:
                self.settle_all()
                for node in self.world.nodes.values():
                    if node.watcher is None:
                        self.complete(node.name, "watch")
                self._talk()
        raise AssertionError(f"{kind} on {name} does not end")

    # -- at random -----------------------------------------------------------------------------------------------

    def chaos(self, moves: int) -> None:
        """So many moves, most of them a part of a story: a campaign, a write, a monitor, a fault."""
        table: list[tuple[int, Callable[[], None]]] = [
            (24, self.campaign),
            (20, self.some_writes),
            (16, self.some_monitor),
            (8, self.some_watch),
            (6, self.some_role),
            (12, self.some_fault),
            (6, self.some_cut),
            (5, self.some_confusion),
            (4, self.some_rebuild),
            (4, self.some_progress),
            (2, self.some_tag),
            *([(24, self.some_change), (8, self.some_list)] if self.world.spare else []),
        ]
        if self.world.rules.row:
            table.append((8, self.some_of_the_row))
        weights = [weight for weight, _ in table]
        choices = [move for _, move in table]
        for move in self.random.choices(choices, weights, k=moves):
            move()
            self.world_steps()

    def world_steps(self) -> None:
        """Things happen by themselves, here and there; tasks that hang go on or die."""
        self.some_wish()
        for node in self.world.nodes.values():
            chance = self.random.random()
            if chance < 0.5:
                self.settle(node, self.random.choice((0.3, 0.7, 1.0)))
            for task in (node.agent, node.watcher):
                if task is not None and node.up:
                    if self.random.random() < 0.4:
                        self.world.kill(task)
                    elif self.random.random() < 0.5:
                        self.drive(task, self.random.choice((1, 3, 30)))
            if self.random.random() < 0.5:
                self.hear_some(node, 0.6)

    def pick(self) -> Node:
        return self.random.choice(list(self.world.nodes.values()))

    def hear_some(self, node: Node, chance: float) -> None:
        for owner in self.world.nodes:
            if self.random.random() < chance:
                self.world.hear(node, owner)

    def begin(self, node: Node, kind: str, candidate: str = "") -> Task | None:
        """Begin an operation where the executor is free (one operation of the resource at a time)."""
        busy = node.watcher if kind == "watch" else node.agent
        if not node.up:
            return None
        if busy is not None:
            if self.random.random() < 0.5:
                return None
            self.world.kill(busy)
        return self.world.task(node.name, kind, candidate)

    def drive(self, task: Task, steps: int) -> None:
        """So many steps of a task, while the world does not stand still; sometimes it stops in the middle."""
        fragile = self.random.random() < 0.25
        for _ in range(steps):
            self.world.advance(task)
            if task.outcome is not None or not task.node.up:
                return
            if task.actions:
                if fragile and self.random.random() < 0.15:
                    self.interrupt(task)
                    return
            else:
                self.settle(task.node, 0.8)
                chance = self.random.random()
                if chance < 0.3:
                    self.settle(self.pick(), 0.8)
                elif chance < 0.5:
                    self.hear_some(task.node, 0.7)
                elif chance < 0.55:
                    self.small_event()
                elif fragile and chance < 0.6:
                    self.interrupt(task)
                    return

    def interrupt(self, task: Task) -> None:
        """In the middle of a procedure: its process, its PostgreSQL or its machine dies, or it only hangs."""
        chance = self.random.random()
        if chance < 0.3:
            self.world.kill(task)
        elif chance < 0.5:
            self.world.crash(task.node)
        elif chance < 0.65:
            self.world.kill_postgres(task.node)

    def small_event(self) -> None:
        node = self.pick()
        chance = self.random.random()
        if chance < 0.3:
            self.world.write(node)
        elif chance < 0.5:
            self.some_watch()
        elif chance < 0.7:
            self.world.confuse(node, self.pick().name)
        else:
            self.settle(node, 0.5)

    def campaign(self) -> None:
        """Somebody stands; some are asked; messages get through or not; the promotion runs, to its end or not."""
        world, chance = self.world, self.random.random
        candidate = self._candidate()
        if chance() < 0.5:  # Pacemaker demotes before it promotes
            for node in world.nodes.values():
                if node.run is Run.PRIMARY and chance() < 0.8:
                    self.run(node, "demote")
        if chance() < 0.75:
            clock = max(node.round for node in world.nodes.values())
            if chance() < 0.8:
                clock = max(clock, 1 + max(node.state.promised.round for node in world.nodes.values()))
            for node in world.nodes.values():
                node.round = clock
        asked = self._electorate(candidate)
        for name in asked:
            node = world.nodes[name]
            if node.run is Run.DOWN and chance() < 0.5:
                world.hear(node, candidate.name)
                self.run(node, "watch")
            else:
                self.run(node, "answer", candidate.name)
        for name in asked:
            if chance() < 0.9:
                world.hear(candidate, name)
        if chance() < 0.9:
            self.run(candidate, "promote")
        keen = chance()
        if keen < 0.6:
            for node in world.nodes.values():
                self.settle(node, 0.9)
        if keen < 0.3:
            world.write(candidate)

    def _candidate(self) -> Node:
        """Mostly one that can win."""
        node = self.pick()
        if self.random.random() < 0.7:
            node = max((self.pick() for _ in range(3)), key=lambda node: (node.up, node.run is Run.STANDBY, node.end, node.name))
        if node.run is Run.DOWN and self.random.random() < 0.7:
            self.world.boot(node)
            self.run(node, "start")
            self.settle(node)
        if node.run is Run.PRIMARY and self.random.random() < 0.7:
            self.run(node, "demote")
            self.settle(node)
        return node

    def _electorate(self, candidate: Node) -> list[str]:
        """Whom the cluster reaches: all, or just as many as are needed, or one fewer."""
        members = list(self.world.nodes)
        self.random.shuffle(members)
        enough = len(members) - self.world.rules.sync_count
        asked = members[: self.random.choice((len(members), enough, enough, enough, enough - 1))]
        if candidate.name not in asked and self.random.random() < 0.9:
            asked = [*asked[1:], candidate.name]
            self.random.shuffle(asked)
        return [*asked, *self.world.rules.readers]  # they hear the same notification

    def run(self, node: Node, kind: str, candidate: str = "") -> None:
        task = self.begin(node, kind, candidate)
        if task is not None:
            self.drive(task, 90 if self.random.random() < 0.85 else self.random.randint(1, 9))

    def some_writes(self) -> None:
        primaries = [node for node in self.world.nodes.values() if node.run is Run.PRIMARY]
        if not primaries:
            self.settle(self.pick(), 1.0)
            return
        node = self.random.choice(primaries)
        for _ in range(self.random.choice((1, 1, 2))):
            self.world.write(node, flush=self.random.random() < 0.9)
        for follower in self.world.nodes.values():
            if self.random.random() < 0.7:
                self.settle(follower, 0.9)
        self.settle(node, 0.9)

    def some_monitor(self) -> None:
        node = self.pick()
        if node.run is Run.DOWN:
            self.hear_some(node, 0.7)
            self.run(node, "start")
        else:
            self.hear_some(node, 0.8)
            self.run(node, "monitor")

    def some_watch(self) -> None:
        node = self.pick()
        if node.up and node.watcher is None:
            self.hear_some(node, 0.8)
            kind = "reign" if node.run is Run.PRIMARY and self.random.random() < 0.6 else "watch"
            task = self.world.task(node.name, kind, watcher=True)
            for _ in range(40):
                self.world.advance(task)
                if task.outcome is not None or self.random.random() < 0.05:
                    return
                if self.random.random() < 0.5:
                    self.settle(node, 0.8)

    def some_role(self) -> None:
        node = self.pick()
        kind = self.random.choice(("demote", "stop", "promote", "start"))
        self.run(node, kind)

    def some_fault(self) -> None:
        world, node, chance = self.world, self.pick(), self.random.random()
        if chance < 0.35:
            world.crash(node)
        elif chance < 0.6:
            for other in world.nodes.values():
                world.boot(other)
        elif chance < 0.8:
            world.kill_postgres(node)
        elif chance < 0.85:
            world.restart_inside(node)
        elif chance < 0.87:
            world.promote_by_hand(node)
        elif chance < 0.92:
            for other in world.nodes.values():
                world.crash(other)
            for other in world.nodes.values():
                world.boot(other)
        elif chance < 0.95:
            node.silent = not node.silent
        elif node.stuck:
            node.stuck.clear()
        else:
            node.stuck.add("checkpointer")
        if not node.up and self.random.random() < 0.6:
            world.boot(node)

    def some_cut(self) -> None:
        world, node = self.world, self.pick().name
        chance = self.random.random()
        mine = {pair for pair in {(a, b) for a in world.nodes for b in world.nodes if a != b} if node in pair}
        if chance < 0.25:
            world.links |= mine
            world.messages |= mine
        elif chance < 0.45:
            world.links -= mine
        elif chance < 0.65:
            world.messages -= mine
        elif chance < 0.8:
            world.links -= mine
            world.messages -= mine
        else:
            pair = self.random.choice(sorted(mine))
            world.links.discard(pair)

    def some_of_the_row(self) -> None:
        """It is cut off from some node or from none, for itself; late requests arrive."""
        world, chance = self.world, self.random.random()
        if chance < 0.4:
            world.row_links ^= {self.pick().name}
        elif chance < 0.6:
            world.row_links = set(world.nodes) if self.random.random() < 0.7 else set()
        elif chance < 0.8:
            world.deliver_late()
        else:
            world.row.forget()

    def some_confusion(self) -> None:
        world, node = self.world, self.pick()
        chance = self.random.random()
        if chance < 0.7:
            for owner in world.nodes:
                if self.random.random() < 0.5:
                    world.confuse(node, owner)
        elif chance < 0.9:
            node.round = self.pick().round
        else:
            node.round = self.random.choice((1, node.round + 1, node.state.promised.round))

    def some_wish(self) -> None:
        """An operator wants somebody as the next primary, now and then; his wish may be old, or of another reign, or senseless."""
        operator, world = self.world.operator, self.world
        if operator.random() < 0.15:
            name, target, other = (operator.choice(world.rules.members) for _ in range(3))
            wish = Wish(target, world.nodes[operator.choice((name, other))].state.reign, Lsn(operator.choice((0, 1 << 40))), operator.randint(1, 9))
            world.attributes[name, f"{world.rules.resource}-switch"] = str(wish)
            if operator.random() < 0.7:
                world.attributes[target, f"master-{world.rules.resource}"] = "INFINITY"

    def some_rebuild(self) -> None:
        world, node = self.world, self.pick()
        sources = [other for other in world.nodes.values() if other.promotion is not None and other is not node]
        if not sources:
            return
        source = self.random.choice(sources)
        if node.run is not Run.DOWN:
            self.run(node, "stop")
        world.hear(node, source.name)
        world.copy(node, source, until=self.random.choice((1, 2, 3, 3, 3, 3)), rewind=self.random.random() < 0.4)
        if self.random.random() < 0.7:
            self.run(node, "start")

    def some_tag(self) -> None:
        """Somebody sets or takes away a tag of a node."""
        key = (self.pick().name, f"pgsql-{self.random.choice(('nofailover', 'nosync', 'priority'))}")
        if self.world.tags.pop(key, None) is None:
            self.world.tags[key] = str(self.random.randint(1, 9)) if key[1].endswith("priority") else "true"

    def some_list(self) -> None:
        """The operator wishes other members, another k, another strictness; some nodes hear of it, others have an older wish or one that is back."""
        world, goal = self.world, self.world.goal
        chance, members, k, strict = self.random.random(), goal.members, goal.sync_count, goal.strict
        absent = [name for name in world.nodes if name not in members]
        if chance < 0.45 and absent:
            members = (*members, self.random.choice(absent))
        elif chance < 0.75 and len(members) > 2:
            gone = self.random.choice(members)
            members = tuple(name for name in members if name != gone)
        elif chance < 0.9:
            k += self.random.choice((-1, 1))
        else:
            strict = not strict
        world.goal = goal._replace(members=members, sync_count=max(1, min(k, len(members) // 2)), strict=strict)
        for node in world.nodes.values():
            if self.random.random() < 0.7:
                node.wish = self.random.choice((world.goal, world.goal, world.goal, goal))

    def some_change(self) -> None:
        """Pacemaker and the watchers give a change of members the time for a few steps: the primary reigns, the others store."""
        world = self.world
        primaries = [node for node in world.nodes.values() if node.run is Run.PRIMARY]
        if not primaries:
            return
        primary = max(primaries, key=lambda node: node.state.reign) if self.random.random() < 0.8 else self.random.choice(primaries)
        for name in world.goal.members:
            node = world.nodes[name]
            if node.state.mark and node.run is Run.DOWN and self.random.random() < 0.6:
                world.hear(node, primary.name)
                world.copy(node, primary)
        for _ in range(self.random.choice((1, 2, 4))):
            for node in world.nodes.values():
                if node is not primary and self.random.random() < 0.7:
                    world.hear(node, primary.name)
                    self.run(node, self.random.choice(("watch", "start" if node.run is Run.DOWN else "monitor")))
                    self.settle(node, 0.8)
                    if self.random.random() < 0.9:
                        world.hear(primary, node.name)
            self.settle(primary, 0.8)
            self.run(primary, "reign")
            if self.random.random() < 0.5:
                world.write(primary)
            self.settle(primary, 0.8)

    def some_progress(self) -> None:
        self.settle_all(0.9)
        for node in self.world.nodes.values():
            self.hear_some(node, 0.9)


class Setting(NamedTuple):
    """One shape of a cluster."""

    name: str
    rules: Rules
    first: bool = False
    timeline: int = 1
    spare: str = ""


def rules(mode: Mode, members: int, count: int, *, strict: bool, readers: int = 0, row: bool = False) -> Rules:
    """The rules of a cluster of so many members, and nodes that only read."""
    return Rules("pgsql", tuple("abcdefg"[:members]), mode, count, strict, readers=tuple("xyz"[:readers]), row=row)


SETTINGS: tuple[Setting, ...] = (
    Setting("sync 3/1", rules(Mode.SYNC, 3, 1, strict=False)),
    Setting("quorum 3/1 strict", rules(Mode.QUORUM, 3, 1, strict=True)),
    Setting("quorum 3/1", rules(Mode.QUORUM, 3, 1, strict=False)),
    Setting("sync 3/1 strict", rules(Mode.SYNC, 3, 1, strict=True)),
    Setting("quorum 5/2 strict", rules(Mode.QUORUM, 5, 2, strict=True)),
    Setting("sync 5/2", rules(Mode.SYNC, 5, 2, strict=False)),
    Setting("sync 2/1", rules(Mode.SYNC, 2, 1, strict=False)),
    Setting("quorum 2/1 strict", rules(Mode.QUORUM, 2, 1, strict=True)),
    Setting("first election, sync 3/1", rules(Mode.SYNC, 3, 1, strict=False), first=True),
    Setting("first election, quorum 3/1 strict, old timelines", rules(Mode.QUORUM, 3, 1, strict=True), first=True, timeline=4),
    Setting("quorum 5/1 strict", rules(Mode.QUORUM, 5, 1, strict=True)),
    Setting("quorum 3/2 strict", rules(Mode.QUORUM, 3, 2, strict=True)),
    Setting("quorum 4/2 strict", rules(Mode.QUORUM, 4, 2, strict=True)),
    Setting("sync 3/1, 2 read", rules(Mode.SYNC, 3, 1, strict=False, readers=2)),
    Setting("quorum 3/1 strict, 2 read", rules(Mode.QUORUM, 3, 1, strict=True, readers=2)),
    Setting("first election, sync 3/1, 1 reads", rules(Mode.SYNC, 3, 1, strict=False, readers=1), first=True),
    Setting("sync 2/1 with a row", rules(Mode.SYNC, 2, 1, strict=False, row=True)),
    Setting("first election, quorum 2/1 with a row", rules(Mode.QUORUM, 2, 1, strict=False, row=True), first=True),
    Setting("quorum 2/1 with a row", rules(Mode.QUORUM, 2, 1, strict=False, row=True)),
    Setting("sync 3/1 with a row", rules(Mode.SYNC, 3, 1, strict=False, row=True)),
)

CHANGING: tuple[Setting, ...] = (
    Setting("members change, quorum 3/1 strict", rules(Mode.QUORUM, 3, 1, strict=True), spare="d"),
    Setting("members change, sync 3/1", rules(Mode.SYNC, 3, 1, strict=False), spare="d"),
    Setting("members change, quorum 4/1", rules(Mode.QUORUM, 4, 1, strict=False), spare="e"),
    Setting("members change, quorum 4/2 strict", rules(Mode.QUORUM, 4, 2, strict=True), spare="e"),
    Setting("members change, sync 5/2", rules(Mode.SYNC, 5, 2, strict=False), spare="f"),
    Setting("members change, quorum 2/1 strict", rules(Mode.QUORUM, 2, 1, strict=True), spare="cd"),
)
"""Shapes in which an operator changes members, k and strictness while everything goes on: runs of their own, the others stay as they are."""


def prepare(setting: Setting, seed: int, core: Core = REAL, *, trace: bool = False, start: bool = True) -> Player:
    """A world of this shape at its beginning."""
    world = World(setting.rules, seed, core, trace=trace, spare=tuple(setting.spare))
    world.found(2, timeline=setting.timeline)
    player = Player(world)
    if not setting.first:
        world.establish()
        return player
    world.acknowledged = list(world.nodes[setting.rules.members[0]].wal)  # by whatever it was before
    if start:
        for node in list(world.nodes.values())[1:]:  # copies of one database that do not all reach as far
            for _ in range(world.random.choice((0, 0, 1))):
                node.wal.pop()
                node.flushed = node.end
        for name in world.nodes:
            player.complete(name, "start")
    return player


def play(
    seed: int, core: Core = REAL, *, settings: tuple[Setting, ...] = SETTINGS, trace: bool = False, moves: int = 0, live: bool = True, flaw: str = ""
) -> World:
    """One run; raises Violation. The seed says everything."""
    setting = settings[seed % len(settings)]
    player = prepare(setting, seed, core, trace=trace)
    world = player.world
    world.flaws = world.row.flaws = frozenset(filter(None, (flaw,)))
    try:
        player.chaos(moves or world.random.randint(8, 60))
        if not live:
            return world
        player.heal()
        lost = any(node.state.mark for node in world.members)  # a half-made copy of a member: a hand is needed
        if not lost and not player.recover():
            world.fail("liveness", "no commit is acknowledged although all faults have healed")
        if not lost and world.spare and not player.fulfil():
            world.fail("liveness", f"the members are not what the operator wishes: {world.goal.circle}")
    except Violation as violation:
        violation.world = world  # type: ignore[attr-defined]
        raise
    return world


def explain(seed: int, core: Core = REAL, *, settings: tuple[Setting, ...] = SETTINGS, moves: int = 0) -> str:
    """The story of a run that fails."""
    try:
        world = play(seed, core, settings=settings, trace=True, moves=moves)
    except Violation as violation:
        world = violation.world  # type: ignore[attr-defined]
        return "\n".join([f"seed {seed}, {settings[seed % len(settings)].name}", *world.log, world.picture(), str(violation)])
    return f"seed {seed} holds"


def hunt(
    seeds: Iterable[int], core: Core = REAL, *, settings: tuple[Setting, ...] = SETTINGS, live: bool = True, flaw: str = ""
) -> tuple[int, str] | None:
    """The first seed that breaks a promise, and which."""
    for seed in seeds:
        try:
            play(seed, core, settings=settings, live=live, flaw=flaw)
        except Violation as violation:
            return seed, str(violation)
    return None
