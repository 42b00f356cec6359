"""One node as the agents see it: looks at everything once, performs actions in order, and drives procedures to their end.

Layer 3. A look and the actions that follow from it are one critical section of the node: `agents/pgsql` and
`agents/pgwatch` take the same lock, so no promise and no start ever happens between a look and its consequence.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import AbstractContextManager, contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any, Callable

from pha4pgsql import duties, pacemaker, postgres, resident, system, vote
from pha4pgsql.words import (
    SILENCE,
    Action,
    AskRow,
    Attributes,
    Checkpoint,
    Deed,
    EnvironmentFailure,
    Follow,
    Instance,
    Launch,
    MakeSlots,
    Name,
    Nudge,
    Outcome,
    Procedure,
    Promote,
    Properties,
    Prove,
    Publish,
    Rules,
    Run,
    Scene,
    Shutdown,
    State,
    Store,
    StoreRow,
    Vote,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pha4pgsql.settings import Context, Settings
    from pha4pgsql.text import Cluster

    Log = Callable[[str, str], None]

SILENT = 2.0
"""Seconds a server has to answer one look before it is called silent."""
PATIENT = 4.0
"""The same for a look that a standby's fate depends on."""
KNOWN_SILENT = 0.5
"""The same for one that was silent at the look before."""
NOBODY_LEFT = 3.0
"""Seconds for a fast shutdown where no other member is in the membership: a clean end is of use to nobody but this node."""
MOVING = 1.0
"""Seconds after a promotion in which Pacemaker moves the address: any change of the CIB would make it plan anew before that."""
FRESH = 0.1
"""Seconds for which the votes are as good as read anew: reading them costs a process."""
PAUSE = 0.03
"""Seconds between two looks at something that is awaited."""


class Scope(Enum):
    """How wide a look is: every part of it costs a process."""

    VOTES = "votes, read once"
    """For a node that waits for nobody's vote."""
    BALLOT = "votes, read once, the round, and the end of WAL once the ballot is promised"
    """For a node that answers."""
    CLUSTER = "votes, read anew every time unless that was just done, and the CIB's attributes"
    ALONE = "votes, read once, the CIB's attributes, and the end of WAL only while PostgreSQL is down"
    """For a node that waits for nobody's vote, and for its own PostgreSQL."""


def rules_of(settings: Settings) -> Rules:
    """The part of the settings that is about the whole set: what the operator wishes it to be."""
    return Rules(
        settings.resource,
        settings.members,
        settings.rep_mode,
        settings.k,
        settings.sync_strict,
        settings.replication_slot_name,
        settings.maxlag,
        settings.read_node_list,
        settings.enable_distlock and settings.waits,
        settings.external_standby_node_list if settings.waits else (),
    )


class Site:
    """The adapters of one node behind two verbs, `look` and `perform`, and the loop that joins them."""

    def __init__(self, settings: Settings, context: Context, log: Log) -> None:
        self.settings = settings
        self.context = context
        self.log = log
        self.rules = rules_of(settings)
        self._cluster: Cluster | None = None
        self._told: dict[tuple[str, str], str | None] = {}
        self._votes: tuple[tuple[str, Vote], ...] | None = None
        self._votes_read = 0.0
        self._run: Run | None = None
        self._promoting = False
        self._round = 0
        self._row: Vote | None = None
        self._proof: postgres.Proof | None = None
        self._proven_set: tuple[int, int] | None = None

    # -- looking --

    @property
    def left(self) -> float:
        """Seconds until this call should have ended by itself."""
        return self.context.deadline - time.monotonic()

    def lock(self) -> AbstractContextManager[None]:
        """The node's lock, for one look and its actions."""
        return self._flock("lock", wait=True)

    def reigning(self) -> AbstractContextManager[Any]:
        """The right to look after the primary's set, for a whole procedure: of two at once each would undo the other's proofs.

        Yields None if it is taken; who finds it taken leaves the work to its holder.
        """
        return self._flock("reign.lock", wait=False)

    def ending(self) -> AbstractContextManager[Any]:
        """Held while the agent demotes: that PostgreSQL ends then is no death. Yields None if it is taken."""
        return self._flock("ending.lock", wait=False)

    def repairing(self) -> AbstractContextManager[Any]:
        """The right to make the data directory a copy of another node's, until the end. Yields the lock's descriptor, None if it is taken."""
        return self._flock("repair.lock", wait=False)

    def under_repair(self) -> bool:
        """Whether a rewind or a clone of this node is at work: then nothing of PostgreSQL here is a server, whatever processes there are."""
        try:
            handle = os.open(self._path("repair.lock"), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not _try_lock(handle, fcntl.LOCK_SH)  # shared: two who look at once must not take each other for a repair
        finally:
            os.close(handle)

    def promoted_since(self) -> float:
        """Seconds since the promotion that the history has not recorded yet (`chronicle.promoted`); many if there is none."""
        try:
            return time.time() - os.stat(self._path("promotion")).st_mtime
        except FileNotFoundError:
            return 1e9

    def _path(self, name: str) -> str:
        return f"{self.settings.tmpdir}/{self.settings.resource}.{name}"

    @contextmanager
    def _flock(self, name: str, *, wait: bool) -> Iterator[Any]:
        """A lock that the kernel releases when its holder ends, so it is never left behind."""
        postgres.prepare(self.settings)
        handle = os.open(self._path(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            held = _try_lock(handle)
            while wait and not held:
                if self.left <= 0:
                    raise EnvironmentFailure("another process held the node's lock until the end of this call")
                time.sleep(0.01)
                held = _try_lock(handle)
            yield handle if held else None
        finally:
            os.close(handle)

    def instance(self, *, disk: bool = True, patient: bool = False, end: bool = True) -> Instance:
        """The local PostgreSQL now. patient: one that was silent before does not get less time, a standby more: its fate depends on this look."""
        patience = SILENT
        if os.path.exists(postgres.silence_file(self.settings)):
            patience = KNOWN_SILENT if not patient else SILENT if self.state().reign.round else PATIENT
        seen = postgres.observe(self.settings, timeout=max(0.5, min(patience, self.left)), disk=disk, end=end)
        self._run = seen.run
        return seen._replace(proven=self._proven_set is not None and self._proven_set == postgres.names_mark(self.settings))

    def state(self) -> State:
        """The state file; a missing one is a node that has promised nothing, a damaged one is an error."""
        path = f"{self.settings.tmpdir}/{self.settings.resource}.state"
        try:
            with open(path, encoding="utf-8") as stream:
                return vote.parse_state(stream.read())
        except FileNotFoundError:
            return State()
        except ValueError as damaged:
            raise EnvironmentFailure(
                f"the state file {path} is damaged: {damaged}",
                "what it promised is lost; cls_stop, then on this node cls_reset_master --yes, which makes a new one, and cls_rebuild_slave",
            ) from None

    def votes(self) -> tuple[tuple[str, Vote], ...]:
        """What the members show; a vote that cannot be read counts as none."""
        found = []
        for node, text in sorted(pacemaker.attributes(f"{self.settings.resource}-vote").items()):
            try:
                found.append((node, vote.parse_vote(text)))
            except ValueError as bad:
                self.log("WARNING", f"vote of {node}: {bad}")
        return tuple(found)

    def look(self, instance: Instance | None = None, *, scope: Scope = Scope.CLUSTER, copy: bool = False) -> Scene:
        """One scene, as wide as the decision needs it. The end of WAL in half a copy says nothing: it is read when the `copy` is complete."""
        if self._votes is None or (scope is Scope.CLUSTER and time.monotonic() >= self._votes_read + FRESH):
            self._votes, self._votes_read = self.votes(), time.monotonic()
        state = self.state()
        if scope is Scope.BALLOT:
            self._round = self._round or int(pacemaker.property(f"{self.settings.resource}_round", self._property_set) or 1)
        end = scope is not Scope.ALONE and not self._promoting and (scope is not Scope.BALLOT or state.promised.round >= self._round)
        seen = instance or self.instance(disk=copy or not state.mark, end=end)
        scene = Scene(self.context.node, self.rules, state, seen, self._votes, elapsed=self.elapsed, left=self.left, row=self._row)
        if scope is Scope.VOTES:
            return scene
        if scope is Scope.BALLOT:
            return scene._replace(round=self._round)
        if self._cluster is None:
            self._cluster = pacemaker.read_cluster()
        cluster, prefix = self._cluster, self.settings.resource
        info = cluster.properties.get(f"{prefix}_REPL_INFO", "")
        return scene._replace(
            round=int(cluster.properties.get(f"{prefix}_round", "1")),
            override=info if info and "|" not in info else "",
            repl_info=info,
            online=frozenset(cluster.online),
            dc=cluster.dc,
            attributes=self._attributes(cluster),
            failures=tuple(sorted((node, member.failures.get(prefix, 0)) for node, member in cluster.members.items())),
        )

    def _attributes(self, cluster: Cluster) -> tuple[tuple[tuple[str, str], str], ...]:
        """The CIB's attributes of this resource when this call began, with what it has set since."""
        resource = self.settings.resource
        seen: dict[tuple[str, str], str | None] = {
            (node, name): value
            for node, member in cluster.members.items()
            for name, value in member.attributes.items()
            if name.startswith(f"{resource}-") or name == f"master-{resource}"
        }
        return tuple(sorted((key, value) for key, value in {**seen, **self._told}.items() if value is not None))

    @property
    def elapsed(self) -> float:
        """Seconds since this call began."""
        return time.monotonic() - self.context.started

    @property
    def cluster(self) -> Cluster | None:
        """The CIB as this call first saw it; None while it has not looked."""
        return self._cluster

    # -- performing --

    def perform(self, actions: Sequence[Action]) -> None:
        """Perform actions in order; the first failure ends it and is raised."""
        for action in actions:
            if isinstance(action, (AskRow, StoreRow)):
                self._ask_row(action)
            else:
                self._perform(action)
            self.log("INFO", f"{self.elapsed:.3f} s {type(action).__name__}: {_said(action)}")

    def _reload(self) -> None:
        """Make what we have written count, also against an ALTER SYSTEM: commits would wait for nobody, or nothing be received, unnoticed."""
        found = postgres.clear_overrides(self.settings)
        if found:
            self.log("WARNING", f"taken out of postgresql.auto.conf, because the agent sets it: {' '.join(found)}")
        postgres.reload(self.settings)

    def _perform(self, action: Deed) -> None:
        settings, node = self.settings, self.context.node
        if isinstance(action, Store):
            system.write_file(f"{settings.tmpdir}/{settings.resource}.state", vote.state_text(action.state))
        elif isinstance(action, Publish):
            pacemaker.publish(f"{settings.resource}-vote", vote.vote_text(action.vote), private=True)
        elif isinstance(action, Follow):
            postgres.write_recovery(settings, node, action.upstream)
            self._reload()
            if action.upstream is None and (self._run is Run.STANDBY or self.instance(disk=False).run is Run.STANDBY):
                postgres.cut_off(settings, timeout=max(0.5, min(3.0, self.left)))
        elif isinstance(action, Name):
            self._proof = None
            postgres.write_names(settings, action.names)
            self._reload()
        elif isinstance(action, MakeSlots):
            postgres.make_slots(settings, action.slots, timeout=max(1.0, min(5.0, self.left)))
        elif isinstance(action, Launch):
            postgres.forget_silence(settings)
            postgres.launch(settings, node, action.upstream, action.names)
        elif isinstance(action, Shutdown):
            self.shutdown()
        elif isinstance(action, Promote):
            postgres.promote(settings, timeout=max(1.0, min(5.0, self.left)))
            self._promoting = True  # where its WAL as a standby ends is of no use any more
        elif isinstance(action, Nudge):
            postgres.nudge(settings, timeout=max(0.5, min(2.0, self.left)))
        elif isinstance(action, Checkpoint):
            resident.launch(f"{settings.tmpdir}/{settings.resource}.checkpoint", lambda: postgres.checkpoint(settings))
        elif isinstance(action, Prove):
            self._proof = self._proof or postgres.Proof(settings)
            mark = postgres.names_mark(settings)  # another process of ours may replace the set at any time: the proof is of this one
            self._proven_set = mark if self._proof.waiting(timeout=1.0) else None
        else:
            self._tell(action)

    def _tell(self, action: Attributes | Properties) -> None:
        """Put into the CIB what people and other agents read."""
        settings = self.settings
        if isinstance(action, Properties):
            pacemaker.set_permanent({}, dict(action.values), set_id=self._property_set, ids=self._ids(), timeout=settings.crm_attr_timeout)
            return
        if action.transient:
            pacemaker.set_transient(dict(action.transient))
        if action.permanent:
            pacemaker.set_permanent(dict(action.permanent), {}, ids=self._ids(), timeout=settings.crm_attr_timeout)
        self._told.update((*action.transient, *action.permanent))

    @property
    def _property_set(self) -> str:
        """The id of the property set that holds the cluster properties of this resource: `pgsql_replication`."""
        return f"{self.settings.resource}_replication"

    def _ask_row(self, action: AskRow | StoreRow) -> None:
        """What the row says is kept for the next look; silence is kept, too."""
        from pha4pgsql import lock_row  # seldom needed

        where, patience = lock_row.place(self.settings), max(0.5, min(lock_row.TIMEOUT, self.left))
        if isinstance(action, AskRow):
            heard = lock_row.ask(where, action.ballot, timeout=patience)
        else:
            heard = lock_row.store(where, action.statement, timeout=patience)
        self._row = heard.vote
        if heard.vote is None:
            self.log("WARNING", heard.reason)
        else:
            self.log("INFO", f"the row: promised {heard.vote.promised}, said {vote.statement_text(heard.vote.said)}")

    def _ids(self) -> dict[str, str] | None:
        return {name: member.id for name, member in self._cluster.members.items()} if self._cluster else None

    def shutdown(self) -> None:
        """End PostgreSQL, in the time that the parameters give it in its present role."""
        run = self._run or self.instance(disk=False).run
        escalate = self.settings.stop_escalate if run is not Run.STANDBY else self.settings.stop_escalate_in_slave
        absent = self._absent()
        if run is Run.PRIMARY and absent:
            postgres.dismiss(self.settings, absent)
            escalate = min(escalate, NOBODY_LEFT) if absent.issuperset({*self.rules.members} - {self.context.node}) else escalate
        postgres.shutdown(self.settings, escalate=escalate, deadline=self.context.deadline, silent=run is Run.SILENT)

    def _absent(self) -> frozenset[str]:
        """Who had left the membership when this call first saw it: what is sent to them goes nowhere, and PostgreSQL waits a minute to learn it."""
        others = {*self.rules.members, *self.settings.read_node_list} - {self.context.node}
        return frozenset(others.difference(self._cluster.online)) if self._cluster else frozenset()

    # -- driving --

    def reign(self, how: Callable[[Scene], Procedure] = duties.reign) -> Outcome:
        """Look after the primary's set, unless another process of this node is at it."""
        with self.reigning() as handle:
            return self.drive(how) if handle is not None else Outcome(True)

    def drive(self, make: Callable[[Scene], Procedure], *, scope: Scope = Scope.CLUSTER, copy: bool = False) -> Outcome:
        """Run a procedure: look, decide and act under the lock, pause when nothing was to be done, until it ends."""
        with self.lock():
            scene = self.look(scope=scope, copy=copy)
            procedure = make(scene)
            steps = _next(procedure, None)
            scene = self._act(scene, steps)
        while not isinstance(steps, Outcome):
            if not steps:
                time.sleep(PAUSE)
            elif _elsewhere(steps):  # nobody else of this node waits for another machine
                self.perform(steps)
            with self.lock():
                if not _only_told(steps):
                    scene = self.look(scope=scope, copy=copy)
                steps = _next(procedure, scene)
                scene = self._act(scene, steps)
                self._votes = scene.votes
        return steps

    def _act(self, scene: Scene, steps: Sequence[Action] | Outcome) -> Scene:
        if isinstance(steps, Outcome) or _elsewhere(steps):
            return scene
        self.perform(steps)
        return told(scene, steps)


def _try_lock(handle: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _next(procedure: Procedure, scene: Scene | None) -> Sequence[Action] | Outcome:
    try:
        return next(procedure) if scene is None else procedure.send(scene)
    except StopIteration as end:
        outcome = end.value
        return outcome if isinstance(outcome, Outcome) else Outcome(True)


def _elsewhere(steps: Sequence[Action]) -> bool:
    """Whether these are questions to another machine: they need no lock, as nothing here is decided by them before the next look."""
    return bool(steps) and all(isinstance(step, (AskRow, StoreRow)) for step in steps)


def _only_told(steps: Sequence[Action]) -> bool:
    """Whether nothing but messages went out, so that the scene with them in it is as good as a new look."""
    return bool(steps) and all(isinstance(step, (Publish, Attributes, Properties)) for step in steps)


def told(scene: Scene, steps: Sequence[Action]) -> Scene:
    """The scene with our own messages in it."""
    for step in steps:
        if isinstance(step, Publish):
            scene = scene._replace(votes=tuple(sorted({**dict(scene.votes), scene.me: step.vote}.items())))
        elif isinstance(step, Attributes):
            seen = dict(scene.attributes)
            for key, value in (*step.transient, *step.permanent):
                seen.pop(key, None)
                if value is not None:
                    seen[key] = value
            scene = scene._replace(attributes=tuple(sorted(seen.items())))
    return scene


def _said(action: Action) -> str:
    """An action in words for the log."""
    if isinstance(action, Store):
        state = action.state
        said = f", said {vote.statement_text(state.said)}" if state.said != SILENCE else ""
        terms = f"promised {state.promised}, reign {state.reign}, pending {state.pending}, eras {vote.eras_text(state.eras)}"
        return f"{terms}{said}, list {vote.roster_text(state.roster)}"
    if isinstance(action, Publish):
        return vote.vote_text(action.vote)
    if isinstance(action, Attributes):
        return ", ".join(f"{name}@{node}={value}" for (node, name), value in (*action.transient, *action.permanent))
    return ", ".join(f"{name}={getattr(action, name)}" for name in action._fields)
