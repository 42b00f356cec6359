"""The vocabulary of the project: frozen values, no behaviour that needs a clock, a file or a process.

Layer 1: imports nothing of the library. Every other module speaks in these words.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from enum import Enum
from typing import NamedTuple, Union


class Lsn(int):
    """A WAL position in bytes from the start of WAL (PostgreSQL manual, 8.20 pg_lsn Type).

    >>> Lsn.parse("0/50001B0").hex16
    '00000000050001B0'
    >>> str(Lsn.parse("1/0"))
    '1/0'
    """

    @classmethod
    def parse(cls, text: str) -> Lsn:
        """Read `high/low`, both hexadecimal; anything else is a ValueError."""
        high, slash, low = text.strip().partition("/")
        if not slash:
            raise ValueError(f"not an LSN: {text!r}")
        return cls((int(high, 16) << 32) + int(low, 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    @property
    def hex16(self) -> str:
        """The form of the node attributes: two zero-padded halves of eight upper-case digits."""
        return f"{int(self):016X}"


class Ballot(NamedTuple):
    """One attempt to become primary; ordered by round, then by the candidate's name, so no two are equal.

    The ballot of a promotion that happened is called its *term*.
    """

    round: int
    node: str

    def __str__(self) -> str:
        return f"{self.round}.{self.node}"

    @classmethod
    def parse(cls, text: str) -> Ballot:
        number, _, node = text.partition(".")
        return cls(int(number), node)


NEVER = Ballot(0, "")
"""Lower than every ballot: nothing promised, or WAL from before the cluster's first promotion."""


class Era(NamedTuple):
    """A timeline, the position at which it began (the switch point), and the term that began it."""

    timeline: int
    start: Lsn
    term: Ballot


class Statement(NamedTuple):
    """What a primary said about going alone; newest by (term, count). An empty owner means: not alone."""

    term: Ballot
    count: int  # type: ignore[assignment]  # hides a method of tuple
    owner: str

    @property
    def number(self) -> tuple[Ballot, int]:
        return (self.term, self.count)


SILENCE = Statement(NEVER, 0, "")


class Circle(NamedTuple):
    """Who counts, how many others k confirm a commit, and whether a primary must never go on alone."""

    members: tuple[str, ...] = ()
    k: int = 0
    strict: bool = False

    @property
    def unordered(self) -> tuple[frozenset[str], int, bool]:
        """The same whatever the order of the members: equal where two circles mean the same."""
        return frozenset(self.members), self.k, self.strict


class Roster(NamedTuple):
    """The list of members as a node has stored it; newest by (term, count).

    By `elects` elections count, by `confirms` commits are confirmed. They differ in the middle of a change only (`joint`), and then
    `elects` is the harder of both ends of the change, `confirms` the stricter.
    """

    term: Ballot
    count: int  # type: ignore[assignment]  # hides a method of tuple
    elects: Circle
    confirms: Circle

    @property
    def number(self) -> tuple[Ballot, int]:
        return (self.term, self.count)

    @property
    def listed(self) -> bool:
        """Whether there is a list at all: a node that has stored none yet is told by its parameters."""
        return bool(self.elects.members)

    @property
    def joint(self) -> bool:
        return self.elects != self.confirms


NO_MEMBER = "pha4pgsql-no-member-"
"""How the names of the constraints begin that keep PostgreSQL off a node which is no member, or not yet."""

UNLISTED = Roster(NEVER, 0, Circle(), Circle())


HOLD = "pha4pgsql-hold-"
"""How the name of a maintenance begins that a command of ours has set for a moment: should it be killed then, the next one ends it."""
GIVEN_UP = "its data were given up"
"""How the mark of a node begins whose data are lost, as an operator has said."""
NOTHING = Lsn(1)
"""The end of WAL that such a node shows: before every record, as WAL begins with the second segment."""


class State(NamedTuple):
    """The state file of a node: what it must never forget. Outside the data directory, replaced atomically, fsynced.

    promised: no ballot below it is answered, no primary below it is followed.
    eras: the terms of the local WAL, oldest first.
    pending: the term of a timeline that is not in `eras` yet: the one that this node, or its upstream, makes under this ballot.
    beyond: the highest timeline that the local WAL held when `pending` was stored; the pending one is above it.
    reign: the term under which this node acts as primary, from before pg_promote until it was demoted.
    said: the newest statement about going alone that this node has stored.
    mark: why the data directory cannot be trusted (a clone or rewind has begun and not ended, or its data were given up), or empty.
    roster: the list of members by which this node counts.
    """

    promised: Ballot = NEVER
    eras: tuple[Era, ...] = ()
    pending: Ballot = NEVER
    reign: Ballot = NEVER
    said: Statement = SILENCE
    mark: str = ""
    beyond: int = 0
    roster: Roster = UNLISTED

    @property
    def given_up(self) -> bool:
        """Whether this node holds nothing, and says so in elections."""
        return self.mark.startswith(GIVEN_UP)


class Answer(NamedTuple):
    """What a member says to one ballot, after it has promised it: the position of its WAL, which nobody moves from then on."""

    ballot: Ballot
    term: Ballot
    lsn: Lsn
    timeline: int
    system_identifier: str


class Vote(NamedTuple):
    """All that a node publishes for elections, in one private attribute, written by that node alone.

    `answer` is the last answer given; `lsn` the end of WAL while the node receives none (0: unknown or moving).
    """

    promised: Ballot = NEVER
    eras: tuple[Era, ...] = ()
    reign: Ballot = NEVER
    said: Statement = SILENCE
    answer: Answer | None = None
    lsn: Lsn = Lsn(0)
    system_identifier: str = ""
    roster: Roster = UNLISTED


class Wish(NamedTuple):
    """What an operator asks of the primary of `term`: to hand over to `target`, after a checkpoint beyond `since`. It weakens no rule.

    `looks`: so many more looks the primary keeps it in mind. Whoever asked asks again meanwhile, unless he was killed.
    """

    target: str
    term: Ballot
    since: Lsn
    looks: int

    def __str__(self) -> str:
        return f"{self.target} {self.term} {self.since:X} {self.looks}"

    @classmethod
    def parse(cls, text: str) -> Wish | None:
        """Read one; None for anything else: what cannot be read is wished by nobody.

        >>> Wish.parse(str(Wish("node2", Ballot(7, "node1"), Lsn(255), 3)))
        Wish(target='node2', term=Ballot(round=7, node='node1'), since=255, looks=3)
        >>> Wish.parse("node2"), Wish.parse("")
        (None, None)
        """
        try:
            target, term, since, looks = text.split()
            return cls(target, Ballot.parse(term), Lsn(int(since, 16)), int(looks))
        except ValueError:
            return None


class Mode(Enum):
    """`rep_mode`: who has to confirm a commit."""

    NONE = "none"
    ASYNC = "async"
    SYNC = "sync"
    QUORUM = "quorum"
    SLAVE = "slave"


class Run(Enum):
    """What the processes of an instance show."""

    DOWN = "down"
    """No postmaster."""
    STARTING = "starting"
    """A postmaster that does not accept connections yet: crash recovery, or a standby before consistency."""
    STANDBY = "standby"
    PRIMARY = "primary"
    STOPPING = "stopping"
    """A postmaster that refuses connections because it shuts down."""
    SILENT = "silent"
    """A live postmaster that did not answer in time: not known to be dead."""


class Failure(Exception):
    """Something a person has to know: what was seen, what was expected, and what to type.

    `str()` is the message, with a `HINT:` sentence when there is one; `code` the exit code of a command that ends with it.
    """

    code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message if not hint else f"{message}\nHINT: {hint}")
        self.message = message
        self.hint = hint


class ConfigurationError(Failure):
    """The user's settings are at fault."""


class EnvironmentFailure(Failure):
    """The machine is at fault: a program, a directory, a right is missing."""


class ClusterRefusal(Failure):
    """The cluster says no: the operation would not be safe, or cannot be done in the present state."""


def slot_word(name: str) -> str:
    """A name in the characters that a replication slot may have (PostgreSQL manual, 27.2.6.1).

    >>> slot_word("Node-1.example")
    'node_1_example'
    """
    return "".join(char if char.isascii() and (char.isalnum() or char == "_") else "_" for char in name.lower())


class Upstream(NamedTuple):
    """Where a standby receives WAL from: a node, through the slot which that node made for one term only."""

    node: str
    slot: str


class Follower(NamedTuple):
    """One row of pg_stat_replication, with the slot that it uses. `flush` is None before the first reply.

    `priority` (sync_priority) is by the set that its own walsender knows: 0 means that this one releases no commit.
    """

    name: str
    state: str
    sync_state: str
    flush: Lsn | None
    slot: str
    priority: int = 0


class Instance(NamedTuple):
    """The PostgreSQL of this node as observed once.

    `lsn` is the end of valid WAL (a primary: its flush position), None when it could not be found out; `unread` may tell why.
    `receiving`: a WAL receiver process exists; `streaming`: it gets WAL. `upstream`: what the settings file names. `names`: the
    synchronous_standby_names in the settings file, `names_shown` what a session sees (None: could not ask).
    `histories`: (timeline, parent, switch point) of every timeline of which the local WAL holds a segment.
    `unheld`: the same of history files of which it holds no segment.
    `checkpoint` is the last one of the control file.
    `proven`: a commit of our own was seen waiting for synchronous replication since the last change of `names`.
    `unruled`: the configuration file that it was started with, when that is not the agent's and what the agent writes does not reach it.
    """

    run: Run = Run.DOWN
    lsn: Lsn | None = None
    timeline: int = 0
    checkpoint: Lsn = Lsn(0)
    system_identifier: str = ""
    receiving: bool = False
    streaming: bool = False
    upstream: Upstream | None = None
    names: str = ""
    names_shown: str | None = None
    followers: tuple[Follower, ...] = ()
    slots: tuple[str, ...] = ()
    histories: tuple[tuple[int, int, Lsn], ...] = ()
    unheld: tuple[tuple[int, int, Lsn], ...] = ()
    proven: bool = False
    unread: str = ""
    unruled: str = ""


class Rules(NamedTuple):
    """What a set goes by. `members`, `sync_count` (k of the safety rules) and `strict` are those by which elections count.

    From the parameters they are the operator's wish; `under` a stored list they are what the node goes by.
    `readers` are nodes that follow and no more: they promise nothing, confirm nothing, and are never promoted.
    `row`: a row outside of the cluster, that of the distributed lock, is one more voice beside the members.
    `externals` are standbys outside of the cluster that may confirm commits in addition to k members.
    """

    resource: str
    members: tuple[str, ...]
    mode: Mode = Mode.SYNC
    sync_count: int = 1
    strict: bool = False
    slot_prefix: str = "pha"
    maxlag: int = 0
    readers: tuple[str, ...] = ()
    row: bool = False
    externals: tuple[str, ...] = ()
    stored: Roster = UNLISTED

    @property
    def circle(self) -> Circle:
        return Circle(self.members, self.sync_count, self.strict)

    @property
    def confirming(self) -> Circle:
        """By whom, and how many of them, commits are confirmed."""
        return self.stored.confirms if self.stored.listed else self.circle

    @property
    def roster(self) -> Roster:
        """The list by which these rules are; for a node that has stored none, the one that the parameters make."""
        return self.stored if self.stored.listed else Roster(NEVER, 0, self.circle, self.circle)

    def under(self, roster: Roster) -> Rules:
        """These rules with the members, k and strictness of a stored list."""
        if not roster.listed:
            return self
        members, k, strict = roster.elects
        return self._replace(members=members, sync_count=k, strict=strict, stored=roster)

    @property
    def answers_needed(self) -> int:
        """How many members have to answer a ballot: N-k meet every acknowledged commit."""
        return len(self.members) - self.sync_count if self.mode is not Mode.ASYNC else 1

    @property
    def voices_needed(self) -> int:
        """How many voices a candidate has to hear: V-k meet everybody who has stored that somebody is alone. Strict: nobody ever is."""
        return 0 if self.strict or self.mode is Mode.ASYNC else len(self.members) + self.row - self.sync_count


class Scene(NamedTuple):
    """Everything one decision may look at, read once: files, the local instance, and what reached us of the others.

    `elapsed` and `left` are seconds since the operation began and until it has to end. `online` are the nodes that
    Pacemaker's local view shows in the membership, `attributes` the published node attributes by (node, name).
    `failures` are the fail counts of the resource by node. `row` is what the row of the distributed lock said last to this
    process, as the vote of a member without WAL; None: it was not asked, or could not be heard.
    `override` is the node which the operator named as first primary, or empty.
    `wish` is what the parameters say; what the node goes by (`rules`) is the list that it has stored.
    """

    me: str
    wish: Rules
    state: State = State()
    instance: Instance = Instance()
    votes: tuple[tuple[str, Vote], ...] = ()
    round: int = 1
    override: str = ""
    online: frozenset[str] = frozenset()
    dc: str = ""
    attributes: tuple[tuple[tuple[str, str], str], ...] = ()
    repl_info: str = ""
    failures: tuple[tuple[str, int], ...] = ()
    elapsed: float = 0.0
    left: float = 60.0
    row: Vote | None = None

    @property
    def rules(self) -> Rules:
        return self.wish.under(self.state.roster)

    @property
    def others(self) -> tuple[str, ...]:
        """The other members, those included that are to become one."""
        return tuple(node for node in dict.fromkeys((*self.rules.members, *self.wish.members)) if node != self.me)

    @property
    def peers(self) -> tuple[str, ...]:
        """Who may follow this node: the other members, and the readers."""
        return (*self.others, *(node for node in self.rules.readers if node != self.me))

    @property
    def only_reads(self) -> bool:
        """Whether this node is no member, and is not to become one: nobody counts it."""
        return self.me in self.wish.readers and self.me not in self.rules.members

    def vote(self, node: str) -> Vote:
        return dict(self.votes).get(node, Vote())

    def attribute(self, node: str, name: str) -> str | None:
        return dict(self.attributes).get((node, name))


class Store(NamedTuple):
    """Replace the state file, durably."""

    state: State


class Publish(NamedTuple):
    """Show this vote to the other nodes."""

    vote: Vote


class Follow(NamedTuple):
    """Receive WAL from this upstream, or from nobody, from now on."""

    upstream: Upstream | None


class Name(NamedTuple):
    """Write synchronous_standby_names and reload."""

    names: str


class MakeSlots(NamedTuple):
    """Create physical replication slots that are not there yet."""

    slots: tuple[str, ...]


class Launch(NamedTuple):
    """Start the postmaster as a standby with this upstream and this synchronous_standby_names.

    Slots of earlier terms are removed before, while nobody can use them. Does not wait until it accepts connections.
    """

    upstream: Upstream | None
    names: str


class Shutdown(NamedTuple):
    """End the postmaster: `fast`, then `immediate` after the configured time."""


class Promote(NamedTuple):
    """Ask the standby to become primary; does not wait for it."""


class Prove(NamedTuple):
    """Commit a record of our own and look whether it waits for synchronous replication."""


class Nudge(NamedTuple):
    """Write a record that waits for nobody: the standbys' replies to it release commits that wait by a set just changed."""


class Checkpoint(NamedTuple):
    """Begin a checkpoint, unless one of ours is on its way; does not wait for it."""


class Attributes(NamedTuple):
    """Set transient (`reboot`) and permanent (`forever`) node attributes, by (node, name); None deletes."""

    transient: tuple[tuple[tuple[str, str], str | None], ...] = ()
    permanent: tuple[tuple[tuple[str, str], str | None], ...] = ()


class Properties(NamedTuple):
    """Set cluster properties of our own set; None deletes."""

    values: tuple[tuple[str, str | None], ...]


class AskRow(NamedTuple):
    """Ask the row of the distributed lock, which promises the ballot if that is above its promise; what it has is the scene's `row`.

    NEVER: it promises nothing, one only looks.
    """

    ballot: Ballot = NEVER


class StoreRow(NamedTuple):
    """Have the row store a statement, under the same condition as a member: newer, and not of a term below its promise."""

    statement: Statement


Deed = Union[Store, Publish, Follow, Name, MakeSlots, Launch, Shutdown, Promote, Prove, Nudge, Checkpoint, Attributes, Properties]
"""What is done on this node and in its cluster."""

Action = Union[Deed, AskRow, StoreRow]


class Outcome(NamedTuple):
    """How a procedure ended: whether it reached its aim, and why it did not (or what a person should know)."""

    ok: bool
    reason: str = ""


Procedure = Generator[Sequence[Action], Scene, Outcome]
"""A decision that takes several looks: yields actions to perform in order, receives a fresh scene, returns its outcome.

An empty list means: look again soon. A procedure keeps nothing that a crash may take away: the state file is its memory.
"""
