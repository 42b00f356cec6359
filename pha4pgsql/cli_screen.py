"""cls_status: the command line, one look or one every few seconds, colours for a terminal.

Exit codes: 0 healthy, 1 degraded, 2 down, 100 wrong usage, 101 the cluster cannot be asked on this node.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from pha4pgsql import arguments, cli, cli_status, pacemaker, status_crm, status_screen, trouble

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

EVERY = 2.0
"""Seconds from one look to the next."""


class Look(NamedTuple):
    """One look: what Pacemaker said, all that was seen, what is wrong with it, and the whole in one word. `code` is the exit code."""

    sight: cli_status.Sight
    report: cli_status.Report
    troubles: tuple[trouble.Trouble, ...]
    state: trouble.State

    @property
    def code(self) -> int:
        return self.state.value


def look(timeout: float) -> Look:
    """Look at everything once."""
    sight = cli_status.observe(timeout)
    sets = sight.sets
    named = cli.the_set(sets) if sets else None
    report = cli_status.report(sight, named, cli_status.ask(sight, named, timeout))
    troubles = trouble.find(report)
    return Look(sight, report, troubles, trouble.state(troubles))


def status(argv: Sequence[str]) -> int:
    """cls_status: what the cluster does now."""
    parser = arguments.Parser("cls_status", description="Show the state of the cluster as this node knows it; works without quorum, and says so.")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs, as one JSON object (with --watch one line for each look)")
    form.add_argument("--crm", action="store_true", help="section by section as Pacemaker's own crm_mon shows it, with REPL_INFO")
    parser.add_argument("--watch", nargs="?", type=arguments.seconds, const=EVERY, metavar="S", help="look again every S seconds (2) until Ctrl-C")
    parser.add_argument("--timeout", type=arguments.seconds, default=5.0, metavar="SECONDS", help="how long to wait for an answer (default: 5)")
    return cli.main(parser, _status, argv)


def _status(options: argparse.Namespace) -> int:
    if options.watch:
        return _watch(options)
    seen = look(options.timeout)
    print("\n".join(_shown(seen, options)))
    return seen.code


def _shown(seen: Look, options: argparse.Namespace, height: int = 0) -> list[str]:
    """One look in the form that was asked for."""
    if options.json:
        return [json.dumps(as_json(seen), indent=None if options.watch else 2)]
    if options.crm:
        return status_crm.as_text(seen.report).split("\n")
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    lines = status_screen.screen(seen.report, seen.troubles, seen.state)
    return status_screen.render(lines, width=width, colour=has_colours(), height=height)


def as_json(seen: Look) -> dict[str, Any]:
    """The report for programs, with the judgement."""
    found = cli_status.as_json(seen.report)
    for row, told in zip(seen.report.rows, found["nodes"]):
        told["doing"] = status_screen.doing(seen.report, row)
    found["state"] = seen.state.name.lower()
    found["problems"] = [{"state": one.worst.name.lower(), "what": one.what, "hint": one.hint} for one in seen.troubles]
    return found


def has_colours() -> bool:
    """Only for a person on a terminal who has not said no (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def _watch(options: argparse.Namespace) -> int:
    """Look again and again, until a person has seen enough: the last screen stays, its code is the command's."""
    code, first = 0, True
    terminal = sys.stdout.isatty() and not options.json
    try:
        while True:
            began = time.monotonic()
            height = shutil.get_terminal_size().lines - 1 if terminal else 0
            rows, code = _look_again(options, height)
            sys.stdout.write(status_screen.repaint(rows, first=first) if terminal else "\n".join([*rows, *([] if options.json else [""]), ""]))
            sys.stdout.flush()
            first = False
            while (left := began + options.watch - time.monotonic()) > 0:
                time.sleep(min(left, 0.1))
    except KeyboardInterrupt:
        return code


def _look_again(options: argparse.Namespace, height: int) -> tuple[list[str], int]:
    """A cluster that cannot be asked now may be there at the next look."""
    try:
        seen = look(options.timeout)
    except pacemaker.Unreachable as failure:
        said = [json.dumps({"state": "unknown", "why": failure.message})] if options.json else str(failure).splitlines()
        return said, failure.code
    return _shown(seen, options, height), seen.code
