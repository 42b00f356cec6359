"""A world around the pure core: nodes, PostgreSQL, a cluster that loses and repeats; and the checks of the safety rules.

The procedures of `pgsql`, `duties` and `copying` run here as they are; nothing of them is imitated. What is imitated is everything they touch,
as bad as it was measured to be: WAL receivers that end late, reloads that reach the postmaster, the checkpointer and each
walsender at different times, PostgreSQL that compares timeline numbers only, votes that are lost, late or resurrected,
a round that differs from node to node, crashes between any two actions. After every step the invariants are checked:

I1  whoever is promoted under the highest ballot so far has every acknowledged commit
I2  after that, nothing is acknowledged that the promoted one lacks
I3  what a standby receives continues its own WAL: histories never mix
I4  the state file of every node labels its WAL with the terms under which it was written

One LSN is one record. Follow is obeyed at once by new receivers (the adapter's duty, see FLAWS), not by an old one.
"""

from __future__ import annotations

import importlib
import random
import re
import sys
import types
from functools import cache
from pathlib import Path
from typing import Any, Callable, NamedTuple

from pha4pgsql import words
from pha4pgsql.words import NEVER, Action, Ballot, Era, Follower, Instance, Lsn, Outcome, Procedure, Rules, Run, Scene, State, Upstream, Vote

SYSTEM = "7000000000000000001"
OPERATION = 60.0
"""Seconds that Pacemaker gives an operation."""


ROW_FLAWS = {
    "the row stores in spite of a higher promise": "its statement has the condition promised <= term",
    "the row answers without promising": "it is asked by an UPDATE, never by a SELECT",
    "the row is made anew, empty": "it is known by an identity of its own, and never recreated for a set that has counted on it",
    "the row is a lease": "nothing in it ends by time",
    "the row stores an older statement": "its statement has the condition (at, count) < (term, count)",
}
"""What the lock's server and the adapter owe the core."""

FLAWS = {
    "slots are kept": "Launch has to remove the slots of earlier terms",
    "stores are lost": "Store has to be on disk before the next action",
    "an old upstream is tried again": "Follow has to be obeyed before it returns: no receiver begins with the old settings after it",
}
"""What the adapters owe the core, for worlds in which they do not give it: that has to be noticed too."""


class Violation(AssertionError):
    """The core broke a promise in this world."""


class Core(NamedTuple):
    """The modules under test, or mutated copies of them, each after those that it imports."""

    vote: Any
    sight: Any
    standby_names: Any
    shown: Any
    duties: Any
    pgsql: Any
    copying: Any


REAL = Core(*(importlib.import_module(f"pha4pgsql.{name}") for name in Core._fields))


def mutated(*edits: tuple[str, str, str]) -> Core:
    """Copies of the modules with (module, old text, new text) replaced; the old text must be there exactly once."""
    texts = {name: Path(str(getattr(REAL, name).__file__)).read_text(encoding="utf-8") for name in Core._fields}
    for module, old, new in edits:
        if texts[module].count(old) != 1:
            raise LookupError(f"{texts[module].count(old)} places in {module}.py read {old!r}: bring the mutation up to date")
        if old == new:
            raise LookupError(f"the mutation of {old!r} in {module}.py changes nothing: bring it up to date")
        texts[module] = texts[module].replace(old, new)
    modules = {name: types.ModuleType(f"pha4pgsql_mutant_{name}") for name in texts}
    sys.modules.update({copy.__name__: copy for copy in modules.values()})
    try:
        for name, copy in modules.items():
            text = OURS.sub(r"from pha4pgsql_mutant_\1 import", texts[name])
            exec(compile(text, f"<mutated {name}>", "exec"), copy.__dict__)  # noqa: S102 - our own source
    finally:
        for copy in modules.values():
            del sys.modules[copy.__name__]
    return Core(**modules)


OURS = re.compile(rf"from pha4pgsql\.({'|'.join(Core._fields)}) import")


# -- the ground truth --------------------------------------------------------------------------------------------


class Promotion:
    """One promotion that really happened: its ballot as the state file had it, and the WAL it began with."""

    __slots__ = ("ballot", "base", "node")

    def __init__(self, ballot: Ballot, node: str, base: tuple[Record, ...]) -> None:
        self.ballot, self.node, self.base = ballot, node, base


class Record:
    """One WAL record. Two records are the same only when they are the same object, whatever their numbers say."""

    __slots__ = ("birth", "parent", "timeline")

    def __init__(self, parent: Record | None, birth: Promotion | None, timeline: int) -> None:
        self.parent, self.birth, self.timeline = parent, birth, timeline

    @property
    def term(self) -> Ballot:
        return self.birth.ballot if self.birth else NEVER


Chain = tuple[tuple[int, int], ...]
"""A timeline's ancestry, as a history file tells it: (timeline, its first position), the timeline itself last."""


def timeline_at(chain: Chain, position: int) -> int:
    """PostgreSQL's tliOfPointInHistory."""
    return [timeline for timeline, start in chain if start <= position][-1]


def end_of(chain: Chain, timeline: int) -> float:
    """Where a timeline of this ancestry was left; infinity for the last."""
    starts = [start for _, start in chain]
    place = [number for number, _ in chain].index(timeline)
    return starts[place + 1] if place + 1 < len(starts) else float("inf")


@cache
def parse_names(names: str) -> tuple[bool, int, tuple[str, ...]]:
    """A synchronous_standby_names as (whether it is ANY, the number, the names)."""
    quoted = tuple(names.split('"')[1::2])
    head = names.partition("(")[0].split()
    number = int(head[-1]) if head and head[-1].isdigit() else 1
    return (names.startswith("ANY"), number, quoted)


# -- the row -----------------------------------------------------------------------------------------------------


class Row:
    """The row of the distributed lock: a voice on a machine of its own. What the adapter's SQL does, each statement at once."""

    def __init__(self) -> None:
        self.vote = Vote()
        self.flaws: frozenset[str] = frozenset()

    def ask(self, action: words.AskRow) -> Vote:
        if self.vote.promised >= action.ballot:
            return self.vote
        answer = self.vote._replace(promised=action.ballot)
        if "the row answers without promising" not in self.flaws:
            self.vote = answer
        return answer

    def store(self, action: words.StoreRow) -> Vote:
        new = action.statement
        late = new.number <= self.vote.said.number and "the row stores an older statement" not in self.flaws
        early = new.term < self.vote.promised and "the row stores in spite of a higher promise" not in self.flaws
        if not late and not early:
            self.vote = self.vote._replace(said=new, promised=new.term)
        return self.vote

    def forget(self) -> None:
        """What happens to a row that is not what it should be."""
        if "the row is made anew, empty" in self.flaws:
            self.vote = Vote()
        if "the row is a lease" in self.flaws:
            self.vote = self.vote._replace(said=words.SILENCE)


# -- a node ------------------------------------------------------------------------------------------------------


class Connection:
    """A walsender and a WAL receiver; either may outlive the other."""

    __slots__ = ("flush", "follower", "names", "receiving", "replies", "sending", "slot", "upstream")

    def __init__(self, follower: Node, upstream: Node, slot: str) -> None:
        self.follower, self.upstream, self.slot = follower, upstream, slot
        self.receiving = self.sending = True
        self.names = upstream.session
        self.flush: int | None = None
        self.replies: list[int] = []

    @property
    def priority(self) -> int:
        """The walsender's own sync_priority, as pg_stat_replication shows it: 0 without a flush position, whatever set it has read."""
        quorum, _, names = parse_names(self.names)
        return 0 if self.flush is None or self.follower.name not in names else 1 if quorum else names.index(self.follower.name) + 1


class Node:
    """A machine: what its disk keeps, what PostgreSQL has in memory, what its agents have in memory."""

    def __init__(self, name: str, wish: Rules) -> None:
        self.name, self.wish = name, wish
        self.up = True
        # disk
        self.wal: list[Record] = []
        self.flushed = 0
        self.histories: dict[int, Chain] = {1: ((1, 0),)}
        self.target = 1
        self.segments = {1}
        self.state = self.older = State()
        self.names = ""
        self.follows: Upstream | None = None
        self.former: Upstream | None = None
        self.slots: set[str] = set()
        # PostgreSQL
        self.run = Run.DOWN
        self.silent = False
        self.session = ""
        self.checkpointer = ""
        self.receiver: Connection | None = None
        self.senders: dict[str, Connection] = {}
        self.waiting: list[Record] = []
        self.asked_to_promote = False
        self.promotion: Promotion | None = None
        self.proven = False
        self.stuck: set[str] = set()  # processes that do not read the settings file again for now
        # cluster software and agents
        self.view: dict[str, Vote] = {}
        self.round = 1
        self.agent: Task | None = None
        self.watcher: Task | None = None
        self.lock: Task | None = None

    @property
    def end(self) -> int:
        return len(self.wal)

    def timeline_here(self, *, announced: bool = False) -> int:
        """The timeline of the last record; or the one announced by whatever was received, though nothing of it may be left."""
        last = self.wal[-1].timeline if self.wal else 1
        return max(last, *self.segments) if announced else last


class Task:
    """One run of a procedure by an agent: a look and its actions under the node's lock, then the next look."""

    __slots__ = ("actions", "beginning", "elapsed", "kind", "limit", "node", "outcome", "procedure", "row")

    def __init__(self, node: Node, kind: str, beginning: Callable[[Scene], Procedure]) -> None:
        self.node, self.kind, self.beginning = node, kind, beginning
        self.procedure: Procedure | None = None
        self.actions: list[Action] = []
        self.elapsed = 0.0
        self.limit = OPERATION
        self.outcome: Outcome | None = None
        self.row: Vote | None = None


class World:
    """Everything there is, and the checks."""

    def __init__(self, rules: Rules, seed: int, core: Core = REAL, *, trace: bool = False, spare: tuple[str, ...] = ()) -> None:
        self.rules, self.core, self.random, self.seed, self.spare = rules, core, random.Random(seed), seed, spare
        self.operator = random.Random(f"operator {seed}")  # a dice of his own, so that his wishes do not change what else happens
        self.goal = rules  # who is to be a member, as the operator wishes; every node has its own copy of the CIB, so of the wish
        self.nodes = {name: Node(name, rules) for name in (*rules.members, *rules.readers, *spare)}
        self.published: dict[str, list[Vote]] = {name: [] for name in self.nodes}
        self.links = {(one, other) for one in self.nodes for other in self.nodes if one != other}
        self.messages = set(self.links)
        self.attributes: dict[tuple[str, str], str] = {}
        self.tags: dict[tuple[str, str], str] = {}  # what people have set, by node and attribute
        self.acknowledged: list[Record] = []
        self.highest: Promotion | None = None
        self.promotions = 0
        self.override = ""
        self.dc = rules.members[-1]
        self.fair = False
        self.tick = 1.0
        self.announces = False  # whether an instance shows the newest timeline it ever heard of
        self.trace = trace
        self.log: list[str] = []
        self.flaws: frozenset[str] = frozenset()  # of FLAWS and ROW_FLAWS
        self.row = Row()
        self.row_links = set(rules.members) if rules.row else set()
        self.forgetful: set[str] = set()  # nodes whose state file somebody has deleted
        self.late: list[words.AskRow | words.StoreRow] = []  # requests to the row that are still on their way; nobody waits for them any more

    # -- beginning -----------------------------------------------------------------------------------------------

    def found(self, records: int = 2, *, timeline: int = 1) -> None:
        """All nodes are copies of one database that no primary of this cluster ever wrote to; PostgreSQL is down."""
        parent: Record | None = None
        wal = []
        for _ in range(records):
            parent = Record(parent, None, timeline)
            wal.append(parent)
        chain = tuple((number, 0) for number in range(1, timeline + 1))
        for name in self.spare:
            self.nodes[name].state = State(mark="no data yet")
        for node in self.members:
            node.wal, node.flushed = list(wal), records
            node.histories = {number: chain[:number] for number in range(1, timeline + 1)}
            node.target, node.segments = timeline, {timeline}

    @property
    def members(self) -> tuple[Node, ...]:
        """Those who were members or readers in the beginning."""
        return tuple(self.nodes[name] for name in (*self.rules.members, *self.rules.readers))

    def establish(self) -> None:
        """The first member was elected, the others follow it and nothing is waiting. Some may have state files of before there were lists."""
        first, *others = (node.name for node in self.members)
        term = Ballot(1, first)
        start = self.nodes[first].end
        timeline = self.nodes[first].target + 1
        promotion = Promotion(term, first, tuple(self.nodes[first].wal))
        record = Record(self.nodes[first].wal[-1], promotion, timeline)
        self.highest, self.promotions = promotion, 1
        listed = self.spare or self.seed % 2 == 0
        for node in self.members:
            node.wal.append(record)
            node.flushed = node.end
            node.histories[timeline] = (*node.histories[node.target], (timeline, start))
            node.target = timeline
            node.segments.add(timeline)
            node.state = State(term, (Era(timeline, Lsn(start), term),), reign=term if node.name == first else NEVER)
            node.state = node.state._replace(roster=self.rules.roster) if listed else node.state
            node.older = node.state
            node.names = node.session = node.checkpointer = self.core.standby_names.quorum_names(self.rules, node.name)
            node.run, node.round = Run.STANDBY, 2
        primary = self.nodes[first]
        primary.run, primary.promotion = Run.PRIMARY, promotion
        for name in others:
            slot = self.core.sight.slot_name(self.rules.slot_prefix, term, name)
            primary.slots.add(slot)
            self.nodes[name].follows = Upstream(first, slot)
            self.connect(self.nodes[name])
            self.stream(self.nodes[name], 9)
        for node in self.nodes.values():
            self.publish(node, self.core.shown.my_vote(self.scene(node)))
        for node in self.nodes.values():
            self.hear_all(node)

    # -- what a look sees ----------------------------------------------------------------------------------------

    def instance(self, node: Node) -> Instance:
        """The local PostgreSQL as observed."""
        run = Run.SILENT if node.silent and node.run is not Run.DOWN else node.run
        receiver = node.receiver if run in (Run.STANDBY, Run.PRIMARY) else None  # a server that does not answer shows no receiver
        lsn: Lsn | None = Lsn(node.flushed if run in (Run.PRIMARY, Run.STANDBY) else node.end)
        if not self.fair and (run is Run.SILENT or self.random.random() < (0.5 if run is Run.STARTING else 0.02)):
            lsn = None
        followers = (
            tuple(
                Follower(sender.follower.name, "streaming", "", None if sender.flush is None else Lsn(sender.flush), slot, sender.priority)
                for slot, sender in sorted(node.senders.items())
                if sender.sending
            )
            if run is Run.PRIMARY
            else ()
        )
        return Instance(
            run,
            lsn,
            node.timeline_here(announced=self.announces or (not self.fair and self.random.random() < 0.3)),
            system_identifier=SYSTEM,
            receiving=receiver is not None,
            streaming=receiver is not None and receiver.sending,
            upstream=node.follows,
            names=node.names,
            names_shown=node.session if run in (Run.PRIMARY, Run.STANDBY) else None,
            followers=followers,
            slots=tuple(sorted(node.slots)),
            histories=self.histories(node),
            proven=node.proven,
            unheld=self.histories(node, held=False),
        )

    def histories(self, node: Node, *, held: bool = True) -> tuple[tuple[int, int, Lsn], ...]:
        """(timeline, parent, switch point) of the timelines of which there is a segment, or only a history file."""
        return tuple(
            (timeline, chain[-2][0], Lsn(chain[-1][1]))
            for timeline, chain in sorted(node.histories.items())
            if len(chain) > 1 and (timeline in node.segments) is held
        )

    def scene(self, node: Node, task: Task | None = None) -> Scene:
        """One look."""
        elapsed = task.elapsed if task else 0.0
        limit = task.limit if task else OPERATION
        return Scene(
            node.name,
            node.wish,
            node.state,
            self.instance(node),
            tuple(node.view.items()),
            node.round,
            self.override,
            online=frozenset(name for name, other in self.nodes.items() if other.up),
            dc=self.dc,
            attributes=(
                *((key, value) for key, value in self.attributes.items() if self.fair or key[1].endswith("-switch") or value == "INFINITY"),
                *self.tags.items(),
            ),
            elapsed=elapsed,
            left=limit - elapsed,
            row=task.row if task else None,
        )

    # -- agents --------------------------------------------------------------------------------------------------

    def task(self, name: str, kind: str, candidate: str = "", *, watcher: bool = False) -> Task:
        """Begin a procedure, by the agent or by pgwatch. `monitor` is follow or reign, by what runs; `answer` wants the candidate."""
        node, core = self.nodes[name], self.core
        if kind == "monitor":
            kind = "reign" if node.run is Run.PRIMARY else "follow"
        if kind == "answer":

            def beginning(scene: Scene) -> Procedure:
                return core.pgsql.answer(scene, Ballot(scene.round, candidate))  # type: ignore[no-any-return]
        else:
            beginning = getattr(core.duties if kind in ("reign", "tend") else core.pgsql, kind)
        task = Task(node, kind, beginning)
        if watcher or kind == "watch":
            node.watcher = task
        else:
            node.agent = task
        self.say(f"{name}: {kind} {candidate}begins")
        return task

    def advance(self, task: Task) -> None:
        """One step of an agent: the next action of its critical section, or its next look."""
        node = task.node
        if task.outcome is not None:
            return
        if task.actions:
            action = task.actions.pop(0)
            self.say(f"{node.name}: {task.kind} {action}")
            if isinstance(action, (words.AskRow, words.StoreRow)):
                self.ask_row(task, action)
            else:
                self.act(node, action)
            if not task.actions and node.lock is task:
                node.lock = None
            return
        if node.lock is not None:
            return
        try:
            if task.procedure is None:
                task.procedure = task.beginning(self.scene(node, task))
                actions = next(task.procedure)
            else:
                task.elapsed += self.tick if self.fair else self.random.choice((0.1, 1.0, 3.0))
                actions = task.procedure.send(self.scene(node, task))
        except StopIteration as end:
            task.outcome = end.value
            self.say(f"{node.name}: {task.kind} ends {task.outcome}")
            self.leave(task)
            return
        if actions:
            task.actions = list(actions)
            if not isinstance(actions[0], (words.AskRow, words.StoreRow)):  # nobody waits for another machine with the lock in hand
                node.lock = task

    def ask_row(self, task: Task, action: words.AskRow | words.StoreRow) -> None:
        """A request to the row: it may not get there, or late, and its answer may be lost; then nothing is known."""
        task.row = None
        if task.node.name not in self.row_links:
            return
        fate = 1.0 if self.fair else self.random.random()
        if fate < 0.1:
            self.late.append(action)
            return
        answer = self.row.store(action) if isinstance(action, words.StoreRow) else self.row.ask(action)
        if fate > 0.2:
            task.row = answer
            self.say(f"the row: promised {answer.promised}, said {answer.said}")

    def deliver_late(self) -> None:
        """A request arrives whose asker has given up long ago."""
        if self.late:
            action = self.late.pop(self.random.randrange(len(self.late)))
            self.say(f"the row gets a late {action}")
            if isinstance(action, words.StoreRow):
                self.row.store(action)
            else:
                self.row.ask(action)

    def leave(self, task: Task) -> None:
        """The process of this agent is gone, wherever it was."""
        node = task.node
        task.actions = []
        if node.lock is task:
            node.lock = None
        if node.agent is task:
            node.agent = None
        if node.watcher is task:
            node.watcher = None

    def kill(self, task: Task | None) -> None:
        """Pacemaker's timeout, or an operator's kill -9."""
        if task is not None and task.outcome is None:
            self.say(f"{task.node.name}: {task.kind} is killed")
            task.outcome = Outcome(False, "killed")
            self.leave(task)

    def act(self, node: Node, action: Action) -> None:  # noqa: C901, PLR0912 - one branch for each word
        """Perform one action."""
        if isinstance(action, words.Store):
            node.older = node.state
            node.state = action.state
            self.check_labels(node)
        elif isinstance(action, words.Publish):
            self.publish(node, action.vote)
        elif isinstance(action, words.Follow):
            node.former, node.follows = node.follows, action.upstream
        elif isinstance(action, words.Name):
            node.names, node.proven = action.names, False
        elif isinstance(action, words.MakeSlots):
            if node.run is not Run.DOWN:
                node.slots.update(action.slots)
        elif isinstance(action, words.Launch):
            self.launch(node, action)
        elif isinstance(action, words.Shutdown):
            self.shutdown(node)
        elif isinstance(action, words.Promote):
            node.asked_to_promote = node.run in (Run.STANDBY, Run.STARTING)
        elif isinstance(action, words.Prove):
            if node.run is Run.PRIMARY:
                self.append(node)
                node.flushed = node.end
                node.proven = bool(node.checkpointer)
        elif isinstance(action, words.Nudge):
            if node.run is Run.PRIMARY:
                self.append(node)
                node.flushed = node.end
        elif isinstance(action, words.Attributes):
            for key, value in (*action.transient, *action.permanent):
                if value is None:
                    self.attributes.pop(key, None)
                else:
                    self.attributes[key] = value
        elif isinstance(action, words.Properties):
            for name, value in action.values:
                if name.endswith("_round") and value:
                    node.round = int(value)

    def publish(self, node: Node, vote: Vote) -> None:
        self.published[node.name].append(vote)
        node.view[node.name] = vote

    # -- PostgreSQL ----------------------------------------------------------------------------------------------

    def launch(self, node: Node, action: words.Launch) -> None:
        """Start the postmaster as standby; slots of earlier terms are removed before, and history files that the WAL never entered."""
        if node.run is not Run.DOWN:
            return
        node.names, node.follows = action.names, action.upstream
        if "slots are kept" not in self.flaws:
            node.slots = set()
        node.target = node.timeline_here()
        node.histories = {timeline: chain for timeline, chain in node.histories.items() if timeline <= node.target}
        node.session = node.checkpointer = node.names
        node.flushed = node.end
        node.run, node.silent, node.asked_to_promote, node.promotion = Run.STARTING, False, False, None

    def shutdown(self, node: Node) -> None:
        if node.run is Run.DOWN:
            return
        if node.receiver:
            self.end_receiver(node)
        node.flushed = node.end
        self.die(node)

    def die(self, node: Node) -> None:
        """The postmaster and its children are gone."""
        for sender in node.senders.values():
            sender.sending = False
        if node.receiver:
            node.receiver.receiving = False
        if node.run is Run.PRIMARY and node.flushed < node.end and self.random.random() < 0.5:
            del node.wal[node.flushed :]
        node.receiver, node.senders, node.waiting = None, {}, []
        node.run, node.silent, node.asked_to_promote, node.promotion, node.proven = Run.DOWN, False, False, None, False

    def kill_postgres(self, node: Node) -> None:
        if node.run is not Run.DOWN:
            self.say(f"{node.name}: PostgreSQL is killed")
            self.die(node)

    def restart_inside(self, node: Node) -> None:
        """A backend crashed: the postmaster starts its children anew, in the role it has."""
        if node.run is not Run.PRIMARY:
            return
        self.say(f"{node.name}: PostgreSQL reinitialises")
        del node.wal[node.flushed :]
        for sender in node.senders.values():
            sender.sending = False
        node.senders, node.waiting = {}, []
        node.session = node.checkpointer = node.names

    def crash(self, node: Node) -> None:
        """Power loss: what was not flushed is gone."""
        if not node.up:
            return
        self.say(f"{node.name}: power loss")
        self.kill(node.agent)
        self.kill(node.watcher)
        self.die(node)
        del node.wal[node.flushed :]
        if "stores are lost" in self.flaws:
            node.state = node.older
        node.up, node.view = False, {}
        self.attributes = {key: value for key, value in self.attributes.items() if key[0] != node.name or key[1].endswith("data-status")}

    def boot(self, node: Node) -> None:
        if node.up:
            return
        self.say(f"{node.name}: boots")
        node.up = True
        old = self.published[node.name]
        if old and self.random.random() < 0.3:  # a peer may hand back what it remembers of us
            self.publish(node, self.random.choice(old))

    def ready(self, node: Node) -> None:
        if node.run is Run.STARTING:
            node.run = Run.STANDBY

    def append(self, node: Node) -> Record:
        record = Record(node.wal[-1] if node.wal else None, node.promotion, node.target)
        node.wal.append(record)
        self.check_labels(node)
        return record

    def write(self, node: Node, *, flush: bool = True) -> Record | None:
        """A client commits something on a node that it takes for the primary."""
        if node.run is not Run.PRIMARY:
            return None
        record = self.append(node)
        self.say(f"{node.name}: a client writes {node.end}{'' if flush else ', not flushed yet'}")
        if flush:
            node.flushed = node.end
            if node.checkpointer:
                node.waiting.append(record)
            else:
                self.acknowledge(node, record)
        return record

    def acknowledge(self, node: Node, record: Record) -> None:
        position = node.wal.index(record) + 1
        self.say(f"{node.name}: commit {position} is acknowledged")
        self.acknowledged.append(record)
        top = self.highest
        if top and node.promotion is not top and not (position <= len(top.base) and top.base[position - 1] is record):
            self.fail("I2", f"{node.name} acknowledged commit {position}, which {top.node}, promoted under {top.ballot}, lacks")

    def finish_promotion(self, node: Node) -> None:
        """The startup process ends recovery: a new timeline, one above the known ones, and its first record."""
        if not node.asked_to_promote or node.run is not Run.STANDBY:
            return
        if node.receiver:
            self.end_receiver(node)
        node.flushed = node.end
        newest = node.target
        while newest + 1 in node.histories:
            newest += 1
        timeline = newest + 1
        chain = tuple((number, start) for number, start in node.histories[node.target] if start <= node.end)
        node.histories[timeline] = (*chain, (timeline, node.end))
        node.target = timeline
        node.segments.add(timeline)
        node.asked_to_promote = False
        node.run = Run.PRIMARY
        promotion = Promotion(node.state.reign, node.name, tuple(node.wal))
        node.promotion = promotion
        self.promotions += 1
        self.say(f"{node.name}: is primary of {promotion.ballot}, timeline {timeline} from {node.end}")
        if self.highest is None or promotion.ballot >= self.highest.ballot:
            self.highest = promotion
            for commit in self.acknowledged:
                if not any(record is commit for record in node.wal):
                    self.fail("I1", f"{node.name} was promoted under {promotion.ballot} without an acknowledged commit")
        self.append(node)
        node.flushed = node.end

    def promote_by_hand(self, node: Node) -> None:
        """Somebody runs `pg_ctl promote` on a standby that holds WAL of its newest term and awaits no other: else numbers alone would not tell it."""
        held = bool(node.state.eras) and node.state.eras[-1].start < node.end
        if node.run is Run.STANDBY and held and (node.state.pending, node.state.reign) == (NEVER, NEVER):
            self.say(f"{node.name}: is promoted by hand")
            node.asked_to_promote = True
            self.finish_promotion(node)

    def vouch(self, node: Node) -> None:
        """An operator says that what a node holds is to be the cluster's, though somebody promoted it by hand."""
        term = Ballot(1 + max(other.state.promised.round for other in self.nodes.values()), node.name)
        if self.rules.row:
            term = term._replace(round=max(term.round, self.row.vote.promised.round + 1))
        self.say(f"{node.name}: an operator vouches for it, term {term}")
        for record in node.wal:
            if record.birth is not None and record.term == NEVER:
                record.birth.ballot = term
        node.state = self.core.vote.vouch(node.state, term)

    # -- streaming -----------------------------------------------------------------------------------------------

    def linked(self, one: Node, other: Node) -> bool:
        return (one.name, other.name) in self.links and one.up and other.up

    def connect(self, node: Node) -> None:
        """The receiver tries its upstream: a slot that is there and free, and whatever PostgreSQL checks."""
        wanted = node.former if "an old upstream is tried again" in self.flaws and self.random.random() < 0.6 else node.follows
        if node.receiver or wanted is None or node.run not in (Run.STANDBY, Run.STARTING) or node.asked_to_promote or wanted.node not in self.nodes:
            return
        upstream = self.nodes[wanted.node]
        if upstream.run not in (Run.STANDBY, Run.PRIMARY) or not self.linked(node, upstream) or not self.linked(upstream, node):
            return
        if wanted.slot and (wanted.slot not in upstream.slots or wanted.slot in upstream.senders):
            return
        if not self.accepted(node, upstream):
            return
        self.say(f"{node.name}: receives from {upstream.name} through {wanted.slot} at {node.end}")
        connection = Connection(node, upstream, wanted.slot)
        node.receiver = upstream.senders[wanted.slot] = connection
        for timeline in range(timeline_at(node.histories[node.target], node.end), upstream.target + 1):
            if timeline in upstream.histories:
                node.histories.setdefault(timeline, upstream.histories[timeline])
        self.retarget(node)

    def accepted(self, node: Node, upstream: Node) -> bool:
        """What PostgreSQL looks at: timeline numbers and switch points, never who wrote the records."""
        asked = timeline_at(node.histories[node.target], node.end)
        chain = upstream.histories[upstream.target]
        if asked not in [number for number, _ in chain]:
            return False
        return node.end <= min(end_of(chain, asked), upstream.flushed)

    def retarget(self, node: Node) -> None:
        """PostgreSQL's rescanLatestTimeLine."""
        newest = node.target
        while newest + 1 in node.histories:
            newest += 1
        chain = node.histories[newest]
        if newest != node.target and node.target in [number for number, _ in chain] and end_of(chain, node.target) >= node.end:
            node.target = newest

    def stream(self, node: Node, records: int) -> None:
        """Receive, flush and reply."""
        connection = node.receiver
        if connection is None or not connection.sending or not self.linked(connection.upstream, node):
            return
        upstream = connection.upstream
        for _ in range(records):
            if node.end >= upstream.flushed:
                break
            record = upstream.wal[node.end]
            if timeline_at(node.histories[node.target], node.end) != record.timeline:
                if record.timeline in upstream.histories:
                    node.histories.setdefault(record.timeline, upstream.histories[record.timeline])
                self.retarget(node)
                if timeline_at(node.histories[node.target], node.end) != record.timeline:  # another history of that number is here
                    self.end_receiver(node)
                    self.end_sender(connection)
                    return
            if node.wal and record.parent is not node.wal[-1]:
                self.fail("I3", f"{node.name} received record {node.end + 1} of {upstream.name} which does not continue its own WAL")
            node.wal.append(record)
            node.segments.add(record.timeline)
            self.check_labels(node)
        if node.end and upstream.end >= node.end and upstream.wal[node.end - 1] is not node.wal[-1]:
            self.fail("I3", f"{node.name} streams from {upstream.name} with another record {node.end}")

    def flush(self, node: Node) -> None:
        """The receiver has flushed, and says so."""
        node.flushed = max(node.flushed, node.end)
        if node.receiver:
            node.receiver.replies.append(node.flushed)

    def reply(self, connection: Connection) -> None:
        """A reply arrives at the walsender, which releases commits by its own copy of the set."""
        upstream = connection.upstream
        if not connection.replies or not connection.sending or not self.linked(connection.follower, upstream):
            return
        connection.flush = connection.replies.pop(0)
        if upstream.run is not Run.PRIMARY:
            return
        quorum, number, names = parse_names(connection.names)
        if connection.follower.name not in names:
            return
        voters = [
            (parse_names(sender.names)[2].index(sender.follower.name), sender.flush, sender)
            for sender in upstream.senders.values()
            if sender.sending and sender.flush is not None and sender.follower.name in parse_names(sender.names)[2]
        ]
        if len(voters) < number:
            return
        if quorum:
            voters.sort(key=lambda voter: -(voter[1] or 0))
        else:
            voters.sort(key=lambda voter: voter[0])
        chosen = voters[:number]
        if not quorum and connection not in [voter[2] for voter in chosen]:
            return
        position = min(voter[1] or 0 for voter in chosen)
        released = [record for record in upstream.waiting if upstream.wal.index(record) < position]
        upstream.waiting = [record for record in upstream.waiting if record not in released]
        for record in released:
            self.acknowledge(upstream, record)

    def end_receiver(self, node: Node) -> None:
        """The receiver flushes what it has, and is gone; the walsender may not know yet."""
        connection = node.receiver
        if connection is None:
            return
        self.flush(node)
        connection.receiving = False
        node.receiver = None
        self.say(f"{node.name}: the receiver from {connection.upstream.name} ended at {node.end}")

    def end_sender(self, connection: Connection) -> None:
        connection.sending = False
        senders = connection.upstream.senders
        if senders.get(connection.slot) is connection:
            del senders[connection.slot]

    def reload(self, node: Node, who: str) -> None:
        """One process reads the settings file again."""
        if node.run not in (Run.STANDBY, Run.PRIMARY) or who in node.stuck:
            return
        if who == "session":
            node.session = node.names
        elif who == "checkpointer":
            if node.checkpointer != node.names:
                self.say(f"{node.name}: the checkpointer knows {node.names!r}")
            node.checkpointer = node.names
            if not node.checkpointer:
                released, node.waiting = node.waiting, []
                for record in released:
                    self.acknowledge(node, record)
        elif who in node.senders:
            node.senders[who].names = node.names

    # -- messages ------------------------------------------------------------------------------------------------

    def hear(self, node: Node, owner: str) -> None:
        """The newest vote of another node arrives."""
        if node.up and owner != node.name and self.published[owner] and self.nodes[owner].up and (owner, node.name) in self.messages:
            node.view[owner] = self.published[owner][-1]

    def hear_all(self, node: Node) -> None:
        for owner in self.nodes:
            self.hear(node, owner)

    def confuse(self, node: Node, owner: str) -> None:
        """A vote is lost, or an old one is seen again."""
        if owner == node.name or not node.up:
            return
        old = self.published[owner]
        if old and self.random.random() < 0.6:
            node.view[owner] = self.random.choice(old)
        else:
            node.view.pop(owner, None)

    # -- an operator ---------------------------------------------------------------------------------------------

    def copy(self, node: Node, source: Node, *, until: int = 3, rewind: bool = False) -> bool:
        """Make the database a copy of a primary: the state file first, then the bytes, then no mark; or stop after one or two of these."""
        core, how = self.core, "rewind" if rewind else "clone"
        if node.run is not Run.DOWN or node.lock or not node.up or not self.linked(source, node):
            return False
        if core.sight.reigning(self.scene(node)) != source.name:
            return False
        if not self.run(node, lambda scene: core.copying.begin_copy(scene, how, rewind=rewind)):
            return False
        if until < 2:
            return False
        if source.promotion is None or source.promotion.ballot != node.view[source.name].reign:  # it has no slot of that term
            return False
        self.say(f"{node.name}: is made a copy of {source.name} by {how}")
        common = self.common(node, source) if rewind else 0
        end = source.flushed if until > 2 else self.random.randint(min(1, source.flushed), source.flushed)
        node.wal = [*node.wal[:common], *source.wal[common:end]]
        node.flushed = node.end
        node.histories, node.target, node.segments = dict(source.histories), source.target, set(source.segments)
        node.slots = set()
        if until < 3:
            return False
        done = self.run(node, lambda scene: core.copying.end_copy(scene, how, SYSTEM))
        self.check_labels(node)
        return done

    def run(self, node: Node, beginning: Callable[[Scene], Procedure]) -> bool:
        """A procedure in one go; whether it reached its aim."""
        task = Task(node, "copy", beginning)
        while task.outcome is None:
            self.advance(task)
        return task.outcome.ok

    @staticmethod
    def common(node: Node, source: Node) -> int:
        """What pg_rewind takes for common: timelines of equal number and beginning, whatever is in them (its findCommonAncestorTimeline)."""
        own, other = node.histories[max(node.segments)], source.histories[source.target]
        same = 0
        while same < min(len(own), len(other)) and own[same] == other[same]:
            same += 1
        last = own[same - 1][0]
        return int(min(end_of(own, last), end_of(other, last), node.end, source.flushed))

    # -- checks --------------------------------------------------------------------------------------------------

    def forget(self, node: Node) -> None:
        """Somebody deletes a state file: what was promised, stored and known of terms is gone."""
        self.forgetful.add(node.name)
        node.state = node.older = State()
        self.say(f"{node.name}: the state file is deleted")

    def lose_data(self, node: Node) -> None:
        """A new disk in the place of the data directory; the state file stays."""
        node.wal, node.flushed, node.slots = [], 0, set()
        node.histories, node.target, node.segments = {1: ((1, 0),)}, 1, {1}
        self.say(f"{node.name}: the data are lost")

    def check_labels(self, node: Node) -> None:
        """I4."""
        if node.state.mark or not node.wal or (node.name in self.forgetful and not node.state.eras):
            return
        seen = Instance(node.run, Lsn(node.end), node.timeline_here(), histories=self.histories(node))
        eras = self.core.vote.resolve(node.state, seen).eras
        term = NEVER
        place = 0
        for position, record in enumerate(node.wal):
            while place < len(eras) and eras[place].start <= position:
                term = eras[place].term
                place += 1
            if record.term != term:
                self.fail("I4", f"{node.name} labels record {position + 1} with {term}, it was written under {record.term}")

    def fail(self, invariant: str, text: str) -> None:
        self.say(f"{invariant}: {text}")
        raise Violation(f"{invariant}: {text}")

    def say(self, text: str) -> None:
        if self.trace:
            self.log.append(text)

    def picture(self) -> str:
        """All nodes in a line each, for the report of a failure."""
        lines = []
        for node in self.nodes.values():
            wal = " ".join(f"{record.term}/{record.timeline}" for record in node.wal[-5:])
            lines.append(
                f"{node.name} {node.run.value} up={node.up} end={node.end} target={node.target} follows={node.follows} names={node.names!r} "
                f"round={node.round} wal=[{wal}] state={node.state} receiving={node.receiver is not None} "
                f"score={self.attributes.get((node.name, 'master-pgsql'))}"
            )
        return "\n".join(lines)
