"""cls_status as one screen: who is what, how far behind, where the addresses are, what is wrong and the command that mends it. Pure.

A line is a text and a style; a terminal gets colours and its width, everything else plain whole lines. For three healthy nodes with read balancing it
fits 80x24.
"""

from __future__ import annotations

import textwrap
import time
from typing import TYPE_CHECKING, NamedTuple

from pha4pgsql.cli import FOLLOWING
from pha4pgsql.cli_status import Refusal
from pha4pgsql.trouble import State, Trouble, needed, operation_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pha4pgsql.cli_status import Report, Row
    from pha4pgsql.text import FailedAction

WIDTH = 80
PLAIN, GOOD, BAD, WORST, HEAD = "", "32", "33", "31;1", "1"
"""Styles: the parameters of SGR (ECMA-48 8.3.117)."""
STYLES = {State.HEALTHY: GOOD, State.DEGRADED: BAD, State.DOWN: WORST}
UNKNOWN = "?"


class Line(NamedTuple):
    """One line; `hang` is how far it is indented when it has to be folded."""

    text: str
    style: str = PLAIN
    hang: int = 0


def screen(report: Report, troubles: tuple[Trouble, ...], state: State) -> tuple[Line, ...]:
    """The whole screen, top to bottom."""
    parts = [_head(report, state), _members(report), _addresses(report), _pool(report), _repairs(report), _failures(report), _wrong(troubles)]
    lines: list[Line] = []
    for part in parts:
        found = list(part)
        if found:
            lines += [*([Line("")] if lines else []), *found]
    return tuple(lines)


def render(lines: Iterable[Line], *, width: int = 0, colour: bool = False, height: int = 0) -> list[str]:
    """The lines as they are printed. width: fold there (0: never); height: no more lines than that (0: all)."""
    rows = [(row, line.style) for line in lines for row in _folded(line, width)]
    if height and len(rows) > height:
        rows = [*rows[: height - 1], (f"... {len(rows) - height + 1} more lines: cls_status without --watch shows them", HEAD)]
    return [f"\x1b[{style}m{row}\x1b[0m" if colour and style and row else row for row, style in rows]


def _folded(line: Line, width: int) -> list[str]:
    if not width or len(line.text) <= width:
        return [line.text]
    return textwrap.wrap(line.text, width, subsequent_indent=" " * line.hang, break_on_hyphens=False, drop_whitespace=True) or [""]


# ---------------------------------------------------------------- sections


def _head(report: Report, state: State) -> Iterator[Line]:
    name = " / ".join(filter(None, (report.name, report.named.promotable if report.named else "no replicated set")))
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(report.now))
    yield Line(f"{name}: {state.name}".ljust(WIDTH - len(when)) + when, STYLES[state])
    quorum = "yes" if report.quorate else "NO"
    yield Line(f"quorum {quorum}, DC {report.view.dc or 'none'}, asked on {report.here}; {_asked(report)}", PLAIN if report.quorate else WORST)


def _asked(report: Report) -> str:
    """How old the primary's figures are, or why there are none."""
    if report.asked.answered:
        return f"the primary answered in {report.asked.took * 1000:.0f} ms"
    said = {Refusal.NOT_ASKED: "no primary was asked", Refusal.SILENT: "the primary did not answer"}.get(
        report.asked.refusal or Refusal.NOT_ASKED, "the primary may not be asked"
    )
    return f"{said}; last change {report.view.changed.partition(' ')[2] or 'unknown'}"


def _members(report: Report) -> Iterator[Line]:
    head = ("NODE", "ROLE", "TL", "LSN", "LAG BYTES", "SECONDS", "SYNC", "DOING")
    rows = [_member(report, row) for row in report.rows]
    if rows:
        styles = [HEAD, *(_style(report, row) for row in report.rows)]
        yield from (Line(text, style, 2) for text, style in zip(table([head, *rows], right={2, 4, 5}), styles))


def _member(report: Report, row: Row) -> tuple[str, ...]:
    primary = row.name in report.promoted
    known = row.role if row.online else "offline"
    role = {"promoted": "primary", "started": "standby"}.get(known, known)
    lag = ("-", "-") if primary or role != "standby" else (_number(row.lag_bytes), UNKNOWN if row.lag_seconds is None else f"{row.lag_seconds:.1f}")
    return (row.name, role, str(row.timeline or UNKNOWN), row.lsn or UNKNOWN, *lag, "-" if primary else _sync(report, row), doing(report, row))


def _number(value: int | None) -> str:
    return UNKNOWN if value is None else str(value)


def _sync(report: Report, row: Row) -> str:
    """By the primary's own word, else by the attribute of a standby that is there."""
    if report.asked.answered:
        return row.sync_state or "-"
    _, _, word = (row.data_status or "").partition("|")
    return word.lower() if word and row.online and row.role == "started" and row.status in FOLLOWING else "-"


def doing(report: Report, row: Row) -> str:
    """What a node does, in a few words."""
    if not row.online:
        return "offline"
    if row.repair:
        return row.repair if not row.repair.startswith("failed") else "repair failed"
    if row.standby or row.maintenance:
        return "in standby" if row.standby else "in maintenance"
    if row.role == "promoted":
        return _reigns(report)
    if row.role != "started":
        return row.role if row.role != "stopped" else "nothing"
    if report.asked.answered and not report.asked.standby:
        return {"streaming": "streams", "catchup": "catches up", "backup": "is copied", "startup": "connects"}.get(row.state or "", "does not stream")
    return {"HS:alone": "waits for a primary", "HS:connected": "connects"}.get(row.status or "", f"last seen as {row.status or 'unknown'}")


def _reigns(report: Report) -> str:
    """What the primary does, as far as it said it."""
    asked = report.asked
    if not report.quorate or asked.refusal is Refusal.NOT_ASKED:
        return "promoted, not asked"
    if not asked.answered:
        return "does not answer" if asked.refusal is Refusal.SILENT else "promoted, not asked"
    if asked.standby:
        return "is changing"
    if asked.confirming < needed(asked.names):
        return "commits wait"
    return "takes writes, alone" if any(" goes on alone " in note for note in report.notes) else "takes writes"


def _style(report: Report, row: Row) -> str:
    if not row.online or row.role not in {"promoted", "started"} or row.repair:
        return WORST
    good = doing(report, row) in {"takes writes", "streams"} or row.role == "promoted"
    return GOOD if good else BAD


def _addresses(report: Report) -> Iterator[Line]:
    if report.named is None:
        return
    kinds = (("writer", report.named.writers), ("reader", report.named.readers))
    rows = [(f"{kind} address", address, report.vips.get(name) or "NOWHERE", name) for kind, found in kinds for name, address in found.items()]
    yield from (Line(text, BAD if "NOWHERE" in text else PLAIN) for text in table(rows))


def _pool(report: Report) -> Iterator[Line]:
    reading = report.reading
    if reading is None:
        return
    age = "age unknown" if reading.age is None else f"seen {reading.age} s ago" if reading.age else "seen now"
    yield Line(f"read pool of {reading.resource} on {reading.director or 'no node'}, {age}", HEAD)
    rows = [(one.name, one.address, str(one.weight), str(one.active), str(one.inactive)) for one in reading.pool.servers]
    if rows:
        yield from map(Line, table([("SERVER", "ADDRESS", "WEIGHT", "ACTIVE", "INACTIVE"), *rows], right={2, 3, 4}))


def _repairs(report: Report) -> Iterator[Line]:
    """A bar for each repair that tells how far it is."""
    for row in report.rows:
        kind, _, rest = (row.repair or "").partition(" ")
        percent, _, detail = rest.partition(" ")
        if percent.rstrip("%").isdigit():
            done = min(100, int(percent.rstrip("%")))
            yield Line(f"{row.name} {kind} [{'#' * (done // 5):.<20}] {done:3} %  {detail}", BAD, 4)


def _failures(report: Report) -> Iterator[Line]:
    if report.view.failed:
        yield Line("FAILURES", HEAD)
    yield from (Line(f"  {_failure(report, one)}", PLAIN, 4) for one in report.view.failed)


def _failure(report: Report, one: FailedAction) -> str:
    resource, operation, _ = operation_of(one)
    counts = {found.fail_count for found in report.view.histories.get(one.node, ()) if found.resource == resource}
    count = f" (fail count {' '.join(sorted(counts))})" if counts else ""
    return f"{one.when or 'some time ago'}  {operation} of {resource} on {one.node}{count}: {one.reason or one.said}"


def _wrong(troubles: Sequence[Trouble]) -> Iterator[Line]:
    wrong = [one for one in troubles if one.worst is not State.HEALTHY]
    known = [one for one in troubles if one.worst is State.HEALTHY]
    yield Line("WHAT IS WRONG" if wrong else "nothing is wrong", HEAD if wrong else GOOD)
    yield from (line for one in wrong for line in _trouble(one))
    if known:
        yield Line("WORTH KNOWING", HEAD)
        yield from (line for one in known for line in _trouble(one))


def _trouble(one: Trouble) -> Iterator[Line]:
    yield Line(f"  {one.what}", STYLES[one.worst] if one.worst is not State.HEALTHY else PLAIN, 4)
    if one.hint:
        yield Line(f"    -> {one.hint}", PLAIN, 7)


# ---------------------------------------------------------------- tables and repainting


def table(rows: Sequence[Sequence[str]], right: frozenset[int] | set[int] = frozenset()) -> list[str]:
    """Columns as wide as their widest word, two blanks between them; `right` names columns of numbers.

    >>> table([("A", "N"), ("bb", "10")], right={1})
    ['A    N', 'bb  10']
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(cell.rjust(width) if number in right else cell.ljust(width) for number, (cell, width) in enumerate(zip(row, widths))).rstrip()
        for row in rows
    ]


def repaint(rows: Sequence[str], *, first: bool) -> str:
    r"""What is sent to a terminal so that the screen changes in place: home, each line with the rest of it erased, then everything below.

    Nothing is cleared before it is written anew, so nothing flickers (ECMA-48: CUP, EL, ED).

    >>> repaint(["a", "b"], first=False)
    '\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J'
    """
    return ("\x1b[2J" if first else "") + "\x1b[H" + "".join(f"{row}\x1b[K\n" for row in rows) + "\x1b[J"
