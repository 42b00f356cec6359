"""The history of primaries, for people: what a promotion leaves behind as text, and what its cause was by the evidence there is. Pure.

No decision ever reads it. Three texts: how a reign ended, said by the node that had it (a private node attribute); what a promotion saw, kept by the
promoted node until it is recorded (a file beside its state file); the record itself (a cluster property).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MOST = 100
"""Records that are kept."""

DIED, SILENT, ASKED = "died", "silent", "asked"
"""How a reign ends: PostgreSQL ended by itself; it did not answer any more; it was demoted while it ran."""


class Ended(NamedTuple):
    """How the reign of `term` ended and when, by its own node's clock (seconds since 1970)."""

    term: str
    at: float
    how: str


def ended_text(ended: Ended) -> str:
    """The value of the attribute.

    >>> parse_ended(ended_text(Ended("7.node1", 1700000000.25, "died")))
    Ended(term='7.node1', at=1700000000.25, how='died')
    """
    return f"{ended.term} {ended.at:.3f} {ended.how}"


def parse_ended(value: str) -> Ended | None:
    """Read it back; None for anything else."""
    words = value.split()
    try:
        return Ended(words[0], float(words[1]), words[2])
    except (IndexError, ValueError):
        return None


class Note(NamedTuple):
    """What a promotion saw of the primary before it (`old`, empty at the first), and when: begun, and confirmed (0: not yet).

    By the cluster as it was when the promotion began: online, expected by the DC, in standby, and what was banned from its node (names with
    blanks between them). `named`: the operator named the first one; `wished`: cls_online_switch asked the old one for this.
    """

    term: str
    begun: float
    confirmed: float
    old: str = ""
    old_term: str = ""
    online: bool = False
    expected: bool = False
    standby: bool = False
    named: bool = False
    wished: bool = False
    banned: str = ""


def note_text(note: Note) -> str:
    """Lines of words.

    >>> note = Note("7.node2", 1700000000.5, 1700000001.25, "node1", "3.node1", True, banned="vip ms")
    >>> parse_note(note_text(note)) == note
    True
    """
    return "".join(f"{name}={int(value) if isinstance(value, bool) else value}\n" for name, value in note._asdict().items())


def parse_note(text: str) -> Note | None:
    """Read it back; None when it is not whole."""
    words = dict(line.partition("=")[::2] for line in text.splitlines())
    try:
        online, expected, standby, named, wished = (words[name] == "1" for name in ("online", "expected", "standby", "named", "wished"))
        times = float(words["begun"]), float(words["confirmed"])
        return Note(words["term"], *times, words["old"], words["old_term"], online, expected, standby, named, wished, words["banned"])
    except (KeyError, ValueError):
        return None


class Evidence(NamedTuple):
    """All that is known of why a primary changed.

    `failure`: what Pacemaker says that failed on the old one's node then; `fresh`: the new primary had received nothing since its PostgreSQL was
    started; `last_commit`: when the last transaction that it had replayed was committed (0: none);
    `banned`: the set, or its promoted role, was banned from the old one's node; `address`: when the writer address was up here (0: not known).
    """

    node: str
    note: Note
    ended: Ended | None = None
    fenced: bool = False
    failure: str = ""
    fresh: bool = False
    last_commit: float = 0.0
    banned: bool = False
    address: float = 0.0


def cause(seen: Evidence) -> str:
    """The first row of `CAUSES` that fits; honest where nothing does."""
    return next((words for holds, words in CAUSES if holds(seen)), "unknown").format(old=seen.note.old, failure=seen.failure)


CAUSES: tuple[tuple[Callable[[Evidence], bool], str], ...] = (
    (lambda seen: not seen.note.old and seen.note.named, "first primary, named by an operator"),
    (lambda seen: not seen.note.old, "first election"),
    (lambda seen: _how(seen) == DIED and seen.fresh, "start of the set; PostgreSQL on {old} had ended by itself"),
    (lambda seen: _how(seen) == DIED, "PostgreSQL on {old} ended by itself (killed, or crashed)"),
    (lambda seen: _how(seen) == ASKED and seen.fresh, "start of the set, which had been stopped"),
    (lambda seen: _how(seen) == ASKED and seen.note.wished, "switchover from {old}, by cls_online_switch"),
    (lambda seen: seen.note.online and seen.note.standby, "switchover: {old} was put in standby"),
    (lambda seen: seen.note.online and seen.banned, "switchover: the set was banned from {old}"),
    (lambda seen: bool(seen.failure), "{failure}"),
    (lambda seen: _how(seen) == SILENT, "PostgreSQL on {old} did not answer"),
    (lambda seen: seen.fenced and not seen.note.online, "{old} was lost, and fenced"),
    (lambda seen: not seen.note.online and not seen.note.expected, "{old} left the cluster in order"),
    (lambda seen: not seen.note.online, "{old} was lost"),
    (lambda seen: _how(seen) == ASKED, "Pacemaker demoted {old}; why was not seen"),
    (lambda seen: seen.fresh, "start of the set"),
)
"""What has to be so, and how it is told: the first that fits. The first five rows know more than Pacemaker's words for what follows from them."""


def _how(seen: Evidence) -> str:
    return seen.ended.how if seen.ended else ""


def outage(seen: Evidence) -> tuple[float | None, float | None]:
    """For how many seconds writes were out, at least and at most; None: not known.

    The end is the first confirmed record of the new primary, or the writer address there, whichever came later, by its clock. The begin, if the old
    primary said it, is when its PostgreSQL ended or was asked to; both are one number then. Else it lies between the last commit that was replayed
    and the beginning of the promotion. Times of the old primary are by its clock: one that cannot be (later than what followed from it) is not used.
    """
    note = seen.note
    if not note.old or not note.confirmed:
        return None, None
    end = max(note.confirmed, seen.address)
    least = end - note.begun
    if seen.ended and seen.ended.how != SILENT and end - seen.ended.at >= least:
        return end - seen.ended.at, end - seen.ended.at
    most = end - seen.last_commit
    return least, most if seen.last_commit and most >= least else None


class Record(NamedTuple):
    """One change of primary. at: when its first record was confirmed (0: not known); `switch`: where the new timeline left its parent."""

    term: str
    at: float
    node: str
    old: str
    timeline: int
    parent: int
    switch: str
    least: float | None
    most: float | None
    cause: str


def record_name(resource: str, term: str) -> str:
    """The name of the property."""
    return f"{prefix(resource)}{term}"


def prefix(resource: str) -> str:
    return f"{resource}_history_"


def set_id(resource: str) -> str:
    """The property set that holds the records and nothing else."""
    return f"{resource}_history"


def record_text(record: Record) -> str:
    """The value of the property; the cause comes last, as it may hold anything printable.

    >>> record = Record("7.node2", 1700000000.5, "node2", "node1", 3, 2, "0/1529B90", 1.5, None, "x|y")
    >>> parse_record("7.node2", record_text(record)) == record
    True
    """
    _, at, node, old, timeline, parent, switch, least, most, why = record
    times = "|".join("" if value is None else f"{value:.3f}" for value in (least, most))
    return f"{at:.3f}|{node}|{old}|{timeline}|{parent}|{switch}|{times}|{' '.join(why.split())}"


def parse_record(term: str, value: str) -> Record | None:
    """Read it back; None for anything else."""
    words = value.split("|", 8)
    try:
        times = [float(word) if word else None for word in words[6:8]]
        return Record(term, float(words[0]), words[1], words[2], int(words[3]), int(words[4]), words[5], times[0], times[1], words[8])
    except (IndexError, ValueError):
        return None


def records(properties: Mapping[str, str], resource: str) -> tuple[Record, ...]:
    """All records of the set among the cluster's properties, oldest first."""
    begin = prefix(resource)
    found = (parse_record(name[len(begin) :], value) for name, value in properties.items() if name.startswith(begin))
    return tuple(sorted((one for one in found if one), key=lambda one: (one.timeline, one.at)))


def surplus(known: Iterable[Record]) -> tuple[str, ...]:
    """The terms whose records go when one more comes."""
    ordered = tuple(known)
    return tuple(one.term for one in ordered[: max(0, len(ordered) - MOST + 1)])
