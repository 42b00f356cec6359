"""The work for a new member on that node itself: look, and copy the primary. It runs there, by `errand`, as root, with our programs installed.

Layer 3. The copy is made as any other of a member (`repair`): under the mark, and proven by the slot of the primary's term.
"""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING, Any

from pha4pgsql import VERSION, copies, paths, postgres, reader_node, repair
from pha4pgsql.settings import of_parameters
from pha4pgsql.words import NEVER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pha4pgsql.copies import Progress
    from pha4pgsql.errand import Say, Verb
    from pha4pgsql.settings import Settings

AGENTS = "/usr/lib/ocf/resource.d/pha4pgsql"


def _settings(request: Mapping[str, Any]) -> Settings:
    settings = of_parameters(request["parameters"], request["resource"])
    return settings._replace(bindir=paths.find_programs(settings.bindir, settings.pgctl, settings.datadir))


def look(request: Mapping[str, Any], _: Say) -> dict[str, Any]:
    """All that has to be known of the node; changes nothing."""
    settings = _settings(request)
    missing = [name for name in reader_node.PROGRAMS if not settings.bindir or not os.access(settings.program(name), os.X_OK)]
    missing += [name for name in ("pgsql", "pgwatch") if not os.access(f"{AGENTS}/{name}", os.X_OK)]
    try:
        pwd.getpwnam(settings.pgdba)
    except KeyError:
        missing.append(f"the user {settings.pgdba}")
    return {
        "version": VERSION,
        "missing": missing,
        "major": None if missing else reader_node.major_of(settings),
        "free": copies.free(settings.datadir),
        **_database(settings, request["node"]),
    }


def _database(settings: Settings, node: str) -> dict[str, Any]:
    state = repair.fresh(settings, node).state() if os.path.isdir(settings.tmpdir) else None
    there = os.path.isdir(settings.datadir) and bool(os.listdir(settings.datadir))
    control = postgres.controldata(settings) if there and settings.bindir else None
    return {
        "data": there,
        "system_identifier": control.system_identifier if control else "",
        "running": postgres.postmaster(settings) is not None,
        "mark": state.mark if state else "",
        "promised": str(state.promised if state else NEVER),
    }


def clone(request: Mapping[str, Any], say: Say) -> dict[str, Any]:
    """Make the data directory a copy of the primary, which lets this node in as soon as it is wished to be a member."""
    settings, node = _settings(request), request["node"]
    postgres.prepare(settings)
    if not os.path.isdir(settings.datadir):
        copies.empty(settings.datadir, settings.pgdba)
    told = [-repair.STEP]

    def hear(seen: Progress) -> None:
        if seen.percent >= told[0] + repair.STEP:
            told[0] = seen.percent
            say(f"{seen.percent} % of {seen.total >> 10} MB")

    one = repair.Repair(settings, node, repair.Wish(rewind=False, rate=request["rate"]), say, hear)
    one.acquire()
    try:
        one.clone()
    finally:
        one.release()
    return {}


VERBS: dict[str, Verb] = {function.__name__: function for function in (look, clone)}
