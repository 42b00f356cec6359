"""cls_setup: bring the cluster's configuration to what config.pcs says, as one change of nothing but our own things."""

from __future__ import annotations

import copy
import os
import re
import sys
import tempfile
from typing import TYPE_CHECKING, cast

from pha4pgsql import arguments, cib, cli, cli_status, config, lock_row, pacemaker, pcs, renderings, replicas, system, text, vote
from pha4pgsql.settings import of_parameters
from pha4pgsql.words import ClusterRefusal, ConfigurationError, EnvironmentFailure

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

    from lxml.etree import _Element as Element

    from pha4pgsql.config import Config
    from pha4pgsql.words import Vote

OLDEST_SCHEMA = (3, 9)
"""Older schemas know neither the role names of today nor `on-fail=demote` (Pacemaker 2.1)."""

ONLY_STOPPED = {
    **dict.fromkeys(("rep_mode", "enable_distlock", "distlock_row"), "elections count by it"),
    **dict.fromkeys(("pgdata", "datadir", "tmpdir", "pgdba", "pgport", "socketdir"), "it tells which instance is meant"),
    "replication_slot_name": "the slots that are there have the old name",
}
"""Parameters that cannot change under a running set, and why: nodes with different values could both be right, or miss what runs."""

LISTED = ("node_list", "sync_count", "sync_strict")
"""Parameters that the primary brings about, step by step, in the list that every member stores (docs/safety.md, rule 9)."""

LOOKED_AT_ANEW = ("pgsql", "pgwatch")
"""Agents whose resources keep running with new parameters when Pacemaker looks at them anew. Addresses and what stands for them must move."""

SETTLE = 60.0
REFRESH = 15.0
"""For the nodes' replies to having been told to look anew. One that just died does not reply, and until the maintenance ends nobody is promoted."""
ATTEMPTS = 3
INVALID = 78
"""CRM_EX_CONFIG: crm_verify's exit code for errors and for warnings."""


def setup(argv: Sequence[str]) -> int:
    """cls_setup: apply config.pcs."""
    parser = arguments.Parser("cls_setup", description="Apply config.pcs to the cluster; what is not ours stays as it is.")
    parser.add_argument("master", nargs="?", default="", help="the first primary, when PostgreSQL does not run yet: it need not be elected")
    parser.add_argument("--config", default=config.beside(sys.argv[0]), metavar="FILE", help="config.ini (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="only say what would change")
    parser.add_argument("--print", choices=renderings.FORMS, dest="form", help="only print the configuration, for pcs, crmsh, or as XML (cibadmin)")
    return cli.main(parser, _setup, argv)


def _setup(options: argparse.Namespace) -> int:
    settings = config.load(options.config)
    if options.form:
        print(renderings.render(settings, options.form, _edited(options)), end="")
        return 0
    if options.master and options.master not in settings.members:
        raise ConfigurationError(f"master: {options.master!r} is not a node that may be primary, expected one of: {' '.join(settings.members)}")
    if not options.dry_run and "CIB_file" not in os.environ:
        cli.need_root()
        cli.need_quorum()
    wanted = _with_row(settings, _wanted(settings, options), dry_run=options.dry_run)
    for _ in range(ATTEMPTS):
        if _attempt(settings, wanted, dry_run=options.dry_run):
            return 0
    raise ClusterRefusal("the cluster's configuration is being changed by somebody else, nothing was changed", "run cls_setup again")


def _wanted(settings: Config, options: argparse.Namespace) -> cib.Wanted:
    source = _beside(options)
    made = pcs.build(pcs.commands(_current(settings, source), source), source)
    follows = settings.stonith_enabled == "auto" and "stonith-enabled" not in cib.properties(made)
    return cib.Wanted(made, settings.pgsql_resource, options.master, follows)


def _beside(options: argparse.Namespace) -> str:
    return os.path.join(os.path.dirname(os.path.abspath(options.config)), "config.pcs")


def _edited(options: argparse.Namespace) -> str:
    """Return the text of a config.pcs that somebody has tuned, else nothing."""
    try:
        with open(_beside(options), encoding="utf-8") as stream:
            content = stream.read()
    except OSError:
        return ""
    return "" if pcs.is_untouched(content) else content


def _with_row(settings: Config, wanted: cib.Wanted, *, dry_run: bool) -> cib.Wanted:
    """Return what is wanted with the identity of the lock's row, which is made if it is not there: agents count on this very row."""
    given = of_parameters(cib.parameters(wanted.made, settings.pgsql_resource), settings.pgsql_resource)
    if not given.enable_distlock:
        return wanted
    where = lock_row.place(given)
    try:
        if dry_run:
            identity = lock_row.find(where) or "(of the row that is to be made)"
        else:
            with open(os.path.join(os.path.dirname(pcs.TEMPLATES), "tools", "distlock_ddl.sql"), encoding="utf-8") as stream:
                identity = lock_row.prepare(where, settings.nodes, stream.read())
    except replicas.Unanswered as silence:
        identity = cib.parameters(cib.read(pacemaker.cib(20)), settings.pgsql_resource).get("distlock_row", "")
        if not identity:
            raise EnvironmentFailure(f"the row of the distributed lock could not be made: {silence.message}", silence.hint) from silence
        print(f"WARNING: the row of the distributed lock could not be looked at, it stays the one it was: {silence.message}", file=sys.stderr)
    return wanted._replace(made=cib.with_parameter(wanted.made, LOOKED_AT_ANEW, "distlock_row", identity))


def _current(settings: Config, source: str) -> str:
    """Return config.pcs: as edited by hand, or as made of this very config.ini."""
    try:
        with open(source, encoding="utf-8") as stream:
            content = stream.read()
    except OSError as wrong:
        raise ConfigurationError(f"{source}: {wrong.strerror}, expected the file that install.sh makes of config.ini", "run install.sh") from None
    if not pcs.is_untouched(content):
        print(f"applying {source} as it was edited by hand; {source}.new is what config.ini makes of it", file=sys.stderr)
    elif content != pcs.render(settings, pcs.TEMPLATES, pcs.pcs_version()):
        raise ConfigurationError(f"{source} was made of another config.ini than the present one", "run install.sh again")
    return content


def _attempt(settings: Config, wanted: cib.Wanted, *, dry_run: bool) -> bool:
    """Merge, check, push and tell; False when somebody else changed the same things meanwhile."""
    live = _live(upgrade=not dry_run)
    if not dry_run and release_left(live):
        live = _live(upgrade=False)
    _refuse_collisions(settings, wanted, live)
    wanted = _with_primary(settings, wanted, live)
    new = cib.with_bans(live, cib.merge(live, wanted), settings.pgsql_resource)
    lines = cib.changes(live, new)
    _refuse_fencing_without_device(new)
    _refuse_second_set(settings, new)
    verify(live, new)
    moved = _running_and_changed(live, new)
    _refuse_what_needs_a_stop(settings, live, new)
    _refuse_to_lose_a_voice(settings, live, new)
    if not dry_run and lines and not (_push_under(moved, wanted, live, new) if moved else push(live, new)):
        return False
    print("\n".join(f"would {line}" if dry_run else line for line in lines) or "nothing to change")
    _warn_of_fencing(new)
    _warn_of_two_nodes(settings, new)
    if lines and not dry_run and not _cluster(live).where(settings.pgsql_resource, "started"):
        print("the cluster is configured; cls_start starts it")
    return True


def _cluster(tree: Element) -> text.Cluster:
    return text.cluster(cast("text.Tree", tree))


def _live(*, upgrade: bool) -> Element:
    """Return the whole CIB of the cluster (or of the file named by CIB_file), its schema brought up to date if need be.

    The upgrade is a step of its own, as Pacemaker demands.
    """
    live = cib.read(pacemaker.cib(20))
    version = tuple(int(number) for number in re.findall(r"\d+", live.get("validate-with", "")))
    if upgrade and version and version < OLDEST_SCHEMA and system.run(["cibadmin", "--upgrade", "--force"], timeout=20).ok:
        live = cib.read(pacemaker.cib(20))
    return live


def _with_primary(settings: Config, wanted: cib.Wanted, live: Element) -> cib.Wanted:
    """Return what is wanted without the operator's primary if that runs as primary already; another one is a refusal."""
    primaries = _cluster(live).where(settings.pgsql_resource, "promoted")
    if not wanted.primary or not primaries:
        _refuse_a_past(settings, wanted.primary)
        return wanted
    if wanted.primary not in primaries:
        raise ClusterRefusal(f"the primary is {primaries[0]}, not {wanted.primary}: nothing was changed", "stop it with cls_stop first")
    return wanted._replace(primary="")


def _refuse_a_past(settings: Config, primary: str) -> None:
    """A first primary can be named only while no member has a term; afterwards their state files decide."""
    known = [] if not primary or "CIB_file" in os.environ else cli_status.votes(settings.pgsql_resource, timeout=3.0).items()
    with_terms = sorted(node for node, vote in known if vote.eras)
    if with_terms:
        raise ClusterRefusal(
            f"{primary} cannot be named as first primary: {' '.join(with_terms)} had a primary before, and elections go by that; nothing was changed",
            "cls_start elects one; to give up the history, see docs/failures.md",
        )


def _refuse_fencing_without_device(new: Element) -> None:
    if cib.properties(new).get("stonith-enabled") == "true" and not cib.has_fencing(new):
        raise ClusterRefusal(
            "stonith-enabled is true, but the cluster has no fencing device: Pacemaker would start nothing; nothing was changed",
            "pcs stonith create ... first, or stonith_enabled=auto in config.ini",
        )


def _refuse_what_needs_a_stop(settings: Config, live: Element, new: Element) -> None:
    """Refuse to change under a running set what its members must agree on, or by which they are found."""
    cluster = _cluster(live)
    before, after = (cib.parameters(tree, settings.pgsql_resource) for tree in (live, new))
    changed = [name for name in ONLY_STOPPED if before.get(name) != after.get(name)]
    if before and any(before.get(name) != after.get(name) for name in LISTED) and _has_history(settings):
        refuse_list(cluster, settings.pgsql_resource, before.get("node_list", "").split(), after.get("node_list", "").split())
        print("members change step by step, under the primary: cls_member list shows how far they are")
    if not [node for role in ("started", "promoted") for node in cluster.where(settings.pgsql_resource, role)]:
        return
    if before and changed:
        lines = "".join(f"\n  {name}: {before.get(name, '')!r} -> {after.get(name, '')!r} ({ONLY_STOPPED[name]})" for name in changed)
        raise ClusterRefusal(
            f"cannot change while {settings.pgsql_resource} runs, nothing was changed:{lines}", "cls_stop, then cls_setup, then cls_start"
        )


def _has_history(settings: Config) -> bool:
    """Whether some member has ever had a primary; before that node_list is what counts, as often as it is corrected."""
    return "CIB_file" in os.environ or any(shown.eras for shown in cli_status.votes(settings.pgsql_resource, timeout=3.0).values())


def _refuse_to_lose_a_voice(settings: Config, live: Element, new: Element) -> None:
    """Refuse to take another row, or none, unless it is certain that nobody is alone: the old one may be the only voice that knows."""
    before, after = (cib.parameters(tree, settings.pgsql_resource) for tree in (live, new))
    same = all(before.get(name) == after.get(name) for name in ("enable_distlock", "distlock_row"))
    if not before or same or "CIB_file" in os.environ:
        return
    shown = cli_status.votes(settings.pgsql_resource, timeout=3.0)
    silent = [node for node in before.get("node_list", "").split() if node not in shown]
    owner = vote.newest_statement(shown.values()).owner
    if silent or owner:
        why = f"{owner} went on alone and the other has not caught up" if owner else f"{' '.join(silent)} cannot be asked whether somebody is alone"
        raise ClusterRefusal(
            f"the row of the distributed lock cannot be given up or replaced: {why}; nothing was changed",
            "bring all nodes up (pgwatch is enough); when somebody is alone, start the set and wait for the standby first",
        )


def refuse_list(cluster: text.Cluster, resource: str, before: Sequence[str], after: Sequence[str]) -> None:
    """Refuse a change of members that could not be brought about, or that a member of an older version would take for the list itself."""
    leaving = [node for node in cluster.where(resource, "promoted") if node not in after]
    if leaving:
        raise ClusterRefusal(f"{leaving[0]} is the primary and cannot be removed, nothing was changed", "let another node take over first")
    if "CIB_file" not in os.environ:
        shown = cli_status.votes(resource, timeout=3.0)
        unlisted = [node for node in before if node in after and not shows_list(cluster, shown, node)]
        if unlisted:
            raise ClusterRefusal(
                f"{' '.join(unlisted)}: no stored list of members is shown there, nothing was changed",
                "bring the node up, with the same version of pha4pgsql as the others; or take it out, too, if it is lost for good",
            )


def shows_list(cluster: text.Cluster, shown: Mapping[str, Vote], node: str) -> bool:
    """Whether a node is there and has a list. One that has none would take for one what is wished only; without one that stays no change ends."""
    return node in cluster.online and node in shown and shown[node].roster.listed


def _refuse_second_set(settings: Config, new: Element) -> None:
    """Refuse two resources on one data directory: the names in config.ini were changed, and the old set is still there."""
    mine = cib.parameters(new, settings.pgsql_resource).get("pgdata")
    for top, primitive in cib.primitives(new, "pha4pgsql", "pgsql"):
        if primitive != settings.pgsql_resource and cib.parameters(new, primitive).get("pgdata") == mine:
            raise ClusterRefusal(
                f"{primitive} in {top} has the data directory {mine} too, expected one resource for it; nothing was changed",
                f"cls_stop and pcs resource delete {top}, or restore the old names in config.ini",
            )


def _refuse_collisions(settings: Config, wanted: cib.Wanted, live: Element) -> None:
    """Refuse what belongs to another set of this cluster: names, directories, ports, addresses."""
    found = cib.collisions(live, wanted.made, settings.pgsql_resource)
    if found:
        lines = "".join(f"\n  {line}" for line in found)
        raise ClusterRefusal(
            f"this would mix with what is in the cluster already, nothing was changed:{lines}",
            "give each set values of its own in its config.ini (docs/sets.md); pcs config shows what is there",
        )


def _running_and_changed(live: Element, new: Element) -> list[str]:
    """Return the sets of ours which Pacemaker would restart for new parameters, and which need no restart."""
    cluster = _cluster(live)
    running = {name for member in cluster.members.values() for name, role in member.roles.items() if role in {"started", "promoted"}}
    ours = [found for kind in LOOKED_AT_ANEW for found in cib.primitives(new, "pha4pgsql", kind)]
    return [top for top, primitive in ours if primitive in running and cib.parameters(live, primitive) != cib.parameters(new, primitive)]


def _push_under(moved: Sequence[str], wanted: cib.Wanted, live: Element, new: Element) -> bool:
    """Push while our resources are in maintenance, and let Pacemaker look anew at those which changed: so they keep running with new parameters.

    Without that Pacemaker would stop and start each of them, on all nodes at once. The addresses are in maintenance too: they would stop
    for the moment in which Pacemaker knows no primary. If this program dies in between, all keep running without being watched.
    """
    return push_under(moved, cib.unheld(new, cib.resources(wanted.made)), live, new)


def push_under(moved: Sequence[str], held: Sequence[str], live: Element, new: Element, say: Callable[[str], None] = print) -> bool:
    """The same for these resources: `moved` get new parameters, all that are `held` are left alone meanwhile."""
    say(f"maintenance of {' '.join(held)} begins (should it not end: pcs resource meta NAME maintenance= for each)")
    if not push(live, cib.with_hold(new, held)):
        return False
    release(moved, held)
    say("maintenance ended")
    return True


def release_left(live: Element, say: Callable[[str], None] = print) -> bool:
    """End the maintenance that a command of ours has left, which was killed in it."""
    left = cib.holds(live)
    if left:
        say(f"the maintenance of {' '.join(left)}, which an interrupted command has left, ends")
        release([top for kind in LOOKED_AT_ANEW for top, _ in cib.primitives(live, "pha4pgsql", kind)], left)
    return bool(left)


def release(moved: Sequence[str], held: Sequence[str]) -> None:
    """Let Pacemaker look anew at what has new parameters, then end the maintenance."""
    try:
        for name in moved:
            system.run(["crm_resource", "--refresh", f"--resource={name}"], timeout=REFRESH)
        if not pacemaker.wait_settled(SETTLE):
            print("Pacemaker has not finished looking at them", file=sys.stderr)
    finally:
        _release(held)


def _release(held: Sequence[str]) -> None:
    """End the maintenance of all in one step; one by one where that does not fit."""
    now = _live(upgrade=False)
    if not push(now, cib.without_meta(now, held, "maintenance")):
        for name in held:
            pacemaker.set_meta(name, "maintenance", None)


def _warn_of_fencing(new: Element) -> None:
    if cib.properties(new).get("stonith-enabled") != "true":
        print(
            "WARNING: fencing is off: a primary that is cut off cannot be switched off, and clients that still reach it may read stale data\n"
            "HINT: create a fencing device (pcs stonith create ...), then run cls_setup again",
            file=sys.stderr,
        )


def _warn_of_two_nodes(settings: Config, new: Element) -> None:
    given = cib.parameters(new, settings.pgsql_resource)
    if len(settings.nodes) != len(("this one", "the other")) or given.get("rep_mode") == "async":
        return
    if given.get("enable_distlock") != "true":
        print(
            "WARNING: two nodes without the row of a distributed lock: when the standby's node is lost, commits wait\n"
            "HINT: pgsql_enable_distlock in config.ini; docs/dual.md tells what else there is",
            file=sys.stderr,
        )
    elif cib.properties(new).get("stonith-enabled") != "true":
        print(
            "WARNING: two nodes without fencing: when they lose each other both may run as primary. The row lets only one of them acknowledge,\n"
            "WARNING: but both may hold the writer address, and the other serves stale reads to whoever reaches it, until it has asked the row",
            file=sys.stderr,
        )


def verify(live: Element, new: Element) -> None:
    """Ask Pacemaker's own checker; what it refuses is never pushed. What it says of the live configuration, too, is not of our making."""
    passes, said = _judgement(new)
    if passes:
        return
    before = _judgement(live)[1]
    ours = [line for line in said if line not in before]
    if ours:
        found = "".join(f"\n  {line}" for line in ours)
        raise ClusterRefusal(f"the new configuration does not pass crm_verify, nothing was changed:{found}", "correct what it names, and try again")
    print("\n".join(["WARNING: crm_verify complains, as it did before:", *(f"WARNING:   {line}" for line in said)]), file=sys.stderr)


def _judgement(tree: Element) -> tuple[bool, list[str]]:
    """Whether crm_verify lets a configuration pass, and what it says. The nodes' state is left out: it complains of one that is to be fenced."""
    bare = copy.deepcopy(tree)
    for state in bare.iterfind("status"):
        state.clear()
    with tempfile.NamedTemporaryFile("w", prefix="pha4pgsql.", suffix=".xml", encoding="utf-8") as stream:
        stream.write(cib.write(bare))
        stream.flush()
        done = system.run(["crm_verify", "-VV", "--xml-file", stream.name], timeout=20)
    if done.code not in {0, INVALID}:
        raise EnvironmentFailure(f"crm_verify gave no judgement, nothing was changed: {done.err.strip() or f'exit code {done.code}'}")
    lines = (re.sub(r"^\S*\.xml:\d+: |^\(\w+\)\s+", "", line) for line in done.err.splitlines())
    said = [line for line in dict.fromkeys(lines) if not line.startswith("crm_verify: ")]
    return done.ok, said or [f"exit code {done.code}"]


def push(old: Element, new: Element) -> bool:
    """Change the live CIB by the difference of the two, in one step; what others changed meanwhile stays. False: it did not fit any more."""
    with tempfile.TemporaryDirectory(prefix="pha4pgsql.") as folder:
        paths = [os.path.join(folder, name) for name in ("old.xml", "new.xml")]
        system.write_file(paths[0], cib.write(old))
        system.write_file(paths[1], cib.write(new))
        patch = system.run(["crm_diff", "--no-version", "--original", paths[0], "--new", paths[1]], timeout=20)
    if patch.code not in {0, 1}:
        raise EnvironmentFailure(f"crm_diff failed: {patch.err.strip()}")
    return not patch.out.strip() or system.run(["cibadmin", "--patch", "--xml-pipe"], text=patch.out, timeout=30).ok
