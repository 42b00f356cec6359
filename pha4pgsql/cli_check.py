"""cls_check: the preconditions of a healthy cluster in one bounded look, as lines for people, JSON, or one line for a monitoring system.

Exit codes: 0 all well, 1 warnings, 2 critical, 3 something could not be asked and nothing is known to be wrong, 100 wrong usage,
101 the cluster cannot be asked on this node (with --nagios 3).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from pha4pgsql import arguments, checkup, checkup_node, cli, cli_screen, cli_status, config, errand, remote, replicas, status_screen, trouble
from pha4pgsql.checkup import Facts, Level, Line
from pha4pgsql.words import Failure

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from pha4pgsql.checkup import Answer
    from pha4pgsql.text import Named

LIMIT = 15.0
"""Seconds for one node over ssh: Python starts there, and the library is unpacked first."""
SERVER_LIMIT = 3.0
"""Seconds for one PostgreSQL."""
STYLES = {Level.OK: status_screen.GOOD, Level.UNKNOWN: status_screen.BAD, Level.WARNING: status_screen.BAD, Level.CRITICAL: status_screen.WORST}
STATES = {trouble.State.HEALTHY: Level.OK, trouble.State.DEGRADED: Level.WARNING, trouble.State.DOWN: Level.CRITICAL}
NAMES = (*(one.name for one in checkup.SETTINGS), "server_version_num", "wal_log_hints", "data_checksums", "restore_command", *checkup.NOT_BELOW)
SETTINGS = f"select name, setting from pg_settings where name in ({', '.join(repr(name) for name in NAMES)})"  # noqa: S608  names of our own table
SLOTS = """
select slot_name::text, active, wal_status,
       case when not pg_is_in_recovery() then pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint end
  from pg_replication_slots
"""
MISTAKES = """
select coalesce(sourcefile, '?'), coalesce(sourceline, 0), error from pg_file_settings
 where error is not null and error <> 'setting could not be applied'
"""
"""What makes PostgreSQL refuse a whole reload (ProcessConfigFile); a setting that only waits for a restart does not."""


def check(argv: Sequence[str]) -> int:
    """cls_check: the command line."""
    if len(argv) == 3 and argv[:2] == ["errand", "node"]:
        return errand.serve(checkup_node.VERBS, argv[2])
    parser = arguments.Parser("cls_check", description="Check what a healthy cluster needs: OK, WARNING, CRITICAL or UNKNOWN for each, with hints.")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs, as one JSON object")
    form.add_argument("--nagios", action="store_true", help="one line for a monitoring system, with performance data; exit code 0, 1, 2 or 3")
    parser.add_argument("--config", default=config.beside(sys.argv[0]), metavar="FILE", help="config.ini (default: %(default)s)")
    parser.add_argument(
        "--timeout", type=arguments.seconds, default=LIMIT, metavar="SECONDS", help=f"how long to wait for a node (default: {LIMIT:g})"
    )
    return cli.main(parser, _check, argv)


def _check(options: argparse.Namespace) -> int:
    try:
        seen = cli_screen.look(min(options.timeout, 5.0))
        lines = checkup.check(gather(seen, options))
    except Failure as failure:
        if not options.nagios:
            raise
        print(f"PHA4PGSQL UNKNOWN - {failure.message}")
        return Level.UNKNOWN.value
    if options.nagios:
        print(nagios(lines, seen.report))
    elif options.json:
        print(json.dumps(as_json(lines), indent=2))
    else:
        terminal = sys.stdout.isatty()
        width = shutil.get_terminal_size().columns if terminal else 0
        print(*status_screen.render(shown(lines), width=width, colour=cli_screen.has_colours()), sep="\n")
    return checkup.worst(lines).value


# ---------------------------------------------------------------- asking


def gather(seen: cli_screen.Look, options: argparse.Namespace) -> Facts:
    """Ask all nodes and all servers at the same time."""
    sight, report, named = seen.sight, seen.report, cli.the_set([seen.report.named] if seen.report.named else [])
    members = named.nodes or tuple(sight.cluster.members)
    folder = os.path.dirname(os.path.realpath(options.config))
    request = {"parameters": dict(named.parameters), "resource": named.primitive, "members": list(members), "folder": folder}
    archive = remote.library("cls_check")
    shell = Bounded("BatchMode=yes", "LogLevel=ERROR", "ConnectTimeout=3", limit=options.timeout)
    try:
        with ThreadPoolExecutor(2 * len(members)) as pool:
            servers = pool.map(lambda node: _server(node, named), members)
            nodes = pool.map(lambda node: _node(shell, node, archive, request), members)
            asked, told = dict(zip(members, nodes)), dict(zip(members, servers))
    finally:
        shell.close()
    wrong = sum(one.worst is not trouble.State.HEALTHY for one in seen.troubles)
    utc = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(report.now))
    service = (seen.state.name, STATES[seen.state], wrong)
    return Facts(_own(report.here, asked), sight.quorate, sight.cluster, named, sight.view, asked, told, _wanted(options.config), utc, service)


def _own(here: str, asked: Mapping[str, Answer]) -> str:
    """The name of this node among the members: the cluster's own word may not have come."""
    return here if here in asked else next((node for node in asked if remote.is_here(node)), here)


class Bounded(remote.Ssh):
    """ssh that ends in time, whatever the other side does, and never asks for anything."""

    def __init__(self, *options: str, limit: float) -> None:
        super().__init__(*options)
        self.limit = limit

    def _ssh(self) -> list[str]:
        return ["timeout", "-k", "1", f"{self.limit:g}", *super()._ssh()]


def _node(shell: Bounded, node: str, archive: bytes, request: Mapping[str, Any]) -> Answer:
    """What a node says of itself, with how far its clock is from ours; else why it says nothing."""
    places: list[remote.Stage] = []
    try:
        if remote.is_here(node):
            return {**checkup_node.facts(request, print), "offset": 0.0}
        places += remote.stage(shell, [node], archive)
        command = [*errand.PYTHON, f"{places[0].folder}/bin/cls_check", "errand", "node"]
        said = errand.there(shell, node, command, lambda _text: None)("facts", **request)
        return {**said, "offset": said["clock"] - time.time()}
    except (Failure, OSError) as failure:
        return _short(str(failure).partition("\n")[0], node)
    finally:
        remote.remove(shell, places)


def _short(why: str, node: str) -> str:
    """ssh's own words, without the node's name, which stands before the line anyway: nodes with the same trouble are told together.

    >>> _short("node2: the programs could not be unpacked: ssh: connect to host node2 port 22: Connection refused", "node2")
    'not reached by ssh: connect to port 22: Connection refused'
    >>> _short("root@node2: Permission denied (publickey).", "node2")
    'not reached by ssh: Permission denied (publickey).'
    """
    words = why.replace(f"host {node} ", "")
    for prefix in (f"{node}: ", "the programs could not be unpacked:", "ssh:", f"root@{node}:"):
        words = words.removeprefix(prefix).strip()
    return f"not reached by ssh: {words or 'no answer in time'}"


def _server(node: str, named: Named) -> Answer:
    """Settings and slots of one member's PostgreSQL, over the network as standbys connect."""
    conninfo, passfile = cli_status.writer(named)
    try:
        rows = replicas.ask(conninfo, SETTINGS, passfile=passfile, timeout=SERVER_LIMIT, host=node)
        slots = replicas.ask(conninfo, SLOTS, passfile=passfile, timeout=SERVER_LIMIT, host=node)
    except ImportError:
        return "the Python package psycopg2 is not there"
    except replicas.Unanswered as failed:
        return failed.message
    mistakes: Sequence[tuple[Any, ...]] = ()
    with contextlib.suppress(replicas.Unanswered):  # only superusers may look
        mistakes = replicas.ask(conninfo, MISTAKES, passfile=passfile, timeout=SERVER_LIMIT, host=node)
    return {**dict(rows), "slots": slots, "mistakes": mistakes}


def _wanted(path: str) -> Answer:
    """The agent's parameters by config.ini."""
    try:
        return config.load(path).agent_parameters
    except Failure as failure:
        return failure.message.replace("\n ", ";")


# ---------------------------------------------------------------- showing: pure


def shown(lines: Sequence[Line]) -> list[status_screen.Line]:
    """A line for each, its hint below, and a summary."""
    width = max(len(line.name) for line in lines)
    drawn = []
    for line in lines:
        drawn.append(status_screen.Line(f"{line.level.name:<8}  {line.name:<{width}}  {line.seen}", STYLES[line.level], width + 12))
        if line.hint:
            drawn.append(status_screen.Line(f"{'':<10}{'':<{width}}  HINT: {line.hint}", status_screen.PLAIN, width + 18))
    level = checkup.worst(lines)
    return [*drawn, status_screen.Line(""), status_screen.Line(f"{level.name}: {summary(lines)}", STYLES[level])]


def summary(lines: Sequence[Line]) -> str:
    """How many of each."""
    counts = {level: sum(line.level is level for line in lines) for level in (Level.CRITICAL, Level.WARNING, Level.UNKNOWN, Level.OK)}
    return ", ".join(f"{count} {level.name}" for level, count in counts.items() if count)


def as_json(lines: Sequence[Line]) -> dict[str, Any]:
    """All lines for programs."""
    found = [{"check": line.name, "level": line.level.name, "seen": line.seen, "hint": line.hint} for line in lines]
    return {"level": checkup.worst(lines).name, "checks": found}


def nagios(lines: Sequence[Line], report: cli_status.Report) -> str:
    """One line: the worst first, then performance data (Monitoring Plugins Development Guidelines, 2.6)."""
    bad = sorted((line for line in lines if line.level is not Level.OK), key=lambda line: -checkup.ORDER.index(line.level))
    said = "; ".join(f"{line.name}: {line.seen}" for line in bad) or f"{len(lines)} checks are well"
    counts = " ".join(f"{level.name.lower()}={sum(line.level is level for line in lines)}" for level in Level)
    lags = [
        f"'lag_{row.name}'={row.lag_bytes}B 'delay_{row.name}'={row.lag_seconds:.3f}s"
        for row in report.rows
        if row.lag_bytes is not None and row.lag_seconds is not None and row.name != report.primary
    ]
    return f"PHA4PGSQL {checkup.worst(lines).name} - {said} | {' '.join([counts, *lags])}".replace("\n", " ")
