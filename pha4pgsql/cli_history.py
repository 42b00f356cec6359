"""cls_history: every change of primary, with time, cause, timeline, LSN, and how long writes were out; from this node's copy of the cluster's memory.

Exit codes: 0 shown, 100 wrong usage, 101 the cluster cannot be asked on this node.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

from pha4pgsql import arguments, cli, cli_status, history, pacemaker, text
from pha4pgsql.history import Record
from pha4pgsql.status_screen import Line, render, table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping, Sequence

    from pha4pgsql.words import Era, Vote

NOT_RECORDED = "not recorded (by the timelines alone)"
LONG = 120.0
"""Seconds beyond which minutes are precise enough."""


def show(argv: Sequence[str]) -> int:
    """cls_history: the command line."""
    parser = arguments.Parser("cls_history", description="Show every change of primary, the newest last; works without a primary and without quorum.")
    parser.add_argument("-n", type=_count, default=0, metavar="N", help="only the last N")
    parser.add_argument("--json", action="store_true", help="the same for programs, as one JSON list")
    parser.add_argument("--timeout", type=arguments.seconds, default=5.0, metavar="SECONDS", help="how long to wait for an answer (default: 5)")
    return cli.main(parser, _show, argv)


def _count(word: str) -> int:
    import argparse

    if not word.isdigit() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number above 0")
    return int(word)


def _show(options: argparse.Namespace) -> int:
    tree = cli_status.parse(pacemaker.cib(options.timeout))
    named = cli.the_set(text.replicated_sets(tree))
    recorded = history.records(text.cluster(tree).properties, named.primitive)
    found = complete(recorded, cli_status.votes(named.primitive, options.timeout))[-options.n :]
    if options.json:
        print(json.dumps([as_json(one) for one in found], indent=2))
        return 0
    if not found:
        print("no change of primary is recorded yet", file=sys.stderr)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    print(*render(lines(found), width=width), sep="\n")
    return 0


def complete(recorded: Sequence[Record], votes: Mapping[str, Vote]) -> list[Record]:
    """The records, and what the members' own timelines tell of promotions that nobody came to record."""
    known, oldest = {one.term for one in recorded}, recorded[0].timeline if len(recorded) >= history.MOST else 0
    eras = max((vote.eras for vote in votes.values() if vote.eras), key=lambda eras: eras[-1].term, default=())
    missing = [one for one in _by_timelines(eras) if one.term not in known and one.timeline >= oldest]
    return sorted([*recorded, *missing], key=lambda one: (one.timeline, one.at))


def _by_timelines(eras: Iterable[Era]) -> list[Record]:
    found: list[Record] = []
    for era in eras:
        before = found[-1] if found else None
        old, parent = (before.node, before.timeline) if before else ("", era.timeline - 1)
        found.append(Record(str(era.term), 0.0, era.term.node, old, era.timeline, parent, str(era.start), None, None, NOT_RECORDED))
    return found


def as_json(one: Record) -> dict[str, Any]:
    """One change for programs: null where it is not known."""
    return {**one._asdict(), "at": one.at or None, "old": one.old or None, "recorded": one.cause != NOT_RECORDED}


def lines(found: Sequence[Record]) -> list[Line]:
    """A table; the cause stands last, as it may be long."""
    if not found:
        return []
    head = ("WHEN (UTC)", "PRIMARY", "TL", "SWITCH POINT", "WRITES OUT", "CAUSE")
    rows = [(_when(one.at), one.node, str(one.timeline), one.switch, out(one.least, one.most), one.cause) for one in found]
    drawn = table([head, *rows], right={2})
    return [Line(row, "1" if number == 0 else "", drawn[0].index("CAUSE")) for number, row in enumerate(drawn)]


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at)) if at else "?"


def out(least: float | None, most: float | None) -> str:
    """How long writes were out.

    >>> out(1.62, 1.62), out(0.6, 4.26), out(0.6, None), out(None, None), out(0.6, 7200)
    ('1.6 s', '0.6 to 4.3 s', 'over 0.6 s', '-', '0.6 s to 120 min')
    """
    if least is None:
        return "-"
    if most is None:
        return f"over {_long(least)}"
    if _long(least) == _long(most):
        return _long(least)
    return f"{_long(least) if most >= LONG else f'{least:.1f}'} to {_long(most)}"


def _long(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < LONG else f"{seconds / 60:.0f} min"
