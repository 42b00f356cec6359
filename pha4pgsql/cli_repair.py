"""cls_repair_by_pg_rewind and cls_rebuild_slave: make this node a copy of the primary again, and wait until it streams.

Both act on the node they are typed on. Pacemaker need not be told anything: while the mark stands the agent does not start PostgreSQL here.
Exit codes: 0 done, 1 refused or failed, 10 there is no primary to copy from, 11 it does not stream in time, 100 wrong usage, or nothing to repair.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from pha4pgsql import arguments, cli, copying, pacemaker, paths, procedure, rejoin, repair, replicas, sight
from pha4pgsql.checks import must
from pha4pgsql.settings import Settings, of_parameters
from pha4pgsql.site import Scope
from pha4pgsql.words import NEVER, ClusterRefusal, Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pha4pgsql.checks import Check
    from pha4pgsql.copies import Progress
    from pha4pgsql.procedure import Say
    from pha4pgsql.words import Scene

NO_PRIMARY, LATE = 10, 11
BAR = 24
"""Characters of the bar."""
SELDOM = 10.0
"""Seconds between two lines of progress where they cannot be written over each other."""


class Late(ClusterRefusal):
    """Repaired, but not seen to stream within the time."""

    code = LATE


class Ground(NamedTuple):
    """All that one look showed."""

    here: str
    site: cli.Site
    settings: Settings
    scene: Scene
    facts: repair.Facts | None
    silence: str = ""

    @property
    def primaries(self) -> tuple[str, ...]:
        """Who is promoted by Pacemaker's record, and by its own word where anybody says so: a node that failed may be recorded so for a moment."""
        shown = self.site.cluster.where(self.site.named.primitive, "promoted")
        return tuple(node for node in shown if self.scene.vote(node).reign != NEVER) or shown

    @property
    def primary(self) -> str:
        return sight.reigning(self.scene)


def look() -> Ground:
    """Look at the cluster, at this node, and ask the primary."""
    site, here = cli.look(), pacemaker.local_node()
    settings = of_parameters(site.named.parameters, site.named.primitive)
    settings = settings._replace(bindir=paths.find_programs(settings.bindir, settings.pgctl, settings.datadir))
    scene = repair.fresh(settings, here).look(scope=Scope.VOTES)
    found = Ground(here, site, settings, scene, None)
    if not found.primary or found.primary == here:
        return found
    try:
        return found._replace(facts=repair.facts(settings, found.primary))
    except replicas.Unanswered as silent:
        return found._replace(silence=silent.message)


# ---------------------------------------------------------------- what must be so


def common_checks(ground: Ground) -> list[Check]:
    """What both commands need, the seed's refusals first."""
    named, here, scene = ground.site.named, ground.here, ground.scene
    known, member = here in cli.members(ground.site), ground.site.cluster.members.get(here)
    reigns = bool(ground.primary) and ground.primaries == (ground.primary,)
    healthy = known and not cli.not_replicating(ground.site, here)
    term, promised = scene.vote(ground.primary).reign, scene.state.promised
    shown = "shown as promoted: " + (" ".join(ground.primaries) or "no node")
    return [
        must("this node is a member of the set", known, f"{here} is not in node_list", code=arguments.USAGE),
        must(f"{here} is not the primary", here not in ground.primaries, f"{here} is the primary", "cls_master shows it", arguments.USAGE),
        must(f"{here} does not replicate", not healthy, f"{here} is healthy, nothing is to be repaired", "cls_status shows it", arguments.USAGE),
        must("a primary reigns", reigns, f"no primary to copy from ({shown})",
             "cls_status shows why; if the data here are lost for good, and nobody is elected without them: cls_reset_master --no-data", NO_PRIMARY),
        must("its term is not below what this node has promised", not reigns or term >= promised, f"{term} is below {promised}",
             "this primary is outvoted; wait for the next one", NO_PRIMARY),
        must(f"{ground.primary or 'the primary'} answers the replication role on this node", ground.facts is not None if reigns else None,
             ground.silence, f"pg_hba.conf of {ground.primary} needs lines for {ground.settings.repuser}: databases all and replication"),
        must("Pacemaker may start PostgreSQL here", member is not None and not member.standby and not named.disabled,
             f"{here} is in standby, or {named.promotable} is disabled", f"cls_unstandby_node {here}; cls_start"),
        must("Pacemaker manages the set", not ground.site.cluster.property_is("maintenance-mode", default=False),
             "the cluster is in maintenance mode", "cls_unmaintenance"),
    ]  # fmt: skip


def rewind_checks(ground: Ground) -> list[Check]:
    """What pg_rewind needs besides."""
    found, settings = ground.facts, ground.settings
    if found is None:
        return []
    data = repair.unsuited(settings)
    down = ground.scene._replace(instance=ground.scene.instance._replace(run=Run.DOWN))
    possible = copying.copied(down, "", rewind=True) if not data else ""
    run, member = ground.scene.instance.run, ground.site.cluster.members.get(ground.here)
    role = member.roles.get(ground.site.named.primitive, "stopped") if member else "stopped"
    return [
        must("PostgreSQL does not run here", run is Run.DOWN or role == "stopped", f"it is {run.value}", "its monitor ends it"),
        must("the data here can be rewound", not data, data, "cls_rebuild_slave"),
        must("the histories here and there can be compared", not isinstance(possible, str) or not possible, str(possible), "cls_rebuild_slave"),
        must(f"{settings.repuser} may read the primary's files", found.rewinds, f"{settings.repuser} may not call what pg_rewind calls",
             "on the primary, in the database postgres: " + " ".join(repair.grants(settings, found.major))),
        must("the same major version", found.major == paths.data_version(settings.datadir),
             f"{ground.primary} has {found.major}, {settings.datadir} is of {paths.data_version(settings.datadir)}"),
    ]  # fmt: skip


def rebuild_checks(ground: Ground, wish: repair.Wish) -> list[Check]:
    """What a new copy needs besides."""
    found, settings = ground.facts, ground.settings
    place = os.path.realpath(settings.datadir)
    busy = repair.occupied(settings, found, ground.scene.state, discard=wish.discard) if found else []
    need = found.size + found.wal_kept // 4 if found else 0
    room = repair.room(settings, discard=wish.discard)
    other = bool(found) and ground.scene.instance.system_identifier not in ("", ground.scene.vote(ground.primary).system_identifier)
    return [
        must(f"{room >> 20} MB of room for {need >> 20} MB", room >= need if found else None, f"{room >> 20} MB are free, {need >> 20} MB are needed",
             "--discard deletes the old data before the copy" + (f", and {' '.join(kept)}" if (kept := repair.moved_aside(place)) else "")),
        must(f"{place} is no copy of another database", not other, f"its system identifier is {ground.scene.instance.system_identifier}",
             "nothing of another database is touched: move it away by hand"),
        must(f"{place} can be moved aside", wish.discard or not os.path.ismount(place), f"{place} is a mount point",
             "--discard deletes what is in it"),
        must("pg_wal is no link", not os.path.islink(f"{place}/pg_wal"), f"{place}/pg_wal is a link, the copy would have it inside",
             "replace the link by the directory; after the rebuild move pg_wal out again"),
        must("the tablespaces' places are empty", not busy, f"not empty: {' '.join(busy)}", f"--discard deletes what belongs to the old data; or "
             f"for each: mv {busy[0] if busy else 'X'} aside, and an empty directory of {settings.pgdba} in its place"),
        must("--from names another member", not wish.source or (wish.source in cli.members(ground.site) and wish.source != ground.here),
             f"{wish.source} is no other member", "cls_status shows the members", arguments.USAGE),
    ]  # fmt: skip


# ---------------------------------------------------------------- the commands


def rewind(argv: Sequence[str]) -> int:
    """cls_repair_by_pg_rewind."""
    parser = arguments.Parser("cls_repair_by_pg_rewind", description="Repair this node, whose data left the primary's history, with pg_rewind.")
    procedure.options(parser, timeout=60.0, waits_for="it to stream at the end")
    parser.add_argument("--keep", type=_directory, metavar="DIRECTORY", help="keep the WAL that is thrown away there, and a list of its records")
    parser.add_argument("--or-rebuild", action="store_true", help="copy the primary anew where a rewind is not possible")
    return cli.main(parser, _rewind, argv)


def _directory(word: str) -> str:
    if not word.startswith("/"):
        raise argparse.ArgumentTypeError(f"{word!r} is not an absolute path")
    return word


def _rewind(options: argparse.Namespace) -> int:
    ground = _ready()
    wish = repair.Wish(rewind=True, keep=options.keep or "")
    checks = [*common_checks(ground), *rewind_checks(ground)]
    refusal = procedure.refused(checks)
    fits = options.or_rebuild and refusal is not None and procedure.refused(common_checks(ground)) is None
    if fits:
        print(f"a rewind is not possible, copying anew: {refusal}", file=sys.stderr)
        wish = repair.Wish(rewind=False)
        checks = [*common_checks(ground), *rebuild_checks(ground, wish)]
    return _perform(ground, wish, checks, options)


def rebuild(argv: Sequence[str]) -> int:
    """cls_rebuild_slave."""
    parser = arguments.Parser("cls_rebuild_slave", description="Make this node a new copy of the primary, with pg_basebackup.")
    procedure.options(parser, timeout=60.0, waits_for="it to stream at the end")
    parser.add_argument("--from", dest="source", default="", metavar="NODE", help="copy from this standby and spare the primary")
    parser.add_argument("--max-rate", type=rate, metavar="RATE", help="at most so many kB a second, or with a suffix M so many MB")
    parser.add_argument("--discard", action="store_true", help="delete the old data before the copy, and what earlier rebuilds moved aside")
    return cli.main(parser, _rebuild, argv)


def rate(word: str) -> str:
    """The argument of pg_basebackup's --max-rate."""
    if not re.fullmatch(r"[0-9]+[kM]?", word):
        raise argparse.ArgumentTypeError(f"{word!r} is no rate such as 20M")
    return word


def _rebuild(options: argparse.Namespace) -> int:
    ground = _ready()
    wish = repair.Wish(rewind=False, source=options.source, rate=options.max_rate or "", discard=options.discard)
    return _perform(ground, wish, [*common_checks(ground), *rebuild_checks(ground, wish)], options)


def _ready() -> Ground:
    cli.need_root()
    ground = look()
    cli.need_quorum()
    return ground


def _perform(ground: Ground, wish: repair.Wish, checks: Sequence[Check], options: argparse.Namespace) -> int:
    say = procedure.stopwatch()
    bar = Bar(say)
    one = repair.Repair(ground.settings, ground.here, wish, bar.line, bar.hear)
    plan = procedure.Plan(checks, steps(ground, wish, one, options.timeout, say), risk(ground, wish))
    if not options.dry_run and procedure.refused(checks) is None:
        one.acquire()
    try:
        if procedure.perform(plan, options, say):
            print(f"slave recovery of {ground.here} successed")
    except (procedure.Refused, Late):
        raise
    except BaseException as trouble:
        one.settle(next(iter(str(trouble).splitlines()), "interrupted"))
        one.release()
        if ground.scene.instance.run is not Run.DOWN:  # it was shut down for the copy, and its start was refused meanwhile
            pacemaker.cleanup(ground.settings.resource, node=ground.here)
        raise
    finally:
        one.release()
    return 0


def risk(ground: Ground, wish: repair.Wish) -> str:
    """What a person should know before."""
    here = ground.here
    if wish.rewind:
        return f"what only {here} has is thrown away{f', except for what goes to {wish.keep}' if wish.keep else ''}; interrupted, it needs a rebuild"
    return f"the data of {here} are {'deleted, and what earlier rebuilds kept' if wish.discard else 'moved aside'}, a copy takes their place"


def steps(ground: Ground, wish: repair.Wish, one: repair.Repair, limit: float, say: Say) -> list[procedure.Step]:
    """The same for both, but for what is done to the bytes."""
    source, here = wish.source or ground.primary, ground.here
    if wish.rewind:
        copying = [
            procedure.Step("finish the crash recovery, if it was not shut down cleanly", one.recover, undo_what="nothing of the data is changed"),
            procedure.Step(f"let pg_rewind try without changing anything, from {source}", one.try_rewind),
            procedure.Step(f"rewind to where the history of {source} goes", one.rewind, undo_what="half a rewind cannot be used: cls_rebuild_slave"),
        ]
    else:
        size = f" ({ground.facts.size >> 20} MB)" if ground.facts else ""
        copying = [procedure.Step(f"copy {source}{size} to {ground.settings.datadir}", one.clone, undo_what="the next run begins the copy anew")]

    def accept() -> None:
        one.release()
        rejoin.forget(ground.settings)
        pacemaker.cleanup(ground.settings.resource, node=here)

    return [
        *copying,
        procedure.Step("let Pacemaker start PostgreSQL here again", accept),
        procedure.Step(f"wait until {here} streams", lambda: streams(here, limit, say)),
    ]


def streams(here: str, limit: float, say: Say) -> None:
    """Until the primary says that it does."""
    say("wait for recovery complete")
    left = procedure.wait(lambda: cli.not_replicating(cli.look(), here), limit, say)
    if left:
        raise Late(f"{left} after {limit:g} s; the data are whole, and it goes on", "cls_status shows how it stands")


class Bar:
    """Progress for people: one line that is written over on a terminal, elsewhere a line now and then."""

    def __init__(self, say: Say) -> None:
        self._say, self._terminal = say, sys.stderr.isatty()
        self._began = self._told = time.monotonic()
        self._open = False

    def hear(self, seen: Progress) -> None:
        now = time.monotonic()
        text = bar(seen, now - self._began)
        if self._terminal and now - self._told > 0.2:
            print(f"\r{text:<78}", end="", file=sys.stderr, flush=True)
            self._told, self._open = now, True
        elif not self._terminal and now - self._told > SELDOM:
            self._say(text)
            self._told = now

    def line(self, text: str) -> None:
        if self._open:
            print(file=sys.stderr)
            self._open = False
        self._began = time.monotonic()
        self._say(text)


def bar(seen: Progress, seconds: float) -> str:
    """A bar, the rate, and the time that is left at this rate.

    >>> from pha4pgsql.copies import Progress
    >>> bar(Progress(51200, 102400), 5.0)
    '[############............]  50 %  50 of 100 MB  10 MB/s  5 s left'
    """
    full = seen.percent * BAR // 100
    rate = seen.done / seconds if seconds > 0 else 0.0
    left = f"  {max(0, seen.total - seen.done) / rate:.0f} s left" if rate else ""
    return f"[{'#' * full}{'.' * (BAR - full)}] {seen.percent:3} %  {seen.done >> 10} of {seen.total >> 10} MB  {rate / 1024:.0f} MB/s{left}"
